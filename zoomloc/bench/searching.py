"""Ways to search with one model: what is lost, and what it saves.

Knows nothing of training.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from zoomloc.belief.metrics import Interval, bootstrap_over_groups
from zoomloc.bench.scoring import test_photos
from zoomloc.evaluate import machine
from zoomloc.locator import Locator, Query
from zoomloc.scorers.matches import MatchScorer
from zoomloc.world.cells import Floats, distance_m

EVERY = "every place"
WITHIN_M = 50.0
AT_ONCE = 32


Cost = tuple[float, float, float]  # multiply-adds, seconds, seconds with photos' files opened


@dataclass(frozen=True)
class Way:
    """One way to search: its recall, and what a photo costs."""

    name: str
    recall: float
    less: Interval  # recall of every place minus this, over whole towns
    median_m: float  # where right
    products: float  # multiply-adds a photo
    seconds: float  # of one core a photo
    opened_s: float  # of one core a photo, its file opened as well
    photos: int
    towns: int


def compare_searches(run: Path, places: Sequence[Path]) -> list[Way]:
    """Ways to search with a run, on the same photos: the first one is the yardstick.

    A match: every place, then the run's own setting. A zoom: greedy, beam and best-first.
    """
    ways = _ways(Locator.load(run, places[0], anywhere=True))
    errors: dict[str, list[float]] = {name: [] for name in ways}
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    towns: list[int] = []
    for town, (place, photos) in enumerate(zip(places, test_photos(places), strict=True)):
        queries = [Query.of(photo) for photo in photos]
        towns += [town] * len(queries)
        locator = Locator.load(run, place, anywhere=True)
        for name, changes in ways.items():
            found, cost = _searched(locator, changes, queries)
            errors[name] += found
            costs[name].append(cost)
    first = np.array(next(iter(errors.values())))
    return [_way(name, np.array(errors[name]), first, towns, costs[name]) for name in ways]


def _ways(locator: Locator) -> dict[str, dict[str, Any]]:
    """Names of ways, and the search settings of each."""
    if isinstance(locator.scorer, MatchScorer):
        return {
            EVERY: {"refined": 1.0},
            "coarse to fine": {"refined": locator.search.refined},
        }
    bayes = {"answer": "bayes"}
    return {
        "greedy": bayes | {"method": "greedy"},
        "beam 8": bayes | {"method": "beam", "beam": 8},
        "beam 32": bayes | {"method": "beam", "beam": 32},
        "best-first, 5 % left": bayes | {"method": "best-first", "bound": 0.05},
    }


def _searched(
    locator: Locator, changes: dict[str, Any], queries: Sequence[Query]
) -> tuple[list[float], Cost]:
    """Errors of photos, and what all of them cost; the map is not counted."""
    locator = locator.with_search(locator.search.model_copy(update=changes))
    scorer = locator.scorer
    opening = time.process_time()
    shown = [locator.shown(query) for query in queries]
    opening = time.process_time() - opening
    for start in range(0, len(shown), AT_ONCE):  # the map is encoded before the clock starts
        locator.find(shown[start : start + AT_ONCE])
        if isinstance(scorer, MatchScorer):
            break
    errors: list[float] = []
    before, begun = getattr(scorer, "products", 0), time.process_time()
    for start in range(0, len(shown), AT_ONCE):
        found = locator.find(shown[start : start + AT_ONCE])
        truths = [query.truth for query in queries[start : start + AT_ONCE]]
        errors += [distance_m(f.place, t) for f, t in zip(found, truths, strict=True) if t]
    spent = time.process_time() - begun
    return errors, (getattr(scorer, "products", 0) - before, spent, spent + opening)


def _way(
    name: str,
    errors_m: Floats,
    every_m: Floats,
    towns: Sequence[int],
    costs: Sequence[Cost],
) -> Way:
    right = errors_m <= WITHIN_M
    lost = (every_m <= WITHIN_M).astype(float) - right
    products, seconds, opened_s = (sum(parts) / len(errors_m) for parts in zip(*costs, strict=True))
    return Way(
        name,
        float(right.mean()),
        bootstrap_over_groups(lost, towns, "mean", seed=0),
        float(np.median(errors_m[right])) if right.any() else float("nan"),
        products,
        seconds,
        opened_s,
        len(errors_m),
        len(set(towns)),
    )


def markdown(found: Sequence[Way]) -> str:
    """What came out, for docs."""
    first = found[0]
    counted = first.products > 0
    lines = [
        f"| search | R@50 m, % | less than {first.name}, points | median error where right, m "
        + (f"| multiply-adds a photo | of {first.name} " if counted else "")
        + f"| ms of one core a photo | of {first.name} | with its file opened | of {first.name} |",
        "|---|" + "---:|" * (9 if counted else 7),
        *(_line(way, first, counted) for way in found),
        "",
        f"{first.photos} photos of {first.towns} towns, the whole town searched; intervals: 95 %, "
        "paired, over towns. Multiply-adds are counted as they are done, the closer look at the "
        "end included; encoding the map is not among them, nor in the time. "
        f"{date.today()}, {', '.join(f'{k} {v}' for k, v in machine().items())}.",
        "",
    ]
    return "\n".join(lines)


def _line(way: Way, first: Way, counted: bool) -> str:
    products = (
        f"| {way.products / 1e6:.0f} M | {way.products / first.products:.1%} " if counted else ""
    )
    return (
        f"| {way.name} | {100 * way.recall:.1f} | {100 * way.less.value:+.1f} "
        f"[{100 * way.less.lo:+.1f}, {100 * way.less.hi:+.1f}] | {way.median_m:.1f} {products}"
        f"| {1000 * way.seconds:.1f} | {way.seconds / first.seconds:.2f} "
        f"| {1000 * way.opened_s:.1f} | {way.opened_s / first.opened_s:.2f} |"
    )
