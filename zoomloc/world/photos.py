"""Photo and the photo table (GeoParquet 1.1): what is known of each street-level picture.

Knows nothing of where photos come from, and never opens one. pyarrow, shapely and pyproj do
the reading and writing and are imported when asked to; ``docs/formats.md`` describes the file.
"""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoomloc.errors import PhotoError
from zoomloc.world.cells import LatLng
from zoomloc.world.files import unwritable, written_whole

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = "zoomloc/photos/1"
SPLITS = ("train", "val", "test")
PROJECTIONS = ("perspective", "equirectangular", "fisheye")
PROTOCOLS = ("random-image", "sequence-disjoint", "block-disjoint", "unseen-region")
READINGS = {  # by protocol: what must stand beside figures, and beside the split itself
    "random-image": "LEAKY: neighbours of test photos are in train, so figures are too good"
}

_TEXTS = ("id", "path", "projection", "sequence_id", "source", "licence", "creator")
_OPTIONAL_NUMBERS = ("bearing_deg", "fov_deg", "true_lat", "true_lng", "true_bearing_deg")
_TRUTH = ("true_lat", "true_lng", "true_bearing_deg")
_MENDING = "make the table again with 'zoomloc photos'"


@dataclass(frozen=True)
class Photo:
    """A street-level picture and what is known of it; degrees are WGS 84.

    ``fov_deg`` is horizontal, of the picture as shown. ``sequence_id`` names the drive.
    ``split`` is train, val, test, or None for left out. The true_ fields exist where the place
    is known better than the photo's own claim (synthetic photos), for benchmarks only.
    """

    id: str
    path: Path
    lat: float
    lng: float
    bearing_deg: float | None
    fov_deg: float | None
    projection: str
    captured_at: datetime | None
    sequence_id: str
    source: str
    licence: str
    creator: str
    position_error_m: float
    split: str | None = None
    true_lat: float | None = None
    true_lng: float | None = None
    true_bearing_deg: float | None = None

    @property
    def place(self) -> LatLng:
        """Where the photo says that it was taken."""
        return LatLng(self.lat, self.lng)

    @property
    def truth(self) -> LatLng:
        """The place that answers are scored against: the true one where known, else its own."""
        if self.true_lat is None or self.true_lng is None:
            return self.place
        return LatLng(self.true_lat, self.true_lng)


@dataclass(frozen=True)
class Skipped:
    """A photo that was left out, and why in words for a person."""

    path: str
    reason: str


# 1. splits


def split_hash(photos: Sequence[Photo]) -> str:
    """16 hex digits that name a split: of every id with its split, whatever their order."""
    pairs = sorted([photo.id, photo.split or ""] for photo in photos)
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16]


def shared_drives(photos: Sequence[Photo]) -> list[str]:
    """Names of the drives that have photos in more than one split."""
    splits: dict[str, set[str]] = {}
    for photo in photos:
        if photo.split is not None:
            splits.setdefault(photo.sequence_id, set()).add(photo.split)
    return sorted(drive for drive, found in splits.items() if len(found) > 1)


def assert_disjoint(photos: Sequence[Photo]) -> None:
    """Raise PhotoError where a drive is shared by two splits: not 'sequence-disjoint' then."""
    shared = shared_drives(photos)
    if shared:
        raise PhotoError(
            f"split: {len(shared)} drives are in more than one split (such as {shared[0]!r}), so "
            "it is not sequence-disjoint; run 'zoomloc split PHOTOS.parquet --by sequence'"
        )


# 2. writing


def write_photos(photos: Sequence[Photo], path: Path, protocol: str | None = None) -> None:
    """Write the photo table (atomic): GeoParquet 1.1, EPSG:4326, zstd.

    Photo paths are stored relative to the table's folder. ``protocol`` (one of PROTOCOLS) says
    how the split was made. Raises PhotoError for what ``read_photos`` would refuse, OutputError
    where it cannot be written.
    """
    if protocol is not None and protocol not in PROTOCOLS:
        raise PhotoError(f"{path}: split protocol {protocol!r}; known are {', '.join(PROTOCOLS)}")
    _check(photos, path)
    folder = os.path.abspath(path.parent)
    try:
        truth = any(photo.true_lat is not None for photo in photos)
        table = photo_table(photos, folder, truth)
    except UnicodeError as error:
        raise PhotoError(f"{path}: a name is not valid UTF-8; rename the photo") from error
    lngs, lats = [photo.lng for photo in photos], [photo.lat for photo in photos]
    about = photo_metadata([min(lngs), min(lats), max(lngs), max(lats)], protocol)
    metadata = {key: json.dumps(value) for key, value in about.items()}
    _write_table(table.replace_schema_metadata(metadata), path)


def photo_table(photos: Sequence[Photo], folder: str, truth: bool) -> "pa.Table":
    """Rows of the table, without its metadata; ``truth``: with the true_ columns."""
    import pyarrow as pa
    import shapely

    points = shapely.points([photo.lng for photo in photos], [photo.lat for photo in photos])
    columns: dict[str, Any] = {
        "id": pa.array([photo.id for photo in photos], pa.string()),
        "geometry": pa.array(shapely.to_wkb(points, byte_order=1).tolist(), pa.binary()),
        "path": pa.array([_relative(photo.path, folder) for photo in photos], pa.string()),
    }
    for name in ("bearing_deg", "fov_deg"):
        columns[name] = pa.array([getattr(photo, name) for photo in photos], pa.float64())
    columns["projection"] = pa.array([photo.projection for photo in photos], pa.string())
    times = [photo.captured_at and photo.captured_at.isoformat() for photo in photos]
    columns["captured_at"] = pa.array(times, pa.string())
    for name in ("sequence_id", "source", "licence", "creator"):
        columns[name] = pa.array([getattr(photo, name) for photo in photos], pa.string())
    errors = [photo.position_error_m for photo in photos]
    columns["position_error_m"] = pa.array(errors, pa.float64())
    columns["split"] = pa.array([photo.split for photo in photos], pa.string())
    if truth:
        for name in _TRUTH:
            columns[name] = pa.array([getattr(photo, name) for photo in photos], pa.float64())
    return pa.table(columns)


def photo_metadata(bounds: Sequence[float], protocol: str | None) -> dict[str, Any]:
    """What the table says of itself: GeoParquet's key and ours."""
    return {
        "geo": _geo_metadata(list(bounds)),
        "zoomloc": {"schema": SCHEMA, "split_protocol": protocol},
    }


def _geo_metadata(bounds: list[float]) -> dict[str, Any]:
    """The ``geo`` key of GeoParquet 1.1 (https://geoparquet.org/releases/v1.1.0/)."""
    from pyproj import CRS

    column = {
        "encoding": "WKB",
        "geometry_types": ["Point"],
        "crs": CRS.from_epsg(4326).to_json_dict(),
        "bbox": bounds,
    }
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}


def _relative(path: Path, folder: str) -> str:
    """The path as seen from the folder, with slashes; as it is where no such path exists."""
    try:
        return Path(os.path.relpath(os.path.abspath(path), folder)).as_posix()
    except ValueError:  # another drive on Windows
        return path.as_posix()


def _write_table(table: "pa.Table", path: Path) -> None:
    import pyarrow.parquet as pq

    with written_whole(path) as temporary:
        try:
            pq.write_table(table, temporary, compression="zstd")
        except OSError as error:
            raise unwritable(path, error) from error


def _check(photos: Sequence[Photo], path: Path) -> None:
    """Refuse a table that is empty, repeats an id, or holds what is no place or no split."""
    if not photos:
        raise PhotoError(f"{path}: no photo in the table; {_MENDING}")
    ids = set()
    for photo in photos:
        if photo.id in ids:
            raise PhotoError(f"{path}: the id {photo.id!r} occurs twice; ids must be unique")
        ids.add(photo.id)
        check_photo(photo, path)


def check_photo(photo: Photo, path: Path) -> None:
    """Refuse a photo whose row claims what cannot be. Raises PhotoError."""
    wrong = _wrong_with(photo)
    if wrong:
        raise PhotoError(f"{path}: photo {photo.id!r} has {wrong}; {_MENDING}")


def _wrong_with(photo: Photo) -> str | None:
    """What a photo's row claims that cannot be, or None."""
    if not (abs(photo.lat) <= 90 and abs(photo.lng) <= 180):
        return f"lat {photo.lat}, lng {photo.lng}, which is no place in degrees"
    if not (photo.position_error_m > 0 and math.isfinite(photo.position_error_m)):
        return f"position_error_m {photo.position_error_m}, which must be above 0"
    if photo.projection not in PROJECTIONS:
        return f"projection {photo.projection!r}, known are {', '.join(PROJECTIONS)}"
    if photo.split is not None and photo.split not in SPLITS:
        return f"split {photo.split!r}, known are {', '.join(SPLITS)} and none"
    if photo.bearing_deg is not None and not 0 <= photo.bearing_deg < 360:
        return f"bearing_deg {photo.bearing_deg}, outside [0, 360)"
    if photo.fov_deg is not None and not 0 < photo.fov_deg <= 360:
        return f"fov_deg {photo.fov_deg}, outside (0, 360]"
    if (photo.true_lat is None) != (photo.true_lng is None):
        return "only one of true_lat and true_lng"
    if photo.true_lat is not None and not (
        abs(photo.true_lat) <= 90 and abs(photo.true_lng or 0.0) <= 180
    ):
        return f"true_lat {photo.true_lat}, true_lng {photo.true_lng}, which is no place"
    return None


# 3. reading


def read_photos(path: Path, split: str | None = None) -> list[Photo]:
    """Photos of the table (of one split where given), in its order, with absolute paths.

    Tables of other programs are read where they have the columns. Raises PhotoError for what is
    missing, no GeoParquet of points in degrees, of other columns, empty, or of impossible values.
    """
    if split is not None and split not in SPLITS:
        raise PhotoError(f"{path}: split {split!r}; known are {', '.join(SPLITS)}")
    table = _read_table(path)
    _check_schema(table, path)
    try:
        photos = _photos(table, os.path.abspath(path.parent))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise PhotoError(f"{path}: a row has a value of a wrong kind ({error})") from error
    _check(photos, path)
    if split is None:
        return photos
    wanted = [photo for photo in photos if photo.split == split]
    if not wanted:
        known = sorted({photo.split for photo in photos if photo.split}) or ["none"]
        raise PhotoError(
            f"{path}: no photo is in split {split!r} (splits there: {', '.join(known)}); "
            "run 'zoomloc split'"
        )
    return wanted


def split_protocol(path: Path) -> str | None:
    """How the table's split was made, one of PROTOCOLS, or None where it does not say."""
    protocol = _about(_read_table(path, ["id"])).get("split_protocol")
    return protocol if protocol in PROTOCOLS else None


def _photos(table: "pa.Table", folder: str) -> list[Photo]:
    import numpy as np
    import shapely

    points = shapely.from_wkb(table["geometry"].to_numpy(), on_invalid="ignore")
    if not np.all(shapely.get_type_id(points) == shapely.GeometryType.POINT):
        raise ValueError("a geometry is missing or not a point")
    lats, lngs = shapely.get_y(points).tolist(), shapely.get_x(points).tolist()
    columns: dict[str, list[Any]] = {name: _texts(table, name) for name in _TEXTS}
    for name in _OPTIONAL_NUMBERS:
        columns[name] = _numbers(table, name)
    columns["position_error_m"] = [float(v) for v in table["position_error_m"].to_pylist()]
    columns["captured_at"] = [_when(v) for v in table["captured_at"].to_pylist()]
    columns["split"] = [v or None for v in table["split"].to_pylist()]
    columns["path"] = [Path(os.path.normpath(os.path.join(folder, v))) for v in columns["path"]]
    columns["lat"], columns["lng"] = lats, lngs
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    return [Photo(**dict(zip(names, row, strict=True))) for row in rows]


def _texts(table: "pa.Table", name: str) -> list[str]:
    values: list[str] = table[name].to_pylist()
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} is missing or no text")
    return values


def _numbers(table: "pa.Table", name: str) -> list[float | None]:
    """Numbers of a column that may be absent; pandas writes NaN where we write null."""
    if name not in table.column_names:
        return [None] * len(table)
    return [None if v is None or v != v else float(v) for v in table[name].to_pylist()]


def _when(value: Any) -> datetime | None:
    if value is None or isinstance(value, datetime):
        return value or None
    return datetime.fromisoformat(value)


def _read_table(path: Path, columns: list[str] | None = None) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise PhotoError(f"{path}: no such photo table; make it with 'zoomloc photos'")
    try:
        with pq.ParquetFile(path) as file:
            return file.read(columns)
    except (OSError, pa.ArrowException) as error:
        why = str(error).splitlines()[0][:100]
        raise PhotoError(f"{path}: cannot be read as Parquet ({why}); {_MENDING}") from error


def _about(table: "pa.Table") -> dict[str, Any]:
    """Our own metadata of a table; empty where another program wrote it."""
    return _metadata(table, b"zoomloc")


def _metadata(table: "pa.Table", key: bytes) -> dict[str, Any]:
    try:
        found = json.loads((table.schema.metadata or {}).get(key, b"{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _check_schema(table: "pa.Table", path: Path) -> None:
    """Refuse another version, missing columns, and geometries that are not in degrees."""
    version = _about(table).get("schema", SCHEMA)
    if version != SCHEMA:
        raise PhotoError(f"{path}: schema is {version!r}, this reads {SCHEMA!r}; {_MENDING}")
    needed = {*_TEXTS, "geometry", "captured_at", "position_error_m", "split", "bearing_deg",
              "fov_deg"}  # fmt: skip
    missing = sorted(needed - set(table.column_names))
    if missing:
        raise PhotoError(f"{path}: no column {', '.join(missing)}; {_MENDING}")
    column = _metadata(table, b"geo").get("columns", {})
    crs = column.get("geometry", {}).get("crs") if isinstance(column, dict) else None
    if isinstance(crs, dict) and crs.get("type") != "GeographicCRS":
        raise PhotoError(f"{path}: its CRS is not EPSG:4326; reproject the table to degrees")


# 4. photos that were left out


def write_skipped(skipped: Sequence[Skipped], path: Path) -> None:
    """Write ``skipped.parquet`` (atomic); an empty one where nothing was left out."""
    _write_table(skipped_table(skipped), path)


def skipped_table(skipped: Sequence[Skipped]) -> "pa.Table":
    """Rows of ``skipped.parquet``."""
    import pyarrow as pa

    paths = pa.array([_printable(s.path) for s in skipped], pa.string())
    reasons = pa.array([_printable(s.reason) for s in skipped], pa.string())
    return pa.table({"path": paths, "reason": reasons})


def read_skipped(path: Path) -> list[Skipped]:
    """What was left out, in the order of writing. Raises PhotoError."""
    table = _read_table(path)
    if not {"path", "reason"} <= set(table.column_names):
        raise PhotoError(f"{path}: no columns path and reason; {_MENDING}")
    rows = zip(_texts(table, "path"), _texts(table, "reason"), strict=True)
    return [Skipped(name, reason) for name, reason in rows]


def _printable(text: str) -> str:
    """Text that is valid UTF-8: file names may be any bytes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
