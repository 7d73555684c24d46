"""An answer in a few lines for people.

Knows nothing of files, of screens or of how an answer was found.
"""

from typing import TYPE_CHECKING

from zoomloc.belief.priors import CONTRADICTED
from zoomloc.world.wording import (
    AGAINST,
    called,
    given,
    is_contradicted,
    metres,
    others,
    sure,
    verdict,
)

if TYPE_CHECKING:
    from zoomloc.world.answers import Answer

OTHERS_TOLD = 3


def describe(answer: "Answer") -> list[str]:
    """Place, how sure, which way, where else: three to five lines, the first names the photo."""
    word = verdict(answer, CONTRADICTED)
    guess = f"{word}; {called(answer)} " if word else ""
    return [
        f"{printable(answer.photo)}: {guess}{answer.lat:.6f}, {answer.lng:.6f}",
        *(f"    {line}" for line in _details(answer) if line),
    ]


def _details(answer: "Answer") -> list[str]:
    """The lines below the place; empty where there is nothing to say."""
    told = (
        f"{sure(answer)}; 50 % of the belief within {metres(answer.radius50_m)}, "
        f"90 % within {metres(answer.radius90_m)}"
    )
    return [told, _heading(answer), _others(answer), _given(answer), _carried(answer)]


def _heading(answer: "Answer") -> str:
    if answer.bearing_deg is None:
        return ""
    spread = answer.bearing_spread_deg
    return f"heading {answer.bearing_deg:.0f}°" + ("" if spread is None else f" ± {spread:.0f}°")


def _others(answer: "Answer") -> str:
    """The likeliest places apart from the answer."""
    told = [
        f"{other.place.lat:.6f}, {other.place.lng:.6f} ({other.words})"
        for other in others(answer)[:OTHERS_TOLD]
    ]
    return f"else {' or '.join(told)}" if told else ""


def _given(answer: "Answer") -> str:
    """What was told beside the photo, and whether the photo speaks against it."""
    told = given(answer)
    against = f"; {AGAINST}" if is_contradicted(answer, CONTRADICTED) else ""
    return told and f"given: {told}{against}"


def _carried(answer: "Answer") -> str:
    """How far the photo's own position is; it is told for comparison and nothing else."""
    if answer.error_m is None:
        return ""
    return f"{metres(answer.error_m)} from the position in the photo's EXIF, which was not used"


def printable(text: str) -> str:
    """Text without what a terminal would obey: file names may be hostile."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )
