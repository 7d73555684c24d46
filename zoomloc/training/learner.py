"""What the loop trains: a Learner makes batches for one kind of network and scores them.

Knows nothing of optimisers, checkpoints or clocks. A new kind of network is a Learner here, a
Scorer in ``zoomloc.scorers`` and a line in ``zoomloc.checkpoint``.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from zoomloc.config import Config
from zoomloc.training.dataset import Ground
from zoomloc.training.matches import MatchLearner
from zoomloc.training.residual import ResidualLearner
from zoomloc.training.towers import TowersLearner
from zoomloc.training.zooms import ZoomLearner


class Batch(Protocol):
    """The examples of a step."""

    @property
    def photos(self) -> Tensor:
        """(B, 3, h, w) uint8."""
        ...


class Learner(Protocol):
    """Batches and losses of one kind of network."""

    needs_weights: bool  # batches are made with the weights as they are: not ahead of time

    def prepare(self, share: float) -> None:
        """Anything done now and then between steps; ``share`` of the run is over, 0..1."""
        ...

    def batch(self, step: int) -> Batch:
        """The examples of a step; a function of seed and step (and weights, if it needs them)."""
        ...

    def loss(self, batch: Any) -> Tensor:
        """The loss of a batch, with whatever is random in it drawn from torch's generator."""
        ...

    def memory(self) -> dict[str, Tensor]:
        """What it has to remember over a restart."""
        ...

    def recall(self, memory: dict[str, Tensor]) -> None:
        """Take up what ``memory`` gave."""
        ...


def build_learner(config: Config, model: nn.Module, grounds: Sequence[Ground]) -> Learner:
    """The learner of the config's kind of model."""
    if config.model.kind == "towers":
        return TowersLearner(config, model, grounds)
    if config.model.kind == "match":
        return MatchLearner(config, model, grounds)
    if config.model.kind == "residual":
        return ResidualLearner(config, model, grounds)
    return ZoomLearner(config, model, grounds)
