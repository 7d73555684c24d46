"""Alternatives: apart from the answer and each other, with the mass that a disc there holds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_posterior import HOME, at, leaf, mixed, region_at, spread

from zoomloc.belief.alternatives import APART_M, LEAST, alternatives
from zoomloc.belief.posterior import Posterior
from zoomloc.world.cells import LatLng, cell_at, distance_m, distances_m

REGION = region_at()  # 64 by 64 terminal cells of 13.7 m: eight of them are 109 m
ACROSS = region_at(LatLng(-16.5, 179.999), roots=2)


def middle(row: int, column: int) -> LatLng:
    return at(REGION, column + 0.5, row + 0.5)


def test_other_peaks_are_alternatives_the_likeliest_first():
    posterior = spread(REGION, {(10, 10): 0.5, (40, 12): 0.2, (10, 30): 0.3})
    found = alternatives(posterior, middle(10, 10), 50.0)
    assert [mass for _, mass in found] == pytest.approx([0.3, 0.2])
    for (place, _), true in zip(found, (middle(10, 30), middle(40, 12)), strict=True):
        assert distance_m(place, true) < 0.01


def test_cells_of_the_same_peak_are_none():
    posterior = spread(REGION, {(10, 10): 0.5, (10, 11): 0.3, (12, 12): 0.2})
    assert alternatives(posterior, middle(10, 10), 50.0) == []
    posterior = spread(REGION, {(10, 10): 0.6, (10, 11): 0.3, (10, 18): 0.1})  # 109 m
    ((place, mass),) = alternatives(posterior, middle(10, 10), 50.0)
    assert mass == pytest.approx(0.1) and distance_m(place, middle(10, 18)) < 7


def test_an_alternative_stands_in_the_middle_of_what_its_disc_holds():
    """Two cells 55 m apart: a disc of 50 m between them holds both, one on either only one."""
    posterior = spread(REGION, {(10, 10): 0.5, (40, 40): 0.3, (40, 44): 0.2})
    ((place, mass),) = alternatives(posterior, middle(10, 10), 50.0)
    weighted = at(REGION, 0.6 * 40 + 0.4 * 44 + 0.5, 40.5)
    assert mass == pytest.approx(0.5) and distance_m(place, weighted) < 0.01


def test_a_wide_radius_keeps_discs_from_sharing_mass():
    """150 m round two places 219 m apart would count what lies between them twice."""
    posterior = spread(REGION, {(20, 10): 0.5, (20, 26): 0.3, (20, 45): 0.2})
    assert APART_M < distance_m(middle(20, 10), middle(20, 26)) < 300
    ((place, mass),) = alternatives(posterior, middle(20, 10), 150.0)
    assert mass == pytest.approx(0.5) and distance_m(place, middle(20, 10)) >= 300


def test_belief_that_is_spread_thin_has_no_alternatives():
    wide = region_at(roots=4)
    flat = Posterior.of(wide, list(wide.roots), np.zeros(4))
    one = np.pi * 50**2 / (4 * (64 * 13.7) ** 2)
    assert one < LEAST / 3
    assert alternatives(flat, at(wide, 30.0, 30.0), 50.0) == []


def test_at_most_so_many_and_none_where_all_is_near():
    peaks = {(4 + 14 * (i // 4), 4 + 14 * (i % 4)): 0.06 + i / 1000 for i in range(16)}
    posterior = spread(REGION, peaks)
    found = alternatives(posterior, middle(46, 46), 50.0, most=3)
    total = sum(peaks.values())
    assert [mass for _, mass in found] == pytest.approx([(0.06 + i / 1000) / total
                                                         for i in (14, 13, 12)])  # fmt: skip
    small = region_at(root_level=20, terminal_level=22)
    alone = Posterior.of(small, [leaf(small, 0, 0)], np.zeros(1))
    assert alternatives(alone, at(small, 0.5, 0.5), 50.0) == []


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([REGION, ACROSS]), st.sampled_from([20.0, 50.0]))
def test_apart_from_each_other_and_exact(seed, region, within_m):
    posterior = mixed(seed, region)
    place = posterior.best_point()
    found = alternatives(posterior, place, within_m)
    places = [place, *(there for there, _ in found)]
    for i, here in enumerate(places):
        assert all(distance_m(here, other) >= APART_M for other in places[i + 1 :])
        assert any(cell.contains(here) for cell in posterior.cells)
    masses = [mass for _, mass in found]
    assert masses == sorted(masses, reverse=True) and all(mass >= LEAST for mass in masses)
    assert masses == pytest.approx([posterior.mass_within(p, within_m) for p in places[1:]])
    assert sum(masses) + posterior.mass_within(place, within_m) <= 1 + 1e-9


@pytest.mark.parametrize("seed", range(20))
def test_the_first_is_as_good_as_the_best_of_all_cells(seed):
    within_m, posterior = 20.0 + 2 * seed, mixed(seed, REGION)
    place = posterior.best_point()
    lat, lng = np.array([cell.center for cell in posterior.cells]).T
    free = distances_m(lat, lng, np.array(place.lat), np.array(place.lng)) >= APART_M + 0.1
    tried = [
        posterior.mass_within(LatLng(*at), within_m)
        for at in zip(lat[free], lng[free], strict=True)
    ]
    found = alternatives(posterior, place, within_m)
    if max(tried) >= LEAST:
        assert found[0][1] >= max(tried) - 1e-9


def test_home_is_where_the_figures_above_take_it_to_be():
    assert cell_at(HOME, 21).size_m == pytest.approx(13.7, abs=0.05)
