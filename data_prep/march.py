"""The compiled kernels of the renderer: one column of a picture at a time over a height field.

Knows nothing of files, cameras as users state them, or towns.

A column looks along one horizontal direction. Going outwards, each step adds what rises above all
that was seen so far: ground between two steps, a wall where the height jumps, a crown that floats
over its trunk. A canvas (w, h, 4) float32 holds red, green, blue (0-255) and the distance in
metres, which is both the z-buffer and the mask (0 = still empty).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep.compiled import compiled
from data_prep.scene import BLOCK_PX, BUILDING, HEDGE, TREE, TRUNK, Blocks, Pixels
from data_prep.surfaces import ground_colour, hash01, side_colour, side_of, side_salt

F32 = NDArray[np.float32]

SKY_DEPTH_M = 1e9
NEAR_M = 0.25
CLEAR_M = 1.7  # no car, hedge or tree stands closer than this to a camera


class Optics(NamedTuple):
    """Where each column looks and how a slope (rise over run) becomes a row."""

    x_m: float
    y_m: float
    eye_m: float  # absolute height
    gsd_m: float
    far_m: float
    towards_x: F32  # (w,) unit vectors on the ground
    towards_y: F32  # (w,)
    scale: F32  # (w,) rows per unit of slope (of elevation in radians, if a panorama)
    horizon: F32  # (w,) row of slope 0
    panorama: bool


class Ray(NamedTuple):
    """One column of Optics: scalars only, since a call copies all that it is given."""

    x_m: float
    y_m: float
    eye_m: float
    gsd_m: float
    per_m: float  # pixels per metre: divisions are dear
    towards_x: float
    towards_y: float
    over_x: float  # metres along the ray for one metre east
    over_y: float
    scale: float
    slope_px: float  # 1 / scale
    horizon: float
    panorama: bool


class Lamp(NamedTuple):
    """Light as the kernels take it; colours 0-255, sun as a vector (east, south, up)."""

    sun_x: float
    sun_y: float
    sun_z: float
    sun: float  # strength on a surface that faces it
    ambient: float
    visibility_m: float
    grain: float  # strength of the fine texture of surfaces
    zenith_red: float
    zenith_green: float
    zenith_blue: float
    haze_red: float  # colour of the horizon
    haze_green: float
    haze_blue: float


@compiled
def row_of(slope: float, horizon: float, scale: float, panorama: bool) -> float:
    """Row (edges at integers) at which a slope is seen."""
    return horizon - scale * (math.atan(slope) if panorama else slope)


@compiled
def slope_of(row: float, horizon: float, slope_px: float, panorama: bool) -> float:
    """Slope seen at a row; the inverse of `row_of`, with slope_px = 1 / scale."""
    ratio = (horizon - row) * slope_px
    return math.tan(ratio) if panorama else ratio


@compiled
def _put(
    canvas: F32, c: int, r: int, d: float, red: float, green: float, blue: float, lamp: Lamp
) -> None:
    """One pixel at distance d, dimmed by haze (a rational stand-in for exp(-d / visibility))."""
    t = d / lamp.visibility_m
    clear = 1.0 / (1.0 + t + 0.5 * t * t)
    canvas[c, r, 0] = red * clear + lamp.haze_red * (1.0 - clear)
    canvas[c, r, 1] = green * clear + lamp.haze_green * (1.0 - clear)
    canvas[c, r, 2] = blue * clear + lamp.haze_blue * (1.0 - clear)
    canvas[c, r, 3] = d


@compiled
def _paint_ground(
    canvas: F32,
    pixels: Pixels,
    ray: Ray,
    lamp: Lamp,
    c: int,
    low: int,
    near: tuple[float, float],
    far: tuple[float, float],
) -> int:
    """Rows between two points (distance, height) of the profile; returns the lowest empty row."""
    d0, z0 = near
    d1, z1 = far
    horizon, scale = ray.horizon, ray.scale
    top = row_of((z1 - ray.eye_m) / d1, horizon, scale, ray.panorama)
    first = max(0, math.ceil(top - 0.5))
    k = (z1 - z0) / (d1 - d0)
    for r in range(low, first - 1, -1):
        if canvas[c, r, 3] > 0.0:
            continue
        fall = slope_of(r + 0.5, horizon, ray.slope_px, ray.panorama) - k
        # where the ray of this row meets the straight line between the two points
        d = d1 if abs(fall) < 1e-9 else (z0 - k * d0 - ray.eye_m) / fall
        d = min(max(d, d0), d1)
        x = ray.x_m + ray.towards_x * d
        y = ray.y_m + ray.towards_y * d
        red, green, blue = ground_colour(pixels, x, y, d, ray.per_m, lamp.grain)
        _put(canvas, c, r, d, red, green, blue, lamp)
    return min(low, first - 1)


@compiled
def _wall_side(
    pixels: Pixels, ray: Ray, x: float, y: float, i: int, j: int
) -> tuple[float, float, float]:
    """Outward normal (east, south) of the wall at a point, and the coordinate along the wall."""
    angle = pixels[i, j].wall * math.pi / 360.0
    ux, uy = math.cos(angle), math.sin(angle)
    rows, columns = pixels.shape
    # from a little inside: a raster's edge is a staircase, and its steps have sides of their own
    x, y = x + 0.5 * ray.towards_x, y + 0.5 * ray.towards_y
    best, nx, ny = -1e9, ux, uy
    for side in range(4):
        px = ux if side == 0 else (-ux if side == 1 else (-uy if side == 2 else uy))
        py = uy if side == 0 else (-uy if side == 1 else (ux if side == 2 else -ux))
        against = -(px * ray.towards_x + py * ray.towards_y)
        if against <= 0.0:
            continue
        m = min(max(int((y + 1.2 * py) * ray.per_m), 0), rows - 1)
        n = min(max(int((x + 1.2 * px) * ray.per_m), 0), columns - 1)
        drop = pixels[i, j].height - pixels[m, n].height
        if pixels[m, n].cover >= TREE:
            drop = pixels[i, j].height - pixels[m, n].terrain
        if drop + 0.1 * against > best:
            best, nx, ny = drop + 0.1 * against, px, py
    return nx, ny, ny * x - nx * y


@compiled
def _eave(pixels: Pixels, ray: Ray, d: float, i: int, j: int) -> float:
    """Top of the wall at pixel (i, j): smooth along a sloping gable, where pixels are steps."""
    top: float = pixels[i, j].height
    if pixels[i, j].cover != BUILDING:
        return top
    rows, columns = pixels.shape
    u = (ray.x_m + ray.towards_x * (d + 0.2)) * ray.per_m - 0.5
    v = (ray.y_m + ray.towards_y * (d + 0.2)) * ray.per_m - 0.5
    m, n = min(max(int(v), 0), rows - 2), min(max(int(u), 0), columns - 2)
    p, q = u - n, v - m
    total, weight = 0.0, 0.0
    for k in range(4):
        a, b = m + k // 2, n + k % 2
        share = (q if k // 2 else 1.0 - q) * (p if k % 2 else 1.0 - p)
        if pixels[a, b].cover == BUILDING and abs(pixels[a, b].height - top) < 1.0:
            total += share * pixels[a, b].height
            weight += share
    return float(total / weight) if weight > 0.05 else top


@compiled
def _paint_wall(
    canvas: F32, pixels: Pixels, ray: Ray, lamp: Lamp, c: int, low: int, d: float, i: int, j: int
) -> int:
    """Rows of the upright face of pixel (i, j), hit at distance d; returns the lowest empty row."""
    horizon, scale = ray.horizon, ray.scale
    z1 = _eave(pixels, ray, d, i, j)
    first = max(0, math.ceil(row_of((z1 - ray.eye_m) / d, horizon, scale, ray.panorama) - 0.5))
    if first > low:
        return low
    x, y = ray.x_m + ray.towards_x * d, ray.y_m + ray.towards_y * d
    nx, ny, along = _wall_side(pixels, ray, x, y, i, j)
    lit = max(0.0, nx * lamp.sun_x + ny * lamp.sun_y) * lamp.sun
    shade = lamp.ambient * (0.94 + 0.06 * nx) + 0.9 * lit
    # 1.2 m into the house: the rim of a real orthophoto's roof often shows the street
    inside = 1.2 if pixels[i, j].style == 0 else 0.0
    x, y = x + ray.towards_x * inside, y + ray.towards_y * inside
    seen = ground_colour(pixels, x, y, 99.0, ray.per_m, 0.0)
    foot = pixels[i, j].terrain
    wall = (along, z1 - foot, int(3 * nx + 7 * ny), scale / d)
    side = side_of(pixels, i, j, seen, wall)
    floor, salt = -1, 0.0
    for r in range(low, first - 1, -1):
        if canvas[c, r, 3] > 0.0:
            continue
        z = ray.eye_m + slope_of(r + 0.5, horizon, ray.slope_px, ray.panorama) * d
        up = max(0.0, min(z, z1) - foot)
        if int(up / side.floor_m) != floor:
            floor = int(up / side.floor_m)
            salt = side_salt(side, floor)
        red, green, blue = side_colour(side, up, floor, salt)
        corner = shade * (1.0 - 0.22 / (1.0 + 4.0 * up * up))  # darker where it meets the ground
        _put(canvas, c, r, d, red * corner, green * corner, blue * corner, lamp)
    return min(low, first - 1)


@compiled
def _paint_crown(
    canvas: F32,
    pixels: Pixels,
    ray: Ray,
    lamp: Lamp,
    c: int,
    low: int,
    d: float,
    i: int,
    j: int,
    done: tuple[int, int],
) -> tuple[int, int]:
    """Leaves from the underside to the top of a crown, and the trunk below them.

    `done` are the first and last row that this crown has filled so far; returns the wider span.
    """
    horizon, scale = ray.horizon, ray.scale
    top, base, soil = pixels[i, j].height, pixels[i, j].base, pixels[i, j].terrain
    eye, panorama = ray.eye_m, ray.panorama
    first = max(0, math.ceil(row_of((top - eye) / d, horizon, scale, panorama) - 0.5))
    under = row_of((base - eye) / d, horizon, scale, panorama)
    last = min(low, math.ceil(under - 0.5) - 1)
    if pixels[i, j].cover != TRUNK and done[0] <= first and last <= done[1]:
        return done
    x, y = ray.x_m + ray.towards_x * d, ray.y_m + ray.towards_y * d
    red, green, blue = ground_colour(pixels, x, y, 99.0, ray.per_m, 0.0)
    fine = 2.6 if d > 14.0 else 6.5
    facing = -(ray.towards_x * lamp.sun_x + ray.towards_y * lamp.sun_y)
    r = last + 1
    while r > first:
        r -= 1
        if done[0] <= r <= done[1]:
            r = done[0]  # jump over what nearer leaves of this crown hide
            continue
        if canvas[c, r, 3] > 0.0:
            continue
        z = eye + slope_of(r + 0.5, horizon, ray.slope_px, panorama) * d
        leaf = hash01(int(x * fine), int(y * fine), int(z * fine))
        if leaf < 0.13:
            continue  # gaps between the leaves
        share = min(max((z - base) / (top - base + 0.1), 0.0), 1.0)
        tone = lamp.ambient * (0.62 + 0.38 * share)
        tone += lamp.sun * max(0.0, 0.30 + 0.35 * facing + 0.35 * (2.0 * share - 1.0))
        tone *= 0.66 + 0.5 * leaf
        _put(canvas, c, r, d, red * tone, green * tone, blue * tone, lamp)
    if first <= last:
        done = (min(first, done[0]), max(last, done[1])) if done[1] >= 0 else (first, last)
    if pixels[i, j].cover != TRUNK:
        return done
    foot = min(low, math.ceil(row_of((soil - eye) / d, horizon, scale, panorama) - 0.5) - 1)
    bark = (lamp.ambient + 0.4 * lamp.sun) * (0.8 + 0.3 * hash01(int(x * 9), int(y * 9), 1))
    for r in range(foot, max(last, first - 1), -1):
        if canvas[c, r, 3] == 0.0:
            _put(canvas, c, r, d, 92.0 * bark, 74.0 * bark, 58.0 * bark, lamp)
    return done


@compiled
def _paint_sky(canvas: F32, clouds: F32, ray: Ray, lamp: Lamp, c: int, low: int) -> None:
    """What stayed empty: a gradient, clouds, a glow around the sun."""
    rows, columns = clouds.shape
    azimuth = math.atan2(ray.towards_x, -ray.towards_y) / (2 * math.pi)
    column = int((azimuth + 1.0) * columns) % columns
    flat = math.sqrt(max(1e-6, 1.0 - lamp.sun_z * lamp.sun_z))
    near = max(0.0, (ray.towards_x * lamp.sun_x + ray.towards_y * lamp.sun_y) / flat)
    glow = near * near * near * near * lamp.sun * 38.0
    white = 150.0 + 95.0 * lamp.ambient
    for r in range(low, -1, -1):
        if canvas[c, r, 3] > 0.0:
            continue
        slope = max(0.0, slope_of(r + 0.5, ray.horizon, ray.slope_px, ray.panorama))
        high = slope / (slope + 0.35)
        cloud = clouds[min(int(high * rows), rows - 1), column] * min(1.0, 6.0 * slope)
        air = (1.0 - high) * (1.0 - cloud)
        blue = high * (1.0 - cloud)
        canvas[c, r, 0] = (lamp.haze_red + glow) * air + lamp.zenith_red * blue + white * cloud
        canvas[c, r, 1] = (lamp.haze_green + glow) * air + lamp.zenith_green * blue + white * cloud
        canvas[c, r, 2] = (lamp.haze_blue + glow) * air + lamp.zenith_blue * blue + white * cloud
        canvas[c, r, 3] = SKY_DEPTH_M


@compiled
def _wall_distance(
    pixels: Pixels, ray: Ray, c: int, d0: float, d1: float, z: float
) -> tuple[float, int, int]:
    """Distance of a jump over height z between two steps, and its pixel, by bisection."""
    per_m = ray.per_m
    for _ in range(6):
        d = 0.5 * (d0 + d1)
        i = int((ray.y_m + ray.towards_y * d) * per_m)
        j = int((ray.x_m + ray.towards_x * d) * per_m)
        if pixels[i, j].height > z and pixels[i, j].cover < TREE:
            d1 = d
        else:
            d0 = d
    i = int((ray.y_m + ray.towards_y * d1) * per_m)
    j = int((ray.x_m + ray.towards_x * d1) * per_m)
    return d1, i, j


@compiled
def _to_border(ray: Ray, x: float, y: float, i: int, j: int) -> float:
    """Distance from a point in pixel (i, j) to just beyond its block, along the ray."""
    block_m = BLOCK_PX * ray.gsd_m
    across = (j // BLOCK_PX + (1 if ray.towards_x > 0.0 else 0)) * block_m - x
    down = (i // BLOCK_PX + (1 if ray.towards_y > 0.0 else 0)) * block_m - y
    return min(across * ray.over_x, down * ray.over_y) + 0.01


@compiled
def _stand(pixels: Pixels, ray: Ray, d: float) -> tuple[float, bool]:
    """Height of what is not a crown at distance d, and whether it is upright."""
    i = int((ray.y_m + ray.towards_y * d) * ray.per_m)
    j = int((ray.x_m + ray.towards_x * d) * ray.per_m)
    if pixels[i, j].cover >= TREE:
        return pixels[i, j].terrain, False
    return pixels[i, j].height, pixels[i, j].cover >= BUILDING


@compiled
def march_column(
    canvas: F32,
    pixels: Pixels,
    blocks: Blocks,
    clouds: F32,
    ray: Ray,
    lamp: Lamp,
    c: int,
    far_m: float,
    highest_m: float,
) -> None:
    """Fill column c of a canvas, near to far."""
    rows, columns = pixels.shape
    low = canvas.shape[1] - 1
    d0, d = NEAR_M, NEAR_M + 0.2
    i0 = min(max(int(ray.y_m * ray.per_m), 0), rows - 1)
    j0 = min(max(int(ray.x_m * ray.per_m), 0), columns - 1)
    z0, solid = pixels[i0, j0].terrain, False
    before, passed = d0, False
    none = (canvas.shape[1], -1)
    leaves = none
    lowest = slope_of(low + 0.5, ray.horizon, ray.slope_px, ray.panorama)  # not yet filled
    while d < far_m and low >= 0:
        if lowest > 0.0 and lowest * d > highest_m - ray.eye_m:
            break
        x, y = ray.x_m + ray.towards_x * d, ray.y_m + ray.towards_y * d
        if x < 0.0 or y < 0.0:
            break
        i, j = int(y * ray.per_m), int(x * ray.per_m)
        if i >= rows or j >= columns:
            break
        step = max(0.95 * ray.gsd_m, 0.02 * d)
        peak = blocks.peak[i // BLOCK_PX, j // BLOCK_PX] - ray.eye_m
        if peak < lowest * d:
            # hidden by what was seen already: the whole block, unless it lies under the eye
            # and comes into sight further on
            past = max(step, _to_border(ray, x, y, i, j))
            d += past if peak > 0.0 or peak < lowest * (d + past) else step
            before, passed = d - step, True
            continue
        if passed:
            d0, passed = before, False
            z0, solid = _stand(pixels, ray, d0)
            leaves = none
        cover, z = pixels[i, j].cover, pixels[i, j].height
        if d < CLEAR_M and cover >= HEDGE:
            cover, z = 0, pixels[i, j].terrain
        if cover >= TREE:
            leaves = _paint_crown(canvas, pixels, ray, lamp, c, low, d, i, j, leaves)
            z, cover = pixels[i, j].terrain, 0
        else:
            leaves = none
        upright = cover >= BUILDING
        if upright and (not solid or z - z0 > 0.6 + 1.2 * step) and z > z0 + 0.25:
            hit, wi, wj = _wall_distance(pixels, ray, c, d0, d, z0 + 0.5 * (z - z0))
            if hit > d0 + 1e-3:
                low = _paint_ground(canvas, pixels, ray, lamp, c, low, (d0, z0), (hit, z0))
            low = _paint_wall(canvas, pixels, ray, lamp, c, low, hit, wi, wj)
        elif z - ray.eye_m > lowest * d:
            low = _paint_ground(canvas, pixels, ray, lamp, c, low, (d0, z0), (d, z))
        while low >= 0 and canvas[c, low, 3] > 0.0:
            low -= 1
        lowest = slope_of(low + 0.5, ray.horizon, ray.slope_px, ray.panorama)
        d0, z0, solid = d, z, upright
        if blocks.bare[i // BLOCK_PX, j // BLOCK_PX]:
            step = max(step, _to_border(ray, x, y, i, j))  # nothing until its far side
        d += step
    _paint_sky(canvas, clouds, ray, lamp, c, low)


@compiled
def _inverse(part: float) -> float:
    """1 / part, but finite."""
    return 1.0 / part if abs(part) > 1e-9 else math.copysign(1e9, part)


@compiled
def march(
    canvas: F32,
    pixels: Pixels,
    blocks: Blocks,
    clouds: F32,
    optics: Optics,
    lamp: Lamp,
    highest_m: float,
) -> None:
    """Fill a canvas column by column.

    `clouds` is cover 0-1 over (elevation, azimuth).
    """
    canvas[:, :, 3] = 0.0
    for c in range(canvas.shape[0]):
        ray = Ray(
            optics.x_m,
            optics.y_m,
            optics.eye_m,
            optics.gsd_m,
            1.0 / optics.gsd_m,
            optics.towards_x[c],
            optics.towards_y[c],
            _inverse(optics.towards_x[c]),
            _inverse(optics.towards_y[c]),
            optics.scale[c],
            1.0 / optics.scale[c],
            optics.horizon[c],
            optics.panorama,
        )
        march_column(canvas, pixels, blocks, clouds, ray, lamp, c, optics.far_m, highest_m)
