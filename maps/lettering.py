"""Text in Pillow's own font: in letters that it has, in lines that fit.

Knows nothing of pictures. The font (Aileron, Latin without accents) comes with Pillow, so
that a picture looks the same on every machine.
"""

import unicodedata
from collections.abc import Iterator

from PIL import ImageFont

from zoomloc.world.region import Region

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_MARKS = "©™·°±«»‹›‘’“”…"  # beyond ASCII
_LATIN = str.maketrans(
    {"–": "-", "—": "-", "×": "x", "ß": "ss", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"}
    | {"æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "đ": "d", "Đ": "D", "ı": "i", "®": "(R)"}
)


def font(size_px: float) -> Font:
    """Pillow's own font."""
    return ImageFont.load_default(size_px)


def plain(text: str) -> str:
    """The text on one line: accents dropped, letters that the font lacks a question mark."""
    return "".join(_letters(" ".join(text.translate(_LATIN).split())))


def wrapped(text: str, font: Font, room_px: float) -> list[str]:
    """The text in lines at most ``room_px`` wide; nothing of it is left out."""
    lines = [""]
    for word in text.split():
        for part in _parts(word, font, room_px):
            longer = f"{lines[-1]} {part}".strip()
            if font.getlength(longer) <= room_px:
                lines[-1] = longer
            else:
                lines.append(part)
    return [line for line in lines if line]


def credits_of(region: Region) -> str:
    """Attribution and licence in letters that the font has; empty where there is none."""
    named = [text for text in (*region.attribution, region.licence) if text.strip()]
    return plain("Imagery: " + " · ".join(named)) if named else ""


def _letters(text: str) -> Iterator[str]:
    for letter in text:
        if letter in _MARKS:
            yield letter
        elif letter.isprintable():  # no controls, no marks that turn the direction of writing
            bare = (
                c for c in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(c)
            )
            yield from (c if c.isascii() else "?" for c in bare)


def _parts(word: str, font: Font, room_px: float) -> Iterator[str]:
    """A word that is wider than a line, cut."""
    while font.getlength(word) > room_px and len(word) > 1:
        lengths = range(len(word) - 1, 0, -1)
        fits = next((n for n in lengths if font.getlength(word[:n]) <= room_px), 1)
        yield word[:fits]
        word = word[fits:]
    yield word
