"""The plot of an audit: how far test photos are from the nearest training photo.

Knows nothing of how a split was made. Draws with matplotlib's objects only (extra ``plots``,
imported when something is drawn): no window, no state, the same bytes for the same table.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_prep.split_audit import WITHIN_M, distances_to_train_m
from zoomloc.errors import ConfigError, PhotoError
from zoomloc.world.cells import Floats
from zoomloc.world.files import written_whole
from zoomloc.world.photos import READINGS, read_photos, split_protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED, GREY = "#0072B2", "#D55E00", "#6b6b6b"
LEAST_M = 0.5  # of the axis; nearer than that is the same place


def plot_table(parquet: Path, out: Path) -> None:
    """Draw the distances of a table as a PNG.

    Raises PhotoError where it has no test or no train photos, ConfigError without matplotlib.
    """
    metres = distances_to_train_m(read_photos(parquet))
    if not len(metres):
        raise PhotoError(f"{parquet}: no test or no train photos, so no distance to plot")
    figure = _figure(metres, split_protocol(parquet))
    with written_whole(out) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _figure(metres: Floats, protocol: str | None) -> "Figure":
    """The share of test photos against the distance, with the shares at round distances told."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("plots need matplotlib: pip install 'zoomloc[plots]'") from error
    figure = Figure(figsize=(9, 5.5), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    places = np.sort(np.maximum(metres, LEAST_M))
    shares = np.arange(1, len(places) + 1) / len(places)
    colour = RED if protocol in READINGS else BLUE
    last = max(200.0, float(places[-1]) * 1.2)
    across = np.concatenate([[LEAST_M], places, [last]])
    axes.step(across, np.concatenate([[0], shares, [1]]), where="post", color=colour, linewidth=2)
    for limit in WITHIN_M:
        share = float((metres <= limit).mean())
        axes.axvline(limit, color="#b0b0b0", linewidth=1, zorder=1)
        axes.annotate(f"{limit:g} m\n{share:.0%}", (limit, 1.01), ha="center", va="bottom",
                      color=GREY, fontsize=10, annotation_clip=False)  # fmt: skip
    leaky = " (LEAKY)" if protocol in READINGS else ""
    axes.set_title(
        f"from test photos to the nearest training photo (n = {len(metres):,})\n"
        f"split: {protocol or 'not stated'}{leaky}, median {np.median(metres):,.1f} m",
        fontsize=13,
        loc="left",
        pad=36,
    )
    axes.set_xlim(LEAST_M, last)
    _name(axes)
    return figure


def _name(axes: "Axes") -> None:
    """Name both axes, with plain numbers on the logarithmic one."""
    from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

    axes.set_xscale("log")
    axes.set_ylim(0, 1.005)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("metres (log)", fontsize=12)
    axes.set_ylabel("test photos with one at most so far away", fontsize=12)
    axes.grid(True, color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
