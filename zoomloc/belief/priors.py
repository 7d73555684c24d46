"""What is known of a photo before it is looked at: a place nearby, an area, a heading.

Knows nothing of scores, search or flags. A prior r is a density over terminal cells; what is
handed on is log r / p0, where p0 has all ground with imagery alike, so that it averages 1.
"""

from dataclasses import dataclass
from typing import Protocol

from zoomloc.world.cells import Floats
from zoomloc.world.coverage import Coverage


class Prior(Protocol):
    """Anything that says how much likelier some ground is than other before a photo is seen."""

    def log_ratio(self, coverage: Coverage) -> Floats:
        """(rows, columns) of the terminal grid: log r / p0, which averages 1 over the ground."""
        ...

    def described(self) -> str:
        """What an answer says of it, in a few words."""
        ...


@dataclass(frozen=True)
class Heading:
    """Where a camera looked: within ``within_deg`` of ``bearing_deg``, clockwise from north."""

    bearing_deg: float
    within_deg: float
