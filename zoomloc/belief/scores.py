"""Scores: what each answer is worth once the truth is looked up, and the figures of a set.

Knows nothing of models, of search or of files. Errors alone are the business of ``metrics``;
this is what else is known: other places offered, ground to be searched, belief at the truth,
heading.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from zoomloc.belief.metrics import Interval, bootstrap_over_groups, recall_at
from zoomloc.belief.posterior import Posterior
from zoomloc.world.answers import Answer
from zoomloc.world.cells import Floats, LatLng, distance_m

TOP = (3, 5)  # places offered, the answer among them
TOP_M = 50.0
TURNS_DEG = (10.0, 20.0, 45.0)
AREAS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # shares of a region
CURVE_M = (5, 7, 10, 15, 20, 25, 30, 40, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 2000, 5000)
LEAST_LOG = -50.0  # nats; a belief of exactly 0 at one truth would be an infinite mean

Metres = Callable[[LatLng, LatLng], float]


@dataclass(frozen=True)
class Score:
    """One answer against its truth.

    places_m: errors of the answer and of the alternatives to it, in their order; searched_share:
    ground that is searched before the truth is met; log_mass: belief in the terminal cell of the
    truth, NaN where that is no candidate; bearing_off_deg: NaN where unknown.
    """

    places_m: tuple[float, ...]
    searched_share: float
    log_mass: float
    bearing_off_deg: float

    @property
    def error_m(self) -> float:
        """Metres from answer to truth."""
        return self.places_m[0]


def score_of(
    answer: Answer,
    posterior: Posterior,
    truth: LatLng,
    true_bearing_deg: float | None,
    metres: Metres = distance_m,
) -> Score:
    """What an answer and the belief behind it are worth; ``metres`` measures distances."""
    others = (LatLng(other.lat, other.lng) for other in answer.alternatives)
    return Score(
        tuple(metres(place, truth) for place in (answer.place, *others)),
        posterior.searched_share(truth),
        float(posterior.log_mass_at(np.array([truth.lat]), np.array([truth.lng]))[0]),
        bearing_off_deg(answer.bearing_deg, true_bearing_deg),
    )


def bearing_off_deg(found_deg: float | None, true_deg: float | None) -> float:
    """Degrees between two bearings, the short way round; NaN where one is unknown."""
    if found_deg is None or true_deg is None:
        return math.nan
    return abs((found_deg - true_deg + 180) % 360 - 180)


def errors_m(scores: Sequence[Score]) -> Floats:
    """(n,) metres from each answer to its truth."""
    return np.array([score.error_m for score in scores])


# figures, each with its interval


def figures(scores: Sequence[Score], groups: Sequence[str], cells: int) -> dict[str, Interval]:
    """All figures beyond those of the errors; ``cells`` could have been the answer."""
    return top_figures(scores, groups) | belief_figures(scores, groups, cells) | bearing_figures(
        scores, groups
    )  # fmt: skip


def top_figures(scores: Sequence[Score], groups: Sequence[str]) -> dict[str, Interval]:
    """Share of photos with the truth within TOP_M of any of the first k places.

    Answers that offer fewer places count with those that they have.
    """
    found = {}
    for k in TOP:
        nearest = np.array([min(score.places_m[:k]) for score in scores])
        hits = nearest <= TOP_M
        found[f"top{k}_r_at_{TOP_M:g}m"] = bootstrap_over_groups(hits, groups, "mean", seed=0)
    return found


def belief_figures(
    scores: Sequence[Score], groups: Sequence[str], cells: int
) -> dict[str, Interval]:
    """Mean loss at the true terminal cell in nats, and bits gained over a belief that is even.

    Only of photos whose truth is a candidate: ``n`` says how many.
    """
    log_mass = np.array([score.log_mass for score in scores])
    known = ~np.isnan(log_mass)
    if not known.any():
        return {}
    loss = -np.maximum(log_mass[known], LEAST_LOG)
    some = np.array(groups)[known].tolist()
    gained = (math.log(cells) - loss) / math.log(2)
    return {
        "truth_nll_nats": bootstrap_over_groups(loss, some, "mean", seed=0),
        "bits_gained": bootstrap_over_groups(gained, some, "mean", seed=0),
    }


def bearing_figures(scores: Sequence[Score], groups: Sequence[str]) -> dict[str, Interval]:
    """Median heading error and the shares under TURNS_DEG, where headings are known.

    ``..._right_deg`` is of answers within TOP_M alone: a heading at a wrong place means little.
    """
    off = np.array([score.bearing_off_deg for score in scores])
    known, all_groups = np.isfinite(off), np.array(groups)
    if not known.any():
        return {}
    some = all_groups[known].tolist()
    name = "median_bearing_off_deg"
    found = {name: bootstrap_over_groups(off[known], some, "median", seed=0)}
    for turn in TURNS_DEG:
        hits = off[known] <= turn
        found[f"bearing_within_{turn:g}deg"] = bootstrap_over_groups(hits, some, "mean", seed=0)
    right = known & (errors_m(scores) <= TOP_M)
    if right.any():
        some = all_groups[right].tolist()
        name = "median_bearing_off_right_deg"
        found[name] = bootstrap_over_groups(off[right], some, "median", seed=0)
    return found


# curves


def recall_curve(errors: Floats, groups: Sequence[str]) -> dict[float, Interval]:
    """Recall within each distance of CURVE_M, as far as some answer is off."""
    farthest = next((d for d in CURVE_M if d >= np.max(errors)), CURVE_M[-1])
    return {
        float(d): bootstrap_over_groups(errors <= d, groups, "mean", seed=0)
        for d in CURVE_M
        if d <= farthest
    }


def area_recall(shares: Floats, areas: Sequence[float] = AREAS) -> list[dict[str, float]]:
    """Share of photos found when so much of the ground is searched, likeliest cells first."""
    return [{"area": a, "recall": round(recall_at(shares, a), 4)} for a in areas]
