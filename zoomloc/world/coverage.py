"""Coverage: which terminal cells of a region hold imagery, and so which cells may be chosen.

Knows nothing of photos or of how cells are scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import shapely

from zoomloc.errors import RegionError
from zoomloc.world.cells import Cell, Floats, Ints
from zoomloc.world.pyramid import TilePyramid
from zoomloc.world.region import Region

Bools = npt.NDArray[np.bool_]

BLOCK_LEAVES = 1 << 20  # terminal cells looked at together: some tens of MB


@dataclass(frozen=True)
class Coverage:
    """``leaves``: (rows, columns) of the region's terminal grid, True where there is imagery.

    Raises RegionError where no terminal cell is covered.
    """

    region: Region
    leaves: Bools

    def __post_init__(self) -> None:
        shape = self.region.grid_shape(self.region.zooms)
        if self.leaves.shape != shape:
            raise RegionError(
                f"region {self.region.name!r}: coverage of {self.leaves.shape} cells does not fit "
                f"its {shape} terminal cells; make it from this region"
            )
        if not self.leaves.any():
            raise RegionError(
                f"region {self.region.name!r}: no terminal cell has imagery; its pyramid and "
                "region.json do not belong together, build both with 'zoomloc tiles'"
            )

    @classmethod
    def of(cls, region: Region, pyramid: TilePyramid, at_least: float = 0.5) -> "Coverage":
        """Terminal cells with imagery on ``at_least`` of their area, their centre in the polygon.

        Raises RegionError where there is none, ImageryError where tiles are damaged.
        """
        leaves = np.zeros(region.grid_shape(region.zooms), np.bool_)
        for rows, columns in _blocks(region):
            x, y = _grid_of(region, rows, columns)
            share = pyramid.coverage(region.terminal_level, x.ravel(), y.ravel())
            leaves[rows, columns] = (share >= max(at_least, 1e-9)).reshape(x.shape)
        _keep_polygon(region, leaves)
        return cls(region, leaves)

    @classmethod
    def full(cls, region: Region) -> "Coverage":
        """Every terminal cell below the roots (and inside the polygon), imagery or not."""
        leaves = np.zeros(region.grid_shape(region.zooms), np.bool_)
        for rows, columns in _blocks(region):
            leaves[rows, columns] = True
        _keep_polygon(region, leaves)
        return cls(region, leaves)

    def present(self, depth: int) -> Bools:
        """(rows, columns) of the grid ``depth`` zooms below the roots: any leaf below."""
        return self._present[depth]

    def leaf_count(self, depth: int) -> Ints:
        """(rows, columns) of the grid ``depth`` zooms below the roots: leaves below each cell."""
        return self._leaf_counts[depth]

    def children(self, cell: Cell) -> Bools:
        """(K,) which descendants a zoom from this cell may choose, in choice order."""
        depth, side = self.region.depth(cell) + 1, 1 << self.region.levels_per_zoom
        row, column = (value * side for value in self.region.row_column(cell))
        return self._present[depth][row : row + side, column : column + side].ravel()

    def holds(self, lat: Floats, lng: Floats) -> Bools:
        """(n,) whether each place stands in a terminal cell with imagery."""
        x, y = self.region.leaf_xy(lat, lng)
        row, column = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
        rows, columns = self.leaves.shape
        found = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        found[found] = self.leaves[row[found], column[found]]
        return np.asarray(found)

    def cell_counts(self, cells: Sequence[Cell]) -> Ints:
        """(n,) covered leaves within each cell, of any level; 0 outside the region."""
        level, x, y = np.array(cells, np.int64).reshape(-1, 3).T
        region, (rows, columns) = self.region, self.leaves.shape
        down = region.terminal_level - region.root_level
        shift = np.maximum(region.terminal_level - level, 0)
        left = (x << shift) - (region.origin[0] << down)
        top = (y << shift) - (region.origin[1] << down)
        above, below = (np.clip(v, 0, rows) for v in (top, top + (1 << shift)))
        counts = np.zeros(len(level), np.int64)
        for turn in (-1, 0, 1):  # a cell may reach the region round the globe
            west = left + (turn << region.terminal_level)
            here, there = (np.clip(v, 0, columns) for v in (west, west + (1 << shift)))
            total = self._summed
            counts += total[below, there] - total[above, there]
            counts -= total[below, here] - total[above, here]
        return np.where(level > region.terminal_level, 0, counts)  # a part of a leaf is none

    @cached_property
    def _leaf_counts(self) -> list[Ints]:
        """``leaf_count`` of every depth, from the roots to the leaves."""
        counts = []
        for depth in range(self.region.zooms + 1):
            rows, columns = self.region.grid_shape(depth)
            side = self.leaves.shape[0] // rows
            parts = self.leaves.reshape(rows, side, columns, side)
            counts.append(np.asarray(parts.sum(axis=(1, 3)), np.int64))
        return counts

    @cached_property
    def _present(self) -> list[Bools]:
        """``present`` of every depth, from the roots to the leaves."""
        grids = [self.leaves]
        side = 1 << self.region.levels_per_zoom
        for depth in range(self.region.zooms - 1, -1, -1):
            rows, columns = self.region.grid_shape(depth)
            parts = grids[-1].reshape(rows, side, columns, side)
            grids.append(np.asarray(parts.any(axis=(1, 3)), np.bool_))
        return grids[::-1]

    @cached_property
    def _summed(self) -> npt.NDArray[np.int32]:
        """Leaves above and left of each corner, so that any rectangle is four look-ups."""
        total = np.zeros((self.leaves.shape[0] + 1, self.leaves.shape[1] + 1), np.int32)
        total[1:, 1:] = self.leaves.cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)
        return total


def _blocks(region: Region) -> list[tuple[slice, slice]]:
    """Rows and columns of the terminal grid below each root, in strips of BLOCK_LEAVES."""
    side = 1 << (region.terminal_level - region.root_level)
    height = max(1, min(side, BLOCK_LEAVES // side))
    return [
        (slice(top, min(top + height, (row + 1) * side)), slice(column * side, (column + 1) * side))
        for row, column in region.root_slots().tolist()
        for top in range(row * side, (row + 1) * side, height)
    ]


def _grid_of(region: Region, rows: slice, columns: slice) -> tuple[Ints, Ints]:
    """Columns and rows of the world (unwrapped) at terminal level, each (rows, columns)."""
    down = region.terminal_level - region.root_level
    y = np.arange(rows.start, rows.stop) + (region.origin[1] << down)
    x = np.arange(columns.start, columns.stop) + (region.origin[0] << down)
    grid_x, grid_y = np.meshgrid(x, y)
    return grid_x, grid_y


def _keep_polygon(region: Region, leaves: Bools) -> None:
    """Clear, in place, the leaves whose centre lies outside the region's polygon."""
    polygon = region.shape()
    if polygon is None:
        return
    shapely.prepare(polygon)
    west, _, east, _ = polygon.bounds
    rows, columns = np.nonzero(leaves)
    for at in range(0, len(rows), BLOCK_LEAVES):
        row, column = rows[at : at + BLOCK_LEAVES], columns[at : at + BLOCK_LEAVES]
        lat, lng = region.leaf_places(np.add(column, 0.5), np.add(row, 0.5))
        inside = shapely.contains_xy(polygon, lng, lat)
        if west < -180 or east > 180:  # a polygon may pass the antimeridian on either side
            for turn in (-360.0, 360.0):
                inside |= shapely.contains_xy(polygon, lng + turn, lat)
        leaves[row, column] = inside
