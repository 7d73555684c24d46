"""bench.pooling: figures over seeds and differences between entrants, computed by hand.

With two groups a resample is aa, ab, ba or bb: the ends are one group alone.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bench_rows import made, realistic

from zoomloc.belief.metrics import Interval, bootstrap_over_groups
from zoomloc.bench.pooling import group_count, paired_difference, pooled
from zoomloc.bench.rows import Row
from zoomloc.errors import ConfigError

HIT, MISS = 10.0, 90.0


def answers(hits: str, groups: str, seed: int = 0, **changes: Any) -> Row:
    """A row from hits such as "1101" and groups such as "aabb"; photos differ by seed."""
    towns = changes.pop("towns", [seed])
    details = {"photos_hash": f"{seed:08x}"} | changes.pop("details", {})
    errors = [HIT if hit == "1" else MISS for hit in hits]
    numbers = [ord(group) - ord("a") for group in groups]
    return made(errors, numbers, seed=seed, towns=towns, details=details, **changes)


def same(interval: Interval, value: float, lo: float, hi: float, n: int) -> bool:
    held = (interval.value, interval.lo, interval.hi)
    return bool(np.allclose(held, (value, lo, hi))) and interval.n == n


def test_a_difference_resamples_whole_drives():
    a, b = answers("1111", "aabb"), answers("0011", "aabb", entrant="match")
    assert same(paired_difference([a], [b]), 0.5, 0.0, 1.0, 4)
    assert same(paired_difference([b], [a]), -0.5, -1.0, 0.0, 4)
    assert same(paired_difference([a], [b], "r_at_100m"), 0.0, 0.0, 0.0, 4)


def test_a_difference_is_that_of_the_same_photos():
    """Drives that are easy or hard for both say nothing about which is better."""
    a, b = answers("111100", "aabbcc"), answers("101000", "aabbcc", entrant="match")
    b = replace(b, details=b.details | {"errors_m": [10, 90, 10, 90, 90, 90]})
    a = replace(a, details=a.details | {"errors_m": [10, 10, 10, 10, 90, 10]})
    assert same(paired_difference([a], [b]), 0.5, 0.5, 0.5, 6)
    assert pooled([a]).hi - pooled([a]).lo > 0.3


def test_one_drive_says_nothing_about_others():
    a, b = answers("1101", "aaaa"), answers("0100", "aaaa", entrant="match")
    assert same(paired_difference([a], [b]), 0.5, 0.0, 1.0, 4)


def pair(shared: dict[str, Any]) -> tuple[list[Row], list[Row]]:
    """Two seeds; differences by drive: 1 and 1 in the first, 1 and -1 in the second."""
    a = [answers("11", "ab", 0, **shared), answers("10", "ab", 1, **shared)]
    b = [answers("00", "ab", 0, **shared), answers("01", "ab", 1, **shared)]
    return a, [replace(row, entrant="match") for row in b]


def test_seeds_on_other_towns_have_other_drives():
    """Of four drives one is -1; drawn k of four times: P(4) = 0.4 %, P(3) = 4.7 %, so the
    2.5 % end is k = 3 and the upper end k = 0."""
    a, b = pair({})
    assert group_count(a) == 4
    assert same(paired_difference(a, b), 0.5, -0.5, 1.0, 4)


@pytest.mark.parametrize(
    "shared", [{"towns": [1, 2]}, {"towns": 24, "details": {"photos_hash": "0123abcd"}}]
)
def test_seeds_on_the_same_towns_are_averaged_within_a_town(shared):
    """By town the mean over seeds is 1 and 0: the ends are one town alone."""
    a, b = pair(shared)
    assert group_count(a) == 2
    n = 2 if "details" in shared else 4
    assert same(paired_difference(a, b), 0.5, 0.0, 1.0, n)


def test_a_number_of_towns_does_not_name_them():
    a, b = pair({"towns": 1})
    assert group_count(a) == 4
    assert same(paired_difference(a, b), 0.5, -0.5, 1.0, 4)


def test_seeds_that_only_one_has_are_left_out():
    a, b = pair({})
    assert same(paired_difference(a, b[1:]), 0.0, -1.0, 1.0, 2)
    assert same(paired_difference(a[:1], b), 1.0, 1.0, 1.0, 2)


def test_seeds_count_alike_whatever_their_photos():
    rows = [answers("1111", "aabb", 0), answers("00", "ab", 1)]
    interval = pooled(rows)
    assert interval.value == 0.5 and interval.n == 6
    assert (interval.lo, interval.hi) == (0.0, 1.0)


def test_pooled_is_the_mean_over_seeds():
    rows = [answers("1100", "aabb", 0), answers("1110", "aabb", 1)]
    assert pooled(rows).value == pytest.approx((0.5 + 0.75) / 2)
    towns = [replace(row, towns=[5, 6]) for row in rows]
    assert same(pooled(towns), 0.625, 0.25, 1.0, 8)
    assert same(pooled(rows, "r_at_100m"), 1.0, 1.0, 1.0, 8)


def test_pooled_agrees_with_the_row_itself():
    row = realistic("zoomloc", 0)
    for metric in ("r_at_25m", "r_at_50m", "r_at_100m"):
        assert same(pooled([row], metric), *row.metrics[metric].values())
    assert pooled([row], "median_error_m").value == pytest.approx(
        row.metrics["median_error_m"]["value"], abs=1
    )
    bare = replace(row, details={})
    assert pooled([bare], "exact_cell") == Interval(**row.metrics["exact_cell"])


def test_a_quantile_is_that_of_all_photos():
    rows = [made([1, 2, 3], seed=0, towns=[0]), made([10, 20, 90], seed=1, towns=[1])]
    assert pooled(rows, "median_error_m").value == 6.5


def test_what_cannot_be_compared_is_refused():
    a, b = answers("11", "ab"), answers("10", "ab", entrant="match")
    cases = [
        ([a], [replace(b, seed=1)], "no seed that both"),
        ([a], [replace(b, details=b.details | {"photos_hash": "ffffffff"})], "other photos"),
        ([a], [replace(b, details=b.details | {"groups": [0, 0]})], "other photos"),
        ([a, replace(a, towns=[9])], [b], "two rows of zoomloc"),
        ([a], [replace(b, details={})], "no details.photos_hash"),
        ([a], [replace(b, details={**b.details, "errors_m": []})], "no details.errors_m"),
    ]
    for mine, theirs, words in cases:
        with pytest.raises(ConfigError, match=words):
            paired_difference(mine, theirs)
    with pytest.raises(ConfigError, match="exact_cell cannot be resampled"):
        paired_difference([a], [b], "exact_cell")
    with pytest.raises(ConfigError, match="run the benchmark"):
        pooled([])


def test_weights_count_in_a_mean_only():
    found = bootstrap_over_groups([1, 0, 0], ["a", "b", "b"], "mean", 0, weights=[2, 1, 1])
    assert (found.value, found.lo, found.hi) == (0.5, 0.0, 1.0)
    plain = bootstrap_over_groups([1, 0, 0], ["a", "b", "b"], "mean", 0, weights=[3, 3, 3])
    assert plain == bootstrap_over_groups([1, 0, 0], ["a", "b", "b"], "mean", 0)
    with pytest.raises(ValueError, match="only a mean"):
        bootstrap_over_groups([1, 0], ["a", "b"], "median", 0, weights=[1, 1])
