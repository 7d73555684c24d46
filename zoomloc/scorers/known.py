"""Known photos as evidence: what they show stands beside what the map shows.

A photo of known place and bearing says, as the map does, what stands where around that place.
Its fan, turned to its bearing, is compared with a new photo exactly as the map's bins are; a cell
that holds known photos is as likely as map and photos say on average. Knows nothing of search or
of answers. Letters: B photos, N headings, Z rings, C channels, J known photos.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from zoomloc.errors import PhotoError
from zoomloc.model.match import STRIDE, Lattice, MatchModel
from zoomloc.model.polar import fan_size, slice_weights
from zoomloc.model.precision import home_of, number_format
from zoomloc.scorers.matches import AT_ONCE, MatchScorer
from zoomloc.scorers.shown import Shown, as_tensor
from zoomloc.world.cells import Floats, Ints, LatLng
from zoomloc.world.images import width_held


@dataclass(frozen=True, eq=False)
class Placed:
    """A photo whose place and bearing are known."""

    shown: Shown
    place: LatLng
    bearing_deg: float


@dataclass(frozen=True, eq=False)
class KnownPhotos:
    """Bins as the map has them, and the terminal cell (row, column) of each photo."""

    lattice: Lattice
    row: Ints
    column: Ints

    def mixed(self, leaves: Floats, scores: Floats) -> Floats:
        """Log-likelihoods (B, R, C) of cells, taking in those of known photos (B, J).

        A cell's photos are averaged, so that many of them do not make it likelier by themselves.
        """
        peak = scores.max(axis=1)
        total = np.zeros((len(leaves), *leaves.shape[1:]))
        count = np.zeros(leaves.shape[1:])
        for photo, row in enumerate(np.exp(scores - peak[:, None])):
            np.add.at(total[photo], (self.row, self.column), row)
        np.add.at(count, (self.row, self.column), 1.0)
        with np.errstate(divide="ignore"):
            of_photos = np.log(total / np.maximum(count, 1)) + peak[:, None, None]
        both = np.logaddexp(leaves, of_photos) - math.log(2)
        return np.where((count > 0) & np.isfinite(leaves), both, leaves)


def with_known(scorer: MatchScorer, photos: Sequence[Placed]) -> MatchScorer:
    """The scorer, with known photos beside its map. Raises PhotoError where none lies on it."""
    region, coverage = scorer.views.region, scorer.views.coverage
    lat, lng = (np.array([getattr(p.place, k) for p in photos], float) for k in ("lat", "lng"))
    inside = coverage.holds(lat, lng)
    if not inside.any():
        raise PhotoError(
            f"none of {len(photos)} photos with a known bearing and field of view lies on the "
            f"imagery of region {region.name!r}; leave --with-photos out"
        )
    held = [photo for photo, keep in zip(photos, inside, strict=True) if keep]
    x, y = region.leaf_xy(lat[inside], lng[inside])
    row, column = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    return replace(scorer, known=KnownPhotos(_lattice(scorer, held), row, column))


@torch.inference_mode()
def _lattice(scorer: MatchScorer, photos: Sequence[Placed]) -> Lattice:
    """What the photos show, in place of what the map shows there."""
    kind = number_format("auto", home_of(scorer.model))
    parts = [photos[i : i + AT_ONCE] for i in range(0, len(photos), AT_ONCE)]
    bins = torch.cat([_bins(scorer.model, part).to(kind) for part in parts], 2)
    lat, lng = (np.array([getattr(p.place, k) for p in photos]) for k in ("lat", "lng"))
    px = scorer.ground.px_of(lat, lng) / STRIDE
    rows, columns = (
        torch.from_numpy(np.floor(at).astype(np.int64)).clamp(0, most - 1)
        for at, most in zip(px.T[::-1], scorer.index.unary.shape, strict=True)
    )
    of_map = scorer.map_at(rows, columns)
    cells = of_map.bins.numel() / scorer.model.spec.channels
    length = of_map.bins.float().square().sum().div(cells).sqrt()  # that the map's bins have
    return replace(of_map, bins=bins * length.to(bins.dtype))


def _bins(model: MatchModel, photos: Sequence[Placed]) -> Tensor:
    """(N, Z * C, J) what photos show, turned to their bearings; nothing where they do not look.

    Surenesses weigh the bins, as long together as if all that is seen were sure.
    """
    slices, device = model.spec.slices, home_of(model)
    turn = 360 / slices
    fovs = [p.shown.fov_deg or 0.0 for p in photos]
    heading = np.rint([p.bearing_deg / turn for p in photos]).astype(np.int64)
    fan = fan_size(min(max(fovs) + turn, 360.0), slices)
    pictures = [p.shown.picture for p in photos]
    weights = slice_weights(
        fovs,
        model.column_count,
        slices,
        fan,
        share=width_held(np.stack(pictures)),
        off_deg=[p.bearing_deg - h * turn for p, h in zip(photos, heading, strict=True)],
    )
    fans = model.encode_photos(as_tensor(pictures, device), weights.to(device))
    seen = fans.confidence > 0
    length = fans.confidence.square().sum((1, 2), keepdim=True).clamp(min=1e-6).sqrt()
    sure = fans.confidence * seen.sum((1, 2), keepdim=True).sqrt() / length
    flat = (fans.features * sure[..., None]).flatten(2)  # (J, F, Z C)
    out = flat.new_zeros(slices, flat.shape[2], len(photos))
    for i, first in enumerate((heading - fan // 2).tolist()):
        where = (first + torch.arange(fan, device=device)) % slices
        out[where, :, i] = flat[i]
    return out
