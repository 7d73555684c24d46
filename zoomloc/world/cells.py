"""The quadtree of Web Mercator and its geometry: places, cells, and metres between places.

Knows nothing of regions, pictures or files. Mercator metres leave this module only as
``Cell.mercator_bounds``, for the warp that makes tiles. Choice order, stated once: the
descendants of a cell are numbered row-major from the north-west, 0 .. K-1.
"""

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import mercantile
import numpy as np
import numpy.typing as npt
from pyproj import Geod

from zoomloc.errors import RegionError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MAX_LEVEL = 30
MAX_LAT_DEG = 85.051128779806604  # where Web Mercator is as high as it is wide
SPHERE_M = 6_378_137.0  # radius of Web Mercator's sphere, and of the one the paper measures on
EQUATOR_M = 40_075_016.685578488  # 2 pi x 6,378,137 m, the width of the Web Mercator square
_BITS = str.maketrans("0123", "0101"), str.maketrans("0123", "0011")  # x and y of a digit


class LatLng(NamedTuple):
    """A place in degrees, WGS 84 (EPSG:4326)."""

    lat: float
    lng: float


class Bounds(NamedTuple):
    """A box in degrees, WGS 84; ``east`` may pass 180 where the box crosses the antimeridian."""

    west: float
    south: float
    east: float
    north: float


class MercatorBounds(NamedTuple):
    """A box in EPSG:3857 metres."""

    left: float
    bottom: float
    right: float
    top: float


class Cell(NamedTuple):
    """A square of the Web Mercator quadtree: column ``x`` from west, row ``y`` from north."""

    level: int
    x: int
    y: int

    @property
    def quadkey(self) -> str:
        """The cell's name: one digit 0-3 for each level; the world is the empty string."""
        return str(mercantile.quadkey(self.x, self.y, self.level))

    @property
    def bounds(self) -> Bounds:
        """Box of the cell in degrees."""
        return Bounds(*mercantile.bounds(self.x, self.y, self.level))

    @property
    def mercator_bounds(self) -> MercatorBounds:
        """Box of the cell in EPSG:3857 metres."""
        return MercatorBounds(*mercantile.xy_bounds(self.x, self.y, self.level))

    @property
    def center(self) -> LatLng:
        """Middle of the cell on the Mercator plane."""
        lat, lng = latlng_of(np.array([self.x + 0.5]), np.array([self.y + 0.5]), self.level)
        return LatLng(float(lat[0]), float(lng[0]))

    @property
    def size_m(self) -> float:
        """Side in metres on the ground at the cell's middle latitude (sphere; within 0.7 %)."""
        return size_m(self.level, self.center.lat)

    def parent(self, levels: int = 1) -> "Cell":
        """The cell ``levels`` above."""
        return Cell(self.level - levels, self.x >> levels, self.y >> levels)

    def descendants(self, levels: int = 1) -> list["Cell"]:
        """The 4**levels cells ``levels`` below, in choice order."""
        side = 1 << levels
        return [
            Cell(self.level + levels, self.x * side + dx, self.y * side + dy)
            for dy in range(side)
            for dx in range(side)
        ]

    def choice(self, levels: int = 1) -> int:
        """Index of this cell among the descendants of its ancestor ``levels`` above."""
        side = 1 << levels
        return (self.y % side) * side + self.x % side

    def contains(self, place: LatLng) -> bool:
        """Whether the place lies in this cell (north and west borders belong to it)."""
        return cell_at(place, self.level) == self


def cell_at(place: LatLng, level: int) -> Cell:
    """The cell of ``level`` that holds the place.

    Raises RegionError beyond 85.05 degrees north or south, or for what is not a place.
    """
    lat, lng = float(place.lat), float(place.lng)
    if not (abs(lat) <= MAX_LAT_DEG and abs(lng) <= 540):
        raise RegionError(
            f"place {lat}, {lng}: outside Web Mercator; latitude must lie within "
            f"±{MAX_LAT_DEG:.2f}, longitude within ±180 degrees (order: lat, lng)"
        )
    x, y = xy_of(np.array([lat]), np.array([lng]), level)
    last = (1 << level) - 1
    return Cell(level, int(np.floor(x[0])) & last, min(max(int(np.floor(y[0])), 0), last))


def cell_of_quadkey(quadkey: str) -> Cell:
    """The cell of that name. Raises RegionError where it is no quadkey."""
    if set(quadkey) - set("0123") or len(quadkey) > MAX_LEVEL:
        raise RegionError(f"quadkey {quadkey[:40]!r}: only digits 0 to 3, at most {MAX_LEVEL}")
    if not quadkey:
        return Cell(0, 0, 0)
    x, y = (int(quadkey.translate(bits), 2) for bits in _BITS)  # files hold many thousands
    return Cell(len(quadkey), x, y)


def xy_of(lat: Floats, lng: Floats, level: int) -> tuple[Floats, Floats]:
    """Fractional column and row at ``level`` of places in degrees; arrays of one shape."""
    side = float(1 << level)
    sin = np.sin(np.radians(np.clip(np.asarray(lat, np.float64), -MAX_LAT_DEG, MAX_LAT_DEG)))
    x = (np.asarray(lng, np.float64) + 180.0) / 360.0 * side
    y = (0.5 - np.log((1 + sin) / (1 - sin)) / (4 * np.pi)) * side
    return x, y


def latlng_of(x: Floats, y: Floats, level: int) -> tuple[Floats, Floats]:
    """Latitude and longitude in degrees of fractional columns and rows at ``level``."""
    side = float(1 << level)
    lng = (np.asarray(x, np.float64) / side * 360.0) % 360.0 - 180.0
    lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * np.asarray(y, np.float64) / side))))
    return lat, lng


def size_m(level: int, lat: float) -> float:
    """Side in ground metres of the cells of ``level`` at that latitude."""
    return EQUATOR_M * float(np.cos(np.radians(lat))) / (1 << level)


def level_of_size(target_m: float, lat: float) -> int:
    """The level whose cells come nearest (by ratio) to ``target_m`` metres at that latitude."""
    return min(range(MAX_LEVEL + 1), key=lambda z: abs(np.log(size_m(z, lat) / target_m)))


@cache
def geod() -> Geod:
    """The WGS 84 ellipsoid, on which all reported distances are measured."""
    return Geod(ellps="WGS84")


def distances_m(lat: Floats, lng: Floats, lat2: Floats, lng2: Floats) -> Floats:
    """Geodesic metres between two sets of places (broadcast against each other)."""
    a, b, c, d = np.broadcast_arrays(lat, lng, lat2, lng2)
    _, _, metres = geod().inv(b.ravel(), a.ravel(), d.ravel(), c.ravel())
    return np.asarray(metres, np.float64).reshape(a.shape)


def distance_m(here: LatLng, there: LatLng) -> float:
    """Geodesic metres between two places."""
    return float(geod().inv(here.lng, here.lat, there.lng, there.lat)[2])


def sphere_distance_m(here: LatLng, there: LatLng) -> float:
    """Metres between two places on a sphere of SPHERE_M, by the haversine formula.

    Only for figures beside those of the paper, which measures so: 0.28 % more than the geodesic
    from north to south, 0.13 % less from east to west at 39 degrees.
    """
    lat, lng, lat2, lng2 = np.radians([*here, *there])
    bow = np.sin((lat2 - lat) / 2) ** 2
    bow += np.cos(lat) * np.cos(lat2) * np.sin((lng2 - lng) / 2) ** 2
    return float(2 * SPHERE_M * np.arcsin(np.sqrt(min(bow, 1.0))))


def moved(place: LatLng, bearing_deg: float, metres: float) -> LatLng:
    """The place reached from here by going ``metres`` along a geodesic."""
    lng, lat, _ = geod().fwd(place.lng, place.lat, bearing_deg, metres)
    return LatLng(float(lat), float(lng))


def unwrapped_columns(columns: Iterable[int], level: int) -> list[int]:
    """Columns made contiguous across the antimeridian: some may pass ``2**level``.

    The cut is laid into the widest gap, so that the columns span as little as possible.
    """
    side = 1 << level
    distinct = sorted(set(columns))
    gaps = [(distinct[0] + side - distinct[-1], distinct[0])]  # first: ties do not wrap
    gaps += [(b - a, b) for a, b in zip(distinct, distinct[1:], strict=False)]
    first = max(gaps, key=lambda gap: gap[0])[1]
    return [c if c >= first else c + side for c in columns]
