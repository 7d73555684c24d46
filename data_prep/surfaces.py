"""The colours of surfaces as a ray meets them: ground, facades with windows, hedges, cars.

Knows nothing of light, distance haze or the march. Compiled into the kernels of `march`, whose
cache on disk does not notice a change of this file alone: touch `march.py` too.
"""

import math
from typing import NamedTuple

from data_prep.compiled import compiled
from data_prep.scene import BUILDING, CAR, HEDGE, TREE, Pixels


@compiled
def hash01(i: int, j: int, k: int) -> float:
    """Reproducible noise in [0, 1) of three integers."""
    n = (i * 374761393 + j * 668265263 + k * 974634733) & 0xFFFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0xFFFFFFFF
    n = ((n ^ (n >> 16)) * 2246822519) & 0xFFFFFFFF
    return ((n ^ (n >> 15)) & 0xFFFF) / 65536.0


@compiled
def ground_colour(
    pixels: Pixels, x: float, y: float, d: float, per_m: float, grain: float
) -> tuple[float, float, float]:
    """Colour of the surface at a point; smooth and grainy near by, the nearest pixel far off."""
    rows, columns = pixels.shape
    u, v = x * per_m, y * per_m
    if d > 8.0:
        i, j = min(max(int(v), 0), rows - 1), min(max(int(u), 0), columns - 1)
        return float(pixels[i, j].red), float(pixels[i, j].green), float(pixels[i, j].blue)
    u, v = u - 0.5, v - 0.5
    j = min(max(int(u), 0), columns - 2)
    i = min(max(int(v), 0), rows - 2)
    p = min(max(u - j, 0.0), 1.0)
    q = min(max(v - i, 0.0), 1.0)
    a, b, e, f = (1 - p) * (1 - q), p * (1 - q), (1 - p) * q, p * q
    bump = 0.55 if pixels[i, j].cover >= TREE else 1.0  # under a crown: its colour, in its shade
    if grain > 0.0:
        bump *= 1.0 + grain * (hash01(int(x * 11.0), int(y * 11.0), 5) - 0.5)
    red = a * pixels[i, j].red + b * pixels[i, j + 1].red
    red += e * pixels[i + 1, j].red + f * pixels[i + 1, j + 1].red
    green = a * pixels[i, j].green + b * pixels[i, j + 1].green
    green += e * pixels[i + 1, j].green + f * pixels[i + 1, j + 1].green
    blue = a * pixels[i, j].blue + b * pixels[i, j + 1].blue
    blue += e * pixels[i + 1, j].blue + f * pixels[i + 1, j + 1].blue
    return red * bump, green * bump, blue * bump


@compiled
def _pane(style: int, cell_u: float, cell_z: float, floor: int, salt: float) -> int:
    """What a point of a facade is: 0 wall, 1 glass, 2 frame, 3 door, 4 awning, 5 balcony."""
    if style == 6 or (style == 5 and salt > 0.35):  # BLANK; most of a hall's bays are closed
        return 0
    if style == 4:  # OFFICE: ribbons of glass
        return 1 if 0.28 < cell_z < 0.88 and 0.06 < cell_u < 0.94 else 0
    if floor == 0 and style == 3:  # SHOPS: glass to the pavement under an awning
        if cell_z > 0.78:
            return 4 if cell_z < 0.98 else 0
        return 1 if 0.08 < cell_u < 0.92 and cell_z > 0.12 else 0
    if floor == 0 and salt < 0.22 and cell_z < 0.72:
        return 3 if 0.3 < cell_u < 0.72 else 0
    if style == 2 and floor > 0 and salt > 0.6 and cell_z < 0.34:
        return 5 if 0.12 < cell_u < 0.88 else 0
    if 0.24 < cell_u < 0.76 and 0.3 < cell_z < 0.82:
        return 1 if 0.29 < cell_u < 0.71 and 0.34 < cell_z < 0.78 else 2
    return 0


class Side(NamedTuple):
    """One column of an upright face, as far as it is the same from foot to top."""

    kind: int  # code of `cover`
    style: int
    red: float
    green: float
    blue: float
    along: float  # metres along the wall
    total: float  # height of the wall, metres
    face: int  # tells the sides of a house apart
    floor_m: float
    bay: int
    across: float  # place in the bay, 0-1
    keep: float  # 1 where windows are large enough to be drawn


@compiled
def side_of(
    pixels: Pixels,
    i: int,
    j: int,
    seen: tuple[float, float, float],
    wall: tuple[float, float, int, float],
) -> Side:
    """The side of pixel (i, j), `seen` from above; `wall`: along, total, face, px per m."""
    along, total, face, width_px = wall
    kind, style = int(pixels[i, j].cover), int(pixels[i, j].style)
    red, green, blue = seen
    if kind == BUILDING and style == 0:  # unknown: the roof's colour, darker, and windows
        style, red, green, blue = 1, red * 0.78 + 18, green * 0.78 + 18, blue * 0.78 + 18
    elif kind == BUILDING:
        red = float(pixels[i, j].wall_red)
        green = float(pixels[i, j].wall_green)
        blue = float(pixels[i, j].wall_blue)
    floor_m = 3.6 if style == 4 else (4.4 if style == 5 else 2.9)
    bay_m = 1.6 + 0.35 * (int(red + green) % 5) + (1.4 if style >= 3 else 0.4)
    bay = math.floor(along / bay_m)
    keep = min(1.0, bay_m * width_px / 5.0)
    across = along / bay_m - bay
    return Side(kind, style, red, green, blue, along, total, face, floor_m, int(bay), across, keep)


@compiled
def side_salt(side: Side, floor: int) -> float:
    """What makes one bay of one floor differ from the next, 0-1."""
    return hash01(side.bay, floor, side.face + int(side.red))


@compiled
def side_colour(side: Side, up: float, floor: int, salt: float) -> tuple[float, float, float]:
    """Unlit colour `up` metres over the ground, on a floor with its `side_salt`."""
    red, green, blue = side.red, side.green, side.blue
    if side.kind == BUILDING:
        return _facade_colour(side, up, floor, salt)
    if side.kind == CAR:
        if up < 0.32:
            return 28.0, 28.0, 30.0
        if up > 0.85 and side.total > 1.2:
            return 52.0, 60.0, 68.0
        return red, green, blue
    leaf = 0.8
    if side.kind == HEDGE:
        leaf = 0.6 + 0.5 * hash01(int(side.along * 5.0), int(up * 6.0), 3)
    return red * leaf, green * leaf, blue * leaf


@compiled
def _facade_colour(side: Side, up: float, floor: int, salt: float) -> tuple[float, float, float]:
    red, green, blue = side.red, side.green, side.blue
    what = 0
    if (floor + 0.85) * side.floor_m < side.total:
        what = _pane(side.style, side.across, up / side.floor_m - floor, floor, salt)
    if what == 0:
        course = 0.93 + 0.1 * hash01(int(side.along * 2.5), int(up * 5.0), side.face)
        if up < 0.45:
            course *= 0.72
        elif side.total - up < 0.3:
            course *= 1.12
        return red * course, green * course, blue * course
    if what == 1:
        glow = 45.0 + 70.0 * salt
        tone = (glow, glow * 1.06, glow * 1.16)
    elif what == 2:
        tone = (225.0, 222.0, 214.0)
    elif what == 3:
        tone = (70.0 + 360.0 * salt, 58.0, 50.0)
    elif what == 4:
        stripe = 1.0 if math.floor(side.along * 1.4) % 2 == 0 else 0.62
        tone = ((255.0 - 0.7 * green) * stripe, 0.8 * blue * stripe, 0.9 * red * stripe)
    else:
        tone = (red * 0.55 + 60.0, green * 0.55 + 60.0, blue * 0.55 + 60.0)
    # windows that are smaller than a few pixels melt into the wall instead of flickering
    keep, melt = side.keep, 0.85 * (1.0 - side.keep)
    return tone[0] * keep + red * melt, tone[1] * keep + green * melt, tone[2] * keep + blue * melt
