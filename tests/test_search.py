"""search: exact partitions of the present ground, whatever is opened."""

import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoomloc.belief.posterior import Posterior
from zoomloc.belief.search import SearchPlan, greedy_paths, search
from zoomloc.errors import CheckpointError, ConfigError
from zoomloc.world.cells import Cell, LatLng, cell_at
from zoomloc.world.coverage import Coverage
from zoomloc.world.region import Region

HOME = LatLng(44.05, -123.07)


class Opinions:
    """A Scorer with its own fixed opinion on each cell for each photo (photos are integers)."""

    def __init__(self, coverage: Coverage, sharpness: float = 2.0, absent: str = "scored") -> None:
        self.coverage, self.region = coverage, coverage.region
        self.sharpness, self.absent = sharpness, absent
        self.asked: list[tuple[int, Cell]] = []
        self.calls = self.root_calls = 0

    def start(self, photos: Sequence[int]) -> Sequence[int]:
        return photos

    def roots(self, photos):
        self.root_calls += 1
        return np.stack([self._of(p, Cell(0, 0, 0), len(self.region.roots)) for p in photos])

    def children(self, photos, photo_index, cells):
        assert len(photo_index) == len(cells) and len({c.level for c in cells}) == 1
        self.calls += 1
        self.asked += [(photos[i], c) for i, c in zip(photo_index, cells, strict=True)]
        scores = [
            self._of(photos[i], c, self.region.branching)
            for i, c in zip(photo_index, cells, strict=True)
        ]
        if self.absent == "masked":
            present = np.array([self.coverage.children(c) for c in cells])
            return np.where(present, np.stack(scores), -np.inf)
        return np.stack(scores)

    def leaves(self, photos):
        return None

    def _of(self, photo: int, cell: Cell, n: int):
        seed = zlib.crc32(f"{photo} {cell}".encode())
        scores = np.random.default_rng(seed).normal(size=n) * self.sharpness
        return scores - np.log(np.exp(scores).sum())


class Belief(Opinions):
    """A Scorer that is exact about a given mass of each leaf, (B, rows, columns)."""

    def __init__(self, coverage: Coverage, mass) -> None:
        super().__init__(coverage)
        self.mass = np.asarray(mass)

    def roots(self, photos):
        down = self.region.zooms
        with np.errstate(divide="ignore"):
            return np.log(
                [[self._held(i, r, down) for r in self.region.roots] for i in range(len(photos))]
            )

    def children(self, photos, photo_index, cells):
        down = self.region.zooms - self.region.depth(cells[0]) - 1
        held = [
            [self._held(i, c, down) for c in self.region.children(cell)]
            for i, cell in zip(photo_index, cells, strict=True)
        ]
        with np.errstate(divide="ignore"):
            return np.log(held)

    def leaves(self, photos):
        with np.errstate(divide="ignore"):
            return np.log(self.mass)

    def _held(self, photo, cell, zooms_below):
        side = 1 << (zooms_below * self.region.levels_per_zoom)
        row, column = (v * side for v in self.region.row_column(cell))
        return self.mass[photo, row : row + side, column : column + side].sum()


def region_of(roots=1, levels_per_zoom=1, zooms=3, root_level=13, lng=HOME.lng) -> Region:
    """Roots in a 2-wide block whose north-west one lies at home."""
    first = cell_at(LatLng(HOME.lat, lng), root_level)
    side = 1 << root_level
    found = [Cell(root_level, (first.x + i % 2) % side, first.y + i // 2) for i in range(roots)]
    return Region("here", tuple(found), root_level + zooms * levels_per_zoom, levels_per_zoom)


def with_holes(region: Region, seed: int, share: float) -> Coverage:
    full = Coverage.full(region).leaves
    keep = full & (np.random.default_rng(seed).random(full.shape) < share)
    if not keep.any():
        keep.flat[np.argmax(full)] = True
    return Coverage(region, keep)


def on_grid(posterior: Posterior):
    """(rows, columns) density of mass per terminal cell; NaN where no cell lies."""
    region = posterior.region
    grid = np.full(region.grid_shape(region.zooms), np.nan)
    down = region.terminal_level - region.root_level
    for cell, mass in zip(posterior.cells, posterior.mass, strict=True):
        span = 1 << (region.terminal_level - cell.level)
        column = (cell.x * span - (region.origin[0] << down)) % (1 << region.terminal_level)
        row = cell.y * span - (region.origin[1] << down)
        square = (slice(row, row + span), slice(column, column + span))
        assert np.isnan(grid[square]).all(), "cells overlap"
        grid[square] = mass / span**2
    return grid


def by_hand(scorer: Opinions, photo: int):
    """Exact leaf masses by plain recursion, a second way to say what exhaustive must find."""
    region, coverage = scorer.region, scorer.coverage
    grid = np.full(region.grid_shape(region.zooms), np.nan)

    def share_out(cells, scores, present, mass):
        weights = np.where(present, np.exp(scores), 0.0)
        for cell, weight in zip(cells, weights / weights.sum(), strict=True):
            if not coverage.cell_counts([cell])[0]:
                continue
            if cell.level == region.terminal_level:
                grid[region.row_column(cell)] = mass * weight
            else:
                below = scorer._of(photo, cell, region.branching)
                share_out(region.children(cell), below, coverage.children(cell), mass * weight)

    roots = np.zeros(1) if len(region.roots) == 1 else scorer.roots([photo])[0]
    share_out(region.roots, roots, coverage.cell_counts(region.roots) > 0, 1.0)
    return grid


PLANS = [
    SearchPlan("greedy"),
    SearchPlan("beam", beam=1),
    SearchPlan("beam", beam=3),
    SearchPlan("best-first", bound=0.2),
    SearchPlan("best-first", bound=0.0),
    SearchPlan("best-first", bound=0.0, max_expansions=5),
    SearchPlan("exhaustive"),
]


@settings(max_examples=40, deadline=None)
@given(
    roots=st.integers(1, 4),
    shape=st.sampled_from([(1, 3), (2, 2), (3, 1), (1, 1)]),
    share=st.sampled_from([0.02, 0.3, 0.9, 1.0]),
    lng=st.sampled_from([HOME.lng, 179.999, 0.0]),
    absent=st.sampled_from(["scored", "masked"]),
    sharpness=st.sampled_from([0.1, 3.0, 60.0]),
    seed=st.integers(0, 2**31),
    plan=st.sampled_from(PLANS),
)
def test_every_posterior_partitions_the_present_ground(
    roots, shape, share, lng, absent, sharpness, seed, plan
):
    region = region_of(roots, *shape, lng=lng)
    coverage = with_holes(region, seed, share)
    scorer = Opinions(coverage, sharpness, absent)
    photos = [seed % 7, seed % 7 + 1]
    for photo, posterior in zip(photos, search(scorer, photos, coverage, plan), strict=True):
        assert abs(posterior.mass.sum() - 1) < 1e-9
        grid = on_grid(posterior)
        assert (np.isnan(grid) == ~coverage.leaves).all()
        truth = by_hand(scorer, photo)
        if plan.method == "exhaustive" or plan == SearchPlan("best-first", bound=0.0):
            np.testing.assert_allclose(grid, truth, atol=1e-12)
    assert all(coverage.cell_counts([cell])[0] > 0 for _, cell in scorer.asked)
    assert len(set(scorer.asked)) == len(scorer.asked), "a node was opened twice"
    assert (scorer.root_calls == 0) == (roots == 1)


@pytest.mark.parametrize("shape", [(1, 3), (2, 2), (3, 1)])
def test_a_full_beam_is_exact_enumeration(shape):
    coverage = with_holes(region_of(3, *shape), 1, 0.7)
    scorer = Opinions(coverage)
    for photo in (0, 1):
        truth = by_hand(scorer, photo)
        for plan in (SearchPlan("beam", beam=10**6), SearchPlan("exhaustive")):
            posterior = search(scorer, [photo], coverage, plan)[0]
            assert set(posterior.level) == {coverage.region.terminal_level}
            np.testing.assert_allclose(on_grid(posterior), truth, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 5), (2, 3), (3, 2)])
def test_a_beam_of_one_is_greedy(shape):
    coverage = with_holes(region_of(4, *shape), 2, 0.6)
    scorer = Opinions(coverage, sharpness=0.5)
    photos = list(range(20))
    greedy = search(scorer, photos, coverage, SearchPlan("greedy"))
    beam = search(scorer, photos, coverage, SearchPlan("beam", beam=1))
    paths = greedy_paths(scorer, photos, coverage)
    for photo, a, b, path in zip(photos, greedy, beam, paths, strict=True):
        assert a.cells == b.cells and (a.log_mass == b.log_mass).all()
        cell = coverage.region.roots[int(scorer.roots([photo])[0].argmax())]
        while cell.level < coverage.region.terminal_level:
            scores = scorer._of(photo, cell, coverage.region.branching)
            scores = np.where(coverage.children(cell), scores, -np.inf)
            cell = coverage.region.children(cell)[int(scores.argmax())]
        assert path == coverage.region.path_to(cell)
        assert set(coverage.region.children(cell.parent(shape[0]))) & set(a.cells) >= {cell}


def test_pruned_nodes_keep_their_mass_as_coarse_cells():
    coverage = Coverage.full(region_of(1, 2, 2))
    scorer = Opinions(coverage)
    posterior = search(scorer, [5], coverage, SearchPlan("greedy"))[0]
    root = coverage.region.roots[0]
    prob = np.exp(scorer._of(5, root, 16))
    masses = dict(zip(posterior.cells, posterior.mass, strict=True))
    chosen = int(prob.argmax())
    for i, child in enumerate(coverage.region.children(root)):
        if i != chosen:
            assert masses[child] == pytest.approx(prob[i], abs=1e-12)
    below = np.exp(scorer._of(5, coverage.region.children(root)[chosen], 16)) * prob[chosen]
    leaves = coverage.region.children(coverage.region.children(root)[chosen])
    np.testing.assert_allclose([masses[leaf] for leaf in leaves], below, atol=1e-12)
    assert len(masses) == 15 + 16


def test_a_node_with_a_gap_falls_into_whole_parts_by_area():
    region = region_of(1, 1, 2)
    leaves = Coverage.full(region).leaves.copy()
    leaves[0, 0] = False  # the north-west child now has 3 of its 4 leaves
    coverage = Coverage(region, leaves)
    mass = np.zeros((1, 4, 4))
    mass[0, 2:, 2:] = 0.175  # greedy goes south-east; the north-west child is pruned with 0.3
    mass[0, :2, :2] = [[0, 0.1], [0.1, 0.1]]
    posterior = search(Belief(coverage, mass), [0], coverage, SearchPlan("greedy"))[0]
    pruned = [
        m
        for c, m in zip(posterior.cells, posterior.mass, strict=True)
        if c.parent(c.level - region.root_level - 1) == region.roots[0].descendants(1)[0]
    ]
    np.testing.assert_allclose(pruned, [0.1, 0.1, 0.1])


def test_the_beam_keeps_a_slot_for_the_greedy_path():
    """Three heavier nodes under the other root child would push the greedy node out."""
    coverage = Coverage.full(region_of(1, 1, 3))
    mass = np.zeros((1, 8, 8))
    quarter = mass[0, :4, :4]
    quarter[:] = 0.52 / 16  # greedy starts north-west, where the mass is flat
    mass[0, 4:6, 4:6] = 0.25 / 4  # two grandchildren outweigh all of its own
    mass[0, 6:, 6:] = 0.23 / 4
    posterior = search(Belief(coverage, mass), [0], coverage, SearchPlan("beam", beam=2))[0]
    leaves = [c for c in posterior.cells if c.level == coverage.region.terminal_level]
    root = coverage.region.roots[0]
    assert {leaf.parent(2) for leaf in leaves} == {root.descendants(1)[0], root.descendants(1)[3]}


@pytest.mark.parametrize("shape", [(1, 6), (2, 3), (3, 2)])
@pytest.mark.parametrize("roots", [1, 4])
def test_an_oracle_ends_in_the_cell_of_the_truth(shape, roots):
    region = region_of(roots, *shape)
    coverage = Coverage.full(region)
    rng = np.random.default_rng(0)
    rows, columns = coverage.leaves.shape
    at = np.stack([rng.integers(0, rows, 8), rng.integers(0, columns, 8)], axis=1)
    held = coverage.leaves[at[:, 0], at[:, 1]]
    at = at[held]
    mass = np.zeros((len(at), rows, columns))
    mass[np.arange(len(at)), at[:, 0], at[:, 1]] = 1
    for plan in PLANS:
        if plan.max_expansions < 10:
            continue
        found = search(Belief(coverage, mass), list(range(len(at))), coverage, plan)
        for (row, column), posterior in zip(at, found, strict=True):
            truth = region.cell(region.zooms, int(row), int(column))
            assert posterior.best_cell == truth
            assert posterior.path == region.path_to(truth)
            assert posterior.top(1) == [(truth, pytest.approx(1.0))]


def test_a_beam_of_two_saves_who_errs_at_zoom_0():
    region = region_of(1, 2, 3)
    coverage = Coverage.full(region)
    truth = region.cell(3, 50, 9)

    class Errs(Belief):
        """Zoom 0 prefers a wrong child, below which nothing looks like the photo."""

        def children(self, photos, photo_index, cells):
            if cells[0] != region.roots[0]:
                return super().children(photos, photo_index, cells)
            prob = np.full(16, 0.05 / 14)
            prob[region.path_to(truth)[1].choice(2)] = 0.45
            prob[3] = 0.50
            return np.log(prob)[None]

    mass = np.full((1, 64, 64), 1e-6)
    mass[0, 50, 9] = 1
    scorer = Errs(coverage, mass)
    greedy = search(scorer, [0], coverage, SearchPlan("greedy"))[0]
    saved = search(scorer, [0], coverage, SearchPlan("beam", beam=2))[0]
    assert greedy.best_cell != truth
    assert saved.best_cell == truth and saved.path[-1] == truth


def test_best_first_stops_at_its_bound_and_opens_no_more_than_one_at_a_time_would():
    coverage = with_holes(region_of(2, 1, 5), 3, 0.9)
    for bound in (0.5, 0.1, 0.01):
        scorer = Opinions(coverage, sharpness=3)
        posterior = search(scorer, [4], coverage, SearchPlan("best-first", bound=bound))[0]
        mass, opened = one_at_a_time(Opinions(coverage, sharpness=3), 4, bound)
        assert {cell for _, cell in scorer.asked} == opened
        inner = posterior.level < coverage.region.terminal_level
        assert posterior.mass[inner].sum() <= bound + 1e-12
        assert mass <= bound


def one_at_a_time(scorer: Opinions, photo: int, bound: float):
    """Best-first as the books have it: the heaviest node, one after the other."""
    region, coverage = scorer.region, scorer.coverage
    weights = np.exp(scorer.roots([photo])[0]) * (coverage.cell_counts(region.roots) > 0)
    queue = dict(zip(region.roots, weights / weights.sum(), strict=True))
    opened: set[Cell] = set()
    while sum(queue.values()) > bound:
        cell = max(queue, key=queue.__getitem__)
        mass = queue.pop(cell)
        opened.add(cell)
        weights = np.exp(scorer._of(photo, cell, region.branching)) * coverage.children(cell)
        for child, weight in zip(region.children(cell), weights / weights.sum(), strict=True):
            if child.level < region.terminal_level and weight > 0:
                queue[child] = mass * weight
    return sum(queue.values()), opened


def test_max_expansions_limits_each_photo():
    coverage = Coverage.full(region_of(1, 1, 6))
    scorer = Opinions(coverage, sharpness=0.1)
    plan = SearchPlan("best-first", bound=0, max_expansions=17)
    found = search(scorer, [1, 2, 3], coverage, plan)
    assert np.bincount([p for p, _ in scorer.asked])[1:].tolist() == [17, 17, 17]
    assert all(abs(p.mass.sum() - 1) < 1e-9 for p in found)


@pytest.mark.parametrize("plan", PLANS)
def test_a_batch_answers_as_each_photo_alone(plan):
    coverage = with_holes(region_of(3, 2, 2), 5, 0.8)
    photos = [3, 1, 4, 1, 5, 9, 2, 6]
    together = search(Opinions(coverage), photos, coverage, plan)
    for photo, posterior in zip(photos, together, strict=True):
        alone = search(Opinions(coverage), [photo], coverage, plan)[0]
        assert alone.cells == posterior.cells
        np.testing.assert_allclose(alone.log_mass, posterior.log_mass, atol=1e-12)


def test_one_call_of_the_scorer_serves_the_whole_batch_at_each_depth():
    coverage = Coverage.full(region_of(4, 2, 3))
    scorer = Opinions(coverage)
    search(scorer, list(range(5)), coverage, SearchPlan("beam", beam=4))
    assert (scorer.root_calls, scorer.calls) == (1, 3)
    assert len(scorer.asked) == 5 * 4 * 3


def test_leaves_at_once_are_masked_and_used_by_exhaustive():
    coverage = with_holes(region_of(2, 2, 2), 8, 0.5)
    mass = np.random.default_rng(0).random((3, *coverage.leaves.shape))
    found = search(Belief(coverage, mass), [0, 1, 2], coverage, SearchPlan("exhaustive"))
    for i, posterior in enumerate(found):
        kept = np.where(coverage.leaves, mass[i], np.nan)
        np.testing.assert_allclose(on_grid(posterior), kept / np.nansum(kept), atol=1e-12)


def test_far_below_what_a_plain_product_can_hold():
    """Log-masses of -3,000 in nats survive; as products of probabilities they would all be 0."""
    coverage = Coverage.full(region_of(1, 1, 4))

    class Steep(Opinions):
        def children(self, photos, photo_index, cells):
            return np.tile([0.0, -900.0, -1000.0, -np.inf], (len(cells), 1))

    posterior = search(Steep(coverage), [0], coverage, SearchPlan("exhaustive"))[0]
    finite = posterior.log_mass[np.isfinite(posterior.log_mass)]
    assert posterior.log_mass.max() == 0 and finite.min() == -4000
    assert abs(posterior.mass.sum() - 1) < 1e-12


@pytest.mark.parametrize("bad", [-np.inf, np.nan, np.inf])
def test_a_scorer_without_probability_is_refused(bad):
    coverage = Coverage.full(region_of(1, 2, 2))

    class Broken(Opinions):
        def children(self, photos, photo_index, cells):
            scores = super().children(photos, photo_index, cells)
            return scores if len(self.asked) == 1 else np.full_like(scores, bad)

        def leaves(self, photos):
            return np.full((1, *coverage.leaves.shape), bad)

    for plan in (SearchPlan("beam"), SearchPlan("best-first"), SearchPlan("exhaustive")):
        with pytest.raises(CheckpointError, match="no usable probability"):
            search(Broken(coverage), [0], coverage, plan)


def test_a_scorer_of_another_shape_is_refused():
    coverage = Coverage.full(region_of(1, 2, 2))

    class Wrong(Opinions):
        def children(self, photos, photo_index, cells):
            return np.zeros((len(cells), 4))

    with pytest.raises(ValueError, match=r"\(1, 16\)"):
        search(Wrong(coverage), [0], coverage, SearchPlan())


@pytest.mark.parametrize(
    "wrong",
    [{"method": "astar"}, {"beam": 0}, {"bound": 1.0}, {"bound": -0.1}, {"max_expansions": 0}],
)
def test_a_plan_that_cannot_be_followed_is_refused(wrong):
    with pytest.raises(ConfigError, match=str(next(iter(wrong.values())))):
        SearchPlan(**wrong)


def test_no_photos_no_posteriors():
    coverage = Coverage.full(region_of())
    assert search(Opinions(coverage), [], coverage, SearchPlan()) == []
