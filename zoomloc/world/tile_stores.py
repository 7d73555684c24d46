"""Which tiles lie in a PMTiles file, an MBTiles file or a z/x/y folder, and their bytes.

Knows nothing of pixels, views or regions: a tile is bytes under a Cell.
"""

import hashlib
import json
import mmap
import re
import sqlite3
import zlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pmtiles.tile import Compression, HeaderDict, TileType, deserialize_header

from zoomloc.errors import ImageryError
from zoomloc.world.cells import MAX_LEVEL, Cell, Ints

Columns = dict[int, tuple[Ints, Ints]]  # level -> (columns, rows) of its stored tiles

MAX_TILES = 1 << 26  # more entries than this in one file are a lie or need another reader
MAX_DIRECTORY_BYTES = 1 << 28  # unpacked; a directory of MAX_TILES fits
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class TileStore(Protocol):
    """What a pyramid reads its tiles from."""

    metadata: dict[str, Any]

    def columns_rows(self) -> Columns:
        """Columns and rows of the stored tiles, by level."""

    def read(self, cell: Cell) -> bytes | None:
        """Bytes of a tile as stored, or None. Raises ImageryError where they cannot be read."""

    def fingerprint(self) -> bytes:
        """What tells this content from other content."""

    def close(self) -> None:
        """Let go of the file."""


def open_store(path: Path) -> TileStore:
    """The store at a path: by content for files (PMTiles, MBTiles), z/x/y for folders.

    Raises ImageryError where it is missing, damaged or holds no pictures.
    """
    if path.is_dir():
        return FolderStore(path)
    try:
        with path.open("rb") as file:
            magic = file.read(16)
    except FileNotFoundError as error:
        raise ImageryError(f"{path}: no such pyramid; make it with 'zoomloc tiles'") from error
    except OSError as error:
        raise ImageryError(f"{path}: cannot be read ({error.strerror})") from error
    if magic[:7] == b"PMTiles":
        return PMTilesStore(path)
    if magic[:15] == b"SQLite format 3":
        return MBTilesStore(path)
    raise ImageryError(
        f"{path}: neither PMTiles, MBTiles nor a z/x/y folder; "
        "make a pyramid of a raster with 'zoomloc tiles --raster'"
    )


# 1. PMTiles v3 (https://github.com/protomaps/PMTiles/blob/main/spec/v3/spec.md)


class PMTilesStore:
    """A PMTiles v3 file, memory-mapped; its directories are read once, as arrays."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            self._header = self._checked_header()
            self.metadata = self._read_metadata()
            ids, self._offsets, self._lengths = self._entries()
        except (ValueError, EOFError, IndexError, KeyError, OverflowError, zlib.error) as error:
            raise ImageryError(
                f"{path}: damaged PMTiles file ({error}); copy it again or rebuild it"
            ) from error
        self._ids = ids

    def columns_rows(self) -> Columns:
        """Columns and rows of the stored tiles, by level."""
        firsts = np.array([((1 << 2 * z) - 1) // 3 for z in range(MAX_LEVEL + 2)], np.int64)
        levels = np.searchsorted(firsts, self._ids, side="right") - 1
        return {
            int(z): hilbert_cells(self._ids[levels == z] - firsts[z], int(z))
            for z in np.unique(levels)
        }

    def read(self, cell: Cell) -> bytes | None:
        """Bytes of a tile, unpacked where the file packs them."""
        wanted = tile_id(cell)
        at = int(np.searchsorted(self._ids, wanted))
        if at == len(self._ids) or self._ids[at] != wanted:
            return None
        start = self._header["tile_data_offset"] + int(self._offsets[at])
        data = self._map[start : start + int(self._lengths[at])]
        try:
            return _unpacked(data, self._header["tile_compression"])
        except (ValueError, zlib.error) as error:
            raise ImageryError(f"{self.path}: tile {cell.quadkey}: {error}") from error

    def fingerprint(self) -> bytes:
        """Header, directories and metadata: they name the place and length of every tile."""
        head = self._header
        size = head["leaf_directory_length"]
        leaves = self._map[head["leaf_directory_offset"] : head["leaf_directory_offset"] + size]
        root = self._map[: head["metadata_offset"] + head["metadata_length"]]
        return hashlib.sha256(root + leaves).digest()

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()

    def _checked_header(self) -> HeaderDict:
        """The header, its promises compared with the file's size and kind."""
        if len(self._map) < 127 or self._map[7] != 3:
            raise ValueError("no PMTiles header of version 3")
        header = deserialize_header(self._map[:127])
        if header["tile_type"] not in (TileType.PNG, TileType.JPEG, TileType.WEBP):
            raise ImageryError(
                f"{self.path}: holds {header['tile_type'].name} tiles; PNG, JPEG or WebP are needed"
            )
        promised = header["tile_data_offset"] + header["tile_data_length"]
        if len(self._map) < promised:
            raise ImageryError(
                f"{self.path}: cut off at {len(self._map):,} of {promised:,} bytes; copy it again"
            )
        return header

    def _read_metadata(self) -> dict[str, Any]:
        raw = self._section(self._header["metadata_offset"], self._header["metadata_length"])
        found = json.loads(raw) if raw else {}
        return found if isinstance(found, dict) else {}

    def _section(self, offset: int, length: int) -> bytes:
        return _unpacked(self._map[offset : offset + length], self._header["internal_compression"])

    def _entries(self) -> tuple[Ints, Ints, Ints]:
        """Tile ids (sorted), offsets and lengths of all tiles, leaf directories followed."""
        head = self._header
        pending = [self._section(head["root_offset"], head["root_length"])]
        found: list[Ints] = []  # each (4, n): id, offset, length, run length
        for _ in range(4):  # the deepest nesting that readers must follow
            leaves: list[bytes] = []
            for raw in pending:
                table = directory_table(raw)
                found.append(table[:, table[3] > 0])
                for offset, length in table[1:3, table[3] == 0].T.tolist():
                    leaves.append(self._section(head["leaf_directory_offset"] + offset, length))
            pending = leaves
        ids, offsets, lengths, runs = np.concatenate(found, axis=1)
        if runs.sum() > MAX_TILES:
            raise ValueError(f"{runs.sum():,} tiles are more than {MAX_TILES:,}")
        within = np.arange(runs.sum()) - np.repeat(np.cumsum(runs) - runs, runs)
        ids = np.repeat(ids, runs) + within
        order = np.argsort(ids, kind="stable")
        return ids[order], np.repeat(offsets, runs)[order], np.repeat(lengths, runs)[order]


def _unpacked(data: bytes, how: Compression) -> bytes:
    """Bytes behind gzip or nothing; never more than MAX_DIRECTORY_BYTES."""
    if how in (Compression.NONE, Compression.UNKNOWN):
        return data
    if how != Compression.GZIP:
        raise ValueError(f"{how.name} compression; only gzip or none can be read")
    unpacker = zlib.decompressobj(wbits=31)
    plain = unpacker.decompress(data, MAX_DIRECTORY_BYTES)
    if not unpacker.eof:
        raise ValueError("a packed section is cut off or too large")
    return plain


def directory_table(raw: bytes) -> Ints:
    """(4, n) ids, offsets, lengths, run lengths of one unpacked directory (spec, section 4)."""
    numbers = _varints(raw)
    n = int(numbers[0])
    deltas, runs, lengths, offsets = numbers[1 : 1 + 4 * n].reshape(4, n)
    before = np.cumsum(lengths) - lengths  # a 0 offset means: right after the entry before
    stated = np.maximum.accumulate(np.where(offsets > 0, np.arange(n), 0))
    places = (offsets - 1)[stated] + before - before[stated]
    return np.stack([np.cumsum(deltas), places, lengths, runs])


def _varints(raw: bytes) -> Ints:
    """All little-endian base-128 numbers of a byte string."""
    octets = np.frombuffer(raw, np.uint8)
    ends = np.flatnonzero(octets < 128)
    if not ends.size:
        raise ValueError("an empty directory")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 9:
        raise ValueError("a number in a directory is too large")
    place = np.arange(ends[-1] + 1) - np.repeat(starts, lengths)
    parts = (octets[: ends[-1] + 1] & 127).astype(np.int64) << (7 * place)
    return np.asarray(np.add.reduceat(parts, starts), np.int64)


def tile_id(cell: Cell) -> int:
    """Number of a tile on the Hilbert curves of all levels, one after the other (PMTiles)."""
    x, y, found = cell.x, cell.y, ((1 << 2 * cell.level) - 1) // 3
    for bit in range(cell.level - 1, -1, -1):
        side = 1 << bit
        right, down = (x >> bit) & 1, (y >> bit) & 1
        found += side * side * ((3 * right) ^ down)
        x, y = x & (side - 1), y & (side - 1)
        if not down:
            x, y = (side - 1 - y, side - 1 - x) if right else (y, x)
    return found


def hilbert_cells(positions: Ints, level: int) -> tuple[Ints, Ints]:
    """Columns and rows of positions along the Hilbert curve of a level."""
    rest = positions.copy()
    x, y = np.zeros_like(rest), np.zeros_like(rest)
    for bit in range(level):
        side = 1 << bit
        right = (rest >> 1) & 1
        down = (rest ^ right) & 1
        flip = (down == 0) & (right == 1)
        x, y = np.where(flip, side - 1 - x, x), np.where(flip, side - 1 - y, y)
        x, y = np.where(down == 0, y, x), np.where(down == 0, x, y)
        x, y = x + side * right, y + side * down
        rest >>= 2
    return x, y


# 2. MBTiles (https://github.com/mapbox/mbtiles-spec; rows count from the south)


class MBTilesStore:
    """An MBTiles file, opened read-only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._db = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False
            )
            self.metadata = self._read_metadata()
            self._db.execute("SELECT 1 FROM tiles LIMIT 1").fetchone()
        except sqlite3.Error as error:
            raise self._damaged(error) from error
        if self.metadata.get("format") in ("pbf", "mvt"):
            raise ImageryError(f"{path}: holds vector tiles; PNG, JPEG or WebP are needed")

    def columns_rows(self) -> Columns:
        """Columns and rows (from the north) of the stored tiles, by level."""
        found: Columns = {}
        levels = "SELECT DISTINCT zoom_level FROM tiles WHERE zoom_level BETWEEN 0 AND ?"
        for level in self._all(levels, MAX_LEVEL):
            sql = "SELECT tile_column, tile_row FROM tiles WHERE zoom_level = ?"
            at = np.array(self._all(sql, *level), np.int64).reshape(-1, 2)
            found[int(level[0])] = at[:, 0], (1 << int(level[0])) - 1 - at[:, 1]
        return found

    def read(self, cell: Cell) -> bytes | None:
        """Bytes of a tile."""
        rows = self._all(
            "SELECT tile_data FROM tiles WHERE zoom_level = ? AND tile_column = ? AND tile_row = ?",
            cell.level,
            cell.x,
            (1 << cell.level) - 1 - cell.y,
        )
        return bytes(rows[0][0]) if rows else None

    def fingerprint(self) -> bytes:
        """Place and length of every tile."""
        digest = hashlib.sha256()
        sql = "SELECT zoom_level, tile_column, tile_row, length(tile_data) FROM tiles"
        for row in self._all(f"{sql} ORDER BY 1, 2, 3"):
            digest.update(repr(row).encode())
        return digest.digest()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def _all(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._damaged(error) from error

    def _read_metadata(self) -> dict[str, Any]:
        named = "SELECT 1 FROM sqlite_master WHERE name = 'metadata'"
        if self._db.execute(named).fetchone() is None:
            return {}
        return dict(self._db.execute("SELECT name, value FROM metadata").fetchall())

    def _damaged(self, error: sqlite3.Error) -> ImageryError:
        return ImageryError(
            f"{self.path}: damaged MBTiles file ({error}); copy it again or rebuild it"
        )


# 3. A folder of z/x/y pictures


class FolderStore:
    """A folder of pictures named z/x/y.png (.jpg, .webp), rows from the north.

    Rows count from the south (TMS) where ``metadata.json`` says ``"scheme": "tms"`` or
    gdal2tiles left its ``tilemapresource.xml``, as it does for TMS folders.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata = self._read_metadata()
        tms = (path / "tilemapresource.xml").exists() or self.metadata.get("scheme") == "tms"
        self._files: dict[Cell, Path] = {}
        for file in path.glob("*/*/*"):
            cell = _cell_of_path(file)
            if cell is not None:
                last = (1 << cell.level) - 1
                self._files[cell._replace(y=last - cell.y) if tms else cell] = file
        if not self._files:
            raise ImageryError(f"{path}: no z/x/y.png, .jpg or .webp tiles in this folder")

    def columns_rows(self) -> Columns:
        """Columns and rows of the stored tiles, by level."""
        cells = np.array(sorted(self._files), np.int64)
        levels = np.unique(cells[:, 0])
        return {int(z): (cells[cells[:, 0] == z, 1], cells[cells[:, 0] == z, 2]) for z in levels}

    def read(self, cell: Cell) -> bytes | None:
        """Bytes of a tile."""
        file = self._files.get(cell)
        try:
            return None if file is None else file.read_bytes()
        except OSError as error:
            raise ImageryError(f"{file}: tile cannot be read ({error.strerror})") from error

    def fingerprint(self) -> bytes:
        """Place and length of every tile."""
        digest = hashlib.sha256()
        for cell, file in sorted(self._files.items()):
            digest.update(f"{cell.quadkey} {file.stat().st_size}\n".encode())
        return digest.digest()

    def close(self) -> None:
        """Nothing is held open."""

    def _read_metadata(self) -> dict[str, Any]:
        try:
            found = json.loads((self.path / "metadata.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # optional, and of many makers
        return found if isinstance(found, dict) else {}


def _cell_of_path(file: Path) -> Cell | None:
    """The cell that z/x/y.ext names, or None where it names none."""
    names = (file.parent.parent.name, file.parent.name, file.stem)
    if file.suffix.lower() not in PICTURE_SUFFIXES:
        return None
    if not all(re.fullmatch(r"[0-9]{1,10}", name) for name in names):
        return None
    level, x, y = (int(name) for name in names)
    return Cell(level, x, y) if level <= MAX_LEVEL and max(x, y) < 1 << level else None
