"""Charts of photos as inline SVG: a rose of headings, bars of dates and of hours.

Knows nothing of files or pages. Every text is escaped; colours are those of the splits.
"""

import html
import math
from collections.abc import Sequence
from datetime import datetime

from maps.plot import svg
from zoomloc.world.photos import SPLITS, Photo

# Told apart by colour-blind readers too, and on any ground.
COLOURS = {"train": "#0072B2", "val": "#1a1a1a", "test": "#D55E00", "left out": "#969696"}
SECTORS = 24  # of the rose: 15 degrees each
DAYS_AS_HOURS, DAYS_AS_DAYS, DAYS_AS_MONTHS = 2, 92, 2200  # spans up to which bars are finer

_BARS = (640.0, 190.0)  # width and height of a bar chart
_BELOW, _LEFT = 24.0, 46.0


def split_name(photo: Photo) -> str:
    """The photo's split, as the charts and the map name it."""
    return photo.split if photo.split in SPLITS else "left out"


# 1. headings


def rose(photos: Sequence[Photo]) -> str:
    """Photos by viewing direction, north up; a sector's area is its number of photos."""
    counts = [0] * SECTORS
    for photo in photos:
        if photo.bearing_deg is not None:
            counts[round(photo.bearing_deg / 360 * SECTORS) % SECTORS] += 1
    most, known = max(counts), sum(counts)
    parts = [_ring(share, most) for share in (1.0, 0.5)] if most else []
    for k, count in enumerate(counts):
        if count:
            parts.append(_sector(k, count, 100 * math.sqrt(count / most)))
    for name, x, y in (("N", 0, -112), ("E", 114, 5), ("S", 0, 122), ("W", -114, 5)):
        parts.append(f'<text x="{x}" y="{y}" text-anchor="middle" font-weight="600">{name}</text>')
    told = f"{known:,} photos by heading, {len(photos) - known:,} without one"
    return svg((-140, -130, 280, 260), parts, told)


def _ring(share: float, most: int) -> str:
    radius = 100 * math.sqrt(share)
    label = f"{most * share:,.0f}"
    return (
        f'<circle r="{radius:.1f}" fill="none" stroke="#ccc"/>'
        f'<text x="{0.72 * radius:.1f}" y="{-0.72 * radius:.1f}" class="faint">{label}</text>'
    )


def _sector(k: int, count: int, radius: float) -> str:
    first, last = (math.radians(360 * (k + side) / SECTORS) for side in (-0.46, 0.46))
    points = [(radius * math.sin(a), -radius * math.cos(a)) for a in (first, last)]
    (x, y), (x2, y2) = points
    told = f"around {360 * k / SECTORS:g} degrees: {count:,}"
    return (
        f'<path d="M0 0L{x:.1f} {y:.1f}A{radius:.1f} {radius:.1f} 0 0 1 {x2:.1f} {y2:.1f}Z" '
        f'fill="#0072B2"><title>{told}</title></path>'
    )


# 2. times


def date_bars(photos: Sequence[Photo]) -> str:
    """Photos by hour, day, month or year, whichever suits how long they took; by split."""
    dated = [(photo.captured_at, photo) for photo in photos if photo.captured_at is not None]
    if not dated:
        return "<p>No photo says when it was taken.</p>"
    unit, bins = _bins([when for when, _ in dated])
    stacks = [dict.fromkeys(COLOURS, 0) for _ in bins]
    place = {name: k for k, name in enumerate(bins)}
    for when, photo in dated:
        stacks[place[_bin(when, unit)]][split_name(photo)] += 1
    told = f"photos by {unit}, {len(photos) - len(dated):,} without a date"
    return _bar_chart(bins, stacks, told)


def hour_bars(photos: Sequence[Photo]) -> str:
    """Photos by hour of the day, as their clocks say; by split."""
    stacks = [dict.fromkeys(COLOURS, 0) for _ in range(24)]
    for photo in photos:
        if photo.captured_at is not None:
            stacks[photo.captured_at.hour][split_name(photo)] += 1
    return _bar_chart([f"{hour}h" for hour in range(24)], stacks, "photos by hour of the day")


def _bins(times: Sequence[datetime]) -> tuple[str, list[str]]:
    """The unit of the bars, and the names of all bars from the first to the last, none left out."""
    days = [when.toordinal() for when in times]
    span = max(days) - min(days) + 1
    if span <= DAYS_AS_HOURS:
        return "hour", [
            f"{datetime.fromordinal(day):%Y-%m-%d} {hour:02d}h"
            for day in range(min(days), max(days) + 1)
            for hour in range(24)
        ]
    if span <= DAYS_AS_DAYS:
        ordinals = range(min(days), max(days) + 1)
        return "day", [f"{datetime.fromordinal(day):%Y-%m-%d}" for day in ordinals]
    first, last = (
        12 * when.year + when.month - 1 for when in (min(times, key=_day), max(times, key=_day))
    )
    if span <= DAYS_AS_MONTHS:
        return "month", [f"{m // 12:04d}-{m % 12 + 1:02d}" for m in range(first, last + 1)]
    return "year", [f"{year:04d}" for year in range(first // 12, last // 12 + 1)]


def _day(when: datetime) -> int:
    return when.toordinal()


def _bin(when: datetime, unit: str) -> str:
    """The name of the bar that a time belongs to."""
    if unit == "hour":
        return f"{when:%Y-%m-%d} {when.hour:02d}h"
    if unit == "day":
        return f"{when:%Y-%m-%d}"
    return f"{when.year:04d}-{when.month:02d}" if unit == "month" else f"{when.year:04d}"


def _bar_chart(names: Sequence[str], stacks: Sequence[dict[str, int]], told: str) -> str:
    """Stacked bars with their names below as far as there is room, and a scale at the left."""
    width, height = _BARS
    most = _round_above(max(sum(stack.values()) for stack in stacks))
    step = (width - _LEFT) / len(names)
    parts = [_level(share, most) for share in (0.5, 1.0)]
    parts.append(f'<path d="M{_LEFT} {height}H{width}" stroke="#888"/>')
    for k, stack in enumerate(stacks):
        parts += _stack(_LEFT + k * step, step, stack, most, names[k])
    wide = max(len(name) for name in names) * 7.0 + 12
    every = max(1, math.ceil(wide / step))
    for k in range(0, len(names), every):
        x = min(max(_LEFT + (k + 0.5) * step, _LEFT), width - wide / 2)
        label = html.escape(names[k])
        parts.append(f'<text x="{x:.1f}" y="{height + 17}" text-anchor="middle">{label}</text>')
    return svg((0, -14, width, height + _BELOW + 14), parts, told)


def _round_above(count: int) -> int:
    """The least even round number that is not below a count."""
    power = int(10 ** max(len(str(count)) - 2, 0))
    steps = (2, 4, 6, 8, 10, 12, 16, 20, 24, 30, 40, 50, 60, 80, 100)
    return next(step * power for step in steps if step * power >= count)


def _level(share: float, most: int) -> str:
    y = _BARS[1] * (1 - share)
    return (
        f'<path d="M{_LEFT} {y:.1f}H{_BARS[0]}" stroke="#ddd"/>'
        f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{most * share:,.0f}</text>'
    )


def _stack(x: float, step: float, stack: dict[str, int], most: int, name: str) -> list[str]:
    parts, y = [], _BARS[1]
    gap = min(0.15 * step, 4.0)
    for split, count in stack.items():
        if count:
            tall = _BARS[1] * count / most
            y -= tall
            told = html.escape(f"{name}: {count:,} {split}")
            parts.append(
                f'<rect x="{x + gap / 2:.2f}" y="{y:.2f}" width="{step - gap:.2f}" '
                f'height="{tall:.2f}" fill="{COLOURS[split]}"><title>{told}</title></rect>'
            )
    return parts
