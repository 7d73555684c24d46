"""XYZ tile servers: an address for each tile out of a template.

Knows nothing of how servers are asked or of what becomes of tiles.
"""

from dataclasses import dataclass
from pathlib import Path

from shapely.geometry.base import BaseGeometry

from data_prep.imagery.fetched import Order, order_of
from data_prep.imagery.grids import Address, mercator_grid
from data_prep.imagery.web import filled
from zoomloc.config.imagery import XyzSource
from zoomloc.world.cells import Cell


@dataclass(frozen=True)
class Template:
    """An XYZ template of one level."""

    url: str
    level: int
    tms: bool
    subdomains: tuple[str, ...]

    def address(self, at: Address, secrets: bool = True) -> str:
        """The address of a tile; without secrets ``${NAME}`` stays as it is."""
        column, row = at
        south = (1 << self.level) - 1 - row
        values = {
            "{z}": str(self.level),
            "{x}": str(column),
            "{y}": str(south if self.tms else row),
            "{-y}": str(south),
            "{q}": Cell(self.level, column, row).quadkey,
            "{s}": self.subdomains[(column + row) % len(self.subdomains)]
            if self.subdomains
            else "",
        }
        url = self.url
        for key, value in values.items():
            url = url.replace(key, value)
        return filled(url) if secrets else url


def order_xyz(source: XyzSource, ground: BaseGeometry, cache: Path) -> Order:
    """The tiles of a source that show some ground in degrees."""
    template = Template(source.url, source.level, source.tms, source.subdomains)
    grid = mercator_grid(source.level, source.tile_px)
    key = f"xyz {source.url} {source.level} {'tms' if source.tms else ''}".strip()
    return order_of(source, key, grid, ground, cache, template.address)
