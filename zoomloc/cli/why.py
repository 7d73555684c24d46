"""The step behind ``zoomloc locate --why``: from a photo and its answer to one picture.

Knows nothing of how a match is reckoned or drawn; joins zoomloc.scorers.why and maps.why.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from zoomloc.cli.steps import needs_extra
from zoomloc.errors import ConfigError

if TYPE_CHECKING:
    from zoomloc.locator import Locator, Query
    from zoomloc.world.answers import Answer


def require_match(locator: "Locator", run: Path) -> None:
    """Raises ConfigError where a run's model is no match: others compare no bins."""
    from zoomloc.scorers.matches import MatchScorer

    if not isinstance(locator.scorer, MatchScorer):
        raise ConfigError(
            f"run {run}: --why draws how a match compares photo and map, and this model is no "
            "match; draw its zooms with --strip, or name the run of a match"
        )


def draw_why(locator: "Locator", answer: "Answer", query: "Query", out: Path) -> None:
    """One picture: the photo's fan, belief over the region, and the fan laid on the answer."""
    with needs_extra("maps"):
        from maps.why import write_why
    from zoomloc.scorers.why import why

    reasons = why(locator.scorer, locator.shown(query), answer.place, answer.bearing_deg)
    write_why(answer, locator.region, locator.pyramid, reasons, query.path, out)
