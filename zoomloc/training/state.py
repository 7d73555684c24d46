"""The state of a training run: what is saved, kept and taken up again.

Knows nothing of the loop, of batches or of what the weights are good for.
"""

import copy
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoomloc.checkpoint import (
    NO_ENCODERS,
    Encoders,
    Explained,
    build_model,
    load_explained,
    load_tensors,
    load_weights,
    weights_of,
)
from zoomloc.config import Config, TrainConfig
from zoomloc.errors import CheckpointError, ConfigError
from zoomloc.model.encoders import pretrained_layers
from zoomloc.model.precision import device_of, number_format
from zoomloc.training.muon import Muon, is_matrix
from zoomloc.world.region import Region


@dataclass
class TrainState:
    """Everything that a resumed run needs.

    ``averaged`` is the network with the moving average of the trained weights; what is frozen
    it shares with ``model``.
    """

    model: nn.Module
    averaged: nn.Module
    optimizer: Muon
    scaler: torch.amp.GradScaler  # of the loss, for fp16; not saved, it finds its scale again
    step: int = 0
    photos_seen: int = 0
    seconds: float = 0.0
    best: float = -1.0  # by train.select_by
    best_r50: float = -1.0  # the recall within 50 m that goes with it
    finished: bool = False
    log: list[dict[str, Any]] = field(default_factory=list)
    memory: dict[str, Tensor] = field(default_factory=dict)  # of the learner
    learned: tuple[tuple[str, str], ...] = ()  # before this run: see Explained

    @cached_property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that change."""
        return [p for p in self.model.parameters() if p.requires_grad]

    @cached_property
    def _averages(self) -> tuple[list[Tensor], list[Tensor]]:
        """What is averaged, and of what; both are only ever changed in place."""
        old, new = changing(self.averaged), changing(self.model)
        floats = [name for name, value in new.items() if value.is_floating_point()]
        return [old[name] for name in floats], [new[name] for name in floats]

    def average(self, decay: float) -> None:
        """Take the weights as they are into their moving average, quick to start."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(*self._averages, 1 - decay)

    def tensors(self) -> dict[str, Tensor]:
        """Weights, their average and the optimiser's moments under one flat naming."""
        named = {f"model.{k}": v for k, v in weights_of(self.model).items()}
        named |= {f"ema.{k}": v for k, v in changing(self.averaged).items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            named |= {f"optim.{index}.{k}": v for k, v in moments.items()}
        return named | {f"memory.{k}": v for k, v in self.memory.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take over what ``tensors`` gave."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        load_weights(self.model, part("model."))
        averages, self.memory = part("ema."), part("memory.")
        for name, value in changing(self.averaged).items():
            value.copy_(averages[name])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in part("optim.").items():
            index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})


def changing(model: nn.Module) -> dict[str, Tensor]:
    """What training changes of a network's state: trained parameters and buffers, once each."""
    kept = weights_of(model)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    return {name: value for name, value in kept.items() if name not in frozen}


def fresh_state(config: Config, region: Region, encoders: Encoders = NO_ENCODERS) -> TrainState:
    """Step 0 of a run: seeded weights, on the device that the config names.

    ``encoders``: what a resumed run knows of its pretrained encoders. Raises ConfigError.
    """
    train = config.train
    device = device_of(train.device)
    model = build_model(config, region, encoders).to(device)
    frozen = {id(p): p for p in model.parameters() if not p.requires_grad}
    averaged = copy.deepcopy(model, frozen)  # the memo: these are not copied
    groups = parameter_groups(model, train)
    optimizer = Muon(groups, lr=train.lr, betas=train.betas, fused=True)
    halves = number_format(train.precision, device) == torch.float16
    return TrainState(
        model, averaged.eval(), optimizer, torch.amp.GradScaler(device.type, enabled=halves)
    )


def parameter_groups(model: nn.Module, train: TrainConfig) -> list[dict[str, Any]]:
    """Trained parameters by their ``rate``, a share of the learning rate, their decay and kind.

    Pretrained layers get ``backbone_lr``, times ``layer_decay`` for each layer above them, and
    AdamW's steps whatever the optimizer.
    """
    rates: dict[int, float] = {}
    sides = (model.photo_encoder, getattr(model, "view_encoder", None))
    for encoder in (*sides, *getattr(model, "further_encoders", ())):
        for above, layer in enumerate(reversed(pretrained_layers(encoder))):
            rate = train.backbone_lr * train.layer_decay**above
            rates |= {id(p): rate for p in layer}
    matrices = {
        id(p)
        for module in model.modules()
        for p in module.parameters(recurse=False)
        if train.optimizer == "muon" and id(p) not in rates and is_matrix(module, p)
    }
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    trained = [p for p in model.parameters() if p.requires_grad]
    for decays in (True, False):
        for p in trained:
            if (p.ndim >= 2 or train.decay_vectors) == decays:
                kind = rates.get(id(p), 1.0), decays, id(p) in matrices
                groups.setdefault(kind, []).append(p)
    return [
        {
            "params": params,
            "rate": rate,
            "weight_decay": train.weight_decay if decays else 0.0,
            "matrices": of_matrices,
        }
        for (rate, decays, of_matrices), params in groups.items()
    ]


def known_encoders(run: Path, config: Config, imagery: str, split: str) -> Encoders:
    """What a begun run says of its pretrained encoders, so that no hub is asked.

    Raises ConfigError where the run was started with another config or other data.
    """
    saved = numbered_checkpoints(run)
    if not saved:
        return NO_ENCODERS
    explained = load_explained(saved[-1])
    if explained.config.model_dump() != config.model_dump():
        raise _started_otherwise(run, "another config")
    if (explained.imagery_hash, explained.split_hash) != (imagery, split):
        raise _started_otherwise(run, "other imagery or another split")
    return explained.encoders


def resume(run: Path, state: TrainState) -> bool:
    """Take up the newest whole state of a run, if there is one that can be read.

    Raises CheckpointError where none of several can be read.
    """
    for saved in reversed(numbered_checkpoints(run)):
        try:
            state.restore(load_tensors(saved))
        except (RuntimeError, KeyError, CheckpointError):
            continue  # damaged: the one before it is as good, a little older
        _take_over(run, state, load_explained(saved))
        return True
    if numbered_checkpoints(run):
        raise CheckpointError(
            f"run {run}: none of its checkpoints can be read; remove {run} and train again"
        )
    return False


def _started_otherwise(run: Path, what: str) -> ConfigError:
    return ConfigError(
        f"run {run}: was started with {what}; give another --run, or remove {run} to start again"
    )


def _take_over(run: Path, state: TrainState, explained: Explained) -> None:
    """Step, time, best figure and log of a saved state."""
    state.step, state.seconds = explained.step, explained.seconds
    state.photos_seen, state.learned = explained.photos_seen, explained.learned
    state.best = float(explained.metrics["best"])
    state.best_r50 = float(explained.metrics.get("best_r_at_50m", state.best))
    state.finished = bool(explained.metrics["finished"])
    log = run / "metrics.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    state.log = [row for row in rows if row["step"] <= state.step]


def numbered_checkpoints(run: Path) -> list[Path]:
    """Whole states of a run, oldest first; only those whose JSON is there."""
    found = run.glob("checkpoint-[0-9]*.safetensors")
    return sorted(p for p in found if p.with_suffix(".json").is_file())
