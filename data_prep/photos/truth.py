"""``truth.csv``: where a folder's photos really were taken, for benchmarks.

Knows nothing of how photos are found or read.
"""

import csv
import math
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

from zoomloc.errors import PhotoError
from zoomloc.world.cells import LatLng
from zoomloc.world.photos import Photo

TRUTH_FILE = "truth.csv"


@dataclass(frozen=True)
class _Truth:
    lat: float
    lng: float
    bearing_deg: float | None


class Truth:
    """The rows of a folder's truth.csv; ``given`` counts the photos that got one."""

    def __init__(self, folder: Path) -> None:
        """Rows by file (posix, relative to the folder); none where neither it nor its parent
        has the file. Raises PhotoError for one that cannot be used.
        """  # noqa: D205
        self._folder, self._rows = folder, _read(folder)
        self.given = 0
        self._asked: str | None = None

    def told(self, photo: Photo) -> Photo:
        """The photo with its true_ fields, where truth.csv knows them."""
        row = self._rows.get(_key(photo.id))
        self._asked = self._asked or photo.id
        if row is None:
            return photo
        self.given += 1
        return replace(photo, true_lat=row.lat, true_lng=row.lng, true_bearing_deg=row.bearing_deg)

    def check(self) -> None:
        """Raise PhotoError where there is a truth.csv that named none of the photos."""
        if self._rows and self._asked is not None and not self.given:
            raise PhotoError(
                f"{self._folder}: {TRUTH_FILE} names none of its photos; its column 'file' must be "
                f"relative to this folder, such as {self._asked!r}"
            )


def _read(folder: Path) -> dict[str, _Truth]:
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
