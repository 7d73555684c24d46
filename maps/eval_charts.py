"""Charts of an evaluation as inline SVG: how far off, how sure, how much must be searched.

Knows nothing of photos, files or pages: it draws what report.json holds, and errors in metres.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maps.plot import GREY, PERCENT, Plot, Scale
from zoomloc.world.cells import Floats

BLUE, ORANGE = "#0072B2", "#D55E00"  # told apart by colour-blind readers too
BINS_A_DOUBLING = 2  # of the histogram of errors
LEAST_M = 1.0  # errors below share its first bar

Report = Mapping[str, Any]


def recall_chart(report: Report) -> str:
    """Answers within each distance, the interval as a band, chance dashed and constant dotted."""
    curve = report["recall_curve"]
    x = [row["distance_m"] for row in curve]
    plot = Plot(
        "share of answers within each distance",
        _metres(x[0], x[-1]),
        PERCENT,
        "distance, m (log)",
        "answers within",
    )
    plot.band(x, [row["lo"] for row in curve], [row["hi"] for row in curve], BLUE)
    for name, dashes in (("chance", "6 4"), ("chance_constant", "2 3")):
        plot.line([(row["distance_m"], row[name]) for row in curve], GREY, dashes)
    plot.line([(row["distance_m"], row["value"]) for row in curve], BLUE, dots=True)
    return plot.svg()


def error_chart(errors_m: Floats, floor_m: float, right_m: float) -> str:
    """How many answers are so far off; what a terminal cell can reach is marked."""
    most = max(float(errors_m.max()), floor_m, right_m)
    halvings = math.ceil(BINS_A_DOUBLING * math.log2(right_m / LEAST_M))
    doublings = math.ceil(BINS_A_DOUBLING * math.log2(most / right_m) + 1e-9)
    edges = right_m * 2.0 ** (np.arange(-halvings, max(doublings, 1) + 1) / BINS_A_DOUBLING)
    counts, _ = np.histogram(np.clip(errors_m, edges[0], edges[-1]), edges)
    plot = Plot(
        "histogram of errors",
        _metres(edges[0], edges[-1]),
        _counts(int(counts.max())),
        "error, m (log)",
        "answers",
    )
    for left, right, count in zip(edges, edges[1:], counts, strict=False):
        if count:
            colour = BLUE if math.sqrt(left * right) < right_m else ORANGE
            told = f"{left:.3g} to {right:.3g} m: {count:,}"
            plot.bar(left, right, float(count), colour, told)
    plot.rule(floor_m, f"cell's floor {floor_m:.0f} m")
    return plot.svg()


def reliability_chart(calibration: Report) -> str:
    """What answers of like probability claim, and how many of them are right, with their n."""
    plot = Plot(
        "claimed probability against share of right answers",
        PERCENT,
        PERCENT,
        "claimed probability",
        f"right within {calibration['within_m']:g} m",
    )
    plot.line([(0, 0), (1, 1)], GREY, "6 4")
    points = [(bin_["probability"], bin_["right"]) for bin_ in calibration["bins"]]
    for (claim, right), bin_ in zip(points, calibration["bins"], strict=True):
        noise = 2 * math.sqrt(max(right * (1 - right), 0.25 / bin_["n"]) / bin_["n"])
        plot.line([(claim, max(right - noise, 0)), (claim, min(right + noise, 1))], BLUE)
        plot.words(claim, min(right + noise, 1), f"{bin_['n']:,}")
    told = [
        f"claimed {100 * b['probability']:.1f} %, right {100 * b['right']:.1f} %, n {b['n']:,}"
        for b in calibration["bins"]
    ]
    plot.dots(points, BLUE, told, 5)
    return plot.svg()


def risk_chart(calibration: Report) -> str:
    """Share of wrong answers where only the surest are given."""
    points = calibration["risk_coverage"]["points"]
    plot = Plot(
        "share of wrong answers among the surest",
        PERCENT,
        PERCENT,
        "photos answered, the surest first",
        "wrong",
    )
    plot.line([(0, points[-1]["risk"]), (1, points[-1]["risk"])], GREY, "6 4")
    line = [(point["coverage"], point["risk"]) for point in points]
    plot.line(line, ORANGE)
    told = [
        f"{100 * p['coverage']:.0f} % answered (probability {p['probability']:.2f} and more): "
        f"{100 * p['risk']:.1f} % wrong"
        for p in points
    ]
    plot.dots(line, ORANGE, told, 2.5)
    return plot.svg()


def area_chart(report: Report) -> str:
    """Photos found when only a share of the ground is searched, likeliest cells first."""
    rows = report["area_recall"]
    x = [row["area"] for row in rows]
    ticks = [(share, f"{100 * share:g} %") for share in (0.001, 0.01, 0.1, 1.0)]
    plot = Plot(
        "photos found against ground searched",
        Scale(x[0], x[-1], ticks, log=True),
        PERCENT,
        "ground searched, likeliest first (log)",
        "photos found",
    )
    shares = np.geomspace(x[0], x[-1], 40).tolist()
    plot.line([(share, share) for share in shares], GREY, "6 4")
    plot.line([(row["area"], row["recall"]) for row in rows], BLUE, dots=True)
    return plot.svg()


def zoom_chart(shares: Sequence[float]) -> str:
    """Photos whose path still holds the truth after each zoom."""
    ticks = [(k + 0.5, str(k)) for k in range(len(shares))]
    plot = Plot(
        "paths that hold the truth after each zoom",
        Scale(0, len(shares), ticks),
        PERCENT,
        "zoom (0 is the first)",
        "still right",
    )
    for k, share in enumerate(shares):
        plot.bar(k + 0.2, k + 0.8, share, BLUE, f"after zoom {k}: {100 * share:.1f} %")
        plot.words(k + 0.5, share, f"{100 * share:.0f} %")
    return plot.svg()


def _metres(low: float, high: float) -> Scale:
    """A log scale of metres with a label at round ones, at most eight."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [s * 10.0**p for p in powers for s in steps if low <= s * 10.0**p <= high]
        if len(ticks) <= 8:
            break
    return Scale(low, high, [(tick, f"{tick:,.5g}") for tick in ticks], log=True)


def _counts(most: int) -> Scale:
    """From 0 to a round number above the most, with three or four ticks."""
    step = 10.0 ** math.floor(math.log10(max(most, 1)))
    step = next(part * step for part in (0.2, 0.25, 0.5, 1, 2, 5) if most <= 5 * part * step)
    step = max(step, 1.0)
    steps = max(1, math.ceil(most / step))
    return Scale(0, steps * step, [(k * step, f"{k * step:,.0f}") for k in range(steps + 1)])
