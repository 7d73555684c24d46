"""Layers of a synthetic town: the shares of what stands there, on the town's own ground."""

import numpy as np
import rasterio

from data_prep.layers import build_layers
from data_prep.scene import BUILDING
from data_prep.town import PhotoPlan, build_town
from zoomloc.world.pyramid import TilePyramid


def test_layers_lie_where_the_town_has_its_buildings(tmp_path):
    town = tmp_path / "town"
    build_town(town, 3, 200.0, PhotoPlan(0, 0))
    path = build_layers(town, tmp_path)
    with rasterio.open(town / "materials.tif") as source:
        cover = source.read(1)
    share = (cover == BUILDING).mean()
    with TilePyramid.open(path) as pyramid:
        cells = pyramid.cells(pyramid.max_level)
        tiles = [pyramid.tile(cell) for cell in cells]
        covered = np.concatenate([t[t[..., 3] > 0][:, 0] for t in tiles])
        assert abs((covered / 255.0).mean() - share) < 0.03 and share > 0.02
    before = path.stat().st_mtime_ns
    assert build_layers(town, tmp_path).stat().st_mtime_ns == before  # kept
    assert not (tmp_path / "layers.work").exists()
