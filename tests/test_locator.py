"""Locator: photos in, answers out; the scorer over the zoom model; what is refused."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from zoomloc.belief.search import SearchPlan, search
from zoomloc.checkpoint import build_model, load_explained
from zoomloc.errors import CheckpointError, PhotoError
from zoomloc.evaluate import Pool, evaluate
from zoomloc.locator import Locator, Query, open_views
from zoomloc.scorers import zooms
from zoomloc.scorers.shown import Shown
from zoomloc.scorers.zooms import ZoomScorer
from zoomloc.training.loop import train
from zoomloc.world.coverage import Coverage
from zoomloc.world.photos import read_photos
from zoomloc.world.region import Region


@pytest.fixture(scope="module")
def run(small_config, tmp_path_factory):
    plan = small_config.train.model_copy(update={"steps": 30, "val_every_steps": None})
    config = small_config.model_copy(update={"train": plan})
    folder = tmp_path_factory.mktemp("run")
    train(config, folder)
    return folder


@pytest.fixture(scope="module")
def photos(painted):
    return read_photos(painted / "photos.parquet", "test")[:12]


def answers_of(locator, photos):
    return list(locator.answers([Query.of(p) for p in photos]))


def test_every_answer_is_whole(run, photos):
    locator = Locator.load(run)
    for answer in answers_of(locator, photos):
        assert sum(mass for _, mass in answer.posterior) == pytest.approx(1, abs=1e-6)
        assert answer.path[0] in {root.quadkey for root in locator.region.roots}
        assert len(answer.path) == locator.region.zooms + 1
        assert all(b.startswith(a) for a, b in zip(answer.path, answer.path[1:], strict=False))
        assert answer.radius50_m <= answer.radius90_m
        assert 0 < answer.probability <= 1
        assert answer.error_m is not None and answer.error_m < 1500
        assert set(answer.made_by) >= {"photo", "checkpoint", "imagery", "config"}


def test_a_batch_answers_as_each_photo_alone(run, photos):
    locator = Locator.load(run)
    together = answers_of(locator, photos)
    for photo, answer in zip(photos, together, strict=True):
        alone = answers_of(locator, [photo])[0]
        assert (alone.lat, alone.lng) == pytest.approx((answer.lat, answer.lng), abs=1e-6)
        assert alone.probability == pytest.approx(answer.probability, abs=1e-4)


def test_same_seed_same_report(painted, run, photos, tmp_path):
    config = load_explained(run / "checkpoint-best.safetensors").config
    train(config, tmp_path / "again")
    reports = []
    for folder in (run, tmp_path / "again"):
        locator = Locator.load(folder)
        pool = Pool("random training photo", tuple(p.place for p in photos))
        report, _ = evaluate(locator, photos, pool, folder, {"split": "sequence-disjoint"}, "ab")
        reports.append(
            {
                k: report[k]
                for k in (
                    "n",
                    "metrics",
                    "zoom_accuracy",
                    "chance",
                    "chance_constant",
                    "split_hash",
                )
            }
        )
    assert json.dumps(reports[0]) == json.dumps(reports[1])


def scorer_of(small_config, painted, region=None, step=2):
    views = open_views(painted, small_config)
    if region is not None:
        views = dataclasses.replace(
            views, region=region, coverage=Coverage.of(region, views.pyramid)
        )
    model = build_model(small_config, views.region).eval()
    torch.manual_seed(3)
    for parameter in model.parameters():  # a net that prefers something
        parameter.data += 0.3 * torch.randn_like(parameter)
    return ZoomScorer(model, views)


def pictures(count=3):
    pixels = np.random.default_rng(0).integers(0, 255, (count, 24, 48, 3), np.uint8)
    return [Shown(picture) for picture in pixels]


@pytest.mark.parametrize("step", [1, 2])
def test_k4_and_k16_and_several_roots_work(small_config, painted, step):
    """The same ground as several roots: a root choice comes first, all mass is shared out."""
    whole = open_views(painted, small_config).region
    roots = tuple(c for c in whole.roots[0].descendants(2))
    region = Region("four", roots[:8], whole.root_level + 2 + 2 * step, step)
    covered = open_views(painted, small_config).pyramid
    region = Region(
        "part",
        tuple(
            r for r in roots if covered.coverage(r.level, np.array([r.x]), np.array([r.y]))[0] > 0
        ),
        region.terminal_level,
        step,
    )
    assert len(region.roots) > 1
    scorer = scorer_of(small_config, painted, region)
    state = scorer.start(pictures())
    by_root = scorer.roots(state)
    assert by_root.shape == (3, len(region.roots))
    np.testing.assert_allclose(np.exp(by_root).sum(1), 1, atol=1e-9)
    children = scorer.children(state, np.arange(3), [region.roots[0]] * 3)
    assert children.shape == (3, 4**step)
    beam, full = (
        search(scorer, pictures(), scorer.views.coverage, SearchPlan(method=m, beam=4))
        for m in ("beam", "exhaustive")
    )
    for some, every in zip(beam, full, strict=True):
        assert some.mass.sum() == pytest.approx(1)
        assert every.mass.sum() == pytest.approx(1)
        best, mass = some.top(1)[0]
        assert dict(every.top(len(every.cells)))[best] == pytest.approx(mass, rel=1e-4)


def test_children_depend_on_the_photo_and_not_on_who_else_is_asked(small_config, painted):
    scorer = scorer_of(small_config, painted)
    region = scorer.views.region
    state = scorer.start(pictures())
    inner = [
        c for c in region.children(region.roots[0]) if scorer.views.coverage.children(c).any()
    ][:2]
    both = scorer.children(state, np.array([0, 1]), inner)
    for i, cell in enumerate(inner):
        np.testing.assert_allclose(
            scorer.children(state, np.array([i]), [cell])[0], both[i], atol=1e-5
        )
    other = scorer.children(state, np.array([2]), inner[:1])[0]
    assert not np.allclose(other[np.isfinite(other)], both[0][np.isfinite(both[0])])


@pytest.mark.parametrize("method", ["beam", "best-first", "exhaustive"])
@pytest.mark.parametrize("several_roots", [False, True])
def test_what_was_read_of_a_path_is_not_read_again_and_changes_nothing(
    small_config, painted, monkeypatch, method, several_roots
):
    """With room for keys and values, and with none: the same masses, and a part of the tokens."""
    region, plan = None, SearchPlan(method=method, beam=3, bound=0.01)
    if several_roots:
        whole = open_views(painted, small_config).region
        region = Region("parts", whole.roots[0].descendants(1), whole.terminal_level, 1)
        small_config = small_config.model_copy(
            update={"tiles": small_config.tiles.model_copy(update={"levels_per_zoom": 1})}
        )
    scorer = scorer_of(small_config, painted, region, step=1 if several_roots else 2)
    read: list[int] = []
    scorer.model.blocks[0].register_forward_pre_hook(
        lambda block, given: read.append(given[0].shape[0] * given[0].shape[1])
    )
    found = {}
    for room in (zooms.KEPT_BYTES, 0):
        read.clear()
        monkeypatch.setattr(zooms, "KEPT_BYTES", room)
        found[room] = search(scorer, pictures(), scorer.views.coverage, plan), sum(read)
    (kept, few), (anew, many) = found.values()
    for one, other in zip(kept, anew, strict=True):
        assert one.cells == other.cells
        np.testing.assert_allclose(one.mass, other.mass, rtol=1e-4)
    assert few < many


def test_each_view_is_encoded_once(small_config, painted, monkeypatch):
    scorer = scorer_of(small_config, painted)
    seen: list[int] = []
    encode = type(scorer.model).encode_views
    monkeypatch.setattr(
        type(scorer.model),
        "encode_views",
        lambda self, views: seen.append(len(views)) or encode(self, views),
    )
    for _ in range(2):
        search(scorer, pictures(8), scorer.views.coverage, SearchPlan(method="exhaustive"))
    region, coverage = scorer.views.region, scorer.views.coverage
    inner = sum(int(coverage.present(d).sum()) for d in range(region.zooms))
    assert sum(seen) == inner + 1  # and the square around the roots


def test_a_checkpoint_of_another_region_is_refused(run, painted, tmp_path):
    region = Region.load(painted / "region.json")
    finer = dataclasses.replace(region, terminal_level=region.terminal_level + 2)
    finer.save(tmp_path / "region.json")
    (tmp_path / "imagery.pmtiles").symlink_to(painted / "imagery.pmtiles")
    with pytest.raises(CheckpointError, match="trained on, 'painted'"):
        Locator.load(run, tmp_path)


def test_a_checkpoint_of_another_version_is_refused(run, tmp_path):
    for name in ("checkpoint-best.safetensors", "checkpoint-best.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    about = json.loads((tmp_path / "checkpoint-best.json").read_text())
    (tmp_path / "checkpoint-best.json").write_text(json.dumps(about | {"schema": "zoomloc/old/0"}))
    with pytest.raises(CheckpointError, match="schema"):
        Locator.load(tmp_path)
    about["config"]["model"]["width"] = 64
    (tmp_path / "checkpoint-best.json").write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match="another version"):
        Locator.load(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "json"])
def test_damaged_checkpoints_are_refused(run, tmp_path, damage):
    for name in ("checkpoint-best.safetensors", "checkpoint-best.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    weights = tmp_path / "checkpoint-best.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "json":
        weights.with_suffix(".json").write_text("{")
    else:
        weights.write_bytes(weights.read_bytes()[: 1000 if damage == "truncated" else 0])
    with pytest.raises(CheckpointError) as refusal:
        Locator.load(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        Locator.load(tmp_path / "nowhere")


def test_the_papers_answer_is_the_greedy_cells_centre(run, photos):
    locator = Locator.load(run)
    paper = locator.with_search(
        locator.search.model_copy(update={"method": "greedy", "answer": "cell"})
    )
    for answer in answers_of(paper, photos[:4]):
        cell = locator.region.path(type(photos[0].place)(answer.lat, answer.lng))[-1]
        assert (cell.center.lat, cell.center.lng) == pytest.approx((answer.lat, answer.lng))


def test_no_photos_is_an_error(run):
    with pytest.raises(PhotoError, match="no photos"):
        evaluate(Locator.load(run), [], Pool("x", ()), run, {}, "ab")
