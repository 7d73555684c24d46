"""Small GeoTIFFs and pyramids that tests make for themselves."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoomloc.world.cells import Cell
from zoomloc.world.pyramid import TilePyramid, write_pmtiles

UTM = "EPSG:32632"
CORNER = (400_000.0, 5_000_000.0)  # UTM 32N, about 45.15 N 7.73 E


def ground(side: int, seed: int = 0, coarse: int = 9) -> np.ndarray:
    """(3, side, side) smooth random colours."""
    values = np.random.default_rng(seed).uniform(20, 235, (coarse, coarse, 3)).astype(np.uint8)
    picture = Image.fromarray(values).resize((side, side), Image.Resampling.BICUBIC)
    return np.moveaxis(np.asarray(picture), 2, 0)


def write_tif(
    path: Path,
    bands: np.ndarray,
    crs: str | None = UTM,
    corner: tuple[float, float] = CORNER,
    pixel: float = 1.0,
    **profile: Any,
) -> Path:
    """A GeoTIFF of (bands, height, width) with its north-west corner at ``corner``."""
    import rasterio
    from rasterio.transform import from_origin

    count, height, width = bands.shape
    shape = {"driver": "GTiff", "count": count, "height": height, "width": width}
    placed = {"crs": crs, "transform": from_origin(*corner, pixel, pixel)}
    with rasterio.open(path, "w", **shape, dtype=bands.dtype, **{**placed, **profile}) as raster:
        raster.write(bands)
    return path


def encoded(picture: np.ndarray, image_format: str = "png", **options: Any) -> bytes:
    target = io.BytesIO()
    Image.fromarray(picture).save(target, image_format, **options)
    return target.getvalue()


def pyramid_of(
    path: Path, tiles: Iterable[tuple[Cell, np.ndarray]], image_format: str = "png", **options: Any
) -> TilePyramid:
    """A PMTiles pyramid of pictures, opened."""
    tiles = list(tiles)
    packed = [(cell, encoded(picture, image_format, **options)) for cell, picture in tiles]
    write_pmtiles(path, packed, {"name": "test"}, image_format, len(tiles[0][1]))
    return TilePyramid.open(path)


def noise(px: int, seed: int, bands: int = 3) -> np.ndarray:
    """(px, px, bands) independent random pixels: any misplaced one shows."""
    return np.random.default_rng(seed).integers(0, 256, (px, px, bands), np.uint8)
