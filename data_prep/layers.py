"""What stands where in a synthetic town, as a pyramid of its own: layers.pmtiles.

Red is the share of buildings, green of trees and hedges, blue of paved ground, each 0 to 255.
Training may look at it (an auxiliary task); nothing that answers does. Knows nothing of models.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import rasterio

from data_prep.scene import (
    ASPHALT,
    BUILDING,
    CONIFER,
    HEDGE,
    MARKING,
    PAVING,
    TREE,
    TRUNK,
)
from data_prep.tiles import build_tiles

LAYERS_NAME = "layers.pmtiles"
LAYERS = ((BUILDING,), (TREE, CONIFER, TRUNK, HEDGE), (ASPHALT, PAVING, MARKING))


def build_layers(town: Path, out: Path, workers: int = 1) -> Path:
    """Write ``out/layers.pmtiles`` from a town's materials.tif; one that is there is kept.

    Raises ImageryError where the town has no such file, OutputError where the disk is full.
    """
    final = out / LAYERS_NAME
    if final.is_file():
        return final
    work = out / "layers.work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    _write_masks(town / "materials.tif", work / "layers.tif")
    build_tiles([work / "layers.tif"], work, "layers", image_format="png", workers=workers)
    os.replace(work / "imagery.pmtiles", final)
    shutil.rmtree(work)
    return final


def _write_masks(materials: Path, out: Path) -> None:
    """An RGB raster of the three masks, on the grid of the materials."""
    with rasterio.open(materials) as source:
        cover, profile = source.read(1), source.profile
    profile.update(count=3, dtype="uint8", compress="deflate")
    with rasterio.open(out, "w", **profile) as target:
        for band, codes in enumerate(LAYERS, 1):
            target.write(np.isin(cover, codes).astype(np.uint8) * 255, band)
