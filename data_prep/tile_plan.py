"""What a pyramid will consist of: levels, blocks, settings, and the digest that names the job.

Knows nothing of stores, processes or of what is done already.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from data_prep.imagery.rasters import with_common_stretch
from data_prep.imagery.sheets import Sheet
from data_prep.tile_jobs import Look
from zoomloc.errors import RegionError
from zoomloc.world.cells import Cell, Ints, latlng_of, level_of_size
from zoomloc.world.region import Region

BLOCK_PX = 1024  # side of what is warped at once: some 30 MB a process, some 0.3 s
ROOT_MARGIN_LEVELS = 2  # tiles coarser than the roots, for the view around several of them
RECIPE = 1  # raised when the same rasters would give other tiles


@dataclass(frozen=True)
class TilePlan:
    """All that decides the tiles."""

    sheets: tuple[Sheet, ...]  # the first lies on top
    region: Region
    look: Look
    min_level: int
    max_level: int
    metadata: dict[str, Any]
    ground: BaseGeometry | None = None  # what was asked for; None: all that the sheets show

    @property
    def depth(self) -> int:
        """Levels between a block and the deepest tiles."""
        return max(0, min(self.max_level, (BLOCK_PX // self.look.tile_px).bit_length() - 1))


def planned(
    sheets: tuple[Sheet, ...],
    region: Region,
    look: Look,
    capture_date: str | None,
    ground: BaseGeometry | None = None,
    finest_m: float = 0.0,
) -> TilePlan:
    """Levels, common stretch and metadata; no pixel finer than about ``finest_m`` on the ground."""
    finest = min(sheets, key=lambda sheet: sheet.gsd_m)
    pixel_m = max(finest.gsd_m, finest_m)
    deepest = level_of_size(pixel_m * look.tile_px, finest.center.lat)
    coarsest = min(deepest, max(0, region.root_level - ROOT_MARGIN_LEVELS))
    alike = with_common_stretch(sheets)
    metadata = {
        "name": region.name,
        "attribution": "; ".join(region.attribution),
        "licence": region.licence,
        "capture_date": capture_date,
        "sources": [Path(sheet.name).name for sheet in alike],
        "generator": "zoomloc tiles",
        "sheets": [_entry(sheet) for sheet in alike],
        "settings_hash": _digest(
            [RECIPE, asdict(look), coarsest, deepest, ground and ground.wkb_hex]
        ),
    }
    metadata["job_hash"] = _digest(sorted(metadata.items()))
    return TilePlan(alike, region, look, coarsest, deepest, metadata, ground)


def reasons(region: Region, terminal_cell_m: float) -> str:
    """Why a region has its levels and roots, in one line."""
    terminal, roots = region.terminal_level, len(region.roots)
    many = f"{roots} roots" if roots > 1 else "1 root"
    return (
        f"level {terminal} has cells of {region.cell_size_m:.1f} m, the nearest to "
        f"{terminal_cell_m:g} m; {many} of level {region.root_level} cover the ground with the "
        f"fewest decisions: {region.zooms} zooms of {region.branching}"
    )


def _entry(sheet: Sheet) -> list[object]:
    """What a pyramid remembers of a sheet: digest, then west, south, east, north."""
    return [_digest(sheet.identity()), *(round(side, 7) for side in sheet.footprint.bounds)]


def _digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def side_by_side(sheets: Sequence[Sheet]) -> tuple[Sheet, ...]:
    """Footprints on the same turn of the globe as the first, so that they join across 180."""
    first = sheets[0].footprint.centroid.x
    turns = [round((first - sheet.footprint.centroid.x) / 360.0) for sheet in sheets]
    return tuple(
        sheet.within(translate(sheet.footprint, 360.0 * turn)) if turn else sheet
        for sheet, turn in zip(sheets, turns, strict=True)
    )


def cut(
    sheets: tuple[Sheet, ...], name: str, ground: BaseGeometry
) -> tuple[tuple[Sheet, ...], BaseGeometry]:
    """The sheets that reach into some ground, their footprints cut to it, and that ground.

    It is brought to the footprints' turn of the globe. Raises RegionError where none does.
    """
    sides = np.array([sheet.footprint.bounds for sheet in sheets])
    west, east = sides[:, 0].min(), sides[:, 2].max()
    turns = round(((west + east) / 2 - ground.centroid.x) / 360.0)
    ground = translate(ground, 360.0 * turns)
    parts = [(sheet, sheet.footprint.intersection(ground)) for sheet in sheets]
    within = tuple(sheet.within(part) for sheet, part in parts if part.area > 0)
    if not within:
        asked = ", ".join(str(round(side, 5)) for side in ground.bounds)
        found = west, sides[:, 1].min(), east, sides[:, 3].max()
        there = ", ".join(str(round(float(side), 5)) for side in found)
        raise RegionError(
            f"region {name!r}: no imagery reaches into it; it lies within {asked}, the imagery "
            f"within {there} (west, south, east, north)"
        )
    return within, ground


def blocks_of(plan: TilePlan) -> dict[Cell, list[Sheet]]:
    """Cells that are warped at once, row-major, each with the sheets that touch it, in order.

    Found by going down the quadtree with an R-tree over footprints at hand: neither much ground
    without imagery nor thousands of sheets cost anything.
    """
    level = plan.max_level - plan.depth
    tree = shapely.STRtree([sheet.footprint for sheet in plan.sheets])
    west, _, east, _ = shapely.total_bounds([sheet.footprint for sheet in plan.sheets])
    turns = range(int(np.floor((west + 180) / 360)), int(np.floor((east + 180) / 360)) + 1)
    columns, rows = np.array(turns), np.zeros(len(turns), np.int64)
    for depth in range(level + 1):
        meets = tree.query(_squares(columns, rows, depth), predicate="intersects")
        held = np.unique(meets[0])
        if depth < level:
            columns, rows = _quartered(columns[held], rows[held])
    side = 1 << level
    found: dict[Cell, list[int]] = {}
    for square, sheet in meets.T.tolist():
        cell = Cell(level, int(columns[square]) % side, int(rows[square]))
        found.setdefault(cell, []).append(sheet)
    order = sorted(found, key=lambda cell: (cell.y, cell.x))
    return {cell: [plan.sheets[i] for i in sorted(set(found[cell]))] for cell in order}


def _quartered(columns: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """The cells below some cells, one level down."""
    right, below = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    return (2 * columns[:, None] + right).ravel(), (2 * rows[:, None] + below).ravel()


def box_of(cell: Cell) -> BaseGeometry:
    """A cell's box in degrees."""
    return shapely.box(*cell.bounds)


def _squares(columns: Ints, rows: Ints, level: int) -> Any:
    """(n,) boxes in degrees of cells whose columns may pass the antimeridian."""
    side = 1 << level
    edges = np.stack([rows, rows + 1]).astype(np.float64)
    north, south = latlng_of(np.zeros_like(edges), edges, level)[0]
    west, east = (np.stack([columns, columns + 1]) / side) * 360.0 - 180.0
    return shapely.box(west, south, east, north)


def tile_count_at_most(plan: TilePlan, blocks: list[Cell]) -> int:
    """Tiles of all levels if no block has an empty one."""
    total = len(blocks) << 2 * plan.depth
    cells = set(blocks)
    for level in range(plan.max_level - 1, plan.min_level - 1, -1):
        down = level - blocks[0].level
        if down < 0:
            cells = {cell.parent() for cell in cells}
        total += len(cells) << 2 * max(down, 0)
    return total
