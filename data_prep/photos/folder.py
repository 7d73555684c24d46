"""A folder of picture files into photos, by what their EXIF, a sidecar and GPX tracks say.

Knows nothing of imagery or splits; moves, changes and decodes no picture.

What Mapillary's sidecar says of a picture counts before its EXIF. Tracks place the pictures that
neither of them places, at the time of the camera plus ``clock_offset_s``; a camera's time without
a zone counts as UTC (a camera on a local clock two hours ahead needs an offset of -7200). Only
such a picture gets the track's direction of travel, and only where it has no bearing of its own;
its position error is the default plus what gpx.py adds.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_prep.photos.gpx import Fix, Tracks, read_tracks
from data_prep.photos.loose import clock_s, in_drives
from data_prep.photos.pictures import CHUNK, each_facts, reading_pool
from data_prep.photos.reading import Found, Task
from data_prep.photos.sidecar import SIDECAR, Described, described
from data_prep.photos.truth import Truth
from zoomloc.config.photos import FolderPhotos
from zoomloc.errors import PhotoError
from zoomloc.world.cells import MAX_LAT_DEG
from zoomloc.world.exif import ExifFacts
from zoomloc.world.photos import Photo, Skipped

PICTURES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff"})
UNREAD = frozenset(  # a camera's files that are not read: listed, so that nobody misses them
    {".heic", ".heif", ".avif", ".dng", ".arw", ".cr2", ".cr3", ".nef", ".orf", ".raf", ".rw2",
     ".gif", ".bmp", ".jxl", ".mp4", ".mov", ".360", ".insv"}
)  # fmt: skip
BEYOND = f"latitude beyond {MAX_LAT_DEG:.2f} degrees, outside Web Mercator"


def read_folder_source(source: FolderPhotos, task: Task) -> Found:
    """The photos of a folder, and what cannot be one.

    Ids are paths relative to the folder. Each sub-folder is one drive, unless a sidecar names
    one; pictures in the folder itself come last, cut into drives by gaps of 5 minutes or 100 m.
    ``truth.csv`` (file, lat, lng, bearing_deg) in the folder or its parent fills the true_
    fields. Hidden files and linked folders are left alone. Raises PhotoError where the folder
    holds no picture at all, and for a truth.csv, sidecar or track that cannot be used.
    """
    folder = source.path
    if not folder.is_dir():
        raise PhotoError(f"{folder}: no such folder of photos; check the path")
    truth = Truth(folder)
    names, sidecars, skipped = _listed(folder)
    if not names and not skipped:
        looked_for = ", ".join(sorted(PICTURES))
        raise PhotoError(f"{folder}: no photo in it (looked for {looked_for}); check the path")
    placing = _Placing(source, described(folder, names, sidecars), read_tracks(source.tracks))
    yield from skipped
    loose: list[Photo] = []
    for one in _read(folder, names, placing, task):
        if isinstance(one, Skipped):
            yield one
        elif one.sequence_id == ".":
            loose.append(one)
        else:
            yield truth.told(one)
    for photo in in_drives(loose):
        yield truth.told(photo)
    truth.check()


# 1. files


def _listed(folder: Path) -> tuple[list[str], list[str], list[Skipped]]:
    """Pictures under the folder as sorted posix paths relative to it, sidecars, and the rest."""
    names: list[str] = []
    sidecars: list[str] = []
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
            if name == SIDECAR:
                sidecars.append(path)
            elif (why := _why_not(path)) is not None:
                skipped.append(Skipped(path, why))
            elif _is_picture(name):
                names.append(path)
    return sorted(names), sidecars, skipped


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in PICTURES


def _why_not(path: str) -> str | None:
    """Why a camera's file is left out by its name, or None."""
    name = path.rpartition("/")[2]
    suffix = os.path.splitext(name)[1].lower()
    if not name.startswith(".") and suffix in UNREAD:
        return f"{suffix} is not read; convert it to JPEG"
    if _is_picture(name) and not _is_utf8(path):
        return "file name is not valid UTF-8; rename it"
    return None


def _relative(path: str, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


# 2. photos


def _read(folder: Path, names: Sequence[str], placing: "_Placing", task: Task) -> Found:
    """Each picture, in order."""
    total = len(names)
    with reading_pool(task.workers, total) as pool:
        found = each_facts([folder / name for name in names], pool)
        for done, (name, facts) in enumerate(zip(names, found, strict=True), 1):
            yield Skipped(name, facts) if isinstance(facts, str) else placing.photo(name, facts)
            if task.progress is not None and (done % CHUNK == 0 or done == total):
                task.progress(done, total)


@dataclass(frozen=True)
class _Placing:
    """What is known of a folder's pictures beside their own EXIF."""

    source: FolderPhotos
    described: dict[str, Described]
    tracks: Tracks

    def photo(self, name: str, facts: ExifFacts) -> Photo | Skipped:
        """A photo, or the reason why there is none."""
        said = self.described.get(name)
        if said is not None:
            facts = _as_said(facts, said)
        facts, error_m = self._on_tracks(facts)
        if facts.lat is None or facts.lng is None:
            return Skipped(name, self._why_nowhere(facts))
        if abs(facts.lat) > MAX_LAT_DEG:
            return Skipped(name, BEYOND)
        return Photo(
            id=name,
            path=self.source.path / name,
            lat=facts.lat,
            lng=facts.lng,
            bearing_deg=facts.bearing_deg,
            fov_deg=facts.fov_deg,
            projection=facts.projection,
            captured_at=facts.captured_at,
            sequence_id=said.sequence if said and said.sequence else _parent(name),
            source="folder",
            licence=self.source.licence,
            creator=self.source.creator,
            position_error_m=error_m,
        )

    def _on_tracks(self, facts: ExifFacts) -> tuple[ExifFacts, float]:
        """The facts, with the track's place where there was none, and the position error."""
        default_m = self.source.default_position_error_m
        fix = self._fix(facts) if facts.lat is None else None
        if fix is None:
            return facts, facts.position_error_m or default_m
        bearing = fix.bearing_deg if facts.bearing_deg is None else facts.bearing_deg
        return replace(facts, lat=fix.lat, lng=fix.lng, bearing_deg=bearing), (
            default_m + fix.error_m
        )

    def _fix(self, facts: ExifFacts) -> Fix | None:
        if facts.captured_at is None:
            return None
        when_s = clock_s(facts.captured_at) + self.source.clock_offset_s
        return self.tracks.at(when_s, self.source.longest_gap_s)

    def _why_nowhere(self, facts: ExifFacts) -> str:
        if not self.source.tracks:
            return "no GPS position in its EXIF"
        if facts.captured_at is None:
            return "no GPS position in its EXIF, and no time by which a track could place it"
        return "no GPS position in its EXIF, and no track at its time; check clock_offset_s"


def _as_said(facts: ExifFacts, said: Described) -> ExifFacts:
    """The facts, overridden by what a sidecar says."""
    if said.lat is not None and said.lng is not None:
        facts = replace(facts, lat=said.lat, lng=said.lng, position_error_m=said.position_error_m)
    return replace(
        facts,
        bearing_deg=facts.bearing_deg if said.bearing_deg is None else said.bearing_deg,
        captured_at=said.captured_at or facts.captured_at,
    )


def _parent(name: str) -> str:
    return Path(name).parent.as_posix()
