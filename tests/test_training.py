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

from zoomloc.checkpoint import load_tensors
from zoomloc.config import AugmentConfig, Config, TrainConfig, load_config
from zoomloc.errors import ConfigError, PhotoError
from zoomloc.index import RegionViews
from zoomloc.locator import Locator, Query, open_views
from zoomloc.training import loop as loop_module
from zoomloc.training.dataset import ExampleMaker
from zoomloc.training.loop import numbered_checkpoints, schedule, train
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
    still = {name: 0.0 for name in AugmentConfig.model_fields}
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
    maker = ExampleMaker(photos, views, small_config.train, small_config.model.photo_px)
    indices = maker.indices(0)
    targets = maker.targets(indices)
    batch = maker.batch(indices, targets, maker.paths(0, targets))
    flat = batch.views.reshape(len(batch.views), -1)
    assert len(torch.unique(flat, dim=0)) == len(flat)
    assert batch.view.max() + 1 == len(batch.views)
    assert batch.view.shape == batch.choice.shape == batch.place.shape[:2]
    torch.testing.assert_close(batch.target.sum(-1), torch.ones(batch.target.shape[:2]))
    assert (batch.target[~batch.present] == 0).all()


def test_an_epoch_sees_every_photo_once_and_epochs_differ(small_config, painted):
    views = open_views(painted, small_config)
    photos = read_photos(painted / "photos.parquet", "train")
    maker = ExampleMaker(photos, views, small_config.train, small_config.model.photo_px)
    per_epoch = len(photos) // 16
    first = [maker.indices(s) for s in range(per_epoch)]
    assert len(set(np.concatenate(first).tolist())) == per_epoch * 16
    assert not np.array_equal(first[0], maker.indices(per_epoch))


def test_photos_of_another_place_are_refused(small_config, painted):
    views = open_views(painted, small_config)
    photos = [
        p.__class__(**{**p.__dict__, "lat": p.lat + 1})
        for p in read_photos(painted / "photos.parquet", "train")
    ]
    with pytest.raises(PhotoError, match="none of 480 training photos"):
        ExampleMaker(photos, views, TrainConfig(), (48, 24))


def test_a_loss_that_is_no_number_says_so(small_config, tmp_path, monkeypatch):
    monkeypatch.setattr(
        loop_module,
        "forward_loss",
        lambda model, *_: sum(p.sum() for p in model.parameters()) * torch.nan,
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
