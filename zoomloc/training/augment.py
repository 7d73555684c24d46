"""Random changes to training pictures: other light, another frame, something in the way.

Knows nothing of places: no change here moves what is right of the picture's middle to its
left, so bearings stay true up to the shift. Works on whole batches.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoomloc.config import AugmentConfig


def augment_photos(photos: Tensor, plan: AugmentConfig) -> Tensor:
    """(B, 3, h, w) uint8 -> floats in about 0..1 of the same shape."""
    changed = _recoloured(photos, plan.photo_colour)
    changed = _reframed(changed, plan.photo_shift, plan.photo_scale)
    return _noisy(_erased(changed, plan.photo_erase), plan.photo_noise)


def augment_views(views: Tensor, plan: AugmentConfig) -> Tensor:
    """(U, 3, S, S) uint8 -> floats in about 0..1 of the same shape."""
    return _noisy(_recoloured(views, plan.view_colour), plan.view_noise)


def _reframed(pictures: Tensor, shift: float, scale: float) -> Tensor:
    """Shift sideways and magnify at random, as another lens or another heading would."""
    if not (shift or scale):
        return pictures
    count = len(pictures)
    theta = torch.zeros(count, 2, 3)
    zoom = 1 + scale * (2 * torch.rand(count) - 1)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, 0, 2] = 2 * shift * (2 * torch.rand(count) - 1)
    theta[:, 1, 2] = shift * (2 * torch.rand(count) - 1)
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def _recoloured(pictures: Tensor, strength: float) -> Tensor:
    """Gamma, contrast, brightness and white balance of each uint8 picture, as floats in 0..1.

    All four depend on a pixel's value alone, so 256 values a channel are worked out and looked
    up: many times faster on a CPU than a power for each pixel.
    """
    count = len(pictures)
    value = torch.arange(256) / 255.0
    if strength:
        gamma = torch.exp(strength * torch.randn(count, 1, 1))
        contrast = torch.exp(0.7 * strength * torch.randn(count, 1, 1))
        shift = 0.3 * strength * (torch.randn(count, 1, 1) + 0.5 * torch.randn(count, 3, 1))
        table = (0.45 + (value.expand(count, 3, 256) ** gamma - 0.45) * contrast + shift).clamp(
            0, 1
        )
    else:
        table = value.expand(count, 3, 256)
    flat = pictures.flatten(2).long()  # (N, 3, pixels)
    return torch.gather(table, 2, flat).view(pictures.shape)


def _erased(pictures: Tensor, chance: float) -> Tensor:
    """One grey box in some pictures, as a passing car or van."""
    if not chance:
        return pictures
    count, _, height, width = pictures.shape
    middle = torch.rand(count, 2, 1)
    half = (0.05 + 0.15 * torch.rand(count, 2, 1)) * (torch.rand(count, 1, 1) < chance)
    rows = (torch.arange(height) / height - middle[:, 0]).abs() < half[:, 0]  # (B, h)
    columns = (torch.arange(width) / width - middle[:, 1]).abs() < half[:, 1]
    box = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(box, torch.rand(count, 1, 1, 1), pictures)


def _noisy(pictures: Tensor, strength: float) -> Tensor:
    return pictures + strength * torch.randn_like(pictures) if strength else pictures
