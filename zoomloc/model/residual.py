"""The zoom on top of the match: what the map answers, corrected by what the zoom has learned.

logit(child) = log of the match's belief in the child, given its parent, + f(photo, views and
choices so far) (DESIGN 5.2). f is silent at first, so that the zoom begins as the match's own
posterior and only learns what the match cannot know: the memory of places. Knows nothing of
cells, photos as files or search.
"""

from typing import Any

import torch
from torch import Tensor, nn

from zoomloc.errors import ConfigError
from zoomloc.model.match import MatchModel, MatchSpec
from zoomloc.model.zoom import ZoomModel, ZoomSpec


class ResidualZoom(nn.Module):
    """A match and a zoom transformer that see photos through one encoder.

    ``silent``: the share of photos for which f is left out in training, so that it never takes
    the place of the match.
    """

    def __init__(self, match: MatchSpec, zoom: ZoomSpec, silent: float) -> None:
        super().__init__()
        if zoom.photo_crops != 1:
            raise ConfigError("model.photo_crops: the match sees photos whole; set it to 1")
        self.match = MatchModel(match)
        self.zoom = ZoomModel(zoom, self.match.photo_encoder)
        self.zoom.silence()
        self.silent = silent

    @property
    def photo_encoder(self) -> Any:
        """The encoder of both."""
        return self.match.photo_encoder

    @property
    def view_encoder(self) -> Any:
        """That of the zoom's views."""
        return self.zoom.view_encoder

    def heard(self, photos: Tensor) -> Tensor:
        """(B, 1) 1 for each photo whose f counts, 0 for those that it is left out for."""
        chance = torch.rand(len(photos), 1, device=photos.device)
        return (chance >= (self.silent if self.training else 0.0)).float()
