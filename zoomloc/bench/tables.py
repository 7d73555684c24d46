"""Markdown tables of benchmark rows: one for each protocol, preset and budget.

Knows nothing of files, and nothing of how entrants are trained.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from zoomloc.belief.metrics import Interval
from zoomloc.bench.pooling import group_count, paired_difference, pooled
from zoomloc.bench.rows import Row, towns_json
from zoomloc.errors import ConfigError

BASELINES = ("justzoomin", "retrieval", "hierarchical")
CHANCE = ("constant", "random-road")
ABSENT = "–"
GROUP_OF = {"same-area": "drive", "trial": "drive", "unseen-town": "town"}
HEADS = (
    "entrant",
    "R@25 m, %",
    "R@50 m, %",
    "R@100 m, %",
    "median error, m",
    "exact cell, %",
    "seeds",
    "n",
    "parameters",
    "steps",
    "photos seen",
    "learning rate",
    "difference, points",
)


class Section(NamedTuple):
    """Rows that may stand side by side: one protocol, preset and budget, each seed once."""

    protocol: str
    preset: str
    minutes: float
    towns: str  # where the same seeds were run on several sets of towns, else ""
    entrants: dict[str, list[Row]]  # best first, chance last; each sorted by seed

    @property
    def rows(self) -> list[Row]:
        """All of them, entrant by entrant."""
        return [row for rows in self.entrants.values() for row in rows]

    @property
    def title(self) -> str:
        """Protocol, budget and preset in words."""
        towns = f", towns {self.towns}" if self.towns else ""
        plural = "" if self.minutes == 1 else "s"
        return (
            f"{self.protocol}, {self.minutes:g} minute{plural} of training ({self.preset}{towns})"
        )


def sections(rows: Iterable[Row]) -> list[Section]:
    """Rows in groups that may be compared, sorted by protocol, preset and minutes."""
    found: dict[tuple[str, str, float], list[Row]] = {}
    for row in rows:
        found.setdefault((row.protocol, row.preset, row.minutes), []).append(row)
    made = []
    for key in sorted(found):
        some = found[key]
        if len({(row.entrant, row.seed) for row in some}) == len(some):
            made.append(Section(*key, "", _ranked(some)))
            continue
        for towns in sorted({towns_json(row.towns) for row in some}):
            part = [row for row in some if towns_json(row.towns) == towns]
            made.append(Section(*key, towns, _ranked(part)))
    return made


def markdown_table(rows: Iterable[Row]) -> str:
    """A heading, a table and how to read it for each protocol, preset and budget.

    Entrants stand best first (recall within 50 m, mean over seeds), chance last. Differences
    are paired: to the best of justzoomin, retrieval and hierarchical.
    """
    parts = [_part(section) for section in sections(rows)]
    return "\n".join(parts) if parts else "No finished rows.\n"


def best_baseline(section: Section) -> str | None:
    """The baseline with the best recall within 50 m, None where none has finished."""
    return next((entrant for entrant in section.entrants if entrant in BASELINES), None)


def _ranked(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each entrant by seed; the best entrant first, chance last."""
    by_entrant: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda r: (r.entrant, r.seed)):
        by_entrant.setdefault(row.entrant, []).append(row)
    order = sorted(by_entrant, key=lambda e: (e in CHANCE, -_mean(by_entrant[e], "r_at_50m"), e))
    return {entrant: by_entrant[entrant] for entrant in order}


def _mean(rows: Sequence[Row], metric: str) -> float:
    return float(np.mean([row.metrics[metric]["value"] for row in rows]))


def _part(section: Section) -> str:
    baseline = best_baseline(section)
    differences = {
        entrant: _difference(rows, section.entrants[baseline])
        for entrant, rows in section.entrants.items()
        if baseline and entrant != baseline and entrant not in CHANCE
    }
    most = max(len(rows) for rows in section.entrants.values())
    lines = [f"### {section.title}", "", _line(HEADS), _line(("---", *["---:"] * 12))]
    for entrant, rows in section.entrants.items():
        cells = (entrant, *_recalls(rows), *_facts(rows, most))
        last = "best baseline" if entrant == baseline else _points(differences.get(entrant), rows)
        lines.append(_line((*cells, last)))
    return "\n".join([*lines, "", _reading(section, baseline, differences), *_exact(section), ""])


def _exact(section: Section) -> list[str]:
    """How exact place and heading are where an answer is right, for those that know a heading."""
    told = []
    for entrant, rows in section.entrants.items():
        found = [row.details.get("right") or {} for row in rows]
        if all(f.get("median_bearing_off_deg") is not None for f in found):
            metres, degrees = (
                float(np.mean([f[key] for f in found]))
                for key in ("median_error_m", "median_bearing_off_deg")
            )
            told.append(f"{entrant} {metres:.1f} m and {degrees:.1f} degrees of heading")
    return [f"Median errors where within 50 m: {'; '.join(told)}."] if told else []


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


# 1. the cells of a line


def _recalls(rows: Sequence[Row]) -> tuple[str, ...]:
    """R@25 m, R@50 m, R@100 m, median error and exact cell."""
    near, mid, far = (_figure(rows, f"r_at_{d}m") for d in (25, 50, 100))
    return (
        _percent(near),
        _with_interval(mid),
        _percent(far),
        _median_m(rows),
        _percent(_figure(rows, "exact_cell")),
    )


def _median_m(rows: Sequence[Row]) -> str:
    """The median error of all seeds' photos; without single errors the mean of the medians."""
    if all(row.details.get("errors_m") for row in rows):
        return f"{np.median(np.concatenate([row.details['errors_m'] for row in rows])):,.0f}"
    if all("median_error_m" in row.metrics for row in rows):
        return f"{_mean(rows, 'median_error_m'):,.0f}"
    return ABSENT


def _figure(rows: Sequence[Row], metric: str) -> Interval | None:
    """The figure over all seeds; an interval without width where it cannot be resampled."""
    try:
        return pooled(rows, metric)
    except ConfigError:
        if any(metric not in row.metrics for row in rows):
            return None
        mean = _mean(rows, metric)
        return Interval(mean, mean, mean, sum(row.n for row in rows))


def _percent(figure: Interval | None) -> str:
    return ABSENT if figure is None else f"{100 * figure.value:.1f}"


def _with_interval(figure: Interval | None) -> str:
    if figure is None or figure.lo == figure.hi:
        return _percent(figure)
    return f"{100 * figure.value:.1f} [{100 * figure.lo:.1f}, {100 * figure.hi:.1f}]"


def _facts(rows: Sequence[Row], most: int) -> tuple[str, ...]:
    """Seeds, n, parameters, steps, photos seen and learning rate."""
    seeds = str(len(rows)) if len(rows) == most else f"{len(rows)} of {most}"
    rates = sorted({row.details["lr"] for row in rows if row.details.get("lr")})
    return (
        seeds,
        _span([row.n for row in rows]),
        _span([row.params for row in rows]),
        _known_mean(rows, "steps"),
        _known_mean(rows, "photos_seen"),
        ", ".join(f"{rate:g}" for rate in rates) or ABSENT,
    )


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _known_mean(rows: Sequence[Row], name: str) -> str:
    counts = [row.details[name] for row in rows if row.details.get(name)]
    return f"{np.mean(counts):,.0f}" if counts else ABSENT


class _Difference(NamedTuple):
    interval: Interval
    seeds: int

    @property
    def counts(self) -> bool:
        return self.interval.lo > 0 or self.interval.hi < 0


def _difference(rows: Sequence[Row], baseline: Sequence[Row]) -> _Difference | None:
    """The paired difference, None where no seed is in both or single errors are missing."""
    seeds = {row.seed for row in rows} & {row.seed for row in baseline}
    if not seeds or any(not row.details.get("errors_m") for row in (*rows, *baseline)):
        return None
    return _Difference(paired_difference(rows, baseline), len(seeds))


def _points(difference: _Difference | None, rows: Sequence[Row]) -> str:
    """A difference in percentage points; bold where it counts."""
    if difference is None:
        return ABSENT
    low, value, high = (
        f"{round(100 * x, 1) + 0.0:+.1f}"  # no "-0.0"
        for x in (difference.interval.lo, difference.interval.value, difference.interval.hi)
    )
    value = f"**{value}**" if difference.counts else value
    fewer = f" (on {difference.seeds} of its seeds)" if difference.seeds < len(rows) else ""
    return f"{value} [{low}, {high}]{fewer}"


# 2. the lines under a table


def _reading(
    section: Section, baseline: str | None, differences: dict[str, _Difference | None]
) -> str:
    """What the intervals are, what a difference must be to count, where and when it ran."""
    known = [d for d in differences.values() if d is not None]
    return " ".join(
        text
        for text in (
            _about_intervals(section),
            _about_differences(baseline, known),
            _about_runs(section.rows),
        )
        if text
    )


def _about_intervals(section: Section) -> str:
    resampled = [row for row in section.rows if row.details.get("errors_m")]
    if not resampled:
        return "Brackets hold 95 % intervals."
    kinds = [row.details["grouped_by"] for row in resampled if row.details.get("grouped_by")]
    group = kinds[0] if kinds else GROUP_OF.get(section.protocol, "group")
    count = group_count(resampled)
    return (
        f"Recall is the mean over seeds; brackets hold its 95 % interval from a bootstrap over "
        f"whole {group}s ({count} in all); n is the photos of one seed."
    )


def _about_differences(baseline: str | None, known: Sequence[_Difference]) -> str:
    if baseline is None or not known:
        return ""
    needed = 100 * max((d.interval.hi - d.interval.lo) / 2 for d in known)
    return (
        f"A difference is that in R@50 m to {baseline}, the best baseline, on the same photos; "
        f"it counts (bold) only where its interval does not hold 0. Here that takes up to "
        f"{needed:.1f} points."
    )


def _about_runs(rows: Sequence[Row]) -> str:
    """Dates, machines and commits of the rows."""
    dates = sorted({str(row.details["created"])[:10] for row in rows if row.details.get("created")})
    machines = _distinct(rows, lambda d: _machine(d.get("machine")))
    threads = _distinct(rows, lambda d: str(d.get("threads") or ""))
    commits = sorted({row.commit for row in rows})
    told = [
        " to ".join(dates[:1] + dates[1:][-1:]),
        "; ".join(machines),
        f"{' or '.join(threads)} thread{'s' if threads != ['1'] else ''}" if threads else "",
        f"commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}",
    ]
    return "Run: " + "; ".join(text for text in told if text) + "."


def _distinct(rows: Sequence[Row], told: Callable[[dict[str, Any]], str]) -> list[str]:
    return sorted({text for row in rows if (text := told(row.details))})


def _machine(machine: dict[str, Any] | None) -> str:
    """A machine in words; its threads are told apart."""
    return ", ".join(f"{k} {v}" for k, v in (machine or {}).items() if k != "threads")
