"""Photos and their places become batches of tensors; each distinct view once a batch.

Knows nothing of networks or of the loop. Everything random in a batch follows from the
seed and the step, so that a resumed run sees what an uninterrupted one would have seen.

Letters: B photos, U distinct views, S steps (root choice, if any, then zooms), K children.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoomloc.config import TrainConfig
from zoomloc.errors import PhotoError
from zoomloc.index import RegionViews
from zoomloc.training.targets import LeafTargets, inside, leaf_targets, one_hot, smoothed
from zoomloc.world.cells import Cell
from zoomloc.world.images import load_fitted
from zoomloc.world.photos import Photo

Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Batch:
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


@dataclass
class PhotoPixels:
    """Decoded photos (h, w, 3), padded to one shape; kept while they fit into ``keep_mb``."""

    photos: Sequence[Photo]
    size_px: tuple[int, int]  # width, height
    keep_mb: float = 2000
    _kept: dict[int, Pictures] = field(default_factory=dict, repr=False)

    def get(self, indices: npt.NDArray[np.int64]) -> Pictures:
        """(len(indices), h, w, 3) uint8. Raises PhotoError for a photo that cannot be read."""
        return np.stack([self._one(int(i)) for i in indices])

    def _one(self, index: int) -> Pictures:
        found = self._kept.get(index)
        if found is None:
            found = load_fitted(self.photos[index].path, *self.size_px)
            if (len(self._kept) + 1) * found.nbytes <= self.keep_mb * 1e6:
                self._kept[index] = found
        return found


class ExampleMaker:
    """Training photos of one region -> batches."""

    def __init__(
        self,
        photos: Sequence[Photo],
        views: RegionViews,
        train: TrainConfig,
        photo_px: tuple[int, int],
    ) -> None:
        lat, lng = (np.array([getattr(p, k) for p in photos], float) for k in ("lat", "lng"))
        within = inside(views.coverage, lat, lng) if len(photos) else np.zeros(0, bool)
        if not within.any():
            raise PhotoError(
                f"none of {len(photos)} training photos lies on the imagery of region "
                f"{views.region.name!r}; check that both are of the same place and "
                "that 'zoomloc split' was run"
            )
        self.outside = int((~within).sum())
        self.photos = [p for p, keep in zip(photos, within, strict=True) if keep]
        self.views, self.train = views, train
        self.pixels = PhotoPixels(self.photos, photo_px)
        hard = train.targets == "hard"
        error = np.array([p.position_error_m for p in self.photos])
        self._lat, self._lng = lat[within], lng[within]
        self._sigma_m = np.zeros_like(error) if hard else np.hypot(error, train.sigma_m)
        self._uniform_share = 0.0 if hard else train.uniform_share

    def indices(self, step: int) -> npt.NDArray[np.int64]:
        """Photos of a step: each epoch is its own permutation; no state is kept."""
        count, size = len(self.photos), min(self.train.batch, len(self.photos))
        per_epoch = count // size
        epoch, position = divmod(step, per_epoch)
        order = np.random.default_rng([self.train.seed, 1, epoch]).permutation(count)
        return np.asarray(order[position * size : (position + 1) * size])

    def targets(self, indices: npt.NDArray[np.int64]) -> LeafTargets:
        """Leaf distributions of the photos of a batch, in its order."""
        return leaf_targets(
            self.views.coverage,
            self._lat[indices],
            self._lng[indices],
            self._sigma_m[indices],
            self._uniform_share,
        )

    def paths(self, step: int, targets: LeafTargets) -> list[tuple[Cell, ...]]:
        """A path for each photo, drawn from its leaf distribution."""
        rng = np.random.default_rng([self.train.seed, 2, step])
        return [self.views.region.path_to(leaf) for leaf in targets.draw(rng)]

    def batch(
        self,
        indices: npt.NDArray[np.int64],
        targets: LeafTargets,
        paths: Sequence[tuple[Cell, ...]],
    ) -> Batch:
        """Tensors of the photos, each with the views along its path."""
        seen = [self._seen(path) for path in paths]
        order = {cell: i for i, cell in enumerate(dict.fromkeys(c for row in seen for c in row))}
        pictures = np.stack([self.views.picture(cell) for cell in order])
        zooms = [path[:-1] for path in paths]
        root = targets.at_roots() if self.views.has_root_choice else None
        return Batch(
            photos=channels_first(self.pixels.get(indices)),
            views=channels_first(pictures),
            view=torch.tensor([[order[c] for c in row] for row in seen]),
            choice=torch.tensor([self.views.choices(path) for path in paths]),
            place=torch.tensor([[self.views.place(c) for c in row] for row in seen]),
            root_target=None if root is None else torch.from_numpy(root).float(),
            root_present=torch.from_numpy(self.views.child_mask(None)),
            target=self._targets(targets, zooms),
            present=torch.from_numpy(
                np.array([[self.views.child_mask(c) for c in row] for row in zooms])
            ),
        )

    def _seen(self, path: Sequence[Cell]) -> list[Cell | None]:
        """The views that a path's decisions look at."""
        views: list[Cell | None] = [None] if self.views.has_root_choice else []
        return [*views, *path[:-1]]

    def _targets(self, targets: LeafTargets, zooms: Sequence[Sequence[Cell]]) -> Tensor:
        """(B, L, K) target of each zoom."""
        rows = []
        for photo, cells in enumerate(zooms):
            row = [targets.at_children(photo, cell) for cell in cells]
            if self.train.targets == "hard":
                row = [one_hot(int(t.argmax()), t.size) for t in row]
            if self.train.label_smoothing:
                row = [
                    smoothed(t, self.views.child_mask(c), self.train.label_smoothing)
                    for t, c in zip(row, cells, strict=True)
                ]
            rows.append(row)
        return torch.from_numpy(np.array(rows)).float()


def channels_first(pictures: Pictures) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) uint8, without a copy of the pixels."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)
