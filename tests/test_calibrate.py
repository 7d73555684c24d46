"""zoomloc calibrate: by itself and after a training, what it writes, and what it refuses."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from test_elsewhere import squares
from test_locate import refused
from test_match_scorer import match_config
from test_posterior import at, mixed, region_at

from zoomloc.belief.calibration import Calibration
from zoomloc.belief.posterior import Posterior
from zoomloc.calibrate import (
    APART_M,
    AROUND_M,
    FRAMES,
    PICTURES,
    Source,
    _group,
    _log_without,
    _sets,
    calibrate,
    pictures_of,
)
from zoomloc.checkpoint import load_explained
from zoomloc.cli.calibrating import _other_ground, calibrate_trained
from zoomloc.cli.screen import Screen
from zoomloc.config import GENERAL
from zoomloc.errors import PhotoError
from zoomloc.locator import Locator, Query
from zoomloc.scorers.elsewhere import NAME, SIDE_PX, write_mosaic
from zoomloc.training.loop import train
from zoomloc.world.cells import LatLng, distance_m, moved
from zoomloc.world.photos import read_photos, split_hash, write_photos

BEST = "checkpoint-best.safetensors"
EXPLAINED = "checkpoint-best.json"


@pytest.fixture
def run(matched, tmp_path):
    """A copy of the match that is not calibrated."""
    return shutil.copytree(matched, tmp_path / "run")


@pytest.fixture(scope="module")
def zoom_run(small_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoom") / "run"
    plan = small_config.train.model_copy(update={"steps": 4, "val_every_steps": None})
    train(small_config.model_copy(update={"train": plan}), folder)
    return folder


def region_of(painted, folder, photos, name="region.json"):
    """A region folder over the same ground, with other photos."""
    folder.mkdir()
    shutil.copy(painted / "region.json", folder / "region.json")
    (folder / "imagery.pmtiles").symlink_to(painted / "imagery.pmtiles")
    if photos:
        write_photos(photos, folder / "photos.parquet", "sequence-disjoint")
    return folder


def kept(run):
    return load_explained(run / BEST).calibration


# 1. what it writes


def test_it_says_what_it_found_and_keeps_it_with_the_run(zoomloc, run, painted):
    weights = (run / BEST).read_bytes()
    assert "not calibrated" in zoomloc("info", run)[1]
    code, out, err = zoomloc("calibrate", "--run", run)
    assert code == 0 and len(out.splitlines()) == 1 and err == ""
    assert re.search(
        r"calibrate  60 val photos: scale \d\.\d\d, floor [\d.]+%, [\d.]+ -> [\d.]+ nats a photo; "
        r"of several photos each counts [\d.]+, evidence against 1,944 places elsewhere$",
        out.strip(),
    ), out
    assert (run / BEST).read_bytes() == weights
    found = kept(run)
    assert found.photos == 60 and found.regions == ("painted",)
    assert found.split_hash == split_hash(read_photos(painted / "photos.parquet", "val"))
    assert found.nll[1] <= found.nll[0]
    assert Locator.load(run).scorer.elsewhere is not None
    scale = f"{found.scale:.2f}"
    assert f"calibrated on 60 val photos of 1 region(s): scale {scale}" in zoomloc("info", run)[1]


def test_the_same_again_is_the_same(zoomloc, calibrated, tmp_path):
    """A calibration is fitted to what the network says, not upon the one of before."""
    run = shutil.copytree(calibrated, tmp_path / "run")
    code, out, _ = zoomloc("calibrate", "--run", run, "--quiet")
    assert code == 0 and out == ""
    for name in (EXPLAINED, NAME):
        assert (run / name).read_bytes() == (calibrated / name).read_bytes()


def test_radii_hold_as_many_of_the_photos_that_they_were_fitted_on(calibrated, painted):
    """31 and 55 of 60, the k of k / 61 that reach a half and nine tenths."""
    photos = read_photos(painted / "photos.parquet", "val")
    answers = [*Locator.load(calibrated).answers([Query.of(p) for p in photos])]
    for share, holds in (("radius50_m", 31), ("radius90_m", 55)):
        held = sum(a.error_m <= getattr(a, share) + 0.02 for a in answers)
        assert abs(held - holds) <= 1, (share, held)
    evidence = np.array([a.evidence for a in answers])
    assert sum(a.not_here for a in answers) == (evidence < kept(calibrated).here_from).sum() == 3


def test_answers_are_what_the_network_says_and_then_what_that_is_worth(calibrated, painted):
    photos = read_photos(painted / "photos.parquet", "test")[:4]
    locator = Locator.load(calibrated)
    plain = dataclasses.replace(locator, calibration=Calibration())
    shown = [locator.shown(Query.of(photo)) for photo in photos]
    for before, after in zip(plain.find(shown), locator.find(shown), strict=True):
        wanted = kept(calibrated).believed(before.posterior)
        np.testing.assert_allclose(after.posterior.log_mass, wanted.log_mass, atol=1e-9)
        raw = before.better_here
        assert raw == pytest.approx(after.better_here) and before.evidence is None
        assert after.evidence == pytest.approx(
            kept(calibrated).slope * raw + kept(calibrated).offset
        )
        assert not np.allclose(before.posterior.log_mass, after.posterior.log_mass)


def test_other_ground_is_what_was_asked_for(zoomloc, run, painted, tmp_path):
    write_mosaic(tmp_path / "two.webp", squares(2))
    asked = ("calibrate", "--run", run, "--most", 20)
    own = zoomloc(*asked)[1]
    of_two = zoomloc(*asked, "--elsewhere", tmp_path / "two.webp")[1]
    of_both = zoomloc(*asked, "--elsewhere", tmp_path / "two.webp", "--elsewhere", painted)[1]
    assert "20 val photos: " in own  # and not 60
    for told, places in ((own, "1,944"), (of_two, "162"), (of_both, "2,106")):
        assert f"against {places} places elsewhere" in told


def test_photos_of_several_regions_are_searched_each_in_its_own(run, painted, tmp_path):
    photos = read_photos(painted / "photos.parquet", "val")
    one, two = (region_of(painted, tmp_path / name, photos) for name in ("one", "two"))
    places = [Source(one, tuple(photos[:20])), Source(two, ()), Source(two, tuple(photos[20:30]))]
    seen = []
    found = calibrate(run, places, lambda done, total: seen.append((done, total)))
    assert found == kept(run) and found.photos == 30 and len(found.regions) == 2
    assert seen == [(i + 1, 30) for i in range(30)]
    assert found.slope is None and found.here_from is None  # no other ground was kept
    with pytest.raises(PhotoError, match="no val photos"):
        calibrate(run, [Source(one, ())])


def test_a_zoom_is_calibrated_without_evidence(zoomloc, zoom_run, painted, tmp_path):
    run = shutil.copytree(zoom_run, tmp_path / "run")
    code, out, err = zoomloc("calibrate", "--run", run)
    assert code == 0 and "60 val photos: scale" in out and "evidence" not in out, err
    assert not (run / NAME).exists() and kept(run).slope is None
    assert "no evidence" in zoomloc("info", run)[1]
    photo = painted / "photos" / "d9" / "000.jpg"
    (line,) = zoomloc("locate", photo, "--run", run, "--json")[1].splitlines()
    assert json.loads(line)["evidence"] is None and not json.loads(line)["not_here"]
    before = kept(run)
    refused(zoomloc("calibrate", "--run", run, "--elsewhere", painted), "--elsewhere", "'zoom'")
    assert kept(run) == before


# 2. what it refuses


BAD = [
    ("no run", "no such folder"),
    ("no checkpoint", "checkpoint-best"),
    ("no photos", "photos.parquet", "zoomloc photos"),
    ("no val", "split 'val'", "zoomloc split"),
    ("no region", "nowhere"),
    ("outside", "no val photo lies in its region"),
    ("elsewhere text", "text.webp", "no picture"),
    ("elsewhere small", "small.png", "192 px"),
    ("elsewhere nowhere", "nowhere", "no picture"),
    ("elsewhere no region", "region.json"),
]


@pytest.fixture
def bad(run, painted, tmp_path):
    """What cannot be used, by name: the words of a command."""
    photos = read_photos(painted / "photos.parquet")
    train_only = [p for p in photos if p.split == "train"][:3]
    far = [dataclasses.replace(p, lat=10.0, true_lat=10.0) for p in photos if p.split == "val"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.webp").write_text("no picture")
    Image.new("RGB", (100, 300), "red").save(tmp_path / "small.png")
    own = ("--run", run)
    return {
        "no run": ("--run", tmp_path / "nowhere"),
        "no checkpoint": ("--run", tmp_path / "empty"),
        "no photos": (*own, "--region", region_of(painted, tmp_path / "a", [])),
        "no val": (*own, "--region", region_of(painted, tmp_path / "b", train_only)),
        "no region": (*own, "--region", tmp_path / "nowhere"),
        "outside": (*own, "--region", region_of(painted, tmp_path / "c", far[:3])),
        "elsewhere text": (*own, "--elsewhere", tmp_path / "text.webp"),
        "elsewhere small": (*own, "--elsewhere", tmp_path / "small.png"),
        "elsewhere nowhere": (*own, "--elsewhere", tmp_path / "nowhere"),
        "elsewhere no region": (*own, "--elsewhere", tmp_path / "empty"),
    }


@pytest.mark.parametrize(("name", "says"), [(name, says) for name, *says in BAD])
def test_what_cannot_be_used_is_one_line_and_changes_nothing(zoomloc, run, bad, name, says):
    before = (run / EXPLAINED).read_bytes()
    refused(zoomloc("calibrate", *bad[name]), *says)
    assert (run / EXPLAINED).read_bytes() == before


def test_too_few_photos_are_no_calibration(zoomloc, run):
    code, _, err = zoomloc("calibrate", "--run", run, "--most", 19)
    assert code == 2 and "20" in err and kept(run) is None


# 3. after a training, and passed on


def test_training_ends_with_it_and_does_not_do_it_twice(zoomloc, small_config, tmp_path):
    config, run = tmp_path / "mine.yaml", tmp_path / "run"
    config.write_text(match_config(small_config, steps=2, batch=4).to_yaml())
    code, out, err = zoomloc("train", config, "--run", run)
    assert code == 0, err
    assert re.search(r"train .*\n *calibrate  60 val photos: .*1,944 places", out), out
    files = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    code, out, err = zoomloc("train", config, "--run", run)
    assert code == 0 and "was finished" in out and "calibrate" not in out, err
    assert files == {path: path.read_bytes() for path in run.iterdir() if path.is_file()}


@pytest.mark.parametrize("why", ["no val", "outside"])
def test_a_training_does_not_fail_for_want_of_photos_to_calibrate_on(run, bad, capfd, why):
    """As where they were taken away, or lie off the map, after hours of training."""
    about = json.loads((run / EXPLAINED).read_text())
    about["config"]["data"] = str(bad[why][-1])
    (run / EXPLAINED).write_text(json.dumps(about))
    calibrate_trained(run, Screen())
    assert "calibrate  left out: " in capfd.readouterr().out and kept(run) is None


def test_what_is_passed_on_has_the_same_evidence(zoomloc, calibrated, painted, tmp_path):
    out = tmp_path / "given"
    assert zoomloc("export", "--run", calibrated, "--out", out)[0] == 0
    assert kept(out) == kept(calibrated)
    photo = painted / "photos" / "d9" / "000.jpg"
    own, given = (
        json.loads(zoomloc("locate", photo, "--run", r, "--region", painted, "--json")[1])
        for r in (calibrated, out)
    )
    assert own["evidence"] is not None
    assert own.pop("made_by")["calibration"] == given.pop("made_by")["calibration"]
    assert given == own
    again = tmp_path / "again"  # numbers do not drift from copy to copy
    assert zoomloc("export", "--run", out, "--out", again)[0] == 0
    assert Locator.load(again, painted).scorer.elsewhere.bins.equal(
        Locator.load(calibrated).scorer.elsewhere.bins
    )


def test_a_run_without_it_is_passed_on_without_it(zoomloc, run, tmp_path):
    assert zoomloc("export", "--run", run, "--out", tmp_path / "given")[0] == 0
    assert kept(tmp_path / "given") is None and not (tmp_path / "given" / NAME).exists()


# 4. the parts


def test_enough_regions_of_a_training_are_other_ground_to_a_new_place(small_config, tmp_path):
    config = match_config(small_config)
    for count, own in ((0, False), (3, False), (4, True)):
        regions = tuple(tmp_path / str(i) for i in range(count))
        some = config.model_copy(update={"regions": regions})
        ground = _other_ground(tmp_path, some, ())
        assert ground == (regions if own else (GENERAL / "elsewhere.webp",))
        assert _other_ground(tmp_path, some, (tmp_path,)) == (tmp_path,)


def test_pictures_are_taken_evenly_from_regions(run, painted, tmp_path):
    other = region_of(painted, tmp_path / "other", [])
    found = pictures_of(run, [painted, other])
    assert len(found) == PICTURES
    assert all(one.shape == (SIDE_PX, SIDE_PX, 3) and one.std() > 5 for one in found)
    assert len(pictures_of(run, [painted] * 5)) == PICTURES


def test_evidence_without_the_surroundings_of_the_truth_by_hand():
    """In a grid of 16 x 16 cells of 218 m, where one cell may be large."""
    region = region_at(root_level=13, terminal_level=17)
    first, *others = region.roots[0].descendants(2)
    cells = [*first.descendants(2), *others]
    mass = np.random.default_rng(1).dirichlet(np.ones(len(cells)))
    posterior = Posterior.of(region, cells, np.log(mass))
    truth = at(region, 1.4, 2.7)
    far = {cell for cell in cells if distance_m(cell.center, truth) > AROUND_M}
    assert 0 < len(cells) - len(far) < 16
    held = sum(m for cell, m in zip(cells, mass, strict=True) if cell in far)
    area = sum(1 if cell.level == 17 else 16 for cell in far) / 256
    assert _log_without(posterior, truth) == pytest.approx(np.log(held / area))
    even = Posterior.of(region, cells, np.log([1.0 if c.level == 17 else 16.0 for c in cells]))
    assert _log_without(even, truth) == pytest.approx(0)


def test_nothing_is_left_of_a_region_that_is_all_around_the_truth():
    region = region_at(root_level=19, terminal_level=21)
    assert _log_without(mixed(1, region), at(region, 2.0, 2.0)) == 0.0


def test_sets_are_photos_of_one_place(painted):
    """Five within 12 m, three more that are too few, and two at one place exactly."""
    first = read_photos(painted / "photos.parquet", "val")[0]
    home = LatLng(45.145, 7.73)

    def photo(name, bearing_deg, metres):
        place = moved(home, bearing_deg, metres)
        spot = {"lat": place.lat, "lng": place.lng, "true_lat": place.lat, "true_lng": place.lng}
        return dataclasses.replace(first, id=name, **spot)

    near = [photo("a", 0, 0), photo("b", 0, 0), *(photo(c, 90, 2.0 * i) for i, c in
            enumerate("cde", 1))]  # fmt: skip
    few = [photo(c, 0, 500 + i) for i, c in enumerate("xyz")]
    found = _sets([*few, *near])
    assert len(found) == 5 and all(len(photos) == FRAMES == 4 for photos in found)
    assert {photos[0].id for photos in found} >= {"c", "d", "e"}
    for photos in found:
        assert not {p.id for p in photos} & set("xyz")
        assert all(distance_m(photos[0].truth, p.truth) <= APART_M for p in photos)
    assert {p.id for p in next(s for s in found if s[0].id == "e")} == set("cde") | {"a"}
    assert _sets([]) == _sets(few) == []


def test_the_true_cell_of_a_set_is_found_among_those_with_imagery(calibrated, painted):
    locator = Locator.load(calibrated)
    coverage = locator.scorer.views.coverage
    for photo in read_photos(painted / "photos.parquet", "val")[:6]:
        masses, log_p0, truth = _group(locator, coverage, [photo])
        assert masses.shape == (1, coverage.leaves.sum()) and np.exp(log_p0).sum() == pytest.approx(
            1
        )
        (found,) = locator.find([locator.shown(Query.of(photo))])
        lat, lng = np.array([photo.truth.lat]), np.array([photo.truth.lng])
        assert masses[0, truth] == pytest.approx(found.posterior.log_mass_at(lat, lng)[0], abs=0.03)
    off = dataclasses.replace(photo, true_lat=10.0, true_lng=10.0)
    assert _group(locator, coverage, [off]) is None
