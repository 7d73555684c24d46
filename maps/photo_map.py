"""Where photos were taken: dots by split on the region's own imagery, or on plain ground.

Knows nothing of HTML. Dots are drawn into the picture, so that a million weigh as much as ten.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw

from maps.layers import Ground, Square
from maps.lettering import font, metres
from maps.photo_charts import COLOURS, split_name
from maps.pictures import Rgb
from zoomloc.world.cells import Floats, latlng_of, size_m, xy_of
from zoomloc.world.photos import Photo
from zoomloc.world.pyramid import TilePyramid

LONG_PX = 1060  # of the map's longer side
FINE = 2  # drawn so much larger, then reduced: smooth dots
PLAIN = (238, 240, 236)  # ground without imagery
VEIL = 0.45  # of white over imagery, so that dots stand out
LEVEL = 16  # whose cells the plane counts in where there is no region
MARGIN = 0.06  # of the longer side, round photos without a region
LEAST_M = 100.0  # shown at least, where there is no region


def coverage_map(
    photos: Sequence[Photo], ground: Ground | None, pyramid: TilePyramid | None
) -> tuple[Rgb, int]:
    """The map, and how many photos lie outside of it.

    With a region the map is of the whole region, and its imagery is the ground where there is one.
    """
    square = _around(photos) if ground is None else ground.extent
    side = max(square.width, square.height)
    width, height = (max(round(LONG_PX * s / side), 160) for s in (square.width, square.height))
    picture = _ground(square, pyramid, width, height)
    x, y = _positions(photos, square)
    per_cell = LONG_PX * FINE / side
    inside = (x >= 0) & (y >= 0) & (x <= square.width) & (y <= square.height)
    drawn = picture.resize((width * FINE, height * FINE), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(drawn)
    if ground is not None:
        _draw_outline(pen, ground, square, per_cell)
    _draw_dots(pen, photos, np.stack([x, y], 1) * per_cell, inside)
    _draw_scale(pen, square, drawn.size, per_cell)
    return np.asarray(drawn.reduce(FINE)), int((~inside).sum())


def _ground(square: Square, pyramid: TilePyramid | None, width: int, height: int) -> Image.Image:
    if pyramid is None:
        return Image.new("RGB", (width, height), PLAIN)
    side = max(square.width, square.height)
    pixels = pyramid.window(square.level, square.x, square.y, side, LONG_PX)
    picture = Image.fromarray(pixels).crop((0, 0, width, height))
    return Image.blend(picture, Image.new("RGB", picture.size, (255, 255, 255)), VEIL)


def _around(photos: Sequence[Photo]) -> Square:
    """A box round the photos, the shorter way round the globe."""
    lng = np.array([photo.lng for photo in photos])
    lat = np.array([photo.lat for photo in photos])
    middle = float(np.median(lng))
    x, y = xy_of(lat, middle + (lng - middle + 180) % 360 - 180, LEVEL)
    least = LEAST_M / size_m(LEVEL, float(np.median(lat)))
    long = max(float(np.ptp(x)), float(np.ptp(y)), least)
    pad = MARGIN * long
    wide, high = (max(float(np.ptp(v)), 0.5 * long) + 2 * pad for v in (x, y))
    west, north = (float(v.min() + v.max()) / 2 for v in (x, y))
    return Square(LEVEL, west - wide / 2, north - high / 2, wide, high)


def _positions(photos: Sequence[Photo], square: Square) -> tuple[Floats, Floats]:
    """Cells from the square's north-west corner, the short way round the globe."""
    places = np.array([photo.place for photo in photos], np.float64)
    x, y = xy_of(places[:, 0], places[:, 1], square.level)
    world = 1 << square.level
    x = x - world * np.round((x - square.x - square.width / 2) / world)
    return x - square.x, y - square.y


def _draw_outline(
    pen: ImageDraw.ImageDraw, ground: Ground, square: Square, per_cell: float
) -> None:
    world = 1 << square.level
    for ring in ground.outline:
        lat, lng = np.array([*ring, ring[0]]).T
        x, y = xy_of(lat, lng, square.level)
        x = x - world * np.round((x - square.x - square.width / 2) / world)
        points = np.stack([x - square.x, y - square.y], 1) * per_cell
        pen.line([tuple(point) for point in points.tolist()], fill=(60, 60, 60), width=FINE)


def _draw_dots(
    pen: ImageDraw.ImageDraw,
    photos: Sequence[Photo],
    points: Floats,
    inside: npt.NDArray[np.bool_],
) -> None:
    """Train below, then val, then test; no two dots of a split on the same pixel."""
    radius = FINE * (5.0 if len(photos) < 1000 else 3.5 if len(photos) < 20_000 else 2.0)
    names = np.array([split_name(photo) for photo in photos])
    for name in ("left out", "train", "val", "test"):
        chosen = np.unique(np.round(points[inside & (names == name)]), axis=0)
        colour = ImageColor.getrgb(COLOURS[name])
        for x, y in chosen.tolist():
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), colour, (255, 255, 255))


def _draw_scale(
    pen: ImageDraw.ImageDraw, square: Square, size: tuple[int, int], per_cell: float
) -> None:
    """A bar of a round length at the lower left, true in the middle of the map."""
    lat, _ = latlng_of(np.zeros(1), np.array([square.y + square.height / 2]), square.level)
    per_m = per_cell / size_m(square.level, float(lat[0]))
    longest = 0.3 * size[0] / per_m
    power = 10.0 ** math.floor(math.log10(longest))
    length = max(step for step in (1.0, 2.0, 5.0) if step * power <= longest) * power
    letters, pad = font(15 * FINE), 12 * FINE
    left, base = pad, size[1] - pad
    right, text = left + length * per_m, metres(length)
    box = (left - 6, base - 26 * FINE, max(right, left + letters.getlength(text)) + 6, base + 6)
    pen.rectangle(box, (255, 255, 255))
    pen.text((left, base - 24 * FINE), text, (30, 30, 30), letters)
    pen.line([(left, base - 2), (right, base - 2)], (30, 30, 30), 2 * FINE)
