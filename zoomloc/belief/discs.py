"""How much of a square a disc covers, exactly, and how many metres a terminal cell measures.

Knows nothing of masses, photos or scores. Everything happens on the grid of a region's
terminal cells (fractional columns and rows), locally taken as a plane.
"""

from typing import NamedTuple

import numpy as np

from zoomloc.world.cells import Floats, geod
from zoomloc.world.region import Region


class CellSides(NamedTuple):
    """Sides of a terminal cell in ground metres on the WGS 84 ellipsoid."""

    east_m: Floats
    south_m: Floats


def cell_sides(region: Region, row: Floats) -> CellSides:
    """Sides of the terminal cells at fractional rows (n,) of the region's grid.

    Web Mercator is drawn on a sphere, so on the ellipsoid its cells are up to 0.7 % longer
    one way than the other; beside a place the plane is then true to 1e-5 at 100 m, and to
    about 1e-4 per kilometre at 45 degrees.
    """
    row = np.asarray(row, np.float64)
    lat_deg, _ = region.leaf_places(np.zeros_like(row), row)
    prime_m, meridian_m = curvature_radii_m(lat_deg)
    per_cell = 2 * np.pi / (1 << region.terminal_level) * np.cos(np.radians(lat_deg))
    return CellSides(prime_m * per_cell, meridian_m * per_cell)


def curvature_radii_m(lat_deg: Floats) -> tuple[Floats, Floats]:
    """Radii of the WGS 84 ellipsoid at latitudes: prime vertical (east-west) and meridian."""
    bend = 1 - geod().es * np.sin(np.radians(lat_deg)) ** 2
    prime_m = geod().a / np.sqrt(bend)
    return prime_m, prime_m * (1 - geod().es) / bend


def covered_area(left: Floats, top: Floats, right: Floats, bottom: Floats) -> Floats:
    """Area of the unit disc round the origin inside boxes (broadcast), both in disc radii."""
    return np.asarray(
        _from_axes(right, bottom)
        - _from_axes(left, bottom)
        - _from_axes(right, top)
        + _from_axes(left, top)
    )


def window_shares(
    column: Floats, row: Floats, half: int, radius_m: float, sides: CellSides
) -> Floats:
    """Share of each square near a place that the disc round it covers.

    column, row: (P,) fractional; the window spans ``half`` squares each way of the place's own.
    sides: (P,) metres of one square. Returns (P, W, W), rows first, W = 2 half + 1.
    """
    lines = np.arange(-half, half + 2)
    x = (lines + (np.floor(column) - column)[:, None]) * (sides.east_m / radius_m)[:, None]
    y = (lines + (np.floor(row) - row)[:, None]) * (sides.south_m / radius_m)[:, None]
    corners = _from_axes(x[:, None, :], y[:, :, None])  # (P, W + 1, W + 1)
    area = np.diff(np.diff(corners, axis=1), axis=2)
    return np.asarray(area * (radius_m**2 / (sides.east_m * sides.south_m))[:, None, None])


def _from_axes(x: Floats, y: Floats) -> Floats:
    """Signed area of the unit disc between both axes and the point (x, y); odd in each.

    Inside the disc that is the rectangle x y. Beyond, the rectangle's corner is cut off by the
    arc, and the area splits into one term per axis.
    """
    a, b = np.minimum(np.abs(x), 1.0), np.minimum(np.abs(y), 1.0)
    beyond = (_half_chord(a) + _half_chord(b) - np.pi / 2) / 2
    return np.asarray(np.sign(x) * np.sign(y) * np.where(a * a + b * b > 1, beyond, a * b))


def _half_chord(a: Floats) -> Floats:
    """Twice the integral of sqrt(1 - t^2) from 0 to a."""
    return np.asarray(a * np.sqrt(1 - a * a) + np.arcsin(a))
