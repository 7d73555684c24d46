"""Comparing runs: paired over drives, on photos that all answered, by hand; what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from zoomloc.belief.metrics import bootstrap_over_groups, paired_difference
from zoomloc.comparing import compare, read_scored
from zoomloc.errors import ConfigError, PhotoError
from zoomloc.world.answers import Answer, write_answers
from zoomloc.world.cells import LatLng, cell_at, moved

HOME = LatLng(48.1, -1.7)


def answer(name: str, error_m: float, truth: LatLng = HOME) -> Answer:
    place = moved(truth, 90.0, error_m)
    key = cell_at(place, 20).quadkey
    return Answer(name, *place, 0.5, 10.0, 20.0, None, None, (key,), (), ((key, 1.0),),
                  truth=truth, error_m=error_m)  # fmt: skip


def written(folder: Path, answers: list[Answer], drives: list[tuple[str, int]]) -> Path:
    """What evaluate leaves behind, as far as comparing reads it."""
    folder.mkdir()
    protocol = {"split": "sequence-disjoint", "candidates": "all-cells", "search": "beam 8"}
    report = {"schema": "zoomloc/report/1", "protocol": protocol, "drives": drives}
    (folder / "report.json").write_text(json.dumps(report))
    write_answers(answers, folder / "answers.jsonl")
    return folder


def four(*errors: float) -> list[Answer]:
    return [answer(f"p{k}", error) for k, error in enumerate(errors)]


DRIVES = [("a", 2), ("b", 2)]


def test_figures_and_differences_by_hand(tmp_path):
    first = written(tmp_path / "x", four(10, 40, 60, 200), DRIVES)
    other = written(tmp_path / "y", four(10, 20, 90, 120)[::-1], [("b", 2), ("a", 2)])
    found = compare([read_scored(first), read_scored(other)])
    assert (found["n"], found["drives"]) == (4, 2)
    values = [
        {name: round(m["value"], 3) for name, m in run["metrics"].items()} for run in found["runs"]
    ]
    assert values == [
        {"r_at_25m": 0.25, "r_at_50m": 0.5, "r_at_100m": 0.75, "median_error_m": 50.0},
        {"r_at_25m": 0.5, "r_at_50m": 0.5, "r_at_100m": 0.75, "median_error_m": 55.0},
    ]
    (apart,) = found["differences"]
    assert (apart["run"], apart["to"]) == (str(other), str(first))
    at25 = apart["metrics"]["r_at_25m"]
    # drive a gains a half, drive b nothing: resamples are aa, ab, ba, bb
    assert (at25["value"], at25["lo"], at25["hi"], at25["n"]) == (0.25, 0.0, 0.5, 4)
    assert apart["metrics"]["median_error_m"]["value"] == pytest.approx(5.0, abs=1e-6)


def test_what_is_hard_for_both_does_not_widen_the_difference():
    """Drives differ much, runs by the same ten metres everywhere: the difference is certain."""
    rng = np.random.default_rng(0)
    drives = np.repeat(np.arange(12), 20)
    errors = rng.gamma(2, 30, 240) * (1 + drives)
    alone = bootstrap_over_groups(errors, drives, "median", seed=0)
    found = paired_difference(errors + 10, errors, drives, "median", seed=0)
    assert alone.hi - alone.lo > 50
    assert (found.value, found.lo, found.hi) == pytest.approx((10, 10, 10))


def test_paired_differences_agree_with_plain_resampling():
    rng = np.random.default_rng(3)
    drives = rng.integers(0, 6, 50)
    a, b = rng.gamma(1, 50, 50), rng.gamma(1, 60, 50)
    found = paired_difference(a, b, drives, "median", seed=1, resamples=200)
    draws = np.random.default_rng(1).multinomial(6, np.full(6, 1 / 6), 200)
    again = [np.repeat(np.arange(50), draw[drives]) for draw in draws]
    plain = [np.median(a[i]) - np.median(b[i]) for i in again]
    assert (found.lo, found.hi) == pytest.approx(tuple(np.quantile(plain, [0.025, 0.975])))
    one = paired_difference(a, b, ["x"] * 50, "mean", seed=0)
    assert (one.lo, one.hi) == ((a - b).min(), (a - b).max())


def test_only_photos_that_all_answered_count(tmp_path):
    runs = [
        written(tmp_path / "x", four(10, 40, 60, 200), DRIVES),
        written(tmp_path / "y", four(10, 40, 60), [("a", 2), ("b", 1)]),
    ]
    found = compare([read_scored(run) for run in runs])
    assert found["n"] == 3 and [run["left_out"] for run in found["runs"]] == [1, 0]


def test_runs_that_do_not_belong_together(tmp_path):
    runs = {
        "x": written(tmp_path / "x", four(10, 40, 60, 200), DRIVES),
        "others": written(tmp_path / "o", [answer("q", 1.0)], [("a", 1)]),
        "moved": written(
            tmp_path / "m",
            [*four(10, 40), answer("p2", 5.0, moved(HOME, 0, 30)), *four(1, 1, 1, 9)[3:]],
            DRIVES,
        ),
        "drives": written(tmp_path / "d", four(10, 40, 60, 200), [("a", 3), ("b", 1)]),
        "unknown": written(
            tmp_path / "u",
            [replace(a, truth=None, error_m=None) for a in four(1, 1, 1, 1)],
            DRIVES,
        ),
    }
    scored = {name: read_scored(path) for name, path in runs.items()}
    with pytest.raises(ConfigError, match="two runs"):
        compare([scored["x"]])
    for name, words in (
        ("others", r"x has 4, .*o has 1"),
        ("moved", r"1 of 4 photos .* other truths, such as 'p2'"),
        ("drives", r"1 of 4 photos are of other drives"),
        ("unknown", r"no truth of 4 of 4"),
    ):
        with pytest.raises(PhotoError, match=words):
            compare([scored["x"], scored[name]])


def test_the_command(zoomloc, tmp_path):
    """Figures for people, JSON for machines; what is missing is one line."""
    first = written(tmp_path / "x", four(10, 40, 60, 200), DRIVES)
    other = written(tmp_path / "[bold]y", four(10, 20, 90, 120), DRIVES)
    code, out, err = zoomloc("compare", first, other / "report.json")
    assert code == 0, err
    assert "4 photos of 2 drives" in out and "+25.0 points" in out.replace("\n", " ")
    code, out, _ = zoomloc("compare", first, other, "--json")
    assert code == 0 and json.loads(out)["schema"] == "zoomloc/comparison/1"
    (tmp_path / "old").mkdir()
    report = json.loads((first / "report.json").read_text())
    (tmp_path / "old" / "report.json").write_text(json.dumps({**report, "drives": []}))
    write_answers(four(1), tmp_path / "old" / "answers.jsonl")
    for words, told in (
        ((first,), "two runs"),
        ((first, tmp_path / "none"), "no such report"),
        ((first, tmp_path), "zoomloc evaluate"),
        ((first, tmp_path / "old"), "evaluate again"),
    ):
        code, out, err = zoomloc("compare", *words)
        assert code == 2 and told in err and err.count("\n") == 1, err
