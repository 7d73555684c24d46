"""Pictures inlined into the page within a budget: the region's ground, finer views, thumbnails.

Knows nothing of HTML or Folium. Every picture is re-encoded as a JPEG data URI.
"""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from maps.layers import Ground, Square
from zoomloc.errors import ImageryError, PhotoError
from zoomloc.world.cells import Cell
from zoomloc.world.pyramid import TilePyramid
from zoomloc.world.region import Region

Rgb = npt.NDArray[np.uint8]  # (H, W, 3)

_BASE_PX = (1536, 1024, 768, 512, 256)  # tried in this order until one fits its share
_BASE_SHARE, _THUMBNAIL_SHARE = 0.5, 0.4  # of the budget that is left
_FINER_MARGIN = 1  # cells of context on each side of a path cell
_FINER_GAIN = 0.7  # a finer view is worth its bytes where its pixels are smaller by this factor
_QUALITY = 82


class Budget:
    """Bytes that may still be spent."""

    def __init__(self, size_bytes: float) -> None:
        self.left = size_bytes

    def take(self, text: str, share: float = 1.0) -> bool:
        """Spend the text's bytes if they are within a share of what is left."""
        fits = len(text) <= self.left * share
        self.left -= len(text) if fits else 0
        return fits


def check_imagery(region: Region, pyramid: TilePyramid) -> None:
    """Refuse imagery that holds nothing of the region: raises ImageryError."""
    columns = np.array([root.x for root in region.roots], np.int64)
    rows = np.array([root.y for root in region.roots], np.int64)
    if not (pyramid.coverage(region.root_level, columns, rows) > 0).any():
        raise ImageryError(
            f"imagery holds nothing of region {region.name!r} (roots "
            f"{', '.join(root.quadkey for root in region.roots)}); "
            "take the imagery.pmtiles that lies beside its region.json"
        )


def base_picture(ground: Ground, pyramid: TilePyramid, budget: Budget) -> tuple[Square, str, float]:
    """The region's own imagery: its square, its data URI, and its pixel as a share of the world.

    The largest picture that fits its share of the budget is taken, the smallest if none does.
    """
    extent = ground.extent
    native = max(extent.width, extent.height) * _pixels_across(pyramid, extent.level)
    size_px = min(_BASE_PX[0], max(64, round(native)))
    pixels, square = _window(pyramid, extent, size_px)
    for limit_px in (size_px, *(px for px in _BASE_PX if px < size_px)):
        uri = data_uri(_shrunk(pixels, limit_px))
        if budget.take(uri, _BASE_SHARE):
            break
    else:
        budget.left -= len(uri)
    pixel = max(square.width, square.height) / (1 << extent.level) / min(limit_px, size_px)
    return square, uri, pixel


def add_thumbnails(
    answers: Sequence[dict[str, Any]], photos: Mapping[str, Path], budget: Budget
) -> None:
    """Put a small picture of its photo into each answer's data, until their share is spent.

    A photo that is missing or cannot be read goes without: the map is of the answers.
    """
    share = Budget(budget.left * _THUMBNAIL_SHARE)
    side_px = 480 if len(answers) <= 20 else 240 if len(answers) <= 150 else 120
    for answer in answers:
        path = photos.get(answer["photo"])
        uri = _thumbnail(path, side_px) if path is not None else None
        if uri is None:
            continue
        if not share.take(uri):
            break
        budget.left -= len(uri)
        answer["thumbnail"] = uri


def add_finer_views(
    answers: Sequence[dict[str, Any]],
    paths: Sequence[list[Cell]],
    ground: Ground,
    pyramid: TilePyramid,
    pixel: float,
    budget: Budget,
) -> dict[str, dict[str, Any]]:
    """Views along the zoom paths that are finer than the base picture, shared between answers.

    ``pixel``: the base picture's, as a share of the world. Coarse zooms of all answers come before
    fine ones, so that a small budget is spread evenly. Returns the pictures by name; each answer's
    ``finer`` lists the names of its own.
    """
    views = [list(_finer_squares(path, pyramid, pixel, len(answers))) for path in paths]
    pictures: dict[str, dict[str, Any]] = {}
    for step in range(max(map(len, views))):
        for answer, squares in zip(answers, views, strict=True):
            if step >= len(squares):
                continue
            square, size_px = squares[step]
            name = f"{square.level}/{square.x:.0f}/{square.y:.0f}"
            if name not in pictures:
                uri = data_uri(_window(pyramid, square, size_px)[0])
                if not budget.take(uri):
                    return pictures
                pictures[name] = {"bounds": ground.box(square), "uri": uri}
            answer["finer"].append(name)
    return pictures


def data_uri(pixels: Rgb, quality: int = _QUALITY) -> str:
    """An RGB picture as a JPEG data URI."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _finer_squares(
    path: list[Cell], pyramid: TilePyramid, pixel: float, answers: int
) -> Iterator[tuple[Square, int]]:
    """Squares round the path's cells, with their size in pixels, each finer than what is below."""
    limit_px = 640 if answers <= 10 else 384
    finest = 1.0 / _pixels_across(pyramid, 0)
    for cell in path[1:]:
        side = 1 + 2 * _FINER_MARGIN
        share = side / (1 << cell.level)
        own = max(share / limit_px, finest)
        if own < _FINER_GAIN * pixel:
            square = Square(cell.level, cell.x - _FINER_MARGIN, cell.y - _FINER_MARGIN, side, side)
            yield square, max(round(share / own), 16)
            pixel = own


def _window(pyramid: TilePyramid, square: Square, size_px: int) -> tuple[Rgb, Square]:
    """Imagery of a box, its long side ``size_px``, and the box of exactly its pixels."""
    side = max(square.width, square.height)
    pixels = pyramid.window(square.level, square.x, square.y, side, size_px)
    width_px = max(1, round(square.width / side * size_px))
    height_px = max(1, round(square.height / side * size_px))
    kept = square._replace(width=width_px / size_px * side, height=height_px / size_px * side)
    return pixels[:height_px, :width_px], kept


def _pixels_across(pyramid: TilePyramid, level: int) -> float:
    """Stored pixels of the finest imagery along one cell of a level."""
    return pyramid.tile_px * 2.0 ** (pyramid.max_level - level)


def _shrunk(pixels: Rgb, side_px: int) -> Rgb:
    """The picture with its long side at most ``side_px``."""
    height, width = pixels.shape[:2]
    share = side_px / max(height, width)
    if share >= 1:
        return pixels
    size = (max(1, round(width * share)), max(1, round(height * share)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def _thumbnail(path: Path, side_px: int) -> str | None:
    """A small copy of a photo, without its EXIF; None where it cannot be read."""
    from zoomloc.world.images import load_rgb

    try:
        return data_uri(load_rgb(path, max_side_px=side_px))
    except PhotoError:
        return None
