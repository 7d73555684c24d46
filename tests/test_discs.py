"""discs: areas against plain geometry and against counting, cell sides against geodesics."""

import numpy as np
import pytest

from zoomloc.belief.discs import cell_sides, covered_area, window_shares
from zoomloc.world.cells import Cell, LatLng, cell_at, distance_m, latlng_of
from zoomloc.world.region import Region


def area(left, top, right, bottom) -> float:
    return float(covered_area(*(np.array(v, np.float64) for v in (left, top, right, bottom))))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((-2, -2, 2, 2), np.pi),  # the disc whole
        ((0, -2, 2, 2), np.pi / 2),  # a half of it
        ((0, 0, 5, 5), np.pi / 4),  # a quarter
        ((-0.5, -0.5, 0.5, 0.5), 1.0),  # a square whole
        ((1, 1, 2, 2), 0.0),  # beyond
        ((0.8, 0.8, 0.9, 0.9), 0.0),  # beyond, but inside the box round the disc
        ((-2, 0.5, 2, 2), np.arccos(0.5) - 0.5 * np.sqrt(0.75)),  # a cap: acos d - d sqrt(1-d^2)
    ],
)
def test_area_of_a_box_in_the_unit_disc(box, expected):
    assert area(*box) == pytest.approx(expected, abs=1e-12)


def test_areas_agree_with_counting():
    rng = np.random.default_rng(0)
    ticks = (np.arange(400) + 0.5) / 400
    for _ in range(30):
        left, top = rng.uniform(-1.5, 1, 2)
        width, height = rng.uniform(0.05, 1.5, 2)
        x, y = np.meshgrid(left + width * ticks, top + height * ticks)
        counted = (x * x + y * y <= 1).mean() * width * height
        assert area(left, top, left + width, top + height) == pytest.approx(counted, abs=2e-3)


@pytest.mark.parametrize("lat", [0.0, 44.05, -33.9, 69.6])
def test_sides_are_those_on_the_ellipsoid(lat):
    root = cell_at(LatLng(lat, 10.0), 12)
    region = Region("here", (root,), 18, 2)
    sides = cell_sides(region, np.array([20.5]))
    leaf = Cell(18, root.x * 64, root.y * 64 + 20)
    x, y = np.array([leaf.x, leaf.x + 1, leaf.x, leaf.x]), leaf.y + np.array([0.5, 0.5, 0.0, 1.0])
    places = [LatLng(*map(float, p)) for p in zip(*latlng_of(x, y, 18), strict=True)]
    assert sides.east_m[0] == pytest.approx(distance_m(places[0], places[1]), rel=1e-6)
    assert sides.south_m[0] == pytest.approx(distance_m(places[2], places[3]), rel=1e-6)


def test_a_window_holds_the_whole_disc_wherever_in_its_square_the_place_lies():
    region = Region("here", (cell_at(LatLng(44.05, -123.07), 14),), 20, 2)
    rng = np.random.default_rng(1)
    row, column = rng.uniform(0, 64, 50), rng.uniform(0, 64, 50)
    sides = cell_sides(region, row)
    half = int(np.ceil(40 / float(sides.east_m.min())))
    shares = window_shares(column, row, half, 40.0, sides)
    assert shares.min() > -1e-12 and shares.max() < 1 + 1e-12
    areas = shares.sum(axis=(1, 2)) * sides.east_m * sides.south_m
    np.testing.assert_allclose(areas, np.pi * 40**2, rtol=1e-9)
