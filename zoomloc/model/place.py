"""Absolute place as a vector, for what is to remember one region; knows nothing of maps."""

import torch
from torch import Tensor, nn

PLACE_OCTAVES = 9  # periods from twice the region's side to 1/128 of it, a cell or so in a town


class PlaceEmbedding(nn.Module):
    """Absolute place within the region: waves of x and y, through a small network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Linear(4 * PLACE_OCTAVES, width), nn.GELU(), nn.Linear(width, width)
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(...) in 0..1 -> (..., D); NaN places (dropped ones) give zero."""
        octaves = torch.pi * 2.0 ** torch.arange(PLACE_OCTAVES, device=x.device)
        angles = torch.stack([x, y], -1).float()[..., None] * octaves  # (..., 2, octaves)
        known = torch.isfinite(x)[..., None]
        angles = torch.nan_to_num(angles).flatten(-2)
        return self.mix(torch.cat([angles.sin(), angles.cos()], -1)) * known
