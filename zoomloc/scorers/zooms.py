"""The zoom transformer as a Scorer. Knows nothing of search or of answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoomloc.index import RegionViews
from zoomloc.model.precision import home_of
from zoomloc.model.zoom import Past, Steps, Views, ZoomModel
from zoomloc.scorers.dense import log_softmax_over
from zoomloc.scorers.shown import ENCODE_AT_ONCE, Shown, as_tensor, encoded_photos
from zoomloc.world.cells import Cell, LatLng

KEPT_BYTES = 256 << 20  # of keys and values of a batch; paths beyond are read anew
Asking = tuple[int, Cell | None]  # a photo, and the last view of its path


@dataclass
class ZoomState:
    """Tokens (B, P, D) of photos, and what was read of paths, by how many views they have."""

    tokens: Tensor
    _read: dict[int, tuple[dict[Asking, int], Past]] = field(default_factory=dict)

    def past(self, views: int, asking: Sequence[Asking]) -> Past | None:
        """What was read of paths of so many views, if all of them were."""
        if views not in self._read:
            return None
        row, past = self._read[views]
        rows = [row.get(each, -1) for each in asking]
        return None if -1 in rows else past.rows(torch.tensor(rows, device=self.tokens.device))

    def keep(self, views: int, asking: Sequence[Asking], past: Past) -> None:
        """Hold what was read of paths, none of them held yet, if there is room for it."""
        if past.bytes() + sum(kept.bytes() for _, kept in self._read.values()) > KEPT_BYTES:
            return
        row, before = self._read.get(views, ({}, None))
        if any(each in row for each in asking):  # a second search with the same state
            return
        first = 0 if before is None else before.paths
        row.update({each: first + i for i, each in enumerate(asking)})
        self._read[views] = row, past if before is None else before.plus(past)


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
    def start(self, photos: Sequence[Shown]) -> ZoomState:
        """What the network makes of photos."""
        return ZoomState(encoded_photos(self.model, photos))

    @torch.inference_mode()
    def roots(self, state: ZoomState) -> npt.NDArray[np.float64]:
        """(B, R) log-probabilities of the roots that have imagery."""
        photos, count = len(state.tokens), len(self.views.region.roots)
        if count == 1:
            return np.zeros((photos, 1))
        logits = self._logits(state, range(photos), [[None]] * photos, [[0]] * photos)
        return log_softmax_over(logits[:, :count], self.views.child_mask(None)[None])

    @torch.inference_mode()
    def children(
        self, state: ZoomState, photo_index: npt.NDArray[np.int64], cells: Sequence[Cell]
    ) -> npt.NDArray[np.float64]:
        """(n, K) log-probabilities of the children of each cell, -inf without imagery."""
        head: list[Cell | None] = [None] if self.views.has_root_choice else []
        paths = [self.views.region.path_to(cell) for cell in cells]
        choices = [[*self.views.choices(path), 0] for path in paths]
        logits = self._logits(
            state, photo_index.tolist(), [[*head, *path] for path in paths], choices
        )
        mask = np.stack([self.views.child_mask(cell) for cell in cells])
        return log_softmax_over(logits, mask)

    def leaves(self, state: ZoomState) -> None:
        """The zoom transformer cannot score all terminal cells at once."""
        return None

    def evidence(self, state: ZoomState) -> None:
        """Nothing is known of other ground."""
        return None

    def place_prior(self) -> None:
        """It knows nothing of places without a photo."""
        return None

    def sharpened(
        self, state: ZoomState, photo: int, place: LatLng
    ) -> tuple[LatLng, float | None, float | None]:
        """Cells are all that is known."""
        return place, None, None

    def _logits(
        self,
        state: ZoomState,
        photos: Sequence[int],
        seen: Sequence[Sequence[Cell | None]],
        choices: Sequence[Sequence[int]],
    ) -> Tensor:
        """(n, K or roots) logits after the last view of each path; the paths are equally long."""
        count, past = len(seen[0]), None
        if count > 1:
            above = [(i, path[-2]) for i, path in zip(photos, seen, strict=True)]
            past = state.past(count - 1, above)
        if past is not None:  # the rest was read when the cell above was asked for
            seen, choices = [path[-2:] for path in seen], [made[-2:] for made in choices]
        order = list(dict.fromkeys(cell for path in seen for cell in path))
        steps = self._steps(seen, choices, order, count - len(seen[0]))
        index = torch.tensor(list(photos), device=state.tokens.device)
        shown = state.tokens[index] if past is None else past
        logits, past = self.model.next(shown, self._views(order), steps)
        if count < self.views.region.zooms + int(self.views.has_root_choice):
            state.keep(count, [(i, path[-1]) for i, path in zip(photos, seen, strict=True)], past)
        return logits

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
        order: Sequence[Cell | None],
        left_out: int,
    ) -> Steps:
        """Steps through views that are numbered by ``order``, the first ones of all left out."""
        number = {cell: i for i, cell in enumerate(order)}
        device = home_of(self.model)
        place = torch.tensor([[self.views.place(c) for c in row] for row in seen], device=device)
        root = self.views.has_root_choice
        return Steps(
            view=torch.tensor([[number[c] for c in row] for row in seen], device=device),
            choice=torch.tensor(choices, device=device),
            place=place if self.use_place else None,
            root=root and left_out == 0,
            before=max(left_out - int(root), 0),
        )
