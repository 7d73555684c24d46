"""Made-up rasters for the bench of tilers: an orthophoto, and a sparse square of small ones.

Knows nothing of tiles or of what is measured.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

PIXEL_M = 0.2
CORNER = (400_000.0, 5_540_000.0)  # UTM 32N, 50 N: level 19 has pixels of 0.19 m there
CRS = "EPSG:32632"
PROFILE = {"count": 3, "dtype": "uint8", "photometric": "RGB", "compress": "deflate"}
PROFILE |= {"predictor": 2, "tiled": True, "blockxsize": 512, "blockysize": 512}


def write_raster(path: Path, side_px: int, seed: int = 0) -> Path:
    """A made-up orthophoto of 0.2 m: texture of all sizes, roofs, noise; with overviews.

    rio-tiler reads overviews for coarse tiles, as it would from a cloud-optimised GeoTIFF.
    """
    import rasterio
    from rasterio.enums import Resampling

    with rasterio.open(path, "w", **_profile(CORNER, side_px)) as raster:
        raster.write(np.moveaxis(_ground(side_px, seed), 2, 0))
    with rasterio.open(path, "r+") as raster:
        raster.build_overviews([2, 4, 8, 16], Resampling.average)
    return path


def _profile(corner: tuple[float, float], side_px: int) -> dict[str, object]:
    from rasterio.transform import from_origin

    placed = {"crs": CRS, "transform": from_origin(*corner, PIXEL_M, PIXEL_M)}
    return {"driver": "GTiff", "height": side_px, "width": side_px, **placed, **PROFILE}


def _ground(side_px: int, seed: int) -> npt.NDArray[np.uint8]:
    """(side_px, side_px, 3) that compresses about as well as aerial photos do."""
    rng = np.random.default_rng(seed)

    def layer(px: int) -> npt.NDArray[np.float32]:
        side = max(2, side_px // px)
        values = Image.fromarray(rng.normal(0, 1, (side, side)).astype(np.float32))
        return np.asarray(values.resize((side_px, side_px), Image.Resampling.BICUBIC))

    grey = np.float32(98) + 16 * layer(512) + 14 * layer(128) + 12 * layer(32) + 10 * layer(8)
    grey += 7 * layer(2)
    tint = layer(256)[..., None] * np.array([14, 4, -12], np.float32)
    colours = np.clip(grey[..., None] + tint + np.array([0, 10, -10], np.float32), 0, 255)
    picture = Image.fromarray(colours.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range((side_px // 64) ** 2 // 2):
        left, top = rng.integers(0, side_px, 2).tolist()
        width, height, tone = rng.integers((20, 20, 90), (90, 90, 200)).tolist()
        draw.rectangle((left, top, left + width, top + height), (tone, tone - 10, tone - 20))
    noise = rng.normal(0, 3, (side_px, side_px, 1)).astype(np.int16)
    return np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)


def write_sparse(folder: Path, side_px: int, parts: int = 9, part_px: int = 1500) -> Path:
    """A VRT of a few small GeoTIFFs, strewn over a square that is empty otherwise."""
    import rasterio

    rng = np.random.default_rng(0)
    ground = np.moveaxis(_ground(part_px, 0), 2, 0)
    bands: list[list[str]] = [[], [], []]
    for part in range(parts):
        name = f"part{part}.tif"
        across, down = rng.integers(0, side_px - part_px, 2).tolist()
        corner = CORNER[0] + across * PIXEL_M, CORNER[1] - down * PIXEL_M
        with rasterio.open(folder / name, "w", **_profile(corner, part_px)) as raster:
            raster.write(ground)
        size = f'xSize="{part_px}" ySize="{part_px}"'
        for band, sources in enumerate(bands, 1):
            sources.append(
                f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename>'
                f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" {size}/>'
                f'<DstRect xOff="{across}" yOff="{down}" {size}/></SimpleSource>'
            )
    path = folder / "sparse.vrt"
    path.write_text(_vrt(side_px, bands), encoding="utf-8")
    return path


def _vrt(side_px: int, bands: Sequence[Sequence[str]]) -> str:
    """What is strewn, with black for nodata: what lies between the parts holds nothing."""
    west, north = CORNER
    colours = zip(("Red", "Green", "Blue"), bands, strict=True)
    rows = [
        f'<VRTRasterBand dataType="Byte" band="{band}"><NoDataValue>0</NoDataValue>'
        f"<ColorInterp>{colour}</ColorInterp>{''.join(sources)}</VRTRasterBand>"
        for band, (colour, sources) in enumerate(colours, 1)
    ]
    return (
        f'<VRTDataset rasterXSize="{side_px}" rasterYSize="{side_px}"><SRS>{CRS}</SRS>'
        f"<GeoTransform>{west}, {PIXEL_M}, 0, {north}, 0, {-PIXEL_M}</GeoTransform>"
        f"{''.join(rows)}</VRTDataset>"
    )
