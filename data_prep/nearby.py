"""Which photos stand near which: pairs within metres, the times between them, and what is near.

Knows nothing of splits or pictures: places and times are all it looks at. No table of all
against all is made; pairs come in blocks, so that a million photos fit in memory.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC

import numpy as np
import numpy.typing as npt

from zoomloc.world.cells import Floats, distances_m
from zoomloc.world.nearest import places_of, plane_of
from zoomloc.world.photos import Photo

Indices = npt.NDArray[np.int64]
Only = Callable[[Indices, Indices], npt.NDArray[np.bool_]]

NEAR_M, NEAR_S = 25.0, 600.0  # a photo this near, this soon, shows the same scene
BLOCK = 8192  # photos whose neighbours are looked up at once


def pairs_within(
    here: Sequence[Photo], there: Sequence[Photo], metres: float, only: Only | None = None
) -> Iterator[tuple[Indices, Indices]]:
    """Indices (n,), (n,) of all pairs at most that many geodesic metres apart, block by block.

    ``only(a, b)`` says of which pairs the distance need be measured at all.
    """
    import shapely

    if not here or not there or metres <= 0:
        return
    lat, lng = places_of(here)
    lat2, lng2 = places_of(there)
    tree = shapely.STRtree(shapely.points(plane_of(lat2, lng2, lng[0])))
    points = shapely.points(plane_of(lat, lng, lng[0]))
    # Mercator stretches by 1 / cos(lat); 2 % more for the ellipsoid, then measured exactly
    reach = 1.02 * metres / np.cos(np.radians(np.clip(np.abs(lat) + 0.01, 0, 89)))
    for first in range(0, len(here), BLOCK):
        block = slice(first, first + BLOCK)
        a, b = tree.query(points[block], predicate="dwithin", distance=reach[block])
        a = a + first
        if only is not None:
            wanted = only(a, b)
            a, b = a[wanted], b[wanted]
        near = distances_m(lat[a], lng[a], lat2[b], lng2[b]) <= metres
        yield a[near], b[near]


def seconds_of(photos: Sequence[Photo]) -> Floats:
    """Seconds since 1970, NaN where unknown; a time without a zone counts as UTC."""
    times = []
    for photo in photos:
        when = photo.captured_at
        if when is not None and when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        times.append(np.nan if when is None else when.timestamp())
    return np.array(times, np.float64)
