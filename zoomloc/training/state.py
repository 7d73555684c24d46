"""The state of a training run: what is saved, kept and taken up again.

Knows nothing of the loop, of batches or of what the weights are good for.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoomloc.checkpoint import Explained, build_model, load_explained, load_tensors
from zoomloc.config import Config
from zoomloc.errors import CheckpointError, ConfigError
from zoomloc.model.zoom import ZoomModel
from zoomloc.world.region import Region


@dataclass
class TrainState:
    """Everything that a resumed run needs."""

    model: ZoomModel
    optimizer: torch.optim.AdamW
    ema: dict[str, Tensor]
    step: int = 0
    seconds: float = 0.0
    best: float = -1.0
    finished: bool = False
    log: list[dict[str, Any]] = field(default_factory=list)

    def tensors(self) -> dict[str, Tensor]:
        """Weights, their average and the optimiser's moments under one flat naming."""
        named = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        named |= {f"ema.{k}": v for k, v in self.ema.items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            named |= {f"optim.{index}.{k}": v for k, v in moments.items()}
        return named

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take over what ``tensors`` gave."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        self.ema = part("ema.")
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in part("optim.").items():
            index, key = name.split(".")
            moments.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})


def fresh_state(config: Config, region: Region) -> TrainState:
    """Step 0 of a run: seeded weights, no decay on vectors (norms and biases)."""
    model = build_model(config, region)
    plain = [p for p in model.parameters() if p.ndim < 2]
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": config.train.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=config.train.lr,
        betas=(0.9, 0.98),
        fused=True,
    )
    ema = {k: v.detach().clone() for k, v in model.state_dict().items()}
    return TrainState(model, optimizer, ema)


def resume(run: Path, config: Config, state: TrainState, imagery: str, split: str) -> bool:
    """Take up the newest whole state of a run, if there is one that can be read.

    Raises ConfigError where the run was started with another config or other data.
    """
    for saved in reversed(numbered_checkpoints(run)):
        explained = load_explained(saved)
        if explained.config.model_dump() != config.model_dump():
            raise _started_otherwise(run, "another config")
        if (explained.imagery_hash, explained.split_hash) != (imagery, split):
            raise _started_otherwise(run, "other imagery or another split")
        try:
            state.restore(load_tensors(saved))
        except (RuntimeError, KeyError, CheckpointError):
            continue  # damaged: the one before it is as good, a little older
        _take_over(run, state, explained)
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
    state.best = float(explained.metrics["best"])
    state.finished = bool(explained.metrics["finished"])
    log = run / "metrics.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    state.log = [row for row in rows if row["step"] <= state.step]


def numbered_checkpoints(run: Path) -> list[Path]:
    """Whole states of a run, oldest first; only those whose JSON is there."""
    found = run.glob("checkpoint-[0-9]*.safetensors")
    return sorted(p for p in found if p.with_suffix(".json").is_file())
