"""calibration: fits find what simulated scores were made with; what is kept reads back."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_checkpoint import CONFIG, REGION, explained
from test_posterior import at, mixed, region_at, spread

from zoomloc.belief.calibration import (
    ALPHAS,
    FLOORS,
    SCALES,
    Calibration,
    fit_alpha,
    fit_evidence,
    fit_scale_and_floor,
    fit_share,
    tempered_truths,
)
from zoomloc.belief.partition import from_leaves
from zoomloc.belief.posterior import log_sum
from zoomloc.belief.reweigh import floored, on_leaves, tempered
from zoomloc.checkpoint import build_model, load_explained, save_checkpoint, write_explained
from zoomloc.errors import CheckpointError
from zoomloc.world.cells import LatLng
from zoomloc.world.coverage import Coverage

# 1. scale and floor


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), roots=st.integers(1, 3), leaf=st.integers(0, 255))
def test_the_truths_of_all_scales_are_those_of_tempered_beliefs(seed, roots, leaf):
    """Also where the truth lies in a larger cell, of which each terminal cell holds its part."""
    region = region_at(roots=roots, root_level=13, terminal_level=17)
    posterior = mixed(seed, region)
    truth = at(region, leaf % 16 + 0.3, leaf // 16 + 0.6)
    found = tempered_truths(posterior, truth)
    coverage = Coverage.full(region)
    row, column = leaf // 16, leaf % 16
    window = (slice(max(0, row - 1), row + 2), slice(max(0, column - 1), column + 2))
    for i in (0, 20, 46, len(SCALES) - 1):
        grid = np.exp(on_leaves(tempered(posterior, float(SCALES[i])), coverage))
        with np.errstate(divide="ignore"):
            wanted = np.log(grid[window].sum())
        assert found[i] == pytest.approx(wanted, abs=1e-9) or found[i] == wanted == -np.inf
    assert found[-1] == pytest.approx(np.log(grid[window].size / (256 * roots)))


def test_truths_outside_the_partition_are_told_apart():
    region = region_at(root_level=13, terminal_level=17)
    assert (tempered_truths(mixed(1, region), LatLng(10.0, 10.0)) == -np.inf).all()
    row = tempered_truths(spread(region, {(3, 4): 1.0}), at(region, 9.5, 9.5))  # but without mass
    assert (row[:-1] == -np.inf).all() and row[-1] == pytest.approx(np.log(9 / 256))


def simulated(scale, floor, photos, seed):
    """Rows of photos whose scores are worth ``scale``, and nothing in a share of ``floor``."""
    rng = np.random.default_rng(seed)
    coverage = Coverage.full(region_at(root_level=13, terminal_level=17))
    rows = []
    for scores in rng.normal(size=(photos, 16, 16)) * 2 / max(scale, 1):
        (posterior,) = from_leaves(coverage, scores[None], 1)
        true = tempered(posterior, scale) if rng.random() >= floor else tempered(posterior, 0)
        (cell,) = rng.choice(256, 1, p=true.mass / true.mass.sum())
        rows.append(tempered_truths(posterior, posterior.cells[cell].center))
    return np.array(rows)


@pytest.mark.parametrize(("scale", "floor"), [(0.4, 0.0), (1.0, 0.0), (2.5, 0.0), (2.5, 0.25)])
def test_the_scale_that_truths_were_drawn_with_is_found(scale, floor):
    rows = simulated(scale, floor, 1500, 1)
    found_scale, found_floor, before, after = fit_scale_and_floor(rows, [0] * len(rows))
    assert found_scale == pytest.approx(scale, rel=0.15)
    assert found_floor == pytest.approx(floor, abs=0.06)
    assert after < before or scale == 1
    assert after <= before <= np.log(256) + 1


def test_what_is_said_before_and_after_is_the_mean_loss_of_the_beliefs():
    rows = simulated(2.0, 0.1, 60, 2)
    scale, floor, before, after = fit_scale_and_floor(rows, [0] * 60)
    at_scale = int(np.argmin(abs(SCALES - scale)))
    mixed_in = np.log((1 - floor) * np.exp(rows[:, at_scale]) + floor * np.exp(rows[:, -1]))
    assert after == pytest.approx(-mixed_in.mean(), abs=1e-12)
    as_is = int(np.argmin(abs(SCALES - 1)))
    assert before == pytest.approx(-rows[:, as_is].mean(), abs=1e-3)
    for other_floor in FLOORS:  # none is better
        others = np.log((1 - other_floor) * np.exp(rows[:, :-1]) + other_floor / 256)
        assert -others.mean(axis=0).max() >= after - 1e-12


def test_regions_count_alike_however_many_photos_they_have():
    flat, sharp = simulated(0.3, 0.0, 300, 3), simulated(2.0, 0.0, 50, 4)
    both = np.concatenate([flat, sharp])
    found = fit_scale_and_floor(both, [0] * 300 + [7] * 50)
    as_many = np.concatenate([flat, *[sharp] * 6])
    np.testing.assert_allclose(found, fit_scale_and_floor(as_many, [0] * 600))
    assert found[0] > fit_scale_and_floor(both, [0] * 350)[0]  # which the flat ones rule


def test_truths_outside_their_region_are_left_out():
    rows = simulated(1.5, 0.0, 80, 5)
    outside = np.full((3, rows.shape[1]), -np.inf)
    mixed_up = np.concatenate([outside[:1], rows[:40], outside[1:], rows[40:]])
    groups = [0] + [0] * 40 + [1, 2] + [1] * 40
    found = fit_scale_and_floor(mixed_up, groups)
    np.testing.assert_allclose(found, fit_scale_and_floor(rows, [0] * 40 + [1] * 40))
    with pytest.raises(CheckpointError, match="no val photo lies in its region"):
        fit_scale_and_floor(outside, [0, 0, 1])


def test_a_truth_that_scores_rule_out_needs_a_floor():
    """Nine of ten sure and right, one sure and wrong: the floor is what wrong ones need."""
    rows = np.full((10, len(SCALES) + 1), np.log(0.999))
    rows[0, :-1] = -np.inf
    rows[:, -1] = -np.log(1000)
    _, floor, _, after = fit_scale_and_floor(rows, [0] * 10)
    assert floor == pytest.approx(0.1, rel=0.25) and np.isfinite(after)


# 2. radii


@pytest.mark.parametrize(("photos", "wanted", "holds"), [(19, 0.9, 0.9), (40, 0.5, 21 / 41)])
def test_shares_hold_fresh_truths_as_often_as_wanted(photos, wanted, holds):
    """Of split conformal prediction: the k-th of n holds k / (n + 1), whatever the beliefs."""
    rng = np.random.default_rng(1)
    held = rng.beta(2, 1, (4000, photos + 1))
    shares = [fit_share(row, [0] * photos, wanted) for row in held[:, :-1]]
    assert (held[:, -1] <= shares).mean() == pytest.approx(holds, abs=0.015)


def test_shares_by_hand():
    held = np.array([0.6, 0.2, 0.8, 0.4])
    assert fit_share(held, [0, 0, 0, 0], 0.5) == 0.6  # k / 5 is 0.2, 0.4, 0.6, 0.8
    assert fit_share(held, [0, 0, 1, 0], 0.5) == 0.8  # of 4/5: 2/15, 4/15, 6/15, 12/15
    assert fit_share(held, [1, 0, 0, 0], 0.35) == 0.6  # 2/15, 4/15, 10/15, 12/15
    assert fit_share(held, [0, 0, 0, 0], 0.9) == 0.8  # more than four photos can tell
    assert fit_share(np.zeros(30), [0] * 30, 0.5) == 0.01
    assert fit_share(np.ones(30), [0] * 30, 0.5) == 0.999


# 3. evidence


def kinds_of(here, away, deviation, photos, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(mean, deviation, n)
        for mean, n in zip((here, away), photos, strict=True)
    )  # fmt: skip


@pytest.mark.parametrize("photos", [(20_000, 20_000), (30_000, 5_000)])
def test_the_log_odds_of_two_kinds_are_found(photos):
    """Normal, with means 1.5 and -0.5 and deviation 1.2: log-odds are linear in the evidence."""
    here, away = kinds_of(1.5, -0.5, 1.2, photos)
    slope, offset, here_from = fit_evidence(here, away)
    assert slope == pytest.approx(2 / 1.44, rel=0.05)
    assert offset == pytest.approx(-(2.25 - 0.25) / (2 * 1.44), rel=0.08)
    assert here_from == pytest.approx(np.quantile(slope * here + offset, 0.05))
    lost = (slope * here + offset < here_from).mean()
    assert lost == pytest.approx(0.05, abs=1e-3)


def test_the_unit_of_evidence_does_not_matter():
    here, away = kinds_of(2.0, 1.0, 0.7, (300, 200))
    slope, offset, here_from = fit_evidence(here, away)
    other = fit_evidence(3 * here + 7, 3 * away + 7)
    assert other[0] == pytest.approx(slope / 3)
    assert other[1] == pytest.approx(offset - 7 * slope / 3)
    assert other[2] == pytest.approx(here_from)


def test_kinds_that_are_always_told_apart_have_a_finite_slope():
    slope, offset, here_from = fit_evidence(np.linspace(5, 6, 50), np.linspace(-6, -5, 50))
    assert 0 < slope < 100 and slope * 5 + offset > 2 and slope * -5 + offset < -2
    assert here_from > 0


@pytest.mark.parametrize("away_by", [0.0, 1.0])
def test_evidence_that_says_nothing_or_the_contrary_calls_no_photo_from_elsewhere(away_by):
    here = np.linspace(-1, 1, 101)
    made = dict(zip(("slope", "offset", "here_from"), fit_evidence(here, here + away_by),
                    strict=True))  # fmt: skip
    found = Calibration(**made)
    assert made["slope"] == pytest.approx(0, abs=1e-9)
    assert not any(found.is_elsewhere(found.evidence(raw) + 1e-9) for raw in (-5.0, 0.0, 5.0))


# 4. several photos of one place


def places_of(photos, copies, seed=0, cells=40):
    """Photos of places that are told with noise, each ``copies`` times, and the true cells."""
    rng = np.random.default_rng(seed)
    groups = []
    for _ in range(300):
        p0 = rng.dirichlet(np.full(cells, 0.5)) + 1e-6
        p0 /= p0.sum()
        truth = int(rng.choice(cells, p=p0))
        seen = rng.normal(size=(photos, cells)) + 1.2 * np.eye(cells)[truth]
        joint = np.log(p0) + 1.2 * seen  # of equal deviation: the likelihood ratio is linear
        each = np.array([one - log_sum(one) for one in joint])
        groups.append((np.repeat(each, copies, axis=0), np.log(p0), truth))
    return groups


@pytest.mark.parametrize(("photos", "copies"), [(1, 1), (4, 1), (1, 2), (1, 4), (2, 2)])
def test_copies_count_once_together_and_independent_photos_whole(photos, copies):
    assert fit_alpha(places_of(photos, copies)) == pytest.approx(1 / copies, abs=0.1)


def test_ground_that_never_holds_a_photo_is_no_trouble():
    groups = []
    for masses, log_p0, truth in places_of(2, 1):
        none = np.full((len(masses), 3), -np.inf)
        groups.append((np.hstack([none, masses]), np.append(none[0], log_p0), truth + 3))
    assert fit_alpha(groups) == fit_alpha(places_of(2, 1))


def test_without_any_places_of_several_photos_each_counts_whole():
    assert ALPHAS[0] < fit_alpha([]) < ALPHAS[-1]


# what is made of it


FITTED = Calibration(
    0.6, 0.02, 0.45, 0.93, 0.4, 1.5, -0.2, -1.3, 120, "0123456789abcdef", ("a", "b"), (5.1, 4.3)
)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_belief_is_scaled_and_then_laid_on_a_floor(seed):
    posterior = mixed(seed, region_at(root_level=13, terminal_level=17))
    by_hand = floored(tempered(posterior, 0.6), 0.02)
    np.testing.assert_allclose(FITTED.believed(posterior).log_mass, by_hand.log_mass)
    assert Calibration().believed(posterior) is posterior


def test_log_odds_by_hand():
    assert FITTED.evidence(2.0) == pytest.approx(2.8)
    assert FITTED.evidence(None) is None and Calibration().evidence(2.0) is None
    assert [FITTED.is_elsewhere(v) for v in (None, -1.31, -1.3, 0.0)] == [False, True, False, False]
    assert not Calibration().is_elsewhere(-99.0)  # what that would be is not known


NUMBERS = st.floats(1e-6, 100)


@given(
    made=st.builds(
        Calibration,
        scale=NUMBERS,
        floor=st.floats(0, 0.99),
        share50=st.floats(0.01, 0.999),
        share90=st.floats(0.01, 0.999),
        alpha=st.floats(0.1, 1),
        slope=st.none() | NUMBERS,
        offset=st.floats(-50, 50),
        here_from=st.none() | st.floats(-50, 50),
        photos=st.integers(0, 10**6),
        split_hash=st.text("0123456789abcdef", min_size=16, max_size=16),
        regions=st.lists(st.text(max_size=5), max_size=3).map(tuple),
        nll=st.tuples(NUMBERS, NUMBERS),
    )
)
def test_what_is_written_reads_back_the_same(made):
    again = Calibration.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made and again.digest() == made.digest()


def test_any_other_value_is_another_digest():
    changes = {f.name: getattr(Calibration(), f.name) for f in dataclasses.fields(Calibration)}
    digests = {dataclasses.replace(FITTED, **{k: v}).digest() for k, v in changes.items()}
    assert len(digests | {FITTED.digest()}) == len(changes) + 1
    assert all(len(digest) == 16 for digest in digests)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoint-best.safetensors"
    save_checkpoint(path, build_model(CONFIG, REGION).state_dict(), explained())
    return path


def test_a_checkpoint_keeps_it_and_one_of_before_has_none(saved):
    assert "calibration" not in json.loads(saved.with_suffix(".json").read_text())
    assert load_explained(saved).calibration is None
    weights = saved.read_bytes()
    write_explained(saved, explained(calibration=FITTED))
    assert load_explained(saved) == explained(calibration=FITTED)
    assert saved.read_bytes() == weights
    beside = json.loads(saved.with_suffix(".json").read_text())
    beside["calibration"] = {"scale": 0.5, "of a later version": [1]}
    saved.with_suffix(".json").write_text(json.dumps(beside))
    assert load_explained(saved).calibration == Calibration(scale=0.5)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ({"scale": 0}, "scale"),
        ({"scale": float("nan")}, "scale"),
        ({"scale": "wide"}, "'str'"),
        ({"floor": 1.0}, "floor"),
        ({"share90": 1.5}, "share90"),
        ({"share50": None}, "None"),
        ({"alpha": -0.1}, "alpha"),
        ({"slope": float("inf")}, "slope"),
        ({"offset": "x"}, "isfinite"),
        ({"here_from": float("nan")}, "here_from"),
        ({"regions": 3}, "int"),
        ({"nll": [1.0]}, "expected 2"),
        (7, "int"),
        (["scale"], "sequence"),
    ],
)
def test_damaged_values_are_refused_in_one_line_that_names_the_file(saved, damage, says):
    beside = saved.with_suffix(".json")
    told = FITTED.to_json() | damage if isinstance(damage, dict) else damage
    beside.write_text(json.dumps(json.loads(beside.read_text()) | {"calibration": told}))
    with pytest.raises(CheckpointError) as refusal:
        load_explained(saved)
    line = str(refusal.value)
    assert "\n" not in line and line.startswith(f"{beside}: its calibration") and says in line
