"""metrics: hand-computed figures, `<=` at the edge, intervals over whole drives, chance."""

import time

import numpy as np
import pytest

from zoomloc.belief.metrics import (
    Interval,
    bootstrap_over_groups,
    chance_constant,
    chance_random,
    error_metrics,
    exact_cell,
    floor_m,
    recall_at,
    zoom_accuracy,
)
from zoomloc.errors import PhotoError
from zoomloc.world.cells import Cell, LatLng, cell_at, distance_m, moved
from zoomloc.world.region import Region

HOME = LatLng(44.05, -123.07)


# figures


def test_recall_counts_the_edge():
    errors = np.array([24.999, 25.0, 25.001, 100.0])
    assert recall_at(errors, 25) == 0.5
    assert recall_at(errors, 100) == 1.0
    assert recall_at(errors, 24) == 0.0


def test_no_answer_is_a_miss():
    assert recall_at(np.array([3.0, np.inf]), 1e9) == 0.5


@pytest.mark.parametrize("bad", [[], [np.nan, 3.0]])
def test_nothing_to_score_is_refused(bad):
    with pytest.raises(PhotoError, match="score"):
        recall_at(np.array(bad), 25)


def test_error_metrics_by_hand():
    errors = np.array([10.0, 25.0, 40.0, 50.0, 100.0, 101.0, 300.0, 1000.0])
    found = error_metrics(errors, ["a", "a", "b", "b", "c", "c", "d", "d"], seed=0)
    assert set(found) == {
        *(f"r_at_{d}m" for d in (25, 40, 50, 100)),
        *("median_error_m", "p75_error_m", "p90_error_m", "mean_error_m"),
    }
    values = {name: interval.value for name, interval in found.items()}
    assert values["r_at_25m"] == 2 / 8 and values["r_at_40m"] == 3 / 8
    assert values["r_at_50m"] == 4 / 8 and values["r_at_100m"] == 5 / 8
    assert values["median_error_m"] == 75.0
    assert values["p75_error_m"] == pytest.approx(101 + 0.25 * 199)
    assert values["p90_error_m"] == pytest.approx(300 + 0.3 * 700)
    assert values["mean_error_m"] == pytest.approx(1626 / 8)
    assert all(i.n == 8 and i.lo <= i.value <= i.hi for i in found.values())


def test_floor_is_half_the_diagonal():
    region = Region("here", (cell_at(HOME, 15),), 21, 2)
    leaf = cell_at(region.roots[0].center, 21)
    west, south, east, north = leaf.bounds
    diagonal = distance_m(LatLng(south, west), LatLng(north, east))
    assert floor_m(region) == pytest.approx(diagonal / 2, rel=5e-3)


def test_zoom_accuracy_counts_paths_that_still_hold_the_truth():
    region = Region("here", (cell_at(HOME, 15),), 21, 2)
    truth = region.path(HOME)
    other = [c for c in region.children(truth[1]) if c != truth[2]][0]
    errs = (*truth[:2], other, region.children(other)[0])
    paths = [truth, truth, errs, errs]
    assert zoom_accuracy(paths, [truth] * 4) == [1.0, 0.5, 0.5]
    assert zoom_accuracy([truth, truth], [truth, ()]) == [0.5, 0.5, 0.5]
    with pytest.raises(PhotoError):
        zoom_accuracy([], [])


def test_exact_cell_is_the_share_of_equal_cells():
    a, b = Cell(3, 1, 1), Cell(3, 1, 2)
    assert exact_cell([a, a, b, b], [a, b, b, a], list("wxyz"), seed=0).value == 0.5


# intervals


def by_resampling(values, groups, statistic, seed, resamples):
    """The bootstrap as the books have it, one resample after the other."""
    names = sorted(set(groups))
    members = [np.array([v for v, g in zip(values, groups, strict=True) if g == n]) for n in names]
    draws = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), resamples
    )
    found = [
        statistic(np.concatenate([m for m, k in zip(members, row, strict=True) for _ in range(k)]))
        for row in draws
    ]
    return np.quantile(found, [0.025, 0.975])


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("mean", np.mean),
        ("median", np.median),
        (0.9, lambda v: np.quantile(v, 0.9)),
        (0.0, np.min),
        (1.0, np.max),
    ],
)
def test_the_bootstrap_agrees_with_plain_resampling(name, plain):
    rng = np.random.default_rng(3)
    groups = [f"drive {g}" for g in rng.integers(0, 7, 60)]
    values = rng.gamma(1, 50, 60)
    found = bootstrap_over_groups(values, groups, name, seed=11, resamples=300)
    lo, hi = by_resampling(values, groups, plain, 11, 300)
    assert found.value == pytest.approx(plain(values))
    assert (found.lo, found.hi, found.n) == (pytest.approx(lo), pytest.approx(hi), 60)


def test_whole_drives_are_resampled_not_photos():
    """Two drives of 500 alike photos: the rate may be 0, a half or 1, whatever n says."""
    values, groups = np.repeat([0.0, 1.0], 500), np.repeat(["a", "b"], 500)
    by_drive = bootstrap_over_groups(values, groups, "mean", seed=0)
    by_photo = bootstrap_over_groups(values, np.arange(1000), "mean", seed=0)
    assert (by_drive.value, by_drive.lo, by_drive.hi) == (0.5, 0.0, 1.0)
    assert 0.46 < by_photo.lo < 0.48 and 0.52 < by_photo.hi < 0.54  # 0.5 -+ 1.96 * 0.0158


def test_one_drive_says_nothing_about_others():
    found = bootstrap_over_groups([1.0, 0.0, 1.0, 1.0], ["a"] * 4, "mean", seed=0)
    assert found == Interval(0.75, 0.0, 1.0, 4)


def test_same_seed_same_interval_and_the_level_widens_it():
    values = np.random.default_rng(0).exponential(size=200)
    groups = np.arange(200) % 20
    a, b = (bootstrap_over_groups(values, groups, "median", seed=5) for _ in range(2))
    assert a == b
    assert a != bootstrap_over_groups(values, groups, "median", seed=6)
    narrow = bootstrap_over_groups(values, groups, "median", seed=5, level=0.5)
    assert a.lo < narrow.lo <= narrow.hi < a.hi


def test_answers_that_are_missing_do_not_make_nan():
    values = [1.0, 2.0, np.inf, np.inf]
    found = bootstrap_over_groups(values, list("abcd"), "median", seed=0)
    assert (found.value, found.lo, found.hi) == (np.inf, 1.0, np.inf)


def test_values_and_groups_belong_together():
    with pytest.raises(ValueError, match="3 values but 2 groups"):
        bootstrap_over_groups([1.0, 2.0, 3.0], ["a", "b"], "mean", seed=0)


def test_thousands_of_photos_take_seconds_at_most():
    rng = np.random.default_rng(0)
    started = time.process_time()
    error_metrics(rng.gamma(1, 50, 5000), rng.integers(0, 60, 5000), seed=0)
    assert time.process_time() - started < 5


# chance


def test_chance_random_by_hand():
    pool = [HOME, moved(HOME, 90, 30), moved(HOME, 0, 80), moved(HOME, 180, 5000)]
    truths = [HOME, moved(HOME, 180, 5010)]
    found = chance_random(truths, pool, seed=0)
    # the first truth has 1, 2 and 3 of four places within 25, 50, 100 m; the second has 1
    assert found == {"r_at_25m": 2 / 8, "r_at_50m": 3 / 8, "r_at_100m": 4 / 8}


@pytest.mark.parametrize("place", [HOME, LatLng(-17.0, 179.99999), LatLng(84.0, 20.0)])
def test_chance_counts_geodesic_metres(place):
    rng = np.random.default_rng(0)
    here = [moved(place, float(b), float(m)) for b, m in rng.uniform(0, (360, 120), (60, 2))]
    truths, pool = here[:20], [*here[20:], moved(place, 90, 50), moved(place, 0, 50)]
    near = np.array([[distance_m(t, p) for p in pool] for t in truths])
    found = chance_random(truths, pool, seed=0, distances_m=(25, 50.0, 110))
    for name, d in (("r_at_25m", 25), ("r_at_50m", 50), ("r_at_110m", 110)):
        assert found[name] == pytest.approx((near <= d).mean(), abs=1e-12)


def test_a_sample_of_a_large_pool_is_near_the_whole_and_seeded():
    rng = np.random.default_rng(1)
    pool = [LatLng(44.05 + y, -123.07 + x) for y, x in rng.uniform(0, 0.005, (3000, 2))]
    truths = pool[:40]
    whole = chance_random(truths, pool, seed=0)
    part = chance_random(truths, pool, seed=0, max_pairs=40_000)
    assert part == chance_random(truths, pool, seed=0, max_pairs=40_000)
    assert part != whole
    assert part["r_at_100m"] == pytest.approx(whole["r_at_100m"], rel=0.25)


def test_chance_constant_takes_the_answer_with_most_of_the_pool():
    crowd = moved(HOME, 90, 1000)
    pool = [HOME, *(moved(crowd, b, 40) for b in range(0, 360, 30)), crowd]
    truths = [moved(crowd, 0, 20), moved(crowd, 180, 60), HOME, moved(HOME, 0, 300)]
    found = chance_constant(truths, pool, seed=0)
    assert found == {"r_at_25m": 0.25, "r_at_50m": 0.25, "r_at_100m": 0.5}


def test_chance_does_not_look_at_the_truths_to_choose_its_answer():
    crowd = moved(HOME, 90, 1000)
    pool = [HOME, crowd, moved(crowd, 0, 10)]
    assert chance_constant([HOME] * 9, pool, seed=0)["r_at_100m"] == 0.0


@pytest.mark.parametrize("chance", [chance_random, chance_constant])
def test_chance_of_nothing_is_refused(chance):
    for truths, pool in (([], [HOME]), ([HOME], [])):
        with pytest.raises(PhotoError, match="at least one truth"):
            chance(truths, pool, seed=0)
