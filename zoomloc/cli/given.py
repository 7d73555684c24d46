"""What flags say of a photo before it is looked at: near a place, in an area, a heading, a lens.

Knows nothing of scores, regions or how a prior is used. Whatever cannot be read becomes one line.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shapely
from shapely.errors import ShapelyError
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from zoomloc.belief.priors import Area, Both, Heading, Near, Prior
from zoomloc.errors import ConfigError
from zoomloc.world.cells import LatLng

AREA_SOFT_M = 25.0  # of a border drawn by hand
HEADING_WITHIN_DEG = 15.0  # where a heading is given without a deviation

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_DISTANCE = re.compile(rf"({_NUMBER})\s*(m|km|)")
_HEADING = re.compile(rf"(-?{_NUMBER})\s*°?\s*(?:(?:±|\+/?-)\s*({_NUMBER})\s*°?)?")


def given_prior(near: str | None, within: str | None, area: Path | None) -> Prior | None:
    """What ``--near``, ``--within`` and ``--area`` say together; None where none is given.

    Raises ConfigError.
    """
    if (near is None) != (within is None):
        raise ConfigError("--near LAT,LNG and --within METRES belong together; give both")
    priors: list[Prior] = []
    if near is not None and within is not None:
        priors.append(_near(near, within))
    if area is not None:
        priors.append(Area(_polygon(area), AREA_SOFT_M))
    return Both(tuple(priors)) if len(priors) > 1 else priors[0] if priors else None


def given_heading(text: str | None) -> Heading | None:
    """``--heading``: 90±20, 90+-20, or 90 for ±15. Raises ConfigError."""
    if text is None:
        return None
    found = _HEADING.fullmatch(text.strip())
    if found is None:
        raise ConfigError(
            f"--heading {text!r}: give degrees clockwise from north, and how sure: 90±20 or 90+-20"
        )
    try:
        return Heading(float(found[1]), float(found[2] or HEADING_WITHIN_DEG))
    except ConfigError as error:
        raise ConfigError(f"--heading {text!r}: {error}") from error


def given_fov(text: str | float | None) -> float | None:
    """``--fov``: the field of view of a photo's width in degrees. Raises ConfigError."""
    if text is None:
        return None
    try:
        fov_deg = float(str(text).strip().removesuffix("°"))
    except ValueError:
        fov_deg = math.nan
    if not 1 <= fov_deg <= 179:
        raise ConfigError(
            f"--fov {text!r}: give the field of view of the photo's width, 1 to 179 degrees "
            "(a phone's main camera: about 65)"
        )
    return fov_deg


def _near(near: str, within: str) -> Near:
    parts = near.replace(",", " ").split()
    try:
        lat, lng = map(float, parts)
    except ValueError as error:
        raise ConfigError(
            f"--near {near!r}: give latitude and longitude in degrees, as 48.2085,16.3731"
        ) from error
    try:
        return Near(LatLng(lat, lng), _metres(within))
    except ConfigError as error:
        raise ConfigError(f"--near {near!r} --within {within!r}: {error}") from error


def _metres(text: str) -> float:
    found = _DISTANCE.fullmatch(text.strip().lower())
    if found is None:
        raise ConfigError("give a distance in metres or kilometres, as 500m, 500 or 0.5km")
    return float(found[1]) * (1000 if found[2] == "km" else 1)


def _polygon(path: Path) -> BaseGeometry:
    """All polygons of a GeoJSON as one. Raises ConfigError."""
    shapes = _shapes(path)
    for one in shapes:
        _check_degrees(path, one)
    drawn = [part for part in shapely.get_parts(shapes) if shapely.get_dimensions(part) == 2]
    areas = shapely.get_parts(shapely.make_valid(drawn))  # a border that crosses itself is mended
    areas = areas[shapely.area(areas) > 0]
    if not len(areas):
        raise ConfigError(
            f"--area {path}: holds no polygon with ground in it; give a GeoJSON Polygon, "
            "MultiPolygon, Feature or FeatureCollection"
        )
    return shapely.union_all(areas)


def _shapes(path: Path) -> list[BaseGeometry]:
    """All geometries of a GeoJSON that hold anything. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        tree = json.loads(text, parse_constant=_refuse_constant)
        shapes = [shape(geometry) for geometry in _geometries(tree)]
    except FileNotFoundError as error:
        raise ConfigError(f"--area {path}: no such file; give a GeoJSON with a polygon") from error
    except OSError as error:
        raise ConfigError(f"--area {path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, ShapelyError) as e:
        raise ConfigError(
            f"--area {path}: cannot be read as GeoJSON ({e}); give a file with a Polygon in "
            "degrees, as any map editor writes it"
        ) from e
    return [one for one in shapes if not one.is_empty]


def _refuse_constant(name: str) -> None:
    """JSON has no NaN, though Python reads one."""
    raise ValueError(f"{name} is no number")


def _geometries(tree: Any) -> Iterator[Any]:
    """The geometries in a GeoJSON object of any kind."""
    if tree["type"] == "FeatureCollection":
        for feature in tree["features"]:
            yield from _geometries(feature)
    elif tree["type"] != "Feature":
        yield tree
    elif tree["geometry"] is not None:  # a feature may be without
        yield tree["geometry"]


def _check_degrees(path: Path, drawn: BaseGeometry) -> None:
    """Refuse coordinates that are metres, or no numbers."""
    west, south, east, north = drawn.bounds
    if not (-540 <= west <= east <= 540 and -90 <= south <= north <= 90):
        raise ConfigError(
            f"--area {path}: coordinates from {west:g}, {south:g} to {east:g}, {north:g} are no "
            "degrees (perhaps metres of a map projection, or latitude before longitude); write "
            "it in EPSG:4326, longitude first"
        )
