"""Weights that a run begins with, taken over from another run.

Knows nothing of the loop, of regions or of photos; which photos the other run learned from is
told by the hashes beside its weights.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from zoomloc.checkpoint import (
    Explained,
    best_checkpoint,
    load_explained,
    load_tensors,
    match_spec,
    weights_of,
)
from zoomloc.config import GENERAL, Config, ModelConfig
from zoomloc.errors import ConfigError
from zoomloc.training.state import TrainState, changing

MATCH = "match."  # before the names of a match's weights, where more stands on it
MATCHES = ("match", "residual")  # kinds of model
# what weights mean, though no shape tells it, and what a user can set
SAME = ("gsd_m", "slices", "rings_m", "photo_px", "channels", "width", "map_channels")


def begin(state: TrainState, config: Config, imagery: str, split: str) -> None:
    """Take over the weights of ``train.start_from``, if it names a run, into a state of step 0.

    What this network has beyond that run's stays as it is. Raises ConfigError where the networks
    differ, or where the run learned from another split of the same imagery: it has seen photos
    that are to be tested on. Raises CheckpointError where there is no such run.
    """
    name = config.train.start_from
    if not name:
        return
    path = best_checkpoint(GENERAL if name == "general" else Path(name))
    explained = load_explained(path)
    if explained.imagery_hash == imagery and explained.split_hash != split:
        raise ConfigError(
            f"train.start_from {name}: was trained on other photos of this very region, maybe on "
            "those to be tested on; begin with a run of another region, or of this split"
        )
    _check_alike(name, config.model, explained)
    found = load_tensors(path)
    weights = _renamed(name, found, state.model)
    for network in (weights_of(state.model), changing(state.averaged)):
        for key in weights.keys() & network.keys():
            network[key].copy_(weights[key])


def _check_alike(name: str, model: ModelConfig, explained: Explained) -> None:
    """Refuse a run whose weights mean other lengths and angles than this network's would."""
    if (model.kind in MATCHES) != (explained.config.model.kind in MATCHES):
        raise _other_network(name, f"kind {explained.config.model.kind}", model.kind)
    if model.kind not in MATCHES:
        return  # for those the shapes say all
    own, other = match_spec(model), match_spec(explained.config.model)
    for key in SAME:
        if getattr(own, key) != getattr(other, key):
            raise _other_network(name, f"{key} {getattr(other, key)}", f"{getattr(own, key)}")


def _renamed(name: str, weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Weights by this network's names. Raises ConfigError for what has no place in it."""
    own = weights_of(model)
    inside = any(key.startswith(MATCH) for key in own)
    given = any(key.startswith(MATCH) for key in weights)
    found = {}
    for key, value in weights.items():
        here = f"{MATCH}{key}" if inside and not given else key
        here = here.removeprefix(MATCH) if given and not inside else here
        if here not in own or own[here].shape != value.shape:
            missing = "nothing" if here not in own else f"{tuple(own[here].shape)}"
            raise _other_network(name, f"{key} {tuple(value.shape)}", missing)
        found[here] = value
    return found


def _other_network(name: str, theirs: str, ours: str) -> ConfigError:
    mend = (
        "train models/match" if name == "general" else "begin with a run of such 'model' settings"
    )
    return ConfigError(
        f"train.start_from {name}: is another network ({theirs}, here {ours}); {mend}"
    )
