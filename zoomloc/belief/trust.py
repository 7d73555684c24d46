"""Trust: whether probabilities and radii mean what they say, from answers whose truth is known.

Knows nothing of photos, posteriors or how a probability is mended. All arrays are (n,), one
entry an answer: its probability of being right, whether it was, its error and radii in metres.
Intervals resample whole groups, as all of ``metrics`` do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zoomloc.belief.metrics import (
    Interval,
    bootstrap_over_groups,
    group_draws,
    percentile_interval,
    quantile,
)
from zoomloc.errors import PhotoError
from zoomloc.world.cells import Floats, Ints

Bools = npt.NDArray[np.bool_]

BINS = 10  # of equal mass, in reliability and by confidence
LEAST = 1e-6  # a probability nearer to 0 or 1 counts as this: one surprise is no infinite loss
CHUNK = 4_000_000  # numbers held at once
LEAST_M = 0.01  # errors below are no smaller to anyone
POINTS = 60  # of a risk-coverage curve, in a report


@dataclass(frozen=True)
class Bin:
    """Answers of like probability: what they claim on average, and how many were right."""

    probability: float
    right: float
    n: int


# 1. is the probability what it says


def reliability(probability: Floats, right: Bools, bins: int = BINS) -> list[Bin]:
    """At most ``bins`` of equal mass, the least probable first; equal claims share a bin."""
    probability, right = _pair(probability, right)
    bin_of = _bins_of(probability, bins)
    return [
        Bin(float(probability[own].mean()), float(right[own].mean()), int(own.sum()))
        for own in (bin_of == b for b in np.unique(bin_of))
    ]


def ece(probability: Floats, right: Bools, bins: int = BINS) -> float:
    """Expected calibration error: mean gap of claim and truth over the bins, by their mass."""
    found = reliability(probability, right, bins)
    gaps = [bin_.n * abs(bin_.probability - bin_.right) for bin_ in found]
    return float(sum(gaps) / sum(bin_.n for bin_ in found))


def ece_null(probability: Floats, bins: int = BINS, draws: int = 500, seed: int = 0) -> float:
    """Mean ECE of as many answers if each probability were exactly true: the noise in an ECE."""
    probability, _ = _pair(probability, np.zeros(len(probability), bool))
    order = np.argsort(probability, kind="stable")
    claims = probability[order]
    first = np.flatnonzero(np.diff(_bins_of(claims, bins), prepend=-1))
    rng, found = np.random.default_rng(seed), []
    for rows in _rows(draws, len(claims)):
        apart = claims - (rng.random((rows, len(claims))) < claims)
        found.append(np.abs(np.add.reduceat(apart, first, axis=1)).sum(axis=1))
    return float(np.concatenate(found).mean() / len(claims))


def brier(probability: Floats, right: Bools) -> float:
    """Mean squared difference of claim and truth: 0 is perfect, 0.25 a coin's."""
    probability, right = _pair(probability, right)
    return float(((probability - right) ** 2).mean())


def event_nll(probability: Floats, right: Bools) -> float:
    """Mean of -log of what was claimed for what came true, in nats; a coin's is 0.693."""
    probability, right = _pair(probability, right)
    claimed = np.clip(np.where(right, probability, 1 - probability), LEAST, 1)
    return float(-np.log(claimed).mean())


# 2. does it tell right from wrong


def auroc(
    score: Floats,
    positive: Bools,
    groups: Sequence[object],
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Chance that a positive scores above a negative, ties counting half, with its interval.

    Raises PhotoError where all are positive or none is.
    """
    score, positive = _pair(score, positive, bounded=False)
    if positive.all() or not positive.any():
        which = "all" if positive.any() else "none"
        raise PhotoError(
            f"{which} of {len(score)} answers is what is to be told apart; it takes both kinds"
        )
    group, draws = group_draws(groups, len(score), seed, resamples)
    order = np.argsort(score, kind="stable")
    first = np.flatnonzero(np.diff(score[order], prepend=-np.inf))
    value = float(_areas(np.ones((1, len(score))), positive[order], first)[0])
    parts = np.array_split(draws, max(1, len(draws) * len(score) // CHUNK))
    found = np.concatenate(
        [_areas(part[:, group[order]], positive[order], first) for part in parts]
    )
    found = found[np.isfinite(found)]  # a resample without one of both kinds says nothing
    if draws.shape[1] == 1 or not len(found):
        return Interval(value, 0.0, 1.0, len(score))
    return percentile_interval(value, found, len(score), level)


def _areas(weight: Floats | Ints, positive: Bools, first: Ints) -> Floats:
    """(r,) areas under the ROC curve of weights (r, n) on scores in order, ties from ``first``."""
    above = np.add.reduceat(weight * positive, first, axis=1)
    below = np.add.reduceat(weight * ~positive, first, axis=1)
    lower = np.cumsum(below, axis=1) - below / 2
    with np.errstate(invalid="ignore"):
        return np.asarray((above * lower).sum(1) / (above.sum(1) * below.sum(1)))


@dataclass(frozen=True)
class RiskCoverage:
    """Answers kept from the surest down: their share, the share of them that is wrong.

    coverage, risk, probability: (m,) for each distinct probability as the least that is
    answered; ``area`` under the curve (0 is perfect; an unsure order gives the overall risk).
    """

    coverage: Floats
    risk: Floats
    probability: Floats
    area: float


def risk_coverage(probability: Floats, right: Bools) -> RiskCoverage:
    """What abstaining below each probability would leave, and how much of it is wrong."""
    probability, right = _pair(probability, right)
    order = np.argsort(-probability, kind="stable")
    last = np.flatnonzero(np.diff(probability[order], append=-1))  # no threshold splits a tie
    kept = last + 1.0
    risk = np.cumsum(~right[order])[last] / kept
    coverage = kept / len(right)
    area = float((np.diff(coverage, prepend=0) * risk).sum())
    return RiskCoverage(coverage, risk, probability[order][last], area)


# 3. is the radius what it says


def radius_coverage(
    error_m: Floats, radius_m: Floats, groups: Sequence[object], seed: int
) -> Interval:
    """Share of truths within the stated radius, with its interval."""
    held = np.asarray(error_m, np.float64) <= np.asarray(radius_m, np.float64)
    return bootstrap_over_groups(held, groups, "mean", seed)


def radius_against_errors(
    probability: Floats, radius90_m: Floats, error_m: Floats, bins: int = BINS
) -> tuple[Floats, float]:
    """How wide 90 % radii are: (ratio in each bin of like probability, median of the ratios).

    A ratio is the bin's median radius by the 90th percentile of its errors: 1 is as tight as
    the errors allow, far above 1 says little.
    """
    probability, _ = _pair(probability, np.zeros(len(probability), bool))
    radius_m, errors_m = np.asarray(radius90_m, np.float64), np.asarray(error_m, np.float64)
    bin_of = _bins_of(probability, bins)
    ratios = [
        float(np.median(radius_m[own])) / max(quantile(errors_m[own], 0.9), LEAST_M)
        for own in (bin_of == b for b in np.unique(bin_of))
    ]
    return np.array(ratios), float(np.median(ratios))


def disc_area_m2(radius_m: Floats) -> Floats:
    """(n,) ground that discs of these radii cover: the size of a credible region."""
    return np.asarray(np.pi * np.asarray(radius_m, np.float64) ** 2)


# 4. all of it


def judged(
    probability: Floats,
    radius50_m: Floats,
    radius90_m: Floats,
    error_m: Floats,
    groups: Sequence[object],
    within_m: float,
) -> dict[str, Any]:
    """What a report says of the trust that answers deserve; right: within ``within_m``.

    ``auroc`` is None where all answers are right, or none is.
    """
    right = error_m <= within_m
    noise = ece_null(probability)
    mixed = bool(right.any() and not right.all())
    ratios, ratio = radius_against_errors(probability, radius90_m, error_m)
    return {
        "within_m": within_m,
        "bins": [asdict(bin_) for bin_ in reliability(probability, right)],
        "ece": ece(probability, right),
        "ece_null": noise,
        "ece_excess": ece(probability, right) - noise,
        "brier": brier(probability, right),
        "nll_nats": event_nll(probability, right),
        "auroc": auroc(probability, right, groups, seed=0).to_json() if mixed else None,
        "risk_coverage": _risk_json(risk_coverage(probability, right)),
        "radius50": _radius_json(error_m, radius50_m, groups),
        "radius90": _radius_json(error_m, radius90_m, groups),
        "radius90_by_p90_error": {"ratios": ratios.tolist(), "median": ratio},
    }


def _radius_json(error_m: Floats, radius_m: Floats, groups: Sequence[object]) -> dict[str, Any]:
    return {
        "covers": radius_coverage(error_m, radius_m, groups, seed=0).to_json(),
        "median_m": float(np.median(radius_m)),
        "median_area_m2": float(np.median(disc_area_m2(radius_m))),
    }


def _risk_json(curve: RiskCoverage) -> dict[str, Any]:
    """The curve at no more than POINTS of its points, the ends among them."""
    few = np.unique(np.linspace(0, len(curve.risk) - 1, POINTS).round().astype(int))
    columns = (curve.coverage[few], curve.risk[few], curve.probability[few])
    points = [
        {"coverage": c, "risk": r, "probability": p}
        for c, r, p in zip(*(column.round(5).tolist() for column in columns), strict=True)
    ]
    return {"area": curve.area, "points": points}


# 5. inside


def _bins_of(probability: Floats, bins: int) -> Ints:
    """(n,) the bin of each by its rank; equal ones share their middle rank, whatever the order."""
    _, of, count = np.unique(probability, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count + 1) / 2
    return np.asarray(np.floor(middle[of] * bins / len(probability)), np.int64)


def _rows(count: int, width: int) -> Iterator[int]:
    """``count`` rows of that width, in parts that fit in memory."""
    most = max(1, CHUNK // max(1, width))
    yield from (min(most, count - done) for done in range(0, count, most))


def _pair(
    probability: npt.ArrayLike, right: npt.ArrayLike, bounded: bool = True
) -> tuple[Floats, Bools]:
    """Both as arrays. Raises PhotoError for none, ValueError for what is no probability."""
    claims, outcomes = np.asarray(probability, np.float64), np.asarray(right, bool)
    if not len(claims):
        raise PhotoError("no answers to judge; name photos with a known place")
    if claims.shape != outcomes.shape or np.isnan(claims).any():
        raise ValueError(f"{claims.shape} numbers (none NaN) for {outcomes.shape} outcomes")
    if bounded and (claims.min() < 0 or claims.max() > 1 + 1e-6):
        raise ValueError(f"probabilities from {claims.min()} to {claims.max()}, not within 0..1")
    return (np.minimum(claims, 1.0) if bounded else claims), outcomes
