"""Drives out of photos that no sub-folder and no table tells apart: cut by gaps.

Knows nothing of files or tables: times, places and names are all it looks at.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from zoomloc.world.cells import Floats, distances_m
from zoomloc.world.photos import Photo

GAP_S = 300.0  # a longer pause begins another drive
GAP_M = 100.0


def in_drives(photos: Sequence[Photo]) -> list[Photo]:
    """Loose photos with the drives that gaps of 5 minutes or 100 m make of them, as './000'."""
    if not photos:
        return []
    loose = sorted(photos, key=_moment)
    numbers = drive_numbers(
        np.array([np.nan if p.captured_at is None else clock_s(p.captured_at) for p in loose]),
        np.array([p.lat for p in loose]),
        np.array([p.lng for p in loose]),
    )
    names = {p.id: f"./{n:03d}" for p, n in zip(loose, numbers.tolist(), strict=True)}
    return [replace(photo, sequence_id=names[photo.id]) for photo in photos]


def drive_numbers(
    seconds: Floats, lats: Floats, lngs: Floats, changed: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.int64]:
    """The drive of each photo, counted from 1; photos come in the order of their taking.

    ``seconds`` is NaN where the time is not known. ``changed``: begins another folder.
    """
    timed = ~np.isnan(seconds)
    with np.errstate(invalid="ignore"):
        paused = np.diff(seconds) > GAP_S  # NaN compares as no pause
    far = distances_m(lats[:-1], lngs[:-1], lats[1:], lngs[1:]) > GAP_M
    begins = np.ones(len(seconds), bool)
    begins[1:] = paused | far | (timed[1:] != timed[:-1])
    if changed is not None:
        begins |= changed
    return np.cumsum(begins)


def clock_s(when: datetime) -> float:
    """Seconds since 1970; a time without a zone counts as UTC, so that order is defined."""
    return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()


def _moment(photo: Photo) -> tuple[bool, float, list[tuple[int, str]]]:
    """Sort by time, those without one last; then by name, numbers in it as numbers."""
    parts = re.findall(r"([0-9]+)|([^0-9]+)", photo.id)
    name = [(int(digits[:18] or 0), text) for digits, text in parts]
    known = photo.captured_at is not None
    return not known, clock_s(photo.captured_at) if photo.captured_at else 0.0, name
