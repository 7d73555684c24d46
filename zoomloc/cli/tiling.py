"""What ``zoomloc tiles`` does: look up imagery, say what it costs, fetch, build, say what is there.

With the other rooms of ``zoomloc.cli`` the only place that may import data_prep and maps. Knows
nothing of how tiles are made or looked at.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from zoomloc.cli.screen import Screen
from zoomloc.cli.steps import needs_extra
from zoomloc.config import TilesConfig
from zoomloc.errors import ConfigError

BYTES_A_PIXEL = {"webp": 0.3, "jpeg": 0.45, "png": 2.0}  # of aerial imagery, for an estimate
TILES_PER_S = 60  # of one core, for an estimate; 'zoomloc bench tiles' measures

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from data_prep.imagery.sources import LookedUp
    from data_prep.tiles import TilesSummary


def make_tiles(
    plan: TilesConfig,
    rasters: Sequence[Path],
    out: Path,
    name: str,
    workers: int,
    screen: Screen,
    dry_run: bool = False,
    update: bool = False,
    scheduler: str = "",
) -> None:
    """Imagery becomes imagery.pmtiles and region.json; ``dry_run`` says what it would take."""
    with needs_extra("prep"):
        from data_prep.ground import ground_of
        from data_prep.imagery.sources import look_up
        from data_prep.tiles import build_tiles
    ground = ground_of(plan)
    found = look_up(plan, rasters, ground, out)
    _say_cost(found, screen)
    if dry_run:
        _say_build(plan, found, name, ground, screen)
        return
    for order in found.orders:
        with screen.bar("fetch", "tiles") as tick:
            found = found.fetched(order, tick)
        screen.step("fetch", f"{len(order.tiles):,} tiles of {order.sheet.name}")
    with screen.bar("tiles", "tiles") as tick, executor_of(scheduler) as executor:
        summary = build_tiles(
            found.sheets,
            out,
            name,
            terminal_cell_m=plan.terminal_cell_m,
            levels_per_zoom=plan.levels_per_zoom,
            tile_px=plan.tile_px,
            image_format=plan.image_format,
            quality=plan.quality,
            attribution=found.attribution,
            licence=found.licence,
            capture_date=plan.capture_date,
            workers=workers,
            progress=tick,
            executor=executor,
            ground=ground,
            seams=plan.seams,
            update=update,
            finest_m=plan.finest_m,
        )
    _say(summary, plan, screen)


def _say_cost(found: "LookedUp", screen: Screen) -> None:
    """What servers will be asked for, before they are."""
    for order in found.orders:
        left, size, seconds = order.cost()
        gsd_m = order.sheet.gsd_m
        screen.step(
            "fetch",
            f"{order.sheet.name}: {left:,} of {len(order.tiles):,} tiles to fetch ({gsd_m:.2g} m a "
            f"pixel), about {size / 1e6:,.0f} MB and {_time(seconds)} at "
            f"{order.manners.rate_per_s:g} requests a second",
        )


def _say_build(
    plan: TilesConfig, found: "LookedUp", name: str, ground: "BaseGeometry | None", screen: Screen
) -> None:
    """What would be built."""
    from data_prep.tile_jobs import Look
    from data_prep.tile_plan import blocks_of, reasons, tile_count_at_most
    from data_prep.tiles import lay_out

    tiles = lay_out(
        found.sheets,
        name,
        plan.terminal_cell_m,
        plan.levels_per_zoom,
        found.attribution,
        found.licence,
        Look(plan.tile_px, plan.image_format, plan.quality, plan.seams),
        plan.capture_date,
        ground,
        plan.finest_m,
    )
    most = tile_count_at_most(tiles, list(blocks_of(tiles)))
    size = most * plan.tile_px**2 * BYTES_A_PIXEL[plan.image_format]
    screen.step("region", reasons(tiles.region, plan.terminal_cell_m))
    screen.step(
        "tiles",
        f"dry run: levels {tiles.min_level} to {tiles.max_level}, at most {most:,} tiles, about "
        f"{size / 1e6:,.0f} MB, some {_time(most / TILES_PER_S)} on one core; "
        "nothing was fetched or written",
    )


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _say(summary: "TilesSummary", plan: TilesConfig, screen: Screen) -> None:
    from data_prep.tile_plan import reasons

    region = summary.region
    how = "made" if summary.built else "kept"
    kept = f", {summary.updated:,} made anew" if summary.updated is not None else ""
    screen.step("region", reasons(region, plan.terminal_cell_m))
    screen.step("tiles", f"{how} {summary.tile_count:,} tiles{kept} -> {summary.imagery}")


@contextmanager
def executor_of(scheduler: str) -> Iterator[Executor | None]:
    """The processes of a Dask cluster by its scheduler's address; None: those of this machine."""
    if not scheduler:
        yield None
        return
    with needs_extra("cluster"):
        from distributed import Client
    try:
        client = Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--scheduler {scheduler}: no Dask scheduler answers there ({type(error).__name__}); "
            "start one with 'dask scheduler' and give its address, as tcp://host:8786"
        ) from error
    with client:
        yield client.get_executor()


def check_tiles(folder: Path, sheet: Path | None, screen: Screen) -> bool:
    """Look through a region's pyramid; whether it is whole. Writes a contact sheet where asked."""
    with needs_extra("prep"):
        from data_prep.tile_check import check_pyramid
    with screen.bar("check", "tiles") as tick:
        report = check_pyramid(folder, tick)
    for line in report.lines():
        screen.result(line)
    if sheet is not None:
        with needs_extra("maps"):
            from maps.report import write_contact_sheet
        write_contact_sheet(folder, report.to_json(), sheet)
        screen.step("sheet", f"-> {sheet}")
    return report.whole
