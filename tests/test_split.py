from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.split import assert_disjoint, audit, audit_table, split_photos
from zoomloc.errors import PhotoError
from zoomloc.world.cells import LatLng, distance_m, moved
from zoomloc.world.photos import Photo, read_photos, split_protocol, write_photos

PLACE = LatLng(48.1, -1.7)
BEGAN = datetime(2021, 6, 1, 10, tzinfo=UTC)


def photo(name: str, drive: str, place: LatLng, when: datetime | None, **changes: Any) -> Photo:
    return Photo(
        name, Path(f"{name}.jpg").absolute(), *place, None, None, "perspective", when, drive,
        "folder", "", "", 5.0, **changes,
    )  # fmt: skip


def town(drives: int = 20, length: int = 30) -> list[Photo]:
    """Straight drives, eastward, 40 m apart from each other; four drives a day."""
    photos = []
    for drive in range(drives):
        for step in range(length):
            place = moved(moved(PLACE, 0, 40 * drive), 90, 8 * step)
            when = BEGAN + timedelta(days=drive // 4, hours=drive % 4, seconds=2 * step)
            photos.append(photo(f"{drive:02d}/{step}", f"{drive:02d}", place, when))
    return photos


@pytest.fixture
def table(tmp_path: Path) -> Path:
    write_photos(town(), tmp_path / "photos.parquet")
    return tmp_path / "photos.parquet"


def drives_of(photos: list[Photo], split: str) -> set[str]:
    return {photo.sequence_id for photo in photos if photo.split == split}


@pytest.mark.parametrize("seed", range(5))
def test_whole_drives(table: Path, seed: int) -> None:
    found = split_photos(table, "sequence", val=0.1, test=0.2, seed=seed)
    photos = read_photos(table)
    assert [p.id for p in photos] == [p.id for p in town()]
    assert found.photos == {"train": 420, "val": 60, "test": 120} and found.left_out == 0
    assert found.drives == {"train": 14, "val": 2, "test": 4}
    assert found.shared_drives == () and found.protocol == split_protocol(table)
    assert found.protocol == "sequence-disjoint"
    assert_disjoint(photos)
    assert found == audit_table(table)


def test_the_seed_decides_and_nothing_else(table: Path) -> None:
    first = split_photos(table, seed=3)
    assert split_photos(table, seed=3) == first
    assert split_photos(table, seed=4).split_hash != first.split_hash
    write_photos(town()[::-1], table)
    assert split_photos(table, seed=3).split_hash == first.split_hash  # order does not


def test_the_newest_days_are_the_test(table: Path) -> None:
    split_photos(table, newest_test=True, val=0.2)
    photos = read_photos(table)
    assert drives_of(photos, "test") == {"16", "17", "18", "19"}
    assert len(drives_of(photos, "val")) == 4
    split_photos(table, test_days=2)
    assert drives_of(read_photos(table), "test") == {f"{k}" for k in range(12, 20)}
    with pytest.raises(PhotoError, match="all 20 drives are of the newest 5"):
        split_photos(table, test_days=5)


def test_a_drive_past_midnight_is_of_its_last_day(tmp_path: Path) -> None:
    path = tmp_path / "photos.parquet"
    photos = [
        photo(f"{drive}{k}", drive, PLACE, BEGAN + timedelta(days=day, hours=13.9 + k / 10))
        for drive, day in (("a", 0), ("b", 0), ("c", -2), ("d", -3))
        for k in range(3)
    ]
    photos += [photo("e0", "e", PLACE, BEGAN + timedelta(hours=5))]
    write_photos(photos, path)
    split_photos(path, newest_test=True, val=0.0)
    assert drives_of(read_photos(path), "test") == {"a", "b"}


def test_newest_needs_times_and_drives(table: Path) -> None:
    with pytest.raises(PhotoError, match="--by sequence only"):
        split_photos(table, "image", newest_test=True)
    photos = [*town(), photo("x", "undated", PLACE, None)]
    write_photos(photos, table)
    with pytest.raises(PhotoError, match="1 drives have none .*'undated'"):
        split_photos(table, newest_test=True)
    assert read_photos(table) == photos


def test_single_photos_leak_and_the_audit_says_so(table: Path) -> None:
    found = split_photos(table, "image", val=0.1, test=0.1)
    assert found.photos == {"train": 480, "val": 60, "test": 60}
    assert found.protocol == "random-image" and len(found.shared_drives) > 15
    assert found.near_duplicates > 200
    with pytest.raises(PhotoError, match="not sequence-disjoint"):
        assert_disjoint(read_photos(table))
    assert split_photos(table, "sequence").near_duplicates == 0


def test_blocks_keep_their_distance(table: Path) -> None:
    found = split_photos(table, "block", val=0.15, test=0.15, block_m=100, buffer_m=60)
    photos = read_photos(table)
    assert found.protocol == "block-disjoint" and found.left_out > 0
    assert min(found.photos.values()) > 20
    apart = [
        distance_m(a.place, b.place)
        for a in photos
        for b in photos
        if a.split == "train" and b.split in ("val", "test")
    ]
    assert 60 < min(apart) < 120
    nearest = {
        k: min(distance_m(p.place, q.place) for q in photos if q.split in ("val", "test"))
        for k, p in enumerate(photos)
        if p.split is None
    }
    assert max(nearest.values()) <= 60  # nothing is left out without need
    assert split_photos(table, "block", block_m=100, buffer_m=0).left_out == 0
    with pytest.raises(PhotoError, match="block_m"):
        split_photos(table, "block", block_m=0)


def test_blocks_may_be_all_val_and_test(table: Path) -> None:
    """Models trained elsewhere need no train photos: val calibrates them, test is the rest."""
    found = split_photos(table, "block", val=0.3, test=0.7, block_m=100, buffer_m=60)
    photos = read_photos(table)
    assert found.photos["train"] == 0
    assert found.photos["val"] > 20 and found.photos["test"] > 200
    assert found.left_out + found.photos["val"] == pytest.approx(180, abs=60)
    val, test = ([p.place for p in photos if p.split == split] for split in ("val", "test"))
    assert min(distance_m(a, b) for a in val for b in test) > 60
    with pytest.raises(PhotoError, match="leaves no photo for val"):
        split_photos(table, "block", val=0.3, test=0.7, block_m=100, buffer_m=600)


def test_a_region_is_all_test(table: Path) -> None:
    found = split_photos(table, "region")
    assert found.photos == {"train": 0, "val": 0, "test": 600}
    assert found.protocol == "unseen-region"


def test_near_duplicates_are_counted_by_hand() -> None:
    test = photo("t", "t", PLACE, BEGAN, split="test")
    near, far = moved(PLACE, 30, 24.9), moved(PLACE, 30, 25.1)
    soon, late = BEGAN + timedelta(seconds=600), BEGAN + timedelta(seconds=601)
    photos = [
        test,
        photo("1", "a", near, soon, split="train"),
        photo("2", "a", near, late, split="train"),
        photo("3", "a", far, soon, split="train"),
        photo("4", "a", near, BEGAN - timedelta(seconds=600), split="train"),
        photo("5", "a", near, soon, split="val"),
        photo("6", "a", near, None, split="train"),
        photo("7", "t", near, soon),
    ]
    found = audit(photos)
    assert (found.near_duplicates, found.near_at_unknown_time) == (2, 1)
    assert found.shared_drives == ("a",) and found.left_out == 1
    assert audit([test]).near_duplicates == audit([]).near_duplicates == 0


@pytest.mark.parametrize("place", [LatLng(70.0, 179.9999), LatLng(-55.0, -179.9999), LatLng(0, 0)])
def test_nearness_holds_at_any_latitude_and_across_the_antimeridian(place: LatLng) -> None:
    photos = [photo("t", "t", place, BEGAN, split="test")]
    for bearing in range(0, 360, 15):
        for metres in (24.9, 25.1):
            there = moved(place, bearing, metres)
            photos.append(photo(f"{bearing}-{metres}", "a", there, BEGAN, split="train"))
    assert audit(photos).near_duplicates == 24


def test_uneven_drives_come_near_the_shares(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photos = [
        photo(f"{drive}/{k}", f"{drive}", PLACE, BEGAN)
        for drive in range(40)
        for k in range(int(rng.integers(1, 60)))
    ]
    write_photos(photos, tmp_path / "photos.parquet")
    for seed in range(10):
        found = split_photos(tmp_path / "photos.parquet", val=0.1, test=0.2, seed=seed)
        for split, share in (("test", 0.2), ("val", 0.1)):  # off by half a drive at most
            assert found.photos[split] == pytest.approx(share * len(photos), abs=30)


def test_three_drives_are_the_fewest(tmp_path: Path) -> None:
    path = tmp_path / "photos.parquet"
    for drives, val in ((1, 0.0), (2, 0.1)):
        write_photos(town(drives), path)
        with pytest.raises(PhotoError, match="too few for train"):
            split_photos(path, val=val)
        assert read_photos(path) == town(drives)
    write_photos(town(3), path)
    assert split_photos(path).drives == {"train": 1, "val": 1, "test": 1}
    write_photos(town(2), path)
    assert split_photos(path, val=0.0).drives == {"train": 1, "val": 0, "test": 1}


@pytest.mark.parametrize(
    ("val", "test"), [(0.5, 0.5), (-0.1, 0.1), (0.1, 0.0), (0.1, float("nan"))]
)
def test_impossible_shares(table: Path, val: float, test: float) -> None:
    with pytest.raises(PhotoError, match="shares"):
        split_photos(table, val=val, test=test)
    with pytest.raises(PhotoError, match="known are"):
        split_photos(table, "day")  # type: ignore[arg-type]


def test_splits_are_spread_evenly(table: Path) -> None:
    """Every drive is drawn for the test about equally often."""
    times: Counter[str] = Counter()
    for seed in range(30):
        split_photos(table, test=0.2, seed=seed)
        times.update(drives_of(read_photos(table), "test"))
    assert len(times) == 20 and max(times.values()) < 18
