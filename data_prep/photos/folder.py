"""A folder of picture files into the photo table, by what their EXIF says.

Knows nothing of imagery or splits; moves, changes and decodes no picture.
"""

import csv
import math
import os
import re
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from zoomloc.errors import PhotoError
from zoomloc.world.cells import MAX_LAT_DEG, LatLng, distance_m
from zoomloc.world.exif import ExifFacts, facts_of
from zoomloc.world.images import check_whole, opened
from zoomloc.world.photos import Photo, Skipped, write_photos, write_skipped
from zoomloc.world.processes import worker_pool

PICTURES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff"})
UNREAD = frozenset(  # a camera's files that are not read: listed, so that nobody misses them
    {".heic", ".heif", ".avif", ".dng", ".arw", ".cr2", ".cr3", ".nef", ".orf", ".raf", ".rw2",
     ".gif", ".bmp", ".jxl", ".mp4", ".mov", ".360", ".insv"}
)  # fmt: skip
TRUTH_FILE = "truth.csv"
GAP_S = 300.0  # of a drive without a sub-folder of its own: a longer pause begins another
GAP_M = 100.0
_CHUNK = 64

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PhotosSummary:
    """What became of a folder: counts, the files written, and seconds of wall clock."""

    photos: int
    drives: int
    with_bearing: int
    with_truth: int
    skipped: dict[str, int]  # photos for each reason
    table: Path
    skipped_table: Path
    seconds: float


@dataclass(frozen=True)
class _Truth:
    lat: float
    lng: float
    bearing_deg: float | None


def read_folder(
    folder: Path,
    out: Path,
    licence: str = "",
    creator: str = "",
    default_position_error_m: float = 5.0,
    workers: int = 1,
    progress: Progress | None = None,
) -> PhotosSummary:
    """Write ``out/photos.parquet`` and ``out/skipped.parquet`` from the pictures under a folder.

    Ids are paths relative to the folder. Each sub-folder is one drive; pictures in the folder
    itself are cut into drives by gaps of 5 minutes or 100 m. ``truth.csv`` (file, lat, lng,
    bearing_deg) in the folder or its parent fills the true_ fields. Hidden files and linked
    folders are left alone. Raises PhotoError where no photo can be used; nothing is written then.
    """
    began = time.perf_counter()
    if not folder.is_dir():
        raise PhotoError(f"{folder}: no such folder of photos; check the path")
    if not default_position_error_m > 0:
        raise PhotoError(f"default_position_error_m is {default_position_error_m}; above 0, please")
    truth = _read_truth(folder)
    names, skipped = _listed(folder)
    found: list[Photo] = []
    read = partial(_read_one, folder, licence, creator, default_position_error_m)
    for photo in _each(read, names, workers, progress):
        (found if isinstance(photo, Photo) else skipped).append(photo)  # type: ignore[arg-type]
    if not found:
        raise PhotoError(f"{folder}: {_why_none(skipped)}")
    photos = _with_truth(_with_drives(found), truth, folder)
    table, skipped_table = out / "photos.parquet", out / "skipped.parquet"
    write_photos(photos, table)
    write_skipped(sorted(skipped, key=lambda s: s.path), skipped_table)
    return PhotosSummary(
        photos=len(photos),
        drives=len({photo.sequence_id for photo in photos}),
        with_bearing=sum(photo.bearing_deg is not None for photo in photos),
        with_truth=sum(photo.true_lat is not None for photo in photos),
        skipped=dict(Counter(s.reason for s in skipped).most_common()),
        table=table,
        skipped_table=skipped_table,
        seconds=time.perf_counter() - began,
    )


# 1. files


def _listed(folder: Path) -> tuple[list[str], list[Skipped]]:
    """Pictures under the folder as sorted posix paths relative to it, and what cannot be one."""
    names: list[str] = []
    skipped: list[Skipped] = []

    def unreadable(error: OSError) -> None:
        name = _relative(str(error.filename), folder)
        skipped.append(Skipped(name, f"folder cannot be read ({error.strerror})"))

    for where, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            if os.path.islink(os.path.join(where, name)):  # os.walk does not go there
                path = _relative(os.path.join(where, name), folder)
                skipped.append(Skipped(path, "linked folder is not followed"))
        for name in files:
            path = _relative(os.path.join(where, name), folder)
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith(".") or suffix not in PICTURES | UNREAD:
                continue
            if suffix in UNREAD:
                skipped.append(Skipped(path, f"{suffix} is not read; convert it to JPEG"))
            elif not _is_utf8(path):
                skipped.append(Skipped(path, "file name is not valid UTF-8; rename it"))
            else:
                names.append(path)
    return sorted(names), skipped


def _relative(path: str, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _why_none(skipped: Sequence[Skipped]) -> str:
    """The one line for a folder without a usable photo."""
    if not skipped:
        return f"no photo in it (looked for {', '.join(sorted(PICTURES))}); check the path"
    reason, count = Counter(s.reason for s in skipped).most_common(1)[0]
    return (
        f"none of {len(skipped)} photos can be used; {count} of them: {reason}; "
        f"such as {skipped[0].path}; give photos with GPS in their EXIF"
    )


# 2. one photo


def _each(
    read: Callable[[str], Photo | Skipped],
    names: Sequence[str],
    workers: int,
    progress: Progress | None,
) -> Iterator[Photo | Skipped]:
    """Read each file, in order, by one process or several."""
    if workers > 1 and len(names) > 4 * _CHUNK:  # fewer are read before a process has started
        with worker_pool(workers) as pool:
            yield from _told(pool.map(read, names, chunksize=_CHUNK), len(names), progress)
    else:
        yield from _told(map(read, names), len(names), progress)


def _told(
    results: Iterable[Photo | Skipped], total: int, progress: Progress | None
) -> Iterator[Photo | Skipped]:
    for done, result in enumerate(results, 1):
        yield result
        if progress is not None and (done % _CHUNK == 0 or done == total):
            progress(done, total)


def _read_one(
    folder: Path, licence: str, creator: str, default_error_m: float, name: str
) -> Photo | Skipped:
    """A photo by the facts of its file, or the reason why there is none."""
    path = folder / name
    try:
        with opened(path) as image:
            check_whole(image)
            facts = facts_of(image)
    except PhotoError as error:
        return Skipped(name, str(error).removeprefix(f"{path}: "))
    if facts.lat is None or facts.lng is None:
        return Skipped(name, "no GPS position in its EXIF")
    if abs(facts.lat) > MAX_LAT_DEG:
        return Skipped(name, f"latitude beyond {MAX_LAT_DEG:.2f} degrees, outside Web Mercator")
    return _photo(path, name, facts, licence, creator, default_error_m)


def _photo(
    path: Path, name: str, facts: ExifFacts, licence: str, creator: str, default_error_m: float
) -> Photo:
    assert facts.lat is not None and facts.lng is not None
    return Photo(
        id=name,
        path=path,
        lat=facts.lat,
        lng=facts.lng,
        bearing_deg=facts.bearing_deg,
        fov_deg=facts.fov_deg,
        projection=facts.projection,
        captured_at=facts.captured_at,
        sequence_id=Path(name).parent.as_posix(),
        source="folder",
        licence=licence,
        creator=creator,
        position_error_m=facts.position_error_m or default_error_m,
    )


# 3. drives


def _with_drives(photos: Sequence[Photo]) -> list[Photo]:
    """Sub-folders are drives already; photos of the folder itself ('.') are cut by gaps."""
    loose = sorted((p for p in photos if p.sequence_id == "."), key=_moment)
    number, names = 0, {}
    for before, photo in zip([None, *loose], loose, strict=False):
        number += before is None or _gap(before, photo)
        names[photo.id] = f"./{number:03d}"  # no sub-folder can have this name
    return [replace(p, sequence_id=names.get(p.id, p.sequence_id)) for p in photos]


def _moment(photo: Photo) -> tuple[bool, float, list[tuple[int, str]]]:
    """Sort by time, those without one last; then by name, numbers in it as numbers."""
    parts = re.findall(r"([0-9]+)|([^0-9]+)", photo.id)
    name = [(int(digits[:18] or 0), text) for digits, text in parts]
    return photo.captured_at is None, _clock_s(photo.captured_at), name


def _gap(before: Photo, after: Photo) -> bool:
    if (before.captured_at is None) != (after.captured_at is None):
        return True
    pause_s = _clock_s(after.captured_at) - _clock_s(before.captured_at)
    return pause_s > GAP_S or distance_m(before.place, after.place) > GAP_M


def _clock_s(when: datetime | None) -> float:
    """Seconds since 1970; a time without a zone counts as UTC, so that order is defined."""
    if when is None:
        return 0.0
    return (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()


# 4. truth.csv


def _read_truth(folder: Path) -> dict[str, _Truth]:
    """Rows of truth.csv by file (posix, relative to the folder); none where there is no file."""
    path = next(
        (p for p in (folder / TRUTH_FILE, folder.absolute().parent / TRUTH_FILE) if p.is_file()),
        None,
    )
    if path is None:
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = {"file", "lat", "lng"} - set(rows.fieldnames or ())
            if missing:
                raise PhotoError(f"{path}: no column {', '.join(sorted(missing))}; add it")
            return {_key(row["file"] or ""): _truth(row, path, rows.line_num) for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PhotoError(f"{path}: cannot be read as CSV ({error})") from error


def _truth(row: dict[str, str | None], path: Path, line: int) -> _Truth:
    try:
        place = LatLng(float(row["lat"] or ""), float(row["lng"] or ""))
        bearing = float(row["bearing_deg"] or "") % 360 if row.get("bearing_deg") else None
    except ValueError as error:
        raise PhotoError(f"{path}, line {line}: {error}; lat and lng are degrees") from error
    if not (abs(place.lat) <= 90 and abs(place.lng) <= 180 and math.isfinite(bearing or 0.0)):
        raise PhotoError(
            f"{path}, line {line}: {row['lat']}, {row['lng']}, {row.get('bearing_deg')} are no "
            "place or bearing in degrees; mend the line"
        )
    return _Truth(place.lat, place.lng, bearing)


def _key(name: str) -> str:
    """File names compare as text: macOS stores accents apart from their letters."""
    return unicodedata.normalize("NFC", name.strip().replace("\\", "/").removeprefix("./"))


def _with_truth(photos: list[Photo], truth: dict[str, _Truth], folder: Path) -> list[Photo]:
    """The photos with their true_ fields, where truth.csv knows them."""
    if not truth:
        return photos
    known = [(photo, truth.get(_key(photo.id))) for photo in photos]
    if all(row is None for _, row in known):
        raise PhotoError(
            f"{folder}: {TRUTH_FILE} names none of its photos; its column 'file' must be relative "
            f"to this folder, such as {photos[0].id!r}"
        )
    return [
        photo
        if row is None
        else replace(photo, true_lat=row.lat, true_lng=row.lng, true_bearing_deg=row.bearing_deg)
        for photo, row in known
    ]
