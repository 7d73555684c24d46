"""Posterior: partition, masses in discs, and the point that "within 25 m" asks for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoomloc.belief.posterior import Posterior, log_sum, z_order
from zoomloc.errors import RegionError
from zoomloc.world.cells import Cell, LatLng, cell_at, distance_m, distances_m, moved
from zoomloc.world.region import Region

HOME = LatLng(44.05, -123.07)


def region_at(place: LatLng = HOME, roots: int = 1, root_level=15, terminal_level=21) -> Region:
    """Terminal cells of 13.7 m at home; further roots lie east of the first, then south."""
    first, side = cell_at(place, root_level), 1 << root_level
    found = [Cell(root_level, (first.x + i % 2) % side, first.y + i // 2) for i in range(roots)]
    return Region("here", tuple(found), terminal_level, 2)


def leaf(region: Region, row: int, column: int) -> Cell:
    return region.cell(region.zooms, row, column)


def spread(region: Region, masses: dict[tuple[int, int], float]) -> Posterior:
    """All terminal cells; those named (row, column) hold the masses, the others nothing."""
    rows, columns = region.grid_shape(region.zooms)
    grid = np.zeros((rows, columns))
    for at, mass in masses.items():
        grid[at] = mass
    cells = [leaf(region, r, c) for r in range(rows) for c in range(columns)]
    held = np.array([c.parent(c.level - region.root_level) in region.roots for c in cells])
    with np.errstate(divide="ignore"):
        log_mass = np.log(grid.ravel()[held])
    return Posterior.of(region, [c for c, h in zip(cells, held, strict=True) if h], log_mass)


def mixed(seed: int, region: Region) -> Posterior:
    """A random partition: cells are opened at random, where the mass is more often."""
    rng = np.random.default_rng(seed)
    cells, masses = [], []
    queue = [(root, 1.0) for root in region.roots]
    while queue:
        cell, mass = queue.pop()
        if cell.level < region.terminal_level and (mass > 0.02 or rng.random() < 0.2):
            shares = rng.dirichlet(np.full(16, 0.1 + rng.random()))
            queue += list(zip(region.children(cell), mass * shares, strict=True))
        else:
            cells.append(cell)
            masses.append(mass)
    order = rng.permutation(len(cells))
    with np.errstate(divide="ignore"):
        log_mass = np.log(np.array(masses)[order])
    return Posterior.of(region, [cells[i] for i in order], log_mass)


def at(region: Region, column: float, row: float) -> LatLng:
    """The place at a fractional column and row of the terminal grid."""
    lat, lng = region.leaf_places(np.array([column]), np.array([row]))
    return LatLng(float(lat[0]), float(lng[0]))


# the partition


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), roots=st.integers(1, 4), lng=st.sampled_from([-123.07, 179.999]))
def test_made_of_any_order_it_is_sorted_and_sums_to_1(seed, roots, lng):
    region = region_at(LatLng(44.05, lng), roots, 13, 17)
    posterior = mixed(seed, region)
    assert abs(posterior.mass.sum() - 1) < 1e-9
    assert (np.diff(posterior._start) > 0).all()
    area = sum(4.0 ** (17 - c.level) for c in posterior.cells)
    assert area == roots * 256
    again = Posterior.of(region, posterior.cells, posterior.log_mass + 3.7)
    assert again.cells == posterior.cells
    np.testing.assert_allclose(again.log_mass, posterior.log_mass, atol=1e-12)


def test_overlapping_foreign_and_massless_cells_are_refused():
    region = region_at()
    root = region.roots[0]
    child = root.descendants(2)[7]
    with pytest.raises(RegionError, match="overlap"):
        Posterior.of(region, [child, root], np.zeros(2))
    with pytest.raises(RegionError, match="overlap"):
        Posterior.of(region, [child, child], np.zeros(2))
    for wrong in (root.parent(), Cell(root.level, root.x + 1, root.y), child.descendants(5)[0]):
        with pytest.raises(RegionError, match="another region"):
            Posterior.of(region, [child, wrong], np.zeros(2))
    for cells, log_mass in (([child], [-np.inf]), ([child], [np.nan]), ([], []), ([child], [0, 0])):
        with pytest.raises(RegionError, match="must be finite"):
            Posterior.of(region, cells, np.array(log_mass, np.float64))


def test_top_best_cell_and_entropy_by_hand():
    region = region_at()
    root = region.roots[0]
    coarse, opened = root.descendants(2)[0], root.descendants(2)[5]
    leaves = [opened.descendants(4)[i] for i in (3, 9, 200)]
    posterior = Posterior.of(region, [coarse, *leaves], np.log([0.4, 0.1, 0.3, 0.2]))
    assert [c for c, _ in posterior.top(2)] == [leaves[1], leaves[2]]
    assert posterior.top(99)[0] == (leaves[1], pytest.approx(0.3))
    assert len(posterior.top(99)) == 3 and posterior.best_cell == leaves[1]
    parts = [0.4 / 256] * 256 + [0.1, 0.3, 0.2]
    assert posterior.entropy == pytest.approx(-sum(p * np.log(p) for p in parts))
    assert spread(region, {(3, 4): 1.0}).entropy == 0.0
    two = Posterior.of(region, root.descendants(2)[:2], np.log([0.7, 0.3]))
    assert two.best_cell == root.descendants(2)[0]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), keep=st.integers(0, 40), roots=st.integers(1, 3))
def test_merged_keeps_the_heaviest_and_sums_the_rest(seed, keep, roots):
    posterior = mixed(seed, region_at(roots=roots, root_level=13, terminal_level=17))
    merged = posterior.merged(keep)
    assert abs(merged.mass.sum() - 1) < 1e-9 and len(merged.mass) <= len(posterior.mass)
    found = Posterior.of(posterior.region, merged.cells, merged.log_mass)  # refuses overlaps
    assert found.cells == merged.cells
    before = dict(zip(posterior.cells, posterior.mass, strict=True))
    after = dict(zip(merged.cells, merged.mass, strict=True))
    kept = sorted(before.values(), reverse=True)[:keep]
    assert sum(after[c] == m for c, m in before.items() if c in after) >= len(kept)
    for cell, mass in after.items():
        inside = [
            m
            for c, m in before.items()
            if c.level >= cell.level and c.parent(c.level - cell.level) == cell
        ]
        assert mass == pytest.approx(sum(inside), abs=1e-12)
    assert len(merged.cells) <= roots + keep * (1 + 3 * 4)


def test_merged_to_nothing_is_the_roots():
    posterior = mixed(3, region_at(roots=3))
    assert sorted(posterior.merged(0).cells) == sorted(posterior.region.roots)


# discs


def test_mass_within_by_hand():
    region = region_at()
    root = region.roots[0]
    flat = Posterior.of(region, [root], np.zeros(1))
    middle = at(region, 32, 32)
    cell_area = distance_m(at(region, 31.5, 32), at(region, 32.5, 32)) * distance_m(
        at(region, 32, 31.5), at(region, 32, 32.5)
    )
    inside = np.pi * 50**2 / (4096 * cell_area)
    assert flat.mass_within(middle, 50) == pytest.approx(inside, rel=1e-4)
    assert flat.mass_within(at(region, 0, 32), 50) == pytest.approx(inside / 2, rel=1e-4)
    assert flat.mass_within(at(region, 64, 64), 50) == pytest.approx(inside / 4, rel=1e-3)
    assert flat.mass_within(middle, 1e5) == pytest.approx(1.0)
    assert flat.mass_within(middle, 0) == pytest.approx(0, abs=1e-12)
    assert flat.mass_within(moved(middle, 45, 5e3), 1e3) == 0.0


@pytest.mark.parametrize("lng", [-123.07, 179.999, -0.001])
@pytest.mark.parametrize("radius_m", [12, 50, 150])
def test_mass_within_agrees_with_counting_geodesic_distances(lng, radius_m):
    region = region_at(LatLng(44.05, lng), 4)
    for seed in range(2):
        posterior = mixed(seed, region)
        place = posterior.best_point()
        counted = 0.0
        ticks = (np.arange(48) + 0.5) / 48
        for cell, mass in zip(posterior.cells, posterior.mass, strict=True):
            if distance_m(cell.center, place) > radius_m + cell.size_m or mass < 1e-5:
                continue
            row, column = (v << (21 - cell.level) for v in region.row_column(cell))
            span = 1 << (21 - cell.level)
            x, y = np.meshgrid(column + span * ticks, row + span * ticks)
            lat, lng_ = region.leaf_places(x, y)
            counted += mass * (distances_m(lat, lng_, place.lat, place.lng) <= radius_m).mean()
        assert posterior.mass_within(place, radius_m) == pytest.approx(counted, abs=2e-3)


def test_radius_holding_is_the_inverse_of_mass_within():
    for seed in range(8):
        posterior = mixed(seed, region_at(roots=1 + seed % 4))
        place = posterior.best_point()
        radii = [posterior.radius_holding(place, share) for share in (0.05, 0.5, 0.9, 0.999)]
        assert radii == sorted(radii)
        for share, radius_m in zip((0.05, 0.5, 0.9, 0.999), radii, strict=True):
            assert posterior.mass_within(place, radius_m) >= share - 1e-9
            assert posterior.mass_within(place, max(radius_m - 0.02, 0)) < share


def test_radius_holding_by_hand():
    region = region_at()
    posterior = spread(region, {(10, 10): 0.6, (10, 30): 0.4})
    place = at(region, 10.5, 10.5)
    corner = distance_m(place, at(region, 10, 10))
    far = distance_m(place, at(region, 31, 10))
    assert posterior.radius_holding(place, 0.6) == pytest.approx(corner, abs=0.02)
    assert posterior.radius_holding(place, 1.0) == pytest.approx(far, abs=0.05)
    cell_m = distance_m(at(region, 10, 10.5), at(region, 11, 10.5))
    small = np.sqrt(0.1 / 0.6 / np.pi) * cell_m  # a disc inside the cell with a sixth of its area
    assert posterior.radius_holding(place, 0.1) == pytest.approx(small, rel=2e-3)
    assert posterior.radius_holding(place, 0.0) <= 0.01


# the Bayes point


def test_one_cell_answers_with_its_middle():
    region = region_at()
    posterior = spread(region, {(20, 40): 1.0})
    assert distance_m(posterior.best_point(), leaf(region, 20, 40).center) < 0.01
    assert posterior.path == region.path_to(leaf(region, 20, 40))


@pytest.mark.parametrize(
    ("masses", "column", "row"),
    [
        ({(20, 40): 0.5, (20, 41): 0.5}, 41.0, 20.5),  # a pair: on their border
        ({(20, 40): 0.3, (20, 41): 0.4, (20, 42): 0.3}, 41.5, 20.5),  # three in a row
        # four round a corner beat the one heaviest cell, which stands alone
        ({(20, 40): 0.17, (20, 41): 0.17, (21, 40): 0.17, (21, 41): 0.17, (50, 5): 0.32}, 41, 21),
        # with a gap: 12 m beyond either cell's own middle, in a cell without mass
        ({(20, 40): 0.5, (20, 42): 0.5}, 41.5, 20.5),
    ],
)
def test_mass_over_adjacent_cells_puts_the_point_between_them(masses, column, row):
    region = region_at()
    point = spread(region, masses).best_point()
    assert distance_m(point, at(region, column, row)) < 0.5


def test_a_pair_of_unequal_cells_is_weighed_by_what_the_disc_holds():
    """Cells of 55 m hold the disc of 25 m whole: it lies wholly in the heavier one."""
    region = region_at(root_level=13, terminal_level=19)
    posterior = spread(region, {(20, 40): 0.6, (20, 41): 0.4})
    column, row = region.leaf_xy(*(np.array([v]) for v in posterior.best_point()))
    side = distance_m(at(region, 40, 20.5), at(region, 41, 20.5))
    assert 40 + 25 / side <= column[0] + 1e-3 and column[0] <= 41 - 25 / side + 1e-3
    assert 20 + 25 / side <= row[0] + 1e-3 and row[0] <= 21 - 25 / side + 1e-3


@pytest.mark.parametrize("within_m", [10.0, 25.0, 60.0, 300.0])
@pytest.mark.parametrize("seed", range(3))
def test_no_point_of_a_fine_grid_holds_more(seed, within_m):
    region = region_at(roots=1 + seed % 2, root_level=16, terminal_level=20)
    posterior = mixed(seed, region)
    rows, columns = region.grid_shape(region.zooms)
    best = max(
        posterior.mass_within(at(region, c, r), within_m)
        for r in np.arange(0.25, rows, 0.5)
        for c in np.arange(0.25, columns, 0.5)
    )
    point = posterior.best_point(within_m)
    assert posterior.mass_within(point, within_m) > best * 0.999 - 1e-9


def test_across_the_antimeridian_the_point_lies_on_it():
    region = region_at(LatLng(-17.0, 179.9999), 2)
    assert region.roots[0].x > region.roots[1].x
    posterior = spread(region, {(20, 63): 0.5, (20, 64): 0.5})
    point = posterior.best_point()
    assert abs(abs(point.lng) - 180) < 1e-5
    assert distance_m(point, at(region, 64, 20.5)) < 0.5
    assert posterior.mass_within(point, 25) == pytest.approx(1.0)
    assert posterior.radius_holding(point, 0.99) < 25


def test_the_point_stays_on_the_ground_of_the_partition():
    """An L of three roots: a disc in its missing corner would hold as much as any."""
    region = region_at(roots=3)
    posterior = spread(region, {(63, 64): 0.5, (64, 63): 0.5})
    assert len(posterior.path) == region.zooms + 1
    hole = [leaf(region, r, c) for r in range(16) for c in range(16) if (r, c) != (8, 8)]
    posterior = Posterior.of(region, hole, np.zeros(len(hole)))
    assert posterior.path[-1] in hole


def test_coarse_mass_is_answered_from_its_middle_parts():
    region = region_at()
    posterior = Posterior.of(region, region.roots[0].descendants(2), np.log(np.arange(1.0, 17)))
    heaviest = region.roots[0].descendants(2)[15]
    assert heaviest.contains(posterior.best_point())


def test_a_radius_of_nothing_is_refused():
    with pytest.raises(ValueError, match="within_m 0"):
        spread(region_at(), {(1, 1): 1.0}).best_point(0)


# arithmetic


def test_z_order_makes_each_cell_one_interval():
    row, column = np.mgrid[:16, :16]
    code = z_order(column, row)
    assert sorted(code.ravel()) == list(range(256))
    assert code[0, 1] == 1 and code[1, 0] == 2 and code[2, 0] == 8
    assert sorted(code[4:8, 8:12].ravel()) == list(range(code[4, 8], code[4, 8] + 16))
    assert z_order(np.array([2**30 - 1]), np.array([2**30 - 1]))[0] == 2**60 - 1


def test_log_sum_neither_under_nor_overflows():
    assert log_sum(np.array([-5000.0, -5000.0])) == pytest.approx(-5000 + np.log(2))
    assert log_sum(np.array([5000.0, -np.inf])) == 5000
    assert log_sum(np.array([-np.inf, -np.inf])) == -np.inf
    assert np.isnan(log_sum(np.array([0.0, np.nan])))
