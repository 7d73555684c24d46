"""What mapillary_tools wrote of a folder's pictures: ``mapillary_image_description.json``.

Knows nothing of EXIF or of how pictures are found. The format is that of the tool's own
``schema/image_description_schema.json``: a list of entries, times in UTC, ``filename`` the
absolute path on the machine that wrote it, which may be another one.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from data_prep.photos.asked import bearing, number, words
from zoomloc.errors import PhotoError

SIDECAR = "mapillary_image_description.json"
LARGEST = 1 << 30


@dataclass(frozen=True)
class Described:
    """What an entry says of one picture; None: nothing."""

    lat: float | None
    lng: float | None
    bearing_deg: float | None
    captured_at: datetime | None
    position_error_m: float | None
    sequence: str | None  # name of the drive, unlike any sub-folder's


def described(folder: Path, names: Sequence[str], sidecars: Iterable[str]) -> dict[str, Described]:
    """What the sidecars of a folder say of its pictures; the nearest one above a picture counts.

    ``names`` and ``sidecars`` are posix paths relative to the folder. Entries of videos, of
    pictures that are elsewhere, and those that the tool marked as errors say nothing. Raises
    PhotoError for a sidecar that is no JSON list.
    """
    found: dict[str, Described] = {}
    for sidecar in sorted(sidecars, key=lambda name: name.count("/")):  # the nearest comes last
        beside = PurePosixPath(sidecar).parent.as_posix()
        prefix = "" if beside == "." else f"{beside}/"
        below = {name[len(prefix) :] for name in names if name.startswith(prefix)}
        for name, entry in _by_name(_entries(folder / sidecar), below).items():
            found[prefix + name] = _described(entry, beside)
    return found


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        if path.stat().st_size > LARGEST:
            raise PhotoError(f"{path}: more than {LARGEST >> 30} GB; cut the folder in parts")
        entries = json.loads(path.read_bytes())
    except OSError as error:
        raise PhotoError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise PhotoError(f"{path}: no readable JSON; write it again or take it away") from error
    if not isinstance(entries, list):
        raise PhotoError(f"{path}: no list of descriptions; write it again or take it away")
    return [
        entry
        for entry in entries
        if isinstance(entry, dict)
        and "error" not in entry
        and entry.get("filetype", "image") == "image"
        and isinstance(entry.get("filename"), str)
    ]


def _by_name(entries: Sequence[dict[str, Any]], names: set[str]) -> dict[str, dict[str, Any]]:
    """Entries by the picture below the sidecar that they mean.

    The folder was perhaps moved: its former path is the one that most entries agree on.
    """
    paths = [entry["filename"].replace("\\", "/") for entry in entries]
    roots = Counter(root for path in paths if (root := _root(path, names)) is not None)
    if not roots:
        return {}
    root = roots.most_common(1)[0][0]
    return {
        path[len(root) :]: entry
        for path, entry in zip(paths, entries, strict=True)
        if path.startswith(root) and path[len(root) :] in names
    }


def _root(path: str, names: set[str]) -> str | None:
    """The path up to the longest tail that is a picture's name, or None."""
    parts = path.split("/")
    for start in range(len(parts)):
        if "/".join(parts[start:]) in names:
            return "".join(f"{part}/" for part in parts[:start])
    return None


def _described(entry: Mapping[str, Any], beside: str) -> Described:
    lat, lng = number(entry.get("MAPLatitude")), number(entry.get("MAPLongitude"))
    if lat is None or lng is None or abs(lat) > 90 or abs(lng) > 180 or lat == lng == 0:
        lat = lng = None
    compass = entry.get("MAPCompassHeading")
    compass = compass if isinstance(compass, dict) else {}
    true = bearing(compass.get("TrueHeading"))
    error = number(entry.get("MAPGPSAccuracyMeters"))
    sequence = words(entry.get("MAPSequenceUUID"))
    return Described(
        lat=lat,
        lng=lng,
        bearing_deg=bearing(compass.get("MagneticHeading")) if true is None else true,
        captured_at=_moment(entry.get("MAPCaptureTime")),
        position_error_m=error if error is not None and error > 0 else None,
        sequence=f"./mapillary/{beside}/{sequence}" if sequence else None,
    )


def _moment(value: Any) -> datetime | None:
    """UTC, as 2018_06_08_20_24_10_500 (milliseconds)."""
    match = re.fullmatch(r"(\d{4}(?:_\d\d){5})_(\d{1,6})", value if isinstance(value, str) else "")
    try:
        when = None if match is None else datetime.strptime(match[1], "%Y_%m_%d_%H_%M_%S")
    except ValueError:
        return None
    if match is None or when is None:
        return None
    return when.replace(microsecond=int(match[2].ljust(6, "0")), tzinfo=UTC)
