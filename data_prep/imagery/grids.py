"""A grid of equal tiles in any CRS: which tiles show some ground, and all of them as one picture.

Knows nothing of where tiles come from. Columns count from the west, rows from the north.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
from affine import Affine
from PIL import Image
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.windows import Window
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from data_prep.imagery.sheets import RGBA
from zoomloc.errors import ImageryError
from zoomloc.world.cells import EQUATOR_M, MAX_LAT_DEG, Floats, LatLng, distance_m

MOST_TILES = 4_000_000  # that any config may ask for: weeks of polite requests
EDGES = 32  # points along the longer side of what is carried from one CRS to another
Address = tuple[int, int]  # column, row


@dataclass(frozen=True)
class TileGrid:
    """``left`` and ``top`` of the first tile and the pixel's sides are in units of the CRS."""

    crs: str
    left: float
    top: float
    pixel: tuple[float, float]
    tile_px: tuple[int, int]  # width, height
    size: tuple[int, int]  # columns, rows

    @property
    def transform(self) -> Affine:
        """From pixels of the whole grid to the CRS."""
        return Affine(self.pixel[0], 0, self.left, 0, -self.pixel[1], self.top)

    @cached_property
    def to_crs(self) -> Transformer:
        """From degrees (lng, lat) to the CRS (x, y)."""
        return Transformer.from_crs("EPSG:4326", self.crs, always_xy=True)

    def tiles_under(self, ground: BaseGeometry) -> list[Address]:
        """The tiles that share area with some ground in degrees, row-major.

        Raises ImageryError where there are far too many.
        """
        found: set[Address] = set()
        for part in once_round(ground):
            found.update(self._under(carried(part, self.to_crs)))
        return sorted(found, key=lambda at: (at[1], at[0]))

    def ground_of(self, tiles: list[Address]) -> BaseGeometry:
        """What some tiles show, in degrees."""
        columns, rows = np.array(tiles, np.float64).reshape(-1, 2).T
        whole = shapely.union_all(self._boxes(columns, rows))
        to_degrees = Transformer.from_crs(self.crs, "EPSG:4326", always_xy=True)
        belt = shapely.box(-720, -MAX_LAT_DEG, 720, MAX_LAT_DEG)
        return shapely.make_valid(carried(whole, to_degrees)).intersection(belt)

    def gsd_m(self, place: LatLng) -> float:
        """Metres of ground across a pixel at some place, geometric mean of both sides."""
        x, y = self.to_crs.transform(place.lng, place.lat)
        xs, ys = np.array([x, x + self.pixel[0], x]), np.array([y, y, y - self.pixel[1]])
        lng, lat = self.to_crs.transform(xs, ys, direction="INVERSE")
        here, east, south = (LatLng(float(a), float(b)) for a, b in zip(lat, lng, strict=True))
        return float(np.sqrt(distance_m(here, east) * distance_m(here, south)))

    def _under(self, ground: BaseGeometry) -> list[Address]:
        west, south, east, north = ground.bounds
        step_x, step_y = (p * n for p, n in zip(self.pixel, self.tile_px, strict=True))
        first = np.floor([(west - self.left) / step_x, (self.top - north) / step_y])
        last = np.ceil([(east - self.left) / step_x, (self.top - south) / step_y])
        first, last = np.maximum(first, 0), np.minimum(last, self.size)
        if (first >= last).any():
            return []
        count = float(np.prod(last - first))
        if count > MOST_TILES:
            raise ImageryError(
                f"{count:,.0f} tiles of {self.pixel[0]:.3g} CRS units a pixel: take a coarser "
                "level, or less ground"
            )
        grid = np.meshgrid(np.arange(first[0], last[0]), np.arange(first[1], last[1]))
        columns, rows = (v.ravel() for v in grid)
        boxes = self._boxes(columns, rows)
        shapely.prepare(ground)
        meets = shapely.intersects(ground, boxes) & ~shapely.touches(ground, boxes)
        found = zip(columns[meets].tolist(), rows[meets].tolist(), strict=True)
        return [(int(column), int(row)) for column, row in found]

    def _boxes(self, columns: Floats, rows: Floats) -> Floats:
        """Boxes of tiles in the CRS."""
        step_x, step_y = (p * n for p, n in zip(self.pixel, self.tile_px, strict=True))
        left, top = self.left + columns * step_x, self.top - rows * step_y
        return np.asarray(shapely.box(left, top - step_y, left + step_x, top))


def mercator_grid(level: int, tile_px: int = 256) -> TileGrid:
    """The grid of XYZ tiles of a level."""
    side = 1 << level
    pixel = EQUATOR_M / side / tile_px
    half = EQUATOR_M / 2
    return TileGrid("EPSG:3857", -half, half, (pixel, pixel), (tile_px, tile_px), (side, side))


def carried(ground: BaseGeometry, way: Transformer) -> BaseGeometry:
    """A geometry in another CRS, its sides bent as they bend there."""
    west, south, east, north = ground.bounds
    step = max(east - west, north - south) / EDGES

    def moved(points: Floats) -> Floats:
        return np.column_stack(way.transform(points[:, 0], points[:, 1]))

    return shapely.transform(shapely.segmentize(ground, max(step, 1e-12)), moved)


def once_round(ground: BaseGeometry) -> list[BaseGeometry]:
    """Ground whose lng passes 180, in parts that each lie within -180 .. 180."""
    parts = []
    for turn in (-360.0, 0.0, 360.0):
        world = shapely.box(-180 + turn, -MAX_LAT_DEG, 180 + turn, MAX_LAT_DEG)
        part = ground.intersection(world)
        if part.area > 0:
            parts.append(translate(part, -turn))
    return parts


@dataclass(frozen=True)
class GridPicture:
    """All tiles of a grid as one picture to warp; ``tile`` gives RGBA (4, h, w), None: nothing."""

    grid: TileGrid
    tile: Callable[[Address], RGBA | None]

    @property
    def crs(self) -> CRS:
        """Its CRS."""
        return CRS.from_user_input(self.grid.crs)

    @property
    def transform(self) -> Affine:
        """From its pixels to its CRS."""
        return self.grid.transform

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return self.grid.size[0] * self.grid.tile_px[0]

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return self.grid.size[1] * self.grid.tile_px[1]

    def read(self, window: Window, shape: tuple[int, int]) -> RGBA:
        """(4, *shape) of a window, averaged where that is smaller; 0 where there is no tile."""
        wide, high = self.grid.tile_px
        left, top = int(window.col_off), int(window.row_off)
        right, bottom = left + int(window.width), top + int(window.height)
        found = np.zeros((4, bottom - top, right - left), np.uint8)
        for row in range(top // high, (bottom - 1) // high + 1):
            for column in range(left // wide, (right - 1) // wide + 1):
                tile = self.tile((column, row))
                if tile is not None:
                    _paste(found, tile, column * wide - left, row * high - top)
        return found if found.shape[1:] == shape else _averaged(found, shape)


def _averaged(picture: RGBA, shape: tuple[int, int]) -> RGBA:
    """A smaller picture, colours weighted by their alpha."""
    whole = Image.fromarray(np.ascontiguousarray(np.moveaxis(picture, 0, 2)))
    small = whole.resize(shape[::-1], Image.Resampling.BOX)
    return np.moveaxis(np.asarray(small), 2, 0)


def _paste(picture: RGBA, tile: RGBA, left: int, top: int) -> None:
    """Lay a tile into a picture at a place that may lie partly outside."""
    rows = slice(max(top, 0), max(top + tile.shape[1], 0))
    columns = slice(max(left, 0), max(left + tile.shape[2], 0))
    target = picture[:, rows, columns]
    y, x = max(-top, 0), max(-left, 0)
    target[...] = tile[:, y : y + target.shape[1], x : x + target.shape[2]]
