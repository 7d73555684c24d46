"""How the blocks of a synthetic town are filled: one function per use of land.

Knows nothing of streets beyond the block's edge, and nothing of pixels. Each function adds to the
Town it is given.
"""

import numpy as np
import shapely
from numpy.random import Generator
from numpy.typing import NDArray
from shapely.geometry import Point, Polygon

from data_prep.scene import (
    ASPHALT,
    BLANK,
    FIELD,
    FLATS,
    GRASS,
    GRAVEL,
    HALL,
    HOUSE,
    MARKING,
    OFFICE,
    PAVING,
    SHOPS,
    SOIL,
    WATER,
)
from data_prep.town_parts import (
    FLAT,
    GABLE,
    HIP,
    ROUND,
    SPIRE,
    Bay,
    Building,
    Patch,
    Spot,
    Town,
    near_rgb,
    rectangle,
    spot_of,
    to_rgb,
)
from data_prep.town_placing import (
    axis_deg,
    clutter,
    colours,
    fits,
    frontage,
    lay,
    parking,
    scatter,
    tree,
)

F64 = NDArray[np.float64]


def houses(rng: Generator, town: Town, block: Polygon) -> None:
    """Detached houses on lots: lawn, drive, hedge, a garden behind."""
    lay(town, block, GRASS, near_rgb(rng, town.taste.lawn, 6))
    setback_m, lot_m = rng.uniform(3, 7), rng.uniform(15, 22) - 4 * town.taste.density
    taken: list[Polygon] = []
    for x, y, angle_deg in frontage(block, lot_m):
        length_m, width_m = rng.uniform(8.5, 13), rng.uniform(7, 9.5)
        inward = np.array([-np.sin(np.radians(angle_deg)), np.cos(np.radians(angle_deg))])
        front = np.array([x, y])
        _lot(rng, town, block, front, inward, angle_deg, lot_m)
        centre = front + inward * (setback_m + width_m / 2 + rng.uniform(-0.5, 1.2))
        if not fits(block, taken, rectangle(spot_of(centre), angle_deg, length_m, width_m), 1.2):
            continue
        roof_rgb, wall_rgb = colours(rng, town)
        eave_m = float(rng.choice([2.9, 3.2, 5.6, 5.9, 6.1]))
        across = rng.random() < 0.25
        size = (width_m, length_m) if across else (length_m, width_m)
        angle = angle_deg + (90 if across else 0)
        roof, rise_m = (GABLE, size[1] * rng.uniform(0.3, 0.48))
        if rng.random() < 0.3:
            roof = HIP
        elif rng.random() < 0.1:
            roof, rise_m = FLAT, 0.0
        house = Building(
            spot_of(centre),
            angle,
            float(size[0]),
            float(size[1]),
            eave_m,
            rise_m,
            roof,
            roof_rgb,
            wall_rgb,
            HOUSE,
        )
        town.buildings.append(house)
        _annexe(rng, town, house)
        side = np.array([np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))])
        _drive(rng, town, front + side * (length_m / 2 + 1.6), inward, angle_deg, setback_m)
    _gardens(rng, town, block, taken)


def _lot(
    rng: Generator,
    town: Town,
    block: Polygon,
    front: F64,
    inward: F64,
    angle_deg: float,
    lot_m: float,
) -> None:
    """Lawn of its own tint, a hedge to the street or beside, beds or a shed behind."""
    tint = near_rgb(rng, town.taste.lawn, 9)
    deep_m = 26.0
    ring = rectangle(tuple(front + inward * (deep_m / 2)), angle_deg, lot_m, deep_m)
    cut = Polygon(ring).intersection(block)
    if cut.is_empty:
        return
    lay(town, cut, GRASS, tint)
    if rng.random() < 0.35:
        bed = Polygon(rectangle(tuple(front + inward * 20), angle_deg, lot_m * 0.5, 6))
        lay(town, bed.intersection(block), SOIL, near_rgb(rng, (116, 92, 70), 8))
    if rng.random() < 0.5:
        leaf = near_rgb(rng, (66, 96, 50), 9) if rng.random() < 0.7 else (188, 176, 158)
        along = np.array([np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))])
        left, right = front - along * lot_m / 2 + inward * 0.6, front + along * lot_m * 0.2
        town.hedges.append((np.stack([left, right + inward * 0.6]), leaf))
    if rng.random() < 0.5:
        spot = front + inward * rng.uniform(1.5, 22) + rng.uniform(-0.4, 0.4, 2) * lot_m
        if block.contains(Point(*spot)):
            town.trees.append(tree(rng, town, spot, rng.uniform(1.3, 3.6)))


def _drive(
    rng: Generator, town: Town, foot: F64, inward: F64, angle_deg: float, setback_m: float
) -> None:
    """A paved drive with room for a car beside a house."""
    if rng.random() < 0.3:
        return
    deep_m = setback_m + 6
    tone = near_rgb(rng, (158, 152, 146), 10)
    ring = rectangle(tuple(foot + inward * deep_m / 2), angle_deg + 90, deep_m, 2.8)
    town.patches.append(Patch(ring, PAVING, tone))
    town.bays.append(Bay(spot_of(foot + inward * (deep_m - 4)), angle_deg + 90))


def _annexe(rng: Generator, town: Town, house: Building) -> None:
    """A chimney, and for some a wing or a dormer."""
    angle = np.radians(house.angle_deg)
    along, across = (
        np.array([np.cos(angle), np.sin(angle)]),
        np.array([-np.sin(angle), np.cos(angle)]),
    )
    middle, top_m = np.array(house.at), house.eave_m + house.rise_m
    spot = middle + along * house.length_m * rng.uniform(-0.3, 0.3)
    if house.roof != FLAT and rng.random() < 0.6:
        brick = (140, 84, 70)
        town.buildings.append(
            Building(
                spot_of(spot), house.angle_deg, 1.1, 1.1, top_m + 0.9, 0, FLAT, brick, brick, BLANK
            )
        )
    if rng.random() < 0.35:
        spot = middle + across * house.width_m * rng.choice([-0.22, 0.22])
        eave_m = house.eave_m + 0.45 * house.rise_m
        colour = (house.roof_rgb, house.wall_rgb)
        wide_m, turn = house.width_m * 0.6, house.angle_deg + 90
        wing = Building(spot_of(spot), turn, wide_m, 2.6, eave_m, 0.8, GABLE, *colour, house.style)
        town.buildings.append(wing)


def _gardens(rng: Generator, town: Town, block: Polygon, taken: list[Polygon]) -> None:
    """Trees, pools and sheds in what is left inside a block of houses."""
    inner = block.buffer(-18)
    for spot in scatter(rng, inner, 170):
        dice = rng.random()
        if dice < 0.12:
            pool = Point(*spot).buffer(rng.uniform(1.8, 3.2), 4).intersection(block)
            lay(town, pool, WATER, (96, 178, 196))
        elif dice < 0.3 and fits(block, taken, rectangle(spot_of(spot), 30, 4, 3), 0.5):
            roof_rgb, wall_rgb = colours(rng, town)
            turn = float(rng.uniform(0, 90))
            town.buildings.append(
                Building(spot_of(spot), turn, 4, 3, 2.2, 0.7, GABLE, roof_rgb, wall_rgb, BLANK)
            )
        else:
            town.trees.append(tree(rng, town, spot, rng.uniform(1.6, 4.2)))


def terraces(rng: Generator, town: Town, block: Polygon) -> None:
    """Houses wall to wall around a court, some with shops."""
    green = rng.random() < 0.6
    lay(town, block, PAVING, near_rgb(rng, town.taste.paving, 6))
    deep_m, taken = rng.uniform(9.5, 13), list[Polygon]()
    court = town.taste.lawn if green else near_rgb(rng, (150, 144, 136), 8)
    lay(town, block.buffer(-deep_m), GRASS if green else PAVING, court)
    storeys = int(rng.integers(2, 4 + round(2 * town.taste.density)))
    for x, y, angle_deg in frontage(block, 10.4, start_m=6.0):
        inward = np.array([-np.sin(np.radians(angle_deg)), np.cos(np.radians(angle_deg))])
        centre = spot_of(np.array([x, y]) + inward * (deep_m / 2 + 0.4))
        ring = rectangle(centre, angle_deg, 10.4, deep_m)
        if not fits(block, taken, ring, -1.2) or rng.random() < 0.06:
            continue
        floors = max(1, storeys + int(rng.integers(-1, 2)))
        _terrace(rng, town, centre, angle_deg, deep_m, floors)
    _court(rng, town, block, taken, deep_m)


def _terrace(
    rng: Generator, town: Town, centre: Spot, angle_deg: float, deep_m: float, floors: int
) -> None:
    """One house of a row."""
    colour, flat = colours(rng, town), rng.random() < 0.25
    roof, rise_m = (FLAT, 0.0) if flat else (GABLE, deep_m * 0.32)
    style, eave_m = SHOPS if rng.random() < 0.3 else FLATS, 2.9 * floors + 0.6
    house = Building(centre, angle_deg, 10.6, deep_m, eave_m, rise_m, roof, *colour, style)
    town.buildings.append(house)
    if flat:
        clutter(rng, town, house)
    else:
        _annexe(rng, town, house)


def _court(rng: Generator, town: Town, block: Polygon, taken: list[Polygon], deep_m: float) -> None:
    """Small houses and trees behind a row."""
    angle_deg = axis_deg(block)
    for spot in scatter(rng, block.buffer(-deep_m - 9), 380):
        if fits(block, taken, rectangle(spot_of(spot), angle_deg, 11, 7.5), 3):
            eave_m, roof = float(rng.choice([3.1, 5.8])), int(rng.choice([GABLE, HIP]))
            colour = colours(rng, town)
            town.buildings.append(
                Building(spot_of(spot), angle_deg, 11, 7.5, eave_m, 2.6, roof, *colour, HOUSE)
            )
    for spot in scatter(rng, block.buffer(-deep_m - 3), 130):
        town.trees.append(tree(rng, town, spot, rng.uniform(1.8, 4.0)))


def towers(rng: Generator, town: Town, block: Polygon) -> None:
    """Tall flats or offices on lawn or paving, with a parking lot."""
    paved = rng.random() < 0.5
    lay(town, block, PAVING if paved else GRASS, town.taste.paving if paved else town.taste.lawn)
    angle_deg, taken = axis_deg(block), list[Polygon]()
    for spot in scatter(rng, block.buffer(-9), 420):
        length_m, width_m = rng.uniform(14, 34), rng.uniform(11, 16)
        turn = angle_deg + float(rng.choice([0, 90]))
        if not fits(block, taken, rectangle(spot_of(spot), turn, length_m, width_m), 5):
            continue
        roof_rgb, wall_rgb = colours(rng, town)
        style = OFFICE if rng.random() < 0.5 else FLATS
        high_m = float(rng.uniform(10, 18) + 14 * town.taste.density * rng.random())
        block_ = Building(
            spot_of(spot), turn, length_m, width_m, high_m, 0, FLAT, roof_rgb, wall_rgb, style
        )
        town.buildings.append(block_)
        clutter(rng, town, block_)
    _free_ground(rng, town, block, taken, angle_deg)


def _free_ground(
    rng: Generator, town: Town, block: Polygon, taken: list[Polygon], angle_deg: float
) -> None:
    """Parking and trees between large buildings."""
    for spot in scatter(rng, block.buffer(-8), 300):
        ring = rectangle(spot_of(spot), angle_deg, 23, 16)
        if rng.random() < 0.4 and fits(block, taken, ring, 1):
            parking(rng, town, spot, angle_deg, 23, 16)
        elif fits(block, taken, rectangle(spot_of(spot), 0, 3, 3), 1):
            town.trees.append(tree(rng, town, spot, rng.uniform(1.6, 3.8)))


def market(rng: Generator, town: Town, block: Polygon) -> None:
    """A large shop and its parking lot."""
    lay(town, block, ASPHALT, near_rgb(rng, (104, 104, 106), 8))
    angle_deg, taken = axis_deg(block), list[Polygon]()
    for spot in scatter(rng, block.buffer(-12), 120):
        size = rng.uniform(24, 46), rng.uniform(16, 28)
        if fits(block, taken, rectangle(spot_of(spot), angle_deg, *size), 2):
            colour, high_m = colours(rng, town, 0.6), rng.uniform(5, 7.5)
            shop = Building(spot_of(spot), angle_deg, *size, high_m, 0, FLAT, *colour, SHOPS)
            town.buildings.append(shop)
            clutter(rng, town, shop)
            break
    for spot in scatter(rng, block.buffer(-6), 60):
        if fits(block, taken, rectangle(spot_of(spot), angle_deg, 23, 16), 0.4):
            parking(rng, town, spot, angle_deg, 23, 16)
    for spot in scatter(rng, block.buffer(-1.5).difference(block.buffer(-4)), 60):
        if fits(block, taken, rectangle(spot_of(spot), 0, 2, 2), 0):
            town.trees.append(tree(rng, town, spot, rng.uniform(1.2, 2.2)))


def industry(rng: Generator, town: Town, block: Polygon) -> None:
    """Halls, tanks and a yard."""
    lay(town, block, GRAVEL, near_rgb(rng, (150, 142, 128), 9))
    angle_deg, taken = axis_deg(block), list[Polygon]()
    for spot in scatter(rng, block.buffer(-10), 260):
        size = rng.uniform(20, 44), rng.uniform(14, 24)
        if not fits(block, taken, rectangle(spot_of(spot), angle_deg, *size), 4):
            continue
        roof, rise_m = (GABLE, size[1] * 0.14) if rng.random() < 0.6 else (FLAT, 0.0)
        colour, eave_m = colours(rng, town, 0.45), rng.uniform(6, 9)
        town.buildings.append(
            Building(spot_of(spot), angle_deg, *size, eave_m, rise_m, roof, *colour, HALL)
        )
    for spot in scatter(rng, block.buffer(-6), 240):
        wide_m, high_m = rng.uniform(5, 10), rng.uniform(6, 14)
        if fits(block, taken, rectangle(spot_of(spot), 0, wide_m, wide_m), 1.5):
            tone = near_rgb(rng, (206, 204, 196), 14)
            town.buildings.append(
                Building(spot_of(spot), 0, wide_m, wide_m, high_m, 1.0, ROUND, tone, tone, BLANK)
            )


def park(rng: Generator, town: Town, block: Polygon) -> None:
    """Lawn, groups of trees, paths, for some a pond."""
    lay(town, block, GRASS, near_rgb(rng, town.taste.lawn, 9))
    centre = np.array(block.representative_point().coords[0])
    if block.buffer(-18).area > 60 and rng.random() < 0.7:
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        reach = rng.uniform(7, 15) * (1 + 0.25 * np.sin(2 * angles + rng.uniform(0, 6)))
        pond = Polygon(centre + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1))
        pond = pond.intersection(block.buffer(-4))
        lay(town, pond.buffer(1.5), GRAVEL, (176, 164, 138))
        lay(town, pond, WATER, near_rgb(rng, (72, 104, 112), 8))
        town.water.extend(part for part in shapely.get_parts(pond) if part.area > 1)
    pale = near_rgb(rng, (190, 176, 148), 8)
    for along in rng.uniform(0, 1, 3):
        end = block.exterior.interpolate(float(along), normalized=True)
        path = shapely.LineString([centre, (end.x, end.y)]).buffer(1.1)
        lay(town, path.difference(shapely.union_all(town.water)), GRAVEL, pale)
    wet = shapely.union_all(town.water).buffer(1)
    for spot in scatter(rng, block.buffer(-2).difference(wet), rng.uniform(45, 130)):
        town.trees.append(tree(rng, town, spot, rng.uniform(2.0, 5.2)))


def plaza(rng: Generator, town: Town, block: Polygon) -> None:
    """An open square with a pattern, a fountain or a church."""
    base = near_rgb(rng, (196, 180, 158), 16)
    lay(town, block, PAVING, base)
    ring = block.buffer(-6)
    lay(town, ring, PAVING, to_rgb(np.array(base) * 0.82))
    lay(town, block.buffer(-9), PAVING, base)
    centre, taken = np.array(block.representative_point().coords[0]), list[Polygon]()
    angle_deg = axis_deg(block)
    if fits(block, taken, rectangle(spot_of(centre), angle_deg, 26, 11), 2) and rng.random() < 0.6:
        church(rng, town, centre, angle_deg)
    else:
        lay(town, Point(*centre).buffer(4.2), PAVING, (222, 216, 206))
        lay(town, Point(*centre).buffer(3.2), WATER, (92, 150, 168))
        stone = (206, 200, 190)
        town.buildings.append(
            Building(spot_of(centre), 0, 1.2, 1.2, 6, 2, SPIRE, stone, stone, BLANK)
        )
    for spot in scatter(rng, block.buffer(-2).difference(block.buffer(-5)), 30):
        if fits(block, taken, rectangle(spot_of(spot), 0, 2, 2), 0):
            town.trees.append(tree(rng, town, spot, rng.uniform(1.4, 2.4)))


def church(rng: Generator, town: Town, centre: F64, angle_deg: float) -> None:
    """A nave and a steeple."""
    roof_rgb, wall_rgb = colours(rng, town)
    along = np.array([np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))])
    town.buildings.append(
        Building(spot_of(centre), angle_deg, 20, 10, 8, 5.5, GABLE, roof_rgb, wall_rgb, FLATS)
    )
    spot = centre - along * 11.5
    town.buildings.append(
        Building(spot_of(spot), angle_deg, 5.5, 5.5, 17, 11, SPIRE, roof_rgb, wall_rgb, BLANK)
    )


def farm(rng: Generator, town: Town, block: Polygon) -> None:
    """A field in rows, or allotments."""
    tone = [(156, 142, 84), (122, 134, 66), (134, 104, 78), (178, 160, 96)][int(rng.integers(4))]
    base = near_rgb(rng, tone, 8)
    lay(town, block, FIELD, base)
    angle_deg, reach_m = axis_deg(block), block.length / 2
    centre = np.array(block.centroid.coords[0])
    across = np.array([-np.sin(np.radians(angle_deg)), np.cos(np.radians(angle_deg))])
    dark, gap_m = to_rgb(np.array(base) * 0.84), rng.uniform(3, 6)
    for shift in np.arange(-reach_m / 2, reach_m / 2, gap_m):
        ring = Polygon(rectangle(tuple(centre + across * shift), angle_deg, reach_m, gap_m / 2.4))
        lay(town, ring.intersection(block), FIELD, dark)
    for spot in scatter(rng, block.difference(block.buffer(-4)), 110):
        town.trees.append(tree(rng, town, spot, rng.uniform(1.5, 3.5)))


def pitch(rng: Generator, town: Town, block: Polygon) -> None:
    """A sports ground, marked out, with a small stand."""
    lay(town, block, GRASS, town.taste.lawn)
    angle_deg, centre = axis_deg(block), tuple(block.representative_point().coords[0])
    colour = (96, 138, 62) if rng.random() < 0.7 else (164, 92, 66)
    room = block.buffer(-3)
    for length_m in (62, 46, 32, 22):
        field = Polygon(rectangle(centre, angle_deg, length_m, length_m * 0.6))
        if room.contains(field):
            lay(town, field, MARKING, (230, 230, 224))
            lay(town, field.buffer(-0.6), GRASS, colour)
            line = Polygon(rectangle(centre, angle_deg + 90, length_m * 0.6, 0.6))
            lay(town, line, MARKING, (230, 230, 224))
            break
    for spot in scatter(rng, block.buffer(-1.5).difference(block.buffer(-6)), 60):
        town.trees.append(tree(rng, town, spot, rng.uniform(1.8, 3.4)))
