"""Photos as a network sees them: pixels of its own shape, and what is known of the camera.

Knows nothing of files or of networks' insides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoomloc.belief.priors import Heading
from zoomloc.model.precision import home_of

Pictures = npt.NDArray[np.uint8]
ENCODE_AT_ONCE = 128


@dataclass(frozen=True, eq=False)
class Shown:
    """One photo: ``picture`` (h, w, 3) uint8; the field of view of its width, where known.

    ``heading``: where its middle looks, where known; only a match makes use of it.
    """

    picture: Pictures
    fov_deg: float | None = None
    projection: str = "perspective"
    heading: Heading | None = None


def as_tensor(pictures: Sequence[Pictures], device: torch.device) -> Tensor:
    """Pictures (h, w, 3) uint8 of one shape -> (N, 3, h, w) floats in 0..1."""
    return torch.from_numpy(np.stack(pictures)).to(device).permute(0, 3, 1, 2).float() / 255.0


def encoded_photos(model: Any, photos: Sequence[Shown]) -> Tensor:
    """What a network makes of photos, a part of them at a time."""
    device = home_of(model)
    pictures = [photo.picture for photo in photos]
    return torch.cat(
        [
            model.encode_photos(as_tensor(pictures[start : start + ENCODE_AT_ONCE], device))
            for start in range(0, len(pictures), ENCODE_AT_ONCE)
        ]
    )
