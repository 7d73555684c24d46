"""A Locator over many photos: answers, and a report of how far off they are.

All figures come from autoregressive rollout. Knows nothing of how the model was trained.
"""

import itertools
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from zoomloc.belief.occupied import Occupied
from zoomloc.belief.scores import Score, area_recall, errors_m, figures, recall_curve, score_of
from zoomloc.belief.trust import judged
from zoomloc.checkpoint import best_checkpoint, load_explained
from zoomloc.errors import PhotoError, RegionError
from zoomloc.locator import DISC_M, Found, Locator, Query
from zoomloc.slices import slices
from zoomloc.world.answers import Answer, answers_beside, write_answers
from zoomloc.world.cells import (
    Cell,
    Floats,
    LatLng,
    cell_of_quadkey,
    distance_m,
    sphere_distance_m,
)
from zoomloc.world.files import write_json
from zoomloc.world.photos import READINGS, Photo

SCHEMA = "zoomloc/report/1"
OCCUPIED = "occupied-cells"  # protocol["candidates"], as GeoMoE has it
HAVERSINE = "haversine"  # protocol["distance"], as the paper has it
JUDGED = ("probability", "radius50_m", "radius90_m")
CURVE_PAIRS = 2_000_000  # of truth and pool, that chance looks at for a whole curve


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
    train: Sequence[Photo] = (),
) -> tuple[dict[str, Any], list[Answer]]:
    """Locate each photo and score the answers: (report, answers).

    ``protocol``: what the report says of how it was made; ``candidates`` OCCUPIED and
    ``distance`` HAVERSINE are heeded. ``table_hash`` is the split hash of the whole photo table,
    for comparison with training's. ``train``: photos that the model was trained on, if known.

    Raises PhotoError where there are no photos.
    """
    if not photos:
        raise PhotoError("no photos to evaluate; check the split ('zoomloc split --audit')")
    started = time.monotonic()
    occupied = protocol.get("candidates") == OCCUPIED
    only = Occupied(locator.region, [p.truth for p in photos]) if occupied else None
    answers: list[Answer] = []
    scores: list[Score] = []
    for answer, score in _scored(locator, photos, only, protocol.get("distance")):
        answers.append(answer)
        scores.append(score)
        if progress is not None:
            progress(len(answers), len(photos))
    reading = READINGS.get(protocol["split"])
    cells = int(locator.scorer.views.coverage.leaves.sum()) if only is None else len(only)
    drives = itertools.groupby(photo.sequence_id for photo in photos)
    return {
        "schema": SCHEMA,
        "run": run.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "protocol": protocol | {"chance": pool.kind},
        **({"reading": reading} if reading else {}),
        "n": len(answers),
        "cells": cells,
        **_figures(locator, photos, answers, scores, pool, cells),
        "slices": slices(photos, errors_m(scores), train),
        "seconds": round(time.monotonic() - started, 2),
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "machine": machine(),
        "split_hash": table_hash,
        "drives": [[name, len(list(own))] for name, own in drives],
    }, answers


def _scored(
    locator: Locator, photos: Sequence[Photo], only: Occupied | None, distance: str | None
) -> Iterator[tuple[Answer, Score]]:
    """Each photo's answer with what it is worth; ``only``: the cells that may be the answer."""
    metres = sphere_distance_m if distance == HAVERSINE else distance_m
    made_by = {"photo": "", **locator.made_by}
    queries = [Query.of(photo) for photo in photos]
    for photo, (query, found) in zip(photos, locator.each(queries), strict=True):
        found = found if only is None else _within(only, found, locator.search.answer)
        answer = locator.answer(query, found, made_by)
        bearing = photo.bearing_deg if photo.true_bearing_deg is None else photo.true_bearing_deg
        yield answer, score_of(answer, found.posterior, photo.truth, bearing, metres)


def _within(only: Occupied, found: Found, answer: str) -> Found:
    """What is concluded where only some cells may be the answer."""
    belief = only.belief(found.posterior)
    place = belief.best_cell.center if answer == "cell" else belief.best_point(DISC_M)
    near = only.holds(found.place) and distance_m(place, found.place) <= DISC_M
    if near and answer != "cell":  # a closer look has been taken here
        return replace(found, posterior=belief)
    return replace(found, posterior=belief, place=place, bearing_deg=None, bearing_spread_deg=None)


def _figures(
    locator: Locator,
    photos: Sequence[Photo],
    answers: Sequence[Answer],
    scores: Sequence[Score],
    pool: Pool,
    cells: int,
) -> dict[str, Any]:
    """All that is counted, chance beside it."""
    truths, drives = [p.truth for p in photos], [p.sequence_id for p in photos]
    more = figures(scores, drives, cells)
    return {
        "metrics": error_report(answers, drives, errors_m(scores))
        | {name: figure.to_json() for name, figure in more.items()},
        "zoom_accuracy": accuracy_by_zoom(locator, answers),
        "chance": chance_random(truths, pool.places, seed=0),
        "chance_constant": chance_constant(truths, pool.places, seed=0),
        "floor_m": round(floor_m(locator.region), 2),
        **_curves(scores, drives, truths, pool),
        "calibration": _calibration(locator, answers, scores, drives),
    }


def _curves(
    scores: Sequence[Score], drives: Sequence[str], truths: Sequence[LatLng], pool: Pool
) -> dict[str, Any]:
    """Recall by distance, chance beside it, and by the share of the ground that is searched."""
    curve = recall_curve(errors_m(scores), drives)
    by_chance = chance_random(truths, pool.places, 0, list(curve), max_pairs=CURVE_PAIRS)
    constant = chance_constant(truths, pool.places, 0, list(curve))
    return {
        "recall_curve": [
            {"distance_m": d, **interval.to_json()}
            | {"chance": by_chance[f"r_at_{d:g}m"], "chance_constant": constant[f"r_at_{d:g}m"]}
            for d, interval in curve.items()
        ],
        "area_recall": area_recall(np.array([score.searched_share for score in scores])),
    }


def _calibration(
    locator: Locator, answers: Sequence[Answer], scores: Sequence[Score], drives: Sequence[str]
) -> dict[str, Any]:
    """Whether probabilities and radii mean what they say."""
    columns = ([getattr(a, name) for a in answers] for name in JUDGED)
    probability, radius50_m, radius90_m = (np.array(column, float) for column in columns)
    return judged(
        probability,
        radius50_m,
        radius90_m,
        errors_m(scores),
        drives,
        locator.search.right_within_m,
    )


def evaluate_run(
    locator: Locator,
    run: Path,
    photos: Sequence[Photo],
    pool: Pool,
    protocol: dict[str, str],
    table_hash: str,
    json_path: Path,
    progress: Callable[[int, int], None] | None = None,
    train: Sequence[Photo] = (),
) -> tuple[dict[str, Any], list[Answer]]:
    """``evaluate``, with report.json and answers.jsonl written beside it."""
    report, answers = evaluate(locator, photos, pool, run, protocol, table_hash, progress, train)
    explained = load_explained(best_checkpoint(run))
    report["training"] = {
        "seconds": round(explained.seconds, 1),
        "steps": explained.step,
        "photos_seen": explained.photos_seen,
    }
    write_answers(answers, answers_beside(json_path))
    write_json(json_path, report)
    return report, answers


def error_report(
    answers: Sequence[Answer], groups: Sequence[str], errors: Floats | None = None
) -> dict[str, dict[str, Any]]:
    """Metrics of answers whose truth is known, each {value, lo, hi, n}.

    Intervals come from a bootstrap over ``groups`` (drives), since the frames of one drive
    are not independent. ``errors``: in metres, where they were not measured as answers do it.
    """
    if errors is None:
        errors = np.array([a.error_m for a in answers], float)
    exact = np.array([a.exact_cell for a in answers], float)
    found: dict[str, Interval] = dict(error_metrics(errors, groups, seed=0))
    found["exact_cell"] = bootstrap_over_groups(exact, groups, "mean", seed=0)
    return {name: interval.to_json() for name, interval in found.items()}


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
