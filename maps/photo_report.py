"""The report on a photo table: one HTML that opens offline, to see what was read and what was not.

Knows nothing of how photos were found or split. It holds small copies of some of the photos,
each with its creator and licence.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from maps.layers import Ground
from maps.markup import STYLE, imagery_credit, keys, photo_credit, table, text, thumb, tiles
from maps.photo_charts import COLOURS, date_bars, hour_bars, rose, split_name
from maps.photo_map import coverage_map
from maps.pictures import data_uri
from maps.report import page
from zoomloc.world.files import write_text
from zoomloc.world.photos import (
    READINGS,
    Photo,
    Skipped,
    read_photos,
    read_skipped,
    split_protocol,
)
from zoomloc.world.pyramid import TilePyramid
from zoomloc.world.region import Region

SHEET = 24  # photos on the contact sheet
SHEET_LEAST = 4  # of each split, where it has so many
THUMB_PX = 360
ROWS = 12  # of a table; what is left is summed up
REASONS = 25

_STYLE = """
.rose svg { max-width: 320px; margin: auto }
.why td:last-child, .why th:last-child { text-align: left; color: #555; white-space: normal;
  overflow-wrap: anywhere; min-width: 15rem }
.badge { color: #fff; border-radius: 3px; padding: 0 .4em }
"""


def write_photo_report(table: Path, skipped: Path, region: Path | None, out: Path) -> None:
    """Write one HTML on a photo table: coverage, headings, dates, cameras, skipped, a sheet.

    ``region``: a folder whose region.json and imagery.pmtiles, as far as they are there, become
    the map's ground. Raises PhotoError, RegionError, ImageryError, OutputError.
    """
    photos = read_photos(table)
    left_out = read_skipped(skipped) if skipped.is_file() else None
    place = _region_of(region)
    protocol = split_protocol(table)
    parts = [
        _summary(photos, left_out),
        _splits(photos, protocol),
        _coverage(photos, place, region),
        "<h2>Headings and times</h2>",
        _charts(photos),
        "<h2>Cameras, sources and terms</h2>",
        _terms(photos),
        "<h2>Left out</h2>",
        _reasons(left_out),
        "<h2>Some of the photos</h2>",
        _sheet(photos),
        "<footer>This page shows photos and where they were taken: pass it on only as the "
        "photos' own terms allow. It asks no server for anything.</footer>",
    ]
    name = place.name if place is not None else table.absolute().parent.name
    write_text(out, page(f"Photos of {name}", parts, STYLE + _STYLE))


def _region_of(folder: Path | None) -> Region | None:
    if folder is None or not (folder / "region.json").is_file():
        return None
    return Region.load(folder / "region.json")


# 1. what there is


def _summary(photos: Sequence[Photo], left_out: Sequence[Skipped] | None) -> str:
    drives = Counter(photo.sequence_id for photo in photos)
    days = sorted({p.captured_at.date() for p in photos if p.captured_at is not None})
    span = f"{days[0]} to {days[-1]}" if days else "no photo says when"
    heading = sum(photo.bearing_deg is not None for photo in photos) / len(photos)
    facts = [
        (f"{len(photos):,}", "photos"),
        (f"{len(drives):,}", f"drives, median {np.median(list(drives.values())):g} photos"),
        (f"{heading:.0%}", "with a heading"),
        (f"{np.median([p.position_error_m for p in photos]):.1f} m", "median error of position"),
        (f"{len(days):,} {'day' if len(days) == 1 else 'days'}", span),
        ("unknown" if left_out is None else f"{len(left_out):,}", "left out"),
    ]
    return tiles(facts)


def _splits(photos: Sequence[Photo], protocol: str | None) -> str:
    """How they are split, and in red where that leaks."""
    if all(photo.split is None for photo in photos):
        return "<p>Not split yet: run <code>zoomloc split</code>.</p>"
    reading = READINGS.get(protocol or "")
    told = f"{reading}; only to compare with papers that split so"
    warned = f' <span class="bad">{text(told)}</span>' if reading else ""
    return f"<p>Split: <b>{text(protocol or 'protocol not stated')}</b>{warned}</p>"


def _coverage(photos: Sequence[Photo], region: Region | None, folder: Path | None) -> str:
    """The map, its key, and whose imagery it shows."""
    ground = None if region is None else Ground(region)
    imagery = None if folder is None else folder / "imagery.pmtiles"
    credit = "No imagery: the ground is left plain."
    if ground is not None and imagery is not None and imagery.is_file():
        with TilePyramid.open(imagery) as pyramid:
            picture, outside = coverage_map(photos, ground, pyramid)
        credit = imagery_credit(ground.region)
    else:
        picture, outside = coverage_map(photos, ground, None)
    counts = Counter(split_name(photo) for photo in photos)
    key = keys((c, f"{name} {counts[name]:,}") for name, c in COLOURS.items() if counts[name])
    beyond = f" {outside:,} photos lie outside of this map." if outside else ""
    return (
        f"<h2>Where they were taken</h2><figure><p>{key}</p>"
        f'<img src="{data_uri(picture)}" alt="map of the photos by split">'
        f"<figcaption>{text(credit + beyond)}</figcaption></figure>"
    )


def _charts(photos: Sequence[Photo]) -> str:
    known = sum(photo.bearing_deg is not None for photo in photos)
    dated = sum(photo.captured_at is not None for photo in photos)
    unknown = len(photos) - known
    return (
        f'<div class="two"><figure class="rose">{rose(photos)}<figcaption>Viewing directions of '
        f"{known:,} photos, north up; a sector's area is its number of photos. "
        f"{unknown:,} have no heading.</figcaption></figure>"
        f"<div><h3>Dates</h3>{date_bars(photos)}<h3>Hour of the day</h3>{hour_bars(photos)}"
        f'<p class="note">{len(photos) - dated:,} photos have no time. Hours are as the photos '
        "say, in whatever zone.</p></div></div>"
    )


# 2. tables


def _terms(photos: Sequence[Photo]) -> str:
    tables = (
        ("Camera", _camera),
        ("Source", lambda photo: photo.source),
        ("Creator", lambda photo: photo.creator),
        ("Licence", lambda photo: photo.licence),
    )
    camera, *others = (_counts(photos, head, of) for head, of in tables)
    return f'<div class="two"><div>{camera}</div><div>{"".join(others)}</div></div>'


def _camera(photo: Photo) -> str:
    """What is known of a camera: how it projects, and how wide it sees."""
    if photo.fov_deg is None:
        return f"{photo.projection}, field of view unknown"
    return f"{photo.projection}, {photo.fov_deg:.0f}° wide"


def _counts(photos: Sequence[Photo], head: str, of: Callable[[Photo], str]) -> str:
    counts = Counter(of(photo) or "not stated" for photo in photos)
    shown = counts.most_common(ROWS)
    rest = len(photos) - sum(count for _, count in shown)
    if rest:
        shown.append((f"{len(counts) - ROWS:,} others", rest))
    rows = [(name, f"{count:,}", f"{count / len(photos):.1%}") for name, count in shown]
    return table((head, "photos", ""), rows)


def _reasons(left_out: Sequence[Skipped] | None) -> str:
    if left_out is None:
        return "<p>There is no skipped.parquet beside the table.</p>"
    if not left_out:
        return "<p>Nothing was left out.</p>"
    examples: dict[str, str] = {}
    for one in left_out:
        examples.setdefault(one.reason, one.path)
    counts = Counter(one.reason for one in left_out)
    rows = [(reason, f"{n:,}", examples[reason]) for reason, n in counts.most_common(REASONS)]
    rest = len(left_out) - sum(n for _, n in counts.most_common(REASONS))
    if rest:
        rows.append((f"{len(counts) - REASONS:,} other reasons", f"{rest:,}", ""))
    return f'<div class="why">{table(("Reason", "photos", "such as"), rows)}</div>'


# 3. the contact sheet


def _sheet(photos: Sequence[Photo]) -> str:
    chosen = sampled(photos, SHEET)
    return (
        f'<p class="note">{len(chosen):,} of {len(photos):,}, drawn by a hash of their ids.</p>'
        f'<div class="sheet">{"".join(_card(photo) for photo in chosen)}</div>'
    )


def sampled(photos: Sequence[Photo], count: int) -> list[Photo]:
    """Some of the photos, the same each time: a few of each split at least, by split and id."""
    order = sorted(photos, key=lambda photo: hashlib.sha256(_bytes(photo.id)).digest())
    chosen: dict[str, Photo] = {}
    for split in COLOURS:
        some = [photo for photo in order if split_name(photo) == split][:SHEET_LEAST]
        chosen |= {photo.id: photo for photo in some}
    for photo in order:
        if len(chosen) >= count:
            break
        chosen[photo.id] = photo
    splits = list(COLOURS)
    return sorted(chosen.values(), key=lambda p: (splits.index(split_name(p)), p.id))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _card(photo: Photo) -> str:
    """A photo with what is known of it, its creator and licence below."""
    name = split_name(photo)
    taken = "time unknown" if photo.captured_at is None else f"{photo.captured_at:%Y-%m-%d %H:%M}"
    looks = "" if photo.bearing_deg is None else f", {photo.bearing_deg:.0f}°"
    return (
        f"<figure>{thumb(photo, THUMB_PX)}<p>{text(photo.id)}</p>"
        f'<p><span class="badge" style="background:{COLOURS[name]}">{name}</span> '
        f"{text(taken + looks)}</p><p>{text(photo_credit(photo))}</p></figure>"
    )
