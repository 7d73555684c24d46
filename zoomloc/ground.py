"""GroundMap: the imagery of a region as one picture with metres, cut where it is wanted.

Knows nothing of models or photos. The frame is north-up: x metres east and y metres south of the
north-west corner of the covered terminal cells, at the scale of the region's middle.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from zoomloc.index import RegionViews
from zoomloc.world.cells import Floats
from zoomloc.world.pyramid import TilePyramid

Pictures = npt.NDArray[np.uint8]
LARGEST_PX = 2048  # a side of what is drawn at once


@dataclass(frozen=True)
class Window:
    """A rectangle of a GroundMap, in its pixels."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class GroundMap:
    """The covered part of a region at ``gsd_m`` metres a pixel."""

    views: RegionViews
    gsd_m: float

    @cached_property
    def corner(self) -> tuple[int, int]:
        """Row and column of the north-west terminal cell of the covered part."""
        rows, columns = np.nonzero(self.views.coverage.leaves)
        return int(rows.min()), int(columns.min())

    @cached_property
    def shape_px(self) -> tuple[int, int]:
        """(height, width) of the whole picture."""
        rows, columns = np.nonzero(self.views.coverage.leaves)
        height, width = rows.max() + 1 - self.corner[0], columns.max() + 1 - self.corner[1]
        per_cell = self.px_per_cell
        return math.ceil(float(height) * per_cell), math.ceil(float(width) * per_cell)

    @cached_property
    def px_per_cell(self) -> float:
        """Pixels along a terminal cell's side."""
        return self.views.region.cell_size_m / self.gsd_m

    @property
    def extent_m(self) -> float:
        """The longer side."""
        return max(self.shape_px) * self.gsd_m

    def px_of(self, lat: Floats, lng: Floats) -> Floats:
        """(n, 2) fractional columns and rows of places in the picture."""
        column, row = self.views.region.leaf_xy(lat, lng)
        return np.stack([column - self.corner[1], row - self.corner[0]], 1) * self.px_per_cell

    def cells_of(self, column: Floats, row: Floats) -> tuple[Floats, Floats]:
        """Fractional (row, column) in the grid of terminal cells of pixel positions."""
        return row / self.px_per_cell + self.corner[0], column / self.px_per_cell + self.corner[1]

    def cell_middles(self, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
        """Pixel rows (R,) and columns (C,) of the middles of a grid of terminal cells."""
        rows, columns = (np.arange(n, dtype=np.float64) + 0.5 for n in shape)
        row, column = self.corner
        return (rows - row) * self.px_per_cell, (columns - column) * self.px_per_cell

    def whole(self) -> Window:
        """All of it."""
        return Window(0, 0, self.shape_px[1], self.shape_px[0])

    def picture(self, window: Window, pyramid: TilePyramid | None = None) -> Pictures:
        """(height, width, 3) uint8 of a window; ground without imagery is grey.

        ``pyramid``: another one of the same ground, in place of the imagery.
        """
        source = pyramid or self.views.pyramid
        out = np.empty((window.height, window.width, 3), np.uint8)
        for top in range(0, window.height, LARGEST_PX):
            for left in range(0, window.width, LARGEST_PX):
                side = min(LARGEST_PX, max(window.height - top, window.width - left))
                part = self._square(source, window.left + left, window.top + top, side)
                height, width = out[top : top + side, left : left + side].shape[:2]
                out[top : top + height, left : left + width] = part[:height, :width]
        return out

    def _square(self, pyramid: TilePyramid, left: int, top: int, side: int) -> Pictures:
        region = self.views.region
        down = region.terminal_level - region.root_level
        per_cell = self.px_per_cell
        x = (region.origin[0] << down) + self.corner[1] + left / per_cell
        y = (region.origin[1] << down) + self.corner[0] + top / per_cell
        return pyramid.window(region.terminal_level, x, y, side / per_cell, side)
