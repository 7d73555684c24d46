"""What answers are worth: calibration, evidence, priors and several photos, in many places.

Knows nothing of how places are built or models trained; it locates photos and keeps numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from zoomloc.belief.posterior import Posterior
from zoomloc.belief.priors import Near
from zoomloc.locator import Locator, Query
from zoomloc.scorers.shown import Shown
from zoomloc.world.answers import Answer
from zoomloc.world.cells import Floats, LatLng, distance_m, geod
from zoomloc.world.photos import Photo, read_photos

AT_ONCE = 64
PRIOR_M = 300.0
CLOSE_M = 150.0  # and a closer one; a wrong one has that radius, at least 300 m from the truth
NARROW = 0.7  # of the picture's width
BLUR_SHARE = 1 / 128  # of a picture's width: 2 px of the 256 that photos have here
Say = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """A region, the run that is asked there, its test photos and photos of another place."""

    run: Path
    region: Path
    photos: tuple[Photo, ...]
    strangers: tuple[Photo, ...]
    turned: tuple[tuple[Photo, ...], ...] = ()  # photos of one stop each


@dataclass(frozen=True)
class Told:
    """One answer, reduced to numbers; NaN where there is none."""

    error_m: float
    probability: float
    radius50_m: float
    radius90_m: float
    evidence: float
    agreement: float
    searched_share: float
    nll: float
    group: str
    not_here: bool
    unknown: bool


def column(told: Sequence[Told], name: str) -> Floats:
    """One field of all answers."""
    return np.array([getattr(one, name) for one in told], np.float64)


@dataclass
class Measured:
    """All that was asked of one protocol's places."""

    plain: list[Told]
    strangers: list[Told]
    shifted: dict[str, list[Told]]
    near: list[tuple[Told, Told]]  # without and with a true prior
    wrong: list[Told]
    single: list[Told]  # the first photo of each stop
    together: list[Told]
    near_large: list[tuple[Told, Told]]  # as ``near``, in larger towns
    close: list[tuple[Told, Told]]  # as ``near``, of half the radius


def measure(places: Sequence[Place], larger: Sequence[Place], some: int, say: Say) -> Measured:
    """Locate everything; ``some`` photos of each place for what is beside the main question.

    ``larger``: places in which only a true prior is asked for.
    """
    found = Measured([], [], {}, [], [], [], [], [], [])
    for number, place in enumerate(larger):
        locator = Locator.load(place.run, place.region, anywhere=True)
        rng = np.random.default_rng(number)
        name = place.region.name
        plain = _told(locator, place.photos, name)
        found.near_large += _with_true_prior(locator, place.photos, plain, rng, name, PRIOR_M)
    for number, place in enumerate(places):
        locator = Locator.load(place.run, place.region, anywhere=True)
        rng = np.random.default_rng(number)
        name = place.region.name
        plain = _told(locator, place.photos, name)
        found.plain += plain
        found.strangers += _strangers(locator, place)
        some_of = rng.permutation(len(place.photos))[:some]
        chosen = [place.photos[i] for i in some_of]
        for shift, change in SHIFTS.items():
            found.shifted.setdefault(shift, [])
            found.shifted[shift] += _shifted(locator, chosen, change, name)
        before = [plain[i] for i in some_of]
        found.near += _with_true_prior(locator, chosen, before, rng, name, PRIOR_M)
        found.wrong += _with_wrong_prior(locator, chosen, rng, name)
        found.close += _with_true_prior(locator, chosen, before, rng, name, CLOSE_M)
        found.single += _told(locator, [stop[0] for stop in place.turned], name)
        for stop in place.turned:
            answer = locator.together([Query.of(photo) for photo in stop])
            found.together.append(_one(answer, None, f"{name}/{stop[0].sequence_id}"))
        say(f"{name}: {len(place.photos)} photos, {len(place.strangers)} of elsewhere")
    return found


def _told(
    locator: Locator,
    photos: Sequence[Photo],
    place: str,
    priors: Sequence[Near] | None = None,
) -> list[Told]:
    """Answers to photos, each under its prior if there are some."""
    queries = [Query.of(photo) for photo in photos]
    if priors is not None:
        queries = [replace(q, prior=prior) for q, prior in zip(queries, priors, strict=True)]
    return [
        _one(locator.answer(query, found, {}), found.posterior, f"{place}/{photo.sequence_id}")
        for (query, found), photo in zip(locator.each(queries, AT_ONCE), photos, strict=True)
    ]


def _one(answer: Answer, posterior: Posterior | None, group: str) -> Told:
    """An answer's numbers; without a posterior, none of those that need it."""
    truth, missing = answer.truth, float("nan")
    searched_share = nll = missing
    if truth is not None and posterior is not None:
        searched_share = posterior.searched_share(truth)
        nll = -float(posterior.log_mass_at(np.array([truth.lat]), np.array([truth.lng]))[0])
    return Told(
        missing if answer.error_m is None else answer.error_m,
        answer.probability,
        answer.radius50_m,
        answer.radius90_m,
        missing if answer.evidence is None else answer.evidence,
        missing if answer.agreement is None else answer.agreement,
        searched_share,
        nll,
        group,
        answer.not_here,
        answer.unknown,
    )


def _strangers(locator: Locator, place: Place) -> list[Told]:
    """Photos of other places, asked for here."""
    queries = [replace(Query.of(photo), truth=None) for photo in place.strangers]
    return [
        _one(locator.answer(query, found, {}), found.posterior, f"{place.region.name}/elsewhere")
        for query, found in locator.each(queries, AT_ONCE)
    ]


# what photos may be like


def _narrow(shown: Shown) -> Shown:
    """The middle of the picture, as a longer lens sees it."""
    height, width = shown.picture.shape[:2]
    across, down = round(width * NARROW), round(height * NARROW)
    left, top = (width - across) // 2, (height - down) // 2
    part = Image.fromarray(shown.picture[top : top + down, left : left + across])
    picture = np.asarray(part.resize((width, height), Image.Resampling.BICUBIC))
    half = np.tan(np.radians((shown.fov_deg or 70.0) / 2)) * NARROW
    return replace(shown, picture=picture, fov_deg=float(2 * np.degrees(np.arctan(half))))


def _blurred(shown: Shown) -> Shown:
    blur = ImageFilter.GaussianBlur(BLUR_SHARE * shown.picture.shape[1])
    image = Image.fromarray(shown.picture).filter(blur)
    return replace(shown, picture=np.asarray(image))


def _lens_unknown(shown: Shown) -> Shown:
    return replace(shown, fov_deg=None)


SHIFTS: dict[str, Callable[[Shown], Shown]] = {
    f"middle {NARROW:.0%} of the picture": _narrow,
    f"blurred by {BLUR_SHARE:.1%} of its width": _blurred,
    "field of view unknown": _lens_unknown,
}


def _shifted(
    locator: Locator, photos: Sequence[Photo], change: Callable[[Shown], Shown], place: str
) -> list[Told]:
    told = []
    for start in range(0, len(photos), AT_ONCE):
        part = photos[start : start + AT_ONCE]
        queries = [Query.of(photo) for photo in part]
        found = locator.find([change(locator.shown(query)) for query in queries])
        for query, photo, one in zip(queries, part, found, strict=True):
            answer = locator.answer(query, one, {})
            told.append(_one(answer, one.posterior, f"{place}/{photo.sequence_id}"))
    return told


# what is known beforehand


def _with_true_prior(
    locator: Locator,
    photos: Sequence[Photo],
    plain: Sequence[Told],
    rng: np.random.Generator,
    place: str,
    radius_m: float,
) -> list[tuple[Told, Told]]:
    """Each answer, and that under a disc that holds its truth, anywhere in it."""
    priors = []
    for photo in photos:
        away_m = radius_m * float(np.sqrt(rng.random()))
        priors.append(Near(_moved(photo.truth, float(rng.uniform(0, 360)), away_m), radius_m))
    return list(zip(plain, _told(locator, photos, place, priors), strict=True))


def _with_wrong_prior(
    locator: Locator, photos: Sequence[Photo], rng: np.random.Generator, place: str
) -> list[Told]:
    """Each photo with a disc of CLOSE_M that holds another photo's place, at least 300 m off."""
    priors, asked = [], []
    for photo in photos:
        order = rng.permutation(len(photos))
        far = [photos[i] for i in order if distance_m(photos[i].truth, photo.truth) > PRIOR_M]
        if far:
            priors.append(Near(far[0].truth, CLOSE_M))
            asked.append(photo)
    return _told(locator, asked, place, priors)


def _moved(place: LatLng, bearing_deg: float, away_m: float) -> LatLng:
    lng, lat, _ = geod().fwd(place.lng, place.lat, bearing_deg, away_m)
    return LatLng(float(lat), float(lng))


def stops_of(table: Path, split: str) -> tuple[tuple[Photo, ...], ...]:
    """Photos that were taken at the same place, four or so of each."""
    found: dict[tuple[float, float], list[Photo]] = {}
    for photo in read_photos(table, split):
        found.setdefault((round(photo.truth.lat, 7), round(photo.truth.lng, 7)), []).append(photo)
    return tuple(tuple(stop) for stop in found.values() if len(stop) > 1)
