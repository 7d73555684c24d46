"""Metrics: errors in metres become rates and quantiles, each with an interval, beside chance.

Knows nothing of photos, models or files. All rates are fractions 0-1; "within d" means at most
d metres; distances are geodesic (WGS 84). Intervals resample whole groups (drives, towns), as
frames of one drive are not independent (DESIGN 7).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from zoomloc.belief.discs import curvature_radii_m
from zoomloc.errors import PhotoError
from zoomloc.world.cells import Cell, Floats, Ints, LatLng
from zoomloc.world.cells import distances_m as geodesic_m
from zoomloc.world.region import Region

Statistic = Literal["mean", "median"] | float  # a number is a quantile, 0.9 the 90th percentile

REPORTED_M = (25.0, 40.0, 50.0, 100.0)
CHANCE_M = (25.0, 50.0, 100.0)
MAX_PAIRS = 20_000_000  # pairs of truth and pool that chance looks at; about a second
CHUNK = 2_000_000  # numbers held at once


@dataclass(frozen=True)
class Interval:
    """A figure, the interval that holds it, and the number of photos it rests on."""

    value: float
    lo: float
    hi: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """The figure as reports hold it."""
        return {"value": self.value, "lo": self.lo, "hi": self.hi, "n": self.n}


# 1. figures


def recall_at(errors_m: Floats, distance_m: float) -> float:
    """Share of answers at most ``distance_m`` from the truth. Raises PhotoError for none."""
    return float((_some(errors_m) <= distance_m).mean())


def error_metrics(errors_m: Floats, groups: Sequence[object], seed: int) -> dict[str, Interval]:
    """Recall within 25, 40, 50 and 100 m; median, 75th and 90th percentile, and mean of errors.

    errors_m: (n,); groups: (n,) the drive of each. Raises PhotoError where there are none.
    """
    errors = _some(errors_m)
    found = {
        f"r_at_{d:g}m": bootstrap_over_groups(errors <= d, groups, "mean", seed) for d in REPORTED_M
    }
    quantiles: dict[str, Statistic] = {
        "median_error_m": "median",
        "p75_error_m": 0.75,
        "p90_error_m": 0.9,
        "mean_error_m": "mean",
    }
    for name, statistic in quantiles.items():
        found[name] = bootstrap_over_groups(errors, groups, statistic, seed)
    return found


def exact_cell(
    cells: Sequence[Cell], true_cells: Sequence[Cell], groups: Sequence[object], seed: int
) -> Interval:
    """Share of answers whose terminal cell is the one that holds the truth."""
    hits = np.array([a == b for a, b in zip(cells, true_cells, strict=True)], np.float64)
    return bootstrap_over_groups(hits, groups, "mean", seed)


def zoom_accuracy(
    paths: Sequence[Sequence[Cell]], true_paths: Sequence[Sequence[Cell]]
) -> list[float]:
    """For each zoom, the share of photos whose path still holds the truth after it.

    Paths lead from root to terminal cell; the root choice is no zoom, but a wrong one shows in
    all figures. A truth outside the region has the empty path and is never held.
    """
    if not paths:
        raise PhotoError("no answers to score; name photos with a known place")
    depth = max(map(len, paths))
    held = [
        [len(t) > d and len(p) > d and p[d] == t[d] for d in range(1, depth)]
        for p, t in zip(paths, true_paths, strict=True)
    ]
    return [float(share) for share in np.mean(held, axis=0)]


def floor_m(region: Region) -> float:
    """What a terminal cell can honestly reach: half its diagonal."""
    return region.cell_size_m * float(np.sqrt(0.5))


# 2. intervals


def bootstrap_over_groups(
    values: npt.ArrayLike,
    groups: Sequence[object],
    statistic: Statistic,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
    weights: npt.ArrayLike | None = None,
) -> Interval:
    """The statistic with its percentile interval over resamples of whole groups.

    values, groups: (n,). weights: (n,) positive, how much each value counts in a mean (all
    alike where None). With a single group nothing is known about others: the interval is then
    all of the values. Raises PhotoError where there are no values.
    """
    data = _some(values)
    group, draws = group_draws(groups, len(data), seed, resamples)
    if weights is not None and statistic != "mean":
        raise ValueError("only a mean can be weighted")
    weight = np.ones(len(data)) if weights is None else np.asarray(weights, np.float64)
    value = _statistic(data, statistic, weight)
    if draws.shape[1] == 1:
        return Interval(value, float(data.min()), float(data.max()), len(data))
    return percentile_interval(
        value, _resampled(data, weight, group, draws, statistic), len(data), level
    )


def paired_difference(
    ours: npt.ArrayLike,
    theirs: npt.ArrayLike,
    groups: Sequence[object],
    statistic: Statistic,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """The statistic of ours less that of theirs, (n,) each of the same photos in one order.

    Both are resampled together, so that what is hard for both does not widen the interval. With
    a single group that is all differences. Raises PhotoError where there are no values.
    """
    a, b = _some(ours), _some(theirs)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values against {len(b)}; hand over the same photos")
    group, draws = group_draws(groups, len(a), seed, resamples)
    even = np.ones(len(a))
    value = _statistic(a, statistic, even) - _statistic(b, statistic, even)
    if draws.shape[1] == 1:
        return Interval(value, float((a - b).min()), float((a - b).max()), len(a))
    mine, other = (_resampled(v, even, group, draws, statistic) for v in (a, b))
    return percentile_interval(value, mine - other, len(a), level)


def group_draws(
    groups: Sequence[object], n: int, seed: int, resamples: int = 2000
) -> tuple[Ints, Ints]:
    """((n,) number of each value's group, (resamples, groups) how often each group is drawn)."""
    _, group = np.unique(np.array([str(g) for g in groups]), return_inverse=True)
    if len(group) != n:
        raise ValueError(f"{n} values but {len(group)} groups")
    count = int(group.max()) + 1
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)
    return group, draws


def _statistic(data: Floats, statistic: Statistic, weight: Floats) -> float:
    if statistic == "mean":
        return float(np.average(data, weights=weight))
    return quantile(data, 0.5 if statistic == "median" else statistic)


def _resampled(
    data: Floats, weight: Floats, group: Ints, draws: Ints, statistic: Statistic
) -> Floats:
    """(resamples,) the statistic of each draw of groups."""
    if statistic == "mean":
        return _resampled_means(data, weight, group, draws)
    q = 0.5 if statistic == "median" else statistic
    return _resampled_quantiles(data, group, draws, q)


def percentile_interval(value: float, resampled: Floats, n: int, level: float) -> Interval:
    """The value with the middle ``level`` of what resampling gave."""
    tail = (1 - level) / 2
    return Interval(value, quantile(resampled, tail), quantile(resampled, 1 - tail), n)


def _resampled_means(data: Floats, weight: Floats, group: Ints, draws: Ints) -> Floats:
    """(resamples,) means, from the weighted sum and the weight of each group."""
    sums, sizes = np.bincount(group, data * weight), np.bincount(group, weight)
    return np.asarray((draws @ sums) / (draws @ sizes))


def _resampled_quantiles(data: Floats, group: Ints, draws: Ints, q: float) -> Floats:
    """(resamples,) quantiles as numpy's default would give on the values drawn, repeats and all."""
    order = np.argsort(data, kind="stable")
    ordered, found = data[order], []
    for some in np.array_split(draws, max(1, draws.shape[0] * len(data) // CHUNK)):
        held = np.cumsum(some[:, group[order]], axis=1)  # values drawn up to each
        place = q * (held[:, -1] - 1)
        below = np.floor(place)
        pair = [(held <= k[:, None]).sum(axis=1) for k in (below, np.ceil(place))]
        found.append(_between(ordered[pair[0]], ordered[pair[1]], place - below))
    return np.concatenate(found)


def quantile(data: Floats, q: float) -> float:
    """numpy's default quantile, but infinities (no answer) do not make NaN."""
    ordered = np.sort(data)
    place = q * (len(ordered) - 1)
    below, above = int(np.floor(place)), int(np.ceil(place))
    share = np.array([place - below])
    return float(_between(ordered[[below]], ordered[[above]], share)[0])


def _between(low: Floats, high: Floats, share: Floats) -> Floats:
    """low + share (high - low), where both may be infinite."""
    apart = (share > 0) & (low != high)
    step = np.subtract(high, low, out=np.zeros_like(low), where=apart)
    return np.asarray(low + share * step)


# 3. chance


def chance_random(
    truths: Sequence[LatLng],
    pool: Sequence[LatLng],
    seed: int,
    distances_m: Sequence[float] = CHANCE_M,
    max_pairs: int = MAX_PAIRS,
) -> dict[str, float]:
    """Expected recall of an answer drawn from the pool (road points, or training photos).

    Exact over all pairs of truth and pool place; where those are more than ``max_pairs``, over
    a seeded sample of the pool. Raises PhotoError where either is empty.
    """
    lat, lng = _degrees(truths)
    pool_lat, pool_lng = _sampled(_degrees(pool), max_pairs // len(lat), seed)
    near = _counts_within(lat, lng, pool_lat, pool_lng, distances_m)
    return {
        f"r_at_{d:g}m": float(near[:, i].mean() / len(pool_lat)) for i, d in enumerate(distances_m)
    }


def chance_constant(
    truths: Sequence[LatLng],
    pool: Sequence[LatLng],
    seed: int,
    distances_m: Sequence[float] = CHANCE_M,
    best_within_m: float = 50.0,
    max_pairs: int = MAX_PAIRS,
) -> dict[str, float]:
    """Recall of the one answer that has most of the pool within ``best_within_m``.

    The answer is a place of the pool (of a seeded sample, where pairs are more than
    ``max_pairs``), chosen without a look at the truths. Raises PhotoError where either is empty.
    """
    best = densest(pool, seed, best_within_m, max_pairs)
    lat, lng = _degrees(truths)
    errors = geodesic_m(lat, lng, np.array(best.lat), np.array(best.lng))
    return {f"r_at_{d:g}m": recall_at(errors, d) for d in distances_m}


def densest(
    pool: Sequence[LatLng], seed: int, within_m: float = 50.0, max_pairs: int = MAX_PAIRS
) -> LatLng:
    """The place of the pool that has most of the pool within that distance: the constant answer.

    Where pairs are more than ``max_pairs``, of a seeded sample. Raises PhotoError for no pool.
    """
    everywhere = _degrees(pool)
    lat, lng = _sampled(everywhere, max_pairs // len(everywhere[0]), seed)
    best = int(np.argmax(_counts_within(lat, lng, *everywhere, (within_m,))[:, 0]))
    return LatLng(float(lat[best]), float(lng[best]))


def _counts_within(
    lat: Floats, lng: Floats, pool_lat: Floats, pool_lng: Floats, distances_m: Sequence[float]
) -> Ints:
    """(n, d) how many of the pool (m,) lie within each distance of each place (n,).

    The plane at each place decides what is clear; the geodesic decides what is near the line.
    """
    counts = np.zeros((len(lat), len(distances_m)), np.int64)
    for rows in np.array_split(np.arange(len(lat)), 1 + len(lat) * len(pool_lat) // CHUNK):
        prime_m, meridian_m = curvature_radii_m(lat[rows, None])
        east = np.remainder(pool_lng - lng[rows, None] + 180, 360) - 180
        east_m = np.radians(east) * prime_m * np.cos(np.radians(lat[rows, None]))
        plane_m = np.hypot(east_m, np.radians(pool_lat - lat[rows, None]) * meridian_m)
        for i, d in enumerate(distances_m):
            unsure = np.abs(plane_m - d) <= d * (1e-3 + d / 5e5)
            sure = (plane_m <= d) & ~unsure
            a, b = np.nonzero(unsure)
            exact = geodesic_m(lat[rows[a]], lng[rows[a]], pool_lat[b], pool_lng[b]) <= d
            counts[rows, i] = sure.sum(axis=1) + np.bincount(a[exact], minlength=len(rows))
    return counts


def _degrees(places: Sequence[LatLng]) -> tuple[Floats, Floats]:
    """Latitudes and longitudes. Raises PhotoError where there are no places."""
    table = np.array([(p.lat, p.lng) for p in places], np.float64).reshape(-1, 2)
    if not len(table):
        raise PhotoError("chance needs at least one truth and one place to draw from; none given")
    return table[:, 0], table[:, 1]


def _sampled(places: tuple[Floats, Floats], most: int, seed: int) -> tuple[Floats, Floats]:
    """At most that many of the places (one at least), drawn without repeats."""
    lat, lng = places
    if len(lat) <= most:
        return lat, lng
    some = np.random.default_rng(seed).choice(len(lat), max(1, most), replace=False)
    return lat[some], lng[some]


def _some(values: npt.ArrayLike) -> Floats:
    """The values (n,) in float64. Raises PhotoError where there are none, or one is NaN."""
    data = np.asarray(values, np.float64).ravel()
    if not len(data):
        raise PhotoError("no answers to score; name photos with a known place")
    if np.isnan(data).any():
        raise PhotoError(
            f"{int(np.isnan(data).sum())} of {len(data)} errors are not a number; "
            "score only photos with a known place"
        )
    return data
