"""The synthetic town: what its files hold, and that the same seed gives the same bytes."""

import csv
import hashlib
import json
import math
import shutil
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from pyproj import Geod
from shapely.geometry import LineString, Point

from data_prep import town as town_module
from data_prep.drives import plan_days, sun_at, under_one_light
from data_prep.scene import Scene
from data_prep.town import PhotoPlan, build_town
from data_prep.town_light import cast_shadow
from data_prep.town_streets import PATTERNS, lay_streets
from zoomloc.errors import ConfigError, OutputError
from zoomloc.world.cells import LatLng

PLAN = PhotoPlan(train_photos=40, test_photos=12, width_px=96, height_px=48)
SIZE_M = 200.0


def digests(folder: Path) -> dict[str, str]:
    """Every file of a town but town.json, which holds the time it took."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "town.json"
    }


def truth_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "truth.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def exif_of(path: Path) -> tuple[dict[int, object], dict[int, object]]:
    """Camera and GPS directories, as Pillow reads them."""
    with Image.open(path) as image:
        exif = image.getexif()
        return dict(exif.get_ifd(0x8769)), dict(exif.get_ifd(0x8825))


def degrees(values, ref: str) -> float:
    whole = float(values[0]) + float(values[1]) / 60 + float(values[2]) / 3600
    return -whole if ref in "SW" else whole


@pytest.fixture(scope="module")
def town(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("town") / "t"
    build_town(out, 7, SIZE_M, PLAN)
    return out


@pytest.fixture(scope="module")
def drives(town) -> dict[str, list[dict[str, str]]]:
    found = defaultdict(list)
    for row in truth_of(town):
        found[row["file"].split("/")[0]].append(row)
    return found


def test_same_seed_same_bytes_with_any_number_of_workers(town, tmp_path):
    stages = []
    summary = build_town(tmp_path / "again", 7, SIZE_M, PLAN, 2, lambda *seen: stages.append(seen))
    assert digests(tmp_path / "again") == digests(town)
    assert summary.photos == 52
    assert stages[0] == ("town", 0, 4)
    assert stages[-1] == ("photos", 52, 52)


def test_other_seeds_are_other_towns_elsewhere(town, tmp_path):
    build_town(tmp_path / "other", 8, SIZE_M, PhotoPlan(4, 2, 64, 32))
    with (
        rasterio.open(town / "ortho.tif") as one,
        rasterio.open(tmp_path / "other/ortho.tif") as two,
    ):
        assert one.bounds != two.bounds
        assert np.abs(one.read().astype(int) - two.read()).mean() > 15


def test_rasters_are_utm_at_half_a_metre_and_mid_latitude(town):
    with rasterio.open(town / "ortho.tif") as ortho, rasterio.open(town / "surface.tif") as surface:
        assert ortho.crs.to_dict()["proj"] == "utm"
        assert ortho.count == 3 and ortho.dtypes[0] == "uint8"
        assert surface.dtypes == ("float32",)
        assert ortho.res == surface.res == (0.5, 0.5)
        assert ortho.transform == surface.transform
        assert ortho.shape == surface.shape == (400, 400)
        heights = surface.read(1)
        scene = Scene.from_rasters(town / "ortho.tif", town / "surface.tif")
    middle = scene.to_latlng(SIZE_M / 2, SIZE_M / 2)
    assert 38 <= abs(middle.lat) <= 52
    assert 4 < heights.max() - np.median(heights) < 50


def test_truth_lists_every_photo_with_forward_slashes(town):
    listed = [row["file"] for row in truth_of(town)]
    there = [path.relative_to(town / "photos").as_posix() for path in town.rglob("*.jpg")]
    assert sorted(listed) == sorted(there)
    assert len(listed) == 52


def test_exif_is_the_truth_up_to_errors_of_position_and_compass(town):
    errors_m, turns_deg, missing = [], [], 0
    for row in truth_of(town):
        _, world = exif_of(town / "photos" / row["file"])
        lat, lng = degrees(world[2], world[1]), degrees(world[4], world[3])
        _, _, error_m = Geod(ellps="WGS84").inv(float(row["lng"]), float(row["lat"]), lng, lat)
        errors_m.append(error_m)
        assert 1 <= float(world[31]) <= 7
        if 17 not in world:
            missing += 1
            continue
        assert world[16] == "T"
        turn = float(world[17]) - float(row["bearing_deg"])
        turns_deg.append((turn + 180) % 360 - 180)
    assert max(errors_m) < 15
    assert 1 < np.mean(errors_m) < 6
    assert 1 < np.std(turns_deg) < 12
    assert 0 < missing < 0.7 * len(errors_m)


def test_exif_tells_lens_and_time(town):
    for row in truth_of(town)[::7]:
        camera, world = exif_of(town / "photos" / row["file"])
        focal_35mm = camera[0xA405]
        assert 58 < math.degrees(2 * math.atan(18 / focal_35mm)) < 102
        assert float(camera[0x920A]) < focal_35mm
        local = datetime.strptime(f"{camera[0x9003]}{camera[0x9011]}", "%Y:%m:%d %H:%M:%S%z")
        utc = [int(float(part)) for part in world[7]]
        assert [local.utctimetuple()[k] for k in (3, 4, 5)] == utc
        assert row["file"].startswith(local.strftime("%Y-%m-%d_d"))
        with Image.open(town / "photos" / row["file"]) as image:
            assert image.size == (96, 48)
            tags = image.getexif()
            assert (tags[0x010F], tags[0x0112]) == ("zoomloc", 1)


def test_frames_of_a_drive_lie_some_metres_apart(drives):
    gaps_m = []
    for rows in drives.values():
        for before, after in zip(rows, rows[1:], strict=False):
            lngs, lats = (
                (float(before["lng"]), float(after["lng"])),
                (
                    float(before["lat"]),
                    float(after["lat"]),
                ),
            )
            gaps_m.append(Geod(ellps="WGS84").inv(lngs[0], lats[0], lngs[1], lats[1])[2])
    assert len(gaps_m) > 20
    assert min(gaps_m) > 3 and max(gaps_m) < 12


def test_several_training_days_and_a_later_test_day(drives):
    days = sorted({name[:10] for name in drives})
    photos = {
        day: sum(len(rows) for name, rows in drives.items() if name[:10] == day) for day in days
    }
    assert len(days) >= 5
    assert photos[days[-1]] == 12  # the test photos
    assert days[-1][:4] > days[-2][:4]


def test_photos_stand_on_streets(town):
    roads = json.loads((town / "roads.geojson").read_text())
    with rasterio.open(town / "ortho.tif") as ortho:
        scene = Scene.from_rasters(town / "ortho.tif", town / "surface.tif")
        inside = ortho.bounds
    lines = np.array(
        [
            scene.to_xy(LatLng(lat, lng))
            for road in roads["features"]
            for lng, lat in road["geometry"]["coordinates"]
        ]
    )
    assert {road["properties"]["class"] for road in roads["features"]} <= {
        "arterial",
        "street",
        "lane",
    }
    for row in truth_of(town):
        x_m, y_m = scene.to_xy(LatLng(float(row["lat"]), float(row["lng"])))
        assert 10 < x_m < inside.right - inside.left - 10
        assert np.hypot(*(lines - (x_m, y_m)).T).min() < 13


def test_photos_look_along_the_true_bearing(town):
    """A photo shows at its own pose what a rendering of the plain rasters shows there."""
    from data_prep.render import Light, camera_at, render

    scene = Scene.from_rasters(
        town / "ortho.tif", town / "surface.tif", town / "terrain.tif", town / "materials.tif"
    )
    right, wrong = [], []
    for row in truth_of(town)[::4]:
        with Image.open(town / "photos" / row["file"]) as image:
            photo = np.asarray(image.convert("L"), float)
        focal_35mm = exif_of(town / "photos" / row["file"])[0][0xA405]
        lens = {
            "fov_deg": math.degrees(2 * math.atan(18 / focal_35mm)),
            "width_px": 96,
            "height_px": 48,
        }
        place = LatLng(float(row["lat"]), float(row["lng"]))
        for turn, found in ((0, right), (120, wrong)):
            bearing_deg = float(row["bearing_deg"]) + turn
            view = render(scene, camera_at(scene, place, bearing_deg, **lens), Light()).mean(2)
            found.append(np.corrcoef(photo.ravel(), view.ravel())[0, 1])
    assert np.mean(right) > np.mean(wrong) + 0.15


SCATTERED = PhotoPlan(230, 30, 32, 16, nuisances=False, scattered=True)


@pytest.fixture(scope="module")
def scattered(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("scattered") / "t"
    build_town(out, 7, SIZE_M, SCATTERED)
    return out


def test_scattered_photos_are_exactly_as_many_in_groups_of_a_day(scattered):
    groups = Counter(row["file"].split("/")[0] for row in truth_of(scattered))
    assert sorted(groups.values()) == [30, 30, 100, 100]
    assert len({name[:10] for name in groups}) == 4
    newest, before = sorted((date.fromisoformat(name[:10]) for name in groups), reverse=True)[:2]
    assert groups[max(groups)] == 30  # the test photos
    assert newest - before > timedelta(days=120)


def test_scattered_photos_lie_anywhere_on_the_streets_and_look_along_them(scattered):
    scene = Scene.from_rasters(scattered / "ortho.tif", scattered / "surface.tif")
    roads = json.loads((scattered / "roads.geojson").read_text())
    lines = [
        LineString([scene.to_xy(LatLng(lat, lng)) for lng, lat in road["geometry"]["coordinates"]])
        for road in roads["features"]
    ]
    away_m, turns_deg, points = [], [], []
    for row in truth_of(scattered):
        point = Point(scene.to_xy(LatLng(float(row["lat"]), float(row["lng"]))))
        line = min(lines, key=point.distance)
        at = line.project(point)
        a, b = line.interpolate(max(at - 1, 0)), line.interpolate(min(at + 1, line.length))
        street_deg = math.degrees(math.atan2(b.x - a.x, a.y - b.y)) - scene.north_deg()
        turns_deg.append((float(row["bearing_deg"]) - street_deg + 90) % 180 - 90)
        away_m.append(point.distance(line))
        points.append((point.x, point.y))
    assert max(away_m) < 3.2 and np.mean(away_m) > 0.4
    assert np.median(np.abs(turns_deg)) == pytest.approx(0.674 * 10, abs=2)  # of N(0, 10)
    jumps_m = np.hypot(*np.diff(points, axis=0).T)
    assert np.median(jumps_m) > 40  # no drives
    bearings = np.array([float(row["bearing_deg"]) for row in truth_of(scattered)])
    for quarter in range(4):
        assert (bearings // 90 == quarter).sum() > 15


def test_plain_scattered_photos_have_one_rig_one_light_and_no_errors(scattered):
    for row in truth_of(scattered)[::9]:
        camera, world = exif_of(scattered / "photos" / row["file"])
        assert camera[0xA405] == 20
        assert degrees(world[2], world[1]) == pytest.approx(float(row["lat"]), abs=1e-7)
        assert degrees(world[4], world[3]) == pytest.approx(float(row["lng"]), abs=1e-7)
        assert float(world[17]) == pytest.approx(float(row["bearing_deg"]), abs=0.011)
    days = plan_days(np.random.default_rng(1), 48.0, 9.0, 0.0, nuisances=False)
    assert len({day.light for day in days}) == len(days)
    assert {day.light for day in under_one_light(days)} == {days[0].light}
    assert [day.date for day in under_one_light(days)] == [day.date for day in days]


def test_a_town_of_drives_does_not_mention_scattering_and_is_told_from_one(
    town, scattered, tmp_path
):
    assert "scattered" not in json.loads((town / "town.json").read_text())["photos"]
    assert json.loads((scattered / "town.json").read_text())["photos"]["scattered"] is True
    assert build_town(scattered, 7, SIZE_M, SCATTERED).photos == 260
    for out, plan in ((town, replace(PLAN, scattered=True)), (scattered, PLAN)):
        with pytest.raises(ConfigError, match="other parameters"):
            build_town(out, 7, SIZE_M, plan)


def test_a_finished_town_is_left_alone(town):
    before = {path: path.stat().st_mtime_ns for path in town.rglob("*")}
    summary = build_town(town, 7, SIZE_M, PLAN)
    assert {path: path.stat().st_mtime_ns for path in town.rglob("*")} == before
    assert summary.photos == 52 and summary.roads_m > 200


def test_a_half_finished_town_is_finished_and_no_other_one_taken_for_it(
    town, tmp_path, monkeypatch
):
    out = tmp_path / "t"

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "photos" and done > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_town(out, 7, SIZE_M, PLAN, progress=stop)
    assert not (out / "town.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    assert len(kept) > 10
    with pytest.raises(ConfigError, match="other parameters"):
        build_town(out, 8, SIZE_M, PLAN)
    build_town(out, 7, SIZE_M, PLAN)
    assert digests(out) == digests(town)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.parametrize("size_m", [0, -5, 99, 5001, float("nan")])
def test_absurd_sizes_are_refused(tmp_path, size_m):
    with pytest.raises(ConfigError, match=r"--size-m.*100 to 5000 m"):
        build_town(tmp_path / "t", 1, size_m, PLAN)
    assert not (tmp_path / "t").exists()


def test_strange_folders_and_photo_plans_are_refused(tmp_path):
    (tmp_path / "mine/photos").mkdir(parents=True)
    with pytest.raises(ConfigError, match="another folder"):
        build_town(tmp_path / "mine", 1, SIZE_M, PLAN)
    with pytest.raises(ConfigError, match="photos"):
        build_town(tmp_path / "t", 1, SIZE_M, PhotoPlan(train_photos=-1))
    with pytest.raises(ConfigError, match="px"):
        build_town(tmp_path / "t", 1, SIZE_M, PhotoPlan(width_px=3))


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="run again"):
        build_town(tmp_path / "file", 1, SIZE_M, PLAN)


def test_a_full_disk_loses_nothing(town, tmp_path, monkeypatch):
    out = tmp_path / "t"
    shutil.copytree(town, out)
    (out / "town.json").rename(out / "town.begun.json")
    (out / "ortho.tif").unlink()
    before = digests(out)

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(town_module, "_write", full)
    with pytest.raises(OutputError, match="No space left"):
        build_town(out, 7, SIZE_M, PLAN)
    assert digests(out) == before


@pytest.mark.parametrize("pattern", PATTERNS)
def test_streets_hang_together(pattern):
    streets = lay_streets(np.random.default_rng(3), 600.0, pattern)
    reached, grew = {streets[0].nodes[0]}, True
    while grew:
        fresh = {n for s in streets if reached & set(s.nodes) for n in s.nodes} - reached
        reached, grew = reached | fresh, bool(fresh)
    assert reached == {node for street in streets for node in street.nodes}
    assert 3000 < sum(street.line.length for street in streets) < 14000
    assert {street.rank for street in streets} == {0, 1, 2}


def test_shadows_point_away_from_the_sun():
    height = np.zeros((80, 80), np.float32)
    height[40, 40] = 10.0
    lit = cast_shadow(height, 0.0, 0.7, 1.0, 0.5)  # sun in the south: the shadow falls north
    assert lit[30, 40] == 0 and lit[21, 40] == 0
    assert lit[18, 40] == 255 and lit[50, 40] == 255  # 10 m high at 45 degrees: 20 pixels
    assert lit[35, 60] == 255


def test_the_sun_stands_where_almanacs_say():
    azimuth_deg, elevation_deg = sun_at(48.0, 172, 12.0)
    assert azimuth_deg == pytest.approx(180, abs=1)
    assert elevation_deg == pytest.approx(90 - 48 + 23.4, abs=1)
    assert sun_at(-40.0, 355, 12.0)[0] % 360 == pytest.approx(0, abs=1)
    assert sun_at(48.0, 172, 8.0)[0] < 120 < 240 < sun_at(48.0, 172, 16.0)[0]
