"""What is read of real photos against exiftool's reading, and the parser against any bytes."""

import json
import math
import os
import shutil
import struct
import subprocess
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from photo_files import GPS, exif, gps_tags, ramp, real_data, write_photo

from data_prep.photos.folder import read_folder_source
from data_prep.photos.pictures import facts_in
from data_prep.photos.reading import Task
from zoomloc.config.photos import FolderPhotos
from zoomloc.errors import PhotoError
from zoomloc.world.exif import ExifFacts, read_exif
from zoomloc.world.images import image_size, load_rgb
from zoomloc.world.photos import Photo, Skipped

FOLDERS = ("exif-samples", "mapillary-tools", "opensfm-berlin", "opensfm-lund")
TAGS = (
    "GPSLatitude", "GPSLongitude", "GPSImgDirection", "FocalLengthIn35mmFormat", "Orientation",
    "ImageWidth", "ImageHeight", "DateTimeOriginal", "GPSHPositioningError",
)  # fmt: skip
LONGEST_S = 2.0  # for one small file, whatever is in it


# 1. real photos


@pytest.fixture(scope="session")
def exiftool() -> str:
    path = shutil.which("exiftool")
    if path is None:
        pytest.skip("no exiftool here (Debian: libimage-exiftool-perl)")
    return path


def asked(exiftool: str, folder: Path) -> dict[str, dict[str, Any]]:
    """What exiftool reads, numbers as numbers, by path relative to the folder."""
    command = [exiftool, "-j", "-n", "-r", "-ext", "jpg", *(f"-{tag}" for tag in TAGS), str(folder)]
    out = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout
    return {os.path.relpath(one["SourceFile"], folder): one for one in json.loads(out)}


def ingested(folder: Path) -> tuple[dict[str, Photo], dict[str, str]]:
    source = FolderPhotos(kind="folder", path=folder)
    ones = list(read_folder_source(source, Task(folder, None, 1)))
    photos = {one.id: one for one in ones if isinstance(one, Photo)}
    return photos, {one.path: one.reason for one in ones if isinstance(one, Skipped)}


def fov_by(tags: dict[str, Any]) -> float | None:
    """Horizontal, as shown, by the 35 mm equivalent focal length alone."""
    focal = tags.get("FocalLengthIn35mmFormat") or 0
    if not isinstance(focal, int | float) or focal <= 0:
        return None
    width, height = tags["ImageWidth"], tags["ImageHeight"]
    across = height if tags.get("Orientation", 1) >= 5 else width
    return math.degrees(2 * math.atan(36 * across / max(width, height) / (2 * focal)))


@pytest.mark.parametrize("name", FOLDERS)
def test_real_photos_are_read_as_exiftool_reads_them(exiftool: str, name: str) -> None:
    folder = real_data(name)
    photos, skipped = ingested(folder)
    oracle = asked(exiftool, folder)
    assert oracle and photos.keys() | skipped.keys() == oracle.keys()
    assert not photos.keys() & skipped.keys() and all(skipped.values())
    for path, tags in oracle.items():
        if path in skipped:
            whole = "GPSLatitude" in tags and "GPSLongitude" in tags
            assert not whole or "GPS" not in skipped[path], f"{path}: {skipped[path]}"
            continue
        photo = photos[path]
        assert photo.lat == pytest.approx(tags["GPSLatitude"], abs=1e-7)
        assert photo.lng == pytest.approx(tags["GPSLongitude"], abs=1e-7)
        heading = tags.get("GPSImgDirection")
        assert photo.bearing_deg == (None if heading is None else pytest.approx(heading, abs=1e-3))
        expected = fov_by(tags)
        assert photo.fov_deg == (None if expected is None else pytest.approx(expected, abs=1e-3))


def test_written_photos_are_read_as_exiftool_reads_them(exiftool: str, tmp_path: Path) -> None:
    """What the real ones lack: south and west, turned pictures, headings, an error, other kinds."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, (lat, lng) in enumerate([(-33.9, 18.4), (64.1, -21.9), (-54.8, -68.3)]):
        tags = gps_tags(lat, lng, t17=33.25 * number, t31=4.5)
        camera = {0xA405: 24 + number, 0x9003: "2021:06:05 13:24:10"}
        made = exif(tags, camera, orientation=(1, 6, 8)[number])
        ramp(90, 60).save(folder / f"{number}.jpg", exif=made)
    photos, skipped = ingested(folder)
    assert len(photos) == 3 and not skipped
    for path, tags in asked(exiftool, folder).items():
        photo = photos[path]
        assert photo.place == pytest.approx((tags["GPSLatitude"], tags["GPSLongitude"]), abs=1e-7)
        assert photo.bearing_deg == pytest.approx(tags["GPSImgDirection"], abs=1e-3)
        assert photo.fov_deg == pytest.approx(fov_by(tags), abs=1e-3)
        assert photo.position_error_m == pytest.approx(tags["GPSHPositioningError"])
        assert photo.captured_at is not None
        assert f"{photo.captured_at:%Y:%m:%d %H:%M:%S}" == tags["DateTimeOriginal"]


# 2. any bytes


def check_facts(found: ExifFacts) -> None:
    """Whatever was read is what the photo table takes."""
    assert (found.lat is None) == (found.lng is None)
    assert found.lat is None or (abs(found.lat) <= 90 and abs(found.lng or 0.0) <= 180)
    assert found.bearing_deg is None or 0 <= found.bearing_deg < 360
    assert found.fov_deg is None or 0 < found.fov_deg <= 360
    assert found.position_error_m is None or 0 < found.position_error_m < math.inf
    assert found.projection in ("perspective", "equirectangular")
    for text in (found.make, found.model):
        assert text is None or (text.isprintable() and 0 < len(text) <= 80)
    if found.captured_at is not None:
        assert 1899 <= found.captured_at.year <= 2201
        found.captured_at.isoformat()
        found.captured_at.timestamp()


def tried(path: Path, content: bytes) -> ExifFacts | None:
    """The facts, or None where a PhotoError of one line came; nothing else may come."""
    path.write_bytes(content)
    began = time.process_time()
    try:
        found = read_exif(path)
        check_facts(found)
    except PhotoError as error:
        assert "\n" not in str(error) and str(error).startswith(str(path))
        found = None
    for reading in (image_size, load_rgb):
        try:
            reading(path)
        except PhotoError as error:
            assert "\n" not in str(error)
    assert time.process_time() - began < LONGEST_S
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A file that examples write to, one after the other."""
    return tmp_path_factory.mktemp("any") / "a.jpg"


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> bytes:
    """A small photo with all that is read."""
    path = tmp_path_factory.mktemp("good") / "a.jpg"
    packet = b'<x GPano:ProjectionType="equirectangular" GPano:PoseHeadingDegrees="12.5"/>'
    when = "2021:06:05 13:24:10"
    write_photo(path, 48.1, -1.7, when, (16, 8), packet, 6, t17=33.5, t31=4.0,
                t7=(11.0, 24.0, 10.0), t29="2021:06:05")  # fmt: skip
    return path.read_bytes()


many = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
HEADS = (
    b"",
    b"\xff\xd8\xff\xe1",
    b"\xff\xd8\xff\xe1\xff\xffExif\0\0II*\0\x08\0\0\0",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\x20\0\0\0WEBPVP8X",
    b"II*\0\x08\0\0\0",
    b"MM\0*\0\0\0\x08",
    b"II+\0\x08\0\0\0",
)


@many
@given(st.sampled_from(HEADS), st.binary(max_size=400))
@example(b"", b"")
def test_any_bytes_are_facts_or_a_reason(place: Path, head: bytes, rest: bytes) -> None:
    tried(place, head + rest)


@many
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
       st.floats(0, 1), st.booleans())  # fmt: skip
def test_mutated_jpegs_are_facts_or_a_reason(
    place: Path, good: bytes, changes: list[tuple[float, int]], cut: float, is_cut: bool
) -> None:
    content = bytearray(good)
    for where, value in changes:
        content[int(where * (len(content) - 1))] = value
    tried(place, bytes(content[: int(cut * len(content))] if is_cut else content))


def kinds() -> dict[str, bytes]:
    """A small photo with a place in each other format that is read."""
    made = {}
    tags = exif(gps_tags(48.1, -1.7, t17=33.5), {0xA405: 28}, 6)
    for kind in ("PNG", "WEBP", "TIFF", "MPO"):
        out = BytesIO()
        if kind == "TIFF":
            tags[GPS] = gps_tags(48.1, -1.7, t17=33.5)  # it is written from here
        more = {"save_all": True, "append_images": [ramp(16, 8)]} if kind == "MPO" else {}
        ramp(16, 8).save(out, kind, exif=tags, **more)
        made[kind] = out.getvalue()
    out = BytesIO()
    ramp(16, 8).save(out, "TIFF", compression="tiff_deflate")
    return {**made, "packed TIFF": out.getvalue()}


KINDS = kinds()


@many
@given(
    st.sampled_from(sorted(KINDS)),
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=6),
    st.floats(0.5, 1),
)
def test_mutated_pictures_of_other_kinds_are_facts_or_a_reason(
    place: Path, kind: str, changes: list[tuple[float, bytes]], kept: float
) -> None:
    content = bytearray(KINDS[kind])
    for where, value in changes:
        at = int(where * (len(content) - 1))
        content[at : at + len(value)] = value
    tried(place, bytes(content[: math.ceil(kept * len(content))]))


def test_what_is_mutated_says_something_before(place: Path, good: bytes) -> None:
    """Else the tests above would be content with nothing."""
    found = tried(place, good)
    assert found is not None and found.lat == pytest.approx(48.1) and found.bearing_deg == 12.5
    assert found.projection == "equirectangular" and found.captured_at is not None
    for kind, content in KINDS.items():
        found = tried(place, content)
        assert found is not None and (found.lat is None) == (kind == "packed TIFF"), kind


def test_a_tiff_that_warns_while_it_is_decoded_does_so_in_silence(place: Path) -> None:
    """Tags are read again at the end of decoding; here those of one lie beyond the file."""
    content = bytearray(KINDS["packed TIFF"])
    at = content.index(struct.pack("<HH", 278, 3), 8)
    content[at + 2 : at + 12] = struct.pack("<HII", 3, 4, 10**6)
    place.write_bytes(content)
    found = facts_in(place)
    assert isinstance(found, ExifFacts | str)


@pytest.mark.parametrize("packed", [{}, {"compression": "tiff_deflate"}])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_tiff_is_shown_as_a_turned_png_is(
    tmp_path: Path, orientation: int, packed: dict[str, str]
) -> None:
    """Pillow turns TIFFs while it decodes them, and nothing else."""
    tags = exif(orientation=orientation)
    ramp(48, 32).save(tmp_path / "a.png", exif=tags)
    ramp(48, 32).save(tmp_path / "a.tif", exif=tags, **packed)
    expected = load_rgb(tmp_path / "a.png")
    np.testing.assert_array_equal(load_rgb(tmp_path / "a.tif"), expected)
    assert image_size(tmp_path / "a.tif") == expected.shape[1::-1]
    assert load_rgb(tmp_path / "a.tif", 12).shape == load_rgb(tmp_path / "a.png", 12).shape


def test_a_tiff_whose_strips_do_not_cover_it_is_damaged(place: Path) -> None:
    """A kilobyte that would become 150 megapixels of black."""
    content = bytearray(KINDS["TIFF"])
    at = content.index(struct.pack("<HHI", 257, 4, 1), 8)
    content[at + 8 : at + 12] = struct.pack("<I", 6_000_000)
    place.write_bytes(content)
    for reading in (read_exif, image_size, load_rgb):
        with pytest.raises(PhotoError, match="damaged"):
            reading(place)


def jpeg_with(block: bytes) -> bytes:
    """A JPEG whose EXIF is these bytes."""
    segment = b"Exif\0\0" + block[:65_000]
    head = b"\xff\xd8\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    return head + JPEG[2:]


def plain_jpeg() -> bytes:
    out = BytesIO()
    ramp(16, 8).save(out, "JPEG")
    return out.getvalue()


JPEG = plain_jpeg()
KNOWN = (0x010F, 0x0110, 0x0112, 0x8769, 0x8825, 0x9003, 0x9004, 0x9011, 0x9291, 0xA405, 0x920A,
         0xA002, 0xA003, 0xA20E, 0xA210, 0x0132, *range(0, 32))  # fmt: skip


@st.composite
def tiff_blocks(draw) -> bytes:
    """An EXIF block of directories whose entries are of any type, count and value."""
    order = draw(st.sampled_from("<>"))
    body = bytearray((b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8))
    for _ in range(draw(st.integers(1, 3))):
        entries = draw(st.lists(st.tuples(
            st.sampled_from(KNOWN) | st.integers(0, 65_535),
            st.integers(0, 14),
            st.sampled_from((0, 1, 2, 3, 8, 20)) | st.integers(0, 2**32 - 1),
            st.integers(0, 300) | st.integers(0, 2**32 - 1),
        ), max_size=12))  # fmt: skip
        body += struct.pack(f"{order}H", len(entries))
        for tag, kind, count, value in entries:
            body += struct.pack(f"{order}HHII", tag, kind, count, value)
        body += struct.pack(f"{order}I", draw(st.sampled_from((0, 8, len(body)))))
    return bytes(body) + draw(st.binary(max_size=200))


@many
@given(tiff_blocks())
def test_any_exif_block_is_facts_or_a_reason(place: Path, block: bytes) -> None:
    tried(place, jpeg_with(block))


VALUES = st.one_of(
    st.floats(0, 1e9), st.integers(0, 2**31), st.text(max_size=30), st.binary(max_size=30),
    st.tuples(st.floats(0, 400), st.floats(0, 400), st.floats(0, 400)),
    st.lists(st.integers(0, 2**31), max_size=4).map(tuple),
)  # fmt: skip


@many
@given(
    st.dictionaries(st.integers(0, 31), VALUES, max_size=8),
    st.dictionaries(st.sampled_from(KNOWN[5:16]), VALUES, max_size=8),
    st.binary(max_size=120) | st.text(max_size=120).map(lambda t: f"GPano:{t}".encode()),
)
def test_any_values_of_the_tags_are_facts(place: Path, gps, camera, packet: bytes) -> None:
    try:
        tags = exif({**gps_tags(1.0, 2.0), **gps}, camera)
        ramp(16, 8).save(place, "JPEG", exif=tags, xmp=packet)
    except Exception:  # what Pillow does not write cannot be read
        return
    tried(place, place.read_bytes())


def test_a_directory_that_names_itself_ends(place: Path) -> None:
    entries = [(0x8769, 4, 1, 8), (0x8825, 4, 1, 8)]
    block = b"II*\0" + struct.pack("<IH", 8, len(entries))
    block += b"".join(struct.pack("<HHII", *one) for one in entries) + struct.pack("<I", 8)
    found = tried(place, jpeg_with(block))
    assert found == ExifFacts()


@pytest.mark.parametrize("count", [2**32 - 1, 2**31, 60_000])
def test_counts_that_claim_gigabytes_take_no_memory(place: Path, count: int) -> None:
    import tracemalloc

    entries = [(tag, kind, count, 8) for tag in (0x010F, 0x8769, 0x9003) for kind in (2, 5, 12)]
    block = b"II*\0" + struct.pack("<IH", 8, len(entries))
    block += b"".join(struct.pack("<HHII", *one) for one in entries) + struct.pack("<I", 0)
    tracemalloc.start()
    tried(place, jpeg_with(block))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 << 20


def test_a_huge_claimed_size_is_refused_before_it_is_decoded(place: Path) -> None:
    at = JPEG.index(b"\xff\xc0") + 5
    place.write_bytes(JPEG[:at] + b"\xff\xff\xff\xff" + JPEG[at + 4 :])
    with pytest.raises(PhotoError, match="megapixels"):
        load_rgb(place)


@pytest.mark.parametrize(
    "packet",
    [
        b"GPano:" * 160_000,
        b"GPano:A=" * 120_000,
        b"GPano:A" + b" " * 1_000_000,
        b'GPano:A="' + b"x" * 1_000_000,
        b"GPano:" + b"A" * 1_000_000,
        b"GPano:A \t" * 100_000,
        b"GPano:A" + b" \n" * 500_000 + b"GPano:B" * 9,
    ],
)
def test_packets_of_a_megabyte_are_searched_in_bounded_time(tmp_path: Path, packet: bytes) -> None:
    """Patterns that a careless expression would try from every place."""
    ramp().save(tmp_path / "a.webp", xmp=packet)
    began = time.process_time()
    assert read_exif(tmp_path / "a.webp") == ExifFacts()
    assert time.process_time() - began < LONGEST_S
