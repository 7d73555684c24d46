"""One picture that tells why a match answered so: the photo's fan, belief, the fan on the map.

Knows nothing of models: it takes their numbers as arrays (``Reasons``). Letters: F slices of
a fan, Z rings, H x W places of the map.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw

from maps.card import (
    BELIEF,
    CARD,
    DIM,
    FINER,
    INK,
    NO_IMAGERY,
    PICKED,
    TRUTH,
    Box,
    Caption,
    Card,
    Colour,
    Measures,
    Point,
    Spacing,
    answer_colour,
    answer_words,
    between,
    box_px,
    check_height,
    draw_dot,
    draw_hollow_diamond,
    draw_others,
    draw_way,
    ends_px,
    format_of,
    ground_in,
    probability_words,
    ramp,
    swatch,
    warned_words,
)
from maps.layers import Square
from maps.lettering import credits_of, font, wrapped
from maps.pictures import check_imagery
from zoomloc.world.answers import Answer
from zoomloc.world.cells import LatLng, size_m, xy_of
from zoomloc.world.images import load_fitted
from zoomloc.world.pyramid import TilePyramid
from zoomloc.world.region import Region
from zoomloc.world.wording import called, metres

Array = npt.NDArray[np.float64]

_HEIGHTS_PX = (240, 1200)  # below, captions cannot be read
_GRID, _LINE = 0.34, 0.013  # of the height: the grid below the photo, and between the two
_WIDEST = 1.7  # of the height: a wide photo is shown smaller, never cut
_TITLE, _SMALL, _TINY = 0.058, 0.045, 0.032  # letters, of the height
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
_NUMBER = 0.024  # of the height: radius of an alternative's mark
_SPACING = Spacing(before=0.035, mark=0.02, word=0.052, after=0.075, down=_SMALL * 0.62)
_LEAST_BELIEF = 0.001  # less is not tinted; the tint grows with the logarithm
_SPOT_M, _SPOTS = 16.0, 50  # belief is shown of spots so wide, at most so many across
_CLOSE_UP = 2.2  # side of the close-up, by how far the fan reaches
_FOR, _AGAINST = PICKED, (70, 150, 255)  # told apart by those who see red and green as one
_DIMMED = 0.55  # of the light of the imagery below a tint


class Reasons(Protocol):
    """What is drawn of a match; ``zoomloc.scorers.why.Why`` says what each of them is."""

    @property
    def belief(self) -> Array: ...  # noqa: D102
    @property
    def north_west(self) -> LatLng: ...  # noqa: D102
    @property
    def south_east(self) -> LatLng: ...  # noqa: D102
    @property
    def feature_m(self) -> float: ...  # noqa: D102
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


class _Panel(NamedTuple):
    """A picture, what stands below it, and the colours that its key explains."""

    picture: Image.Image
    title: str
    note: str
    key: Sequence[Image.Image | str]  # swatches and words, from the left


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
    whole, close = _whole_square(reasons, region), _close_square(answer, reasons, region)
    panels = [
        _photo_panel(reasons, photo, large),
        _belief_panel(answer, reasons, pyramid, (whole, close), large),
        _fan_panel(answer, reasons, pyramid, close, large),
    ]
    card = Card([panel.picture for panel in panels], large, _MEASURES, warned_words(answer))
    _draw_rings(card, panels[0].picture, reasons.rings_m)
    card.draw_links([(1, box_px(close, whole, large))], (*INK, 110), max(2, large // 300))
    card.draw_captions([_caption(panel, card) for panel in panels])
    _draw_footer(card, credits_of(region), answer)
    card.write(out)


# 1. the photo and its fan


def _photo_panel(reasons: Reasons, path: Path, px: int) -> _Panel:
    """The photo as the model sees it, cut into slices, above the grid of confidence."""
    across, down = reasons.photo_px
    width = round(min(px * (1 - _GRID - _LINE) * across / down, _WIDEST * px))
    times = math.ceil(width / across)  # whole, so that bars are as the model has them
    photo = Image.fromarray(load_fitted(path, across * times, down * times))
    photo = photo.resize((width, max(1, round(width * down / across))))
    edges = sorted({share for pair in reasons.slices.tolist() for share in pair if pair[1] > 0})
    _draw_uprights(photo, [share * width for share in edges])
    grid = _grid(reasons, width, round(px * _GRID))
    panel = Image.new("RGB", (width, photo.height + round(px * _LINE) + grid.height), CARD)
    panel.paste(photo, (0, 0))
    panel.paste(grid, (0, panel.height - grid.height))
    note = (
        "Each column of the grid is a slice of the view, each row a distance, the nearest at "
        "the bottom. Bright: sure of what stands there."
    )
    sureness = ramp(px, [_sureness(share) for share in np.linspace(0, 1, 64)])
    return _Panel(panel, "What does the photo show?", note, [sureness, "unsure to sure"])


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


def _grid(reasons: Reasons, width: int, height: int) -> Image.Image:
    """A cell for each slice and ring, as wide as the slice is in the photo."""
    grid = Image.new("RGB", (width, height), CARD)
    draw = ImageDraw.Draw(grid)
    rings = len(reasons.rings_m)
    gap = max(1, width // 400)
    for (begin, end), sure in zip(reasons.slices, reasons.confidence, strict=True):
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


# 2. belief


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
) -> _Panel:
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
    draw_others(draw, answer, whole, px, px * _NUMBER)
    draw_dot(draw, place, px / 130, answer_colour(answer))
    note = (
        "The photo is compared with every place of the map, in every heading. Tint: belief that "
        f"it was taken within a spot of {metres(spot_m)}, any heading."
    )
    key: list[Image.Image | str] = []
    for share in (_LEAST_BELIEF, 0.01, 0.1, 1.0):
        t = _strength(np.array(share)).item()
        key += [swatch(px, between((CARD, _heat(t)), _opacity(t))), f"{100 * share:g} %"]
    return _Panel(base, "Which place looks like that?", note, key)


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


# 3. the fan on the map


def _close_square(answer: Answer, reasons: Reasons, region: Region) -> Square:
    """A square round the answer, a little wider than a full circle of bins."""
    level = region.terminal_level
    side = _CLOSE_UP * max(reasons.borders_m) / size_m(level, answer.lat)
    x, y = xy_of(np.array([answer.lat]), np.array([answer.lng]), level)
    return Square(level, float(x[0]) - side / 2, float(y[0]) - side / 2, side, side)


def _fan_panel(
    answer: Answer, reasons: Reasons, pyramid: TilePyramid, square: Square, px: int
) -> _Panel:
    """The ground round the answer, north up, with the bins, the heading, answer and truth."""
    base, _ = ground_in(square, pyramid, px)
    place, truth = ends_px(answer, square, px)
    per_m = px / (_CLOSE_UP * max(reasons.borders_m))
    base = _with_bins(base, reasons, place, per_m)
    draw = ImageDraw.Draw(base)
    bearing = reasons.heading_deg if answer.bearing_deg is None else answer.bearing_deg
    if truth is not None:
        draw_way(draw, place, truth, px // 80, TRUTH)
        draw_hollow_diamond(base, truth, px / 15, TRUTH)
    _draw_arrow(draw, place, bearing, max(reasons.borders_m) * per_m * 1.05, px)
    draw_others(draw, answer, square, px, px * _NUMBER)
    draw_dot(draw, place, px / 55, answer_colour(answer))
    note = (
        f"Slices and rings laid on the map, looking to {bearing:.0f}°. Filled by how well photo "
        "and map agree: the fuller, the more that part counts."
    )
    key = (swatch(px, _FOR), "speaks for this place", swatch(px, _AGAINST), "against")
    return _Panel(base, f"Why here? The {answer_words(answer, ',')}", note, key)


def _with_bins(base: Image.Image, reasons: Reasons, place: Point, per_m: float) -> Image.Image:
    """The ground with every bin that the photo shows outlined and filled."""
    over = Image.new("RGBA", base.size)
    draw = ImageDraw.Draw(over)
    strongest = max(float(np.abs(reasons.contributions).max()), 1e-9)
    thin = max(1, base.width // 400)
    for corners, value in _bins(reasons, place, per_m):
        fill = _FOR if value > 0 else _AGAINST
        opacity = round(215 * (abs(value) / strongest) ** 0.7)
        draw.polygon(corners, (*fill, opacity))
        draw.line([*corners, corners[0]], (*INK, 150), thin)
    return Image.alpha_composite(base.convert("RGBA"), over).convert("RGB")


def _bins(reasons: Reasons, place: Point, per_m: float) -> Iterator[tuple[list[Point], float]]:
    """Corners of each bin in pixels, and what it says."""
    half = reasons.slice_deg / 2
    for i, (begin, end) in enumerate(reasons.slices):
        if end <= begin:
            continue
        middle = reasons.heading_deg + float(reasons.azimuths_deg[i])
        turns = np.linspace(middle - half, middle + half, 13).tolist()
        for ring, value in enumerate(reasons.contributions[i].tolist()):
            near, far = (edge * per_m for edge in reasons.borders_m[ring : ring + 2])
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


# 4. what stands round the panels


def _draw_rings(card: Card, picture: Image.Image, rings_m: Sequence[float]) -> None:
    """The distance of each row of the grid, beside it; not so many that they touch."""
    draw, tiny = ImageDraw.Draw(card.image), font(card.height * _TINY)
    bottom = card.top_of(picture) + picture.height
    x = card.lefts[0] + picture.width + card.height * 0.012
    row = card.height * _GRID / len(rings_m)
    every = math.ceil(card.height * _TINY * 1.1 / row)
    for ring in range(0, len(rings_m), every):
        y = bottom - (ring + 0.5) * row
        draw.text((x, y), f"{rings_m[ring]:g} m", DIM, tiny, anchor="lm")


def _caption(panel: _Panel, card: Card) -> Caption:
    """As wide as the panel."""
    lines = wrapped(panel.note, card.small, max(panel.picture.width, card.height))
    return Caption(panel.title, lines, panel.key)


def _draw_footer(card: Card, credits: str, answer: Answer) -> None:
    """Attribution, never cut; the probability and the marks below the last panel."""
    height, line = card.height, card.height * _LINE_HIGH
    spacing = Spacing(*(height * share for share in _SPACING))
    card.draw_others(answer, spacing, line)
    words, names = probability_words(answer), [called(answer), "truth"][: 1 + bool(answer.truth)]
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
