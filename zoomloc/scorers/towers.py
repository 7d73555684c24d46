"""Two towers as a Scorer. Knows nothing of search or of answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from zoomloc.index import RegionViews
from zoomloc.model.precision import home_of
from zoomloc.model.towers import Towers
from zoomloc.scorers.dense import DenseScorer, DenseState, summed_below
from zoomloc.scorers.shown import ENCODE_AT_ONCE, Shown, as_tensor, encoded_photos
from zoomloc.world.cells import Floats


@dataclass
class TowersScorer(DenseScorer):
    """Two towers as a ``Scorer``: every reference crop of the region is encoded once.

    A cell's score is the best among the reference squares centred in it. Depths that have no
    head of their own get the sum of the terminal cells below.
    """

    model: Towers
    views: RegionViews
    _references: dict[int, Tensor] = field(default_factory=dict, repr=False)

    @torch.inference_mode()
    def start(self, photos: Sequence[Shown]) -> DenseState:
        """Photos -> for each depth log-scores (B, rows, columns)."""
        vectors = encoded_photos(self.model, photos)  # (B, H, E)
        region = self.views.region
        scores: list[Floats] = []
        for depth in range(region.zooms, -1, -1):
            head = region.zooms - depth
            if head < self.model.spec.depths and region.grid_shape(depth) != (1, 1):
                scores.append(self._scores(vectors[:, head], depth))
            else:
                scores.append(summed_below(scores[-1], 1 << region.levels_per_zoom))
        return DenseState(scores[::-1])

    def _scores(self, vectors: Tensor, depth: int) -> Floats:
        """(B, E) -> (B, rows, columns) scaled cosines, -inf where there is no imagery."""
        region, head = self.views.region, self.views.region.zooms - depth
        present = self.views.coverage.present(depth)
        per_cell = self.views.references_a_side(depth) ** 2
        if head not in self._references:
            self._references[head] = self._encoded(depth)
        cosines = vectors @ self._references[head].T  # (B, present cells * per_cell)
        best = cosines.unflatten(1, (-1, per_cell)).amax(-1) * self.model.scale(head)
        scores = np.full((len(vectors), *region.grid_shape(depth)), -np.inf)
        scores[:, present] = best.cpu().numpy()
        return scores

    def _encoded(self, depth: int) -> Tensor:
        """(present cells * references of each, E) vectors of a depth's reference squares."""
        crops = self.views.references(depth)
        head = self.views.region.zooms - depth
        parts = []
        for start in range(0, len(crops), ENCODE_AT_ONCE):
            pictures = [
                self.views.crop(c, keep=False) for c in crops[start : start + ENCODE_AT_ONCE]
            ]
            part = as_tensor(pictures, home_of(self.model))
            parts += self.model.encode_views(part, [(head, len(pictures))])
        return torch.cat(parts)
