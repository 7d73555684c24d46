"""The bird's-eye match as a Scorer: all the ground coarsely, the likeliest of it finely.

Knows nothing of search or of answers. Letters: B photos, N headings, J places, H x W features
of the map.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from zoomloc.ground import GroundMap
from zoomloc.index import RegionViews
from zoomloc.model.match import STRIDE, Fans, Lattice, MapIndex, MatchModel
from zoomloc.model.polar import fan_size, slice_weights
from zoomloc.model.precision import home_of, number_format
from zoomloc.scorers.dense import DenseScorer, DenseState, summed_up
from zoomloc.scorers.mapped import encode_region
from zoomloc.scorers.shown import Shown, as_tensor
from zoomloc.world.cells import Floats, LatLng
from zoomloc.world.images import width_held

if TYPE_CHECKING:
    from zoomloc.scorers.known import KnownPhotos

COARSE_M = 16.0  # between the places that all photos are compared with
SHARE_OF_SHARE = 0.12  # of the share that is refined, for each doubling after the first
AT_ONCE = 32  # photos
PLACES_AT_ONCE = 4096
FOVS_DEG = (50.0, 65.0, 80.0, 95.0)  # tried where a photo does not tell
SHARPEN_M = 16.0  # around an answer, where place and heading are worked out finely
FLOOR = -60.0  # against the best place of a photo


@dataclass(frozen=True)
class Looks:
    """Some photos, encoded: fans of perspective and of round ones, a row for each field of view
    that is possible, and whose each row is.
    """  # noqa: D205

    fans: tuple[Fans, ...]
    owner: Tensor  # (rows of all fans,)
    count: int
    headings: Tensor | None = None  # (N, B) log p of each heading; None where none is known

    def only(self, photo: int) -> "Looks":
        """One of the photos."""
        owners = self.owner.split([len(fan.confidence) for fan in self.fans])
        chosen = [_rows(fan, own == photo) for fan, own in zip(self.fans, owners, strict=True)]
        fans = tuple(fan for fan in chosen if len(fan.confidence))
        owner = torch.zeros(sum(len(f.confidence) for f in fans), dtype=torch.long)
        headings = None if self.headings is None else self.headings[:, photo : photo + 1]
        return Looks(fans, owner, 1, headings)


@dataclass
class MatchState(DenseState):
    """Scores of all cells, and the photos for a closer look."""

    looks: list[Looks]  # AT_ONCE photos each
    better_here: Floats | None = None  # (B,) log-likelihood ratio against other ground


@dataclass
class MatchScorer(DenseScorer):
    """A MatchModel over a region; the map is encoded once.

    ``refined``: the share of the coarse places that are looked at finely; 1 leaves nothing to
    chance. ``kept`` opens an index of the map that was made before; ``known`` are photos whose
    place is known, as further evidence.
    """

    model: MatchModel
    views: RegionViews
    refined: float
    use_memory: bool = False
    kept: Callable[[], MapIndex | None] | None = None
    known: "KnownPhotos | None" = None
    elsewhere: Lattice | None = None  # places of other ground, see ``scorers.elsewhere``
    products: int = 0  # multiply-adds of all comparisons so far

    @cached_property
    def ground(self) -> GroundMap:
        """The region's map as one picture."""
        return GroundMap(self.views, self.model.spec.gsd_m)

    @torch.inference_mode()
    def start(self, photos: Sequence[Shown]) -> MatchState:
        """Photos -> log-likelihoods of all terminal cells, summed over headings and places."""
        looks = [self._looks(photos[i : i + AT_ONCE]) for i in range(0, len(photos), AT_ONCE)]
        matched = self._matched_cells(looks)
        leaves = self._leaves(photos, matched)
        return MatchState(
            summed_up(leaves, self.views.region), looks, self._better_here(matched, looks)
        )

    def evidence(self, state: DenseState) -> Floats | None:
        """(B,) log-likelihood ratio of this ground against other ground, if that is known."""
        return state.better_here if isinstance(state, MatchState) else None

    @torch.inference_mode()
    def place_prior(self) -> Floats:
        """(rows, columns) log-share of photos that each cell would hold, were none looked at."""
        found = self._in_cells(self.index.unary[None].float().cpu())[0]
        total = torch.from_numpy(found[np.isfinite(found)]).logsumexp(0)
        return np.asarray(found - float(total))

    def _leaves(self, photos: Sequence[Shown], matched: Floats) -> Floats:
        """(B, rows, columns) log-scores of all terminal cells, from those of the match."""
        return matched

    def _better_here(self, matched: Floats, looks: Sequence[Looks]) -> Floats | None:
        """(B,) log of the mean likelihood of the region's cells over that of other ground."""
        if self.elsewhere is None:
            return None
        other = torch.cat([self._compared(p, self.elsewhere).logsumexp(0).cpu() for p in looks])
        here = torch.from_numpy(matched[:, self.views.coverage.leaves])
        found = _log_mean(here) - _log_mean(other.double())
        return np.asarray(found.numpy(), np.float64)

    def _matched_cells(self, looks: Sequence[Looks]) -> Floats:
        """(B, rows, columns) log-likelihoods of all terminal cells."""
        leaves = np.concatenate([self._in_cells(self._everywhere(part).cpu()) for part in looks])
        if self.known is not None:
            lattice = self.known.lattice
            scores = [self._compared(part, lattice).logsumexp(0).cpu() for part in looks]
            leaves = self.known.mixed(leaves, torch.cat(scores).double().numpy())
        return leaves

    @torch.inference_mode()
    def sharpened(  # type: ignore[override]
        self, state: MatchState, photo: int, place: LatLng
    ) -> tuple[LatLng, float, float]:
        """A place near ``place`` that fits best, the bearing there and its spread, in degrees."""
        looks = state.looks[photo // AT_ONCE].only(photo % AT_ONCE)
        px = self.ground.px_of(np.array([place.lat]), np.array([place.lng]))[0] / STRIDE
        reach = math.ceil(SHARPEN_M / self.model.feature_m)
        around = torch.arange(-reach, reach + 1)
        rows, columns = (
            (around + math.floor(at)).clamp(0, most - 1).unique()
            for at, most in zip(px[::-1], self.index.unary.shape, strict=True)
        )
        logits = self._logits(looks, *_grid(rows, columns))[:, 0].unflatten(1, (len(rows), -1))
        best = divmod(int(logits.logsumexp(0).argmax()), len(columns))
        down, right = (slice(max(0, at - 2), at + 3) for at in best)
        share = (logits - logits.max()).exp()[:, down, right].cpu()
        by_place = share.sum(0) / share.sum()
        south = float((by_place.sum(1) * (rows[down] + 0.5)).sum())
        east = float((by_place.sum(0) * (columns[right] + 0.5)).sum())
        return self._latlng(east * STRIDE, south * STRIDE), *_mean_bearing(share.sum((1, 2)))

    @cached_property
    def index(self) -> MapIndex:
        """The map's side: the one kept on disk if there is one, else made now."""
        found = self.kept() if self.kept is not None else None
        return encode_region(self.model, self.ground) if found is None else found

    @property
    def coarse_step(self) -> int:
        """Features between coarse places, a power of two."""
        return int(2 ** max(0, round(math.log2(COARSE_M / self.model.feature_m))))

    def _everywhere(self, looks: Looks) -> Tensor:
        """(B, H, W) log-likelihoods: of coarse places, each for the ground around it, and of ever
        finer ones round the likeliest of them.
        """  # noqa: D205
        step, share = (1, 1.0) if self.refined >= 1 else (self.coarse_step, self.refined)
        rows, columns = (torch.arange(self._places(n, step)) for n in self.index.unary.shape)
        scores = self._at(looks, step, *_grid(rows, columns)).unflatten(1, (len(rows), -1))
        while step > 1:
            step //= 2
            scores = self._closer(looks, scores, step, share)
            share *= SHARE_OF_SHARE
        return scores

    def _closer(self, looks: Looks, above: Tensor, step: int, share: float) -> Tensor:
        """Scores of places twice as dense as those above, computed for a share of the ground."""
        height, width = (self._places(n, step) for n in self.index.unary.shape)
        chosen = above.flatten(1).topk(math.ceil(share * above[0].numel())).indices
        opened = torch.zeros_like(above, dtype=torch.bool).flatten(1).scatter_(1, chosen, True)
        scores, opened = (
            one.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :height, :width]
            for one in (above, opened.view_as(above))
        )
        for photo in range(looks.count):
            at = opened[photo].nonzero(as_tuple=True)
            scores[photo][at] = self._at(looks.only(photo), step, *at)[0]
        return scores

    @staticmethod
    def _places(features: int, step: int) -> int:
        """Places along a side of so many features."""
        return math.ceil(features / step)

    def _at(self, looks: Looks, step: int, rows: Tensor, columns: Tensor) -> Tensor:
        """(B, J) log-likelihoods at places of a lattice, each in the middle of its ground."""
        last_row, last_column = (most - 1 for most in self.index.unary.shape)
        rows = (rows * step + step // 2).clamp(max=last_row)
        return self._heard(looks, rows, (columns * step + step // 2).clamp(max=last_column))

    def _heard(self, looks: Looks, rows: Tensor, columns: Tensor) -> Tensor:
        """(B, J) log-likelihood of places, whatever the heading."""
        parts = zip(rows.split(PLACES_AT_ONCE), columns.split(PLACES_AT_ONCE), strict=True)
        return torch.cat([self._logits(looks, *part).logsumexp(0) for part in parts], 1)

    def _logits(self, looks: Looks, rows: Tensor, columns: Tensor) -> Tensor:
        """(N, B, J) logits of each heading and place."""
        return self._compared(looks, self.map_at(rows, columns))

    def map_at(self, rows: Tensor, columns: Tensor) -> Lattice:
        """What the map shows round places (J,), by row and column of its features."""
        at = rows.to(home_of(self.model)), columns.to(home_of(self.model))
        place = self._place(rows, columns) if self.use_memory else None
        kind = number_format("auto", at[0].device)
        return self.model.lattice_at(self.index, *at, place, kind)

    def _compared(self, looks: Looks, lattice: Lattice) -> Tensor:
        """(N, B, J) logits of headings and places, what is known of headings taken in."""
        logits = self._matched(looks, lattice)
        if looks.headings is None:
            return logits
        return logits + looks.headings.to(logits.device)[:, :, None]

    def _matched(self, looks: Looks, lattice: Lattice) -> Tensor:
        """(N, B, J) logits of headings and places; unknown fields of view are averaged over."""
        size = sum(fan.features.numel() for fan in looks.fans)
        self.products += len(lattice.bins) * size * lattice.bins.shape[2]
        found = [self.model.compare(fan, lattice) for fan in looks.fans]
        logits = torch.cat([m.float() * self.model.scale() + added for m, added in found], 1)
        if looks.owner.tolist() == list(range(looks.count)):
            return logits
        each = [logits[:, looks.owner == i] for i in range(looks.count)]
        return torch.stack([one.logsumexp(1) - math.log(one.shape[1]) for one in each], 1)

    def _place(self, rows: Tensor, columns: Tensor) -> Tensor:
        """(J, 2) where places lie in the region, 0..1."""
        metres = (torch.stack([columns, rows], 1) + 0.5) * self.model.feature_m
        return (metres / self.ground.extent_m).float().to(home_of(self.model))

    def _looks(self, photos: Sequence[Shown]) -> Looks:
        """Photos encoded, with each field of view that is possible."""
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
            pictures = [photos[i].picture for i, _ in chosen]
            fovs = [fov for _, fov in chosen]
            weights = slice_weights(
                fovs,
                self.model.column_count,
                spec.slices,
                fan_size(max(fovs), spec.slices),
                is_round,
                width_held(np.stack(pictures)),
            )
            fans.append(self.model.encode_photos(as_tensor(pictures, device), weights.to(device)))
            owner += [i for i, _ in chosen]
        headings = _log_headings(photos, spec.slices)
        return Looks(tuple(fans), torch.tensor(owner), len(photos), headings)

    def _in_cells(self, places: Tensor) -> Floats:
        """(B, H, W) of the features' places -> log-mean over each terminal cell's places."""
        region = self.views.region
        shape = region.grid_shape(region.zooms)
        middles = [np.asarray((np.arange(n) + 0.5) * STRIDE, np.float64) for n in places.shape[1:]]
        exact = self.ground.cells_of(middles[1], middles[0])
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
        row, column = self.ground.cells_of(np.array([column_px]), np.array([row_px]))
        lat, lng = self.views.region.leaf_places(column, row)
        return LatLng(float(lat[0]), float(lng[0]))


def _grid(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of every crossing, row by row."""
    return rows.repeat_interleave(len(columns)), columns.repeat(len(rows))


def _rows(fan: Fans, chosen: Tensor) -> Fans:
    """Some rows of fans."""
    whole = None if fan.whole is None else fan.whole[chosen]
    return Fans(fan.features[chosen], fan.confidence[chosen], whole)


def _log_headings(photos: Sequence[Shown], slices: int) -> Tensor | None:
    """(N, B) log p of each heading of a photo's middle, 0 where unknown; None if all are."""
    if all(photo.heading is None for photo in photos):
        return None
    bearings_deg = np.arange(slices, dtype=np.float64) * (360 / slices)
    even = np.zeros(slices)
    known = [photo.heading.log_share(bearings_deg) if photo.heading else even for photo in photos]
    return torch.from_numpy(np.stack(known, 1)).float()


def _log_mean(scores: Tensor) -> Tensor:
    """(B, n) -> (B,) log of the mean of exponentials."""
    return scores.logsumexp(1) - math.log(scores.shape[1])


def _mean_bearing(share: Tensor) -> tuple[float, float]:
    """Circular mean of headings and their deviation, degrees; share (N,) need not sum to 1."""
    angle = torch.arange(len(share)) * (2 * math.pi / len(share))
    share = share.cpu().double() / share.sum().cpu()
    x, y = float((share * angle.cos()).sum()), float((share * angle.sin()).sum())
    length = min(1.0, math.hypot(x, y))
    spread = math.degrees(math.sqrt(max(0.0, -2 * math.log(max(length, 1e-6)))))
    return math.degrees(math.atan2(y, x)) % 360, min(spread, 180.0)
