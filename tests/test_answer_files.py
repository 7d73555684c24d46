"""Answers in other programs' formats, and answers that must outlive a kill."""

import csv
import json
import resource
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import geopandas
import pyogrio
import pytest
from test_answers import LEAF, PLACE, answer

from zoomloc.errors import ConfigError, OutputError, ZoomlocError
from zoomloc.world.answer_files import COLUMNS, ENDINGS, to_geojson, write_answers_as
from zoomloc.world.answers import Alternative, Answer, read_answers, write_answers
from zoomloc.world.answers_begun import Question, begun
from zoomloc.world.cells import LatLng, cell_of_quadkey

OTHER = Alternative(48.11, -1.71, 0.2)
FULL = answer(
    truth=LatLng(48.2, -1.7),
    error_m=11_119.5,
    alternatives=(OTHER, Alternative(48.12, -1.72, 0.05)),
    given={"heading": "90° ± 20°", "fov": "70° wide"},
)
BARE = answer(photo="=1+1.jpg", evidence=None, bearing_deg=None, not_here=True, unknown=True)


def test_geojson(tmp_path: Path) -> None:
    write_answers_as([FULL, answer()], tmp_path / "a.geojson")
    tree = json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))
    assert tree == json.loads(json.dumps(to_geojson([FULL, answer()])))
    assert tree["type"] == "FeatureCollection"
    kinds = [feature["properties"]["kind"] for feature in tree["features"]]
    assert kinds == [
        "answer", *["path"] * 3, "candidate", *["alternative"] * 2, "truth", "error",
        "answer", *["path"] * 3, "candidate",
    ]  # fmt: skip
    first, _, _, leaf, _, other = tree["features"][:6]
    assert first["geometry"] == {"type": "Point", "coordinates": [-1.7, 48.1]}
    assert first["properties"]["photo"] == "Übung/1.jpg"
    assert first["properties"]["given"] == "heading: 90° ± 20°; fov: 70° wide"
    assert other["geometry"]["coordinates"] == [-1.71, 48.11]
    assert other["properties"]["probability"] == 0.2
    ring = leaf["geometry"]["coordinates"][0]
    assert leaf["properties"]["quadkey"] == LEAF.quadkey and ring[0] == ring[-1]
    west, south, east, north = cell_of_quadkey(LEAF.quadkey).bounds
    assert ring[0] == [west, south] and ring[2] == [east, north]
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, ring[1:], strict=False))
    assert area > 0  # counter-clockwise
    frame = geopandas.read_file(tmp_path / "a.geojson")
    assert frame.crs == "EPSG:4326" and len(frame) == len(kinds)


def test_csv(tmp_path: Path) -> None:
    write_answers_as([FULL, BARE], tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        full, bare = csv.DictReader(file)
    assert tuple(full) == tuple(COLUMNS)
    assert full["photo"] == "Übung/1.jpg" and bare["photo"] == "'=1+1.jpg"
    assert float(full["lng"]) == PLACE.lng < 0 and float(full["evidence"]) == -3.5  # no ' there
    assert full["quadkey"] == LEAF.quadkey and full["photo_hash"] == "ab12"
    assert float(full["truth_lat"]) == 48.2 and float(full["error_m"]) == 11_119.5
    assert full["given"] == "heading: 90° ± 20°; fov: 70° wide"
    assert (full["unknown"], bare["unknown"], bare["not_here"]) == ("false", "true", "true")
    assert bare["bearing_deg"] == bare["truth_lat"] == bare["error_m"] == bare["evidence"] == ""


@pytest.mark.parametrize(
    "name", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"]
)
def test_no_name_is_a_formula_to_a_spreadsheet(tmp_path: Path, name: str) -> None:
    write_answers_as([answer(photo=name), answer(photo='a "b", c\nd.jpg')], tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        hostile, plain = csv.DictReader(file)
    assert hostile["photo"] == f"'{name}" and plain["photo"] == 'a "b", c\nd.jpg'


def test_geopackage(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    write_answers_as([FULL, BARE], path)
    assert pyogrio.list_layers(path).tolist() == [
        ["answers", "Point"], ["alternatives", "Point"], ["paths", "Polygon"],
    ]  # fmt: skip
    layers = {name: geopandas.read_file(path, layer=name) for name, _ in pyogrio.list_layers(path)}
    assert {frame.crs.to_string() for frame in layers.values()} == {"EPSG:4326"}
    answers, others, paths = layers.values()
    assert list(answers.columns) == [*COLUMNS, "geometry"]
    assert list(answers.photo) == ["Übung/1.jpg", "=1+1.jpg"]  # no formula in a database
    assert answers.geometry[0].coords[0] == (PLACE.lng, PLACE.lat)
    assert answers.unknown.tolist() == [False, True] and answers.probability[0] == 0.75
    assert answers.bearing_deg.isna().tolist() == [False, True]
    assert others[["photo", "rank", "probability"]].values.tolist() == [
        ["Übung/1.jpg", 1, 0.2], ["Übung/1.jpg", 2, 0.05],
    ]  # fmt: skip
    assert others.geometry[0].coords[0] == (OTHER.lng, OTHER.lat)
    assert paths.zoom.tolist() == [0, 1, 2] * 2 and paths.quadkey[2] == LEAF.quadkey
    assert paths.geometry[2].bounds == pytest.approx(LEAF.bounds)
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA application_id").fetchone()[0] == 0x47504B47  # "GPKG"
        assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_layers_without_rows_are_there_with_their_columns(tmp_path: Path) -> None:
    write_answers_as([BARE], tmp_path / "a.gpkg")
    empty = geopandas.read_file(tmp_path / "a.gpkg", layer="alternatives")
    assert len(empty) == 0 and list(empty.columns) == ["photo", "rank", "probability", "geometry"]
    alone = geopandas.read_file(tmp_path / "a.gpkg", layer="answers")
    assert alone.bearing_deg.dtype == "float64" and alone.truth_lat.isna().all()


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    write_answers_as([answer()], path)
    before = path.read_bytes()
    code = (
        "import signal, resource, sys; from pathlib import Path\n"
        "sys.path.insert(0, 'tests'); from test_answers import answer\n"
        "from zoomloc.world.answer_files import write_answers_as\n"
        "from zoomloc.errors import OutputError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try: write_answers_as([answer()] * 2000, Path(sys.argv[1]))\n"
        "except OutputError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    assert done.stdout.startswith(f"cannot write {path}: ")
    assert len(done.stdout.splitlines()) == 1 and "free some space" in done.stdout
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", [".geojson", ".jsonl"])
def test_what_json_has_no_number_for_is_refused(tmp_path: Path, ending: str) -> None:
    with pytest.raises(ZoomlocError):
        write_answers_as([answer(evidence=float("inf"))], tmp_path / f"a{ending}")
    assert list(tmp_path.iterdir()) == []


def test_endings(tmp_path: Path) -> None:
    for name in ("a", "a.xlsx", "a.json", ".csv"):
        with pytest.raises(ConfigError, match=r"\.jsonl, \.geojson, \.gpkg, \.csv"):
            write_answers_as([answer()], tmp_path / name)
    write_answers_as([answer()], tmp_path / "A.CSV")
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(OutputError, match="folder of that name"):
        write_answers_as([answer()], tmp_path / "b.csv")


# answers that come one by one


def asked(given: Answer) -> Question:
    return Question.answered_by(given)


def test_what_was_begun_goes_on_and_ends_in_the_order_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "below" / "a.jsonl"
    first, second = answer(photo="1.jpg"), answer(photo="2.jpg")
    with begun(out) as store:
        assert len(store) == 0
        store.add(second)
    assert not out.exists() and read_answers(out.with_name("a.jsonl.part")) == [second]
    with begun(out) as store:
        assert store.known(asked(second)) == second and store.known(asked(first)) is None
        store.add(first)
        store.finish([asked(first), asked(second)])
    assert read_answers(out) == [first, second] and list(out.parent.iterdir()) == [out]
    with begun(out) as store:  # what is finished counts as well
        assert store.known(asked(first)) == first
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(
    "other",
    [
        answer(photo="2.jpg"),
        answer(made_by={"photo": "other", "checkpoint": "cd34"}),
        answer(made_by={"photo": "ab12", "checkpoint": "other"}),
        answer(given={"heading": "90° ± 20°"}),
    ],
)
def test_only_the_very_same_question_is_answered_already(tmp_path: Path, other: Answer) -> None:
    with begun(tmp_path / "a.csv") as store:
        store.add(other)
        assert store.known(asked(answer())) is None
        same = replace(other, lat=12.0, probability=0.1)
        assert store.known(asked(same)) == other


def test_a_line_cut_off_and_lines_that_are_none_are_passed_over(tmp_path: Path) -> None:
    part = tmp_path / "a.csv.part"
    write_answers([answer(photo="1.jpg"), answer(photo="2.jpg")], part)
    whole = part.read_bytes()
    cut = whole + b"\x00\xff nonsense\n\n7\n[1]\n" + b"[" * 100_000 + b"\n"
    for tail in (b"", whole[:-1], whole[: len(whole) // 3], b"{" * 200_000):
        part.write_bytes(cut + tail)
        with begun(tmp_path / "a.csv") as store:
            assert len(store) == 2
            assert store.known(asked(answer(photo="2.jpg"))) == answer(photo="2.jpg")
            store.add(answer(photo="3.jpg"))
        with begun(tmp_path / "a.csv") as store:
            assert len(store) == 3
    part.write_bytes(b"no line at all")
    with begun(tmp_path / "a.csv") as store:
        assert len(store) == 0
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_do_not_mix(tmp_path: Path) -> None:
    with begun(tmp_path / "a.jsonl") as store:
        with pytest.raises(OutputError, match="another zoomloc"), begun(tmp_path / "a.jsonl"):
            pass
        store.add(answer())
        store.finish([asked(answer())])
    assert read_answers(tmp_path / "a.jsonl") == [answer()]


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    out, line = tmp_path / "a.jsonl", len(json.dumps(answer().to_json()))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with begun(out) as store:
            store.add(answer())
            resource.setrlimit(resource.RLIMIT_FSIZE, (line + line // 2, old[1]))
            with pytest.raises(OutputError, match="disk is full"):
                store.add(answer(photo="2.jpg"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert read_answers(tmp_path / "a.jsonl.part") == [answer()]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "a.csv.part").mkdir()
    for out in (tmp_path / "file" / "a.csv", tmp_path / "a.csv"):
        with pytest.raises(OutputError, match="cannot write"), begun(out):
            pass
