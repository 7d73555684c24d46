"""Comparing: several runs on the photos that all of them answered, drives resampled together.

Knows nothing of models or regions: it reads reports and the answers beside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoomloc.belief.metrics import (
    Interval,
    Statistic,
    bootstrap_over_groups,
    paired_difference,
)
from zoomloc.errors import ConfigError, PhotoError
from zoomloc.world.answers import Answer, answers_beside, read_answers
from zoomloc.world.cells import Floats, distances_m
from zoomloc.world.files import read_json

SCHEMA = "zoomloc/comparison/1"
DISTANCES_M = (25.0, 50.0, 100.0)
SAME_M = 0.1  # truths nearer than that are the same place, rounded otherwise


@dataclass(frozen=True)
class Scored:
    """A run that was evaluated: its name, its report, and each photo's answer and drive."""

    name: str
    report: dict[str, Any]
    answers: dict[str, Answer]
    drives: dict[str, str]


def read_scored(path: Path) -> Scored:
    """What ``zoomloc evaluate`` wrote: a run's folder, or any report with its answers beside.

    Raises ConfigError for no report or one without drives, ZoomlocError for broken answers.
    """
    report_path = path / "report.json" if path.is_dir() else path
    mend = f"run 'zoomloc evaluate --run {path}' first" if path.is_dir() else "name a run's folder"
    if not report_path.is_file():
        raise ConfigError(f"{report_path}: no such report; {mend}")
    report = read_json(report_path, "zoomloc/report/1", ConfigError)
    answers = read_answers(answers_beside(report_path))
    drives = _drives(report, len(answers), report_path)
    names = [answer.photo for answer in answers]
    known = dict(zip(names, answers, strict=True))
    return Scored(str(path), report, known, dict(zip(names, drives, strict=True)))


def _drives(report: dict[str, Any], answers: int, path: Path) -> list[str]:
    """The drive of each answer. Raises ConfigError where the report does not say."""
    try:
        runs = [(str(name), int(count)) for name, count in report.get("drives", ())]
        protocol = report["protocol"]
        complete = {"candidates", "search"} <= protocol.keys() and all(n > 0 for _, n in runs)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path}: a field is of a wrong kind ({error}); evaluate again"
        ) from error
    named = sum(count for _, count in runs)
    if named != answers or not complete:
        raise ConfigError(
            f"{path}: names drives of {named} photos, but {answers} are answered beside it; "
            "evaluate again, so that drives can be resampled"
        )
    return [name for name, count in runs for _ in range(count)]


def compare(runs: Sequence[Scored]) -> dict[str, Any]:
    """Figures of each run and its differences to the first, on the photos that all answered.

    Raises ConfigError for fewer than two runs, PhotoError where no photo is in all of them, or
    where a photo has another truth in one than in another.
    """
    if len(runs) < 2:
        raise ConfigError("compare: takes two runs at least; the first is what others differ from")
    photos = _common(runs)
    drives = [runs[0].drives[photo] for photo in photos]
    errors = [_errors_m(run, photos) for run in runs]
    return {
        "schema": SCHEMA,
        "n": len(photos),
        "drives": len(set(drives)),
        "runs": [
            {
                "run": run.name,
                "protocol": run.report["protocol"],
                "left_out": len(run.answers) - len(photos),
                "metrics": _metrics(own, drives),
            }
            for run, own in zip(runs, errors, strict=True)
        ],
        "differences": [
            {"run": run.name, "to": runs[0].name, "metrics": _differences(own, errors[0], drives)}
            for run, own in zip(runs[1:], errors[1:], strict=True)
        ],
    }


def _common(runs: Sequence[Scored]) -> list[str]:
    """Photos that all runs answered, in the first one's order, their truths and drives alike."""
    photos = [p for p in runs[0].answers if all(p in run.answers for run in runs[1:])]
    if not photos:
        counts = ", ".join(f"{run.name} has {len(run.answers)}" for run in runs)
        raise PhotoError(
            f"compare: no photo was answered by all runs ({counts}); evaluate them on one table"
        )
    for run in runs[1:]:
        _check_same(runs[0], run, photos)
    return photos


def _check_same(first: Scored, other: Scored, photos: Sequence[str]) -> None:
    """Refuse photos that only share a name: other truths, or other drives."""
    here, there = (_truths(run, photos) for run in (first, other))
    apart = distances_m(here[:, 0], here[:, 1], there[:, 0], there[:, 1]) > SAME_M
    if apart.any():
        raise PhotoError(
            f"compare: {int(apart.sum())} of {len(photos)} photos that {first.name} and "
            f"{other.name} share have other truths, such as {photos[int(np.argmax(apart))]!r}; "
            "evaluate both on one table"
        )
    moved = [photo for photo in photos if first.drives[photo] != other.drives[photo]]
    if moved:
        raise PhotoError(
            f"compare: {len(moved)} of {len(photos)} photos are of other drives in {other.name} "
            f"than in {first.name}, such as {moved[0]!r}; evaluate both on one table"
        )


def _truths(run: Scored, photos: Sequence[str]) -> Floats:
    """(n, 2) degrees. Raises PhotoError where a truth is not known."""
    truths = [run.answers[photo].truth for photo in photos]
    unknown = [photo for photo, truth in zip(photos, truths, strict=True) if truth is None]
    if unknown:
        raise PhotoError(
            f"compare: {run.name} knows no truth of {len(unknown)} of {len(photos)} photos, such "
            f"as {unknown[0]!r}; evaluate it on a photo table"
        )
    return np.array(truths, np.float64)


def _errors_m(run: Scored, photos: Sequence[str]) -> Floats:
    """(n,) geodesic metres, whatever distance the run's report was made with."""
    places = np.array([run.answers[photo].place for photo in photos])
    truths = _truths(run, photos)
    return distances_m(places[:, 0], places[:, 1], truths[:, 0], truths[:, 1])


def _metrics(errors_m: Floats, drives: Sequence[str]) -> dict[str, Any]:
    """Recalls and the median error, each with its interval."""
    return {
        name: bootstrap_over_groups(values, drives, statistic, seed=0).to_json()
        for name, values, statistic in _measured(errors_m)
    }


def _differences(errors_m: Floats, to_m: Floats, drives: Sequence[str]) -> dict[str, Any]:
    """The same measures, less those of another run."""
    found: dict[str, Interval] = {}
    for (name, ours, statistic), (_, theirs, _) in zip(
        _measured(errors_m), _measured(to_m), strict=True
    ):
        found[name] = paired_difference(ours, theirs, drives, statistic, seed=0)
    return {name: interval.to_json() for name, interval in found.items()}


def _measured(errors_m: Floats) -> list[tuple[str, Floats, Statistic]]:
    """Name, one value a photo, and what is taken of them."""
    found: list[tuple[str, Floats, Statistic]] = [
        (f"r_at_{d:g}m", (errors_m <= d).astype(np.float64), "mean") for d in DISTANCES_M
    ]
    return [*found, ("median_error_m", errors_m, "median")]
