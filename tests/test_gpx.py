"""GPX tracks and Mapillary's sidecar: photos that get their place from beside them."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from photo_files import exif as exif_tags
from photo_files import gps_tags, ramp, write_photo

from data_prep.photos.folder import read_folder_source
from data_prep.photos.gpx import MOVED_M, Segment, Tracks, read_tracks
from data_prep.photos.reading import Task
from data_prep.photos.sidecar import SIDECAR
from zoomloc.config.photos import FolderPhotos
from zoomloc.errors import PhotoError
from zoomloc.world.cells import LatLng, distance_m, moved
from zoomloc.world.photos import Photo, Skipped

BEGAN = datetime(2021, 6, 5, 10, 0, tzinfo=UTC)
HOME = LatLng(48.1, -1.7)


def stamp(second: float) -> str:
    return (BEGAN + timedelta(seconds=second)).isoformat().replace("+00:00", "Z")


def gpx(*segments: list[tuple[float, float, str | None]], version: str = "1.1") -> str:
    """A track of segments of (lat, lng, time as text)."""
    written = "".join(
        "<trkseg>"
        + "".join(
            f'<trkpt lat="{lat}" lon="{lng}"><ele>3</ele>'
            + (f"<time>{when}</time>" if when else "")
            + "</trkpt>"
            for lat, lng, when in points
        )
        + "</trkseg>"
        for points in segments
    )
    name = f"http://www.topografix.com/GPX/{version.replace('.', '/')}"
    return (
        f'<?xml version="1.0"?><gpx version="{version}" creator="t" xmlns="{name}">'
        f"<trk><name>a</name>{written}</trk></gpx>"
    )


def north(metres: float) -> LatLng:
    return moved(HOME, 0.0, metres)


def walk(seconds: list[float], speed: float = 2.0) -> list[tuple[float, float, str | None]]:
    """Due north from HOME."""
    return [(*north(speed * second), stamp(second)) for second in seconds]


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def fix_at(tmp_path: Path, text: str, second: float, gap_s: float = 30.0):
    tracks = read_tracks([written(tmp_path / "a.gpx", text)])
    return tracks.at(BEGAN.timestamp() + second, gap_s)


def found(folder: Path, **options: object) -> tuple[dict[str, Photo], dict[str, str]]:
    source = FolderPhotos(kind="folder", path=folder, **options)
    ones = list(read_folder_source(source, Task(folder.parent, None, 1)))
    photos = {one.id: one for one in ones if isinstance(one, Photo)}
    return photos, {one.path: one.reason for one in ones if isinstance(one, Skipped)}


# 1. tracks


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_moment_between_two_points_is_interpolated(tmp_path: Path, version: str) -> None:
    fix = fix_at(tmp_path, gpx(walk([0, 10, 20]), version=version), 13)
    assert fix is not None
    assert distance_m(LatLng(fix.lat, fix.lng), north(26)) < 0.01
    assert fix.bearing_deg == pytest.approx(0.0, abs=0.01)
    assert fix.error_m == pytest.approx((5**2 + 2**2) ** 0.5, abs=0.1)  # a quarter of 20 m; 2 m/s


def test_before_after_and_in_a_gap_there_is_no_place(tmp_path: Path) -> None:
    text = gpx(walk([0, 10, 45, 55]))
    assert fix_at(tmp_path, text, -0.5) is None and fix_at(tmp_path, text, 55.5) is None
    assert fix_at(tmp_path, text, 30) is None
    assert fix_at(tmp_path, text, 30, gap_s=35.0) is not None
    on_point = fix_at(tmp_path, text, 10)
    assert on_point is not None and distance_m(LatLng(*north(20)), LatLng(
        on_point.lat, on_point.lng)) < 0.01  # fmt: skip


def test_segments_are_not_joined_and_the_denser_one_counts(tmp_path: Path) -> None:
    text = gpx(walk([0, 10]), walk([20, 30]))
    assert fix_at(tmp_path, text, 15) is None
    coarse = [(50.0, 3.0, stamp(0)), (50.0, 3.0, stamp(28))]
    fix = fix_at(tmp_path, gpx(coarse, walk([0, 10, 20])), 5)
    assert fix is not None and fix.lat < 49


def test_times_have_zones_or_are_utc_and_may_come_in_any_order(tmp_path: Path) -> None:
    zone = timezone(timedelta(hours=2))
    points = [
        (48.103, -1.7, "2021-06-05T10:00:20"),
        (48.101, -1.7, BEGAN.astimezone(zone).isoformat()),
        (48.102, -1.7, "2021-06-05T10:00:10.500Z"),
        (48.9, -1.7, "2021-06-05T10:00:10.500Z"),  # the same moment again
        (48.9, -1.7, None),
        (48.9, -1.7, "soon"),
        (98.9, -1.7, "2021-06-05T10:00:05Z"),
    ]
    fix = fix_at(tmp_path, gpx(points), 10.5)
    assert fix is not None and fix.lat == pytest.approx(48.102)
    fix = fix_at(tmp_path, gpx(points), 5.25)
    assert fix is not None and fix.lat == pytest.approx(48.1015)


def test_standing_still_has_no_direction_and_a_slow_walk_has(tmp_path: Path) -> None:
    still = [(HOME.lat + 1e-6 * (s % 2), HOME.lng, stamp(s)) for s in range(30)]
    assert fix_at(tmp_path, gpx(still), 15.5).bearing_deg is None
    slow = fix_at(tmp_path, gpx(walk(list(range(0, 60)), speed=1.0)), 30.5)
    assert slow.bearing_deg == pytest.approx(0.0, abs=0.1)
    slower = gpx(walk(list(range(0, 60)), speed=0.9 * MOVED_M / 30))
    assert fix_at(tmp_path, slower, 30.5).bearing_deg is None


def test_a_jump_is_no_place(tmp_path: Path) -> None:
    text = gpx([(48.1, -1.7, stamp(0)), (48.1, -1.6, stamp(10)), (48.1, -1.6, stamp(20))])
    assert fix_at(tmp_path, text, 5) is None and fix_at(tmp_path, text, 15) is not None


def test_the_antimeridian_is_crossed_the_short_way(tmp_path: Path) -> None:
    fix = fix_at(tmp_path, gpx([(0.0, 179.999, stamp(0)), (0.0, -179.997, stamp(10))]), 5)
    assert fix.lng == pytest.approx(-179.999, abs=1e-6)
    assert fix.bearing_deg == pytest.approx(90.0, abs=0.01)


@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.floats(-90, 90), st.floats(-180, 180)),
        min_size=1, max_size=8,
    ),
    st.floats(-10, 110),
)  # fmt: skip
def test_whatever_the_points_a_fix_is_a_place(points, when_s) -> None:
    fix = Tracks([Segment.of(points)]).at(when_s, 30.0)
    if fix is not None:
        assert abs(fix.lat) <= 90 and abs(fix.lng) <= 180 and 0 <= fix.error_m < 1000
        assert fix.bearing_deg is None or 0 <= fix.bearing_deg < 360


LAUGHS = '<!DOCTYPE g [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{LAUGHS}<gpx><trk><name>&b;</name></trk></gpx>", "refused"),
        ('<!DOCTYPE g SYSTEM "file:///etc/passwd"><gpx/>', "refused"),
        ("<gpx><trk>", "no readable GPX"),
        ("", "no readable GPX"),
        ("<kml/>", "root is 'kml', not gpx"),
        ("<gpx/>", "no track point with a time"),
        (gpx([(1.0, 2.0, None)]), "no track point with a time"),
        ('<?xml version="1.0" encoding="klingon"?><gpx/>', "no readable GPX"),
    ],
)
def test_hostile_or_useless_gpx_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(PhotoError, match=reason) as refused:
        read_tracks([written(tmp_path / "a.gpx", text)])
    assert "\n" not in str(refused.value)


def test_a_folder_of_tracks_and_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="no .gpx file"):
        read_tracks([tmp_path])
    with pytest.raises(PhotoError, match="cannot be read"):
        read_tracks([tmp_path / "absent.gpx"])
    written(tmp_path / "1.gpx", gpx(walk([0, 10])))
    written(tmp_path / "2.GPX", gpx(walk([100, 110])))
    tracks = read_tracks([tmp_path])
    assert tracks.at(BEGAN.timestamp() + 5, 30.0) and tracks.at(BEGAN.timestamp() + 105, 30.0)


# 2. photos on tracks


def test_photos_without_gps_are_placed_by_time(tmp_path: Path) -> None:
    folder, track = tmp_path / "photos", written(tmp_path / "a.gpx", gpx(walk([0, 10, 20])))
    write_photo(folder / "d/placed.jpg", when="2021:06:05 10:00:05")
    write_photo(folder / "d/own.jpg", 48.2, -1.6, "2021:06:05 10:00:05")
    write_photo(folder / "d/late.jpg", when="2021:06:05 12:00:05")
    write_photo(folder / "d/untimed.jpg")
    camera = {0x9003: "2021:06:05 12:00:08", 0x9011: "+02:00"}
    ramp().save(folder / "d/zoned.jpg", exif=exif_tags({17: 44.0}, camera))
    photos, skipped = found(folder, tracks=(track,), default_position_error_m=3.0)
    assert sorted(photos) == ["d/own.jpg", "d/placed.jpg", "d/zoned.jpg"]
    placed = photos["d/placed.jpg"]
    assert distance_m(placed.place, north(10)) < 0.01
    assert placed.bearing_deg == pytest.approx(0.0, abs=0.01)
    assert 3.0 < placed.position_error_m < 9.0
    own = photos["d/own.jpg"]  # keeps what it has, and gets no bearing
    assert own.place == pytest.approx((48.2, -1.6)) and own.bearing_deg is None
    assert own.position_error_m == 3.0
    zoned = photos["d/zoned.jpg"]
    assert distance_m(zoned.place, north(16)) < 0.01 and zoned.bearing_deg == 44.0
    assert "no track at its time" in skipped["d/late.jpg"]
    assert "no time" in skipped["d/untimed.jpg"]
    shifted, _ = found(folder, tracks=(track,), clock_offset_s=-7200.0)
    assert distance_m(shifted["d/late.jpg"].place, north(10)) < 0.01


def test_no_track_no_change(tmp_path: Path) -> None:
    write_photo(tmp_path / "photos/a.jpg", when="2021:06:05 10:00:05")
    assert found(tmp_path / "photos") == ({}, {"a.jpg": "no GPS position in its EXIF"})


# 3. Mapillary's sidecar


def entry(filename: str, lat: float = 48.5, **more: object) -> dict[str, object]:
    return {
        "filename": filename, "filetype": "image", "md5sum": None, "MAPLatitude": lat,
        "MAPLongitude": -1.5, "MAPCaptureTime": "2021_06_05_10_00_00_250", "MAPOrientation": 1,
        **more,
    }  # fmt: skip


def test_the_sidecar_counts_before_the_exif(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in ("1.jpg", "2.jpg", "sub/1.jpg", "sub/deep/1.jpg", "3.jpg"):
        write_photo(folder / name, 48.1, -1.7, "2020:01:01 00:00:00", t17=10.0)
    heading = {"TrueHeading": 200.5, "MagneticHeading": 190.0}
    entries = [
        entry("/old/home/1.jpg", MAPCompassHeading=heading, MAPSequenceUUID="0"),
        entry("C:\\else\\2.jpg", 40.0),
        entry("/old/home/sub/deep/1.jpg", 48.6, MAPGPSAccuracyMeters=2.5, MAPSequenceUUID="1"),
        {"filename": "/old/home/3.jpg", "error": {"type": "MapillaryDuplicationError"}},
        entry("/old/home/film.mp4", filetype="gopro"),
        7,
    ]
    (folder / SIDECAR).write_text(json.dumps(entries))
    photos, _ = found(folder)
    one = photos["1.jpg"]
    assert (one.lat, one.lng, one.bearing_deg) == (48.5, -1.5, 200.5)
    assert one.captured_at == datetime(2021, 6, 5, 10, 0, 0, 250_000, UTC)
    deep = photos["sub/deep/1.jpg"]
    assert (deep.lat, deep.position_error_m, deep.bearing_deg) == (48.6, 2.5, 10.0)
    assert one.sequence_id != deep.sequence_id
    for name in ("2.jpg", "3.jpg", "sub/1.jpg"):  # elsewhere, an error, not named
        assert photos[name].lat == pytest.approx(48.1) and photos[name].bearing_deg == 10.0
    assert photos["sub/1.jpg"].sequence_id == "sub"


def test_a_nearer_sidecar_counts_and_names_its_own_drives(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in ("a/1.jpg", "b/1.jpg"):
        write_photo(folder / name)
    (folder / SIDECAR).write_text(
        json.dumps([entry(f"/m/{name}/1.jpg", 48.0, MAPSequenceUUID="0") for name in "ab"])
    )
    (folder / "b" / SIDECAR).write_text(json.dumps([entry("/n/1.jpg", 49.0, MAPSequenceUUID="0")]))
    photos, _ = found(folder)
    assert (photos["a/1.jpg"].lat, photos["b/1.jpg"].lat) == (48.0, 49.0)
    assert photos["a/1.jpg"].sequence_id != photos["b/1.jpg"].sequence_id


@pytest.mark.parametrize(
    "wrong",
    [
        {"MAPLatitude": 95.0}, {"MAPLatitude": "48"}, {"MAPLongitude": None},
        {"MAPLatitude": 0, "MAPLongitude": 0},
    ],
)  # fmt: skip
def test_an_impossible_entry_leaves_the_exif(tmp_path: Path, wrong: dict[str, object]) -> None:
    folder = tmp_path / "photos"
    write_photo(folder / "a/1.jpg", 48.1, -1.7, "2020:01:01 00:00:00")
    more = {"MAPCompassHeading": 5, "MAPCaptureTime": "2021_13_05_10_00_00_250", **wrong}
    (folder / SIDECAR).write_text(json.dumps([entry("/m/a/1.jpg", **more)]))
    photos, _ = found(folder)
    photo = photos["a/1.jpg"]
    assert photo.lat == pytest.approx(48.1) and photo.bearing_deg is None
    assert photo.captured_at == datetime(2020, 1, 1)


@pytest.mark.parametrize("text", ["{", "{}", "[" * 100_000, '"no"', "\x00"])
def test_a_sidecar_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    write_photo(tmp_path / "photos/a.jpg", 48.1, -1.7)
    (tmp_path / "photos" / SIDECAR).write_text(text)
    with pytest.raises(PhotoError, match=SIDECAR):
        found(tmp_path / "photos")


def test_gps_tags_without_a_place_leave_their_bearing(tmp_path: Path) -> None:
    """A heading alone is kept beside the track's place."""
    folder = tmp_path / "photos"
    folder.mkdir()
    tags = {key: value for key, value in gps_tags(1, 2, t17=90.0).items() if key == 17}
    ramp().save(folder / "a.jpg", exif=exif_tags(tags, {0x9003: "2021:06:05 10:00:05"}))
    track = written(tmp_path / "a.gpx", gpx(walk([0, 10])))
    photos, _ = found(folder, tracks=(track,))
    assert photos["a.jpg"].bearing_deg == 90.0
