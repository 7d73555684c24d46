"""trust: every figure against a case worked out by hand, ties and edges among them."""

import math
import time

import numpy as np
import pytest

from zoomloc.belief.trust import (
    LEAST,
    Bin,
    auroc,
    brier,
    disc_area_m2,
    ece,
    ece_null,
    event_nll,
    judged,
    radius_against_errors,
    radius_coverage,
    reliability,
    risk_coverage,
)
from zoomloc.errors import PhotoError


def yes(text: str) -> np.ndarray:
    return np.array([c == "1" for c in text])


# probability


def test_reliability_by_hand():
    probability = np.array([0.9, 0.1, 0.3, 0.7])
    found = reliability(probability, yes("1010"), bins=2)
    assert found == [Bin(pytest.approx(0.2), 0.5, 2), Bin(pytest.approx(0.8), 0.5, 2)]
    assert ece(probability, yes("1010"), bins=2) == pytest.approx((0.3 + 0.3) / 2)


def test_bins_hold_equal_mass_and_their_sizes_weigh():
    probability = np.array([0.0, 0.0, 0.0, 1.0])
    found = reliability(probability, yes("1000"), bins=2)
    assert [bin_.n for bin_ in found] == [3, 1]  # equal claims are never torn apart
    assert ece(probability, yes("1000"), bins=2) == pytest.approx(3 / 4 * 1 / 3 + 1 / 4 * 1.0)


def test_bins_do_not_depend_on_the_order_of_answers():
    """All claim alike: drive after drive, the bins would be drives and the ECE their spread."""
    probability, right = np.full(100, 0.5), np.repeat([True, False], 50)
    assert reliability(probability, right) == [Bin(0.5, 0.5, 100)]
    assert ece(probability, right) == 0.0


def test_the_null_of_one_claim_is_the_mean_deviation_of_a_binomial():
    """Of 2 coins the mean |share - 1/2| is (0.5 + 0 + 0 + 0.5) / 4."""
    assert ece_null(np.full(2, 0.5), draws=40_000) == pytest.approx(0.25, abs=0.005)
    assert ece_null(np.array([0.0, 1.0, 1.0])) == 0.0


def test_what_is_calibrated_has_the_ece_of_its_null():
    rng = np.random.default_rng(1)
    probability = rng.beta(1, 2, 2_000)
    excess = [
        ece(probability, rng.random(2_000) < probability) - ece_null(probability, draws=100)
        for _ in range(30)
    ]
    assert abs(np.mean(excess)) < 0.002
    sure = np.sqrt(probability)  # over-confident
    assert ece(sure, rng.random(2_000) < probability) - ece_null(sure) > 0.1


def test_brier_and_loss_by_hand():
    probability = np.array([0.8, 0.4])
    assert brier(probability, yes("10")) == pytest.approx((0.2**2 + 0.4**2) / 2)
    assert event_nll(probability, yes("10")) == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)
    assert event_nll(np.array([0.0]), yes("1")) == pytest.approx(-math.log(LEAST))


# right from wrong


def test_auroc_by_hand_with_ties():
    """Pairs: 3 > 1, 3 > 2, 2 > 1, and 2 against 2 half: 3.5 of 4."""
    score, positive = np.array([3.0, 2.0, 2.0, 1.0]), yes("1100")
    assert auroc(score, positive, "abcd", seed=0).value == 3.5 / 4
    assert auroc(-score, positive, "abcd", seed=0).value == 0.5 / 4
    assert auroc(np.zeros(4), positive, "abcd", seed=0).value == 0.5


def test_auroc_resamples_groups_as_the_definition_does():
    rng = np.random.default_rng(4)
    score = rng.integers(0, 6, 60) / 5
    positive = rng.random(60) < 0.3 + 0.4 * score
    groups = rng.integers(0, 8, 60)
    found = auroc(score, positive, groups, seed=2, resamples=200)
    draws = np.random.default_rng(2).multinomial(8, np.full(8, 1 / 8), 200)
    plain = []
    for draw in draws:
        again = np.repeat(np.arange(60), draw[groups])
        up, down = score[again][positive[again]], score[again][~positive[again]]
        pairs = up[:, None] - down
        plain.append(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert found.lo == pytest.approx(np.quantile(plain, 0.025))
    assert found.hi == pytest.approx(np.quantile(plain, 0.975))
    assert found.lo < found.value < found.hi and found.n == 60


def test_auroc_needs_both_kinds():
    for right in ("11", "00"):
        with pytest.raises(PhotoError, match="both kinds"):
            auroc(np.array([0.1, 0.2]), yes(right), "ab", seed=0)
    one = auroc(np.array([0.1, 0.2]), yes("01"), "aa", seed=0)  # a single drive
    assert (one.value, one.lo, one.hi) == (1.0, 0.0, 1.0)


def test_risk_by_hand():
    """Surest first: right, wrong, then two alike of which one is wrong."""
    found = risk_coverage(np.array([0.9, 0.3, 0.6, 0.3]), yes("1100"))
    assert found.coverage.tolist() == [0.25, 0.5, 1.0]
    assert found.risk.tolist() == [0.0, 0.5, 0.5]
    assert found.probability.tolist() == [0.9, 0.6, 0.3]
    assert found.area == pytest.approx(0.25 * 0 + 0.25 * 0.5 + 0.5 * 0.5)
    assert risk_coverage(np.array([0.9, 0.8]), yes("11")).area == 0.0


# radii


def test_coverage_of_radii_counts_the_edge():
    found = radius_coverage(np.array([5.0, 10.0, 11.0, 1.0]), np.full(4, 10.0), "aabb", seed=0)
    assert (found.value, found.lo, found.hi, found.n) == (0.75, 0.5, 1.0, 4)


def test_radii_against_errors_by_hand():
    """Two bins of three: 90th percentiles of (0, 10, 20) and of (0, 100, 200) are 18 and 180."""
    probability = np.array([0.9, 0.9, 0.9, 0.1, 0.1, 0.1])
    errors = np.array([0.0, 10.0, 20.0, 0.0, 100.0, 200.0])
    radii = np.array([18.0, 36.0, 54.0, 90.0, 90.0, 900.0])
    ratios, middle = radius_against_errors(probability, radii, errors, bins=2)
    assert ratios.tolist() == pytest.approx([90 / 180, 36 / 18])
    assert middle == pytest.approx(1.25)


def test_area_is_that_of_the_disc():
    assert disc_area_m2(np.array([0.0, 10.0])).tolist() == [0.0, pytest.approx(314.159, abs=1e-3)]


# all of it


def test_a_report_of_answers_that_are_all_right_has_no_auroc():
    n = 20
    found = judged(np.full(n, 0.9), np.full(n, 9.0), np.full(n, 20.0), np.full(n, 10.0),
                   ["a", "b"] * 10, 50.0)  # fmt: skip
    assert found["auroc"] is None and found["bins"][0]["right"] == 1.0
    assert found["radius50"]["covers"]["value"] == 0.0
    assert found["radius90"]["covers"]["value"] == 1.0
    assert found["radius90_by_p90_error"]["median"] == 2.0
    assert found["ece"] == pytest.approx(0.1)


@pytest.mark.parametrize("bad", [[1.2], [-0.1], [np.nan]])
def test_what_is_no_probability_is_refused(bad):
    with pytest.raises(ValueError):
        brier(np.array(bad), yes("1"))
    with pytest.raises(PhotoError, match="no answers"):
        brier(np.array([]), yes(""))


def test_ten_thousands_take_seconds():
    rng = np.random.default_rng(0)
    n = 20_000
    probability, errors = rng.random(n), rng.gamma(1, 60, n)
    started = time.process_time()
    found = judged(probability, errors, errors * 2, errors, rng.integers(0, 300, n), 50.0)
    assert time.process_time() - started < 20
    assert len(found["risk_coverage"]["points"]) == 60
