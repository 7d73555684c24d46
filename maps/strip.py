"""One picture of one answer: the photo, the view of each zoom, and the cell where it ends.

Knows nothing of models, HTML or Folium: Pillow draws it, with Pillow's own font.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from maps.layers import RIGHT_WITHIN_M, Square, path_cells
from maps.lettering import credits_of, font, metres, wrapped
from maps.pictures import check_imagery
from zoomloc.errors import OutputError, ZoomlocError
from zoomloc.world.answers import Answer
from zoomloc.world.cells import Cell, LatLng, latlng_of, size_m, xy_of
from zoomloc.world.files import written_whole
from zoomloc.world.images import load_rgb
from zoomloc.world.pyramid import FILL, TilePyramid
from zoomloc.world.region import Region

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_HEIGHTS_PX = (80, 1000)  # below, captions cannot be read
_LONGEST_PX = 16_383  # WebP's limit
_PAD, _GAP = 1 / 12, 1 / 8  # of the height: around the strip, between pictures
_NARROWEST = 2.7  # width of a strip by its height: what the footer needs
FINER = 2  # drawn so much larger and shrunk, since Pillow's lines are jagged

# A dark card: it stands on a white page and does not glare on a dark one. Colours as on the map.
CARD, INK, DIM = (22, 27, 34), (240, 246, 252), (164, 172, 182)
NO_IMAGERY = (52, 59, 68)
PICKED, BELIEF, ANSWER, TRUTH = (253, 224, 71), (230, 0, 126), (225, 29, 72), (34, 170, 84)
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
    truth. ``height_px`` (80 to 1000) is that of the pictures; captions and attribution come
    below, in the letters that Pillow's font has (``plain``). The photo is shown as it is: have
    the right to. Raises OutputError for another suffix or a place that cannot be written,
    PhotoError for an unreadable photo, RegionError or ImageryError where answer, region and
    imagery do not belong together, ZoomlocError for another height.
    """
    kind = format_of(out)
    check_imagery(region, pyramid)
    panels = _panels(answer, region)
    _check_height(height_px, len(panels))
    large = height_px * FINER
    pictures = [_photo(photo, large)] if photo is not None else []
    pictures += [_picture(panel, answer, pyramid, large) for panel in panels]
    strip = _Strip(pictures, panels, large)
    strip.draw_links()
    strip.draw_captions([("Where was this taken?", "")] if photo is not None else [])
    strip.draw_footer(credits_of(region), answer)
    picture = strip.finished()
    with written_whole(out) as temporary:
        picture.save(temporary, kind, quality=90)


def format_of(out: Path) -> str:
    """Pillow's name of the format that a file's suffix asks for."""
    kind = _FORMATS.get(out.suffix.lower())
    if kind is None or out.is_dir():
        raise OutputError(f"cannot write {out}: name a file that ends in {', '.join(_FORMATS)}")
    return kind


def _check_height(height_px: int, panels: int) -> None:
    """Refuse heights at which captions cannot be read or the strip is too long for WebP."""
    least, most = _HEIGHTS_PX
    longest = round(_LONGEST_PX / ((panels + 1) * (1 + _GAP) + _WIDEST_PHOTO))
    if not least <= height_px <= min(most, longest):
        raise ZoomlocError(f"strip: height_px {height_px}; choose {least} to {min(most, longest)}")


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
    word = "best guess" if answer.unknown else "answer"
    off = answer.error_m
    title = word if off is None or not math.isfinite(off) else f"{word}: {metres(off)} off"
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
        x, y = _position(answer.truth, Square(*leaf, 1, 1))
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


def _position(place: LatLng, square: Square) -> tuple[float, float]:
    """Place in shares of the square's side from its north-west corner, the short way round."""
    xs, ys = xy_of(np.array([place.lat]), np.array([place.lng]), square.level)
    return _unwrapped(float(xs[0]) - square.x, square), (float(ys[0]) - square.y) / square.height


def _unwrapped(columns: float, square: Square) -> float:
    """An eastward distance from the square's west side in shares of its width, not round it."""
    world = 1 << square.level
    columns -= world * round((columns - square.width / 2) / world)
    return columns / square.width


def box_px(inner: Square, outer: Square, size_px: float) -> Box:
    """Pixels of one square in a picture of another."""
    scale = 2.0 ** (outer.level - inner.level)
    left = _unwrapped((inner.x + inner.width / 2) * scale - outer.x, outer)
    half = inner.width * scale / 2 / outer.width
    top = (inner.y * scale - outer.y) / outer.height
    bottom = top + inner.height * scale / outer.height
    return (left - half) * size_px, top * size_px, (left + half) * size_px, bottom * size_px


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
    place = pixel(answer.place, square, px)
    truth = None
    if answer.truth is not None:
        truth = nearer(place, pixel(answer.truth, square, px), 3 * px)
    if panel.is_last:
        if truth is not None:
            draw.line([place, truth], fill=CARD, width=px // 40)
            draw.line([place, truth], fill=INK, width=px // 80)
        draw_dot(draw, place, px * 0.034, ANSWER)
    if truth is not None:
        draw_diamond(draw, truth, px * (0.045 if panel.is_last else 0.03), TRUTH)
    return base


def ground_in(square: Square, pyramid: TilePyramid, px: int) -> tuple[Image.Image, Image.Image]:
    """A square of ground, ``px`` a side, dark where there is no imagery; and a mask of where is."""
    ground = Image.fromarray(pyramid.window(square.level, square.x, square.y, square.width, px))
    mask = _imagery_in(ground)
    return Image.composite(ground, Image.new("RGB", ground.size, NO_IMAGERY), mask), mask


def _imagery_in(ground: Image.Image) -> Image.Image:
    """A mask of the ground that is shown: not the pyramid's grey, of which specks may be ground."""
    grey = Image.fromarray((np.asarray(ground) == FILL).all(axis=2).astype(np.uint8) * 255)
    opened = grey.filter(ImageFilter.MinFilter(5)).filter(ImageFilter.MaxFilter(5))
    return ImageChops.invert(opened)


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


def pixel(place: LatLng, square: Square, px: int) -> tuple[float, float]:
    """Where a place lies in a picture of a square, ``px`` a side; may lie off it."""
    x, y = _position(place, square)
    return x * px, y * px


def nearer(
    start: tuple[float, float], end: tuple[float, float], most: float
) -> tuple[float, float]:
    """The end, or what is still seen of the way to one that lies off the picture by far."""
    share = min(1.0, most / max(math.dist(start, end), 1e-9))
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])


def draw_dot(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], radius: float, colour: tuple[int, int, int]
) -> None:
    """The mark of an answer, ``radius`` in pixels, seen on any ground."""
    for r, fill in ((radius * 1.6, CARD), (radius * 1.4, INK), (radius, colour)):
        draw.ellipse((at[0] - r, at[1] - r, at[0] + r, at[1] + r), fill)


def draw_diamond(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], radius: float, colour: tuple[int, int, int]
) -> None:
    """Another shape than the answer's, for those who see red and green as one."""
    x, y = at
    for r, fill in ((radius * 1.6, CARD), (radius * 1.4, INK), (radius, colour)):
        draw.polygon([(x - r, y), (x, y - r), (x + r, y), (x, y + r)], fill)


# 3. the strip


class _Strip:
    """The card that pictures, links, captions and footer are drawn on, ``FINER`` times larger."""

    def __init__(
        self, pictures: Sequence[Image.Image], panels: Sequence[_Panel], height: int
    ) -> None:
        self.panels, self.height = panels, height
        self.pad, gap = round(height * _PAD), round(height * _GAP)
        self.lefts = [self.pad]
        for picture in pictures:
            slot = max(picture.width, height)  # a caption needs it, below a narrow photo too
            self.lefts.append(self.lefts[-1] + slot + gap)
        self.width = max(self.lefts.pop() - gap + self.pad, round(height * _NARROWEST))
        self.card = Image.new("RGB", (self.width, self.pad + height), CARD)
        for left, picture in zip(self.lefts, pictures, strict=True):
            self.card.paste(picture, (left, self.pad + (height - picture.height) // 2))
        self.title, self.small = font(height * 0.098), font(height * 0.083)

    def draw_links(self) -> None:
        """From the part of each picture that the next one shows, to the next one's edge."""
        over = Image.new("RGBA", self.card.size)
        draw = ImageDraw.Draw(over)
        first = len(self.lefts) - len(self.panels)
        lefts = self.lefts[first:]
        for k, (here, there) in enumerate(zip(self.panels, self.panels[1:], strict=False)):
            _, top, right, bottom = np.clip(
                box_px(there.square, here.square, self.height), 0, self.height
            )
            for y, end in ((top, self.pad), (bottom, self.pad + self.height)):
                line = [(lefts[k] + right, self.pad + y), (lefts[k + 1], end)]
                draw.line(line, (*PICKED, 150), max(2, self.height // 120))
        self.card = Image.alpha_composite(self.card.convert("RGBA"), over).convert("RGB")

    def draw_captions(self, before: Sequence[tuple[str, str]]) -> None:
        """Two lines below each picture; ``before``: those of pictures that are no panels."""
        draw = self._grown(round(self.height * 0.3))
        top = self.pad + self.height * 1.04
        captions = [*before, *((panel.title, panel.note) for panel in self.panels)]
        for left, (title, note) in zip(self.lefts, captions, strict=True):
            draw.text((left, top), title, INK, self.title)
            draw.text((left, top + self.height * 0.115), note, DIM, self.small)

    def draw_footer(self, credits: str, answer: Answer) -> None:
        """Attribution, never cut, and what the marks mean."""
        line = round(self.height * 0.105)
        marks = [(BELIEF, "belief"), (ANSWER, "answer"), (TRUTH, "truth")]
        marks = marks if answer.truth is not None else marks[:2]
        words = f"probability {answer.probability:.2f} within {RIGHT_WITHIN_M:.0f} m"
        room = self.width - 2 * self.pad
        legend = round(sum(self.small.getlength(f"{w}MMM") for _, w in marks))
        legend += round(self.small.getlength(f"{words}M"))
        beside = self.small.getlength(credits) <= room - legend - self.pad
        lines = [credits] if beside else wrapped(credits, self.small, room)
        top = self.card.height
        draw = self._grown(line * (len(lines) + (not beside)) + self.pad // 2)
        for k, text in enumerate(lines):
            draw.text((self.pad, top + k * line), text, DIM, self.small)
        x = self.width - self.pad - legend if beside else self.pad
        y = top + (0 if beside else line * len(lines))
        draw.text((x, y), words, DIM, self.small)
        self._draw_marks(draw, marks, x + self.small.getlength(f"{words}M"), y)

    def finished(self) -> Image.Image:
        """The strip at the size that was asked for."""
        return self.card.reduce(FINER)

    def _draw_marks(
        self,
        draw: ImageDraw.ImageDraw,
        marks: Sequence[tuple[tuple[int, int, int], str]],
        x: float,
        y: float,
    ) -> None:
        radius = self.height * 0.024
        for colour, word in marks:
            at = (x + self.small.getlength("M"), y + self.height * 0.052)
            if colour == BELIEF:
                box = (at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius)
                draw.rectangle(box, BELIEF)
            else:
                (draw_dot if colour == ANSWER else draw_diamond)(draw, at, radius, colour)
            draw.text((x + self.small.getlength("MM"), y), word, DIM, self.small)
            x += self.small.getlength(f"{word}MMM")

    def _grown(self, by: int) -> ImageDraw.ImageDraw:
        """A card that is longer below, and a pen for it."""
        self.card = grown(self.card, by)
        return ImageDraw.Draw(self.card)


def grown(card: Image.Image, by_px: int) -> Image.Image:
    """The card, longer below."""
    longer = Image.new("RGB", (card.width, card.height + by_px), CARD)
    longer.paste(card, (0, 0))
    return longer
