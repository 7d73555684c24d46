"""Fits the calibration of a run on val photos, and keeps other ground beside it.

Knows nothing of how the model was trained or of how the fitted numbers are used; whether photos
may be used for it is the caller's to prove.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from zoomloc.belief.calibration import (
    Calibration,
    fit_alpha,
    fit_evidence,
    fit_scale_and_floor,
    fit_share,
    tempered_truths,
)
from zoomloc.belief.posterior import Posterior, log_sum
from zoomloc.belief.reweigh import on_leaves
from zoomloc.checkpoint import best_checkpoint, load_explained, load_model, write_explained
from zoomloc.config import GENERAL
from zoomloc.errors import PhotoError
from zoomloc.ground import GroundMap, Window
from zoomloc.locator import Locator, Query, open_views
from zoomloc.model.match import MatchModel
from zoomloc.model.residual import ResidualZoom
from zoomloc.scorers.elsewhere import (
    GSD_M,
    NAME,
    SIDE_PX,
    Picture,
    encoded,
    read_mosaic,
    save_elsewhere,
)
from zoomloc.world.cells import Floats, LatLng, distance_m, distances_m
from zoomloc.world.coverage import Coverage
from zoomloc.world.files import sha256_of
from zoomloc.world.photos import Photo, split_hash

MOSAIC = GENERAL / "elsewhere.webp"  # other ground for runs that have none of their own
PICTURES = 24  # of other ground
AROUND_M = 150.0  # without which a photo is taken to be from elsewhere
FRAMES, APART_M = 4, 12.0  # photos of one place
ANCHORS = 40  # places of each region that several photos are joined at
SHARES_ON = 500  # photos that radii are fitted on
MOST_NUMBERS = 40_000_000  # held for that
Progress = Callable[[int, int], None]
Asked = tuple[Locator, tuple[Photo, ...]]  # a run in a region, and the region's photos


@dataclass(frozen=True)
class Source:
    """Photos to fit on, and the region folder that they are searched in."""

    region: Path
    photos: tuple[Photo, ...]


def calibrate(
    run: Path, sources: Sequence[Source], progress: Progress | None = None
) -> Calibration:
    """Fit scale, floor, evidence and alpha, and write them into the run's best checkpoint.

    The photos must not be ones that were trained on. Raises PhotoError where there are none.
    """
    sources = [source for source in sources if source.photos]
    if not sources:
        raise PhotoError(f"run {run}: no val photos to calibrate on; check the split")
    path = best_checkpoint(run)
    asked = [(_plain(run, source), source.photos) for source in sources]  # maps encoded once
    found = [*_measured(asked, progress)]
    truths = np.concatenate([one.truths for one in found])
    groups = [i for i, one in enumerate(found) for _ in one.truths]
    scale, floor, before, after = fit_scale_and_floor(truths, groups)
    here = np.concatenate([one.here for one in found])
    away = np.concatenate([one.away for one in found])
    slope, offset, here_from = fit_evidence(here, away) if len(here) else (None, 0.0, None)
    made = Calibration(
        scale=scale,
        floor=floor,
        slope=slope,
        offset=offset,
        here_from=here_from,
        photos=len(truths),
        split_hash=split_hash([photo for source in sources for photo in source.photos]),
        regions=tuple(one.name for one in found),
        nll=(before, after),
    )
    asked = [(replace(locator, calibration=made), photos) for locator, photos in asked]
    share50, share90 = _shares(asked)
    alpha = _alpha(asked)
    made = replace(made, alpha=alpha, share50=share50, share90=share90)
    write_explained(path, replace(load_explained(path), calibration=made))
    return made


@dataclass(frozen=True)
class _Measured:
    """What one region's photos say: rows of ``tempered_truths``, evidence here and elsewhere."""

    name: str
    truths: Floats
    here: Floats
    away: Floats


def _measured(asked: Sequence[Asked], progress: Progress | None) -> Iterator[_Measured]:
    """Each region's photos searched, uncalibrated."""
    done, total = 0, sum(len(photos) for _, photos in asked)
    for locator, photos in asked:
        rows, here, away = [], [], []
        for query, found in locator.each([Query.of(photo) for photo in photos]):
            assert query.truth is not None  # photos of a table have one
            rows.append(tempered_truths(found.posterior, query.truth))
            if found.better_here is not None:
                here.append(found.better_here)
                away.append(found.better_here + _log_without(found.posterior, query.truth))
            done += 1
            if progress is not None:
                progress(done, total)
        yield _Measured(locator.region.name, np.array(rows), np.array(here), np.array(away))


def _plain(run: Path, source: Source) -> Locator:
    """The run in a source's region, its probabilities as the network gives them."""
    locator = Locator.load(run, source.region, anywhere=True)
    return replace(locator, calibration=Calibration())


def _log_without(posterior: Posterior, truth: LatLng) -> float:
    """Log of how much likelier a photo is on the ground away from its truth than on all of it.

    What evidence would be, had the photo been taken elsewhere in ground of the same kind.
    """
    middles = (corner + posterior.span / 2 for corner in posterior.corner)
    lat, lng = posterior.region.leaf_places(*middles)
    far = distances_m(lat, lng, np.array(truth.lat), np.array(truth.lng)) > AROUND_M
    if not far.any():
        return 0.0
    area = posterior.span.astype(np.float64) ** 2
    return log_sum(posterior.log_mass[far]) - float(np.log(area[far].sum() / area.sum()))


def _shares(asked: Sequence[Asked]) -> tuple[float, float]:
    """share50 and share90, of some of the photos, as answers are given."""
    held, groups = [], []
    for i, (locator, photos) in enumerate(asked):
        some = photos[:: max(1, len(photos) * len(asked) // SHARES_ON)]
        for query, found in locator.each([Query.of(photo) for photo in some]):
            assert query.truth is not None
            away_m = distance_m(found.place, query.truth)
            held.append(found.posterior.mass_within(found.place, away_m))
            groups.append(i)
    each = np.array(held)
    return fit_share(each, groups, 0.5), fit_share(each, groups, 0.9)


# several photos of one place


def _alpha(asked: Sequence[Asked]) -> float:
    """What each of several photos of a place counts."""
    groups = []
    for locator, photos in asked:
        coverage = locator.scorer.views.coverage
        most = MOST_NUMBERS // (FRAMES * coverage.leaves.size)
        for near in _sets(photos)[:most]:
            group = _group(locator, coverage, near)
            if group is not None:
                groups.append(group)
    return fit_alpha(groups)


def _sets(photos: Sequence[Photo]) -> list[list[Photo]]:
    """FRAMES photos that stand within APART_M of each of some photos, itself first."""
    lat, lng = (np.array([getattr(p.truth, k) for p in photos]) for k in ("lat", "lng"))
    found = []
    for i in np.random.default_rng(0).permutation(len(photos)):
        away = distances_m(lat, lng, lat[i], lng[i])
        near = np.argsort(away, kind="stable")[:FRAMES]
        if len(near) == FRAMES and away[near[-1]] <= APART_M:
            found.append([photos[j] for j in near])
        if len(found) == ANCHORS:
            break
    return found


def _group(
    locator: Locator, coverage: Coverage, photos: Sequence[Photo]
) -> tuple[Floats, Floats, int] | None:
    """Log-masses (n, cells), log p0 (cells,), and the true cell; None for a truth outside."""
    shown = [locator.shown(Query.of(photo)) for photo in photos]
    grids = [on_leaves(found.posterior, coverage) for found in locator.find(shown)]
    truth = photos[0].truth
    x, y = locator.region.leaf_xy(np.array([truth.lat]), np.array([truth.lng]))
    if not coverage.holds(np.array([truth.lat]), np.array([truth.lng]))[0]:
        return None
    seen = coverage.leaves
    at = int(seen[: int(y[0])].sum() + seen[int(y[0]), : int(x[0])].sum())
    return np.stack([grid[seen] for grid in grids]), locator.place_prior()[seen], at


# other ground


def forget(run: Path) -> None:
    """Take an earlier calibration out of a run's checkpoint."""
    path = best_checkpoint(run)
    explained = load_explained(path)
    if explained.calibration is not None:
        write_explained(path, replace(explained, calibration=None))


def keep_elsewhere(run: Path, pictures: Sequence[Picture]) -> int:
    """Encode pictures of other ground beside a run's checkpoint; how many places. 0: no match."""
    path = best_checkpoint(run)
    model = load_model(path, load_explained(path))
    match = model.match if isinstance(model, ResidualZoom) else model
    if not isinstance(match, MatchModel):
        return 0
    places = encoded(match, pictures)
    save_elsewhere(run / NAME, places, sha256_of(path)[:16])
    return len(places.unary)


def pictures_of(run: Path, regions: Sequence[Path]) -> list[Picture]:
    """PICTURES squares of the maps of regions, spread evenly over them; mosaics as they are."""
    found: list[Picture] = []
    folders = [region for region in regions if region.is_dir()]
    for region in regions:
        if not region.is_dir():
            found += read_mosaic(region)
    config = load_explained(best_checkpoint(run)).config
    for i, folder in enumerate(folders):
        ground = GroundMap(open_views(folder, config), GSD_M)
        rng = np.random.default_rng(i)
        for _ in range(len(range(i, PICTURES, len(folders)))):
            found.append(_square(ground, rng))
    return found


def _square(ground: GroundMap, rng: np.random.Generator) -> Picture:
    """One square of a region's map, anywhere on it."""
    height, width = ground.shape_px
    top, left = (int(rng.integers(0, max(1, most - SIDE_PX + 1))) for most in (height, width))
    return ground.picture(Window(left, top, SIDE_PX, SIDE_PX))
