"""Pieces of a report: text, tables, tiles of figures, keys, small pictures, whose they are.

Knows nothing of what is reported. Whatever goes in as text comes out as text, never as markup.
"""

import html
from collections.abc import Iterable

from maps.pictures import data_uri
from zoomloc.errors import PhotoError
from zoomloc.world.images import load_rgb
from zoomloc.world.photos import Photo
from zoomloc.world.region import Region

STYLE = """
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .6rem;
  margin: 1rem 0 }
.tiles div { background: #fff; border: 1px solid #ddd; border-radius: 6px; padding: .5rem .9rem }
.tiles b { display: block; font-size: 1.25rem } .tiles span { color: #555; font-size: .85rem }
figure { margin: .5rem 0 } figcaption, .note { color: #555; font-size: .87rem; margin: .3rem 0 }
.key { display: inline-block; margin-right: 1.2rem } .key i { display: inline-block; width: .8em;
  height: .8em; border-radius: 50%; margin-right: .35em; vertical-align: -.05em }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr)); gap: 1rem 3rem }
svg { width: 100%; display: block } svg .faint { fill: #888; font-size: 9px }
.two table { margin-bottom: 1.2rem } h3 { font-size: .95rem; margin: 1rem 0 .3rem }
td { vertical-align: top } td:first-child { overflow-wrap: anywhere; min-width: 8rem }
td:not(:first-child) { white-space: nowrap }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(235px, 1fr)); gap: .8rem }
.sheet figure { margin: 0; background: #fff; border: 1px solid #ddd; border-radius: 6px;
  overflow: hidden; font-size: .8rem; line-height: 1.35 }
.sheet img, .sheet .gone { border: 0; width: 100%; height: 150px; object-fit: cover }
.sheet .gone { background: #eee; color: #a00; padding: .6rem; box-sizing: border-box }
.sheet p { margin: .2rem .6rem; overflow-wrap: anywhere } .sheet p:last-child { color: #555;
  margin-bottom: .5rem }
"""


def text(words: str) -> str:
    """Text as markup; what is no Unicode is shown by its code."""
    return html.escape(words.encode("utf-8", "backslashreplace").decode("utf-8"))


def tiles(facts: Iterable[tuple[str, str]]) -> str:
    """Figures in large letters, each over what it is."""
    return f'<div class="tiles">{"".join(map(_tile, facts))}</div>'


def _tile(fact: tuple[str, str]) -> str:
    return f"<div><b>{text(fact[0])}</b><span>{text(fact[1])}</span></div>"


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of texts."""
    head = "".join(f"<th>{text(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def keys(colours: Iterable[tuple[str, str]]) -> str:
    """What colours mean: (colour, words) each."""
    return "".join(
        f'<span class="key"><i style="background:{text(colour)}"></i>{text(words)}</span>'
        for colour, words in colours
    )


def imagery_credit(region: Region) -> str:
    """Whose imagery is shown, under which licence; as text."""
    credit = "; ".join(region.attribution) or "no attribution stated"
    return f"Imagery: {credit}{f' ({region.licence})' if region.licence else ''}."


def photo_credit(photo: Photo) -> str:
    """Whose photo is shown, under which licence; as text."""
    creator, licence = photo.creator, photo.licence
    return f"Photo: {creator or 'creator not stated'}, {licence or 'licence not stated'}"


def thumb(photo: Photo, side_px: int, quality: int = 78) -> str:
    """A small copy of a photo, or why there is none."""
    try:
        picture = load_rgb(photo.path, max_side_px=side_px)
    except PhotoError as error:
        why = str(error).removeprefix(f"{photo.path}: ")
        return f'<div class="gone">{text(why)}</div>'
    return f'<img src="{data_uri(picture, quality)}" alt="{text(photo.id)}">'
