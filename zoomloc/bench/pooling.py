"""Figures over seeds: of one entrant, and how two differ on the same photos, with intervals.

Knows nothing of files, nor of tables and plots.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from zoomloc.belief.metrics import Interval, Statistic, bootstrap_over_groups
from zoomloc.bench.rows import Row, towns_json
from zoomloc.errors import ConfigError
from zoomloc.world.cells import Floats

_ERRORS: dict[str, Statistic] = {
    "median_error_m": "median",
    "p75_error_m": 0.75,
    "p90_error_m": 0.9,
    "mean_error_m": "mean",
}


def pooled(rows: Sequence[Row], metric: str = "r_at_50m") -> Interval:
    """One figure for all seeds of an entrant, and its 95 % interval over whole groups.

    A recall is the mean over seeds; a quantile of errors that of all seeds' photos together.
    Groups (drives, or towns on unseen-town) of seeds on the same ground are the same groups.
    n: different photos. Of one row without single errors the interval that it states.

    Raises ConfigError where there is no row, or no single errors to resample.
    """
    if not rows:
        raise ConfigError(f"no rows to take {metric} from; run the benchmark first")
    if len(rows) == 1 and not rows[0].details.get("errors_m") and metric in rows[0].metrics:
        return Interval(**rows[0].metrics[metric])
    if metric in _ERRORS:
        return _resampled(rows, [_errors_m(row) for row in rows], _ERRORS[metric])
    return _resampled(rows, [_hits(row, metric) for row in rows], "mean")


def paired_difference(a: Sequence[Row], b: Sequence[Row], metric: str = "r_at_50m") -> Interval:
    """Recall of ``a`` less that of ``b`` on the same photos, with its 95 % interval.

    Seeds that both have are compared photo by photo; whole groups are resampled for both at
    once, groups of seeds on the same ground as one. The mean is over seeds.

    Raises ConfigError where no seed is in both, or where a seed's photos differ.
    """
    mine, theirs = _by_seed(a), _by_seed(b)
    seeds = sorted(mine.keys() & theirs.keys())
    if not seeds:
        raise ConfigError("no seed that both entrants have finished; run the missing ones")
    for seed in seeds:
        _same_photos(mine[seed], theirs[seed])
    differences = [_hits(mine[s], metric) - _hits(theirs[s], metric) for s in seeds]
    return _resampled([mine[s] for s in seeds], differences, "mean")


def group_count(rows: Sequence[Row]) -> int:
    """How many different groups (drives, towns) the photos of these rows are from."""
    return len(set(_groups(rows)))


def _resampled(rows: Sequence[Row], values: Sequence[Floats], statistic: Statistic) -> Interval:
    """The statistic over all seeds' values, each seed counting alike in a mean."""
    weights = np.concatenate([np.full(len(v), 1 / len(v)) for v in values])
    interval = bootstrap_over_groups(
        np.concatenate(values),
        _groups(rows),
        statistic,
        seed=0,
        weights=weights if statistic == "mean" else None,
    )
    return replace(interval, n=sum({_photos_hash(row): row.n for row in rows}.values()))


def _groups(rows: Sequence[Row]) -> list[str]:
    """The group of each photo of all rows, named so that another ground's groups are others."""
    return [
        f"{ground}/{group}"
        for row, ground in zip(rows, _grounds(rows), strict=True)
        for group in _detail(row, "groups")
    ]


def _grounds(rows: Sequence[Row]) -> list[int]:
    """For each row the first one with the same photos or towns: their groups are the same.

    A mere number of towns says nothing about which towns they are.
    """
    first: dict[str, int] = {}
    grounds = []
    for i, row in enumerate(rows):
        names = [_photos_hash(row)]
        if not isinstance(row.towns, int):
            names.append(towns_json(row.towns))
        ground = min(first.get(name, i) for name in names)
        first.update((name, ground) for name in names)
        grounds.append(ground)
    return grounds


def _by_seed(rows: Sequence[Row]) -> dict[int, Row]:
    found: dict[int, Row] = {}
    for row in rows:
        if row.seed in found:
            raise ConfigError(f"two rows of {row}; compare one budget and set of towns at a time")
        found[row.seed] = row
    return found


def _same_photos(a: Row, b: Row) -> None:
    """Raises ConfigError where the rows were not scored on the same photos in the same order."""
    if _photos_hash(a) != _photos_hash(b) or _detail(a, "groups") != _detail(b, "groups"):
        raise ConfigError(
            f"{a} and {b} were scored on other photos (photos_hash differs); delete the older "
            "row and run the benchmark again"
        )


def _hits(row: Row, metric: str) -> Floats:
    """(n,) 1 where the answer is at most that far off, else 0."""
    named = re.fullmatch(r"r_at_([0-9]+)m", metric)
    if named is None:
        raise ConfigError(
            f"{metric} cannot be resampled over seeds; use r_at_<metres>m or {', '.join(_ERRORS)}"
        )
    return np.asarray(_errors_m(row) <= float(named[1]), np.float64)


def _errors_m(row: Row) -> Floats:
    return np.asarray(_detail(row, "errors_m"), np.float64)


def _photos_hash(row: Row) -> str:
    return str(_detail(row, "photos_hash"))


def _detail(row: Row, name: str) -> Any:
    """A detail that comparisons need. Raises ConfigError where the row lacks it."""
    held = row.details.get(name)
    if not held:
        raise ConfigError(
            f"{row} has no details.{name}, so it cannot be compared; delete the row and run the "
            "benchmark again"
        )
    return held
