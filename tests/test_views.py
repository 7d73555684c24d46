"""Perspective views out of panoramas: what stands where, and what is known of them."""

import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.photos import views
from data_prep.photos.views import perspective, views_of
from zoomloc.errors import OutputError, PhotoError
from zoomloc.world.images import load_rgb
from zoomloc.world.photos import Photo, read_photos, write_photos

WIDE, HIGH = 2880, 1440  # eight pixels a degree


def panorama(path: Path, marks: dict[float, tuple[int, int, int]], wide: int = WIDE) -> Path:
    """Grey with an upright of one degree at each azimuth, which counts from the middle column."""
    pixels = np.full((wide // 2, wide, 3), 90, np.uint8)
    for azimuth, colour in marks.items():
        middle = (azimuth / 360 + 0.5) * wide
        columns = np.arange(round(middle - wide / 720), round(middle + wide / 720)) % wide
        pixels[:, columns] = colour
    Image.fromarray(pixels).save(path)
    return path


def photo(path: Path, **changes: Any) -> Photo:
    known: dict[str, Any] = {
        "id": "drive/pano 1.jpg", "path": path, "lat": 48.1, "lng": -1.7, "bearing_deg": 350.0,
        "fov_deg": 360.0, "projection": "equirectangular",
        "captured_at": datetime(2024, 5, 1, 12, tzinfo=UTC), "sequence_id": "drive",
        "source": "mapillary", "licence": "CC-BY-SA-4.0", "creator": "Ana",
        "position_error_m": 3.0, "true_lat": 48.2, "true_lng": -1.6, "true_bearing_deg": 352.0,
    }  # fmt: skip
    return Photo(**(known | changes))


def column_of(view: np.ndarray, colour: tuple[int, int, int]) -> float:
    """The middle of what has a colour, in the middle row; the pixel's centre is at its index."""
    row = view[view.shape[0] // 2].astype(float)
    near = np.abs(row - np.array(colour)).sum(axis=1) < 120
    assert near.any()
    return float(np.flatnonzero(near).mean())


def expected_column(width: int, fov_deg: float, azimuth_deg: float) -> float:
    focal_px = width / 2 / math.tan(math.radians(fov_deg / 2))
    return (width - 1) / 2 + focal_px * math.tan(math.radians(azimuth_deg))


RED, GREEN, BLUE, WHITE = (230, 20, 20), (20, 220, 20), (30, 30, 240), (250, 250, 250)


@pytest.mark.parametrize("fov", [50.0, 90.0, 120.0])
def test_marks_stand_in_the_columns_of_their_azimuths(tmp_path: Path, fov: float) -> None:
    marks = {0.0: RED, 20.0: GREEN, -17.0: BLUE}
    path = panorama(tmp_path / "a.png", marks)
    view = perspective(load_rgb(path), 360.0, 0.0, fov)
    for azimuth, colour in marks.items():
        assert column_of(view, colour) == pytest.approx(
            expected_column(view.shape[1], fov, azimuth), abs=1.0
        )


@pytest.mark.parametrize("turn", [0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0])
def test_every_direction_round_the_seam_too(tmp_path: Path, turn: float) -> None:
    path = panorama(tmp_path / "a.png", {turn: RED, turn + 30: GREEN, turn - 30: BLUE})
    view = perspective(load_rgb(path), 360.0, turn, 90.0)
    for azimuth, colour in ((0.0, RED), (30.0, GREEN), (-30.0, BLUE)):
        expected = expected_column(view.shape[1], 90.0, azimuth)
        assert column_of(view, colour) == pytest.approx(expected, abs=1.0)


def test_pitch_is_level_and_uprights_stay_upright(tmp_path: Path) -> None:
    """The horizon is the middle row; a mark 20 degrees up stands f tan(20) above it."""
    pixels = np.full((HIGH, WIDE, 3), 90, np.uint8)
    rows = np.arange(HIGH)
    up = 90 - (rows + 0.5) * 180 / HIGH
    pixels[np.abs(up) < 0.5] = RED
    pixels[np.abs(up - 20) < 0.5] = GREEN
    view = perspective(pixels, 360.0, 70.0, 90.0)
    height, width = view.shape[:2]
    middle = view[:, width // 2].astype(float)
    focal_px = width / 2
    for colour, pitch in ((RED, 0), (GREEN, 20)):
        row = np.flatnonzero(np.abs(middle - np.array(colour)).sum(axis=1) < 120).mean()
        expected = (height - 1) / 2 - focal_px * math.tan(math.radians(pitch))
        assert row == pytest.approx(expected, abs=1.0)
    path = panorama(tmp_path / "a.png", {30.0: RED})
    view = perspective(load_rgb(path), 360.0, 0.0, 90.0)
    red = np.abs(view.astype(float) - np.array(RED)).sum(axis=2) < 120
    columns = [np.flatnonzero(row).mean() for row in red]
    assert max(columns) - min(columns) < 1.0


def test_between_pixels_it_is_bilinear() -> None:
    """A ramp stays a ramp: no steps of the nearest pixel."""
    ramp = np.zeros((180, 360, 3), np.uint8)
    ramp[..., :] = np.clip(np.arange(360) - 50, 0, 255)[None, :, None]
    view = perspective(ramp, 360.0, 0.0, 60.0)
    middle = view[view.shape[0] // 2, :, 0].astype(float)
    focal_px = view.shape[1] / 2 / math.tan(math.radians(30))
    across = np.arange(view.shape[1]) - (view.shape[1] - 1) / 2
    expected = np.degrees(np.arctan2(across, focal_px)) + 179.5 - 50
    assert np.abs(middle - expected).max() <= 0.51


def test_views_know_what_the_panorama_knew(tmp_path: Path) -> None:
    path = panorama(tmp_path / "a.jpg", {0.0: RED, 90.0: GREEN, 180.0: BLUE, 270.0: WHITE})
    found = views_of(photo(path), 4, 80.0, tmp_path / "views")
    assert [v.bearing_deg for v in found] == [350.0, 80.0, 170.0, 260.0]
    assert [v.true_bearing_deg for v in found] == [352.0, 82.0, 172.0, 262.0]
    assert {(v.true_lat, v.true_lng, v.lat, v.lng) for v in found} == {(48.2, -1.6, 48.1, -1.7)}
    assert {v.sequence_id for v in found} == {"drive"} and len({v.id for v in found}) == 4
    assert {(v.fov_deg, v.projection) for v in found} == {(80.0, "perspective")}
    assert {(v.creator, v.licence, v.source) for v in found} == {
        ("Ana", "CC-BY-SA-4.0", "mapillary")
    }
    for view, colour in zip(found, (RED, GREEN, BLUE, WHITE), strict=True):
        pixels = load_rgb(view.path)
        assert column_of(pixels, colour) == pytest.approx((pixels.shape[1] - 1) / 2, abs=1.0)
        assert pixels.shape[0] == round(0.75 * pixels.shape[1])
    write_photos(found, tmp_path / "photos.parquet")
    assert read_photos(tmp_path / "photos.parquet") == found


def test_an_unknown_heading_stays_unknown(tmp_path: Path) -> None:
    path = panorama(tmp_path / "a.jpg", {0.0: RED}, 400)
    unknown = photo(path, bearing_deg=None, true_bearing_deg=None, fov_deg=None)
    found = views_of(unknown, 3, 90.0, tmp_path)
    assert len(found) == 3
    assert all(v.bearing_deg is None and v.true_bearing_deg is None for v in found)


def test_of_a_part_of_the_round_only_what_it_holds(tmp_path: Path) -> None:
    pixels = np.full((200, 400, 3), 90, np.uint8)
    pixels[:, 298:302] = RED  # a quarter to the right of the middle: 50 degrees of 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    part = photo(tmp_path / "a.png", fov_deg=200.0)
    found = views_of(part, 8, 100.0, tmp_path)
    assert [v.id.split("#")[1] for v in found] == ["0", "45", "315"]
    view = load_rgb(found[0].path)
    expected = expected_column(view.shape[1], 100.0, 49.9)
    assert column_of(view, RED) == pytest.approx(expected, abs=2.5)
    with pytest.raises(PhotoError, match="hold no view of 100"):
        views_of(photo(tmp_path / "a.png", fov_deg=90.0), 4, 100.0, tmp_path)


def test_made_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = panorama(tmp_path / "a.jpg", {0.0: RED}, 400)
    found = views_of(photo(path), 4, 90.0, tmp_path / "v")
    times = [v.path.stat().st_mtime_ns for v in found]
    found[1].path.unlink()
    assert views_of(photo(path), 4, 90.0, tmp_path / "v") == found
    again = [v.path.stat().st_mtime_ns for v in found]
    assert [a == b for a, b in zip(times, again, strict=True)] == [True, False, True, True]
    os.utime(path, ns=(max(again) + 10**9, max(again) + 10**9))  # another panorama of that name
    views_of(photo(path), 4, 90.0, tmp_path / "v")
    assert all(v.path.stat().st_mtime_ns > t for v, t in zip(found, times, strict=True))
    assert not list(tmp_path.rglob("*.tmp"))
    others = views_of(photo(path), 4, 60.0, tmp_path / "v")
    assert not {v.path for v in others} & {v.path for v in found}
    monkeypatch.setattr(views, "WIDTH_PX", 64)
    small = views_of(photo(path, id="small"), 1, 90.0, tmp_path / "v")
    assert load_rgb(small[0].path).shape == (48, 64, 3)


@pytest.mark.parametrize("name", ["../../up", "/etc/passwd", "a" * 300, "\u00e9\u4e2d", "", "."])
def test_no_id_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    path = panorama(tmp_path / "a.jpg", {0.0: RED}, 200)
    (tmp_path / "v").mkdir()
    found = views_of(photo(path, id=name), 2, 90.0, tmp_path / "v")
    assert all((tmp_path / "v") in v.path.resolve().parents for v in found)
    assert len(list((tmp_path / "v").rglob("*.jpg"))) == 2


def test_no_panorama(tmp_path: Path) -> None:
    path = panorama(tmp_path / "a.jpg", {0.0: RED}, 200)
    with pytest.raises(PhotoError, match="not a panorama"):
        views_of(photo(path, projection="perspective"), 4, 90.0, tmp_path)
    (tmp_path / "b.jpg").write_bytes(path.read_bytes()[:300])
    with pytest.raises(PhotoError, match="damaged"):
        views_of(photo(tmp_path / "b.jpg"), 4, 90.0, tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        views_of(photo(path), 4, 90.0, tmp_path / "file")
