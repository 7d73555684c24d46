"""Road points: evenly along lines, and files that are no roads."""

import json

import numpy as np
import pytest

from zoomloc.errors import RegionError
from zoomloc.world.cells import distance_m
from zoomloc.world.roads import road_points


def write(path, *geometries):
    features = [{"type": "Feature", "properties": {}, "geometry": g} for g in geometries]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def line(*points, kind="LineString"):
    return {"type": kind, "coordinates": list(points)}


def test_points_lie_on_the_line_as_far_apart_as_asked(tmp_path):
    roads = write(tmp_path / "roads.geojson", line((8.0, 47.0), (8.0, 47.01)))  # 1.11 km north
    points = road_points(roads, every_m=10.0)
    gaps = [distance_m(a, b) for a, b in zip(points, points[1:], strict=False)]
    np.testing.assert_allclose(gaps, 10.0, rtol=0.02)
    assert {p.lng for p in points} == {8.0}
    assert all(47.0 < p.lat < 47.01 for p in points)


def test_longer_roads_have_more_points(tmp_path):
    roads = write(
        tmp_path / "roads.geojson",
        line((8.0, 47.0), (8.0, 47.003)),
        line((8.1, 47.0), (8.1, 47.001)),
    )
    points = road_points(roads)
    west = sum(p.lng < 8.05 for p in points)
    assert west / (len(points) - west) == pytest.approx(3, rel=0.02)


def test_parts_of_a_multi_line_are_all_walked_and_the_gap_is_not(tmp_path):
    parts = line(
        [(8.0, 47.0), (8.0, 47.001)], [(8.0, 47.009), (8.0, 47.01)], kind="MultiLineString"
    )
    lats = [p.lat for p in road_points(write(tmp_path / "roads.geojson", parts))]
    assert min(lats) < 47.0005 and max(lats) > 47.0095
    assert not any(47.0011 < lat < 47.0089 for lat in lats)


def test_a_stub_has_one_point_in_its_middle_and_a_feature_without_geometry_none(tmp_path):
    roads = write(tmp_path / "roads.geojson", line((8.0, 47.0), (8.0, 47.00001)), None)
    (point,) = road_points(roads)
    assert (point.lat, point.lng) == pytest.approx((47.000005, 8.0), abs=1e-9)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"type": "FeatureCollection"}', "cannot be read"),
        ('{"features": []}', "holds no line"),
    ],
)
def test_files_that_are_no_roads_are_refused_in_one_line(tmp_path, text, says):
    path = tmp_path / "roads.geojson"
    path.write_text(text)
    with pytest.raises(RegionError, match=says) as refusal:
        road_points(path)
    assert "roads.geojson" in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(RegionError, match=r"none\.geojson"):
        road_points(tmp_path / "none.geojson")
