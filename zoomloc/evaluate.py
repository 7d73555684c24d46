"""A Locator over many photos: answers, and a report of how far off they are.

All figures come from autoregressive rollout. Knows nothing of how the model was trained.
"""

import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoomloc.belief.metrics import (
    Interval,
    bootstrap_over_groups,
    chance_constant,
    chance_random,
    error_metrics,
    floor_m,
    zoom_accuracy,
)
from zoomloc.checkpoint import best_checkpoint, load_explained
from zoomloc.errors import PhotoError, RegionError
from zoomloc.locator import Locator, Query
from zoomloc.world.answers import Answer, write_answers
from zoomloc.world.cells import Cell, LatLng, cell_of_quadkey
from zoomloc.world.files import write_json
from zoomloc.world.photos import Photo

SCHEMA = "zoomloc/report/1"


@dataclass(frozen=True)
class Pool:
    """Places that chance answers are drawn from, and what they are."""

    kind: str  # "random road point" or "random training photo"
    places: tuple[LatLng, ...]


def evaluate(
    locator: Locator,
    photos: Sequence[Photo],
    pool: Pool,
    run: Path,
    protocol: dict[str, str],
    table_hash: str,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Any], list[Answer]]:
    """Locate each photo and score the answers: (report, answers).

    ``table_hash`` is the split hash of the whole photo table, for comparison with training's.

    Raises PhotoError where there are no photos.
    """
    if not photos:
        raise PhotoError("no photos to evaluate; check the split ('zoomloc split --audit')")
    started = time.monotonic()
    answers = []
    truths = [photo.truth for photo in photos]
    for answer in locator.answers([Query.of(p) for p in photos], hash_photos=False):
        answers.append(answer)
        if progress is not None:
            progress(len(answers), len(photos))
    return {
        "schema": SCHEMA,
        "run": run.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "protocol": protocol | {"chance": pool.kind},
        "n": len(answers),
        "metrics": error_report(answers, [p.sequence_id for p in photos]),
        "zoom_accuracy": accuracy_by_zoom(locator, answers),
        "chance": chance_random(truths, pool.places, seed=0),
        "chance_constant": chance_constant(truths, pool.places, seed=0),
        "floor_m": round(floor_m(locator.region), 2),
        "seconds": round(time.monotonic() - started, 2),
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "machine": machine(),
        "split_hash": table_hash,
    }, answers


def evaluate_run(
    locator: Locator,
    run: Path,
    photos: Sequence[Photo],
    pool: Pool,
    protocol: dict[str, str],
    table_hash: str,
    json_path: Path,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """``evaluate``, with report.json and answers.jsonl written beside it."""
    report, answers = evaluate(locator, photos, pool, run, protocol, table_hash, progress)
    explained = load_explained(best_checkpoint(run))
    report["training"] = {
        "seconds": round(explained.seconds, 1),
        "steps": explained.step,
        "photos_seen": explained.photos_seen,
    }
    own = json_path.name == "report.json"  # any other report keeps its answers to itself
    name = "answers.jsonl" if own else f"{json_path.stem}.answers.jsonl"
    write_answers(answers, json_path.parent / name)
    write_json(json_path, report)
    return report


def error_report(answers: Sequence[Answer], groups: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Metrics of answers whose truth is known, each {value, lo, hi, n}.

    Intervals come from a bootstrap over ``groups`` (drives), since the frames of one drive
    are not independent.
    """
    errors = np.array([a.error_m for a in answers], float)
    exact = np.array([a.exact_cell for a in answers], float)
    found: dict[str, Interval] = dict(error_metrics(errors, groups, seed=0))
    found["exact_cell"] = bootstrap_over_groups(exact, groups, "mean", seed=0)
    return {name: as_dict(interval) for name, interval in found.items()}


def accuracy_by_zoom(locator: Locator, answers: Sequence[Answer]) -> list[float]:
    """Share of answers whose path still holds the truth after each zoom; a wrong root
    choice shows in all of them."""
    truths: list[tuple[Cell, ...]] = []
    kept: list[tuple[Cell, ...]] = []
    for answer in answers:
        if answer.truth is None:
            continue
        try:
            path = locator.region.path(answer.truth)
        except RegionError:  # a truth outside the roots is wrong at every zoom
            path = ()
        kept.append(tuple(cell_of_quadkey(q) for q in answer.path))
        truths.append(path)
    return zoom_accuracy(kept, truths)


def as_dict(interval: Interval) -> dict[str, Any]:
    """An interval as report.json holds it."""
    return {"value": interval.value, "lo": interval.lo, "hi": interval.hi, "n": interval.n}


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def machine() -> dict[str, Any]:
    """What the figures were measured on; no host name, no path."""
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
