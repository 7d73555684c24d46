"""Schemas accept what this code writes and refuse what DESIGN does not know."""

import copy
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import shapely
from jsonschema import Draft202012Validator
from test_answers import answer
from test_photos import varied

import zoomloc.world
from zoomloc.world.answers import Alternative, write_answers
from zoomloc.world.cells import LatLng
from zoomloc.world.photos import write_photos
from zoomloc.world.region import cover

FOLDER = Path(zoomloc.world.__file__).parent / "schemas"
NAMES = ("answer", "benchmark", "photo", "region", "report")


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((FOLDER / f"{name}.schema.json").read_text(encoding="utf-8"))
    return Draft202012Validator(schema)


def accepts(name: str, data: Any) -> bool:
    return bool(validator(name).is_valid(data))


def figure(value: float) -> dict[str, Any]:
    return {"value": value, "lo": value / 2, "hi": value, "n": 600}


REPORT: dict[str, Any] = {
    "schema": "zoomloc/report/1",
    "run": "demo",
    "created": "2026-11-22T21:53:00+00:00",
    "protocol": {"split": "sequence-disjoint", "candidates": "all-cells", "region": "town",
                 "search": "beam 8", "photos": "test"},
    "n": 600,
    "metrics": {"r_at_25m": figure(0.2), "r_at_50m": figure(0.3), "r_at_100m": figure(0.4),
                "exact_cell": figure(0.1), "median_error_m": figure(212.5)},
    "zoom_accuracy": [0.9, 0.5, 0.2],
    "chance": {"r_at_25m": 0.002, "r_at_50m": 0.008},
    "chance_constant": {"r_at_50m": 0.01},
    "seconds": 12.5,
    "peak_rss_mb": 512.0,
    "machine": "2 cores",
    "split_hash": "0123456789abcdef",
}  # fmt: skip

ROW: dict[str, Any] = {
    "entrant": "zoomloc-no-match", "protocol": "unseen-town", "seed": 0, "preset": "smoke",
    "minutes": 3.0, "towns": [1, 2], "train_seconds": 180.5, "params": 1000, "n": 600,
    "metrics": {"r_at_50m": figure(0.3)}, "commit": "0123abc", "config_hash": "0123456789abcdef",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_schemas_are_valid_and_closed(name: str) -> None:
    schema = validator(name).schema
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    rows = schema.get("items", schema)
    assert rows["additionalProperties"] is False
    assert all("description" in p or "enum" in p or "const" in p or "type" in p or "$ref" in p
               for p in rows["properties"].values())  # fmt: skip


def test_there_is_no_other_schema() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.schema.json" for name in NAMES}


def test_region_json(tmp_path: Path) -> None:
    ground = shapely.box(-1.71, 48.09, -1.69, 48.11)
    for region in (cover("town", ground, 16.0), cover("hull", ground.buffer(0.01), 16.0)):
        region.save(tmp_path / "region.json")
        data = json.loads((tmp_path / "region.json").read_text())
        validator("region").validate(data)
    for change in (
        {"schema": "zoomloc/region/2"},
        {"roots": []},
        {"roots": ["0124"]},
        {"roots": data["roots"] * 17},
        {"polygon": {"type": "Point", "coordinates": [0, 0]}},
        {"attribution": "a town"},
        {"other": 1},
    ):
        assert not accepts("region", {**data, **change}), change
    assert accepts("region", {**data, "polygon": None})
    for key in data:
        assert not accepts("region", {k: v for k, v in data.items() if k != key}), key


def test_answer_lines(tmp_path: Path) -> None:
    write_answers(
        [
            answer(alternatives=(Alternative(48.11, -1.7, 0.2),), given={"heading": "90° ± 20°"}),
            answer(truth=LatLng(48.2, -1.7), error_m=5.0, evidence=None),
        ],
        tmp_path / "answers.jsonl",
    )
    text = (tmp_path / "answers.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.split("\n")[:-1]]
    for line in lines:
        validator("answer").validate(line)
    line = lines[0]
    for change in (
        {"probability": 1.5},
        {"within_m": 0},
        {"lat": 91},
        {"bearing_deg": 360},
        {"radius90_m": -1},
        {"path": []},
        {"path": ["4"]},
        {"posterior": []},
        {"unknown": None},
        {"error_m": 3.0},  # without truth
        {"truth": {"lat": 1, "lng": 2}},  # without error_m
        {"truth": [1, 2], "error_m": 3.0},
        {"made_by": {"author": "x"}},
        {"alternatives": [{"lat": 48.1, "lng": -1.7}]},  # without probability
        {"given": {"hearsay": "x"}},
        {"other": 1},
    ):
        assert not accepts("answer", {**line, **change}), change
    for key in line:
        without = {k: v for k, v in line.items() if k != key}
        is_later = key in ("alternatives", "given", "agreement", "within_m")  # not in older files
        assert accepts("answer", without) == is_later, key


def test_photo_rows(tmp_path: Path) -> None:
    write_photos(varied(tmp_path), tmp_path / "photos.parquet")
    rows = pq.read_table(tmp_path / "photos.parquet").to_pylist()
    for row in rows:
        point = shapely.from_wkb(row["geometry"])
        row["geometry"] = {"type": "Point", "coordinates": [point.x, point.y]}
        validator("photo").validate(row)
        assert row["captured_at"] is None or datetime.fromisoformat(row["captured_at"])
    row = rows[2]
    columns = validator("photo").schema["properties"]
    assert list(columns) == list(row)
    for change in (
        {"projection": "round"},
        {"split": "dev"},
        {"captured_at": "yesterday"},
        {"position_error_m": 0},
        {"geometry": {"type": "Point", "coordinates": [1, 2, 3]}},
        {"geometry": {"type": "Point", "coordinates": [1, 91]}},
        {"fov_deg": 361},
        {"other": 1},
    ):
        assert not accepts("photo", {**row, **change}), change
    real = {key: value for key, value in row.items() if not key.startswith("true_")}
    assert accepts("photo", real)
    assert not accepts("photo", {**real, "true_lat": 1.0})


def test_report_json() -> None:
    validator("report").validate(REPORT)
    more = copy.deepcopy(REPORT)
    more["metrics"]["p90_error_m"] = figure(900.0)
    more["protocol"]["chance"] = "random road point"
    more["floor_m"] = 11.3
    more["training"] = {"seconds": 300.0, "steps": 1649, "photos_seen": 52_768}
    validator("report").validate(more)
    wrong: list[tuple[str, Any]] = [
        ("n", 0),
        ("schema", "zoomloc/report/2"),
        ("created", 7),
        ("zoom_accuracy", [90.0]),
        ("chance", {"r_at_50m": 0.8, "other": 1}),
        ("chance", {"r_at_50m": {"value": 0.1}}),
        ("chance_constant", {"r_at_50m": 12.0}),
        ("protocol", {**REPORT["protocol"], "split": "random"}),
        ("protocol", {**REPORT["protocol"], "candidates": "some"}),
        ("metrics", {**REPORT["metrics"], "r_at_50m": 0.3}),
        ("metrics", {**REPORT["metrics"], "r_at_50m": figure(30.0)}),  # a percentage
        ("metrics", {k: v for k, v in REPORT["metrics"].items() if k != "median_error_m"}),
        ("other", 1),
    ]
    for key, value in wrong:
        assert not accepts("report", {**REPORT, key: value}), (key, value)
    for key in REPORT:
        assert not accepts("report", {k: v for k, v in REPORT.items() if k != key}), key


def test_benchmark_json() -> None:
    validator("benchmark").validate([ROW, {**ROW, "entrant": "justzoomin-centre"}])
    validator("benchmark").validate([])
    validator("benchmark").validate([{**ROW, "entrant": "trial-birds-eye", "protocol": "trial"}])
    for chance in ("constant", "random-road"):
        row = {**ROW, "entrant": chance, "params": 0, "train_seconds": 0, "details": {}}
        validator("benchmark").validate([row])
    for change in (
        {"entrant": "my-model"},
        {"protocol": "same-town"},
        {"preset": "large"},
        {"commit": "main"},
        {"metrics": {}},
        {"metrics": {"r_at_50m": 0.3}},
        {"details": {"zoom_accuracy": [90.0]}},
        {"other": 1},
    ):
        assert not accepts("benchmark", [{**ROW, **change}]), change
    assert not accepts("benchmark", ROW)
    for key in ROW:
        assert not accepts("benchmark", [{k: v for k, v in ROW.items() if k != key}]), key


def test_every_field_is_explained_to_outsiders() -> None:
    page = Path(__file__).parent.parent / "docs" / "formats.md"
    text = page.read_text(encoding="utf-8")
    for name in NAMES:
        schema = validator(name).schema
        assert f"{name}.schema.json" in text
        for field in schema.get("items", schema)["properties"]:
            assert f"`{field}`" in text, f"{name}: {field}"
