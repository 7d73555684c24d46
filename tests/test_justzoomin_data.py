"""The paper's data set, in the layout of its dataset card; the pictures are made here."""

from pathlib import Path

import pytest
from photo_files import ramp

from data_prep.datasets.justzoomin import middle_of, read_justzoomin, zoom_path
from data_prep.photos.reading import Task
from zoomloc.config.photos import PaperPhotos
from zoomloc.errors import PhotoError
from zoomloc.world.cells import LatLng, distance_m
from zoomloc.world.photos import Photo, Skipped, assert_disjoint, read_photos, write_photos

HEADER = "image_id,latitude,longitude,sequence"
# rows that the viewer of https://huggingface.co/datasets/pcvlab/justzoomin shows (CC BY-SA 4.0)
PUBLISHED = """\
4449826985073821,38.908513,-76.940898,"[7, 6, 6, 5]"
172710532042450,38.909364,-76.940879,"[7, 6, 2, 13]"
805737910140026,38.908547,-76.940446,"[7, 6, 6, 6]"
466079048443791,38.910576,-76.941785,"[7, 2, 13, 15]"
5932314750193487,38.913548,-76.932969,"[7, 3, 6, 15]"
814958976091018,38.918031,-76.94114,"[3, 14, 10, 9]"
324617862683638,38.909983,-76.937252,"[7, 7, 0, 5]"
1109501693275994,38.910752,-76.939744,"[7, 2, 15, 12]"
356812342833481,38.90962,-76.940916,"[7, 6, 2, 9]"
583614779478437,38.910403,-76.941844,"[7, 6, 1, 3]"
""".splitlines()


def release(folder: Path, train: list[str], val: list[str], header: str = HEADER) -> Path:
    """The folder as the card lays it out, with a picture for each row."""
    (folder / "metadata").mkdir(parents=True)
    pictures = folder / "streetview" / "images"
    pictures.mkdir(parents=True)
    for name, rows in (("train", train), ("val", val)):
        text = "\n".join([header, *rows]) + "\n"
        (folder / "metadata" / f"large_area_{name}_map.csv").write_text(text)
    for image_id in {row.split(",")[0] for row in train + val if row[0].isdigit()}:
        ramp().save(pictures / f"{image_id}_undistorted.jpg")
    return folder


def read(folder: Path, **options: object) -> tuple[list[Photo], list[Skipped]]:
    source = PaperPhotos(kind="justzoomin", path=folder, **options)
    ones = list(read_justzoomin(source, Task(folder, None, 1)))
    return (
        [one for one in ones if isinstance(one, Photo)],
        [one for one in ones if isinstance(one, Skipped)],
    )


def test_published_rows_lie_in_the_cells_that_they_name() -> None:
    """The canvas, the order of cells and the sphere are the paper's: a wrong one misses a cell."""
    for row in PUBLISHED:
        _, lat, lng, sequence = row.split(",", 3)
        zooms = zoom_path(sequence.strip('"'))
        assert zooms is not None
        here = LatLng(float(lat), float(lng))
        assert distance_m(here, middle_of(zooms)) < 39.1 / 2**0.5
        if zooms[-1] % 4:  # the cell to the west is another one
            west = (*zooms[:-1], zooms[-1] - 1)
            assert distance_m(here, middle_of(zooms)) < distance_m(here, middle_of(west))


def test_the_release_becomes_photos_with_its_split(tmp_path: Path) -> None:
    folder = release(tmp_path / "jzi", PUBLISHED[:7], PUBLISHED[7:])
    told: list[tuple[int, int]] = []
    source = PaperPhotos(kind="justzoomin", path=folder, default_position_error_m=4.0)
    task = Task(folder, None, 1, lambda *now: told.append(now))
    photos = [one for one in read_justzoomin(source, task) if isinstance(one, Photo)]
    assert [photo.split for photo in photos] == ["train"] * 7 + ["val"] * 3
    one = photos[0]
    assert one.id == "justzoomin/4449826985073821" and one.place == (38.908513, -76.940898)
    assert one.path == folder / "streetview/images/4449826985073821_undistorted.jpg"
    assert (one.licence, one.source, one.position_error_m) == ("CC-BY-SA-4.0", "justzoomin", 4.0)
    assert "Mapillary" in one.creator and one.projection == "perspective"
    assert one.bearing_deg is None and one.fov_deg is None and one.captured_at is None
    assert told[-1] == (10, 10)
    write_photos(photos, tmp_path / "photos.parquet")
    assert read_photos(tmp_path / "photos.parquet") == photos


def test_the_published_split_is_not_taken_for_sequence_disjoint(tmp_path: Path) -> None:
    """One place on both sides of it: [7, 6, 2, 13] to train, [7, 6, 2, 9] to val."""
    photos, _ = read(release(tmp_path / "jzi", PUBLISHED[1:2], PUBLISHED[8:9]))
    assert photos[0].sequence_id == photos[1].sequence_id == "justzoomin/7-6-2"
    with pytest.raises(PhotoError, match="not sequence-disjoint"):
        assert_disjoint(photos)


def test_what_cannot_be_used_is_named_with_its_row(tmp_path: Path) -> None:
    good = PUBLISHED[0]
    rows = [
        good,
        '4.449826985073821e15,38.908513,-76.940898,"[7, 6, 6, 5]"',
        '2,north,-76.940898,"[7, 6, 6, 5]"',
        '3,38.908513,-76.940898,"[7, 6, 6]"',
        '4,38.908513,-76.940898,"[7, 6, 6, 16]"',
        '5,38.908513,-76.940898,"seven"',
        '6,38.908513,-76.940898,"[6, 6, 6, 5]"',
        good,
        '7,38.908513,-76.940898,"[7, 6, 6, 5]"',
        '8,38.908513,-76.940898,"[7, 6, 6, 5]"',
        '9,38.908513',
    ]  # fmt: skip
    folder = release(tmp_path / "jzi", rows, [])
    pictures = folder / "streetview" / "images"
    (pictures / "7_undistorted.jpg").unlink()
    (pictures / "8_undistorted.jpg").write_bytes((pictures / "4_undistorted.jpg").read_bytes()[:99])
    photos, skipped = read(folder)
    assert [photo.id for photo in photos] == ["justzoomin/4449826985073821"]
    table = "large_area_train_map.csv"
    assert [one.path.split(":")[0] for one in skipped] == [
        f"{table}, row {n}" for n in range(2, 12)
    ]
    why = [one.reason for one in skipped]
    assert why[0].startswith("image_id") and why[1].startswith("latitude")
    assert all(one.startswith("sequence is no path") for one in why[2:5])
    assert why[5] == "sequence ends elsewhere than latitude and longitude say"
    assert "same image_id" in why[6] and "picture is not there" in why[7]
    assert "cut short" in why[8] and why[9].startswith("latitude")


def test_a_folder_that_is_not_the_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="no such folder"):
        read(tmp_path / "absent")
    with pytest.raises(PhotoError, match="no metadata/large_area_train_map.csv"):
        read(tmp_path)
    folder = release(tmp_path / "jzi", PUBLISHED, [], header="image_id,lat,lng,sequence")
    with pytest.raises(PhotoError, match="no column latitude, longitude; it has image_id, lat"):
        read(folder)
    for picture in (folder / "streetview" / "images").iterdir():
        picture.unlink()
    with pytest.raises(PhotoError, match="unpack the archives"):
        read(folder)


def test_a_flat_copy_with_one_csv_is_read_and_has_no_split(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text(f"{HEADER},extra\n{PUBLISHED[0]},1\n")
    ramp().save(tmp_path / "4449826985073821_undistorted.jpg")
    photos, skipped = read(tmp_path)
    assert len(photos) == 1 and photos[0].split is None and skipped == []
