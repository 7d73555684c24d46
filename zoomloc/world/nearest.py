"""How far photos are from the nearest of others, by the places that they claim.

Knows nothing of splits, pictures or answers.
"""

from collections.abc import Sequence

import numpy as np

from zoomloc.world.cells import EQUATOR_M, Floats, distances_m, xy_of
from zoomloc.world.photos import Photo


def nearest_m(here: Sequence[Photo], there: Sequence[Photo]) -> Floats:
    """(n,) geodesic metres from each photo of ``here`` to the nearest of ``there``.

    Empty where either is.
    """
    import shapely

    if not here or not there:
        return np.empty(0, np.float64)
    lat, lng = places_of(here)
    lat2, lng2 = places_of(there)
    tree = shapely.STRtree(shapely.points(plane_of(lat2, lng2, lng[0])))
    b = tree.nearest(shapely.points(plane_of(lat, lng, lng[0])))
    return distances_m(lat, lng, lat2[b], lng2[b])


def places_of(photos: Sequence[Photo]) -> tuple[Floats, Floats]:
    """Latitudes and longitudes (n,), (n,) that the photos claim."""
    places = np.array([photo.place for photo in photos], np.float64).reshape(-1, 2)
    return places[:, 0], places[:, 1]


def plane_of(lat: Floats, lng: Floats, middle_lng: float) -> Floats:
    """(n, 2) Mercator metres with the antimeridian opposite ``middle_lng``."""
    x, y = xy_of(lat, (lng - middle_lng + 180) % 360 - 180, 0)
    return np.stack([x, y], axis=1) * EQUATOR_M
