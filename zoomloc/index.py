"""RegionViews: the pictures of a region's cells as a model looks at them, kept in memory.

Knows nothing of models or photos. The view of the root choice (where a region has several
roots) is the square around all of them; its key is ``None``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from zoomloc.world.cells import Cell
from zoomloc.world.coverage import Coverage
from zoomloc.world.pyramid import TilePyramid
from zoomloc.world.region import Region

Pictures = npt.NDArray[np.uint8]
KEPT_MB = 500


class Crop(NamedTuple):
    """A square of the map: its centre and side in cells of a depth, from the region's corner."""

    depth: int
    row: float
    column: float
    side: float


@dataclass
class RegionViews:
    """Pictures (S, S, 3) of cells, made once each, and where they lie in the region."""

    region: Region
    pyramid: TilePyramid
    coverage: Coverage
    view_px: int
    margin: float = 0.0
    context_m: float = 64.0  # side of the reference square round a terminal cell
    dense: int = 4  # reference squares a side of a coarser cell
    _kept: dict[Cell | Crop | None, Pictures] = field(default_factory=dict, repr=False)

    @property
    def has_root_choice(self) -> bool:
        """Whether a root choice comes before zoom 0."""
        return len(self.region.roots) > 1

    def picture(self, cell: Cell | None) -> Pictures:
        """(S, S, 3) picture of a cell, or of the square around all roots for None."""
        found = self._kept.get(cell)
        return self._keep(cell, self._render(cell)) if found is None else found

    def crop(self, crop: Crop, keep: bool = True) -> Pictures:
        """(S, S, 3) picture of any square; what lies beyond the imagery is grey."""
        found = self._kept.get(crop)
        if found is None:
            found = self._cropped(crop)
            if keep:
                self._keep(crop, found)
        return found

    # reference squares of the two towers

    def references_a_side(self, depth: int) -> int:
        """How many reference squares lie along a cell's side: dense above the terminal cells."""
        return 1 if depth == self.region.zooms else self.dense

    def reference(self, depth: int, row: float, column: float) -> Crop:
        """The reference square whose centre is nearest to a place of a depth's grid.

        A coarser cell's square has the cell's size; a terminal cell's reaches ``context_m``.
        """
        n = self.references_a_side(depth)
        side = self.context_m / self.region.cell_size_m if depth == self.region.zooms else 1.0
        return Crop(depth, (int(row * n) + 0.5) / n, (int(column * n) + 0.5) / n, side)

    def references(self, depth: int) -> list[Crop]:
        """All reference squares of a depth, those of one cell in a row, cells row-major."""
        n = self.references_a_side(depth)
        inner = [(i + 0.5) / n for i in range(n)]
        cells = np.argwhere(self.coverage.present(depth)).tolist()
        return [
            self.reference(depth, row + i, column + j)
            for row, column in cells
            for i in inner
            for j in inner
        ]

    def place(self, cell: Cell | None) -> tuple[float, float, float]:
        """x and y of the cell's north-west corner and its side, where the roots' square is 1."""
        rows, columns = self.region.root_shape
        extent = float(max(rows, columns))
        if cell is None:
            return (columns - extent) / 2 / extent, (rows - extent) / 2 / extent, 1.0
        row, column = self.region.row_column(cell)
        side = 0.5 ** (cell.level - self.region.root_level)
        return column * side / extent, row * side / extent, side / extent

    def child_mask(self, cell: Cell | None) -> npt.NDArray[np.bool_]:
        """Which choices have imagery: (K,) for a cell, (R,) over the roots for None."""
        if cell is not None:
            return np.asarray(self.coverage.children(cell))
        slots = self.region.root_slots()
        return np.asarray(self.coverage.present(0)[slots[:, 0], slots[:, 1]])

    def choices(self, path: Sequence[Cell]) -> tuple[int, ...]:
        """Choice indices along a path from its root (root slot first, where there are several)."""
        step = self.region.levels_per_zoom
        zooms = tuple(cell.choice(step) for cell in path[1:])
        return (self.region.roots.index(path[0]), *zooms) if self.has_root_choice else zooms

    def _keep(self, key: Cell | Crop | None, picture: Pictures) -> Pictures:
        if (len(self._kept) + 1) * picture.nbytes > KEPT_MB * 1e6:
            self._kept.pop(next(iter(self._kept)))
        self._kept[key] = picture
        return picture

    def _cropped(self, crop: Crop) -> Pictures:
        region = self.region
        level = region.root_level + crop.depth * region.levels_per_zoom
        left, top = (v << (level - region.root_level) for v in region.origin)
        west, north = crop.column - crop.side / 2, crop.row - crop.side / 2
        return self.pyramid.window(level, left + west, top + north, crop.side, self.view_px)

    def _render(self, cell: Cell | None) -> Pictures:
        if cell is not None:
            return self.pyramid.view(cell, self.view_px, self.margin)
        rows, columns = self.region.root_shape
        x, y = self.region.origin
        side = max(rows, columns)
        return self.pyramid.window(
            self.region.root_level,
            x + (columns - side) / 2,
            y + (rows - side) / 2,
            side,
            self.view_px,
        )
