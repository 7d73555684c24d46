"""The renderer's geometry, on scenes of a few boxes whose place is known."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine, from_origin

from data_prep.render import (
    Camera,
    Light,
    camera_at,
    perspective_optics,
    render,
    render_canvas,
    render_panorama,
)
from data_prep.scene import (
    BUILDING,
    CROWN_MIDDLE,
    GRASS,
    HOUSE,
    TREE,
    Scene,
    assemble,
    estimate_terrain,
)
from zoomloc.errors import ImageryError

SIDE_M, GSD_M = 200.0, 0.5
LIGHT = Light(grain=0.0)
EYE = {"x_m": 100.0, "y_m": 150.0, "height_m": 2.0}


def scene_of(boxes: list[tuple[float, float, float, float]], cover: int = BUILDING) -> Scene:
    """Flat ground with square boxes (x_m, y_m, side_m, high_m)."""
    count = int(SIDE_M / GSD_M)
    height = np.full((count, count), 50.0, np.float32)
    materials = np.zeros((6, count, count), np.uint8)
    materials[0] = GRASS
    colour = np.full((count, count, 3), (90, 130, 70), np.uint8)
    terrain = height.copy()
    for x_m, y_m, side_m, high_m in boxes:
        rows = slice(round((y_m - side_m / 2) / GSD_M), round((y_m + side_m / 2) / GSD_M))
        columns = slice(round((x_m - side_m / 2) / GSD_M), round((x_m + side_m / 2) / GSD_M))
        height[rows, columns] += high_m
        materials[0, rows, columns] = cover
        materials[1:4, rows, columns] = np.array([200, 60, 60])[:, None, None]
        materials[4, rows, columns] = HOUSE
        colour[rows, columns] = (150, 50, 40)
    pixels = assemble(colour, height, terrain, materials, GSD_M)
    return Scene(pixels, GSD_M, "EPSG:32633", Affine(GSD_M, 0, 500_000, 0, -GSD_M, 5_400_000))


def distances(scene: Scene, camera: Camera) -> np.ndarray:
    """(h, w) horizontal distance of what each pixel shows."""
    optics = perspective_optics(scene, camera)
    return render_canvas(scene, optics, camera.height_px, LIGHT)[:, :, 3].T


def columns_of_tower(scene: Scene, camera: Camera) -> np.ndarray:
    """Columns in which something stands above the horizon."""
    sky_free = distances(scene, camera)[camera.height_px // 2 - 3] < 1e6
    return np.flatnonzero(sky_free)


@pytest.mark.parametrize("offset_deg", [-28.0, -10.0, 0.0, 17.0, 33.0])
@pytest.mark.parametrize("bearing_deg", [0.0, 90.0, 215.0])
def test_a_tower_at_a_known_bearing_stands_in_the_right_column(bearing_deg, offset_deg):
    direction = math.radians(bearing_deg + offset_deg)
    x_m, y_m = 100 + 40 * math.sin(direction), 100 - 40 * math.cos(direction)
    scene = scene_of([(x_m, y_m, 3.0, 20.0)])
    camera = Camera(100.0, 100.0, bearing_deg, fov_deg=80.0)
    seen = columns_of_tower(scene, camera)
    focal_px = 128 / math.tan(math.radians(40))
    expected = 128 + focal_px * math.tan(math.radians(offset_deg))
    assert len(seen) > 0
    assert abs(seen.mean() + 0.5 - expected) < 3.0
    assert seen.max() - seen.min() + 1 == len(seen)  # one tower, not two


def test_a_wall_ends_in_the_rows_of_its_top_and_foot():
    scene = scene_of([(100.0, 100.0, 10.0, 8.0)])  # its south face is 45 m off
    camera = Camera(**EYE, bearing_deg=0.0, fov_deg=60.0, height_px=256)
    focal_px = 128 / math.tan(math.radians(30))
    wall = np.flatnonzero(np.abs(distances(scene, camera)[:, 128] - 45.0) < 0.5)
    assert abs(wall.min() - (128 - focal_px * (8.0 - 2.0) / 45)) <= 1.5
    assert abs(wall.max() - (128 + focal_px * 2.0 / 45)) <= 1.5


def test_nearer_is_taller_and_wider():
    near, far = (scene_of([(100.0, 150.0 - d, 6.0, 12.0)]) for d in (30.0, 60.0))
    camera = Camera(**EYE, bearing_deg=0.0)
    tall = [np.count_nonzero(distances(s, camera)[:60, 128] < 1e6) for s in (near, far)]
    wide = [len(columns_of_tower(s, camera)) for s in (near, far)]
    assert tall[0] > 1.5 * tall[1] > 0
    assert wide[0] > 1.5 * wide[1] > 0


def test_what_is_near_hides_what_is_far():
    scene = scene_of([(100.0, 120.0, 8.0, 10.0), (100.0, 80.0, 30.0, 9.0)])
    seen = distances(scene, Camera(**EYE, bearing_deg=0.0))
    assert abs(seen[60, 128] - 26.0) < 0.5  # the near one, although the far one is there as well
    beside = seen[60, 70:186]
    assert np.any(np.abs(beside * np.cos(0) - 55) < 8)  # left and right of it the far one


def test_pitch_and_roll_move_the_horizon():
    scene = scene_of([])
    level, up, rolled = (
        distances(scene, Camera(**EYE, bearing_deg=0.0, **tilt)) > 1e6
        for tilt in ({}, {"pitch_deg": 5.0}, {"roll_deg": 4.0})
    )
    rows = [sky.sum(0) for sky in (level, up, rolled)]
    focal_px = 128 / math.tan(math.radians(40))
    assert abs(rows[1][128] - rows[0][128] - focal_px * math.tan(math.radians(5))) < 1.5
    tilt = math.degrees(math.atan2(float(rows[2][20]) - float(rows[2][235]), 215))
    assert abs(tilt - 4.0) < 0.7


def test_a_crown_floats_over_its_trunk():
    top_m = 10.0
    scene = scene_of([(100.0, 130.0, 4.0, top_m * CROWN_MIDDLE)], cover=TREE)
    scene.pixels["height"][258:262, 198:202] = 50 + top_m  # its middle is higher than its rim
    scene.pixels["base"][scene.pixels["cover"] == TREE] = 50 + 3.0
    seen = distances(scene, Camera(**EYE, bearing_deg=0.0))
    column = seen[:, 128]
    focal_px = 128 / math.tan(math.radians(40))
    under = int(64 - focal_px * (2.4 - 2.0) / 20)  # a ray below the crown, above the eye
    inside = int(64 - focal_px * (4.5 - 2.0) / 20)
    assert column[under] > 1e6
    assert 15 < np.median(column[inside - 3 : inside + 3]) < 25


def test_panorama_and_perspective_agree():
    scene = scene_of(
        [(130.0, 120.0, 8.0, 14.0), (80.0, 125.0, 6.0, 9.0), (100.0, 60.0, 20.0, 18.0)]
    )
    camera = Camera(**EYE, bearing_deg=20.0, fov_deg=70.0, width_px=256, height_px=128)
    flat = render(scene, camera, LIGHT).astype(int)
    wide = Camera(**EYE, bearing_deg=20.0, fov_deg=360.0, width_px=1440, height_px=720)
    around = render_panorama(scene, wide, LIGHT).astype(int)
    focal_px = 128 / math.tan(math.radians(35))
    off_axis = np.arctan((np.arange(256) + 0.5 - 128) / focal_px)
    up = np.arctan((64 - np.arange(128) - 0.5)[:, None] / focal_px * np.cos(off_axis)[None, :])
    columns = (720 + off_axis * 1440 / (2 * np.pi)).astype(int)
    rows = (360 - up * 1440 / (2 * np.pi)).astype(int)
    same = np.abs(around[rows, columns[None, :]] - flat).max(2) < 25
    assert same.mean() > 0.93


def test_light_comes_from_the_sun():
    scene = scene_of([(100.0, 100.0, 20.0, 10.0)])
    camera = Camera(**EYE, bearing_deg=0.0)
    facing, turned = (
        render(scene, camera, Light(grain=0.0, sun_azimuth_deg=azimuth))[52:58, 110:146].mean()
        for azimuth in (180.0, 0.0)
    )
    assert facing > 1.3 * turned


def test_terrain_is_estimated_under_buildings():
    slope = np.linspace(0, 8, 400, dtype=np.float32)[:, None] + np.zeros(400, np.float32)
    surface = slope.copy()
    surface[100:150, 100:160] += 9
    assert np.abs(estimate_terrain(surface, 0.5) - slope)[40:360, 40:360].max() < 0.6


def write_raster(path: Path, bands: np.ndarray, crs: str, step: float, nodata=None) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=bands.shape[1], width=bands.shape[2],
        count=bands.shape[0], dtype=bands.dtype.name, crs=crs, nodata=nodata,
        transform=from_origin(636_000.0, 853_000.0, step, step),
    ) as raster:  # fmt: skip
        raster.write(bands)
    return path


def test_plain_rasters_in_feet_make_a_scene_in_metres(tmp_path):
    ortho = np.full((3, 600, 600), 120, np.uint8)
    surface = np.full((1, 300, 300), 100.0, np.float32)
    surface[0, 100:140, 100:140] = 112.0
    surface[0, 290:, :] = -9999.0
    scene = Scene.from_rasters(
        write_raster(tmp_path / "o.tif", ortho, "EPSG:2994", 1.0),
        write_raster(tmp_path / "s.tif", surface, "EPSG:2994", 2.0, nodata=-9999.0),
    )
    assert scene.gsd_m == pytest.approx(0.6096)
    assert scene.size_m == pytest.approx((182.88, 182.88))
    assert scene.pixels["height"].min() > 99
    middle = scene.to_latlng(73.152, 73.152)
    assert scene.to_xy(middle) == pytest.approx((73.152, 73.152), abs=1e-3)
    # stand 40 m south of the house, by map coordinates and true bearing: it is straight ahead
    camera = camera_at(scene, scene.to_latlng(73.152, 125.0), -scene.north_deg(), fov_deg=60.0)
    seen = columns_of_tower(scene, camera)
    assert abs(seen.mean() + 0.5 - 128) < 3


@pytest.mark.parametrize("crs", ["EPSG:4326", None])
def test_rasters_without_metres_are_refused(tmp_path, crs):
    path = write_raster(tmp_path / "o.tif", np.zeros((3, 8, 8), np.uint8), crs, 1e-6)
    with pytest.raises(ImageryError, match="projected CRS"):
        Scene.from_rasters(path, path)


def test_files_that_are_no_rasters_are_refused(tmp_path):
    path = tmp_path / "o.tif"
    path.write_bytes(b"no picture")
    with pytest.raises(ImageryError, match=r"o\.tif"):
        Scene.from_rasters(path, path)


@pytest.mark.skipif(
    not os.environ.get("ZOOMLOC_REAL_DATA"), reason="ZOOMLOC_REAL_DATA names no folder"
)
def test_real_lidar_and_orthophoto_are_seen_from_the_street():
    folder = Path(os.environ["ZOOMLOC_REAL_DATA"]) / "autzen-eugene"
    scene = Scene.from_rasters(
        folder / "ortho.tif", folder / "dsm.tif", folder / "dtm_estimated.tif"
    )
    assert scene.gsd_m == pytest.approx(0.6096, abs=1e-4)
    assert scene.size_m[0] == pytest.approx(661, abs=2)
    picture = render(scene, Camera(330.0, 600.0, 0.0), Light())
    sky = distances(scene, Camera(330.0, 600.0, 0.0)) > 1e6
    assert 0.1 < sky.mean() < 0.6  # open country
    assert not sky[100:].any()
    assert picture[~sky].std() > 15
