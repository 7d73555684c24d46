"""Runs that begin with another run's weights: taken over, refused where they mean other things."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from zoomloc.checkpoint import (
    best_checkpoint,
    build_model,
    load_explained,
    load_tensors,
    weights_of,
    write_explained,
)
from zoomloc.config import GENERAL, Config, load_config
from zoomloc.errors import CheckpointError, ConfigError
from zoomloc.locator import open_views
from zoomloc.training.loop import numbered_checkpoints, train
from zoomloc.training.start import begin
from zoomloc.training.state import fresh_state
from zoomloc.world.photos import read_photos, write_photos


def config_of(painted, *overrides: str, model: str = "models/zoomloc") -> Config:
    own = [f"data={painted}", "train.steps=2", "train.val_every_steps=2", "train.val_photos=4"]
    own += ["model.residual.towers_share=0", "model.residual.zoom=false", "train.batch=8"]
    own += ["model.match.window_m=300", "search.method=exhaustive", "train.start_from=general"]
    return load_config([model], [*own, *overrides])


def begun(config: Config):
    state = fresh_state(config, open_views(config.data, config).region)
    begin(state, config, [("imagery", "split")])
    return state


def test_a_run_begins_with_the_weights_of_the_general_model_and_its_average_too(painted):
    theirs = load_tensors(GENERAL / "checkpoint-best.safetensors")
    state = begun(config_of(painted))
    for network in (state.model, state.averaged):
        own = {key.removeprefix("match."): value for key, value in weights_of(network).items()}
        assert own.keys() == theirs.keys()
        assert all(torch.equal(own[key], theirs[key].to(own[key].dtype)) for key in own)


def test_what_stands_on_the_match_begins_as_it_would_have(painted):
    config = config_of(painted, "model.residual.zoom=true")
    state = begun(config)
    fresh = weights_of(build_model(config, open_views(painted, config).region))
    own = weights_of(state.model)
    differ = {key.split(".")[0] for key in own if not torch.equal(own[key], fresh[key])}
    assert differ == {"match"} and any(key.startswith("zoom.") for key in own)


def test_a_run_goes_on_without_the_one_that_it_began_with(painted, small_config, tmp_path):
    first = tmp_path / "first"
    train(small_config, first)
    config = small_config.to_dict() | {"name": "second"}
    config["train"] |= {"start_from": str(first), "steps": 6, "val_every_steps": 3}
    config = Config.model_validate(config)
    train(config, tmp_path / "whole")
    train(config, tmp_path / "again")
    for path in numbered_checkpoints(tmp_path / "again")[-1:]:
        data = json.loads(path.with_suffix(".json").read_text())
        data["metrics"]["finished"] = False
        path.with_suffix(".json").write_text(json.dumps(data))
    shutil.rmtree(first)
    assert train(config, tmp_path / "again").resumed
    with pytest.raises(CheckpointError, match="no such folder"):
        train(config, tmp_path / "other")


def test_weights_of_another_meaning_are_refused_though_they_fit(small_config, tmp_path):
    train(small_config, tmp_path)
    for key, value in (("heads", 4), ("norm", "group"), ("shared_encoder", True)):
        tree = small_config.to_dict()
        tree["train"]["start_from"] = str(tmp_path)
        assert tree["model"][key] != value
        tree["model"][key] = value
        config = Config.model_validate(tree)
        with pytest.raises(ConfigError, match=f"model.{key} .*, here {value}"):
            begun(config)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["model.match.gsd_m=1.0"], r"match.gsd_m 2\.0, here 1\.0"),
        (["model.match.channels=8"], "channels 16, here 8"),
        (["model.photo_encoder.channels=[16,64,128]"], r"photo_encoder.* here \("),
        (["model.match.slices=32", "model.match.fan=9"], "slices 16, here 32"),
    ],
)
def test_a_run_of_another_network_is_refused(painted, changes, says):
    with pytest.raises(ConfigError, match=says):
        begun(config_of(painted, *changes))


def test_a_model_of_another_kind_is_refused(painted):
    with pytest.raises(ConfigError, match="kind .*, here zoom.; train models/match"):
        begun(config_of(painted, model="models/justzoomin"))


def test_a_run_that_saw_photos_of_another_split_is_refused(small_config, tmp_path):
    """It may have learned from what is to be tested on."""
    train(small_config, tmp_path)
    about = load_explained(best_checkpoint(tmp_path))
    ((imagery, split),) = about.learned
    tree = small_config.to_dict()
    tree["train"]["start_from"] = str(tmp_path)
    config = Config.model_validate(tree)
    region = open_views(config.data, config).region

    def begins(*pairs):
        state = fresh_state(config, region)
        begin(state, config, pairs)
        return state.learned

    assert begins((imagery, split)) == begins(("another town", "another split")) == about.learned
    for pairs in ([(imagery, "another split")], [("b", "c"), (imagery, "another split")]):
        with pytest.raises(ConfigError, match="other photos of this very region"):
            begins(*pairs)


def test_what_was_learned_from_is_handed_on(small_config, painted, tmp_path):
    """Town 1, then town 2, then town 1 with another split: the photos of before are known."""
    other = tmp_path / "other"
    shutil.copytree(painted, other)
    table = other / "photos.parquet"
    photos = read_photos(table)
    swap = {"val": "test", "test": "val", "train": "train"}
    write_photos([replace(p, split=swap[p.split]) for p in photos], table, "sequence-disjoint")
    folders, tree = [], small_config.to_dict()
    for data, name in ((other, "first"), (painted, "second")):
        folders.append(tmp_path / name)
        tree |= {"data": str(data), "regions": []}
        train(Config.model_validate(tree), folders[-1])
        learned = load_explained(best_checkpoint(folders[-1])).learned
        tree["train"]["start_from"] = str(folders[-1])
        if name == "second":
            break
        with pytest.raises(ConfigError, match="other photos of this very region"):
            train(Config.model_validate(tree | {"data": str(painted)}), tmp_path / "refused")
        # as if that had been another town
        path = best_checkpoint(folders[-1])
        about = load_explained(path)
        write_explained(path, replace(about, learned=(("elsewhere", "s"),)))
    assert len(learned) == 2 and learned[0] == ("elsewhere", "s")


def test_from_is_a_flag_and_what_is_not_there_is_told_in_one_line(painted, tmp_path):
    command = [sys.executable, "-m", "zoomloc", "train", str(painted), "--run"]
    done = subprocess.run(
        [*command, str(tmp_path / "run"), "--from", "nowhere"],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "run nowhere: no such folder" in done.stderr
    assert not np.any([path.name.startswith("checkpoint") for path in Path(tmp_path).rglob("*")])


def test_a_checkpoint_of_before_learned_from_its_own_region(small_config, tmp_path):
    train(small_config, tmp_path)
    path = best_checkpoint(tmp_path)
    about = load_explained(path)
    beside = path.with_suffix(".json")
    data = json.loads(beside.read_text())
    del data["learned"]
    beside.write_text(json.dumps(data))
    assert load_explained(path).learned == about.learned != ()
