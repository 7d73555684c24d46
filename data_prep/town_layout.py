"""Where things stand in a synthetic town: streets, water, the use of each block, street sides.

Knows nothing of pixels, nor of how a block is filled (see `town_blocks`).
"""

import numpy as np
import shapely
from numpy.random import Generator
from shapely.geometry import LineString, Polygon, box

from data_prep import town_blocks as fill
from data_prep.town_parts import LEAVES, ROOFS, Bay, Taste, Town, Tree, near_rgb, to_rgb
from data_prep.town_streets import PATTERNS, Street, lay_streets


def lay_out(rng: Generator, size_m: float) -> Town:
    """A whole town, square."""
    town = Town(size_m, draw_taste(rng))
    town.streets = lay_streets(rng, size_m, town.taste.pattern)
    if rng.random() < 0.55:
        town.water.append(_river(rng, size_m))
    reserved = [street.line.buffer(street.width_m / 2 + street.walk_m) for street in town.streets]
    ground = box(0, 0, size_m, size_m).difference(shapely.union_all(reserved + town.water))
    blocks = [part.buffer(0) for part in shapely.get_parts(ground) if part.area > 60]
    for block in sorted(blocks, key=lambda part: (part.centroid.x, part.centroid.y)):
        _use_block(rng, town, shapely.simplify(block, 0.4))
    for street in town.streets:
        _line_street(rng, town, street)
    return town


def draw_taste(rng: Generator) -> Taste:
    """Pattern, palette and density of a town."""
    species = tuple(LEAVES[k] for k in rng.permutation(len(LEAVES))[:4])
    lawn = np.array([108, 128, 68]) + rng.uniform(-14, 14, 3)
    paving = np.array([172, 164, 154]) + rng.uniform(-18, 14, 1) + rng.uniform(-9, 9, 3)
    return Taste(
        pattern=str(rng.choice(PATTERNS)),
        roofs=str(rng.choice(list(ROOFS))),
        density=float(rng.uniform(0.15, 0.85)),
        lawn=to_rgb(lawn),
        paving=to_rgb(paving),
        species=species,
        conifers=float(rng.uniform(0.05, 0.4)),
        vivid=float(rng.uniform(0.08, 0.22)),
    )


def _river(rng: Generator, size_m: float) -> Polygon:
    """A bent band of water across the town."""
    run = np.linspace(-0.1, 1.1, 40)
    phase, swing = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0.02, 0.07)
    side = rng.uniform(0.2, 0.8) + swing * np.sin(5 * run + phase[0])
    points = np.stack([run, side + (rng.uniform(-0.25, 0.25)) * (run - 0.5)], 1) * size_m
    if rng.random() < 0.5:
        points = points[:, ::-1]
    return LineString(points).buffer(rng.uniform(9, 17))


def _use_block(rng: Generator, town: Town, block: Polygon) -> None:
    """Choose what a block is for and fill it."""
    middle = np.hypot(block.centroid.x - town.size_m / 2, block.centroid.y - town.size_m / 2)
    central = float(np.clip(1.15 - middle / (0.55 * town.size_m), 0, 1))
    dense = town.taste.density
    room = block.buffer(-14).area  # thin blocks hold no halls
    weights = {
        fill.park: 0.10 + (0.0 if room else 0.5),
        fill.plaza: 0.10 * central * (block.area < 6000),
        fill.houses: 0.75 * (1.25 - dense) * (1.2 - central),
        fill.terraces: 0.55 * (0.3 + dense) * (0.35 + central),
        fill.towers: 0.35 * dense * (0.25 + central) * (room > 150),
        fill.market: 0.15 * (room > 500),
        fill.industry: 0.16 * (1 - central) * (room > 900),
        fill.farm: 0.12 * (1 - central) * (1 - dense) * (block.area > 2500),
        fill.pitch: 0.05 * (room > 1500),
    }
    share = np.array(list(weights.values()), float)
    use = list(weights)[int(rng.choice(len(weights), p=share / share.sum()))]
    use(rng, town, block)


def _line_street(rng: Generator, town: Town, street: Street) -> None:
    """Trees and parking bays along a street."""
    line = street.line
    trees = rng.random() < 0.45
    species = near_rgb(rng, town.taste.species[int(rng.integers(len(town.taste.species)))], 7)
    conifer, gap_m = bool(rng.random() < 0.12), rng.uniform(8, 15)
    crown_m = float(rng.uniform(1.7, 3.2))
    parked = (False, False) if street.rank == 0 else tuple(rng.random(2) < 0.55)
    for side in (-1, 1):
        for along in np.arange(11, line.length - 11, gap_m if trees else 7.0):
            here, there = line.interpolate(along), line.interpolate(along + 1.0)
            angle = np.arctan2(there.y - here.y, there.x - here.x)
            across = np.array([-np.sin(angle), np.cos(angle)]) * side
            if trees and rng.random() < 0.9:
                x, y = np.array([here.x, here.y]) + across * (street.width_m / 2 + 0.5)
                top_m = crown_m * rng.uniform(2.3, 2.9) + 1.5
                town.trees.append(Tree((x, y), crown_m, top_m, conifer, near_rgb(rng, species, 4)))
            if parked[(side + 1) // 2]:
                x, y = np.array([here.x, here.y]) + across * (
                    street.width_m / 2 - (0.1 if street.rank == 2 else 0.8)
                )
                town.bays.append(Bay((x, y), float(np.degrees(angle))))
