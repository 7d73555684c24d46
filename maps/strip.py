"""One picture of one answer: the photo, the view of each zoom, and the cell where it ends.

Knows nothing of models, HTML or Folium, nor of how a card is laid out (``maps.card``).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from maps.card import (
    BELIEF,
    CARD,
    FINER,
    INK,
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
    box_px,
    check_height,
    draw_diamond,
    draw_dot,
    draw_others,
    draw_way,
    ends_px,
    format_of,
    ground_in,
    position,
    warned_words,
)
from maps.layers import Square, path_cells
from maps.lettering import credits_of, wrapped
from maps.pictures import check_imagery
from zoomloc.world.answers import Answer
from zoomloc.world.cells import Cell, latlng_of, size_m
from zoomloc.world.images import load_rgb
from zoomloc.world.pyramid import TilePyramid
from zoomloc.world.region import Region
from zoomloc.world.wording import called, metres, sure

_HEIGHTS_PX = (80, 1000)  # below, captions cannot be read
_LONGEST_PX = 16_383  # WebP's limit
_MEASURES = Measures(
    pad=1 / 12,
    gap=1 / 8,
    title=0.098,
    small=0.083,
    above=0.04,
    heading=0.115,
    line=0.105,
    after=0.04,
    narrowest=2.7,  # what the footer needs
)
_NUMBER = 0.04  # of the height: radius of an alternative's mark
_DARKEST_TINT = 0.45  # opacity of a cell that holds all belief of a view
_TINT_GROWTH = 0.7  # of opacity with belief: a tenth is still seen beside a half

_CLOSE_UP_CELLS = (1.6, 9.0)  # least and greatest side of the close-up, in terminal cells
_WIDEST_PHOTO = 2.0  # of its height; wider ones are shown smaller, never cut


class _Panel(NamedTuple):
    """One square of ground: the cells whose belief tints it, and the one that is outlined."""

    square: Square
    cells: list[Cell]
    picked: Cell
    title: str
    note: str
    is_last: bool = False


def write_strip(
    answer: Answer,
    region: Region,
    pyramid: TilePyramid,
    out: Path,
    photo: Path | None = None,
    height_px: int = 240,
) -> None:
    """Write one PNG, JPEG or WebP (by suffix) that tells how a photo was located, atomically.

    From the left: the photo; the square around the roots, where there are several; the view of
    each zoom with the chosen child outlined, tinted by belief; the terminal cell with answer and
    truth; other places as numbers, where they are seen. Above stands what makes the answer no more
    than a guess; captions and attribution come below, in the letters that Pillow's font has
    (``plain``). ``height_px`` (80 to 1000) is that of the pictures. The photo is shown as it is:
    have the right to. Raises OutputError for another suffix or a place that cannot be written,
    PhotoError for an unreadable photo, RegionError or ImageryError where answer, region and
    imagery do not belong together, ZoomlocError for another height.
    """
    format_of(out)
    check_imagery(region, pyramid)
    panels = _panels(answer, region)
    _check_height(height_px, len(panels))
    large = height_px * FINER
    pictures = [_photo(photo, large)] if photo is not None else []
    pictures += [_picture(panel, answer, pyramid, large) for panel in panels]
    card = Card(pictures, large, _MEASURES, warned_words(answer))
    _draw_links(card, panels)
    first = [Caption("Where was this taken?", [""])] if photo is not None else []
    card.draw_captions([*first, *(Caption(panel.title, [panel.note]) for panel in panels)])
    _draw_footer(card, credits_of(region), answer)
    card.write(out)


def _check_height(height_px: int, panels: int) -> None:
    """Refuse heights at which captions cannot be read or the strip is too long for WebP."""
    least, most = _HEIGHTS_PX
    longest = round(_LONGEST_PX / ((panels + 1) * (1 + _MEASURES.gap) + _WIDEST_PHOTO))
    check_height("strip", height_px, least, min(most, longest))


# 1. what is shown


def _panels(answer: Answer, region: Region) -> list[_Panel]:
    """Root choice (where there is one), zooms, close-up."""
    path = path_cells(answer, region)
    panels = []
    if len(region.roots) > 1:
        title = f"root choice: 1 of {len(region.roots)}"
        square = _around_roots(region)
        panels.append(_Panel(square, list(region.roots), path[0], title, _note(square)))
    for zoom, (cell, picked) in enumerate(zip(path, path[1:], strict=False)):
        square = Square(*cell, 1, 1)
        title = f"zoom {zoom}: 1 of {region.branching}"
        panels.append(_Panel(square, region.children(cell), picked, title, _note(square)))
    leaf = path[-1]
    close = _close_up(answer, leaf)
    title = answer_words(answer, ":")
    size = f"{leaf.size_m:.1f} m" if leaf.size_m < 100 else metres(leaf.size_m)
    note = f"level {leaf.level} · cell of {size}"
    return [*panels, _Panel(close, list(_cells_in(close)), leaf, title, note, True)]


def _around_roots(region: Region) -> Square:
    """The square that a root choice looks at."""
    (column, row), (rows, columns) = region.origin, region.root_shape
    side = max(rows, columns)
    x, y = column + (columns - side) / 2, row + (rows - side) / 2
    return Square(region.root_level, x, y, side, side)


def _close_up(answer: Answer, leaf: Cell) -> Square:
    """A square around the terminal cell and, if it is near enough to be shown, the truth."""
    least, most = _CLOSE_UP_CELLS
    west, north, east, south = float(leaf.x), float(leaf.y), leaf.x + 1.0, leaf.y + 1.0
    if answer.truth is not None:
        x, y = position(answer.truth, Square(*leaf, 1, 1))
        x, y = leaf.x + x, leaf.y + y
        if max(abs(x - west), abs(x - east), abs(y - north), abs(y - south)) < most - least:
            west, north, east, south = min(west, x), min(north, y), max(east, x), max(south, y)
    side = max(east - west, north - south, south - north) + least - 1
    return Square(leaf.level, (west + east - side) / 2, (north + south - side) / 2, side, side)


def _cells_in(square: Square) -> Iterator[Cell]:
    """Cells of the square's level that it touches."""
    world = 1 << square.level
    for y in range(max(math.floor(square.y), 0), min(math.ceil(square.y + square.height), world)):
        for x in range(math.floor(square.x), math.ceil(square.x + square.width)):
            yield Cell(square.level, x % world, y)


def _shares(cells: Sequence[Cell], posterior: Sequence[tuple[str, float]]) -> list[float]:
    """How the belief within these cells is spread over them; zeros where there is none."""
    masses = []
    for cell in cells:
        own = cell.quadkey
        mass = 0.0
        for quadkey, share in posterior:
            if quadkey.startswith(own):
                mass += share
            elif own.startswith(quadkey):  # a coarser cell: uniform over its area
                mass += share / 4.0 ** (len(own) - len(quadkey))
        masses.append(mass)
    total = sum(masses)
    return [mass / total if total > 0 else 0.0 for mass in masses]


def _note(square: Square) -> str:
    lat, _ = latlng_of(np.zeros(1), np.array([square.y + square.height / 2]), square.level)
    side_m = size_m(square.level, float(lat[0])) * square.width
    return f"level {square.level} · {metres(side_m)} wide"


# 2. single pictures


def _photo(path: Path, height_px: int) -> Image.Image:
    """The photo as high as the other pictures, or as wide as is allowed."""
    picture = Image.fromarray(load_rgb(path, max_side_px=round(2 * _WIDEST_PHOTO * height_px)))
    scale = min(height_px / picture.height, _WIDEST_PHOTO * height_px / picture.width)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _picture(panel: _Panel, answer: Answer, pyramid: TilePyramid, px: int) -> Image.Image:
    """The ground of a panel with belief, chosen cell, truth and (in the close-up) answer."""
    square = panel.square
    base, has_imagery = ground_in(square, pyramid, px)
    base.paste(BELIEF, mask=ImageChops.multiply(_belief(panel, answer, px), has_imagery))
    draw = ImageDraw.Draw(base)
    _outline(draw, box_px(Square(*panel.picked, 1, 1), square, px), px)
    place, truth = ends_px(answer, square, px)
    draw_others(draw, answer, square, px, px * _NUMBER)
    if panel.is_last:
        if truth is not None:
            draw_way(draw, place, truth, px // 40, INK)
        draw_dot(draw, place, px * 0.034, answer_colour(answer))
    if truth is not None:
        draw_diamond(draw, truth, px * (0.045 if panel.is_last else 0.03), TRUTH)
    return base


def _belief(panel: _Panel, answer: Answer, px: int) -> Image.Image:
    """Opacity of the tint, by each cell's share of the belief in this view."""
    tint = Image.new("L", (px, px))
    draw = ImageDraw.Draw(tint)
    for cell, share in zip(panel.cells, _shares(panel.cells, answer.posterior), strict=True):
        left, top, right, bottom = (
            round(edge) for edge in box_px(Square(*cell, 1, 1), panel.square, px)
        )
        opacity = round(255 * _DARKEST_TINT * share**_TINT_GROWTH)
        draw.rectangle((left, top, right - 1, bottom - 1), opacity)
    return tint


def _outline(draw: ImageDraw.ImageDraw, box: Box, px: int) -> None:
    """A bright frame with a dark edge, seen on any ground."""
    left, top, right, bottom = box
    thick = max(2, px // 60)
    dark = thick // 2
    draw.rectangle((left - dark, top - dark, right + dark, bottom + dark), None, CARD, 2 * dark)
    draw.rectangle((left, top, right, bottom), None, PICKED, thick)


# 3. the strip


def _draw_links(card: Card, panels: Sequence[_Panel]) -> None:
    """From the part of each picture that the next one shows, to the next one's edge."""
    first = len(card.lefts) - len(panels)
    links = [
        (first + k, box_px(there.square, here.square, card.height))
        for k, (here, there) in enumerate(zip(panels, panels[1:], strict=False))
    ]
    card.draw_links(links, (*PICKED, 150), max(2, card.height // 120))


def _draw_footer(card: Card, credits: str, answer: Answer) -> None:
    """Attribution, never cut, and what the marks mean: beside it where there is room."""
    length, line = card.small.getlength, round(card.height * 0.105)
    m = length("M")
    spacing = Spacing(before=m, mark=m, word=2 * m, after=3 * m, down=card.height * 0.052)
    card.draw_others(answer, spacing, line)
    words = sure(answer)
    room = card.width - 2 * card.pad
    named = ("belief", called(answer), "truth")[: 2 + (answer.truth is not None)]
    legend = round(card.legend_px(words, named, spacing))
    beside = length(credits) <= room - legend - card.pad
    lines = [credits] if beside else wrapped(credits, card.small, room)
    top = card.image.height
    draw = card.grow(line * (len(lines) + (not beside)) + card.pad // 2)
    card.draw_lines(draw, lines, (card.pad, top), line)
    x = card.width - card.pad - legend if beside else card.pad
    y = top + (0 if beside else line * len(lines))
    marks = _marks(draw, card.height * 0.024, answer_colour(answer))
    card.draw_legend(draw, words, list(zip(named, marks, strict=False)), (x, y), spacing)


def _marks(
    draw: ImageDraw.ImageDraw, radius: float, colour: Colour
) -> tuple[Callable[[Point], None], ...]:
    """Those of the footer: of belief, of an answer in its colour, of a truth."""

    def draw_tint(at: Point) -> None:
        x, y = at
        draw.rectangle((x - radius, y - radius, x + radius, y + radius), BELIEF)

    def draw_answer(at: Point) -> None:
        draw_dot(draw, at, radius, colour)

    def draw_truth(at: Point) -> None:
        draw_diamond(draw, at, radius, TRUTH)

    return draw_tint, draw_answer, draw_truth
