"""The step behind ``--with-photos``: a region's own photos as evidence beside its imagery.

Knows nothing of how they are compared; joins photo tables and zoomloc.scorers.known.
"""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoomloc.errors import ConfigError

if TYPE_CHECKING:
    from zoomloc.locator import Locator


def with_photos(
    locator: "Locator", folder: Path, run: Path, asked: Collection[str] = ()
) -> tuple["Locator", int]:
    """The locator, with the training photos of a region folder as evidence, and their number.

    Photos of other splits and of the drives that are ``asked`` about stay out, so that none is
    found by itself or by its own drive; so do those without bearing or field of view. Raises
    ConfigError for models that compare no bins, PhotoError where no photo is left.
    """
    from zoomloc.locator import Query
    from zoomloc.scorers.known import Placed, with_known
    from zoomloc.scorers.matches import MatchScorer
    from zoomloc.world.photos import read_photos

    if not isinstance(locator.scorer, MatchScorer):
        raise ConfigError(
            f"run {run}: --with-photos needs a match, which sees in a photo what the map shows; "
            "this model is none"
        )
    known = [
        Placed(locator.shown(Query.of(photo)), photo.place, photo.bearing_deg)
        for photo in read_photos(folder / "photos.parquet", "train")
        if photo.sequence_id not in asked
        and photo.projection == "perspective"
        and photo.fov_deg is not None
        and photo.bearing_deg is not None
    ]
    return replace(locator, scorer=with_known(locator.scorer, known)), len(known)
