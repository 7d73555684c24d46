"""Pictures of benchmark rows: four kinds, each for one protocol, preset and budget.

Draws with matplotlib's objects only (extra ``plots``, imported when something is drawn): no
window, no state, the same bytes for the same rows. Knows nothing of how entrants are trained.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoomloc.bench.rows import FARTHEST_M, Row
from zoomloc.bench.tables import CHANCE, Section, sections
from zoomloc.errors import ConfigError
from zoomloc.world.cells import Floats
from zoomloc.world.files import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = tuple[Floats, Floats]  # x (n,) growing, y (n,)

WIDTH_PX, HEIGHT_PX, DPI = 900, 550, 100
DISTANCES_M = (25.0, 50.0, 100.0)
GREY = "#6b6b6b"
# Okabe and Ito's palette (Color Universal Design, 2008), told apart by colour-blind readers too.
COLOURS = {
    "zoomloc": "#0072B2",
    "match": "#D55E00",
    "justzoomin": "#009E73",
    "justzoomin-centre": "#56B4E9",
    "retrieval": "#E69F00",
    "hierarchical": "#CC79A7",
    "constant": GREY,
    "random-road": GREY,
}
MARKERS = {
    "zoomloc": "o",
    "match": "s",
    "justzoomin": "^",
    "justzoomin-centre": "v",
    "retrieval": "D",
    "hierarchical": "P",
}
# Tol's muted palette (2021) for ablations, which come and go.
ABLATION_COLOURS = ("#332288", "#882255", "#117733", "#999933", "#661100", "#44AA99", "#AA4499")


def write_plots(rows: Iterable[Row], folder: Path) -> list[Path]:
    """Write ``<protocol>-<preset>-<minutes>min-<kind>.png`` into the folder: the paths written.

    Kinds: recall-time, errors, zooms, searched-area; a kind that no row has data for is left
    out. Raises ConfigError without matplotlib, OutputError where the place cannot be written.
    """
    written = []
    for section in sections(rows):
        for kind, draw in KINDS.items():
            figure = draw(section)
            if figure is None:
                continue
            name = f"{section.protocol}-{section.preset}-{section.minutes:g}min"
            towns = hashlib.sha256(section.towns.encode()).hexdigest()[:6]
            path = folder / f"{name}{f'-{towns}' if section.towns else ''}-{kind}.png"
            with written_whole(path) as temporary:
                figure.savefig(temporary, format="png", metadata={"Software": None})
            written.append(path)
    return written


# 1. the four kinds


def recall_over_time(section: Section) -> "Figure | None":
    """Recall on val photos against process time of training: mean over seeds, each seed thin."""
    curves = _curves(section, _time_curve)
    if not curves:
        return None
    n = max((row.details.get("val_n", 0) for row in section.rows), default=0)
    figure, axes = _canvas(section, curves, "recall on val photos during training", n)
    _draw_curves(axes, curves, markers=True)
    highest = max(float(y.max()) for seeds in curves.values() for _, y in seeds)
    axes.set_xlim(left=0)
    axes.set_ylim(0, min(100, max(5, highest * 1.08)))
    _name(axes, "process time of training, minutes", "recall within 50 m, %")
    return figure


def error_distribution(section: Section) -> "Figure | None":
    """Share of answers at most so far off, against that distance; chance in dashed grey."""
    curves = _curves(section, _error_curve)
    if not curves:
        return None
    n = max(row.n for row in section.rows)
    figure, axes = _canvas(section, curves, "how far off the answers are", n, pad=22)
    grid = np.unique([x for seeds in curves.values() for some, _ in seeds for x in some])
    for entrant, seeds in curves.items():
        share = np.mean([_steps_at(curve, grid) for curve in seeds], axis=0)
        axes.step(grid, share, where="post", label=entrant, **_style(entrant))
    for distance in DISTANCES_M:
        axes.axvline(distance, color="#b0b0b0", linewidth=1, zorder=1)
        above = (distance, 101)
        axes.annotate(f"{distance:g} m", above, ha="center", va="bottom", color=GREY,
                      annotation_clip=False)  # fmt: skip
    axes.set_xlim(1, max(100, *grid[grid < FARTHEST_M]))
    axes.set_ylim(0, 100)
    _log_across(axes)
    _name(axes, "error, metres (log)", "answers within that distance, %")
    return figure


def zoom_accuracy(section: Section) -> "Figure | None":
    """Share of photos whose path still holds the truth after each zoom."""
    curves = _curves(section, _zoom_curve)
    if not curves:
        return None
    n = max(row.n for row in section.rows)
    figure, axes = _canvas(section, curves, "photos still on the right path after each zoom", n)
    _draw_curves(axes, curves, markers=True)
    deepest = int(max(x[-1] for seeds in curves.values() for x, _ in seeds))
    axes.set_xticks(range(deepest + 1))
    axes.set_xlim(-0.15, deepest + 0.15)
    axes.set_ylim(0, 100)
    _name(axes, "zoom (0 is the first, at the root)", "paths that hold the truth, %")
    return figure


def recall_over_area(section: Section) -> "Figure | None":
    """Share of photos found, against the share of the region searched, likeliest cells first."""
    curves = _curves(section, _area_curve)
    if not curves:
        return None
    n = max(row.n for row in section.rows)
    what = "photos found when only a share of the region is searched"
    figure, axes = _canvas(section, curves, what, n)
    _draw_curves(axes, curves, markers=False)
    least = min(10.0, *(float(x[0]) for seeds in curves.values() for x, _ in seeds))
    share = np.geomspace(least, 100, 200)
    axes.plot(share, share, color=GREY, linestyle=":", linewidth=1.6, label="searched at random")
    axes.set_xlim(least, 100)
    axes.set_ylim(0, 100)
    _log_across(axes)
    _name(axes, "share of the region searched, % (log)", "photos found, %")
    return figure


KINDS: Mapping[str, "Callable[[Section], Figure | None]"] = {
    "recall-time": recall_over_time,
    "errors": error_distribution,
    "zooms": zoom_accuracy,
    "searched-area": recall_over_area,
}


# 2. curves of a row, rates in per cent


def _time_curve(row: Row) -> Curve | None:
    pairs = [(m["seconds"] / 60, 100 * m["r_at_50m"]) for m in row.details.get("curve", ())]
    return _sorted_curve(pairs)


def _error_curve(row: Row) -> Curve | None:
    """The steps of the cumulative distribution; below a metre there is nothing to tell."""
    errors = np.sort(np.maximum(np.asarray(row.details.get("errors_m", ()), np.float64), 1))
    if not len(errors):
        return None
    places = np.unique(errors)
    return places, 100 * np.searchsorted(errors, places, side="right") / len(errors)


def _zoom_curve(row: Row) -> Curve | None:
    return _sorted_curve([(z, 100 * a) for z, a in enumerate(row.details.get("zoom_accuracy", ()))])


def _area_curve(row: Row) -> Curve | None:
    searched = row.details.get("area_recall", ())
    return _sorted_curve([(100 * s["area"], 100 * s["recall"]) for s in searched if s["area"] > 0])


def _sorted_curve(pairs: Iterable[tuple[float, float]]) -> Curve | None:
    table = np.array(sorted(pairs), np.float64).reshape(-1, 2)
    return (table[:, 0], table[:, 1]) if len(table) else None


def _curves(section: Section, of: Callable[[Row], Curve | None]) -> dict[str, list[Curve]]:
    """The curves of each entrant, one for each seed that has one; those without left out."""
    found = {
        entrant: [curve for row in rows if (curve := of(row)) is not None]
        for entrant, rows in section.entrants.items()
    }
    return {entrant: seeds for entrant, seeds in found.items() if seeds}


def _mean_curve(seeds: Sequence[Curve]) -> Curve:
    """The mean over seeds at each of their places, as far as all of them reach."""
    first, last = max(x[0] for x, _ in seeds), min(x[-1] for x, _ in seeds)
    every = np.unique(np.concatenate([x for x, _ in seeds]))
    places = every[(every >= first) & (every <= last)]
    if not len(places):
        return seeds[0]
    return places, np.mean([np.interp(places, x, y) for x, y in seeds], axis=0)


def _steps_at(curve: Curve, grid: Floats) -> Floats:
    """A step curve's values on a grid: those of the last step at or before each place."""
    x, y = curve
    return np.asarray(np.concatenate([[0.0], y])[np.searchsorted(x, grid, side="right")])


# 3. drawing


def _canvas(
    section: Section,
    curves: Mapping[str, Sequence[Curve]],
    what: str,
    n: int,
    pad: float | None = None,
) -> "tuple[Figure, Axes]":
    """An empty figure whose title tells protocol, budget, seeds, what is drawn and n."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("plots need matplotlib: pip install 'zoomloc[plots]'") from error
    figure = Figure(figsize=(WIDTH_PX / DPI, HEIGHT_PX / DPI), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    seeds = sorted({len(c) for entrant, c in curves.items() if entrant not in CHANCE}) or [1]
    several = seeds != [1]
    title = section.title if len(section.title) < 70 else f"{section.title[:67]}..."
    told = f", {' or '.join(map(str, seeds))} seed{'s' if several else ''}"
    size = f" (n = {n:,}{' for each seed' if several else ''})" if n else ""
    axes.set_title(f"{title}{told}\n{what}{size}", fontsize=13, loc="left", pad=pad)
    axes.tick_params(labelsize=11)
    axes.grid(True, color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _name(axes: "Axes", across: str, up: str) -> None:
    """Name both axes, and the lines in a legend beside them that hides nothing."""
    axes.set_xlabel(across, fontsize=12)
    axes.set_ylabel(up, fontsize=12)
    axes.legend(
        loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, fontsize=11, frameon=False
    )


def _log_across(axes: "Axes") -> None:
    """A log x axis with plain numbers at its powers of ten."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _draw_curves(axes: "Axes", curves: Mapping[str, Sequence[Curve]], markers: bool) -> None:
    """The mean of each entrant, and its seeds thin where there are several."""
    for entrant, seeds in curves.items():
        style = _style(entrant)
        if len(seeds) > 1:
            for x, y in seeds:
                axes.plot(x, y, **(style | {"linewidth": 0.8, "alpha": 0.45}))
        marker = MARKERS.get(entrant, "X") if markers else None
        x, y = _mean_curve(seeds)
        axes.plot(x, y, label=entrant, marker=marker, markersize=6,
                  markevery=max(1, len(x) // 10), **style)  # fmt: skip


def _style(entrant: str) -> dict[str, Any]:
    """Colour and line of an entrant, the same in every picture."""
    if entrant in CHANCE:
        line = "--" if entrant == "constant" else (0, (1, 1.5))
        return {"color": GREY, "linestyle": line, "linewidth": 1.6, "zorder": 2}
    if entrant in COLOURS:
        width = 2.8 if entrant == "zoomloc" else 2.0
        return {"color": COLOURS[entrant], "linestyle": "-", "linewidth": width, "zorder": 3}
    drawn = int(hashlib.sha256(entrant.encode()).hexdigest(), 16)
    dashes = ("--", "-.", (0, (5, 1, 1, 1, 1, 1)))[drawn // 97 % 3]
    colour = ABLATION_COLOURS[drawn % len(ABLATION_COLOURS)]
    return {"color": colour, "linestyle": dashes, "linewidth": 1.8, "zorder": 3}
