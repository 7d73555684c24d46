"""The things a synthetic town is made of, and its palettes.

Knows nothing of how they are chosen or painted. Points are metres east and south of the north-west
corner; angles are degrees clockwise from east.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from shapely.geometry import Polygon

from data_prep.town_streets import Street

F64 = NDArray[np.float64]
RGB = tuple[int, int, int]
Spot = tuple[float, float]  # metres east, south


def _palette(hexes: str) -> list[RGB]:
    """Colours of a string of hex triples."""
    return [
        (code >> 16, code >> 8 & 255, code & 255) for code in (int(h, 16) for h in hexes.split())
    ]


FLAT, GABLE, HIP, ROUND, SPIRE = 0, 1, 2, 3, 4  # codes of `Building.roof`

ROOFS = {
    "tiles": _palette("ac563c 984836 bc6e4e 844638 786054"),
    "slate": _palette("626670 7a7c80 545a68 8c8076 6e544c"),
    "shingle": _palette("7c6856 62544a 928270 5a5e5c 865846"),
    "painted": _palette("567e78 a45c46 68748c b29e78 78885c"),
}
WALLS = _palette("e8dec8 d6c4a8 eeece6 c49678 cecec8")
VIVID = _palette("3a6ea8 469068 c4a034 a83c5c 5c5094 288a96 ce7030 e2e2de 34363c")
LEAVES = _palette("4a6c34 3a5e2e 5c783c 687432 426846 70543e")
NEEDLES = _palette("2e4e36 264432 385442")
CARS = _palette("e2e2e2 c4c6ca 3c3e44 202226 962422 284278 787e80 b0a48c 345c46 ce9628")


@dataclass(frozen=True)
class Patch:
    """Ground of one cover and colour; later patches lie over earlier ones."""

    points: F64  # (N, 2) ring
    cover: int
    rgb: RGB


@dataclass(frozen=True)
class Building:
    """A box under a roof, or a part of a building."""

    at: Spot
    angle_deg: float  # of the long axis, and of the ridge
    length_m: float
    width_m: float
    eave_m: float
    rise_m: float  # of the roof over the eave
    roof: int
    roof_rgb: RGB
    wall_rgb: RGB
    style: int

    def ring(self, grow_m: float = 0.0) -> F64:
        """(4, 2) corners, outwards by grow_m."""
        return rectangle(
            self.at,
            self.angle_deg,
            self.length_m + 2 * grow_m,
            self.width_m + 2 * grow_m,
        )


@dataclass(frozen=True)
class Tree:
    """A crown over a trunk."""

    at: Spot
    crown_m: float  # radius
    top_m: float
    conifer: bool
    rgb: RGB


@dataclass(frozen=True)
class Bay:
    """A place where a car may be parked."""

    at: Spot
    angle_deg: float


@dataclass(frozen=True)
class Taste:
    """What sets one town apart from another."""

    pattern: str
    roofs: str
    density: float  # 0 sprawling .. 1 dense
    lawn: RGB
    paving: RGB
    species: tuple[RGB, ...]
    conifers: float  # share of trees
    vivid: float  # share of buildings of unusual colour


@dataclass
class Town:
    """All that a town is made of; filled while it is laid out."""

    size_m: float
    taste: Taste
    streets: list[Street] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)
    buildings: list[Building] = field(default_factory=list)
    hedges: list[tuple[F64, RGB]] = field(default_factory=list)  # lines, about 1.2 m high
    trees: list[Tree] = field(default_factory=list)
    bays: list[Bay] = field(default_factory=list)
    water: list[Polygon] = field(default_factory=list)


def spot_of(point: F64) -> Spot:
    """A point (2,) as plain numbers."""
    return float(point[0]), float(point[1])


def rectangle(
    centre: tuple[float, float], angle_deg: float, length_m: float, width_m: float
) -> F64:
    """(4, 2) corners of a turned rectangle."""
    angle = np.radians(angle_deg)
    along = np.array([np.cos(angle), np.sin(angle)]) * length_m / 2
    across = np.array([-np.sin(angle), np.cos(angle)]) * width_m / 2
    return np.array(centre) + np.stack(
        [along + across, along - across, -along - across, across - along]
    )


def to_rgb(values: F64) -> RGB:
    """A colour of three numbers, kept off pure black and white."""
    red, green, blue = np.clip(values, 4, 250).astype(int).tolist()
    return red, green, blue


def near_rgb(rng: Generator, rgb: RGB, spread: float) -> RGB:
    """A colour like another one."""
    return to_rgb(np.array(rgb) + rng.normal(0, spread, 3) + rng.normal(0, spread))
