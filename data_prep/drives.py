"""Drives through a synthetic town: days, routes, and the pose and metadata of every photo.

Knows nothing of pixels or files. Points are metres east and south of the town's north-west corner;
bearings are clockwise from the raster's north unless a name says true.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone

import numpy as np
import shapely
from numpy.random import Generator
from numpy.typing import NDArray
from shapely.geometry import LineString
from shapely.ops import substring

from data_prep.develop import Claim
from data_prep.town_light import Day
from data_prep.town_streets import Street
from zoomloc.world.cells import LatLng

F64 = NDArray[np.float64]
Locate = Callable[[F64], F64]  # (N, 2) metres east, south -> (N, 2) lat, lng

Free = Callable[[F64], NDArray[np.bool_]]  # (N, 2) -> (N,)

TRAIN_DAYS = (95, 158, 204, 247, 288)  # days of the northern year, each shifted a little per town
TRAIN_YEAR, TEST_YEAR = 2024, 2025
POSITION_ERROR_M = 2.1  # per axis, about 3 m in the plane


@dataclass(frozen=True)
class ShootingDay:
    """One day on which photos are taken."""

    date: date
    test: bool
    light: Day
    cloud: float  # 0 clear .. 1 overcast
    start_hour: float  # local time of the first drive
    zone_hours: int  # local time - UTC
    cast: tuple[float, float, float]  # colour response of the day, per band
    visibility_m: float


@dataclass(frozen=True)
class Rig:
    """The camera of one drive and how it is carried."""

    focal_35mm: int
    height_m: float
    mount_deg: float  # viewing direction against the direction of travel
    quality: int  # JPEG
    blur_px: float
    gain: float
    heading_share: float  # of frames that carry a heading
    wobble_deg: float
    walking: bool

    @property
    def fov_deg(self) -> float:
        """Field of view over the long side, from the 35 mm equivalent."""
        return math.degrees(2 * math.atan(36 / (2 * self.focal_35mm)))


@dataclass(frozen=True)
class Shot:
    """One photo: true pose, and what its EXIF will claim."""

    frame: int
    x_m: float
    y_m: float
    bearing_deg: float
    place: LatLng
    true_bearing_deg: float
    pitch_deg: float
    roll_deg: float
    claim: Claim


@dataclass(frozen=True)
class Drive:
    """Photos of one camera that moves along streets."""

    name: str
    number: int
    day: int  # index into the days
    rig: Rig
    shots: tuple[Shot, ...]


def sun_at(lat: float, day_of_year: int, solar_hour: float) -> tuple[float, float]:
    """Azimuth (clockwise from north) and elevation of the sun, degrees, to about a degree."""
    tilt = math.radians(-23.44 * math.cos(2 * math.pi * (day_of_year + 10) / 365.25))
    hour, phi = math.radians(15 * (solar_hour - 12)), math.radians(lat)
    up = math.sin(phi) * math.sin(tilt) + math.cos(phi) * math.cos(tilt) * math.cos(hour)
    east = -math.cos(tilt) * math.sin(hour)
    north = math.cos(phi) * math.sin(tilt) - math.sin(phi) * math.cos(tilt) * math.cos(hour)
    return math.degrees(math.atan2(east, north)) % 360, math.degrees(math.asin(up))


def map_day(rng: Generator, lat: float, north_deg: float) -> Day:
    """The day on which the town was seen from the air: clear, early summer, before noon."""
    day = int(rng.integers(150, 215))
    azimuth, elevation = sun_at(lat, day if lat > 0 else day + 182, rng.uniform(9.6, 11.4))
    return Day(azimuth + north_deg, elevation, 0.72, 0.5, day / 365, int(rng.integers(2**30)))


def plan_days(
    rng: Generator, lat: float, lng: float, north_deg: float, nuisances: bool
) -> list[ShootingDay]:
    """Training days in order, then the test day of another year."""
    test = int(rng.integers(112, 278))
    days = [(TRAIN_YEAR, day + int(rng.integers(-9, 10))) for day in TRAIN_DAYS]
    planned = []
    for year, day in [*days, (TEST_YEAR, test)]:
        season = day / 365
        on = date(year, 1, 1) + timedelta(days=day - 1 + (0 if lat > 0 else 182))
        cloud = float(rng.beta(0.8, 1.0)) if nuisances else 0.0
        hour = rng.uniform(9, 16.5) if nuisances else 11.0
        azimuth, elevation = sun_at(lat, day if lat > 0 else day + 182, hour)
        warm = rng.uniform(-0.06, 0.08) if nuisances else 0.0
        light = Day(
            azimuth + north_deg,
            max(elevation, 14.0),
            0.78 * (1 - 0.85 * cloud),
            0.46 + 0.28 * cloud,
            season if nuisances else 0.5,
            int(rng.integers(2**30)),
            float(rng.uniform(0.35, 0.75)),
        )
        planned.append(
            ShootingDay(
                on,
                year == TEST_YEAR,
                light,
                cloud,
                hour,
                round(lng / 15),
                (1 + warm, 1.0, 1 - warm),
                float(rng.uniform(350, 1200)) if nuisances else 1200.0,
            )
        )
    return sorted(planned, key=lambda planned_day: (planned_day.test, planned_day.date))


def under_one_light(days: list[ShootingDay]) -> list[ShootingDay]:
    """The same days, all with the first one's sun and surfaces; parked cars still change."""
    return [replace(day, light=days[0].light) for day in days]


def plan_drives(
    rng: Generator,
    streets: list[Street],
    free: Free,
    days: list[ShootingDay],
    photos: tuple[int, int],
    locate: Locate,
    north_deg: float,
    nuisances: bool,
) -> list[Drive]:
    """Drives that cover the streets evenly, both ways; photos = (training, test) upper bounds.

    `free` says for points (N, 2) whether a camera can stand there.
    """
    length_m = sum(street.line.length for street in streets)
    # more than that shows nothing new: about ten passes each way for training, two for the test
    limits = (min(photos[0], int(1.6 * length_m)), min(photos[1], int(0.3 * length_m)))
    drives: list[Drive] = []
    for test, total in ((False, limits[0]), (True, limits[1])):
        routes = _Routes(rng, streets, free)
        open_days = [index for index, day in enumerate(days) if day.test == test]
        fewest, left = _shortest_drive(total), total
        for number in range(4 * total):  # some tries end at once, where a street leaves the town
            if left < 1:
                break
            rig = draw_rig(rng, nuisances)
            path = routes.next_path(rig, min(left, _length(rng, total, test)))
            if len(path) < min(fewest, left):
                continue
            day = open_days[len(drives) % len(open_days)]
            name = f"{days[day].date.isoformat()}_d{len(drives):03d}"
            shots = shots_along(rng, path, rig, days[day], number, locate, north_deg, nuisances)
            drives.append(Drive(name, len(drives), day, rig, shots))
            left -= len(path)
    return sorted(drives, key=lambda drive: drive.name)


def _shortest_drive(total: int) -> int:
    """Photos that a drive must have; few in tiny towns, so that there are several drives."""
    return int(np.clip(total // 24, 1, 24))


def _length(rng: Generator, total: int, test: bool) -> int:
    """Photos of one drive: 40 to 150 where there are many, else a share of the total."""
    wish = rng.uniform(40, 90) if test else rng.uniform(60, 150)
    return int(max(2, min(wish, total / 6 if total < 600 else wish)))


def draw_rig(rng: Generator, nuisances: bool) -> Rig:
    """A camera and the way it is carried; always the same one without nuisances."""
    walking = bool(rng.random() < 0.22)
    mount_deg = float(rng.choice([0, 0, 0, 0, 0, 0, 180, 90, -90])) + float(rng.normal(0, 3))
    if not nuisances:
        return Rig(20, 1.8, 0.0, 92, 0.0, 1.0, 1.0, 0.0, walking)
    return Rig(
        focal_35mm=int(rng.integers(15, 32)),
        height_m=float(rng.uniform(1.4, 1.75) if walking else rng.uniform(1.3, 2.6)),
        mount_deg=mount_deg,
        quality=int(rng.integers(58, 93)),
        blur_px=float(max(0.0, rng.normal(0.1, 0.35))),
        gain=float(np.exp(rng.normal(0, 0.13))),
        heading_share=0.0 if rng.random() < 0.2 else 0.875,
        wobble_deg=float(rng.uniform(0.4, 2.0) if walking else rng.uniform(0.2, 1.0)),
        walking=walking,
    )


class _Routes:
    """Ways through the street network that prefer what was driven least."""

    def __init__(self, rng: Generator, streets: list[Street], free: Free) -> None:
        self._rng, self._free, self._streets = rng, free, streets
        self._driven = np.zeros((len(streets), 2))  # times, along and against the points' order
        self._leaving: dict[int, list[tuple[int, int]]] = {}
        for index, street in enumerate(streets):
            self._leaving.setdefault(street.nodes[0], []).append((index, 0))
            self._leaving.setdefault(street.nodes[1], []).append((index, 1))

    def next_path(self, rig: Rig, frames: int) -> F64:
        """(N, 3) x, y, direction of travel of up to `frames` photos, 5 to 10 m apart."""
        step_m = self._rng.uniform(5.2, 9.6)
        need_m = step_m * (frames + 1)
        kerb = -1 if rig.walking and self._rng.random() < 0.5 else 1
        pieces, length_m = [], 0.0
        index, way = self._least_driven()
        while True:
            street = self._streets[index]
            points = street.points if way == 0 else street.points[::-1]
            away_m = street.width_m * 0.19
            if rig.walking:
                away_m = kerb * (street.width_m / 2 + 0.82 * street.walk_m)
            pieces.append(_beside(points, away_m))
            self._driven[index, way] += 1
            length_m += street.line.length
            onward = self._turn(index, way)
            if length_m > need_m + 25 or onward is None:
                break
            index, way = onward
        return self._sample(np.concatenate(pieces), step_m, frames)

    def _least_driven(self) -> tuple[int, int]:
        wish = self._driven + self._rng.uniform(0, 0.9, self._driven.shape)
        index, way = np.unravel_index(int(np.argmin(wish)), wish.shape)
        return int(index), int(way)

    def _turn(self, index: int, way: int) -> tuple[int, int] | None:
        """The next stretch: little driven, rather straight on; None at a dead end."""
        street = self._streets[index]
        here = street.points if way == 0 else street.points[::-1]
        travel = here[-1] - here[-2]
        best, choice = math.inf, None
        for other, other_way in self._leaving[street.nodes[1 - way]]:
            if (other, other_way) == (index, 1 - way):
                continue
            there = self._streets[other].points
            onward = there[1] - there[0] if other_way == 0 else there[-2] - there[-1]
            norm = np.hypot(*travel) * np.hypot(*onward) + 1e-9
            bend = 1 - float(travel @ onward) / norm
            cost = self._driven[other, other_way] + 0.25 * bend + self._rng.uniform(0, 0.6)
            if len(self._leaving[self._streets[other].nodes[1 - other_way]]) == 1:
                cost += 0.7  # a dead end: the drive would end there
            if cost < best:
                best, choice = cost, (other, other_way)
        return choice

    def _sample(self, points: F64, step_m: float, frames: int) -> F64:
        """Round the corners and place the photos; the drive ends where it would hit something."""
        gaps = np.hypot(*np.diff(points, axis=0).T)
        points = points[np.concatenate([[True], gaps > 1e-6])]
        at = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
        fine = np.arange(0, at[-1], 1.0)
        if len(fine) < 20:
            return np.zeros((0, 3))
        east, south = (np.interp(fine, at, points[:, axis]) for axis in (0, 1))
        kernel = np.hanning(13) / np.hanning(13).sum()
        smooth = np.stack([np.convolve(axis, kernel, "valid") for axis in (east, south)], 1)
        far = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(smooth, axis=0).T))])
        at = np.arange(self._rng.uniform(0, step_m), far[-1] - 1, step_m)
        here, ahead = (
            np.stack([np.interp(at + shift, far, smooth[:, axis]) for axis in (0, 1)], 1)
            for shift in (0.0, 1.0)
        )
        bearing = np.degrees(np.arctan2(ahead[:, 0] - here[:, 0], here[:, 1] - ahead[:, 1]))
        return np.column_stack([here, bearing])[_longest_run(self._free(here))][:frames]


def _beside(points: F64, away_m: float) -> F64:
    """A line away_m to the right of a line."""
    travel = np.gradient(points, axis=0)
    travel /= np.hypot(travel[:, 0], travel[:, 1])[:, None] + 1e-9
    beside = points + away_m * np.stack([-travel[:, 1], travel[:, 0]], 1)
    # stop short of the junctions, or the lines of two streets cross before they meet
    line, short_m = LineString(beside), abs(away_m) + 2.0
    if line.length < 3 * short_m:
        return np.array(line.interpolate(0.5, normalized=True).coords)
    return np.asarray(shapely.get_coordinates(substring(line, short_m, line.length - short_m)))


def _longest_run(inside: NDArray[np.bool_]) -> slice:
    """The longest unbroken stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(int)))
    if len(edges) == 0:
        return slice(0, 0)
    best = int(np.argmax(edges[1::2] - edges[::2]))
    return slice(int(edges[2 * best]), int(edges[2 * best + 1]))


def shots_along(
    rng: Generator,
    path: F64,
    rig: Rig,
    day: ShootingDay,
    number: int,
    locate: Locate,
    north_deg: float,
    nuisances: bool,
) -> tuple[Shot, ...]:
    """The photos of a path (N, 3) of x, y, direction, and what their EXIF will claim.

    `number` tells the paths of a day apart: a later one begins later.
    """
    count = len(path)
    wobble = rng.normal(0, rig.wobble_deg, (count, 3))
    bearing = (path[:, 2] + rig.mount_deg + 2.5 * wobble[:, 0]) % 360
    error_m = _drift(rng, count) if nuisances else np.zeros((count, 2))
    places, claimed = locate(path[:, :2]), locate(path[:, :2] + error_m)
    true_bearing = (bearing - north_deg) % 360
    known = rng.random(count) < rig.heading_share
    compass = (true_bearing + (rng.normal(0, 5, count) if nuisances else 0.0)) % 360
    zone = timezone(timedelta(hours=day.zone_hours))
    start = datetime(day.date.year, day.date.month, day.date.day, tzinfo=zone)
    start += timedelta(seconds=round(day.start_hour * 3600 + number * 97))
    pause_s = rng.uniform(5.5, 7.5) if rig.walking else rng.uniform(0.9, 1.6)
    claimed_m = np.round(np.clip(rng.normal(3.2, 0.6, count), 1.5, 6.0), 1)
    claims = [
        Claim(
            lat=float(claimed[k, 0]),
            lng=float(claimed[k, 1]),
            bearing_deg=float(compass[k]) if known[k] else None,
            error_m=float(claimed_m[k]),
            focal_35mm=rig.focal_35mm,
            taken=start + timedelta(seconds=round(k * pause_s)),
        )
        for k in range(count)
    ]
    return tuple(
        Shot(
            frame=k,
            x_m=float(path[k, 0]),
            y_m=float(path[k, 1]),
            bearing_deg=float(bearing[k]),
            place=LatLng(float(places[k, 0]), float(places[k, 1])),
            true_bearing_deg=float(true_bearing[k]),
            pitch_deg=float(wobble[k, 1]),
            roll_deg=float(wobble[k, 2]),
            claim=claims[k],
        )
        for k in range(count)
    )


def turned_on_the_spot(drive: Drive, turns: int) -> Drive:
    """The same drive, but at each stop so many photos, turned all the way round."""
    step_deg = 360 / turns
    shots = []
    for shot in drive.shots:
        for k in range(turns):
            told = shot.claim.bearing_deg
            claim = replace(
                shot.claim,
                bearing_deg=None if told is None else (told + k * step_deg) % 360,
                taken=shot.claim.taken + timedelta(milliseconds=200 * k),
            )
            shots.append(
                replace(
                    shot,
                    frame=shot.frame * turns + k,
                    bearing_deg=(shot.bearing_deg + k * step_deg) % 360,
                    true_bearing_deg=(shot.true_bearing_deg + k * step_deg) % 360,
                    claim=claim,
                )
            )
    return replace(drive, shots=tuple(shots))


def _drift(rng: Generator, count: int) -> F64:
    """(N, 2) position error in metres that drifts along a drive, AR(1)."""
    error = np.empty((count, 2))
    error[0] = rng.normal(0, POSITION_ERROR_M, 2)
    for k in range(1, count):
        fresh = rng.normal(0, POSITION_ERROR_M * math.sqrt(1 - 0.9**2), 2)
        error[k] = 0.9 * error[k - 1] + fresh
    return np.clip(error, -8.0, 8.0)
