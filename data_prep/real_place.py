"""A real orthophoto and surface model as a place to be photographed.

Knows nothing of cameras, walks or files of photos. A height field from above tells neither walls
nor trees from roofs: here roofs are what is high and smooth, facades are guessed, and the colours
change from day to day, so that no photo shares its pixels with the map.
"""

import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import shapely
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from rasterio.errors import RasterioError
from rasterio.features import rasterize, shapes, sieve
from rasterio.warp import Resampling, reproject
from shapely.geometry import shape

from data_prep.drives import ShootingDay
from data_prep.imagery.gdal import open_dataset
from data_prep.scene import (
    BLANK,
    BUILDING,
    CAR,
    FLATS,
    HALL,
    HEDGE,
    HOUSE,
    OFFICE,
    SHOPS,
    TREE,
    TRUNK,
    Pixels,
    Scene,
    crown_base,
)
from data_prep.town_parts import WALLS
from zoomloc.errors import ImageryError

F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

TALL_M = 2.2  # what rises higher is a building or a tree
LOW_M = 0.5  # and what rises higher than this a hedge or a car
CAR_M2 = 5.0, 60.0  # smaller is a post, larger a bank of earth
LEAFY = 14  # twice the green over red and blue together, of 255
LEAF_LIGHT = 1.45  # crowns from above are half in their own shade
TRUNK_M = 3.0  # trunks stand at least so far apart
ROUGH_M = 0.55  # mean bend of a surface from pixel to pixel: crowns have more, roofs less
SMALLEST_ROOF_M2, SMALLEST_CROWN_M2 = 25.0, 4.0  # less is a tree, or a wire
HOUSE_M2 = 260.0  # a larger building is no house
HOLE_M2 = 60.0  # smaller gaps in the surface are not counted as its edge
LARGE = (FLATS, SHOPS, OFFICE, OFFICE, HALL, BLANK)


@dataclass
class RealPlace:
    """A place of three rasters, read when it is first needed, the same for the same seed."""

    ortho: Path
    surface: Path
    terrain: Path
    seed: int
    _scene: Scene | None = field(default=None, init=False, repr=False)

    @property
    def scene(self) -> Scene:
        """The place with trees, buildings and facades, in the map's own colours."""
        if self._scene is None:
            check_rasters(self.ortho, self.surface, self.terrain)
            scene = Scene.from_rasters(self.ortho, self.surface, self.terrain)
            tell_apart(scene.pixels, scene.gsd_m)
            dress_trees(scene.pixels, scene.gsd_m)
            give_facades(np.random.default_rng([self.seed, 11]), scene.pixels, scene.gsd_m)
            self._scene = scene
        return self._scene

    def dressed(self, day: ShootingDay, rng: Generator) -> Scene:
        """The place as a camera of that day sees it: other contrast, hue and grain of surfaces."""
        plain = self.scene
        pixels = plain.pixels.copy()
        colour = np.stack([pixels[band] for band in ("red", "green", "blue")]).astype(np.float32)
        grey = colour.mean(0)
        colour = grey + (colour - grey) * rng.uniform(0.75, 1.25)
        contrast, middle = rng.uniform(0.82, 1.15), float(grey.mean())
        colour = middle + (colour - middle) * contrast + rng.uniform(-10, 10)
        leafy = np.clip((colour[1] * 2 - colour[0] - colour[2]) / 40, 0, 1)
        ripe = rng.uniform(-16, 20) * np.array([1.0, 0.5, -0.4], np.float32)
        colour += ripe[:, None, None] * leafy  # lawns and leaves of another month
        colour *= rng.normal(1.0, 0.05, grey.shape).astype(np.float32)
        for band, values in zip(("red", "green", "blue"), colour, strict=True):
            pixels[band] = np.clip(values, 0, 255).astype(np.uint8)
        return Scene(pixels, plain.gsd_m, plain.crs, plain.transform)

    def known(self) -> Mask:
        """(H, W) where both the orthophoto and the surface hold something."""
        scene = self.scene
        seen = _holds(self.ortho, scene) & _holds(self.surface, scene)
        gap_px = max(1, round(HOLE_M2 / scene.gsd_m**2))
        return np.asarray(sieve(seen.astype(np.uint8), gap_px) > 0)


def check_rasters(ortho: Path, surface: Path, terrain: Path) -> None:
    """Raises ImageryError where a raster is missing, colourless, or lies elsewhere."""
    with open_dataset(ortho) as seen, open_dataset(surface) as high, open_dataset(terrain) as low:
        if seen.count < 3:
            raise ImageryError(f"{ortho} has {seen.count} band(s): give an orthophoto in colour")
        if low.crs != high.crs:
            raise ImageryError(f"{terrain} and {surface} differ in CRS: warp one onto the other")
        a, b, slack = low.bounds, high.bounds, abs(high.transform.a)
        if (
            a.left > b.left + slack
            or a.right < b.right - slack
            or a.bottom > b.bottom + slack
            or a.top < b.top - slack
        ):
            raise ImageryError(
                f"{terrain} does not cover {surface}: give the bare ground of the same place"
            )


def _holds(path: Path, scene: Scene) -> Mask:
    """(H, W) where a raster has a value, on the scene's grid."""
    seen = np.zeros(scene.pixels.shape, np.uint8)
    try:
        with open_dataset(path) as raster:
            reproject(
                raster.dataset_mask(),
                seen,
                src_transform=raster.transform,
                src_crs=raster.crs,
                dst_transform=scene.transform,
                dst_crs=scene.crs,
                resampling=Resampling.nearest,
            )
    except RasterioError as error:
        raise ImageryError(f"{path} cannot be read ({error}): copy it again") from error
    return seen > 0


def tell_apart(pixels: Pixels, gsd_m: float) -> None:
    """Set `cover`, `height` and `base` of what is high: smooth means a roof, rough a crown."""
    height, terrain = pixels["height"], pixels["terrain"]
    tall = height - terrain > TALL_M
    specks = partial(_without_specks, gsd_m=gsd_m)
    wires = tall & ~specks(tall, smallest_m2=SMALLEST_CROWN_M2)
    height[wires] = terrain[wires]
    tall &= ~wires
    roof = specks(tall & (_roughness(height) < ROUGH_M), smallest_m2=SMALLEST_ROOF_M2) & tall
    thin = tall & ~roof & ~_widest(_least(tall & ~roof))
    roof |= thin & _widest(roof)  # the steps of a roof and its rim bend as crowns do
    cover = pixels["cover"]
    low = (height - terrain > LOW_M) & ~tall
    bush = low & (_leafy(pixels) > LEAFY)
    cover[bush] = HEDGE
    above_ground = (height - terrain > LOW_M / 2) & ~tall
    bulky, vast = (specks(above_ground, smallest_m2=area) for area in CAR_M2)
    cover[low & ~bush & bulky & ~vast] = CAR
    cover[wires] = 0
    cover[tall] = np.where(roof, BUILDING, TREE)[tall]
    pixels["base"] = crown_base(height, terrain, cover, gsd_m)


def _leafy(pixels: Pixels) -> NDArray[np.int16]:
    """(H, W) green over the other two."""
    red, green, blue = (pixels[band].astype(np.int16) for band in ("red", "green", "blue"))
    return np.asarray(2 * green - red - blue)


def dress_trees(pixels: Pixels, gsd_m: float) -> None:
    """Give crowns their leaves' own colour, without shade and ground seen past them, and trunks."""
    trees = pixels["cover"] == TREE
    green = trees & (_leafy(pixels) > LEAFY)
    for band in ("red", "green", "blue"):
        if green.any():
            pixels[band][trees & ~green] = np.median(pixels[band][green])
        pixels[band][trees] = np.clip(pixels[band][trees] * LEAF_LIGHT, 0, 255).astype(np.uint8)
    side = max(1, round(TRUNK_M / gsd_m))
    rows, columns = (count // side for count in trees.shape)
    tops = np.where(trees, pixels["height"] - pixels["terrain"], 0)[: rows * side, : columns * side]
    blocks = tops.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(rows, columns, -1)
    highest, at = blocks.max(2), blocks.argmax(2)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(highest, 1), (3, 3)).max((2, 3))
    row, column = np.nonzero((highest > TALL_M) & (highest == around))
    inner = at[row, column]
    pixels["cover"][row * side + inner // side, column * side + inner % side] = TRUNK


def _widest(mask: Mask) -> Mask:
    """True wherever one of the 5 x 5 pixels around is."""
    return np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MaxFilter(5))) > 0


def _least(mask: Mask) -> Mask:
    """True wherever all of the 5 x 5 pixels around are."""
    return ~_widest(~mask)


def _without_specks(mask: Mask, smallest_m2: float, gsd_m: float) -> Mask:
    """A mask without its small parts and small holes."""
    return np.asarray(sieve(mask.astype(np.uint8), max(1, round(smallest_m2 / gsd_m**2))) > 0)


def _roughness(height: F32) -> F32:
    """(H, W) metres: bend of the surface, mean of 5 x 5 pixels, least of those that hold a pixel.

    The least, since each window over a roof's rim bends, but one further in does not.
    """
    wide = np.pad(height, 1, mode="edge")
    bend = np.abs(wide[1:-1, 2:] + wide[1:-1, :-2] - 2 * height)
    bend = np.maximum(bend, np.abs(wide[2:, 1:-1] + wide[:-2, 1:-1] - 2 * height))
    levels = Image.fromarray(np.clip(bend * 100, 0, 255).astype(np.uint8))
    least = levels.filter(ImageFilter.BoxBlur(2)).filter(ImageFilter.MinFilter(5))
    return np.asarray(np.asarray(least, np.float32) / np.float32(100))


def give_facades(rng: Generator, pixels: Pixels, gsd_m: float) -> None:
    """Give each building walls along its long side, of one colour and style (invented)."""
    roof = pixels["cover"] == BUILDING
    found = [shape(ring) for ring, _ in shapes(roof.astype(np.uint8), mask=roof)]
    if not found:
        return
    numbers = rasterize(
        [(house, n) for n, house in enumerate(found, 1)], roof.shape, dtype=np.int32
    )
    facades = np.zeros((len(found) + 1, 5), np.uint8)  # red, green, blue, style, direction
    for n, house in enumerate(found, 1):
        rgb = np.array(WALLS[int(rng.integers(len(WALLS)))]) * rng.uniform(0.62, 1.02)
        facades[n, :3] = np.clip(rgb + rng.normal(0, 9, 3), 0, 255)
        large = house.area * gsd_m**2 > HOUSE_M2
        facades[n, 3] = int(rng.choice(LARGE)) if large else HOUSE
        facades[n, 4] = round(2 * _long_side_deg(house)) % 180
    where = roof & (numbers > 0)
    for column, name in enumerate(("wall_red", "wall_green", "wall_blue", "style", "wall")):
        pixels[name][where] = facades[numbers[where], column]


def _long_side_deg(outline: shapely.Polygon) -> float:
    """Direction of the longest side of the smallest box around an outline; rows run south."""
    corners = shapely.get_coordinates(shapely.oriented_envelope(outline))
    sides = np.diff(corners, axis=0)
    east, south = sides[int(np.argmax(np.hypot(*sides.T)))]
    return math.degrees(math.atan2(south, east)) % 90
