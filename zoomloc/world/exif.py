"""Position, heading, field of view and time of a photo, out of EXIF and XMP bytes.

Knows nothing of regions or tables, and guesses nothing: what is missing, not finite, out of
range or contradictory is None. Tag numbers and meanings: CIPA DC-008 (Exif 2.32); panoramas:
Google's Photo Sphere XMP (``GPano``).
"""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from PIL import Image

from zoomloc.world.images import opened, orientation_in, tags_of, upright_size

Tags = dict[int, Any]

_GPS_DIRECTORY, _EXIF_DIRECTORY = 0x8825, 0x8769
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # FocalPlaneResolutionUnit
_FILM_MM = 36.0  # the long side of 35 mm film
_SAME_DAY = timedelta(hours=38)  # local and UTC clocks differ by 14 h; some cameras add a day


@dataclass(frozen=True)
class ExifFacts:
    """What a photo's own bytes say of it; ``fov_deg`` is horizontal, of the picture as shown.

    ``bearing_deg`` is clockwise from north (a magnetic one is taken as it is), of the middle
    column for panoramas. ``captured_at`` has a zone where one is known, else it is local time.
    """

    lat: float | None = None
    lng: float | None = None
    bearing_deg: float | None = None
    fov_deg: float | None = None
    captured_at: datetime | None = None
    position_error_m: float | None = None
    make: str | None = None
    model: str | None = None
    projection: str = "perspective"


def read_exif(path: Path) -> ExifFacts:
    """The facts of one photo file. Raises PhotoError where the file itself cannot be opened."""
    with opened(path) as image:
        return facts_of(image)


def facts_of(image: Image.Image) -> ExifFacts:
    """The facts of an opened picture; no pixel is decoded, and no byte makes it raise."""
    main, camera = tags_of(image), tags_of(image, _EXIF_DIRECTORY)
    gps = tags_of(image, _GPS_DIRECTORY)
    lat, lng = _position(gps)
    width_px, height_px = upright_size(image.size, orientation_in(main))
    panorama = _panorama(image)
    kind = panorama.get("ProjectionType", "").lower()
    round_view = kind == "equirectangular"
    fov = None if kind else _fov(camera, width_px, height_px)
    bearing = _bearing(gps.get(17))
    if round_view and (pose := _bearing(panorama.get("PoseHeadingDegrees"))) is not None:
        bearing = pose
    error = _number(gps.get(31))
    return ExifFacts(
        lat=lat,
        lng=lng,
        bearing_deg=bearing,
        fov_deg=_panorama_fov(panorama) if round_view else fov,
        captured_at=_captured_at(camera, gps),
        position_error_m=error if error is not None and error > 0 else None,
        make=_text(main.get(0x010F)),
        model=_text(main.get(0x0110)),
        projection="equirectangular" if round_view else "perspective",
    )


# 1. where


def _position(gps: Tags) -> tuple[float | None, float | None]:
    """Latitude and longitude in degrees, both or none; (0, 0) is what receivers write for none."""
    lat = _degrees(gps.get(2), gps.get(1), "NS", 90)
    lng = _degrees(gps.get(4), gps.get(3), "EW", 180)
    if lat is None or lng is None or (lat == 0 and lng == 0):
        return None, None
    return lat, lng


def _degrees(value: Any, reference: Any, signs: str, limit: float) -> float | None:
    """Signed degrees of a (degrees, minutes, seconds) and its hemisphere letter."""
    parts = [_number(v) for v in (value if isinstance(value, tuple | list) else (value,))]
    letter = (_text(reference) or " ")[0].upper()
    if letter not in signs or not 1 <= len(parts) <= 3:
        return None
    degrees = 0.0
    for part, unit, most in zip(parts, (1, 60, 3600), (limit, 60, 60), strict=False):
        if part is None or not 0 <= part <= most:
            return None
        degrees += part / unit
    if degrees > limit:
        return None
    return -degrees if letter == signs[1] and degrees else degrees


def _bearing(value: Any) -> float | None:
    bearing = _number(value)
    return None if bearing is None or not 0 <= bearing <= 360 else bearing % 360


# 2. how wide


def _fov(camera: Tags, width_px: int, height_px: int) -> float | None:
    """Horizontal field of view: by 35 mm-equivalent focal length, else by pixel pitch."""
    focal_mm, long_mm = _number(camera.get(0xA405)), _FILM_MM
    if focal_mm is None or focal_mm <= 0:
        focal_mm, sensor_mm = _number(camera.get(0x920A)), _sensor_mm(camera)
        if focal_mm is None or sensor_mm is None:
            return None
        long_mm = sensor_mm
    if not 0.05 <= focal_mm / long_mm <= 200:  # 169 degrees down to 0.3: beyond, a wrong number
        return None
    width_mm = long_mm * width_px / max(width_px, height_px)
    return math.degrees(2 * math.atan(width_mm / (2 * focal_mm)))


def _sensor_mm(camera: Tags) -> float | None:
    """Long side of the sensor: pixels of the original over pixels per unit of length."""
    per_unit = _number(camera.get(0xA20E))
    sides_px = [p for p in (_number(camera.get(0xA002)), _number(camera.get(0xA003))) if p]
    unit = _number(camera.get(0xA210, 2))
    unit_mm = None if unit is None else _UNIT_MM.get(int(unit))
    if per_unit is None or per_unit <= 0 or not sides_px or unit_mm is None:
        return None
    side_mm = max(sides_px) / per_unit * unit_mm
    return side_mm if 1 <= side_mm <= 100 else None


def _panorama(image: Image.Image) -> dict[str, str]:
    """``GPano`` properties of the XMP packet, as attributes or as elements.

    Found by pattern: an XML parser would meet hostile XML, and the packet may be damaged.
    """
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp", b"")
    text = packet.decode("utf-8", "replace") if isinstance(packet, bytes) else str(packet)
    found = re.findall(r"GPano:(\w{1,40})\s*(?:=\s*[\"']|>)\s*([^\"'<>]{1,60})", text)
    return {name: value.strip() for name, value in reversed(found)}


def _panorama_fov(panorama: dict[str, str]) -> float:
    """360 degrees, or the share of them that a cropped panorama shows."""
    part = _number(panorama.get("CroppedAreaImageWidthPixels"))
    whole = _number(panorama.get("FullPanoWidthPixels"))
    if part is None or whole is None or not 0 < part <= whole:
        return 360.0
    return 360.0 * part / whole


# 3. when


def _captured_at(camera: Tags, gps: Tags) -> datetime | None:
    """The camera's clock, with its own zone, else with the zone that GPS time implies.

    Where camera and GPS are days apart, GPS is believed: cameras forget the date, satellites
    do not.
    """
    local = _camera_time(camera)
    if local is None or local.tzinfo is not None:
        return local or _gps_time(gps)
    utc = _gps_time(gps)
    if utc is None:
        return local
    ahead = local - utc.replace(tzinfo=None)
    if abs(ahead) > _SAME_DAY:
        return utc
    quarters = round(ahead / timedelta(minutes=15))  # zones are whole quarters of an hour
    if not -48 <= quarters <= 56:  # no zone is: the date of one of them is a day off
        quarters = (quarters + 40) % 96 - 40
    return local.replace(tzinfo=timezone(timedelta(minutes=15 * quarters)))


def _camera_time(camera: Tags) -> datetime | None:
    """DateTimeOriginal, else DateTimeDigitized, with fraction and offset where given."""
    for time_tag, fraction_tag, offset_tag in ((0x9003, 0x9291, 0x9011), (0x9004, 0x9292, 0x9012)):
        when = _time(_text(camera.get(time_tag)), _text(camera.get(fraction_tag)))
        if when is not None:
            offset = _text(camera.get(offset_tag)) or _text(camera.get(0x9010))
            return when.replace(tzinfo=_zone(offset))
    return None


def _time(text: str | None, fraction: str | None) -> datetime | None:
    pattern = r"(\d{4})[:/-](\d\d)[:/-](\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?"
    match = re.match(pattern, text or "")
    if match is None or not 1900 <= int(match[1]) <= 2200:
        return None
    digits = match[7] or (fraction if fraction and re.fullmatch(r"[0-9]{1,9}", fraction) else "0")
    try:
        when = datetime(*(int(match[k]) for k in range(1, 7)))  # type: ignore[arg-type]
    except ValueError:
        return None
    return when.replace(microsecond=int(digits.ljust(6, "0")[:6]))


def _zone(text: str | None) -> timezone | None:
    match = re.fullmatch(r"([+-])([01]\d):?([0-5]\d)", text or "")
    if match is None:
        return UTC if text == "Z" else None
    minutes = int(match[2]) * 60 + int(match[3])
    return timezone(timedelta(minutes=-minutes if match[1] == "-" else minutes))


def _gps_time(gps: Tags) -> datetime | None:
    """GPSDateStamp and GPSTimeStamp, UTC."""
    clock = gps.get(7)
    parts = [_number(v) for v in clock] if isinstance(clock, tuple | list) else []
    midnight = _time(f"{_text(gps.get(29))} 00:00:00", None)
    hours, minutes, seconds = (*parts, None, None, None)[:3]
    if midnight is None or hours is None or minutes is None or seconds is None:
        return None
    if not (0 <= hours < 24 and 0 <= minutes < 60 and 0 <= seconds < 61):
        return None
    passed = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    return midnight.replace(tzinfo=UTC) + passed


# 4. values


def _number(value: Any) -> float | None:
    """A finite number, or None (a rational over zero comes as NaN)."""
    if isinstance(value, tuple | list) and len(value) == 1:
        value = value[0]
    try:
        number = float(value)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return number if math.isfinite(number) else None


def _text(value: Any) -> str | None:
    """Printable text up to its first NUL, at most 80 characters, or None."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    text = "".join(c for c in value.split("\0")[0] if c.isprintable()).strip()[:80]
    return text or None
