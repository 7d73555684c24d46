"""A plan to draw on: a region's own imagery under a veil, its outline, a bar of metres.

Knows nothing of HTML or of what is drawn on it. Things are drawn into the picture, so that a
million weigh as much as ten.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from maps.layers import Ground, Square
from maps.lettering import font
from maps.pictures import Rgb
from zoomloc.world.cells import Floats, LatLng, latlng_of, size_m, xy_of
from zoomloc.world.pyramid import TilePyramid
from zoomloc.world.wording import metres

LONG_PX = 1060  # of the plan's longer side
FINE = 2  # drawn so much larger, then reduced: smooth dots
PLAIN = (238, 240, 236)  # ground without imagery
VEIL = 0.45  # of white over imagery, so that dots stand out
LEVEL = 16  # whose cells the plane counts in where there is no region
MARGIN = 0.06  # of the longer side, round places without a region
LEAST_M = 100.0  # shown at least, where there is no region


class Plan:
    """A square of ground as a picture; ``pen`` draws in pixels, FINE for each one that is kept."""

    def __init__(self, square: Square, ground: Ground | None, pyramid: TilePyramid | None) -> None:
        self.square = square
        side = max(square.width, square.height)
        width, height = (max(round(LONG_PX * s / side), 160) for s in (square.width, square.height))
        picture = _ground(square, pyramid, width, height)
        size = (width * FINE, height * FINE)
        self.picture = picture.resize(size, Image.Resampling.BILINEAR)
        self.per_cell = LONG_PX * FINE / side
        self.pen = ImageDraw.Draw(self.picture)
        for ring in ground.outline if ground is not None else ():
            points, _ = self.points([LatLng(*point) for point in (*ring, ring[0])])
            self.pen.line(list(map(tuple, points.tolist())), fill=(60, 60, 60), width=FINE)

    def points(self, places: Sequence[LatLng]) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Pixels (n, 2) of places, the short way round the globe, and which are on the plan."""
        degrees, square = np.array(places, np.float64).reshape(-1, 2), self.square
        x, y = xy_of(degrees[:, 0], degrees[:, 1], square.level)
        world = 1 << square.level
        x = x - world * np.round((x - square.x - square.width / 2) / world) - square.x
        y = y - square.y
        inside = (x >= 0) & (y >= 0) & (x <= square.width) & (y <= square.height)
        return np.stack([x, y], 1) * self.per_cell, inside

    def finished(self) -> Rgb:
        """The picture with its bar of metres."""
        self._draw_scale()
        return np.asarray(self.picture.reduce(FINE))

    def _draw_scale(self) -> None:
        """A bar of a round length at the lower left, true in the middle of the plan."""
        square, size = self.square, self.picture.size
        lat, _ = latlng_of(np.zeros(1), np.array([square.y + square.height / 2]), square.level)
        per_m = self.per_cell / size_m(square.level, float(lat[0]))
        longest = 0.3 * size[0] / per_m
        power = 10.0 ** math.floor(math.log10(longest))
        length = max(step for step in (1.0, 2.0, 5.0) if step * power <= longest) * power
        letters, pad = font(15 * FINE), 12 * FINE
        left, base = pad, size[1] - pad
        right, text = left + length * per_m, metres(length)
        box = (left - 6, base - 26 * FINE, max(right, left + letters.getlength(text)) + 6, base + 6)
        self.pen.rectangle(box, (255, 255, 255))
        self.pen.text((left, base - 24 * FINE), text, (30, 30, 30), letters)
        self.pen.line([(left, base - 2), (right, base - 2)], (30, 30, 30), 2 * FINE)


def around(places: Sequence[LatLng]) -> Square:
    """A box round some places, the shorter way round the globe."""
    lat, lng = np.array(places, np.float64).T
    middle = float(np.median(lng))
    x, y = xy_of(lat, middle + (lng - middle + 180) % 360 - 180, LEVEL)
    least = LEAST_M / size_m(LEVEL, float(np.median(lat)))
    long = max(float(np.ptp(x)), float(np.ptp(y)), least)
    pad = MARGIN * long
    wide, high = (max(float(np.ptp(v)), 0.5 * long) + 2 * pad for v in (x, y))
    west, north = (float(v.min() + v.max()) / 2 for v in (x, y))
    return Square(LEVEL, west - wide / 2, north - high / 2, wide, high)


def _ground(square: Square, pyramid: TilePyramid | None, width: int, height: int) -> Image.Image:
    if pyramid is None:
        return Image.new("RGB", (width, height), PLAIN)
    side = max(square.width, square.height)
    pixels = pyramid.window(square.level, square.x, square.y, side, LONG_PX)
    picture = Image.fromarray(pixels).crop((0, 0, width, height))
    return Image.blend(picture, Image.new("RGB", picture.size, (255, 255, 255)), VEIL)
