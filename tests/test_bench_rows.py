"""bench.rows: files that survive a round trip, and refusals."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_rows import enough, made
from jsonschema import Draft202012Validator

import zoomloc.world
from zoomloc.bench.entrants import ABLATIONS, ENTRANTS
from zoomloc.bench.rows import (
    FARTHEST_M,
    Row,
    find,
    key_of,
    merge,
    read_rows,
    whole_metres,
    write_rows,
)
from zoomloc.errors import ConfigError


def schema() -> Draft202012Validator:
    path = Path(zoomloc.world.__file__).parent / "schemas" / "benchmark.schema.json"
    return Draft202012Validator(json.loads(path.read_text(encoding="utf-8")))


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [*enough(seeds=1), replace(made(protocol="trial"), entrant="birds-eye", details={})]
    path = tmp_path / "bench" / "benchmark.json"
    write_rows(path, rows)
    schema().validate(json.loads(path.read_text(encoding="utf-8")))
    again = read_rows(path)
    assert again == merge(rows, [])
    before = path.read_bytes()
    write_rows(path, reversed(again))
    assert path.read_bytes() == before


def test_rows_are_sorted_and_one_change_is_a_small_diff(tmp_path):
    few = [made(seed=2), made(entrant="match"), made(seed=1), made(minutes=5.0)]
    write_rows(tmp_path / "a.json", few)
    found = [(r.minutes, r.entrant, r.seed) for r in read_rows(tmp_path / "a.json")]
    assert found == [
        (5.0, "zoomloc", 0),
        (10.0, "match", 0),
        (10.0, "zoomloc", 1),
        (10.0, "zoomloc", 2),
    ]
    few[2] = replace(few[2], details=few[2].details | {"photos_hash": "ffffffff"})
    write_rows(tmp_path / "b.json", few)
    a, b = ((tmp_path / f"{name}.json").read_text().splitlines() for name in "ab")
    assert len(a) == len(b) and sum(x != y for x, y in zip(a, b, strict=True)) == 1


@pytest.mark.parametrize("name", sorted(ENTRANTS | ABLATIONS))
def test_every_entrant_may_have_rows(tmp_path, name):
    path = tmp_path / "benchmark.json"
    write_rows(path, [made(entrant=name)])
    schema().validate(json.loads(path.read_text(encoding="utf-8")))
    assert [row.entrant for row in read_rows(path)] == [name]


def test_no_file_holds_no_rows(tmp_path):
    assert read_rows(tmp_path / "benchmark.json") == []
    write_rows(tmp_path / "benchmark.json", [])
    assert read_rows(tmp_path / "benchmark.json") == []


@pytest.mark.parametrize("text", ["", "[", "\xff", "{}", "null", "[1]", '["zoomloc"]'])
def test_what_is_no_list_of_rows_is_refused(tmp_path, text):
    path = tmp_path / "benchmark.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match="benchmark.json: .*; mend|give a benchmark.json"):
        read_rows(path)


FIGURE = {"value": 0.3, "lo": 0.1, "hi": 0.4, "n": 2}
MALFORMED: list[tuple[str, Any]] = [
    ("entrant", "my-model"),
    ("entrant", "Zoomloc"),
    ("protocol", "same-town"),
    ("seed", -1),
    ("seed", "0"),
    ("seed", True),
    ("preset", "large"),
    ("minutes", 0),
    ("towns", None),
    ("train_seconds", -1.0),
    ("params", 1.5),
    ("n", 0),
    ("metrics", {}),
    ("metrics", {"r_at_50m": 0.3}),
    ("metrics", {"r_at_50m": FIGURE | {"value": 30.0}}),
    ("metrics", {"r_at_50m": FIGURE | {"hi": 1.1}}),
    ("metrics", {"r_at_50m": {"value": 0.3}}),
    ("metrics", {"r_at_50m": FIGURE, "R50": FIGURE}),
    ("commit", "main"),
    ("config_hash", "xyz"),
    ("details", []),
    ("other", 1),
]
MALFORMED_DETAILS: list[tuple[str, Any]] = [
    ("lr", 0),
    ("sweep", [{"settings": {"train.lr": 0.001}}]),
    ("steps", -1),
    ("photos_seen", 1.5),
    ("threads", 0),
    ("machine", "a big one"),
    ("curve", [{"seconds": 3, "r_at_50m": 30.0}]),
    ("curve", [[3, 0.3]]),
    ("zoom_accuracy", [90.0]),
    ("errors_m", [10.5, 3]),
    ("errors_m", [-1, 3]),
    ("groups", ["a", "b"]),
    ("probability", [0.5, 1.01]),
    ("area_recall", [{"area": 2, "recall": 0.5}]),
    ("photos_hash", "none"),
    ("chance", {"r_at_50m": 8}),
]


def refused(tmp_path: Path, data: dict[str, Any], field: str) -> None:
    path = tmp_path / "benchmark.json"
    good = json.loads(_written(tmp_path, made(seed=7)))
    path.write_text(json.dumps([*good, data]), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_rows(path)
    message = str(caught.value)
    assert str(path) in message and "row 2" in message and field in message
    assert "mend it" in message and "\n" not in message
    assert not schema().is_valid([data])


def _written(tmp_path: Path, row: Row) -> str:
    write_rows(tmp_path / "one.json", [row])
    return (tmp_path / "one.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("field, value", MALFORMED)
def test_a_malformed_row_is_refused_as_the_schema_does(tmp_path, field, value):
    (data,) = json.loads(_written(tmp_path, made()))
    refused(tmp_path, data | {field: value}, value if field == "entrant" else field)


@pytest.mark.parametrize("field, value", MALFORMED_DETAILS)
def test_malformed_details_are_refused_as_the_schema_does(tmp_path, field, value):
    (data,) = json.loads(_written(tmp_path, made()))
    refused(tmp_path, data | {"details": data["details"] | {field: value}}, f"details.{field}")


def test_a_missing_field_is_refused(tmp_path):
    (data,) = json.loads(_written(tmp_path, made()))
    for field in data.keys() - {"details"}:
        refused(tmp_path, {k: v for k, v in data.items() if k != field}, field)


def test_details_may_hold_more(tmp_path):
    row = made(details={"sampler": {"near": [1, 2]}})
    write_rows(tmp_path / "benchmark.json", [row])
    assert read_rows(tmp_path / "benchmark.json") == [row]
    schema().validate(json.loads((tmp_path / "benchmark.json").read_text()))


def test_a_row_that_could_not_be_read_again_is_not_written(tmp_path):
    path = tmp_path / "benchmark.json"
    write_rows(path, [made()])
    before = path.read_bytes()
    for details in ({"errors_m": [3]}, {"groups": [0, 1, 2]}, {"other": np.zeros(2)},
                    {"other": float("nan")}):  # fmt: skip
        with pytest.raises(ConfigError, match=r"benchmark\.json: .*details"):
            write_rows(path, [made(details=details)])
    with pytest.raises(ConfigError, match="zoomloc, same-area, seed 0 is there twice"):
        write_rows(path, [made(), made(commit="7654321")])
    assert path.read_bytes() == before


def test_merge_replaces_rows_with_the_same_key():
    old = [made(), made(seed=1), made(towns=[7]), made(entrant="match", towns={"b": 1, "a": 2})]
    new = [made(commit="7654321"), made(entrant="match", minutes=10, towns={"a": 2, "b": 1})]
    both = merge(old, new)
    assert len(both) == 4
    assert [row.commit for row in both if row.key == old[0].key] == ["7654321"]
    assert find(both, key_of("zoomloc", "same-area", 1, "full", 10, [100])) is old[1]
    assert find(both, key_of("zoomloc", "same-area", 1, "full", 10, [101])) is None
    assert find(both, key_of("zoomloc", "same-area", 1, "small", 10, [100])) is None


def test_whole_metres_keep_recall_exact():
    errors = [0.0, 24.2, 25.0, 25.01, 49.9, 50.0, 50.3, np.inf]
    whole = whole_metres(errors)
    assert whole == [0, 25, 25, 26, 50, 50, 51, FARTHEST_M]
    for distance in (25, 50, 100):
        assert [w <= distance for w in whole] == [e <= distance for e in errors]
