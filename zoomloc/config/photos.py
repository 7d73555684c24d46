"""What a config says of photos: where they come from and how they are divided.

Knows nothing of imagery, models or of how a config is read.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from zoomloc.config.base import Section


class TownConfig(Section):
    """The synthetic town that `zoomloc town` and `zoomloc demo` build."""

    seed: int = 1
    size_m: float = 720.0
    train_photos: int = Field(10_000, ge=1)
    test_photos: int = Field(1_000, ge=1)
    width_px: int = Field(256, ge=32)
    height_px: int = Field(128, ge=32)
    nuisances: bool = True  # other seasons, blur, passers-by, errors of position
    scattered: bool = False  # photos at random points of the roads instead of on drives


class PhotosConfig(Section):
    """From a folder of photos to the photo table."""

    folder: Path | None = None
    licence: str = ""
    creator: str = ""
    default_position_error_m: float = Field(5.0, gt=0)


class SplitConfig(Section):
    """How photos are divided into train, val and test."""

    by: Literal["sequence", "block", "image", "region"] = "sequence"
    val: float = Field(0.1, ge=0, lt=1)
    test: float = Field(0.1, ge=0, lt=1)
    newest_test: bool = False  # the drives of the last day become the test split
    seed: int = 0
