"""The fan of a photo: its slices and rings below the photo, and laid on the ground.

Knows nothing of models, nor of what else stands on the card: it takes a match's numbers as
arrays (``Fan``).
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw

from maps.card import (
    CARD,
    DIM,
    INK,
    NO_IMAGERY,
    PICKED,
    TRUTH,
    Box,
    Card,
    Colour,
    Panel,
    Point,
    answer_colour,
    answer_words,
    between,
    draw_dot,
    draw_hollow_diamond,
    draw_others,
    draw_way,
    ends_px,
    ground_in,
    ramp,
    swatch,
)
from maps.layers import Square
from maps.lettering import font
from zoomloc.world.answers import Answer
from zoomloc.world.cells import size_m, xy_of
from zoomloc.world.images import load_fitted
from zoomloc.world.pyramid import TilePyramid
from zoomloc.world.region import Region

Array = npt.NDArray[np.float64]

NUMBER = 0.024  # of the height: radius of an alternative's mark
_GRID, _LINE = 0.34, 0.013  # of the height: the grid below the photo, and between the two
_WIDEST = 1.7  # of the height: a wide photo is shown smaller, never cut
_TINY = 0.032  # letters, of the height
_CLOSE_UP = 2.2  # side of the close-up, by how far the fan reaches
_FOR, _AGAINST = PICKED, (70, 150, 255)  # told apart by those who see red and green as one


class Fan(Protocol):
    """What is drawn of a photo's fan; ``zoomloc.scorers.why.Why`` says what each of them is."""

    @property
    def photo_px(self) -> tuple[int, int]: ...  # noqa: D102
    @property
    def fov_deg(self) -> float: ...  # noqa: D102
    @property
    def slices(self) -> Array: ...  # noqa: D102
    @property
    def azimuths_deg(self) -> Array: ...  # noqa: D102
    @property
    def slice_deg(self) -> float: ...  # noqa: D102
    @property
    def confidence(self) -> Array: ...  # noqa: D102
    @property
    def contributions(self) -> Array: ...  # noqa: D102
    @property
    def heading_deg(self) -> float: ...  # noqa: D102
    @property
    def rings_m(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def borders_m(self) -> tuple[float, ...]: ...  # noqa: D102


# 1. below the photo


def photo_panel(fan: Fan, path: Path, px: int) -> Panel:
    """The photo as the model sees it, cut into slices, above the grid of confidence."""
    across, down = fan.photo_px
    width = round(min(px * (1 - _GRID - _LINE) * across / down, _WIDEST * px))
    times = math.ceil(width / across)  # whole, so that bars are as the model has them
    photo = Image.fromarray(load_fitted(path, across * times, down * times))
    photo = photo.resize((width, max(1, round(width * down / across))))
    edges = sorted({share for pair in fan.slices.tolist() for share in pair if pair[1] > 0})
    _draw_uprights(photo, [share * width for share in edges])
    grid = _grid(fan, width, round(px * _GRID))
    panel = Image.new("RGB", (width, photo.height + round(px * _LINE) + grid.height), CARD)
    panel.paste(photo, (0, 0))
    panel.paste(grid, (0, panel.height - grid.height))
    note = (
        "Each column of the grid is a slice of the view, each row a distance, the nearest at "
        "the bottom. Bright: sure of what stands there."
    )
    sureness = ramp(px, [_sureness(share) for share in np.linspace(0, 1, 64)])
    return Panel(panel, "What does the photo show?", note, [sureness, "unsure to sure"])


def _draw_uprights(photo: Image.Image, at_px: Sequence[float]) -> None:
    """Thin lines from top to bottom, seen on any photo."""
    thin = max(1, photo.width // 400)
    mask = Image.new("L", photo.size)
    draw = ImageDraw.Draw(mask)
    for x in at_px:
        if 2 * thin < x < photo.width - 2 * thin:  # not along the picture's own edge
            draw.line([(x, 0), (x, photo.height)], 190, thin)
    photo.paste(CARD, mask=ImageChops.offset(mask, thin, 0))
    photo.paste(INK, mask=mask)


def _grid(fan: Fan, width: int, height: int) -> Image.Image:
    """A cell for each slice and ring, as wide as the slice is in the photo."""
    grid = Image.new("RGB", (width, height), CARD)
    draw = ImageDraw.Draw(grid)
    rings = len(fan.rings_m)
    gap = max(1, width // 400)
    for (begin, end), sure in zip(fan.slices, fan.confidence, strict=True):
        for ring in range(rings if end > begin else 0):
            top = height * (rings - 1 - ring) / rings
            box = (begin * width + gap, top + gap, end * width - gap, top + height / rings - gap)
            draw.rectangle(_ordered(box), _sureness(float(sure[ring])))
    return grid


def _ordered(box: Box) -> Box:
    """The box, at least a pixel wide and high."""
    left, top, right, bottom = box
    return left, top, max(left, right), max(top, bottom)


def _sureness(share: float) -> Colour:
    return between((NO_IMAGERY, (120, 146, 170), INK), share)


def draw_rings(card: Card, picture: Image.Image, rings_m: Sequence[float]) -> None:
    """The distance of each row of the grid, beside it; not so many that they touch."""
    draw, tiny = ImageDraw.Draw(card.image), font(card.height * _TINY)
    bottom = card.top_of(picture) + picture.height
    x = card.lefts[0] + picture.width + card.height * 0.012
    row = card.height * _GRID / len(rings_m)
    every = math.ceil(card.height * _TINY * 1.1 / row)
    for ring in range(0, len(rings_m), every):
        y = bottom - (ring + 0.5) * row
        draw.text((x, y), f"{rings_m[ring]:g} m", DIM, tiny, anchor="lm")


# 2. on the ground


def close_square(answer: Answer, fan: Fan, region: Region) -> Square:
    """A square round the answer, a little wider than a full circle of bins."""
    level = region.terminal_level
    side = _CLOSE_UP * max(fan.borders_m) / size_m(level, answer.lat)
    x, y = xy_of(np.array([answer.lat]), np.array([answer.lng]), level)
    return Square(level, float(x[0]) - side / 2, float(y[0]) - side / 2, side, side)


def fan_panel(answer: Answer, fan: Fan, pyramid: TilePyramid, square: Square, px: int) -> Panel:
    """The ground round the answer, north up, with the bins, the heading, answer and truth."""
    base, _ = ground_in(square, pyramid, px)
    place, truth = ends_px(answer, square, px)
    per_m = px / (_CLOSE_UP * max(fan.borders_m))
    base = _with_bins(base, fan, place, per_m)
    draw = ImageDraw.Draw(base)
    bearing = fan.heading_deg if answer.bearing_deg is None else answer.bearing_deg
    if truth is not None:
        draw_way(draw, place, truth, px // 80, TRUTH)
        draw_hollow_diamond(base, truth, px / 15, TRUTH)
    _draw_arrow(draw, place, bearing, max(fan.borders_m) * per_m * 1.05, px)
    draw_others(draw, answer, square, px, px * NUMBER)
    draw_dot(draw, place, px / 55, answer_colour(answer))
    note = (
        f"Slices and rings laid on the map, looking to {bearing:.0f}°. Filled by how well photo "
        "and map agree: the fuller, the more that part counts."
    )
    key = (swatch(px, _FOR), "speaks for this place", swatch(px, _AGAINST), "against")
    return Panel(base, f"Why here? The {answer_words(answer, ',')}", note, key)


def _with_bins(base: Image.Image, fan: Fan, place: Point, per_m: float) -> Image.Image:
    """The ground with every bin that the photo shows outlined and filled."""
    over = Image.new("RGBA", base.size)
    draw = ImageDraw.Draw(over)
    strongest = max(float(np.abs(fan.contributions).max()), 1e-9)
    thin = max(1, base.width // 400)
    for corners, value in _bins(fan, place, per_m):
        fill = _FOR if value > 0 else _AGAINST
        opacity = round(215 * (abs(value) / strongest) ** 0.7)
        draw.polygon(corners, (*fill, opacity))
        draw.line([*corners, corners[0]], (*INK, 150), thin)
    return Image.alpha_composite(base.convert("RGBA"), over).convert("RGB")


def _bins(fan: Fan, place: Point, per_m: float) -> Iterator[tuple[list[Point], float]]:
    """Corners of each bin in pixels, and what it says."""
    half = fan.slice_deg / 2
    for i, (begin, end) in enumerate(fan.slices):
        if end <= begin:
            continue
        middle = fan.heading_deg + float(fan.azimuths_deg[i])
        turns = np.linspace(middle - half, middle + half, 13).tolist()
        for ring, value in enumerate(fan.contributions[i].tolist()):
            near, far = (edge * per_m for edge in fan.borders_m[ring : ring + 2])
            inner = [_reached(place, turn, near) for turn in turns]
            yield inner + [_reached(place, turn, far) for turn in turns[::-1]], value


def _reached(start: Point, bearing_deg: float, length: float) -> Point:
    """Where one comes to from a point of a north-up picture."""
    turn = math.radians(bearing_deg)
    return start[0] + length * math.sin(turn), start[1] - length * math.cos(turn)


def _draw_arrow(
    draw: ImageDraw.ImageDraw, start: Point, bearing_deg: float, length: float, px: int
) -> None:
    """A thin shaft and a head, bright with a dark edge."""
    for wider, colour in ((px / 160, CARD), (0.0, INK)):
        tip = _reached(start, bearing_deg, length + wider)
        neck = _reached(start, bearing_deg, length - px / 26)
        wings = [_reached(neck, bearing_deg + side, px / 50 + wider) for side in (90, -90)]
        draw.line([start, neck], colour, round(px / 160 + wider))
        draw.polygon([tip, *wings], colour)
