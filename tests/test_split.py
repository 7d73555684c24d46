"""Splits that stay as they are, and the audit of what they leak."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.split import assert_disjoint, audit, audit_table, number_of, split_photos
from data_prep.split_plot import plot_table
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


def splits_of(photos: list[Photo]) -> dict[str, str | None]:
    return {photo.id: photo.split for photo in photos}


@pytest.mark.parametrize("seed", range(5))
def test_whole_drives(table: Path, seed: int) -> None:
    found = split_photos(table, "sequence", val=0.1, test=0.2, seed=seed)
    photos = read_photos(table)
    assert [p.id for p in photos] == [p.id for p in town()]
    assert found.left_out == 0 and sum(found.photos.values()) == 600
    assert found.photos == {split: 30 * drives for split, drives in found.drives.items()}
    assert 1 <= found.drives["val"] <= 4 and 1 <= found.drives["test"] <= 8  # twice the share
    assert found.shared_drives == () and found.protocol == split_protocol(table)
    assert found.protocol == "sequence-disjoint" and not found.leaky
    assert_disjoint(photos)
    assert found == audit_table(table)


def test_the_number_of_a_group_is_of_its_name_and_the_seed() -> None:
    """A golden value: whoever changes it, changes every split that was ever made."""
    assert number_of("drive", 0) == pytest.approx(0.071233872, abs=1e-9)
    numbers = [number_of(f"{k}", 7) for k in range(4000)]
    counts, _ = np.histogram(numbers, bins=20, range=(0, 1))
    assert counts.sum() == 4000 and counts.min() > 150 and counts.max() < 250


@pytest.mark.parametrize("by", ["sequence", "image", "block"])
@pytest.mark.parametrize("seed", range(3))
def test_more_photos_change_no_split(tmp_path: Path, by: Any, seed: int) -> None:
    """Half of the drives are added: every photo that was there keeps its split."""
    path = tmp_path / "photos.parquet"
    photos = town(120, length=12)
    some = [p for p in photos if int(p.sequence_id) % 2]
    plan = {"by": by, "val": 0.15, "test": 0.2, "seed": seed, "block_m": 50.0, "buffer_m": 0.0}
    write_photos(some, path)
    split_photos(path, **plan)
    before = splits_of(read_photos(path))
    write_photos(photos[::-1], path)
    split_photos(path, **plan)
    after = splits_of(read_photos(path))
    assert set(before.values()) == {"train", "val", "test"}
    assert {name: after[name] for name in before} == before
    assert after != before


def test_a_buffer_leaves_out_but_never_moves_into_another_split(tmp_path: Path) -> None:
    path = tmp_path / "photos.parquet"
    photos = town(60, length=20)
    write_photos(photos[: 20 * 40], path)
    split_photos(path, "block", val=0.2, test=0.2, block_m=60, buffer_m=20)
    before = splits_of(read_photos(path))
    write_photos(photos, path)
    split_photos(path, "block", val=0.2, test=0.2, block_m=60, buffer_m=20)
    after = splits_of(read_photos(path))
    changed = [name for name, split in before.items() if after[name] not in (split, None)]
    assert changed == [] and None in before.values()


def test_few_drives_fill_every_split_and_lose_the_fewest(tmp_path: Path) -> None:
    """With 3 to 14 drives no split is empty; one more drive moves at most one drive a split."""
    path = tmp_path / "photos.parquet"
    moved_drives = []
    for seed in range(6):
        before: dict[str, str | None] = {}
        for drives in range(3, 15):
            write_photos(town(drives, length=2), path)
            found = split_photos(path, seed=seed)
            assert min(found.drives.values()) >= 1
            now = {p.sequence_id: p.split for p in read_photos(path)}
            moved_drives.append(sum(now[name] != split for name, split in before.items()))
            before = now
    assert max(moved_drives) <= 2 and np.mean(moved_drives) < 0.4


def test_no_split_takes_much_more_than_its_share(tmp_path: Path) -> None:
    """Twice its share, or a single drive."""
    path = tmp_path / "photos.parquet"
    write_photos(town(30, length=4), path)
    taken = [split_photos(path, val=0.1, test=0.1, seed=seed).drives for seed in range(60)]
    assert max(drives["test"] for drives in taken) == 6 == max(d["val"] for d in taken)
    assert np.mean([drives["test"] for drives in taken]) == pytest.approx(3, abs=0.5)


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
    assert found.photos["val"] == pytest.approx(60, abs=20)
    assert found.photos["test"] == pytest.approx(60, abs=20)
    assert found.protocol == "random-image" and found.leaky and len(found.shared_drives) > 15
    assert found.near_duplicates > 150
    assert "LEAKY" in found.lines()[0]
    across = found.across["train - test"]
    assert across.soon >= found.near_duplicates and across.drives > 10 and across.alike is None
    assert found.to_train is not None and found.to_train.within["10 m"] > 0.9
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


def test_uneven_drives_have_the_shares_on_average(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photos = [
        photo(f"{drive}/{k}", f"{drive}", PLACE, BEGAN)
        for drive in range(40)
        for k in range(int(rng.integers(1, 20)))
    ]
    path = tmp_path / "photos.parquet"
    write_photos([replace(p, lat=p.lat + k / 1000) for k, p in enumerate(photos)], path)
    shares = []
    for seed in range(60):
        found = split_photos(path, val=0.1, test=0.2, seed=seed)
        shares.append([found.photos[split] / len(photos) for split in ("test", "val")])
        assert shares[-1][0] <= 0.4 and shares[-1][1] <= 0.2
    assert np.mean(shares, axis=0).tolist() == pytest.approx([0.2, 0.1], abs=0.03)


def test_the_newest_days_leave_val_to_a_draw_as_published(table: Path) -> None:
    """Figures were made with this val; it is drawn, and comes nearest to its share."""
    for share, drives in ((0.05, {"02"}), (0.2, {"02", "03", "10", "11"})):
        split_photos(table, newest_test=True, val=share)
        assert drives_of(read_photos(table), "val") == drives


def credited(days: int = 30) -> list[Photo]:
    """Three creators with two drives on each of many days."""
    photos = []
    for day in range(days):
        for number in range(6):
            when = BEGAN + timedelta(days=day, hours=number)
            one = photo(f"{day}-{number}", f"{day}-{number}", PLACE, when)
            photos.append(replace(one, creator="ABC"[number % 3]))
    return photos


def test_a_creators_day_stays_together(tmp_path: Path) -> None:
    path = tmp_path / "photos.parquet"
    write_photos(credited(), path)
    for seed in range(3):
        split_photos(path, seed=seed, group="creator-day", val=0.2, test=0.2)
        photos = read_photos(path)
        days: dict[tuple[str, str], set[str | None]] = {}
        for one in photos:
            days.setdefault((one.creator, one.sequence_id.split("-")[0]), set()).add(one.split)
        assert len(days) == 90 and all(len(found) == 1 for found in days.values())
        assert {p.split for p in photos} == {"train", "val", "test"}
        mixed = [{*days["A", f"{day}"], *days["B", f"{day}"]} for day in range(30)]
        assert any(len(found) > 1 for found in mixed)  # other creators of the day are free
    before = splits_of(photos)
    write_photos(credited(60), path)
    split_photos(path, seed=2, group="creator-day", val=0.2, test=0.2)
    after = splits_of(read_photos(path))
    assert {name: after[name] for name in before} == before


def test_an_american_evening_is_one_day(tmp_path: Path) -> None:
    """In UTC it is cut by midnight; by the sun it is not. Undated drives stand alone."""
    path = tmp_path / "photos.parquet"
    evening = datetime(2024, 7, 4, 23, 30, tzinfo=UTC)
    washington = LatLng(38.9, -77.0)
    photos = []
    for day in range(40):
        for number in range(2):  # 23:30 and, in UTC, the next day's 00:30
            when = evening + timedelta(days=day, hours=number)
            if number:
                when = when.astimezone(timezone(timedelta(hours=-4)))  # the same clock or not
            photos.append(photo(f"{day}-{number}", f"{day}-{number}", washington, when))
    photos += [photo(f"x{k}", f"x{k}", washington, None) for k in range(30)]
    write_photos(photos, path)
    split_photos(path, group="creator-day", val=0.2, test=0.2)
    splits = splits_of(read_photos(path))
    assert all(splits[f"{day}-0"] == splits[f"{day}-1"] for day in range(40))
    assert len({splits[f"x{k}"] for k in range(30)}) > 1


def test_newest_days_of_creators(tmp_path: Path) -> None:
    path = tmp_path / "photos.parquet"
    write_photos(credited(4), path)
    split_photos(path, newest_test=True, group="creator-day", val=0.2)
    photos = read_photos(path)
    assert drives_of(photos, "test") == {f"3-{k}" for k in range(6)}
    assert len(drives_of(photos, "val")) in (2, 4)


@pytest.mark.parametrize(("by", "group"), [("block", "creator-day"), ("sequence", "camera")])
def test_groups_that_are_none(table: Path, by: Any, group: Any) -> None:
    with pytest.raises(PhotoError, match="group"):
        split_photos(table, by, group=group)


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


# the audit


def test_distances_to_train_are_counted_by_hand() -> None:
    photos = [photo("a", "a", PLACE, BEGAN, split="train")]
    for k, metres in enumerate((5.0, 20.0, 20.0, 60.0, 300.0)):
        there = moved(PLACE, 77.0 * k, metres)
        photos.append(photo(f"t{k}", "t", there, BEGAN + timedelta(days=1), split="test"))
    photos.append(photo("v", "v", moved(PLACE, 10, 1), BEGAN, split="val"))  # is no training
    found = audit(photos).to_train
    assert found is not None and found.photos == 5
    assert found.within == {"10 m": 0.2, "25 m": 0.6, "50 m": 0.6, "100 m": 0.8}
    assert found.quantiles_m["min"] == pytest.approx(5, abs=0.01)
    assert found.quantiles_m["median"] == pytest.approx(20, abs=0.01)
    assert found.quantiles_m["max"] == pytest.approx(300, abs=0.01)
    text = "\n".join(audit(photos).lines())
    assert "60.0%" in text and "300.0" in text and "not looked at" in text
    assert audit(photos[:1]).to_train is None and "no distance" in audit(photos[:1]).lines()[-1]


def test_the_nearest_is_found_across_the_antimeridian() -> None:
    far, near = moved(LatLng(10.0, 179.9999), 270, 90), moved(LatLng(10.0, 179.9999), 90, 40)
    photos = [
        photo("t", "t", LatLng(10.0, 179.9999), BEGAN, split="test"),
        photo("far", "a", far, BEGAN, split="train"),
        photo("near", "b", near, BEGAN, split="train"),
    ]
    assert near.lng < 0
    found = audit(photos).to_train
    assert found is not None and found.quantiles_m["max"] == pytest.approx(40, abs=0.01)


def looked_at(folder: Path) -> list[Photo]:
    """A test photo, the same picture smaller in train and in val, another picture in train."""
    rng = np.random.default_rng(4)
    scenes = rng.integers(0, 255, (2, 6, 8, 3)).astype(np.uint8)
    photos = []
    for name, scene, width, split, metres in (
        ("t", 0, 400, "test", 0.0),
        ("same", 0, 300, "train", 20.0),
        ("other", 1, 400, "train", 20.0),
        ("val", 0, 350, "val", 10.0),
        ("away", 0, 400, "train", 50.0),
    ):
        picture = Image.fromarray(scenes[scene]).resize((width, width * 3 // 4), 3)
        picture.save(folder / f"{name}.jpg", quality=60)
        when = BEGAN + timedelta(days=len(photos))
        one = photo(name, name, moved(PLACE, 0, metres), when, split=split)
        photos.append(replace(one, path=folder / f"{name}.jpg"))
    return photos


def test_the_audit_compares_pictures_of_other_days(tmp_path: Path) -> None:
    write_photos(looked_at(tmp_path), tmp_path / "photos.parquet", "sequence-disjoint")
    found = audit_table(tmp_path / "photos.parquet", pictures=True)
    alike = {name: one.alike for name, one in found.across.items()}
    assert alike == {"train - test": 1, "train - val": 1, "val - test": 1}
    assert found.near_duplicates == 0 and found.pictures == 4  # "away" stands near none
    for name in ("t", "same"):  # what cannot be read is like nothing
        (tmp_path / f"{name}.jpg").write_bytes(b"no picture")
    found = audit_table(tmp_path / "photos.parquet", pictures=True)
    assert found.across["train - test"].alike == 0 and found.pictures == 2


def test_no_pair_that_could_look_alike_is_told_as_none(tmp_path: Path) -> None:
    """Pictures were asked for, and none had to be opened: that is 0, not unknown."""
    photos = [
        photo(split, split, moved(PLACE, 0, 200 * k), BEGAN, split=split)
        for k, split in enumerate(("train", "val", "test"))
    ]
    write_photos(photos, tmp_path / "photos.parquet", "sequence-disjoint")
    found = audit_table(tmp_path / "photos.parquet", pictures=True)
    assert [one.alike for one in found.across.values()] == [0, 0, 0] and found.pictures == 0
    told = "\n".join(found.lines())
    assert "not looked at" not in told and "0 pictures were looked at" in told
    assert "not looked at" in "\n".join(audit_table(tmp_path / "photos.parquet").lines())


def test_audit_and_plot_by_the_command(zoomloc, tmp_path: Path) -> None:
    table = tmp_path / "photos.parquet"
    write_photos(town(), table)
    code, out, _ = zoomloc("split", table, "--by", "image", "--plot", tmp_path / "leak.png")
    assert code == 0 and "LEAKY" in out
    before = table.read_bytes()
    code, out, _ = zoomloc("split", table, "--audit", "--plot", tmp_path / "again.png")
    assert code == 0 and table.read_bytes() == before
    assert "LEAKY" in out and "shared drives" in out and "median" in out
    with Image.open(tmp_path / "leak.png") as picture:
        assert picture.size == (900, 550)
    assert (tmp_path / "leak.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    code, out, _ = zoomloc("split", table, "--group", "creator-day", "--json", "--quiet")
    found = json.loads(out)
    assert code == 0 and found["protocol"] == "sequence-disjoint" and not found["leaky"]
    assert found["to_train"]["photos"] == found["photos"]["test"] > 0
    code, out, _ = zoomloc(
        "split", table, "--by", "block", "--block-m", 100, "--buffer-m", 60, "--val", 0.15,
        "--test", 0.15, "--json",
    )  # fmt: skip
    assert json.loads(out)["to_train"]["quantiles_m"]["min"] > 60
    code, _, err = zoomloc("split", table, "--group", "camera")
    assert code == 2 and "split.group: input should be 'drive' or 'creator-day'" in err


def test_nothing_to_plot(table: Path, tmp_path: Path) -> None:
    split_photos(table, "region")
    with pytest.raises(PhotoError, match="no distance to plot"):
        plot_table(table, tmp_path / "plot.png")
    assert not (tmp_path / "plot.png").exists()
