"""Drives that meet are found as by comparing all photos with all, and fast."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from data_prep.meetings import united
from data_prep.nearby import NEAR_M, NEAR_S
from data_prep.split import split_photos
from zoomloc.errors import PhotoError
from zoomloc.world.cells import LatLng, distance_m, moved
from zoomloc.world.photos import Photo, read_photos, write_photos

PLACE = LatLng(48.1, -1.7)
BEGAN = datetime(2021, 6, 1, 10, tzinfo=UTC)


def photo(name: str, drive: str, place: LatLng, seconds: float | None) -> Photo:
    when = None if seconds is None else BEGAN + timedelta(seconds=seconds)
    return Photo(
        name, Path(f"{name}.jpg").absolute(), *place, None, None, "perspective", when, drive,
        "folder", "", "", 5.0,
    )  # fmt: skip


def by_hand(photos: list[Photo]) -> list[str]:
    """Drives made one by comparing all photos with all, under the name that began first."""
    drives = {p.sequence_id: p.sequence_id for p in photos}
    for a in photos:
        for b in photos:
            if a.captured_at is None or b.captured_at is None:
                continue
            apart_s = abs((a.captured_at - b.captured_at).total_seconds())
            if apart_s <= NEAR_S and distance_m(a.place, b.place) <= NEAR_M:
                one, two = drives[a.sequence_id], drives[b.sequence_id]
                drives = {k: one if v == two else v for k, v in drives.items()}
    began: dict[str, list[datetime]] = {}
    for p in photos:
        began.setdefault(p.sequence_id, [])
        began[p.sequence_id] += [p.captured_at] if p.captured_at else []
    first = sorted(drives, key=lambda d: (not began[d], min(began[d], default=BEGAN), d))
    names = {v: next(d for d in first if drives[d] == v) for v in drives.values()}
    return [names[drives[p.sequence_id]] for p in photos]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "place", [PLACE, LatLng(-16.5, 179.9999), LatLng(84.9, 10.0), LatLng(0.0, 0.0)]
)
def test_meetings_are_those_of_comparing_all_with_all(place: LatLng, seed: int) -> None:
    """Sparse and dense, in space and in time; some photos have no time."""
    rng = np.random.default_rng(seed)
    side_m, span_s = rng.choice([40.0, 150.0, 400.0]), rng.choice([600.0, 4_000.0])
    photos = []
    for k in range(90):
        there = moved(moved(place, 90, rng.uniform(0, side_m)), 0, rng.uniform(-side_m, side_m))
        seconds = None if k % 11 == 0 else float(rng.uniform(-span_s, span_s))
        photos.append(photo(f"{k}", f"{rng.integers(0, 25):02d}", there, seconds))
    found = united(photos, [p.sequence_id for p in photos])
    assert found == by_hand(photos)
    assert side_m < 400 or 3 < len(set(found)) < 25


@pytest.mark.parametrize(("metres", "seconds"), [(24.99, 600), (25.01, 0), (0, 601), (17.5, -600)])
def test_the_limits_are_those_of_the_audit(tmp_path: Path, metres: float, seconds: float) -> None:
    """Two drives meet exactly where the audit would count a pair of them."""
    for bearing in range(0, 360, 20):
        other = moved(PLACE, bearing, metres)
        photos = [photo("a", "a", PLACE, 0), photo("b", "b", other, seconds)]
        meets = metres <= NEAR_M and abs(seconds) <= NEAR_S
        first = "b" if seconds < 0 else "a"
        assert united(photos, ["a", "b"]) == ([first, first] if meets else ["a", "b"])


def crossing(days: int, drives: int, first: int = 0) -> list[Photo]:
    """Of each day some drives along a street, of which every second one meets the one before."""
    photos = []
    for day in range(first, first + days):
        for number in range(drives):
            street = moved(PLACE, 0, 100.0 * number - (85.0 if number % 2 else 0.0))
            for step in range(6):
                name = f"{day:03d}-{number}"
                seconds = 86_400.0 * day + 60 * number + 2 * step
                photos.append(photo(f"{name}/{step}", name, moved(street, 90, 8 * step), seconds))
    return photos


def splits_of(path: Path) -> dict[str, str | None]:
    return {photo.sequence_id: photo.split for photo in read_photos(path)}


def test_drives_that_meet_go_together_and_later_ones_move_none(tmp_path: Path) -> None:
    path = tmp_path / "photos.parquet"
    write_photos(crossing(40, 5), path)
    found = split_photos(path, val=0.2, test=0.2)
    assert all(across.soon == 0 for across in found.across.values())
    before = splits_of(path)
    assert all(
        before[f"{d:03d}-{k}"] == before[f"{d:03d}-{k + 1}"] for d in range(40) for k in (0, 2)
    )
    assert len({before[f"{d:03d}-4"] for d in range(40)}) == 3
    apart = split_photos(path, val=0.2, test=0.2, unite=False)
    assert sum(across.soon for across in apart.across.values()) > 100
    # a later drive of each day meets the pair of before (and is called so as to come first)
    late = [
        photo(f"{p.id}/late", f"!{p.sequence_id}", p.place, 86_400.0 * int(p.id[:3]) + 300)
        for p in crossing(40, 1)
    ]
    write_photos([*crossing(60, 5), *late], path)
    split_photos(path, val=0.2, test=0.2)
    after = splits_of(path)
    assert {name: after[name] for name in before} == before
    assert all(after[f"!{d:03d}-0"] == after[f"{d:03d}-0"] for d in range(40))


def test_a_bridge_moves_one_side_to_the_other(tmp_path: Path) -> None:
    """Only the drives of the later side may move, into the split of the earlier one."""
    path = tmp_path / "photos.parquet"
    write_photos(crossing(40, 5), path)
    split_photos(path, val=0.2, test=0.2)
    before = splits_of(path)
    bridge = [
        photo(f"b{k}", "bridge", moved(PLACE, 0, 20.0 * k), 86_400.0 * 7 + 100) for k in range(12)
    ]
    write_photos([*crossing(40, 5), *bridge], path)
    found = split_photos(path, val=0.2, test=0.2)
    after = splits_of(path)
    moved_drives = {name for name, split in before.items() if after[name] != split}
    assert moved_drives <= {f"007-{k}" for k in range(2, 5)}
    assert {after[f"007-{k}"] for k in range(5)} == {before["007-0"]} == {after["bridge"]}
    assert all(across.soon == 0 for across in found.across.values())


def test_drives_of_two_creators_that_meet_go_together(tmp_path: Path) -> None:
    """By creator and day too, where that would part them."""
    path = tmp_path / "photos.parquet"
    photos = [Photo(**(vars(p) | {"creator": f"{p.sequence_id[-1]}"})) for p in crossing(60, 4)]
    write_photos(photos, path)
    found = split_photos(path, group="creator-day", val=0.2, test=0.2)
    assert all(across.soon == 0 for across in found.across.values())
    apart = split_photos(path, group="creator-day", val=0.2, test=0.2, unite=False)
    assert any(across.soon > 0 for across in apart.across.values())


@pytest.mark.parametrize("plan", [{}, {"newest_test": True, "val": 0.0}, {"group": "creator-day"}])
def test_nothing_is_left_to_part_where_all_drives_meet(tmp_path: Path, plan: dict) -> None:
    path = tmp_path / "photos.parquet"
    photos = [
        photo(f"{d}/{k}", f"{d}", moved(PLACE, 90, 5 * k), 200.0 * d + k)
        for d in range(12)
        for k in range(4)
    ]
    write_photos([Photo(**(vars(p) | {"creator": p.sequence_id})) for p in photos], path)
    before = path.read_bytes()
    with pytest.raises(PhotoError, match="12 .* meet within 25 m and 10 minutes.* --by block'"):
        split_photos(path, **plan)
    assert path.read_bytes() == before


def test_many_photos_at_one_place_take_no_square_of_time() -> None:
    """30,000 drives of one photo at the same time, as of cameras whose clock was never set."""
    rng = np.random.default_rng(0)
    crowd = [photo(f"{k}", f"{k}", moved(PLACE, 0, k % 30), 0.0) for k in range(30_000)]
    lone = [
        photo(f"x{k}", f"x{k}", moved(PLACE, 90, 60.0 + 30 * k), float(rng.uniform(0, 9)))
        for k in range(50)
    ]
    began = time.process_time()
    found = united([*crowd, *lone], [p.sequence_id for p in (*crowd, *lone)])
    assert time.process_time() - began < 20
    assert len(set(found[:30_000])) == 1 and len(set(found)) == 51
