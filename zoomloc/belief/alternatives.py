"""Where else a photo may be from: the likeliest places apart from an answer and each other.

Knows nothing of photos, of search or of how an answer was chosen. Columns and rows are those of
the lattice on which ``posterior.Lattice`` lays its discs.
"""

import numpy as np

from zoomloc.belief.discs import cell_sides
from zoomloc.belief.posterior import Bools, Lattice, Posterior
from zoomloc.world.cells import Floats, LatLng

APART_M = 100.0  # nearer than that it is the same place for whoever goes and looks
MOST = 4
LEAST = 0.01  # less belief than that is no alternative
ANCHORS = 512  # densest squares that are tried as places
_MARGIN = 1e-4  # the plane on which distances are taken is true to less than that


def alternatives(
    posterior: Posterior, place: LatLng, within_m: float, most: int = MOST
) -> list[tuple[LatLng, float]]:
    """Places and the mass within ``within_m`` of each, the likeliest first.

    Each is the best that is at least APART_M, and two radii, from the answer ``place`` and from
    those before it: no two discs share any mass. Fewer than ``most`` where less than LEAST is left.
    """
    lattice = Lattice(posterior, within_m)
    apart = _Apart(lattice, max(APART_M, 2 * within_m))
    apart.keep(place)
    taken = most * (2 * apart.metres / posterior.region.cell_size_m + 2) ** 2  # cells, at most
    column, row = _densest(posterior, lattice, ANCHORS + int(taken))
    held = np.full(len(column), np.nan)  # by the discs round them, once asked for
    found: list[tuple[LatLng, float]] = []
    while len(found) < most:
        free = np.flatnonzero(apart.of_all(column, row))[:ANCHORS]
        if not len(free):
            break
        new = free[np.isnan(held[free])]
        held[new] = lattice.held(column[new], row[new])
        best = free[[_greatest(held[free])]]
        there = _climbed(lattice, apart, column[best], row[best])
        mass = posterior.mass_within(there, within_m)
        if mass < LEAST:
            break
        found.append((there, mass))
        apart.keep(there)
    return sorted(found, key=lambda one: -one[1])


class _Apart:
    """The places that others must keep away from."""

    def __init__(self, lattice: Lattice, metres: float) -> None:
        self.lattice, self.metres = lattice, metres * (1 + _MARGIN)
        self.kept: list[tuple[float, float, float, float]] = []  # with metres of a square's sides

    def keep(self, place: LatLng) -> None:
        """One more place to keep away from."""
        region, unit = self.lattice.region, self.lattice.unit
        column, row = region.leaf_xy(np.array([place.lat]), np.array([place.lng]))
        sides = cell_sides(region, row)
        self.kept.append(
            (column[0] / unit, row[0] / unit, sides.east_m[0] * unit, sides.south_m[0] * unit)
        )

    def of_all(self, column: Floats, row: Floats) -> Bools:
        """(P,) whether a place is far enough from all that are kept."""
        far = np.ones(len(column), bool)
        for kept_column, kept_row, east_m, south_m in self.kept:
            metres = np.hypot((column - kept_column) * east_m, (row - kept_row) * south_m)
            far &= metres >= self.metres
        return far


def _densest(posterior: Posterior, lattice: Lattice, n: int) -> tuple[Floats, Floats]:
    """Middles of the n densest cells, of large ones the places near their corners too."""
    span = posterior.span / lattice.unit
    order = np.argsort(-posterior.mass / span**2, kind="stable")[:n]
    span = span[order]
    left, top = (corner[order] / lattice.unit for corner in posterior.corner)
    columns, rows, ranks = [left + span / 2], [top + span / 2], [np.arange(len(span))]
    large = np.flatnonzero(span > 4)
    for right, down in ((0, 0), (0, 1), (1, 0), (1, 1)):
        columns.append((left + np.where(right, span - 0.5, 0.5))[large])
        rows.append((top + np.where(down, span - 0.5, 0.5))[large])
        ranks.append(large)
    order = np.argsort(np.concatenate(ranks), kind="stable")
    return np.concatenate(columns)[order], np.concatenate(rows)[order]


def _climbed(lattice: Lattice, apart: _Apart, column: Floats, row: Floats) -> LatLng:
    """The place, of one (1,) and its surroundings that are free, whose disc holds the most."""
    around = lattice.surroundings(column, row)
    free = apart.of_all(*around)
    column, row = np.append(column, around[0][free]), np.append(row, around[1][free])
    best = _greatest(lattice.held(column, row))
    column, row = column[best : best + 1], row[best : best + 1]
    middle = lattice.centred(column, row)
    if apart.of_all(*middle).all():
        column, row = middle
    lat, lng = lattice.region.leaf_places(column * lattice.unit, row * lattice.unit)
    return LatLng(float(lat[0]), float(lng[0]))


def _greatest(held: Floats) -> int:
    """Index of the greatest; the first among equals."""
    return int(np.argmax(np.round(held, 12)))
