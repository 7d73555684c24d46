"""Occupied cells: GeoMoE's protocol, where only cells that hold one of the photos may answer.

Knows nothing of search: it takes a belief over all ground and asks how it lies on those cells.
It is easier than all cells: which few of them hold an answer is known beforehand.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from zoomloc.belief.posterior import Posterior, log_sum
from zoomloc.errors import RegionError
from zoomloc.world.cells import LatLng, cell_at
from zoomloc.world.region import Region


class Occupied:
    """The terminal cells of a region in which at least one of some places lies.

    Raises RegionError where none of the places lies in the region.
    """

    def __init__(self, region: Region, places: Sequence[LatLng]) -> None:
        cells = {cell_at(place, region.terminal_level) for place in places}
        up = region.terminal_level - region.root_level
        inside = sorted(cell for cell in cells if cell.parent(up) in region.roots)
        if not inside:
            raise RegionError(
                f"region {region.name!r}: none of {len(places)} photos stands in it, so no cell "
                "is occupied; name the region that they were taken in"
            )
        self.even = Posterior.of(region, inside, np.zeros(len(inside)))
        middles = np.array([cell.center for cell in self.even.cells])
        self.lat, self.lng = middles[:, 0], middles[:, 1]

    def __len__(self) -> int:
        return len(self.even.log_mass)

    def holds(self, place: LatLng) -> bool:
        """Whether a place lies in one of the cells."""
        found = self.even.log_mass_at(np.array([place.lat]), np.array([place.lng]))
        return not np.isnan(found[0])

    def belief(self, posterior: Posterior) -> Posterior:
        """The posterior on these cells alone, normalised; even where it has nothing on them."""
        log_mass = posterior.log_mass_at(self.lat, self.lng)
        log_mass = np.where(np.isnan(log_mass), -np.inf, log_mass)
        total = log_sum(log_mass)
        return self.even if total == -np.inf else replace(self.even, log_mass=log_mass - total)
