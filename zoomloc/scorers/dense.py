"""Answers of scorers that score every cell of every depth at once. Knows no network."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoomloc.index import RegionViews
from zoomloc.world.cells import Cell, Floats, Ints, LatLng
from zoomloc.world.region import Region


@dataclass
class DenseState:
    """``scores``: for each depth, roots first, log-scores (B, rows, columns)."""

    scores: list[Floats]


class DenseScorer:
    """Roots, children and leaves of a state that holds the scores of all cells."""

    views: RegionViews

    def roots(self, state: DenseState) -> Floats:
        """(B, R) log-probabilities of the roots that have imagery."""
        return roots_of(self.views, state.scores)

    def children(self, state: DenseState, photo_index: Ints, cells: Sequence[Cell]) -> Floats:
        """(n, K) log-probabilities of the children of each cell, -inf without imagery."""
        return children_of(self.views, state.scores, photo_index, cells)

    def leaves(self, state: DenseState) -> Floats:
        """(B, rows, columns) log-scores of all terminal cells at once."""
        return state.scores[-1]

    def evidence(self, state: DenseState) -> Floats | None:
        """Nothing is known of other ground."""
        return None

    def place_prior(self) -> Floats | None:
        """It knows nothing of places without a photo."""
        return None

    def sharpened(
        self, state: DenseState, photo: int, place: LatLng
    ) -> tuple[LatLng, float | None, float | None]:
        """Cells are all that is known."""
        return place, None, None


def roots_of(views: RegionViews, scores: Sequence[Floats]) -> Floats:
    """(B, R) log-probabilities of the roots that have imagery; scores as in ``DenseState``."""
    slots = views.region.root_slots()
    found = torch.from_numpy(scores[0][:, slots[:, 0], slots[:, 1]])
    return log_softmax_over(found, views.child_mask(None)[None])


def children_of(
    views: RegionViews, scores: Sequence[Floats], photo_index: Ints, cells: Sequence[Cell]
) -> Floats:
    """(n, K) log-probabilities of the children of cells of one depth, -inf without imagery."""
    region = views.region
    side = 1 << region.levels_per_zoom
    down, right = np.divmod(np.arange(side * side), side)
    corner = np.array([region.row_column(cell) for cell in cells]) * side
    rows, columns = corner[:, :1] + down, corner[:, 1:] + right
    found = scores[region.depth(cells[0]) + 1][photo_index[:, None], rows, columns]
    mask = np.stack([views.child_mask(cell) for cell in cells])
    return log_softmax_over(torch.from_numpy(found), mask)


def summed_below(scores: Floats, side: int) -> Floats:
    """Log of the sum over side x side cells: (B, rows, columns) -> (B, rows/side, columns/side)."""
    photos, rows, columns = scores.shape
    blocks = scores.reshape(photos, rows // side, side, columns // side, side)
    with np.errstate(divide="ignore"):
        peak = np.maximum(blocks.max(axis=(2, 4), keepdims=True), -1e30)
        total = np.log(np.exp(blocks - peak).sum(axis=(2, 4))) + peak[:, :, 0, :, 0]
    return np.asarray(total)


def summed_up(leaves: Floats, region: Region) -> list[Floats]:
    """Log-scores (B, rows, columns) of the terminal cells, and the sums of every depth above."""
    scores = [leaves]
    for _ in range(region.zooms):
        scores.append(summed_below(scores[-1], 1 << region.levels_per_zoom))
    return scores[::-1]


def log_softmax_over(logits: Tensor, present: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Log-softmax over the choices that exist; -inf elsewhere."""
    masked = logits.cpu().double().masked_fill(~torch.from_numpy(np.array(present)), -torch.inf)
    return np.asarray(masked.log_softmax(-1).numpy())
