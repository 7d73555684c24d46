"""Sheet: the imagery of some ground, drawn onto blocks of the Mercator grid.

Knows nothing of files, servers or tiles; what is a sheet is told by the modules beside this one.
"""

from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
from shapely.geometry.base import BaseGeometry

from zoomloc.world.cells import Cell, LatLng

RGBA = npt.NDArray[np.uint8]  # (4, H, W)


class Sheet(Protocol):
    """One piece of imagery; small enough to be sent to other processes.

    ``footprint`` is its ground in degrees (lng, lat; lng may pass 180), ``gsd_m`` the metres of
    ground that one of its pixels shows at ``center``.
    """

    @property
    def name(self) -> str:
        """What messages and metadata call it; never holds a secret."""

    @property
    def footprint(self) -> BaseGeometry:
        """Its ground."""

    @property
    def center(self) -> LatLng:
        """Its middle."""

    @property
    def gsd_m(self) -> float:
        """Its pixel on the ground."""

    def within(self, footprint: BaseGeometry) -> Self:
        """The same sheet with other ground."""

    def identity(self) -> list[object]:
        """All that decides its pixels, as JSON has it."""

    def draw(self, block: Cell, side_px: int) -> RGBA | None:
        """(4, side_px, side_px) of a block, or None where it does not reach.

        Raises ImageryError where pixels cannot be read.
        """


@dataclass(frozen=True)
class Placed:
    """What all sheets hold: see ``Sheet``."""

    name: str
    footprint: BaseGeometry
    center: LatLng
    gsd_m: float

    def within(self, footprint: BaseGeometry) -> Self:
        """The same sheet with other ground."""
        return replace(self, footprint=footprint)
