"""Training the match with what stands beside it and on it.

Some steps are the towers' own; they are several times cheaper than the match's. In the others
the match learns, and with the same photos the zoom, where the map lies north up, as its views do,
from the decisions whose cells lie whole within the ground that was searched. What the match says
is taken as given there. Knows nothing of the loop. Letters: B photos, J places of the match's
lattice, R x C terminal cells, L zooms, K children.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoomloc.config import Config
from zoomloc.ground import GroundMap, Window
from zoomloc.model.match import STRIDE
from zoomloc.model.precision import autocast, home_of, moved
from zoomloc.model.residual import ResidualZoom
from zoomloc.scorers.dense import children_of, roots_of, summed_up
from zoomloc.training.augment import augment_views
from zoomloc.training.dataset import Ground
from zoomloc.training.losses import path_loss
from zoomloc.training.matches import Compared, MatchBatch, MatchLearner
from zoomloc.training.towers import TowersBatch, TowersLearner
from zoomloc.training.zooms import ZoomBatch, check_place, steps_of, targets_of, zoom_batch
from zoomloc.world.cells import Cell, Ints
from zoomloc.world.coverage import Coverage


@dataclass(frozen=True)
class ResidualBatch:
    """Photos and ground for the match; where the map lies north up, paths of the same photos."""

    match: MatchBatch
    zoom: ZoomBatch | None = None
    paths: tuple[tuple[Cell, ...], ...] = ()

    @property
    def photos(self) -> Tensor:
        """Those of the match."""
        return self.match.photos


class ResidualLearner:
    """Examples and loss of a ResidualZoom over one or several regions."""

    needs_weights = False

    def __init__(self, config: Config, model: Any, grounds: Sequence[Ground]) -> None:
        check_place(config, grounds)
        self.config, self.grounds = config, grounds
        self.model: ResidualZoom = model
        self.matches = MatchLearner(config, self.model.match, grounds)
        self.towers = None
        if self.model.towers is not None:
            self.towers = TowersLearner(towers_config(config), self.model.towers, grounds)

    def prepare(self, share: float) -> None:
        """Take note of how far the run is; the towers mine for look-alikes."""
        self.matches.prepare(share)
        if self.towers is not None:
            self.towers.prepare(share)

    def memory(self) -> dict[str, Tensor]:
        """What the towers have to remember."""
        return {} if self.towers is None else self.towers.memory()

    def recall(self, memory: dict[str, Tensor]) -> None:
        """Take up what ``memory`` gave."""
        if self.towers is not None:
            self.towers.recall(memory)

    def batch(self, step: int) -> ResidualBatch | TowersBatch:
        """A batch of the towers, or one of the match with a path for each of its photos."""
        train = self.config.train
        share = self.config.model.residual.towers_share
        if (
            self.towers is not None
            and np.random.default_rng([train.seed, 10, step]).random() < share
        ):
            return self.towers.batch(step)
        match = self.matches.batch(step)
        if self.model.zoom is None or not match.pose.is_plain:
            return ResidualBatch(match)
        ground = self.grounds[match.number]
        targets = targets_of(ground, match.photo, train)
        leaves = targets.draw(np.random.default_rng([train.seed, 9, step]))
        paths = tuple(ground.views.region.path_to(leaf) for leaf in leaves)
        zoom = zoom_batch(ground, match.photo, targets, paths, train)
        return ResidualBatch(match, self._searched(zoom, match, paths), paths)

    def loss(self, batch: ResidualBatch | TowersBatch) -> Tensor:
        """That of the towers; or the match's, and the cross-entropy of what f corrects."""
        if isinstance(batch, TowersBatch):
            assert self.towers is not None
            return self.towers.loss(batch)
        device = home_of(self.model)
        match = moved(batch.match, device)
        seen = self.matches.compared(match)
        loss = self.matches.loss_of(match, seen)
        if batch.zoom is None:
            return loss
        return loss + self._zoom_loss(moved(batch.zoom, device), batch, seen)

    def _zoom_loss(self, zoom: ZoomBatch, batch: ResidualBatch, seen: Compared) -> Tensor:
        train, network = self.config.train, self.model.zoom
        assert network is not None
        views = augment_views(zoom.views, train.augment)
        heard = self.model.heard(zoom.choice)
        with autocast(train.precision, heard.device):
            tokens = network.photo_tokens(seen.encoded)
            root, zooms = network(tokens, network.encode_views(views), steps_of(zoom, network))
        of_roots, of_zooms = (v.to(heard.device) for v in self._of_match(batch, seen))
        if root is not None:
            root = root[:, : of_roots.shape[1]] * heard + of_roots
        return path_loss(
            root,
            zooms * heard[..., None] + of_zooms,
            zoom.root_target,
            zoom.root_present,
            zoom.target,
            zoom.present,
        )

    def _of_match(self, batch: ResidualBatch, seen: Compared) -> tuple[Tensor, Tensor]:
        """(B, R) and (B, L, K): the match's log-probabilities of all decisions, as they are."""
        ground, match = self.grounds[batch.match.number], self.model.match
        with torch.no_grad():
            logits = seen.match.float() * match.scale() + seen.added[None]
            places = logits.logsumexp(0).cpu()[:, : math.prod(seen.shape)]  # (B, J)
        rows, columns = nearest_places(
            self.matches.maps[batch.match.number],
            batch.match.window,
            seen.shape,
            batch.match.pose.phase,
            self.config.model.match.lattice,
        )
        leaves = places.unflatten(1, seen.shape)[:, rows[:, None], columns].double().numpy()
        leaves[:, ~ground.views.coverage.leaves] = -np.inf
        views, photos = ground.views, np.arange(len(leaves))
        scores = summed_up(leaves, views.region)
        zooms = [
            children_of(views, scores, photos, [path[depth] for path in batch.paths])
            for depth in range(views.region.zooms)
        ]
        found = (roots_of(views, scores), np.stack(zooms, 1))
        return tuple(torch.from_numpy(v).float().clamp(min=-1e4) for v in found)  # type: ignore[return-value]

    def _searched(
        self, zoom: ZoomBatch, match: MatchBatch, paths: Sequence[tuple[Cell, ...]]
    ) -> ZoomBatch:
        """The batch without targets for decisions about ground that was not searched."""
        views = self.grounds[match.number].views
        region, leaves = views.region, views.coverage.leaves
        rows, columns = self.matches.maps[match.number].cell_middles(leaves.shape)
        window = match.window
        inside = leaves & _between(rows, window.top, window.height)[:, None]
        inside &= _between(columns, window.left, window.width)
        if inside.sum() == leaves.sum():
            return zoom
        searched = Coverage(region, inside)
        target = zoom.target.clone()
        for depth in range(region.zooms):
            whole = searched.leaf_count(depth) == views.coverage.leaf_count(depth)
            at = [region.row_column(path[depth]) for path in paths]
            target[:, depth] *= torch.tensor([[float(whole[one])] for one in at])
        root = None if zoom.root_target is None else torch.zeros_like(zoom.root_target)
        return replace(zoom, target=target, root_target=root)


def towers_config(config: Config) -> Config:
    """The config as the towers' learner reads it: they bear what the match cannot."""
    plan = config.model.residual
    augment = {"photo_shift": plan.towers_shift, "photo_scale": plan.towers_scale}
    train = {
        "batch": plan.towers_batch,
        "sigma_m": plan.towers_sigma_m,
        "augment": config.train.augment.model_copy(update=augment),
    }
    return config.model_copy(update={"train": config.train.model_copy(update=train)})


def nearest_places(
    ground: GroundMap, window: Window, shape: Sequence[int], phase: tuple[int, int], step: int
) -> tuple[Ints, Ints]:
    """(R,) and (C,): row and column of the lattice's place nearest to each terminal cell."""
    found = []
    middles = ground.cell_middles(ground.views.coverage.leaves.shape)
    for px, first, count, begin in zip(
        middles, (window.top, window.left), shape, phase, strict=True
    ):
        feature = (px - first) / STRIDE - 0.5
        nearest = np.rint((feature - begin) / step).astype(np.int64)
        found.append(np.clip(nearest, 0, count - 1))
    return found[0], found[1]


def _between(px: npt.NDArray[np.float64], first: int, length: int) -> npt.NDArray[np.bool_]:
    return np.asarray((px >= first) & (px < first + length))
