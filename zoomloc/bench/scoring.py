"""Scores of one entrant on the test photos of a protocol: errors, figures, chance.

Knows nothing of training, presets or rows as files. Photos keep one order for all entrants, so
that rows may be compared photo by photo.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from zoomloc.belief.metrics import densest, error_metrics
from zoomloc.belief.scores import area_recall, bearing_off_deg
from zoomloc.belief.search import greedy_paths
from zoomloc.bench.rows import whole_metres
from zoomloc.evaluate import error_report
from zoomloc.locator import Locator, Query
from zoomloc.world.answers import Answer
from zoomloc.world.cells import Floats, LatLng, cell_of_quadkey, distance_m
from zoomloc.world.photos import Photo, read_photos
from zoomloc.world.region import Region
from zoomloc.world.roads import road_points

AT_ONCE = 128
RIGHT_M = 50.0


@dataclass
class Scores:
    """What came out for each test photo, over all places of a protocol."""

    answers: list[Answer] = field(default_factory=list)
    centres_m: list[float] = field(default_factory=list)  # errors of the paper's own answer
    areas: list[float] = field(default_factory=list)  # share searched before the truth is met
    held: list[list[bool]] = field(default_factory=list)  # after each zoom, still right
    bearing_off_deg: list[float] = field(default_factory=list)  # NaN where unknown


def test_photos(places: Sequence[Path]) -> list[list[Photo]]:
    """The test photos of each place, in their table's order."""
    return [read_photos(place / "photos.parquet", "test") for place in places]


def score(run: Path, places: Sequence[Path], centre: bool) -> Scores:
    """Locate the test photos of each place; every entrant answers by the Bayes point."""
    scores = Scores()
    for place, photos in zip(places, test_photos(places), strict=True):
        locator = Locator.load(run, place, anywhere=True)
        locator = locator.with_search(locator.search.model_copy(update={"answer": "bayes"}))
        for start in range(0, len(photos), AT_ONCE):
            _score_some(locator, photos[start : start + AT_ONCE], centre, scores)
    return scores


def _score_some(locator: Locator, photos: Sequence[Photo], centre: bool, scores: Scores) -> None:
    queries = [Query.of(photo) for photo in photos]
    pictures = [locator.shown(query) for query in queries]
    for photo, query, found in zip(photos, queries, locator.find(pictures), strict=True):
        answer = locator.answer(query, found, {})
        scores.answers.append(replace(answer, posterior=()))
        scores.areas.append(found.posterior.searched_share(photo.truth))
        scores.held.append(_held(locator.region, answer, photo.truth))
        scores.bearing_off_deg.append(bearing_off_deg(answer.bearing_deg, photo.true_bearing_deg))
    if centre:
        paths = greedy_paths(locator.scorer, pictures, locator.scorer.views.coverage)
        scores.centres_m += [
            distance_m(path[-1].center, photo.truth)
            for path, photo in zip(paths, photos, strict=True)
        ]


def _held(region: Region, answer: Answer, truth: LatLng) -> list[bool]:
    """After each zoom, whether the answer's path still holds the truth."""
    path = tuple(cell_of_quadkey(quadkey) for quadkey in answer.path)
    return [a == b for a, b in zip(path, region.path(truth), strict=True)][1:]


def figures(scores: Scores, groups: Sequence[int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(metrics, details) of a row, without what is known of the training."""
    errors = [float(answer.error_m or 0.0) for answer in scores.answers]
    depth = max(map(len, scores.held))
    deep = np.array([row for row in scores.held if len(row) == depth], float)
    return error_report(scores.answers, [str(g) for g in groups]), {
        "errors_m": whole_metres(errors),
        "groups": list(groups),
        "probability": [round(min(1.0, a.probability), 2) for a in scores.answers],
        "area_recall": area_recall(np.array(scores.areas)),
        "zoom_accuracy": [round(v, 4) for v in deep.mean(axis=0).tolist()],
        "right": _where_right(np.array(errors), np.array(scores.bearing_off_deg)),
    }


def _where_right(errors_m: Floats, bearing_off_deg: Floats) -> dict[str, Any]:
    """How exact the answers within RIGHT_M are."""
    right = errors_m <= RIGHT_M
    known = right & np.isfinite(bearing_off_deg)
    return {
        "n": int(right.sum()),
        "median_error_m": round(float(np.median(errors_m[right])), 2) if right.any() else None,
        "median_bearing_off_deg": (
            round(float(np.median(bearing_off_deg[known])), 2) if known.any() else None
        ),
    }


def of_errors(
    errors_m: Sequence[float], groups: Sequence[int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(metrics, details) where nothing but errors is known: chance, the paper's own answer."""
    found = error_metrics(np.array(errors_m), [str(g) for g in groups], seed=0)
    details = {"errors_m": whole_metres(errors_m), "groups": list(groups)}
    return {name: interval.to_json() for name, interval in found.items()}, details


def groups_of(tables: Sequence[Sequence[Photo]], by_place: bool) -> list[int]:
    """What is resampled together: the photos of a place (town), or of a drive."""
    names = [
        (place, "" if by_place else photo.sequence_id)
        for place, photos in enumerate(tables)
        for photo in photos
    ]
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return [number[name] for name in names]


def photos_hash(tables: Sequence[Sequence[Photo]]) -> str:
    """The same photos in the same order have the same digest."""
    digest = hashlib.sha256()
    for photos in tables:
        for photo in photos:
            digest.update(f"{photo.id}\n{photo.truth.lat:.7f} {photo.truth.lng:.7f}\n".encode())
    return digest.hexdigest()[:16]


def chance_errors(name: str, places: Sequence[Path], seed: int) -> list[float]:
    """Errors of an answer by chance: a random road point, or one constant place, per photo."""
    errors = []
    rng = np.random.default_rng([seed, 7])
    for place, photos in zip(places, test_photos(places), strict=True):
        pool = _pool(place)
        constant = densest(pool, seed=0)
        for photo in photos:
            guess = constant if name == "constant" else pool[int(rng.integers(len(pool)))]
            errors.append(distance_m(guess, photo.truth))
    return errors


def _pool(place: Path) -> list[LatLng]:
    """Road points of a place; where it has no roads, where its photos stand (which flatters)."""
    roads = place / "roads.geojson"
    if roads.is_file():
        return list(road_points(roads))
    return [photo.place for photo in read_photos(place / "photos.parquet")]
