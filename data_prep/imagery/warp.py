"""Any picture with a CRS and a transform, drawn onto a block of the Mercator grid.

Knows nothing of files, of servers or of what a picture shows.
"""

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from affine import Affine
from rasterio.enums import Resampling
from rasterio.warp import reproject
from rasterio.warp import transform as warp_points
from rasterio.windows import Window

from data_prep.imagery.sheets import RGBA
from zoomloc.world.cells import Cell, Floats

WEB_MERCATOR = "EPSG:3857"
SOURCE_MARGIN_PX = 4  # around a window, for the resampling filter and the bend of its sides
SAME_PX = 1e-3  # pixels that meet as closely are the same pixels


class Gridded(Protocol):
    """A picture in some CRS, read by windows."""

    @property
    def crs(self) -> Any:
        """Its CRS, as rasterio has them."""

    @property
    def transform(self) -> Affine:
        """From pixels (column, row) to its CRS."""

    @property
    def width(self) -> int:
        """Columns."""

    @property
    def height(self) -> int:
        """Rows."""

    def read(self, window: Window, shape: tuple[int, int]) -> RGBA:
        """(4, *shape) of a window that lies within it; a smaller shape than its own is averaged."""


def warped(picture: Gridded, block: Cell, side_px: int) -> RGBA | None:
    """(4, side_px, side_px) of a picture on the block's grid, or None where it does not reach."""
    bounds = block.mercator_bounds
    pixel = (bounds.right - bounds.left) / side_px
    grid = Affine(pixel, 0, bounds.left, 0, -pixel, bounds.top)
    same = _on_the_grid(picture, grid)
    if same is not None:
        return _cut_out(picture, same, side_px)
    found = next(_source_windows(picture, grid, side_px), None)
    if found is None:
        return None
    window, shift = found
    target = np.zeros((4, side_px, side_px), np.uint8)
    shape = _shape(window, side_px)
    at = picture.transform * Affine.translation(window.col_off, window.row_off)
    at = at * Affine.scale(window.width / shape[1], window.height / shape[0])
    source = picture.read(window, shape)
    opaque = bool(source[3].min() == 255)  # a band less to warp, for the same pixels
    reproject(
        source[:3] if opaque else source,
        target,
        src_transform=Affine(at.a, at.b, at.c + shift, at.d, at.e, at.f),
        src_crs=picture.crs,
        dst_transform=grid,
        dst_crs=WEB_MERCATOR,
        src_alpha=0 if opaque else 4,
        dst_alpha=4,
        resampling=Resampling.cubic,
        num_threads=1,
    )
    return target


def applied(affine: Affine, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Points carried through an affine."""
    return affine.a * x + affine.b * y + affine.c, affine.d * x + affine.e * y + affine.f


def _on_the_grid(picture: Gridded, grid: Affine) -> tuple[int, int] | None:
    """Column and row of the block's corner in a picture whose pixels are the block's."""
    if picture.crs != WEB_MERCATOR:
        return None
    meets = ~picture.transform * grid
    column, row = round(meets.c), round(meets.f)
    far = max(picture.width, picture.height)
    off = (meets.c - column, meets.f - row, (meets.a - 1) * far, (meets.e - 1) * far)
    if meets.b or meets.d or max(map(abs, off)) > SAME_PX:
        return None
    return column, row


def _cut_out(picture: Gridded, corner: tuple[int, int], side_px: int) -> RGBA | None:
    """The block out of such a picture, without resampling."""
    left, top = (max(v, 0) for v in corner)
    right = min(corner[0] + side_px, picture.width)
    bottom = min(corner[1] + side_px, picture.height)
    if left >= right or top >= bottom:
        return None
    target = np.zeros((4, side_px, side_px), np.uint8)
    rows = slice(top - corner[1], bottom - corner[1])
    columns = slice(left - corner[0], right - corner[0])
    window = Window(left, top, right - left, bottom - top)
    target[:, rows, columns] = picture.read(window, (bottom - top, right - left))
    return target


def _shape(window: Window, side_px: int) -> tuple[int, int]:
    """Rows and columns in which a window is read: at least twice as fine as what it becomes.

    The rest is left to the warp. Raster formats have overviews for that, so that a map of 1 m out
    of pixels of 0.1 m reads a hundredth of them.
    """
    finer = max(window.width, window.height) / side_px
    shrink = 2 ** max(0, math.floor(math.log2(max(finer, 1) / 2)))
    return math.ceil(window.height / shrink), math.ceil(window.width / shrink)


def _source_windows(picture: Gridded, grid: Affine, side_px: int) -> Iterator[tuple[Window, float]]:
    """The part of a picture under a block, and the turn of the globe by which they meet."""
    along = np.linspace(0, side_px, 9)
    columns, rows = (v.ravel() for v in np.meshgrid(along, along))
    xs, ys = applied(grid, columns, rows)
    east, north = (np.array(v) for v in warp_points(WEB_MERCATOR, picture.crs, xs, ys))
    finite = np.isfinite(east) & np.isfinite(north)
    for shift in (0.0, -360.0, 360.0) if picture.crs.is_geographic else (0.0,):
        at = applied(~picture.transform, east[finite] - shift, north[finite])
        left, right = _span(at[0], picture.width)
        top, bottom = _span(at[1], picture.height)
        if left < right and top < bottom:
            yield Window(left, top, right - left, bottom - top), shift


def _span(places: npt.NDArray[np.float64], length: int) -> tuple[int, int]:
    """Whole pixels around places, with a margin, cut to the picture."""
    if not places.size:
        return 0, 0
    first = int(np.floor(places.min())) - SOURCE_MARGIN_PX
    last = int(np.ceil(places.max())) + SOURCE_MARGIN_PX
    return max(first, 0), min(last, length)
