"""Geometry and memory in one model: the match, two towers beside it, a zoom on top.

The match says how well what stands around the camera fits a place; the towers how much a place
looks like the photo, which they may know by heart. Both are log-likelihoods of cells and are
added up. The zoom corrects them: logit(child) = log of the belief in the child, given its parent,
+ f(photo, views and choices so far) (DESIGN 5.2); f is silent at first, so that it only learns
what the others cannot know. Knows nothing of cells, photos as files or search.
"""

from typing import Any

import torch
from torch import Tensor, nn

from zoomloc.errors import ConfigError
from zoomloc.model.match import MatchModel, MatchSpec
from zoomloc.model.towers import Towers, TowersSpec
from zoomloc.model.zoom import ZoomModel, ZoomSpec


class ResidualZoom(nn.Module):
    """A match, and what stands beside it and on it, where there is any.

    ``silent``: the share of photos for which f is left out in training, so that it never takes
    the place of the match. The match and f see photos through one encoder.
    """

    def __init__(
        self, match: MatchSpec, towers: TowersSpec | None, zoom: ZoomSpec | None, silent: float
    ) -> None:
        super().__init__()
        self.match = MatchModel(match)
        self.towers = None
        if towers is not None:
            _check_shrinks(match.photo_px, towers.photo_px)
            self.towers = Towers(towers)
        self.zoom = None
        if zoom is not None:
            if zoom.photo_crops != 1:
                raise ConfigError("model.photo_crops: the match sees photos whole; set it to 1")
            self.zoom = ZoomModel(zoom, self.match.photo_encoder)
            self.zoom.silence()
        self.silent = silent

    @property
    def photo_encoder(self) -> Any:
        """That of match and zoom."""
        return self.match.photo_encoder

    @property
    def view_encoder(self) -> Any:
        """That of the zoom's views, None without a zoom."""
        return None if self.zoom is None else self.zoom.view_encoder

    @property
    def further_encoders(self) -> tuple[Any, ...]:
        """Those of the towers."""
        towers = self.towers
        return () if towers is None else (towers.photo_encoder, towers.view_encoder)

    def heard(self, photos: Tensor) -> Tensor:
        """(B, 1) 1 for each photo whose f counts, 0 for those that it is left out for."""
        chance = torch.rand(len(photos), 1, device=photos.device)
        return (chance >= (self.silent if self.training else 0.0)).float()


def _check_shrinks(photo_px: tuple[int, int], towers_px: tuple[int, int]) -> None:
    """Raises ConfigError where the towers' photos are no whole part of the photos."""
    times = photo_px[0] // towers_px[0]
    if photo_px != tuple(times * px for px in towers_px):
        raise ConfigError(
            f"model.residual.towers_px {towers_px}: model.photo_px {photo_px} must be a whole "
            "number of times larger, the same for both sides"
        )
