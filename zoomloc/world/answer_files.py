"""Answers as files of other programs: GeoJSON, GeoPackage and CSV, chosen by a name's ending.

Knows nothing of how answers are found, nor of what is half done. ``docs/formats.md`` says what
is in each.
"""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import shapely

from zoomloc.errors import ConfigError, OutputError, ZoomlocError
from zoomloc.world.answers import Answer, write_answers
from zoomloc.world.cells import cell_of_quadkey
from zoomloc.world.files import write_text, written_whole
from zoomloc.world.geopackage import Column, Layer, require_geopandas, write_geopackage

ENDINGS = (".jsonl", ".geojson", ".gpkg", ".csv")
COLUMNS: dict[str, Column] = {
    "photo": "text",
    "lat": "number",
    "lng": "number",
    "probability": "number",
    "radius50_m": "number",
    "radius90_m": "number",
    "bearing_deg": "number",
    "bearing_spread_deg": "number",
    "evidence": "number",
    "agreement": "number",
    "unknown": "flag",
    "not_here": "flag",
    "quadkey": "text",
    "truth_lat": "number",
    "truth_lng": "number",
    "error_m": "number",
    "given": "text",
    "photo_hash": "text",
    "checkpoint": "text",
    "imagery": "text",
    "config": "text",
    "imagery_date": "text",
}
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def check_ending(path: Path) -> str:
    """The ending that says the format. Raises ConfigError where it says none that is known."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ConfigError(f"{path}: the ending says the format; end it in {', '.join(ENDINGS)}")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: a folder of that name is there; take another name")
    if ending == ".gpkg":
        require_geopandas()
    return ending


def write_answers_as(answers: Iterable[Answer], path: Path) -> None:
    """Write answers in the format of the name's ending (atomic).

    Raises ConfigError for another ending or a missing package, OutputError where it cannot be
    written, ZoomlocError for a value that the format cannot hold.
    """
    ending = check_ending(path)
    if ending == ".jsonl":
        write_answers(answers, path)
    elif ending == ".geojson":
        _write_geojson(answers, path)
    elif ending == ".csv":
        _write_csv(answers, path)
    else:
        write_geopackage(_layers(list(answers)), path)


# 1. GeoJSON


def to_geojson(answers: Iterable[Answer]) -> dict[str, Any]:
    """A FeatureCollection (RFC 7946, lng before lat) for any GIS.

    Each feature has ``photo`` and ``kind``: answer and truth (points), error (a line between
    them), alternative and candidate (points) and path (a polygon for each zoom).
    """
    features = [feature for answer in answers for feature in _features(answer)]
    return {"type": "FeatureCollection", "features": features}


def _write_geojson(answers: Iterable[Answer], path: Path) -> None:
    try:
        text = json.dumps(to_geojson(answers), ensure_ascii=False, allow_nan=False)
        text.encode()
    except ValueError as error:
        raise ZoomlocError(f"{path}: a value that GeoJSON cannot hold ({error})") from error
    write_text(path, text + "\n")


def _features(answer: Answer) -> list[dict[str, Any]]:
    here = [answer.lng, answer.lat]
    features = [_feature(answer, "answer", "Point", here, _facts(answer))]
    for zoom, quadkey in enumerate(answer.path):
        facts: dict[str, Any] = {"quadkey": quadkey, "zoom": zoom}
        features.append(_feature(answer, "path", "Polygon", [_ring(quadkey)], facts))
    for found in answer.candidates:
        facts = {"quadkey": found.quadkey, "probability": found.probability}
        features.append(_feature(answer, "candidate", "Point", [found.lng, found.lat], facts))
    for other in answer.alternatives:
        facts = {"probability": other.probability}
        features.append(_feature(answer, "alternative", "Point", [other.lng, other.lat], facts))
    if answer.truth is not None:
        there, facts = [answer.truth.lng, answer.truth.lat], {"error_m": answer.error_m}
        features.append(_feature(answer, "truth", "Point", there, {}))
        features.append(_feature(answer, "error", "LineString", [here, there], facts))
    return features


def _facts(answer: Answer) -> dict[str, Any]:
    """What stands beside the answer's point: all columns that its place does not say."""
    row = row_of(answer)
    return {key: row[key] for key in COLUMNS if key not in ("photo", "lat", "lng")}


def _feature(
    answer: Answer, kind: str, geometry: str, coordinates: Any, facts: dict[str, Any]
) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": geometry, "coordinates": coordinates},
        "properties": {"photo": answer.photo, "kind": kind, **facts},
    }


def _ring(quadkey: str) -> list[list[float]]:
    """Outline of a cell, counter-clockwise as RFC 7946 asks, closed."""
    west, south, east, north = cell_of_quadkey(quadkey).bounds
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]


# 2. CSV


def row_of(answer: Answer) -> dict[str, Any]:
    """An answer as one row without lists: COLUMNS, in their order."""
    truth, made_by = answer.truth, answer.made_by
    return {
        "photo": answer.photo,
        "lat": answer.lat,
        "lng": answer.lng,
        "probability": min(answer.probability, 1.0),
        "radius50_m": answer.radius50_m,
        "radius90_m": answer.radius90_m,
        "bearing_deg": answer.bearing_deg,
        "bearing_spread_deg": answer.bearing_spread_deg,
        "evidence": answer.evidence,
        "agreement": answer.agreement,
        "unknown": answer.unknown,
        "not_here": answer.not_here,
        "quadkey": answer.path[-1],
        "truth_lat": None if truth is None else truth.lat,
        "truth_lng": None if truth is None else truth.lng,
        "error_m": answer.error_m,
        "given": "; ".join(f"{key}: {said}" for key, said in answer.given.items()),
        "photo_hash": made_by.get("photo", ""),
        **{key: made_by.get(key, "") for key in ("checkpoint", "imagery", "config")},
        "imagery_date": made_by.get("imagery_date", ""),
    }


def _write_csv(answers: Iterable[Answer], path: Path) -> None:
    """RFC 4180 with a header, UTF-8; nothing in it is a formula to a spreadsheet."""
    with (
        written_whole(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for answer in answers:
            try:
                writer.writerow([_harmless(row) for row in row_of(answer).values()])
            except UnicodeEncodeError as error:
                raise ZoomlocError(f"answer for {answer.photo!r}: no text ({error})") from error


def _harmless(value: Any) -> Any:
    """A value of the CSV: text that a spreadsheet would run as a formula gets a ' before it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


# 3. GeoPackage


def _layers(answers: Sequence[Answer]) -> list[Layer]:
    """``answers`` and ``alternatives`` (points) and ``paths`` (a polygon for each zoom)."""
    rows = [row_of(answer) for answer in answers]
    others = [(a.photo, rank, o) for a in answers for rank, o in enumerate(a.alternatives, 1)]
    cells = [(a.photo, zoom, quadkey) for a in answers for zoom, quadkey in enumerate(a.path)]
    return [
        Layer("answers", COLUMNS, rows, [shapely.Point(r["lng"], r["lat"]) for r in rows]),
        Layer(
            "alternatives",
            {"photo": "text", "rank": "count", "probability": "number"},
            [{"photo": p, "rank": rank, "probability": o.probability} for p, rank, o in others],
            [shapely.Point(o.lng, o.lat) for _, _, o in others],
        ),
        Layer(
            "paths",
            {"photo": "text", "zoom": "count", "quadkey": "text"},
            [{"photo": photo, "zoom": zoom, "quadkey": key} for photo, zoom, key in cells],
            [shapely.box(*cell_of_quadkey(key).bounds) for _, _, key in cells],
            "Polygon",
        ),
    ]
