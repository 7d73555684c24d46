"""Flags that say what is known of a photo: every form that is read, one line for all others."""

import json

import numpy as np
import pytest
import shapely

from zoomloc.belief.priors import Area, Both, Heading, Near
from zoomloc.cli.given import given_fov, given_heading, given_prior
from zoomloc.errors import ConfigError
from zoomloc.world.cells import LatLng

SQUARE = [[16.36, 48.20], [16.38, 48.20], [16.38, 48.21], [16.36, 48.21], [16.36, 48.20]]
POLYGON = {"type": "Polygon", "coordinates": [SQUARE]}
EAST = {"type": "Polygon", "coordinates": [[[x + 0.1, y] for x, y in SQUARE]]}
POINT = {"type": "Point", "coordinates": [16.36, 48.20]}
BOW = {"type": "Polygon", "coordinates": [[SQUARE[0], SQUARE[2], SQUARE[1], SQUARE[3], SQUARE[0]]]}


def feature(geometry):
    return {"type": "Feature", "properties": {"name": "here"}, "geometry": geometry}


def collection(*geometries):
    return {"type": "FeatureCollection", "features": [feature(g) for g in geometries]}


def refused(*parts):
    """One line that holds all parts."""
    return pytest.raises(ConfigError, match=r"\A(?!.*\n)" + "".join(f"(?=.*{p})" for p in parts))


@pytest.fixture
def geojson(tmp_path):
    def written(tree):
        path = tmp_path / "area.geojson"
        path.write_text(tree if isinstance(tree, str) else json.dumps(tree), encoding="utf-8")
        return path

    return written


@pytest.mark.parametrize(
    "within, metres",
    [("500m", 500), ("500", 500), ("0.5km", 500), (" 2 KM ", 2000), ("12.5 m", 12.5)],
)
@pytest.mark.parametrize("near", ["48.2085,16.3731", " 48.2085, 16.3731 ", "48.2085 16.3731"])
def test_near_a_place(near, within, metres):
    assert given_prior(near, within, None) == Near(LatLng(48.2085, 16.3731), metres)


def test_south_and_west_are_negative():
    assert given_prior("-33.86,-151.2", "1km", None) == Near(LatLng(-33.86, -151.2), 1000)


def test_nothing_given_is_nothing_known():
    assert given_prior(None, None, None) is None
    assert given_heading(None) is None and given_fov(None) is None


@pytest.mark.parametrize("near, within", [("48.2,16.3", None), (None, "500m")])
def test_a_place_and_a_radius_belong_together(near, within):
    with refused("--near", "--within", "give both"):
        given_prior(near, within, None)


@pytest.mark.parametrize(
    "near", ["", "48.2", "48.2,16.3,5", "48,2;16,3", "Vienna", "48.2N,16.3E", "48.2,"]
)
def test_what_is_no_place_is_refused(near):
    with refused("--near", "latitude and longitude", "48.2085,16.3731"):
        given_prior(near, "500m", None)


@pytest.mark.parametrize("near", ["123.07,44.05", "nan,16", "48,inf", "-86,0", "48,1000"])
def test_a_place_off_the_map_is_refused(near):
    with refused("--near", "order: lat, lng"):
        given_prior(near, "500m", None)


@pytest.mark.parametrize("within", ["", "500ft", "1mi", "-5m", "1e3", "inf", "500 m 3", "0,5km"])
def test_what_is_no_distance_is_refused(within):
    with refused("--within", "500m, 500 or 0.5km"):
        given_prior("48.2,16.3", within, None)


@pytest.mark.parametrize("within", ["0", "0km", "9" * 400])
def test_a_radius_is_above_0(within):
    with refused("--within", "above 0"):
        given_prior("48.2,16.3", within, None)


@pytest.mark.parametrize(
    "tree, shapes",
    [
        (POLYGON, [POLYGON]),
        (feature(POLYGON), [POLYGON]),
        (collection(POLYGON, POINT, None, EAST), [POLYGON, EAST]),
        (
            {
                "type": "MultiPolygon",
                "coordinates": [POLYGON["coordinates"], EAST["coordinates"]],
            },
            [POLYGON, EAST],
        ),
        ({"type": "GeometryCollection", "geometries": [POINT, POLYGON]}, [POLYGON]),
        ({"type": "Polygon", "coordinates": [[[x, y, 7.0] for x, y in SQUARE]]}, [POLYGON]),
        (collection(POLYGON, POLYGON), [POLYGON]),
    ],
)
def test_areas_of_every_kind_are_read(geojson, tree, shapes):
    found = given_prior(None, None, geojson(tree))
    assert isinstance(found, Area) and found.soft_m > 0
    wanted = shapely.union_all([shapely.geometry.shape(s) for s in shapes])
    assert shapely.equals(found.polygon, wanted)


def test_a_file_with_a_byte_order_mark_is_read(geojson):
    assert isinstance(given_prior(None, None, geojson("\ufeff" + json.dumps(POLYGON))), Area)


def test_a_border_that_crosses_itself_is_mended(geojson):
    """A bow tie: its two halves, half of the square."""
    found = given_prior(None, None, geojson(BOW))
    assert found.polygon.is_valid
    whole = shapely.geometry.shape(POLYGON).area
    assert found.polygon.area == pytest.approx(whole / 2)


@pytest.mark.parametrize(
    "tree",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        "{}",
        {"type": "Topology"},
        {"type": "Polygon"},
        {"type": "Polygon", "coordinates": "here"},
        {"type": "Polygon", "coordinates": [[[0, 1], [2, 3]]]},
        {"type": "Polygon", "coordinates": [[["a", "b"], ["c", "d"], ["e", "f"], ["a", "b"]]]},
        {"type": "FeatureCollection"},
        {"type": "FeatureCollection", "features": [3]},
        {"type": "FeatureCollection", "features": 3},
        {"type": "Feature"},
        {"type": "Feature", "geometry": [1]},
        json.dumps(POLYGON).replace("16.38", "NaN"),
        '{"type":' * 100_000,
        "[" * 100_000,
    ],
)
def test_what_is_no_geojson_is_refused(geojson, tree):
    with refused("--area", "area.geojson", "cannot be read as GeoJSON", "give a file"):
        given_prior(None, None, geojson(tree))


@pytest.mark.parametrize(
    "tree",
    [
        POINT,
        collection(),
        collection(None),
        {"type": "LineString", "coordinates": SQUARE},
        {"type": "Polygon", "coordinates": []},
        {"type": "Polygon", "coordinates": [[[1, 1], [2, 2], [3, 3], [1, 1]]]},
    ],
)
def test_a_geojson_without_ground_is_refused(geojson, tree):
    with refused("--area", "area.geojson", "no polygon with ground", "give a GeoJSON Polygon"):
        given_prior(None, None, geojson(tree))


@pytest.mark.parametrize("number", ["601000.0", "1e999", "-1e300"])
def test_coordinates_that_are_no_degrees_are_refused(geojson, number):
    tree = json.dumps(POLYGON).replace("16.38", number)
    with refused("--area", "area.geojson", "EPSG:4326, longitude first"):
        given_prior(None, None, geojson(tree))


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with refused("--area", "none.geojson: no such file"):
        given_prior(None, None, tmp_path / "none.geojson")
    with refused("--area", "cannot be read"):
        given_prior(None, None, tmp_path)
    (tmp_path / "photo.jpg").write_bytes(bytes(range(256)))
    with refused("--area", "photo.jpg", "cannot be read as GeoJSON"):
        given_prior(None, None, tmp_path / "photo.jpg")


def test_a_place_and_an_area_hold_both(geojson):
    path = geojson(POLYGON)
    found = given_prior("48.205,16.37", "300m", path)
    assert found == Both((given_prior("48.205,16.37", "300m", None), given_prior(None, None, path)))
    assert found.described().startswith("within 300 m of 48.20500, 16.37000 and in an area of 1.6")


@pytest.mark.parametrize(
    "text, heading",
    [
        ("90±20", (90, 20)),
        ("90+-20", (90, 20)),
        ("90+/-20", (90, 20)),
        ("90", (90, 15)),
        (" 359.5° ± 2.5° ", (359.5, 2.5)),
        ("-45±10", (-45, 10)),
        ("360", (360, 15)),
        ("0±180", (0, 180)),
    ],
)
def test_headings(text, heading):
    assert given_heading(text) == Heading(*heading)
    assert np.isfinite(given_heading(text).log_share(np.arange(24) * 15.0)).all()


@pytest.mark.parametrize("text", ["", "north", "90-20", "90±", "±20", "90±20±3", "nan", "9e1", "N"])
def test_what_is_no_heading_is_refused(text):
    with refused("--heading", "clockwise from north", "90±20 or 90"):
        given_heading(text)


@pytest.mark.parametrize("text", ["361", "-181±5", "90±0", "90±181", "9" * 400])
def test_headings_off_the_circle_are_refused(text):
    with refused("--heading", "must be", "degrees"):
        given_heading(text)


@pytest.mark.parametrize("given, fov_deg", [("65", 65), (" 70.5° ", 70.5), (1, 1), (179.0, 179)])
def test_fields_of_view(given, fov_deg):
    assert given_fov(given) == fov_deg


@pytest.mark.parametrize("given", ["", "wide", "0", "180", 360, -60.0, "nan", "inf", "65 degrees"])
def test_what_is_no_field_of_view_is_refused(given):
    with refused("--fov", "1 to 179 degrees"):
        given_fov(given)
