"""A laid-out town as rasters: colour without light, height, bare ground, materials.

Knows nothing of light, seasons or files.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from shapely.geometry import LineString

from data_prep.compiled import compiled
from data_prep.scene import (
    ASPHALT,
    BUILDING,
    CONIFER,
    CROWN_MIDDLE,
    GRASS,
    HEDGE,
    MARKING,
    PAVING,
    TREE,
    TRUNK,
    WATER,
)
from data_prep.surfaces import hash01
from data_prep.town_parts import RGB, Building, Town, Tree
from data_prep.town_streets import Street

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """A town's rasters, all (H, W), before any light falls on them."""

    albedo: U8  # (H, W, 3)
    height: F32  # metres, without cars
    terrain: F32  # metres
    materials: U8  # (6, H, W), see scene.assemble; for trees band 4 is the tree's own number


def paint(rng: Generator, town: Town, gsd_m: float) -> Model:
    """Paint a town from the ground up."""
    side = round(town.size_m / gsd_m)
    albedo, cover = _paint_ground(town, gsd_m, side)
    terrain = _terrain(rng, side, gsd_m)
    terrain -= np.where(cover == WATER, np.float32(0.7), np.float32(0))
    materials = np.zeros((6, side, side), np.uint8)
    materials[0] = cover
    height = terrain.copy()
    for points, rgb in town.hedges:
        _stand_line(albedo, height, materials, points / gsd_m, rgb)
    # low first, so that chimneys and dormers end on top of their roofs
    for building in sorted(town.buildings, key=lambda part: part.eave_m + part.rise_m):
        _stand_building(albedo, height, terrain, materials, building, gsd_m)
    for number, tree in enumerate(town.trees):
        _stand_tree(albedo, height, terrain, materials, tree, number, gsd_m)
    return Model(albedo, height, terrain, materials)


def _terrain(rng: Generator, side: int, gsd_m: float) -> F32:
    """Gentle hills: a few long waves of a metre or two."""
    at = np.arange(side, dtype=np.float32) * gsd_m
    land = np.full((side, side), rng.uniform(40, 400), np.float32)
    for _ in range(4):
        east, south = rng.uniform(-1, 1, 2) * 2 * np.pi / rng.uniform(300, 800)
        phase = rng.uniform(0, 2 * np.pi)
        wave = np.sin((at * east)[None, :] + (at * south)[:, None] + np.float32(phase))
        land += np.float32(rng.uniform(0.4, 1.4)) * wave.astype(np.float32)
    return land


def _paint_ground(town: Town, gsd_m: float, side: int) -> tuple[U8, U8]:
    """Flat ground: colour (H, W, 3) and cover (H, W)."""
    picture = Image.new("RGB", (side, side), town.taste.lawn)
    codes = Image.new("L", (side, side), GRASS)
    colour, kind = ImageDraw.Draw(picture), ImageDraw.Draw(codes)

    def fill(points: F64, cover: int, rgb: RGB) -> None:
        ring = [(x, y) for x, y in (points / gsd_m).tolist()]
        colour.polygon(ring, fill=rgb)
        kind.polygon(ring, fill=cover)

    for patch in town.patches:
        fill(patch.points, patch.cover, patch.rgb)
    for shape in town.water[:1] if town.patches else []:
        fill(np.array(shape.exterior.coords), WATER, (78, 100, 104))
    for street in town.streets:
        verge = street.line.buffer(street.width_m / 2 + street.walk_m, quad_segs=4)
        fill(np.array(verge.exterior.coords), PAVING, town.taste.paving)
    # lanes below streets below arterials, so that junctions carry the wider one's surface
    for street in sorted(town.streets, key=lambda street: -street.rank):
        road = street.line.buffer(street.width_m / 2, quad_segs=4)
        tone = round(104 * street.shade)
        fill(np.array(road.exterior.coords), ASPHALT, (tone, tone, tone + 3))
    for street in town.streets:
        for ring in _markings(street):
            fill(ring, MARKING, (222, 222, 216))
    return np.array(picture), np.array(codes)


def _markings(street: Street) -> list[F64]:
    """Centre dashes, edge lines of arterials, zebra crossings before junctions."""
    line, rings = street.line, []
    if street.rank < 2:
        dash_m, gap_m = (3.0, 4.0) if street.rank == 0 else (2.0, 6.0)
        for start in np.arange(10, line.length - 12, dash_m + gap_m):
            rings.append(_strip(line, start, start + dash_m, 0.0, 0.5))
    if street.rank == 0 and line.length > 24:
        for side in (-1, 1):
            offset = side * (street.width_m / 2 - 1.0)
            for start in np.arange(9, line.length - 9, 6.0):
                rings.append(_strip(line, start, min(start + 6.2, line.length - 9), offset, 0.4))
    if street.rank < 2 and line.length > 40:
        for start in (8.5, line.length - 11.5):
            for offset in np.arange(-street.width_m / 2 + 0.8, street.width_m / 2 - 0.5, 1.5):
                rings.append(_strip(line, start, start + 3.0, offset, 0.75))
    return rings


def _strip(line: LineString, start: float, end: float, offset_m: float, width_m: float) -> F64:
    """(4, 2) a straight stripe beside a line, between two lengths along it."""
    first, last = (np.array(line.interpolate(at).coords[0]) for at in (start, end))
    along = (last - first) / max(float(np.hypot(*(last - first))), 1e-6)
    across = np.array([-along[1], along[0]])
    left, right = across * (offset_m - width_m / 2), across * (offset_m + width_m / 2)
    return np.stack([first + left, last + left, last + right, first + right])


def _stand_line(albedo: U8, height: F32, materials: U8, points: F64, rgb: RGB) -> None:
    """A hedge or wall, one or two pixels wide."""
    steps = int(np.abs(points[1] - points[0]).max() * 1.5) + 2
    at = np.linspace(points[0], points[1], steps).astype(int)
    at = at[(at >= 1).all(1) & (at < len(height) - 1).all(1)]
    open_ground = materials[0, at[:, 1], at[:, 0]] == GRASS
    rows, columns = at[open_ground, 1], at[open_ground, 0]
    fresh = materials[0, rows, columns] != HEDGE
    rows, columns = rows[fresh], columns[fresh]
    cells = np.unique(np.stack([rows, columns], 1), axis=0)
    height[cells[:, 0], cells[:, 1]] += 1.25
    albedo[cells[:, 0], cells[:, 1]] = rgb
    materials[0, cells[:, 0], cells[:, 1]] = HEDGE


def _stand_building(
    albedo: U8, height: F32, terrain: F32, materials: U8, part: Building, gsd_m: float
) -> None:
    """One box and its roof."""
    side = len(height)
    row, column = int(part.at[1] / gsd_m), int(part.at[0] / gsd_m)
    floor_m = terrain[min(max(row, 0), side - 1), min(max(column, 0), side - 1)]
    _paint_box(
        albedo,
        height,
        materials,
        (part.at[0], part.at[1], math.radians(part.angle_deg), part.length_m / 2, part.width_m / 2),
        (float(floor_m), part.eave_m, part.rise_m),
        (part.roof, part.style, round(2 * (part.angle_deg % 90))),
        part.roof_rgb,
        part.wall_rgb,
        gsd_m,
    )


@compiled
def _roof_m(roof: int, u: float, v: float, half_u: float, half_v: float, rise: float) -> float:
    """Height over the eave at a point of a roof; negative outside."""
    if roof == 3:  # ROUND
        far = (u / half_u) ** 2 + (v / half_v) ** 2
        return -1.0 if far > 1.0 else rise * math.sqrt(1.0 - far)
    if abs(u) > half_u or abs(v) > half_v:
        return -1.0
    if half_v - abs(v) < 0.7:
        return 0.0  # a gutter, so that walls end in a straight line
    if roof == 1:  # GABLE
        return rise * (1.0 - abs(v) / half_v)
    if roof == 2:  # HIP
        return rise * min(1.0, min(half_u - abs(u), half_v - abs(v)) / half_v)
    if roof == 4:  # SPIRE
        return rise * (1.0 - max(abs(u) / half_u, abs(v) / half_v))
    return 0.0


@compiled
def _paint_box(
    albedo: U8,
    height: F32,
    materials: U8,
    place: tuple[float, float, float, float, float],
    levels: tuple[float, float, float],
    codes: tuple[int, int, int],
    roof_rgb: RGB,
    wall_rgb: RGB,
    gsd: float,
) -> None:
    """The pixels of one building; what is already higher stays."""
    x, y, angle, half_u, half_v = place
    floor, eave, rise = levels
    roof, style, wall = codes
    side = height.shape[0]
    cos, sin = math.cos(angle), math.sin(angle)
    reach = math.hypot(half_u, half_v)
    for i in range(max(0, int((y - reach) / gsd)), min(side, int((y + reach) / gsd) + 2)):
        for j in range(max(0, int((x - reach) / gsd)), min(side, int((x + reach) / gsd) + 2)):
            dx, dy = (j + 0.5) * gsd - x, (i + 0.5) * gsd - y
            u, v = dx * cos + dy * sin, dy * cos - dx * sin
            over = _roof_m(roof, u, v, half_u, half_v, rise)
            if over < 0.0 or floor + eave + over < height[i, j]:
                continue
            edge = min(half_u - abs(u), half_v - abs(v))
            tone = 1.0
            if roof == 0:
                tone = 0.8 if edge < 0.5 and half_v > 3.0 else 1.0  # a parapet
            elif roof != 3:
                tone = 0.95 + 0.08 * (int(abs(v) / 0.9) % 2)  # courses of tiles
                if roof == 1 and abs(v) < 0.4:
                    tone = 1.14  # the ridge
            height[i, j] = floor + eave + over
            materials[0, i, j], materials[4, i, j], materials[5, i, j] = 20, style, wall
            for band in range(3):
                albedo[i, j, band] = int(min(255.0, roof_rgb[band] * tone))
                materials[1 + band, i, j] = wall_rgb[band]


def _stand_tree(
    albedo: U8, height: F32, terrain: F32, materials: U8, tree: Tree, number: int, gsd_m: float
) -> None:
    """One crown over its trunk."""
    _paint_crown(
        albedo,
        height,
        terrain,
        materials,
        (*tree.at, tree.crown_m, tree.top_m),
        tree.conifer,
        tree.rgb,
        number,
        gsd_m,
    )


@compiled
def _paint_crown(
    albedo: U8,
    height: F32,
    terrain: F32,
    materials: U8,
    shape: tuple[float, float, float, float],
    conifer: bool,
    rgb: RGB,
    number: int,
    gsd: float,
) -> None:
    """The pixels of one tree: a dome (or cone) with a ragged rim; buildings stay free."""
    x, y, radius, top = shape
    side = height.shape[0]
    middle = CROWN_MIDDLE * top
    for i in range(max(0, int((y - radius) / gsd)), min(side, int((y + radius) / gsd) + 2)):
        for j in range(max(0, int((x - radius) / gsd)), min(side, int((x + radius) / gsd) + 2)):
            dx, dy = (j + 0.5) * gsd - x, (i + 0.5) * gsd - y
            ragged = 0.86 + 0.28 * hash01(i, j, number)
            far = math.hypot(dx, dy) / (radius * ragged)
            if far > 1.0 or materials[0, i, j] == BUILDING or materials[0, i, j] == WATER:
                continue
            rise = (1.0 - far) if conifer else math.sqrt(1.0 - far * far)
            z = terrain[i, j] + middle + (top - middle) * rise
            if materials[0, i, j] == TRUNK or z < height[i, j]:
                continue
            height[i, j] = z
            materials[0, i, j] = CONIFER if conifer else TREE
            materials[4, i, j] = number % 251
            leaf = 0.84 + 0.3 * hash01(i, j, number + 7)
            for band in range(3):
                albedo[i, j, band] = int(min(255.0, rgb[band] * leaf))
    i, j = int(y / gsd), int(x / gsd)
    if 0 <= i < side and 0 <= j < side and materials[0, i, j] >= TREE:
        materials[0, i, j] = TRUNK
