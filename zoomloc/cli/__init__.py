"""The one command ``zoomloc``: verbs that read their flags and call the steps.

Knows nothing of how a step works. Errors that a user can mend become one line and exit 2.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from zoomloc import __version__
from zoomloc.cli import evaluate_verbs, locate_verb, photo_verbs, tile_verbs
from zoomloc.cli.bench_verbs import app as bench_app
from zoomloc.cli.calibrating import calibrate
from zoomloc.cli.locate_verb import AnyRun
from zoomloc.cli.screen import Screen
from zoomloc.cli.tile_verbs import Overrides
from zoomloc.config import GENERAL, load_config, parse_config
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
        metavar="CONFIG...",
        help="YAML files, packaged names such as demo, or a region's folder; later ones win.",
    ),
]
Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
Run = Annotated[Path, typer.Option("--run", help="Folder of a trained run.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Processes.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Only results and errors.")]
Minutes = Annotated[
    float | None, typer.Option("--minutes", help="Of training; else as the config says.")
]
StartFrom = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="RUN",
        help="Begin with the weights of a run's folder, or of 'general', the model that comes "
        "with zoomloc.",
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
    minutes: Minutes = None,
    overrides: Overrides = [],  # noqa: B006
    workers: Workers = 2,
    quiet: Quiet = False,
) -> None:
    """Build a synthetic town, train on its photos, locate those of another day, draw a map."""
    from zoomloc.cli.demo import run_demo

    layers = ["demo", *(configs or ["models/match"])]
    run_demo(load_config(layers, _within(minutes, overrides)), run, workers, Screen(quiet))


def _within(minutes: float | None, overrides: list[str]) -> list[str]:
    """Overrides, and the training time where it was given."""
    return overrides + ([] if minutes is None else [f"train.max_minutes={minutes}"])


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
    minutes: Minutes = None,
    start_from: StartFrom = None,
    overrides: Overrides = [],  # noqa: B006
    quiet: Quiet = False,
) -> None:
    """Train on a region's photos; the same command again resumes."""
    from zoomloc.cli import steps
    from zoomloc.cli.calibrating import calibrate_trained

    started = [] if start_from is None else [f"train.start_from={json.dumps(start_from)}"]
    config = load_config(configs, _within(minutes, [*overrides, *started]))
    steps.train_run(config, run, Screen(quiet))
    calibrate_trained(run, Screen(quiet))


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


app.command()(calibrate)
evaluate_verbs.register(app)
locate_verb.register(app)


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
