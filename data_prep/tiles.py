"""``zoomloc tiles``: rasters become the tile pyramid and the region that the rest reads.

Knows nothing of photos or models. The deepest level is warped from the rasters, every coarser
one averaged from the one below; work is done in pieces that a killed build finds again.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import shapely
from shapely.geometry.base import BaseGeometry

from data_prep.imagery.fetched import forget_fetched
from data_prep.imagery.rasters import forget_datasets, inspected
from data_prep.imagery.sheets import Sheet
from data_prep.imagery.stores import forget_stored
from data_prep.imagery.tiledwebmaps import forget_tiled
from data_prep.tile_jobs import (
    BlockJob,
    Encoded,
    Look,
    ParentJob,
    render_block,
    render_parents,
)
from data_prep.tile_plan import TilePlan, blocks_of, cut, planned, side_by_side, tile_count_at_most
from data_prep.tile_scratch import TileScratch
from data_prep.tile_update import Earlier
from zoomloc.errors import ImageryError
from zoomloc.world.cells import Cell, size_m
from zoomloc.world.processes import worker_pool
from zoomloc.world.pyramid import TilePyramid, write_pmtiles
from zoomloc.world.region import Region, cover

PYRAMID_NAME = "imagery.pmtiles"
SCRATCH_NAME = "imagery.mbtiles.part"
REGION_NAME = "region.json"

IMAGE_FORMATS = ("webp", "png", "jpeg")
FAMILY_LEVELS = 2  # parents are averaged in pieces of up to 4**2
WORTH_A_POOL = 24  # blocks; starting processes takes about as long as these
AHEAD = 8  # results that may wait for the one before them

Progress = Callable[[int, int], None]
Job = TypeVar("Job", BlockJob, ParentJob)
Thing = TypeVar("Thing")


@dataclass(frozen=True)
class TilesSummary:
    """What ``build_tiles`` made, or found made."""

    imagery: Path
    region_file: Path
    region: Region
    tile_count: int
    min_level: int
    max_level: int
    gsd_m: float  # ground pixel of the deepest level
    imagery_hash: str
    built: bool  # False: a finished pyramid of the same rasters and settings was kept
    resumed_pieces: int  # pieces of work found done by an earlier, interrupted build
    updated: int | None = None  # tiles made anew, where an earlier pyramid gave the others


def build_tiles(
    imagery: Sequence[Path | Sheet],
    out: Path,
    name: str,
    terminal_cell_m: float = 16.0,
    levels_per_zoom: int = 2,
    tile_px: int = 256,
    image_format: str = "webp",
    quality: int = 90,
    attribution: Sequence[str] = (),
    licence: str = "",
    capture_date: str | None = None,
    workers: int = 2,
    progress: Progress | None = None,
    executor: Executor | None = None,
    ground: BaseGeometry | None = None,
    seams: str = "order",
    update: bool = False,
    finest_m: float = 0.0,
) -> TilesSummary:
    """Write ``out/imagery.pmtiles`` and ``out/region.json`` from rasters (paths) and other sheets.

    The first lies on top, or with ``seams="centre"`` the one whose middle is nearest. The deepest
    level is the one whose pixel comes nearest to the finest sheet's, or to ``finest_m``. The
    region is all that the sheets cover, or ``ground`` (degrees); blocks of tiles that do not touch
    it are left out. ``progress`` gets (tiles done, tiles at most). Interrupted builds resume; a
    finished one of the same sheets and settings is kept; with ``update`` one of the same settings
    gives the tiles that no changed sheet touches. ``executor`` (of processes) replaces the
    ``workers`` started here. Raises ImageryError for sheets, RegionError for ground that no 16
    roots cover and for ground beyond all sheets, OutputError where the disk is full; an earlier
    pyramid is then still there.
    """
    _check_settings(imagery, tile_px, image_format, quality)
    plan = lay_out(
        imagery,
        name,
        terminal_cell_m,
        levels_per_zoom,
        attribution,
        licence,
        Look(tile_px, image_format, quality, seams),
        capture_date,
        ground,
        finest_m,
    )
    target = out / PYRAMID_NAME
    built, resumed, copied = not _is_finished(target, plan), 0, None
    if built:
        earlier = Earlier(plan, target) if update else None
        resumed = _build(plan, target, workers, progress, executor, earlier)
        copied = earlier.copied if earlier is not None else None
    else:
        TileScratch.remove_left_over(target.with_name(SCRATCH_NAME), plan.metadata["job_hash"])
    plan.region.save(out / REGION_NAME)
    return _summary(target, plan.region, built, resumed, copied)


def lay_out(
    imagery: Sequence[Path | Sheet],
    name: str,
    terminal_cell_m: float,
    levels_per_zoom: int,
    attribution: Sequence[str],
    licence: str,
    look: Look,
    capture_date: str | None,
    ground: BaseGeometry | None,
    finest_m: float = 0.0,
) -> TilePlan:
    """What ``build_tiles`` would make; nothing is written. Raises as it does."""
    looked_at = [inspected(one) if isinstance(one, Path) else one for one in imagery]
    sheets = side_by_side(looked_at)
    if ground is None:
        shown = shapely.unary_union([sheet.footprint for sheet in sheets])
    else:
        sheets, shown = cut(sheets, name, ground)
    region = cover(name, shown, terminal_cell_m, levels_per_zoom, attribution, licence)
    return planned(sheets, region, look, capture_date, ground, finest_m)


def _check_settings(
    imagery: Sequence[Path | Sheet], tile_px: int, image_format: str, quality: int
) -> None:
    """Refuse settings that no tile can have."""
    if not imagery:
        raise ImageryError("no raster given; name at least one GeoTIFF")
    if tile_px not in (256, 512, 1024):
        raise ImageryError(f"tile_px {tile_px}: must be 256, 512 or 1024")
    if image_format not in IMAGE_FORMATS:
        raise ImageryError(f"image_format {image_format!r}: must be one of {IMAGE_FORMATS}")
    if not 1 <= quality <= 100:
        raise ImageryError(f"quality {quality}: must lie within 1 and 100")


def _is_finished(imagery: Path, plan: TilePlan) -> bool:
    """Whether the pyramid of exactly this job is already there and whole."""
    if not imagery.exists():
        return False
    try:
        with TilePyramid.open(imagery) as pyramid:
            return bool(pyramid.metadata.get("job_hash") == plan.metadata["job_hash"])
    except ImageryError:
        return False  # damaged: it is built again


def _summary(
    imagery: Path, region: Region, built: bool, resumed: int, copied: int | None
) -> TilesSummary:
    """What stands on the disk now, read back."""
    with TilePyramid.open(imagery) as pyramid:
        middle = region.roots[0].center.lat
        count = sum(len(pyramid.cells(level)) for level in pyramid.levels)
        return TilesSummary(
            imagery=imagery,
            region_file=imagery.with_name(REGION_NAME),
            region=region,
            tile_count=count,
            min_level=pyramid.min_level,
            max_level=pyramid.max_level,
            gsd_m=size_m(pyramid.max_level, middle) / pyramid.tile_px,
            imagery_hash=pyramid.imagery_hash(),
            built=built,
            resumed_pieces=resumed,
            updated=None if copied is None else count - copied,
        )


# 1. which pieces of work there are


@dataclass(frozen=True)
class _Piece(Generic[Job]):
    """Some tiles that are made and stored together."""

    name: str
    tiles: int  # at most
    job: Callable[[], Job]
    above: Cell  # all of its tiles lie under this one
    cells: Callable[[], list[Cell]]  # its tiles, if none is empty


def _block_pieces(plan: TilePlan, blocks: dict[Cell, list[Sheet]]) -> Iterator[_Piece[BlockJob]]:
    for block, sheets in blocks.items():
        job = BlockJob(block, plan.depth, tuple(sheets), plan.look)
        cells = partial(block.descendants, plan.depth)
        name = _name("block", block)
        yield _Piece(name, 1 << 2 * plan.depth, partial(_same, job), block, cells)


def _parent_pieces(plan: TilePlan, scratch: TileScratch, level: int) -> Iterator[_Piece[ParentJob]]:
    """Parents of one level, those below one ancestor together."""
    families: dict[Cell, list[Cell]] = {}
    up = min(FAMILY_LEVELS, level)
    for child in scratch.cells(level + 1):
        families.setdefault(child.parent(1 + up), []).append(child)
    for ancestor, children in families.items():
        parents = sorted({child.parent() for child in children})
        job = partial(_parent_job, scratch, children, plan.look)
        name = _name(f"level {level}", ancestor)
        yield _Piece(name, len(parents), job, ancestor, partial(_same, parents))


def _parent_job(scratch: TileScratch, children: list[Cell], look: Look) -> ParentJob:
    return ParentJob(tuple((child, scratch.read(child)) for child in children), look)


def _same(thing: Thing) -> Thing:
    return thing


def _name(kind: str, cell: Cell) -> str:
    return f"{kind} {cell.level}/{cell.x}/{cell.y}"


# 2. doing them


def _build(
    plan: TilePlan,
    imagery: Path,
    workers: int,
    progress: Progress | None,
    executor: Executor | None,
    earlier: Earlier | None,
) -> int:
    """Make all tiles in the scratch file, then the pyramid; pieces found done are counted."""
    blocks = blocks_of(plan)
    scratch = TileScratch(imagery.with_name(SCRATCH_NAME), plan.metadata["job_hash"])
    try:
        finished = scratch.finished()
        bar = _Bar(progress, tile_count_at_most(plan, list(blocks)))
        with _pool(workers if len(blocks) >= WORTH_A_POOL else 1, executor) as pool:
            _run(render_block, _block_pieces(plan, blocks), scratch, finished, pool, bar, earlier)
            for level in range(plan.max_level - 1, plan.min_level - 1, -1):
                pieces = _parent_pieces(plan, scratch, level)
                _run(render_parents, pieces, scratch, finished, pool, bar, earlier)
        if not scratch.cells(plan.max_level):
            scratch.remove()
            raise ImageryError(_nothing_in(plan))
        look = plan.look
        for left in imagery.parent.glob(f".{imagery.name}.*.tmp"):  # of a build that was killed
            left.unlink()
        write_pmtiles(imagery, scratch.tiles(), plan.metadata, look.image_format, look.tile_px)
        scratch.remove()
        bar.end()
        return len(finished)
    finally:
        scratch.close()
        if earlier is not None:
            earlier.close()
        for forget in (forget_datasets, forget_fetched, forget_stored, forget_tiled):
            forget()


def _nothing_in(plan: TilePlan) -> str:
    return (
        f"{plan.sheets[0].name}: no tile holds a pixel; all of it (and of {len(plan.sheets) - 1} "
        "other sheets) is transparent or nodata"
    )


def _run(
    function: Callable[[Job], Encoded],
    pieces: Iterable[_Piece[Job]],
    scratch: TileScratch,
    finished: set[str],
    pool: Executor | None,
    bar: "_Bar",
    earlier: Earlier | None,
) -> None:
    """Do the pieces that are not finished, a few ahead of the one being stored."""
    waiting: deque[tuple[_Piece[Job], Future[Encoded]]] = deque()
    for piece in pieces:
        if piece.name in finished or _given(piece, earlier, scratch):
            bar.add(piece.tiles)
        elif pool is None:
            scratch.store(piece.name, function(piece.job()))
            bar.add(piece.tiles)
        else:
            waiting.append((piece, pool.submit(function, piece.job())))
        while len(waiting) > AHEAD:
            _store_first(waiting, scratch, bar)
    while waiting:
        _store_first(waiting, scratch, bar)


def _given(piece: _Piece[Job], earlier: Earlier | None, scratch: TileScratch) -> bool:
    """Whether an earlier pyramid had the tiles of a piece."""
    return earlier is not None and earlier.gives(scratch, piece.name, piece.above, piece.cells())


def _store_first(
    waiting: "deque[tuple[_Piece[Job], Future[Encoded]]]", scratch: TileScratch, bar: "_Bar"
) -> None:
    piece, future = waiting.popleft()
    try:
        tiles = future.result()
    except BrokenProcessPool as error:
        raise ImageryError(
            f"{scratch.path}: a worker process died, probably for lack of memory; run again with "
            "one worker, finished tiles are kept"
        ) from error
    scratch.store(piece.name, tiles)
    bar.add(piece.tiles)


@contextmanager
def _pool(workers: int, executor: Executor | None) -> Iterator[Executor | None]:
    """Where jobs run: the caller's executor, processes started here, or (None) this process."""
    if executor is not None or workers <= 1:
        yield executor
        return
    pool = worker_pool(workers)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Bar:
    """Counts tiles for a progress callback that may be None."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self.add(0)

    def add(self, tiles: int) -> None:
        """So many more are done."""
        self._done += tiles
        if self._progress is not None:
            self._progress(self._done, self._total)

    def end(self) -> None:
        """All are done, empty ones included."""
        self.add(self._total - self._done)
