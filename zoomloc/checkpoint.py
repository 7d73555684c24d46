"""Weights in safetensors, and beside them the JSON that explains them.

A checkpoint says by itself what it is: config, region, imagery, split and metrics. Knows
nothing of searching or training; optimiser state is just more tensors to it.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from zoomloc.config import Config, ModelConfig, parse_config
from zoomloc.errors import CheckpointError, ConfigError, RegionError
from zoomloc.model.zoom import ZoomModel, ZoomSpec
from zoomloc.world.files import read_json, write_json, written_whole
from zoomloc.world.region import Region

SCHEMA = "zoomloc/checkpoint/1"


@dataclass(frozen=True)
class Explained:
    """What stands beside the weights."""

    config: Config
    region: Region
    step: int
    seconds: float
    photos_seen: int
    imagery_hash: str
    split_hash: str
    metrics: dict[str, Any] = field(default_factory=dict)
    attribution: tuple[str, ...] = ()
    licence: str = ""


def spec_of(model: ModelConfig, branching: int) -> ZoomSpec:
    """The network that a config describes, for K = ``branching``."""
    same = model.model_dump(exclude={"photo_encoder", "view_encoder"})
    return ZoomSpec(
        branching=branching,
        photo_encoder=model.photo_encoder.name,
        photo_channels=model.photo_encoder.channels,
        view_encoder=model.view_encoder.name,
        view_channels=model.view_encoder.channels,
        **same,
    )


def build_model(config: Config, region: Region) -> ZoomModel:
    """A fresh network for a region, seeded by ``train.seed``."""
    torch.manual_seed(config.train.seed)
    return ZoomModel(spec_of(config.model, region.branching))


def save_checkpoint(path: Path, tensors: dict[str, Tensor], explained: Explained) -> None:
    """Write ``path`` (.safetensors) and the JSON of the same name, each atomically.

    The JSON goes last: a new checkpoint counts from the moment that both are there.
    """
    with written_whole(path) as temporary:
        # a shared encoder has two names for one tensor; bytes go through our own file, so that
        # a full disk is told as one
        apart = {
            k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()
        }
        temporary.write_bytes(save(apart))
    write_json(
        path.with_suffix(".json"),
        {
            "schema": SCHEMA,
            "config": explained.config.to_dict(),
            "region": explained.region.to_json(),
            "step": explained.step,
            "seconds": explained.seconds,
            "photos_seen": explained.photos_seen,
            "imagery_hash": explained.imagery_hash,
            "split_hash": explained.split_hash,
            "metrics": explained.metrics,
            "attribution": list(explained.attribution),
            "licence": explained.licence,
        },
    )


def load_explained(path: Path) -> Explained:
    """The JSON beside the weights. Raises CheckpointError."""
    data = read_json(path.with_suffix(".json"), SCHEMA, CheckpointError)
    try:
        return Explained(
            config=parse_config(data["config"], f"{path.with_suffix('.json')}"),
            region=Region.from_json(data["region"]),
            step=int(data["step"]),
            seconds=float(data["seconds"]),
            photos_seen=int(data["photos_seen"]),
            imagery_hash=str(data["imagery_hash"]),
            split_hash=str(data["split_hash"]),
            metrics=dict(data["metrics"]),
            attribution=tuple(data["attribution"]),
            licence=str(data["licence"]),
        )
    except (KeyError, TypeError, ValueError, ConfigError, RegionError) as error:
        raise CheckpointError(
            f"{path.with_suffix('.json')}: made by another version "
            f"({error}); train again or use that version"
        ) from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint. Raises CheckpointError where they cannot be read."""
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such checkpoint; train with 'zoomloc train' or give another --run"
        )
    try:
        # copies: load_file maps the file, and a file that shrinks under a map ends the process
        return {name: tensor.clone() for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: damaged ({error}); use another checkpoint or train again"
        ) from error


def load_model(path: Path, explained: Explained) -> ZoomModel:
    """The network with its weights, ready to answer. Raises CheckpointError."""
    model = ZoomModel(spec_of(explained.config.model, explained.region.branching))
    try:
        model.load_state_dict(load_tensors(path))
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise CheckpointError(
            f"{path}: weights of another version ({first}); train again"
        ) from error
    return model.eval()


def best_checkpoint(run: Path) -> Path:
    """The weights that a run answers with. Raises CheckpointError where there are none."""
    path = run / "checkpoint-best.safetensors"
    if not run.is_dir():
        raise CheckpointError(
            f"run {run}: no such folder; train with 'zoomloc train CONFIG --run {run}'"
        )
    if not path.is_file() or not path.with_suffix(".json").is_file():
        raise CheckpointError(
            f"run {run}: holds no finished checkpoint-best; let 'zoomloc "
            "train' come to its first validation"
        )
    return path
