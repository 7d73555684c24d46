"""A town under the sun of one day: season, parked cars, shadows, fine texture.

Knows nothing of how a town was made, of cameras or of files. The map and every day of photographs
get a light of their own, so that no two of them share more than the town itself.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from data_prep.compiled import compiled
from data_prep.scene import CAR, Pixels, assemble
from data_prep.surfaces import hash01
from data_prep.town_paint import Model
from data_prep.town_parts import CARS, Bay

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Day:
    """One day: its sun (azimuth clockwise from the raster's north), its season, its noise."""

    sun_azimuth_deg: float
    sun_elevation_deg: float
    sun: float  # strength; little when overcast
    ambient: float
    season: float  # northern year from 0 (January) to 1
    texture: int  # seed of surface noise
    parked: float = 0.6  # share of bays with a car

    @property
    def sun_vector(self) -> tuple[float, float, float]:
        """Direction to the sun: east, south, up."""
        azimuth = math.radians(self.sun_azimuth_deg)
        elevation = math.radians(self.sun_elevation_deg)
        return (
            math.sin(azimuth) * math.cos(elevation),
            -math.cos(azimuth) * math.cos(elevation),
            math.sin(elevation),
        )


def foliage(season: float) -> tuple[F64, F64, float]:
    """Two colours that leaves turn to at a time of year, and how far (0 = as in summer)."""
    if season < 0.45:  # fresh green that darkens until June
        share = 0.75 * float(np.clip((0.45 - season) / 0.2, 0, 1))
        return np.array([150.0, 172.0, 74.0]), np.array([120.0, 158.0, 82.0]), share
    share = 0.9 * float(np.clip((season - 0.66) / 0.14, 0, 1))
    return np.array([206.0, 154.0, 48.0]), np.array([150.0, 78.0, 44.0]), share


def under_the_sun(model: Model, bays: list[Bay], day: Day, gsd_m: float, rng: Generator) -> Pixels:
    """(H, W) pixels of a town as it looks on one day, cars standing in some bays."""
    albedo, height = model.albedo.copy(), model.height.copy()
    materials = model.materials.copy()
    for bay in bays:
        if rng.random() < day.parked:
            paint_car(albedo, height, materials[0], bay, CARS[int(rng.integers(len(CARS)))], gsd_m)
    first, second, share = foliage(day.season)
    x, y, z = day.sun_vector
    lit = cast_shadow(height, x, y, z / math.hypot(x, y), gsd_m)
    dry = 0.35 * math.exp(-(((day.season - 0.6) / 0.12) ** 2))  # lawns pale in late summer
    colour = np.empty_like(albedo)
    light = (x, y, z, day.sun, day.ambient)
    _shine(
        colour,
        albedo,
        height,
        materials,
        lit,
        light,
        first,
        second,
        (share, dry),
        day.texture,
        gsd_m,
    )
    return assemble(colour, height, model.terrain, materials, gsd_m)


def paint_car(
    albedo: U8, height: F32, cover: U8, bay: Bay, rgb: tuple[int, int, int], gsd_m: float
) -> None:
    """A parked car, unless something else stands there."""
    _paint_car(albedo, height, cover, *bay.at, math.radians(bay.angle_deg), rgb, gsd_m)


@compiled
def _paint_car(
    albedo: U8,
    height: F32,
    cover: U8,
    x: float,
    y: float,
    angle: float,
    rgb: tuple[int, int, int],
    gsd: float,
) -> None:
    side = height.shape[0]
    cos, sin = math.cos(angle), math.sin(angle)
    for i in range(max(0, int((y - 2.6) / gsd)), min(side, int((y + 2.6) / gsd) + 2)):
        for j in range(max(0, int((x - 2.6) / gsd)), min(side, int((x + 2.6) / gsd) + 2)):
            dx, dy = (j + 0.5) * gsd - x, (i + 0.5) * gsd - y
            u, v = dx * cos + dy * sin, dy * cos - dx * sin
            if abs(u) > 2.2 or abs(v) > 0.95 or cover[i, j] >= 20:
                continue
            cabin = -1.5 < u < 0.9
            height[i, j] += 1.48 if cabin else 0.92
            cover[i, j] = CAR
            glass = 0.35 if cabin and (u < -1.1 or u > 0.4) else 1.0
            for band in range(3):
                albedo[i, j, band] = int(rgb[band] * glass)


@compiled
def _shine(
    colour: U8,
    albedo: U8,
    height: F32,
    materials: U8,
    lit: U8,
    light: tuple[float, float, float, float, float],
    first: F64,
    second: F64,
    season: tuple[float, float],
    texture: int,
    gsd: float,
) -> None:
    """Season, noise, slope and shadow of every pixel."""
    rows, columns = height.shape
    x, y, z, sun, ambient = light
    share, dry = season
    for i in range(rows):
        for j in range(columns):
            kind = materials[0, i, j]
            a, b = max(i - 1, 0), min(i + 1, rows - 1)
            c, d = max(j - 1, 0), min(j + 1, columns - 1)
            east = (height[i, d] - height[i, c]) / (2.0 * gsd)
            south = (height[b, j] - height[a, j]) / (2.0 * gsd)
            east, south = min(max(east, -1.2), 1.2), min(max(south, -1.2), 1.2)
            facing = (z - east * x - south * y) / math.sqrt(1.0 + east * east + south * south)
            shade = ambient + sun * max(0.0, facing) * lit[i, j] / 255.0
            rough = 0.16 if kind >= 30 else (0.12 if kind < 4 else 0.07)
            noise = 0.6 * hash01(i, j, texture) + 0.4 * hash01(i >> 2, j >> 2, texture + 1)
            shade *= 1.0 + rough * 2.0 * (noise - 0.5)
            turn = 0.0
            if kind == 30 or kind == 32:
                turn = share * (0.55 + 0.45 * hash01(materials[4, i, j], 3, 4))
            mix = hash01(materials[4, i, j], 1, 2)
            for band in range(3):
                tone = float(albedo[i, j, band])
                if turn > 0.0:
                    tone += turn * (first[band] * mix + second[band] * (1.0 - mix) - tone)
                elif kind == 1:
                    tone += dry * ((172.0, 158.0, 104.0)[band] - tone)
                colour[i, j, band] = int(min(255.0, tone * shade))


@compiled
def cast_shadow(height: F32, sun_x: float, sun_y: float, rise: float, step_m: float) -> U8:
    """(H, W) 255 where the sun reaches, 0 in shadow.

    Sweeps away from the sun along the axis it is nearer to; each pixel takes over the shadow's
    height of its neighbours towards the sun. `rise` is the sun's tangent of elevation.
    """
    rows, columns = height.shape
    down = abs(sun_y) >= abs(sun_x)
    major, minor = (sun_y, sun_x) if down else (sun_x, sun_y)
    count, width = (rows, columns) if down else (columns, rows)
    shift = minor / abs(major)  # pixels sideways, towards the sun, for one pixel along the axis
    fall = rise * step_m * math.sqrt(1.0 + shift * shift)
    lit = np.empty((rows, columns), np.uint8)
    before = np.full(width, -1e9, np.float32)
    after = np.empty(width, np.float32)
    for n in range(count):
        line = n if major < 0.0 else count - 1 - n
        for m in range(width):
            at = m + shift
            a = int(math.floor(at))
            p = at - a
            a, b = min(max(a, 0), width - 1), min(max(a + 1, 0), width - 1)
            shadow = before[a] * (1.0 - p) + before[b] * p - fall
            i, j = (line, m) if down else (m, line)
            z = height[i, j]
            lit[i, j] = 0 if shadow > z + 0.3 else 255
            after[m] = max(shadow, z)
        before[:] = after
    return lit
