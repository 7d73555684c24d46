"""A small chart as inline SVG: two scales, and lines, bands, bars and rules between them.

Knows nothing of what is shown. Every text is escaped; numbers outside of a scale stay at its end.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

GREY = "#767676"
WIDTH, HEIGHT = 520.0, 290.0
_LEFT, _RIGHT, _TOP, _BELOW = 52.0, 26.0, 22.0, 42.0

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Scale:
    """Numbers from ``low`` to ``high`` along an axis, with (value, label) ticks."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value stands: 0 at the low end, 1 at the high one."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low)


PERCENT = Scale(0, 1, [(k / 4, f"{25 * k} %") for k in range(5)])


class Plot:
    """A chart in the making; what is drawn later lies above."""

    def __init__(self, told: str, x: Scale, y: Scale, x_name: str, y_name: str) -> None:
        self.told, self.x, self.y = told, x, y
        self.parts = [self._across(*tick) for tick in y.ticks]
        self.parts += [self._down(*tick) for tick in x.ticks]
        middle, base = (_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 6
        self.parts.append(_text(middle, base, x_name, "middle"))
        self.parts.append(_text(2, 12, y_name, "start"))

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the data lies in the picture."""
        return (
            _LEFT + self.x.share(x) * (WIDTH - _LEFT - _RIGHT),
            HEIGHT - _BELOW - self.y.share(y) * (HEIGHT - _TOP - _BELOW),
        )

    def line(self, points: Points, colour: str, dashes: str = "", dots: bool = False) -> None:
        """A line through points, with a dot that tells its numbers at each where asked."""
        style = f'stroke-dasharray="{dashes}" ' if dashes else ""
        path = f'<path d="{self._path(points)}" fill="none" stroke="{colour}" {style}'
        self.parts.append(f'{path}stroke-width="2"/>')
        if dots:
            self.dots(points, colour, [f"{x:.4g}: {100 * y:.1f} %" for x, y in points])

    def dots(self, points: Points, colour: str, told: Sequence[str], radius: float = 3.5) -> None:
        """Dots that say something where the mouse rests on them."""
        for point, words in zip(points, told, strict=True):
            x, y = self.at(*point)
            self.parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{colour}">'
                f"<title>{html.escape(words)}</title></circle>"
            )

    def band(
        self, xs: Sequence[float], lo: Sequence[float], hi: Sequence[float], colour: str
    ) -> None:
        """The ground between two lines."""
        points = [*zip(xs, hi, strict=True), *reversed(list(zip(xs, lo, strict=True)))]
        self.parts.append(f'<path d="{self._path(points)}Z" fill="{colour}" opacity="0.18"/>')

    def bar(self, left: float, right: float, value: float, colour: str, told: str) -> None:
        """A bar from the low end of the scale up to a value."""
        x, y = self.at(left, value)
        x2, base = self.at(right, self.y.low)
        self.parts.append(
            f'<rect x="{x + 0.5:.1f}" y="{y:.1f}" width="{max(x2 - x - 1, 0.5):.1f}" '
            f'height="{base - y:.1f}" fill="{colour}"><title>{html.escape(told)}</title></rect>'
        )

    def rule(self, x: float, words: str, colour: str = GREY) -> None:
        """A line from top to bottom with a word at its head."""
        (left, top), (_, base) = self.at(x, self.y.high), self.at(x, self.y.low)
        self.parts.append(
            f'<path d="M{left:.1f} {top:.1f}V{base:.1f}" stroke="{colour}" stroke-dasharray="2 3"/>'
        )
        self.parts.append(_text(left + 4, top + 10, words, "start", colour))

    def words(self, x: float, y: float, words: str, anchor: str = "middle") -> None:
        """A few words just above a point."""
        left, top = self.at(x, y)
        self.parts.append(_text(left, top - 6, words, anchor))

    def svg(self) -> str:
        """The chart as markup."""
        return svg((0, 0, WIDTH, HEIGHT), self.parts, self.told)

    def _path(self, points: Points) -> str:
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in (self.at(*p) for p in points))

    def _across(self, value: float, label: str) -> str:
        left, y = self.at(self.x.low, value)
        line = f'<path d="M{left:.1f} {y:.1f}H{WIDTH - _RIGHT}" stroke="#ddd"/>'
        return line + _text(left - 6, y + 4, label, "end")

    def _down(self, value: float, label: str) -> str:
        x, base = self.at(value, self.y.low)
        line = f'<path d="M{x:.1f} {base:.1f}v4" stroke="#888"/>'
        return line + _text(x, base + 17, label, "middle")


def svg(box: tuple[float, float, float, float], parts: Sequence[str], told: str) -> str:
    """Parts as one picture; ``told`` is what a screen reader says of it."""
    view = " ".join(f"{side:g}" for side in box)
    return (
        f'<svg viewBox="{view}" role="img" aria-label="{html.escape(told)}" font-size="12" '
        f'fill="#222">{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, words: str, anchor: str, colour: str = "") -> str:
    fill = f' fill="{colour}"' if colour else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{fill}>{html.escape(words)}</text>'
