"""Tiles that lie on this disk as sheets: MBTiles, PMTiles, z/x/y folders.

Knows nothing of how such files are read (``zoomloc.world.tile_stores``) or of what is made of them.
Where a file's deepest level covers only a part, coarser levels show the rest.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from data_prep.imagery.grids import Address, GridPicture, TileGrid, mercator_grid
from data_prep.imagery.sheets import RGBA, Placed, Sheet
from data_prep.imagery.tiledwebmaps import LAYOUT_NAME, open_tiledwebmaps
from data_prep.imagery.warp import warped
from zoomloc.errors import ImageryError
from zoomloc.world.cells import Cell, LatLng
from zoomloc.world.pyramid import TilePyramid

MANY = 20_000  # tiles whose outline is drawn one by one; of more, by their parents
LEAST_NEW = 1e-6  # share of a level's ground that finer ones must leave to it


@dataclass(frozen=True)
class StoredTiles(Placed):
    """A level of a tile store."""

    path: Path
    level: int
    grid: TileGrid
    stamp: str

    def identity(self) -> list[object]:
        """The content of the store, and the level."""
        return [self.path.name, self.stamp, self.level]

    def draw(self, block: Cell, side_px: int) -> RGBA | None:
        """(4, side_px, side_px) of a block, or None where it does not reach."""
        tile = partial(_tile, self.path, self.stamp, self.level)
        return warped(GridPicture(self.grid, tile), block, side_px)


def open_stored(path: Path, level: int | None = None) -> list[Sheet]:
    """Sheets of a store's level, or of its deepest levels. Raises ImageryError."""
    if (path / LAYOUT_NAME).is_file():
        return [open_tiledwebmaps(path, level)]
    with TilePyramid.open(path) as pyramid:
        if level is not None and level not in pyramid.levels:
            raise ImageryError(
                f"{path}: has no tiles of level {level}; it has "
                f"{', '.join(map(str, pyramid.levels))}"
            )
        wanted = pyramid.levels[::-1] if level is None else [level]
        found: list[Sheet] = []
        seen: BaseGeometry = shapely.Polygon()
        for z in wanted:
            shown = _ground(pyramid.cells(z))
            new = shown.difference(seen)
            if new.area > LEAST_NEW * shown.area:
                found.append(_sheet(pyramid, z, shown))
            seen = seen.union(shown)
        return found


def _sheet(pyramid: TilePyramid, level: int, shown: BaseGeometry) -> StoredTiles:
    grid = mercator_grid(level, pyramid.tile_px)
    middle = shown.representative_point()
    center = LatLng(middle.y, middle.x)
    return StoredTiles(
        name=str(pyramid.path),
        footprint=shown,
        center=center,
        gsd_m=grid.gsd_m(center),
        path=pyramid.path,
        level=level,
        grid=grid,
        stamp=pyramid.imagery_hash(),
    )


def _ground(cells: list[Cell]) -> BaseGeometry:
    """What some cells of one level show, in degrees."""
    while len(cells) > MANY:
        cells = sorted({cell.parent() for cell in cells})
    bounds = np.array([cell.bounds for cell in cells])
    return shapely.union_all(shapely.box(*bounds.T))


@lru_cache(maxsize=4)
def _opened(path: Path, stamp: str) -> TilePyramid:
    """A store kept open for drawing."""
    return TilePyramid.open(path)


@lru_cache(maxsize=64)
def _tile(path: Path, stamp: str, level: int, at: Address) -> RGBA | None:
    """RGBA (4, h, w) of a stored tile, or None."""
    found = _opened(path, stamp).tile(Cell(level, *at))
    return None if found is None else np.moveaxis(found, 2, 0)


def forget_stored() -> None:
    """Close what drawing left open in this process."""
    _tile.cache_clear()
    _opened.cache_clear()
