"""A photo table written row group by row group is the table that is written at once."""

import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from zoomloc.errors import PhotoError
from zoomloc.world import photo_writer as module
from zoomloc.world.photo_writer import photo_writer
from zoomloc.world.photos import Photo, Skipped, read_photos, read_skipped, write_photos


def photo(number: int, folder: Path, **changes) -> Photo:
    made = Photo(
        id=f"p{number}",
        path=folder / f"{number}.jpg",
        lat=47.0 + number * 1e-4,
        lng=8.0 - number * 1e-4,
        bearing_deg=None if number % 3 else 10.0 * (number % 36),
        fov_deg=70.0,
        projection="perspective",
        captured_at=datetime(2024, 5, 1, 12, number % 60, tzinfo=UTC),
        sequence_id=f"drive{number // 10}",
        source="test",
        licence="CC0-1.0",
        creator="me",
        position_error_m=5.0,
    )
    return replace(made, **changes)


def written(path: Path, photos, skipped=()) -> None:
    with photo_writer(path) as writer:
        for one in photos:
            writer.add(one)
        for one in skipped:
            writer.leave_out(one)
        writer.finish("sequence-disjoint")


@pytest.mark.parametrize("count", [1, 7, 8, 30])
@pytest.mark.parametrize("truth", [False, True])
def test_row_groups_make_the_same_table(tmp_path, monkeypatch, count, truth):
    monkeypatch.setattr(module, "ROWS", 8)
    known = {"true_lat": 47.5, "true_lng": 8.5} if truth else {}
    photos = [photo(i, tmp_path, **(known if i == count - 1 else {})) for i in range(count)]
    written(tmp_path / "a.parquet", photos, [Skipped("x.jpg", "no GPS")])
    write_photos(photos, tmp_path / "b.parquet", "sequence-disjoint")
    assert read_photos(tmp_path / "a.parquet") == read_photos(tmp_path / "b.parquet") == photos
    one, other = (pq.read_schema(tmp_path / f"{n}.parquet").metadata for n in "ab")
    assert one[b"geo"] == other[b"geo"] and one[b"zoomloc"] == other[b"zoomloc"]
    groups = pq.ParquetFile(tmp_path / "a.parquet").metadata.num_row_groups
    assert groups == -(-count // 8)
    assert read_skipped(tmp_path / "skipped.parquet") == [Skipped("x.jpg", "no GPS")]


def test_an_id_that_comes_twice_leaves_the_table_of_before(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS", 4)
    table = tmp_path / "a.parquet"
    written(table, [photo(1, tmp_path)])
    before = table.read_bytes()
    with pytest.raises(PhotoError, match="1 ids occur twice"):
        written(table, [photo(i % 9, tmp_path) for i in range(10)])
    assert table.read_bytes() == before and not list(tmp_path.glob(".*"))


def test_photos_left_out_are_written_as_they_come(tmp_path, monkeypatch):
    """In their order, in row groups; beyond many reasons only the commonest are told apart."""
    monkeypatch.setattr(module, "ROWS", 8)
    monkeypatch.setattr(module, "MOST_REASONS", 3)
    left_out = [Skipped(f"{i}.jpg", "too far" if i % 2 else f"{i} m apart") for i in range(30)]
    with photo_writer(tmp_path / "a.parquet") as writer:
        writer.add(photo(1, tmp_path))
        for one in left_out:
            writer.leave_out(one)
        writer.finish()
        assert writer.reasons["too far"] == 15 and writer.reasons[module.OTHERS] == 13
        assert sum(writer.reasons.values()) == 30 and len(writer.reasons) == 4
    assert read_skipped(tmp_path / "skipped.parquet") == left_out
    assert pq.ParquetFile(tmp_path / "skipped.parquet").metadata.num_row_groups == 4


def test_photos_left_out_take_no_more_memory_when_there_are_more(tmp_path):
    def peak_mb(count: int) -> float:
        skipped = (Skipped(f"folder/of/pictures/{i}.jpg", f"reason {i}") for i in range(count))
        tracemalloc.start()
        written(tmp_path / "a.parquet", [photo(1, tmp_path)], skipped)
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        return peak

    peak_mb(10)  # imports
    assert peak_mb(150_000) - peak_mb(30_000) < 1  # all rows would take 30 MB


def test_no_photo_and_impossible_photos_are_refused(tmp_path):
    with pytest.raises(PhotoError, match="no photo in the table"):
        written(tmp_path / "a.parquet", [])
    with pytest.raises(PhotoError, match="photo 'p1' has lat 91"):
        written(tmp_path / "a.parquet", [photo(1, tmp_path, lat=91.0)])
    assert not (tmp_path / "a.parquet").exists()
