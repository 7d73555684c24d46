"""What a pyramid will consist of: levels, blocks, settings, and the digest that names the job.

Knows nothing of stores, processes or of what is done already.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

from data_prep.rasters import Raster
from data_prep.tile_jobs import Look
from zoomloc.errors import RegionError
from zoomloc.world.cells import Bounds, Cell, latlng_of, level_of_size, xy_of
from zoomloc.world.region import Region

BLOCK_PX = 1024  # side of what is warped at once: some 30 MB a process, some 0.3 s
ROOT_MARGIN_LEVELS = 2  # tiles coarser than the roots, for the view around several of them
RECIPE = 1  # raised when the same rasters would give other tiles


@dataclass(frozen=True)
class TilePlan:
    """All that decides the tiles."""

    rasters: tuple[Raster, ...]
    region: Region
    look: Look
    min_level: int
    max_level: int
    metadata: dict[str, Any]
    bounds: Bounds | None = None

    @property
    def depth(self) -> int:
        """Levels between a block and the deepest tiles."""
        return max(0, min(self.max_level, (BLOCK_PX // self.look.tile_px).bit_length() - 1))


def planned(
    rasters: tuple[Raster, ...],
    region: Region,
    look: Look,
    capture_date: str | None,
    bounds: Bounds | None = None,
) -> TilePlan:
    """Levels, common stretch and metadata."""
    finest = min(rasters, key=lambda raster: raster.gsd_m)
    deepest = level_of_size(finest.gsd_m * look.tile_px, finest.center.lat)
    coarsest = min(deepest, max(0, region.root_level - ROOT_MARGIN_LEVELS))
    metadata = {
        "name": region.name,
        "attribution": "; ".join(region.attribution),
        "licence": region.licence,
        "capture_date": capture_date,
        "sources": [raster.path.name for raster in rasters],
        "generator": "zoomloc tiles",
    }
    stretched = _with_common_stretch(rasters)
    plan = TilePlan(stretched, region, look, coarsest, deepest, metadata, bounds)
    metadata["job_hash"] = _job_hash(plan)
    return plan


def side_by_side(rasters: list[Raster]) -> tuple[Raster, ...]:
    """Footprints on the same turn of the globe as the first, so that they join across 180."""
    first = rasters[0].footprint.centroid.x
    turns = [round((first - raster.footprint.centroid.x) / 360.0) for raster in rasters]
    return tuple(
        replace(raster, footprint=translate(raster.footprint, 360.0 * turn)) if turn else raster
        for raster, turn in zip(rasters, turns, strict=True)
    )


def cut(
    rasters: tuple[Raster, ...], name: str, bounds: Bounds
) -> tuple[tuple[Raster, ...], BaseGeometry]:
    """The rasters that reach into a box, their footprints cut to it, and the box as ground.

    The box is brought to the footprints' turn of the globe. Raises RegionError where none does.
    """
    square = shapely.box(*bounds)
    whole = shapely.unary_union([raster.footprint for raster in rasters])
    square = translate(square, 360.0 * round((whole.centroid.x - square.centroid.x) / 360.0))
    parts = [(r, r.footprint.intersection(square)) for r in rasters]
    within = tuple(replace(r, footprint=part) for r, part in parts if part.area > 0)
    if not within:
        west, south, east, north = (round(side, 5) for side in whole.bounds)
        raise RegionError(
            f"region {name!r}: no raster reaches into bounds {', '.join(map(str, bounds))}; "
            f"rasters lie within {west}, {south}, {east}, {north} (west, south, east, north)"
        )
    return within, square


def _with_common_stretch(rasters: tuple[Raster, ...]) -> tuple[Raster, ...]:
    """The same black and white for all rasters beyond 8 bits, so that no seams appear."""
    ends = [raster.stretch for raster in rasters if raster.stretch is not None]
    if not ends:
        return rasters
    common = min(low for low, _ in ends), max(high for _, high in ends)
    return tuple(replace(r, stretch=common) if r.stretch is not None else r for r in rasters)


def _job_hash(plan: TilePlan) -> str:
    """Short digest of all that decides the file: rasters (by name, size, time) and settings."""
    stats = [(r.path.name, *_size_and_time(r.path), r.stretch) for r in plan.rasters]
    look = (plan.look.tile_px, plan.look.image_format, plan.look.quality)
    parts = [RECIPE, stats, look, plan.min_level, plan.max_level, sorted(plan.metadata.items())]
    parts += [] if plan.bounds is None else [list(plan.bounds)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _size_and_time(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def blocks_of(plan: TilePlan) -> dict[Cell, list[Raster]]:
    """Cells that are warped at once, row-major, each with the rasters that touch it."""
    level = plan.max_level - plan.depth
    found: dict[Cell, list[Raster]] = {}
    for raster in plan.rasters:
        for block in _cells_touching(raster.footprint, level):
            found.setdefault(block, []).append(raster)
    return {block: found[block] for block in sorted(found, key=lambda c: (c.y, c.x))}


def _cells_touching(ground: BaseGeometry, level: int) -> list[Cell]:
    """Cells of a level that meet the ground, which may pass the antimeridian."""
    west, south, east, north = ground.bounds
    xs, ys = xy_of(np.array([north, south]), np.array([west, east]), level)
    side = 1 << level
    columns = np.arange(int(np.floor(xs[0])), int(np.floor(xs[1])) + 1)
    rows = np.arange(max(int(np.floor(ys[0])), 0), min(int(np.floor(ys[1])), side - 1) + 1)
    x, y = (v.ravel() for v in np.meshgrid(columns, rows))
    lats, _ = latlng_of(np.zeros(len(rows) + 1), np.append(rows, rows[-1] + 1).astype(float), level)
    lngs = np.append(columns, columns[-1] + 1) / side * 360.0 - 180.0
    at = y - rows[0], x - columns[0]
    squares = shapely.box(lngs[at[1]], lats[at[0] + 1], lngs[at[1] + 1], lats[at[0]])
    meets = shapely.intersects(ground, squares)
    return [Cell(level, int(a) % side, int(b)) for a, b in zip(x[meets], y[meets], strict=True)]


def most_tiles(plan: TilePlan, blocks: list[Cell]) -> int:
    """Tiles of all levels if no block has an empty one."""
    total = len(blocks) << 2 * plan.depth
    cells = set(blocks)
    for level in range(plan.max_level - 1, plan.min_level - 1, -1):
        down = level - blocks[0].level
        if down < 0:
            cells = {cell.parent() for cell in cells}
        total += len(cells) << 2 * max(down, 0)
    return total
