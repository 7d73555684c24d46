"""One picture that tells why a match answered so: the photo's fan, belief, the fan on the map.

Knows nothing of models: it takes their numbers as arrays (``Reasons``); nor of how a fan is
drawn. Letters: H x W places of the map.
"""

import math
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw

from maps.card import (
    BELIEF,
    CARD,
    FINER,
    INK,
    TRUTH,
    Box,
    Caption,
    Card,
    Colour,
    Measures,
    Panel,
    Point,
    Spacing,
    answer_colour,
    between,
    box_px,
    check_height,
    draw_dot,
    draw_hollow_diamond,
    draw_others,
    ends_px,
    format_of,
    ground_in,
    swatch,
    warned_words,
)
from maps.fan import NUMBER, Array, Fan, close_square, draw_rings, fan_panel, photo_panel
from maps.layers import Square
from maps.lettering import credits_of, wrapped
from maps.pictures import check_imagery
from zoomloc.world.answers import Answer
from zoomloc.world.cells import LatLng, xy_of
from zoomloc.world.pyramid import TilePyramid
from zoomloc.world.region import Region
from zoomloc.world.wording import called, metres, sure

_HEIGHTS_PX = (240, 1200)  # below, captions cannot be read
_TITLE, _SMALL = 0.058, 0.045  # letters, of the height
_LINE_HIGH = _SMALL * 1.25
_MEASURES = Measures(
    pad=1 / 16,
    gap=1 / 9,
    title=_TITLE,
    small=_SMALL,
    above=0.03,
    heading=_TITLE * 1.4,
    line=_LINE_HIGH,
    after=_LINE_HIGH * 1.6,  # for the key
)
_SPACING = Spacing(before=0.035, mark=0.02, word=0.052, after=0.075, down=_SMALL * 0.62)
_LEAST_BELIEF = 0.001  # less is not tinted; the tint grows with the logarithm
_SPOT_M, _SPOTS = 16.0, 50  # belief is shown of spots so wide, at most so many across
_DIMMED = 0.55  # of the light of the imagery below a tint


class Reasons(Fan, Protocol):
    """A fan, and belief of places; ``zoomloc.scorers.why.Why`` says what each of them is."""

    @property
    def belief(self) -> Array: ...  # noqa: D102
    @property
    def north_west(self) -> LatLng: ...  # noqa: D102
    @property
    def south_east(self) -> LatLng: ...  # noqa: D102
    @property
    def feature_m(self) -> float: ...  # noqa: D102


def write_why(
    answer: Answer,
    region: Region,
    pyramid: TilePyramid,
    reasons: Reasons,
    photo: Path,
    out: Path,
    height_px: int = 400,
) -> None:
    """Write one PNG, JPEG or WebP (by suffix) that tells why a match answered so, atomically.

    From the left: the photo with its slices, and below it how sure it is of each slice and ring;
    the whole ground, tinted by belief, with the answer (dot), other places (numbers) and the truth
    (diamond) where known; the ground round the answer, with each bin of the photo filled by how
    much it speaks for the place. ``height_px`` (240 to 1200) is that of the panels. The photo is
    shown as it is: have the right to. Raises OutputError for another suffix or a place that cannot
    be written, PhotoError for an unreadable photo, ImageryError where region and imagery do not
    belong together, ZoomlocError for another height.
    """
    format_of(out)
    check_imagery(region, pyramid)
    check_height("why", height_px, *_HEIGHTS_PX)
    large = height_px * FINER
    whole, close = _whole_square(reasons, region), close_square(answer, reasons, region)
    panels = [
        photo_panel(reasons, photo, large),
        _belief_panel(answer, reasons, pyramid, (whole, close), large),
        fan_panel(answer, reasons, pyramid, close, large),
    ]
    card = Card([panel.picture for panel in panels], large, _MEASURES, warned_words(answer))
    draw_rings(card, panels[0].picture, reasons.rings_m)
    card.draw_links([(1, box_px(close, whole, large))], (*INK, 110), max(2, large // 300))
    card.draw_captions([_caption(panel, card) for panel in panels])
    _draw_footer(card, credits_of(region), answer)
    card.write(out)


# 1. belief


def _whole_square(reasons: Reasons, region: Region) -> Square:
    """The square around the ground that belief covers, in terminal cells."""
    box = _ground_box(reasons, region.terminal_level)
    side = max(box.width, box.height)
    x, y = box.x + (box.width - side) / 2, box.y + (box.height - side) / 2
    return Square(box.level, x, y, side, side)


def _ground_box(reasons: Reasons, level: int) -> Square:
    """The ground that belief covers; it may run on across the antimeridian."""
    corners = reasons.north_west, reasons.south_east
    lat, lng = np.array(corners, np.float64).T
    x, y = xy_of(lat, lng, level)
    width = (x[1] - x[0]) % (1 << level)
    return Square(level, float(x[0]), float(y[0]), float(width), float(y[1] - y[0]))


def _belief_panel(
    answer: Answer,
    reasons: Reasons,
    pyramid: TilePyramid,
    squares: tuple[Square, Square],
    px: int,
) -> Panel:
    """All the ground, tinted by belief, with the close-up's frame, truth and answer."""
    whole, close = squares
    base, has_imagery = ground_in(whole, pyramid, px)
    spots, spot_m = _spots(reasons)
    colour, opacity = _tint(spots, box_px(_ground_box(reasons, whole.level), whole, px), px)
    base = base.point(lambda value: round(value * _DIMMED))
    base.paste(colour, mask=ImageChops.multiply(opacity, has_imagery))
    draw = ImageDraw.Draw(base)
    draw.rectangle(box_px(close, whole, px), None, INK, max(2, px // 200))
    place, truth = ends_px(answer, whole, px)
    if truth is not None:
        draw_hollow_diamond(base, truth, px / 22, TRUTH)
    draw_others(draw, answer, whole, px, px * NUMBER)
    draw_dot(draw, place, px / 130, answer_colour(answer))
    note = (
        "The photo is compared with every place of the map, in every heading. Tint: belief that "
        f"it was taken within a spot of {metres(spot_m)}, any heading."
    )
    key: list[Image.Image | str] = []
    for share in (_LEAST_BELIEF, 0.01, 0.1, 1.0):
        t = _strength(np.array(share)).item()
        key += [swatch(px, between((CARD, _heat(t)), _opacity(t))), f"{100 * share:g} %"]
    return Panel(base, "Which place looks like that?", note, key)


def _spots(reasons: Reasons) -> tuple[Array, float]:
    """(H, W) belief within the spot round each place, and the side of a spot.

    Spots widen with the ground, since a lone place would not be seen in a picture of a city.
    """
    belief = reasons.belief
    wide_m = max(_SPOT_M, max(belief.shape) * reasons.feature_m / _SPOTS)
    across = max(1, round(wide_m / reasons.feature_m))
    before, after = (across - 1) // 2, across // 2
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (before + 1, after)
        total = np.cumsum(np.pad(belief, pad), axis=axis)
        here = np.arange(belief.shape[axis])
        belief = total.take(here + across, axis) - total.take(here, axis)
    return belief.clip(0, 1), across * reasons.feature_m


def _tint(spots: Array, box: Box, px: int) -> tuple[Image.Image, Image.Image]:
    """Colours and their opacity in a picture ``px`` a side, of which the places fill a box."""
    left, top, right, bottom = box
    middles = np.arange(px, dtype=np.float64) + 0.5
    rows, inside_rows = _places_at((middles - top) / (bottom - top), spots.shape[0])
    columns, inside_columns = _places_at((middles - left) / (right - left), spots.shape[1])
    seen = spots[np.ix_(rows, columns)] * np.outer(inside_rows, inside_columns)
    strength = _strength(seen)
    steps = np.linspace(0, 1, 256)
    index = np.round(np.clip(strength, 0, 1) * 255).astype(np.int64)
    colours = np.array([_heat(t) for t in steps], np.uint8)[index]
    opacity = np.array([255 * _opacity(t) for t in steps], np.uint8)[index]
    opacity[strength < 0] = 0
    return Image.fromarray(colours), Image.fromarray(opacity)


def _strength(belief: Array) -> Array:
    """0 at the least belief that is tinted, 1 at all of it, growing with the logarithm."""
    return np.asarray(1 - np.log10(np.maximum(belief, 1e-12)) / math.log10(_LEAST_BELIEF))


def _places_at(shares: Array, places: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Which place lies at each share of a row of places, and whether one does."""
    return (shares * places).astype(np.int64).clip(0, places - 1), (shares >= 0) & (shares < 1)


def _heat(strength: float) -> Colour:
    return between(((130, 40, 170), BELIEF, (255, 150, 60), (255, 245, 190)), strength)


def _opacity(strength: float) -> float:
    return 0.45 + 0.45 * strength


# 2. what stands round the panels


def _caption(panel: Panel, card: Card) -> Caption:
    """As wide as the panel."""
    lines = wrapped(panel.note, card.small, max(panel.picture.width, card.height))
    return Caption(panel.title, lines, panel.key)


def _draw_footer(card: Card, credits: str, answer: Answer) -> None:
    """Attribution, never cut; the probability and the marks below the last panel."""
    height, line = card.height, card.height * _LINE_HIGH
    spacing = Spacing(*(height * share for share in _SPACING))
    card.draw_others(answer, spacing, line)
    words, names = sure(answer), [called(answer), "truth"][: 1 + bool(answer.truth)]
    left = min(card.lefts[2], card.width - card.pad - card.legend_px(words, names, spacing))
    lines = wrapped(credits, card.small, left - 2 * card.pad)
    top = card.image.height + 0.5 * line
    draw = card.grow(round(line * (0.5 + max(1, len(lines))) + card.pad))
    card.draw_lines(draw, lines, (card.pad, top), line)

    def draw_answer(at: Point) -> None:
        draw_dot(draw, at, height * 0.013, answer_colour(answer))

    def draw_truth(at: Point) -> None:
        draw_hollow_diamond(card.image, at, height * 0.026, TRUTH)

    marks = list(zip(names, (draw_answer, draw_truth), strict=False))
    card.draw_legend(draw, words, marks, (left, top), spacing)
