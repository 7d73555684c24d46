"""Evaluation: figures from answers, and the report and answers of a whole run of photos."""

import dataclasses
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from zoomloc.checkpoint import Explained, build_model, save_checkpoint
from zoomloc.errors import PhotoError
from zoomloc.evaluate import Pool, accuracy_by_zoom, error_report, evaluate, evaluate_run
from zoomloc.locator import Locator, open_views
from zoomloc.scorers.zooms import ZoomScorer
from zoomloc.world.answers import Answer, read_answers
from zoomloc.world.cells import LatLng, moved
from zoomloc.world.photos import read_photos, write_photos

SCHEMAS = Path(__file__).parent.parent / "zoomloc" / "world" / "schemas"
HASH = "0123456789abcdef"
PROTOCOL = {
    "split": "sequence-disjoint",
    "candidates": "all-cells",
    "region": "painted",
    "photos": "test",
    "search": "beam 4",
}


@pytest.fixture
def locator(small_config, painted):
    """A network that has learned nothing: what is scored is the scoring."""
    views = open_views(painted, small_config)
    model = build_model(small_config, views.region).eval()
    search = small_config.search.model_copy(update={"beam": 4})
    return Locator(ZoomScorer(model, views), small_config.model.photo_px, search, {})


@pytest.fixture
def photos(painted):
    return read_photos(painted / "photos.parquet", "test")[:8]


def answer_at(region, place: LatLng, truth: LatLng | None, error_m: float | None) -> Answer:
    path = tuple(cell.quadkey for cell in region.path(place))
    return Answer(
        photo="p",
        lat=place.lat,
        lng=place.lng,
        probability=0.5,
        radius50_m=10.0,
        radius90_m=20.0,
        bearing_deg=None,
        bearing_spread_deg=None,
        path=path,
        candidates=(),
        posterior=((path[0], 1.0),),
        truth=truth,
        error_m=error_m,
    )


def answers_off_by(region, truth: LatLng, *metres: float) -> list[Answer]:
    return [answer_at(region, moved(truth, 90.0, m), truth, m) for m in metres]


def test_figures_of_known_errors(locator, photos):
    truth = photos[0].place
    answers = answers_off_by(locator.region, truth, 0.0, 30.0, 60.0, 90.0)
    found = error_report(answers, ["a", "a", "b", "b"])
    assert found["r_at_25m"]["value"] == 0.25
    assert found["r_at_50m"]["value"] == 0.5
    assert found["r_at_100m"]["value"] == 1.0
    assert found["median_error_m"]["value"] == 45.0
    assert found["exact_cell"]["value"] == 0.25
    assert (found["r_at_50m"]["lo"], found["r_at_50m"]["hi"]) == (0.0, 1.0)  # drives, not photos
    assert all(figure["n"] == 4 for figure in found.values())
    json.dumps(found, allow_nan=False)


def test_answers_without_a_truth_cannot_be_scored(locator, photos):
    answers = [answer_at(locator.region, photos[0].place, None, None)]
    with pytest.raises(PhotoError, match="known place"):
        error_report(answers, ["a"])


def test_accuracy_falls_zoom_by_zoom_and_a_truth_elsewhere_is_never_held(locator, photos):
    region, truth = locator.region, photos[0].place
    right = answer_at(region, truth, truth, 0.0)
    assert accuracy_by_zoom(locator, [right]) == [1.0] * region.zooms
    leaf = region.path(truth)[-1]
    beside = next(c for c in region.children(leaf.parent(region.levels_per_zoom)) if c != leaf)
    near = answer_at(region, beside.center, truth, 10.0)
    assert accuracy_by_zoom(locator, [right, near])[-2:] == [1.0, 0.5]
    elsewhere = answer_at(region, truth, LatLng(-truth.lat, truth.lng), 1e7)
    assert accuracy_by_zoom(locator, [right, elsewhere]) == [0.5] * region.zooms


def test_a_report_keeps_to_its_schema_and_counts_its_photos(locator, photos, tmp_path):
    told: list[tuple[int, int]] = []
    pool = Pool("random training photo", tuple(p.place for p in photos))
    report, answers = evaluate(
        locator, photos, pool, tmp_path / "run", PROTOCOL, HASH, lambda *count: told.append(count)
    )
    jsonschema.validate(report, json.loads((SCHEMAS / "report.schema.json").read_text()))
    assert report["run"] == "run" and str(tmp_path) not in json.dumps(report)
    assert report["n"] == len(answers) == 8
    assert told == [(i + 1, 8) for i in range(8)]
    assert [a.photo for a in answers] == [p.id for p in photos]
    errors = np.array([a.error_m for a in answers])
    assert report["metrics"]["median_error_m"]["value"] == pytest.approx(np.median(errors))
    assert report["protocol"]["chance"] == "random training photo"
    assert len(report["zoom_accuracy"]) == locator.region.zooms
    assert report["floor_m"] == pytest.approx(locator.region.cell_size_m / 2**0.5, abs=0.01)


def test_chance_is_that_of_the_pool(locator, photos, tmp_path):
    """Nine places of ten far off: a random one is right for a tenth, the constant one never."""
    truth = photos[0].truth
    same = [dataclasses.replace(p, true_lat=truth.lat, true_lng=truth.lng) for p in photos]
    far = moved(truth, 0.0, 5000.0)
    pool = Pool("random road point", (truth, *[far] * 9))
    report, _ = evaluate(locator, same, pool, tmp_path, PROTOCOL, HASH)
    assert report["chance"]["r_at_50m"] == pytest.approx(0.1)
    assert report["chance_constant"]["r_at_50m"] == 0.0


def test_evaluate_run_writes_report_and_answers(locator, small_config, photos, tmp_path):
    about = Explained(small_config, locator.region, 12, 3.25, 192, "abc", "def", {})
    weights = locator.scorer.model.state_dict()
    save_checkpoint(tmp_path / "checkpoint-best.safetensors", weights, about)
    pool = Pool("random training photo", tuple(p.place for p in photos))
    out = tmp_path / "report.json"
    report, answers = evaluate_run(locator, tmp_path, photos, pool, PROTOCOL, HASH, out)
    assert json.loads(out.read_text()) == report
    jsonschema.validate(report, json.loads((SCHEMAS / "report.schema.json").read_text()))
    assert report["training"] == {"seconds": 3.2, "steps": 12, "photos_seen": 192}
    assert [a.photo for a in read_answers(tmp_path / "answers.jsonl")] == [p.id for p in photos]
    assert [a.photo for a in answers] == [p.id for p in photos]


def test_a_report_on_a_leaky_split_says_so(zoomloc, painted, tmp_path):
    """Photos divided one by one: LEAKY in report.json and over the figures on the screen."""
    table, out = tmp_path / "photos.parquet", tmp_path / "report.json"
    write_photos(read_photos(painted / "photos.parquet"), table, "sequence-disjoint")
    asked = ("evaluate", "--region", painted, "--photos", table, "--json", out, "--quiet")
    for by, protocol, leaky in (
        ("image", "random-image", True),
        ("sequence", "sequence-disjoint", False),
    ):
        code, _, err = zoomloc("split", table, "--by", by, "--test", 0.02, "--quiet")
        assert code == 0, err
        code, shown, err = zoomloc(*asked)
        assert code == 0, err
        report = json.loads(out.read_text())
        jsonschema.validate(report, json.loads((SCHEMAS / "report.schema.json").read_text()))
        assert report["protocol"]["split"] == protocol
        assert report.get("reading", "").startswith("LEAKY: neighbours of test photos") == leaky
        assert f"{protocol}, all-cells" in shown and ("LEAKY" in shown) == leaky
