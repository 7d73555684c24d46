import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photo_files import GPS, ZERO_OVER_ZERO, exif, gps_tags, ramp, real_data, write_photo
from PIL.TiffImagePlugin import IFDRational

from zoomloc.errors import PhotoError
from zoomloc.world.exif import ExifFacts, read_exif


def facts(
    path: Path,
    gps: dict[int, Any] | None = None,
    camera: dict[int, Any] | None = None,
    size: tuple[int, int] = (64, 32),
    **more: Any,
) -> ExifFacts:
    ramp(*size).save(path / "a.jpg", exif=exif(gps, camera, **more))
    return read_exif(path / "a.jpg")


def fov(tmp_path: Path, focal_35mm: float, size: tuple[int, int], orientation: int = 1) -> float:
    found = facts(tmp_path, camera={0xA405: focal_35mm}, size=size, orientation=orientation)
    assert found.fov_deg is not None
    return found.fov_deg


def test_a_photo_without_exif_has_no_facts(tmp_path: Path) -> None:
    ramp().save(tmp_path / "a.jpg")
    ramp().save(tmp_path / "a.png")
    assert read_exif(tmp_path / "a.jpg") == read_exif(tmp_path / "a.png") == ExifFacts()


# 1. where


@pytest.mark.parametrize(
    ("lat", "lng"), [(48.0810, 1.6678), (-33.8568, 151.2153), (51.5, -0.1276), (-34.6, -58.38)]
)
def test_position_of_each_hemisphere(tmp_path: Path, lat: float, lng: float) -> None:
    found = facts(tmp_path, gps_tags(lat, lng))
    assert found.lat == pytest.approx(lat, abs=1e-7) and found.lng == pytest.approx(lng, abs=1e-7)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_each_format_keeps_its_position(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    gps = gps_tags(-10.5, 20.25)
    tags = exif(gps, orientation=1)
    tags[GPS] = gps  # TIFF is written from here
    ramp().save(path, exif=tags)
    found = read_exif(path)
    assert (found.lat, found.lng) == (-10.5, 20.25)


@pytest.mark.parametrize(
    "gps",
    [
        {1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)},  # null island
        {1: "N", 2: (91.0, 0.0, 0.0), 3: "E", 4: (1.0, 0.0, 0.0)},
        {1: "N", 2: (90.0, 0.0, 0.1), 3: "E", 4: (1.0, 0.0, 0.0)},
        {1: "N", 2: (48.0, 0.0, 0.0), 3: "E", 4: (181.0, 0.0, 0.0)},
        {1: "N", 2: (48.0, 61.0, 0.0), 3: "E", 4: (1.0, 0.0, 0.0)},
        {1: "N", 2: (48.0, ZERO_OVER_ZERO, 0.0), 3: "E", 4: (1.0, 0.0, 0.0)},
        {1: "N", 2: (48.0, IFDRational(7, 0), 0.0), 3: "E", 4: (1.0, 0.0, 0.0)},
        {1: "E", 2: (48.0, 0.0, 0.0), 3: "N", 4: (1.0, 0.0, 0.0)},  # letters swapped
        {2: (48.0, 0.0, 0.0), 4: (1.0, 0.0, 0.0)},  # hemisphere unknown
        {1: "N", 2: (48.0, 0.0, 0.0)},  # no longitude
        {1: "N", 3: "E"},
    ],
)
def test_an_impossible_position_is_none(tmp_path: Path, gps: dict[int, Any]) -> None:
    found = facts(tmp_path, gps)
    assert found.lat is None and found.lng is None


def test_on_the_equator_or_the_meridian_is_a_place(tmp_path: Path) -> None:
    found = facts(tmp_path, gps_tags(0.0, 32.5))
    assert (found.lat, found.lng) == (0.0, 32.5)


@pytest.mark.parametrize(
    ("value", "bearing"),
    [(0.0, 0.0), (147.96, 147.96), (360.0, 0.0), (655.35, None), (ZERO_OVER_ZERO, None)],
)
def test_bearing(tmp_path: Path, value: Any, bearing: float | None) -> None:
    found = facts(tmp_path, gps_tags(1, 2, t17=value))
    assert found.bearing_deg == (None if bearing is None else pytest.approx(bearing))


def test_position_error(tmp_path: Path) -> None:
    assert facts(tmp_path, gps_tags(1, 2, t31=4.5)).position_error_m == pytest.approx(4.5)
    assert facts(tmp_path, gps_tags(1, 2, t31=0.0)).position_error_m is None


# 2. how wide


def test_fov_spans_36_mm_on_the_longer_side(tmp_path: Path) -> None:
    wide = math.degrees(2 * math.atan(18 / 28))
    assert fov(tmp_path, 28, (60, 40)) == pytest.approx(wide)
    assert fov(tmp_path, 28, (80, 20)) == pytest.approx(wide)


@pytest.mark.parametrize("orientation", [6, 8])
def test_fov_of_a_portrait_is_that_of_its_shorter_side(tmp_path: Path, orientation: int) -> None:
    narrow = math.degrees(2 * math.atan(18 / 28 * 40 / 60))
    assert fov(tmp_path, 28, (60, 40), orientation) == pytest.approx(narrow)
    assert fov(tmp_path, 28, (40, 60)) == pytest.approx(narrow)
    assert fov(tmp_path, 28, (40, 60), orientation) > narrow  # shown as a landscape


def test_fov_by_pixel_pitch(tmp_path: Path) -> None:
    # 6,000 px at 1,666.67 px per cm are 36 mm of sensor
    camera = {0x920A: 50.0, 0xA002: 6000, 0xA003: 4000, 0xA20E: 1666.6667, 0xA210: 3}
    found = facts(tmp_path, camera=camera, size=(60, 40)).fov_deg
    assert found == pytest.approx(math.degrees(2 * math.atan(18 / 50)), abs=1e-3)
    inches = {0x920A: 50.0, 0xA002: 6000, 0xA20E: 1666.6667 * 2.54}  # inch is the default unit
    assert facts(tmp_path, camera=inches, size=(60, 40)).fov_deg == pytest.approx(found, abs=1e-3)


@pytest.mark.parametrize(
    "camera",
    [
        {0xA405: 0},  # unknown, by the standard
        {0xA405: 0, 0x920A: 4.26},  # a focal length alone says nothing
        {0xA405: 60_000},
        {0x920A: 50.0, 0xA002: 6000, 0xA20E: ZERO_OVER_ZERO, 0xA210: 3},
        {0x920A: 50.0, 0xA002: 6000, 0xA20E: 1.0, 0xA210: 3},  # a sensor of 60 m
        {0x920A: 50.0, 0xA002: 6000, 0xA20E: 1666.0, 0xA210: 9},
        {0x920A: IFDRational(1, 0), 0xA002: 6000, 0xA20E: 1666.0, 0xA210: 3},
    ],
)
def test_an_impossible_fov_is_none(tmp_path: Path, camera: dict[int, Any]) -> None:
    assert facts(tmp_path, camera=camera).fov_deg is None


def gpano(text: str) -> bytes:
    head = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="rdf"><rdf:Description'
    return f"{head} {text}</rdf:Description></rdf:RDF></x:xmpmeta>".encode()


@pytest.mark.parametrize(
    "text",
    [
        'GPano:ProjectionType="equirectangular" GPano:PoseHeadingDegrees="350.5">',
        "><GPano:ProjectionType>equirectangular</GPano:ProjectionType>"
        "<GPano:PoseHeadingDegrees>350.5</GPano:PoseHeadingDegrees>",
    ],
)
def test_gpano_is_equirectangular(tmp_path: Path, text: str) -> None:
    path = write_photo(tmp_path / "a.jpg", 1.0, 2.0, xmp=gpano(text), t17=10.0)
    found = read_exif(path)
    assert found.projection == "equirectangular" and found.fov_deg == 360.0
    assert found.bearing_deg == 350.5


def test_a_cropped_panorama_and_another_projection(tmp_path: Path) -> None:
    part = ('GPano:ProjectionType="equirectangular" GPano:CroppedAreaImageWidthPixels="1000" '
            'GPano:FullPanoWidthPixels="4000">')  # fmt: skip
    found = read_exif(write_photo(tmp_path / "a.jpg", 1.0, 2.0, xmp=gpano(part), t17=10.0))
    assert found.fov_deg == 90.0 and found.bearing_deg == pytest.approx(10.0)
    other = gpano('GPano:ProjectionType="cylindrical">')
    ramp().save(tmp_path / "b.jpg", exif=exif(camera={0xA405: 28}), xmp=other)
    found = read_exif(tmp_path / "b.jpg")
    assert found.projection == "perspective" and found.fov_deg is None


@pytest.mark.parametrize("packet", [b"\xff\xfe\x00GPano:", b"GPano:ProjectionType=" * 2000, b"<"])
def test_a_broken_xmp_packet_is_no_panorama(tmp_path: Path, packet: bytes) -> None:
    found = read_exif(write_photo(tmp_path / "a.jpg", 1.0, 2.0, xmp=packet))
    assert found.projection == "perspective" and found.lat == 1.0


# 3. when

TIME = {0x9003: "2021:06:05 13:24:10"}


def test_time_with_its_own_zone(tmp_path: Path) -> None:
    found = facts(tmp_path, camera={**TIME, 0x9011: "-07:00", 0x9291: "25"}).captured_at
    assert found == datetime(2021, 6, 5, 20, 24, 10, 250_000, UTC)
    assert found.utcoffset() == timedelta(hours=-7)


def test_time_without_a_zone_is_local(tmp_path: Path) -> None:
    assert facts(tmp_path, camera=TIME).captured_at == datetime(2021, 6, 5, 13, 24, 10)


@pytest.mark.parametrize(
    ("clock", "day", "hours"),
    [
        ((20.0, 24.0, 11.0), "2021:06:05", -7.0),
        ((7.0, 39.0, 9.0), "2021:06:05", 5.75),  # Nepal
        ((23.0, 24.0, 10.0), "2021:06:04", 14.0),
        ((11.0, 24.0, 10.0), "2021:06:06", 2.0),  # the GPS date is a day off, as Nikon P6000 did
    ],
)
def test_gps_time_tells_the_zone(
    tmp_path: Path, clock: tuple[float, ...], day: str, hours: float
) -> None:
    found = facts(tmp_path, gps_tags(1, 2, t7=clock, t29=day), TIME).captured_at
    assert found is not None and found.replace(tzinfo=None) == datetime(2021, 6, 5, 13, 24, 10)
    assert found.utcoffset() == timedelta(hours=hours)


def test_gps_time_alone_and_against_a_camera_that_lost_its_date(tmp_path: Path) -> None:
    gps = gps_tags(1, 2, t7=(9.0, 14.0, 39.5), t29="2021:07:15")
    expected = datetime(2021, 7, 15, 9, 14, 39, 500_000, UTC)
    assert facts(tmp_path, gps).captured_at == expected
    assert facts(tmp_path, gps, {0x9003: "2000:01:01 00:00:07"}).captured_at == expected


@pytest.mark.parametrize(
    "text", ["0000:00:00 00:00:00", "2021:02:30 10:00:00", "2021:06:05 10:00:60", "    ", "soon"]
)
def test_an_impossible_time_is_none(tmp_path: Path, text: str) -> None:
    assert facts(tmp_path, camera={0x9003: text}).captured_at is None
    gps = gps_tags(1, 2, t7=(25.0, 0.0, 0.0), t29="2021:06:05")
    assert facts(tmp_path, gps, {0x9003: text}).captured_at is None


# 4. hostile and real bytes


def test_make_is_printable(tmp_path: Path) -> None:
    ramp().save(tmp_path / "a.jpg", exif=exif(make="Ac\x1b[31mme\x00junk" + "x" * 100))
    assert read_exif(tmp_path / "a.jpg").make == "Ac[31mme"


def test_damaged_exif_never_raises_anything_but_photo_error(tmp_path: Path) -> None:
    path = write_photo(tmp_path / "a.jpg", 48.1, -1.7, "2020:01:01 10:00:00", t17=33.5)
    good = path.read_bytes()
    begin, end = good.index(b"Exif"), good.index(b"\xff\xdb")  # EXIF up to the quantisation tables
    rng = np.random.default_rng(1)
    positions = 0
    for _ in range(400):
        damaged = bytearray(good)
        for place in rng.integers(begin, end, 6):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            found = read_exif(path)
        except PhotoError:
            continue
        positions += found.lat is not None
        assert found.lat is None or (abs(found.lat) <= 90 and abs(found.lng or 0) <= 180)
        assert found.bearing_deg is None or 0 <= found.bearing_deg < 360
        assert found.fov_deg is None or 0 < found.fov_deg < 180
    assert 0 < positions < 400


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="no such photo"):
        read_exif(tmp_path / "absent.jpg")


def test_real_cameras() -> None:
    nikon = read_exif(real_data("exif-samples", "DSCN0010.jpg"))
    assert (nikon.lat, nikon.lng) == pytest.approx((43.4674483, 11.8851267), abs=1e-6)
    assert nikon.make == "NIKON" and nikon.fov_deg == pytest.approx(18.26, abs=0.01)
    # its GPS date is a day ahead, which would put the zone at -22 h
    assert nikon.captured_at == datetime(2008, 10, 22, 14, 28, 39, tzinfo=UTC)
    phone = read_exif(real_data("exif-samples", "HMD_Nokia_8.3_5G.jpg"))
    assert phone.bearing_deg == 56.0 and phone.captured_at is not None
    assert phone.captured_at.utcoffset() == timedelta(hours=3)
    action = read_exif(real_data("mapillary-tools", "DSC00001.JPG"))
    assert (action.lat, action.lng) == pytest.approx((45.516903, -122.572765), abs=1e-6)
    assert action.bearing_deg is None and action.fov_deg is None
    for path in sorted(real_data("opensfm-lund", "images").glob("*.jpg")):
        walk = read_exif(path)
        assert 55.698 < (walk.lat or 0) < 55.700 and 13.194 < (walk.lng or 0) < 13.196
        assert walk.fov_deg == pytest.approx(54.43, abs=0.01) and walk.captured_at is None


def test_real_damaged_exif() -> None:
    folder = real_data("mapillary-tools", "exif_edge_cases")
    for name in ("corrupt_exif", "corrupt_exif_2", "fixed_exif"):
        found = read_exif(folder / f"{name}.jpg")
        assert (found.lat, found.lng) == pytest.approx((48.081045, -1.667841), abs=1e-5)
        assert found.bearing_deg == pytest.approx(147.96, abs=0.01)
    for name in ("corrupt_exif_wrong_type", "empty_exif"):
        assert read_exif(folder / f"{name}.jpg").lat is None
    assert read_exif(folder / "test_exif.jpg").lat == pytest.approx(35.912517, abs=1e-5)
