"""Pictures to features and tokens; ``ENCODERS`` is the one place to swap encoders.

Knows nothing of cells, photos as files, or what the tokens are used for.

Letters: B photos, U distinct views, K children, P tokens of a photo, C channels, D width,
S side of a view in px, g side of a view's feature grid.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoomloc.errors import ConfigError


class TinyEncoder(nn.Module):
    """A small convolutional network from scratch: (N, 3, H, W) in 0..1 -> (N, C, H/8, W/8).

    Three stages halve the picture, further ones keep its size. Each picture is first brought
    to mean 0 and deviation 1 in each channel, so that exposure and white balance, which tell
    cameras and days apart but not places, are gone. No depthwise convolutions: on CPUs they
    are an order of magnitude slower than dense ones.
    """

    stride = 8

    def __init__(self, channels: Sequence[int], norm: str) -> None:
        super().__init__()
        if len(channels) < 3:
            raise ConfigError(f"tiny encoder: {len(channels)} channels; give at least 3 stages")
        stages: list[nn.Module] = []
        before = 3
        for stage, width in enumerate(channels):
            step = 2 if stage < 3 else 1
            stages += [nn.Conv2d(before, width, 3, step, 1), _norm(norm, width), nn.ReLU()]
            before = width
        self.stages = nn.Sequential(*stages)
        self.channels = before

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, C, h, w)."""
        deviation, mean = torch.std_mean(pictures, dim=(2, 3), keepdim=True)
        pictures = (pictures - mean) / (deviation + 0.05)
        features: Tensor = self.stages(pictures.contiguous(memory_format=torch.channels_last))
        return features


def _norm(name: str, width: int) -> nn.Module:
    """``batch`` learns fastest; ``group`` keeps every picture by itself, also in training."""
    if name == "batch":
        return nn.BatchNorm2d(width)
    return nn.GroupNorm(max(1, width // 8), width)


ENCODERS: dict[str, Callable[[Sequence[int], str], Any]] = {"tiny": TinyEncoder}


def build_encoder(name: str, channels: Sequence[int], norm: str = "batch") -> Any:
    """The encoder of that name: (N, 3, H, W) in 0..1 -> (N, channels, H/stride, W/stride).

    It offers ``.channels`` and ``.stride``. Raises ConfigError where the name is unknown.
    """
    if name not in ENCODERS:
        raise ConfigError(f"encoder {name!r} is unknown; known ones: {', '.join(ENCODERS)}")
    return ENCODERS[name](channels, norm)


class PhotoTokens(nn.Module):
    """Features of photos -> P tokens each: their mean, or a projection of the whole grid.

    The mean is what the paper's class token comes to; the grid keeps left and right, near
    and far apart, which a mean throws away (field.md 4.4).
    """

    def __init__(
        self, channels: int, grid: tuple[int, int], tokens: int, width: int, pooling: str
    ) -> None:
        super().__init__()
        self.tokens, self.pooling = tokens, pooling
        squeezed = min(32, channels)
        self.squeeze = nn.Conv2d(channels, squeezed, 1) if pooling == "grid" else nn.Identity()
        inputs = squeezed * grid[0] * grid[1] if pooling == "grid" else channels
        self.project = nn.Linear(inputs, tokens * width)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, P, D)."""
        if self.pooling == "mean":
            flat = features.mean(dim=(2, 3))
        else:
            flat = self.squeeze(features).flatten(1)
        return self.project(flat).unflatten(1, (self.tokens, -1))


class ViewTokens(nn.Module):
    """Features of views -> one pooled token each, and one token for each child.

    A view may carry a margin of context; a child's token is the mean of the features over
    the child's own square, weighted by overlap, so the grid need not divide by K.
    """

    pool: Tensor

    def __init__(
        self,
        channels: int,
        grid: int,
        side: int,
        margin: float,
        width: int,
        pooling: str,
        pointed: bool,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        squeezed = min(32, channels)
        self.squeeze = nn.Conv2d(channels, squeezed, 1) if pooling == "grid" else nn.Identity()
        inputs = squeezed * grid * grid if pooling == "grid" else channels
        self.whole = nn.Linear(inputs, width)
        self.child = nn.Linear(channels, width) if pointed else None
        self.register_buffer("pool", child_pooling(grid, side, margin), persistent=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """(U, C, g, g) -> (U, D) and, where a head points at children, (U, K, D)."""
        if self.pooling == "mean":
            flat = features.mean(dim=(2, 3))
        else:
            flat = self.squeeze(features).flatten(1)
        if self.child is None:
            return self.whole(flat), None
        pooled = torch.einsum("kp,ucp->ukc", self.pool.to(features.dtype), features.flatten(2))
        return self.whole(flat), self.child(pooled)


def child_pooling(grid: int, side: int, margin: float) -> Tensor:
    """(K, g*g) weights that average a view's feature grid over each of its side x side children.

    ``margin`` is the context around the cell, as a share of the cell's side.
    """
    edges = (margin + torch.arange(side + 1) / side) / (1 + 2 * margin) * grid  # child borders
    pixels = torch.arange(grid)
    overlap = torch.minimum(edges[1:, None], pixels + 1.0) - torch.maximum(
        edges[:-1, None], pixels.float()
    )
    axis = overlap.clamp(min=0)  # (side, g)
    axis = axis / axis.sum(1, keepdim=True)
    return torch.einsum("ij,kl->ikjl", axis, axis).reshape(side * side, grid * grid)
