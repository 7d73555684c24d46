"""The dark card that pictures of one answer stand on: its colours, ground and marks.

Knows nothing of what the pictures tell (zooms, reasons), of models, HTML or Folium. Everything
is drawn ``FINER`` times larger with Pillow and its own font.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from maps.layers import Square
from maps.lettering import Font, font, wrapped
from zoomloc.belief.priors import CONTRADICTED
from zoomloc.errors import OutputError, ZoomlocError
from zoomloc.world.answers import Answer
from zoomloc.world.cells import LatLng, xy_of
from zoomloc.world.files import written_whole
from zoomloc.world.pyramid import FILL, TilePyramid
from zoomloc.world.wording import called, is_guess, metres, others, warnings

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
Colour = tuple[int, int, int]
Point = tuple[float, float]  # x, y in pixels

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
FINER = 2  # drawn so much larger and shrunk, since Pillow's lines are jagged

# A dark card: it stands on a white page and does not glare on a dark one. Colours as on the map.
CARD, INK, DIM = (22, 27, 34), (240, 246, 252), (164, 172, 182)
NO_IMAGERY = (52, 59, 68)
PICKED, BELIEF, ANSWER, TRUTH = (253, 224, 71), (230, 0, 126), (225, 29, 72), (34, 170, 84)
GUESS, WARNING = (120, 130, 142), (255, 179, 71)  # a place that is no answer; what is said of it

_SWATCH, _RAMP = 0.034, 0.26  # of the height: side of a swatch, length of a ramp
_AFTER_SWATCH, _AFTER_WORDS = 0.02, 0.04  # of the height, in a key
_APART = 0.09  # of the height, from the words of one mark to the next mark
_WARNED_LINE = 1.35  # of a title's letters


# 1. what is asked for


def format_of(out: Path) -> str:
    """Pillow's name of the format that a file's suffix asks for."""
    kind = _FORMATS.get(out.suffix.lower())
    if kind is None or out.is_dir():
        raise OutputError(f"cannot write {out}: name a file that ends in {', '.join(_FORMATS)}")
    return kind


def check_height(name: str, height_px: int, least: int, most: int) -> None:
    """Refuse a height of the pictures outside ``least`` to ``most``."""
    if not least <= height_px <= most:
        raise ZoomlocError(f"{name}: height_px {height_px}; choose {least} to {most}")


# 2. the card


class Measures(NamedTuple):
    """Of a card, in shares of the height of its pictures."""

    pad: float  # around the card
    gap: float  # between pictures
    title: float  # letters
    small: float  # letters
    above: float  # from the pictures down to the titles
    heading: float  # from the top of a title to the note below
    line: float  # from line to line of a note
    after: float  # below the longest note
    narrowest: float = 0.0  # width of a card


class Caption(NamedTuple):
    """What stands below a picture."""

    title: str
    lines: Sequence[str]
    key: Sequence[Image.Image | str] = ()  # swatches and words, from the left


class Panel(NamedTuple):
    """A picture, what stands below it, and the colours that its key explains."""

    picture: Image.Image
    title: str
    note: str
    key: Sequence[Image.Image | str]  # swatches and words, from the left


class Spacing(NamedTuple):
    """Of the marks in a footer, in pixels."""

    before: float  # from the words before to the first mark
    mark: float  # to the middle of a mark
    word: float  # to its word
    after: float  # to the next mark, and a word's own length
    down: float  # to the middle of a mark from the top of the line


Marks = Sequence[tuple[str, Callable[[Point], None]]]  # words, and what draws a mark at a point


class Card:
    """Pictures side by side on a card that grows downward, ``FINER`` times larger.

    ``warned``: what stands above them, to be read before they are looked at.
    """

    def __init__(
        self,
        pictures: Sequence[Image.Image],
        height: int,
        measures: Measures,
        warned: str = "",
    ) -> None:
        self.height, self.measures = height, measures
        self.pad, gap = round(height * measures.pad), round(height * measures.gap)
        self.lefts = [self.pad]
        for picture in pictures:
            slot = max(picture.width, height)  # a caption needs it, below a narrow photo too
            self.lefts.append(self.lefts[-1] + slot + gap)
        self.width = self.lefts.pop() - gap + self.pad
        self.width = max(self.width, round(height * measures.narrowest))
        self.title, self.small = font(height * measures.title), font(height * measures.small)
        lines = wrapped(warned, self.title, self.width - 2 * self.pad)
        line = height * measures.title * _WARNED_LINE
        self.top = self.pad + FINER * round(line * len(lines) / FINER)  # of the pictures
        self.image = Image.new("RGB", (self.width, self.top + height), CARD)
        for k, text in enumerate(lines):
            at = (self.pad, self.pad * 0.8 + k * line)
            ImageDraw.Draw(self.image).text(at, text, WARNING, self.title)
        for left, picture in zip(self.lefts, pictures, strict=True):
            self.image.paste(picture, (left, self.top_of(picture)))

    def top_of(self, picture: Image.Image) -> int:
        """Where a picture begins, if it is not as high as others."""
        return self.top + (self.height - picture.height) // 2

    def grow(self, by_px: int) -> ImageDraw.ImageDraw:
        """Make the card longer below; a pen for it."""
        longer = Image.new("RGB", (self.width, self.image.height + by_px), CARD)
        longer.paste(self.image, (0, 0))
        self.image = longer
        return ImageDraw.Draw(longer)

    def draw_links(
        self, links: Sequence[tuple[int, Box]], colour: tuple[int, int, int, int], width: int
    ) -> None:
        """From a box in each picture that is numbered to the edge of the next picture."""
        over = Image.new("RGBA", self.image.size)
        draw = ImageDraw.Draw(over)
        for number, box in links:
            here, there = self.lefts[number : number + 2]
            _, top, right, bottom = np.clip(box, 0, self.height)
            for y, end in ((top, self.top), (bottom, self.top + self.height)):
                draw.line([(here + right, self.top + y), (there, end)], colour, width)
        self.image = Image.alpha_composite(self.image.convert("RGBA"), over).convert("RGB")

    def draw_captions(self, captions: Sequence[Caption]) -> None:
        """Title, note and key below each picture."""
        line = self.height * self.measures.line
        top = self.image.height + self.height * self.measures.above
        below = top + self.height * self.measures.heading
        end = below + max(len(caption.lines) for caption in captions) * line
        draw = self.grow(round(end + self.height * self.measures.after) - self.image.height)
        for left, caption in zip(self.lefts, captions, strict=True):
            draw.text((left, top), caption.title, INK, self.title)
            self.draw_lines(draw, caption.lines, (left, below), line)
            self._draw_key(draw, caption.key, left, end + 0.8 * line)

    def draw_lines(
        self, draw: ImageDraw.ImageDraw, lines: Sequence[str], at: Point, line: float
    ) -> None:
        """Small dim words from a point down, ``line`` pixels from one to the next."""
        for k, text in enumerate(lines):
            draw.text((at[0], at[1] + k * line), text, DIM, self.small)

    def _draw_key(
        self, draw: ImageDraw.ImageDraw, key: Sequence[Image.Image | str], x: float, y: float
    ) -> None:
        for part in key:
            if isinstance(part, str):
                draw.text((x, y), part, DIM, self.small, anchor="lm")
                x += self.small.getlength(part) + self.height * _AFTER_WORDS
            else:
                self.image.paste(part, (round(x), round(y) - part.height // 2))
                x += part.width + self.height * _AFTER_SWATCH

    def draw_legend(
        self, draw: ImageDraw.ImageDraw, words: str, marks: Marks, at: Point, spacing: Spacing
    ) -> None:
        """Words, and after them each mark with what it means."""
        x, y = at
        draw.text(at, words, DIM, self.small)
        x += self.small.getlength(words) + spacing.before
        for word, draw_mark in marks:
            draw_mark((x + spacing.mark, y + spacing.down))
            draw.text((x + spacing.word, y), word, DIM, self.small)
            x += self.small.getlength(word) + spacing.after

    def legend_px(self, words: str, names: Sequence[str], spacing: Spacing) -> float:
        """How long a legend is, from its first word to the room after its last mark."""
        long = sum(self.small.getlength(text) for text in (words, *names))
        return long + spacing.before + len(names) * spacing.after

    def draw_others(self, answer: Answer, spacing: Spacing, line: float) -> None:
        """A row, or more, of the other places that the pictures number; none where none are."""
        named = [(other.number, other.words) for other in others(answer)]
        start, spacing = "or else:", spacing._replace(after=spacing.word + self.height * _APART)
        room = self.width - 2 * self.pad - self.small.getlength(start) - spacing.before
        for row in _rows(named, self.small, spacing.after, room):
            at = (self.pad, self.image.height)
            draw = self.grow(round(line))
            marks: Marks = [(words, self._numbered(draw, n)) for n, words in row]
            self.draw_legend(draw, start, marks, at, spacing)
            start = ""

    def _numbered(self, draw: ImageDraw.ImageDraw, number: int) -> Callable[[Point], None]:
        """What draws the mark of an alternative in a footer."""
        return lambda at: draw_number(draw, at, self.height * self.measures.small * 0.4, number)

    def write(self, out: Path) -> None:
        """Write the card at the size that was asked for, by the file's suffix, atomically."""
        kind, picture = format_of(out), self.image.reduce(FINER)
        with written_whole(out) as temporary:
            picture.save(temporary, kind, quality=90)


def _rows(
    named: Sequence[tuple[int, str]], letters: Font, after: float, room: float
) -> list[list[tuple[int, str]]]:
    """What a legend names, in rows that fit into the room."""
    rows: list[list[tuple[int, str]]] = []
    left = 0.0
    for number, words in named:
        wide = letters.getlength(words) + after
        if not rows or wide > left:
            rows.append([])
            left = room
        rows[-1].append((number, words))
        left -= wide
    return rows


def answer_words(answer: Answer, mark: str) -> str:
    """What the answer is called and, after a punctuation mark, how far off it is, if known."""
    word, off = called(answer), answer.error_m
    return word if off is None or not math.isfinite(off) else f"{word}{mark} {metres(off)} off"


def warned_words(answer: Answer) -> str:
    """What a card says above its pictures; empty where the answer is one."""
    return " ".join(warnings(answer, CONTRADICTED))


def answer_colour(answer: Answer) -> Colour:
    """Of the answer's mark: a place that is only a guess does not shine."""
    return GUESS if is_guess(answer) else ANSWER


# 3. ground


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


def position(place: LatLng, square: Square) -> tuple[float, float]:
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


def ends_px(answer: Answer, square: Square, px: int) -> tuple[Point, Point | None]:
    """Where answer and truth lie in a picture of a square, ``px`` a side; may lie off it.

    Of the way to a truth far off only what is still seen: Pillow draws no endless lines.
    """
    place = _pixel(answer.place, square, px)
    if answer.truth is None:
        return place, None
    return place, _nearer(place, _pixel(answer.truth, square, px), 3 * px)


def draw_others(
    draw: ImageDraw.ImageDraw, answer: Answer, square: Square, px: int, radius: float
) -> None:
    """The numbers of other places in a picture of a square, ``px`` a side; the first on top."""
    for other in reversed(others(answer)):
        x, y = _pixel(other.place, square, px)
        if 0 <= x < px and 0 <= y < px:
            draw_number(draw, (x, y), radius, other.number)


def _pixel(place: LatLng, square: Square, px: int) -> Point:
    """Where a place lies in a picture of a square, ``px`` a side; may lie off it."""
    x, y = position(place, square)
    return x * px, y * px


def _nearer(start: Point, end: Point, most: float) -> Point:
    """The end, or what is still seen of the way to one that lies off the picture by far."""
    share = min(1.0, most / max(math.dist(start, end), 1e-9))
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])


# 4. marks, seen on any ground


def draw_dot(draw: ImageDraw.ImageDraw, at: Point, radius: float, colour: Colour) -> None:
    """The mark of an answer, ``radius`` in pixels."""
    for r, fill in ((radius * 1.6, CARD), (radius * 1.4, INK), (radius, colour)):
        draw.ellipse((at[0] - r, at[1] - r, at[0] + r, at[1] + r), fill)


def draw_diamond(draw: ImageDraw.ImageDraw, at: Point, radius: float, colour: Colour) -> None:
    """Another shape than the answer's, for those who see red and green as one."""
    for r, fill in ((radius * 1.6, CARD), (radius * 1.4, INK), (radius, colour)):
        draw.polygon(_diamond(at, r), fill)


def draw_number(draw: ImageDraw.ImageDraw, at: Point, radius: float, number: int) -> None:
    """The mark of an alternative: its number on a bright disc."""
    for r, fill in ((radius * 1.2, CARD), (radius, INK)):
        draw.ellipse((at[0] - r, at[1] - r, at[0] + r, at[1] + r), fill)
    draw.text(at, str(number), CARD, font(radius * 1.6), anchor="mm")


def draw_hollow_diamond(picture: Image.Image, at: Point, radius: float, colour: Colour) -> None:
    """A diamond where what lies below must be seen; ``radius`` is that of its outer edge."""
    for outer, inner, fill in ((1.0, 0.48, CARD), (0.94, 0.54, INK), (0.86, 0.62, colour)):
        mask = Image.new("L", picture.size)
        for share, value in ((outer, 255), (inner, 0)):
            ImageDraw.Draw(mask).polygon(_diamond(at, share * radius), value)
        picture.paste(fill, mask=mask)


def _diamond(at: Point, r: float) -> list[Point]:
    x, y = at
    return [(x - r, y), (x, y - r), (x + r, y), (x, y + r)]


def draw_way(
    draw: ImageDraw.ImageDraw, start: Point, end: Point, width: int, colour: Colour
) -> None:
    """A line with dark edges, ``width`` pixels with them."""
    for wide, fill in ((width, CARD), (width // 2, colour)):
        draw.line([start, end], fill, wide)


# 5. colours in a key


def swatch(px: int, colour: Colour) -> Image.Image:
    """A small square of a colour, for pictures ``px`` high."""
    return Image.new("RGB", (round(px * _SWATCH),) * 2, colour)


def ramp(px: int, colours: Sequence[Colour]) -> Image.Image:
    """Colours side by side, smoothly, for pictures ``px`` high."""
    row = np.array([colours], np.uint8)
    return Image.fromarray(row).resize((round(px * _RAMP), round(px * _SWATCH)))


def between(colours: Sequence[Colour], share: float) -> Colour:
    """The colour so far along a row of colours, 0..1."""
    at = min(max(share, 0.0), 1.0) * (len(colours) - 1)
    first = min(int(at), len(colours) - 2)
    mixed = [
        a + (b - a) * (at - first) for a, b in zip(colours[first], colours[first + 1], strict=True)
    ]
    return round(mixed[0]), round(mixed[1]), round(mixed[2])
