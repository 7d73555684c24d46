"""search under a prior: it looks where photo and prior may agree, and masses stay as they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_search import HOME, Belief, Opinions, by_hand, region_of, with_holes

from zoomloc.belief.priors import Near
from zoomloc.belief.reweigh import even_over, on_leaves, under
from zoomloc.belief.search import SearchPlan, greedy_paths, search
from zoomloc.world.coverage import Coverage

SHAPES = st.sampled_from([(1, 3), (2, 2), (3, 1), (1, 1)])


def drawn(coverage, photos, seed, spread=3.0):
    """Priors at random, (B, rows, columns): averaging 1 over the ground, nonsense elsewhere."""
    log_ratio = spread * np.random.default_rng(seed).normal(size=(photos, *coverage.leaves.shape))
    mean = np.exp(log_ratio[:, coverage.leaves]).mean(axis=1)
    return np.where(coverage.leaves, log_ratio - np.log(mean)[:, None, None], 9.0)


def near(coverage, row, column, radius_m):
    lat, lng = coverage.region.leaf_places(np.array([column + 0.5]), np.array([row + 0.5]))
    place = type(HOME)(float(lat[0]), float(lng[0]))
    return Near(place, radius_m).log_ratio(coverage)[None]


def exact(scorer, photo, log_ratio):
    """Leaf masses under a prior by plain recursion and Bayes; zero without imagery."""
    mass = np.nan_to_num(by_hand(scorer, photo)) * np.exp(log_ratio)
    return mass / mass.sum()


@settings(max_examples=40, deadline=None)
@given(
    roots=st.integers(1, 4),
    shape=SHAPES,
    share=st.sampled_from([0.05, 0.6, 1.0]),
    sharpness=st.sampled_from([0.1, 3.0, 20.0]),
    spread=st.sampled_from([0.0, 1.0, 8.0]),
    seed=st.integers(0, 2**31),
)
def test_best_first_with_bound_0_is_exhaustive(roots, shape, share, sharpness, spread, seed):
    coverage = with_holes(region_of(roots, *shape), seed, share)
    scorer = Opinions(coverage, sharpness)
    photos = [seed % 7, seed % 7 + 1]
    plan = SearchPlan("best-first", bound=0.0)
    alone = search(scorer, photos, coverage, plan)
    for photo, posterior in zip(photos, alone, strict=True):
        truth = np.nan_to_num(by_hand(scorer, photo))
        np.testing.assert_allclose(np.exp(on_leaves(posterior, coverage)), truth, atol=1e-5)
    log_ratio = drawn(coverage, 2, seed, spread)
    found = search(scorer, photos, coverage, plan, log_ratio=log_ratio)
    every = search(scorer, photos, coverage, SearchPlan("exhaustive"), log_ratio=log_ratio)
    for photo, ratio, one, all_ in zip(photos, log_ratio, found, every, strict=True):
        one, agreement = under(one, ratio)
        all_, wanted = under(all_, ratio)
        assert agreement == pytest.approx(wanted, abs=1e-6)
        for posterior in (one, all_):
            mass = np.exp(on_leaves(posterior, coverage))
            np.testing.assert_allclose(mass, exact(scorer, photo, ratio), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from([(1, 4), (2, 2)]),
    share=st.sampled_from([0.5, 1.0]),
    bound=st.sampled_from([0.3, 0.05, 0.001]),
    spread=st.sampled_from([0.0, 1.0, 5.0]),
    seed=st.integers(0, 2**31),
)
def test_best_first_leaves_at_most_the_bound_unopened_under_the_prior(
    shape, share, bound, spread, seed
):
    coverage = with_holes(region_of(2, *shape), seed, share)
    scorer = Opinions(coverage, sharpness=3)
    log_ratio = drawn(coverage, 1, seed, spread)
    plan = SearchPlan("best-first", bound=bound)
    (posterior,) = search(scorer, [3], coverage, plan, log_ratio=log_ratio)
    truth = exact(scorer, 3, log_ratio[0])
    unopened = np.ones_like(truth, bool)
    column, row = posterior.corner
    terminal = coverage.region.terminal_level
    for parent in {c.parent(shape[0]) for c in posterior.cells if c.level == terminal}:
        if parent in {cell for _, cell in scorer.asked}:
            top, left = (v << shape[0] for v in coverage.region.row_column(parent))
            unopened[top : top + (1 << shape[0]), left : left + (1 << shape[0])] = False
    assert truth[unopened].sum() <= bound + 1e-9
    assert {c for _, c in scorer.asked} == _one_at_a_time(scorer, 3, log_ratio[0], bound)


def _one_at_a_time(scorer, photo, log_ratio, bound):
    """Best-first as the books have it, on masses times the most that the prior has below."""
    region, coverage = scorer.region, scorer.coverage
    opinions = Opinions(coverage, scorer.sharpness)
    log_ratio = np.where(coverage.leaves, log_ratio, -np.inf)

    def most(cell):
        side = 1 << (region.terminal_level - cell.level)
        row, column = (v * side for v in region.row_column(cell))
        return np.exp(log_ratio[row : row + side, column : column + side].max())

    weights = np.exp(opinions.roots([photo])[0]) * (coverage.cell_counts(region.roots) > 0)
    queue = {r: w for r, w in zip(region.roots, weights / weights.sum(), strict=True) if w > 0}
    opened, found = set(), 0.0
    while True:
        held = {cell: mass * most(cell) for cell, mass in queue.items()}
        if sum(held.values()) <= bound * (sum(held.values()) + found):
            return opened
        cell = max(held, key=held.__getitem__)
        mass = queue.pop(cell)
        opened.add(cell)
        weights = np.exp(opinions._of(photo, cell, region.branching)) * coverage.children(cell)
        for child, weight in zip(region.children(cell), weights / weights.sum(), strict=True):
            if weight > 0 and child.level < region.terminal_level:
                queue[child] = mass * weight
            elif weight > 0:
                found += mass * weight * most(child)


def test_a_beam_keeps_what_the_prior_makes_likely():
    """The truth is the third best of 16 at zoom 0, as far as the photo goes."""
    coverage = Coverage.full(region_of(1, 2, 3))
    mass = np.full((1, 64, 64), 1e-7)
    mass[0, 5, 5], mass[0, 5, 40], mass[0, 50, 9] = 0.5, 0.35, 0.15
    truth = coverage.region.cell(3, 50, 9)
    scorer, plan = Belief(coverage, mass), SearchPlan("beam", beam=2)
    log_ratio = near(coverage, 50, 9, 100.0)
    (alone,) = search(scorer, [0], coverage, plan)
    (kept,) = search(scorer, [0], coverage, plan, log_ratio=log_ratio)
    assert truth not in alone.cells
    assert dict(zip(kept.cells, kept.mass, strict=True))[truth] == pytest.approx(0.15, abs=1e-3)
    pruned, _ = under(alone, log_ratio[0])
    found, agreement = under(kept, log_ratio[0])
    assert found.best_cell == truth and np.exp(on_leaves(found, coverage)[50, 9]) > 0.9
    assert np.exp(on_leaves(pruned, coverage)[50, 9]) < 0.2
    assert agreement > 0
    ((*_, greedy),) = greedy_paths(scorer, [0], coverage)
    assert greedy in kept.cells  # its slot is not given away


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), shape=SHAPES, spread=st.sampled_from([1.0, 8.0]))
def test_a_prior_does_not_touch_the_masses_of_nodes(seed, shape, spread):
    coverage = with_holes(region_of(3, *shape), seed, 0.7)
    scorer = Opinions(coverage)
    log_ratio = drawn(coverage, 1, seed, spread)
    truth = by_hand(scorer, 1)
    for plan in (SearchPlan("greedy"), SearchPlan("beam", beam=2), SearchPlan("best-first")):
        (posterior,) = search(scorer, [1], coverage, plan, log_ratio=log_ratio)
        assert posterior.mass.sum() == pytest.approx(1, abs=1e-9)
        column, row = posterior.corner
        for cell, mass in zip(posterior.cells, posterior.mass, strict=True):
            if cell.level == coverage.region.terminal_level and cell.parent(shape[0]) in {
                asked for _, asked in scorer.asked
            }:
                at = coverage.region.row_column(cell)
                assert mass == pytest.approx(truth[at], abs=1e-9)
        scorer.asked.clear()
    (greedy,) = search(scorer, [1], coverage, SearchPlan("greedy"))
    (same,) = search(scorer, [1], coverage, SearchPlan("greedy"), log_ratio=log_ratio)
    assert greedy.cells == same.cells and (greedy.log_mass == same.log_mass).all()


@pytest.mark.parametrize("plan", [SearchPlan("beam", beam=3), SearchPlan("best-first", bound=0.1)])
def test_each_photo_of_a_batch_has_its_own_prior(plan):
    coverage = with_holes(region_of(3, 2, 2), 5, 0.8)
    photos = [3, 1, 4, 1]
    log_ratio = drawn(coverage, 4, 0)
    together = search(Opinions(coverage), photos, coverage, plan, log_ratio=log_ratio)
    for i, photo in enumerate(photos):
        own = log_ratio[i : i + 1]
        (alone,) = search(Opinions(coverage), [photo], coverage, plan, log_ratio=own)
        assert alone.cells == together[i].cells
        np.testing.assert_allclose(alone.log_mass, together[i].log_mass, atol=1e-12)
    assert together[1].cells != together[3].cells  # one photo, two priors
    shared = search(Opinions(coverage), photos, coverage, plan, log_ratio=log_ratio[:1])
    assert shared[0].cells == together[0].cells


def test_no_prior_is_a_flat_one():
    coverage = with_holes(region_of(2, 1, 5), 3, 0.9)
    flat = np.where(coverage.leaves, 0.0, -np.inf)[None]
    for plan in (SearchPlan("beam", beam=4), SearchPlan("best-first", bound=0.1)):
        (with_, without) = (
            search(Opinions(coverage), [2], coverage, plan, log_ratio=ratio)[0]
            for ratio in (flat, None)
        )
        assert with_.cells == without.cells
        assert under(with_, flat[0])[1] == pytest.approx(0, abs=1e-9)
    even = even_over(coverage)
    assert np.exp(even[coverage.leaves]).sum() == pytest.approx(1)


def test_a_prior_of_another_region_is_refused():
    coverage = Coverage.full(region_of(1, 2, 2))
    for shape in ((1, 8, 8), (2, 16, 16)):
        with pytest.raises(ValueError, match=r"\(3, 16, 16\)"):
            search(Opinions(coverage), [0, 1, 2], coverage, SearchPlan(), log_ratio=np.zeros(shape))
