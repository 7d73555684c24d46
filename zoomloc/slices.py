"""Slices: the figures of photos of one kind, by what is known of them beforehand.

Knows nothing of models or of how answers are found. A kind is read off the photo table, a camera
off the photo's own EXIF.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zoomloc.belief.metrics import bootstrap_over_groups
from zoomloc.errors import PhotoError
from zoomloc.world.cells import Floats
from zoomloc.world.exif import read_exif
from zoomloc.world.nearest import nearest_m
from zoomloc.world.photos import Photo

RIGHT_M = 50.0
FOV_DEG = (50.0, 70.0, 90.0, 120.0)  # where classes of field of view end
NEAR_M = (5.0, 10.0, 25.0, 50.0, 100.0)  # and those of the nearest training photo
CAMERAS = 8  # told apart, those of most photos
UNKNOWN = "unknown"
OTHERS = "others"


def slices(
    photos: Sequence[Photo],
    errors_m: Floats,
    train: Sequence[Photo] = (),
    right_m: float = RIGHT_M,
) -> dict[str, list[dict[str, Any]]]:
    """Recall within ``right_m`` and median error of each kind of photo, with n and intervals.

    By ``heading``, ``field_of_view``, ``camera``, and, where training photos are given,
    ``nearest_training_photo``. Classes come in their order; an empty one is left out.
    """
    kinds: dict[str, list[str]] = {
        "heading": [UNKNOWN if p.bearing_deg is None else "known" for p in photos],
        "field_of_view": [_fov(photo) for photo in photos],
        "camera": _cameras(photos),
    }
    if train:
        kinds["nearest_training_photo"] = [
            _class_of(metres, NEAR_M, " m") for metres in nearest_m(photos, train)
        ]
    drives = [photo.sequence_id for photo in photos]
    return {
        name: _figures(labels, errors_m, drives, right_m, _ORDERS.get(name, _by_size))
        for name, labels in kinds.items()
    }


def _figures(
    labels: Sequence[str],
    errors_m: Floats,
    drives: Sequence[str],
    right_m: float,
    ordered: Callable[[Sequence[str]], list[str]],
) -> list[dict[str, Any]]:
    """One row a class: its name, photos, drives, recall and median error."""
    label, drive, rows = np.array(labels), np.array(drives), []
    for name in ordered(labels):
        own = label == name
        groups = drive[own].tolist()
        hits = errors_m[own] <= right_m
        recall = bootstrap_over_groups(hits, groups, "mean", seed=0)
        median = bootstrap_over_groups(errors_m[own], groups, "median", seed=0)
        rows.append(
            {
                "class": name,
                "n": int(own.sum()),
                "drives": len(set(groups)),
                f"r_at_{right_m:g}m": recall.to_json(),
                "median_error_m": median.to_json(),
            }
        )
    return rows


# classes


def _fov(photo: Photo) -> str:
    """Class of a photo's field of view; panoramas and fisheyes by their projection."""
    if photo.projection != "perspective":
        return photo.projection
    return UNKNOWN if photo.fov_deg is None else _class_of(photo.fov_deg, FOV_DEG, "°")


def _class_of(value: float, ends: Sequence[float], unit: str) -> str:
    """Such as "below 5 m", "5 to 10 m", "100 m and more"."""
    i = int(np.searchsorted(ends, value, side="right"))
    if i == 0:
        return f"below {ends[0]:g}{unit}"
    if i == len(ends):
        return f"{ends[-1]:g}{unit} and more"
    return f"{ends[i - 1]:g} to {ends[i]:g}{unit}"


def _cameras(photos: Sequence[Photo]) -> list[str]:
    """Make and model from each photo's EXIF; rare ones are summed up."""
    names = [_camera(photo) for photo in photos]
    kept = set(_by_size([name for name in names if name != UNKNOWN])[:CAMERAS])
    return [name if name in kept or name == UNKNOWN else OTHERS for name in names]


def _camera(photo: Photo) -> str:
    try:
        facts = read_exif(photo.path)
    except PhotoError:
        return UNKNOWN
    make, model = facts.make or "", facts.model or ""
    name = model if model.lower().startswith(make.lower()) else f"{make} {model}"
    return name.strip() or UNKNOWN


def _by_size(labels: Sequence[str]) -> list[str]:
    """Classes of most photos first, "others" and "unknown" last."""
    names, counts = np.unique(np.array(labels, dtype=str), return_counts=True)
    sized = zip(names.tolist(), counts.tolist(), strict=True)
    last = {OTHERS: 1, UNKNOWN: 2}
    return [name for name, n in sorted(sized, key=lambda one: (last.get(one[0], 0), -one[1]))]


def _by_value(ends: Sequence[float], unit: str) -> Callable[[Sequence[str]], list[str]]:
    """Classes of a measure from small to large, all others after them."""
    middles = [ends[0] - 1, *ends]
    names = [_class_of(middle, ends, unit) for middle in middles]

    def ordered(labels: Sequence[str]) -> list[str]:
        there = set(labels)
        return [n for n in names if n in there] + sorted(there - set(names))

    return ordered


_ORDERS = {
    "heading": lambda labels: sorted(set(labels)),
    "field_of_view": _by_value(FOV_DEG, "°"),
    "nearest_training_photo": _by_value(NEAR_M, " m"),
}
