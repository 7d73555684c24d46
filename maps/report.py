"""Reports as one HTML file that opens offline: what was found in a pyramid, with a look at it.

Knows nothing of how anything was found. No script; a content security policy forbids every
request, and no text of the data reaches the page as markup.
"""

import base64
import html
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from maps.layers import Ground
from zoomloc.world.cells import xy_of
from zoomloc.world.files import write_text
from zoomloc.world.pyramid import Picture, TilePyramid
from zoomloc.world.region import Region

WHOLE_PX = 1024  # of the look at a level, at most
CLOSE_PX = 320  # of the closer looks
CLOSE_UPS = 6  # a level, spread over the region
QUALITY = 85

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; color: #222;
  padding: 0 1rem; background: #fafafa }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
img { display: block; max-width: 100%; border: 1px solid #ccc; background: #7f7f7f }
.row { display: flex; flex-wrap: wrap; gap: .5rem; margin-top: .5rem } .row img { width: 260px }
.bad { color: #a00; font-weight: 600 } .good { color: #060; font-weight: 600 }
table { border-collapse: collapse } td, th { padding: .15rem .8rem .15rem 0; text-align: right }
td:first-child, th:first-child { text-align: left } footer { margin: 2rem 0; color: #555 }
"""


def write_contact_sheet(folder: Path, found: Mapping[str, Any], out: Path) -> None:
    """Write one HTML with a look at each level of ``folder``'s pyramid, and what was found.

    ``found``: ``levels`` (level, tiles, and the names of damaged, missing and blank ones),
    ``covered`` (0..1) and ``whole``. Raises ImageryError, RegionError, OutputError.
    """
    region = Region.load(folder / "region.json")
    with TilePyramid.open(folder / "imagery.pmtiles") as pyramid:
        parts = [_summary(region, found)]
        for level in found["levels"]:
            parts += _level(region, pyramid, level)
    credit = "; ".join(region.attribution) or "no attribution stated"
    licence = f" ({region.licence})" if region.licence else ""
    parts.append(f"<footer>Imagery: {html.escape(credit + licence)}</footer>")
    write_text(out, page(f"Tiles of {region.name}", parts))


def page(title: str, parts: Iterable[str], style: str = "") -> str:
    """A whole page; ``title`` is text, ``parts`` are markup, ``style`` is more CSS."""
    name = html.escape(title)
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{name}</title>\n<style>{_STYLE}{style}</style>\n<h1>{name}</h1>\n"
        + "\n".join(parts)
        + "\n</html>\n"
    )


def _summary(region: Region, found: Mapping[str, Any]) -> str:
    """One row a level, and whether all is there."""
    rows = [
        "<tr>"
        + f"<td>{level['level']}</td><td>{level['tiles']:,}</td>"
        + "".join(f"<td>{len(level[kind]):,}</td>" for kind in ("damaged", "missing", "blank"))
        + "</tr>"
        for level in found["levels"]
    ]
    head = "".join(f"<th>{name}</th>" for name in ("level", "tiles", "damaged", "missing", "blank"))
    verdict = ("good", "whole") if found["whole"] else ("bad", "not whole: build it again")
    return (
        f"<table><tr>{head}</tr>{''.join(rows)}</table>"
        f'<p><span class="{verdict[0]}">{verdict[1]}</span>; {found["covered"]:.1%} of the '
        f"region's cells of {region.cell_size_m:.1f} m hold imagery.</p>"
    )


def _level(region: Region, pyramid: TilePyramid, found: Mapping[str, Any]) -> list[str]:
    """The region as a level shows it, then some of it pixel by pixel."""
    level = int(found["level"])
    parts = [f"<h2>Level {level}</h2>"]
    for kind in ("damaged", "missing"):
        if found[kind]:
            names = html.escape(", ".join(found[kind][:50]))
            parts.append(f'<p class="bad">{kind}: {names}</p>')
    cells = pyramid.cells(level)
    parts.append(_image(_whole(region, pyramid, level), f"level {level}, the whole region"))
    if level > region.root_level:
        some = [cells[i] for i in np.linspace(0, len(cells) - 1, CLOSE_UPS + 2).astype(int)[1:-1]]
        looks = [
            _image(pyramid.view(cell, CLOSE_PX, margin=0.25), f"around tile {cell.x}/{cell.y}")
            for cell in dict.fromkeys(some)
        ]
        parts.append(f'<div class="row">{"".join(looks)}</div>')
    return parts


def _whole(region: Region, pyramid: TilePyramid, level: int) -> Picture:
    """The region's ground with no more detail than a level has, its outline drawn in."""
    ground = Ground(region)
    root, left, top, width, height = ground.extent
    side = max(width, height)
    native = max(1, round(side * 2.0 ** (level - root) * pyramid.tile_px))
    size = min(WHOLE_PX, native)
    picture = Image.fromarray(pyramid.window(root, left, top, side, size))
    drawn = picture.resize((max(size, 256),) * 2, Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(drawn)
    for ring in ground.outline:
        lat, lng = np.array([*ring, ring[0]]).T
        x, y = xy_of(lat, lng, root)
        x += (1 << root) * np.round((left + width / 2 - x) / (1 << root))
        points = np.stack([(x - left) / side, (y - top) / side], 1) * drawn.width
        pen.line([tuple(point) for point in points.tolist()], fill=(255, 80, 0), width=1)
    wide, high = (max(1, round(drawn.width * length / side)) for length in (width, height))
    return np.asarray(drawn.crop((0, 0, wide, high)))


def _image(picture: Picture, told: str) -> str:
    target = io.BytesIO()
    Image.fromarray(picture).save(target, "JPEG", quality=QUALITY)
    data = base64.b64encode(target.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="{html.escape(told)}">'
