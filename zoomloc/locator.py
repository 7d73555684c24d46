"""Locator: photos in, Answers out; joins the world, a model and belief.

Knows nothing of training or of how answers are scored.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoomloc.belief.alternatives import alternatives
from zoomloc.belief.calibration import Calibration
from zoomloc.belief.posterior import Posterior
from zoomloc.belief.priors import Heading, Prior
from zoomloc.belief.reweigh import even_over, joined, on_leaves, under
from zoomloc.belief.search import SearchPlan, greedy_paths, search
from zoomloc.checkpoint import Explained, best_checkpoint, load_explained, load_model
from zoomloc.config import Config, SearchConfig
from zoomloc.errors import CheckpointError, RegionError
from zoomloc.index import RegionViews
from zoomloc.scorers import scorer_of, searching, with_elsewhere, with_index
from zoomloc.scorers.shown import Shown
from zoomloc.world.answers import Alternative, Answer, Candidate
from zoomloc.world.cells import Floats, LatLng, distance_m
from zoomloc.world.coverage import Coverage
from zoomloc.world.files import sha256_of
from zoomloc.world.images import load_fitted
from zoomloc.world.photos import Photo
from zoomloc.world.pyramid import TilePyramid
from zoomloc.world.region import Region

DISC_M = 25.0  # the answer is the Bayes point for "within 25 m" (DESIGN 5.5)
KEPT_CELLS = 64  # cells of the posterior that an answer keeps


@dataclass(frozen=True)
class Query:
    """A photo to be located: its name in the answer, its file, its truth where known."""

    name: str
    path: Path
    truth: LatLng | None = None
    fov_deg: float | None = None
    projection: str = "perspective"
    heading: Heading | None = None  # where the camera looked, if that is known
    prior: Prior | None = None  # where it was, as far as is known before

    @classmethod
    def of(cls, photo: Photo) -> "Query":
        """A photo of a photo table, under its id."""
        return cls(photo.id, photo.path, photo.truth, photo.fov_deg, photo.projection)

    def given(self) -> dict[str, str]:
        """What is known before the photo is looked at, in words."""
        place, heading = self.prior, self.heading
        told = {} if place is None else {"place": place.described()}
        if heading is not None:
            told["heading"] = f"{heading.bearing_deg:g}° ± {heading.within_deg:g}°"
        return told


@dataclass(frozen=True)
class Found:
    """What is concluded of one photo: belief, the best place, and the heading where known.

    ``better_here``: what the scorer says of this ground against other ground. ``evidence``:
    log-odds that the photo is from here, with what was given; ``agreement``: its part that tells
    how well photo and what was given of its place go together.
    """

    posterior: Posterior
    place: LatLng
    bearing_deg: float | None = None
    bearing_spread_deg: float | None = None
    better_here: float | None = None
    evidence: float | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class Locator:
    """Answers where photos were taken, within one region.

    ``Locator.load(run)`` reads a trained run; ``answers`` gives one Answer a photo.
    """

    scorer: Any  # a belief.search.Scorer with .views, the region that it searches
    photo_px: tuple[int, int]
    search: SearchConfig
    made_by: dict[str, str]
    calibration: Calibration = Calibration()

    @classmethod
    def load(
        cls,
        run: Path,
        region: Path | None = None,
        imagery: Path | None = None,
        anywhere: bool = False,
    ) -> "Locator":
        """A trained run with its region's pyramid.

        ``region`` is the folder with region.json and imagery.pmtiles (the one trained on,
        unless given); ``imagery`` replaces the pyramid by another of the same ground;
        ``anywhere`` lets a model that only knows its own region guess in another one. Raises
        CheckpointError, RegionError or ImageryError, also where checkpoint and region differ.
        """
        path = best_checkpoint(run)
        explained = load_explained(path)
        if explained.config.train.threads:
            torch.set_num_threads(explained.config.train.threads)
        folder = region or explained.config.data
        views = open_views(folder, explained.config, imagery)
        at_home = _is_same_ground(explained, views.region)
        if not (at_home or anywhere):
            _check_carries_over(explained, folder)
        model = load_model(path, explained)
        made_by = {
            "checkpoint": sha256_of(path)[:16],
            "imagery": views.pyramid.imagery_hash(),
            "config": config_hash(explained.config),
            "imagery_date": str(views.pyramid.metadata.get("capture_date") or ""),
        }
        if explained.calibration is not None:
            made_by["calibration"] = explained.calibration.digest()
        scorer = scorer_of(model, views, explained.config.search, use_place=at_home)
        scorer = with_elsewhere(with_index(scorer, folder, made_by), run, made_by)
        return cls(
            scorer,
            explained.config.model.photo_px,
            explained.config.search,
            made_by,
            explained.calibration or Calibration(),
        )

    @property
    def region(self) -> Region:
        """The ground that is searched."""
        return self.scorer.views.region

    @property
    def pyramid(self) -> TilePyramid:
        """The imagery that is searched."""
        return self.scorer.views.pyramid

    def with_search(self, search_config: SearchConfig) -> "Locator":
        """The same model with other search settings."""
        return replace(self, scorer=searching(self.scorer, search_config), search=search_config)

    def shown(self, query: Query) -> Shown:
        """A photo as the model sees it. Raises PhotoError where it cannot be read."""
        picture = load_fitted(query.path, *self.photo_px)
        return Shown(picture, query.fov_deg, query.projection, query.heading)

    def find(
        self, photos: Sequence[Shown], priors: Sequence[Prior | None] | None = None
    ) -> list[Found]:
        """Belief and best place of photos that already have the model's shape.

        priors: of each photo, what is known of its place; none where None.
        """
        coverage = self.scorer.views.coverage
        ratios = _ratios(priors or [None] * len(photos), coverage)
        state = self.scorer.start(photos)
        posteriors = search(
            self.scorer, photos, coverage, self._plan, state, _stacked(ratios, coverage)
        )
        found = self._concluded(state, posteriors, ratios)
        if self.search.answer == "cell":  # the paper's way: the greedy cells' centres
            paths = greedy_paths(self.scorer, photos, coverage)
            return [replace(f, place=p[-1].center) for f, p in zip(found, paths, strict=True)]
        return [self._closer(state, i, one) for i, one in enumerate(found)]

    @property
    def _plan(self) -> SearchPlan:
        return SearchPlan(method=self.search.method, beam=self.search.beam, bound=self.search.bound)

    def _concluded(
        self, state: Any, posteriors: Sequence[Posterior], ratios: Sequence[Floats | None]
    ) -> list[Found]:
        """Belief that may be trusted, under what is known before, and the best place of it."""
        raw = self.scorer.evidence(state)
        found = []
        for i, (posterior, ratio) in enumerate(zip(posteriors, ratios, strict=True)):
            better = None if raw is None else float(raw[i])
            belief, agreement = self.calibration.believed(posterior), None
            evidence = self.calibration.evidence(better)
            if ratio is not None:
                belief, agreement = under(belief, ratio)
                evidence = agreement + (evidence or 0.0)
            place = belief.best_point(DISC_M)
            found.append(
                Found(belief, place, better_here=better, evidence=evidence, agreement=agreement)
            )
        return found

    def _closer(self, state: Any, photo: int, found: Found) -> Found:
        """What a closer look at the Bayes point says."""
        place, bearing_deg, spread_deg = self.scorer.sharpened(state, photo, found.place)
        return replace(found, place=place, bearing_deg=bearing_deg, bearing_spread_deg=spread_deg)

    def together(self, queries: Sequence[Query]) -> Answer:
        """One answer for several photos of one place, whatever their headings.

        p(c | x1..xn) is proportional to p0(c) times the product of (p(c | xi) / p0(c)) ** alpha;
        what is known of places without a photo counts once. The first photo's prior holds.
        Raises PhotoError for an unreadable photo.
        """
        coverage = self.scorer.views.coverage
        photos = [self.shown(query) for query in queries]
        ratios = _ratios([queries[0].prior], coverage)
        state = self.scorer.start(photos)
        posteriors = search(
            self.scorer, photos, coverage, self._plan, state, _stacked(ratios, coverage)
        )
        single = self._concluded(state, posteriors, [None] * len(photos))
        found = self._joined(single, ratios[0])
        told = "".join(sha256_of(query.path) for query in queries)
        photo = hashlib.sha256(told.encode()).hexdigest()[:16]
        whole = replace(queries[0], name=" + ".join(query.name for query in queries))
        return self.answer(whole, found, {"photo": photo, **self.made_by})

    def _joined(self, single: Sequence[Found], log_ratio: Floats | None) -> Found:
        """What photos say together, under what is known beforehand."""
        coverage = self.scorer.views.coverage
        alpha = self.calibration.alpha if len(single) > 1 else 1.0
        grids = np.stack([on_leaves(found.posterior, coverage) for found in single])
        belief = joined(grids, self.place_prior(), alpha, coverage)
        told = [found.evidence for found in single if found.evidence is not None]
        evidence = alpha * sum(told) if told else None
        if log_ratio is None:
            return Found(belief, belief.best_point(DISC_M), evidence=evidence)
        belief, agreement = under(belief, log_ratio)
        evidence = agreement + (evidence or 0.0)
        return Found(belief, belief.best_point(DISC_M), evidence=evidence, agreement=agreement)

    def place_prior(self) -> Floats:
        """(rows, columns) log p0 of terminal cells."""
        learned = self.scorer.place_prior()
        if learned is None:
            return even_over(self.scorer.views.coverage)
        return np.asarray(learned)

    def each(self, queries: Sequence[Query], at_once: int = 128) -> Iterator[tuple[Query, Found]]:
        """What is found for each query, in order. Raises PhotoError for an unreadable photo."""
        for start in range(0, len(queries), at_once):
            part = queries[start : start + at_once]
            priors = [query.prior for query in part]
            yield from zip(part, self.find([self.shown(q) for q in part], priors), strict=True)

    def answers(self, queries: Sequence[Query], hash_photos: bool = True) -> Iterator[Answer]:
        """One Answer for each query, in order. Raises PhotoError for an unreadable photo."""
        for query, found in self.each(queries):
            photo = sha256_of(query.path)[:16] if hash_photos else ""
            yield self.answer(query, found, {"photo": photo, **self.made_by})

    def answer(self, query: Query, found: Found, made_by: dict[str, str]) -> Answer:
        """What a posterior says of a place: its probability and the radii round it."""
        posterior, place = found.posterior, found.place
        probability = posterior.mass_within(place, self.search.right_within_m)
        kept = posterior.merged(KEPT_CELLS)
        return Answer(
            photo=query.name,
            lat=place.lat,
            lng=place.lng,
            probability=probability,
            radius50_m=posterior.radius_holding(place, self.calibration.share50),
            radius90_m=posterior.radius_holding(place, self.calibration.share90),
            bearing_deg=found.bearing_deg,
            bearing_spread_deg=found.bearing_spread_deg,
            path=tuple(cell.quadkey for cell in self.region.path(place)),
            candidates=tuple(
                Candidate(cell.quadkey, cell.center.lat, cell.center.lng, mass)
                for cell, mass in posterior.top(self.search.candidates)
            ),
            posterior=tuple(
                (cell.quadkey, mass)
                for cell, mass in zip(kept.cells, kept.mass.tolist(), strict=True)
            ),
            evidence=found.evidence,
            agreement=found.agreement,
            unknown=probability < self.search.unknown_below,
            not_here=self.calibration.is_elsewhere(found.evidence),
            truth=query.truth,
            error_m=None if query.truth is None else distance_m(place, query.truth),
            made_by=made_by,
            alternatives=tuple(
                Alternative(*there, mass)
                for there, mass in alternatives(posterior, place, self.search.right_within_m)
            ),
            given=query.given(),
            within_m=self.search.right_within_m,
        )


def _ratios(priors: Sequence[Prior | None], coverage: Coverage) -> list[Floats | None]:
    """(rows, columns) log r / p0 of each photo, computed once for each prior."""
    known = {prior: prior.log_ratio(coverage) for prior in priors if prior is not None}
    return [None if prior is None else known[prior] for prior in priors]


def _stacked(ratios: Sequence[Floats | None], coverage: Coverage) -> Floats | None:
    """(B, rows, columns) as search takes them, (1, ...) for one that all share; None for none."""
    first = ratios[0] if ratios else None
    if all(ratio is first for ratio in ratios):
        return None if first is None else first[None]
    nothing = np.zeros(coverage.leaves.shape)
    return np.stack([nothing if ratio is None else ratio for ratio in ratios])


def open_views(folder: Path, config: Config, imagery: Path | None = None) -> RegionViews:
    """The views of a region folder (region.json, imagery.pmtiles)."""
    if not (folder / "region.json").is_file():
        raise RegionError(
            f"region folder {folder}: holds no region.json; make it with 'zoomloc tiles', or name "
            "it with --region (paths of a config count from the folder of the command)"
        )
    region = Region.load(folder / "region.json")
    pyramid = TilePyramid.open(imagery or folder / "imagery.pmtiles")
    return RegionViews(
        region,
        pyramid,
        Coverage.of(region, pyramid),
        config.model.view_px,
        config.model.view_margin,
        config.model.towers.context_m,
        config.model.towers.dense,
    )


def config_hash(config: Config) -> str:
    """Short hex digest of the whole config tree."""
    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:16]


def _is_same_ground(explained: Explained, region: Region) -> bool:
    """Whether a region is the one that the checkpoint was trained on."""
    trained = explained.region
    return (trained.roots, trained.terminal_level, trained.levels_per_zoom) == (
        region.roots,
        region.terminal_level,
        region.levels_per_zoom,
    )


def _check_carries_over(explained: Explained, folder: Path) -> None:
    """Refuse a model that remembers the one place it was trained on; elsewhere it would guess."""
    config = explained.config
    if config.model.kind == "zoom" and len(config.regions) < 2:
        raise CheckpointError(
            f"region {folder}: is not the one that the checkpoint was trained on, "
            f"{explained.region.name!r}, and it knows no other place; give --region of that one, "
            "or train on this one"
        )
