"""The verbs of ``zoomloc bench``: they read their flags and call what measures.

Knows nothing of how anything is measured.
"""

from pathlib import Path
from typing import Annotated

import typer

from zoomloc.cli.screen import Screen
from zoomloc.errors import ConfigError

Quiet = Annotated[bool, typer.Option("--quiet", help="Only results and errors.")]

app = typer.Typer(no_args_is_help=True, help="Measure: entrants side by side.")


@app.command("accuracy")
def bench_accuracy(
    preset: Annotated[str, typer.Option("--preset", help="smoke, small or full.")] = "small",
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.01, help="Process time of each training.")
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help="Trainings of each.")] = None,
    protocols: Annotated[
        str, typer.Option("--protocols", help="Comma-separated; trial is another one.")
    ] = "same-area,unseen-town,rendered-ground",
    entrants: Annotated[
        str, typer.Option("--entrants", help="Comma-separated; all unless given.")
    ] = "",
    town_seeds: Annotated[
        str | None, typer.Option("--town-seeds", metavar="A-B", help="Seeds of the towns.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder of benchmark.json, table and plots.")
    ] = Path("runs/bench"),
    work: Annotated[Path, typer.Option("--work", help="Folder of towns and runs.")] = Path(
        "data/bench"
    ),
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Trainings at a time.")] = 2,
    quiet: Quiet = False,
) -> None:
    """Train the entrants for the same process time and compare them on the same photos."""
    from zoomloc.cli.bench import run_accuracy

    run_accuracy(
        preset,
        _listed(protocols),
        _listed(entrants),
        minutes,
        seeds,
        _first_last(town_seeds),
        out,
        work,
        jobs,
        Screen(quiet),
    )


@app.command("leaks")
def bench_leaks(
    preset: Annotated[str, typer.Option("--preset", help="smoke, small or full.")] = "small",
    out: Annotated[Path, typer.Option("--out", help="Folder for leaks.md.")] = Path("runs/bench"),
    work: Annotated[Path, typer.Option("--work", help="Folder of towns and runs.")] = Path(
        "data/bench"
    ),
    most: Annotated[int, typer.Option("--most", min=1, help="Photos of each run.")] = 1000,
) -> None:
    """Shift, recolour and recode the map under trained entrants: recall must hardly move."""
    from zoomloc.cli.bench import run_leaks

    run_leaks(preset, out, work, most, Screen())


@app.command("search")
def bench_search(
    run: Annotated[Path, typer.Option("--run", help="Folder of a trained match.")],
    preset: Annotated[str, typer.Option("--preset", help="smoke, small or full.")] = "small",
    out: Annotated[Path, typer.Option("--out", help="Folder for search.md.")] = Path("runs/bench"),
    work: Annotated[Path, typer.Option("--work", help="Folder of towns and runs.")] = Path(
        "data/bench"
    ),
    town_seeds: Annotated[
        str | None, typer.Option("--town-seeds", metavar="A-B", help="Seeds of the towns.")
    ] = None,
) -> None:
    """Coarse to fine against every place: recall, multiply-adds and time in unseen towns."""
    from zoomloc.cli.bench import run_search

    run_search(run, preset, _first_last(town_seeds), out, work, Screen())


@app.command("correlate")
def bench_correlate(
    out: Annotated[Path, typer.Option("--out", help="Folder for correlate.md.")] = Path(
        "runs/bench"
    ),
) -> None:
    """Ways to lay photos on places for every heading, side by side."""
    from zoomloc.cli.bench import run_correlate

    run_correlate(out, Screen())


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _first_last(text: str | None) -> tuple[int, int] | None:
    """``101-134`` as two numbers. Raises ConfigError."""
    if text is None:
        return None
    first, dash, last = text.partition("-")
    if not (first.isdigit() and (last.isdigit() or not dash)):
        raise ConfigError(f"--town-seeds {text}: give the first and the last, as 101-134")
    return int(first), int(last or first)
