"""What every source of photos gets and gives.

Knows nothing of any source.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shapely.geometry.base import BaseGeometry

from zoomloc.world.photos import Photo, Skipped

Progress = Callable[[int, int], None]
Found = Iterator[Photo | Skipped]


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
