"""What a photo's position says of each choice: one leaf distribution, summed up the tree.

DESIGN 5.4: t(c) = (1 - u) * (mass of N(position, sigma^2) in c) + u * |c| / |region|,
renormalised over terminal cells with imagery; a choice's target is t(child) / t(parent).
Knows nothing of pictures or networks. Letters: B photos, n terminal cells a side of the
window around a photo, K children, S steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import erf, sqrt

import numpy as np

from zoomloc.errors import PhotoError
from zoomloc.world.cells import Cell, Floats, Ints
from zoomloc.world.coverage import Coverage

_erf = np.vectorize(erf, otypes=[np.float64])
REACH_SIGMAS = 3.0
WIDEST_M = 60.0  # a position worse than this says no more than its neighbourhood


@dataclass(frozen=True)
class LeafTargets:
    """Leaf distributions of B photos: a window of Gaussian mass, plus a uniform share.

    row, column (B, n): terminal cells of the window in the region's grid; mass (B, n, n):
    Gaussian mass over cells with imagery, summing to 1 for each photo.
    """

    coverage: Coverage
    row: Ints
    column: Ints
    mass: Floats
    uniform_share: float
    leaf_total: int

    def draw(self, rng: np.random.Generator) -> list[Cell]:
        """One terminal cell for each photo, drawn from its distribution."""
        region, leaves = self.coverage.region, self.coverage.leaves
        anywhere = np.flatnonzero(leaves)
        cells = []
        for photo in range(len(self.mass)):
            if rng.random() < self.uniform_share:
                row, column = divmod(int(rng.choice(anywhere)), leaves.shape[1])
            else:
                below = np.cumsum(self.mass[photo].ravel())
                pick = min(int(np.searchsorted(below, rng.random())), below.size - 1)
                i, j = divmod(pick, self.mass.shape[2])
                row, column = self.row[photo, i], self.column[photo, j]
            cells.append(region.cell(region.zooms, int(row), int(column)))
        return cells

    def at_roots(self) -> Floats:
        """(B, R): target of each root."""
        region = self.coverage.region
        slots = region.root_slots()
        gauss = self._summed(0)[:, slots[:, 0], slots[:, 1]]
        share = np.asarray(self.coverage.leaf_count(0), float)[slots[:, 0], slots[:, 1]]
        return self._mixed(gauss, np.broadcast_to(share, gauss.shape))

    def at_children(self, photo: int, cell: Cell) -> Floats:
        """(K,): target of each child of a cell, for one photo."""
        region = self.coverage.region
        step, depth = region.levels_per_zoom, region.depth(cell) + 1
        top, left = (v << step for v in region.row_column(cell))
        shift = step * (region.zooms - depth)
        rows, columns = (self.row[photo] >> shift) - top, (self.column[photo] >> shift) - left
        side = 1 << step
        in_row, in_column = (rows >= 0) & (rows < side), (columns >= 0) & (columns < side)
        gauss = np.zeros((side, side))
        np.add.at(
            gauss,
            (rows[in_row][:, None], columns[in_column][None, :]),
            self.mass[photo][np.ix_(in_row, in_column)],
        )
        count = self.coverage.leaf_count(depth)[top : top + side, left : left + side]
        return self._mixed(gauss.reshape(1, -1), np.asarray(count, float).reshape(1, -1))[0]

    def _summed(self, depth: int) -> Floats:
        """Gaussian mass of the cells of a (coarse) depth: (B, rows, columns)."""
        region = self.coverage.region
        shift = region.levels_per_zoom * (region.zooms - depth)
        total = np.zeros((len(self.mass), *region.grid_shape(depth)))
        rows = np.clip(self.row >> shift, 0, total.shape[1] - 1)
        columns = np.clip(self.column >> shift, 0, total.shape[2] - 1)
        photo = np.arange(len(self.mass))[:, None, None]
        np.add.at(total, (photo, rows[:, :, None], columns[:, None, :]), self.mass)
        return total

    def _mixed(self, gauss: Floats, leaves: Floats) -> Floats:
        """Normalised over the choices; where t gives the parent no mass, uniform over leaves."""
        share = self.uniform_share
        mixed = (1 - share) * gauss + max(share, 1e-9) * leaves / self.leaf_total
        return np.asarray(mixed / mixed.sum(axis=1, keepdims=True))


def leaf_targets(
    coverage: Coverage, lat: Floats, lng: Floats, sigma_m: Floats, uniform_share: float
) -> LeafTargets:
    """Leaf distributions of photos at (lat, lng) with standard deviations ``sigma_m`` (B,).

    Raises PhotoError where a photo has no terminal cell with imagery around it.
    """
    region = coverage.region
    x, y = region.leaf_xy(lat, lng)
    sigma = np.clip(sigma_m, 1e-3, WIDEST_M) / region.cell_size_m  # in terminal cells
    reach = int(np.ceil(REACH_SIGMAS * sigma.max())) + 1
    offset = np.arange(-reach, reach + 1, dtype=np.float64)
    west, north = np.floor(x)[:, None] + offset, np.floor(y)[:, None] + offset
    mass = _axis_mass(north, y, sigma)[:, :, None] * _axis_mass(west, x, sigma)[:, None, :]
    row, column = north.astype(np.int64), west.astype(np.int64)
    mass = mass * _has_imagery(coverage, row, column)
    total = mass.sum(axis=(1, 2), keepdims=True)
    if (total <= 0).any():
        raise PhotoError(
            f"{int((total <= 0).sum())} photos lie outside the imagery of region "
            f"{region.name!r}; leave them out"
        )
    leaf_total = int(coverage.leaves.sum())
    return LeafTargets(coverage, row, column, mass / total, uniform_share, leaf_total)


def one_hot(choice: int, size: int) -> Floats:
    """(size,) 1 at the choice."""
    target = np.zeros(size)
    target[choice] = 1.0
    return target


def smoothed(target: Floats, present: Sequence[bool] | np.ndarray, smoothing: float) -> Floats:
    """Label smoothing over the choices that exist (the paper: 0.1)."""
    mask = np.asarray(present, float)
    return np.asarray((1 - smoothing) * target + smoothing * mask / mask.sum())


def _axis_mass(cells: Floats, center: Floats, sigma: Floats) -> Floats:
    """(B, n) Gaussian mass between each cell's borders along one axis."""
    scale = 1 / (sigma * sqrt(2))
    low = _erf((cells - center[:, None]) * scale[:, None])
    high = _erf((cells + 1 - center[:, None]) * scale[:, None])
    return np.asarray((high - low) / 2)


def _has_imagery(coverage: Coverage, row: Ints, column: Ints) -> np.ndarray:
    """(B, n, n) whether the terminal cells at rows x columns hold imagery."""
    leaves = coverage.leaves
    good_row = (row >= 0) & (row < leaves.shape[0])
    good_column = (column >= 0) & (column < leaves.shape[1])
    at = leaves[
        np.clip(row, 0, leaves.shape[0] - 1)[:, :, None],
        np.clip(column, 0, leaves.shape[1] - 1)[:, None, :],
    ]
    return at & good_row[:, :, None] & good_column[:, None, :]
