"""A table that names pictures and their places into photos.

Knows nothing of file formats or splits. What the table says of a photo counts; the picture's own
EXIF only fills what the table leaves out. A row that cannot be used is skipped by its number.

Where no column names the drive, rows of one sub-folder are cut into drives by gaps of 5 minutes
or 100 m, in the order of their times (rows without one last, in the table's order); the table is
then read twice.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from data_prep.photos.loose import clock_s, drive_numbers
from data_prep.photos.pictures import each_facts, reading_pool
from data_prep.photos.reading import Found, Task
from data_prep.photos.tabular import Batch, Table, open_table
from data_prep.photos.values import (
    Unusable,
    heading,
    moment,
    number,
    opening,
    positive,
    projection,
    text,
)
from zoomloc.config.photos import TablePhotos
from zoomloc.errors import PhotoError
from zoomloc.world.cells import MAX_LAT_DEG, Floats
from zoomloc.world.exif import ExifFacts
from zoomloc.world.photos import Photo, Skipped

NAMES: dict[str, tuple[str, ...]] = {  # ours: what others call it, in lower case letters alone
    "file": ("file", "path", "filename", "filepath", "image", "imagepath", "imagefile", "imagename",
             "picture", "photo"),
    "lat": ("lat", "latitude", "y", "gpslatitude", "maplatitude"),
    "lng": ("lng", "lon", "long", "longitude", "x", "gpslongitude", "maplongitude"),
    "bearing_deg": ("bearingdeg", "bearing", "heading", "compassangle", "azimuth", "direction",
                    "gpsimgdirection"),
    "fov_deg": ("fovdeg", "fov", "hfov", "fieldofview"),
    "captured_at": ("capturedat", "timestamp", "captured", "capturetime", "datetimeoriginal",
                    "datetime", "time", "date"),
    "sequence_id": ("sequenceid", "sequence", "sequencekey", "seq", "drive", "track", "trip"),
    "id": ("id", "imageid", "photoid", "imagekey"),
    "projection": ("projection", "cameratype"),
    "position_error_m": ("positionerrorm", "positionerror", "accuracy", "gpsaccuracy"),
    "licence": ("licence", "license"),
    "creator": ("creator", "author", "username"),
}  # fmt: skip
READERS: dict[str, Callable[[Any], Any]] = {  # of what a row says beside place and picture
    "id": text, "bearing_deg": heading, "fov_deg": opening, "captured_at": moment,
    "sequence_id": text, "projection": projection, "position_error_m": positive, "licence": text,
    "creator": text,
}  # fmt: skip


def read_table_source(source: TablePhotos, task: Task) -> Found:
    """The photos of a table, and the rows that cannot be one.

    ``lat`` and ``lng`` are y and x of the source's CRS; a geometry has its file's own, and counts
    unless the config names both columns. Raises PhotoError for a table that cannot be read, and
    where no column says which picture or which place.
    """
    table = open_table(source.path)
    chosen = _chosen(table, source)
    reading = _Reading(source, table, chosen, _to_degrees(table, source, chosen))
    total = table.rows()
    drives = None if "sequence_id" in chosen else _drives(reading)
    done = 0
    with reading_pool(task.workers, total) as pool:
        for batch in reading.batches(chosen):
            yield from reading.photos(batch, pool, drives)
            done += len(batch)
            if task.progress is not None:
                task.progress(done, max(done, total))


# 1. columns


def _chosen(table: Table, source: TablePhotos) -> dict[str, str]:
    """The table's column for each of ours: as configured, else guessed by its name."""
    for ours, theirs in source.columns.items():
        if ours not in NAMES:
            raise PhotoError(f"columns: no {ours!r} in a photo; ours are {', '.join(NAMES)}")
        if theirs not in table.columns:
            raise PhotoError(f"{table.path}: no column {theirs!r} (columns.{ours}); {_has(table)}")
    plain = {"".join(c for c in name.lower() if c.isalnum()): name for name in table.columns[::-1]}
    guessed = {
        ours: plain[name]
        for ours, names in NAMES.items()
        for name in names[::-1]  # the first one counts
        if name in plain
    }
    chosen = {**guessed, **source.columns}
    if table.geometry is not None and not {"lat", "lng"} <= set(source.columns):
        chosen.pop("lat", None)
        chosen.pop("lng", None)
    for ours in ("file", *(() if table.geometry else ("lat", "lng"))):
        if ours not in chosen:
            raise PhotoError(
                f"{table.path}: no column for {ours}; {_has(table)}; set columns.{ours}"
            )
    return chosen


def _has(table: Table) -> str:
    names = ", ".join(table.columns[:30])
    more = len(table.columns) - 30
    return f"it has {names}" + (f" and {more} more" if more > 0 else "")


def _to_degrees(table: Table, source: TablePhotos, chosen: dict[str, str]) -> Transformer:
    """From the table's x and y to lng and lat."""
    crs = source.crs if "lat" in chosen or table.crs is None else table.crs
    try:
        return Transformer.from_crs(CRS.from_user_input(crs), "EPSG:4326", always_xy=True)
    except (CRSError, ProjError) as error:
        raise PhotoError(f"{table.path}: CRS {str(crs)[:60]!r} is not known; set 'crs'") from error


# 2. rows


@dataclass(frozen=True)
class _Rows:
    """A batch in our columns, its places in degrees (NaN where there is none)."""

    first_row: int
    columns: dict[str, list[Any]]
    lats: Floats
    lngs: Floats

    def __len__(self) -> int:
        return len(self.lats)

    def value(self, ours: str, row: int) -> Any:
        return self.columns[ours][row] if ours in self.columns else None


class _Reading:
    """One table with its columns, on the way to photos."""

    def __init__(
        self, source: TablePhotos, table: Table, chosen: dict[str, str], to_degrees: Transformer
    ) -> None:
        self.source, self.table, self.chosen = source, table, chosen
        self._root = source.pictures or source.path.parent
        self._to_degrees = to_degrees
        self._seen = _Seen()

    def batches(self, ours: Sequence[str] | dict[str, str]) -> Iterator[_Rows]:
        """All rows, of some of our columns and their places."""
        with_points = "lat" not in self.chosen
        asked = {*ours} & {*self.chosen} | ({"lat", "lng"} & {*self.chosen})
        theirs = {name: self.chosen[name] for name in asked}
        for batch in self.table.batches(list(dict.fromkeys(theirs.values())), with_points):
            columns = {name: batch.columns[column] for name, column in theirs.items()}
            yield _Rows(batch.first_row, columns, *self._places(batch, columns))

    def _places(self, batch: Batch, columns: dict[str, list[Any]]) -> tuple[Floats, Floats]:
        """Latitudes and longitudes in degrees; (0, 0) is what receivers write for no place."""
        if batch.points is not None:
            x, y = batch.points.T
        else:
            x, y = (np.array([_float(v) for v in columns[name]]) for name in ("lng", "lat"))
        with np.errstate(invalid="ignore"):
            lngs, lats = self._to_degrees.transform(x, y)
            good = np.isfinite(x) & np.isfinite(y) & (np.abs(lats) <= 90) & (np.abs(lngs) <= 180)
        good &= (lats != 0) | (lngs != 0)
        return np.where(good, lats, np.nan), np.where(good, lngs, np.nan)

    def photos(
        self, rows: _Rows, pool: ProcessPoolExecutor | None, drives: npt.NDArray[np.int64] | None
    ) -> Found:
        """The photos of a batch, each picture looked at; rows that fail before are not."""
        said = [self._said(rows, row, drives) for row in range(len(rows))]
        ids = [one["id"] for one in said if isinstance(one, dict)]
        new = iter(self._seen.new(ids))
        said = [
            one if isinstance(one, str) or next(new) else "an earlier row has the same id"
            for one in said
        ]
        paths = [one["path"] for one in said if isinstance(one, dict)]
        facts = iter(each_facts(paths, pool))
        for row, one in enumerate(said):
            found = one if isinstance(one, str) else next(facts)
            if isinstance(one, str) or isinstance(found, str):
                yield Skipped(self._label(rows, row), str(found))
            else:
                yield self._photo(one, found)

    def _label(self, rows: _Rows, row: int) -> str:
        file = text(rows.value("file", row))
        return f"{self.table.path.name}, row {rows.first_row + row}" + (f": {file}" * bool(file))

    def _said(
        self, rows: _Rows, row: int, drives: npt.NDArray[np.int64] | None
    ) -> dict[str, Any] | str:
        """What the table says of a photo, or the reason why its row cannot be used."""
        file = _file(rows.value("file", row))
        lat = float(rows.lats[row])
        if not file:
            return "no picture named"
        if "://" in file:
            return "names an address, not a file; download the pictures first"
        if np.isnan(lat):
            return "no place that can be: lat, lng or geometry is missing or out of range"
        if abs(lat) > MAX_LAT_DEG:
            return f"latitude beyond {MAX_LAT_DEG:.2f} degrees, outside Web Mercator"
        path = self._root / file
        if not os.path.isfile(path):  # unlike Path.is_file, False for what no path can be
            return "its picture does not exist"
        try:
            said = _values(rows, row)
        except Unusable as error:
            return str(error)
        said["sequence_id"] = said["sequence_id"] or self._drive(file, rows, row, drives)
        said["id"] = said["id"] or file
        return {**said, "path": path, "lat": lat, "lng": float(rows.lngs[row])}

    def _drive(self, file: str, rows: _Rows, row: int, drives: npt.NDArray[np.int64] | None) -> str:
        """The name of a drive that the table does not name; rows without one are one drive."""
        number = 0 if drives is None else int(drives[rows.first_row - 1 + row])
        return f"{os.path.dirname(file) or '.'}/{number:03d}"

    def _photo(self, said: dict[str, Any], facts: ExifFacts) -> Photo:
        projection = said["projection"] or facts.projection
        same = projection == facts.projection
        bearing, fov = said["bearing_deg"], said["fov_deg"]
        return Photo(
            id=said["id"],
            path=said["path"],
            lat=said["lat"],
            lng=said["lng"],
            bearing_deg=facts.bearing_deg if bearing is None else bearing,
            fov_deg=facts.fov_deg if fov is None and same else fov,
            projection=projection,
            captured_at=said["captured_at"] or facts.captured_at,
            sequence_id=said["sequence_id"],
            source="table",
            licence=said["licence"] or self.source.licence,
            creator=said["creator"] or self.source.creator,
            position_error_m=said["position_error_m"] or self.source.default_position_error_m,
        )


def _file(value: Any) -> str | None:
    """A path with forward slashes, as it is relative to the pictures."""
    name = text(value)
    return None if name is None else name.replace("\\", "/").removeprefix("./")


def _values(rows: _Rows, row: int) -> dict[str, Any]:
    """What a row says beside place and picture. Raises Unusable."""
    said: dict[str, Any] = {}
    for ours, read in READERS.items():
        try:
            said[ours] = read(rows.value(ours, row))
        except Unusable as error:
            raise Unusable(f"{ours} {error}") from error
    return said


def _float(value: Any) -> float:
    """A number, NaN where there is none."""
    try:
        found = number(value)
    except Unusable:
        return np.nan
    return np.nan if found is None else found


# 3. all rows


class _Seen:
    """Ids that have come, as sorted digests of 8 bytes."""

    def __init__(self) -> None:
        self._known = np.empty(0, np.uint64)

    def new(self, ids: Sequence[str]) -> list[bool]:
        """Whether each of these has not come before, now counted as come."""
        digests = [hashlib.blake2b(one.encode("utf-8", "replace"), digest_size=8) for one in ids]
        keys = np.array([int.from_bytes(d.digest(), "little") for d in digests], np.uint64)
        distinct, first = np.unique(keys, return_index=True)
        places = np.searchsorted(self._known, distinct)
        known = np.append(self._known, np.uint64(0))[places] == distinct
        known &= places < len(self._known)
        new = np.zeros(len(keys), bool)
        new[first[~known]] = True
        self._known = np.insert(self._known, places[~known], distinct[~known])
        return [bool(one) for one in new]


def _drives(reading: _Reading) -> npt.NDArray[np.int64]:
    """The drive of each row of a table that names none; 0 where the row has no place."""
    folders: dict[str, int] = {}
    parts = []
    for rows in reading.batches(("file", "captured_at")):
        files = [_file(value) or "" for value in rows.columns["file"]]
        kept = [folders.setdefault(os.path.dirname(file), len(folders)) for file in files]
        seconds = [_seconds(rows.value("captured_at", row)) for row in range(len(rows))]
        parts.append(np.column_stack([kept, seconds, rows.lats, rows.lngs]))
    folder, seconds, lats, lngs = np.concatenate(parts or [np.empty((0, 4))]).T
    placed = np.flatnonzero(~np.isnan(lats))
    drives = np.zeros(len(lats), np.int64)
    if not len(placed):
        return drives
    untimed = np.isnan(seconds[placed])
    times = np.where(untimed, 0.0, seconds[placed])
    order = placed[np.lexsort((placed, times, untimed, folder[placed]))]
    begins = np.diff(folder[order], prepend=-1) != 0
    drives[order] = drive_numbers(seconds[order], lats[order], lngs[order], begins)
    return drives


def _seconds(value: Any) -> float:
    try:
        when = moment(value)
    except Unusable:
        return np.nan
    return np.nan if when is None else clock_s(when)
