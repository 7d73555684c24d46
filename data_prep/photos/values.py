"""What one cell of a table says: a number, a text, a time, a heading.

Knows nothing of tables or photos. An empty cell (also NaN) is None; a cell that says something
which cannot be raises Unusable with the words that follow the column's name.
"""

import math
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
PROJECTIONS = {
    "perspective": "perspective", "flat": "perspective", "brown": "perspective",
    "fisheye": "fisheye", "equirectangular": "equirectangular", "spherical": "equirectangular",
}  # fmt: skip


class Unusable(ValueError):
    """A cell says what cannot be."""


def text(value: Any) -> str | None:
    """Text without spaces around it; whole numbers without the '.0' that NaN in a column adds."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None


def number(value: Any) -> float | None:
    """A finite number; in text a comma may stand for the point."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        value = value.strip().replace(",", ".")
        if value.lower() in ("", "nan", "null", "none"):
            return None
    try:
        found = math.inf if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, ArithmeticError):
        found = math.inf
    if not math.isfinite(found):
        raise Unusable("is no number")
    return found


def positive(value: Any) -> float | None:
    """A number above 0; what is not above it is what receivers write for unknown."""
    found = number(value)
    return found if found is not None and found > 0 else None


def heading(value: Any) -> float | None:
    """Degrees clockwise from north, in [0, 360); from -180 to 180 is read as well."""
    found = number(value)
    if found is not None and not -360 <= found <= 360:
        raise Unusable("is no heading in degrees")
    return None if found is None else found % 360 % 360  # -1e-20 % 360 is 360


def opening(value: Any) -> float | None:
    """A field of view in degrees, in (0, 360]."""
    found = number(value)
    if found is not None and not 0 < found <= 360:
        raise Unusable("is no angle in degrees")
    return found


def projection(value: Any) -> str | None:
    """One of those of the photo table."""
    found = text(value)
    if found is None:
        return None
    if found.lower() not in PROJECTIONS:
        raise Unusable(f"is none of {', '.join(PROJECTIONS)}")
    return PROJECTIONS[found.lower()]


def moment(value: Any) -> datetime | None:
    """A time: ISO 8601, as EXIF writes it, or a count since 1970 in s, ms, µs or ns."""
    if isinstance(value, str):
        value = value.strip()
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        when = _moment(value)
        good = FIRST <= (when if when.tzinfo is not None else when.replace(tzinfo=UTC)) < LAST
    except (TypeError, ValueError, ArithmeticError):
        good = False
    if not good:
        raise Unusable("is no time")
    return when


def _moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    if isinstance(value, str) and not re.fullmatch(r"-?\d{9,19}(\.\d*)?", value):
        exif = re.sub(r"^(\d{4})[:/](\d\d)[:/](\d\d)", r"\1-\2-\3", value)
        exif = re.sub(r"([+-]\d\d)$", r"\1:00", exif) if ":" in exif else exif
        return datetime.fromisoformat(exif.replace(" UTC", "Z"))
    seconds = float(value)
    if not math.isfinite(seconds):
        raise ValueError(seconds)
    while abs(seconds) > 1e11:  # the year 5138 in seconds: a finer count
        seconds /= 1000
    return EPOCH + timedelta(seconds=seconds)
