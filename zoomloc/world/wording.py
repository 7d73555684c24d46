"""What an answer says of itself, in words: those of the text, of the map and of the pictures.

Knows nothing of where the words stand, of models or of pages. Nothing here claims certainty:
a share that rounds to all is "over 99.9 %".
"""

import math
from typing import NamedTuple

from zoomloc.world.answers import Answer
from zoomloc.world.cells import LatLng, distance_m

NOT_HERE = "probably not from this region"
NOT_THERE = "probably not from the place that was given, or not from this region"
UNKNOWN = "unknown"
AGAINST = "the photo speaks against the place that was given"
NO_NUMBER = "unknown"

_TOLD_OF_GIVEN = {"place": "", "heading": "heading ", "fov": ""}  # the rest is for later checks


class Other(NamedTuple):
    """An alternative: its number from 1, where it is, how likely and how far from the answer."""

    number: int
    place: LatLng
    words: str


# 1. numbers


def percent(share: float | None) -> str:
    """A share of belief with its unit; neither all nor nothing is claimed."""
    if share is None or not math.isfinite(share):
        return NO_NUMBER
    if share > 0.999:
        return "over 99.9 %"
    if share < 0.001:
        return "under 0.1 %"
    return f"{100 * share:.1f} %" if share < 0.0995 or share >= 0.995 else f"{100 * share:.0f} %"


def metres(length_m: float | None) -> str:
    """A length with its unit, as exact as a reader needs it."""
    if length_m is None or not math.isfinite(length_m):
        return NO_NUMBER
    if length_m >= 995:
        return f"{length_m / 1000:.1f} km" if length_m < 9950 else f"{length_m / 1000:,.0f} km"
    return f"{length_m:.0f} m" if length_m >= 9.95 else f"{length_m:.1f}".removesuffix(".0") + " m"


# 2. the answer


def is_guess(answer: Answer) -> bool:
    """Whether the place is no more than a guess."""
    return answer.not_here or answer.unknown


def verdict(answer: Answer, below: float) -> str:
    """What makes the place no more than a guess; empty where it is an answer."""
    if answer.not_here:  # under a given place, that one may be at fault
        return NOT_THERE if is_contradicted(answer, below) else NOT_HERE
    return UNKNOWN if answer.unknown else ""


def called(answer: Answer) -> str:
    """What the place is called."""
    return "best guess" if is_guess(answer) else "answer"


def sure(answer: Answer) -> str:
    """How sure the answer is of its place; belief is spread over the region and nothing else."""
    condition = "if it is from here, " if answer.not_here else ""
    return f"{condition}probability {percent(answer.probability)} within {metres(answer.within_m)}"


def is_contradicted(answer: Answer, below: float) -> bool:
    """Whether photo and place given go together worse than ``below`` (``priors.CONTRADICTED``)."""
    return answer.agreement is not None and answer.agreement < below


def warnings(answer: Answer, below: float) -> list[str]:
    """What has to be read before the place is: sentences, none where the answer is one."""
    word = verdict(answer, below)
    found = [f"{word.capitalize()}: the mark is only the best guess."] if word else []
    said = answer.not_here  # by the verdict
    return found + [f"{AGAINST.capitalize()}."] * (is_contradicted(answer, below) and not said)


# 3. what else there is


def others(answer: Answer) -> list[Other]:
    """Other places apart from the answer, the likeliest first; those that are no place left out."""
    return [
        Other(
            number,
            LatLng(other.lat, other.lng),
            f"{percent(other.probability)}, "
            f"{metres(distance_m(answer.place, LatLng(other.lat, other.lng)))} away",
        )
        for number, other in enumerate(answer.alternatives, 1)
        if abs(other.lat) <= 90 and abs(other.lng) <= 180
    ]


def given(answer: Answer) -> str:
    """What was told beside the photo; empty where nothing was."""
    known = {key: f"{name}{answer.given.get(key)}" for key, name in _TOLD_OF_GIVEN.items()}
    return ", ".join(said for key, said in known.items() if key in answer.given)
