"""What is known of a photo before it is looked at: a place nearby, an area, a heading.

Knows nothing of scores, search or flags. A prior r is a density over terminal cells; what is
handed on is log r / p0, where p0 has all ground with imagery alike, so that it averages 1.
Every prior leaves a share of its mass over all ground: a wrong one then shows as little
agreement with the photo (``reweigh.under``), not as a sure answer.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from zoomloc.belief.discs import curvature_radii_m
from zoomloc.errors import ConfigError, RegionError
from zoomloc.world.cells import Bounds, Floats, LatLng, cell_at
from zoomloc.world.coverage import Coverage
from zoomloc.world.region import Region

OUTSIDE = 0.02  # of a prior's mass lies over all ground
EDGE = 1 / 16  # of a radius: how far beyond it a prior begins to fade
CONTRADICTED = -1.0  # agreement below which photo and prior are said to disagree
HEADING_FLOOR = 0.03  # of the belief in a heading is for any
FAR = 50  # edges beyond which a polygon's parts are of no account
COARSE = 256  # rows and columns at which far distances are taken
NEAR = 4  # of their steps, within which they are exact


class Prior(Protocol):
    """Anything that says how much likelier some ground is than other before a photo is seen."""

    def log_ratio(self, coverage: Coverage) -> Floats:
        """(rows, columns) of the terminal grid: log r / p0, which averages 1 over the ground.

        -inf where there is no imagery.
        """
        ...

    def described(self) -> str:
        """What an answer says of it, in a few words."""
        ...


@dataclass(frozen=True)
class Near:
    """A photo taken within ``within_m`` of a place; ``outside`` of the mass lies anywhere.

    Raises ConfigError for what is no place, no radius or no share.
    """

    place: LatLng
    within_m: float
    outside: float = OUTSIDE

    def __post_init__(self) -> None:
        try:
            cell_at(self.place, 0)
        except RegionError as error:
            raise ConfigError(str(error)) from error
        if not 0 < self.within_m < math.inf:
            raise ConfigError(f"radius {self.within_m} m: must be above 0")
        _check_outside(self.outside)

    def log_ratio(self, coverage: Coverage) -> Floats:
        """(rows, columns) log r / p0. Raises RegionError where all ground is farther away."""
        lat, lng = _middles_deg(coverage.region)
        beyond_m = _metres_from(self.place, lat, lng) - self.within_m
        _check_reached(self, coverage, beyond_m)
        edge_m = _least_edge_m(coverage, EDGE * self.within_m)
        return _ratio(coverage, beyond_m, edge_m, self.outside)

    def described(self) -> str:
        """The radius and the place."""
        radius = f"{self.within_m:g} m" if self.within_m < 1000 else f"{self.within_m / 1000:g} km"
        return f"within {radius} of {self.place.lat:.5f}, {self.place.lng:.5f}"


@dataclass(frozen=True)
class Area:
    """A photo taken in a polygon (lng/lat in degrees), whose border is soft over ``soft_m``.

    Raises ConfigError for a polygon that holds no ground or crosses itself.
    """

    polygon: BaseGeometry
    soft_m: float
    outside: float = OUTSIDE

    def __post_init__(self) -> None:
        if not (self.polygon.area > 0 and self.polygon.is_valid):
            raise ConfigError(
                "area: the polygon holds no ground or crosses itself; draw it again, or mend it "
                "with shapely.make_valid"
            )
        if not 0 <= self.soft_m < math.inf:
            raise ConfigError(f"area: a border {self.soft_m} m soft; must be at least 0")
        _check_outside(self.outside)

    def log_ratio(self, coverage: Coverage) -> Floats:
        """(rows, columns) log r / p0. Raises RegionError where no ground lies inside."""
        edge_m = _least_edge_m(coverage, self.soft_m)
        lat, lng = _middles_deg(coverage.region)
        plane = _Plane.around(float(lat[len(lat) // 2]), float(lng[len(lng) // 2]))
        x, y = plane.x_m(lng), plane.y_m(lat)
        drawn = _laid_on(plane, self.polygon, x, y, edge_m)
        beyond_m = _metres_outside(drawn, x, y)
        _check_reached(self, coverage, beyond_m)
        return _ratio(coverage, beyond_m, edge_m, self.outside)

    def described(self) -> str:
        """How large the area is, and where."""
        middle = self.polygon.centroid
        plane = _Plane.around(middle.y, middle.x)
        km2 = self.polygon.area * plane.east_m * plane.north_m / 1e6
        return f"in an area of {km2:.3g} km² round {middle.y:.5f}, {middle.x:.5f}"


@dataclass(frozen=True)
class Both:
    """Several priors that all hold: their product, normalised once."""

    priors: tuple[Prior, ...]

    def log_ratio(self, coverage: Coverage) -> Floats:
        """(rows, columns) log r / p0. Raises RegionError where they leave no ground in common."""
        each = [prior.log_ratio(coverage) for prior in self.priors]
        if not np.all([one >= -1e-9 for one in each], axis=0).any():
            raise RegionError(
                f"priors {self.described()!r}: no ground of region {coverage.region.name!r} "
                "agrees with all of them; widen one, or leave it out"
            )
        both = np.sum(each, axis=0)
        return np.asarray(both - np.log(np.exp(both[coverage.leaves]).mean()))

    def described(self) -> str:
        """All of them."""
        return " and ".join(prior.described() for prior in self.priors)


@dataclass(frozen=True)
class Heading:
    """Where a camera looked: within ``within_deg`` of ``bearing_deg``, clockwise from north.

    Raises ConfigError for what is no bearing, or no deviation of one.
    """

    bearing_deg: float
    within_deg: float

    def __post_init__(self) -> None:
        if not -180 <= self.bearing_deg <= 360:
            raise ConfigError(
                f"bearing {self.bearing_deg:g}: must be 0 to 360 degrees clockwise from north"
            )
        if not 0 < self.within_deg <= 180:
            raise ConfigError(
                f"bearing to within {self.within_deg:g}: must be above 0, up to 180 degrees"
            )

    def log_share(self, bearings_deg: Floats) -> Floats:
        """(N,) log p of N headings all round, as evenly spaced; exp of it averages 1.

        A heading that is not known would be all zeros.
        """
        off_deg = np.abs((np.asarray(bearings_deg) - self.bearing_deg + 180) % 360 - 180)
        # a sharp bearing between two headings speaks for both
        edge_deg = max(self.within_deg / 4, 180 / len(off_deg))
        weight = _fading(off_deg - self.within_deg, edge_deg)
        share = HEADING_FLOOR + (1 - HEADING_FLOOR) * weight / weight.mean()
        return np.asarray(np.log(share))


# 1. from metres beyond a border to a ratio


def _fading(beyond: Floats, edge: float) -> Floats:
    """1 up to a border, and a Student-like tail beyond: who is wrong is often far off."""
    return np.asarray((1 + (np.maximum(beyond, 0) / edge) ** 2) ** -1.5)


def _ratio(coverage: Coverage, beyond_m: Floats, edge_m: float, outside: float) -> Floats:
    """(rows, columns) log r / p0 of what fades beyond a border."""
    weight = _fading(beyond_m, edge_m)
    ratio = outside + (1 - outside) * weight / weight[coverage.leaves].mean()
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.where(coverage.leaves, ratio, 0.0)))


def _least_edge_m(coverage: Coverage, edge_m: float) -> float:
    """An edge that terminal cells, which count by their middles, can tell."""
    return max(edge_m, coverage.region.cell_size_m / 2)


def _check_outside(outside: float) -> None:
    if not 0 <= outside < 1:
        raise ConfigError(f"prior with {outside} of its mass outside: a share, 0 to below 1")


def _check_reached(prior: Prior, coverage: Coverage, beyond_m: Floats) -> None:
    """Refuse a prior that holds no ground with imagery, not even a part of a cell."""
    if beyond_m[coverage.leaves].min() > coverage.region.cell_size_m / math.sqrt(2):
        west, south, east, north = _bounds_deg(coverage)
        raise RegionError(
            f"prior {prior.described()!r}: no ground of region {coverage.region.name!r}; its "
            f"imagery reaches from {south:.4f}, {west:.4f} to {north:.4f}, {east:.4f} (latitude "
            "before longitude); mend the prior, widen it, or take the region that it lies in"
        )


# 2. metres


class _Plane(NamedTuple):
    """A local plane round a place: x metres east, y metres north, by degrees."""

    lat: float
    lng: float
    east_m: float  # of a degree
    north_m: float

    @classmethod
    def around(cls, lat: float, lng: float) -> "_Plane":
        """The plane that touches the ellipsoid there."""
        prime_m, meridian_m = (float(m[0]) for m in curvature_radii_m(np.array([lat])))
        degree = math.pi / 180
        return cls(lat, lng, prime_m * math.cos(lat * degree) * degree, meridian_m * degree)

    def x_m(self, lng: Floats) -> Floats:
        """East, the short way round the globe."""
        return np.asarray(((lng - self.lng + 180) % 360 - 180) * self.east_m)

    def y_m(self, lat: Floats) -> Floats:
        """North."""
        return (lat - self.lat) * self.north_m


def _middles_deg(region: Region) -> tuple[Floats, Floats]:
    """Latitudes (rows,) and longitudes (columns,) of the middles of terminal cells."""
    shape = region.grid_shape(region.zooms)
    rows, columns = (np.arange(n, dtype=np.float64) + 0.5 for n in shape)
    return region.leaf_places(columns[:1], rows)[0], region.leaf_places(columns, rows[:1])[1]


def _bounds_deg(coverage: Coverage) -> Bounds:
    """The box round all ground with imagery."""
    rows, columns = np.nonzero(coverage.leaves)
    lat, lng = coverage.region.leaf_places(
        np.array([columns.min(), columns.max() + 1.0]), np.array([rows.max() + 1.0, rows.min()])
    )
    return Bounds(float(lng[0]), float(lat[0]), float(lng[1]), float(lat[1]))


def _metres_from(place: LatLng, lat: Floats, lng: Floats) -> Floats:
    """(rows, columns) metres, as the crow flies; true to 1e-4 within 10 km of the place."""
    prime_m, meridian_m = curvature_radii_m(np.array([place.lat]))
    north = 2 * meridian_m * np.sin(np.radians(lat - place.lat) / 2)
    shrunk = np.sqrt(np.cos(np.radians(lat)) * np.cos(np.radians(place.lat)))
    east = 2 * prime_m * np.sin(np.radians(lng - place.lng) / 2)
    return np.asarray(np.hypot(north[:, None], shrunk[:, None] * east))


def _laid_on(
    plane: _Plane, polygon: BaseGeometry, x: Floats, y: Floats, edge_m: float
) -> BaseGeometry:
    """What a polygon holds near a region, in metres, no finer than its soft border tells."""
    margin_m = FAR * edge_m
    window = shapely.box(
        x.min() - margin_m, y.min() - margin_m, x.max() + margin_m, y.max() + margin_m
    )
    scale = [plane.east_m, plane.north_m]
    drawn = []
    off = 360 * round((polygon.centroid.x - plane.lng) / 360)
    for turn in (-360, 0, 360):  # it may reach in from either side of the globe
        zero = [plane.lng + off + turn, plane.lat]
        laid = shapely.transform(polygon, lambda at, zero=zero: (at - zero) * scale)
        drawn.append(shapely.intersection(laid, window))
    return shapely.union_all(drawn).simplify(edge_m / 8)


def _metres_outside(drawn: BaseGeometry, x: Floats, y: Floats) -> Floats:
    """(rows, columns) metres from a polygon, 0 inside.

    Many corners take their time, so that what is far away gets the distance of a place nearby:
    wrong by a fifth at most.
    """
    step = math.ceil(max(len(x), len(y)) / COARSE)
    some_x, some_y = np.meshgrid(x[step // 2 :: step], y[step // 2 :: step])
    rough = shapely.distance(drawn, shapely.points(some_x, some_y))
    down, across = (
        np.minimum(np.arange(len(line)) // step, most - 1)
        for line, most in zip((y, x), rough.shape, strict=True)
    )
    metres = rough[np.ix_(down, across)]
    near_m = NEAR * step * max(np.ptp(x) / len(x), np.ptp(y) / len(y))
    row, column = np.nonzero(metres < near_m)
    shapely.prepare(drawn)
    outside = ~shapely.contains_xy(drawn, x[column], y[row])
    metres[row, column] = 0
    row, column = row[outside], column[outside]
    metres[row, column] = shapely.distance(drawn, shapely.points(x[column], y[row]))
    return np.where(np.isnan(metres), np.inf, metres)  # NaN: nothing of it is near
