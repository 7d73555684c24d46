"""The verbs ``zoomloc evaluate`` and ``zoomloc compare``: they read their flags and call the steps.

Knows nothing of how answers are scored.
"""

from pathlib import Path
from typing import Annotated

import typer

from zoomloc.cli.locate_verb import AnyRun, RegionFolder, WithPhotos
from zoomloc.cli.screen import Screen
from zoomloc.config import GENERAL, Config

Quiet = Annotated[bool, typer.Option("--quiet", help="Only results and errors.")]


def evaluate(
    run: AnyRun = GENERAL,
    json_path: Annotated[Path | None, typer.Option("--json", help="Report to write.")] = None,
    region: RegionFolder = None,
    table: Annotated[Path | None, typer.Option("--photos", help="Another photo table.")] = None,
    imagery: Annotated[
        Path | None, typer.Option("--imagery", help="Another pyramid of the same ground.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "test",
    with_photos: WithPhotos = False,
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol", help="all-cells, or occupied-cells: only cells that hold a photo."
        ),
    ] = "all-cells",
    distance: Annotated[
        str, typer.Option("--distance", help="geodesic, or paper: haversine on its sphere.")
    ] = "geodesic",
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Page to look at; else beside the report.", show_default=False),
    ] = None,
    no_html: Annotated[bool, typer.Option("--no-html", help="Write no page.")] = False,
    quiet: Quiet = False,
) -> None:
    """Locate all photos of a split and report recall, with intervals and chance."""
    from zoomloc.cli.evaluating import Asked, evaluate_split

    screen = Screen(quiet)
    name = "with-photos.json" if with_photos else "report.json"
    beside = (region or Config().data) if run == GENERAL else run  # nothing into the package
    to = json_path or beside / name
    page = None if no_html else html or to.with_suffix(".html")
    asked = Asked(region, table, imagery, split, with_photos, protocol, distance, page)
    screen.recall_table(evaluate_split(run, screen, to, asked))


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN RUN...",
            help="Folders of evaluated runs, or reports; the first is what others differ from.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Compare runs on the photos that all of them answered, whole drives resampled together."""
    import json

    from zoomloc.comparing import compare as compared
    from zoomloc.comparing import read_scored

    found = compared([read_scored(run) for run in runs])
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
    else:
        Screen().comparison(found)


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    app.command()(evaluate)
    app.command()(compare)
