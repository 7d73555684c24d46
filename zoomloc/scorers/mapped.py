"""The map's side of the match for a whole region, encoded in chunks that see around their edges.

Knows nothing of photos or scores.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zoomloc.ground import GroundMap, Window
from zoomloc.model.match import STRIDE, MapFeatures, MatchModel, look_of
from zoomloc.model.precision import home_of

CHUNK_PX = 1024  # of the map encoded at once, and what is seen around it
HALO_PX = 64


def encode_region(model: MatchModel, ground: GroundMap) -> MapFeatures:
    """Features of all of a region's map."""
    height, width = ground.shape_px
    mean, deviation = _look(ground)
    rows = [
        _joined(
            [
                _chunk(model, ground, left, top, mean, deviation)
                for left in range(0, width, CHUNK_PX)
            ],
            -1,
        )
        for top in range(0, height, CHUNK_PX)
    ]
    whole = _joined(rows, -2)
    tall, broad = math.ceil(height / STRIDE), math.ceil(width / STRIDE)
    return MapFeatures(whole.features[:, :tall, :broad], whole.unary[:tall, :broad], whole.wide)


def _chunk(
    model: MatchModel, ground: GroundMap, left: int, top: int, mean: Tensor, deviation: Tensor
) -> MapFeatures:
    height, width = ground.shape_px
    grid = 2 * STRIDE
    sides = [
        math.ceil((min(CHUNK_PX, most - at) + 2 * HALO_PX) / grid) * grid
        for most, at in ((width, left), (height, top))
    ]
    window = Window(left - HALO_PX, top - HALO_PX, *sides)
    picture = torch.from_numpy(ground.picture(window)).permute(2, 0, 1) / 255.0
    seen = model.encode_map(((picture - mean) / deviation).to(home_of(model)))
    return _without_edge(seen, HALO_PX // STRIDE, CHUNK_PX // STRIDE)


def _look(ground: GroundMap) -> tuple[Tensor, Tensor]:
    """Mean and deviation (3, 1, 1) of the region's colours, as training has them."""
    height, width = ground.shape_px
    side = min(max(height, width), 4 * CHUNK_PX)
    picture = ground.picture(Window(0, 0, min(side, width), min(side, height))) / 255.0
    return look_of(torch.from_numpy(picture).float().permute(2, 0, 1))


def _joined(parts: Sequence[MapFeatures], axis: int) -> MapFeatures:
    """Pieces side by side (axis -1) or one below the other (-2)."""
    wide = [part.wide for part in parts if part.wide is not None]
    return MapFeatures(
        torch.cat([part.features for part in parts], axis),
        torch.cat([part.unary for part in parts], axis),
        torch.cat(wide, axis) if wide else None,
    )


def _without_edge(seen: MapFeatures, edge: int, most: int) -> MapFeatures:
    """The inside of a chunk, at most so wide and high; edges lie on even numbers."""
    rows, columns = (slice(edge, min(edge + most, n - edge)) for n in seen.unary.shape)
    coarse = [slice(v.start // STRIDE, -(-v.stop // STRIDE)) for v in (rows, columns)]
    wide = None if seen.wide is None else seen.wide[:, coarse[0], coarse[1]]
    return MapFeatures(seen.features[:, rows, columns], seen.unary[rows, columns], wide)
