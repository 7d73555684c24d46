"""GPX tracks (1.0 and 1.1): where a camera was at a moment, for photos that do not tell.

Knows nothing of photos or EXIF. Files may be hostile: they are read by defusedxml, as a stream,
and one that declares a document type or entities is refused.

The place is interpolated linearly between the two track points around the moment, of the same
segment. The bearing is the direction of travel, so it supposes a camera that looks ahead; it is
None where the track did not move MOVED_M around the moment. GPX times without a zone are UTC, as
the format has it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from zoomloc.errors import PhotoError
from zoomloc.world.cells import Floats, geod

MOVED_M = 10.0  # receivers wander by some metres: a shorter way has no direction
CLOCK_S = 1.0  # EXIF times are whole seconds, and nobody sets a camera's clock better than that
FASTEST = 100.0  # metres a second: faster is a receiver that lost itself, and no place
MOST_POINTS = 10_000_000

Point = tuple[float, float, float]  # seconds since 1970, lat, lng


@dataclass(frozen=True)
class Fix:
    """Where the track was; ``error_m`` is what interpolation and the camera's clock may add."""

    lat: float
    lng: float
    bearing_deg: float | None
    error_m: float


@dataclass(frozen=True)
class Segment:
    """Points without a break, by time."""

    seconds: Floats
    lats: Floats
    lngs: Floats

    @classmethod
    def of(cls, points: Sequence[Point]) -> "Segment":
        """Sorted by time; of several points at one moment the first counts."""
        table = np.array(points, np.float64).reshape(-1, 3)
        seconds, first = np.unique(table[:, 0], return_index=True)
        return cls(seconds, table[first, 1], table[first, 2])

    def around(self, when_s: float) -> tuple[int, int] | None:
        """The points before and after a moment (the same one twice where it hits it)."""
        after = int(np.searchsorted(self.seconds, when_s))
        if after < len(self.seconds) and self.seconds[after] == when_s:
            return after, after
        return None if after in (0, len(self.seconds)) else (after - 1, after)

    def pause_s(self, pair: tuple[int, int]) -> float:
        """Seconds between two points."""
        return float(self.seconds[pair[1]] - self.seconds[pair[0]])

    def way(self, pair: tuple[int, int]) -> tuple[float, float]:
        """(bearing_deg, metres) from one point to another."""
        a, b = pair
        bearing, _, metres = geod().inv(self.lngs[a], self.lats[a], self.lngs[b], self.lats[b])
        return float(bearing) % 360, float(metres)


class Tracks:
    """The tracks of some GPX files."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = segments

    def at(self, when_s: float, longest_gap_s: float) -> Fix | None:
        """Where the track was; None where no two points so near in time lie around the moment.

        Where several segments do, the one whose points are nearest to each other counts.
        """
        held = [(s, pair) for s in self._segments if (pair := s.around(when_s)) is not None]
        if not held:
            return None
        segment, pair = min(held, key=lambda one: one[0].pause_s(one[1]))
        if segment.pause_s(pair) > longest_gap_s:
            return None
        return _fix(segment, pair, when_s, longest_gap_s)


def read_tracks(paths: Sequence[Path]) -> Tracks:
    """All segments of GPX files (of folders: the .gpx files in them).

    Raises PhotoError for what is missing, no GPX, hostile, or has no point with a time.
    """
    segments: list[Segment] = []
    for path in paths:
        for file in _files(path):
            found = _segments(file)
            if not found:
                raise PhotoError(f"{file}: no track point with a time; photos are placed by time")
            segments += found
    return Tracks(segments)


def _fix(segment: Segment, pair: tuple[int, int], when_s: float, longest_s: float) -> Fix | None:
    before, after = pair
    pause_s = segment.pause_s(pair)
    part = (when_s - segment.seconds[before]) / pause_s if pause_s else 0.0
    east = (segment.lngs[after] - segment.lngs[before] + 180) % 360 - 180  # the shorter way round
    lat = segment.lats[before] + part * (segment.lats[after] - segment.lats[before])
    lng = (segment.lngs[before] + part * east + 180) % 360 - 180
    wider = pair if pause_s else _widened(segment, pair)
    _, metres = segment.way(wider)
    speed = metres / segment.pause_s(wider) if metres else 0.0
    if pause_s and speed > FASTEST:
        return None
    # between two points a way strays from the straight line by up to half of it, at a corner
    strayed_m = metres / 4 if pause_s else 0.0
    error_m = math.hypot(strayed_m, min(speed, FASTEST) * CLOCK_S)
    return Fix(float(lat), float(lng), _bearing(segment, pair, longest_s), error_m)


def _bearing(segment: Segment, pair: tuple[int, int], longest_s: float) -> float | None:
    """Direction of travel by the nearest points around the moment that lie MOVED_M apart."""
    while True:
        bearing, metres = segment.way(pair)
        if metres >= MOVED_M:
            return bearing
        wider = _widened(segment, pair)
        if wider == pair or segment.pause_s(wider) > longest_s:
            return None
        pair = wider


def _widened(segment: Segment, pair: tuple[int, int]) -> tuple[int, int]:
    """One more point at either end, where there is one."""
    return max(pair[0] - 1, 0), min(pair[1] + 1, len(segment.seconds) - 1)


# 2. files


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.iterdir() if p.suffix.lower() == ".gpx")
    if not found:
        raise PhotoError(f"{path}: no .gpx file in this folder; check 'tracks'")
    return found


def _segments(path: Path) -> list[Segment]:
    try:
        with path.open("rb") as file:
            found = [Segment.of(points) for points in _point_lists(file, path) if points]
    except OSError as error:
        raise PhotoError(f"{path}: cannot be read ({error.strerror}); check 'tracks'") from error
    except DefusedXmlException as error:
        raise PhotoError(
            f"{path}: declares a document type or entities, which no GPX needs; refused"
        ) from error
    except (ParseError, ValueError, LookupError) as error:
        why = " ".join(str(error).split())[:80]
        raise PhotoError(f"{path}: no readable GPX ({why})") from error
    return found


def _point_lists(file: BinaryIO, path: Path) -> Iterator[list[Point]]:
    """The timed points of each segment; elements are let go as soon as they are read."""
    points: list[Point] = []
    count, root = 0, None
    for event, element in iterparse(file, events=("start", "end"), forbid_dtd=True):
        name = _name(element)
        if root is None:
            root = element
            if name != "gpx":
                raise PhotoError(f"{path}: its root is {name[:40]!r}, not gpx; give a GPX file")
        if event == "start":
            continue
        if name == "trkpt":
            point = _point(element)
            points += [] if point is None else [point]
            count += 1
            if count > MOST_POINTS:
                raise PhotoError(f"{path}: more than {MOST_POINTS:,} points; cut it in parts")
        elif name == "trkseg":
            yield points
            points = []
        if name in ("trkpt", "trkseg", "trk", "wpt", "rte"):
            element.clear()


def _point(element: Element) -> Point | None:
    """A track point, or None where its place or time cannot be."""
    moment = next((child.text for child in element if _name(child) == "time"), None)
    try:
        lat, lng = float(element.get("lat", "")), float(element.get("lon", ""))
        when = datetime.fromisoformat((moment or "").strip())
        seconds = (when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return (seconds, lat, lng) if abs(lat) <= 90 and abs(lng) <= 180 else None


def _name(element: Element) -> str:
    """The name without its namespace: GPX 1.0 and 1.1 differ in it."""
    return str(element.tag).rpartition("}")[2]
