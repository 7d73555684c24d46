"""The photos of one or several regions as training material: pixels, places, order.

Knows nothing of networks, targets or the loop. Which photos a step sees follows from the seed
and the step alone, so that a resumed run sees what an uninterrupted one would have seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoomloc.errors import PhotoError
from zoomloc.index import RegionViews
from zoomloc.training.pixels import stored_pixels
from zoomloc.world.cells import Floats, Ints
from zoomloc.world.images import load_fitted
from zoomloc.world.photos import Photo

Pictures = npt.NDArray[np.uint8]


@dataclass
class PhotoPixels:
    """Decoded photos (h, w, 3), padded to one shape; kept while they fit into ``keep_mb``.

    ``stored``: all of them from a file made by ``zoomloc.training.pixels``, if there is one.
    """

    photos: Sequence[Photo]
    size_px: tuple[int, int]  # width, height
    keep_mb: float = 2000
    stored: Pictures | None = None
    _kept: dict[int, Pictures] = field(default_factory=dict, repr=False)

    def get(self, indices: Ints) -> Pictures:
        """(len(indices), h, w, 3) uint8. Raises PhotoError for a photo that cannot be read."""
        if self.stored is not None:
            return np.asarray(self.stored[indices])
        return np.stack([self._one(int(i)) for i in indices])

    def _one(self, index: int) -> Pictures:
        found = self._kept.get(index)
        if found is None:
            found = load_fitted(self.photos[index].path, *self.size_px)
            if (len(self._kept) + 1) * found.nbytes <= self.keep_mb * 1e6:
                self._kept[index] = found
        return found


class Ground:
    """One region to train on: its views, and those of its photos that lie on imagery.

    lat, lng, error_m: (n,) of the photos kept; ``outside`` counts the others. Raises PhotoError
    where none is left.
    """

    def __init__(
        self, photos: Sequence[Photo], views: RegionViews, photo_px: tuple[int, int]
    ) -> None:
        lat, lng = (np.array([getattr(p, k) for p in photos], float) for k in ("lat", "lng"))
        within = views.coverage.holds(lat, lng) if len(photos) else np.zeros(0, bool)
        if not within.any():
            raise PhotoError(
                f"none of {len(photos)} training photos lies on the imagery of region "
                f"{views.region.name!r}; check that both are of the same place and "
                "that 'zoomloc split' was run"
            )
        self.views = views
        self.photos = [p for p, keep in zip(photos, within, strict=True) if keep]
        self.outside = int((~within).sum())
        folder = views.pyramid.path.parent
        stored = stored_pixels(folder, self.photos, photo_px)
        self.pixels = PhotoPixels(self.photos, photo_px, stored=stored)
        self.lat: Floats = lat[within]
        self.lng: Floats = lng[within]
        self.error_m: Floats = np.array([p.position_error_m for p in self.photos])


@dataclass(frozen=True)
class Order:
    """Which photos a step sees: batches of one region each, every photo once an epoch.

    ``counts``: photos of each region. What is left of a region after its last whole batch waits
    for the next epoch, which has another order.
    """

    counts: tuple[int, ...]
    batch: int
    seed: int

    def at(self, step: int) -> tuple[int, Ints]:
        """(region, indices of its photos) of a step."""
        per_epoch = sum(count // self._size(count) for count in self.counts)
        epoch, position = divmod(step, per_epoch)
        return _batches(self, epoch)[position]

    def _size(self, count: int) -> int:
        return min(self.batch, count)


@lru_cache(2)  # an epoch's order serves all of its steps
def _batches(order: Order, epoch: int) -> list[tuple[int, Ints]]:
    """(region, indices of its photos) of each step of an epoch."""
    found = []
    for ground, count in enumerate(order.counts):
        size = order._size(count)
        mixed = np.random.default_rng([order.seed, 1, epoch, ground]).permutation(count)
        whole = mixed[: count // size * size].reshape(-1, size)
        found += [(ground, indices) for indices in whole]
    shuffled = np.random.default_rng([order.seed, 4, epoch]).permutation(len(found))
    return [found[i] for i in shuffled]


def channels_first(pictures: Pictures) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) uint8, without a copy of the pixels."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)
