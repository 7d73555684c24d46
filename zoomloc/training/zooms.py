"""Training the zoom transformer: paths through the quadtree, each distinct view once a batch.

Knows nothing of the loop. Letters: B photos, U distinct views, S steps (root choice, if any,
then zooms), L zooms, K children.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoomloc.config import Config, TrainConfig
from zoomloc.errors import ConfigError
from zoomloc.index import RegionViews
from zoomloc.model.precision import autocast, home_of, moved
from zoomloc.model.zoom import Steps, ZoomModel
from zoomloc.scorers.shown import Shown
from zoomloc.scorers.zooms import ZoomScorer
from zoomloc.training.augment import augment_photos, augment_views
from zoomloc.training.dataset import Ground, Order, channels_first
from zoomloc.training.losses import path_loss
from zoomloc.training.targets import LeafTargets, leaf_targets, one_hot, smoothed
from zoomloc.world.cells import Cell, Floats, Ints


@dataclass(frozen=True)
class ZoomBatch:
    """B training examples.

    photos (B, 3, h, w) and views (U, 3, S, S) uint8; view, choice (B, S); place (B, S, 3);
    root_target (B, R) and root_present (R,), or None; target and present (B, L, K).
    """

    photos: Tensor
    views: Tensor
    view: Tensor
    choice: Tensor
    place: Tensor
    root_target: Tensor | None
    root_present: Tensor | None
    target: Tensor
    present: Tensor


class ZoomLearner:
    """Examples and loss of a ZoomModel over one or several regions."""

    def __init__(self, config: Config, model: Any, grounds: Sequence[Ground]) -> None:
        self.config, self.grounds = config, grounds
        self.model: ZoomModel = model
        train = config.train
        check_place(config, grounds)
        self.order = Order(tuple(len(g.photos) for g in grounds), train.batch, train.seed)
        self.needs_weights = train.rollout_share > 0

    def prepare(self, share: float) -> None:
        """Nothing to prepare."""

    def memory(self) -> dict[str, Tensor]:
        """Nothing to remember."""
        return {}

    def recall(self, memory: dict[str, Tensor]) -> None:
        """Nothing to take up."""

    def batch(self, step: int) -> ZoomBatch:
        """The photos of a step, each with the views along a path drawn from its targets."""
        train = self.config.train
        number, indices = self.order.at(step)
        ground = self.grounds[number]
        targets = targets_of(ground, indices, train)
        rng = np.random.default_rng([train.seed, 2, step])
        paths = [ground.views.region.path_to(leaf) for leaf in targets.draw(rng)]
        if train.rollout_share:
            rng = np.random.default_rng([train.seed, 3, step])
            own = np.flatnonzero(rng.random(len(indices)) < train.rollout_share)
            for i, path in zip(own, self._rollout(ground, indices[own], rng), strict=True):
                paths[i] = path
        return zoom_batch(ground, indices, targets, paths, train)

    def loss(self, batch: ZoomBatch) -> Tensor:
        """Cross-entropy over all decisions; absolute place is dropped for some photos."""
        train, model = self.config.train, self.model
        device = home_of(model)
        batch = moved(batch, device)
        photos = augment_photos(batch.photos, train.augment)
        views = augment_views(batch.views, train.augment)
        if train.augment.first_view_plain:  # every path begins with it
            views[:1] = batch.views[:1] / 255.0
        steps = steps_of(batch, model)
        with autocast(train.precision, device):
            root, zooms = model(model.encode_photos(photos), model.encode_views(views), steps)
        return path_loss(
            root, zooms, batch.root_target, batch.root_present, batch.target, batch.present
        )

    def _rollout(
        self, ground: Ground, indices: Ints, rng: np.random.Generator
    ) -> list[tuple[Cell, ...]]:
        """Paths drawn from the model itself: cells that it will meet in search."""
        if not len(indices):
            return []
        scorer = ZoomScorer(self.model.eval(), ground.views, self.config.model.place)
        state = scorer.start([Shown(picture) for picture in ground.pixels.get(indices)])
        region = ground.views.region
        picks = [_drawn(row, rng) for row in scorer.roots(state)]
        paths = [[region.roots[k]] for k in picks]
        for _ in range(region.zooms):
            tips = [path[-1] for path in paths]
            scores = scorer.children(state, np.arange(len(paths)), tips)
            for path, row in zip(paths, scores, strict=True):
                path.append(region.children(path[-1])[_drawn(row, rng)])
        return [tuple(path) for path in paths]


def check_place(config: Config, grounds: Sequence[Ground]) -> None:
    """Raises ConfigError where absolute place is to be learned over several regions."""
    if config.model.place and len(grounds) > 1:
        raise ConfigError(
            "model.place: absolute place means nothing over several regions; set it to false"
        )


def steps_of(batch: ZoomBatch, model: ZoomModel) -> Steps:
    """What the photos of a batch zoom through; absolute place is dropped for some of them."""
    place = batch.place
    if model.spec.place:
        dropped = torch.rand(len(place), 1, 1, device=place.device) < model.spec.place_dropout
        place = place.masked_fill(dropped, torch.nan)
    return Steps(batch.view, batch.choice, place, batch.root_target is not None)


def targets_of(ground: Ground, indices: Ints, train: TrainConfig) -> LeafTargets:
    """Leaf distributions of the photos of a batch, in its order."""
    hard = train.targets == "hard"
    error_m = ground.error_m[indices]
    return leaf_targets(
        ground.views.coverage,
        ground.lat[indices],
        ground.lng[indices],
        np.zeros_like(error_m) if hard else np.hypot(error_m, train.sigma_m),
        0.0 if hard else train.uniform_share,
    )


def zoom_batch(
    ground: Ground,
    indices: Ints,
    targets: LeafTargets,
    paths: Sequence[tuple[Cell, ...]],
    train: TrainConfig,
) -> ZoomBatch:
    """Tensors of photos, each with the views along its path."""
    views = ground.views
    seen = [_seen(views, path) for path in paths]
    order = {cell: i for i, cell in enumerate(dict.fromkeys(c for row in seen for c in row))}
    pictures = np.stack([views.picture(cell) for cell in order])
    zooms = [path[:-1] for path in paths]
    root = targets.at_roots() if views.has_root_choice else None
    return ZoomBatch(
        photos=channels_first(ground.pixels.get(indices)),
        views=channels_first(pictures),
        view=torch.tensor([[order[c] for c in row] for row in seen]),
        choice=torch.tensor([views.choices(path) for path in paths]),
        place=torch.tensor([[views.place(c) for c in row] for row in seen]),
        root_target=None if root is None else torch.from_numpy(root).float(),
        root_present=torch.from_numpy(views.child_mask(None)),
        target=_targets(views, targets, zooms, train),
        present=torch.from_numpy(np.array([[views.child_mask(c) for c in row] for row in zooms])),
    )


def _seen(views: RegionViews, path: Sequence[Cell]) -> list[Cell | None]:
    """The views that a path's decisions look at."""
    first: list[Cell | None] = [None] if views.has_root_choice else []
    return [*first, *path[:-1]]


def _targets(
    views: RegionViews, targets: LeafTargets, zooms: Sequence[Sequence[Cell]], train: TrainConfig
) -> Tensor:
    """(B, L, K) target of each zoom."""
    rows = []
    for photo, cells in enumerate(zooms):
        row = [targets.at_children(photo, cell) for cell in cells]
        if train.targets == "hard":
            row = [one_hot(int(t.argmax()), t.size) for t in row]
        if train.label_smoothing:
            row = [
                smoothed(t, views.child_mask(c), train.label_smoothing)
                for t, c in zip(row, cells, strict=True)
            ]
        rows.append(row)
    return torch.from_numpy(np.array(rows)).float()


def _drawn(log_prob: Floats, rng: np.random.Generator) -> int:
    weight = np.exp(log_prob - log_prob.max())
    return int(rng.choice(len(weight), p=weight / weight.sum()))
