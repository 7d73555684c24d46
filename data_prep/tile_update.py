"""What a pyramid that exists can give to a new one: all tiles that no changed sheet touches.

Knows nothing of how tiles are made. Sheets are compared by the digests and bounds that a pyramid
remembers of those it was made of.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from data_prep.tile_plan import TilePlan, box_of
from data_prep.tile_scratch import TileScratch
from zoomloc.errors import ImageryError
from zoomloc.world.cells import Cell
from zoomloc.world.pyramid import TilePyramid


def changed_ground(before: dict[str, Any], now: dict[str, Any]) -> BaseGeometry | None:
    """Boxes (degrees) of sheets that came, went or changed; None where all must be made anew."""
    if before.get("settings_hash") != now["settings_hash"]:
        return None
    old, new = _entries(before.get("sheets")), _entries(now["sheets"])
    common = set(old) & set(new)
    if [e for e in old if e in common] != [e for e in new if e in common]:
        return None  # another order: any overlap may look otherwise
    changed = [entry[1:] for entry in {*old, *new} - common]
    return shapely.union_all(shapely.box(*np.array(changed, float).reshape(-1, 4).T))


def _entries(found: Any) -> list[tuple[Any, ...]]:
    return [tuple(entry) for entry in found or []]


class Earlier:
    """The pyramid that is there, as far as a new one may take tiles from it.

    ``copied`` counts them. Nothing is taken where there is none, or one of other settings or
    other ground.
    """

    def __init__(self, plan: TilePlan, imagery: Path) -> None:
        self.copied = 0
        self._pyramid: TilePyramid | None = None
        try:
            pyramid = TilePyramid.open(imagery) if imagery.exists() else None
        except ImageryError:
            return  # damaged: all is made anew
        if pyramid is None:
            return
        dirty = changed_ground(pyramid.metadata, plan.metadata)
        if dirty is None:
            pyramid.close()
            return
        shapely.prepare(dirty)
        self._pyramid, self._dirty = pyramid, dirty

    def gives(self, scratch: TileScratch, name: str, above: Cell, tiles: Iterable[Cell]) -> bool:
        """Store a piece of work, ``tiles`` that lie under ``above``, if all are as they were."""
        if self._pyramid is None or self._dirty.intersects(box_of(above)):
            return False
        found = [(cell, self._pyramid.encoded(cell)) for cell in tiles]
        held = [(cell, data) for cell, data in found if data is not None]
        scratch.store(name, held)
        self.copied += len(held)
        return True

    def close(self) -> None:
        """Let go of the file."""
        if self._pyramid is not None:
            self._pyramid.close()
