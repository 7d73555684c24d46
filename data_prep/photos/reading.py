"""What every source of photos gets and gives.

Knows nothing of any source.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shapely.geometry.base import BaseGeometry

from zoomloc.errors import PhotoError
from zoomloc.world.photos import Photo, Skipped

Progress = Callable[[int, int], None]
Found = Iterator[Photo | Skipped]


class NothingThere(PhotoError):
    """A server has no photo of the region; no fault where another source has some."""


@dataclass(frozen=True)
class Task:
    """What a source is asked for.

    ``out`` is the region's folder: what is downloaded goes below it. ``ground`` is the region in
    degrees (lng, lat), None where there is none yet; servers need one.
    """

    out: Path
    ground: BaseGeometry | None
    workers: int
    progress: Progress | None = None
