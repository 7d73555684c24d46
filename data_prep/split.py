"""Train, val and test without leaks, and the audit that shows them.

Knows nothing of pictures or models: ids, places, times and drives are all it looks at.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from zoomloc.errors import PhotoError
from zoomloc.world.cells import (
    EQUATOR_M,
    Floats,
    cell_at,
    distances_m,
    level_of_size,
    xy_of,
)
from zoomloc.world.photos import (
    SPLITS,
    Photo,
    assert_disjoint,
    read_photos,
    shared_drives,
    split_hash,
    split_protocol,
    write_photos,
)

__all__ = ["Audit", "assert_disjoint", "audit", "split_photos"]

By = Literal["sequence", "block", "image", "region"]

PROTOCOL_OF = {
    "image": "random-image",
    "sequence": "sequence-disjoint",
    "block": "block-disjoint",
    "region": "unseen-region",
}
NEAR_M, NEAR_S = 25.0, 600.0  # a train photo this near, this soon, shows the same scene


@dataclass(frozen=True)
class Audit:
    """What a split holds. Near duplicates are train photos within 25 m of a test photo:
    within 10 minutes of it, or at a time that one of the two does not know.
    """  # noqa: D205

    protocol: str | None
    photos: dict[str, int]
    drives: dict[str, int]
    left_out: int
    shared_drives: tuple[str, ...]
    near_duplicates: int
    near_at_unknown_time: int
    split_hash: str


def split_photos(
    parquet: Path,
    by: By = "sequence",
    val: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    newest_test: bool = False,
    test_days: int | None = None,
    block_m: float = 200.0,
    buffer_m: float = 25.0,
) -> Audit:
    """Rewrite the split column of a photo table and audit it.

    ``by``: whole drives (``sequence``), whole squares with a buffer of left-out photos between
    them (``block``), single photos (``image``: leaks, the paper's way), or all photos as the
    test of models trained elsewhere (``region``). ``val`` and ``test`` are shares of photos; with
    ``block`` they may be all: val to calibrate models trained elsewhere, and no train.
    ``newest_test`` takes the drives of the newest day (``test_days`` of them) for the test.
    Raises PhotoError where the photos do not allow it; the table is unchanged then.
    """
    if by not in PROTOCOL_OF:
        raise PhotoError(f"split by {by!r}; known are {', '.join(PROTOCOL_OF)}")
    no_train = by == "block" and val > 0 and math.isclose(val + test, 1)
    if not (0 <= val < 1 and 0 < test < 1 and (val + test < 1 or no_train)):
        raise PhotoError(f"split shares val {val}, test {test}: above 0 and below 1 together")
    if by != "sequence" and (newest_test or test_days is not None):
        raise PhotoError("newest_test goes with --by sequence only: days are made of drives")
    photos = read_photos(parquet)
    rng = np.random.default_rng(seed)
    if by == "region":
        splits: list[str | None] = ["test"] * len(photos)
    elif by == "sequence":
        days = (test_days or 1) if newest_test or test_days is not None else 0
        splits = _by_drive(photos, val, test, rng, days)
    elif by == "image":
        splits = _by_group([photo.id for photo in photos], val, test, rng, {})
    else:
        splits = _by_block(photos, val, test, rng, block_m, buffer_m, no_train)
    done = [replace(photo, split=split) for photo, split in zip(photos, splits, strict=True)]
    if by == "sequence":
        assert_disjoint(done)
    write_photos(done, parquet, PROTOCOL_OF[by])
    return audit(done, PROTOCOL_OF[by])


# 1. the audit


def audit(photos: Sequence[Photo], protocol: str | None = None) -> Audit:
    """Counts, shared drives and near duplicates of photos as they are split now."""
    near, unknown = _near_duplicates(photos)
    used = {split: [p for p in photos if p.split == split] for split in SPLITS}
    return Audit(
        protocol=protocol,
        photos={split: len(found) for split, found in used.items()},
        drives={split: len({p.sequence_id for p in found}) for split, found in used.items()},
        left_out=sum(photo.split is None for photo in photos),
        shared_drives=tuple(shared_drives(photos)),
        near_duplicates=near,
        near_at_unknown_time=unknown,
        split_hash=split_hash(photos),
    )


def audit_table(parquet: Path) -> Audit:
    """The audit of a table as it lies there. Raises PhotoError."""
    return audit(read_photos(parquet), split_protocol(parquet))


def _near_duplicates(photos: Sequence[Photo]) -> tuple[int, int]:
    """Train photos near a test photo in place and time; and those near where no time is known."""
    train = [photo for photo in photos if photo.split == "train"]
    test = [photo for photo in photos if photo.split == "test"]
    a, b = _pairs_within(train, test, NEAR_M)
    apart_s = np.abs(_times_s(train)[a] - _times_s(test)[b])
    near = set(a[apart_s <= NEAR_S].tolist())
    unknown = set(a[np.isnan(apart_s)].tolist()) - near
    return len(near), len(unknown)


def _times_s(photos: Sequence[Photo]) -> Floats:
    """Seconds since 1970, NaN where unknown; a time without a zone counts as UTC."""
    times = []
    for photo in photos:
        when = photo.captured_at
        if when is not None and when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        times.append(np.nan if when is None else when.timestamp())
    return np.array(times, np.float64)


def _pairs_within(
    here: Sequence[Photo], there: Sequence[Photo], metres: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices (n,), (n,) of all pairs at most that many geodesic metres apart."""
    import shapely

    if not here or not there or metres <= 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    lat, lng = _places(here)
    lat2, lng2 = _places(there)
    points, points2 = _plane(lat, lng, lng[0]), _plane(lat2, lng2, lng[0])
    # Mercator stretches by 1 / cos(lat); 2 % more for the ellipsoid, then measured exactly
    reach = 1.02 * metres / np.cos(np.radians(np.clip(np.abs(lat) + 0.01, 0, 89)))
    tree = shapely.STRtree(shapely.points(points2))
    a, b = tree.query(shapely.points(points), predicate="dwithin", distance=reach)
    near = distances_m(lat[a], lng[a], lat2[b], lng2[b]) <= metres
    return a[near], b[near]


def _places(photos: Sequence[Photo]) -> tuple[Floats, Floats]:
    places = np.array([photo.place for photo in photos], np.float64)
    return places[:, 0], places[:, 1]


def _plane(lat: Floats, lng: Floats, middle_lng: float) -> Floats:
    """(n, 2) Mercator metres with the antimeridian opposite ``middle_lng``."""
    x, y = xy_of(lat, (lng - middle_lng + 180) % 360 - 180, 0)
    return np.stack([x, y], axis=1) * EQUATOR_M


# 2. the ways to split


def _by_drive(
    photos: Sequence[Photo], val: float, test: float, rng: np.random.Generator, days: int
) -> list[str | None]:
    """Whole drives; with ``days`` the test is all drives of that many newest days."""
    drives = [photo.sequence_id for photo in photos]
    fixed: dict[str, str] = {}
    if days:
        newest = _newest_days(photos)
        kept = sorted(set(newest.values()))[-days:]
        fixed = {drive: "test" for drive, day in newest.items() if day in kept}
        if len(fixed) == len(newest):
            raise PhotoError(
                f"split: all {len(newest)} drives are of the newest {days} day(s), none is left "
                "to train on; take fewer test_days, or no newest_test"
            )
    return _by_group(drives, val, test, rng, fixed)


def _newest_days(photos: Sequence[Photo]) -> dict[str, date]:
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


def _by_group(
    groups: Sequence[str], val: float, test: float, rng: np.random.Generator, fixed: dict[str, str]
) -> list[str | None]:
    """Each group whole into one split, in random order, each where it brings a share nearest.

    ``fixed`` groups have their split already; test then takes no other.
    """
    sizes = Counter(groups)
    order = sorted(set(sizes) - set(fixed))
    order = [order[k] for k in rng.permutation(len(order))]
    wanted = {"val": val * len(groups)}
    if not fixed:
        wanted = {"test": test * len(groups), **wanted}
    splits = dict(fixed)
    for split, share in wanted.items():
        have = 0
        for group in order:
            if group not in splits and abs(share - have - sizes[group]) < abs(share - have):
                splits[group] = split
                have += sizes[group]
        if share > 0 and not have:  # every group is larger than twice the share
            left = [group for group in order if group not in splits]
            if left:
                splits[min(left, key=lambda group: sizes[group])] = split
    chosen = set(splits.values())
    needed = {split for split, share in {**wanted, "test": 1.0}.items() if share > 0}
    if not needed <= chosen or all(group in splits for group in order):
        raise PhotoError(
            f"split: {len(sizes)} drives, blocks or photos are too few for train, "
            f"{' and '.join(sorted(needed))}; take more, or --by block or image"
        )
    return [splits.get(group, "train") for group in groups]


def _by_block(
    photos: Sequence[Photo],
    val: float,
    test: float,
    rng: np.random.Generator,
    block_m: float,
    buffer_m: float,
    no_train: bool,
) -> list[str | None]:
    """Whole squares of the quadtree; what lies within the buffer of a test (or, for train, of a
    val) photo in another split is left out.
    """  # noqa: D205
    if not (block_m > 0 and buffer_m >= 0):
        raise PhotoError(f"split: block_m {block_m}, buffer_m {buffer_m}; above 0 and at least 0")
    level = level_of_size(block_m, photos[0].lat)
    blocks = [cell_at(photo.place, level).quadkey for photo in photos]
    if no_train:  # the blocks of val are drawn, all others are test
        drawn = _by_group(blocks, 0.0, val, rng, {})
        splits: list[str | None] = ["val" if split == "test" else "test" for split in drawn]
    else:
        splits = _by_group(blocks, val, test, rng, {})
    for kept, others in (("test", ("train", "val")), ("val", ("train",))):
        keep = [photo for photo, split in zip(photos, splits, strict=True) if split == kept]
        at_risk = [k for k, split in enumerate(splits) if split in others]
        near, _ = _pairs_within([photos[k] for k in at_risk], keep, buffer_m)
        for k in set(near.tolist()):
            splits[at_risk[k]] = None
    lost = "val" if no_train else "train"
    if lost not in splits:
        raise PhotoError(f"split: the buffer leaves no photo for {lost}; take larger block_m")
    return splits
