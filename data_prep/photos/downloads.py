"""Photos that servers give: found box by box, kept as rows and files, gone on with where it ended.

Knows nothing of any server's addresses or answers. Whatever instant a run is killed at, the next
one goes on from there: pictures appear whole, and a row says that its picture is there only after
it is. Boxes that were answered are not asked for again; without the file, all are.

    photos.fetched.sqlite          photos(source, id, ...) and boxes(source, box, state)
    photos/NAME/SEQUENCE/ID.jpg    pictures as they came
"""

import json
import sqlite3
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from data_prep.imagery.web import NoAnswer
from data_prep.photos.asked import Box, Entry, Wanted
from data_prep.photos.reading import Found, NothingThere, Task
from zoomloc.config.photos import ServedPhotos
from zoomloc.errors import OutputError, PhotoError
from zoomloc.world.files import written_whole
from zoomloc.world.images import check_whole, opened
from zoomloc.world.photos import Photo, Skipped

STORE_NAME, FOLDER_NAME = "photos.fetched.sqlite", "photos"
TABLES = """
CREATE TABLE IF NOT EXISTS photos (
 source TEXT, id TEXT, sequence TEXT, taken_ms INTEGER, lat REAL, lng REAL, facts TEXT,
 state TEXT, reason TEXT, size TEXT, PRIMARY KEY (source, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_drive ON photos (source, sequence, taken_ms, id);
CREATE TABLE IF NOT EXISTS boxes (
 source TEXT, box TEXT, state TEXT, PRIMARY KEY (source, box)) WITHOUT ROWID;
"""
FOUND, KEPT, LEFT = "found", "kept", "left"  # of a photo: its picture is to come, here, no more
WHOLE, SPLIT = "whole", "split"  # of a box
PAGE = 1000  # rows in memory
HOPELESS = 25  # pictures in a row that did not come: the server is gone
HOPELESS_BOXES = 12
DEEPEST_SILENT = 4  # how often boxes are quartered that get no answer
NO_TIME = -1

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


class Left(Exception):
    """A photo whose picture a server no longer has; the reason, for skipped.parquet."""


@dataclass(frozen=True)
class Row:
    """An entry and what became of its picture."""

    entry: Entry
    state: str
    reason: str
    size: str


class Server(Protocol):
    """One server of photos. ``ask`` and ``picture`` are called from several threads."""

    name: str  # of its folder
    side_deg: float  # of the boxes that it is asked for at first
    size: str  # of its pictures
    url: str  # without secrets

    @property
    def plan(self) -> ServedPhotos:
        """What the config says of it."""

    def ask(self, box: Box) -> list[Entry] | None:
        """All photos of a box; None where there may be more. Raises NoAnswer, PhotoError."""

    def picture(self, entry: Entry) -> bytes:
        """A JPEG, as far as its ends tell. Raises Left, NoAnswer, PhotoError."""

    def photo(self, entry: Entry, path: Path) -> Photo | Skipped:
        """What the photo table is told."""


def read_served(server: Server, task: Task) -> Found:
    """Find and fetch the photos of a region, then give them by sequence, time and id.

    Raises NothingThere where none is found, PhotoError where there is no region, too many are
    found or some did not come, OutputError where the disk is full.
    """
    if task.ground is None:
        raise PhotoError(
            f"{server.url}: which ground? a server of photos needs a region; make its tiles first "
            "('zoomloc tiles'), or name bounds, a polygon or a place"
        )
    wanted = Wanted.of(task.ground, server.plan)
    with opened_store(task.out / STORE_NAME, f"{server.name} {server.url}") as store:
        _sweep(task.out / FOLDER_NAME / server.name)
        count = store.count(wanted)
        _search(server, store, wanted, count)
        total = store.count(wanted)
        if total == 0:
            store.forget_boxes()  # there may be some next time
            raise NothingThere(
                f"{server.url}: no photo in the region{_dates_told(server.plan)}; look at its map "
                "in a browser, then take other ground, other days or another source"
            )
        _refuse_many(server, total)
        _download(server, store, wanted, total, task)
        for row in store.rows(wanted):
            found = server.photo(row.entry, picture_path(task.out, server, row.entry))
            gone = row.state == LEFT and isinstance(found, Photo)
            yield Skipped(label_of(server.name, row.entry.id), row.reason) if gone else found


def picture_path(out: Path, server: Server, entry: Entry) -> Path:
    """Where a photo's picture lies; its parts are checked names."""
    return out / FOLDER_NAME / server.name / (entry.sequence or "none") / f"{entry.id}.jpg"


def label_of(name: str, photo_id: str) -> str:
    """What a photo is called in tables, unlike those of any other source."""
    return f"{name}/{photo_id}"


def is_refused(error: NoAnswer) -> bool:
    """Whether a server has answered, and will answer the same again."""
    return error.status is not None and error.status < 500


def picture_fault(kind: str, body: bytes) -> str | None:
    """What is wrong with an answer that should be a JPEG: no byte but its first and last tell."""
    if not body.startswith(b"\xff\xd8\xff"):
        stated = kind.split(";")[0].strip() or "something unnamed"
        return f"answers {stated[:60]} ({len(body):,} bytes) that is no JPEG"
    if b"\xff\xd9" not in body[-64:]:  # cannot occur in the middle of pixels
        return f"answers a JPEG that breaks off after {len(body):,} bytes"
    return None


# 1. searching


def _dates_told(plan: ServedPhotos) -> str:
    since = f" from {plan.first}" if plan.first else ""
    return since + (f" until {plan.last}" if plan.last else "")


def _refuse_many(server: Server, count: int) -> None:
    if count > server.plan.most:
        raise PhotoError(
            f"{server.url}: more than {server.plan.most:,} photos in the region; take less ground "
            "or fewer days (first, last), or raise 'most' of the source"
        )


def _search(server: Server, store: "Store", wanted: Wanted, count: int) -> None:
    """Ask for each box that was not answered yet; boxes that hold too many are quartered."""
    begin = wanted.boxes(server.side_deg)
    split: deque[Box] = deque()

    def more() -> Box | None:
        while (box := split.popleft() if split else next(begin, None)) is not None:
            state = store.box_state(_key(box, wanted))
            if state is None:
                return box
            if state == SPLIT:
                split.extend(wanted.reached(box.quarters()))
        return None

    silent = 0
    with closing(_worked(more, server.ask, server.plan.at_once)) as answers:
        for box, future in answers:
            try:
                entries = future.result()
            except NoAnswer as error:
                silent += 1
                gone = is_refused(error) or error.unreached or silent >= HOPELESS_BOXES
                if gone or box.depth >= DEEPEST_SILENT:
                    kept = "" if error.unreached else "; what came is kept, run again"
                    raise PhotoError(f"{error}{kept}") from error
                entries = None
            else:
                silent = 0
            if entries is None:
                split.extend(wanted.reached(box.quarters()))
                store.add([], [], _key(box, wanted), SPLIT)
            else:
                count += store.add(entries, wanted.flags(entries), _key(box, wanted), WHOLE)
                _refuse_many(server, count)


def _key(box: Box, wanted: Wanted) -> str:
    return f"{wanted.dates} {box.side_deg:g}/{box.depth}/{box.x}/{box.y}"


def _worked(
    more: Callable[[], _Job | None], work: Callable[[_Job], _Result], at_once: int
) -> Generator[tuple[_Job, "Future[_Result]"], None, None]:
    """Each job with its end, in any order; only a few are under way or waiting at a time."""
    with ThreadPoolExecutor(at_once) as pool:
        waiting: dict[Future[_Result], _Job] = {}
        try:
            while True:
                while len(waiting) < 2 * at_once and (job := more()) is not None:
                    waiting[pool.submit(work, job)] = job
                if not waiting:
                    return
                ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ready:
                    yield waiting.pop(future), future
        finally:
            for future in waiting:
                future.cancel()


# 2. fetching


def _download(server: Server, store: "Store", wanted: Wanted, total: int, task: Task) -> None:
    """Fetch the pictures that are not there. Raises PhotoError where some do not come."""
    missing = sum(1 for _ in _pending(server, store, wanted, task.out))
    pending = _pending(server, store, wanted, task.out)
    fault, in_a_row = "", 0
    with closing(
        _worked(lambda: next(pending, None), server.picture, server.plan.at_once)
    ) as answers:
        for done, (entry, future) in enumerate(answers, total - missing + 1):
            path = picture_path(task.out, server, entry)
            try:
                _settle(server, store, entry, path, future)
                in_a_row = 0
            except NoAnswer as error:
                fault, in_a_row = fault or str(error), in_a_row + 1
            if task.progress is not None:
                task.progress(done, total)
            if in_a_row >= HOPELESS:
                break
    if fault:
        missing = sum(1 for _ in _pending(server, store, wanted, task.out))
        raise PhotoError(
            f"{server.url}: {missing:,} of {total:,} photos did not come ({fault}); what came is "
            "kept, run the same command again"
        )


def _pending(server: Server, store: "Store", wanted: Wanted, out: Path) -> Iterator[Entry]:
    """What is still to be fetched."""
    for row in store.rows(wanted):
        path = picture_path(out, server, row.entry)
        here = row.state == KEPT and row.size == server.size and path.exists()
        of_use = row.state != LEFT and isinstance(server.photo(row.entry, path), Photo)
        if of_use and not here:
            yield row.entry


def _settle(
    server: Server, store: "Store", entry: Entry, path: Path, future: "Future[bytes]"
) -> None:
    """Keep a picture that came, or the reason why it never will. Raises NoAnswer."""
    try:
        _keep(path, future.result())
        store.note(entry, KEPT, size=server.size)
    except Left as reason:
        store.note(entry, LEFT, reason=str(reason))


def _keep(path: Path, body: bytes) -> None:
    """Write a picture, whole; by one thread. Raises Left where no picture can be read of it."""
    try:
        with written_whole(path) as temporary:
            temporary.write_bytes(body)
            with opened(temporary) as image:
                check_whole(image)
    except PhotoError as error:
        why = str(error).rsplit(".tmp: ", 1)[-1]
        raise Left(f"its picture cannot be read ({why})") from error


def _sweep(folder: Path) -> None:
    """Remove what a killed run had begun to write; the store's lock keeps other runs away."""
    for begun in folder.rglob(".*.tmp"):
        begun.unlink(missing_ok=True)


# 3. the store


class Store:
    """Rows of one source. Used by one thread."""

    def __init__(self, database: sqlite3.Connection, source: str) -> None:
        self.database, self.source = database, source

    def add(self, entries: Sequence[Entry], flags: Sequence[bool], box: str, state: str) -> int:
        """Note an answer, in one transaction; how many of the flagged entries are new."""
        before = self.database.total_changes
        with self.database:
            self._insert(e for e, flag in zip(entries, flags, strict=True) if flag)
            new = self.database.total_changes - before
            self._insert(e for e, flag in zip(entries, flags, strict=True) if not flag)
            note = "INSERT OR REPLACE INTO boxes VALUES (?, ?, ?)"
            self.database.execute(note, (self.source, box, state))
        return new

    def _insert(self, entries: Iterable[Entry]) -> None:
        rows = (
            (self.source, e.id, e.sequence, NO_TIME if e.taken_ms is None else e.taken_ms,
             e.lat, e.lng, json.dumps(e.facts), FOUND, "", "")
            for e in entries
        )  # fmt: skip
        into = "INSERT OR IGNORE INTO photos VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        self.database.executemany(into, rows)

    def box_state(self, box: str) -> str | None:
        """What is known of a box."""
        query = "SELECT state FROM boxes WHERE source = ? AND box = ?"
        found = self.database.execute(query, (self.source, box)).fetchone()
        return None if found is None else str(found[0])

    def forget_boxes(self) -> None:
        """Let all boxes be asked for again."""
        with self.database:
            self.database.execute("DELETE FROM boxes WHERE source = ?", (self.source,))

    def rows(self, wanted: Wanted) -> Iterator[Row]:
        """What is meant, by sequence, time and id, a page at a time: rows may change meanwhile."""
        after: tuple[str, int, str] = ("", NO_TIME - 1, "")
        query = (
            "SELECT sequence, taken_ms, id, lat, lng, facts, state, reason, size FROM photos"
            " WHERE source = ? AND (sequence, taken_ms, id) > (?, ?, ?)"
            f" ORDER BY sequence, taken_ms, id LIMIT {PAGE}"
        )
        while page := self.database.execute(query, (self.source, *after)).fetchall():
            rows = [_row(values) for values in page]
            flags = wanted.flags([row.entry for row in rows])
            yield from (row for row, flag in zip(rows, flags, strict=True) if flag)
            after = tuple(page[-1][:3])

    def count(self, wanted: Wanted) -> int:
        """How many are meant of those found."""
        return sum(1 for _ in self.rows(wanted))

    def note(self, entry: Entry, state: str, reason: str = "", size: str = "") -> None:
        """Note what became of a picture, at once: a run may be killed before the next one."""
        update = "UPDATE photos SET state = ?, reason = ?, size = ? WHERE source = ? AND id = ?"
        with self.database:
            self.database.execute(update, (state, reason, size, self.source, entry.id))


def _row(values: tuple[Any, ...]) -> Row:
    sequence, taken, photo_id, lat, lng, facts, state, reason, size = values
    when = None if taken == NO_TIME else taken
    return Row(Entry(photo_id, sequence, when, lat, lng, json.loads(facts)), state, reason, size)


@contextmanager
def opened_store(path: Path, source: str) -> Iterator[Store]:
    """The store, for this run alone; what SQLite and the disk say becomes one line."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=1.0)) as database:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")  # a note costs no wait for the disk
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(f"BEGIN EXCLUSIVE;{TABLES}COMMIT;")
            yield Store(database, source)
    except sqlite3.DatabaseError as error:
        if "locked" in str(error):
            raise OutputError(f"{path}: another run fetches photos; wait for its end") from error
        raise OutputError(
            f"{path}: {error}; free some space or delete the file, then run again"
        ) from error
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from error
