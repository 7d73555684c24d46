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

FLAT, GABLE, HIP, ROUND, SPIRE = 0, 1, 2, 3, 4  # codes of `Building.roof`

ROOFS: dict[str, list[RGB]] = {
    "tiles": [(172, 86, 60), (152, 72, 54), (188, 110, 78), (132, 70, 56), (120, 96, 84)],
    "slate": [(98, 102, 112), (122, 124, 128), (84, 90, 104), (140, 128, 118), (110, 84, 76)],
    "shingle": [(124, 104, 86), (98, 84, 74), (146, 130, 112), (90, 94, 92), (134, 88, 70)],
    "painted": [(86, 126, 120), (164, 92, 70), (104, 116, 140), (178, 158, 120), (120, 136, 92)],
}
WALLS: list[RGB] = [(232, 222, 200), (214, 196, 168), (238, 236, 230), (196, 150, 120), (206, 206, 200)]
VIVID: list[RGB] = [(58, 110, 168), (70, 144, 104), (196, 160, 52), (168, 60, 92), (92, 80, 148), (40, 138, 150), (206, 112, 48), (226, 226, 222), (52, 54, 60)]  # fmt: skip
LEAVES: list[RGB] = [(74, 108, 52), (58, 94, 46), (92, 120, 60), (104, 116, 50), (66, 104, 70), (112, 84, 62)]  # fmt: skip
NEEDLES: list[RGB] = [(46, 78, 54), (38, 68, 50), (56, 84, 66)]
CARS: list[RGB] = [(226, 226, 226), (196, 198, 202), (60, 62, 68), (32, 34, 38), (150, 36, 34), (40, 66, 120), (120, 126, 128), (176, 164, 140), (52, 92, 70), (206, 150, 40)]  # fmt: skip


@dataclass(frozen=True)
class Patch:
    """Ground of one cover and colour; later patches lie over earlier ones."""

    points: F64  # (N, 2) ring
    cover: int
    rgb: RGB


@dataclass(frozen=True)
class Building:
    """A box under a roof, or a part of a building."""

    x_m: float
    y_m: float
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
            (self.x_m, self.y_m),
            self.angle_deg,
            self.length_m + 2 * grow_m,
            self.width_m + 2 * grow_m,
        )


@dataclass(frozen=True)
class Tree:
    """A crown over a trunk."""

    x_m: float
    y_m: float
    crown_m: float  # radius
    top_m: float
    conifer: bool
    rgb: RGB


@dataclass(frozen=True)
class Bay:
    """A place where a car may be parked."""

    x_m: float
    y_m: float
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


def rectangle(centre: tuple[float, float], angle_deg: float, length_m: float, width_m: float) -> F64:
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
