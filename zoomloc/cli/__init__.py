"""The one command ``zoomloc``: verbs that read their flags and call the steps.

Knows nothing of how a step works. Errors that a user can mend become one line and exit 2.
"""

import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from zoomloc import __version__
from zoomloc.cli import photo_verbs, tile_verbs
from zoomloc.cli.bench_verbs import app as bench_app
from zoomloc.cli.screen import Screen
from zoomloc.cli.tile_verbs import Overrides
from zoomloc.config import GENERAL, Config, load_config, parse_config
from zoomloc.errors import ZoomlocError

app = typer.Typer(
    name="zoomloc",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Where was this photo taken? Zoom into a satellite map until you stand on the street.",
)

Configs = Annotated[
    list[str],
    typer.Argument(
        metavar="CONFIG...", help="YAML files or packaged names such as demo; later ones win."
    ),
]
Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
Run = Annotated[Path, typer.Option("--run", help="Folder of a trained run.")]
AnyRun = Annotated[
    Path,
    typer.Option(
        "--run",
        help="Folder of a trained run; else the general model that comes with zoomloc.",
        show_default=False,
    ),
]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Only results and errors.")]
WithPhotos = Annotated[
    bool, typer.Option("--with-photos", help="The region's training photos are evidence too.")
]
RegionFolder = Annotated[
    Path | None,
    typer.Option(
        "--region", help="Folder with region.json and imagery.pmtiles; else the one trained on."
    ),
]


class _Stopped(BaseException):
    """Ctrl-C; not a KeyboardInterrupt, which typer would end without a word."""


def _stop(number: int, frame: object) -> None:
    raise _Stopped


def main() -> None:
    """Run the command; errors that a user can mend are one line on stderr and exit code 2."""
    signal.signal(signal.SIGINT, _stop)
    try:
        app()
    except ZoomlocError as error:
        _fail(str(error), 2)
    except _Stopped:
        _fail("stopped; the same command goes on from here", 130)


def _fail(line: str, code: int) -> None:
    sys.stderr.write(f"zoomloc: {' '.join(line.split())}\n")
    raise SystemExit(code)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"zoomloc {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    configs: Annotated[list[str] | None, typer.Argument(metavar="[CONFIG]...")] = None,
    run: Run = Path("runs/demo"),
    minutes: Annotated[float | None, typer.Option("--minutes", help="Training time.")] = None,
    overrides: Overrides = [],  # noqa: B006
    workers: Workers = 2,
    quiet: Quiet = False,
) -> None:
    """Build a synthetic town, train on its photos, locate those of another day, draw a map."""
    from zoomloc.cli.demo import run_demo

    changes = [*overrides, *([f"train.max_minutes={minutes}"] if minutes is not None else [])]
    layers = ["demo", *(configs or ["models/match"])]
    run_demo(load_config(layers, changes), run, workers, Screen(quiet))


@app.command()
def town(
    out: Out,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 1,
    size_m: Annotated[float, typer.Option("--size-m", help="Side of the square town.")] = 720,
    train_photos: Annotated[int, typer.Option("--train-photos", min=1)] = 10_000,
    test_photos: Annotated[int, typer.Option("--test-photos", min=1)] = 1_000,
    workers: Workers = 2,
    quiet: Quiet = False,
) -> None:
    """Build a synthetic town: orthophoto, surface model, roads, photos with EXIF, truth."""
    from zoomloc.cli import steps

    flags = {
        "seed": seed,
        "size_m": size_m,
        "train_photos": train_photos,
        "test_photos": test_photos,
    }
    plan = parse_config({"town": flags}, "flags").town
    assert plan is not None
    steps.make_town(plan, out, workers, Screen(quiet))


tile_verbs.register(app)
photo_verbs.register(app)


@app.command()
def train(
    configs: Configs,
    run: Run,
    overrides: Overrides = [],  # noqa: B006
    quiet: Quiet = False,
) -> None:
    """Train on a region's photos; the same command again resumes."""
    from zoomloc.cli import steps

    steps.train_run(load_config(configs, overrides), run, Screen(quiet))


@app.command()
def index(
    region: Annotated[
        Path, typer.Argument(metavar="REGION", help="Folder with region.json and imagery.pmtiles.")
    ],
    run: AnyRun = GENERAL,
    quiet: Quiet = False,
) -> None:
    """Encode a region's map once, so that locating in it starts at once."""
    from zoomloc.cli import steps

    steps.index_region(region, run, Screen(quiet))


@app.command()
def export(
    run: Run,
    out: Out,
) -> None:
    """Write a trained model to pass on: its best weights, a card, and no paths."""
    from zoomloc.cli.export import export_run

    size_bytes = export_run(run, out)
    Screen().step("export", f"{size_bytes / 1e6:.1f} MB -> {out}")


@app.command()
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
    quiet: Quiet = False,
) -> None:
    """Locate all photos of a split and report recall, with intervals and chance."""
    from zoomloc.cli.evaluating import evaluate_split

    screen = Screen(quiet)
    name = "with-photos.json" if with_photos else "report.json"
    beside = (region or Config().data) if run == GENERAL else run  # nothing into the package
    report = evaluate_split(
        run, screen, json_path or beside / name, region, table, imagery, split, with_photos
    )
    screen.recall_table(report)


@app.command()
def locate(
    photo: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Photos or folders.")],
    run: AnyRun = GENERAL,
    region: RegionFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line a photo.")] = False,
    map_path: Annotated[Path | None, typer.Option("--map", help="Also draw a map.")] = None,
    strip: Annotated[
        Path | None, typer.Option("--strip", help="Also draw the first answer's zooms (.png).")
    ] = None,
    why: Annotated[
        Path | None,
        typer.Option("--why", help="Also draw why a match gave the first answer (.png)."),
    ] = None,
    with_photos: WithPhotos = False,
    overrides: Overrides = [],  # noqa: B006
) -> None:
    """Say where photos were taken."""
    from zoomloc.cli import steps
    from zoomloc.cli.known import with_photos as add_photos
    from zoomloc.cli.why import draw_why, require_match

    screen = Screen(to_stderr=as_json)
    found = steps.require_photos(photo)
    with steps.map_drawer() if map_path else nullcontext() as draw:
        locator = steps.locator_of_run(run, region, overrides)
        if with_photos:
            locator, _ = add_photos(locator, region or steps.config_of_run(run).data, run)
        if why is not None:
            require_match(locator, run)
        answers = steps.locate_photos(locator, found)
        for answer in answers:
            if as_json:
                typer.echo(steps.as_json(answer.to_json()))
            else:
                screen.result(steps.describe(answer))
        if draw is not None:
            draw(answers, region or steps.config_of_run(run).data, map_path)
            screen.step("map", f"-> {map_path}")
    if strip is not None:
        steps.draw_strip(answers[0], region or steps.config_of_run(run).data, strip)
        screen.step("strip", f"-> {strip}")
    if why is not None:
        draw_why(locator, answers[0], found[0], why)
        screen.step("why", f"-> {why}")


@app.command(name="map")
def map_(
    answers: Annotated[Path, typer.Argument(metavar="ANSWERS.jsonl")],
    region: Annotated[Path, typer.Option("--region", help="Folder with region.json and imagery.")],
    out: Annotated[Path, typer.Option("--out", help="HTML to write; opens offline.")],
    most: Annotated[int, typer.Option("--most", min=1, help="At most so many answers.")] = 50,
) -> None:
    """Draw answers on the region's own imagery: one HTML that opens offline."""
    from zoomloc.cli import steps
    from zoomloc.world.answers import read_answers

    known = read_answers(answers)
    steps.draw_map(known[:most], region, out)
    shown = f"{min(most, len(known))} of {len(known)} answers"
    Screen().step("map", f"{shown} -> {out}")


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="Any file or folder of zoomloc, or a photo.")],
) -> None:
    """Explain a file: what it is and what is in it."""
    from zoomloc.cli.explain import explain

    screen = Screen()
    for line in explain(file):
        screen.result(line)


app.add_typer(bench_app, name="bench")
