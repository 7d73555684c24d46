"""From a rendered canvas to a photo as a phone would keep it: passers-by, exposure, JPEG, EXIF.

Knows nothing of towns, drives or folders.
"""

import io
import math
import struct
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from data_prep.compiled import compiled
from data_prep.march import Optics, row_of
from data_prep.town_parts import CARS

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

MAKE, MODEL = "zoomloc", "synthetic town camera"
LEVELS = np.arange(512) / 255
CROP = 5.6  # sensor of a phone: focal length = 35 mm equivalent / CROP
CLOTHES = [(40, 44, 60), (150, 50, 50), (70, 90, 70), (200, 190, 170), (60, 60, 62), (190, 160, 60)]


@dataclass(frozen=True)
class Claim:
    """What the EXIF of a photo says; not always the truth."""

    lat: float
    lng: float
    bearing_deg: float | None
    error_m: float
    focal_35mm: int
    taken: datetime  # with its zone


def add_passers_by(
    rng: Generator, canvas: F32, optics: Optics, bearing_deg: float, light: float
) -> None:
    """Draw moving cars and people into a canvas, hidden by what stands before them."""
    things = []
    for _ in range(int(rng.poisson(0.7))):
        far_m, side_m = rng.uniform(7, 45), rng.choice([-3.6, -2.6, 3.4, 5.0]) + rng.normal(0, 0.4)
        rgb = CARS[int(rng.integers(len(CARS)))]
        wide_m = 1.8 if rng.random() < 0.75 else 4.3
        things.append((far_m, side_m, wide_m, 1.5, 0.0, *rgb))
    for _ in range(int(rng.poisson(0.8))):
        far_m, side_m = rng.uniform(3.5, 30), rng.normal(0, 6)
        rgb = CLOTHES[int(rng.integers(len(CLOTHES)))]
        things.append((far_m, side_m, 0.55, rng.uniform(1.5, 1.9), 1.0, *rgb))
    if things:
        turn = math.radians(bearing_deg)
        eye_m = float(rng.uniform(1.5, 1.8))
        _draw(canvas, optics, np.array(things), math.sin(turn), -math.cos(turn), eye_m, light)


@compiled
def _draw(
    canvas: F32,
    optics: Optics,
    things: F64,
    ahead_x: float,
    ahead_y: float,
    eye: float,
    light: float,
) -> None:
    """Upright cut-outs (far, side, width, height, kind, r, g, b), tested against the depth."""
    width, height = canvas.shape[0], canvas.shape[1]
    for n in range(things.shape[0]):
        far, side, wide, high, kind = (
            things[n, 0],
            things[n, 1],
            things[n, 2],
            things[n, 3],
            things[n, 4],
        )
        for c in range(width):
            forward = optics.towards_x[c] * ahead_x + optics.towards_y[c] * ahead_y
            right = optics.towards_y[c] * ahead_x - optics.towards_x[c] * ahead_y
            if forward <= 0.05:
                continue
            u = (right / forward * far - side) / (0.5 * wide)
            if abs(u) > 1.0:
                continue
            d = far / forward
            top = row_of((high - eye) / d, optics.horizon[c], optics.scale[c], optics.panorama)
            foot = row_of(-eye / d, optics.horizon[c], optics.scale[c], optics.panorama)
            for r in range(max(0, math.ceil(top - 0.5)), min(height, math.ceil(foot - 0.5))):
                v = (foot - r - 0.5) / (foot - top)
                tone = _cut_out(kind, u, v)
                if tone < 0.0 or canvas[c, r, 3] < d:
                    continue
                for band in range(3):
                    paint = things[n, 5 + band] if tone > 0.3 else 90.0
                    canvas[c, r, band] = paint * tone * light * (0.8 + 0.2 * v)
                canvas[c, r, 3] = d


@compiled
def _cut_out(kind: float, u: float, v: float) -> float:
    """Brightness of a cut-out at u in -1..1, v in 0..1 from the foot; negative = see through."""
    if kind > 0.5:  # a person: legs, body, head
        if v > 0.86:
            return 0.9 if u * u / 0.12 + ((v - 0.93) / 0.07) ** 2 < 1.0 else -1.0
        if v > 0.46:
            return 1.0 if abs(u) < 0.85 else -1.0
        return 0.28 if 0.1 < abs(u) < 0.6 else -1.0
    if v < 0.2:
        return 0.15 if abs(u) > 0.55 and abs(u) < 0.95 else (0.2 if v > 0.1 else -1.0)
    if v < 0.62:
        return 1.0
    if abs(u) > 0.86 - 0.5 * (v - 0.62):
        return -1.0
    return 0.25 if v < 0.92 and abs(u) < 0.74 else 0.9


def expose(
    rng: Generator,
    canvas: F32,
    gain: float,
    cast: tuple[float, float, float],
    blur_px: float,
    nuisances: bool,
) -> U8:
    """(h, w, 3) picture of a canvas (w, h, 4): automatic exposure, response, noise, blur.

    `gain` is what the camera adds to its exposure, `cast` the day's colour response.
    """
    picture = np.empty((canvas.shape[1], canvas.shape[0], 3), np.uint8)
    gamma, noise, fall = 1.0, 0.0, 0.0
    if nuisances:
        # cameras meter, but not fully: dark streets stay darker than open squares
        metered = max(float(canvas[::8, ::8, :3].mean()), 20.0)
        gain *= (118.0 / metered) ** 0.65 * math.exp(rng.normal(0, 0.08))
        gamma = math.exp(rng.normal(0, 0.1))
        noise, fall = float(rng.uniform(1.0, 5.0)), float(rng.uniform(0.0, 0.25))
    levels = 255 * (LEVELS * gain).clip(0, 1.25) ** gamma
    # a soft shoulder instead of hard white
    levels = np.where(levels > 215, 215 + 40 * (1 - np.exp(-(levels - 215) / 40)), levels)
    curve = np.stack([levels * factor for factor in cast]).astype(np.float32)
    _tone(picture, canvas, curve, noise, fall, int(rng.integers(2**20)))
    if blur_px > 0.2:
        _soften(picture.reshape(len(picture), -1), round(256 * min(0.32, 0.5 * blur_px * blur_px)))
    return picture


@compiled
def _tone(picture: U8, canvas: F32, curve: F32, noise: float, fall: float, seed: int) -> None:
    """Curve of each band over 0-511, darker corners, noise from a cheap random sequence."""
    width, height = canvas.shape[0], canvas.shape[1]
    state = seed
    for c in range(width):
        across = 2.0 * c / width - 1.0
        side = 1.0 - 0.5 * fall * across * across
        for r in range(height):
            down = 2.0 * r / height - 1.0
            dim = side - 0.15 * fall * down * down
            state = (state * 1103515245 + 12345) & 0x7FFFFFFF
            grain = noise * (((state >> 8) & 255) + ((state >> 16) & 255) - 255) / 160.0
            for band in range(3):
                level = min(511, max(0, int(canvas[c, r, band])))
                tone = int(curve[band, level] * dim + grain)
                picture[r, c, band] = min(255, max(0, tone))


@compiled
def _soften(rows: U8, side: int) -> None:
    """Blur pixels (h, 3 w) in place by (side, 256 - 2 side, side) / 256, across and down."""
    height, width = rows.shape
    middle = 256 - 2 * side
    line = np.empty(width, np.int32)
    above = np.empty(width, np.int32)
    for r in range(height):
        for k in range(width):
            line[k] = rows[r, k]
        for k in range(3, width - 3):
            rows[r, k] = (side * (line[k - 3] + line[k + 3]) + middle * line[k] + 128) >> 8
    for k in range(width):
        above[k] = rows[0, k]
    for r in range(height - 1):
        for k in range(width):
            here = np.int32(rows[r, k])
            rows[r, k] = (side * (above[k] + rows[r + 1, k]) + middle * here + 128) >> 8
            above[k] = here


def encode(picture: U8, claim: Claim, quality: int) -> bytes:
    """JPEG with EXIF of a picture (h, w, 3)."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=quality, exif=exif_of(claim))
    return out.getvalue()


def exif_of(claim: Claim) -> bytes:
    """EXIF block: position, direction where known, focal length, time with its offset.

    Written by hand: Pillow's writer takes as long as half the rendering of a photo.
    """
    taken, utc, zone = claim.taken, claim.taken.astimezone(UTC), claim.taken.strftime("%z")
    details = {
        0x9003: _text(f"{taken:%Y:%m:%d %H:%M:%S}"),
        0x9011: _text(f"{zone[:3]}:{zone[3:]}"),
        0x920A: _ratios((round(claim.focal_35mm / CROP * 1000), 1000)),
        0xA405: _short(claim.focal_35mm),
    }
    world = {
        1: _text("N" if claim.lat >= 0 else "S"),
        2: _sexagesimal(claim.lat),
        3: _text("E" if claim.lng >= 0 else "W"),
        4: _sexagesimal(claim.lng),
        7: _ratios((utc.hour, 1), (utc.minute, 1), (utc.second, 1)),
        29: _text(f"{utc:%Y:%m:%d}"),
        31: _ratios((round(claim.error_m * 10), 10)),
    }
    if claim.bearing_deg is not None:
        world[16] = _text("T")
        world[17] = _ratios((round(claim.bearing_deg % 360 * 100), 100))
    main = {0x010F: _text(MAKE), 0x0110: _text(MODEL), 0x0112: _short(1)}
    # the main directory points to the two others: its size is known before its content
    pointers = {0x8769: _long(0), 0x8825: _long(0)}
    details_at = 8 + len(_directory({**main, **pointers}, 8))
    details_block = _directory(details, details_at)
    world_at = details_at + len(details_block)
    pointers = {0x8769: _long(details_at), 0x8825: _long(world_at)}
    head = b"Exif\0\0MM\0*\0\0\0\x08"
    return head + _directory({**main, **pointers}, 8) + details_block + _directory(world, world_at)


_Entry = tuple[int, int, bytes]  # TIFF type, count, value (big-endian)


def _text(text: str) -> _Entry:
    return 2, len(text) + 1, text.encode("ascii") + b"\0"


def _short(value: int) -> _Entry:
    return 3, 1, struct.pack(">HH", value, 0)


def _long(value: int) -> _Entry:
    return 4, 1, struct.pack(">L", value)


def _ratios(*ratios: tuple[int, int]) -> _Entry:
    return 5, len(ratios), b"".join(struct.pack(">LL", *ratio) for ratio in ratios)


def _sexagesimal(degrees: float) -> _Entry:
    """Degrees, minutes, seconds to about 3 mm."""
    units = round(abs(degrees) * 3600 * 10_000)
    whole, rest = divmod(units, 3600 * 10_000)
    minutes, seconds = divmod(rest, 60 * 10_000)
    return _ratios((whole, 1), (minutes, 1), (seconds, 10_000))


def _directory(entries: dict[int, _Entry], at: int) -> bytes:
    """A TIFF directory that starts `at` bytes into the block, values of more than 4 bytes after."""
    values_at = at + 2 + 12 * len(entries) + 4
    rows, values = [struct.pack(">H", len(entries))], b""
    for tag, (kind, count, value) in sorted(entries.items()):
        if len(value) <= 4:
            place = value.ljust(4, b"\0")
        else:
            place = struct.pack(">L", values_at + len(values))
            values += value + b"\0" * (len(value) % 2)
        rows.append(struct.pack(">HHL", tag, kind, count) + place)
    return b"".join(rows) + b"\0\0\0\0" + values
