"""Why a match answers with a place: its numbers for one photo and one place, as plain arrays.

Knows nothing of pictures, files or search. Letters: F slices of a fan, Z rings, N headings, H x W
features of the map.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zoomloc.model.match import STRIDE, Fans, Lattice
from zoomloc.model.polar import slice_weights
from zoomloc.model.precision import home_of
from zoomloc.scorers.matches import FOVS_DEG, Looks, MatchScorer
from zoomloc.scorers.shown import Shown
from zoomloc.world.cells import Floats, LatLng
from zoomloc.world.images import width_held

Array = npt.NDArray[np.float64]

_FINE = 4096  # points across a photo that the borders of its slices are found to


class Why(NamedTuple):
    """What speaks for one place: the photo's fan of slices and rings, and belief all around."""

    belief: Array  # (H, W), of each feature's place, whatever the heading; sums to 1
    north_west: LatLng  # corners of what ``belief`` covers
    south_east: LatLng
    feature_m: float  # side of a feature's place
    photo_px: tuple[int, int]  # (width, height) of the picture that the model saw
    fov_deg: float  # of its width: as given, or the likeliest of those tried
    slices: Array  # (F, 2) where each begins and ends, 0..1 of the picture's width; 0, 0: unseen
    azimuths_deg: Array  # (F,) of the slices' middles, clockwise from the picture's middle
    slice_deg: float  # how wide a slice is
    confidence: Array  # (F, Z) how sure the photo is of what stands in a bin, 0..1
    contributions: Array  # (F, Z) to the log-likelihood of this place and heading
    heading_deg: float  # of the middle slice: the one compared that is nearest to the bearing
    rings_m: tuple[float, ...]  # (Z,) distances at which bins are read
    borders_m: tuple[float, ...]  # (Z + 1,) between rings: where one bin ends and the next begins


@torch.inference_mode()
def why(scorer: MatchScorer, shown: Shown, place: LatLng, bearing_deg: float | None) -> Why:
    """The numbers behind an answer: belief over all places, and each bin's say at one of them.

    ``place`` counts as the feature that holds it, or the nearest one where it lies off the map;
    ``bearing_deg`` as the heading nearest to it, None as the one that fits best there.
    ``contributions`` add up to the match of that place and heading, as ``MatchModel.compare``
    has it, times ``MatchModel.scale``; likelihoods of places as such are not in it.
    """
    spec = scorer.model.spec
    looks = scorer._looks([shown])
    lattice = _lattice_at(scorer, place)
    heading, fan, fov_deg = _compared(scorer, looks, lattice, shown.fov_deg, bearing_deg)
    belief = _belief(scorer, looks)
    height, width = belief.shape
    sliced = fan.confidence.shape[1]
    slice_deg = 360 / spec.slices
    return Why(
        belief,
        scorer._latlng(0, 0),
        scorer._latlng(width * STRIDE, height * STRIDE),
        scorer.model.feature_m,
        (shown.picture.shape[1], shown.picture.shape[0]),
        fov_deg,
        _slices(fov_deg, spec.slices, sliced, shown),
        (np.arange(sliced, dtype=np.float64) - sliced // 2) * slice_deg,
        slice_deg,
        _array(fan.confidence[0]),
        _array(_contributions(scorer, fan, lattice)[heading]),
        heading * slice_deg,
        tuple(spec.rings_m),
        _borders(spec.rings_m),
    )


def _belief(scorer: MatchScorer, looks: Looks) -> Floats:
    """(H, W) belief of places with imagery, summed over headings."""
    scores = _array(scorer._everywhere(looks)[0])
    scores[~_covered(scorer, scores.shape)] = -np.inf
    share = np.exp(scores - scores.max())
    return np.asarray(share / share.sum())


def _covered(scorer: MatchScorer, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """(H, W) features whose middle lies in a terminal cell that may be answered."""
    leaves = scorer.views.coverage.leaves
    south, east = ((np.arange(n, dtype=np.float64) + 0.5) * STRIDE for n in shape)
    rows, columns = (
        np.clip(np.floor(at).astype(np.int64), 0, most - 1)
        for at, most in zip(scorer.ground.cells_of(east, south), leaves.shape, strict=True)
    )
    return np.asarray(leaves[np.ix_(rows, columns)])


def _lattice_at(scorer: MatchScorer, place: LatLng) -> Lattice:
    """The map's bins round the one feature that holds a place."""
    px = scorer.ground.px_of(np.array([place.lat]), np.array([place.lng]))[0] / STRIDE
    row, column = (
        torch.tensor([int(np.clip(np.floor(at), 0, most - 1))], device=home_of(scorer.model))
        for at, most in zip(px[::-1], scorer.index.unary.shape, strict=True)
    )
    return scorer.model.lattice_at(scorer.index, row, column)


def _compared(
    scorer: MatchScorer,
    looks: Looks,
    lattice: Lattice,
    fov_deg: float | None,
    bearing_deg: float | None,
) -> tuple[int, Fans, float]:
    """Heading, one fan and its field of view: of those tried, the one that fits best there."""
    (fans,) = looks.fans  # one photo is perspective or round
    match = scorer.model.compare(fans, lattice)[0][:, :, 0]  # (N, rows)
    if bearing_deg is None:
        heading = int(match.amax(1).argmax())
    else:
        heading = round(bearing_deg / 360 * len(match)) % len(match)
    row = int(match[heading].argmax())
    fan = Fans(fans.features[row : row + 1], fans.confidence[row : row + 1], None)
    return heading, fan, fov_deg or FOVS_DEG[row]


def _contributions(scorer: MatchScorer, fan: Fans, lattice: Lattice) -> Tensor:
    """(N, F, Z) each bin's part of the match of one place, for every heading.

    A match is a sum over bins; a fan in which all features but one bin's are zero gets that
    bin's part of it, by the model's own reckoning.
    """
    sliced, rings = fan.confidence.shape[1:]
    only = torch.eye(sliced * rings, device=fan.features.device).view(-1, sliced, rings, 1)
    alone = Fans(fan.features * only, fan.confidence.expand(len(only), -1, -1), None)
    match = scorer.model.compare(alone, lattice)[0][:, :, 0] * scorer.model.scale()
    return match.unflatten(1, (sliced, rings))


def _slices(fov_deg: float, slices: int, sliced: int, shown: Shown) -> Array:
    """(F, 2) where the slices of a fan begin and end, as shares of the picture's width.

    Of the slice that a round picture has at both ends, the left one is given.
    """
    is_round = shown.projection == "equirectangular"
    share = width_held(shown.picture[None])
    holds = slice_weights([fov_deg], _FINE, slices, sliced, is_round, share)[0] > 0
    found = np.zeros((sliced, 2))
    for i, points in enumerate(holds):
        inside = points.nonzero()[:, 0]
        if len(inside):
            run = inside[inside - inside[0] == torch.arange(len(inside))]
            found[i] = float(run[0]) / _FINE, (float(run[-1]) + 1) / _FINE
    return found


def _borders(rings_m: tuple[float, ...]) -> tuple[float, ...]:
    """Halfway between rings; the outermost reaches as far beyond its middle as before it."""
    between = [(near + far) / 2 for near, far in zip(rings_m, rings_m[1:], strict=False)]
    first = between[0] if between else 2 * rings_m[0]
    nearest = max(0.0, 2 * rings_m[0] - first)
    last = between[-1] if between else nearest
    return (nearest, *between, 2 * rings_m[-1] - last)


def _array(tensor: Tensor) -> Array:
    return np.asarray(tensor.cpu().double().numpy())
