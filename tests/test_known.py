"""Known photos as evidence: turned to their bearings, averaged in their cells."""

import dataclasses

import numpy as np
import pytest
import torch
from test_match_scorer import match_config, photos

from zoomloc.belief.priors import Heading
from zoomloc.checkpoint import build_model
from zoomloc.errors import PhotoError
from zoomloc.locator import open_views
from zoomloc.model.match import Lattice
from zoomloc.model.polar import slice_weights
from zoomloc.scorers import scorer_of
from zoomloc.scorers.known import NEUTRAL, SCALE, WEIGHT, KnownPhotos, Placed, with_known
from zoomloc.scorers.shown import Shown
from zoomloc.training.loop import train
from zoomloc.world.cells import LatLng
from zoomloc.world.photos import read_photos, write_photos


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


def test_ground_far_from_known_photos_and_that_of_a_single_one_is_left_alone(scorer):
    """One photo stands out of nothing; of two, the better one's ground gains, the other's loses."""
    before = scorer.leaves(scorer.start(photos()))
    row, column = covered_cell(scorer)
    placed = Placed(photos()[0], place_of(scorer, row, column), 10.0)
    after = with_known(scorer, [placed])
    np.testing.assert_allclose(after.leaves(after.start(photos())), before)
    covered = np.argwhere(np.isfinite(before[0]))
    far = covered[np.abs(covered - (row, column)).max(1).argmax()]
    other = Placed(photos()[1], place_of(scorer, *far), 10.0)
    both = with_known(scorer, [placed, other])
    changed = np.argwhere(both.leaves(both.start(photos()))[0] != before[0])
    away = [np.abs(changed - at).max(1) for at in ((row, column), far)]
    assert len(changed) and (np.minimum(*away) <= 1).all()


def known_at(rows, columns):
    lattice = Lattice(torch.zeros(1, 1, len(rows)), torch.zeros(len(rows)), None)
    return KnownPhotos(lattice, np.array(rows), np.array(columns))


def test_what_known_photos_add_is_computed_by_hand():
    """Two photos in one cell count as their mean; those beside a cell count half."""
    scores = np.log(np.array([[0.4, 0.8, 0.3, 0.5]])) / SCALE
    leaves = np.zeros((1, 1, 7))
    leaves[0, 0, 1] = -np.inf  # no imagery
    found = known_at([0, 0, 0, 0], [0, 0, 5, 6]).mixed(leaves, scores)
    said = np.array([0.6, 0.3, (0.3 + 0.25) / 1.5, (0.5 + 0.15) / 1.5])  # of cells 0, 4, 5, 6
    ratio = said / said.sum() * 4
    expected = np.zeros(7)
    expected[[0, 4, 5, 6]] = WEIGHT * (np.log1p(ratio / NEUTRAL) - np.log1p(1 / NEUTRAL))
    expected[1] = -np.inf
    np.testing.assert_allclose(found[0, 0], expected)


def test_photos_that_all_say_the_same_say_nothing():
    """However sure they are, and however many stand together."""
    leaves = np.random.default_rng(0).normal(size=(2, 6, 4))
    rows, columns = np.array([0, 0, 0, 1, 1, 1, 5]), np.array([0, 0, 1, 0, 1, 2, 3])
    for level in (-5.0, 300.0):
        found = known_at(rows, columns).mixed(leaves, np.full((2, 7), level))
        np.testing.assert_allclose(found, leaves, atol=1e-9)


def test_known_photos_off_the_imagery_change_nothing():
    leaves = np.full((1, 2, 6), -np.inf)
    leaves[0, 0, 5] = 0.0
    np.testing.assert_array_equal(known_at([0], [0]).mixed(leaves, np.ones((1, 1))), leaves)


def test_slices_may_lie_off_the_middle():
    straight = slice_weights([45.0], 64, 8, 3)[0].sum(1)
    turned = slice_weights([45.0], 64, 8, 3, off_deg=[22.5])[0].sum(1)
    assert straight.tolist() == pytest.approx([0, 1, 0], abs=0.05)
    assert turned.tolist() == pytest.approx([0, 1, 1], abs=0.05)  # half of each is seen


def test_photos_off_the_imagery_are_refused(scorer):
    for placed in ([], [Placed(photos()[0], LatLng(0.0, 0.0), 0.0)]):
        with pytest.raises(PhotoError, match="--with-photos"):
            with_known(scorer, placed)


def test_the_command_reports_known_photos_apart(small_config, painted, tmp_path, zoomloc):
    config = match_config(small_config, steps=4)
    run, region = tmp_path / "run", tmp_path / "region"
    train(config, run)
    region.mkdir()
    for name in ("region.json", "imagery.pmtiles"):
        (region / name).symlink_to(painted / name)
    table = [
        dataclasses.replace(p, bearing_deg=30.0, fov_deg=70.0)
        for p in read_photos(painted / "photos.parquet")
    ]
    write_photos(table, region / "photos.parquet", "sequence-disjoint")
    words = ("evaluate", "--run", run, "--region", region, "--with-photos", "--quiet")
    assert zoomloc(*words)[0] == 0
    report = (run / "with-photos.json").read_text()
    count = sum(p.split == "train" for p in table)
    assert f'"known_photos": "{count}"' in report and not (run / "report.json").exists()
    code, _, err = zoomloc(*words, "--split", "train")  # each would be found by its own drive
    assert code == 2 and "leave --with-photos out" in err
    photo = table[0].path
    code, out, _ = zoomloc("locate", photo, "--run", run, "--region", region, "--with-photos")
    assert code == 0 and out.strip()
    code, _, err = zoomloc("locate", photo, "--run", run, "--with-photos")  # no bearings there
    assert code == 2 and "leave --with-photos out" in err and len(err.strip().splitlines()) == 1
