"""RegionViews: the pictures of a region's cells as a model looks at them, kept in memory.

Knows nothing of models or photos. The view of the root choice (where a region has several
roots) is the square around all of them; its key is ``None``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from zoomloc.world.cells import Cell
from zoomloc.world.coverage import Coverage
from zoomloc.world.pyramid import TilePyramid
from zoomloc.world.region import Region

Pictures = npt.NDArray[np.uint8]
KEPT_MB = 500


@dataclass
class RegionViews:
    """Pictures (S, S, 3) of cells, made once each, and where they lie in the region."""

    region: Region
    pyramid: TilePyramid
    coverage: Coverage
    view_px: int
    margin: float = 0.0
    _kept: dict[Cell | None, Pictures] = field(default_factory=dict, repr=False)

    @property
    def has_root_choice(self) -> bool:
        """Whether a root choice comes before zoom 0."""
        return len(self.region.roots) > 1

    def picture(self, cell: Cell | None) -> Pictures:
        """(S, S, 3) picture of a cell, or of the square around all roots for None."""
        found = self._kept.get(cell)
        if found is None:
            found = self._render(cell)
            if (len(self._kept) + 1) * found.nbytes > KEPT_MB * 1e6:
                self._kept.pop(next(iter(self._kept)))
            self._kept[cell] = found
        return found

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
