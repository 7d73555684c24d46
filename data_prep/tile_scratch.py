"""The scratch file of a pyramid in the making: an MBTiles (SQLite) that remembers what is done.

Knows nothing of rasters or pixels. A killed build finds its finished work here.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from zoomloc.errors import OutputError
from zoomloc.world.cells import Cell

TABLES = """
CREATE TABLE metadata (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE tiles (zoom_level INTEGER, tile_column INTEGER, tile_row INTEGER, tile_data BLOB,
                    PRIMARY KEY (zoom_level, tile_column, tile_row));
CREATE TABLE done (work TEXT PRIMARY KEY);
"""


class TileScratch:
    """Tiles and finished pieces of work, each piece stored whole or not at all."""

    def __init__(self, path: Path, job_hash: str) -> None:
        self.path = path
        with self._told():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._db = self._opened()
                known = _job_hash(self._db)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:  # not a database: cut off by a crash of the machine
                known = None
            if known != job_hash:
                self.remove()
                self._db = self._opened()
                self._db.executescript(TABLES)
                self._db.execute("INSERT INTO metadata VALUES ('job_hash', ?)", (job_hash,))
                self._db.commit()

    def finished(self) -> set[str]:
        """Names of the pieces of work that are stored."""
        with self._told():
            return {row[0] for row in self._db.execute("SELECT work FROM done")}

    def store(self, work: str, tiles: Iterable[tuple[Cell, bytes]]) -> None:
        """Keep the tiles of a piece of work and its name, together."""
        rows = [(c.level, c.x, (1 << c.level) - 1 - c.y, data) for c, data in tiles]
        with self._told(), self._db:
            self._db.executemany("INSERT OR REPLACE INTO tiles VALUES (?, ?, ?, ?)", rows)
            self._db.execute("INSERT OR REPLACE INTO done VALUES (?)", (work,))

    def cells(self, level: int) -> list[Cell]:
        """The stored tiles of a level, sorted."""
        sql = "SELECT tile_column, tile_row FROM tiles WHERE zoom_level = ?"
        with self._told():
            found = self._db.execute(sql, (level,)).fetchall()
        return sorted(Cell(level, x, (1 << level) - 1 - y) for x, y in found)

    def read(self, cell: Cell) -> bytes:
        """Bytes of a stored tile."""
        sql = "SELECT tile_data FROM tiles WHERE zoom_level=? AND tile_column=? AND tile_row=?"
        with self._told():
            at = (cell.level, cell.x, (1 << cell.level) - 1 - cell.y)
            row = self._db.execute(sql, at).fetchone()
        return bytes(row[0])

    def tiles(self) -> Iterator[tuple[Cell, bytes]]:
        """All tiles, coarse levels first."""
        with self._told():
            for z, x, y, data in self._db.execute("SELECT * FROM tiles ORDER BY 1, 2, 3"):
                yield Cell(z, x, (1 << z) - 1 - y), bytes(data)

    def close(self) -> None:
        """Let go of the file and keep it."""
        self._db.close()

    def remove(self) -> None:
        """Delete the file: its work is done, or is other work."""
        self._db.close()
        _unlink(self.path)

    @staticmethod
    def remove_left_over(path: Path, job_hash: str) -> None:
        """Delete the file of a job whose pyramid stands: a kill came between the two.

        Another job's file stays, and one that another process works on.
        """
        if not path.exists():
            return
        known = None
        with contextlib.suppress(sqlite3.Error):  # in use, or damaged
            with contextlib.closing(sqlite3.connect(path, timeout=0)) as database:
                known = _job_hash(database)
        if known == job_hash:
            _unlink(path)

    def _opened(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=1.0)
        self._db = database  # also where the next lines fail, so that remove() can close it
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("BEGIN EXCLUSIVE").execute("COMMIT")
        return database

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what SQLite and the disk say into one line."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            locked = "locked" in str(error)
            why = (
                "another build is writing it; wait for it or end it"
                if locked
                else f"{error}; free some space on the disk and run the same command again, "
                "finished tiles are kept"
            )
            raise OutputError(f"cannot write {self.path}: {why}") from error


def _job_hash(database: sqlite3.Connection) -> str | None:
    """What job a scratch file is of, if its tables are there."""
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'done'").fetchone():
        return None
    row = database.execute("SELECT value FROM metadata WHERE name = 'job_hash'").fetchone()
    return None if row is None else str(row[0])


def _unlink(path: Path) -> None:
    """Delete a database and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
