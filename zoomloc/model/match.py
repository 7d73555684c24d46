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
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoomloc.model.correlation import correlate
from zoomloc.model.encoders import EncoderSpec, PhotoTokens, build_encoder, check_pictures
from zoomloc.model.place import PlaceEmbedding
from zoomloc.model.polar import Exact, Means, Rings, bins_at, polar_bins

LAYERS = 3  # buildings, trees, paved ground: known of synthetic towns only
STRIDE = 2  # of the map's features against its picture
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
    ensemble: bool  # answers are means over what training turned and mirrored
    turn: bool
    mirror: bool

    @property
    def rings(self) -> Rings:
        """The bins round a place."""
        return Rings(self.slices, self.rings_m, self.gsd_m * STRIDE)


@dataclass(frozen=True)
class MapFeatures:
    """What the map shows: features (C, H, W), the longer the surer, how likely a photo is (H, W),
    and vectors (E, H/2, W/2) of wide surroundings, or None.
    """  # noqa: D205

    features: Tensor
    unary: Tensor
    wide: Tensor | None


@dataclass(frozen=True)
class MapIndex:
    """What the map shows, ready to be read round any place: the means of its features, how likely
    a photo is (H, W), and vectors (H/2, W/2, E) or None.
    """  # noqa: D205

    means: Means
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
        """(B, 3, h, w) in 0..1 and slice weights (B, F, w') -> what stands in each bin.

        The mean of what the photos and their mirror images say, where training mirrored.
        """
        columns, whole = self._said(self.photo_encoder(photos))
        if self.spec.ensemble and self.spec.mirror:
            other, other_whole = self._said(self.photo_encoder(photos.flip(-1)))
            columns = (columns + other.flip(-1)) / 2
            whole = None if whole is None or other_whole is None else whole + other_whole
        return self._gathered(columns, whole, weights)

    def fans(self, encoded: Tensor, weights: Tensor) -> Fans:
        """What the photo encoder made of photos, and slice weights -> what stands in each bin."""
        return self._gathered(*self._said(encoded), weights)

    def _said(self, encoded: Tensor) -> tuple[Tensor, Tensor | None]:
        """Columns (B, Z (C + 1), w'), and (B, E) of length 1 for all of a photo, or None."""
        whole = None if self.whole is None else _unit(self.whole(encoded)[:, 0])
        return self.columns(encoded), whole

    def _gathered(self, columns: Tensor, whole: Tensor | None, weights: Tensor) -> Fans:
        """Columns in the slices that they lie in, by weights (B, F, w')."""
        bins = torch.einsum("bkw,bfw->bfk", columns, weights)
        bins = bins.unflatten(2, (len(self.spec.rings_m), -1))  # (B, F, Z, C + 1)
        seen = (weights.sum(-1) > LEAST_SHARE)[..., None]  # (B, F, 1)
        confidence = bins[..., -1].sigmoid() * seen
        return Fans(_unit(bins[..., :-1]), confidence, None if whole is None else _unit(whole))

    def survey(self, picture: Tensor) -> MapFeatures:
        """As ``encode_map``: the mean over all quarter turns and mirror images that training
        showed, each turned back.
        """  # noqa: D205
        turns = range(4 if self.spec.ensemble and self.spec.turn else 1)
        mirrors = (False, True) if self.spec.ensemble and self.spec.mirror else (False,)
        ways = [
            self._seen_so(picture, quarters, mirrored) for quarters in turns for mirrored in mirrors
        ]
        wide = [way.wide for way in ways if way.wide is not None]
        return MapFeatures(
            torch.stack([way.features for way in ways]).mean(0),
            torch.stack([way.unary for way in ways]).mean(0),
            torch.stack(wide).mean(0) if wide else None,
        )

    def _seen_so(self, picture: Tensor, quarters: int, mirrored: bool) -> MapFeatures:
        """What is seen of a map laid on its side or mirrored, as if it lay straight."""
        shown = picture.flip(-1) if mirrored else picture
        seen = self.encode_map(shown.rot90(quarters, (-2, -1)))

        def back(one: Tensor) -> Tensor:
            turned = one.rot90(-quarters, (-2, -1))
            return turned.flip(-1) if mirrored else turned

        wide = None if seen.wide is None else back(seen.wide)
        return MapFeatures(back(seen.features), back(seen.unary), wide)

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
        exact: Exact | None = None,
    ) -> Lattice:
        """Every ``step``-th place from ``phase`` (row, column) on, bins in a number format.

        After them single features, where ``exact`` (rows, columns) names some. place (J, 2):
        where all these lie in the region that was trained on, 0..1; None elsewhere, or to leave
        memory out.
        """
        bins = polar_bins(seen.features.to(kind), self.spec.rings, step, phase, exact)
        down, across = (
            torch.arange(first, size, step, device=seen.unary.device)
            for first, size in zip(phase, seen.unary.shape, strict=True)
        )
        rows, columns = down.repeat_interleave(len(across)), across.repeat(len(down))
        if exact is not None:
            rows, columns = torch.cat([rows, exact[0]]), torch.cat([columns, exact[1]])
        unary = seen.unary[rows, columns]
        if seen.wide is None:
            return Lattice(bins, unary, None)
        wide = seen.wide[:, rows // STRIDE, columns // STRIDE].T
        return Lattice(bins, unary, self._placed(wide, place))

    def lattice_at(
        self,
        index: MapIndex,
        rows: Tensor,
        columns: Tensor,
        place: Tensor | None = None,
        kind: torch.dtype = torch.float32,
    ) -> Lattice:
        """Any places (J,), by row and column of the map's features."""
        bins = bins_at(index.means, self.spec.rings, rows, columns).to(kind)
        unary = index.unary[rows, columns]
        if index.wide is None:
            return Lattice(bins, unary, None)
        wide = index.wide[rows // STRIDE, columns // STRIDE].float()
        return Lattice(bins, unary, self._placed(wide, place))

    def _placed(self, wide: Tensor, place: Tensor | None) -> Tensor:
        """Vectors (J, E) of length 1, absolute place taken in where it is known."""
        if self.place is not None and place is not None:
            wide = wide + self.place(place[:, 0], place[:, 1])
        return _unit(wide)

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

    def scale(self) -> Tensor:
        """() what matches are multiplied by."""
        return self.log_scale.clamp(max=math.log(64.0)).exp()


class ColumnNet(nn.Module):
    """Columns of features -> what stands along them: bins over rings."""

    def __init__(self, inputs: int, width: int, rings: int, channels: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(*_column_block(inputs, width, 1), *_column_block(width, width, 3))
        self.out = nn.Conv1d(width, rings * (channels + 1), 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, c, h, w') -> (B, Z (C + 1), w'): for each ring C numbers and how sure they are."""
        columns: Tensor = self.out(self.mix(features.flatten(1, 2)))
        return columns.float()


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
        """(1, 3, h, w), sides multiples of 4 -> (1, C, h/2, w/2), (1, h/2, w/2) and
        (1, E, h/4, w/4) or None.
        """  # noqa: D205
        near = self.near(picture.contiguous(memory_format=torch.channels_last))
        far = self.far(near)
        wide = None if self.wide is None else self.wide(far).float()
        far = self.from_far(far)
        far = F.interpolate(far, size=near.shape[-2:], mode="bilinear", align_corners=False)
        mixed = F.relu(self.from_near(near) + far)
        return self.out(mixed).float(), self.unary(mixed).float()[:, 0], wide


def _block(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


def _column_block(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    conv = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm1d(outputs), nn.ReLU()]


def _unit(vectors: Tensor, dim: int = -1) -> Tensor:
    return F.normalize(vectors.float(), dim=dim)


def look_of(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (3, 1, 1) that a picture (3, h, w) is brought to 0 and 1 with."""
    deviation, mean = torch.std_mean(picture, dim=(1, 2), keepdim=True)
    return mean, deviation + 0.05
