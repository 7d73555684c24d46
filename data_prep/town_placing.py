"""Placing things in a block of a synthetic town: where they fit, how they are coloured.

Knows nothing of what a block is for.
"""

from collections.abc import Iterator

import numpy as np
import shapely
from numpy.random import Generator
from numpy.typing import NDArray
from shapely.geometry import Polygon
from shapely.geometry.polygon import orient

from data_prep.scene import ASPHALT, BLANK, MARKING
from data_prep.town_parts import (
    FLAT,
    NEEDLES,
    RGB,
    ROOFS,
    VIVID,
    WALLS,
    Bay,
    Building,
    Patch,
    Town,
    Tree,
    near_rgb,
    rectangle,
    spot_of,
    to_rgb,
)

F64 = NDArray[np.float64]


def parking(
    rng: Generator, town: Town, spot: F64, angle_deg: float, length_m: float, width_m: float
) -> None:
    """A parking lot: two rows of bays along an aisle."""
    tone = near_rgb(rng, (98, 98, 102), 7)
    town.patches.append(
        Patch(rectangle(spot_of(spot), angle_deg, length_m, width_m), ASPHALT, tone)
    )
    along = np.array([np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))])
    across = np.array([-along[1], along[0]])
    for step in np.arange(-length_m / 2 + 1.3, length_m / 2 - 1, 2.6):
        for side in (-1, 1):
            middle = spot + along * step + across * side * (width_m / 2 - 2.6)
            town.bays.append(Bay(spot_of(middle), angle_deg + 90))
            line = rectangle(tuple(middle + along * 1.3), angle_deg + 90, 4.6, 0.35)
            town.patches.append(Patch(line, MARKING, (206, 206, 200)))


def clutter(rng: Generator, town: Town, base: Building) -> None:
    """Plant rooms and skylights on a flat roof."""
    for _ in range(int(rng.integers(1, 5))):
        angle = np.radians(base.angle_deg)
        u = rng.uniform(-0.36, 0.36) * base.length_m
        v = rng.uniform(-0.32, 0.32) * base.width_m
        x = base.at[0] + u * np.cos(angle) - v * np.sin(angle)
        y = base.at[1] + u * np.sin(angle) + v * np.cos(angle)
        tone = near_rgb(rng, (170, 172, 174), 22)
        size = rng.uniform(1.4, 4.0, 2)
        high_m = base.eave_m + rng.uniform(0.3, 2.4)
        town.buildings.append(
            Building(
                (x, y),
                base.angle_deg,
                float(size[0]),
                float(size[1]),
                high_m,
                0,
                FLAT,
                tone,
                tone,
                BLANK,
            )
        )


def colours(rng: Generator, town: Town, vivid: float | None = None) -> tuple[RGB, RGB]:
    """Roof and wall of one building: akin, not equal, so that each hints at the other."""
    palette = ROOFS[town.taste.roofs]
    if rng.random() < (town.taste.vivid if vivid is None else vivid):
        roof = near_rgb(rng, VIVID[int(rng.integers(len(VIVID)))], 10)
        share = rng.uniform(0.5, 0.75)
    else:
        roof = near_rgb(rng, palette[int(rng.integers(len(palette)))], 9)
        share = rng.uniform(0.25, 0.5)
    wall = WALLS[int(rng.integers(len(WALLS)))]
    mixed = share * np.array(roof) * 1.15 + (1 - share) * np.array(wall)
    return roof, near_rgb(rng, to_rgb(mixed), 5)


def tree(rng: Generator, town: Town, spot: F64, crown_m: float) -> Tree:
    """A tree of one of the town's species."""
    conifer = bool(rng.random() < town.taste.conifers)
    kinds = NEEDLES if conifer else town.taste.species
    rgb = near_rgb(rng, kinds[int(rng.integers(len(kinds)))], 8)
    radius_m = crown_m * (0.7 if conifer else 1.0)
    top_m = crown_m * (3.4 if conifer else 2.2) + rng.uniform(1.0, 3.0)
    return Tree(spot_of(spot), radius_m, min(top_m, 17.0), conifer, rgb)


def lay(town: Town, shape: shapely.Geometry, cover: int, rgb: RGB) -> None:
    """Cover a shape; holes are left to what is laid later."""
    for part in shapely.get_parts(shape):
        if part.geom_type == "Polygon" and part.area > 0.3:
            town.patches.append(Patch(shapely.get_coordinates(part.exterior), cover, rgb))


def frontage(
    block: Polygon, gap_m: float, start_m: float = 0.0
) -> Iterator[tuple[float, float, float]]:
    """Places on a block's edge, gap_m apart, with the edge's direction; the block is on its left.

    Left as seen on a map whose y runs south, i.e. inward = (-sin, cos) of the direction.
    """
    for part in shapely.get_parts(block):
        edge = orient(part, 1.0).exterior  # y runs south: this is clockwise on the map
        for along in np.arange(start_m + gap_m / 2, edge.length, gap_m):
            before, after = edge.interpolate(along - 3), edge.interpolate(along + 3)
            here = edge.interpolate(along)
            yield (
                here.x,
                here.y,
                float(np.degrees(np.arctan2(after.y - before.y, after.x - before.x))),
            )


def fits(block: Polygon, taken: list[Polygon], ring: F64, gap_m: float) -> bool:
    """Whether a footprint lies in its block, clear of the others; if so it is taken."""
    shape = Polygon(ring)
    if not block.covers(shape if gap_m >= 0 else shape.buffer(-1.0)):
        return False
    wide = shape.buffer(gap_m)
    if any(wide.intersects(other) for other in taken):
        return False
    taken.append(shape)
    return True


def scatter(rng: Generator, shape: shapely.Geometry, area_m2: float) -> F64:
    """(N, 2) random points of a shape, one for each area_m2 of it."""
    count = int(shape.area / area_m2 + rng.random())
    if count == 0 or shape.is_empty:
        return np.zeros((0, 2))
    west, north, east, south = shape.bounds
    points = rng.uniform((west, north), (east, south), (count * 8, 2))
    inside = np.asarray(shapely.contains_xy(shape, points[:, 0], points[:, 1]), bool)
    return np.asarray(points[inside][:count])


def axis_deg(block: Polygon) -> float:
    """Direction of the longer side of the tightest rectangle around a block."""
    ring = shapely.get_coordinates(shapely.minimum_rotated_rectangle(block))
    sides = np.diff(ring, axis=0)
    longest = sides[int(np.argmax(np.hypot(sides[:, 0], sides[:, 1])))]
    return float(np.degrees(np.arctan2(longest[1], longest[0])))
