"""Coarse to fine against every place of the map: what is lost, and what it saves.

Knows nothing of training.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from zoomloc.belief.metrics import Interval, bootstrap_over_groups
from zoomloc.bench.scoring import test_photos
from zoomloc.errors import ConfigError
from zoomloc.evaluate import machine
from zoomloc.locator import Locator, Query
from zoomloc.scorers.matches import MatchScorer
from zoomloc.world.cells import Floats, distance_m

WITHIN_M = 50.0
AT_ONCE = 32


@dataclass(frozen=True)
class Way:
    """One way to search: its recall, and what a photo costs."""

    name: str
    recall: float
    less: Interval  # recall of every place minus this, over whole towns
    median_m: float  # where right
    products: float  # multiply-adds a photo
    seconds: float  # of one core a photo
    photos: int


def compare_searches(run: Path, places: Sequence[Path]) -> list[Way]:
    """Every place, then the run's own setting, on the same photos. Raises ConfigError."""
    own = Locator.load(run, places[0], anywhere=True)
    if not isinstance(own.scorer, MatchScorer):
        raise ConfigError(f"run {run}: is no match, it has nothing to search coarsely")
    ways = {"every place": 1.0, "coarse to fine": own.search.refined}
    errors: dict[str, list[float]] = {name: [] for name in ways}
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    towns: list[int] = []
    for town, (place, photos) in enumerate(zip(places, test_photos(places), strict=True)):
        queries = [Query.of(photo) for photo in photos]
        towns += [town] * len(queries)
        for name, refined in ways.items():
            locator = Locator.load(run, place, anywhere=True)
            found, cost = _searched(locator, refined, queries)
            errors[name] += found
            costs[name].append(cost)
    every = np.array(errors["every place"])
    return [_way(name, np.array(errors[name]), every, towns, costs[name]) for name in ways]


def _searched(
    locator: Locator, refined: float, queries: Sequence[Query]
) -> tuple[list[float], tuple[float, float]]:
    """Errors of photos, and (multiply-adds, seconds) of all of them; the map is not counted."""
    locator = locator.with_search(locator.search.model_copy(update={"refined": refined}))
    scorer = locator.scorer
    assert scorer.index is not None  # encoded before the clock starts
    shown = [locator.shown(query) for query in queries]
    errors: list[float] = []
    scorer.products, begun = 0, time.process_time()
    for start in range(0, len(shown), AT_ONCE):
        found = locator.find(shown[start : start + AT_ONCE])
        truths = [query.truth for query in queries[start : start + AT_ONCE]]
        errors += [distance_m(f.place, t) for f, t in zip(found, truths, strict=True) if t]
    return errors, (scorer.products, time.process_time() - begun)


def _way(
    name: str,
    errors_m: Floats,
    every_m: Floats,
    towns: Sequence[int],
    costs: Sequence[tuple[float, float]],
) -> Way:
    right = errors_m <= WITHIN_M
    lost = (every_m <= WITHIN_M).astype(float) - right
    products, seconds = (sum(parts) / len(errors_m) for parts in zip(*costs, strict=True))
    return Way(
        name,
        float(right.mean()),
        bootstrap_over_groups(lost, towns, "mean", seed=0),
        float(np.median(errors_m[right])) if right.any() else float("nan"),
        products,
        seconds,
        len(errors_m),
    )


def markdown(found: Sequence[Way]) -> str:
    """What came out, for docs."""
    every = found[0]
    lines = [
        "| search | R@50 m, % | less than every place, points | median error where right, m "
        "| multiply-adds a photo | of every place | ms of one core a photo |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {way.name} | {100 * way.recall:.1f} | {100 * way.less.value:+.1f} "
            f"[{100 * way.less.lo:+.1f}, {100 * way.less.hi:+.1f}] | {way.median_m:.1f} "
            f"| {way.products / 1e6:.0f} M | {way.products / every.products:.1%} "
            f"| {1000 * way.seconds:.0f} |"
            for way in found
        ),
        "",
        f"{every.photos} photos of towns not trained in, the whole town searched; intervals: "
        f"95 %, paired, over towns. Multiply-adds are counted as they are done, the closer look "
        f"at the end included; encoding photo and map is not among them. {date.today()}, "
        f"{', '.join(f'{k} {v}' for k, v in machine().items())}.",
        "",
    ]
    return "\n".join(lines)
