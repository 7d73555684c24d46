"""Training the match: at each step the photos of one town are searched in all of its map.

The map is turned, scaled and mirrored at random (the photos mirrored with it), so that a town is
never seen the same way twice. Headings are labels only. Knows nothing of the loop.
Letters: B photos, J places of a lattice, N headings, m places near a photo's truth.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoomloc.config import Config, MatchConfig
from zoomloc.errors import ConfigError
from zoomloc.ground import GroundMap, Window
from zoomloc.model.correlation import region_loss
from zoomloc.model.match import STRIDE, Fans, MatchModel, look_of
from zoomloc.model.polar import POOLED, Exact, lattice_m, mean_over, pooled_as, slice_weights
from zoomloc.model.precision import autocast, home_of, moved, number_format
from zoomloc.training.augment import augment_photos, augment_views
from zoomloc.training.dataset import Ground, channels_first
from zoomloc.world.cells import Floats, Ints
from zoomloc.world.images import width_held
from zoomloc.world.pyramid import TilePyramid

USUAL_FOV_DEG = 70.0  # of a photo that does not tell
LAYERS_NAME = "layers.pmtiles"  # beside the imagery of a synthetic town
NEAR = 12  # places of the lattice that count as right, more or less


@dataclass(frozen=True)
class Pose:
    """How the map lies in a step: the picture's pixels are the ground's, turned and scaled."""

    turn: float  # radians; a bearing b on the ground is b + turn in the picture
    scale: float  # the picture shows the ground so many times larger than life
    mirrored: bool
    phase: tuple[int, int]  # row and column of the lattice's first place

    @property
    def is_plain(self) -> bool:
        """Whether the map lies as it is, north up."""
        return (self.turn, self.scale, self.mirrored) == (0.0, 1.0, False)


@dataclass(frozen=True)
class MatchBatch:
    """photos (B, 3, h, w) and ground (3, P, P) uint8; place_m (B, 2) east and south of the
    ground's middle; bearing_deg (B,), NaN where unknown; fov_deg, share (of the width that the
    photo fills), error_m (B,).
    """  # noqa: D205

    photos: Tensor
    ground: Tensor
    place_m: Floats
    bearing_deg: Floats
    fov_deg: Floats
    share: Floats
    error_m: Floats
    pose: Pose
    middle_m: Floats  # (2,) of the ground, in the region's frame
    layers: Tensor | None  # (3, P, P) uint8, as the ground
    number: int  # of the region
    photo: Ints  # (B,) which of its photos
    window: Window


@dataclass(frozen=True)
class Compared:
    """Photos and places of a step, encoded and compared: what the photo encoder made of photos,
    fans, map features (C, H, W), matches (N, B, J) with what is added to them, the rows and
    columns of the lattice, and (J, 2) metres east and south of the picture's middle.
    """  # noqa: D205

    encoded: Tensor
    fans: Fans
    features: Tensor
    match: Tensor
    added: Tensor
    shape: list[int]
    places_m: Tensor


class MatchLearner:
    """Examples and loss of a MatchModel over one or several regions."""

    needs_weights = False

    def __init__(self, config: Config, model: Any, grounds: Sequence[Ground]) -> None:
        self.config, self.grounds = config, grounds
        self.model: MatchModel = model
        if config.model.match.memory and len(grounds) > 1:
            raise ConfigError("model.match.memory: is for one region; set it to false over several")
        gsd_m = config.model.match.gsd_m
        self.maps = [GroundMap(ground.views, gsd_m) for ground in grounds]
        self._px = [m.px_of(g.lat, g.lng) for m, g in zip(self.maps, grounds, strict=True)]
        self._bearing = [_numbers(g, "bearing_deg", math.nan) for g in grounds]
        self._fov = [_numbers(g, "fov_deg", USUAL_FOV_DEG) for g in grounds]
        photos = np.array([len(g.photos) for g in grounds], float)
        self._share = photos / photos.sum()
        self._pictures: dict[tuple[int, bool], np.ndarray] = {}
        self._layers = [_layers_of(ground) for ground in grounds]
        self._share_done = 0.0

    def prepare(self, share: float) -> None:
        """Take note of how far the run is."""
        self._share_done = share

    def memory(self) -> dict[str, Tensor]:
        """Nothing to remember."""
        return {}

    def recall(self, memory: dict[str, Tensor]) -> None:
        """Nothing to take up."""

    def batch(self, step: int) -> MatchBatch:
        """Photos of one window of one region, and the window itself."""
        train, plan = self.config.train, self.config.model.match
        rng = np.random.default_rng([train.seed, 8, step])
        number = int(rng.choice(len(self.grounds), p=self._share))
        ground = self.grounds[number]
        window, photos = self._window(number, rng)
        pose = _drawn_pose(plan, rng)
        middle = np.array([window.left + window.width / 2, window.top + window.height / 2])
        photos = self._shown(number, rng.permutation(photos), middle, window, pose)[: train.batch]
        pixels = ground.pixels.get(photos)
        return MatchBatch(
            channels_first(pixels),
            torch.from_numpy(self._picture(number, window)).permute(2, 0, 1),
            (self._px[number][photos] - middle) * plan.gsd_m,
            self._bearing[number][photos],
            self._fov[number][photos],
            width_held(pixels),
            np.hypot(ground.error_m[photos], train.sigma_m),
            pose,
            middle * plan.gsd_m,
            self._layers_picture(number, window),
            number,
            photos,
            window,
        )

    def loss(self, batch: MatchBatch) -> Tensor:
        """-log of the probability near the truth, over all places and headings of the window."""
        batch = moved(batch, home_of(self.model))
        return self.loss_of(batch, self.compared(batch))

    def compared(self, batch: MatchBatch) -> Compared:
        """Each photo against all places and headings of the window."""
        train, plan, model = self.config.train, self.config.model.match, self.model
        device, pose = home_of(model), batch.pose
        photos = augment_photos(batch.photos, train.augment)
        ground = posed(_standard(augment_views(batch.ground[None], train.augment)[0]), pose)
        if pose.mirrored:
            photos = photos.flip(-1)
        weights = slice_weights(
            batch.fov_deg, model.column_count, plan.slices, plan.fan, share=batch.share
        )
        with autocast(train.precision, device):
            encoded = model.photo_encoder(photos)
            fans = model.fans(encoded, weights.to(device))
            seen = model.encode_map(ground)
        ends = zip(pose.phase, seen.unary.shape, strict=True)
        shape = [len(range(first, size, plan.lattice)) for first, size in ends]
        exact = self._exact(batch) if plan.exact else None
        places_m = self._places_m(batch, shape, exact)
        place = self._place(batch, places_m)
        kind = number_format(train.precision, device)
        lattice = model.lattice(seen, plan.lattice, pose.phase, place, kind, exact)
        match, added = model.compare(fans, lattice)
        return Compared(encoded, fans, seen.features, match, added, shape, places_m)

    def loss_of(self, batch: MatchBatch, seen: Compared) -> Tensor:
        """The loss of what was compared."""
        near, log_weight = (v.to(seen.match.device) for v in self._right(batch, seen.places_m))
        loss = region_loss(seen.match, self.model.scale(), seen.added, near, log_weight)
        if batch.layers is None:
            return loss
        weight = self.config.model.match.layers
        return loss + weight * self._layers_loss(batch, seen.fans, seen.features)

    def _exact(self, batch: MatchBatch) -> Exact:
        """Row and column of the feature that each photo stands on."""
        east, south, _ = in_picture(batch.place_m, batch.bearing_deg, batch.pose)
        middle = batch.ground.shape[-1] / 2 * self.config.model.match.gsd_m
        most = batch.ground.shape[-1] // STRIDE - 1
        row, column = (
            ((at + middle) / self.model.feature_m).long().clamp(0, most).to(batch.ground.device)
            for at in (south, east)
        )
        return row, column

    def _places_m(self, batch: MatchBatch, shape: Sequence[int], exact: Exact | None) -> Tensor:
        """(J, 2) metres east and south of the picture's middle: the lattice, then ``exact``."""
        plan, feature_m = self.config.model.match, self.model.feature_m
        middle = batch.ground.shape[-1] / 2 * plan.gsd_m
        down, across = (
            lattice_m(n, first, plan.lattice, feature_m) - middle
            for n, first in zip(shape, batch.pose.phase, strict=True)
        )
        east, south = (v.flatten() for v in torch.meshgrid(across, down, indexing="xy"))
        if exact is not None:
            row, column = ((at.cpu() + 0.5) * feature_m - middle for at in exact)
            east, south = torch.cat([east, column]), torch.cat([south, row])
        return torch.stack([east, south], 1)

    def _place(self, batch: MatchBatch, places_m: Tensor) -> Tensor | None:
        """(J, 2) where places lie in the region, 0..1, unless memory is left out."""
        if self.model.place is None or torch.rand(()) < self.config.model.match.memory_dropout:
            return None
        metres = on_ground(places_m, batch.pose)
        return (metres + torch.from_numpy(batch.middle_m)).float() / self.maps[0].extent_m

    def _layers_loss(self, batch: MatchBatch, fans: Fans, ground: Tensor) -> Tensor:
        """What map and photos say of buildings, trees and pavement, through one linear head."""
        assert batch.layers is not None
        model = self.model
        truth = F.avg_pool2d(posed(batch.layers / 255.0, batch.pose)[None], STRIDE)[0]
        said = model.layers(ground.permute(1, 2, 0))
        on_map = F.binary_cross_entropy_with_logits(said, truth.permute(1, 2, 0))
        east, south, bearing = in_picture(batch.place_m, batch.bearing_deg, batch.pose)
        known = torch.isfinite(bearing)
        if not known.any():
            return on_map
        wanted = round_photos(truth, model, east[known], south[known], bearing[known], fans)
        said = model.layers(fans.features[known])
        each = F.binary_cross_entropy_with_logits(said, wanted, reduction="none").mean(-1)
        seen = (fans.confidence[known] > 0).float()
        return on_map + (each * seen).sum() / seen.sum().clamp(min=1)

    def _layers_picture(self, number: int, window: Window) -> Tensor | None:
        """(3, P, P) of the layers under a window, while they are learned."""
        plan, layers = self.config.model.match, self._layers[number]
        if layers is None or not plan.layers or self._share_done > plan.layers_until:
            return None
        return torch.from_numpy(self._picture(number, window, layers)).permute(2, 0, 1)

    def _window(self, number: int, rng: np.random.Generator) -> tuple[Window, Ints]:
        """A square of at most ``window_m`` around a random photo, and the photos within."""
        plan, px = self.config.model.match, self._px[number]
        height, width = self.maps[number].shape_px
        side = min(round(plan.window_m / plan.gsd_m), max(height, width))
        side = math.ceil(side / (2 * STRIDE)) * 2 * STRIDE  # the map's network halves it twice
        centre = px[rng.integers(len(px))] + rng.uniform(-0.3, 0.3, 2) * side
        left = int(np.clip(centre[0] - side / 2, 0, max(0, width - side)))
        top = int(np.clip(centre[1] - side / 2, 0, max(0, height - side)))
        inside = ((px >= (left, top)) & (px < (left + side, top + side))).all(axis=1)
        return Window(left, top, side, side), np.flatnonzero(inside)

    def _picture(self, number: int, window: Window, other: TilePyramid | None = None) -> np.ndarray:
        """The window's pixels; a region that is one window is drawn once."""
        ground_map = self.maps[number]
        if max(ground_map.shape_px) > window.width:
            return ground_map.picture(window, other)
        key = (number, other is not None)
        if key not in self._pictures:
            self._pictures[key] = ground_map.picture(window, other)
        return self._pictures[key]

    def _shown(self, number: int, photos: Ints, middle: Floats, window: Window, pose: Pose) -> Ints:
        """Those of the photos whose place the turned picture of the window still shows."""
        gsd_m = self.config.model.match.gsd_m
        place_m = (self._px[number][photos] - middle) * gsd_m
        east, south, _ = in_picture(place_m, np.zeros(len(photos)), pose)
        shown = torch.maximum(east.abs(), south.abs()) < window.width / 2 * gsd_m
        return photos[shown.numpy()] if shown.any() else photos

    def _right(self, batch: MatchBatch, places_m: Tensor) -> tuple[Tensor, Tensor]:
        """near (B, m) places nearest to each truth; (N, B, m) log-weight with each heading."""
        plan, pose = self.config.model.match, batch.pose
        east, south, bearing = in_picture(batch.place_m, batch.bearing_deg, pose)
        away = (places_m[None, :, 0] - east[:, None]) ** 2
        away += (places_m[None, :, 1] - south[:, None]) ** 2  # (B, J)
        away, near = away.topk(NEAR, largest=False)
        sigma = torch.from_numpy(batch.error_m).float()[:, None] * pose.scale
        by_place = -(away - away[:, :1]) / (2 * sigma**2)
        headings = torch.arange(plan.slices) * (2 * math.pi / plan.slices)
        off = torch.cos(bearing[None] - headings[:, None]) - 1  # (N, B), NaN where unknown
        return near, by_place[None] + torch.nan_to_num(plan.heading * off, nan=0.0)[:, :, None]


def _drawn_pose(plan: MatchConfig, rng: np.random.Generator) -> Pose:
    """How the map is turned, scaled and mirrored, if it is."""
    phase = tuple(rng.integers(0, plan.lattice, 2).tolist())
    turn, stretch, mirrored = rng.uniform(0, 2 * math.pi), rng.normal(), rng.random() < 0.5
    if rng.random() < plan.straight:
        return Pose(0.0, 1.0, False, phase)
    scale = math.exp(plan.rescale * stretch)
    return Pose(turn if plan.turn else 0.0, scale, bool(plan.mirror and mirrored), phase)


def on_ground(picture_m: Tensor, pose: Pose) -> Tensor:
    """The inverse of ``in_picture`` for places (J, 2) in metres from the middle."""
    east, south = picture_m.unbind(1)
    if pose.mirrored:
        east = -east
    cosine, sine = math.cos(pose.turn) / pose.scale, math.sin(pose.turn) / pose.scale
    return torch.stack([cosine * east + sine * south, -sine * east + cosine * south], 1)


def _layers_of(ground: Ground) -> TilePyramid | None:
    """The layers beside a region's imagery, where there are some."""
    path = ground.views.pyramid.path.with_name(LAYERS_NAME)
    return TilePyramid.open(path) if path.is_file() else None


def round_photos(
    picture: Tensor, model: MatchModel, east: Tensor, south: Tensor, bearing: Tensor, fans: Fans
) -> Tensor:
    """(n, F, Z, c): a picture (c, h, w) of features' size in the bins round photos, read as the
    map's bins are; ``fans`` gives their shape.
    """  # noqa: D205
    fan, rings = fans.confidence.shape[1:]
    turn = 2 * math.pi / model.spec.slices
    azimuth = bearing[:, None] + (torch.arange(fan) - fan // 2) * turn  # (n, F)
    half = picture.shape[-1] / 2 * model.feature_m
    found = []
    for ring_m in model.spec.rings_m[:rings]:
        width = POOLED[pooled_as(ring_m)][1]
        x = (east[:, None] + ring_m * azimuth.sin()) / half
        y = (south[:, None] - ring_m * azimuth.cos()) / half
        grid = torch.stack([x, y], -1)[None]  # (1, n, F, 2)
        wide = mean_over(picture, width)[None]
        found.append(F.grid_sample(wide, grid, align_corners=False)[0].permute(1, 2, 0))
    return torch.stack(found, 2)


def _numbers(ground: Ground, name: str, missing: float) -> Floats:
    found = (getattr(photo, name) for photo in ground.photos)
    return np.array([missing if value is None else value for value in found], np.float64)


def _standard(picture: Tensor) -> Tensor:
    """(3, h, w) of zero mean and unit deviation in each channel."""
    mean, deviation = look_of(picture)
    return (picture - mean) / deviation


def posed(picture: Tensor, pose: Pose) -> Tensor:
    """(3, h, w) turned and scaled about its middle, then mirrored; corners are 0."""
    cosine, sine = math.cos(pose.turn) / pose.scale, math.sin(pose.turn) / pose.scale
    theta = picture.new_tensor([[[cosine, sine, 0.0], [-sine, cosine, 0.0]]])
    grid = F.affine_grid(theta, [1, *picture.shape], align_corners=False)
    turned = F.grid_sample(picture[None], grid, padding_mode="zeros", align_corners=False)[0]
    return turned.flip(-1) if pose.mirrored else turned


def in_picture(place_m: Floats, bearing_deg: Floats, pose: Pose) -> tuple[Tensor, Tensor, Tensor]:
    """Metres east and south of the middle and bearings in radians, as the posed picture has."""
    cosine, sine = math.cos(pose.turn) * pose.scale, math.sin(pose.turn) * pose.scale
    east = cosine * place_m[:, 0] - sine * place_m[:, 1]
    south = sine * place_m[:, 0] + cosine * place_m[:, 1]
    bearing = np.radians(bearing_deg) + pose.turn
    if pose.mirrored:
        east, bearing = -east, -bearing
    return tuple(torch.from_numpy(v).float() for v in (east, south, bearing))  # type: ignore[return-value]
