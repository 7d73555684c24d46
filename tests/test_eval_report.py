"""The report on an evaluation: whole, offline, escaped, small; protocols by the command."""

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from test_evaluate import HASH, PROTOCOL, SCHEMAS
from test_photo_report import EVIL, Seen

from maps.eval_charts import error_chart, reliability_chart, zoom_chart
from maps.eval_map import CLASSES, class_name, class_of, crop, error_map
from maps.eval_report import CASES, spread, write_eval_report
from maps.layers import Ground
from zoomloc.checkpoint import build_model
from zoomloc.errors import PhotoError
from zoomloc.evaluate import HAVERSINE, OCCUPIED, Pool, evaluate
from zoomloc.locator import Locator, open_views
from zoomloc.scorers.zooms import ZoomScorer
from zoomloc.world.cells import distance_m, moved, size_m, sphere_distance_m
from zoomloc.world.photos import read_photos
from zoomloc.world.pyramid import TilePyramid
from zoomloc.world.region import Region


@pytest.fixture(scope="module")
def locator(small_config, painted):
    """A network that has learned nothing: most answers are wrong, some are not."""
    views = open_views(painted, small_config)
    model = build_model(small_config, views.region).eval()
    search = small_config.search.model_copy(update={"beam": 4})
    return Locator(ZoomScorer(model, views), small_config.model.photo_px, search, {})


@pytest.fixture(scope="module")
def photos(painted):
    return read_photos(painted / "photos.parquet", "test")


@pytest.fixture(scope="module")
def evaluated(locator, painted, photos):
    """(report, answers) of all test photos, training photos known."""
    train = read_photos(painted / "photos.parquet", "train")
    pool = Pool("random road point", tuple(photo.place for photo in train))
    return evaluate(locator, photos, pool, Path("run"), PROTOCOL, HASH, train=train)


@pytest.fixture(scope="module")
def ground(painted):
    region = Region.load(painted / "region.json")
    with TilePyramid.open(painted / "imagery.pmtiles") as pyramid:
        yield region, pyramid


def written(evaluated, photos, ground, out: Path) -> tuple[str, Seen]:
    write_eval_report(*evaluated, photos, *ground, out)
    text = out.read_text(encoding="utf-8")
    return text, Seen(text)


# the page


def test_the_page_tells_how_and_what(evaluated, photos, ground, tmp_path):
    text, seen = written(evaluated, photos, ground, tmp_path / "report.html")
    report = evaluated[0]
    for told in (
        "Evaluation of run in painted",
        f"split sequence-disjoint; candidates all-cells ({report['cells']:,} terminal cells)",
        f"{100 * report['metrics']['r_at_50m']['value']:.1f} %within 50 m",
        "Painted by a test (CC0-1.0)",
        "random road point",
        "Nearest training photo",
        "The best 12",
        "The worst 12",
    ):
        assert told in seen.text, told
    assert seen.text.count("Photo: a test, CC0-1.0") == 2 * CASES
    pictures = [about for tag, about in seen.tags if tag == "img"]
    assert len(pictures) == 1 + 2 * CASES * 3  # the map; of each case photo, answer and truth
    assert all((about["src"] or "").startswith("data:image/jpeg;base64,") for about in pictures)
    charts = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(charts) == 6 and all(ElementTree.fromstring(chart) is not None for chart in charts)
    assert "nan" not in "".join(charts) and "inf" not in "".join(charts)
    assert len(text) < 5_000_000 and "LEAKY" not in seen.text


def test_it_asks_no_server_and_runs_nothing(evaluated, photos, ground, tmp_path):
    report, answers = evaluated
    region, pyramid = ground
    bad = replace(region, name=EVIL, attribution=(EVIL,), licence=EVIL)
    some = [
        replace(p, id=f"{EVIL}{k}\udcff", creator=EVIL, licence=EVIL, sequence_id=EVIL)
        for k, p in enumerate(photos)
    ]
    some[0] = replace(some[0], path=tmp_path / f"{EVIL.replace('/', '')}.jpg")
    named = [replace(a, photo=p.id) for a, p in zip(answers, some, strict=True)]
    kinds = [dict(row, **{"class": EVIL}) for row in report["slices"]["heading"]]
    evil = dict(report, run=EVIL, created=EVIL, reading=EVIL,
                protocol={key: EVIL for key in report["protocol"]},
                slices={EVIL: kinds},
                drives=[[EVIL, len(some)]])  # fmt: skip
    text, seen = written((evil, named), some, (bad, pyramid), tmp_path / "report.html")
    names = {tag for tag, _ in seen.tags}
    assert not names & {"script", "iframe", "link", "object", "a"} and "<script" not in text
    assert EVIL in seen.text
    policy = next(a for _, a in seen.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    for _, about in seen.tags:
        assert not any(name.startswith("on") for name in about)
        assert (about.get("src") or "data:").startswith("data:") and "href" not in about


def test_what_makes_figures_too_good_is_said_in_red(evaluated, photos, ground, tmp_path):
    report, answers = evaluated
    easy = dict(report, reading="LEAKY: neighbours",
                protocol=report["protocol"] | {"candidates": OCCUPIED})  # fmt: skip
    text, seen = written((easy, answers), photos, ground, tmp_path / "report.html")
    assert 'class="banner">LEAKY: neighbours<' in text
    assert "easier than finding a photo anywhere" in seen.text


def test_answers_of_other_photos_are_refused(evaluated, photos, ground, tmp_path):
    with pytest.raises(PhotoError, match="do not belong together"):
        written(evaluated, photos[1:], ground, tmp_path / "report.html")


def test_the_best_are_spread_over_drives():
    many = spread(list(range(40)), [f"d{i // 4}" for i in range(40)])
    assert many == [i for i in range(24) if i % 4 < 2]
    assert spread(list(range(20)), ["d"] * 20) == list(range(CASES))  # one drive fills it all
    two = spread([3, 1, 0, 2], ["a"] * 4)
    assert two == [3, 1, 0, 2]


# pictures


def test_errors_are_drawn_where_they_are(evaluated, ground):
    """One answer 60 m east of its truth: a dot there, its line in the same colour, no other."""
    region, pyramid = ground
    answer = evaluated[1][0]
    east = moved(answer.truth, 90.0, 60.0)
    one = replace(answer, lat=east.lat, lng=east.lng)
    picture, outside = error_map([one], np.array([60.0]), Ground(region), pyramid)
    plain, _ = error_map([], np.empty(0), Ground(region), pyramid)
    rows, columns = np.nonzero(np.abs(picture.astype(int) - plain).sum(axis=2))
    extent = Ground(region).extent
    width_m = extent.width * size_m(extent.level, answer.truth.lat)
    length_px = 60 / width_m * picture.shape[1]
    assert np.ptp(columns) == pytest.approx(length_px + 3.5, abs=2)  # and half of the dot
    assert outside == 0 and np.ptp(rows) < 12  # level, as east is
    far = replace(answer, truth=moved(answer.truth, 0.0, 50_000.0))
    assert error_map([far], np.array([5e4]), Ground(region), pyramid)[1] == 1


def test_classes_count_their_edge():
    assert [class_of(e) for e in (0.0, 25.0, 25.1, 50.0, 100.0, 100.1, 1e7)] == [
        0, 0, 1, 1, 2, 3, 3
    ]  # fmt: skip
    names = [class_name(k) for k in range(len(CLASSES))]
    assert names == ["within 25 m", "within 50 m", "within 100 m", "over 100 m"]


def test_a_crop_marks_its_middle_and_what_is_near(evaluated, ground):
    _, pyramid = ground
    here = evaluated[1][0].truth
    alone = crop(here, moved(here, 90.0, 500.0), pyramid)
    both = crop(here, moved(here, 90.0, 30.0), pyramid)
    middle = alone.shape[0] // 2
    assert tuple(alone[middle, middle]) == (255, 235, 59) == tuple(both[middle, middle])
    rows, columns = np.nonzero((alone != both).any(axis=2))
    assert columns.mean() == pytest.approx(middle + 30 / 120 * alone.shape[0], abs=1)
    assert rows.mean() == pytest.approx(middle, abs=1)


def svg_of(text: str, tag: str) -> list[ElementTree.Element]:
    return [e for e in ElementTree.fromstring(text).iter() if e.tag == tag]


def test_charts_hold_every_answer():
    errors = np.array([0.0, 0.2, 49.9, 50.1, 3000.0])
    bars = [e.find("title").text for e in svg_of(error_chart(errors, 9.0, 50.0), "rect")]
    assert sum(int(bar.rsplit(" ", 1)[1]) for bar in bars) == len(errors)
    fills = [e.get("fill") for e in svg_of(error_chart(errors, 9.0, 50.0), "rect")]
    assert fills == ["#0072B2"] * 2 + ["#D55E00"] * 2  # the line between is at 50 m
    dots = svg_of(reliability_chart({"within_m": 50.0, "bins": [
        {"probability": 0.25, "right": 0.0, "n": 4}, {"probability": 0.75, "right": 1.0, "n": 4},
    ]}), "circle")  # fmt: skip
    xs, ys = ([float(dot.get(side)) for dot in dots] for side in ("cx", "cy"))
    left, right = 52, 520 - 26
    assert xs == pytest.approx([left + (right - left) / 4, left + (right - left) * 3 / 4], abs=0.1)
    assert ys[0] > ys[1]
    assert len(svg_of(zoom_chart([1.0, 0.5, 0.0]), "rect")) == 3
    assert error_chart(np.zeros(3), 9.0, 50.0).count("<rect") == 1


# protocols


def test_occupied_cells_are_the_only_answers(locator, painted, photos):
    pool = Pool("random road point", tuple(photo.place for photo in photos))
    protocol = PROTOCOL | {"candidates": OCCUPIED, "distance": HAVERSINE}
    report, answers = evaluate(locator, photos, pool, Path("run"), protocol, HASH)
    jsonschema.validate(report, json.loads((SCHEMAS / "report.schema.json").read_text()))
    held = {locator.region.path(photo.truth)[-1].quadkey for photo in photos}
    assert report["cells"] == len(held)
    assert {answer.path[-1] for answer in answers} <= held
    for answer in answers:
        assert sum(mass for _, mass in answer.posterior) == pytest.approx(1)
    errors = [sphere_distance_m(a.place, a.truth) for a in answers]
    assert report["metrics"]["median_error_m"]["value"] == pytest.approx(np.median(errors))
    assert answers[0].error_m == pytest.approx(distance_m(answers[0].place, answers[0].truth))
    cells = replace(locator, search=locator.search.model_copy(update={"answer": "cell"}))
    _, centres = evaluate(cells, photos[:8], pool, Path("run"), protocol, HASH)
    leaf = {locator.region.path(p.truth)[-1].center for p in photos[:8]}
    assert {answer.place for answer in centres} <= leaf


def test_a_report_says_what_it_rests_on(evaluated, photos):
    report, answers = evaluated
    jsonschema.validate(report, json.loads((SCHEMAS / "report.schema.json").read_text()))
    json.dumps(report, allow_nan=False)
    assert report["drives"] == [["d9", len(photos)]]
    assert report["calibration"]["within_m"] == 50.0
    assert sum(b["n"] for b in report["calibration"]["bins"]) == report["n"]
    right = np.mean([answer.error_m <= 50 for answer in answers])
    curve = {row["distance_m"]: row for row in report["recall_curve"]}
    assert curve[50]["value"] == pytest.approx(right)
    assert curve[50]["chance"] == pytest.approx(report["chance"]["r_at_50m"])
    assert sum(row["n"] for row in report["slices"]["camera"]) == report["n"]


@pytest.fixture(scope="module")
def evaluated_by_command(painted):
    return ("evaluate", "--region", painted, "--photos", painted / "photos.parquet", "--quiet")


def test_the_command_writes_the_page_unless_told_not_to(zoomloc, evaluated_by_command, tmp_path):
    out = tmp_path / "r.json"
    code, shown, err = zoomloc(*evaluated_by_command, "--json", out, "--protocol", "occupied-cells",
                               "--distance", "paper")  # fmt: skip
    assert code == 0, err
    assert "occupied-cells" in shown and "haversine" in shown and "40 m" in shown
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "distances haversine" in text
    (tmp_path / "r.html").unlink()
    code, shown, err = zoomloc(*evaluated_by_command, "--json", out, "--no-html")
    assert code == 0 and not (tmp_path / "r.html").exists(), err
    assert "40 m" not in shown and "90 % radius holds" in shown


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--protocol", "some-cells"), "all-cells, occupied-cells"),
        (("--distance", "miles"), "geodesic, paper"),
    ],
)
def test_bad_flags_are_one_line(zoomloc, evaluated_by_command, tmp_path, flags, told):
    code, _, err = zoomloc(*evaluated_by_command, "--json", tmp_path / "r.json", *flags)
    assert code == 2 and told in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())
