"""Targets: one leaf distribution, summed up the tree."""

import math

import numpy as np
import pytest

from zoomloc.errors import PhotoError
from zoomloc.training.targets import leaf_targets, smoothed
from zoomloc.world.cells import Cell
from zoomloc.world.coverage import Coverage
from zoomloc.world.region import Region

ROOT = Cell(15, 17000, 11000)


def coverage_of(roots=(ROOT,), step=2, hole=None):
    region = Region("r", tuple(roots), 21 if step != 1 else 18, step)
    leaves = np.ones(region.grid_shape(region.zooms), bool)
    if hole is not None:
        leaves[hole] = False
    return Coverage(region, leaves)


def place_at(region, column, row):
    lat, lng = region.leaf_places(np.array([column]), np.array([row]))
    return lat, lng


def brute_force(coverage, column, row, sigma_m, share):
    """The leaf distribution over the whole grid, by the definition."""
    region = coverage.region
    sigma = sigma_m / region.cell_size_m
    rows, columns = coverage.leaves.shape

    def axis(n, at):
        edges = np.array(
            [0.5 * (1 + math.erf((e - at) / sigma / math.sqrt(2))) for e in range(n + 1)]
        )
        return np.diff(edges)

    gauss = np.outer(axis(rows, row), axis(columns, column)) * coverage.leaves
    return (1 - share) * gauss / gauss.sum() + share * coverage.leaves / coverage.leaves.sum()


@pytest.mark.parametrize("hole", [None, (slice(0, 64), slice(31, 33))])
def test_inner_targets_are_the_leaf_distribution_summed_up(hole):
    coverage = coverage_of(hole=hole)
    region = coverage.region
    lat, lng = place_at(region, 30.3, 17.8)
    targets = leaf_targets(coverage, lat, lng, np.array([9.0]), 0.03)
    whole = brute_force(coverage, 30.3, 17.8, 9.0, 0.03)
    for cell in (ROOT, region.cell(1, 1, 1), region.cell(2, 4, 7)):
        depth = region.depth(cell)
        side = 64 >> (2 * depth)
        row, column = region.row_column(cell)
        block = whole[row * side : (row + 1) * side, column * side : (column + 1) * side]
        sums = block.reshape(4, side // 4, 4, side // 4).sum((1, 3)).ravel()
        # the window ends at three sigma, so a far child differs by the tail that is cut off
        np.testing.assert_allclose(targets.at_children(0, cell), sums / sums.sum(), atol=2e-3)


def test_targets_of_children_without_imagery_are_zero():
    coverage = coverage_of(hole=(slice(0, 16), slice(0, 16)))
    lat, lng = place_at(coverage.region, 17.0, 3.0)
    target = leaf_targets(coverage, lat, lng, np.array([30.0]), 0.03).at_children(0, ROOT)
    assert target[0] == 0
    assert target.sum() == pytest.approx(1)


def test_root_targets_follow_the_slots():
    east = Cell(15, ROOT.x + 1, ROOT.y)
    coverage = coverage_of((ROOT, east))
    lat, lng = place_at(coverage.region, 64.0, 10.0)  # on the border of both roots
    target = leaf_targets(coverage, lat, lng, np.array([10.0]), 0.0).at_roots()
    np.testing.assert_allclose(target, [[0.5, 0.5]], atol=1e-6)


def test_paths_drawn_follow_the_distribution():
    coverage = coverage_of(step=1)
    lat, lng = place_at(coverage.region, 4.0, 2.5)
    targets = leaf_targets(coverage, lat, lng, np.array([0.0]), 0.2)
    rng = np.random.default_rng(0)
    leaves = [targets.draw(rng)[0] for _ in range(4000)]
    near = {coverage.region.cell(3, 2, 3), coverage.region.cell(3, 2, 4)}
    at_home = np.mean([leaf in near for leaf in leaves])
    assert at_home == pytest.approx(0.8 + 0.2 * 2 / 64, abs=0.03)


def test_the_loss_of_drawn_paths_is_an_unbiased_estimate_of_the_leaf_cross_entropy():
    coverage = coverage_of(step=1)
    region = coverage.region
    lat, lng = place_at(region, 3.2, 5.1)
    targets = leaf_targets(coverage, lat, lng, np.array([40.0]), 0.1)
    rng = np.random.default_rng(1)
    logits = {}

    def log_q(cell):  # any fixed model: random log-probabilities of each cell's children
        if cell not in logits:
            raw = np.random.default_rng([cell.x, cell.y]).normal(size=4)
            logits[cell] = raw - np.log(np.exp(raw).sum())
        return logits[cell]

    def along(leaf):
        path = region.path_to(leaf)
        return sum(-(targets.at_children(0, c) * log_q(c)).sum() for c in path[:-1])

    def leaf_loss(leaf):
        path = region.path_to(leaf)
        return -sum(log_q(a)[b.choice(1)] for a, b in zip(path, path[1:], strict=False))

    leaves = [targets.draw(rng)[0] for _ in range(6000)]
    estimate = np.mean([along(leaf) for leaf in leaves])
    direct = np.mean([leaf_loss(leaf) for leaf in leaves])
    assert estimate == pytest.approx(direct, rel=0.03)


def test_a_photo_outside_the_imagery_is_refused_and_found():
    coverage = coverage_of(hole=(slice(0, 64), slice(0, 32)))
    lat, lng = place_at(coverage.region, 5.0, 5.0)
    assert not coverage.holds(lat, lng)[0]
    with pytest.raises(PhotoError, match="outside the imagery"):
        leaf_targets(coverage, lat, lng, np.array([3.0]), 0.03)


def test_smoothing_leaves_absent_choices_alone():
    smooth = smoothed(np.array([1.0, 0, 0, 0]), [True, True, False, True], 0.3)
    np.testing.assert_allclose(smooth, [0.8, 0.1, 0.0, 0.1])
