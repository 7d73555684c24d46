"""Which photos a server is asked for, and what may be believed of its JSON.

Knows nothing of any server, nor of pictures. Whatever JSON comes in, values are sound or None.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, NamedTuple

import numpy as np
import shapely
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from zoomloc.config.photos import ServedPhotos
from zoomloc.errors import PhotoError
from zoomloc.world.cells import MAX_LAT_DEG, LatLng

MOST_BOXES = 1_000_000
DEEPEST = 8  # how often a box is quartered: 3 m from 900 m
DAY_MS = 86_400_000.0

# 1. which photos


class Box(NamedTuple):
    """A square of a grid in degrees; ``depth`` counts its quarterings."""

    side_deg: float
    depth: int
    x: int  # from -180 degrees
    y: int  # from -90 degrees

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north."""
        side = self.side_deg / 2**self.depth
        west, south, east, north = self.x, self.y, self.x + 1, self.y + 1
        lngs = (min(-180 + side * west, 180.0), min(-180 + side * east, 180.0))
        lats = (min(-90 + side * south, 90.0), min(-90 + side * north, 90.0))
        return round(lngs[0], 9), round(lats[0], 9), round(lngs[1], 9), round(lats[1], 9)

    @property
    def text(self) -> str:
        """As servers are asked for it."""
        return ",".join(f"{value:.9f}".rstrip("0").rstrip(".") for value in self.bounds)

    @property
    def is_smallest(self) -> bool:
        """Whether it is not to be quartered any more."""
        return self.depth >= DEEPEST

    def quarters(self) -> list["Box"]:
        """The four boxes in it."""
        corners = [(2 * self.x + dx, 2 * self.y + dy) for dy in (0, 1) for dx in (0, 1)]
        return [Box(self.side_deg, self.depth + 1, x, y) for x, y in corners]


@dataclass(frozen=True)
class Entry:
    """A photo as a server describes it; ``facts`` are plain JSON."""

    id: str
    sequence: str
    taken_ms: int | None  # since 1970, UTC
    lat: float | None
    lng: float | None
    facts: dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """Which photos are meant: ground in degrees from -180 to 180, and time."""

    ground: BaseGeometry
    after_ms: float
    before_ms: float
    dates: str  # as a key

    @staticmethod
    def of(ground: BaseGeometry, plan: ServedPhotos) -> "Wanted":
        """Of a region, whose lng may pass 180, and a config. Raises PhotoError where empty."""
        parts, ground = [], shapely.make_valid(ground)
        for turn in (-360.0, 0.0, 360.0):
            world = shapely.box(-180 + turn, -90, 180 + turn, 90)
            parts.append(translate(ground.intersection(world), -turn))
        once = shapely.union_all(parts)
        if once.is_empty:
            raise PhotoError("the region is empty: no photo can lie in it")
        shapely.prepare(once)
        after = -np.inf if plan.first is None else _midnight_ms(plan.first)
        before = np.inf if plan.last is None else _midnight_ms(plan.last) + DAY_MS
        return Wanted(once, after, before, f"{plan.first or ''}/{plan.last or ''}")

    def flags(self, entries: Sequence[Entry]) -> list[bool]:
        """Which of them are meant; one without a place or a time may be."""
        places = [(np.nan if e.lng is None else e.lng, e.lat or 0.0) for e in entries]
        lng, lat = np.array(places, np.float64).reshape(-1, 2).T
        inside = shapely.intersects_xy(self.ground, lng, lat) | np.isnan(lng)
        times = [e.taken_ms for e in entries]
        in_time = [t is None or self.after_ms <= t < self.before_ms for t in times]
        return [bool(here) and now for here, now in zip(inside, in_time, strict=True)]

    def boxes(self, side_deg: float) -> Iterator[Box]:
        """The boxes of a grid that the ground reaches into. Raises PhotoError where too many."""
        columns = set[int]()  # far apart, where the ground passes 180 degrees
        for west, _, east, _ in shapely.bounds(shapely.get_parts(self.ground)).tolist():
            columns |= {*_steps((west + 180) / side_deg, (east + 180) / side_deg, 360 / side_deg)}
        _, south, _, north = self.ground.bounds
        xs = sorted(columns)
        ys = _steps((south + 90) / side_deg, (north + 90) / side_deg, 180 / side_deg)
        if len(xs) * len(ys) > MOST_BOXES:
            raise PhotoError("the region is too large to be searched for photos; take less ground")
        for y in ys:
            yield from self.reached([Box(side_deg, 0, x, y) for x in xs])

    def reached(self, boxes: Sequence[Box]) -> list[Box]:
        """Those that the ground reaches into."""
        squares = shapely.box(*np.array([box.bounds for box in boxes]).T)
        reached = shapely.intersects(self.ground, squares).tolist()
        return [box for box, is_reached in zip(boxes, reached, strict=True) if is_reached]


def _steps(first: float, last: float, most: float) -> range:
    """Columns or rows of a grid from one place to another, both with what they may touch."""
    return range(max(int(first - 1e-6), 0), min(int(last + 1e-6) + 1, round(most)))


def _midnight_ms(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp() * 1000


# 2. values of JSON that may be anything


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def words(value: Any) -> str:
    """Printable text of at most 100 characters; empty where there is none."""
    text = value if isinstance(value, str) else ""
    return "".join(c for c in text[:400] if c.isprintable()).strip()[:100]


def file_name(value: Any) -> str | None:
    """A name that is safe in a path, or None."""
    text = str(value) if isinstance(value, int) and 0 <= value < 1 << 63 else value
    return text if isinstance(text, str) and re.fullmatch(r"[\w-]{1,100}", text, re.A) else None


def point(geometry: Any) -> LatLng | None:
    """The place of a GeoJSON point, or None."""
    pair = geometry.get("coordinates") if isinstance(geometry, dict) else None
    lng, lat = map(number, pair[:2]) if isinstance(pair, list) and len(pair) > 1 else (None, None)
    if lng is None or lat is None or not (abs(lng) <= 180 and abs(lat) <= MAX_LAT_DEG):
        return None
    return LatLng(lat, lng)


def bearing(value: Any) -> float | None:
    """Degrees clockwise from north, or None."""
    degrees = number(value)
    return None if degrees is None or not 0 <= degrees <= 360 else degrees % 360


def read_json(body: bytes) -> Any:
    """What a body says; None where it is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
