"""bench.rows: files that survive a round trip, refusals, and comparisons computed by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_rows import enough, made, realistic
from jsonschema import Draft202012Validator

import zoomloc.world
from zoomloc.belief.metrics import Interval, bootstrap_over_groups
from zoomloc.bench.entrants import ABLATIONS, ENTRANTS
from zoomloc.bench.rows import (
    FARTHEST_M,
    Row,
    find,
    group_count,
    key_of,
    merge,
    paired_difference,
    pooled,
    read_rows,
    whole_metres,
    write_rows,
)
from zoomloc.errors import ConfigError

HIT, MISS = 10.0, 90.0


def schema() -> Draft202012Validator:
    path = Path(zoomloc.world.__file__).parent / "schemas" / "benchmark.schema.json"
    return Draft202012Validator(json.loads(path.read_text(encoding="utf-8")))


def answers(hits: str, groups: str, seed: int = 0, **changes: Any) -> Row:
    """A row from hits such as "1101" and groups such as "aabb"; photos differ by seed."""
    towns = changes.pop("towns", [seed])
    details = {"photos_hash": f"{seed:08x}"} | changes.pop("details", {})
    errors = [HIT if hit == "1" else MISS for hit in hits]
    numbers = [ord(group) - ord("a") for group in groups]
    return made(errors, numbers, seed=seed, towns=towns, details=details, **changes)


def same(interval: Interval, value: float, lo: float, hi: float, n: int) -> bool:
    held = (interval.value, interval.lo, interval.hi)
    return bool(np.allclose(held, (value, lo, hi))) and interval.n == n


# the file


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


# comparisons. With two groups a resample is aa, ab, ba or bb: the ends are one group alone.


def test_a_difference_resamples_whole_drives():
    a, b = answers("1111", "aabb"), answers("0011", "aabb", entrant="match")
    assert same(paired_difference([a], [b]), 0.5, 0.0, 1.0, 4)
    assert same(paired_difference([b], [a]), -0.5, -1.0, 0.0, 4)
    assert same(paired_difference([a], [b], "r_at_100m"), 0.0, 0.0, 0.0, 4)


def test_a_difference_is_that_of_the_same_photos():
    """Drives that are easy or hard for both say nothing about which is better."""
    a, b = answers("111100", "aabbcc"), answers("101000", "aabbcc", entrant="match")
    b = replace(b, details=b.details | {"errors_m": [10, 90, 10, 90, 90, 90]})
    a = replace(a, details=a.details | {"errors_m": [10, 10, 10, 10, 90, 10]})
    assert same(paired_difference([a], [b]), 0.5, 0.5, 0.5, 6)
    assert pooled([a]).hi - pooled([a]).lo > 0.3


def test_one_drive_says_nothing_about_others():
    a, b = answers("1101", "aaaa"), answers("0100", "aaaa", entrant="match")
    assert same(paired_difference([a], [b]), 0.5, 0.0, 1.0, 4)


def pair(shared: dict[str, Any]) -> tuple[list[Row], list[Row]]:
    """Two seeds; differences by drive: 1 and 1 in the first, 1 and -1 in the second."""
    a = [answers("11", "ab", 0, **shared), answers("10", "ab", 1, **shared)]
    b = [answers("00", "ab", 0, **shared), answers("01", "ab", 1, **shared)]
    return a, [replace(row, entrant="match") for row in b]


def test_seeds_on_other_towns_have_other_drives():
    """Of four drives one is -1; drawn k of four times: P(4) = 0.4 %, P(3) = 4.7 %, so the
    2.5 % end is k = 3 and the upper end k = 0."""
    a, b = pair({})
    assert group_count(a) == 4
    assert same(paired_difference(a, b), 0.5, -0.5, 1.0, 4)


@pytest.mark.parametrize(
    "shared", [{"towns": [1, 2]}, {"towns": 24, "details": {"photos_hash": "0123abcd"}}]
)
def test_seeds_on_the_same_towns_are_averaged_within_a_town(shared):
    """By town the mean over seeds is 1 and 0: the ends are one town alone."""
    a, b = pair(shared)
    assert group_count(a) == 2
    n = 2 if "details" in shared else 4
    assert same(paired_difference(a, b), 0.5, 0.0, 1.0, n)


def test_a_number_of_towns_does_not_name_them():
    a, b = pair({"towns": 1})
    assert group_count(a) == 4
    assert same(paired_difference(a, b), 0.5, -0.5, 1.0, 4)


def test_seeds_that_only_one_has_are_left_out():
    a, b = pair({})
    assert same(paired_difference(a, b[1:]), 0.0, -1.0, 1.0, 2)
    assert same(paired_difference(a[:1], b), 1.0, 1.0, 1.0, 2)


def test_seeds_count_alike_whatever_their_photos():
    rows = [answers("1111", "aabb", 0), answers("00", "ab", 1)]
    interval = pooled(rows)
    assert interval.value == 0.5 and interval.n == 6
    assert (interval.lo, interval.hi) == (0.0, 1.0)


def test_pooled_is_the_mean_over_seeds():
    rows = [answers("1100", "aabb", 0), answers("1110", "aabb", 1)]
    assert pooled(rows).value == pytest.approx((0.5 + 0.75) / 2)
    towns = [replace(row, towns=[5, 6]) for row in rows]
    assert same(pooled(towns), 0.625, 0.25, 1.0, 8)
    assert same(pooled(rows, "r_at_100m"), 1.0, 1.0, 1.0, 8)


def test_pooled_agrees_with_the_row_itself():
    row = realistic("zoomloc", 0)
    for metric in ("r_at_25m", "r_at_50m", "r_at_100m"):
        assert same(pooled([row], metric), *row.metrics[metric].values())
    assert pooled([row], "median_error_m").value == pytest.approx(
        row.metrics["median_error_m"]["value"], abs=1
    )
    bare = replace(row, details={})
    assert pooled([bare], "exact_cell") == Interval(**row.metrics["exact_cell"])


def test_a_quantile_is_that_of_all_photos():
    rows = [made([1, 2, 3], seed=0, towns=[0]), made([10, 20, 90], seed=1, towns=[1])]
    assert pooled(rows, "median_error_m").value == 6.5


def test_what_cannot_be_compared_is_refused():
    a, b = answers("11", "ab"), answers("10", "ab", entrant="match")
    cases = [
        ([a], [replace(b, seed=1)], "no seed that both"),
        ([a], [replace(b, details=b.details | {"photos_hash": "ffffffff"})], "other photos"),
        ([a], [replace(b, details=b.details | {"groups": [0, 0]})], "other photos"),
        ([a, replace(a, towns=[9])], [b], "two rows of zoomloc"),
        ([a], [replace(b, details={})], "no details.photos_hash"),
        ([a], [replace(b, details={**b.details, "errors_m": []})], "no details.errors_m"),
    ]
    for mine, theirs, words in cases:
        with pytest.raises(ConfigError, match=words):
            paired_difference(mine, theirs)
    with pytest.raises(ConfigError, match="exact_cell cannot be resampled"):
        paired_difference([a], [b], "exact_cell")
    with pytest.raises(ConfigError, match="run the benchmark"):
        pooled([])


def test_weights_count_in_a_mean_only():
    found = bootstrap_over_groups([1, 0, 0], ["a", "b", "b"], "mean", 0, weights=[2, 1, 1])
    assert (found.value, found.lo, found.hi) == (0.5, 0.0, 1.0)
    plain = bootstrap_over_groups([1, 0, 0], ["a", "b", "b"], "mean", 0, weights=[3, 3, 3])
    assert plain == bootstrap_over_groups([1, 0, 0], ["a", "b", "b"], "mean", 0)
    with pytest.raises(ValueError, match="only a mean"):
        bootstrap_over_groups([1, 0], ["a", "b"], "median", 0, weights=[1, 1])
