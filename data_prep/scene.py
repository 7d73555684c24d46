"""Scene: ground with colour, height and material on one grid, for looking at from the street.

Knows nothing of cameras, light or how a town is made.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from pyproj import CRS, Geod, Transformer
from rasterio.errors import RasterioError
from rasterio.fill import fillnodata
from rasterio.transform import Affine, from_origin
from rasterio.warp import Resampling, reproject

from zoomloc.errors import ImageryError
from zoomloc.world.cells import LatLng

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]

# Codes of `cover`, what a pixel shows from above. Those from BUILDING on stand on the ground.
GRASS, FIELD, SOIL, ASPHALT, PAVING, MARKING, WATER, GRAVEL = 1, 2, 3, 4, 5, 6, 7, 8
BUILDING, HEDGE, CAR, TREE, CONIFER, TRUNK = 20, 21, 22, 30, 31, 32

# Codes of `style`, how a facade is built; UNKNOWN makes the renderer take the roof's colour.
UNKNOWN, HOUSE, FLATS, SHOPS, OFFICE, HALL, BLANK = 0, 1, 2, 3, 4, 5, 6

CROWN_MIDDLE = 0.62  # height of a crown's widest part, as a share of the tree's height
BLOCK_PX = 8  # side of the blocks that a ray may pass in one step
TERRAIN_BLOCK_M, TERRAIN_OPENING_M = 4.0, 70.0  # what is narrower than the opening stands on ground


# One pixel of a scene, (H, W) of them on one grid: a ray that lands on it needs most of it, so it
# lies together in memory. Heights in metres; colour with light and shadow, wall_* without.
PIXEL = np.dtype(
    [
        ("height", "f4"),  # highest surface
        ("terrain", "f4"),  # bare ground
        ("base", "f4"),  # underside of a crown; the terrain elsewhere
        ("red", "u1"),  # as seen from above
        ("green", "u1"),
        ("blue", "u1"),
        ("cover", "u1"),
        ("wall_red", "u1"),  # facade of the building that stands here
        ("wall_green", "u1"),
        ("wall_blue", "u1"),
        ("style", "u1"),
        ("wall", "u1"),  # direction of the walls, 2 x degrees clockwise from east, [0, 180)
    ],
    align=True,
)
Pixels = NDArray[np.void]


class Blocks(NamedTuple):
    """A scene in blocks of BLOCK_PX pixels a side, (H / 8, W / 8)."""

    peak: F32  # highest point, metres
    bare: NDArray[np.bool_]  # nothing stands there


@dataclass(frozen=True)
class Scene:
    """A place that can be looked at. x_m runs east and y_m south from the north-west corner.

    Both are metres of the raster's CRS (feet are converted), heights are metres.
    """

    pixels: Pixels  # (H, W) of PIXEL
    gsd_m: float
    crs: str  # WKT or authority code, projected
    transform: Affine  # pixel -> CRS units

    @classmethod
    def from_rasters(
        cls,
        ortho: Path,
        surface: Path,
        terrain: Path | None = None,
        materials: Path | None = None,
    ) -> "Scene":
        """Scene on the surface's grid where it overlaps the ortho.

        Horizontal units come from the CRS (feet work), heights are taken as metres. `terrain`
        (bare ground) is estimated from the surface when absent; `materials` is a town's own file;
        without it what is high is a tree where it is green, else a building of unknown style.
        Raises ImageryError where a file cannot be read, has no projected CRS or does not overlap.
        """
        try:
            grid = _common_grid(ortho, surface)
            colour = np.moveaxis(_read_on(ortho, grid, [1, 2, 3]), 0, 2)
            height = _read_on(surface, grid, [1])[0].astype(np.float32)
            ground = (
                estimate_terrain(height, grid.gsd_m)
                if terrain is None
                else _read_on(terrain, grid, [1])[0].astype(np.float32)
            )
            layers = None if materials is None else _read_on(materials, grid, None)
        except (RasterioError, OSError) as error:
            raise ImageryError(
                f"{ortho} or {surface} cannot be read ({error}): give two georeferenced rasters"
            ) from error
        ground = np.minimum(ground, height)
        colour = np.ascontiguousarray(colour.astype(np.uint8))
        if layers is None:
            layers = guess_materials(colour, height - ground)
        pixels = assemble(colour, height, ground, layers.astype(np.uint8), grid.gsd_m)
        return cls(pixels, grid.gsd_m, grid.crs, grid.transform)

    @property
    def size_m(self) -> tuple[float, float]:
        """Width (east) and height (south) in metres."""
        rows, columns = self.pixels.shape
        return columns * self.gsd_m, rows * self.gsd_m

    @cached_property
    def highest_m(self) -> float:
        """Top of the highest thing, metres: no ray needs to look for more."""
        return float(self.pixels["height"].max())

    @cached_property
    def blocks(self) -> "Blocks":
        """What lets rays hurry on."""
        standing = (self.pixels["cover"] >= BUILDING).astype(np.float32)
        standing += self.pixels["height"] - self.pixels["terrain"] > 0.4
        return Blocks(
            peak=block_extreme(self.pixels["height"], BLOCK_PX, np.max),
            bare=block_extreme(standing, BLOCK_PX, np.max) == 0,
        )

    def to_latlng(self, x_m: float, y_m: float) -> LatLng:
        """Place of a point of the scene, EPSG:4326."""
        unit = self.transform.a / self.gsd_m
        east, north = self.transform.c + x_m * unit, self.transform.f - y_m * unit
        lng, lat = Transformer.from_crs(self.crs, 4326, always_xy=True).transform(east, north)
        return LatLng(float(lat), float(lng))

    def to_xy(self, place: LatLng) -> tuple[float, float]:
        """Point of the scene in metres (east, south) of the north-west corner."""
        unit = self.transform.a / self.gsd_m
        transformer = Transformer.from_crs(4326, self.crs, always_xy=True)
        east, north = transformer.transform(place.lng, place.lat)
        return (east - self.transform.c) / unit, (self.transform.f - north) / unit

    def north_deg(self) -> float:
        """Bearing of true north on the raster: grid bearing = true bearing + this."""
        width_m, height_m = self.size_m
        return true_north_deg(self, width_m / 2, height_m / 2)

    def ground_m(self, x_m: float, y_m: float) -> float:
        """Height of the bare ground at a point, metres; clamped to the scene's border."""
        rows, columns = self.pixels.shape
        row = min(max(int(y_m / self.gsd_m), 0), rows - 1)
        column = min(max(int(x_m / self.gsd_m), 0), columns - 1)
        return float(self.pixels["terrain"][row, column])


def true_north_deg(scene: Scene, x_m: float, y_m: float) -> float:
    """Bearing on the raster of the meridian through a point (minus the meridian convergence)."""
    place = scene.to_latlng(x_m, y_m)
    lng, lat, _ = Geod(ellps="WGS84").fwd(place.lng, place.lat, 0.0, 100.0)
    x2_m, y2_m = scene.to_xy(LatLng(lat, lng))
    return float(np.degrees(np.arctan2(x2_m - x_m, y_m - y2_m)))


def assemble(colour: U8, height: F32, terrain: F32, materials: U8, gsd_m: float) -> Pixels:
    """(H, W) pixels from colour (H, W, 3), heights (H, W) and materials (6, H, W).

    Bands of `materials`: cover, facade red, green, blue, style, wall.
    """
    pixels = np.empty(height.shape, PIXEL)
    pixels["height"], pixels["terrain"] = height, terrain
    pixels["base"] = crown_base(height, terrain, materials[0], gsd_m)
    for band, name in enumerate(("red", "green", "blue")):
        pixels[name] = colour[:, :, band]
    for band, name in enumerate(("cover", "wall_red", "wall_green", "wall_blue", "style", "wall")):
        pixels[name] = materials[band]
    return pixels


def guess_materials(colour: U8, above_m: F32) -> U8:
    """(6, H, W) materials from colour and height above ground: green is a tree, the rest built."""
    red, green, blue = (colour[:, :, band].astype(np.int16) for band in range(3))
    leafy = 2 * green - red - blue > 8
    materials = np.zeros((6, *above_m.shape), np.uint8)
    materials[0] = np.where(leafy, GRASS, ASPHALT)
    materials[0][above_m > 2.2] = BUILDING
    materials[0][(above_m > 2.2) & leafy] = TREE
    return materials


def estimate_terrain(height: F32, gsd_m: float) -> F32:
    """Bare ground under a surface (H, W): opening by TERRAIN_OPENING_M of block minima."""
    block = max(1, round(TERRAIN_BLOCK_M / gsd_m))
    coarse = block_extreme(height, block, np.min)
    window = round(TERRAIN_OPENING_M / (block * gsd_m)) | 1
    # continued beyond the border as a slope, or ground that rises to the border would be cut off
    wide = np.pad(coarse, window, mode="reflect", reflect_type="odd")
    opened = _slide(_slide(wide, window, np.min), window, np.max)[window:-window, window:-window]
    rows, columns = height.shape
    across, down = coarse.shape[1] * block, coarse.shape[0] * block
    smooth = Image.fromarray(np.ascontiguousarray(opened)).resize(
        (across, down), Image.Resampling.BILINEAR
    )
    return np.ascontiguousarray(np.asarray(smooth, np.float32)[:rows, :columns])


def crown_base(height: F32, terrain: F32, cover: U8, gsd_m: float) -> F32:
    """Underside of crowns (H, W): the top mirrored about CROWN_MIDDLE of the tree's height."""
    trees = cover >= TREE
    above = np.where(trees, height - terrain, np.float32(0))
    block = max(1, round(2.0 / gsd_m))
    tops = _slide(block_extreme(above, block, np.max), 3, np.max)
    tops = np.repeat(np.repeat(tops, block, 0), block, 1)[: height.shape[0], : height.shape[1]]
    under = np.clip(2 * CROWN_MIDDLE * tops - above, 0.12 * tops + 1.0, above - 0.6)
    return np.where(trees, terrain + np.maximum(under, 0.3), terrain).astype(np.float32)


class _Grid(NamedTuple):
    crs: str
    transform: Affine
    shape: tuple[int, int]
    gsd_m: float


def _common_grid(ortho: Path, surface: Path) -> _Grid:
    """The surface's grid, cut to what the ortho covers too."""
    with rasterio.open(surface) as high, rasterio.open(ortho) as seen:
        for path, raster in ((surface, high), (ortho, seen)):
            if raster.crs is None or not raster.crs.is_projected:
                raise ImageryError(
                    f"{path} has no projected CRS: warp it first (gdalwarp -t_srs, a UTM zone)"
                )
        if seen.crs != high.crs:
            raise ImageryError(f"{ortho} and {surface} differ in CRS: warp one onto the other")
        left, top = max(high.bounds.left, seen.bounds.left), min(high.bounds.top, seen.bounds.top)
        right = min(high.bounds.right, seen.bounds.right)
        bottom = max(high.bounds.bottom, seen.bounds.bottom)
        step = high.transform.a
        columns, rows = round((right - left) / step), round((top - bottom) / step)
        if columns < 1 or rows < 1:
            raise ImageryError(f"{ortho} and {surface} do not overlap: give rasters of one place")
        gsd_m = step * CRS.from_wkt(high.crs.to_wkt()).axis_info[0].unit_conversion_factor
        return _Grid(high.crs.to_wkt(), from_origin(left, top, step, step), (rows, columns), gsd_m)


def _read_on(path: Path, grid: _Grid, bands: list[int] | None) -> NDArray[Any]:
    """(C, H, W) bands of a raster on a grid; holes are filled from their rims."""
    with rasterio.open(path) as raster:
        chosen = bands or list(range(1, raster.count + 1))
        if raster.shape == grid.shape and raster.transform.almost_equals(grid.transform):
            values = raster.read(chosen)
        else:
            values = np.zeros((len(chosen), *grid.shape), raster.dtypes[0])
            nodata = raster.nodata
            reproject(
                rasterio.band(raster, chosen),
                values,
                dst_transform=grid.transform,
                dst_crs=grid.crs,
                dst_nodata=nodata,
                resampling=Resampling.average if bands else Resampling.nearest,
            )
        if raster.nodata is None or values.dtype.kind != "f":
            return np.asarray(values)
        return np.stack([_without_holes(band, raster.nodata) for band in values])


def _without_holes(band: NDArray[Any], nodata: float) -> NDArray[Any]:
    known = np.isfinite(band) & (band != nodata)
    if known.all():
        return band
    lowest = np.percentile(band[known], 1) if known.any() else 0.0
    filled = fillnodata(np.where(known, band, lowest), known, max_search_distance=100)
    return np.asarray(filled, band.dtype)


def block_extreme(values: F32, block: int, extreme: Any) -> F32:
    """Minimum or maximum of square blocks; the last block is filled up by its border."""
    rows, columns = values.shape
    padded = np.pad(values, ((0, -rows % block), (0, -columns % block)), mode="edge")
    tiles = padded.reshape(padded.shape[0] // block, block, padded.shape[1] // block, block)
    return np.asarray(extreme(tiles, axis=(1, 3)), np.float32)


def _slide(values: F32, window: int, extreme: Any) -> F32:
    """Minimum or maximum filter of odd window, separable."""
    for axis in (0, 1):
        reach = [(window // 2, window // 2) if side == axis else (0, 0) for side in (0, 1)]
        padded = np.pad(values, reach, mode="edge")
        values = extreme(np.lib.stride_tricks.sliding_window_view(padded, window, axis), axis=-1)
    return np.asarray(values, np.float32)
