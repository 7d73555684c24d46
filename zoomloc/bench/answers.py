"""What answers are worth: calibration, evidence, priors and several photos, in many places.

Knows nothing of how places are built or models trained; it locates photos and keeps numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from zoomloc.belief.priors import Near
from zoomloc.locator import Locator, Query
from zoomloc.scorers.shown import Shown
from zoomloc.world.cells import Floats, LatLng, distance_m, geod
from zoomloc.world.photos import Photo, read_photos

AT_ONCE = 64
PRIOR_M = 300.0
WRONG_M = 150.0  # a prior of that radius, at least 300 m from the truth
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


def measure(places: Sequence[Place], larger: Sequence[Place], some: int, say: Say) -> Measured:
    """Locate everything; ``some`` photos of each place for what is beside the main question.

    ``larger``: places in which only a true prior is asked for.
    """
    found = Measured([], [], {}, [], [], [], [], [])
    for number, place in enumerate(larger):
        locator = Locator.load(place.run, place.region, anywhere=True)
        rng = np.random.default_rng(number)
        found.near_large += _with_true_prior(locator, place.photos, rng, place.region.name)
    for number, place in enumerate(places):
        locator = Locator.load(place.run, place.region, anywhere=True)
        rng = np.random.default_rng(number)
        name = place.region.name
        found.plain += _told(locator, [Query.of(p) for p in place.photos], place.photos, name)
        found.strangers += _strangers(locator, place)
        chosen = [place.photos[i] for i in rng.permutation(len(place.photos))[:some]]
        for shift, change in SHIFTS.items():
            found.shifted.setdefault(shift, [])
            found.shifted[shift] += _shifted(locator, chosen, change, name)
        found.near += _with_true_prior(locator, chosen, rng, name)
        found.wrong += _with_wrong_prior(locator, chosen, rng, name)
        for stop in place.turned:
            found.single += _told(locator, [Query.of(stop[0])], stop[:1], name)
            found.together.append(_together(locator, stop, name))
        say(f"{name}: {len(place.photos)} photos, {len(place.strangers)} of elsewhere")
    return found


def _told(
    locator: Locator, queries: Sequence[Query], photos: Sequence[Photo], place: str
) -> list[Told]:
    """Answers to photos with a truth."""
    asked = [replace(q, truth=p.truth) for q, p in zip(queries, photos, strict=True)]
    found = []
    for (query, conclusion), photo in zip(locator.each(asked, AT_ONCE), photos, strict=True):
        found.append(_one(locator, query, conclusion, f"{place}/{photo.sequence_id}"))
    return found


def _one(locator: Locator, query: Query, found: Any, group: str) -> Told:
    answer = locator.answer(query, found, {})
    truth = query.truth
    missing = float("nan")
    posterior = found.posterior
    log_mass = missing
    if truth is not None:
        log_mass = float(posterior.log_mass_at(np.array([truth.lat]), np.array([truth.lng]))[0])
    return Told(
        missing if answer.error_m is None else answer.error_m,
        answer.probability,
        answer.radius50_m,
        answer.radius90_m,
        missing if answer.evidence is None else answer.evidence,
        missing if answer.agreement is None else answer.agreement,
        missing if truth is None else posterior.searched_share(truth),
        -log_mass,
        group,
        answer.not_here,
        answer.unknown,
    )


def _strangers(locator: Locator, place: Place) -> list[Told]:
    """Photos of other places, asked for here."""
    queries = [replace(Query.of(photo), truth=None) for photo in place.strangers]
    return [
        _one(locator, query, found, f"{place.region.name}/elsewhere")
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
    found = []
    for part in _parts(photos):
        queries = [Query.of(photo) for photo in part]
        shown = [change(locator.shown(query)) for query in queries]
        for query, photo, one in zip(queries, part, locator.find(shown), strict=True):
            asked = replace(query, truth=photo.truth)
            found.append(_one(locator, asked, one, f"{place}/{photo.sequence_id}"))
    return found


def _parts(photos: Sequence[Photo]) -> Iterator[Sequence[Photo]]:
    for start in range(0, len(photos), AT_ONCE):
        yield photos[start : start + AT_ONCE]


# what is known beforehand


def _with_true_prior(
    locator: Locator, photos: Sequence[Photo], rng: np.random.Generator, place: str
) -> list[tuple[Told, Told]]:
    """Each photo without and with a disc of PRIOR_M that holds its truth, anywhere in it."""
    plain = _told(locator, [Query.of(p) for p in photos], photos, place)
    queries = []
    for photo in photos:
        away_m = PRIOR_M * float(np.sqrt(rng.random()))
        middle = _moved(photo.truth, float(rng.uniform(0, 360)), away_m)
        queries.append(replace(Query.of(photo), prior=Near(middle, PRIOR_M)))
    return list(zip(plain, _told(locator, queries, photos, place), strict=True))


def _with_wrong_prior(
    locator: Locator, photos: Sequence[Photo], rng: np.random.Generator, place: str
) -> list[Told]:
    """Each photo with a disc of WRONG_M that holds another photo's place, at least 300 m off."""
    queries, asked = [], []
    for photo in photos:
        order = rng.permutation(len(photos))
        far = [photos[i] for i in order if distance_m(photos[i].truth, photo.truth) > PRIOR_M]
        if far:
            queries.append(replace(Query.of(photo), prior=Near(far[0].truth, WRONG_M)))
            asked.append(photo)
    return _told(locator, queries, asked, place)


def _moved(place: LatLng, bearing_deg: float, away_m: float) -> LatLng:
    lng, lat, _ = geod().fwd(place.lng, place.lat, bearing_deg, away_m)
    return LatLng(float(lat), float(lng))


def _together(locator: Locator, stop: Sequence[Photo], place: str) -> Told:
    """Several photos of one stop as one answer."""
    answer = locator.together([Query.of(photo) for photo in stop])
    error_m = distance_m(answer.place, stop[0].truth)
    evidence = float("nan") if answer.evidence is None else answer.evidence
    nan = float("nan")
    return Told(
        error_m,
        answer.probability,
        answer.radius50_m,
        answer.radius90_m,
        evidence,
        nan,
        nan,
        nan,
        f"{place}/{stop[0].sequence_id}",
        answer.not_here,
        answer.unknown,
    )


def stops_of(table: Path, split: str) -> tuple[tuple[Photo, ...], ...]:
    """Photos that were taken at the same place, four or so of each."""
    found: dict[tuple[float, float], list[Photo]] = {}
    for photo in read_photos(table, split):
        found.setdefault((round(photo.truth.lat, 7), round(photo.truth.lng, 7)), []).append(photo)
    return tuple(tuple(stop) for stop in found.values() if len(stop) > 1)
