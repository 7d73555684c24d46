"""The bird's-eye match as a Scorer: every place of a lattice, every heading.

Knows nothing of search or of answers. Letters: B photos, N headings, J places of the lattice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from zoomloc.ground import GroundMap, Window
from zoomloc.index import RegionViews
from zoomloc.model.match import (
    STRIDE,
    Fans,
    MapFeatures,
    MatchModel,
    fan_size,
    lattice_m,
    look_of,
    slice_weights,
)
from zoomloc.model.precision import home_of, number_format
from zoomloc.scorers.dense import DenseScorer, DenseState, summed_up
from zoomloc.scorers.shown import Shown, as_tensor
from zoomloc.world.cells import Floats, LatLng

PLACE_M = 8.0  # between the places that are searched
AT_ONCE = 32  # photos
PLACES_AT_ONCE = 1 << 14
FOVS_DEG = (50.0, 65.0, 80.0, 95.0)  # tried where a photo does not tell
CHUNK_PX = 1024  # of the map encoded at once, and what is seen around it
HALO_PX = 64
SHARPEN_M = 24.0  # around an answer, where place and heading are worked out finely
FLOOR = -60.0  # against the best place of a photo


@dataclass
class MatchState(DenseState):
    """Scores of all cells, and the photos for a closer look."""

    photos: Sequence[Shown]


@dataclass
class MatchScorer(DenseScorer):
    """A MatchModel over a region; the map is encoded once."""

    model: MatchModel
    views: RegionViews
    use_memory: bool = False
    _map: MapFeatures | None = field(default=None, repr=False)
    _ground: GroundMap = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._ground = GroundMap(self.views, self.model.spec.gsd_m)

    @torch.inference_mode()
    def start(self, photos: Sequence[Shown]) -> MatchState:
        """Photos -> log-likelihoods of all terminal cells, summed over headings and places."""
        leaves = [
            self._leaves(photos[start : start + AT_ONCE])
            for start in range(0, len(photos), AT_ONCE)
        ]
        return MatchState(summed_up(np.concatenate(leaves), self.views.region), photos)

    @torch.inference_mode()
    def sharpened(
        self, state: MatchState, photo: int, place: LatLng
    ) -> tuple[LatLng, float, float]:
        """A place near ``place`` that fits best, the bearing there and its spread, in degrees."""
        seen = self.map_features()
        px = self._ground.px_of(np.array([place.lat]), np.array([place.lng]))[0] / STRIDE
        reach = math.ceil(SHARPEN_M / self.model.feature_m)
        pad = reach + math.ceil(max(self.model.spec.rings_m) / self.model.feature_m) + 2
        top, left = round(px[1] - 0.5) - pad, round(px[0] - 0.5) - pad
        top, left = top // STRIDE * STRIDE, left // STRIDE * STRIDE
        patch = _cut(seen, top, left, 2 * pad + 2)
        logits = self._logits(state.photos[photo : photo + 1], patch, 1, (top, left))[:, 0]
        middle = slice(pad - reach, pad + reach + 2)
        logits = logits.unflatten(1, patch.unary.shape)[:, middle, middle]
        best = int(logits.logsumexp(0).argmax())
        row, column = divmod(best, logits.shape[2])
        share = (logits - logits.max()).exp()
        round_ = share[:, max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
        rows = torch.arange(max(0, row - 2), max(0, row - 2) + round_.shape[1])
        columns = torch.arange(max(0, column - 2), max(0, column - 2) + round_.shape[2])
        total = float(round_.sum())
        south = float((round_.sum((0, 2)) * rows).sum()) / total + top + middle.start + 0.5
        east = float((round_.sum((0, 1)) * columns).sum()) / total + left + middle.start + 0.5
        return self._latlng(east * STRIDE, south * STRIDE), *_mean_bearing(round_.sum((1, 2)))

    def map_features(self) -> MapFeatures:
        """Features of the whole region, encoded in chunks that see around their edges."""
        if self._map is None:
            self._map = self._encoded_map()
        return self._map

    def _encoded_map(self) -> MapFeatures:
        height, width = self._ground.shape_px
        rows: list[MapFeatures] = []
        mean, deviation = self._look()
        for top in range(0, height, CHUNK_PX):
            row = [
                self._encoded_chunk(left, top, mean, deviation)
                for left in range(0, width, CHUNK_PX)
            ]
            rows.append(_joined(row, -1))
        whole = _joined(rows, -2)
        tall, broad = math.ceil(height / STRIDE), math.ceil(width / STRIDE)
        return MapFeatures(whole.features[:, :tall, :broad], whole.unary[:tall, :broad], whole.wide)

    def _encoded_chunk(self, left: int, top: int, mean: Tensor, deviation: Tensor) -> MapFeatures:
        height, width = self._ground.shape_px
        grid = 2 * STRIDE
        sides = [
            math.ceil((min(CHUNK_PX, most - at) + 2 * HALO_PX) / grid) * grid
            for most, at in ((width, left), (height, top))
        ]
        window = Window(left - HALO_PX, top - HALO_PX, *sides)
        picture = torch.from_numpy(self._ground.picture(window)).permute(2, 0, 1) / 255.0
        picture = ((picture - mean) / deviation).to(home_of(self.model))
        seen = self.model.encode_map(picture)
        return _without_edge(seen, HALO_PX // STRIDE, CHUNK_PX // STRIDE)

    def _look(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation (3, 1, 1) of the region's colours, as training has them."""
        height, width = self._ground.shape_px
        side = min(max(height, width), 4 * CHUNK_PX)
        picture = self._ground.picture(Window(0, 0, min(side, width), min(side, height))) / 255.0
        return look_of(torch.from_numpy(picture).float().permute(2, 0, 1))

    def _leaves(self, photos: Sequence[Shown]) -> Floats:
        """(B, rows, columns) log-mean over the lattice places in each terminal cell."""
        seen = self.map_features()
        step = max(1, round(min(PLACE_M, self.views.region.cell_size_m) / self.model.feature_m))
        grain = step * STRIDE
        strip = max(grain, PLACES_AT_ONCE // max(1, seen.unary.shape[1]) // grain * grain)
        pad = math.ceil(max(self.model.spec.rings_m) / self.model.feature_m) + 2
        pad = math.ceil(pad / (step * STRIDE)) * step * STRIDE
        found = []
        for top in range(0, seen.unary.shape[0], strip):
            height = min(strip, seen.unary.shape[0] - top)
            first, side = max(0, top - pad), height + 2 * pad
            inner = (top - first) // step, math.ceil(height / step)
            logits = self._logits(photos, _strip(seen, first, side), step, (first, 0))
            by_row = logits.logsumexp(0).unflatten(1, (-1, math.ceil(seen.unary.shape[1] / step)))
            found.append(by_row[:, inner[0] : inner[0] + inner[1]])
        return self._in_cells(torch.cat(found, 1).cpu(), step)

    def _logits(
        self, photos: Sequence[Shown], seen: MapFeatures, step: int, corner: tuple[int, int]
    ) -> Tensor:
        """(N, B, J) logits of each heading and place of a piece of the map whose first feature is
        ``corner`` (row, column); unknown fields of view are averaged over.
        """  # noqa: D205
        place = self._place(seen, step, corner) if self.use_memory else None
        kind = number_format("auto", home_of(self.model))
        lattice = self.model.lattice(seen, step, (0, 0), place, kind)
        fans, owner = self._fans(photos)
        found = [self.model.compare(fan, lattice) for fan in fans]
        logits = torch.cat([m.float() * self.model.scale() + added for m, added in found], 1)
        if owner.tolist() == list(range(len(photos))):
            return logits
        return torch.stack(
            [
                logits[:, owner == i].logsumexp(1) - math.log(int((owner == i).sum()))
                for i in range(len(photos))
            ],
            1,
        )

    def _place(self, seen: MapFeatures, step: int, corner: tuple[int, int]) -> Tensor:
        """(J, 2) where the places of a piece lie in the region, 0..1."""
        down, across = (
            lattice_m(-(-size // step), first, step, self.model.feature_m)
            for first, size in zip(corner, seen.unary.shape, strict=True)
        )
        east, south = torch.meshgrid(across, down, indexing="xy")
        place = torch.stack([east.flatten(), south.flatten()], 1) / self._ground.extent_m
        return place.float().to(home_of(self.model))

    def _fans(self, photos: Sequence[Shown]) -> tuple[list[Fans], Tensor]:
        """Fans of photos, each field of view that is possible, and whose each is."""
        spec, device = self.model.spec, home_of(self.model)
        fans, owner = [], []
        for is_round in (False, True):
            chosen = [
                (i, fov)
                for i, photo in enumerate(photos)
                if (photo.projection == "equirectangular") == is_round
                for fov in ((photo.fov_deg,) if photo.fov_deg else FOVS_DEG)
            ]
            if not chosen:
                continue
            size = fan_size(max(fov for _, fov in chosen), spec.slices)
            weights = slice_weights(
                [fov for _, fov in chosen], self.model.column_count, spec.slices, size, is_round
            )
            pictures = as_tensor([photos[i].picture for i, _ in chosen], device)
            fans.append(self.model.encode_photos(pictures, weights.to(device)))
            owner += [i for i, _ in chosen]
        order = torch.tensor(owner)
        return fans, order

    def _in_cells(self, places: Tensor, step: int) -> Floats:
        """(B, rows, columns) of the lattice -> log-mean over each terminal cell's places."""
        region = self.views.region
        shape = region.grid_shape(region.zooms)
        middles = [
            np.asarray((np.arange(n) * step + 0.5) * STRIDE, np.float64) for n in places.shape[1:]
        ]
        exact = self._ground.cells_of(middles[1], middles[0])
        cell_row, cell_column = (
            np.clip(np.floor(at).astype(np.int64), 0, most - 1)
            for at, most in zip(exact, shape, strict=True)
        )
        peak = places.amax((1, 2), keepdim=True)
        share = (places - peak).exp().double()
        total = torch.zeros(len(places), *shape, dtype=torch.float64)
        count = np.outer(
            np.bincount(cell_row, minlength=shape[0]), np.bincount(cell_column, minlength=shape[1])
        )
        part = torch.zeros(len(places), shape[0], share.shape[2], dtype=torch.float64)
        part.index_add_(1, torch.from_numpy(cell_row), share)
        total.index_add_(2, torch.from_numpy(cell_column), part)
        mean = total / torch.from_numpy(np.maximum(count, 1))
        scores = np.asarray(mean.clamp(min=math.exp(FLOOR)).log() + peak)
        scores[:, ~self.views.coverage.leaves] = -np.inf
        return np.asarray(scores, np.float64)

    def _latlng(self, column_px: float, row_px: float) -> LatLng:
        row, column = self._ground.cells_of(np.array([column_px]), np.array([row_px]))
        lat, lng = self.views.region.leaf_places(column, row)
        return LatLng(float(lat[0]), float(lng[0]))


def _joined(parts: Sequence[MapFeatures], axis: int) -> MapFeatures:
    """Pieces side by side (axis -1) or one below the other (-2)."""
    wide = [part.wide for part in parts if part.wide is not None]
    return MapFeatures(
        torch.cat([part.features for part in parts], axis),
        torch.cat([part.unary for part in parts], axis),
        torch.cat(wide, axis) if wide else None,
    )


def _part(seen: MapFeatures, rows: slice, columns: slice) -> MapFeatures:
    """A rectangle of features; its edges lie on even numbers."""
    coarse = [slice(v.start // STRIDE, -(-v.stop // STRIDE)) for v in (rows, columns)]
    wide = None if seen.wide is None else seen.wide[:, coarse[0], coarse[1]]
    return MapFeatures(seen.features[:, rows, columns], seen.unary[rows, columns], wide)


def _without_edge(seen: MapFeatures, edge: int, most: int) -> MapFeatures:
    """The inside of a chunk, at most so wide and high."""
    height, width = seen.unary.shape
    rows, columns = (slice(edge, min(edge + most, n - edge)) for n in (height, width))
    return _part(seen, rows, columns)


def _strip(seen: MapFeatures, first: int, count: int) -> MapFeatures:
    """Some rows of features."""
    height, width = seen.unary.shape
    return _part(seen, slice(first, min(height, first + count)), slice(0, width))


def _cut(seen: MapFeatures, top: int, left: int, side: int) -> MapFeatures:
    """A square of features, zeros beyond the map; top, left and side are even."""

    def one(of: Tensor, scale: int) -> Tensor:
        out = of.new_zeros(*of.shape[:-2], side // scale, side // scale)
        height, width = of.shape[-2:]
        rows = range(max(0, top // scale), min(height, (top + side) // scale))
        columns = range(max(0, left // scale), min(width, (left + side) // scale))
        if len(rows) and len(columns):
            inner = of[..., rows.start : rows.stop, columns.start : columns.stop]
            down = slice(rows.start - top // scale, rows.stop - top // scale)
            right = slice(columns.start - left // scale, columns.stop - left // scale)
            out[..., down, right] = inner
        return out

    wide = None if seen.wide is None else one(seen.wide, STRIDE)
    return MapFeatures(one(seen.features, 1), one(seen.unary, 1), wide)


def _mean_bearing(share: Tensor) -> tuple[float, float]:
    """Circular mean of headings and their deviation, degrees; share (N,) need not sum to 1."""
    angle = torch.arange(len(share)) * (2 * math.pi / len(share))
    share = share.cpu().double() / share.sum().cpu()
    x, y = float((share * angle.cos()).sum()), float((share * angle.sin()).sum())
    length = min(1.0, math.hypot(x, y))
    spread = math.degrees(math.sqrt(max(0.0, -2 * math.log(max(length, 1e-6)))))
    return math.degrees(math.atan2(y, x)) % 360, min(spread, 180.0)
