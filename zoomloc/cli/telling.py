"""An answer in a few lines for people.

Knows nothing of files, of screens or of how an answer was found.
"""

from typing import TYPE_CHECKING

from zoomloc.belief.priors import CONTRADICTED

if TYPE_CHECKING:
    from zoomloc.world.answers import Answer

OTHERS_TOLD = 3
_TOLD_OF_GIVEN = {"place": "", "heading": "heading ", "fov": ""}  # the rest is for later checks


def describe(answer: "Answer", within_m: float = 50.0) -> list[str]:
    """Place, how sure, which way, where else: three to five lines, the first names the photo.

    ``within_m``: the radius that ``probability`` is of.
    """
    return [
        f"{printable(answer.photo)}: {_verdict(answer)}{answer.lat:.6f}, {answer.lng:.6f}",
        *(f"    {line}" for line in _details(answer, within_m) if line),
    ]


def _verdict(answer: "Answer") -> str:
    """What stands before a place that is no more than a guess."""
    if answer.not_here:
        return "not from this region, it seems; where it fits least badly: "
    return "unknown; best guess " if answer.unknown else ""


def _details(answer: "Answer", within_m: float) -> list[str]:
    """The lines below the place; empty where there is nothing to say."""
    sure = (
        f"probability {answer.probability:.2f} within {_metres(within_m)}; 50 % of the belief "
        f"within {_metres(answer.radius50_m)}, 90 % within {_metres(answer.radius90_m)}"
    )
    return [sure, _heading(answer), _others(answer), _given(answer), _carried(answer)]


def _heading(answer: "Answer") -> str:
    if answer.bearing_deg is None:
        return ""
    spread = answer.bearing_spread_deg
    return f"heading {answer.bearing_deg:.0f}°" + ("" if spread is None else f" ± {spread:.0f}°")


def _others(answer: "Answer") -> str:
    """The likeliest places apart from the answer."""
    told = [
        f"{other.lat:.6f}, {other.lng:.6f} ({other.probability:.2f})"
        for other in answer.alternatives[:OTHERS_TOLD]
    ]
    return f"else {' or '.join(told)}" if told else ""


def _given(answer: "Answer") -> str:
    """What was told beside the photo, and whether the photo speaks against it."""
    known = {key: f"{name}{answer.given.get(key)}" for key, name in _TOLD_OF_GIVEN.items()}
    told = ", ".join(said for key, said in known.items() if key in answer.given)
    against = answer.agreement is not None and answer.agreement < CONTRADICTED
    return told and f"given: {told}" + ("; the photo speaks against this place" if against else "")


def _carried(answer: "Answer") -> str:
    """How far the photo's own position is; it is told for comparison and nothing else."""
    if answer.error_m is None:
        return ""
    return f"{_metres(answer.error_m)} from the position in the photo's EXIF, which was not used"


def _metres(metres: float) -> str:
    return f"{metres:.0f} m" if metres < 1000 else f"{metres / 1000:.1f} km"


def printable(text: str) -> str:
    """Text without what a terminal would obey: file names may be hostile."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )
