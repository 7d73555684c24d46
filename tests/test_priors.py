"""What is known before a photo is looked at: averages 1, soft, metric, and no false confidence."""

import time

import numpy as np
import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_search import HOME, region_of, with_holes

from zoomloc.belief.partition import from_leaves
from zoomloc.belief.posterior import log_sum
from zoomloc.belief.priors import HEADING_FLOOR, OUTSIDE, Area, Both, Heading, Near
from zoomloc.belief.reweigh import on_leaves, under
from zoomloc.errors import ConfigError, RegionError
from zoomloc.world.cells import LatLng, cell_at, distances_m, moved
from zoomloc.world.coverage import Coverage
from zoomloc.world.region import Region

LNGS = st.sampled_from([HOME.lng, 179.999, 0.0])


def middles(coverage):
    """Latitude and longitude (rows, columns) of all terminal cells' middles."""
    rows, columns = coverage.leaves.shape
    column, row = np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5)
    return coverage.region.leaf_places(column, row)


def middle_of(coverage, share=0.5) -> LatLng:
    """A place on the ground of a region, a share of its covered cells on."""
    at = np.argwhere(coverage.leaves)
    row, column = at[min(int(share * len(at)), len(at) - 1)]
    lat, lng = middles(coverage)
    return LatLng(float(lat[row, column]), float(lng[row, column]))


def star(place: LatLng, radius_m: float, corners: int = 60, shift_deg: float = 0.0):
    """A polygon with points and bays round a place, in degrees."""
    angle = np.linspace(0, 360, corners, endpoint=False)
    reach = radius_m * (1 + 0.4 * np.sin(np.radians(5 * angle)))
    border = [moved(place, a, r) for a, r in zip(angle, reach, strict=True)]
    lng = np.array([p.lng for p in border])
    lng = place.lng + (lng - place.lng + 180) % 360 - 180 + shift_deg
    return shapely.Polygon(np.stack([lng, [p.lat for p in border]], 1))


def belief(coverage, log_mass):
    """The posterior of log-masses (rows, columns) of the terminal cells."""
    (posterior,) = from_leaves(coverage, np.asarray(log_mass, float)[None], 1)
    return posterior


@settings(max_examples=40, deadline=None)
@given(
    roots=st.integers(1, 4),
    share=st.sampled_from([0.05, 0.6, 1.0]),
    lng=LNGS,
    seed=st.integers(0, 2**31),
    radius_m=st.floats(1, 30_000),
    outside=st.sampled_from([0.0, 0.02, 0.5]),
)
def test_a_prior_averages_1_over_the_ground(roots, share, lng, seed, radius_m, outside):
    coverage = with_holes(region_of(roots, 2, 2, lng=lng), seed, share)
    place = middle_of(coverage, (seed % 100) / 100)
    near = Near(place, radius_m, outside)
    area = Area(star(place, radius_m), soft_m=radius_m / 10, outside=outside)
    for prior in (near, area, Both((near, area))):
        found = prior.log_ratio(coverage)
        assert found.shape == coverage.leaves.shape
        assert np.exp(found[coverage.leaves]).mean() == pytest.approx(1, abs=1e-9)
        assert (np.isneginf(found) == ~coverage.leaves).all()
        own = found[coverage.leaves].max()  # where the place is, nothing is likelier
        x, y = coverage.region.leaf_xy(np.array([place.lat]), np.array([place.lng]))
        assert found[int(y[0]), int(x[0])] == pytest.approx(own, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    radius_m=st.floats(300, 3000),
    away=st.floats(0, 0.95),
    sharpness=st.sampled_from([0.5, 5.0, 50.0]),
)
def test_a_true_prior_raises_the_belief_in_the_truth(seed, radius_m, away, sharpness):
    coverage = with_holes(region_of(1, 2, 3), seed, 0.8)
    rng = np.random.default_rng(seed)
    truth = tuple(rng.permutation(np.argwhere(coverage.leaves))[0])
    lat, lng = middles(coverage)
    place = moved(LatLng(lat[truth], lng[truth]), float(rng.uniform(0, 360)), away * radius_m)
    before = belief(coverage, sharpness * rng.normal(size=coverage.leaves.shape))
    after, _ = under(before, Near(place, radius_m).log_ratio(coverage))
    old, new = (on_leaves(one, coverage)[truth] for one in (before, after))
    assert new >= old - 1e-9
    away_m = distances_m(lat, lng, *np.array(place)[:, None, None])
    beyond = float(np.exp(on_leaves(before, coverage))[away_m > 1.5 * radius_m].sum())
    assert new >= old + 0.9 * beyond - 1e-9  # what lay there is nearly all shared out inside


def test_a_radius_is_flat_inside_and_falls_softly_beyond():
    coverage = Coverage.full(region_of(1, 1, 8, root_level=13))  # 13.7 m cells, 3.5 km
    place = middle_of(coverage, 0.501)
    ratio = np.exp(Near(place, 300.0).log_ratio(coverage))
    lat, lng = middles(coverage)
    away_m = distances_m(lat, lng, np.array(place.lat), np.array(place.lng))
    inside = away_m < 299.9
    assert np.ptp(ratio[inside]) < 1e-9 and ratio[~inside].max() <= ratio[inside].min()
    mass = ratio / ratio.sum()
    assert 0.8 < mass[inside].sum() < 0.9
    assert mass[away_m > 600].sum() > OUTSIDE * 0.8  # some remains for those who are wrong
    order = np.argsort(away_m[~inside])
    assert (np.diff(ratio[~inside][order]) < 1e-3 * ratio.max()).all()
    at = {m: ratio[np.abs(away_m - m) < 7].mean() / ratio.max() for m in (315, 340, 375)}
    assert 0.3 < at[315] < 0.8 and 0.05 < at[340] < 0.2 and at[375] < 0.03


@pytest.mark.parametrize("wrong", ["near", "area", "both"])
def test_a_wrong_prior_shows_as_little_agreement_and_not_as_a_sure_answer(wrong):
    coverage = Coverage.full(region_of(1, 2, 4))
    truth, elsewhere = (30, 30), middle_of(coverage, 0.9)
    log_mass = np.full(coverage.leaves.shape, np.log(0.001 / coverage.leaves.size))
    log_mass[truth] = np.log(0.999)
    photo = belief(coverage, log_mass)
    near, area = Near(elsewhere, 200.0), Area(star(elsewhere, 200.0), 20.0)
    prior = {"near": near, "area": area, "both": Both((near, area))}[wrong]
    after, agreement = under(photo, prior.log_ratio(coverage))
    assert agreement < -3
    if wrong != "both":  # two that agree with each other speak twice
        assert np.exp(on_leaves(after, coverage)[truth]) > 0.9
    right = tuple(int(v[0]) for v in coverage.region.leaf_xy(*np.array([elsewhere]).T)[::-1])
    log_mass[truth], log_mass[right] = log_mass[right], log_mass[truth]
    assert under(belief(coverage, log_mass), prior.log_ratio(coverage))[1] > 3


@pytest.mark.parametrize("lng", [HOME.lng, 179.98])
def test_metres_beyond_an_area_are_true(lng):
    """Against distances on a plane laid round each cell by itself."""
    coverage = Coverage.full(region_of(4, 2, 4, lng=lng))  # 19 m cells, rows of 512
    place = middle_of(coverage)
    polygon = star(place, 900.0).difference(star(place, 300.0))  # with a hole
    soft_m, outside = 40.0, 0.0
    found = Area(polygon, soft_m, outside).log_ratio(coverage)
    rng = np.random.default_rng(0)
    lat, lng_ = middles(coverage)
    each = np.argwhere(distances_m(lat, lng_, *np.array(place)[:, None, None]) < 2000)
    each = rng.permutation(each)[:500]
    beyond_m = np.array([_metres(polygon, lat[tuple(at)], lng_[tuple(at)]) for at in each])
    log_weight = -1.5 * np.log1p((beyond_m / soft_m) ** 2)
    off = found[tuple(each.T)] - found.max() - log_weight
    close = beyond_m < 90  # nearer than what is taken as exact
    assert 130 < close.sum() < 400 and (beyond_m[close] > 0).sum() > 20
    assert np.abs(off[close]).max() < 0.05
    assert np.abs(off).max() < 3 * np.log(1.25)


def _metres(polygon, lat, lng):
    """Metres from a place to a polygon: the nearest point in degrees, stretched, by geodesic."""
    stretch = np.cos(np.radians(lat))

    def straight(at):
        return np.stack([((at[:, 0] - lng + 180) % 360 - 180) * stretch, at[:, 1] - lat], 1)

    near = shapely.shortest_line(shapely.Point(0, 0), shapely.transform(polygon, straight))
    x, y = near.coords[1]
    return float(distances_m(np.array(lat), np.array(lng), lat + y, lng + x / stretch))


def test_an_area_may_be_drawn_on_either_side_of_the_antimeridian():
    coverage = Coverage.full(region_of(4, 2, 3, lng=179.98))
    place = moved(middle_of(coverage), 90, 3000)
    drawn = [
        Area(star(place, 1500.0, shift_deg=turn), 50.0).log_ratio(coverage)
        for turn in (0.0, 360.0, -360.0)
    ]
    whole = star(LatLng(place.lat, place.lng % 360), 1500.0)
    cut = shapely.union_all(
        [
            shapely.intersection(whole, shapely.box(0, -90, 180, 90)),
            shapely.transform(
                shapely.intersection(whole, shapely.box(180, -90, 540, 90)),
                lambda at: at - [360, 0],
            ),
        ]
    )
    assert cut.geom_type == "MultiPolygon"
    drawn.append(Area(cut, 50.0).log_ratio(coverage))
    for other in drawn[1:]:
        np.testing.assert_allclose(np.exp(other), np.exp(drawn[0]), atol=1e-3, rtol=1e-3)
    assert np.ptp(drawn[0]) > 3


@pytest.mark.parametrize("metres", [0.5, 4.0])
def test_what_is_smaller_than_a_terminal_cell_still_means_that_cell(metres):
    coverage = Coverage.full(region_of(1, 2, 4))
    row, column = 100, 77
    lat, lng = coverage.region.leaf_places(np.array([column + 0.8]), np.array([row + 0.3]))
    place = LatLng(float(lat[0]), float(lng[0]))
    for prior in (Near(place, metres), Area(star(place, metres), 0.0)):
        found = prior.log_ratio(coverage)
        assert np.unravel_index(found.argmax(), found.shape) == (row, column)


def test_all_of_a_region_says_nothing():
    coverage = with_holes(region_of(2, 2, 3), 0, 0.7)
    world = Area(shapely.box(-180, -80, 180, 80), 10.0)
    for prior in (Near(middle_of(coverage), 1e6), world):
        assert prior.log_ratio(coverage)[coverage.leaves] == pytest.approx(0, abs=1e-12)


def test_a_prior_without_ground_of_the_region_is_refused():
    coverage = with_holes(region_of(1, 2, 3), 0, 0.7)
    place = middle_of(coverage)
    swapped = LatLng(HOME.lng / 2, HOME.lat)
    for prior in (
        Near(moved(place, 90, 20_000), 500.0),
        Near(LatLng(-place.lat, place.lng), 500.0),
        Area(star(moved(place, 0, 20_000), 500.0), 30.0),
        Area(star(swapped, 500.0), 30.0),
    ):
        with pytest.raises(RegionError, match="'here'.*44.0.*-123.*latitude before") as caught:
            prior.log_ratio(coverage)
        assert prior.described() in str(caught.value) and "\n" not in str(caught.value)


def test_priors_that_exclude_each_other_are_refused():
    coverage = Coverage.full(region_of(1, 2, 4))
    one, other = middle_of(coverage, 0.1), middle_of(coverage, 0.9)
    both = Both((Near(one, 200.0), Area(star(other, 200.0), 20.0)))
    with pytest.raises(RegionError, match="agrees with all.*widen one"):
        both.log_ratio(coverage)


def test_a_product_is_what_both_say():
    coverage = Coverage.full(region_of(1, 2, 4))
    place = middle_of(coverage)
    near, area = Near(place, 800.0), Area(star(moved(place, 90, 500), 600.0), 20.0)
    found = Both((near, area)).log_ratio(coverage)
    off = found - near.log_ratio(coverage) - area.log_ratio(coverage)
    assert np.ptp(off) < 1e-9
    assert "within 800 m of 44.0" in Both((near, area)).described()
    assert " and in an area of 1.21 km² round 44.0" in Both((near, area)).described()


def test_a_million_cells_take_no_time():
    region = Region("large", (cell_at(HOME, 11),), 21, 2)
    coverage = Coverage.full(region)
    assert coverage.leaves.size == 1 << 20
    place = middle_of(coverage, 0.501)
    for prior in (Near(place, 500.0), Area(star(place, 2000.0, corners=500), 25.0)):
        began = time.process_time()
        prior.log_ratio(coverage)
        assert time.process_time() - began < 3  # measured: 0.1 s and 0.5 s


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Near(LatLng(91.0, 0.0), 10.0),
        lambda: Near(LatLng(float("nan"), 0.0), 10.0),
        lambda: Near(HOME, 0.0),
        lambda: Near(HOME, float("inf")),
        lambda: Near(HOME, 10.0, outside=1.0),
        lambda: Area(shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)]), 10.0),
        lambda: Area(shapely.LineString([(0, 0), (1, 1)]), 10.0),
        lambda: Area(star(HOME, 100.0), -1.0),
        lambda: Area(star(HOME, 100.0), 10.0, outside=-0.1),
        lambda: Heading(361.0, 10.0),
        lambda: Heading(float("nan"), 10.0),
        lambda: Heading(90.0, 0.0),
        lambda: Heading(90.0, 181.0),
    ],
)
def test_what_is_no_prior_is_refused(wrong):
    with pytest.raises(ConfigError):
        wrong()


# headings


@given(
    bearing_deg=st.floats(-180, 360),
    within_deg=st.floats(0.01, 180),
    count=st.sampled_from([8, 24, 36, 72]),
)
def test_headings_average_1_and_none_is_excluded(bearing_deg, within_deg, count):
    bearings = np.arange(count) * 360 / count
    log_share = Heading(bearing_deg, within_deg).log_share(bearings)
    assert np.exp(log_share).mean() == pytest.approx(1, abs=1e-12)
    assert log_share.min() >= np.log(HEADING_FLOOR) - 1e-12
    off = np.abs((bearings - bearing_deg + 180) % 360 - 180)
    assert log_share[off.argmin()] == pytest.approx(log_share.max(), abs=1e-9)
    assume(off.min() < within_deg)
    inside = log_share[off <= within_deg]
    assert np.ptp(inside) < 1e-9 and log_share.max() == pytest.approx(inside.max())


def test_a_heading_is_flat_within_and_soft_beyond():
    bearings = np.arange(360.0)
    share = np.exp(Heading(350.0, 20.0).log_share(bearings))
    off = np.abs((bearings - 350 + 180) % 360 - 180)
    inside = off <= 20
    assert np.ptp(share[inside]) < 1e-12
    assert 0.75 < share[inside].sum() / 360 < 0.95
    assert np.exp(Heading(-10.0, 20.0).log_share(bearings)) == pytest.approx(share)
    assert 0.5 < share[off == 22].max() / share.max() < 0.9
    assert share[off > 90].max() < 1.5 * HEADING_FLOOR


def test_any_heading_is_all_zeros():
    assert Heading(77.0, 180.0).log_share(np.arange(24) * 15.0) == pytest.approx(0, abs=1e-12)


def test_a_sharp_bearing_between_two_headings_speaks_for_both():
    share = Heading(97.0, 1.0).log_share(np.arange(24) * 15.0)
    assert set(np.argsort(-share)[:2]) == {6, 7} and share[6] - share[7] < 0.5
    assert log_sum(share[[5, 8]]) < share[7] - 0.5
