"""The verb ``zoomloc locate``: it reads its flags and calls the step.

Knows nothing of how a photo is located.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoomloc.cli.screen import Screen
from zoomloc.cli.tile_verbs import Overrides
from zoomloc.config import GENERAL

if TYPE_CHECKING:
    from zoomloc.cli.locating import Known

AnyRun = Annotated[
    Path,
    typer.Option(
        "--run",
        help="Folder of a trained run; else the general model that comes with zoomloc.",
        show_default=False,
    ),
]
RegionFolder = Annotated[
    Path | None,
    typer.Option(
        "--region", help="Folder with region.json and imagery.pmtiles; else the one trained on."
    ),
]
WithPhotos = Annotated[
    bool, typer.Option("--with-photos", help="The region's training photos are evidence too.")
]


def locate(
    photo: Annotated[
        list[Path], typer.Argument(metavar="PHOTO...", help="Photos, or folders of any depth.")
    ],
    run: AnyRun = GENERAL,
    region: RegionFolder = None,
    near: Annotated[
        str | None, typer.Option("--near", metavar="LAT,LNG", help="Taken near here; see --within.")
    ] = None,
    within: Annotated[
        str | None, typer.Option("--within", metavar="500m", help="How near: metres, or 0.5km.")
    ] = None,
    area: Annotated[
        Path | None, typer.Option("--area", help="Taken in here: a GeoJSON with a polygon.")
    ] = None,
    heading: Annotated[
        str | None,
        typer.Option("--heading", metavar="90±20", help="Where it looks, clockwise from north."),
    ] = None,
    fov: Annotated[
        str | None,
        typer.Option("--fov", metavar="70", help="Field of view in degrees; else as in its EXIF."),
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="All photos are of one place: one answer.")
    ] = False,
    with_photos: WithPhotos = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line a photo.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File for the answers: .jsonl, .geojson, .gpkg or .csv."),
    ] = None,
    map_path: Annotated[Path | None, typer.Option("--map", help="Also draw a map.")] = None,
    strip: Annotated[
        Path | None, typer.Option("--strip", help="Also draw the first answer's zooms (.png).")
    ] = None,
    why: Annotated[
        Path | None,
        typer.Option("--why", help="Also draw why a match gave the first answer (.png)."),
    ] = None,
    overrides: Overrides = [],  # noqa: B006
    quiet: Annotated[bool, typer.Option("--quiet", help="Only answers and errors.")] = False,
) -> None:
    """Say where photos were taken.

    With --out a run that was stopped or killed goes on: the same command again.

    Exit code 0: at least one photo has a place.

    Exit code 2: a photo that was named by itself, or every photo, cannot be read.

    Exit code 3: every answer is "unknown" or "not from this region".
    """
    from zoomloc.cli import locating

    wanted = locating.Wanted(
        photo,
        run,
        region,
        overrides,
        with_photos,
        _known(near, within, area, heading, fov),
        together,
        out,
        as_json,
        map_path,
        strip,
        why,
    )
    raise typer.Exit(locating.locate(wanted, Screen(quiet, to_stderr=as_json)))


def _known(
    near: str | None, within: str | None, area: Path | None, heading: str | None, fov: str | None
) -> "Known":
    """What the flags say of all photos. Raises ConfigError."""
    from zoomloc.cli.given import given_fov, given_heading, given_prior
    from zoomloc.cli.locating import Known
    from zoomloc.world.files import sha256_of

    prior = given_prior(near, within, area)
    fov_deg = given_fov(fov)
    words = {}
    if area is not None:
        words["area"] = sha256_of(area)[:16]  # the words of the prior do not tell two areas apart
    if fov_deg is not None:
        words["fov"] = f"{fov_deg:g}° wide"
    return Known(prior, given_heading(heading), fov_deg, words)


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command()(locate)
