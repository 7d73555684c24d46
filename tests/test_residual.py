"""The zoom on top of the match: it begins as the match's posterior and learns from there."""

import numpy as np
import pytest
import torch
from interrupted import trained_both_ways
from test_match_scorer import match_config, photos

from zoomloc.belief.search import SearchPlan, search
from zoomloc.checkpoint import build_model
from zoomloc.errors import ConfigError
from zoomloc.ground import GroundMap, Window
from zoomloc.locator import Query, open_views
from zoomloc.model.encoders import shrunk
from zoomloc.scorers import scorer_of
from zoomloc.training.dataset import Ground
from zoomloc.training.learner import build_learner
from zoomloc.training.matches import in_picture
from zoomloc.training.residual import nearest_places
from zoomloc.training.towers import TowersBatch
from zoomloc.world.photos import read_photos


def residual_config(small_config, towers=0.0, **train_changes):
    config = match_config(small_config, **train_changes)
    tree = config.to_dict()
    tree["model"] |= {"kind": "residual"}
    tree["model"]["residual"] |= {
        "towers_share": towers, "towers_px": [48, 24], "towers_batch": 16,
    }  # fmt: skip
    tree["model"]["match"] |= {"straight": 1.0}
    tree["search"] |= {"method": "beam", "beam": 1000, "refined": 1.0}
    return type(config).model_validate(tree)


@pytest.fixture
def views(small_config, painted):
    return open_views(painted, residual_config(small_config))


@pytest.fixture
def model(small_config, views):
    return build_model(residual_config(small_config), views.region).eval()


def leaf_masses(scorer, shown):
    coverage = scorer.views.coverage
    found = search(scorer, shown, coverage, SearchPlan(beam=10_000))
    return [dict(zip(p.cells, p.mass, strict=True)) for p in found]


def test_it_begins_as_the_posterior_of_the_match(small_config, model, views):
    config = residual_config(small_config)
    scorer = scorer_of(model, views, config.search)
    alone = scorer_of(model, views, config.search, use_place=False)
    assert scorer.corrections is not None and alone.corrections is None
    assert scorer.leaves(scorer.start(photos())) is None
    plan = SearchPlan(method="exhaustive")
    of_match = search(alone, photos(), views.coverage, plan)
    for zoomed, matched in zip(leaf_masses(scorer, photos()), of_match, strict=True):
        for cell, mass in zip(matched.cells, matched.mass, strict=True):
            assert zoomed[cell] == pytest.approx(mass, rel=1e-4, abs=1e-9)


def test_what_f_says_moves_the_belief_from_the_first_choice_on(small_config, model, views):
    scorer = scorer_of(model, views, residual_config(small_config).search)
    before = leaf_masses(scorer, photos(1))[0]
    with torch.no_grad():
        model.zoom.head.bias[0] += 3.0
    after = leaf_masses(scorer, photos(1))[0]
    assert sum(after.values()) == pytest.approx(1)
    pairs = [
        (first, second)
        for first in before
        for second in before
        if first.choice(2) == 0 and second.choice(2) == 1 and first.x + 1 == second.x
        and first.y == second.y
    ]  # fmt: skip
    assert len(pairs) > 10  # siblings: f favours choice 0 over choice 1 by exp(3)
    for first, second in pairs:
        odds = after[first] / after[second] / (before[first] / before[second])
        assert odds == pytest.approx(np.exp(3.0), rel=1e-3)


def learner_of(config, views):
    ground = Ground(
        read_photos(config.data / "photos.parquet", "train"), views, config.model.photo_px
    )
    model = build_model(config, views.region)
    return build_learner(config, model, [ground]), model


def test_in_training_the_match_says_what_it_says_in_search(small_config, views):
    """Its decisions along a path, from the lattice of a step, against those of the scorer."""
    config = residual_config(small_config)
    tree = config.to_dict()
    tree["model"]["match"] |= {"lattice": 1}
    for change in ("photo_colour", "photo_erase", "view_colour"):
        tree["train"]["augment"][change] = 0.0
    config = type(config).model_validate(tree)
    learner, model = learner_of(config, views)
    batch = learner.batch(0)
    model.eval()
    seen = learner.matches.compared(batch.match)
    _, zooms = learner._of_match(batch, seen)
    cells = views.coverage.present(views.region.zooms)
    grid = batch.match.window
    rows, columns = nearest_places(learner.matches.maps[0], grid, seen.shape, (0, 0), 1)
    leaves = (seen.match.float() * model.match.scale() + seen.added[None]).logsumexp(0)
    lattice = leaves[:, : seen.shape[0] * seen.shape[1]].unflatten(1, seen.shape)
    leaves = lattice[:, rows[:, None], columns].detach().exp().numpy()
    leaves = leaves * cells
    for photo, path in enumerate(batch.paths):
        for depth, parent in enumerate(path[:-1]):
            masses = []
            for child in views.region.children(parent):
                row, column = views.region.row_column(child)
                side = 1 << views.region.levels_per_zoom * (views.region.zooms - depth - 1)
                block = leaves[photo, row * side :, column * side :][:side, :side]
                masses.append(block.sum())
            wanted = np.array(masses) / np.sum(masses)
            got = zooms[photo, depth].exp().numpy()
            np.testing.assert_allclose(got, wanted, atol=1e-3)


def test_the_nearest_place_is_within_half_a_step(views):
    ground = GroundMap(views, 2.0)
    height, width = ground.shape_px
    shape, phase, step = (height // 2 // 3, width // 2 // 3), (1, 2), 3
    rows, columns = nearest_places(ground, Window(0, 0, width, height), shape, phase, step)
    middles = ground.cell_middles(views.coverage.leaves.shape)
    for px, nearest, count, first in zip(middles, (rows, columns), shape, phase, strict=True):
        place = (first + step * nearest + 0.5) * 2
        on_lattice = (px > first * 2) & (px < (first + step * (count - 1)) * 2)
        assert (np.abs(place - px)[on_lattice] <= step + 1e-9).all()


def test_decisions_about_ground_that_was_not_searched_have_no_target(small_config, views):
    config = residual_config(small_config)
    tree = config.to_dict()
    tree["model"]["match"] |= {"window_m": 96.0}
    learner, _ = learner_of(type(config).model_validate(tree), views)
    parts = [learner.batch(step).zoom for step in range(6)]
    held = torch.cat([(part.target.sum(-1) > 0).float() for part in parts])
    assert not held[:, 0].any()  # the first zoom looks at all the region
    assert 0 < held[:, -1].mean() < 1  # the last one at a square of 64 m or so


def test_a_turned_map_teaches_the_match_alone(small_config, views):
    config = residual_config(small_config)
    tree = config.to_dict()
    tree["model"]["match"] |= {"straight": 0.0}
    learner, model = learner_of(type(config).model_validate(tree), views)
    batch = learner.batch(0)
    assert batch.zoom is None
    learner.loss(batch).backward()
    assert model.zoom.head.weight.grad is None
    assert model.match.map.out.weight.grad is not None


@pytest.mark.parametrize("towers", [0.0, 0.5])
def test_it_trains_resumes_and_answers(small_config, painted, tmp_path, towers):
    config = residual_config(small_config, towers, steps=12, batch=16)
    one, two = trained_both_ways(config, tmp_path)
    for scorer in (one.scorer, two.scorer):
        assert scorer.corrections is not None
    pairs = zip(
        one.scorer.corrections.model.parameters(),
        two.scorer.corrections.model.parameters(),
        strict=True,
    )
    assert all(torch.equal(a, b) for a, b in pairs)
    if towers:
        pairs = zip(*(s.beside.model.parameters() for s in (one.scorer, two.scorer)), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert one.scorer.corrections.model.head.weight.abs().max() > 0  # it has begun to speak
    queries = [Query.of(p) for p in read_photos(painted / "photos.parquet", "test")[:3]]
    for answer in one.answers(queries):
        assert answer.bearing_deg is not None and np.isfinite(answer.error_m)


def test_what_the_towers_say_is_added_to_the_match(small_config, views):
    config = residual_config(small_config, towers=0.5)
    scorer = scorer_of(build_model(config, views.region).eval(), views, config.search)
    both = scorer.start(photos()).scores[-1]
    towers = scorer.beside.start(photos()).scores[-1]
    scorer.beside = None
    match = scorer.start(photos()).scores[-1]
    present = views.coverage.leaves
    np.testing.assert_allclose(both[:, present], (match + towers)[:, present], rtol=1e-6)
    assert (both[:, ~present] == -np.inf).all()


def test_some_steps_are_the_towers_own(small_config, views):
    learner, model = learner_of(residual_config(small_config, towers=0.5), views)
    batches = [learner.batch(step) for step in range(12)]
    of_towers = [batch for batch in batches if isinstance(batch, TowersBatch)]
    assert 2 < len(of_towers) < 10
    learner.loss(of_towers[0]).backward()
    assert model.towers.view_tokens[0].whole.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in model.match.parameters())


def test_photos_in_parts_are_refused(small_config, views):
    tree = residual_config(small_config).to_dict()
    tree["model"] |= {"photo_crops": 3}
    config = type(residual_config(small_config)).model_validate(tree)
    with pytest.raises(ConfigError, match="photo_crops"):
        build_model(config, views.region)


@pytest.mark.parametrize("exact", [False, True])
def test_photos_that_the_turned_picture_loses_are_left_out(small_config, views, exact):
    """And where they stand is among the places compared, if that is asked for."""
    tree = residual_config(small_config).to_dict()
    tree["model"]["match"] |= {"straight": 0.0, "exact": exact, "lattice": 4}
    learner, _ = learner_of(type(residual_config(small_config)).model_validate(tree), views)
    for step in range(4):
        batch = learner.batch(step).match
        east, south, _ = in_picture(batch.place_m, batch.bearing_deg, batch.pose)
        half = batch.window.width * learner.config.model.match.gsd_m / 2
        assert east.abs().max() < half and south.abs().max() < half
        seen = learner.matches.compared(batch)
        assert seen.match.shape[2] == len(seen.places_m)
        away = torch.stack([east, south], 1)[:, None] - seen.places_m
        nearest = away.norm(dim=2).amin(1)
        feature_m = learner.matches.model.feature_m
        assert (nearest.max() <= feature_m * 0.72) == exact


def test_photos_that_do_not_shrink_to_the_towers_are_refused(small_config, views):
    tree = residual_config(small_config, towers=0.5).to_dict()
    tree["model"]["residual"] |= {"towers_px": [32, 16]}
    with pytest.raises(ConfigError, match="towers_px"):
        build_model(type(residual_config(small_config)).model_validate(tree), views.region)


def test_shrunk_photos_are_means_of_squares():
    photo = torch.arange(4 * 8 * 3, dtype=torch.uint8).reshape(1, 3, 4, 8)
    half = shrunk(photo, (4, 2))
    assert half.dtype == torch.uint8 and half.shape == (1, 3, 2, 4)
    wanted = photo.float()[0, 0, :2, :2].mean().round()
    assert half[0, 0, 0, 0] == wanted
    assert shrunk(photo, (8, 4)) is photo and shrunk(photo, (3, 2)) is photo
