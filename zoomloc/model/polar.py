"""Polar bins: columns of a photo as slices of azimuth, and what a map holds round its places.

A bin is one slice of azimuth at one ring of distance. Ring and slice after CCVPE (arXiv
2303.05915) and SliceMatch. Knows nothing of networks. Letters: B photos, N slices of the full
circle, F slices of a fan, Z rings, C channels, J places, H x W pixels of the map's features.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

POOLED = ((12.0, 1), (30.0, 3), (math.inf, 5))  # rings up to so many metres read so wide a mean


class Rings(NamedTuple):
    """How the circle round a place is divided."""

    slices: int  # N
    rings_m: tuple[float, ...]
    feature_m: float  # between the map's features

    @property
    def pad(self) -> int:
        """Features that the outermost bins reach beyond a place."""
        return math.ceil(max(self.rings_m) / self.feature_m) + 1


class Shift(NamedTuple):
    """Which mean a bin is read from, and how many rows down and columns right of its place."""

    source: int
    down: int
    right: int


@lru_cache(8)  # asked for at every comparison, of one network
def offsets(rings: Rings) -> tuple[Shift, ...]:
    """For each slice and ring: which of POOLED is read, and how far off the place."""
    return tuple(
        Shift(
            pooled_as(ring_m),
            -round(ring_m * math.cos(turn) / rings.feature_m),
            round(ring_m * math.sin(turn) / rings.feature_m),
        )
        for turn in (2 * math.pi * n / rings.slices for n in range(rings.slices))
        for ring_m in rings.rings_m
    )


def slice_weights(
    fov_deg: Sequence[float] | np.ndarray,
    columns: int,
    slices: int,
    fan: int,
    round_: bool = False,
    share: Sequence[float] | np.ndarray | float = 1.0,
    off_deg: Sequence[float] | np.ndarray | float = 0.0,
) -> Tensor:
    """(B, F, columns): share of each column in each slice of a fan of F slices.

    fov_deg: (B,) horizontal field of view of each photo; share: how much of the picture's width
    it fills, between bars at both sides, which say nothing. The middle slice looks where the
    photo looks, or ``off_deg`` to the left of that. Columns of a perspective picture stand at
    atan(u tan(fov / 2)); those of a round (equirectangular) one evenly. A slice that the picture
    only grazes weighs less than 1 in all.
    """
    fine = 4  # points a column, so that borders of slices cut columns
    fov = torch.as_tensor(fov_deg, dtype=torch.float32)[:, None]
    filled = torch.as_tensor(share, dtype=torch.float32).expand(len(fov))[:, None]
    across = (torch.arange(columns * fine) + 0.5) / (columns * fine) * 2 - 1  # -1..1
    across = across / filled  # beyond 1: a bar
    half = torch.deg2rad(fov / 2)
    azimuth = across * half if round_ else torch.atan(across * torch.tan(half))
    width = 2 * math.pi / slices
    off = torch.deg2rad(torch.as_tensor(off_deg, dtype=torch.float32).expand(len(fov)))[:, None]
    index = torch.round((azimuth + off) / width).long() + fan // 2  # (B, columns * fine)
    if fan == slices:  # a whole circle: its last half slice is the other half of the first
        index = index % slices
    inside = (index >= 0) & (index < fan) & (across.abs() <= 1)
    held = torch.zeros(len(fov), fan, columns * fine)
    held.scatter_(1, index.clamp(0, fan - 1)[:, None], inside[:, None].float())
    held = held.unflatten(2, (columns, fine)).sum(-1)
    count = held.sum(-1, keepdim=True)
    whole = (columns * fine * filled * math.degrees(width) / fov)[..., None]  # of a whole slice
    return held / torch.maximum(count, whole / 2).clamp(min=1e-6)


def fan_size(fov_deg: float, slices: int) -> int:
    """Slices, an odd number, that a field of view reaches into; all of them when round."""
    reach = math.ceil(fov_deg / 2 / (360 / slices) - 0.5)
    return min(2 * max(0, reach) + 1, slices)


Exact = tuple[Tensor, Tensor]  # rows and columns (j,) of single features


def polar_bins(
    features: Tensor,
    rings: Rings,
    step: int,
    phase: tuple[int, int],
    exact: Exact | None = None,
) -> Tensor:
    """Features (C, H, W) -> (N, Z * C, J): bins round every ``step``-th place from ``phase`` on.

    After them those round single features, where ``exact`` names some.

    A bin is read at its middle, from a mean as wide as the bin; that is a shifted view of the
    padded map, so nothing is gathered. Slice n looks to bearing 360 n / N. What lies beyond the
    map counts nothing.
    """
    padded = _padded(features, rings)
    rows = len(range(phase[0], features.shape[1], step))
    columns = len(range(phase[1], features.shape[2], step))
    top, left = rings.pad + phase[0], rings.pad + phase[1]
    shifts = [Shift(s.source, top + s.down, left + s.right) for s in offsets(rings)]
    bins = _Shifted.apply(shifts, (rows, columns, step), *padded).flatten(2)  # (N Z, C, J)
    if exact is not None:
        bins = torch.cat([bins, _single(padded, rings, exact)], 2)
    return bins.unflatten(0, (rings.slices, len(rings.rings_m))).flatten(1, 2)


def _single(padded: Sequence[Tensor], rings: Rings, exact: Exact) -> Tensor:
    """(N * Z, C, j) bins round single features of padded maps (C, H', W')."""
    wanted = offsets(rings)
    rows, columns = exact
    out = padded[0].new_zeros(len(wanted), len(padded[0]), len(rows))
    for source, one in enumerate(padded):
        chosen = [i for i, shift in enumerate(wanted) if shift.source == source]
        width = one.shape[2]
        shifts = [wanted[i].down * width + wanted[i].right for i in chosen]
        place = (rows + rings.pad) * width + columns + rings.pad
        index = torch.tensor(shifts, dtype=torch.long, device=rows.device)[:, None] + place
        found = one.flatten(1).index_select(1, index.flatten()).unflatten(1, index.shape)
        at = torch.tensor(chosen, dtype=torch.long, device=rows.device)
        out = out.index_copy(0, at, found.transpose(0, 1))
    return out


class Means(NamedTuple):
    """A map ready to be read anywhere: each of POOLED, padded, as (H', W', C)."""

    maps: tuple[Tensor, ...]
    pad: int


def means_of(features: Tensor) -> list[Tensor]:
    """Features (C, H, W) -> each of POOLED as (H, W, C), not yet padded."""
    return [mean_over(features, width).permute(1, 2, 0) for _, width in POOLED]


def bins_at(means: Means, rings: Rings, rows: Tensor, columns: Tensor) -> Tensor:
    """Bins (N, Z * C, J) round any places (J,), the same as ``polar_bins`` has there.

    They come in the number format of the means.
    """
    wanted = offsets(rings)
    channels = means.maps[0].shape[2]
    found = means.maps[0].new_empty(len(wanted), len(rows), channels)
    for source, one in enumerate(means.maps):
        chosen = [i for i, shift in enumerate(wanted) if shift.source == source]
        if not chosen:
            continue
        shifts = [wanted[i].down * one.shape[1] + wanted[i].right for i in chosen]
        place = (rows + means.pad) * one.shape[1] + columns + means.pad
        index = torch.tensor(shifts, device=rows.device)[:, None] + place
        found[chosen] = one.view(-1, channels)[index]
    found = found.unflatten(0, (rings.slices, -1)).transpose(2, 3)  # (N, Z, C, J)
    return found.flatten(1, 2)


def _padded(features: Tensor, rings: Rings) -> list[Tensor]:
    """Each of POOLED of a map, with zeros around it."""
    return [F.pad(mean_over(features, width), (rings.pad,) * 4) for _, width in POOLED]


def pooled_as(ring_m: float) -> int:
    """Which of POOLED a ring is read from."""
    return next(i for i, (most, _) in enumerate(POOLED) if ring_m <= most)


def lattice_m(count: int, first: int, step: int, feature_m: float) -> Tensor:
    """(count,) metres from the picture's edge to the middles of the lattice's features."""
    return (first + step * torch.arange(count) + 0.5) * feature_m


class _Shifted(torch.autograd.Function):
    """Shifted views of maps, stacked; autograd's own would make a whole map for each of them."""

    @staticmethod
    def forward(
        ctx: Any, shifts: list[Shift], lattice: tuple[int, int, int], *maps: Tensor
    ) -> Tensor:
        rows, columns, _ = lattice
        out = maps[0].new_empty(len(shifts), len(maps[0]), rows, columns)
        for into, shift in zip(out, shifts, strict=True):
            into.copy_(_lattice_of(maps[shift.source], shift, lattice))
        ctx.shifts, ctx.lattice, ctx.shapes = shifts, lattice, [m.shape for m in maps]
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        into = [grad.new_zeros(shape) for shape in ctx.shapes]
        for one, shift in zip(grad, ctx.shifts, strict=True):
            _lattice_of(into[shift.source], shift, ctx.lattice).add_(one)
        return None, None, *into


def _lattice_of(padded: Tensor, shift: Shift, lattice: tuple[int, int, int]) -> Tensor:
    """(C, rows, columns) view of a map: every ``step``-th place from a shift on."""
    rows, columns, step = lattice
    bottom, right = shift.down + (rows - 1) * step + 1, shift.right + (columns - 1) * step + 1
    return padded[:, shift.down : bottom : step, shift.right : right : step]


def mean_over(features: Tensor, width: int) -> Tensor:
    """Mean over width x width (odd) places, as sums of shifted maps: quicker than pooling."""
    if width == 1:
        return features
    half = width // 2
    for axis in (1, 2):
        around = (half, half) if axis == 2 else (0, 0, half, half)
        padded = F.pad(features, around)
        length = features.shape[axis]
        features = sum(padded.narrow(axis, i, length) for i in range(width)) / width  # type: ignore[assignment]
    return features
