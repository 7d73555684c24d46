"""Weights that a run begins with, taken over from another run.

Knows nothing of the loop, of regions or of photos; which photos the other run learned from is
told by the hashes beside its weights.
"""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path

from torch import Tensor, nn

from zoomloc.checkpoint import (
    Explained,
    best_checkpoint,
    load_explained,
    load_tensors,
    weights_of,
)
from zoomloc.config import GENERAL, Config, ModelConfig
from zoomloc.errors import ConfigError
from zoomloc.training.state import TrainState, changing

MATCH = "match."  # before the names of a match's weights, where more stands on it
MATCHES = ("match", "residual")  # kinds of model
# settings that say what weights mean, though no shape may tell it
ALWAYS = ("photo_px", "norm", "photo_encoder.name", "photo_encoder.channels")
OF_MATCHES = tuple(
    f"match.{key}" for key in ("gsd_m", "slices", "rings_m", "channels", "width", "map_channels")
)
OF_ZOOMS = ("shared_encoder", "heads", "pooling", "view_px", "view_margin", "photo_crops")


def begin(state: TrainState, config: Config, learned: Sequence[tuple[str, str]]) -> None:
    """Take over the weights of ``train.start_from``, if it names a run, into a state of step 0.

    What this network has beyond that run's stays as it is. learned: hashes of imagery and split
    of each region of this run. Raises ConfigError where the networks differ, or where that run or
    one before it learned from another split of the same imagery (of the very same file: imagery
    that was made anew is not known again), for then it has seen photos that are to be tested on.
    Raises CheckpointError where there is no such run.
    """
    name = config.train.start_from
    if not name:
        return
    path = best_checkpoint(GENERAL if name == "general" else Path(name))
    explained = load_explained(path)
    _check_unseen(name, explained, learned)
    _check_alike(name, config.model, explained.config.model)
    weights = _renamed(name, load_tensors(path), state.model)
    for network in (weights_of(state.model), changing(state.averaged)):
        for key in weights.keys() & network.keys():
            network[key].copy_(weights[key])
    state.learned = explained.learned


def _check_unseen(name: str, explained: Explained, learned: Sequence[tuple[str, str]]) -> None:
    """Refuse a run that learned from photos that this one may be tested on."""
    for imagery, split in learned:
        if any(other == imagery and division != split for other, division in explained.learned):
            raise ConfigError(
                f"train.start_from {name}: was trained on other photos of this very region, maybe "
                "on those to be tested on; begin with a run of another region, or of this split"
            )


def _check_alike(name: str, own: ModelConfig, other: ModelConfig) -> None:
    """Refuse a run whose weights mean something else than this network's would."""
    if (own.kind in MATCHES) != (other.kind in MATCHES):
        raise _other_network(name, f"kind {other.kind}", own.kind)
    matched = own.kind in MATCHES
    zoomed = not matched or (own.kind == other.kind == "residual" and other.residual.zoom)
    for key in (*ALWAYS, *(OF_MATCHES if matched else ()), *(OF_ZOOMS if zoomed else ())):
        here, there = (attrgetter(key)(model) for model in (own, other))
        if here != there:
            raise _other_network(name, f"model.{key} {there}", f"{here}")


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
