"""Known photos as evidence: turned to their bearings, averaged in their cells."""

import dataclasses

import numpy as np
import pytest
import torch
from test_match_scorer import match_config, photos

from zoomloc.belief.priors import Heading
from zoomloc.checkpoint import build_model
from zoomloc.locator import open_views
from zoomloc.model.match import Lattice
from zoomloc.scorers import scorer_of
from zoomloc.scorers.known import NEUTRAL, SCALE, WEIGHT, KnownPhotos, Placed, with_known
from zoomloc.scorers.shown import Shown
from zoomloc.world.cells import LatLng


@pytest.fixture
def scorer(small_config, painted):
    config = match_config(small_config)
    views = open_views(painted, config)
    torch.manual_seed(0)
    return scorer_of(build_model(config, views.region).eval(), views, config.search)


def place_of(scorer, row, column):
    lat, lng = scorer.views.region.leaf_places(np.array([column + 0.5]), np.array([row + 0.5]))
    return LatLng(float(lat[0]), float(lng[0]))


def covered_cell(scorer):
    rows, columns = np.nonzero(scorer.views.coverage.leaves)
    return int(rows[len(rows) // 2]), int(columns[len(rows) // 2])


def test_a_photo_is_found_where_it_was_known_to_be(scorer):
    """Its own fan fits itself better than any other, at its place and at its bearing."""
    rough = np.random.default_rng(0).integers(0, 255, (4, 3, 6, 3), np.uint8)
    shown = [Shown(one.repeat(8, 0).repeat(8, 1), 120.0) for one in rough]
    with torch.no_grad():  # a network that hears its pictures, not its biases
        scorer.model.columns.out.bias.zero_()
        scorer.model.photo_encoder.stages[0].weight *= 30
        scorer.model.columns.out.weight *= 10
    row, column = covered_cell(scorer)
    places = [place_of(scorer, row + i, column) for i in range(4)]
    known = with_known(
        scorer,
        [Placed(s, p, b) for s, p, b in zip(shown, places, (0, 90, 135, 270), strict=True)],
    )
    lattice = known.known.lattice
    bare = Lattice(lattice.bins, torch.zeros_like(lattice.unary), None)
    logits = known._compared(known._looks(shown), bare)  # (N, B, J)
    best = logits.permute(1, 0, 2)  # (B, N, J)
    for i, heading in enumerate((0, 2, 3, 6)):  # of 8 headings
        assert divmod(int(best[i].argmax()), 4) == (heading, i)


@torch.inference_mode()
def test_a_known_heading_counts_against_known_photos_too(scorer):
    row, column = covered_cell(scorer)
    heading = Heading(90.0, 20.0)
    known = with_known(scorer, [Placed(photos()[0], place_of(scorer, row, column), 10.0)])
    shown = [dataclasses.replace(one, heading=heading) for one in photos()]
    lattice = known.known.lattice
    off = (known._compared(known._looks(part), lattice) for part in (shown, photos()))
    wanted = heading.log_share(np.arange(8) * 45.0)
    found = torch.sub(*off)
    np.testing.assert_allclose(found[:, 1, 0].numpy(), wanted, atol=1e-4)


def test_ground_near_known_photos_gets_likelier_and_other_ground_is_left_alone(scorer):
    before = scorer.leaves(scorer.start(photos()))
    row, column = covered_cell(scorer)
    known = with_known(scorer, [Placed(photos()[0], place_of(scorer, row, column), 10.0)])
    after = known.leaves(known.start(photos()))
    near = np.zeros(before.shape[1:], bool)
    near[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = True
    np.testing.assert_array_equal(after[:, ~near], before[:, ~near])
    near &= np.isfinite(before[0])
    assert (after[:, near] > before[:, near]).all()


def known_at(rows, columns):
    lattice = Lattice(torch.zeros(1, 1, len(rows)), torch.zeros(len(rows)), None)
    return KnownPhotos(lattice, np.array(rows), np.array(columns))


def test_what_known_photos_add_is_computed_by_hand():
    """Two photos in one cell count as their mean; half of that for the cells beside it."""
    scores = np.log(np.array([[0.4, 0.8, 0.3]])) / SCALE
    leaves = np.zeros((1, 1, 5))
    leaves[0, 0, 1] = -np.inf  # no imagery
    found = known_at([0, 0, 0], [0, 0, 4]).mixed(leaves, scores)
    said = np.array([0.6, np.nan, np.nan, 0.15, 0.3])  # of cells 0, 3 and 4
    share = said / np.nansum(said)
    expected = WEIGHT * np.log1p(np.nan_to_num(share) * 3 / NEUTRAL)
    expected[1] = -np.inf
    np.testing.assert_allclose(found[0, 0], expected)


def test_photos_that_all_say_the_same_say_nothing():
    """However sure they are: ground that they cover evenly stays as likely as it was."""
    leaves = np.random.default_rng(0).normal(size=(2, 3, 4))
    rows, columns = (v.ravel() for v in np.mgrid[:3, :4])
    for level in (-5.0, 300.0):
        found = known_at(rows, columns).mixed(leaves, np.full((2, 12), level))
        added = found - leaves
        assert np.ptp(added[:, 1, 1:3]) < 1e-9 and 0 < added.max() < WEIGHT


def test_known_photos_off_the_imagery_change_nothing():
    leaves = np.full((1, 2, 6), -np.inf)
    leaves[0, 0, 5] = 0.0
    np.testing.assert_array_equal(known_at([0], [0]).mixed(leaves, np.ones((1, 1))), leaves)
