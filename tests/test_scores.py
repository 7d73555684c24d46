"""scores, occupied cells, slices: figures beyond the errors, by hand."""

import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoomloc.belief.occupied import Occupied
from zoomloc.belief.posterior import Posterior
from zoomloc.belief.scores import (
    LEAST_LOG,
    Score,
    area_recall,
    bearing_off_deg,
    figures,
    recall_curve,
    score_of,
)
from zoomloc.errors import RegionError
from zoomloc.slices import slices
from zoomloc.world.answers import Alternative, Answer
from zoomloc.world.cells import LatLng, cell_at, moved, sphere_distance_m
from zoomloc.world.nearest import nearest_m
from zoomloc.world.photos import Photo
from zoomloc.world.region import Region

REGION = Region("here", (cell_at(LatLng(44.05, -123.07), 15),), 19, 2)  # 16 x 16 cells of 55 m
HOME = moved(REGION.roots[0].center, 45, 10)


def answer(place: LatLng, *others: LatLng, bearing_deg: float | None = None) -> Answer:
    path = tuple(cell.quadkey for cell in REGION.path(place))
    return Answer("p", *place, 0.5, 10.0, 20.0, bearing_deg, None, path, (), ((path[0], 1.0),),
                  alternatives=tuple(Alternative(*other, 0.1) for other in others))  # fmt: skip


def score(*places_m: float, share: float = 0.5, log_mass: float = -1.0, off: float = math.nan):
    return Score(places_m, share, log_mass, off)


# scores


def test_an_answer_against_its_truth():
    leaf = cell_at(HOME, 19)
    root = REGION.roots[0]
    rest = [c for c in root.descendants(4) if c != leaf]
    posterior = Posterior.of(REGION, [leaf, *rest], np.log([0.75, *[0.25 / 255] * 255]))
    near, far = moved(HOME, 90, 30), moved(HOME, 0, 400)
    found = score_of(answer(far, near, bearing_deg=350.0), posterior, HOME, 10.0)
    assert found.places_m == pytest.approx((400, 30), abs=1e-3)
    assert found.error_m == pytest.approx(400, abs=1e-3)
    assert found.log_mass == pytest.approx(math.log(0.75))
    assert found.searched_share == pytest.approx(0.5 / 256)
    assert found.bearing_off_deg == pytest.approx(20)
    outside = score_of(answer(far), posterior, LatLng(-44, -123), None)
    assert math.isnan(outside.log_mass) and outside.searched_share == 1.0


def test_mass_of_a_large_cell_lies_evenly_on_its_terminal_cells():
    posterior = Posterior.of(REGION, [REGION.roots[0]], np.zeros(1))
    found = posterior.log_mass_at(np.array([HOME.lat, 0.0]), np.array([HOME.lng, 0.0]))
    assert found[0] == pytest.approx(-math.log(256)) and np.isnan(found[1])


def test_bearings_the_short_way_round():
    assert bearing_off_deg(350.0, 10.0) == pytest.approx(20)
    assert bearing_off_deg(180.0, 0.0) == pytest.approx(180)
    assert math.isnan(bearing_off_deg(None, 1.0)) and math.isnan(bearing_off_deg(1.0, None))


def test_figures_by_hand():
    scores = [
        score(10.0, 300.0, log_mass=math.log(0.5), off=5.0),
        score(200.0, 90.0, 50.0, 60.0, log_mass=math.log(0.125), off=100.0),
        score(200.0, 90.0, 70.0, 60.0, 40.0, log_mass=-math.inf),
        score(200.0, log_mass=math.nan, off=15.0),
    ]
    found = figures(scores, ["a", "b", "c", "d"], cells=64)
    values = {name: interval.value for name, interval in found.items()}
    assert values["top3_r_at_50m"] == 0.5 and values["top5_r_at_50m"] == 0.75
    nats = (math.log(2) + math.log(8) - LEAST_LOG) / 3  # belief of nothing costs 50 nats
    assert values["truth_nll_nats"] == pytest.approx(nats)
    assert values["bits_gained"] == pytest.approx(6 - nats / math.log(2))
    assert found["truth_nll_nats"].n == 3  # one truth was no candidate
    assert values["median_bearing_off_deg"] == 15.0
    assert values["bearing_within_10deg"] == pytest.approx(1 / 3)
    assert values["bearing_within_20deg"] == pytest.approx(2 / 3)
    assert values["median_bearing_off_right_deg"] == 5.0
    assert found["median_bearing_off_right_deg"].n == 1


def test_figures_without_headings_or_candidates():
    found = figures([score(10.0, log_mass=math.nan)], ["a"], cells=4)
    assert set(found) == {"top3_r_at_50m", "top5_r_at_50m"}


def test_an_even_belief_gains_nothing():
    found = figures([score(1.0, log_mass=-math.log(37))] * 2, ["a", "b"], cells=37)
    assert found["bits_gained"].value == pytest.approx(0)


def test_curves_by_hand():
    curve = recall_curve(np.array([4.0, 20.0, 80.0, 90.0]), ["a", "b", "c", "d"])
    assert {d: i.value for d, i in curve.items() if d in (5, 15, 20, 70, 100)} == {
        5: 0.25, 15: 0.25, 20: 0.5, 70: 0.5, 100: 1.0
    }  # fmt: skip
    assert max(curve) == 100.0  # nothing beyond what anyone was off
    found = area_recall(np.array([0.001, 0.02, 0.5, 1.0]), (0.001, 0.03, 1.0))
    assert [row["recall"] for row in found] == [0.25, 0.5, 1.0]


def test_the_papers_distance_is_that_of_its_sphere():
    """One degree of latitude on a sphere of 6,378,137 m; of longitude by the cosine."""
    degree = math.pi / 180 * 6_378_137
    assert sphere_distance_m(LatLng(10, 20), LatLng(11, 20)) == pytest.approx(degree)
    assert sphere_distance_m(LatLng(0, 179.5), LatLng(0, -179.5)) == pytest.approx(degree)
    east = sphere_distance_m(LatLng(60, 20), LatLng(60, 20.001))
    assert east == pytest.approx(degree * 0.001 / 2, rel=1e-6)
    assert sphere_distance_m(LatLng(0, 0), LatLng(0, 180)) == pytest.approx(180 * degree)
    north = sphere_distance_m(LatLng(38.8936, -77), moved(LatLng(38.8936, -77), 0, 5000))
    assert north == pytest.approx(5000 * 1.0028, rel=2e-4)  # field.md 4.3


# occupied cells


def test_belief_is_restricted_to_cells_with_photos_and_normalised():
    a, b, c = (moved(HOME, bearing, 200) for bearing in (0, 120, 240))
    only = Occupied(REGION, [a, b, a, LatLng(0, 0)])
    assert len(only) == 2 and only.holds(a) and not only.holds(c)
    leaf = {name: cell_at(place, 19) for name, place in (("a", a), ("b", b), ("c", c))}
    rest = [x for x in REGION.roots[0].descendants(4) if x not in leaf.values()]
    log_mass = np.log([0.3, 0.1, 0.5, *[0.1 / len(rest)] * len(rest)])
    belief = only.belief(Posterior.of(REGION, [*leaf.values(), *rest], log_mass))
    assert dict(zip(belief.cells, belief.mass, strict=True)) == {
        leaf["a"]: pytest.approx(0.75), leaf["b"]: pytest.approx(0.25)
    }  # fmt: skip
    assert belief.best_cell == leaf["a"]


def test_belief_that_opened_nothing_is_even_over_occupied_cells():
    places = [moved(HOME, bearing, 200) for bearing in (0, 120)]
    belief = Occupied(REGION, places).belief(Posterior.of(REGION, REGION.roots, np.zeros(1)))
    assert belief.mass.tolist() == pytest.approx([0.5, 0.5])


def test_belief_of_nothing_on_occupied_cells_is_even():
    leaf = cell_at(HOME, 19)
    only = Occupied(REGION, [moved(HOME, 0, 200), moved(HOME, 90, 200)])
    assert only.belief(Posterior.of(REGION, [leaf], np.zeros(1))).mass.tolist() == [0.5, 0.5]


def test_no_photo_in_the_region():
    with pytest.raises(RegionError, match="none of 1 photos"):
        Occupied(REGION, [LatLng(0, 0)])


# slices


def photo(k: int, place: LatLng = HOME, path: Path = Path("/absent.jpg"), **about) -> Photo:
    known = Photo(f"{k}", path, *place, None, None, "perspective", datetime(2024, 5, 1, tzinfo=UTC),
                  f"d{k % 2}", "folder", "", "", 5.0)  # fmt: skip
    return replace(known, **about)


def shown(rows: list[dict]) -> list[tuple]:
    return [
        (row["class"], row["n"], row["r_at_50m"]["value"], row["median_error_m"]["value"])
        for row in rows
    ]


def test_slices_by_hand(tmp_path):
    for name, model in (("a", "X100"), ("b", "Fuji X100"), ("c", None)):
        exif = Image.Exif()
        if model is not None:
            exif[0x010F], exif[0x0110] = "Fuji", model
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.jpg", exif=exif)
    photos = [
        photo(0, path=tmp_path / "a.jpg", bearing_deg=0.0, fov_deg=49.9),
        photo(1, path=tmp_path / "b.jpg", fov_deg=50.0),
        photo(2, path=tmp_path / "c.jpg", fov_deg=130.0),
        photo(3, fov_deg=360.0, projection="equirectangular"),
        photo(4),
    ]
    train = [photo(9, moved(HOME, 0, 12.0))]
    errors = np.array([10.0, 20.0, 100.0, 50.0, 51.0])
    found = slices(photos, errors, train)
    assert shown(found["heading"]) == [("known", 1, 1.0, 10.0), ("unknown", 4, 0.5, 50.5)]
    assert shown(found["field_of_view"]) == [
        ("below 50°", 1, 1.0, 10.0),
        ("50 to 70°", 1, 1.0, 20.0),
        ("120° and more", 1, 0.0, 100.0),
        ("equirectangular", 1, 1.0, 50.0),
        ("unknown", 1, 0.0, 51.0),
    ]
    assert shown(found["camera"]) == [("Fuji X100", 2, 1.0, 15.0), ("unknown", 3, 1 / 3, 51.0)]
    assert shown(found["nearest_training_photo"]) == [("10 to 25 m", 5, 0.6, 50.0)]
    assert found["nearest_training_photo"][0]["drives"] == 2
    assert "nearest_training_photo" not in slices(photos, errors)


def test_nearest_across_the_antimeridian():
    here = [photo(0, LatLng(10, 179.9999)), photo(1, LatLng(10, 0))]
    there = [photo(2, LatLng(10, -179.9999)), photo(3, LatLng(10, 0.001))]
    assert nearest_m(here, there) == pytest.approx([21.9, 109.6], abs=0.1)
    assert len(nearest_m(here, [])) == 0
