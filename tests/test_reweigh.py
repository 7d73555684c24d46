"""reweigh: each way to change a belief, against plain sums over a grid of terminal cells."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_search import HOME, Opinions, on_grid, region_of, with_holes

from zoomloc.belief.posterior import Posterior
from zoomloc.belief.reweigh import even_over, floored, joined, on_leaves, tempered, under
from zoomloc.belief.search import SearchPlan, search
from zoomloc.errors import RegionError
from zoomloc.world.coverage import Coverage

PLANS = [
    SearchPlan("greedy"),
    SearchPlan("beam", beam=3),
    SearchPlan("best-first", bound=0.3),
    SearchPlan("exhaustive"),
]
CASES = {
    "roots": st.integers(1, 4),
    "shape": st.sampled_from([(1, 3), (2, 2), (3, 1)]),
    "share": st.sampled_from([0.1, 0.8, 1.0]),
    "lng": st.sampled_from([HOME.lng, 179.999]),
    "plan": st.sampled_from(PLANS),
    "seed": st.integers(0, 2**31),
}


def beliefs(roots, shape, share, lng, plan, seed, photos=1):
    """Coverage with gaps, and posteriors of search that leave some of it in larger cells."""
    coverage = with_holes(region_of(roots, *shape, lng=lng), seed, share)
    scorer = Opinions(coverage, sharpness=2.0)
    return coverage, search(scorer, [seed % 97 + i for i in range(photos)], coverage, plan)


def some_prior(coverage, seed, spread=2.0):
    """(rows, columns) log r / p0 at random, averaging 1 over the ground."""
    drawn = spread * np.random.default_rng(seed).normal(size=coverage.leaves.shape)
    mean = np.exp(drawn[coverage.leaves]).mean()
    return np.where(coverage.leaves, drawn - np.log(mean), -np.inf)


def summed_in(posterior, grid):
    """(n,) what a grid of terminal cells holds in each cell of a partition."""
    column, row = posterior.corner
    return np.array([
        grid[r : r + side, c : c + side].sum()
        for r, c, side in zip(row, column, posterior.span, strict=True)
    ])  # fmt: skip


def check_whole(found, before):
    """The same cells in the same order, and all of the mass."""
    assert found.cells == before.cells
    assert found.mass.sum() == pytest.approx(1, abs=1e-9)


def test_search_leaves_larger_cells_in_these_cases():
    """Or nothing below would try them."""
    _, (posterior,) = beliefs(3, (2, 2), 0.8, HOME.lng, PLANS[0], 1)
    assert len({*posterior.span.tolist()}) > 2


# scale and floor


@settings(max_examples=40, deadline=None)
@given(**CASES, scale=st.sampled_from([0.1, 0.5, 1.0, 1.7, 4.0]))
def test_a_scale_is_a_power_of_each_terminal_cells_mass(
    roots, shape, share, lng, plan, seed, scale
):
    coverage, (posterior,) = beliefs(roots, shape, share, lng, plan, seed)
    found = tempered(posterior, scale)
    check_whole(found, posterior)
    before = np.nan_to_num(on_grid(posterior))
    power = np.where(coverage.leaves, before**scale, 0)
    np.testing.assert_allclose(np.nan_to_num(on_grid(found)), power / power.sum(), atol=1e-12)
    if scale == 1:
        np.testing.assert_allclose(found.log_mass, posterior.log_mass, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(**CASES, first=st.sampled_from([0.3, 2.0]), then=st.sampled_from([0.5, 3.0]))
def test_scales_multiply(roots, shape, share, lng, plan, seed, first, then):
    _, (posterior,) = beliefs(roots, shape, share, lng, plan, seed)
    twice, once = tempered(tempered(posterior, first), then), tempered(posterior, first * then)
    np.testing.assert_allclose(twice.log_mass, once.log_mass, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(**CASES, even=st.sampled_from([0.0, 1e-6, 0.2, 0.9]))
def test_a_floor_is_laid_evenly_over_the_ground(roots, shape, share, lng, plan, seed, even):
    coverage, (posterior,) = beliefs(roots, shape, share, lng, plan, seed)
    found = floored(posterior, even)
    check_whole(found, posterior)
    by_hand = (1 - even) * np.nan_to_num(on_grid(posterior)) + even / coverage.leaves.sum()
    grid = on_grid(found)
    np.testing.assert_allclose(grid[coverage.leaves], by_hand[coverage.leaves], atol=1e-12)


def test_ground_without_mass_stays_so_until_a_floor_is_laid():
    """Three quarters of a root of 16 cells: 4 single ones, one of 4, one of 4 without mass."""
    region = region_of(1, 1, 2)
    first, second, third, _ = region.roots[0].descendants(1)
    cells = [*first.descendants(1), second, third]
    posterior = Posterior.of(region, cells, np.log([0.1, 0.1, 0.2, 0.2, 0.4, 1e-300]))
    posterior.log_mass[-1] = -np.inf
    sharper = dict(zip(posterior.cells, tempered(posterior, 2).mass, strict=True))
    squares = 0.01 + 0.01 + 0.04 + 0.04 + 4 * 0.01  # the second's four cells hold 0.1 each
    assert sharper[third] == 0 and sharper[second] == pytest.approx(0.04 / squares)
    assert sharper[cells[2]] == pytest.approx(0.04 / squares)
    laid = dict(zip(posterior.cells, floored(posterior, 0.3).mass, strict=True))
    assert laid[third] == pytest.approx(0.3 * 4 / 12)
    assert laid[cells[0]] == pytest.approx(0.7 * 0.1 + 0.3 / 12)


# priors


@settings(max_examples=40, deadline=None)
@given(**CASES, spread=st.sampled_from([0.3, 2.0, 8.0]))
def test_a_prior_multiplies_terminal_cells(roots, shape, share, lng, plan, seed, spread):
    """In a larger cell it counts with its mean; how it lies in there is not kept."""
    coverage, (posterior,) = beliefs(roots, shape, share, lng, plan, seed)
    log_ratio = some_prior(coverage, seed, spread)
    found, agreement = under(posterior, log_ratio)
    check_whole(found, posterior)
    product = np.nan_to_num(on_grid(posterior)) * np.exp(log_ratio)
    assert agreement == pytest.approx(np.log(product.sum()), abs=1e-9)
    by_hand = summed_in(posterior, product / product.sum())
    np.testing.assert_allclose(found.mass, by_hand, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(**CASES)
def test_an_even_prior_changes_nothing(roots, shape, share, lng, plan, seed):
    coverage, (posterior,) = beliefs(roots, shape, share, lng, plan, seed)
    found, agreement = under(posterior, np.where(coverage.leaves, 0.0, -np.inf))
    np.testing.assert_allclose(found.log_mass, posterior.log_mass, atol=1e-12)
    assert agreement == pytest.approx(0, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), share=st.sampled_from([0.3, 1.0]))
def test_two_priors_are_one_after_the_other(seed, share):
    """On terminal cells alone nothing is lost in between, and agreements add up."""
    case = {"roots": 2, "shape": (1, 3), "lng": HOME.lng, "plan": PLANS[-1], "seed": seed}
    coverage, (posterior,) = beliefs(share=share, **case)
    one, two = (some_prior(coverage, seed + i) for i in (1, 2))
    first, agreed = under(posterior, one)
    then, agreed_then = under(first, two)
    both, agreed_both = under(posterior, np.where(coverage.leaves, one, 0) + two)
    np.testing.assert_allclose(then.log_mass, both.log_mass, atol=1e-9)
    assert agreed + agreed_then == pytest.approx(agreed_both, abs=1e-9)


def test_the_photo_speaks_for_a_prior_or_against_it():
    """16 cells, 90 % of the belief in the first quarter: a prior for any quarter is 4 there."""
    region = region_of(1, 1, 2)
    coverage, quarters = Coverage.full(region), region.roots[0].descendants(1)
    share = 0.1 / 3
    posterior = Posterior.of(region, quarters, np.log([0.9, share, share, share]))
    for quarter, held in ((0, 0.9), (3, share)):
        row, column = region.row_column(quarters[quarter])
        ratio = np.zeros((4, 4))
        ratio[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 4.0
        with np.errstate(divide="ignore"):
            found, agreement = under(posterior, np.log(ratio))
        assert agreement == pytest.approx(np.log(4 * held))
        assert dict(zip(found.cells, found.mass, strict=True))[quarters[quarter]] == 1.0
    assert coverage.leaves.all()


def test_a_prior_that_leaves_no_ground_with_belief_is_refused():
    region = region_of(1, 1, 2)
    here, there = region.roots[0].descendants(1)[:2]
    posterior = Posterior.of(region, [here], np.zeros(1))
    row, column = (2 * v for v in region.row_column(there))
    log_ratio = np.full((4, 4), -np.inf)
    log_ratio[row : row + 2, column : column + 2] = np.log(4)
    with pytest.raises(RegionError, match="widen it") as refusal:
        under(posterior, log_ratio)
    assert "\n" not in str(refusal.value)


# grids and several photos


@settings(max_examples=40, deadline=None)
@given(**CASES)
def test_terminal_cells_hold_the_mass_of_what_they_lie_in(roots, shape, share, lng, plan, seed):
    coverage, (posterior,) = beliefs(roots, shape, share, lng, plan, seed)
    found = on_leaves(posterior, coverage)
    assert ((found == -np.inf) == ~coverage.leaves).all()
    np.testing.assert_allclose(np.exp(found), np.nan_to_num(on_grid(posterior)), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(**CASES, photos=st.integers(1, 4), alpha=st.sampled_from([0.25, 0.6, 1.0]))
def test_several_photos_are_a_product_over_what_is_known_without_any(
    roots, shape, share, lng, plan, seed, photos, alpha
):
    coverage, each = beliefs(roots, shape, share, lng, plan, seed, photos)
    assume(coverage.leaves.sum() > 1)
    grids = np.stack([on_leaves(one, coverage) for one in each])
    log_p0 = some_prior(coverage, seed) - np.log(coverage.leaves.sum())
    found = joined(grids, log_p0, alpha, coverage)
    assert set(found.span.tolist()) == {1}
    product = np.exp(log_p0)
    for one in each:
        ratio = np.nan_to_num(on_grid(one)) / np.where(coverage.leaves, np.exp(log_p0), 1)
        product = product * ratio**alpha
    np.testing.assert_allclose(np.nan_to_num(on_grid(found)), product / product.sum(), atol=1e-9)
    backwards = joined(grids[::-1], log_p0, alpha, coverage)
    np.testing.assert_allclose(backwards.log_mass, found.log_mass, atol=1e-9)


def test_one_photo_alone_is_itself_whatever_is_known_without_it():
    coverage, (posterior,) = beliefs(2, (2, 2), 0.7, HOME.lng, PLANS[1], 5)
    grid = on_leaves(posterior, coverage)
    found = joined(grid[None], some_prior(coverage, 1), 1.0, coverage)
    np.testing.assert_allclose(on_leaves(found, coverage), grid, atol=1e-9)


def test_photos_that_say_nothing_leave_what_is_known_without_them():
    coverage = with_holes(region_of(2, 1, 3), 3, 0.6)
    log_p0 = some_prior(coverage, 4) - np.log(coverage.leaves.sum())
    for known in (log_p0, even_over(coverage)):
        found = joined(np.stack([known] * 3), known, 0.7, coverage)
        np.testing.assert_allclose(on_leaves(found, coverage), known, atol=1e-9)
    assert np.exp(even_over(coverage)).sum() == pytest.approx(1)
    assert len({*even_over(coverage)[coverage.leaves].tolist()}) == 1
