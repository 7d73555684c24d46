"""Minutes long, for ``make soak``: what must survive being killed again and again."""

import random
import subprocess
import sys

import pytest
import torch

from zoomloc.checkpoint import load_tensors
from zoomloc.training.loop import train
from zoomloc.training.state import numbered_checkpoints

KILLS = 12


@pytest.mark.soak
def test_training_killed_many_times_ends_with_the_same_weights(small_config, tmp_path):
    plan = small_config.train.model_copy(update={"steps": 400, "val_every_steps": 20})
    config = small_config.model_copy(update={"train": plan})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    train(config, tmp_path / "whole")
    command = [sys.executable, "-m", "zoomloc", "train", str(tmp_path / "config.yaml"), "--run",
               str(tmp_path / "parts"), "--quiet"]  # fmt: skip
    rng = random.Random(0)
    killed = 0
    for _ in range(KILLS):
        process = subprocess.Popen(command)
        try:
            process.wait(rng.uniform(3.0, 6.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
    assert killed >= 3
    subprocess.run(command, check=True)
    whole, parts = (load_tensors(numbered_checkpoints(tmp_path / run)[-1])
                    for run in ("whole", "parts"))  # fmt: skip
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
