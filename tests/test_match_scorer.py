"""The match as a scorer: chunks and strips do not show, unknown lenses are averaged over."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from interrupted import trained_both_ways

from zoomloc.belief.priors import Heading
from zoomloc.checkpoint import build_model
from zoomloc.config import load_config
from zoomloc.locator import Query, open_views
from zoomloc.scorers import mapped, matches, scorer_of
from zoomloc.scorers.matches import FOVS_DEG, MatchScorer, _mean_bearing
from zoomloc.scorers.shown import Shown
from zoomloc.world.cells import distance_m
from zoomloc.world.photos import read_photos


def match_config(small_config, vector=0, **train_changes):
    tree = small_config.to_dict()
    tree["model"] |= {"kind": "match"}
    tree["model"]["match"] |= {
        "map_channels": [8, 8, 16], "width": 16, "channels": 4, "slices": 8, "fan": 3,
        "rings_m": [4.0, 10.0, 20.0], "descriptor": vector, "memory": vector > 0,
    }  # fmt: skip
    tree["search"] |= {"method": "exhaustive"}
    tree["train"] |= train_changes
    return load_config([], []).model_validate(tree)


@pytest.fixture(params=[0, 8], ids=["bins", "bins and vectors"])
def scorer(request, small_config, painted):
    config = match_config(small_config, request.param)
    views = open_views(painted, config)
    torch.manual_seed(0)
    found = scorer_of(build_model(config, views.region).eval(), views, config.search)
    assert isinstance(found, MatchScorer)
    return found


def photos(count=3, fov_deg=70.0):
    pixels = np.random.default_rng(0).integers(0, 255, (count, 24, 48, 3), np.uint8)
    return [Shown(picture, fov_deg) for picture in pixels]


def test_every_cell_with_imagery_has_a_score_and_no_other(scorer):
    leaves = scorer.leaves(scorer.start(photos()))
    present = scorer.views.coverage.leaves
    assert leaves.shape[1:] == present.shape
    assert np.isfinite(leaves[:, present]).all() and (leaves[:, ~present] == -np.inf).all()


def test_a_photo_scores_alike_in_any_company(scorer):
    together = scorer.leaves(scorer.start(photos()))
    alone = scorer.leaves(scorer.start(photos()[1:2]))
    present = scorer.views.coverage.leaves
    np.testing.assert_allclose(together[1][present], alone[0][present], atol=0.03)  # bf16


def test_chunks_of_the_map_do_not_show(scorer, monkeypatch):
    whole = scorer.index
    monkeypatch.setattr(mapped, "CHUNK_PX", 64)
    del scorer.index
    parts = scorer.index
    assert parts.unary.shape == whole.unary.shape
    for a, b in zip(parts.means.maps, whole.means.maps, strict=True):
        torch.testing.assert_close(a, b, atol=0.02, rtol=0.02)


def test_parts_of_the_search_do_not_show(scorer, monkeypatch):
    whole = scorer.leaves(scorer.start(photos()))
    monkeypatch.setattr(matches, "PLACES_AT_ONCE", 100)
    parts = scorer.leaves(scorer.start(photos()))
    present = scorer.views.coverage.leaves
    np.testing.assert_allclose(parts[:, present], whole[:, present], atol=0.03)


def test_an_unknown_lens_is_the_mean_of_the_likelihoods_of_some(scorer):
    places = torch.arange(20), torch.arange(20) // 2
    unknown = scorer._logits(scorer._looks(photos(2, None)), *places)
    known = [scorer._logits(scorer._looks(photos(2, fov)), *places) for fov in FOVS_DEG]
    mean = torch.stack(known).logsumexp(0) - math.log(len(FOVS_DEG))
    torch.testing.assert_close(unknown, mean, atol=0.03, rtol=0.01)


def test_a_round_picture_is_searched_too(scorer):
    pixels = np.random.default_rng(1).integers(0, 255, (24, 48, 3), np.uint8)
    mixed = [Shown(pixels, 360.0, "equirectangular"), *photos(1)]
    leaves = scorer.leaves(scorer.start(mixed))
    present = scorer.views.coverage.leaves
    assert np.isfinite(leaves[:, present]).all()
    alone = scorer.leaves(scorer.start(photos(1)))
    np.testing.assert_allclose(leaves[1][present], alone[0][present], atol=0.03)


def test_the_likeliest_ground_is_looked_at_as_finely_as_all_of_it_may_be(scorer):
    looks = scorer._looks(photos())
    some = scorer._everywhere(looks)
    scorer.refined = 1.0
    every = scorer._everywhere(looks)
    assert some.shape == every.shape
    step = scorer.coarse_step
    for photo in range(3):
        same = (some[photo] - every[photo]).abs() < 0.03  # bf16
        coarse = every[photo][step // 2 :: step, step // 2 :: step]
        best = divmod(int(coarse.argmax()), coarse.shape[1])
        assert same[tuple(slice(at * step, (at + 1) * step) for at in best)].any()
        assert 1 / step**2 <= same.float().mean() < 0.5
        assert coarse.max() - 0.03 <= some[photo].max() <= every[photo].max() + 0.03


def test_sharpening_stays_near_and_gives_a_bearing(scorer):
    state = scorer.start(photos())
    region = scorer.views.region
    row, column = np.argwhere(scorer.views.coverage.leaves)[40].tolist()
    place = region.cell(region.zooms, row, column).center
    found, bearing_deg, spread_deg = scorer.sharpened(state, 1, place)
    assert distance_m(found, place) <= 16 * math.sqrt(2) + 6
    assert 0 <= bearing_deg < 360 and 0 <= spread_deg <= 180


def looking(shown, *headings):
    """Photos with what is known of their headings."""
    return [dataclasses.replace(p, heading=h) for p, h in zip(shown, headings, strict=True)]


@pytest.mark.parametrize("fov_deg", [70.0, None], ids=["a lens", "an unknown lens"])
@torch.inference_mode()
def test_a_known_heading_is_a_prior_of_headings_at_every_place(scorer, fov_deg):
    """Each photo has its own, and one without is as it was."""
    bearings = np.arange(8) * 45.0
    plain = photos(3, fov_deg)
    known = looking(plain, Heading(90.0, 20.0), None, Heading(300.0, 60.0))
    places = torch.arange(20), torch.arange(20) // 2
    before, after = (scorer._logits(scorer._looks(part), *places) for part in (plain, known))
    for photo, shown in enumerate(known):
        wanted = np.zeros(8) if shown.heading is None else shown.heading.log_share(bearings)
        off = (after - before)[:, photo].numpy()
        np.testing.assert_allclose(off, np.repeat(wanted[:, None], 20, 1), atol=1e-4)
    only = scorer._looks(known).only(2)
    torch.testing.assert_close(scorer._logits(only, *places)[:, 0], after[:, 2], atol=0.03, rtol=0)


@pytest.mark.parametrize("refined", [1.0, 0.3])
@torch.inference_mode()
def test_cells_are_likely_as_far_as_a_known_heading_fits(scorer, refined):
    """Sums over headings by hand, from the logits of the fine places of some cells."""
    scorer.refined = refined
    (known,) = looking(photos(1), Heading(90.0, 20.0))
    leaves = scorer.leaves(scorer.start([known]))[0]
    every = scorer._everywhere(scorer._looks([known]))[0]
    rows, columns = (torch.arange(n) for n in every.shape)
    logits = scorer._logits(scorer._looks(photos(1)), *matches._grid(rows, columns))[:, 0]
    weight = torch.from_numpy(Heading(90.0, 20.0).log_share(np.arange(8) * 45.0)).float()
    wanted = (logits + weight[:, None]).logsumexp(0).view_as(every)
    same = (every - wanted).abs() < 0.03
    assert same.all() if refined == 1 else 0.02 < same.float().mean() < 1
    present = scorer.views.coverage.leaves
    by_hand = scorer._in_cells(every[None])[0]
    np.testing.assert_allclose(leaves[present], by_hand[present], atol=1e-6)


def test_a_heading_that_may_be_any_changes_nothing_and_none_costs_nothing(scorer):
    any_ = looking(photos(), *[Heading(10.0, 180.0)] * 3)
    assert scorer._looks(photos()).headings is None
    before, after = (scorer.leaves(scorer.start(part)) for part in (photos(), any_))
    present = scorer.views.coverage.leaves
    np.testing.assert_allclose(after[:, present], before[:, present], atol=1e-5)


@pytest.mark.parametrize("is_round", [False, True])
def test_sharpening_turns_to_a_known_heading(scorer, is_round):
    row, column = np.argwhere(scorer.views.coverage.leaves)[40].tolist()
    place = scorer.views.region.cell(scorer.views.region.zooms, row, column).center
    plain = photos(1, 360.0 if is_round else 70.0)
    if is_round:
        plain = [dataclasses.replace(plain[0], projection="equirectangular")]
    for bearing_deg in (0.0, 135.0, 270.0):
        known = looking(plain, Heading(bearing_deg, 10.0))
        _, found_deg, spread_deg = scorer.sharpened(scorer.start(known), 0, place)
        assert abs((found_deg - bearing_deg + 180) % 360 - 180) < 25
        assert spread_deg < scorer.sharpened(scorer.start(plain), 0, place)[2]


def test_bearings_are_circular_means():
    north = torch.tensor([0.6, 0.2, 0, 0, 0, 0, 0, 0.2])
    bearing_deg, spread_deg = _mean_bearing(north)
    assert min(bearing_deg, 360 - bearing_deg) < 1e-4 and 20 < spread_deg < 40
    assert _mean_bearing(torch.tensor([0, 0, 1.0, 0]))[0] == pytest.approx(180)
    assert _mean_bearing(torch.tensor([0, 1.0, 0, 0])) == pytest.approx((90, 0), abs=1e-3)


@pytest.mark.parametrize("vector", [0, 8])
def test_it_trains_resumes_and_answers(small_config, painted, tmp_path, vector):
    config = match_config(small_config, vector, steps=12, batch=16)
    one, two = trained_both_ways(config, tmp_path)
    for a, b in zip(one.scorer.model.parameters(), two.scorer.model.parameters(), strict=True):
        assert torch.equal(a, b)
    queries = [Query.of(p) for p in read_photos(painted / "photos.parquet", "test")[:3]]
    for answer in one.answers(queries):
        assert answer.bearing_deg is not None and 0 <= answer.bearing_deg < 360
        assert np.isfinite(answer.error_m)
