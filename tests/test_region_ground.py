"""Which ground is meant: boxes, polygon files, places with a radius."""

import json

import geopandas
import pytest
import shapely

from data_prep.ground import circle, ground_of, polygon_in
from zoomloc.config import TilesConfig, parse_config
from zoomloc.errors import ConfigError, RegionError
from zoomloc.world.cells import LatLng, distance_m, geod

RING = shapely.Polygon([(8.5, 47.3), (8.6, 47.3), (8.6, 47.4), (8.52, 47.38)])


def test_nothing_is_asked():
    assert ground_of(TilesConfig()) is None


def test_a_box():
    assert ground_of(TilesConfig(bounds=(8, 47, 9, 48))).bounds == (8, 47, 9, 48)


@pytest.mark.parametrize("middle", [(47.37, 8.54), (-17.0, 179.999), (64.1, -21.9)])
def test_a_place_and_a_radius(middle):
    ground = ground_of(TilesConfig(place=middle, radius_m=500))
    away = [distance_m(LatLng(*middle), LatLng(lat, lng)) for lng, lat in ground.exterior.coords]
    assert max(away) == pytest.approx(500, abs=0.1) and min(away) == pytest.approx(500, abs=0.1)
    area_m2 = abs(geod().geometry_area_perimeter(ground)[0])
    assert area_m2 == pytest.approx(3.1416 * 500**2, rel=0.01)
    assert ground.equals(circle(LatLng(*middle), 500))


@pytest.mark.parametrize(
    ("name", "crs"), [("a.geojson", 4326), ("a.gpkg", 2056), ("a.shp", 32632), ("a.gpkg", 3857)]
)
def test_a_polygon_in_a_file_of_any_crs(tmp_path, name, crs):
    frame = geopandas.GeoDataFrame(geometry=[RING, shapely.Point(8, 47).buffer(0.01)], crs=4326)
    frame.to_crs(crs).to_file(tmp_path / name)
    found = ground_of(TilesConfig(polygon=tmp_path / name))
    wanted = RING.union(shapely.Point(8, 47).buffer(0.01))
    assert found.symmetric_difference(wanted).area < 1e-6 * wanted.area


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("no file", "no such polygon file"),
        ("nonsense", "cannot be read as polygons"),
        ({"type": "FeatureCollection", "features": []}, "cannot be read|no polygon with an area"),
        ({"type": "Point", "coordinates": [1, 2]}, "no polygon with an area"),
    ],
)
def test_files_that_hold_no_polygon(tmp_path, content, told):
    path = tmp_path / "a.geojson"
    if content != "no file":
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(RegionError, match=told):
        polygon_in(path)


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        ({"bounds": [1, 2, 3, 4], "place": [1, 2], "radius_m": 5}, "both say which ground"),
        ({"place": [1, 2]}, "belong together"),
        ({"radius_m": 5}, "belong together"),
        ({"place": [100, 2], "radius_m": 5}, "must be latitude, longitude"),
    ],
)
def test_configs_that_contradict_themselves(tree, told):
    with pytest.raises(ConfigError, match=told):
        parse_config({"tiles": tree}, "a")
