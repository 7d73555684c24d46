"""Train, val and test without leaks, that stay as they are when photos are added.

Knows nothing of pictures or models: ids, places, times, creators and drives are all it looks at.

A group (a drive, the drives of a creator on one day, a block, a photo) has a number in [0, 1):
the hash of the seed and its own name. The lowest, below the share of test, are test; the
highest, down to 1 - val, are val; the rest is train. Drives that meet are one group, by the name
of the one that began first (meetings.py). So no group's split depends on what else is in the
table, but where drives that come later join two groups, and with two exceptions that only tables
of few groups know:

- A split that is wanted and would be empty takes the group whose number lies nearest to it,
  until one is added that belongs there.
- A split takes no more than twice its share of the photos, unless that is one group: those whose
  numbers lie nearest to train's are train, until the table has grown.

Shares are right on average, not each time.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, timedelta
from pathlib import Path
from typing import get_args

import numpy as np

from data_prep.meetings import united
from data_prep.nearby import NEAR_M, NEAR_S, pairs_within
from data_prep.split_audit import Audit, audit, audit_table
from zoomloc.config.photos import SplitBy, SplitGroup
from zoomloc.errors import PhotoError
from zoomloc.world.cells import cell_at, level_of_size
from zoomloc.world.photos import Photo, assert_disjoint, read_photos, write_photos

__all__ = ["Audit", "assert_disjoint", "audit", "audit_table", "split_photos"]

PROTOCOL_OF = {
    "image": "random-image",
    "sequence": "sequence-disjoint",
    "block": "block-disjoint",
    "region": "unseen-region",
}
GROUPS = get_args(SplitGroup)


def split_photos(
    parquet: Path,
    by: SplitBy = "sequence",
    val: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    newest_test: bool = False,
    test_days: int | None = None,
    block_m: float = 200.0,
    buffer_m: float = 25.0,
    group: SplitGroup = "drive",
    unite: bool = True,
) -> Audit:
    """Rewrite the split column of a photo table and audit it (without opening a picture).

    ``by``: whole drives (``sequence``), whole squares with a buffer of left-out photos between
    them (``block``), single photos (``image``: leaks, the paper's way), or all photos as the
    test of models trained elsewhere (``region``). ``val`` and ``test`` are shares of photos; with
    ``block`` they may be all: val to calibrate models trained elsewhere, and no train.
    With ``group`` ``creator-day`` all drives of one creator on one day go together. Drives that
    meet go together too, unless ``unite`` is False: near-duplicates may then be in two splits.
    ``newest_test`` takes the drives of the newest day (``test_days`` of them) for the test.
    Raises PhotoError where the photos do not allow it; the table is unchanged then.
    """
    no_train = by == "block" and val > 0 and math.isclose(val + test, 1)
    days = (test_days or 1) if newest_test or test_days is not None else 0
    _check(by, group, val, test, no_train, days)
    photos = read_photos(parquet)
    if by == "region":
        splits: list[str | None] = ["test"] * len(photos)
    elif by == "block":
        splits = _by_block(photos, val, test, seed, block_m, buffer_m, no_train)
    elif by == "image":
        splits = _hashed([photo.id for photo in photos], val, test, seed)
    else:
        groups = _groups(photos, group)
        groups = _united(photos, groups, val) if unite else groups
        newest = _of_newest_days(photos, groups, days) if days else set()
        splits = _drawn(groups, val, seed, newest) if days else _hashed(groups, val, test, seed)
    done = [replace(photo, split=split) for photo, split in zip(photos, splits, strict=True)]
    if by == "sequence":
        assert_disjoint(done)
    write_photos(done, parquet, PROTOCOL_OF[by])
    return audit(done, PROTOCOL_OF[by])


def _check(by: str, group: str, val: float, test: float, no_train: bool, days: int) -> None:
    """Refuse what no table could be split by."""
    if by not in PROTOCOL_OF:
        raise PhotoError(f"split by {by!r}; known are {', '.join(PROTOCOL_OF)}")
    if group not in GROUPS:
        raise PhotoError(f"split group {group!r}; known are {', '.join(GROUPS)}")
    if not (0 <= val < 1 and 0 < test < 1 and (val + test < 1 or no_train)):
        raise PhotoError(f"split shares val {val}, test {test}: above 0 and below 1 together")
    for key, is_set in ((f"group {group}", group != "drive"), ("newest_test", days > 0)):
        if by != "sequence" and is_set:
            raise PhotoError(
                f"split: {key} goes with --by sequence only, as it keeps whole drives together; "
                f"this is by {by}: set split.by to sequence, or leave {key.split()[0]} out"
            )


# 1. by hash


def number_of(group: str, seed: int) -> float:
    """The number in [0, 1) that decides on a group: of the seed and its name, nothing else."""
    digest = hashlib.sha256(f"{seed}\0{group}".encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)


def _hashed(groups: Sequence[str], val: float, test: float, seed: int) -> list[str | None]:
    """Each group whole into one split by its number, and every split that is wanted not empty."""
    sizes = Counter(groups)
    numbers = {name: number_of(name, seed) for name in sizes}
    order = sorted(sizes, key=lambda name: (numbers[name], name))
    wanted = ["train", *(["val"] if val > 0 else []), "test"]
    if len(order) < len(wanted):
        raise _too_few(len(order), wanted)
    tests = _reach([(numbers[name] < test, sizes[name]) for name in order], test)
    ending = [(numbers[name] >= 1 - val, sizes[name]) for name in reversed(order)]
    vals = _reach(ending, val) if val > 0 else 0
    while tests + vals >= len(order):  # train takes the one nearest to it
        tests, vals = (tests - 1, vals) if tests > vals else (tests, vals - 1)
    splits = {name: "train" for name in order}
    splits |= {name: "test" for name in order[:tests]}
    splits |= {name: "val" for name in order[len(order) - vals :]}
    return [splits[group] for group in groups]


def _reach(groups: Sequence[tuple[bool, int]], share: float) -> int:
    """How many of the first groups a split takes, of all whether they belong to it and how large.

    Those that belong, up to twice the share; one at least.
    """
    most, have = 2 * share * sum(size for _, size in groups), 0
    for count, (belongs, size) in enumerate(groups):
        have += size
        if not belongs or have > most:
            return max(count, 1)
    return len(groups)


def _too_few(groups: int, wanted: Sequence[str]) -> PhotoError:
    others = " and ".join(sorted(set(wanted) - {"train"}))
    return PhotoError(
        f"split: {groups} drives, days, blocks or photos are too few for train, {others}; take "
        "more (each sub-folder is one drive), or 'zoomloc split PHOTOS.parquet --by block'"
    )


# 2. by drives


def _groups(photos: Sequence[Photo], group: str) -> list[str]:
    """The name of each photo's group: its drive, or its drive's creator and day."""
    if group == "drive":
        return [photo.sequence_id for photo in photos]
    days = _first_days(photos)
    creators: dict[str, str] = {}
    for photo in photos:
        drive = photo.sequence_id
        creators[drive] = min(photo.creator, creators.get(drive, photo.creator))
    names = {
        drive: f"{creators[drive]}\0{days[drive]}" if drive in days else f"\0\0{drive}"
        for drive in creators
    }
    return [names[photo.sequence_id] for photo in photos]


def _united(photos: Sequence[Photo], groups: list[str], val: float) -> list[str]:
    """The groups, those that meet as one; raises PhotoError where so too few are left."""
    found = united(photos, groups)
    before, left, wanted = len(set(groups)), len(set(found)), 3 if val > 0 else 2
    if left < wanted <= before:
        raise PhotoError(
            f"split: {before} drives or days meet within {NEAR_M:g} m and {NEAR_S / 60:g} minutes, "
            f"so that {left} stay apart, too few to part; add drives of other hours, or "
            "'zoomloc split PHOTOS.parquet --by block'"
        )
    return found


def _first_days(photos: Sequence[Photo]) -> dict[str, date]:
    """The day on which each drive began, drives without any time left out.

    A time with a zone, which servers give in UTC, becomes solar time by the longitude: midnight
    in Greenwich would cut an American evening in two.
    """
    days: dict[str, date] = {}
    for photo in photos:
        when = photo.captured_at
        if when is None:
            continue
        if when.tzinfo is not None:
            when = when.astimezone(UTC) + timedelta(hours=photo.lng / 15)
        drive, day = photo.sequence_id, when.date()
        days[drive] = min(day, days.get(drive, day))
    return days


def _of_newest_days(photos: Sequence[Photo], groups: Sequence[str], days: int) -> set[str]:
    """The groups that have a drive of the newest days; raises where that is all of them."""
    newest = _last_days(photos)
    kept = sorted(set(newest.values()))[-days:]
    chosen = {
        group
        for photo, group in zip(photos, groups, strict=True)
        if newest[photo.sequence_id] in kept
    }
    if len(chosen) == len(set(groups)):
        raise PhotoError(
            f"split: all {len(newest)} drives are of the newest {days} day(s), or meet one of "
            "these; none is left to train on; take fewer test_days, or no newest_test"
        )
    return chosen


def _last_days(photos: Sequence[Photo]) -> dict[str, date]:
    """The last local day of each drive."""
    days: dict[str, date] = {}
    for photo in photos:
        if photo.captured_at is not None:
            day = photo.captured_at.date()
            days[photo.sequence_id] = max(day, days.get(photo.sequence_id, day))
    undated = sorted({photo.sequence_id for photo in photos} - set(days))
    if undated:
        raise PhotoError(
            f"split: newest_test needs times, and {len(undated)} drives have none (such as "
            f"{undated[0]!r}); leave newest_test out"
        )
    return days


# 3. by a draw, for benchmarks


def _drawn(groups: Sequence[str], share: float, seed: int, tests: set[str]) -> list[str | None]:
    """Val drawn from all groups that are not test: groups in random order, each where it brings
    the share of photos nearest.

    For tables that do not grow: the draw is from all groups, and a new newest day makes another
    test anyway. Nearer to the share than hashes are, and what published figures were made with.
    """  # noqa: D205
    sizes = Counter(groups)
    order = sorted(set(sizes) - tests)
    order = [order[k] for k in np.random.default_rng(seed).permutation(len(order))]
    vals: set[str] = set()
    wanted, have = share * len(groups), 0
    for group in order:
        if abs(wanted - have - sizes[group]) < abs(wanted - have):
            vals.add(group)
            have += sizes[group]
    if wanted > 0 and not vals and order:  # every group is larger than twice the share
        vals.add(min(order, key=lambda group: sizes[group]))
    if len(vals) == len(order):
        raise _too_few(len(sizes), ["train", "test", *(["val"] if share > 0 else [])])
    return ["test" if g in tests else "val" if g in vals else "train" for g in groups]


# 4. by blocks


def _by_block(
    photos: Sequence[Photo],
    val: float,
    test: float,
    seed: int,
    block_m: float,
    buffer_m: float,
    no_train: bool,
) -> list[str | None]:
    """Whole squares of the quadtree; what lies within the buffer of a test (or, for train, of a
    val) photo in another split is left out.

    A photo that is added may so push others out, but never into another split.
    """  # noqa: D205
    if not (block_m > 0 and buffer_m >= 0):
        raise PhotoError(f"split: block_m {block_m}, buffer_m {buffer_m}; above 0 and at least 0")
    # whole degrees, so that more photos hardly ever make other blocks
    level = level_of_size(block_m, round(float(np.median([photo.lat for photo in photos]))))
    blocks = [cell_at(photo.place, level).quadkey for photo in photos]
    if no_train:
        drawn = _drawn(blocks, val, seed, set())
        splits: list[str | None] = ["val" if split == "val" else "test" for split in drawn]
    else:
        splits = _hashed(blocks, val, test, seed)
    _leave_out_near(photos, splits, buffer_m)
    for split, share in (("train", 0 if no_train else 1), ("val", val)):
        if share > 0 and split not in splits:
            raise PhotoError(f"split: the buffer leaves no photo for {split}; take larger block_m")
    return splits


def _leave_out_near(photos: Sequence[Photo], splits: list[str | None], buffer_m: float) -> None:
    """Take train and val photos near a test photo, then train photos near val, out of splits."""
    for kept, others in (("test", ("train", "val")), ("val", ("train",))):
        keep = [photo for photo, split in zip(photos, splits, strict=True) if split == kept]
        at_risk = [k for k, split in enumerate(splits) if split in others]
        for near, _ in pairs_within([photos[k] for k in at_risk], keep, buffer_m):
            for k in set(near.tolist()):
                splits[at_risk[k]] = None
