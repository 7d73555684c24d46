"""The verbs ``zoomloc tiles`` and ``zoomloc cities``: they read their flags and call the steps.

Knows nothing of how a step works.
"""

from pathlib import Path
from typing import Annotated

import typer

from zoomloc.cli.screen import Screen
from zoomloc.config import Config, TilesConfig, load_config, packaged_folders, parse_config
from zoomloc.errors import ConfigError

Overrides = Annotated[
    list[str],
    typer.Option("--set", metavar="A.B=C", help="Override one key of the config; may be repeated."),
]
MaybeConfigs = Annotated[list[str] | None, typer.Argument(metavar="[CONFIG]...")]
MaybeOut = Annotated[Path | None, typer.Option("--out", help="Folder to write to.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Only results and errors.")]
Rasters = Annotated[
    list[Path], typer.Option("--raster", help="GeoTIFF or another raster; repeatable.")
]
Name = Annotated[str | None, typer.Option("--name", help="Name of the region.")]
TerminalCell = Annotated[float | None, typer.Option("--terminal-cell-m")]
LevelsPerZoom = Annotated[int | None, typer.Option("--levels-per-zoom", min=1, max=3)]
Attribution = Annotated[list[str], typer.Option("--attribution")]
Licence = Annotated[str | None, typer.Option("--licence")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what it takes; fetch and write nothing.")
]
Update = Annotated[
    bool, typer.Option("--update", help="Make only tiles that changed imagery touches.")
]
Check = Annotated[
    bool, typer.Option("--check", help="Look for missing, damaged and blank tiles instead.")
]
Sheet = Annotated[
    Path | None, typer.Option("--sheet", help="With --check: HTML with a look at each level.")
]
Executor = Annotated[str, typer.Option("--executor", help="'local', or 'dask' with --scheduler.")]
Scheduler = Annotated[
    str, typer.Option("--scheduler", help="Address of a Dask scheduler, as tcp://host:8786.")
]


def tiles(
    configs: MaybeConfigs = None,
    raster: Rasters = [],  # noqa: B006
    out: MaybeOut = None,
    name: Name = None,
    terminal_cell_m: TerminalCell = None,
    levels_per_zoom: LevelsPerZoom = None,
    attribution: Attribution = [],  # noqa: B006
    licence: Licence = None,
    overrides: Overrides = [],  # noqa: B006
    dry_run: DryRun = False,
    update: Update = False,
    check: Check = False,
    sheet: Sheet = None,
    executor: Executor = "local",
    scheduler: Scheduler = "",
    workers: Workers = 2,
    quiet: Quiet = False,
) -> None:
    """Make the tile pyramid of a region from rasters, tiles or servers; or check one."""
    from zoomloc.cli.tiling import check_tiles, make_tiles

    config = load_config(configs or [], overrides)
    folder = folder_of(out, configs, config)
    screen = Screen(quiet)
    if check:
        if not check_tiles(folder, sheet, screen):
            raise typer.Exit(1)
        return
    _check_executor(executor, scheduler)
    plan = _planned(config, terminal_cell_m, levels_per_zoom, attribution, licence)
    make_tiles(
        plan,
        raster or plan.rasters,
        folder,
        name or name_of(configs, config, folder),
        workers,
        screen,
        dry_run=dry_run,
        update=update,
        scheduler=scheduler,
    )


def _check_executor(executor: str, scheduler: str) -> None:
    """Raises ConfigError where the two do not belong together."""
    if (executor == "dask") != bool(scheduler) or executor not in ("local", "dask"):
        raise ConfigError("--executor dask and --scheduler ADDRESS belong together")


def _planned(
    config: Config,
    terminal_cell_m: float | None,
    levels_per_zoom: int | None,
    attribution: list[str],
    licence: str | None,
) -> TilesConfig:
    """The config's tiles, with the flags that were given in place of its own."""
    given = {
        "terminal_cell_m": terminal_cell_m,
        "levels_per_zoom": levels_per_zoom,
        "attribution": tuple(attribution) or None,
        "licence": licence,
    }
    tree = config.tiles.model_dump() | {k: v for k, v in given.items() if v is not None}
    return parse_config({"tiles": tree}, "flags").tiles


def cities() -> None:
    """List the ready cities: name, imagery, licence, and when its terms were read."""
    screen = Screen()
    found = sorted(p for folder in packaged_folders() for p in (folder / "cities").glob("*.yaml"))
    for path in found:
        screen.result(f"cities/{path.stem}")
        for line in (*_about(load_config([path]).tiles), *_checked(path)):
            screen.result(f"    {line}")
    if not found:
        raise ConfigError("no packaged city; install zoomloc again")
    screen.result("prepare one with 'zoomloc tiles cities/NAME', first with --dry-run")


def _about(plan: TilesConfig) -> list[str]:
    """Kind, credit and licence of each source."""
    return [f"{s.kind}: {s.attribution} [{s.licence}]" for s in plan.sources]


def _checked(path: Path) -> list[str]:
    """What the file says of its own checking: documents below the day on which they were read."""
    read: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# checked: {url: "):
            url, _, rest = line.removeprefix("# checked: {url: ").partition(", date: ")
            day, _, note = rest.partition("}; ")
            read.setdefault(f"read {day}; servers {note}:", []).append(f"    {url}")
    return [line for said, urls in read.items() for line in (said, *urls)]


def folder_of(out: Path | None, configs: list[str] | None, config: Config) -> Path:
    """Where to write: the flag, or the config's data folder."""
    if out is None and not configs:
        raise ConfigError("no folder to write to; give --out DIR or a CONFIG with 'data'")
    return out or config.data


def name_of(configs: list[str] | None, config: Config, folder: Path) -> str:
    """The region's name: the config's, or the folder's."""
    return config.name if configs else folder.resolve().name


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command()(tiles)
    app.command()(cities)
