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
from zoomloc.scorers.known import KnownPhotos, Placed, with_known
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


def test_cells_of_known_photos_are_mixed_and_others_left_alone(scorer):
    before = scorer.leaves(scorer.start(photos()))
    row, column = covered_cell(scorer)
    known = with_known(scorer, [Placed(photos()[0], place_of(scorer, row, column), 10.0)])
    after = known.leaves(known.start(photos()))
    changed = np.zeros(before.shape[1:], bool)
    changed[row, column] = True
    np.testing.assert_array_equal(after[:, ~changed], before[:, ~changed])
    assert (after[:, row, column] != before[:, row, column]).all()


def test_many_photos_of_a_cell_count_as_their_mean():
    lattice = Lattice(torch.zeros(1, 1, 3), torch.zeros(3), None)
    known = KnownPhotos(lattice, np.array([0, 0, 1]), np.array([0, 0, 1]))
    leaves = np.log(np.array([[[0.2, 0.5], [0.1, 0.2]]]))
    mixed = np.exp(known.mixed(leaves, np.log(np.array([[0.4, 0.8, 0.3]]))))
    np.testing.assert_allclose(mixed, [[[(0.2 + 0.6) / 2, 0.5], [0.1, (0.2 + 0.3) / 2]]])


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
