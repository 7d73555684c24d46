"""The verb ``zoomloc calibrate`` and the same step at the end of a training.

Knows nothing of what is fitted; it finds the photos that a run was not trained on.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoomloc.cli.screen import Screen
from zoomloc.cli.steps import explained_of_run
from zoomloc.errors import CheckpointError, ConfigError, PhotoError

if TYPE_CHECKING:
    from zoomloc.belief.calibration import Calibration
    from zoomloc.calibrate import Source
    from zoomloc.config import Config

MOST_PHOTOS = 1000
MATCHING = ("match", "residual")  # kinds of model that look at other ground
OWN_GROUND = 4  # regions of a training from which on they are other ground to a new place


def calibrate(
    run: Annotated[Path, typer.Option("--run", help="Folder of a trained run.")],
    region: Annotated[
        list[Path],
        typer.Option("--region", help="Folder whose val photos are used; repeatable."),
    ] = [],  # noqa: B006
    elsewhere: Annotated[
        list[Path],
        typer.Option("--elsewhere", help="Folders of other regions, or a picture of such ground."),
    ] = [],  # noqa: B006
    most: Annotated[int, typer.Option("--most", min=20, help="Photos at most.")] = MOST_PHOTOS,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Also keep other ground as a picture (.webp).")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only results and errors.")] = False,
) -> None:
    """Fit what makes a run's probabilities mean what they say, on val photos."""
    calibrate_run(run, Screen(quiet), tuple(region), tuple(elsewhere), most, picture)


def calibrate_run(
    run: Path,
    screen: Screen,
    regions: tuple[Path, ...] = (),
    elsewhere: tuple[Path, ...] = (),
    most: int = MOST_PHOTOS,
    picture: Path | None = None,
) -> None:
    """Fit the calibration of a run and write it into its checkpoint."""
    from zoomloc.calibrate import calibrate, forget, keep_elsewhere, pictures_of
    from zoomloc.scorers.elsewhere import write_mosaic

    config = explained_of_run(run).config
    ground = _other_ground(run, config, elsewhere)
    sources = _sources(regions or config.val_regions or config.regions or (config.data,), most)
    forget(run)  # a calibration holds with the other ground that it was fitted with
    pictures = pictures_of(run, ground) if ground else []
    if picture is not None:
        write_mosaic(picture, pictures)
    places = keep_elsewhere(run, pictures) if pictures else 0
    with screen.bar("calibrate", "photos") as tick:
        made = calibrate(run, sources, tick)
    screen.step("calibrate", _told(made, places))


def calibrate_trained(run: Path, screen: Screen) -> None:
    """What belongs to a finished training, unless it has been done; without val photos, a line."""
    if explained_of_run(run).calibration is not None:
        return
    try:
        calibrate_run(run, screen)
    except (PhotoError, CheckpointError) as error:  # hours of training do not fail for it
        screen.step("calibrate", f"left out: {error}")


def _other_ground(run: Path, config: "Config", asked: tuple[Path, ...]) -> tuple[Path, ...]:
    """What photos are compared with: what is asked for, or the regions trained on, or ours."""
    from zoomloc.calibrate import MOSAIC

    if config.model.kind not in MATCHING:
        if asked:
            raise ConfigError(
                f"--elsewhere: run {run} is a {config.model.kind!r}, and only a match compares "
                "photos with other ground; leave it out"
            )
        return ()
    return asked or (config.regions if len(config.regions) >= OWN_GROUND else (MOSAIC,))


def _sources(regions: tuple[Path, ...], most: int) -> "list[Source]":
    """The val photos of each region, so many in all. Raises PhotoError where there are none."""
    from zoomloc.calibrate import Source
    from zoomloc.world.photos import read_photos

    found = []
    for folder in regions:
        photos = read_photos(folder / "photos.parquet", "val")
        step = max(1, -(-len(photos) * len(regions) // most))
        found.append(Source(folder, tuple(photos[::step])))
    if not any(source.photos for source in found):
        raise PhotoError(
            f"{', '.join(map(str, regions))}: no photo is in split val; split them again with "
            "'zoomloc split', or name another --region"
        )
    return found


def _told(made: "Calibration", places: int) -> str:
    """One line of what was found."""
    before, after = made.nll
    here = f", evidence against {places:,} places elsewhere" if made.slope is not None else ""
    return (
        f"{made.photos} val photos: scale {made.scale:.2f}, floor {made.floor:.2%}, "
        f"{before:.2f} -> {after:.2f} nats a photo; of several photos each counts "
        f"{made.alpha:.2f}{here}"
    )
