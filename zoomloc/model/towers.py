"""Two towers: photos and crops of the map as vectors that meet where they belong together.

One head for each depth of the quadtree, counted upwards from the terminal cells: with one head
this is image retrieval (Sample4Geo, arXiv 2303.11851), with several it is matching by levels
(GeoMoE, arXiv 2608.01060, without experts and re-ranker). Knows nothing of cells or files.

Letters: B photos, U crops, H heads, E width of the vectors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoomloc.model.encoders import (
    EncoderSpec,
    PhotoTokens,
    ViewTokens,
    build_encoders,
    check_pictures,
    photo_features,
    rebuildable,
    shrunk,
)

HOTTEST, COLDEST = 0.2, 0.01  # a learned temperature stays between (methods.md 2.1)


@dataclass(frozen=True)
class TowersSpec:
    """What the network is built from, in plain numbers; defaults live in ``TowersConfig``."""

    photo_px: tuple[int, int]  # width, height
    view_px: int
    photo_encoder: EncoderSpec
    view_encoder: EncoderSpec
    shared_encoder: bool
    photo_crops: int
    pooling: str  # mean | grid | class
    width: int  # E
    depths: int  # H
    temperature: float
    learned_temperature: bool


class Towers(nn.Module):
    """A photo tower, a map tower and a temperature for each head.

    ``spec`` builds the same network again, without the source of pretrained weights.
    """

    def __init__(self, spec: TowersSpec) -> None:
        super().__init__()
        self.photo_encoder, self.view_encoder = build_encoders(
            spec.photo_encoder, spec.view_encoder, spec.shared_encoder
        )
        self.spec = replace(
            spec,
            photo_encoder=rebuildable(spec.photo_encoder, self.photo_encoder),
            view_encoder=rebuildable(spec.view_encoder, self.view_encoder),
        )
        check_pictures(self.photo_encoder, "photo_px", spec.photo_px, spec.photo_crops)
        check_pictures(self.view_encoder, "view_px", (spec.view_px,))
        stride = self.photo_encoder.stride
        grid = (spec.photo_px[1] // stride, spec.photo_px[0] // stride)
        self.photo_tokens = PhotoTokens(
            self.photo_encoder.channels, grid, spec.depths, spec.width, spec.pooling
        )
        side = spec.view_px // self.view_encoder.stride
        self.view_tokens = nn.ModuleList(
            ViewTokens(
                self.view_encoder.channels, side, 2, 0.0, spec.width, spec.pooling, pointed=False
            )
            for _ in range(spec.depths)
        )
        cold = torch.full((spec.depths,), -math.log(spec.temperature))
        self.log_scale = nn.Parameter(cold, requires_grad=spec.learned_temperature)

    def encode_photos(self, photos: Tensor) -> Tensor:
        """(B, 3, h, w) in 0..1 -> (B, H, E) of length 1."""
        photos = shrunk(photos, self.spec.photo_px)
        features = photo_features(self.photo_encoder, photos, self.spec.photo_crops)
        return F.normalize(self.photo_tokens(features).float(), dim=-1)

    def encode_views(self, views: Tensor, heads: Sequence[tuple[int, int]]) -> list[Tensor]:
        """(U, 3, S, S) in 0..1 -> for each (head, count), in turn, (count, E) of length 1.

        All crops go through the encoder together, so that batch norm sees one mixture.
        """
        parts = self.view_encoder(views).split([count for _, count in heads])
        pooled = [self.view_tokens[h](part)[0] for (h, _), part in zip(heads, parts, strict=True)]
        return [F.normalize(vectors.float(), dim=-1) for vectors in pooled]

    def scale(self, head: int) -> Tensor:
        """() what cosines are multiplied by: one over the temperature."""
        return self.log_scale[head].clamp(-math.log(HOTTEST), -math.log(COLDEST)).exp()
