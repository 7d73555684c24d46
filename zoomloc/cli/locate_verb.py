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
Photos = Annotated[
    list[Path], typer.Argument(metavar="PHOTO...", help="Photos, or folders of any depth.")
]
Near = Annotated[
    str | None, typer.Option("--near", metavar="LAT,LNG", help="Taken near here; see --within.")
]
Within = Annotated[
    str | None, typer.Option("--within", metavar="500m", help="How near: metres, or 0.5km.")
]
Area = Annotated[
    Path | None, typer.Option("--area", help="Taken in here: a GeoJSON with a polygon.")
]
Heading = Annotated[
    str | None,
    typer.Option("--heading", metavar="90±20", help="Where it looks, clockwise from north."),
]
Fov = Annotated[
    str | None,
    typer.Option("--fov", metavar="70", help="Field of view in degrees; else as in its EXIF."),
]
Together = Annotated[
    bool, typer.Option("--together", help="All photos are of one place: one answer.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON line a photo.")]
AnswersOut = Annotated[
    Path | None,
    typer.Option("--out", help="File for the answers: .jsonl, .geojson, .gpkg or .csv."),
]
MapOut = Annotated[Path | None, typer.Option("--map", help="Also draw a map.")]
StripOut = Annotated[
    Path | None, typer.Option("--strip", help="Also draw the first answer's zooms (.png).")
]
WhyOut = Annotated[
    Path | None,
    typer.Option("--why", help="Also draw why a match gave the first answer (.png)."),
]
OnlyAnswers = Annotated[bool, typer.Option("--quiet", help="Only answers and errors.")]


def locate(
    photo: Photos,
    run: AnyRun = GENERAL,
    region: RegionFolder = None,
    near: Near = None,
    within: Within = None,
    area: Area = None,
    heading: Heading = None,
    fov: Fov = None,
    together: Together = False,
    with_photos: WithPhotos = False,
    as_json: AsJson = False,
    out: AnswersOut = None,
    map_path: MapOut = None,
    strip: StripOut = None,
    why: WhyOut = None,
    overrides: Overrides = [],  # noqa: B006
    quiet: OnlyAnswers = False,
) -> None:
    """Say where photos were taken.

    With --out a run that was stopped or killed goes on: the same command again.

    Exit code 0: at least one photo has a place.

    Exit code 2: a photo that was named by itself, or every photo, cannot be read.

    Exit code 3: every answer is "unknown" or "not from this region".
    """
    from zoomloc.cli import locating

    known, drawn = _known(near, within, area, heading, fov), (map_path, strip, why)
    wanted = locating.Wanted(
        photo, run, region, overrides, with_photos, known, together, out, as_json, *drawn
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
