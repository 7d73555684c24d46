"""TilePyramid: the picture of any cell, or of any (rotated) square on the ground.

Knows nothing of regions, photos or of how tiles were made; ground without imagery is grey.
"""

import functools
import hashlib
import io
import itertools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from zoomloc.errors import ImageryError
from zoomloc.world.cells import Cell, Floats, Ints, LatLng, geod, xy_of
from zoomloc.world.pmtiles_writer import write_pmtiles
from zoomloc.world.tile_stores import Columns, TileStore, open_store

__all__ = ["FILL", "Picture", "TilePyramid", "decode_tile", "over_fill", "write_pmtiles"]

Picture = npt.NDArray[np.uint8]  # (H, W, 3) RGB or (H, W, 4) RGBA

FILL = 127  # the grey of ground without imagery, and of pixels laid over it
CACHE_BYTES = 96 << 20  # decoded tiles kept
MAX_MOSAIC_PX = 8_192  # side of the largest picture pieced together for one view
COVERAGE_PX = 4  # coverage looks at tiles in which a cell is at least so many pixels wide


class TilePyramid:
    """All tiles of some ground. Open with ``TilePyramid.open``; usable as a context manager."""

    def __init__(self, path: Path, store: TileStore) -> None:
        self.path = path
        self.metadata: dict[str, Any] = store.metadata
        self._store = store
        self._keys = _sorted_keys(store.columns_rows())
        if not self._keys:
            raise ImageryError(f"{path}: no tiles in it; build it again with 'zoomloc tiles'")
        self.levels = sorted(self._keys)
        self.min_level, self.max_level = self.levels[0], self.levels[-1]
        self.tile_px = self._size_of_first_tile()
        kept = max(16, CACHE_BYTES // (3 * self.tile_px**2))
        self._shown = functools.lru_cache(maxsize=kept)(self._reduced)

    @classmethod
    def open(cls, path: Path) -> "TilePyramid":
        """A PMTiles or MBTiles file, or a folder of z/x/y pictures.

        Raises ImageryError where it is missing, damaged, or holds no pictures.
        """
        return cls(Path(path), open_store(Path(path)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by its path: each process opens its own."""
        return (TilePyramid.open, (self.path,))

    def __enter__(self) -> "TilePyramid":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file and of decoded tiles."""
        self._shown.cache_clear()
        self._store.close()

    # 1. tiles as stored

    def tile(self, cell: Cell) -> Picture | None:
        """(tile_px, tile_px, 4) RGBA of a stored tile, or None. Raises ImageryError."""
        data = self.encoded(cell)
        return None if data is None else decode_tile(data, self.path, cell, self.tile_px)

    def encoded(self, cell: Cell) -> bytes | None:
        """A stored tile as it is in the file, or None. Raises ImageryError."""
        return self._store.read(cell) if self._holds(cell) else None

    def cells(self, level: int) -> list[Cell]:
        """The stored tiles of a level, row-major."""
        columns, rows = self._columns_rows(level)
        return [Cell(level, x, y) for x, y in zip(columns.tolist(), rows.tolist(), strict=True)]

    def imagery_hash(self) -> str:
        """Short hex digest of the content: the builder's, else of tile places and lengths."""
        stored = self.metadata.get("content_hash")
        return str(stored) if stored else hashlib.sha256(self._store.fingerprint()).hexdigest()[:16]

    # 2. pictures of the ground

    def window(self, level: int, x: float, y: float, side: float, size_px: int) -> Picture:
        """(size_px, size_px, 3) RGB of a north-up square of the Mercator plane.

        (x, y) is its north-west corner in fractional columns and rows of ``level``, ``side``
        its side in cells of that level; x may leave 0 .. 2**level and is taken round the globe.
        Read from the coarsest stored level at least as fine as asked for, else the finest, and
        resampled without aliasing. Ground without imagery is FILL.
        """
        stored = self._level_at_least(level + math.log2(size_px / side / self.tile_px))
        scale = self.tile_px * 2.0 ** (stored - level)
        step = self._step(size_px / side / scale)
        scale /= step
        margin = 2 + math.ceil(side * scale / size_px)  # the filter's reach
        left, top = math.floor(x * scale) - margin, math.floor(y * scale) - margin
        span = math.ceil(side * scale) + 2 * margin + 1
        mosaic = self._mosaic(stored, step, left, top, span)
        corner = x * scale - left, y * scale - top
        box = (*corner, corner[0] + side * scale, corner[1] + side * scale)
        picture = Image.fromarray(mosaic)
        return np.array(picture.resize((size_px, size_px), Image.Resampling.BILINEAR, box=box))

    def view(self, cell: Cell, size_px: int, margin: float = 0.0) -> Picture:
        """(size_px, size_px, 3) RGB of a cell with ``margin`` of its side added on each side."""
        side = 1 + 2 * margin
        return self.window(cell.level, cell.x - margin, cell.y - margin, side, size_px)

    def square(
        self, center: LatLng, side_m: float, size_px: int, rotation_deg: float = 0.0
    ) -> Picture:
        """(size_px, size_px, 3) RGB of a square on the ground, metres on WGS 84.

        ``rotation_deg`` is the bearing of the picture's up direction. The scale is that of the
        centre, exact to 1 in 1,000 for squares of a few kilometres.
        """
        level = self.max_level
        east_m, north_m = _metres_per_cell(center, level)
        wanted = size_px / side_m * min(east_m, north_m) / self.tile_px
        stored = self._level_at_least(level + math.log2(wanted))
        scale = self.tile_px * 2.0 ** (stored - level)
        step = self._step(wanted * self.tile_px / scale)
        scale /= step
        px_per_m = scale / east_m, scale / north_m
        fine = 2 if side_m * max(px_per_m) > 1.05 * size_px else 1  # sampled finer, then averaged
        x, y = (float(v[0]) * scale for v in xy_of(*_arrays(center), level))
        reach = side_m * max(px_per_m) * math.sqrt(0.5) + 3
        left, top = math.floor(x - reach), math.floor(y - reach)
        mosaic = self._mosaic(stored, step, left, top, math.ceil(2 * reach) + 2)
        affine = _affine(
            (x - left, y - top), side_m / (size_px * fine), px_per_m, rotation_deg, size_px * fine
        )
        size = (size_px * fine, size_px * fine)
        picture = Image.fromarray(mosaic).transform(
            size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR
        )
        return np.array(picture.reduce(fine) if fine > 1 else picture)

    # 3. where there is imagery

    def coverage(self, level: int, columns: Ints, rows: Ints) -> Floats:
        """(n,) share of each cell's area with imagery: tiles of the finest level, times alpha.

        Any level, finer ones than stored included; columns are taken modulo 2**level. Alpha is
        read from the coarsest stored level in which a cell is at least COVERAGE_PX wide.
        """
        columns = np.asarray(columns, np.int64) % (1 << level)
        rows = np.asarray(rows, np.int64)
        share = self._share_of_finest(level, columns, rows)
        some = share > 0
        stored = self._level_at_least(level + math.log2(COVERAGE_PX / self.tile_px))
        by_alpha = self._coverage_within if stored <= level else self._coverage_above
        share[some] = np.minimum(share[some], by_alpha(stored, level, columns[some], rows[some]))
        return share

    def _share_of_finest(self, level: int, columns: Ints, rows: Ints) -> Floats:
        """Share of each cell under tiles of the finest level, whatever they show."""
        finest, keys = self.max_level, self._keys[self.max_level]
        inside = (rows >= 0) & (rows < 1 << level)
        if level >= finest:
            down = level - finest
            found = np.isin(((rows >> down) << finest) | (columns >> down), keys)
            return (found & inside).astype(np.float64)
        up = finest - level
        tile_columns, tile_rows = self._columns_rows(finest)
        above, counts = np.unique(
            ((tile_rows >> up) << level) | (tile_columns >> up), return_counts=True
        )
        wanted = (rows << level) | columns
        slot = np.minimum(np.searchsorted(above, wanted), len(above) - 1)
        held = inside & (above[slot] == wanted)
        return np.asarray(np.where(held, counts[slot] / 4.0**up, 0.0), np.float64)

    def _coverage_within(self, stored: int, level: int, columns: Ints, rows: Ints) -> Floats:
        """Shares of cells that lie within one tile of level ``stored`` each."""
        share = np.zeros(columns.shape, np.float64)
        down = level - stored
        keys = ((rows >> down) << stored) | (columns >> down)
        wanted, where = np.unique(keys, return_inverse=True)
        present = np.isin(wanted, self._keys[stored])
        side = 1 << down
        for at in np.flatnonzero(present).tolist():
            cell = _cell_of_key(int(wanted[at]), stored)
            mine = np.flatnonzero(where == at)
            grid = self._alpha_grid(cell, min(side, self.tile_px))
            finer = max(1, side // self.tile_px)  # cells smaller than a pixel share its value
            share[mine] = grid[(rows[mine] % side) // finer, (columns[mine] % side) // finer]
        return share

    def _coverage_above(self, stored: int, level: int, columns: Ints, rows: Ints) -> Floats:
        """Shares of cells that each hold several tiles of level ``stored``."""
        up = stored - level
        wanted, where = np.unique((rows << level) | columns, return_inverse=True)
        tile_columns, tile_rows = self._columns_rows(stored)
        above = ((tile_rows >> up) << level) | (tile_columns >> up)
        slot = np.minimum(np.searchsorted(wanted, above), max(len(wanted) - 1, 0))
        sums = np.zeros(len(wanted), np.float64)
        for at in np.flatnonzero(wanted[slot] == above).tolist() if len(wanted) else []:
            cell = Cell(stored, int(tile_columns[at]), int(tile_rows[at]))
            sums[slot[at]] += float(self._alpha_grid(cell, 1)[0, 0])
        return np.asarray(sums[where] / 4.0**up, np.float64)

    def _alpha_grid(self, cell: Cell, side: int) -> Floats:
        """(side, side) mean opacity 0..1 of the parts of a stored tile."""
        data = self._store.read(cell)
        if data is None:
            return np.zeros((side, side))
        if _is_opaque(_opened(data, self.path, cell)):
            return np.ones((side, side))  # spares the decoding
        tile = decode_tile(data, self.path, cell, self.tile_px)
        part = self.tile_px // side
        alpha = tile[..., 3].reshape(side, part, side, part)
        return np.asarray(alpha.mean(axis=(1, 3)) / 255.0, np.float64)

    # 4. inside

    def _columns_rows(self, level: int) -> tuple[Ints, Ints]:
        keys = self._keys.get(level, np.zeros(0, np.int64))
        return keys & ((1 << level) - 1), keys >> level

    def _level_at_least(self, level: float) -> int:
        """The coarsest stored level at least as fine, else the finest."""
        return next((z for z in self.levels if z >= level - 1e-6), self.max_level)

    def _step(self, ratio: float) -> int:
        """Pixels of a tile that may be averaged first where even the coarsest is too fine."""
        too_fine = max(0, math.floor(math.log2(1 / ratio) + 1e-6))
        return int(min(1 << too_fine, self.tile_px))

    def _mosaic(self, level: int, step: int, left: int, top: int, span: int) -> Picture:
        """(span, span, 3) RGB from pixel (left, top) of a stored level, reduced ``step``-fold."""
        if span > MAX_MOSAIC_PX:
            raise ImageryError(
                f"{self.path}: its coarsest tiles are level {self.min_level}, too fine for so "
                "wide a view; add coarser levels, or build it with 'zoomloc tiles'"
            )
        picture = np.full((span, span, 3), FILL, np.uint8)
        px = self.tile_px // step
        columns = range(left // px, (left + span - 1) // px + 1)
        rows = range(max(0, top // px), min((1 << level) - 1, (top + span - 1) // px) + 1)
        for column, row in self._stored_in(level, columns, rows):
            tile = self._shown(Cell(level, column % (1 << level), row), step)
            if tile is not None:
                _paste(picture, tile, column * px - left, row * px - top)
        return picture

    def _stored_in(self, level: int, columns: range, rows: range) -> Iterable[tuple[int, int]]:
        """Columns (unwrapped) and rows of tiles in a rectangle; few, or surely stored."""
        if len(columns) * len(rows) <= 64:
            return itertools.product(columns, rows)
        x, y = self._columns_rows(level)
        near = (x - columns.start) % (1 << level) + columns.start  # once round the globe at most
        held = (near < columns.stop) & (y >= rows.start) & (y < rows.stop)
        return zip(near[held].tolist(), y[held].tolist(), strict=True)

    def _reduced(self, cell: Cell, step: int) -> Picture | None:
        """RGB of a tile over FILL, ``step`` pixels averaged into one."""
        tile = self.tile(cell)
        if tile is None:
            return None
        flat = np.ascontiguousarray(over_fill(tile))
        return np.asarray(Image.fromarray(flat).reduce(step)) if step > 1 else flat

    def _holds(self, cell: Cell) -> bool:
        keys = self._keys.get(cell.level)
        if keys is None:
            return False
        key = (cell.y << cell.level) | cell.x
        at = int(np.searchsorted(keys, key))
        return at < len(keys) and int(keys[at]) == key

    def _size_of_first_tile(self) -> int:
        """Side of the tiles in pixels, by the first one; a power of two."""
        cell = _cell_of_key(int(self._keys[self.max_level][0]), self.max_level)
        picture = _opened(self._store.read(cell) or b"", self.path, cell)
        width, height = picture.size
        if width != height or width & (width - 1) or not 64 <= width <= 4096:
            raise ImageryError(
                f"{self.path}: tiles of {width} x {height} px; squares of 256, 512 or 1024 px "
                "can be read"
            )
        return int(width)


def decode_tile(data: bytes, path: Path, cell: Cell, tile_px: int) -> Picture:
    """(tile_px, tile_px, 4) RGBA of an encoded tile. Raises ImageryError naming it."""
    picture = _opened(data, path, cell)
    if picture.size != (tile_px, tile_px):
        raise ImageryError(f"{path}: tile {_name(cell)} is {picture.size} px, the others {tile_px}")
    try:
        return np.array(picture.convert("RGBA"))
    except (OSError, SyntaxError, ValueError) as error:
        raise _damaged(path, cell, error) from error


def over_fill(tile: Picture) -> Picture:
    """RGB of an RGBA picture laid over FILL."""
    if tile[..., 3].min() == 255:
        return tile[..., :3]
    alpha = tile[..., 3:].astype(np.uint16)
    mixed = tile[..., :3] * alpha + FILL * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


def _opened(data: bytes, path: Path, cell: Cell) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP"))
    except (OSError, SyntaxError, ValueError) as error:
        raise _damaged(path, cell, error) from error


def _damaged(path: Path, cell: Cell, error: Exception) -> ImageryError:
    return ImageryError(
        f"{path}: tile {_name(cell)} is damaged ({error}); copy the pyramid again or rebuild it"
    )


def _name(cell: Cell) -> str:
    return f"{cell.level}/{cell.x}/{cell.y}"


def _is_opaque(picture: Image.Image) -> bool:
    """Whether the picture has no alpha at all, by its header."""
    return picture.mode in ("RGB", "L") and "transparency" not in picture.info


def _sorted_keys(found: Columns) -> dict[int, Ints]:
    """row << level | column of the stored tiles, sorted, by level."""
    return {z: np.sort((rows << z) | columns) for z, (columns, rows) in found.items() if len(rows)}


def _cell_of_key(key: int, level: int) -> Cell:
    return Cell(level, key & ((1 << level) - 1), key >> level)


def _paste(picture: Picture, tile: Picture, left: int, top: int) -> None:
    """Lay a tile into a picture at a place that may lie partly outside."""
    rows = slice(max(top, 0), max(top + len(tile), 0))
    columns = slice(max(left, 0), max(left + tile.shape[1], 0))
    target = picture[rows, columns]
    y, x = max(-top, 0), max(-left, 0)
    target[...] = tile[y : y + target.shape[0], x : x + target.shape[1]]


def _arrays(place: LatLng) -> tuple[Floats, Floats]:
    return np.array([place.lat]), np.array([place.lng])


def _metres_per_cell(place: LatLng, level: int) -> tuple[float, float]:
    """Metres east and north on the ellipsoid that one cell of the Mercator plane spans here."""
    ellipsoid, lat = geod(), math.radians(place.lat)
    flat = 1 - ellipsoid.es * math.sin(lat) ** 2
    turn = 2 * math.pi * math.cos(lat) / (1 << level)
    east = ellipsoid.a / math.sqrt(flat)
    north = ellipsoid.a * (1 - ellipsoid.es) / flat**1.5
    return east * turn, north * turn


def _affine(
    center: tuple[float, float],
    metres_per_px: float,
    px_per_m: tuple[float, float],
    rotation_deg: float,
    size_px: int,
) -> tuple[float, float, float, float, float, float]:
    """Pillow's output-to-input affine of a square whose up direction has that bearing."""
    cos, sin = math.cos(math.radians(rotation_deg)), math.sin(math.radians(rotation_deg))
    # right = (cos, -sin), down = (-sin, -cos) in (east, north); rows of the mosaic grow southward
    a, b = cos * metres_per_px * px_per_m[0], -sin * metres_per_px * px_per_m[0]
    d, e = sin * metres_per_px * px_per_m[1], cos * metres_per_px * px_per_m[1]
    half = size_px / 2
    return a, b, center[0] - half * (a + b), d, e, center[1] - half * (d + e)
