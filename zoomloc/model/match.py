"""Bird's-eye matching: how well a photo fits every place and heading of a map (DESIGN 5.3).

Photo columns are azimuths. Each column says what stands at which distance; columns are gathered
into slices of azimuth, so that a photo is a fan of (slice, ring) bins. The map gives the same
bins round every place of a lattice. Turning the photo by one slice is then a shift of one index,
and matching all places and headings is one matrix product for each heading. Ring and slice after
CCVPE (arXiv 2303.05915) and SliceMatch; confidence by bin after OrienterNet (arXiv 2304.02009).

Knows nothing of cells, photos as files or search. Letters: B photos, N slices of the full
circle, F slices of a fan, Z rings, C channels, J places, H x W pixels of the map's features.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoomloc.model.encoders import EncoderSpec, PhotoTokens, build_encoder, check_pictures
from zoomloc.model.place import PlaceEmbedding

LAYERS = 3  # buildings, trees, paved ground: known of synthetic towns only
STRIDE = 2  # of the map's features against its picture
POOLED = ((12.0, 1), (30.0, 3), (math.inf, 5))  # rings up to so many metres read so wide a mean
LEAST_SHARE = 0.2  # a slice that the picture covers less says nothing


@dataclass(frozen=True)
class MatchSpec:
    """What the network is built from, in plain numbers; defaults live in ``MatchConfig``."""

    photo_px: tuple[int, int]  # width, height
    photo_encoder: EncoderSpec
    map_channels: tuple[int, int, int]
    gsd_m: float  # of the map's picture
    slices: int  # N
    rings_m: tuple[float, ...]
    channels: int  # C
    width: int  # of the column network
    descriptor: int  # E, of one vector for a photo and one for each place; 0: none
    memory: bool  # absolute place joins a place's vector


@dataclass(frozen=True)
class MapFeatures:
    """What the map shows: features (C, H, W) of length 1, how likely a photo is (H, W), and
    vectors (E, H/2, W/2) of wide surroundings, or None.
    """  # noqa: D205

    features: Tensor
    unary: Tensor
    wide: Tensor | None


@dataclass(frozen=True)
class Fans:
    """What photos show: features (B, F, Z, C) of length 1, how surely (B, F, Z), and one vector
    (B, E) for all of a photo, or None.
    """  # noqa: D205

    features: Tensor
    confidence: Tensor
    whole: Tensor | None


@dataclass(frozen=True)
class Lattice:
    """Places to compare with: bins (N, Z * C, J), unary (J,), vectors (J, E) or None."""

    bins: Tensor
    unary: Tensor
    wide: Tensor | None


class MatchModel(nn.Module):
    """A photo tower that makes fans, a map tower that makes features, and a temperature."""

    def __init__(self, spec: MatchSpec) -> None:
        super().__init__()
        self.spec = spec
        self.photo_encoder = build_encoder(spec.photo_encoder)
        check_pictures(self.photo_encoder, "photo_px", spec.photo_px)
        rows = spec.photo_px[1] // self.photo_encoder.stride
        self.columns = ColumnNet(
            self.photo_encoder.channels * rows, spec.width, len(spec.rings_m), spec.channels
        )
        self.map = MapNet(spec.map_channels, spec.channels, spec.descriptor)
        self.log_scale = nn.Parameter(torch.tensor(math.log(8.0)))
        self.layers = nn.Linear(spec.channels, LAYERS)  # what a feature says stands there
        self.whole = self.place = None
        if spec.descriptor:
            grid = (rows, self.column_count)
            self.whole = PhotoTokens(self.photo_encoder.channels, grid, 1, spec.descriptor, "grid")
            self.log_wide_scale = nn.Parameter(torch.tensor(math.log(10.0)))
            self.place = PlaceEmbedding(spec.descriptor) if spec.memory else None

    @property
    def feature_m(self) -> float:
        """Metres between the map's features."""
        return self.spec.gsd_m * STRIDE

    @property
    def column_count(self) -> int:
        """Columns of a photo's features, which ``slice_weights`` needs."""
        return self.spec.photo_px[0] // self.photo_encoder.stride

    def encode_photos(self, photos: Tensor, weights: Tensor) -> Fans:
        """(B, 3, h, w) in 0..1 and slice weights (B, F, w') -> what stands in each bin."""
        encoded = self.photo_encoder(photos)
        features, confidence = self.columns(encoded, weights)
        seen = (weights.sum(-1) > LEAST_SHARE)[..., None]  # (B, F, 1)
        whole = None if self.whole is None else _unit(self.whole(encoded)[:, 0])
        return Fans(_unit(features), confidence.float().sigmoid() * seen, whole)

    def encode_map(self, picture: Tensor) -> MapFeatures:
        """(3, h, w) of zero mean and unit deviation, ``gsd_m`` a pixel -> features."""
        features, unary, wide = self.map(picture[None])
        return MapFeatures(features[0], unary[0], None if wide is None else wide[0])

    def lattice(
        self,
        seen: MapFeatures,
        step: int,
        phase: tuple[int, int] = (0, 0),
        place: Tensor | None = None,
        kind: torch.dtype = torch.float32,
    ) -> Lattice:
        """Every ``step``-th place from ``phase`` (row, column) on, bins in a number format.

        place (J, 2): where the places lie in the region that was trained on, 0..1; None
        elsewhere, or to leave memory out.
        """
        unary = seen.unary[phase[0] :: step, phase[1] :: step]
        bins = self.bins(seen.features.to(kind), step, phase)
        if seen.wide is None:
            return Lattice(bins, unary.flatten(), None)
        rows, columns = (
            torch.arange(first, size, step, device=unary.device) // STRIDE
            for first, size in zip(phase, seen.unary.shape, strict=True)
        )
        wide = seen.wide[:, rows][:, :, columns].flatten(1).T
        if self.place is not None and place is not None:
            wide = wide + self.place(place[:, 0], place[:, 1])
        return Lattice(bins, unary.flatten(), _unit(wide))

    def compare(self, photos: Fans, places: Lattice) -> tuple[Tensor, Tensor]:
        """Matches (N, B, J), still to be scaled, and what is added to them for any heading:
        (1, J) or (B, J). All confidences of a photo have length 1 together, so that fans of
        every width score alike.
        """  # noqa: D205
        total = photos.confidence.square().sum((1, 2), keepdim=True).clamp(min=1e-6).sqrt()
        fans = (photos.features * (photos.confidence / total)[..., None]).flatten(2)
        match = correlate(fans.to(places.bins.dtype), places.bins)
        if photos.whole is None or places.wide is None:
            return match, places.unary[None]
        scale = self.log_wide_scale.clamp(max=math.log(64.0)).exp()
        return match, scale * photos.whole @ places.wide.T + places.unary

    def bins(self, features: Tensor, step: int, phase: tuple[int, int]) -> Tensor:
        """Features (C, H, W) -> (N, Z * C, J): bins round every ``step``-th place from ``phase``
        (row, column) on. What lies beyond the map counts nothing.
        """  # noqa: D205
        return polar_bins(features, self.spec, self.feature_m, step, phase)

    def scale(self) -> Tensor:
        """() what matches are multiplied by."""
        return self.log_scale.clamp(max=math.log(64.0)).exp()


class ColumnNet(nn.Module):
    """Columns of features -> bins over rings, gathered into slices."""

    def __init__(self, inputs: int, width: int, rings: int, channels: int) -> None:
        super().__init__()
        self.shape = rings, channels + 1
        self.mix = nn.Sequential(*_column_block(inputs, width, 1), *_column_block(width, width, 3))
        self.out = nn.Conv1d(width, rings * (channels + 1), 1)

    def forward(self, features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(B, c, h, w') and (B, F, w') -> (B, F, Z, C) and confidence (B, F, Z), not yet 0..1."""
        columns = self.out(self.mix(features.flatten(1, 2))).float()  # (B, Z (C + 1), w')
        bins = torch.einsum("bkw,bfw->bfk", columns, weights).unflatten(2, self.shape)
        return bins[..., :-1], bins[..., -1]


class MapNet(nn.Module):
    """A picture of the ground -> features at half its resolution, with wider context added."""

    def __init__(self, channels: tuple[int, int, int], out: int, wide: int) -> None:
        super().__init__()
        near, middle, far = channels
        self.near = nn.Sequential(*_block(3, near, 2), *_block(near, middle))
        self.far = nn.Sequential(
            *_block(middle, far, 2), *_block(far, far), *_block(far, far, dilation=2)
        )
        self.from_near, self.from_far = nn.Conv2d(middle, 48, 1), nn.Conv2d(far, 48, 1)
        self.out, self.unary = nn.Conv2d(48, out, 1), nn.Conv2d(48, 1, 1)
        self.wide = None
        if wide:  # reads some 60 m around
            self.wide = nn.Sequential(
                *_block(far, far, dilation=2),
                *_block(far, far, dilation=4),
                nn.Conv2d(far, wide, 1),
            )

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """(1, 3, h, w), sides multiples of 4 -> (1, C, h/2, w/2) of length 1, (1, h/2, w/2) and
        (1, E, h/4, w/4) or None.
        """  # noqa: D205
        near = self.near(picture.contiguous(memory_format=torch.channels_last))
        far = self.far(near)
        wide = None if self.wide is None else self.wide(far).float()
        far = self.from_far(far)
        far = F.interpolate(far, size=near.shape[-2:], mode="bilinear", align_corners=False)
        mixed = F.relu(self.from_near(near) + far)
        return _unit(self.out(mixed), 1), self.unary(mixed).float()[:, 0], wide


def _block(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


def _column_block(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    conv = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm1d(outputs), nn.ReLU()]


def _unit(vectors: Tensor, dim: int = -1) -> Tensor:
    return F.normalize(vectors.float(), dim=dim)


def slice_weights(
    fov_deg: Sequence[float] | np.ndarray,
    columns: int,
    slices: int,
    fan: int,
    round_: bool = False,
) -> Tensor:
    """(B, F, columns): share of each column in each slice of a fan of F slices.

    fov_deg: (B,) horizontal field of view of each photo. The middle slice looks where the photo
    looks. Columns of a perspective picture stand at atan(u tan(fov / 2)); those of a round
    (equirectangular) one evenly. A slice that the picture only grazes weighs less than 1 in all.
    """
    fine = 4  # points a column, so that borders of slices cut columns
    fov = torch.as_tensor(fov_deg, dtype=torch.float32)[:, None]
    across = (torch.arange(columns * fine) + 0.5) / (columns * fine) * 2 - 1  # -1..1
    half = torch.deg2rad(fov / 2)
    azimuth = across * half if round_ else torch.atan(across * torch.tan(half))
    width = 2 * math.pi / slices
    index = torch.round(azimuth / width).long() + fan // 2  # (B, columns * fine)
    inside = (index >= 0) & (index < fan)
    held = torch.zeros(len(fov), fan, columns * fine)
    held.scatter_(1, index.clamp(0, fan - 1)[:, None], inside[:, None].float())
    held = held.unflatten(2, (columns, fine)).sum(-1)
    count = held.sum(-1, keepdim=True)
    whole = columns * fine * math.degrees(width) / fov[:, :, None]  # points of a whole slice
    return held / torch.maximum(count, whole / 2).clamp(min=1e-6)


def fan_size(fov_deg: float, slices: int) -> int:
    """Slices, an odd number, that a field of view reaches into; all of them when round."""
    reach = math.ceil(fov_deg / 2 / (360 / slices) - 0.5)
    return min(2 * max(0, reach) + 1, slices)


def polar_bins(
    features: Tensor, spec: MatchSpec, feature_m: float, step: int, phase: tuple[int, int]
) -> Tensor:
    """Features (C, H, W) -> (N, Z * C, J): what lies in each bin round the places of a lattice.

    A bin is read at its middle, from a mean as wide as the bin; that is a shifted view of the
    padded map, so nothing is gathered. Slice n looks to bearing 360 n / N.
    """
    pad = math.ceil(max(spec.rings_m) / feature_m) + 1
    padded = [F.pad(mean_over(features, width), (pad, pad, pad, pad)) for _, width in POOLED]
    rows = len(range(phase[0], features.shape[1], step))
    columns = len(range(phase[1], features.shape[2], step))
    shifts = [
        Shift(
            pooled_as(ring_m),
            pad + phase[0] - round(ring_m * math.cos(turn) / feature_m),
            pad + phase[1] + round(ring_m * math.sin(turn) / feature_m),
        )
        for turn in (2 * math.pi * n / spec.slices for n in range(spec.slices))
        for ring_m in spec.rings_m
    ]
    bins = _Shifted.apply(shifts, (rows, columns, step), *padded)
    return bins.unflatten(0, (spec.slices, len(spec.rings_m))).flatten(3).flatten(1, 2)


def pooled_as(ring_m: float) -> int:
    """Which of POOLED a ring is read from."""
    return next(i for i, (most, _) in enumerate(POOLED) if ring_m <= most)


def lattice_m(count: int, first: int, step: int, feature_m: float) -> Tensor:
    """(count,) metres from the picture's edge to the middles of the lattice's features."""
    return (first + step * torch.arange(count) + 0.5) * feature_m


def look_of(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (3, 1, 1) that a picture (3, h, w) is brought to 0 and 1 with."""
    deviation, mean = torch.std_mean(picture, dim=(1, 2), keepdim=True)
    return mean, deviation + 0.05


class Shift(NamedTuple):
    """Which padded map a bin is read from, and its row and column for the first place."""

    source: int
    top: int
    left: int


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
    bottom, right = shift.top + (rows - 1) * step + 1, shift.left + (columns - 1) * step + 1
    return padded[:, shift.top : bottom : step, shift.left : right : step]


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


class _Correlate(torch.autograd.Function):
    """Fans against bins for every heading, without a copy of the overlapping blocks of bins."""

    @staticmethod
    def forward(ctx: Any, fans: Tensor, bins: Tensor) -> Tensor:
        fan, (slices, inner, places) = fans.shape[1], bins.shape
        before, after = fan // 2, (fan - 1) // 2
        circle = torch.cat([bins[slices - before :], bins, bins[:after]])  # (N + F - 1, K, J)
        flat = fans.flatten(1)
        out = flat.new_empty(slices, len(flat), places)
        for n in range(slices):
            torch.mm(flat, circle[n : n + fan].view(fan * inner, places), out=out[n])
        ctx.save_for_backward(flat, circle)
        ctx.fan = fan
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        flat, circle = ctx.saved_tensors
        fan, slices = ctx.fan, len(grad)
        inner, places = circle.shape[1:]
        to_fans = flat.new_zeros(flat.shape, dtype=torch.float32)
        to_circle = torch.zeros_like(circle)
        for n in range(slices):
            to_fans += grad[n] @ circle[n : n + fan].view(fan * inner, places).T
            to_circle[n : n + fan].view(fan * inner, places).addmm_(flat.T, grad[n])
        before, after = fan // 2, (fan - 1) // 2
        to_bins = to_circle[before : before + slices].clone()
        to_bins[slices - before :] += to_circle[:before]
        to_bins[:after] += to_circle[before + slices :]
        return to_fans.to(flat.dtype).view(len(flat), fan, inner), to_bins


def correlate(fans: Tensor, bins: Tensor) -> Tensor:
    """Fans (B, F, K) and bins (N, K, J) -> matches (N, B, J), heading n being 360 n / N degrees.

    The match of heading n is the sum over the fan's slices f of fan f times bin n + f - F // 2.
    """
    return _Correlate.apply(fans, bins)


class _RegionLoss(torch.autograd.Function):
    """Softmax over all places and headings in few passes over memory: it is most of a step."""

    @staticmethod
    def forward(
        ctx: Any, match: Tensor, scale: Tensor, added: Tensor, near: Tensor, log_weight: Tensor
    ) -> Tensor:
        logits = torch.addcmul(added[None], match.float(), scale)  # (N, B, J)
        own = logits.gather(2, near.expand(len(match), -1, -1)) + log_weight
        top = own.amax((0, 2), keepdim=True)
        weighed = (own - top).exp_()
        right = weighed.sum((0, 2), keepdim=True)
        peak = logits.amax((0, 2), keepdim=True)
        shares = logits.sub_(peak).exp_()
        total = shares.sum((0, 2), keepdim=True)
        ctx.save_for_backward(match, scale, shares, total, weighed / right, near)
        ctx.alike = len(added) == 1 and match.shape[1] > 1
        return (peak + total.log() - top - right.log()).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        match, scale, shares, total, right, near = ctx.saved_tensors
        slope = shares / total
        slope.scatter_add_(2, near.expand(len(match), -1, -1), -right)
        slope.mul_(grad / match.shape[1])
        to_added = slope.sum(0)
        if ctx.alike:  # for all photos
            to_added = to_added.sum(0, keepdim=True)
        narrow = slope.to(match.dtype)
        to_scale = (narrow.flatten() @ match.flatten()).float()
        return narrow.mul_(scale.to(narrow.dtype)), to_scale, to_added, None, None


def region_loss(
    match: Tensor, scale: Tensor, added: Tensor, near: Tensor, log_weight: Tensor
) -> Tensor:
    """Mean over photos of -log of the probability that lies near the truth.

    match (N, B, J), scale (), added (B or 1, J): logits are match * scale + added, their softmax
    runs over all places and headings. near (B, m): places near each photo's truth; log_weight
    (N, B, m): how much each of them, with each heading, counts as right. A region instead of a
    point forgives errors of position; a weight that is the same for all headings needs none
    (AutoCompass; methods.md 0.2).
    """
    return _RegionLoss.apply(match, scale, added, near[None], log_weight)
