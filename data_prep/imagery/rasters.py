"""A georeferenced raster as a sheet: checked, its footprint and ground pixel known, read as RGBA.

Knows nothing of tiles, regions, stores or of where the files come from.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform as warp_points
from rasterio.windows import Window
from shapely.geometry.base import BaseGeometry

from data_prep.imagery.gdal import is_remote, open_dataset, reading, told_of, vrt_parts
from data_prep.imagery.sheets import RGBA, Placed, Sheet
from data_prep.imagery.warp import applied, warped
from zoomloc.errors import ImageryError
from zoomloc.world.cells import MAX_LAT_DEG, Cell, Floats, LatLng, distance_m

EDGE_POINTS = 24  # points along each side of a footprint; a side bends by centimetres between them
SAMPLE_PX = 256  # side of the decimated look at a raster
MASK_SHARE = 0.9  # of an alpha band's values must be 0 or full, else it is a fourth colour (NAIP)
STRETCH_PERCENTILES = (1.0, 99.0)  # what becomes black and white in rasters beyond 8 bits


@dataclass(frozen=True)
class Reading:
    """How rasters of one source are read, where they do not tell it right themselves."""

    bands: tuple[
        int, ...
    ] = ()  # red, green, blue (or any three, such as 4, 1, 2), or one; 1 = first
    stretch: tuple[float, float] | None = None  # values that become black and white
    nodata: float | None = None  # in any band: no pixel
    crs: str | None = None  # what a raster that has none is in
    folders: tuple[Path, ...] = ()  # where the sources of a VRT may lie besides its own folder


@dataclass(frozen=True)
class Raster(Placed):
    """What tiles need to know of a raster; small enough to be sent to other processes."""

    where: str  # a file or an address, which may hold a signature
    stamp: str  # what tells this file from another of the same name
    asked: Reading
    bands: tuple[int, ...]  # one (grey or palette) or three
    alpha_band: int | None
    masked: bool  # a nodata value or a mask file says which pixels hold
    palette: bool
    stretch: tuple[float, float] | None = None  # values that become 0 and 255; None for uint8

    def identity(self) -> list[object]:
        """Name, size and time of the file, and how it is read."""
        asked = self.asked
        read = [list(asked.bands), asked.nodata, asked.crs, self.stretch]
        return [Path(self.name).name, self.stamp, read]

    def draw(self, block: Cell, side_px: int) -> RGBA | None:
        """(4, side_px, side_px) of a block, or None where it does not reach."""
        dataset = _dataset(self.where, self.stamp, self.asked.folders)
        with reading(self.where):
            return warped(_Open(self, dataset), block, side_px)


@dataclass(frozen=True)
class _Open:
    """A raster and its open dataset, as a picture to warp."""

    raster: Raster
    dataset: Any

    @property
    def crs(self) -> CRS:
        return _crs_of(self.dataset, self.raster.asked)

    @property
    def transform(self) -> Affine:
        transform: Affine = self.dataset.transform
        return transform

    @property
    def width(self) -> int:
        return int(self.dataset.width)

    @property
    def height(self) -> int:
        return int(self.dataset.height)

    def read(self, window: Window, shape: tuple[int, int]) -> RGBA:
        return read_rgba(self.raster, self.dataset, window, shape)


@functools.lru_cache(maxsize=8)
def _dataset(where: str, stamp: str, folders: tuple[Path, ...]) -> Any:
    """An open dataset, kept so that GDAL's block cache serves the neighbouring blocks."""
    return open_dataset(where, folders)


def forget_datasets() -> None:
    """Close the datasets that drawing left open in this process."""
    _dataset.cache_clear()


def inspected(where: str | Path, asked: Reading | None = None, stamp: str | None = None) -> Raster:
    """Look at a raster before any work is spent on it.

    ``stamp`` tells this content of an address from another; a file is told by its size and time.
    Raises ImageryError where it is missing, damaged, or has no CRS, no geotransform or no colours.
    """
    where, asked = str(where), asked or Reading()
    name = told_of(where)
    with open_dataset(where, asked.folders) as dataset, reading(where):
        _check_georeference(name, dataset, asked)
        bands, alpha_band = _bands(name, dataset, asked)
        outline = _footprint(name, dataset, asked)
        center, gsd_m = _ground_pixel(name, dataset, asked)
        flags = dataset.mask_flag_enums[bands[0] - 1]
        tagged = ColorInterp.alpha in dataset.colorinterp
        return Raster(
            name=name,
            footprint=outline,
            center=center,
            gsd_m=gsd_m,
            where=where,
            stamp=stamp or _stamp(where),
            asked=asked,
            bands=bands,
            alpha_band=alpha_band,
            masked=MaskFlags.all_valid not in flags and not tagged,
            palette=dataset.colorinterp[0] == ColorInterp.palette,
            stretch=asked.stretch or _stretch(name, dataset, bands),
        )


def with_common_stretch(sheets: Sequence[Sheet]) -> tuple[Sheet, ...]:
    """The same black and white for all rasters beyond 8 bits, so that no seams appear.

    Those whose source states its own keep it.
    """
    ends = [
        s.stretch for s in sheets if isinstance(s, Raster) and s.stretch and not s.asked.stretch
    ]
    if not ends:
        return tuple(sheets)
    common = min(low for low, _ in ends), max(high for _, high in ends)
    return tuple(
        replace(s, stretch=common)
        if isinstance(s, Raster) and s.stretch and not s.asked.stretch
        else s
        for s in sheets
    )


def read_rgba(raster: Raster, dataset: Any, window: Window, shape: tuple[int, int]) -> RGBA:
    """(4, *shape) RGBA of a window, its colours 0..255; alpha is 0 where the raster holds nothing.

    Where ``shape`` is smaller than the window, pixels (or those of overviews) are averaged; those
    that stand for something else than a brightness are picked.
    """
    whole = shape == (window.height, window.width)
    picked = whole or raster.palette or raster.asked.nodata is not None
    options = {"window": window, "resampling": Resampling.nearest if picked else Resampling.average}
    bands = list(raster.bands)
    colours = dataset.read(bands, out_shape=(len(bands), *shape), **options)
    held = True if raster.asked.nodata is None else (colours != raster.asked.nodata).all(axis=0)
    if raster.palette:
        colours = _palette_of(dataset)[:, colours[0]]
    rgba = np.full((4, *shape), 255, np.uint8)
    if raster.alpha_band is not None:
        alpha = dataset.read(raster.alpha_band, out_shape=shape, **options)
        rgba[3] = alpha if alpha.dtype == np.uint8 else np.where(alpha > 0, 255, 0)
    elif raster.masked:
        masks = dataset.read_masks(bands, out_shape=(len(bands), *shape), window=window)
        rgba[3] = masks.max(axis=0)
    if raster.stretch is not None:
        rgba[3] = np.where(np.isfinite(colours).all(axis=0), rgba[3], 0)
        colours = stretched(colours, raster.stretch)
    rgba[3] = np.where(held, rgba[3], 0)
    rgba[:3] = colours
    return rgba


def stretched(colours: npt.NDArray[Any], ends: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Values laid linearly on 0..255, those beyond the ends cut off."""
    low, high = ends
    share = (np.nan_to_num(colours.astype(np.float32)) - low) / max(high - low, 1e-9)
    return np.asarray((np.clip(share, 0, 1) * 255 + 0.5).astype(np.uint8))


def _stamp(where: str) -> str:
    """Size and time of a file."""
    if is_remote(where):
        return ""
    found = Path(where).stat()
    return f"{found.st_size} {found.st_mtime_ns}"


def _crs_of(dataset: Any, asked: Reading) -> CRS:
    """The CRS that is stated, else the raster's."""
    return dataset.crs if asked.crs is None else CRS.from_user_input(asked.crs)


def _check_georeference(path: str, dataset: Any, asked: Reading) -> None:
    """Refuse what lies nowhere on earth."""
    if asked.crs is not None:
        try:
            _crs_of(dataset, asked)
        except CRSError as error:
            raise ImageryError(f"{path}: crs {asked.crs!r} is none ({error})") from error
    elif dataset.crs is None:
        raise ImageryError(
            f"{path}: has no coordinate reference system; if you know it, state 'crs: EPSG:CODE' "
            f"for the source, or write it in with 'gdal_edit.py -a_srs EPSG:CODE {Path(path).name}'"
        )
    if dataset.transform.is_identity:
        raise ImageryError(
            f"{path}: has no geotransform, so its place is unknown; warp it by its ground control "
            f"points with 'gdalwarp', or set corners with 'gdal_edit.py -a_ullr W N E S'"
        )
    if "complex" in dataset.dtypes[0]:
        raise ImageryError(f"{path}: holds complex numbers, not a picture; give an orthophoto")


def _bands(path: str, dataset: Any, asked: Reading) -> tuple[tuple[int, ...], int | None]:
    """Which bands are red, green, blue (or grey), and which one is a real mask."""
    tags = dataset.colorinterp
    alpha = next((i for i, tag in enumerate(tags, 1) if tag == ColorInterp.alpha), None)
    if alpha is not None and not _is_mask(path, dataset, alpha):
        alpha = None
    if asked.bands:
        if max(asked.bands) > dataset.count:
            raise ImageryError(f"{path}: has {dataset.count} bands, not {max(asked.bands)}")
        return asked.bands, None if alpha in asked.bands else alpha
    colours = [i for i in range(1, dataset.count + 1) if tags[i - 1] != ColorInterp.alpha]
    named = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(tag in tags for tag in named):
        return tuple(tags.index(tag) + 1 for tag in named), alpha
    if len(colours) >= 3:
        return tuple(colours[:3]), alpha
    if not colours:
        raise ImageryError(f"{path}: holds only an alpha band; give an orthophoto")
    return (colours[0],), alpha


def _is_mask(path: str, dataset: Any, band: int) -> bool:
    """Whether an alpha band holds a mask; NAIP files tag their near infrared as alpha."""
    values = _sampled(path, dataset, [band])
    full = 255 if dataset.dtypes[band - 1] == "uint8" else values.max()
    return bool(np.isin(values, [0, full]).mean() >= MASK_SHARE)


def _sampled(path: str, dataset: Any, bands: list[int]) -> npt.NDArray[Any]:
    """(bands, h, w) of the whole raster, decimated."""
    shape = (len(bands), min(SAMPLE_PX, dataset.height), min(SAMPLE_PX, dataset.width))
    return np.asarray(dataset.read(bands, out_shape=shape))


def _stretch(path: str, dataset: Any, bands: tuple[int, ...]) -> tuple[float, float] | None:
    """Values that become black and white: percentiles over all colours, so that hues stay.

    None for 8 bits, which are what they are.
    """
    if dataset.dtypes[0] == "uint8":
        return None
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


def _footprint(path: str, dataset: Any, asked: Reading) -> BaseGeometry:
    """Outline of the raster in degrees, each side densified, unwrapped across 180.

    Of a VRT the outlines of its sources, so that a sparse one costs what it holds.
    """
    at = np.array([dataset.width / 2]), np.array([dataset.height / 2])
    middle_lng = float(_degrees(path, dataset, asked, *at)[1][0])
    outline = _held_px(path, dataset)
    longest = max(dataset.width, dataset.height)

    def to_degrees(points: Floats) -> Floats:
        lat, lng = _degrees(path, dataset, asked, points[:, 0], points[:, 1])
        lng -= 360.0 * np.round((lng - middle_lng) / 360.0)
        return np.column_stack([lng, lat])

    drawn = shapely.transform(shapely.segmentize(outline, longest / EDGE_POINTS), to_degrees)
    belt = shapely.box(-720, -MAX_LAT_DEG, 720, MAX_LAT_DEG)
    inside = shapely.make_valid(drawn).intersection(belt)
    if not inside.area > 0:
        raise ImageryError(f"{path}: lies outside Web Mercator (beyond 85 degrees north or south)")
    return inside


def _held_px(path: str, dataset: Any) -> BaseGeometry:
    """What a raster holds, in its pixels (column, row)."""
    whole = shapely.box(0, 0, dataset.width, dataset.height)
    parts = vrt_parts(Path(path)) if dataset.driver == "VRT" and not is_remote(path) else []
    if not parts:
        return whole
    held = shapely.unary_union(shapely.box(*np.array(parts).T)).intersection(whole)
    return held if held.area > 0 else whole


def _ground_pixel(path: str, dataset: Any, asked: Reading) -> tuple[LatLng, float]:
    """Middle of the raster, and the geometric mean of its pixel's sides on the ground there."""
    x, y = dataset.width / 2, dataset.height / 2
    columns, rows = np.array([x, x + 1, x]), np.array([y, y, y + 1])
    lat, lng = _degrees(path, dataset, asked, columns, rows)
    here, east, south = (LatLng(float(a), float(b)) for a, b in zip(lat, lng, strict=True))
    gsd_m = math.sqrt(distance_m(here, east) * distance_m(here, south))
    if not gsd_m > 0:
        raise ImageryError(f"{path}: its pixels have no size on the ground; check its geotransform")
    return here, gsd_m


def _degrees(
    path: str, dataset: Any, asked: Reading, columns: Floats, rows: Floats
) -> tuple[Floats, Floats]:
    """Latitude and longitude of pixel places. Raises ImageryError where the CRS cannot say."""
    xs, ys = applied(dataset.transform, columns, rows)
    try:
        lng, lat = warp_points(_crs_of(dataset, asked), "EPSG:4326", list(xs), list(ys))
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
