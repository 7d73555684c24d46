"""Training the two towers: batches of look-alike places, symmetric InfoNCE for each head.

After Sample4Geo (arXiv 2303.11851): neighbours on the ground are the hard negatives at first,
similar places later; no reference twice in a batch. Softened so that a cell next door is not
pushed away like one across town (methods.md 2), and with crops of anywhere, so that roofs and
fields learn to score low. Knows nothing of the loop. Letters: B photos, U crops, H heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoomloc.config import Config
from zoomloc.index import Crop
from zoomloc.model.encoders import shrunk
from zoomloc.model.precision import autocast, home_of, moved
from zoomloc.model.towers import Towers
from zoomloc.scorers.shown import ENCODE_AT_ONCE, as_tensor
from zoomloc.training.augment import augment_photos, augment_views, turned
from zoomloc.training.dataset import Ground, channels_first
from zoomloc.training.losses import info_nce
from zoomloc.world.cells import Floats, Ints

MINED_AT_ONCE = 4000  # places looked at in one mining, of all regions
COMPARED_AT_ONCE = 4096  # rows of the table of what looks alike
LEAF_WEIGHT = 2.0  # GeoMoE: levels weigh 1, 1, 1, 2


@dataclass(frozen=True)
class TowersBatch:
    """photos (B, 3, h, w), views (U, 3, S, S) uint8; heads: (head, count) of the views in turn;
    targets: for each head (B, count), rows sum to 1.
    """  # noqa: D205

    photos: Tensor
    views: Tensor
    heads: tuple[tuple[int, int], ...]
    targets: tuple[Tensor, ...]


class _Places:
    """Terminal cells of a region that have photos, and which are hard to tell apart."""

    def __init__(self, ground: Ground, neighbours: int) -> None:
        region = ground.views.region
        self.column, self.row = region.leaf_xy(ground.lat, ground.lng)  # of each photo
        width = region.grid_shape(region.zooms)[1]
        flat = np.floor(self.row).astype(np.int64) * width + np.floor(self.column).astype(np.int64)
        self.cell, place = np.unique(flat, return_inverse=True)
        self.order = np.argsort(place, kind="stable")
        self.start = np.searchsorted(place[self.order], np.arange(len(self.cell) + 1))
        self.at = np.stack(np.divmod(self.cell, width), 1).astype(np.float64)  # (n, 2)
        self.hard = _nearest(self.at, min(neighbours, len(self.cell) - 1))

    def photo_of(self, place: int, rng: np.random.Generator) -> int:
        """One of the photos taken in a cell, so that a parked car counts once."""
        return int(self.order[rng.integers(self.start[place], self.start[place + 1])])

    def draw(self, rng: np.random.Generator, count: int, near: int) -> Ints:
        """Places of a batch: seeds, each with the hardest of its neighbours and some others."""
        chosen: dict[int, None] = {}
        seeds = iter(rng.permutation(len(self.cell)))
        while len(chosen) < min(count, len(self.cell)):
            seed = int(next(seeds))
            always, pool = np.split(self.hard[seed], [near // 2])
            others = rng.permutation(pool)[: near - near // 2]
            for place in (seed, *always.tolist(), *others.tolist()):
                if len(chosen) < count:
                    chosen.setdefault(int(place))
        return np.array(list(chosen))


class TowersLearner:
    """Examples and loss of two towers over one or several regions."""

    needs_weights = False

    def __init__(self, config: Config, model: Any, grounds: Sequence[Ground]) -> None:
        self.config, self.grounds = config, grounds
        self.model: Towers = model
        self.places = [_Places(g, 2 * config.model.towers.near) for g in grounds]
        photos = np.array([len(g.photos) for g in grounds], float)
        self._weight = photos / photos.sum()
        self._mined_at = config.model.towers.near_share - config.model.towers.mine_every
        self._minings = 0

    def prepare(self, share: float) -> None:
        """Mine anew when it is time: places whose pictures the towers confuse."""
        plan = self.config.model.towers
        if plan.near == 0 or share < self._mined_at + plan.mine_every:
            return
        self._mined_at = share
        self._minings += 1
        rng = np.random.default_rng([self.config.train.seed, 6, self._minings])
        left = MINED_AT_ONCE
        for number in rng.permutation(len(self.grounds)):
            if left > 0:
                self._mine(int(number), rng)
            left -= len(self.places[number].cell)

    def memory(self) -> dict[str, Tensor]:
        """Neighbours as last mined."""
        found = {f"hard.{i}": torch.from_numpy(p.hard) for i, p in enumerate(self.places)}
        return found | {"mined": torch.tensor([self._mined_at, self._minings], dtype=torch.float64)}

    def recall(self, memory: dict[str, Tensor]) -> None:
        """Take up the neighbours that ``memory`` gave."""
        for i, places in enumerate(self.places):
            places.hard = memory[f"hard.{i}"].numpy()
        self._mined_at, self._minings = float(memory["mined"][0]), int(memory["mined"][1])

    def batch(self, step: int) -> TowersBatch:
        """Photos of different cells of one region, their references and some of anywhere."""
        train, plan = self.config.train, self.config.model.towers
        rng = np.random.default_rng([train.seed, 5, step])
        number = int(rng.choice(len(self.grounds), p=self._weight))
        ground, places = self.grounds[number], self.places[number]
        drawn = places.draw(rng, train.batch, plan.near)
        photos = np.array([places.photo_of(int(p), rng) for p in drawn])
        crops: list[list[Crop]] = []
        targets = []
        zooms = ground.views.region.zooms
        for head in self._heads(ground):
            crops.append(self._references(ground, places, photos, head, rng))
            targets.append(self._targets(ground, places, photos, crops[-1], zooms - head))
        pictures = [ground.views.crop(crop) for row in crops for crop in row]
        return TowersBatch(
            channels_first(ground.pixels.get(photos)),
            channels_first(np.stack(pictures)),
            tuple(zip(self._heads(ground), map(len, crops), strict=True)),
            tuple(targets),
        )

    def loss(self, batch: TowersBatch) -> Tensor:
        """Symmetric InfoNCE of each head, the terminal cells weighing twice."""
        plan, model = self.config.train, self.model
        batch = moved(batch, home_of(model))
        photos = augment_photos(shrunk(batch.photos, model.spec.photo_px), plan.augment)
        views = augment_views(batch.views, plan.augment)
        if plan.augment.turn:
            views = turned(views)
        if plan.augment.mirror and torch.rand(()) < 0.5:
            photos, views = photos.flip(-1), views.flip(-1)
        with autocast(plan.precision, photos.device):
            vectors = model.encode_photos(photos)
            references = model.encode_views(views, batch.heads)
        total = vectors.new_zeros(())
        for (head, _), reference, target in zip(
            batch.heads, references, batch.targets, strict=True
        ):
            logits = model.scale(head) * vectors[:, head] @ reference.T
            weight = LEAF_WEIGHT if head == 0 and len(batch.heads) > 1 else 1.0
            total = total + weight * info_nce(logits, target)
        return total

    def _heads(self, ground: Ground) -> list[int]:
        """Heads that a region has depths for; a single root needs no reference."""
        region = ground.views.region
        depths = [d for d in range(region.zooms, -1, -1) if region.grid_shape(d) != (1, 1)]
        return list(range(min(len(depths), self.model.spec.depths)))

    def _references(
        self, ground: Ground, places: _Places, photos: Ints, head: int, rng: np.random.Generator
    ) -> list[Crop]:
        """The distinct reference squares of the photos, then some of anywhere."""
        views = ground.views
        depth = views.region.zooms - head
        shrink = 0.5 ** (head * views.region.levels_per_zoom)
        rows, columns = places.row[photos] * shrink, places.column[photos] * shrink
        own = [views.reference(depth, r, c) for r, c in zip(rows, columns, strict=True)]
        present = np.argwhere(views.coverage.present(depth))
        count = int(self.config.model.towers.extra * len(photos))
        cells = present[rng.integers(len(present), size=min(count, len(present)))]
        anywhere = cells + rng.random(cells.shape)
        own += [views.reference(depth, r, c) for r, c in anywhere]
        return list(dict.fromkeys(own))

    def _targets(
        self, ground: Ground, places: _Places, photos: Ints, crops: Sequence[Crop], depth: int
    ) -> Tensor:
        """(B, U) how well each crop stands for each photo's place; rows sum to 1."""
        region = ground.views.region
        head = region.zooms - depth
        shrink = 0.5 ** (head * region.levels_per_zoom)
        centre = np.array([(c.row, c.column) for c in crops])
        place = np.stack([places.row[photos], places.column[photos]], 1) * shrink
        away = ((place[:, None] - centre[None]) ** 2).sum(-1)  # in cells of the depth, squared
        error_m = np.hypot(ground.error_m[photos], self.config.train.sigma_m)
        sigma = error_m / region.cell_size_m * shrink
        if head:
            sigma = np.hypot(sigma, self.config.model.towers.sigma_cells)
        away -= away.min(axis=1, keepdims=True)
        weight = np.exp(-away / (2 * sigma[:, None] ** 2))
        return torch.from_numpy(weight / weight.sum(1, keepdims=True)).float()

    @torch.inference_mode()
    def _mine(self, number: int, rng: np.random.Generator) -> None:
        """Neighbours of a region's places: the references most like a photo from there."""
        ground, places = self.grounds[number], self.places[number]
        self.model.eval()
        device = home_of(self.model)
        photos = np.array([places.photo_of(i, rng) for i in range(len(places.cell))])
        queries, references = [], []
        for start in range(0, len(photos), ENCODE_AT_ONCE):
            part = photos[start : start + ENCODE_AT_ONCE]
            pictures = as_tensor(list(ground.pixels.get(part)), device)
            queries.append(self.model.encode_photos(pictures)[:, 0])
            cells = places.at[start : start + ENCODE_AT_ONCE]
            depth = ground.views.region.zooms
            crops = [ground.views.reference(depth, r, c) for r, c in cells]
            pictures = as_tensor([ground.views.crop(crop) for crop in crops], device)
            references += self.model.encode_views(pictures, [(0, len(crops))])
        places.hard = _most_alike(torch.cat(queries), torch.cat(references), places.hard.shape[1])


def _most_alike(queries: Tensor, references: Tensor, count: int) -> Ints:
    """(n, count) for each query the references most like it, its own left out."""
    found = []
    for start in range(0, len(queries), COMPARED_AT_ONCE):
        similar = queries[start : start + COMPARED_AT_ONCE] @ references.T
        similar.diagonal(start).fill_(-torch.inf)
        found.append(similar.topk(count, dim=1).indices.cpu().numpy())
    return np.concatenate(found)


def _nearest(at: Floats, count: int) -> Ints:
    """(n, count) the nearest other points of (n, 2) points, nearest first."""
    found = np.zeros((len(at), count), np.int64)
    for start in range(0, len(at) if count else 0, 512):
        part = at[start : start + 512]
        away = ((part[:, None] - at[None]) ** 2).sum(-1)
        away[np.arange(len(part)), np.arange(start, start + len(part))] = np.inf
        some = np.argpartition(away, count - 1, axis=1)[:, :count]
        by_distance = np.argsort(np.take_along_axis(away, some, 1), axis=1, kind="stable")
        found[start : start + 512] = np.take_along_axis(some, by_distance, 1)
    return found
