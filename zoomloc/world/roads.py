"""Road centre lines: where an answer by chance may fall. Knows nothing of photos or models."""

import json
from pathlib import Path

from shapely.geometry import shape

from zoomloc.errors import RegionError
from zoomloc.world.cells import LatLng

DEGREES_A_METRE = 1 / 111_000  # near enough to space points


def road_points(path: Path, every_m: float = 5.0) -> list[LatLng]:
    """Points about ``every_m`` apart along the lines of a GeoJSON in degrees.

    Raises RegionError where the file is no GeoJSON or holds no line.
    """
    try:
        features = json.loads(path.read_text(encoding="utf-8"))["features"]
        lines = [shape(f["geometry"]) for f in features if f.get("geometry")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RegionError(f"roads {path}: cannot be read as GeoJSON lines ({error})") from error
    points = []
    for line in lines:
        count = max(1, round(line.length / (every_m * DEGREES_A_METRE)))
        for i in range(count):
            at = line.interpolate((i + 0.5) / count, normalized=True)
            points.append(LatLng(at.y, at.x))
    if not points:
        raise RegionError(f"roads {path}: holds no line; remove it or mend it")
    return points
