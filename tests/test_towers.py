"""Two towers: batches, losses, mining, resuming, and what their search answers."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from zoomloc.belief.search import SearchPlan, search
from zoomloc.checkpoint import build_model, load_tensors
from zoomloc.config import Config
from zoomloc.errors import ConfigError
from zoomloc.locator import Locator, Query, open_views
from zoomloc.model.encoders import EncoderSpec
from zoomloc.model.towers import COLDEST, Towers
from zoomloc.scorers import scorer_of
from zoomloc.scorers.dense import summed_below
from zoomloc.scorers.shown import Shown
from zoomloc.scorers.towers import TowersScorer
from zoomloc.training.augment import turned
from zoomloc.training.dataset import Ground
from zoomloc.training.loop import numbered_checkpoints, train
from zoomloc.training.losses import info_nce
from zoomloc.training.towers import TowersLearner
from zoomloc.world.cells import distance_m
from zoomloc.world.coverage import Coverage
from zoomloc.world.images import load_fitted
from zoomloc.world.photos import read_photos
from zoomloc.world.region import Region

STILL = {f"photo_{name}": 0.0 for name in ("colour", "shift", "scale", "erase")}


def towers_config(small_config, depths=1, **train_changes) -> Config:
    tree = small_config.to_dict()
    tree["model"] |= {"kind": "towers", "pooling": "grid"}
    tree["model"]["towers"] |= {"depths": depths, "near": 4, "context_m": 32.0, "dense": 2}
    tree["search"] |= {"method": "exhaustive"}
    if depths > 1:
        tree["model"]["towers"] |= {"learned_temperature": False}
        tree["search"] |= {"method": "beam", "beam": 4}
    tree["train"] |= train_changes
    return Config.model_validate(tree)


def with_towers(config: Config, **changes) -> Config:
    towers = config.model.towers.model_copy(update=changes)
    return config.model_copy(update={"model": config.model.model_copy(update={"towers": towers})})


@pytest.fixture
def ground(painted, small_config):
    config = towers_config(small_config)
    photos = read_photos(painted / "photos.parquet", "train")
    return Ground(photos, open_views(painted, config), config.model.photo_px)


def learner_of(config, ground) -> TowersLearner:
    views = open_views(config.data, config)
    ground.views = views
    return TowersLearner(config, build_model(config, views.region), [ground])


def pictures_of(painted, split="test", count=None):
    photos = read_photos(painted / "photos.parquet", split)[:count]
    return photos, [Shown(load_fitted(p.path, 48, 24)) for p in photos]


# 1. the loss


def test_the_loss_is_symmetric_info_nce():
    """By hand on two pairs: rows are photos, columns references."""
    logits = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    forth = (np.log(1 + np.exp(-2.0)) + np.log(1 + np.exp(-2.0))) / 2
    back = (np.log(1 + np.exp(-1.0)) + np.log(1 + np.exp(-3.0))) / 2
    assert float(info_nce(logits, torch.eye(2))) == pytest.approx((forth + back) / 2, rel=1e-6)
    assert float(info_nce(logits.T, torch.eye(2))) == pytest.approx((forth + back) / 2, rel=1e-6)


def test_references_of_nowhere_are_negatives_only():
    torch.manual_seed(0)
    logits = torch.randn(3, 5)
    target = torch.eye(3, 5)
    forth = torch.nn.functional.cross_entropy(logits, torch.arange(3))
    back = torch.nn.functional.cross_entropy(logits[:, :3].T, torch.arange(3))
    torch.testing.assert_close(info_nce(logits, target), (forth + back) / 2)


# 2. batches


@pytest.mark.parametrize("depths", [1, 3])
def test_a_batch_holds_no_cell_and_no_reference_twice(small_config, ground, depths):
    config = towers_config(small_config, depths)
    learner = learner_of(config, ground)
    region = ground.views.region
    for step in range(4):
        batch = learner.batch(step)
        assert [head for head, _ in batch.heads] == list(range(depths))
        assert len(batch.views) == sum(count for _, count in batch.heads)
        start = 0
        for (_, count), target in zip(batch.heads, batch.targets, strict=True):
            own = batch.views[start : start + count].flatten(1)
            beyond = (own == 127).float().mean(1)  # squares off the imagery may look alike
            own = own[beyond < 0.5]
            assert len(torch.unique(own, dim=0)) == len(own)
            assert target.shape == (len(batch.photos), count)
            torch.testing.assert_close(target.sum(1), torch.ones(len(target)))
            start += count
        assert torch.equal(learner.batch(step).photos, batch.photos)
    rng = np.random.default_rng(0)
    drawn = learner.places[0].draw(rng, 16, 4)
    cells = learner.places[0].cell[drawn]
    assert len(set(cells.tolist())) == len(cells) == 16
    photo = learner.places[0].photo_of(int(drawn[0]), rng)
    row_column = region.row_column(region.path(ground.photos[photo].place)[-1])
    assert learner.places[0].at[drawn[0]].tolist() == list(row_column)


def test_batches_start_with_neighbours(small_config, ground):
    """Seeds bring the cells around them: nearer than cells drawn at random."""
    places = learner_of(towers_config(small_config), ground).places[0]

    def spread(near):
        drawn = [places.draw(np.random.default_rng(s), 5, near) for s in range(40)]
        away = [np.linalg.norm(places.at[d][1:] - places.at[d][0], axis=1) for d in drawn]
        return np.mean(away)

    assert spread(4) < 0.5 * spread(0)


def test_a_target_is_the_reference_that_holds_the_photo(small_config, ground):
    config = towers_config(small_config, sigma_m=0.0)
    learner = learner_of(config, ground)
    ground.error_m = np.full_like(ground.error_m, 0.5)  # so certain that targets are one-hot
    batch = learner.batch(0)
    assert (batch.targets[0].max(1).values > 0.999).all()
    assert len(batch.targets[0].argmax(1).unique()) == len(batch.photos)


# 3. references


def test_references_cover_every_present_cell_once(painted, small_config):
    views = open_views(painted, towers_config(small_config))
    region = views.region
    for depth in range(region.zooms + 1):
        n = views.references_a_side(depth)
        assert n == (1 if depth == region.zooms else 2)
        crops = views.references(depth)
        cells = np.argwhere(views.coverage.present(depth))
        assert len(crops) == len(cells) * n * n == len(set(crops))
        for (row, column), own in zip(
            cells, np.split(np.arange(len(crops)), len(cells)), strict=True
        ):
            mine = [crops[i] for i in own]
            assert {(int(c.row), int(c.column), c.depth) for c in mine} == {(row, column, depth)}
            inner = {(round((c.row - row) * n, 6), round((c.column - column) * n, 6)) for c in mine}
            assert inner == {(i + 0.5, j + 0.5) for i in range(n) for j in range(n)}
        side = 32.0 / region.cell_size_m if depth == region.zooms else 1.0
        assert {c.side for c in crops} == {side}


def test_the_reference_of_a_place_is_the_nearest(painted, small_config):
    views = open_views(painted, towers_config(small_config))
    rng = np.random.default_rng(1)
    depth = views.region.zooms - 1
    every = np.array([(c.row, c.column) for c in views.references(depth)])
    for row, column in rng.choice(every, 5) + rng.uniform(-0.2, 0.2, (5, 2)):
        found = views.reference(depth, row, column)
        nearest = every[np.hypot(*(every - [row, column]).T).argmin()]
        assert (found.row, found.column) == pytest.approx(tuple(nearest))


def test_a_crop_shows_the_ground_around_its_centre(painted, small_config):
    views = open_views(painted, towers_config(small_config))
    region = views.region
    leaf = region.path(read_photos(painted / "photos.parquet")[0].place)[-1]
    row, column = region.row_column(leaf)
    crop = views.reference(region.zooms, row + 0.9, column + 0.1)
    shown = views.crop(crop)
    wanted = views.pyramid.square(leaf.center, 32.0, 32)
    assert np.abs(shown.astype(int) - wanted).mean() < 4


# 4. the network and its scores


def test_vectors_have_length_one_and_the_temperature_its_limits(small_config, painted):
    config = towers_config(small_config, depths=2)
    model = build_model(config, Region.load(painted / "region.json")).eval()
    photos = model.encode_photos(torch.rand(3, 3, 24, 48))
    views = model.encode_views(torch.rand(5, 3, 32, 32), [(0, 2), (1, 3)])
    assert photos.shape == (3, 2, 32) and [len(v) for v in views] == [2, 3]
    for vectors in (photos, *views):
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(vectors.shape[:-1]))
    assert float(model.scale(0)) == pytest.approx(1 / 0.07)
    assert not model.log_scale.requires_grad
    model.log_scale.data.fill_(99.0)
    assert float(model.scale(1)) == pytest.approx(1 / COLDEST)


def test_sizes_and_encoders_that_do_not_fit_are_refused(small_config, painted):
    spec = build_model(towers_config(small_config), Region.load(painted / "region.json")).spec
    with pytest.raises(ConfigError, match="view_px"):
        Towers(replace(spec, view_px=36))
    with pytest.raises(ConfigError, match="in 4 parts"):
        Towers(replace(spec, photo_crops=4))
    with pytest.raises(ConfigError, match="unknown"):
        Towers(replace(spec, photo_encoder=EncoderSpec("resnet", (), "")))


def test_photos_in_parts_keep_their_grid_in_order(small_config, painted):
    spec = build_model(towers_config(small_config), Region.load(painted / "region.json")).spec
    model = Towers(replace(spec, pooling="grid", photo_crops=2, photo_px=(64, 24))).eval()
    photo = torch.rand(2, 3, 24, 64)
    halves = [model.photo_encoder(half) for half in photo.split(32, dim=3)]
    whole = model.photo_tokens(torch.cat(halves, dim=3))
    expected = torch.nn.functional.normalize(whole, dim=-1)
    torch.testing.assert_close(model.encode_photos(photo), expected)


def test_summed_below_is_log_sum_exp():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 30, (2, 4, 8))
    scores[0, :2, :2] = -np.inf  # a block without imagery
    scores[1, 3, 3] = -np.inf
    found = summed_below(scores, 2)
    blocks = torch.from_numpy(scores).unfold(1, 2, 2).unfold(2, 2, 2).flatten(3)
    wanted = blocks.logsumexp(3).numpy()
    assert found.shape == (2, 2, 4)
    assert found[0, 0, 0] == -np.inf == wanted[0, 0, 0]
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_with_one_head_beam_and_exhaustive_search_agree(painted, small_config):
    """Coarser depths are sums over leaves, so a path's mass is that of the exhaustive search."""
    config = towers_config(small_config)
    views = open_views(painted, config)
    scorer = scorer_of(build_model(config, views.region).eval(), views, config.search)
    assert isinstance(scorer, TowersScorer)
    _, pictures = pictures_of(painted, count=3)
    plans = (SearchPlan("exhaustive"), SearchPlan("beam", beam=10_000))
    flat, tree = (search(scorer, pictures, views.coverage, plan) for plan in plans)
    for one, other in zip(flat, tree, strict=True):
        a, b = dict(one.top(50)), dict(other.top(50))
        assert a.keys() == b.keys()
        assert all(b[cell] == pytest.approx(mass, rel=1e-4) for cell, mass in a.items())


def test_several_roots_are_scored_too(painted, small_config):
    whole = open_views(painted, towers_config(small_config))
    roots = whole.region.roots[0].descendants(2)
    there = [r for r in roots if whole.coverage.children(r).any()]
    region = Region("part", tuple(there), whole.region.terminal_level + 2, 2)
    views = replace(whole, region=region, coverage=Coverage.of(region, whole.pyramid))
    for depths in (1, 4):
        config = towers_config(small_config, depths)
        scorer = scorer_of(build_model(config, region).eval(), views, config.search)
        state = scorer.start(pictures_of(painted, count=2)[1])
        assert [s.shape[1:] for s in state.scores] == [
            region.grid_shape(d) for d in range(region.zooms + 1)
        ]
        np.testing.assert_allclose(np.exp(scorer.roots(state)).sum(1), 1.0)
        some = scorer.children(state, np.array([0, 1]), [region.roots[0], region.roots[-1]])
        np.testing.assert_allclose(np.exp(some).sum(1), 1.0)


# 5. augmentation


def test_turning_turns_each_picture_by_quarters():
    torch.manual_seed(0)
    pictures = torch.rand(40, 3, 8, 8)
    found = turned(pictures)
    quarters = torch.stack([pictures.rot90(k, (2, 3)) for k in range(4)])
    is_quarter = (quarters == found).flatten(2).all(2)  # (4, 40)
    assert (is_quarter.sum(0) == 1).all() and is_quarter.any(1).all()


def test_mirroring_mirrors_photo_and_map_together(small_config, ground):
    class Watched(Towers):
        def encode_photos(self, photos):
            self.photos = photos
            return super().encode_photos(photos)

        def encode_views(self, views, heads):
            self.views = views
            return super().encode_views(views, heads)

    plan = STILL | {"view_colour": 0.0, "mirror": True}
    config = towers_config(small_config, augment=plan)
    learner = learner_of(config, ground)
    learner.model = Watched(learner.model.spec)
    batch = learner.batch(0)
    photos, views = batch.photos / 255, batch.views / 255
    seen = set()
    for seed in range(8):
        torch.manual_seed(seed)
        learner.loss(batch)
        flipped = torch.equal(learner.model.photos, photos.flip(-1))
        assert flipped or torch.equal(learner.model.photos, photos)
        assert torch.equal(learner.model.views, views.flip(-1) if flipped else views)
        seen.add(flipped)
    assert seen == {True, False}
    turning = config.train.model_copy(
        update={"augment": config.train.augment.model_copy(update={"turn": True})}
    )
    learner.config = config.model_copy(update={"train": turning})
    learner.loss(batch)
    assert learner.model.views.shape == views.shape
    assert not torch.equal(learner.model.views, views)


# 6. training


class Stopped(Exception):
    pass


@pytest.mark.parametrize("depths", [1, 4])
def test_resumed_equals_uninterrupted_across_minings(small_config, tmp_path, depths):
    """Mined at 2, 5, 8 and 11 of 12 steps; stopped at 7, taken up from 6."""
    config = towers_config(small_config, depths)
    config = with_towers(config, near_share=0.15, mine_every=0.25)
    train(config, tmp_path / "whole")

    def stop(progress):
        if progress.step == 7:
            raise Stopped

    with pytest.raises(Stopped):
        train(config, tmp_path / "parts", stop)
    at_six = load_tensors(numbered_checkpoints(tmp_path / "parts")[-1])
    assert at_six["memory.mined"][1] == 2
    assert train(config, tmp_path / "parts").resumed
    whole, parts = (
        load_tensors(numbered_checkpoints(tmp_path / run)[-1]) for run in ("whole", "parts")
    )
    assert whole["memory.mined"][1] == 4
    assert not torch.equal(whole["memory.hard.0"], at_six["memory.hard.0"])
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_mining_finds_what_looks_alike(small_config, ground):
    learner = learner_of(towers_config(small_config), ground)
    places = learner.places[0]
    near = places.hard.copy()
    learner.prepare(0.05)  # still the time of near cells
    assert np.array_equal(places.hard, near)
    learner.prepare(0.5)
    assert places.hard.shape == near.shape and not np.array_equal(places.hard, near)
    assert all(own not in row for own, row in enumerate(places.hard))
    model, views = learner.model.eval(), ground.views
    depth = views.region.zooms
    with torch.no_grad():
        crops = [views.crop(views.reference(depth, r, c)) for r, c in places.at]
        maps = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 255
        references = model.encode_views(maps, [(0, len(maps))])[0]
        only = [i for i in range(len(places.cell)) if places.start[i + 1] - places.start[i] == 1][
            :5
        ]
        photos = ground.pixels.get(np.array([places.order[places.start[i]] for i in only]))
        queries = model.encode_photos(torch.from_numpy(photos).permute(0, 3, 1, 2) / 255)[:, 0]
    similar = queries @ references.T
    for row, place in zip(similar, only, strict=True):
        row[place] = -1.0
        least = row[torch.from_numpy(places.hard[place])].min()
        others = np.setdiff1d(np.arange(len(row)), [*places.hard[place], place])
        assert row[torch.from_numpy(others)].max() <= least + 1e-5


def test_retrieval_learns_and_answers(small_config, tmp_path, painted):
    config = towers_config(
        small_config, steps=120, val_every_steps=120, augment=STILL | {"view_colour": 0.0}
    )
    train(config, tmp_path)
    photos, _ = pictures_of(painted)
    locator = Locator.load(tmp_path)
    errors = [a.error_m for a in locator.answers([Query.of(p) for p in photos])]
    places = [p.place for p in read_photos(painted / "photos.parquet", "train")]
    rng = np.random.default_rng(0)
    guesses = [places[i] for i in rng.integers(len(places), size=len(photos))]
    chance = [distance_m(g, p.truth) for g, p in zip(guesses, photos, strict=True)]
    assert np.median(errors) < 30 < 0.4 * np.median(chance)


def test_hierarchical_answers_by_beam(small_config, tmp_path, painted):
    config = towers_config(
        small_config,
        4,
        steps=200,
        val_every_steps=200,
        augment=STILL | {"view_colour": 0.0},
    )
    train(config, tmp_path)
    photos, pictures = pictures_of(painted)
    locator = Locator.load(tmp_path)
    assert locator.search.method == "beam"
    answers = list(locator.answers([Query.of(p) for p in photos]))
    assert np.median([a.error_m for a in answers]) < 60

    scorer, views = locator.scorer, locator.scorer.views
    leaves = scorer.leaves(scorer.start(pictures))
    flat = search(scorer, pictures, views.coverage, SearchPlan("exhaustive"))
    for posterior, scores in zip(flat, leaves, strict=True):
        (cell, mass), *_ = posterior.top(1)
        assert scores[views.region.row_column(cell)] == scores.max()
        assert mass == pytest.approx(1 / np.exp(scores - scores.max()).sum(), rel=1e-6)

    every = search(scorer, pictures[:4], views.coverage, SearchPlan("beam", beam=10_000))
    state = scorer.start(pictures[:4])
    for photo, posterior in enumerate(every):
        (cell, mass), *_ = posterior.top(1)
        assert mass == pytest.approx(_along(scorer, state, photo, cell), rel=1e-6)


def _along(scorer, state, photo, leaf):
    """The product of the choices that lead to a terminal cell."""
    region = scorer.views.region
    root, *below = region.path_to(leaf)
    total = np.exp(scorer.roots(state)[photo, region.roots.index(root)])
    above = root
    for cell in below:
        log_prob = scorer.children(state, np.array([photo]), [above])[0]
        total *= np.exp(log_prob[region.children(above).index(cell)])
        above = cell
    return total


def test_places_that_were_never_photographed_answer_too(small_config, painted):
    """Every leaf with imagery has a finite score, the others none."""
    config = towers_config(small_config)
    views = open_views(painted, config)
    scorer = scorer_of(build_model(config, views.region).eval(), views, config.search)
    leaves = scorer.leaves(scorer.start(pictures_of(painted, count=2)[1]))
    present = views.coverage.present(views.region.zooms)
    assert np.isfinite(leaves[:, present]).all()
    assert (leaves[:, ~present] == -np.inf).all()


def test_the_config_of_towers_is_kept_in_the_checkpoint(small_config, tmp_path):
    config = with_towers(towers_config(small_config, steps=2), near=0)
    train(config, tmp_path)
    about = json.loads((tmp_path / "checkpoint-best.json").read_text())
    assert about["config"]["model"]["kind"] == "towers"
    assert about["encoders"] == {"photo": {}, "view": {}}
