"""Road centre lines: where an answer by chance may fall. Knows nothing of photos or models."""

import json
from pathlib import Path

from shapely.errors import ShapelyError
from shapely.geometry import LineString, shape

from zoomloc.errors import RegionError
from zoomloc.world.cells import MAX_LAT_DEG, LatLng, geod


def road_points(path: Path, every_m: float = 5.0) -> list[LatLng]:
    """Points about ``every_m`` ground metres apart along the lines of a GeoJSON in degrees.

    Geometries that are no lines are passed over. Raises RegionError where the file is no
    GeoJSON, leaves the globe, or holds no line.
    """
    try:
        points = [place for line in _lines(path) for place in _along(line, every_m)]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ShapelyError) as error:
        raise RegionError(
            f"roads {path}: cannot be read as GeoJSON lines ({error}); mend or remove it"
        ) from error
    if not points:
        raise RegionError(f"roads {path}: holds no line; mend or remove it")
    if any(not (abs(p.lat) <= MAX_LAT_DEG and abs(p.lng) <= 540) for p in points):
        raise RegionError(f"roads {path}: leaves the globe; it must be in degrees, lng before lat")
    return points


def _lines(path: Path) -> list[LineString]:
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    shapes = [shape(f["geometry"]) for f in features if f.get("geometry")]
    parts = [part for s in shapes for part in getattr(s, "geoms", [s])]
    return [p for p in parts if isinstance(p, LineString) and not p.is_empty]


def _along(line: LineString, every_m: float) -> list[LatLng]:
    """Points spaced evenly along a line, at least one."""
    lngs, lats = line.xy
    count = max(1, round(geod().line_length(lngs, lats) / every_m))
    middles = [line.interpolate((i + 0.5) / count, normalized=True) for i in range(count)]
    return [LatLng(p.y, p.x) for p in middles]
