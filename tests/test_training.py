"""The loop: it learns, resumes to the same weights, repeats by seed, and refuses bad input."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from zoomloc.checkpoint import build_model, load_explained, load_tensors
from zoomloc.config import Config, load_config
from zoomloc.errors import ConfigError, PhotoError
from zoomloc.index import RegionViews
from zoomloc.locator import Locator, Query, open_views
from zoomloc.model.zoom import ZoomModel
from zoomloc.training.dataset import Ground, Order
from zoomloc.training.loop import numbered_checkpoints, schedule, train
from zoomloc.training.zooms import ZoomLearner, targets_of, zoom_batch
from zoomloc.world.photos import read_photos, write_photos


def with_changes(config: Config, *overrides: str) -> Config:
    tree = config.to_dict()
    for override in overrides:
        key, value = override.split("=", 1)
        section, name = key.split(".")
        tree[section][name] = json.loads(value)
    return Config.model_validate(tree)


def weights(run):
    return load_tensors(numbered_checkpoints(run)[-1])


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_same_seed_gives_the_same_weights_and_another_seed_does_not(small_config, tmp_path):
    train(small_config, tmp_path / "a")
    train(small_config, tmp_path / "b")
    train(with_changes(small_config, "train.seed=1"), tmp_path / "c")
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


class Stopped(Exception):
    pass


@pytest.mark.parametrize("rollout_share", ["0.0", "0.5"])
def test_resumed_equals_uninterrupted_to_the_bit(small_config, tmp_path, rollout_share):
    config = with_changes(small_config, f"train.rollout_share={rollout_share}", "model.dropout=0.1")
    train(config, tmp_path / "whole")

    def stop(progress):
        if progress.step == 8:  # two steps after the checkpoint of step 6
            raise Stopped

    with pytest.raises(Stopped):
        train(config, tmp_path / "parts", stop)
    summary = train(config, tmp_path / "parts")
    assert summary.resumed and summary.step == 12
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    logs = [(tmp_path / run / "metrics.jsonl").read_text() for run in ("whole", "parts")]
    rows = [[json.loads(line)["step"] for line in log.splitlines()] for log in logs]
    assert rows[0] == rows[1]


def test_a_step_of_several_batches_resumes_too_and_sees_more_photos(small_config, tmp_path):
    more = ["train.accumulate=2", "train.steps=4", "train.val_every_steps=2"]
    config = with_changes(small_config, *more, "train.rollout_share=0.5", "model.dropout=0.1")
    train(config, tmp_path / "whole")

    def stop(progress):
        if progress.step == 3:
            raise Stopped

    with pytest.raises(Stopped):
        train(config, tmp_path / "parts", stop)
    train(config, tmp_path / "parts")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    last = load_explained(numbered_checkpoints(tmp_path / "whole")[-1])
    assert last.photos_seen == 4 * 2 * 16


def test_several_batches_have_the_gradient_of_one_large_one(small_config, tmp_path):
    """All 480 photos at once, or in two halves; the first moments are the gradient's tenth."""
    changes = ["train.steps=1", "train.clip=1e9", 'train.targets="hard"', 'model.norm="group"']
    off = {f"photo_{name}": 0.0 for name in ("colour", "shift", "scale", "erase")}
    changes += ['train.precision="fp32"', "model.place_dropout=0.0"]
    changes += [f"train.augment={json.dumps(off | {'view_colour': 0})}"]
    moments = []
    for batch, count in ((480, 1), (240, 2)):
        config = with_changes(
            small_config, *changes, f"train.batch={batch}", f"train.accumulate={count}"
        )
        train(config, tmp_path / str(count))
        found = weights(tmp_path / str(count))
        moments.append({k: v for k, v in found.items() if k.endswith("exp_avg")})
    assert moments[0] and moments[0].keys() == moments[1].keys()
    for name, whole in moments[0].items():
        torch.testing.assert_close(moments[1][name], whole, atol=2e-5, rtol=1e-2)


def test_the_best_checkpoint_is_chosen_by_the_recall_that_is_asked_for(small_config, tmp_path):
    config = with_changes(small_config, 'train.select_by="r_at_100m"', "train.val_every_steps=3")
    summary = train(config, tmp_path)
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    looks = [row for row in log if "val" in row]
    best = max(looks, key=lambda row: (row["val"]["r_at_100m"]["value"], row["step"]))
    kept = load_explained(tmp_path / "checkpoint-best.safetensors")
    assert kept.step == best["step"]
    assert summary.val_r50 == best["val"]["r_at_50m"]["value"]
    state = load_explained(numbered_checkpoints(tmp_path)[-1]).metrics
    assert state["best"] == best["val"]["r_at_100m"]["value"]


def test_what_only_a_graphics_card_can_do_is_refused_without_one(small_config, tmp_path):
    with pytest.raises(ConfigError, match="fp16: needs a graphics card"):
        train(with_changes(small_config, 'train.device="cpu"', 'train.precision="fp16"'), tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="finds no graphics card"):
            train(with_changes(small_config, 'train.device="cuda"'), tmp_path)


def test_the_first_view_can_be_left_as_it_is(small_config, painted):
    class Watched(ZoomModel):
        def encode_views(self, views):
            self.seen = views.detach().clone()
            return super().encode_views(views)

    views = open_views(painted, small_config)
    ground = Ground(read_photos(painted / "photos.parquet", "train"), views, (48, 24))
    for plain in (False, True):
        tree = small_config.train.augment.model_dump() | {"first_view_plain": plain}
        config = with_changes(small_config, f"train.augment={json.dumps(tree)}")
        model = Watched(build_model(config, views.region).spec)
        learner = ZoomLearner(config, model, [ground])
        batch = learner.batch(0)
        learner.loss(batch)
        changed = (model.seen - batch.views / 255).abs().amax((1, 2, 3)) > 1e-6
        assert (batch.view[:, 0] == 0).all()  # the view that all photos share
        assert bool(changed[0]) != plain
        assert changed[1:].all()


def test_a_finished_run_is_not_trained_again(small_config, tmp_path):
    train(small_config, tmp_path)
    before = weights(tmp_path)
    summary = train(small_config, tmp_path)
    assert summary.skipped
    assert same(before, weights(tmp_path))


def test_another_config_on_the_same_run_is_refused_and_changes_nothing(small_config, tmp_path):
    train(small_config, tmp_path)
    before = (tmp_path / "config.yaml").read_bytes()
    with pytest.raises(ConfigError, match="another config"):
        train(with_changes(small_config, "train.lr=0.5"), tmp_path)
    assert (tmp_path / "config.yaml").read_bytes() == before


def test_other_data_on_the_same_run_is_refused(small_config, tmp_path, painted):
    shutil.copytree(painted, tmp_path / "data")
    config = small_config.model_copy(update={"data": tmp_path / "data"})
    train(config, tmp_path / "run")
    table = tmp_path / "data" / "photos.parquet"
    photos = read_photos(table)
    write_photos(
        [dataclasses.replace(p, split="train") if p.split == "test" else p for p in photos], table
    )
    with pytest.raises(ConfigError, match="another split"):
        train(config, tmp_path / "run")


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(small_config, tmp_path):
    train(small_config, tmp_path)
    newest = numbered_checkpoints(tmp_path)[-1]
    whole = load_tensors(newest)
    newest.write_bytes(newest.read_bytes()[:100])
    summary = train(small_config, tmp_path)
    assert summary.resumed and summary.step == 12
    assert same(load_tensors(newest), whole)


@pytest.mark.parametrize(
    "overrides",
    [
        [
            "model.shared_encoder=true",
            'model.norm="group"',
            'model.pooling="mean"',
            'train.targets="hard"',
            "train.label_smoothing=0.1",
            "model.place=false",
            "model.level_embedding=false",
            'model.head="linear"',
            "model.dropout=0.1",
        ],
        ['model.head="pointer"', "model.view_margin=0.5"],
    ],
)
def test_other_models_of_the_same_code_train_save_and_answer(
    small_config, tmp_path, painted, overrides
):
    train(with_changes(small_config, *overrides), tmp_path)
    photos = read_photos(painted / "photos.parquet", "test")[:3]
    answers = list(Locator.load(tmp_path).answers([Query.of(p) for p in photos]))
    assert len(answers) == 3 and all(np.isfinite(a.error_m) for a in answers)


def test_it_learns_where_photos_are(small_config, tmp_path, painted):
    """On photos of a drive it never saw, far above what a random photo's place would reach."""
    # these photos are maps, not views: to shift or magnify one is to move it
    still = {f"photo_{name}": 0.0 for name in ("colour", "shift", "scale", "erase")}
    still["view_colour"] = 0.0
    config = with_changes(
        small_config,
        "train.steps=400",
        "train.val_every_steps=400",
        'model.pooling="mean"',
        f"train.augment={json.dumps(still)}",
    )
    train(config, tmp_path)
    photos = read_photos(painted / "photos.parquet", "test")
    locator = Locator.load(tmp_path)
    errors = [a.error_m for a in locator.answers([Query.of(p) for p in photos])]
    assert np.median(errors) < 60  # the best constant answer is 103 m off


def test_only_the_last_few_checkpoints_are_kept(small_config, tmp_path):
    train(with_changes(small_config, "train.val_every_steps=2"), tmp_path)
    kept = sorted(p.name for p in tmp_path.glob("checkpoint-*.safetensors"))
    assert kept == [
        "checkpoint-00000010.safetensors",
        "checkpoint-00000012.safetensors",
        "checkpoint-best.safetensors",
    ]


def test_a_killed_process_resumes(small_config, tmp_path):
    config = with_changes(small_config, "train.steps=4000", "train.val_every_steps=5")
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    run = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "zoomloc",
        "train",
        str(tmp_path / "config.yaml"),
        "--run",
        str(run),
        "--quiet",
    ]
    process = subprocess.Popen(command)
    try:
        for _ in range(600):
            if numbered_checkpoints(run):
                break
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert numbered_checkpoints(run)
    reached: list[int] = []

    def stop(progress):
        reached.append(progress.step)
        raise Stopped

    with pytest.raises(Stopped):
        train(config, run, stop)
    assert reached[0] > 5


def test_each_distinct_view_is_in_a_batch_once(small_config, painted):
    views = open_views(painted, small_config)
    photos = read_photos(painted / "photos.parquet", "train")
    ground = Ground(photos, views, small_config.model.photo_px)
    indices = np.arange(16)
    targets = targets_of(ground, indices, small_config.train)
    paths = [views.region.path(p.place) for p in ground.photos[:16]]
    batch = zoom_batch(ground, indices, targets, paths, small_config.train)
    flat = batch.views.reshape(len(batch.views), -1)
    assert len(torch.unique(flat, dim=0)) == len(flat)
    assert batch.view.max() + 1 == len(batch.views)
    assert batch.view.shape == batch.choice.shape == batch.place.shape[:2]
    torch.testing.assert_close(batch.target.sum(-1), torch.ones(batch.target.shape[:2]))
    assert (batch.target[~batch.present] == 0).all()


def test_an_epoch_sees_every_photo_once_and_epochs_differ():
    order = Order((48, 35), batch=16, seed=3)
    first = [order.at(step) for step in range(5)]  # 3 batches of one region, 2 of the other
    for ground, count in ((0, 48), (1, 32)):
        seen = np.concatenate([indices for number, indices in first if number == ground])
        assert len(seen) == len(set(seen.tolist())) == count
    assert first[0][1].tolist() != order.at(5)[1].tolist()
    assert [o.tolist() for _, o in first] == [
        Order((48, 35), 16, 3).at(s)[1].tolist() for s in range(5)
    ]


def test_photos_of_another_place_are_refused(small_config, painted):
    views = open_views(painted, small_config)
    photos = [
        p.__class__(**{**p.__dict__, "lat": p.lat + 1})
        for p in read_photos(painted / "photos.parquet", "train")
    ]
    with pytest.raises(PhotoError, match="none of 480 training photos"):
        Ground(photos, views, (48, 24))


def test_a_loss_that_is_no_number_says_so(small_config, tmp_path, monkeypatch):
    monkeypatch.setattr(
        ZoomLearner,
        "loss",
        lambda learner, _: sum(p.sum() for p in learner.model.parameters()) * torch.nan,
    )
    with pytest.raises(ConfigError, match="lower train.lr"):
        train(small_config, tmp_path)


def test_the_schedule_warms_up_and_falls_to_its_floor():
    plan = load_config([], ["train.warmup=0.1", "train.lr_floor=0.02"]).train
    assert schedule(0.05, plan) == pytest.approx(0.5)
    assert schedule(0.1, plan) == pytest.approx(1.0)
    assert schedule(1.0, plan) == pytest.approx(0.02)
    values = [schedule(s, plan) for s in np.linspace(0.1, 1, 20)]
    assert values == sorted(values, reverse=True)


def test_root_choices_and_places(painted, small_config):
    views = open_views(painted, small_config)
    assert isinstance(views, RegionViews)
    region = views.region
    for root in region.roots:
        x, y, side = views.place(root)
        assert side == pytest.approx(1 / max(region.root_shape))
        assert 0 <= x <= 1 - side and 0 <= y <= 1 - side
        child = region.children(root)[5]  # second row, second column
        assert views.place(child) == pytest.approx((x + side / 4, y + side / 4, side / 4))
