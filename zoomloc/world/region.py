"""Region: the ground that is searched, as up to 16 roots and the levels below them.

Knows nothing of pictures, photos or models. All rows and columns here count from the
north-west corner of the rectangle around the roots, eastward across the antimeridian.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from shapely import make_valid
from shapely.errors import ShapelyError
from shapely.geometry import box, mapping, shape
from shapely.geometry.base import BaseGeometry

from zoomloc.errors import RegionError
from zoomloc.world.cells import (
    MAX_LEVEL,
    Bounds,
    Cell,
    Floats,
    Ints,
    LatLng,
    cell_at,
    cell_of_quadkey,
    latlng_of,
    level_of_size,
    size_m,
    unwrapped_columns,
    xy_of,
)
from zoomloc.world.files import read_json, write_json

SCHEMA = "zoomloc/region/1"
MAX_ROOTS = 16
MAX_LEAVES = 1 << 26  # 67 million terminal cells: what fits in memory as one array


@dataclass(frozen=True)
class Region:
    """Up to 16 roots of one level (sorted row-major from the north-west) and what lies below.

    ``polygon`` is a GeoJSON geometry in degrees, or None where the roots are all of it.
    Raises RegionError where the levels do not fit together.
    """

    name: str
    roots: tuple[Cell, ...]
    terminal_level: int
    levels_per_zoom: int = 2
    polygon: dict[str, Any] | None = field(default=None, compare=False)
    attribution: tuple[str, ...] = ()
    licence: str = ""

    def __post_init__(self) -> None:
        _check_roots(self)
        _check_levels(self)

    # 1. the tree

    @property
    def root_level(self) -> int:
        """Level of the roots."""
        return self.roots[0].level

    @property
    def zooms(self) -> int:
        """Decisions from a root to a terminal cell (the root choice is not counted)."""
        return (self.terminal_level - self.root_level) // self.levels_per_zoom

    @property
    def branching(self) -> int:
        """K, the number of descendants that one zoom chooses from."""
        return 1 << 2 * self.levels_per_zoom

    def children(self, cell: Cell) -> list[Cell]:
        """The K descendants that a zoom from this cell chooses from, in choice order."""
        return cell.descendants(self.levels_per_zoom)

    def path(self, place: LatLng) -> tuple[Cell, ...]:
        """Cells from the root to the terminal cell of a place.

        Raises RegionError where the place lies outside the roots.
        """
        leaf = cell_at(place, self.terminal_level)
        path = [leaf.parent(k * self.levels_per_zoom) for k in range(self.zooms, -1, -1)]
        if path[0] not in self.roots:
            raise RegionError(
                f"place {place.lat:.6f}, {place.lng:.6f}: outside region {self.name!r} "
                f"(its roots: {', '.join(r.quadkey for r in self.roots)})"
            )
        return tuple(path)

    def path_to(self, cell: Cell) -> tuple[Cell, ...]:
        """Cells from the root to this cell, itself included."""
        depth = self.depth(cell)
        return tuple(cell.parent(k * self.levels_per_zoom) for k in range(depth, -1, -1))

    def depth(self, cell: Cell) -> int:
        """Zooms between the root above this cell and the cell."""
        return (cell.level - self.root_level) // self.levels_per_zoom

    # 2. the rectangle around the roots, as rows and columns

    @cached_property
    def origin(self) -> tuple[int, int]:
        """(x, y) of the rectangle's north-west cell at root level."""
        columns = unwrapped_columns([r.x for r in self.roots], self.root_level)
        return min(columns), min(r.y for r in self.roots)

    @cached_property
    def root_shape(self) -> tuple[int, int]:
        """(rows, columns) of the rectangle at root level."""
        columns = unwrapped_columns([r.x for r in self.roots], self.root_level)
        rows = [r.y for r in self.roots]
        return max(rows) - min(rows) + 1, max(columns) - min(columns) + 1

    def grid_shape(self, depth: int) -> tuple[int, int]:
        """(rows, columns) of the rectangle's cells ``depth`` zooms below the roots."""
        side = 1 << (depth * self.levels_per_zoom)
        return self.root_shape[0] * side, self.root_shape[1] * side

    def row_column(self, cell: Cell) -> tuple[int, int]:
        """Place of a cell in the grid of its own depth."""
        down = cell.level - self.root_level
        column = (cell.x - (self.origin[0] << down)) % (1 << cell.level)
        return cell.y - (self.origin[1] << down), column

    def cell(self, depth: int, row: int, column: int) -> Cell:
        """The cell at a row and column of the grid ``depth`` zooms below the roots."""
        level = self.root_level + depth * self.levels_per_zoom
        down = level - self.root_level
        x = ((self.origin[0] << down) + column) % (1 << level)
        return Cell(level, x, (self.origin[1] << down) + row)

    def leaf_xy(self, lat: Floats, lng: Floats) -> tuple[Floats, Floats]:
        """Fractional (column, row) of places in the grid of terminal cells."""
        x, y = xy_of(lat, lng, self.terminal_level)
        down = self.terminal_level - self.root_level
        column = (x - (self.origin[0] << down)) % (1 << self.terminal_level)
        # a place just west of the region must come out just below 0, not at the far east
        column = np.where(
            column > (1 << self.terminal_level) / 2 + self.grid_shape(self.zooms)[1],
            column - (1 << self.terminal_level),
            column,
        )
        return column, y - (self.origin[1] << down)

    def leaf_places(self, column: Floats, row: Floats) -> tuple[Floats, Floats]:
        """Latitude and longitude of fractional columns and rows of the terminal grid."""
        down = self.terminal_level - self.root_level
        x = np.asarray(column) + (self.origin[0] << down)
        return latlng_of(x, np.asarray(row) + (self.origin[1] << down), self.terminal_level)

    def root_slots(self) -> Ints:
        """(R, 2) row and column of each root; slot i of the root choice is ``roots[i]``."""
        return np.array([self.row_column(r) for r in self.roots], np.int64)

    @property
    def cell_size_m(self) -> float:
        """Side of a terminal cell in ground metres, at the region's middle."""
        rows, columns = self.grid_shape(self.zooms)
        lat, _ = self.leaf_places(np.array([columns / 2]), np.array([rows / 2]))
        return size_m(self.terminal_level, float(lat[0]))

    def shape(self) -> BaseGeometry | None:
        """The polygon as a shapely geometry in degrees (lng, lat), or None."""
        return None if self.polygon is None else shape(self.polygon)

    # 3. files

    def save(self, path: Path) -> None:
        """Write ``region.json`` (atomic)."""
        write_json(path, {"schema": SCHEMA, **self.to_json()})

    @classmethod
    def load(cls, path: Path) -> "Region":
        """Read ``region.json``. Raises RegionError where it is missing or not one."""
        return cls.from_json(read_json(path, SCHEMA, RegionError))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Region":
        """The region that ``region.json`` describes. Raises RegionError."""
        try:
            if data.get("polygon") is not None:
                shape(data["polygon"])
            return cls(
                name=str(data["name"]),
                roots=tuple(cell_of_quadkey(q) for q in data["roots"]),
                terminal_level=int(data["terminal_level"]),
                levels_per_zoom=int(data["levels_per_zoom"]),
                polygon=data.get("polygon"),
                attribution=tuple(data.get("attribution", ())),
                licence=str(data.get("licence", "")),
            )
        except (AttributeError, LookupError, ShapelyError, TypeError, ValueError) as error:
            raise RegionError(
                f"region.json: {error!r} is missing or of a wrong kind; "
                "build the region again with 'zoomloc tiles'"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads."""
        return {
            "name": self.name,
            "roots": [r.quadkey for r in self.roots],
            "terminal_level": self.terminal_level,
            "levels_per_zoom": self.levels_per_zoom,
            "polygon": self.polygon,
            "attribution": list(self.attribution),
            "licence": self.licence,
        }


# 4. how a region is chosen


def cover(
    name: str,
    ground: BaseGeometry,
    terminal_cell_m: float,
    levels_per_zoom: int = 2,
    attribution: Sequence[str] = (),
    licence: str = "",
) -> Region:
    """The region whose roots cover ``ground`` (degrees, lng/lat) with the fewest decisions.

    The terminal level is the one whose cells come nearest to ``terminal_cell_m``. Raises
    RegionError for empty ground and where no 16 roots fit.
    """
    ground = make_valid(ground)
    if not ground.area > 0 or not terminal_cell_m > 0 or levels_per_zoom < 1:
        raise RegionError(
            f"region {name!r}: needs ground with an area, terminal_cell_m above 0 (is "
            f"{terminal_cell_m}) and levels_per_zoom of at least 1 (is {levels_per_zoom})"
        )
    west, south, east, north = ground.bounds
    terminal = min(level_of_size(terminal_cell_m, (south + north) / 2), MAX_LEVEL)
    plans = []
    for root_level in range(terminal - levels_per_zoom, -1, -levels_per_zoom):
        roots = _cells_touching(ground, Bounds(west, south, east, north), root_level)
        if roots:
            decisions = (terminal - root_level) // levels_per_zoom + (len(roots) > 1)
            plans.append((decisions, -root_level, roots))
    if not plans:
        raise RegionError(
            f"region {name!r}: no {MAX_ROOTS} roots cover it with terminal cells of "
            f"{terminal_cell_m} m; take larger ground or smaller cells"
        )
    _, _, roots = min(plans)  # of equal plans the deepest roots: they waste least of the view
    return Region(
        name,
        tuple(roots),
        terminal,
        levels_per_zoom,
        dict(mapping(ground)),
        tuple(attribution),
        licence,
    )


def _cells_touching(ground: BaseGeometry, bounds: Bounds, level: int) -> list[Cell]:
    """Cells of a level that share area with the ground, row-major; none if more than 16."""
    xs, ys = xy_of(
        np.array([bounds.north, bounds.south]), np.array([bounds.west, bounds.east]), level
    )
    columns = range(int(np.floor(xs[0])), int(np.ceil(xs[1])))
    rows = range(max(int(np.floor(ys[0])), 0), min(int(np.ceil(ys[1])), 1 << level))
    if len(columns) * len(rows) > 4 * MAX_ROOTS:
        return []
    found = []
    for y in rows:
        for x in columns:
            wrapped = Cell(level, x % (1 << level), y)
            west = x / (1 << level) * 360.0 - 180.0  # unwrapped, as the ground may pass 180
            square = box(
                west, wrapped.bounds.south, west + 360.0 / (1 << level), wrapped.bounds.north
            )
            if wrapped not in found and ground.intersection(square).area > 0:
                found.append(wrapped)
    return found if len(found) <= MAX_ROOTS else []


def _check_roots(region: Region) -> None:
    """Refuse roots that are none, too many, of several levels or out of order."""
    roots = region.roots
    if not 1 <= len(roots) <= MAX_ROOTS:
        raise RegionError(
            f"region {region.name!r}: {len(roots)} roots; 1 to {MAX_ROOTS} are needed"
        )
    if len({r.level for r in roots}) != 1 or len(set(roots)) != len(roots):
        raise RegionError(f"region {region.name!r}: roots must be distinct and of one level")
    order = sorted(roots, key=region.row_column)
    if tuple(order) != roots:
        object.__setattr__(region, "roots", tuple(order))


def _check_levels(region: Region) -> None:
    """Refuse levels that no whole number of zooms joins, naming the nearest that do."""
    depth, step = region.terminal_level - region.root_level, region.levels_per_zoom
    if step < 1 or depth < step or region.terminal_level > MAX_LEVEL:
        raise RegionError(
            f"region {region.name!r}: terminal level {region.terminal_level} must lie "
            f"at least {step} below root level {region.root_level}, at most "
            f"{MAX_LEVEL}"
        )
    if depth % step:
        lat = region.roots[0].center.lat
        below = region.root_level + depth // step * step
        sizes = [f"{size_m(z, lat):.1f} m (level {z})" for z in (below, below + step)]
        raise RegionError(
            f"region {region.name!r}: {depth} levels from root to terminal cells are no multiple "
            f"of levels_per_zoom {step}; the nearest terminal cells are {' or '.join(sizes)}"
        )
    rows, columns = region.grid_shape(region.zooms)
    if rows * columns > MAX_LEAVES:
        raise RegionError(
            f"region {region.name!r}: {rows * columns:,} terminal cells are more than "
            f"{MAX_LEAVES:,}; take larger cells or less ground"
        )
