"""Weights in safetensors, and beside them the JSON that explains them.

A checkpoint says by itself what it is: config, region, imagery, split and metrics, and what
pretrained encoders are built like, so that it needs neither the hub nor their folder. Knows
nothing of searching or training; optimiser state is just more tensors to it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from zoomloc.belief.calibration import Calibration
from zoomloc.config import Config, EncoderConfig, ModelConfig, parse_config
from zoomloc.errors import CheckpointError, ConfigError, RegionError
from zoomloc.model.encoders import EncoderSpec, architecture_of
from zoomloc.model.match import MatchModel, MatchSpec
from zoomloc.model.precision import device_of
from zoomloc.model.residual import ResidualZoom
from zoomloc.model.towers import Towers, TowersSpec
from zoomloc.model.zoom import ZoomModel, ZoomSpec
from zoomloc.world.files import read_json, write_json, written_whole
from zoomloc.world.region import Region

SCHEMA = "zoomloc/checkpoint/1"
Encoders = Mapping[str, dict[str, Any]]  # "photo" and "view": architecture_of each
NO_ENCODERS: Encoders = {}


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
    encoders: dict[str, dict[str, Any]] = field(default_factory=dict)  # encoders_of the network
    calibration: Calibration | None = None  # None: its probabilities are as the network gives them
    # hashes (imagery, split) of each region learned from, by the weights it began with as well
    learned: tuple[tuple[str, str], ...] = ()


Network = ZoomModel | Towers | MatchModel | ResidualZoom


def encoders_of(model: Any) -> dict[str, dict[str, Any]]:
    """What its encoders are built like; empty for small ones."""
    sides = ("photo", "view")
    return {side: architecture_of(getattr(model, f"{side}_encoder", None)) for side in sides}


def encoder_specs(model: ModelConfig, encoders: Encoders) -> tuple[EncoderSpec, EncoderSpec]:
    """Photo and view encoder of a config; those known from ``encoders`` need no source."""

    def one(side: str, config: EncoderConfig) -> EncoderSpec:
        known = json.dumps(encoders[side], sort_keys=True) if encoders.get(side) else ""
        is_class = model.pooling == "class"
        return EncoderSpec(
            norm=model.norm, class_token=is_class, architecture=known, **config.model_dump()
        )

    return one("photo", model.photo_encoder), one("view", model.view_encoder)


def spec_of(model: ModelConfig, branching: int, encoders: Encoders = NO_ENCODERS) -> ZoomSpec:
    """The network that a config describes, for K = ``branching``."""
    photo, view = encoder_specs(model, encoders)
    same = model.model_dump(
        include={f.name for f in fields(ZoomSpec)} - {"photo_encoder", "view_encoder"}
    )
    return ZoomSpec(branching=branching, photo_encoder=photo, view_encoder=view, **same)


def towers_spec(model: ModelConfig, encoders: Encoders = NO_ENCODERS) -> TowersSpec:
    """The two towers that a config describes."""
    photo, view = encoder_specs(model, encoders)
    towers = model.towers
    return TowersSpec(
        photo_px=model.photo_px,
        view_px=model.view_px,
        photo_encoder=photo,
        view_encoder=view,
        shared_encoder=model.shared_encoder,
        photo_crops=model.photo_crops,
        pooling=model.pooling,
        width=model.width,
        depths=towers.depths,
        temperature=towers.temperature,
        learned_temperature=towers.learned_temperature,
    )


def match_spec(model: ModelConfig, encoders: Encoders = NO_ENCODERS) -> MatchSpec:
    """The bird's-eye match that a config describes."""
    photo, _ = encoder_specs(model, encoders)
    names = [field.name for field in fields(MatchSpec)]
    same = {k: v for k, v in model.match.model_dump().items() if k in names}
    return MatchSpec(photo_px=model.photo_px, photo_encoder=photo, **same)


def network(model: ModelConfig, branching: int, encoders: Encoders = NO_ENCODERS) -> Network:
    """The network that a config describes, with random weights (pretrained ones from the source).

    Encoders known from ``encoders`` are built empty instead, offline.
    """
    if model.kind == "towers":
        return Towers(towers_spec(model, encoders))
    if model.kind == "match":
        return MatchModel(match_spec(model, encoders))
    if model.kind == "residual":
        return _residual(model, branching, encoders)
    return ZoomModel(spec_of(model, branching, encoders))


def _residual(model: ModelConfig, branching: int, encoders: Encoders) -> ResidualZoom:
    """The match with what the config wants beside it and on it."""
    plan = model.residual
    towers = replace(towers_spec(model, encoders), photo_px=plan.towers_px)
    return ResidualZoom(
        match_spec(model, encoders),
        towers if plan.towers_share else None,
        spec_of(model, branching, encoders) if plan.zoom else None,
        plan.silent,
    )


def build_model(config: Config, region: Region, encoders: Encoders = NO_ENCODERS) -> Network:
    """A fresh network for a region, seeded by ``train.seed``."""
    torch.manual_seed(config.train.seed)
    return network(config.model, region.branching, encoders)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The state of a network; a tensor of two names, as of a shared encoder, under the first."""
    first: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    return {k: v.detach() for k, v in state.items() if first.setdefault(id(v), k) == k}


def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Take over what ``weights_of`` gave. Raises RuntimeError where it does not fit."""
    first: dict[int, str] = {}
    whole = dict(weights)
    for name, value in model.state_dict(keep_vars=True).items():
        again = first.setdefault(id(value), name)
        if again in weights:
            whole[name] = weights[again]
    model.load_state_dict(whole)


def save_checkpoint(path: Path, tensors: dict[str, Tensor], explained: Explained) -> None:
    """Write ``path`` (.safetensors) and the JSON of the same name, each atomically.

    The JSON goes last: a new checkpoint counts from the moment that both are there.
    """
    with written_whole(path) as temporary:
        # bytes go through our own file, so that a full disk is told as one
        apart = {
            k: v.detach().cpu().clone(memory_format=torch.contiguous_format)
            for k, v in tensors.items()
        }
        temporary.write_bytes(save(apart))
    write_explained(path, explained)


def write_explained(path: Path, explained: Explained) -> None:
    """Write the JSON beside weights that are there, atomically."""
    known = explained.calibration
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
            "encoders": explained.encoders,
            "learned": [list(pair) for pair in explained.learned],
        }
        | ({} if known is None else {"calibration": known.to_json()}),
    )


def load_explained(path: Path) -> Explained:
    """The JSON beside the weights. Raises CheckpointError."""
    data = read_json(path.with_suffix(".json"), SCHEMA, CheckpointError)
    known = data.get("calibration")
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
            encoders={side: dict(built) for side, built in data.get("encoders", {}).items()},
            calibration=(
                None
                if known is None
                else Calibration.from_json(known, f"{path.with_suffix('.json')}")
            ),
            learned=tuple(
                (str(imagery), str(split))
                for imagery, split in data.get(  # older versions began with nothing
                    "learned", [(data["imagery_hash"], data["split_hash"])]
                )
            ),
        )
    except (AttributeError, KeyError, TypeError, ValueError, ConfigError, RegionError) as error:
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


def load_model(path: Path, explained: Explained) -> Network:
    """The network with its weights, ready to answer, on a graphics card where there is one.

    (Not with ``train.device: cpu``.) Raises CheckpointError.
    """
    config = explained.config
    model = network(config.model, explained.region.branching, explained.encoders)
    try:
        load_weights(model, load_tensors(path))
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise CheckpointError(
            f"{path}: weights of another version ({first}); train again"
        ) from error
    asked = config.train.device
    return model.to(device_of("cpu" if asked == "cpu" else "auto")).eval()


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
