"""The verbs ``zoomloc photos`` and ``zoomloc split``: they read their flags and call the steps.

Knows nothing of how a step works.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from zoomloc.cli.screen import Screen
from zoomloc.cli.tile_verbs import MaybeConfigs, MaybeOut, Overrides, Quiet, Workers, folder_of
from zoomloc.config import SplitConfig, load_config, parse_config
from zoomloc.errors import ConfigError


def _else(what: str, key: str) -> str:
    """Help of a flag of ``zoomloc split``: without it the config decides."""
    return f"{what}; else the config's, or {getattr(SplitConfig(), key)}."


Folder = Annotated[Path | None, typer.Option("--folder", help="Photos with EXIF.")]
ReportOut = Annotated[
    Path | None,
    typer.Option(
        "--report",
        help="HTML on the photos; without a source, on the table that is there already.",
    ),
]
Places = Annotated[
    list[Path],
    typer.Argument(
        metavar="PHOTOS.parquet|CONFIG...",
        help="A photo table; or YAMLs, packaged names or a region's folder, to split the table "
        "there as they say; later ones win.",
    ),
]
By = Annotated[
    str | None, typer.Option("--by", help=_else("sequence, block, image or region", "by"))
]
Group = Annotated[
    str | None,
    typer.Option("--group", help=_else("What stays together: drive, or creator-day", "group")),
]
Val = Annotated[float | None, typer.Option(help=_else("Share of photos", "val"))]
Test = Annotated[float | None, typer.Option(help=_else("Share of photos", "test"))]
NewestTest = Annotated[
    bool | None,
    typer.Option(
        "--newest-test/--no-newest-test", help="The last day's drives become the test split."
    ),
]
BlockSide = Annotated[float | None, typer.Option(help=_else("Side of a block", "block_m"))]
Buffer = Annotated[
    float | None, typer.Option(help=_else("Between blocks of two splits, at least", "buffer_m"))
]
Seed = Annotated[int | None, typer.Option(help=_else("Another draw", "seed"))]
Audit = Annotated[bool, typer.Option("--audit", help="Change nothing; look for leaks.")]
PlotOut = Annotated[
    Path | None,
    typer.Option("--plot", help="Also draw how far test is from train (.png)."),
]
Pictures = Annotated[
    bool, typer.Option("--pictures/--no-pictures", help="Let an audit compare pictures.")
]
AsJson = Annotated[bool, typer.Option("--json", help="The audit as one JSON line.")]


def photos(
    configs: MaybeConfigs = None,
    folder: Folder = None,
    out: MaybeOut = None,
    report: ReportOut = None,
    overrides: Overrides = [],  # noqa: B006
    workers: Workers = 2,
    quiet: Quiet = False,
) -> None:
    """Read folders, tables or servers into the photo table; say what was left out and why."""
    from zoomloc.cli import steps

    config = load_config(configs or [], overrides)
    plan, place, screen = config.photos, folder_of(out, configs, config), Screen(quiet)
    if folder is not None:
        plan = plan.model_copy(update={"folder": folder})
    if plan.folder or plan.sources or report is None:
        with steps.telling_a_lost_split(place / "photos.parquet", screen):
            steps.read_photos_of(plan, place, workers, screen)
    if report is not None:
        _report(place, report, screen)


def _report(folder: Path, out: Path, screen: Screen) -> None:
    """One HTML on the table of a region's folder."""
    from maps.photo_report import write_photo_report

    write_photo_report(folder / "photos.parquet", folder / "skipped.parquet", folder, out)
    screen.step("report", f"-> {out}")


def split(
    places: Places,
    by: By = None,
    group: Group = None,
    val: Val = None,
    test: Test = None,
    newest_test: NewestTest = None,
    block_m: BlockSide = None,
    buffer_m: Buffer = None,
    seed: Seed = None,
    audit: Audit = False,
    plot: PlotOut = None,
    pictures: Pictures = True,
    as_json: AsJson = False,
    workers: Workers = 2,
    quiet: Quiet = False,
) -> None:
    """Divide the photo table into train, val and test without leaks; or audit how it is."""
    from zoomloc.cli import steps

    screen = Screen(quiet, to_stderr=as_json)
    table, plan = _table_and_plan(places)
    if not audit:
        given = {
            "by": by,
            "group": group,
            "val": val,
            "test": test,
            "newest_test": newest_test,
            "block_m": block_m,
            "buffer_m": buffer_m,
            "seed": seed,
        }
        steps.split_table(_overridden(plan, given), table, screen)
    if audit or as_json:
        _audit(table, pictures, workers, as_json, screen)
    if plot is not None:
        _plot(table, plot, screen)


def _table_and_plan(places: Sequence[Path]) -> tuple[Path, SplitConfig]:
    """A photo table and how to split it: both by configs, or the table alone."""
    tables = [place for place in places if _is_table(place)]
    if tables and len(places) > 1:
        raise ConfigError(
            f"split: {tables[0]} is a photo table and stands alone; give either one table or "
            "configs, and what a config would say as flags"
        )
    if tables:
        return tables[0], SplitConfig()
    config = load_config(places)
    return config.data / "photos.parquet", config.split


def _is_table(place: Path) -> bool:
    is_yaml = place.suffix.lower() in (".yaml", ".yml")
    return place.suffix == ".parquet" or (place.is_file() and not is_yaml)


def _overridden(plan: SplitConfig, given: Mapping[str, object]) -> SplitConfig:
    """A plan with the flags that were given in place of its own."""
    flags = {key: value for key, value in given.items() if value is not None}
    return parse_config({"split": plan.model_dump() | flags}, "flags").split


def _audit(table: Path, pictures: bool, workers: int, as_json: bool, screen: Screen) -> None:
    """What the splits of a table share, as a table for people or one JSON line."""
    from data_prep.split import audit_table
    from zoomloc.cli import steps

    with screen.bar("audit", "pictures") as tick:
        found = audit_table(table, pictures, workers, tick)
    if as_json:
        typer.echo(steps.as_json(found))
        return
    for line in found.lines():
        screen.result(line)


def _plot(table: Path, out: Path, screen: Screen) -> None:
    """The distances from test to train as a picture."""
    from data_prep.split_plot import plot_table

    plot_table(table, out)
    screen.step("plot", f"-> {out}")


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command()(photos)
    app.command()(split)
