"""Known photos as evidence: what they show stands beside what the map shows.

A photo of known place and bearing says, as the map does, what stands where around that place.
Its fan, turned to its bearing, is compared with a new photo exactly as the map's bins are; ground
where known photos look more like the new one than elsewhere gets likelier than the map alone says.
Knows nothing of search or of answers. Letters: B photos, N headings, Z rings, C channels, J known
photos.
"""

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

# Fitted on val photos of three towns of 1 km2, 2,700 known photos each, by the truth's likelihood.
SCALE = 0.3  # of what photos say: they are surer of each other than the map is
NEUTRAL = 2.0  # so many times the average is what begins to count
WEIGHT = 0.5  # photos and map err together


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

        What counts is how far a cell's photos stand out of all; average ones change nothing.
        """
        said = self._in_cells(scores, leaves.shape[1:])
        said[~np.isfinite(leaves)] = -np.inf
        near = np.isfinite(said[0])
        if not near.any():  # no known photo stands near the imagery
            return leaves
        total = np.logaddexp.reduce(said[:, near], axis=1)[:, None, None]
        ratio = np.exp(said - total) * near.sum()  # to the average
        added = WEIGHT * (np.log1p(ratio / NEUTRAL) - np.log1p(1 / NEUTRAL))
        return np.asarray(leaves + np.where(near, added, 0.0))

    def _in_cells(self, scores: Floats, shape: tuple[int, ...]) -> Floats:
        """(B, R, C) what the photos of a cell and, at half the weight, of those beside it say on
        average; -inf where there are none.
        """  # noqa: D205
        cell, cells = self.row * shape[1] + self.column, shape[0] * shape[1]
        count = np.bincount(cell, minlength=cells)
        weight = _spread((count > 0).astype(np.float64).reshape(shape))
        found = np.empty((len(scores), *shape))
        for into, row in zip(found, SCALE * scores, strict=True):
            peak = row.max()
            mean = np.bincount(cell, np.exp(row - peak), cells) / np.maximum(count, 1)
            with np.errstate(divide="ignore", invalid="ignore"):
                into[:] = np.log(_spread(mean.reshape(shape)) / weight) + peak
        return np.where(weight > 0, found, -np.inf)


def _spread(cells: Floats) -> Floats:
    """(R, C) of each cell, and half of each of the eight beside it."""
    rows, columns = cells.shape
    wide = np.pad(cells / 2, 1)
    near = [wide[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    return np.asarray(sum(near) + cells / 2)


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
