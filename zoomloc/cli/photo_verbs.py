"""The verbs ``zoomloc photos`` and ``zoomloc split``: they read their flags and call the steps.

Knows nothing of how a step works.
"""

from pathlib import Path
from typing import Annotated

import typer

from zoomloc.cli.screen import Screen
from zoomloc.cli.tile_verbs import Overrides, folder_of
from zoomloc.config import load_config

Quiet = Annotated[bool, typer.Option("--quiet", help="Only results and errors.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes.")]


def photos(
    configs: Annotated[list[str] | None, typer.Argument(metavar="[CONFIG]...")] = None,
    folder: Annotated[Path | None, typer.Option("--folder", help="Photos with EXIF.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write to.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="HTML on the photos; without a source, on the table that is there already.",
        ),
    ] = None,
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
        steps.read_photos_of(plan, place, workers, screen)
    if report is not None:
        _report(place, report, screen)


def _report(folder: Path, out: Path, screen: Screen) -> None:
    """One HTML on the table of a region's folder."""
    from maps.photo_report import write_photo_report

    write_photo_report(folder / "photos.parquet", folder / "skipped.parquet", folder, out)
    screen.step("report", f"-> {out}")


def split(
    table: Annotated[Path, typer.Argument(metavar="PHOTOS.parquet")],
    by: Annotated[str, typer.Option("--by", help="sequence, block, image or region.")] = "sequence",
    group: Annotated[
        str,
        typer.Option("--group", help="What stays together: drive, or creator-day."),
    ] = "drive",
    val: Annotated[float, typer.Option("--val")] = 0.1,
    test: Annotated[float, typer.Option("--test")] = 0.1,
    newest_test: Annotated[
        bool,
        typer.Option("--newest-test", help="The drives of the last day become the test split."),
    ] = False,
    block_m: Annotated[float, typer.Option("--block-m", help="Side of a block.")] = 200.0,
    buffer_m: Annotated[
        float, typer.Option("--buffer-m", help="Between blocks of two splits, at least.")
    ] = 25.0,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    audit: Annotated[bool, typer.Option("--audit", help="Change nothing; look for leaks.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Also draw how far test is from train (.png)."),
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Let an audit compare pictures.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The audit as one JSON line.")] = False,
    workers: Workers = 2,
    quiet: Quiet = False,
) -> None:
    """Divide the photo table into train, val and test without leaks; or audit how it is."""
    from data_prep.split import split_photos
    from zoomloc.cli import steps

    screen = Screen(quiet, to_stderr=as_json)
    if not audit:
        plan = load_config([], [f"split.{k}={v}" for k, v in (
            ("by", by), ("val", val), ("test", test), ("newest_test", newest_test), ("seed", seed)
        )]).split  # fmt: skip
        split_photos(
            table,
            plan.by,
            plan.val,
            plan.test,
            plan.seed,
            plan.newest_test,
            block_m=block_m,
            buffer_m=buffer_m,
            group=group,  # type: ignore[arg-type]
        )
        steps.say_split(table, screen)
        if by == "image":
            screen.step("split", "LEAKY: neighbours of test photos are in train")
    if audit or as_json:
        _audit(table, pictures, workers, as_json, screen)
    if plot is not None:
        _plot(table, plot, screen)


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
