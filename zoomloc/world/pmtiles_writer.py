"""Writing a PMTiles v3 file: whole or not at all, clustered, equal tiles stored once.

Knows nothing of pixels or of where tiles come from. Format:
https://github.com/protomaps/PMTiles/blob/main/spec/v3/spec.md
"""

import gzip
import hashlib
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from pmtiles.tile import (
    Compression,
    Entry,
    HeaderDict,
    TileType,
    serialize_directory,
    serialize_header,
)

from zoomloc.errors import ImageryError
from zoomloc.world.cells import Bounds, Cell, unwrapped_columns
from zoomloc.world.files import written_whole
from zoomloc.world.tile_stores import tile_id

HEADER_BYTES = 127
ROOT_BYTES = 16_384 - HEADER_BYTES  # readers fetch header and root in one 16 KiB request
LEAF_ENTRIES = 4_096
TILE_TYPES = {"webp": TileType.WEBP, "png": TileType.PNG, "jpeg": TileType.JPEG}


def write_pmtiles(
    path: Path,
    tiles: Iterable[tuple[Cell, bytes]],
    metadata: dict[str, Any],
    image_format: str,
    tile_px: int,
) -> None:
    """Write encoded tiles, in any order, as one PMTiles file (atomic).

    Adds ``tile_px``, ``format`` and ``content_hash`` (of cells and bytes) to the metadata.
    Raises ImageryError where there is no tile, OutputError where the disk is full.
    """
    with written_whole(path) as temporary, tempfile.TemporaryFile(dir=path.parent) as spool:
        entries, cells = _spooled(tiles, spool)
        if not entries:
            raise ImageryError(f"{path}: no tiles to write; the imagery holds no pixel")
        packed, copies = _clustered(entries)
        levels = range(min(c.level for c in cells), max(c.level for c in cells) + 1)
        bounds = _bounds([c for c in cells if c.level == levels[-1]])
        whole = _described(metadata, image_format, tile_px, levels, bounds)
        whole["content_hash"] = _content_hash(entries)
        with temporary.open("wb") as file:
            file.write(_head(packed, copies, whole, TILE_TYPES[image_format], levels, bounds))
            for offset, length in copies:
                spool.seek(offset)
                file.write(spool.read(length))


Spooled = dict[int, tuple[int, int, bytes]]  # tile id -> offset and length in the spool, digest


def _spooled(tiles: Iterable[tuple[Cell, bytes]], spool: IO[bytes]) -> tuple[Spooled, list[Cell]]:
    """Tiles laid into a scratch file as they come, equal ones once."""
    entries: Spooled = {}
    cells: list[Cell] = []
    known: dict[bytes, int] = {}
    end = 0
    for cell, data in tiles:
        digest = hashlib.blake2b(data, digest_size=16).digest()
        if digest not in known:
            known[digest] = end
            end += spool.write(data)
        entries[tile_id(cell)] = known[digest], len(data), digest
        cells.append(cell)
    return entries, cells


def _clustered(entries: Spooled) -> tuple[list[Entry], list[tuple[int, int]]]:
    """Directory entries in tile-id order, and which spool pieces to copy in which order."""
    packed: list[Entry] = []
    copies: list[tuple[int, int]] = []
    placed: dict[int, int] = {}  # offset in the spool -> offset in the file
    end = 0
    for number, (offset, length, _) in sorted(entries.items()):
        if offset not in placed:
            placed[offset] = end
            copies.append((offset, length))
            end += length
        last = packed[-1] if packed else None
        at = placed[offset]
        if last and last.tile_id + last.run_length == number and last.offset == at:
            last.run_length += 1
        else:
            packed.append(Entry(number, at, length, 1))
    return packed, copies


def _described(
    metadata: dict[str, Any], image_format: str, tile_px: int, levels: range, bounds: Bounds
) -> dict[str, Any]:
    """Metadata with what readers of PMTiles and MBTiles look for."""
    return {
        "type": "baselayer",
        **metadata,
        "format": image_format,
        "tile_px": tile_px,
        "minzoom": levels[0],
        "maxzoom": levels[-1],
        "bounds": ",".join(f"{value:.7f}" for value in bounds),
    }


def _content_hash(entries: Spooled) -> str:
    """Short hex digest of all cells and tile bytes, whatever order they came in."""
    digest = hashlib.sha256()
    for number, (_, _, tile_digest) in sorted(entries.items()):
        digest.update(number.to_bytes(8, "little") + tile_digest)
    return digest.hexdigest()[:16]


def _bounds(cells: list[Cell]) -> Bounds:
    """Box round cells of one level, in degrees; the whole belt where it crosses 180."""
    level = cells[0].level
    columns = unwrapped_columns({c.x for c in cells}, level)
    south = min(cells, key=lambda c: -c.y).bounds.south
    north = min(cells, key=lambda c: c.y).bounds.north
    if max(columns) >= 1 << level:
        return Bounds(-180.0, south, 180.0, north)
    side = 360.0 / (1 << level)
    return Bounds(min(columns) * side - 180.0, south, (max(columns) + 1) * side - 180.0, north)


def _directories(entries: list[Entry]) -> tuple[bytes, bytes]:
    """Root and leaf directories; leaves grow until the root fits its 16 KiB."""
    root = serialize_directory(entries)
    size, leaves = LEAF_ENTRIES, b""
    while len(root) > ROOT_BYTES:
        pointers, parts, end = [], [], 0
        for at in range(0, len(entries), size):
            parts.append(serialize_directory(entries[at : at + size]))
            pointers.append(Entry(entries[at].tile_id, end, len(parts[-1]), 0))
            end += len(parts[-1])
        root, leaves, size = serialize_directory(pointers), b"".join(parts), size * 2
    return root, leaves


def _head(
    entries: list[Entry],
    copies: list[tuple[int, int]],
    metadata: dict[str, Any],
    tile_type: TileType,
    levels: range,
    bounds: Bounds,
) -> bytes:
    """Everything before the tiles: header, root directory, metadata, leaf directories."""
    root, leaves = _directories(entries)
    told = gzip.compress(json.dumps(metadata, ensure_ascii=False).encode(), mtime=0)
    west, south, east, north = (round(value * 1e7) for value in bounds)
    tiles_at = HEADER_BYTES + len(root) + len(told) + len(leaves)
    header: HeaderDict = {
        "version": 3,
        "root_offset": HEADER_BYTES,
        "root_length": len(root),
        "metadata_offset": HEADER_BYTES + len(root),
        "metadata_length": len(told),
        "leaf_directory_offset": tiles_at - len(leaves),
        "leaf_directory_length": len(leaves),
        "tile_data_offset": tiles_at,
        "tile_data_length": sum(length for _, length in copies),
        "addressed_tiles_count": sum(entry.run_length for entry in entries),
        "tile_entries_count": len(entries),
        "tile_contents_count": len(copies),
        "clustered": True,
        "internal_compression": Compression.GZIP,
        "tile_compression": Compression.NONE,
        "tile_type": tile_type,
        "min_zoom": levels[0],
        "max_zoom": levels[-1],
        "min_lon_e7": west,
        "min_lat_e7": south,
        "max_lon_e7": east,
        "max_lat_e7": north,
        "center_zoom": levels[0],
        "center_lon_e7": (west + east) // 2,
        "center_lat_e7": (south + north) // 2,
    }
    return bytes(serialize_header(header)) + root + told + leaves
