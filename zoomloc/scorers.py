"""Scorers: what search asks of each kind of network, with the map's side computed once.

Knows nothing of photos as files, of search or of answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from zoomloc.index import RegionViews
from zoomloc.model.precision import home_of
from zoomloc.model.towers import Towers
from zoomloc.model.zoom import Steps, Views, ZoomModel
from zoomloc.world.cells import Cell, Floats, Ints

Pictures = npt.NDArray[np.uint8]
ENCODE_AT_ONCE = 128


def scorer_of(model: nn.Module, views: RegionViews, use_place: bool = True) -> Any:
    """The scorer for a network over a region; ``use_place``: the region it was trained on."""
    if isinstance(model, Towers):
        return TowersScorer(model, views)
    assert isinstance(model, ZoomModel)
    return ZoomScorer(model, views, use_place and model.spec.place)


def as_tensor(pictures: Sequence[Pictures], device: torch.device) -> Tensor:
    """Pictures (h, w, 3) uint8 of one shape -> (N, 3, h, w) floats in 0..1."""
    return torch.from_numpy(np.stack(pictures)).to(device).permute(0, 3, 1, 2).float() / 255.0


def _encoded_photos(model: ZoomModel | Towers, photos: Sequence[Pictures]) -> Tensor:
    """What a network makes of photos, a part of them at a time."""
    device = home_of(model)
    return torch.cat(
        [
            model.encode_photos(as_tensor(photos[start : start + ENCODE_AT_ONCE], device))
            for start in range(0, len(photos), ENCODE_AT_ONCE)
        ]
    )


@dataclass
class ZoomScorer:
    """The zoom transformer as a ``Scorer``; each view is encoded once and kept."""

    model: ZoomModel
    views: RegionViews
    use_place: bool = True
    _tokens: dict[Cell | None, tuple[Tensor, Tensor | None]] = field(
        default_factory=dict, repr=False
    )

    @torch.inference_mode()
    def start(self, photos: Sequence[Pictures]) -> Tensor:
        """Pictures (h, w, 3) uint8 of one shape -> photo tokens (B, P, D)."""
        return _encoded_photos(self.model, photos)

    @torch.inference_mode()
    def roots(self, state: Tensor) -> npt.NDArray[np.float64]:
        """(B, R) log-probabilities of the roots that have imagery."""
        count = len(self.views.region.roots)
        if count == 1:
            return np.zeros((len(state), 1))
        root, _ = self.model(
            state, self._views([None]), self._steps([[None]] * len(state), [[0]] * len(state))
        )
        return log_softmax_over(root[:, :count], self.views.child_mask(None)[None])

    @torch.inference_mode()
    def children(
        self, state: Tensor, photo_index: npt.NDArray[np.int64], cells: Sequence[Cell]
    ) -> npt.NDArray[np.float64]:
        """(n, K) log-probabilities of the children of each cell, -inf without imagery."""
        head: list[Cell | None] = [None] if self.views.has_root_choice else []
        paths = [self.views.region.path_to(cell) for cell in cells]
        seen = [[*head, *path] for path in paths]
        order = list(dict.fromkeys(c for row in seen for c in row))
        choices = [[*self.views.choices(path), 0] for path in paths]
        index = torch.as_tensor(np.asarray(photo_index), device=state.device)
        _, zooms = self.model(state[index], self._views(order), self._steps(seen, choices, order))
        mask = np.stack([self.views.child_mask(cell) for cell in cells])
        return log_softmax_over(zooms[:, -1], mask)

    def leaves(self, state: Tensor) -> None:
        """The zoom transformer cannot score all terminal cells at once."""
        return None

    def _views(self, cells: Sequence[Cell | None]) -> Views:
        """Tokens of views, encoding those not seen before."""
        device = home_of(self.model)
        missing = [cell for cell in cells if cell not in self._tokens]
        for start in range(0, len(missing), ENCODE_AT_ONCE):
            part = missing[start : start + ENCODE_AT_ONCE]
            pictures = as_tensor([self.views.picture(c) for c in part], device)
            encoded = self.model.encode_views(pictures)
            for i, cell in enumerate(part):
                below = None if encoded.children is None else encoded.children[i]
                self._tokens[cell] = (encoded.pooled[i], below)
        rows = [self._tokens[cell] for cell in cells]
        children = [r[1] for r in rows if r[1] is not None]
        return Views(torch.stack([r[0] for r in rows]), torch.stack(children) if children else None)

    def _steps(
        self,
        seen: Sequence[Sequence[Cell | None]],
        choices: Sequence[Sequence[int]],
        order: Sequence[Cell | None] = (None,),
    ) -> Steps:
        number = {cell: i for i, cell in enumerate(order)}
        device = home_of(self.model)
        place = torch.tensor([[self.views.place(c) for c in row] for row in seen], device=device)
        return Steps(
            view=torch.tensor([[number[c] for c in row] for row in seen], device=device),
            choice=torch.tensor(choices, device=device),
            place=place if self.use_place else None,
            root=self.views.has_root_choice,
        )


@dataclass
class TowersScorer:
    """Two towers as a ``Scorer``: every reference crop of the region is encoded once.

    A cell's score is the best among the reference squares centred in it. Depths that have no
    head of their own get the sum of the terminal cells below.
    """

    model: Towers
    views: RegionViews
    _references: dict[int, Tensor] = field(default_factory=dict, repr=False)

    @torch.inference_mode()
    def start(self, photos: Sequence[Pictures]) -> list[Floats]:
        """Pictures (h, w, 3) uint8 -> for each depth log-scores (B, rows, columns)."""
        vectors = _encoded_photos(self.model, photos)  # (B, H, E)
        region = self.views.region
        scores: list[Floats] = []
        for depth in range(region.zooms, -1, -1):
            head = region.zooms - depth
            if head < self.model.spec.depths and region.grid_shape(depth) != (1, 1):
                scores.append(self._scores(vectors[:, head], depth))
            else:
                scores.append(summed_below(scores[-1], 1 << region.levels_per_zoom))
        return scores[::-1]

    def roots(self, state: list[Floats]) -> Floats:
        """(B, R) log-probabilities of the roots that have imagery."""
        slots = self.views.region.root_slots()
        scores = torch.from_numpy(state[0][:, slots[:, 0], slots[:, 1]])
        return log_softmax_over(scores, self.views.child_mask(None)[None])

    def children(self, state: list[Floats], photo_index: Ints, cells: Sequence[Cell]) -> Floats:
        """(n, K) log-probabilities of the children of each cell, -inf without imagery."""
        region = self.views.region
        side = 1 << region.levels_per_zoom
        down, right = np.divmod(np.arange(side * side), side)
        corner = np.array([region.row_column(cell) for cell in cells]) * side
        rows, columns = corner[:, :1] + down, corner[:, 1:] + right
        scores = state[region.depth(cells[0]) + 1][photo_index[:, None], rows, columns]
        mask = np.stack([self.views.child_mask(cell) for cell in cells])
        return log_softmax_over(torch.from_numpy(scores), mask)

    def leaves(self, state: list[Floats]) -> Floats:
        """(B, rows, columns) log-scores of all terminal cells at once."""
        return state[-1]

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


def summed_below(scores: Floats, side: int) -> Floats:
    """Log of the sum over side x side cells: (B, rows, columns) -> (B, rows/side, columns/side)."""
    photos, rows, columns = scores.shape
    blocks = scores.reshape(photos, rows // side, side, columns // side, side)
    with np.errstate(divide="ignore"):
        peak = np.maximum(blocks.max(axis=(2, 4), keepdims=True), -1e30)
        total = np.log(np.exp(blocks - peak).sum(axis=(2, 4))) + peak[:, :, 0, :, 0]
    return np.asarray(total)


def log_softmax_over(logits: Tensor, present: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Log-softmax over the choices that exist; -inf elsewhere."""
    masked = logits.cpu().double().masked_fill(~torch.from_numpy(np.array(present)), -torch.inf)
    return np.asarray(masked.log_softmax(-1).numpy())
