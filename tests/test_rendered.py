"""Photos rendered from an orthophoto and a surface model, in a CRS of feet."""

import csv
import hashlib
import math
import os
from pathlib import Path

import numpy as np
import pytest
from photo_files import read_folder
from PIL import Image
from pyproj import Geod, Transformer
from raster_files import write_tif

from data_prep.real_place import RealPlace
from data_prep.render import Light, camera_at, render
from data_prep.rendered import build_rendered
from data_prep.rendered_poses import street_ground
from data_prep.scene import BUILDING, TREE
from zoomloc.errors import ConfigError, ImageryError
from zoomloc.world.cells import LatLng
from zoomloc.world.photos import read_photos

FEET = "EPSG:2994"
CORNER_FT = (636_000.0, 852_000.0)
SIDE = 360  # pixels of 2 ft: 219 m
PIXEL_FT = 2.0
FOOT_M = 0.3048
GROUND_M = 120.0
PHOTOS = 36


def rasters(folder: Path) -> tuple[Path, Path, Path]:
    """Two crossing roads in a meadow, four halls of 9 m, rough trees, a hole in the surface."""
    rng = np.random.default_rng(1)
    colour = np.empty((3, SIDE, SIDE), np.float32)
    colour[:] = np.array([96, 132, 70])[:, None, None]
    for road in (np.s_[:, 100:125, :], np.s_[:, :, 200:225]):
        colour[road] = 140
    height = np.full((SIDE, SIDE), GROUND_M, np.float32)
    for n, (i, j) in enumerate(((60, 60), (60, 260), (260, 60), (260, 260))):
        height[i - 18 : i + 18, j - 18 : j + 18] += 9
        colour[:, i - 18 : i + 18, j - 18 : j + 18] = np.array([150 + 20 * n, 90, 80])[
            :, None, None
        ]
    wood = np.s_[150:180, 120:180]
    height[wood] += rng.uniform(3, 12, (30, 60)).astype(np.float32)
    colour[(slice(None), *wood)] = np.array([50, 84, 44])[:, None, None]
    height[:, :20] = -9999
    colour += rng.normal(0, 3, colour.shape)
    seen = np.repeat(np.repeat(colour, 2, 1), 2, 2).clip(0, 255).astype(np.uint8)
    ground = np.full((1, SIDE, SIDE), GROUND_M, np.float32)
    place = {"crs": FEET, "corner": CORNER_FT}
    return (
        write_tif(folder / "ortho.tif", seen, pixel=PIXEL_FT / 2, **place),
        write_tif(folder / "surface.tif", height[None], pixel=PIXEL_FT, nodata=-9999.0, **place),
        write_tif(folder / "terrain.tif", ground, pixel=PIXEL_FT, **place),
    )


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "rendered.json"
    }


def truth_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "truth.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def pixels_of(rows: list[dict[str, str]]) -> np.ndarray:
    """(N, 2) row, column of the surface's pixels, by the CRS in feet alone."""
    to_feet = Transformer.from_crs(4326, FEET, always_xy=True)
    x_ft, y_ft = to_feet.transform(*([float(row[k]) for row in rows] for k in ("lng", "lat")))
    return np.column_stack(
        [(CORNER_FT[1] - np.array(y_ft)) / PIXEL_FT, (np.array(x_ft) - CORNER_FT[0]) / PIXEL_FT]
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> tuple[Path, Path, Path]:
    return rasters(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def rendered(place, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("rendered") / "r"
    summary = build_rendered(*place, out, PHOTOS, 3, 96, 48)
    assert summary.photos == PHOTOS
    return out


def test_photos_stand_on_paved_open_ground(rendered):
    at = pixels_of(truth_of(rendered))
    assert len(at) == PHOTOS
    on_road = (np.abs(at[:, 0] - 112.5) < 12.5) | (np.abs(at[:, 1] - 212.5) < 12.5)
    assert on_road.all()
    edge_px = 20 / FOOT_M / PIXEL_FT
    assert at.min() > edge_px and at.max() < SIDE - edge_px
    assert at[:, 1].min() > 20 + edge_px - 1  # of the surface, too


def test_walks_are_short_and_their_frames_some_metres_apart(rendered):
    walks: dict[str, list[dict[str, str]]] = {}
    for row in truth_of(rendered):
        walks.setdefault(row["file"].split("/")[0], []).append(row)
    assert len(walks) >= 3
    assert sorted(len(rows) for rows in walks.values())[1] >= 5  # the last one may be cut
    assert max(len(rows) for rows in walks.values()) <= 15
    for rows in walks.values():
        at_m = pixels_of(rows) * PIXEL_FT * FOOT_M
        gaps_m = np.hypot(*np.diff(at_m, axis=0).T)
        assert ((gaps_m > 4.9) & (gaps_m < 10.1)).all()


def test_the_folder_is_read_like_a_users_own(rendered, tmp_path):
    found = read_folder(rendered / "photos", tmp_path)
    assert found.photos == found.with_truth == PHOTOS and not found.skipped
    assert PHOTOS / 3 < found.with_bearing < PHOTOS
    errors_m, turns_deg = [], []
    for photo in read_photos(tmp_path / "photos.parquet"):
        assert photo.true_lat is not None and photo.fov_deg is not None
        geod = Geod(ellps="WGS84")
        errors_m.append(geod.inv(photo.lng, photo.lat, photo.true_lng, photo.true_lat)[2])
        assert 55 < photo.fov_deg < 105 and photo.captured_at is not None
        if photo.bearing_deg is not None:
            turns_deg.append((photo.bearing_deg - photo.true_bearing_deg + 180) % 360 - 180)
    assert 0.5 < np.mean(errors_m) < 6 and max(errors_m) < 15
    assert 0 < np.std(turns_deg) < 12


def test_photos_show_what_lies_ahead(place, rendered):
    """A photo resembles a plain rendering at its true pose more than one turned aside."""
    scene = RealPlace(*place, seed=3).scene
    right, wrong = [], []
    for row in truth_of(rendered)[::2]:
        with Image.open(rendered / "photos" / row["file"]) as image:
            photo = np.asarray(image.convert("L"), float)
            focal_35mm = image.getexif().get_ifd(0x8769)[0xA405]
        lens = {"fov_deg": math.degrees(2 * math.atan(18 / focal_35mm))}
        spot = LatLng(float(row["lat"]), float(row["lng"]))
        for turn, found in ((0, right), (100, wrong)):
            bearing_deg = float(row["bearing_deg"]) + turn
            camera = camera_at(scene, spot, bearing_deg, width_px=96, height_px=48, **lens)
            view = render(scene, camera, Light()).mean(2)
            found.append(np.corrcoef(photo.ravel(), view.ravel())[0, 1])
    assert np.mean(right) > np.mean(wrong) + 0.1


def test_roofs_are_told_from_crowns(place):
    scene = RealPlace(*place, seed=3).scene
    cover = scene.pixels["cover"]
    for i, j in ((60, 60), (60, 260), (260, 60), (260, 260)):
        hall = cover[i - 18 : i + 18, j - 18 : j + 18]
        assert (hall == BUILDING).all()
        assert len(np.unique(scene.pixels["wall_red"][i - 18 : i + 18, j - 18 : j + 18])) == 1
    assert (cover[152:178, 122:178] >= TREE).mean() > 0.95
    assert (cover >= BUILDING).sum() < 4 * 36**2 + 30 * 60 + 60


def test_every_day_has_its_own_colours_and_none_the_maps(place):
    spot = RealPlace(*place, seed=3)
    plain = spot.scene.pixels["red"].astype(int)
    days = [spot.dressed(None, np.random.default_rng(n)).pixels for n in (1, 2)]  # type: ignore
    for other in (plain, days[1]["red"].astype(int)):
        assert np.abs(days[0]["red"].astype(int) - other).mean() > 4
    assert (days[0]["height"] == spot.scene.pixels["height"]).all()


def test_water_shade_and_lawns_are_no_streets(place):
    spot = RealPlace(*place, seed=3)
    before = street_ground(spot.scene, spot.known())
    pixels = spot.scene.pixels
    for band, river in (("red", 78), ("green", 84), ("blue", 82)):
        pixels[band][100:125, 40:90] = river  # dark and grey: wet, or in shadow
        pixels[band][230:330, 200:225] = 140 if band != "green" else 150  # artificial lawn
    after = street_ground(spot.scene, spot.known())
    assert min(before[105:120, 60:88].mean(), before[235:320, 206:219].mean()) > 0.98
    assert not after[100:125, 40:88].any() and not after[232:328].any()


def test_same_seed_same_bytes_and_other_seeds_other_places(place, rendered, tmp_path):
    told = []
    build_rendered(*place, tmp_path / "a", PHOTOS, 3, 96, 48, 1, lambda *seen: told.append(seen))
    assert digests(tmp_path / "a") == digests(rendered)
    assert told[0] == ("ground", 0, 1) and told[-1] == ("photos", PHOTOS, PHOTOS)
    build_rendered(*place, tmp_path / "b", 6, 4, 96, 48)
    assert truth_of(tmp_path / "b")[0] != truth_of(rendered)[0]


def test_a_half_finished_folder_is_finished_and_a_finished_one_left_alone(
    place, rendered, tmp_path
):
    out = tmp_path / "r"

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "photos" and done > 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_rendered(*place, out, PHOTOS, 3, 96, 48, progress=stop)
    assert not (out / "rendered.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    assert len(kept) > 8
    with pytest.raises(ConfigError, match="other parameters"):
        build_rendered(*place, out, PHOTOS + 1, 3, 96, 48)
    first = build_rendered(*place, out, PHOTOS, 3, 96, 48)
    assert digests(out) == digests(rendered)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert build_rendered(*place, out, PHOTOS, 3, 96, 48) == first
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_rasters_that_do_not_fit_are_refused_in_one_line(place, tmp_path):
    ortho, surface, terrain = place
    out = tmp_path / "r"
    far = (CORNER_FT[0] + 50_000, CORNER_FT[1])
    blank = np.full((1, SIDE, SIDE), GROUND_M, np.float32)
    feet = {"crs": FEET, "corner": CORNER_FT}
    elsewhere = write_tif(tmp_path / "e.tif", blank, crs=FEET, corner=far, pixel=PIXEL_FT)
    metres = write_tif(tmp_path / "m.tif", blank, crs="EPSG:32610", pixel=PIXEL_FT)
    lawn = np.repeat(np.array([60, 140, 50], np.uint8), 4 * SIDE**2).reshape(3, 2 * SIDE, -1)
    meadow = write_tif(tmp_path / "g.tif", lawn, pixel=PIXEL_FT / 2, **feet)
    for bad, match in (
        ((tmp_path / "none.tif", surface, terrain), r"none\.tif: no such raster"),
        ((ortho, surface, tmp_path / "none.tif"), r"none\.tif: no such raster"),
        ((surface, surface, terrain), "orthophoto in colour"),
        ((ortho, surface, elsewhere), "does not cover"),
        ((ortho, surface, metres), "differ in CRS"),
        ((ortho, elsewhere, elsewhere), "do not overlap"),
        ((meadow, surface, terrain), "0 of 10 photos found a place"),
    ):
        with pytest.raises(ImageryError, match=match) as caught:
            build_rendered(*bad, out, 10, 1)
        assert "\n" not in str(caught.value)
        assert not (out / "rendered.json").exists()
        for marker in out.glob("rendered.begun.json"):
            marker.unlink()


@pytest.mark.parametrize(("photos", "width_px"), [(0, 96), (-1, 96), (5, 3), (5, 9999)])
def test_senseless_numbers_are_refused(place, tmp_path, photos, width_px):
    with pytest.raises(ConfigError, match="photos"):
        build_rendered(*place, tmp_path / "r", photos, 1, width_px, 48)
    assert not (tmp_path / "r").exists()


@pytest.mark.skipif(
    not os.environ.get("ZOOMLOC_REAL_DATA"), reason="ZOOMLOC_REAL_DATA names no folder"
)
def test_the_real_place_has_streets_to_walk_on(tmp_path):
    folder = Path(os.environ["ZOOMLOC_REAL_DATA"]) / "autzen-eugene"
    sources = [folder / f"{name}.tif" for name in ("ortho", "dsm", "dtm_estimated")]
    summary = build_rendered(*sources, tmp_path / "r", 60, 1)
    assert summary.photos == 60 and 30_000 < summary.ground_m2 < 80_000
    table = read_folder(tmp_path / "r/photos", tmp_path).table
    to_feet = Transformer.from_crs(4326, FEET, always_xy=True)
    for photo in read_photos(table):
        x_ft, y_ft = to_feet.transform(photo.true_lng, photo.true_lat)
        assert 635_680 < x_ft < 637_720 and 850_200 < y_ft < 853_300  # north of the river
    pictures = np.stack([np.asarray(Image.open(path)) for path in tmp_path.rglob("*.jpg")])
    assert pictures.std((1, 2)).mean() > 20
    bluer = pictures[..., 2].astype(int) - pictures[..., 0]
    assert bluer[:, :8].mean() > bluer[:, -8:].mean() + 15  # sky above, ground below
