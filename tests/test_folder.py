import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from photo_files import read_folder, real_data, write_photo

from zoomloc.errors import ConfigError, PhotoError
from zoomloc.world.photos import Photo, read_photos, read_skipped, write_photos


def read(folder: Path, **options: Any) -> tuple[dict[str, Photo], dict[str, str]]:
    """Photos by id, and reasons by path of the skipped ones."""
    out = folder.parent / "out"
    read_folder(folder, out, **options)
    photos = {photo.id: photo for photo in read_photos(out / "photos.parquet")}
    return photos, {s.path: s.reason for s in read_skipped(out / "skipped.parquet")}


def test_sub_folders_are_drives_and_names_are_paths(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for name in ("a/1.jpg", "b/1.jpg", "b/deep/er/1.JPEG", "Straße 7/Grüße 😀.jpg"):
        write_photo(folder / name, 48.1, -1.7, "2021:06:05 10:00:00", t17=33.5)
    photos, skipped = read(folder, licence="CC0-1.0", creator="me", default_position_error_m=3.0)
    assert skipped == {}
    assert {name: photo.sequence_id for name, photo in photos.items()} == {
        "a/1.jpg": "a",
        "b/1.jpg": "b",
        "b/deep/er/1.JPEG": "b/deep/er",
        "Straße 7/Grüße 😀.jpg": "Straße 7",
    }
    one = photos["b/1.jpg"]
    assert one.path == folder / "b" / "1.jpg" and one.path.is_file()
    assert (one.lat, one.lng) == pytest.approx((48.1, -1.7)) and one.bearing_deg == 33.5
    assert (one.licence, one.creator, one.position_error_m) == ("CC0-1.0", "me", 3.0)
    assert one.source == "folder" and one.split is None and one.true_lat is None


def test_what_cannot_be_used_is_listed_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    good = write_photo(folder / "good.jpg", 48.1, -1.7).read_bytes()
    write_photo(folder / "nowhere.jpg")
    write_photo(folder / "pole.jpg", 89.5, 0.5)
    (folder / "empty.jpg").touch()
    (folder / "words.jpg").write_text("no picture")
    (folder / "short.jpg").write_bytes(good[: len(good) * 2 // 3])
    (folder / "phone.HEIC").write_bytes(b"any")
    (folder / "notes.txt").write_text("not a photo")
    (folder / "broken.jpg").symlink_to(folder / "absent.jpg")
    photos, skipped = read(folder)
    assert list(photos) == ["good.jpg"]
    assert sorted(skipped) == ["broken.jpg", "empty.jpg", "nowhere.jpg", "phone.HEIC", "pole.jpg",
                               "short.jpg", "words.jpg"]  # fmt: skip
    assert skipped["nowhere.jpg"] == "no GPS position in its EXIF"
    assert "Web Mercator" in skipped["pole.jpg"] and "convert it" in skipped["phone.HEIC"]
    assert "empty" in skipped["empty.jpg"] and "no JPEG" in skipped["words.jpg"]
    assert "cut short" in skipped["short.jpg"] and "no such" in skipped["broken.jpg"]
    assert str(tmp_path) not in "".join(skipped.values())


def test_hidden_files_are_ignored_and_linked_folders_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    write_photo(folder / "a" / "1.jpg", 48.1, -1.7)
    write_photo(folder / ".hidden.jpg", 48.1, -1.7)
    write_photo(folder / ".trash" / "1.jpg", 48.1, -1.7)
    write_photo(tmp_path / "else" / "1.jpg", 48.1, -1.7)
    (folder / "a" / "loop").symlink_to(folder)
    (folder / "elsewhere").symlink_to(tmp_path / "else")
    (folder / "linked.jpg").symlink_to(tmp_path / "else" / "1.jpg")
    photos, skipped = read(folder)
    assert sorted(photos) == ["a/1.jpg", "linked.jpg"]
    assert set(skipped) == {"a/loop", "elsewhere"}
    assert set(skipped.values()) == {"linked folder is not followed"}


def test_a_name_that_is_no_utf8_is_skipped(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    write_photo(folder / "1.jpg", 48.1, -1.7)
    try:
        os.rename(folder / "1.jpg", os.fsencode(folder) + b"/caf\xe9.jpg")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    write_photo(folder / "2.jpg", 48.1, -1.7)
    photos, skipped = read(folder)
    assert list(photos) == ["2.jpg"] and skipped == {"caf\\udce9.jpg": skipped["caf\\udce9.jpg"]}
    assert "UTF-8" in skipped["caf\\udce9.jpg"]


def test_no_photo_is_an_error_and_leaves_what_was_there(tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "out"
    with pytest.raises(PhotoError, match="no such folder"):
        read_folder(folder, out)
    folder.mkdir()
    with pytest.raises(PhotoError, match="no photo in it"):
        read_folder(folder, out)
    write_photo(folder / "1.jpg", 48.1, -1.7)
    with pytest.raises(PhotoError, match="no such folder"):
        read_folder(folder / "1.jpg", out)
    read_folder(folder, out)
    kept = [(out / name).read_bytes() for name in ("photos.parquet", "skipped.parquet")]
    write_photo(folder / "1.jpg")
    with pytest.raises(PhotoError, match="none of 1 photos can be used; 1 of them: no GPS"):
        read_folder(folder, out)
    assert kept == [(out / name).read_bytes() for name in ("photos.parquet", "skipped.parquet")]
    with pytest.raises(ConfigError, match="photos.default_position_error_m.*greater than 0"):
        read_folder(folder, out, default_position_error_m=0)


def test_loose_photos_are_cut_by_gaps_in_time_or_place(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    began = datetime(2021, 6, 5, 23, 50)
    for name, minutes, north_m in [
        ("z1", 0, 0), ("b2", 4, 50), ("c3", 9, 140),  # one drive, past midnight, names shuffled
        ("a4", 14.1, 140),  # 5.1 minutes later
        ("d5", 15, 245),  # 105 m farther
        ("e6", 15.1, 250),
    ]:  # fmt: skip
        when = (began + timedelta(minutes=minutes)).strftime("%Y:%m:%d %H:%M:%S")
        write_photo(folder / f"{name}.jpg", 48.1 + north_m / 111_200, -1.7, when)
    write_photo(folder / "untimed10.jpg", 48.1, -1.7)
    write_photo(folder / "untimed9.jpg", 48.1 + 80 / 111_200, -1.7)
    write_photo(folder / "untimed2.jpg", 48.1 + 160 / 111_200, -1.7)
    write_photo(folder / "sub" / "1.jpg", 48.1, -1.7)
    photos, _ = read(folder)
    drives = {photo.id.removesuffix(".jpg"): photo.sequence_id for photo in photos.values()}
    assert drives == {
        "z1": "./001", "b2": "./001", "c3": "./001", "a4": "./002", "d5": "./003", "e6": "./003",
        "untimed2": "./004", "untimed9": "./004", "untimed10": "./004", "sub/1": "sub",
    }  # fmt: skip


@pytest.mark.parametrize("where", ["photos", "."])
def test_truth_fills_the_true_fields(tmp_path: Path, where: str) -> None:
    folder = tmp_path / "photos"
    for name in ("a/1.jpg", "a/2.jpg", "a/Cafe\u0301.jpg"):
        write_photo(folder / name, 48.1, -1.7)
    (tmp_path / where / "truth.csv").write_text(
        "\ufefffile,lat,lng,bearing_deg\na/1.jpg,48.10001,-1.70001,370\n"
        "a/Caf\u00e9.jpg,48.2,-1.8,\nabsent.jpg,1,2,3\n",
        encoding="utf-8",
    )
    photos, _ = read(folder)
    one, two, accent = photos["a/1.jpg"], photos["a/2.jpg"], photos["a/Cafe\u0301.jpg"]
    assert (one.true_lat, one.true_lng, one.true_bearing_deg) == (48.10001, -1.70001, 10.0)
    assert one.place == pytest.approx((48.1, -1.7))
    assert two.true_lat is None and two.truth == two.place
    assert (accent.true_lat, accent.true_lng, accent.true_bearing_deg) == (48.2, -1.8, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("file,lat\na.jpg,1\n", "no column lng"),
        ("", "no column file, lat, lng"),
        ("file,lat,lng,bearing_deg\na.jpg,1,2,0\nb.jpg,north,2,0\n", "truth.csv, line 3"),
        ("file,lat,lng,bearing_deg\na.jpg,91,2,0\n", "no place"),
        ("file,lat,lng,bearing_deg\na.jpg,nan,2,0\n", "no place"),
        ("file,lat,lng,bearing_deg\na.jpg,1,2,nan\n", "no place"),
        ("file,lat,lng,bearing_deg\na.jpg,1\n", "truth.csv, line 2"),
        ("file,lat,lng,bearing_deg\nphotos/a.jpg,1,2,0\n", "names none of its photos.*'a.jpg'"),
    ],
)
def test_a_wrong_truth_file_is_named(tmp_path: Path, text: str, reason: str) -> None:
    folder = tmp_path / "photos"
    write_photo(folder / "a.jpg", 48.1, -1.7)
    (tmp_path / "truth.csv").write_text(text)
    with pytest.raises(PhotoError, match=reason):
        read_folder(folder, tmp_path / "out")
    (tmp_path / "truth.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PhotoError, match="cannot be read as CSV"):
        read_folder(folder, tmp_path / "out")
    assert not list(tmp_path.glob("out/*"))


def many(folder: Path, count: int) -> Path:
    content = write_photo(folder / "0.jpg", 48.1, -1.7, "2021:06:05 10:00:00").read_bytes()
    for number in range(1, count):
        (folder / f"{number}.jpg").write_bytes(content)
    return folder


def test_headers_alone_are_read(tmp_path: Path) -> None:
    folder = many(tmp_path / "photos", 500)
    told: list[tuple[int, int]] = []
    began = time.process_time()
    summary = read_folder(folder, tmp_path / "out", progress=lambda *now: told.append(now))
    assert time.process_time() - began < 1.0  # 0.2 s where nothing else runs: 10,000 in 4 s
    assert (summary.photos, summary.drives, summary.with_bearing) == (500, 1, 0)
    assert told[-1] == (500, 500) and told == sorted(told) and len(told) < 20


def test_several_processes_read_the_same(tmp_path: Path) -> None:
    folder = many(tmp_path / "photos", 300)
    (folder / "7.jpg").write_bytes(b"")
    tables = []
    for workers in (1, 2):
        summary = read_folder(folder, tmp_path / "out", workers=workers)
        assert summary.photos == 299 and sum(summary.skipped.values()) == 1
        beside = summary.table.with_name("skipped.parquet")
        tables.append([path.read_bytes() for path in (summary.table, beside)])
    assert tables[0] == tables[1]


def test_real_folders(tmp_path: Path) -> None:
    summary = read_folder(real_data("opensfm-lund"), tmp_path / "lund")
    assert (summary.photos, summary.drives, summary.skipped) == (19, 1, {})
    for photo in read_photos(tmp_path / "lund" / "photos.parquet"):
        assert photo.path.is_file() and photo.sequence_id == "images"
    summary = read_folder(real_data("exif-samples"), tmp_path / "arezzo")
    assert summary.photos == 7 and summary.with_bearing == 1
    assert summary.skipped == {"no GPS position in its EXIF": 4}
    summary = read_folder(real_data("mapillary-tools"), tmp_path / "tools")
    assert summary.photos == 5 and sum(summary.skipped.values()) == 2
    photos = read_photos(tmp_path / "arezzo" / "photos.parquet")
    days = {photo.captured_at.astimezone(UTC).year for photo in photos if photo.captured_at}
    assert days == {2008, 2022}
    write_photos(photos, tmp_path / "again.parquet")
    assert read_photos(tmp_path / "again.parquet") == photos
