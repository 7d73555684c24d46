"""Which ground is meant: a box, a polygon in a file, or a place and a radius, in degrees.

Knows nothing of imagery or of how a region is divided.
"""

from pathlib import Path

import numpy as np
import shapely
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from zoomloc.config.imagery import TilesConfig
from zoomloc.errors import RegionError
from zoomloc.world.cells import LatLng, geod

CIRCLE_POINTS = 72


def ground_of(plan: TilesConfig) -> BaseGeometry | None:
    """What a config asks for (lng, lat); None: all that its imagery shows. Raises RegionError."""
    if plan.bounds is not None:
        return shapely.box(*plan.bounds)
    if plan.polygon is not None:
        return polygon_in(plan.polygon)
    if plan.place is not None and plan.radius_m is not None:
        return circle(LatLng(*plan.place), plan.radius_m)
    return None


def circle(middle: LatLng, radius_m: float) -> BaseGeometry:
    """All places within some metres (geodesic, WGS 84) of one."""
    bearings = np.linspace(0, 360, CIRCLE_POINTS, endpoint=False)
    many = np.ones_like(bearings)
    lng, lat, _ = geod().fwd(middle.lng * many, middle.lat * many, bearings, radius_m * many)
    lng = middle.lng + (np.asarray(lng) - middle.lng + 180) % 360 - 180  # in one piece across 180
    return shapely.Polygon(np.column_stack([lng, lat]))


def polygon_in(path: Path) -> BaseGeometry:
    """All polygons of a GeoJSON, GeoPackage, Shapefile or the like, as one.

    Raises RegionError where there is none or its CRS is unknown.
    """
    import geopandas

    if not path.exists():
        raise RegionError(f"{path}: no such polygon file")
    try:
        frame = geopandas.read_file(path)
        if frame.crs is None:
            raise RegionError(f"{path}: does not say its coordinate reference system")
        shapes = frame.to_crs(4326).geometry
    except (OSError, RuntimeError, ValueError, CRSError) as error:
        raise RegionError(f"{path}: cannot be read as polygons ({error})") from error
    areas = [shapely.make_valid(s) for s in shapes if s is not None and s.area > 0]
    if not areas:
        raise RegionError(f"{path}: holds no polygon with an area")
    return shapely.union_all(areas)
