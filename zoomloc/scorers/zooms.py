"""The zoom transformer as a Scorer. Knows nothing of search or of answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoomloc.index import RegionViews
from zoomloc.model.precision import home_of
from zoomloc.model.zoom import Steps, Views, ZoomModel
from zoomloc.scorers.dense import log_softmax_over
from zoomloc.scorers.shown import ENCODE_AT_ONCE, Shown, as_tensor, encoded_photos
from zoomloc.world.cells import Cell, LatLng


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
    def start(self, photos: Sequence[Shown]) -> Tensor:
        """Photos -> photo tokens (B, P, D)."""
        return encoded_photos(self.model, photos)

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

    def evidence(self, state: Tensor) -> None:
        """Nothing is known of other ground."""
        return None

    def place_prior(self) -> None:
        """It knows nothing of places without a photo."""
        return None

    def sharpened(
        self, state: Tensor, photo: int, place: LatLng
    ) -> tuple[LatLng, float | None, float | None]:
        """Cells are all that is known."""
        return place, None, None

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
