"""A georeferenced raster: checked, its footprint and ground pixel known, read as RGBA.

Knows nothing of tiles, regions or stores.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from affine import Affine
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.warp import transform as warp_points
from rasterio.windows import Window
from shapely.geometry import Polygon

from zoomloc.errors import ImageryError
from zoomloc.world.cells import MAX_LAT_DEG, LatLng, distance_m

Floats = npt.NDArray[np.float64]

EDGE_POINTS = 24  # points along each side of a footprint; a side bends by centimetres between them
SAMPLE_PX = 256  # side of the decimated look at a raster
MASK_SHARE = 0.9  # of an alpha band's values must be 0 or full, else it is a fourth colour (NAIP)
STRETCH_PERCENTILES = (1.0, 99.0)  # what becomes black and white in rasters beyond 8 bits


@dataclass(frozen=True)
class Raster:
    """What tiles need to know of a raster file; small enough to be sent to other processes."""

    path: Path
    bands: tuple[int, ...]  # one (grey or palette) or three
    alpha_band: int | None
    masked: bool  # a nodata value or a mask file says which pixels hold
    palette: bool
    footprint: Polygon  # degrees (lng, lat); lng may pass 180
    center: LatLng
    gsd_m: float  # ground pixel, geometric mean of its two sides
    stretch: tuple[float, float] | None = None  # values that become 0 and 255; None for uint8


def open_dataset(path: Path) -> Any:
    """The rasterio dataset. Raises ImageryError where it is missing or damaged."""
    if not path.exists():
        raise ImageryError(f"{path}: no such raster")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # refused below in our words
            return rasterio.open(path)
    except RasterioError as error:
        raise ImageryError(f"{path}: not a readable raster ({error}); copy it again") from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what GDAL says of damaged pixels into one line."""
    try:
        yield
    except RasterioError as error:
        raise ImageryError(
            f"{path}: damaged or cut off, its pixels cannot be read ({error}); copy it again"
        ) from error


def inspected(path: Path) -> Raster:
    """Look at a raster before any work is spent on it.

    Raises ImageryError where it is missing, damaged, or has no CRS, no geotransform or no colours.
    """
    with open_dataset(path) as dataset, reading(path):
        _check_georeference(path, dataset)
        bands, alpha_band = _bands(path, dataset)
        footprint = _footprint(path, dataset)
        center, gsd_m = _ground_pixel(path, dataset)
        stretch = None if dataset.dtypes[0] == "uint8" else _stretch(path, dataset, bands)
        flags = dataset.mask_flag_enums[bands[0] - 1]
        tagged = ColorInterp.alpha in dataset.colorinterp
        return Raster(
            path=path,
            bands=bands,
            alpha_band=alpha_band,
            masked=MaskFlags.all_valid not in flags and not tagged,
            palette=dataset.colorinterp[0] == ColorInterp.palette,
            footprint=footprint,
            center=center,
            gsd_m=gsd_m,
            stretch=stretch,
        )


def read_rgba(raster: Raster, dataset: Any, window: Window) -> npt.NDArray[np.uint8]:
    """(4, H, W) RGBA of a window, its colours 0..255; alpha is 0 where the raster holds nothing."""
    colours = dataset.read(list(raster.bands), window=window)
    if raster.palette:
        colours = _palette_of(dataset)[:, colours[0]]
    rgba = np.full((4, *colours.shape[1:]), 255, np.uint8)
    if raster.alpha_band is not None:
        alpha = dataset.read(raster.alpha_band, window=window)
        rgba[3] = alpha if alpha.dtype == np.uint8 else np.where(alpha > 0, 255, 0)
    elif raster.masked:
        rgba[3] = dataset.read_masks(list(raster.bands), window=window).max(axis=0)
    if raster.stretch is not None:
        rgba[3] = np.where(np.isfinite(colours).all(axis=0), rgba[3], 0)
        colours = stretched(colours, raster.stretch)
    rgba[:3] = colours
    return rgba


def stretched(colours: npt.NDArray[Any], ends: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Values laid linearly on 0..255, those beyond the ends cut off."""
    low, high = ends
    share = (np.nan_to_num(colours.astype(np.float32)) - low) / max(high - low, 1e-9)
    return np.asarray((np.clip(share, 0, 1) * 255 + 0.5).astype(np.uint8))


def applied(affine: Affine, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Points carried through an affine."""
    return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f


def _check_georeference(path: Path, dataset: Any) -> None:
    """Refuse what lies nowhere on earth."""
    if dataset.crs is None:
        raise ImageryError(
            f"{path}: has no coordinate reference system; if you know it, write it in with "
            f"'gdal_edit.py -a_srs EPSG:CODE {path.name}'"
        )
    if dataset.transform.is_identity:
        raise ImageryError(
            f"{path}: has no geotransform, so its place is unknown; warp it by its ground control "
            f"points with 'gdalwarp', or set corners with 'gdal_edit.py -a_ullr W N E S'"
        )
    if "complex" in dataset.dtypes[0]:
        raise ImageryError(f"{path}: holds complex numbers, not a picture; give an orthophoto")


def _bands(path: Path, dataset: Any) -> tuple[tuple[int, ...], int | None]:
    """Which bands are red, green, blue (or grey), and which one is a real mask."""
    tags = dataset.colorinterp
    alpha = next((i for i, tag in enumerate(tags, 1) if tag == ColorInterp.alpha), None)
    if alpha is not None and not _is_mask(path, dataset, alpha):
        alpha = None
    colours = [i for i in range(1, dataset.count + 1) if tags[i - 1] != ColorInterp.alpha]
    named = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(tag in tags for tag in named):
        return tuple(tags.index(tag) + 1 for tag in named), alpha
    if len(colours) >= 3:
        return tuple(colours[:3]), alpha
    if not colours:
        raise ImageryError(f"{path}: holds only an alpha band; give an orthophoto")
    return (colours[0],), alpha


def _is_mask(path: Path, dataset: Any, band: int) -> bool:
    """Whether an alpha band holds a mask; NAIP files tag their near infrared as alpha."""
    values = _sampled(path, dataset, [band])
    full = 255 if dataset.dtypes[band - 1] == "uint8" else values.max()
    return bool(np.isin(values, [0, full]).mean() >= MASK_SHARE)


def _sampled(path: Path, dataset: Any, bands: list[int]) -> npt.NDArray[Any]:
    """(bands, h, w) of the whole raster, decimated."""
    shape = (len(bands), min(SAMPLE_PX, dataset.height), min(SAMPLE_PX, dataset.width))
    return np.asarray(dataset.read(bands, out_shape=shape))


def _stretch(path: Path, dataset: Any, bands: tuple[int, ...]) -> tuple[float, float]:
    """Values that become black and white: percentiles over all colours, so that hues stay."""
    values = _sampled(path, dataset, list(bands)).astype(np.float64)
    shape = values.shape
    held = dataset.read_masks(list(bands), out_shape=shape) > 0
    kept = values[held & np.isfinite(values)]
    if not kept.size:
        raise ImageryError(f"{path}: no valid pixel in it; give another raster")
    low, high = np.percentile(kept, STRETCH_PERCENTILES)
    return float(low), float(high)


def _palette_of(dataset: Any) -> npt.NDArray[np.uint8]:
    """(3, 256) colours of palette indices."""
    table = np.zeros((3, 256), np.uint8)
    for index, colour in dataset.colormap(1).items():
        table[:, index] = colour[:3]
    return table


def _footprint(path: Path, dataset: Any) -> Polygon:
    """Outline of the raster in degrees, each side densified, unwrapped across 180."""
    along = np.linspace(0, 1, EDGE_POINTS, endpoint=False)
    side = np.concatenate([along, np.ones_like(along), 1 - along, np.zeros_like(along)])
    columns, rows = side * dataset.width, np.roll(side, EDGE_POINTS) * dataset.height
    lat, lng = _degrees(path, dataset, columns, rows)
    outline = Polygon(np.column_stack([np.unwrap(lng, period=360), lat]))
    belt = shapely.box(-720, -MAX_LAT_DEG, 720, MAX_LAT_DEG)
    inside = shapely.make_valid(outline).intersection(belt)
    if not inside.area > 0:
        raise ImageryError(f"{path}: lies outside Web Mercator (beyond 85 degrees north or south)")
    return inside


def _ground_pixel(path: Path, dataset: Any) -> tuple[LatLng, float]:
    """Middle of the raster, and the geometric mean of its pixel's sides on the ground there."""
    x, y = dataset.width / 2, dataset.height / 2
    lat, lng = _degrees(path, dataset, np.array([x, x + 1, x]), np.array([y, y, y + 1]))
    here, east, south = (LatLng(float(a), float(b)) for a, b in zip(lat, lng, strict=True))
    gsd_m = math.sqrt(distance_m(here, east) * distance_m(here, south))
    if not gsd_m > 0:
        raise ImageryError(f"{path}: its pixels have no size on the ground; check its geotransform")
    return here, gsd_m


def _degrees(path: Path, dataset: Any, columns: Floats, rows: Floats) -> tuple[Floats, Floats]:
    """Latitude and longitude of pixel places. Raises ImageryError where the CRS cannot say."""
    xs, ys = applied(dataset.transform, columns, rows)
    try:
        lng, lat = warp_points(dataset.crs, "EPSG:4326", list(xs), list(ys))
    except (RasterioError, ValueError) as error:
        raise ImageryError(
            f"{path}: its coordinate reference system cannot be used ({error})"
        ) from error
    lat_deg, lng_deg = np.array(lat, np.float64), np.array(lng, np.float64)
    if not (np.isfinite(lat_deg).all() and np.isfinite(lng_deg).all()):
        raise ImageryError(
            f"{path}: its coordinates lie outside its coordinate reference system "
            f"({dataset.crs}); set the right one with 'gdal_edit.py -a_srs EPSG:CODE'"
        )
    return lat_deg, lng_deg
