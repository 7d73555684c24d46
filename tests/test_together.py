"""Locator: priors, evidence and several photos of one place, against Bayes by hand."""

import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest
from test_reweigh import summed_in

from zoomloc.belief.calibration import Calibration
from zoomloc.belief.priors import Near
from zoomloc.belief.reweigh import even_over, joined, on_leaves, under
from zoomloc.checkpoint import load_explained
from zoomloc.locator import Locator, Query
from zoomloc.training.loop import train
from zoomloc.world.cells import LatLng, distance_m
from zoomloc.world.photos import read_photos

SHARP = Calibration(
    scale=3.0, floor=0.01, share50=0.4, share90=0.8, alpha=0.4, slope=2.0, offset=-0.5,
    here_from=0.1,
)  # fmt: skip


@pytest.fixture(scope="module")
def locator(calibrated):
    """Every place looked at finely, and a calibration whose every number shows."""
    found = Locator.load(calibrated)
    fine = found.search.model_copy(update={"refined": 1.0})
    return dataclasses.replace(found, calibration=SHARP).with_search(fine)


@pytest.fixture(scope="module")
def queries(painted):
    return [Query.of(photo) for photo in read_photos(painted / "photos.parquet", "test")[:4]]


def grid_of(found, locator):
    """(rows, columns) masses of terminal cells."""
    return np.exp(on_leaves(found.posterior, locator.scorer.views.coverage))


def found_of(locator, queries):
    return [found for _, found in locator.each(queries)]


def joint_of(locator, queries, monkeypatch):
    """What ``together`` concludes, before it is put into an answer: (Found, Answer)."""
    kept = []
    tell = Locator.answer
    with monkeypatch.context() as patch:
        patch.setattr(
            Locator,
            "answer",
            lambda self, query, found, made_by: (
                kept.append(found) or tell(self, query, found, made_by)
            ),
        )
        answer = locator.together(queries)
    return kept[0], answer


def middle_of(locator, row, column):
    lat, lng = locator.region.leaf_places(np.array([column + 0.5]), np.array([row + 0.5]))
    return LatLng(float(lat[0]), float(lng[0]))


# 1. what is known of one photo


def test_a_prior_changes_belief_and_evidence_as_bayes_says(locator, queries):
    """One where the photo seems to be from, one where it seems least to be."""
    (plain,) = found_of(locator, queries[:1])
    before, coverage = grid_of(plain, locator), locator.scorer.views.coverage
    least = np.where(coverage.leaves, before, 1.0).argmin()
    agreements = []
    for cell in (before.argmax(), least):
        prior = Near(middle_of(locator, *np.unravel_index(cell, before.shape)), 30.0)
        asked = dataclasses.replace(queries[0], prior=prior)
        (found,) = found_of(locator, [asked])
        product = before * np.exp(prior.log_ratio(coverage))
        np.testing.assert_allclose(grid_of(found, locator), product / product.sum(), atol=1e-9)
        assert found.agreement == pytest.approx(np.log(product.sum()), abs=1e-6)
        assert found.evidence == pytest.approx(plain.evidence + found.agreement, abs=1e-6)
        assert found.better_here == pytest.approx(plain.better_here, abs=1e-6)
        agreements.append(found.agreement)
        (answer,) = locator.answers([asked])
        assert (answer.evidence, answer.agreement) == (found.evidence, found.agreement)
        assert answer.given == {"place": prior.described()}
    assert agreements[0] > 0.4 and agreements[1] < -0.4


def test_a_prior_of_one_photo_is_none_of_the_others(locator, queries):
    """In a batch each answer is what it would be alone."""
    near = Near(middle_of(locator, 16, 20), 60.0)
    asked = [queries[0], dataclasses.replace(queries[1], prior=near), queries[2]]
    first, second, third = locator.answers(asked)
    assert second.agreement is not None and second.given
    for answer, query in ((first, queries[0]), (third, queries[2])):
        (alone,) = locator.answers([query])
        assert answer.given == {} and answer.agreement is alone.agreement is None
        assert answer.evidence == pytest.approx(alone.evidence, abs=0.05)  # bf16
        masses = [mass for _, mass in answer.posterior]
        assert masses == pytest.approx([mass for _, mass in alone.posterior], abs=0.01)
    bare = dataclasses.replace(locator, calibration=Calibration())
    assert [a.evidence is None for a in bare.answers(asked)] == [True, False, True]


def test_a_prior_is_all_the_evidence_of_a_run_that_has_none(locator, queries):
    bare = dataclasses.replace(locator, calibration=Calibration(scale=3.0))
    near = dataclasses.replace(queries[0], prior=Near(middle_of(locator, 16, 20), 60.0))
    ((_, found),) = bare.each([near])
    assert found.evidence == found.agreement is not None
    ((_, plain),) = bare.each(queries[:1])
    assert plain.evidence is plain.agreement is None and plain.better_here is not None


def test_a_photo_with_too_little_evidence_is_not_here(locator, queries):
    evidence = sorted(found.evidence for found in found_of(locator, queries))
    between = (evidence[1] + evidence[2]) / 2
    for limit, count in ((evidence[0] - 1, 0), (between, 2), (evidence[-1] + 1, 4), (None, 0)):
        strict = dataclasses.replace(SHARP, here_from=limit)
        answers = [*dataclasses.replace(locator, calibration=strict).answers(queries)]
        assert sum(answer.not_here for answer in answers) == count
        assert all(a.not_here == (a.evidence < limit) for a in answers if limit is not None)


def test_radii_hold_the_fitted_shares(locator, queries):
    for found, answer in zip(found_of(locator, queries), locator.answers(queries), strict=True):
        for radius_m, share in ((answer.radius50_m, 0.4), (answer.radius90_m, 0.8)):
            assert found.posterior.mass_within(answer.place, radius_m) == pytest.approx(
                share, abs=0.02
            )


def test_answers_name_their_calibration_where_there_is_one(matched, calibrated, queries):
    plain, fitted = Locator.load(matched), Locator.load(calibrated)
    assert "calibration" not in plain.made_by and plain.calibration == Calibration()
    known = load_explained(calibrated / "checkpoint-best.safetensors").calibration
    assert fitted.made_by == {**plain.made_by, "calibration": known.digest()}
    (before,), (after,) = plain.answers(queries[:1]), fitted.answers(queries[:1])
    assert before.evidence is None and not before.not_here and "calibration" not in before.made_by
    assert after.evidence is not None and after.made_by["calibration"] == known.digest()


def test_evidence_too_low_is_exit_code_3(zoomloc, calibrated, painted, tmp_path):
    run = shutil.copytree(calibrated, tmp_path / "run")
    about = run / "checkpoint-best.json"
    told = json.loads(about.read_text())
    told["calibration"]["here_from"] = 1e6
    about.write_text(json.dumps(told))
    photo = painted / "photos" / "d9" / "000.jpg"
    for words in ((photo,), (photo, painted / "photos" / "d9" / "001.jpg", "--together")):
        code, out, _ = zoomloc("locate", *words, "--run", run, "--json")
        assert code == 3 and json.loads(out)["not_here"] is True
        code, out, _ = zoomloc("locate", *words, "--run", run)
        assert code == 3 and "not from this region" in out


def test_the_papers_answer_stays_a_cells_centre(locator, queries):
    paper = locator.with_search(locator.search.model_copy(update={"answer": "cell"}))
    near = [dataclasses.replace(q, prior=Near(middle_of(locator, 16, 20), 60.0)) for q in queries]
    for asked in (queries, near):
        for own, found in zip(found_of(locator, asked), found_of(paper, asked), strict=True):
            cell = locator.region.path(found.place)[-1]
            assert (found.place.lat, found.place.lng) == pytest.approx(cell.center)
            assert (found.evidence, found.agreement) == (own.evidence, own.agreement)
            np.testing.assert_allclose(found.posterior.log_mass, own.posterior.log_mass)


# 2. several photos of one place


def test_one_photo_together_is_that_photo(locator, queries, monkeypatch):
    near = dataclasses.replace(queries[0], prior=Near(middle_of(locator, 16, 20), 60.0))
    for query in (queries[0], near):
        (alone,) = found_of(locator, [query])
        found, answer = joint_of(locator, [query], monkeypatch)
        np.testing.assert_allclose(grid_of(found, locator), grid_of(alone, locator), atol=1e-9)
        assert found.evidence == pytest.approx(alone.evidence, abs=1e-6)
        assert found.agreement == pytest.approx(alone.agreement, abs=1e-6)
        assert answer.photo == query.name and answer.given == query.given()


def test_two_photos_are_p0_times_what_each_adds_to_it(locator, queries, monkeypatch):
    coverage, p0 = locator.scorer.views.coverage, np.exp(locator.place_prior())
    assert p0.sum() == pytest.approx(1) and np.ptp(p0[coverage.leaves]) > 0
    found, answer = joint_of(locator, queries[:2], monkeypatch)
    singles = found_of(locator, queries[:2])
    one, two = (grid_of(single, locator) for single in singles)
    with np.errstate(invalid="ignore"):
        product = np.where(coverage.leaves, p0 * (one / p0) ** 0.4 * (two / p0) ** 0.4, 0)
    np.testing.assert_allclose(grid_of(found, locator), product / product.sum(), atol=1e-4)
    grids = np.stack([on_leaves(single.posterior, coverage) for single in singles])
    wanted = joined(grids, locator.place_prior(), 0.4, coverage)
    np.testing.assert_allclose(found.posterior.mass, wanted.mass, atol=1e-4)
    evidence = 0.4 * sum(single.evidence for single in singles)
    assert answer.evidence == pytest.approx(evidence, abs=0.05)
    assert answer.photo == f"{queries[0].name} + {queries[1].name}"
    assert answer.not_here == (answer.evidence < SHARP.here_from)
    made_by = {key: v for key, v in answer.made_by.items() if key != "photo"}
    assert made_by == locator.made_by


def test_the_order_of_photos_does_not_matter(locator, queries, monkeypatch):
    orders = list(itertools.permutations(queries[:3]))[::2]
    first, *others = (joint_of(locator, order, monkeypatch) for order in orders)
    for found, answer in others:
        np.testing.assert_allclose(found.posterior.mass, first[0].posterior.mass, atol=1e-4)
        assert distance_m(found.place, first[0].place) < 2
        assert answer.evidence == pytest.approx(first[1].evidence, abs=0.05)
    same = joint_of(locator, [queries[0]] * 2, monkeypatch)[1].made_by["photo"]
    assert same != joint_of(locator, queries[:2], monkeypatch)[1].made_by["photo"]


def test_a_prior_counts_once_for_all_photos(locator, queries, monkeypatch):
    prior = Near(middle_of(locator, 16, 20), 60.0)
    known = [dataclasses.replace(query, prior=prior) for query in queries[:3]]
    found, answer = joint_of(locator, known, monkeypatch)
    plain, _ = joint_of(locator, queries[:3], monkeypatch)
    coverage = locator.scorer.views.coverage
    wanted, agreement = under(plain.posterior, prior.log_ratio(coverage))
    np.testing.assert_allclose(found.posterior.mass, wanted.mass, atol=1e-9)
    assert answer.agreement == pytest.approx(agreement, abs=1e-6)
    assert answer.evidence == pytest.approx(plain.evidence + agreement, abs=1e-6)
    assert answer.given["place"] == prior.described()


@pytest.fixture(scope="module")
def zoom(small_config, tmp_path_factory):
    """A zoom that searches with a beam of one: most of its belief lies in large cells."""
    folder = tmp_path_factory.mktemp("zoom-together") / "run"
    plan = small_config.train.model_copy(update={"steps": 6, "val_every_steps": None})
    train(small_config.model_copy(update={"train": plan}), folder)
    found = Locator.load(folder)
    beam = {"method": "beam", "beam": 1}
    calibration = dataclasses.replace(SHARP, slope=None, here_from=None)
    return dataclasses.replace(found, calibration=calibration).with_search(
        found.search.model_copy(update=beam)
    )


def test_photos_of_a_zoom_are_joined_over_even_ground(zoom, queries, monkeypatch):
    coverage = zoom.scorer.views.coverage
    np.testing.assert_allclose(zoom.place_prior(), even_over(coverage))
    singles = found_of(zoom, queries[:3])
    assert all(single.posterior.span.max() > 1 for single in singles)
    found, answer = joint_of(zoom, queries[:3], monkeypatch)
    product = np.prod([grid_of(single, zoom) ** 0.4 for single in singles], axis=0)
    assert np.isfinite(answer.lat) and answer.evidence is None and not answer.not_here
    np.testing.assert_allclose(grid_of(found, zoom), product / product.sum(), atol=1e-6)


def test_photos_together_are_searched_where_the_prior_lies(zoom, queries, monkeypatch):
    """As each alone is: with a beam of two, other cells are opened than without a prior."""
    two = zoom.with_search(zoom.search.model_copy(update={"beam": 2}))
    coverage = zoom.scorer.views.coverage
    rows, columns = np.nonzero(coverage.leaves)
    (plain,) = found_of(two, queries[:1])
    moved_beams = 0
    for i in range(0, len(rows), len(rows) // 6):
        prior = Near(middle_of(zoom, rows[i], columns[i]), 20.0)
        near = dataclasses.replace(queries[0], prior=prior)
        (alone,) = found_of(two, [near])
        found, _ = joint_of(two, [near], monkeypatch)
        held = summed_in(alone.posterior, grid_of(found, two))
        np.testing.assert_allclose(held, alone.posterior.mass, atol=1e-6)
        moved_beams += alone.posterior.cells != plain.posterior.cells
    assert moved_beams > 0
