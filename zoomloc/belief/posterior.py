"""Posterior: a partition of the searched ground into cells of any level that sums to 1.

Knows nothing of how the masses came about (search, fusion, calibration) nor of files. Each
cell's mass lies evenly over the cell; all distances are metres on the local plane of
``discs.cell_sides``, all columns and rows those of the region's grid of terminal cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from zoomloc.belief.discs import CellSides, cell_sides, covered_area, window_shares
from zoomloc.errors import RegionError
from zoomloc.world.cells import Cell, Floats, Ints, LatLng
from zoomloc.world.region import Region

Bools = npt.NDArray[np.bool_]

ANCHORS = 512  # densest cells that are tried as disc centres
PEAKS = 16  # of these, how many have their surroundings tried
SUMMITS = 4  # and how many places are refined
FINEST = 1 / 8  # squares smaller than this share of the radius are summed before a disc is laid


@dataclass(frozen=True, eq=False)
class Posterior:
    """Mass of each cell of a partition, in Z-order of the region's grid; made by ``of``.

    level, x, y: (n,) the cells; log_mass: (n,) natural logarithms, -inf where there is none.
    """

    region: Region
    level: Ints
    x: Ints
    y: Ints
    log_mass: Floats

    @classmethod
    def of(cls, region: Region, cells: Sequence[Cell], log_mass: Floats) -> "Posterior":
        """The posterior of these cells, in any order, normalised.

        Raises RegionError where cells overlap, lie outside the roots or hold no mass at all.
        """
        table = np.array(list(cells), np.int64).reshape(-1, 3)
        log_mass = np.asarray(log_mass, np.float64)
        total = log_sum(log_mass) if len(log_mass) else -np.inf
        if not np.isfinite(total) or len(table) != len(log_mass):
            raise RegionError(
                f"posterior over region {region.name!r}: {len(table)} cells with log-masses that "
                f"sum to {total}; each cell needs one, and one of them must be finite"
            )
        _check_inside(region, table)
        loose = cls(region, table[:, 0], table[:, 1], table[:, 2], log_mass - total)
        order = np.argsort(loose._start, kind="stable")
        level, x, y = table[order].T
        made = cls(region, level, x, y, loose.log_mass[order])
        if (made._start[1:] < (made._start + made.span**2)[:-1]).any():
            raise RegionError(
                f"posterior over region {region.name!r}: its cells overlap; "
                "hand over each place once"
            )
        return made

    # 1. the partition

    @cached_property
    def mass(self) -> Floats:
        """(n,) probability of each cell; sums to 1."""
        return np.asarray(np.exp(self.log_mass))

    @cached_property
    def cells(self) -> list[Cell]:
        """The n cells."""
        return list(map(Cell, self.level.tolist(), self.x.tolist(), self.y.tolist()))

    @property
    def entropy(self) -> float:
        """Nats over terminal cells: 0 where one holds all, log n where n share alike."""
        held = self.mass > 0
        per_leaf = self.log_mass[held] - 2 * np.log(self.span[held])
        return max(0.0, float(-(self.mass[held] * per_leaf).sum()))

    def top(self, n: int) -> list[tuple[Cell, float]]:
        """The n heaviest terminal cells with their masses, heaviest first."""
        leaf = np.flatnonzero(self.level == self.region.terminal_level)
        order = leaf[np.argsort(-self.mass[leaf], kind="stable")[:n]]
        return [(self._cell(i), float(self.mass[i])) for i in order]

    @property
    def best_cell(self) -> Cell:
        """The heaviest terminal cell; where none is terminal, the cell of the densest mass."""
        best = self.top(1)
        return best[0][0] if best else self._cell(int(np.argmax(self._density)))

    @cached_property
    def path(self) -> tuple[Cell, ...]:
        """Cells from the root to the terminal cell of the best point."""
        return self.region.path(self.best_point())

    def merged(self, keep: int) -> "Posterior":
        """The ``keep`` heaviest cells as they are, all others in the largest common cells.

        Merged cells are as large as the kept ones and the roots allow, and hold the exact sum of
        what was in them; there are at most 3 for each kept cell and level below the roots. They
        may reach over ground without imagery, so that distances should be asked before.
        """
        kept = np.zeros(len(self.mass), bool)
        kept[np.argsort(-self.mass, kind="stable")[: max(keep, 0)]] = True
        shift = self._merge_shifts(kept)
        start = self._start >> 2 * shift << 2 * shift
        first = np.flatnonzero(np.diff(start, prepend=-1))  # Z-order: what merges stands together
        shift = shift[first] - (self.region.terminal_level - self.level[first])
        with np.errstate(divide="ignore"):
            log_mass = np.log(np.add.reduceat(self.mass, first))
        alone = np.diff(first, append=len(self.mass)) == 1
        log_mass = np.where(alone, self.log_mass[first], log_mass)
        return Posterior(
            self.region,
            self.level[first] - shift,
            self.x[first] >> shift,
            self.y[first] >> shift,
            log_mass,
        )

    def _merge_shifts(self, kept: Bools) -> Ints:
        """Levels between terminal cells and the largest cell round each that holds none kept."""
        shift = self.region.terminal_level - self.level
        open_ = ~kept
        for up in range(self.region.terminal_level - self.region.root_level, -1, -1):
            code = self._start >> 2 * up
            free = open_ & (shift <= up) & ~np.isin(code, code[kept])
            shift = np.where(free, up, shift)
            open_ &= ~free
        return shift

    # 2. places

    def mass_within(self, place: LatLng, radius_m: float) -> float:
        """Probability of the disc of that radius round a place."""
        held = self._held(self._boxes(place), np.array([float(radius_m)]), self.mass)
        return min(1.0, float(held[0]))

    def at(self, place: LatLng) -> int | None:
        """Index of the cell that holds a place; None outside the partition."""
        i = int(self.which(np.array([place.lat]), np.array([place.lng]))[0])
        return None if i < 0 else i

    def log_mass_at(self, lat: Floats, lng: Floats) -> Floats:
        """(n,) log-mass of the terminal cell that holds each place; NaN outside the partition."""
        i = self.which(lat, lng)
        each = self.log_mass[i] - 2 * np.log(self.span[i])
        return np.where(i < 0, np.nan, each)

    def searched_share(self, place: LatLng) -> float:
        """Share of the ground that is denser in mass than a place, half of what is as dense.

        What someone who searches the likeliest ground first has walked before standing there;
        1 for a place outside the partition.
        """
        i = self.at(place)
        if i is None:
            return 1.0
        area, own = self.span.astype(np.float64) ** 2, self._density[i]
        denser, alike = area[self._density > own].sum(), area[self._density == own].sum()
        return float((denser + alike / 2) / area.sum())

    def radius_holding(self, place: LatLng, share: float) -> float:
        """Metres of the smallest disc round a place that holds that share, to a centimetre."""
        boxes = self._boxes(place)
        near, far = _reach(boxes)
        low, high = _quantile(near, self.mass, share), _quantile(far, self.mass, share)
        whole, cut = far <= low, (far > low) & (near < high)
        base, partial = self.mass[whole].sum(), self.mass[cut]
        boxes = tuple(side[cut] for side in boxes)
        while high - low > 0.01:
            radii = np.linspace(low, high, 18)[1:-1]
            enough = base + self._held(boxes, radii, partial) >= share - 1e-12
            i = int(np.argmax(enough)) if enough.any() else len(radii)
            low, high = ([low, *radii][i], [*radii, high][i])
        return float(high)

    def best_point(self, within_m: float = 25.0) -> LatLng:
        """The Bayes point for "within that many metres": the disc that holds the most mass.

        Tries the densest cells, then the surroundings of the best, then shifts the best by
        fractions of a cell; among equals, the middle of what the disc holds. Discs are laid
        exactly over cells (larger radii: over squares of an eighth of them). The point lies in
        a cell of the partition.
        """
        lattice = Lattice(self, within_m)
        column, row = self._anchors(lattice)
        column, row = _best(lattice, column, row, PEAKS)
        column, row = _best(lattice, *lattice.surroundings(column, row), SUMMITS)
        for step in (0.2, 0.07, 0.025):
            shift = _SHIFTS * step
            column, row = _best(
                lattice,
                (column[:, None] + shift[:, 0]).ravel(),
                (row[:, None] + shift[:, 1]).ravel(),
                1,
            )
        column, row = lattice.centred(column, row)
        lat, lng = self.region.leaf_places(column * lattice.unit, row * lattice.unit)
        return LatLng(float(lat[0]), float(lng[0]))

    # 3. geometry on the grid of terminal cells

    @cached_property
    def span(self) -> Ints:
        """(n,) sides of the cells in terminal cells."""
        return np.left_shift(1, self.region.terminal_level - self.level)

    @cached_property
    def corner(self) -> tuple[Ints, Ints]:
        """(n,) columns and (n,) rows of the cells' north-west corners."""
        down = self.region.terminal_level - self.region.root_level
        left, top = self.region.origin[0] << down, self.region.origin[1] << down
        column = (self.x * self.span - left) % (1 << self.region.terminal_level)
        return column, self.y * self.span - top

    @cached_property
    def _start(self) -> Ints:
        """(n,) Z-order of the first terminal cell in each cell."""
        return z_order(*self.corner)

    @cached_property
    def _density(self) -> Floats:
        """(n,) mass per terminal cell."""
        return np.asarray(self.mass / self.span.astype(np.float64) ** 2)

    def which(self, lat: Floats, lng: Floats) -> Ints:
        """(n,) index of the cell that holds each place, -1 outside the partition."""
        column, row = self.region.leaf_xy(lat, lng)
        rows, columns = self.region.grid_shape(self.region.zooms)
        inside = (0 <= column) & (column < columns) & (0 <= row) & (row < rows)
        code = z_order(*(np.where(inside, v, 0).astype(np.int64) for v in (column, row)))
        i = np.searchsorted(self._start, code, side="right") - 1
        inside &= (i >= 0) & (code < self._start[i] + self.span[i] ** 2)
        return np.where(inside, i, -1)

    def _cell(self, i: int) -> Cell:
        return Cell(int(self.level[i]), int(self.x[i]), int(self.y[i]))

    def _boxes(self, place: LatLng) -> tuple[Floats, ...]:
        """Left, top, right, bottom of each cell in metres east and south of a place."""
        column, row = self.region.leaf_xy(np.array([place.lat]), np.array([place.lng]))
        sides = cell_sides(self.region, row)
        left = (self.corner[0] - column) * sides.east_m
        top = (self.corner[1] - row) * sides.south_m
        return left, top, left + self.span * sides.east_m, top + self.span * sides.south_m

    @staticmethod
    def _held(boxes: tuple[Floats, ...], radii: Floats, mass: Floats) -> Floats:
        """(r,) mass inside discs of radii (r,) round the origin of the boxes."""
        left, top, right, bottom = boxes
        radii = np.maximum(radii, 1e-9)[:, None]
        area = covered_area(left / radii, top / radii, right / radii, bottom / radii)
        return np.asarray((area * radii**2 / ((right - left) * (bottom - top))) @ mass)

    def _anchors(self, lattice: "Lattice") -> tuple[Floats, Floats]:
        """Places to try first: middles of the densest cells, corners too where they are large."""
        dense = np.argsort(-self._density, kind="stable")[:ANCHORS]
        span = self.span[dense] / lattice.unit
        column, row = (corner[dense] / lattice.unit for corner in self.corner)
        large = span > 4
        at = [(0.5, 0.5)] + [(a, b) for a in (0.0, 1.0) for b in (0.0, 1.0)]
        columns, rows = [], []
        for i, (right, down) in enumerate(at):
            use = large if i else np.ones_like(large)
            columns.append((column + np.clip(right * span, 0.5, span - 0.5))[use])
            rows.append((row + np.clip(down * span, 0.5, span - 0.5))[use])
        return np.concatenate(columns), np.concatenate(rows)


class Lattice:
    """Mass on a lattice of squares (``unit`` terminal cells each way), under discs."""

    def __init__(self, posterior: Posterior, within_m: float) -> None:
        if not within_m > 0:
            raise ValueError(f"within_m {within_m}: the radius of a disc is above 0")
        self.region, self.within_m = posterior.region, within_m
        up = max(0, int(np.floor(np.log2(within_m * FINEST / self.region.cell_size_m))))
        up = min(up, self.region.terminal_level - self.region.root_level)
        self.unit = 1 << up
        rows, columns = self.region.grid_shape(self.region.zooms)
        self.shape = rows >> up, columns >> up
        code = posterior._start >> 2 * up
        first = np.flatnonzero(np.diff(code, prepend=-1))
        area = np.maximum(posterior.span[first] >> up, 1) ** 2
        self.start, self.stop = code[first], code[first] + area
        self.density = np.add.reduceat(posterior.mass, first) / area
        edges = cell_sides(self.region, np.array([0.0, rows]))
        self.half = int(np.ceil(within_m / (self.unit * min(map(np.min, edges)))))

    def density_at(self, column: Ints, row: Ints) -> Floats:
        """Mass of the squares (broadcast), NaN outside the partition."""
        inside = (column >= 0) & (column < self.shape[1]) & (row >= 0) & (row < self.shape[0])
        code = z_order(np.maximum(column, 0), np.maximum(row, 0))
        i = np.maximum(np.searchsorted(self.start, code, side="right") - 1, 0)
        inside &= (code >= self.start[i]) & (code < self.stop[i])
        return np.where(inside, self.density[i], np.nan)

    def window(self, column: Floats, row: Floats) -> tuple[Floats, Floats]:
        """Mass of the squares round places (P,), and how much of it their discs cover.

        Both (P, W, W), rows first; the first holds NaN outside the partition.
        """
        around = np.arange(-self.half, self.half + 1)
        columns = np.floor(column).astype(np.int64)[:, None] + around
        rows = np.floor(row).astype(np.int64)[:, None] + around
        density = self.density_at(columns[:, None, :], rows[:, :, None])
        sides = cell_sides(self.region, row * self.unit)
        sides = CellSides(sides.east_m * self.unit, sides.south_m * self.unit)
        shares = window_shares(column, row, self.half, self.within_m, sides)
        return density, np.nan_to_num(density) * shares

    def held(self, column: Floats, row: Floats) -> Floats:
        """(P,) mass in the discs round places; -1 where a place is outside the partition."""
        density, held = self.window(column, row)
        own = density[:, self.half, self.half]
        return np.where(np.isnan(own), -1.0, held.sum(axis=(1, 2)))

    def surroundings(self, column: Floats, row: Floats) -> tuple[Floats, Floats]:
        """Middles of all squares whose discs may share mass with those of these places (P,)."""
        around = np.arange(-self.half, self.half + 1) + 0.5
        columns = np.floor(column)[:, None, None] + around[None, None, :]
        rows = np.floor(row)[:, None, None] + around[None, :, None]
        columns, rows = np.broadcast_arrays(columns, rows)
        _, first = np.unique(columns.ravel() + rows.ravel() * self.shape[1] * 2, return_index=True)
        first = np.sort(first)
        return columns.ravel()[first], rows.ravel()[first]

    def centred(self, column: Floats, row: Floats) -> tuple[Floats, Floats]:
        """The middle of what the disc round a place (1,) holds, if a disc there holds as much."""
        _, held = self.window(column, row)
        around = np.arange(-self.half, self.half + 1) + 0.5
        total = max(float(held.sum()), 1e-300)
        middle = (
            np.floor(column) + (held.sum(axis=1) @ around) / total,
            np.floor(row) + (held.sum(axis=2) @ around) / total,
        )
        as_good = self.held(*middle)[0] >= held.sum() - 1e-9
        return middle if as_good else (column, row)


# 25 shifts, the shortest first, so that among equals the place itself wins
_SHIFTS = np.array(
    sorted(
        ((x, y) for x in range(-2, 3) for y in range(-2, 3)), key=lambda s: s[0] ** 2 + s[1] ** 2
    ),
    np.float64,
)


def z_order(column: Ints, row: Ints) -> Ints:
    """Interleaved bits of columns and rows (broadcast; below 2**31): a cell is one interval."""
    return np.asarray(_spread(column) | _spread(row) << 1)


def log_sum(log_mass: Floats) -> float:
    """log of the sum of exponentials; -inf where all are, NaN or inf where one is."""
    peak = float(np.max(log_mass))
    if not np.isfinite(peak):
        return peak
    return peak + float(np.log(np.exp(log_mass - peak).sum()))


def _spread(v: Ints) -> Ints:
    """The bits of v on the even places."""
    v = (v | v << 16) & 0x0000FFFF0000FFFF
    v = (v | v << 8) & 0x00FF00FF00FF00FF
    v = (v | v << 4) & 0x0F0F0F0F0F0F0F0F
    v = (v | v << 2) & 0x3333333333333333
    return (v | v << 1) & 0x5555555555555555


def _best(lattice: Lattice, column: Floats, row: Floats, n: int) -> tuple[Floats, Floats]:
    """The n places whose discs hold the most; the first among equals."""
    held = lattice.held(column, row)
    order = np.argsort(-np.round(held, 12), kind="stable")[:n]
    return column[order], row[order]


def _reach(boxes: tuple[Floats, ...]) -> tuple[Floats, Floats]:
    """Least and greatest distance of each box from the origin."""
    left, top, right, bottom = boxes
    dx, dy = np.maximum(np.maximum(left, -right), 0), np.maximum(np.maximum(top, -bottom), 0)
    far_x, far_y = np.maximum(-left, right), np.maximum(-top, bottom)
    return np.hypot(dx, dy), np.hypot(far_x, far_y)


def _quantile(values: Floats, mass: Floats, share: float) -> float:
    """The least value that, with all below it, holds the share of the mass."""
    order = np.argsort(values)
    cumulated = np.cumsum(mass[order])
    i = int(np.searchsorted(cumulated, min(share, cumulated[-1]) - 1e-12))
    return float(values[order[min(i, len(order) - 1)]])


def _check_inside(region: Region, table: Ints) -> None:
    """Refuse cells above the roots, below the terminal level or under none of the roots."""
    level = table[:, 0]
    good = (level >= region.root_level) & (level <= region.terminal_level)
    shift = np.maximum(level - region.root_level, 0)
    roots = set(region.roots)
    above = zip((table[:, 1] >> shift).tolist(), (table[:, 2] >> shift).tolist(), strict=True)
    inside = good & np.array([Cell(region.root_level, x, y) in roots for x, y in above], bool)
    if not inside.all():
        wrong = Cell(*(int(v) for v in table[np.argmin(inside)]))
        raise RegionError(
            f"posterior over region {region.name!r}: cell {wrong} is not one of its cells; "
            "it was made for another region"
        )
