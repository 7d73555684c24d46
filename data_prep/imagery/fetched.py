"""Tiles fetched from servers: kept in one file as they came, and drawn from there.

Knows nothing of what addresses look like. A fetch that was interrupted goes on where it ended;
what a server does not give is counted, and an incomplete fetch is an error, never a hole.

    imagery.fetched.sqlite    tiles(source, x, y, body); body is NULL where there is nothing
"""

import hashlib
import io
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol

import numpy as np
import shapely
from PIL import Image
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from data_prep.imagery.grids import Address, GridPicture, TileGrid
from data_prep.imagery.sheets import RGBA, Placed
from data_prep.imagery.warp import warped
from data_prep.imagery.web import Manners, NoAnswer, Web
from zoomloc.config.imagery import NetworkSource
from zoomloc.errors import ImageryError, OutputError
from zoomloc.world.cells import Cell, LatLng

CACHE_NAME = "imagery.fetched.sqlite"
TABLE = (
    "CREATE TABLE IF NOT EXISTS tiles"
    " (source TEXT, x INTEGER, y INTEGER, body BLOB, PRIMARY KEY (source, x, y)) WITHOUT ROWID"
)
TOGETHER = 64  # tiles that are written in one transaction
HOPELESS = 25  # tiles in a row that did not come: the server is gone
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF")
TYPICAL_BYTES = 0.35  # of a pixel of aerial imagery as JPEG or WebP, for an estimate

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FetchedTiles(Placed):
    """A sheet of tiles that lie in the cache."""

    grid: TileGrid
    source: str  # what tells it from others: its template and parameters, without secrets
    cache: Path
    stamp: str = ""  # a digest of what came

    def identity(self) -> list[object]:
        """The source and what came of it."""
        return [self.source, self.stamp]

    def draw(self, block: Cell, side_px: int) -> RGBA | None:
        """(4, side_px, side_px) of a block, or None where it does not reach."""

        def tile(at: Address) -> RGBA | None:
            return _decoded(self.cache, self.source, at)

        return warped(GridPicture(self.grid, tile), block, side_px)


@dataclass(frozen=True)
class Order:
    """Tiles that a sheet needs, and how they are asked for."""

    sheet: FetchedTiles
    tiles: tuple[Address, ...]
    manners: Manners
    address: Callable[[Address], str]  # with secrets
    told: Callable[[Address], str]  # without

    def cost(self) -> tuple[int, float, float]:
        """Tiles still to come, and about how many bytes and seconds they take."""
        known = known_tiles(self.sheet.cache, self.sheet.source)
        left = sum(1 for at in self.tiles if at not in known)
        width, height = self.sheet.grid.tile_px
        return left, left * width * height * TYPICAL_BYTES, left / self.manners.rate_per_s


class AddressOf(Protocol):
    """The address of a tile; with ``secrets=False`` as messages may show it."""

    def __call__(self, at: Address, secrets: bool = True) -> str:
        """Of column and row."""


def order_of(
    source: NetworkSource,
    key: str,
    grid: TileGrid,
    ground: BaseGeometry,
    cache: Path,
    address: AddressOf,
) -> Order:
    """What has to be fetched of a grid to show some ground. Raises ImageryError where nothing.

    ``key`` names source and layer without secrets.
    """
    name = key.split("?", 1)[0]
    tiles = grid.tiles_under(ground)
    if not tiles:
        raise ImageryError(f"{name}: its grid does not reach the region")
    held = grid.ground_of(tiles)
    turns = [translate(held, turn).intersection(ground) for turn in (-360.0, 0.0, 360.0)]
    shown = shapely.union_all(turns)  # the ground's lng may pass 180
    middle = shown.representative_point()
    center = LatLng(middle.y, (middle.x + 180) % 360 - 180)
    sheet = FetchedTiles(name, shown, center, grid.gsd_m(center), grid, key, cache)
    manners = Manners(
        source.rate_per_s, source.at_once, source.retries, source.timeout_s, source.headers
    )
    return Order(sheet, tuple(tiles), manners, address, partial(address, secrets=False))


def known_tiles(cache: Path, source: str) -> set[Address]:
    """Tiles of a source that were answered, with imagery or without."""
    if not cache.exists():
        return set()
    with _opened(cache) as database:
        found = database.execute("SELECT x, y FROM tiles WHERE source = ?", (source,))
        return {(x, y) for x, y in found}


def fetch(order: Order, progress: Progress | None = None) -> int:
    """Fetch what is not there yet; how many of the order's tiles hold imagery.

    Raises NoAnswer where some did not come (those that did are kept), ImageryError where none
    holds imagery, OutputError where the disk is full.
    """
    cache, source = order.sheet.cache, order.sheet.source
    known = known_tiles(cache, source)
    wanted = [at for at in order.tiles if at not in known]
    cache.parent.mkdir(parents=True, exist_ok=True)
    with _opened(cache) as database, Web(order.manners) as web:
        database.execute(TABLE)
        failed = _fetch_all(order, wanted, web, database, progress)
        count = "SELECT count(*) FROM tiles WHERE source = ? AND body IS NOT NULL"
        (held,) = database.execute(count, (source,)).fetchone()
    if failed:
        raise NoAnswer(
            f"{order.sheet.name}: {len(failed):,} of {len(order.tiles):,} tiles did not come "
            f"({failed[0]}); what came is kept, run the same command again"
        )
    if not held:
        raise ImageryError(
            f"{order.sheet.name}: the server has no imagery for any of {len(order.tiles):,} tiles; "
            "check level, region and layer"
        )
    return int(held)


def digest_of(cache: Path, source: str) -> str:
    """Short digest of all that came of a source."""
    found = hashlib.sha256()
    with _opened(cache) as database:
        rows = "SELECT x, y, body FROM tiles WHERE source = ? ORDER BY x, y"
        for x, y, body in database.execute(rows, (source,)):
            found.update(f"{x} {y} {hashlib.sha256(body or b'').hexdigest()}\n".encode())
    return found.hexdigest()[:16]


def _fetch_all(
    order: Order,
    wanted: Sequence[Address],
    web: Web,
    database: sqlite3.Connection,
    progress: Progress | None,
) -> list[str]:
    """What was said of tiles that did not come; the others are stored as they come."""
    done, failed, in_a_row = len(order.tiles) - len(wanted), list[str](), 0
    arrived: list[tuple[str, int, int, bytes | None]] = []
    queue = iter(wanted)
    with ThreadPoolExecutor(order.manners.at_once) as pool:
        waiting: dict[Future[bytes | None], Address] = {}
        try:
            while True:
                _ask_for_more(queue, waiting, pool, order, web)
                if not waiting:
                    break
                ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ready:
                    at = waiting.pop(future)
                    try:
                        arrived.append((order.sheet.source, *at, future.result()))
                        in_a_row = 0
                    except NoAnswer as error:
                        failed.append(str(error))
                        in_a_row += 1
                    done += 1
                if len(arrived) >= TOGETHER:
                    _store(database, arrived)
                if progress is not None:
                    progress(done, len(order.tiles))
                if in_a_row >= HOPELESS:
                    failed += ["not asked for any more"] * len(list(queue))
                    break
        finally:
            for future in waiting:
                future.cancel()
            _store(database, arrived)
    return failed


def _ask_for_more(
    queue: Iterator[Address],
    waiting: dict["Future[bytes | None]", Address],
    pool: ThreadPoolExecutor,
    order: Order,
    web: Web,
) -> None:
    """Keep as many requests waiting as the manners allow, and a few more at hand."""
    while len(waiting) < 2 * order.manners.at_once:
        at = next(queue, None)
        if at is None:
            return
        check = partial(picture_fault, order.sheet.grid.tile_px)
        waiting[pool.submit(web.get, order.address(at), order.told(at), check)] = at


def picture_fault(size_px: tuple[int, int], kind: str, body: bytes) -> str | None:
    """What is wrong with an answer that should be a whole picture of that size."""
    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as picture:
            if picture.size != size_px:
                return f"answers a picture of {picture.size} px where {size_px} are announced"
            picture.load()
    except Image.DecompressionBombError:
        return "answers a picture that is far too large"
    except (OSError, SyntaxError, ValueError, EOFError):
        stated = kind.split(";")[0].strip() or "something unnamed"
        return f"answers {stated} ({len(body):,} bytes) that is no whole picture"
    return None


def _store(database: sqlite3.Connection, arrived: list[tuple[str, int, int, bytes | None]]) -> None:
    with database:
        database.executemany("INSERT OR REPLACE INTO tiles VALUES (?, ?, ?, ?)", arrived)
    arrived.clear()


@lru_cache(maxsize=4)
def _reader(cache: Path) -> sqlite3.Connection:
    """A connection kept for drawing."""
    return sqlite3.connect(f"{cache.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False)


@lru_cache(maxsize=64)
def _decoded(cache: Path, source: str, at: Address) -> RGBA | None:
    """RGBA (4, h, w) of a fetched tile. Raises ImageryError where it was never fetched."""
    row = _reader(cache).execute(
        "SELECT body FROM tiles WHERE source = ? AND x = ? AND y = ?", (source, *at)
    )
    found = row.fetchone()
    if found is None or found[0] is None:
        return None
    with Image.open(io.BytesIO(found[0]), formats=FORMATS) as picture:
        return np.moveaxis(np.asarray(picture.convert("RGBA")), 2, 0)


def forget_fetched() -> None:
    """Close what drawing left open in this process."""
    _decoded.cache_clear()
    _reader.cache_clear()


@contextmanager
def _opened(cache: Path) -> Iterator[sqlite3.Connection]:
    """The cache, open; what SQLite and the disk say becomes one line."""
    try:
        with closing(sqlite3.connect(cache, timeout=5.0)) as database:
            yield database
    except sqlite3.DatabaseError as error:
        raise OutputError(
            f"{cache}: {error}; free some space or delete the file, then run again"
        ) from error
