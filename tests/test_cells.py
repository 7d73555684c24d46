"""cells: mercantile as oracle, round trips, and the places where the globe is cut."""

import itertools
import math

import mercantile
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from zoomloc.errors import RegionError
from zoomloc.world.cells import (
    MAX_LAT_DEG,
    Cell,
    LatLng,
    cell_at,
    cell_of_quadkey,
    distance_m,
    distances_m,
    latlng_of,
    level_of_size,
    moved,
    size_m,
    unwrapped_columns,
    xy_of,
)

LATS = st.floats(-85, 85)
LNGS = st.floats(-180, 179.999999)
PLACES = st.builds(LatLng, LATS, LNGS)
LEVELS = st.integers(0, 24)


@st.composite
def cells(draw, deepest=24):
    level = draw(st.integers(0, deepest))
    last = (1 << level) - 1
    return Cell(level, draw(st.integers(0, last)), draw(st.integers(0, last)))


@given(PLACES, LEVELS)
def test_cell_of_a_place_is_mercantiles(place, level):
    x, y = xy_of(np.array([place.lat]), np.array([place.lng]), level)
    for value in (float(x[0]), float(y[0])):
        assume(abs(value - round(value)) > 1e-6)  # on a border the two may round apart
    tile = mercantile.tile(place.lng, place.lat, level)
    assert cell_at(place, level) == Cell(tile.z, tile.x, tile.y)


@given(cells())
def test_names_boxes_and_families_are_mercantiles(cell):
    tile = mercantile.Tile(cell.x, cell.y, cell.level)
    assert cell.quadkey == mercantile.quadkey(tile)
    assert cell_of_quadkey(cell.quadkey) == cell
    assert tuple(cell.bounds) == tuple(mercantile.bounds(tile))
    assert tuple(cell.mercator_bounds) == tuple(mercantile.xy_bounds(tile))
    assert {(c.x, c.y, c.level) for c in cell.descendants()} == set(mercantile.children(tile))
    assert all(c.parent() == cell for c in cell.descendants())


@given(cells(deepest=20), st.integers(1, 3))
def test_choices_count_row_major_from_the_north_west(cell, levels):
    below = cell.descendants(levels)
    side = 2**levels
    assert [c.choice(levels) for c in below] == list(range(4**levels))
    assert all(c.parent(levels) == cell for c in below)
    lats, lngs = zip(*(c.center for c in below), strict=True)
    assert lats[0] > lats[side], "the second row must lie south of the first"
    assert lngs[0] < lngs[1], "the second column must lie east of the first"
    assert lats[0] == lats[1] and lngs[0] == lngs[side]


@given(PLACES, LEVELS)
def test_plane_and_degrees_are_a_round_trip(place, level):
    lat, lng = latlng_of(*xy_of(np.array([place.lat]), np.array([place.lng]), level), level)
    assert lat[0] == pytest.approx(place.lat, abs=1e-9)
    assert math.cos(math.radians(lng[0] - place.lng)) == pytest.approx(1)


@given(cells())
def test_a_cell_holds_its_centre(cell):
    assert cell.contains(cell.center)
    assert cell_at(cell.center, cell.level) == cell


def test_bulk_and_single_geometry_agree():
    rng = np.random.default_rng(0)
    lat, lng = rng.uniform(-85, 85, 200), rng.uniform(-180, 180, 200)
    x, y = xy_of(lat, lng, 17)
    found = [cell_at(LatLng(a, b), 17) for a, b in zip(lat, lng, strict=True)]
    assert [(c.x, c.y) for c in found] == list(
        zip(np.floor(x).astype(int), np.floor(y).astype(int), strict=True)
    )


# where the globe is cut


@pytest.mark.parametrize("level", [1, 10, 20, 30])
def test_longitude_0_and_latitude_0_part_four_cells(level):
    half = 1 << (level - 1)
    near = 1e-7
    corners = itertools.product((near, -near), (-near, near))
    found = {cell_at(LatLng(lat, lng), level) for lat, lng in corners}
    assert found == {Cell(level, x, y) for x in (half - 1, half) for y in (half - 1, half)}
    assert cell_at(LatLng(0.0, 0.0), level) == Cell(level, half, half)  # north and west borders


@pytest.mark.parametrize("level", [0, 3, 18])
def test_the_antimeridian_is_one_line(level):
    assert cell_at(LatLng(10, 180.0), level) == cell_at(LatLng(10, -180.0), level)
    assert cell_at(LatLng(10, 190.0), level) == cell_at(LatLng(10, -170.0), level)
    assert cell_at(LatLng(10, -190.0), level) == cell_at(LatLng(10, 170.0), level)
    assert cell_at(LatLng(10, 179.9999), level).x == (1 << level) - 1


def test_columns_beyond_the_antimeridian_come_back_as_longitudes():
    _, lng = latlng_of(np.array([256.5, -0.5]), np.array([128.0, 128.0]), 8)
    assert lng == pytest.approx([-180 + 0.5 / 256 * 360, 180 - 0.5 / 256 * 360])


@pytest.mark.parametrize(
    ("columns", "level", "expected"),
    [
        ([5], 4, [5]),
        ([3, 4, 5], 4, [3, 4, 5]),
        ([15, 0], 4, [15, 16]),
        ([0, 15, 14, 1], 4, [16, 15, 14, 17]),
        ([0, 1], 1, [0, 1]),
        ([0, 1, 2, 3], 2, [0, 1, 2, 3]),  # the whole belt: no wrapping
        ([0, 2], 2, [0, 2]),  # two gaps of one width: no wrapping
        ([0], 0, [0]),
    ],
)
def test_columns_are_unwrapped_at_the_widest_gap(columns, level, expected):
    assert unwrapped_columns(columns, level) == expected


@given(st.lists(st.integers(0, 255), min_size=1, max_size=12))
def test_unwrapped_columns_span_as_little_as_they_can(columns):
    found = unwrapped_columns(columns, 8)
    assert [c % 256 for c in found] == columns
    rolled = [max((c - s) % 256 for c in columns) for s in set(columns)]
    assert max(found) - min(found) == min(rolled)


def test_high_latitudes():
    assert cell_at(LatLng(MAX_LAT_DEG, 0), 10).y == 0
    assert cell_at(LatLng(-MAX_LAT_DEG, 0), 10).y == 1023
    assert size_m(10, 60.0) == pytest.approx(size_m(10, 0.0) / 2)
    assert Cell(10, 512, 0).size_m < 0.1 * Cell(10, 512, 511).size_m


@pytest.mark.parametrize(
    "place", [(85.06, 0), (-90, 0), (math.nan, 0), (0, math.nan), (0, math.inf), (0, 541)]
)
def test_what_is_no_place_is_refused(place):
    with pytest.raises(RegionError, match=r"outside Web Mercator.*lat, lng"):
        cell_at(LatLng(*place), 10)


@pytest.mark.parametrize("quadkey", ["4", "01a", "0" * 31, "-1", " 0"])
def test_what_is_no_quadkey_is_refused(quadkey):
    with pytest.raises(RegionError, match="only digits 0 to 3"):
        cell_of_quadkey(quadkey)


def test_the_world_is_the_empty_quadkey():
    assert Cell(0, 0, 0).quadkey == ""
    assert cell_of_quadkey("") == Cell(0, 0, 0)


# metres


def test_a_degree_at_the_equator():
    assert distance_m(LatLng(0, 0), LatLng(0, 1)) == pytest.approx(111_319.49, abs=0.01)
    assert distance_m(LatLng(0, 0), LatLng(1, 0)) == pytest.approx(110_574.39, abs=0.01)
    assert distance_m(LatLng(0, 179.9995), LatLng(0, -179.9995)) == pytest.approx(111.32, abs=0.01)


def test_distances_broadcast():
    lat, lng = np.zeros((3, 1)), np.zeros((3, 1))
    found = distances_m(lat, lng, np.array([0.0, 1.0]), np.array([1.0, 0.0]))
    assert found.shape == (3, 2)
    assert found[2] == pytest.approx([111_319.49, 110_574.39], abs=0.01)


@given(PLACES, st.floats(0, 360), st.floats(0.1, 50_000))
def test_moving_goes_as_far_as_it_says(place, bearing_deg, metres):
    there = moved(place, bearing_deg, metres)
    assert distance_m(place, there) == pytest.approx(metres, rel=1e-6, abs=1e-6)


@given(st.floats(-84, 84), LNGS)
def test_size_is_true_on_the_ground_within_its_promise(lat, lng):
    cell = cell_at(LatLng(lat, lng), 18)
    west, south, east, north = cell.bounds
    wide = distance_m(LatLng(cell.center.lat, west), LatLng(cell.center.lat, east))
    high = distance_m(LatLng(south, west), LatLng(north, west))
    assert wide == pytest.approx(cell.size_m, rel=0.0071)
    assert high == pytest.approx(cell.size_m, rel=0.0071)


@given(st.floats(0.5, 5_000), st.floats(-80, 80))
def test_level_of_size_is_the_nearest_by_ratio(target_m, lat):
    found = size_m(level_of_size(target_m, lat), lat)
    assert 1 / math.sqrt(2) - 1e-9 <= found / target_m <= math.sqrt(2) + 1e-9
