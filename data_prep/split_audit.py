"""The audit of a split: what test photos share with the photos that training sees.

Knows nothing of how a split was made. Pictures are opened only where asked for, and only those
that stand near one of another split.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_prep.nearby import NEAR_M, NEAR_S, Indices, pairs_within, seconds_of
from data_prep.photos.looks import ALIKE_BITS, ALIKE_M, are_alike, hashes_of
from zoomloc.world.cells import Floats
from zoomloc.world.nearest import nearest_m
from zoomloc.world.photos import (
    READINGS,
    SPLITS,
    Photo,
    read_photos,
    shared_drives,
    split_hash,
    split_protocol,
)

ACROSS = (("train", "test"), ("train", "val"), ("val", "test"))
QUANTILES = {"min": 0.0, "5 %": 5.0, "25 %": 25.0, "median": 50.0, "75 %": 75.0, "95 %": 95.0,
             "max": 100.0}  # fmt: skip
WITHIN_M = (10.0, 25.0, 50.0, 100.0)


@dataclass(frozen=True)
class Across:
    """What two splits have in common: drives, and pairs of photos at most 25 m apart.

    ``soon``: taken within 10 minutes; ``undated``: one of the two has no time; ``alike``: their
    pictures look the same, whenever taken (None where looks were not asked for).
    """

    drives: int
    soon: int
    undated: int
    alike: int | None


@dataclass(frozen=True)
class Distances:
    """Metres from each test photo to the nearest training photo."""

    photos: int
    quantiles_m: dict[str, float]
    within: dict[str, float]  # share of test photos with one at most so far away


@dataclass(frozen=True)
class Audit:
    """What a split holds. Near duplicates are train photos within 25 m of a test photo:
    within 10 minutes of it, or at a time that one of the two does not know.
    """  # noqa: D205

    protocol: str | None
    leaky: bool
    photos: dict[str, int]
    drives: dict[str, int]
    left_out: int
    shared_drives: tuple[str, ...]
    near_duplicates: int
    near_at_unknown_time: int
    across: dict[str, Across]
    pictures: int  # that were looked at
    to_train: Distances | None
    split_hash: str

    def lines(self) -> list[str]:
        """A table for people."""
        told = f"protocol  {self.protocol or 'not stated'}"
        if self.protocol in READINGS:
            told += f"  {READINGS[self.protocol]}"
        lines = [told, f"split     {self.split_hash}", "", f"{'':8}{'photos':>10}{'drives':>8}"]
        for split in SPLITS:
            lines.append(f"{split:8}{self.photos[split]:>10,}{self.drives[split]:>8,}")
        lines += [f"{'left out':8}{self.left_out:>10,}", "", *self._across_lines(), ""]
        return lines + (_no_distances() if self.to_train is None else _distances(self.to_train))

    def _across_lines(self) -> list[str]:
        heads = ("shared drives", "within 10 min", "time unknown", "look alike")
        lines = [
            f"pairs of photos at most {NEAR_M:g} m apart, and drives, in two splits:",
            f"{'':14}" + "".join(f"{head:>15}" for head in heads),
        ]
        for name, one in self.across.items():
            alike = "not looked at" if one.alike is None else f"{one.alike:,}"
            counts = f"{one.drives:>15,}{one.soon:>15,}{one.undated:>15,}"
            lines.append(f"{name:14}{counts}{alike:>15}")
        if any(one.alike is not None for one in self.across.values()):
            lines.append(
                f"look alike: at most {ALIKE_BITS} of 64 bits of their difference hashes differ; "
                f"{self.pictures:,} pictures were looked at"
            )
        return lines


def audit(
    photos: Sequence[Photo],
    protocol: str | None = None,
    hashes: Sequence[int | None] | None = None,
) -> Audit:
    """Counts, shared drives, near duplicates and distances of photos as they are split now.

    ``hashes``: of each photo's picture, where they are known.
    """
    used = {split: [p for p in photos if p.split == split] for split in SPLITS}
    near, unknown = _near_duplicates(used["train"], used["test"])
    return Audit(
        protocol=protocol,
        leaky=protocol in READINGS,
        photos={split: len(found) for split, found in used.items()},
        drives={split: len({p.sequence_id for p in found}) for split, found in used.items()},
        left_out=sum(photo.split is None for photo in photos),
        shared_drives=tuple(shared_drives(photos)),
        near_duplicates=near,
        near_at_unknown_time=unknown,
        across={f"{one} - {two}": _across(photos, one, two, hashes) for one, two in ACROSS},
        pictures=sum(value is not None for value in hashes or ()),
        to_train=_to_train(nearest_m(used["test"], used["train"])),
        split_hash=split_hash(photos),
    )


def audit_table(
    parquet: Path,
    pictures: bool = False,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """The audit of a table as it lies there; with ``pictures`` near ones are compared by looks.

    Raises PhotoError.
    """
    photos = read_photos(parquet)
    hashes = _hashes_near(photos, workers, progress) if pictures else None
    return audit(photos, split_protocol(parquet), hashes)


def distances_to_train_m(photos: Sequence[Photo]) -> Floats:
    """(n,) metres from each test photo to the nearest training photo."""
    test = [photo for photo in photos if photo.split == "test"]
    return nearest_m(test, [photo for photo in photos if photo.split == "train"])


# 1. near in place and time


def _near_duplicates(train: Sequence[Photo], test: Sequence[Photo]) -> tuple[int, int]:
    """Train photos near a test photo in place and time; and those near where no time is known."""
    times, times2 = seconds_of(train), seconds_of(test)
    near, unknown = np.zeros(len(train), np.bool_), np.zeros(len(train), np.bool_)
    for a, b in pairs_within(train, test, NEAR_M):
        apart_s = np.abs(times[a] - times2[b])
        near[a[apart_s <= NEAR_S]] = True
        unknown[a[np.isnan(apart_s)]] = True
    return int(near.sum()), int((unknown & ~near).sum())


def _across(
    photos: Sequence[Photo], one: str, two: str, hashes: Sequence[int | None] | None
) -> Across:
    """What two splits have in common."""
    here, there = _indices(photos, one), _indices(photos, two)
    photos1, photos2 = [photos[k] for k in here], [photos[k] for k in there]
    times, times2 = seconds_of(photos1), seconds_of(photos2)
    bits = None if hashes is None else np.array([h or 0 for h in hashes], np.uint64)
    seen = None if hashes is None else np.array([h is not None for h in hashes], np.bool_)
    soon = undated = alike = 0
    for a, b in pairs_within(photos1, photos2, NEAR_M):
        apart_s = np.abs(times[a] - times2[b])
        soon += int((apart_s <= NEAR_S).sum())
        undated += int(np.isnan(apart_s).sum())
        if bits is not None and seen is not None:
            a, b = here[a], there[b]
            alike += int((seen[a] & seen[b] & are_alike(bits[a], bits[b])).sum())
    drives = {p.sequence_id for p in photos1} & {p.sequence_id for p in photos2}
    return Across(len(drives), soon, undated, None if hashes is None else alike)


def _indices(photos: Sequence[Photo], split: str) -> Indices:
    return np.array([k for k, photo in enumerate(photos) if photo.split == split], np.int64)


def _hashes_near(
    photos: Sequence[Photo], workers: int, progress: Callable[[int, int], None] | None
) -> list[int | None]:
    """Hashes of the pictures that have a photo of another split near; None for all others."""
    near = np.zeros(len(photos), np.bool_)
    for one, two in ACROSS:
        here, there = _indices(photos, one), _indices(photos, two)
        found = pairs_within([photos[k] for k in here], [photos[k] for k in there], ALIKE_M)
        for a, b in found:
            near[here[a]] = near[there[b]] = True
    chosen = np.flatnonzero(near).tolist()
    hashes: list[int | None] = [None] * len(photos)
    paths = [photos[k].path for k in chosen]
    for k, value in zip(chosen, hashes_of(paths, workers, progress), strict=True):
        hashes[k] = value
    return hashes


# 2. distances


def _to_train(metres: Floats) -> Distances | None:
    if not len(metres):
        return None
    quantiles = np.percentile(metres, list(QUANTILES.values())).tolist()
    return Distances(
        len(metres),
        {name: round(value, 2) for name, value in zip(QUANTILES, quantiles, strict=True)},
        {f"{limit:g} m": _share(metres <= limit) for limit in WITHIN_M},
    )


def _share(chosen: npt.NDArray[np.bool_]) -> float:
    return round(float(chosen.mean()), 4)


def _distances(found: Distances) -> list[str]:
    quantiles, within = found.quantiles_m, found.within
    return [
        f"metres from each of {found.photos:,} test photos to the nearest training photo:",
        "".join(f"{name:>9}" for name in quantiles),
        "".join(f"{value:>9,.1f}" for value in quantiles.values()),
        "test photos with a training photo at most so far away:",
        "".join(f"{name:>9}" for name in within),
        "".join(f"{share:>9.1%}" for share in within.values()),
    ]


def _no_distances() -> list[str]:
    return ["no distance from test to train: one of them is empty"]
