"""The verbs of ``zoomloc bench``: they read their flags and call what measures.

Knows nothing of how anything is measured.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from zoomloc.cli.screen import Screen
from zoomloc.cli.steps import needs_extra
from zoomloc.config import GENERAL
from zoomloc.errors import ConfigError
from zoomloc.world.files import write_text

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


@app.command("answers")
def bench_answers(
    protocol: Annotated[
        str,
        typer.Option("--protocol", help="same-area, same-area-from-general or unseen-town."),
    ] = "unseen-town",
    preset: Annotated[str, typer.Option("--preset", help="smoke, small or full.")] = "small",
    run: Annotated[
        Path, typer.Option("--run", help="For unseen-town: a run, else the general model.")
    ] = GENERAL,
    out: Annotated[Path, typer.Option("--out", help="Markdown file.")] = Path(
        "runs/bench/answers.md"
    ),
    work: Annotated[Path, typer.Option("--work", help="Folder of towns and runs.")] = Path(
        "data/bench"
    ),
) -> None:
    """Calibration, evidence, priors and several photos: what answers are worth."""
    from zoomloc.cli.bench_answers import run_answers

    run_answers(protocol, preset, run, out, work, Screen())


@app.command("correlate")
def bench_correlate(
    out: Annotated[Path, typer.Option("--out", help="Folder for correlate.md.")] = Path(
        "runs/bench"
    ),
) -> None:
    """Ways to lay photos on places for every heading, side by side."""
    from zoomloc.cli.bench import run_correlate

    run_correlate(out, Screen())


@app.command("tiles")
def bench_tiles(
    raster: Annotated[
        Path | None,
        typer.Option("--raster", help="GeoTIFF; else one is made up.", show_default=False),
    ] = None,
    side_px: Annotated[int, typer.Option("--side-px", min=256, help="Of the made-up one.")] = 6144,
    formats: Annotated[
        str, typer.Option("--formats", help="Comma-separated: webp (quality 90), png.")
    ] = "webp",
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Runs of each tiler.")] = 3,
    rio_python: Annotated[
        str | None,
        typer.Option("--rio-python", help="A Python with rio-tiler; else this one is asked."),
    ] = None,
    sparse: Annotated[
        bool, typer.Option("--sparse", help="Memory on a sparse VRT of 100,000 px a side instead.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Markdown file whose section is made new.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Tiles a second of one core: zoomloc, gdal2tiles and rio-tiler on the same raster."""
    screen, kinds = Screen(quiet), _listed(formats)
    with tempfile.TemporaryDirectory() as folder:
        if sparse:
            title, body = _sparse_tiles(Path(folder))
        else:
            title, body = _tilers(Path(folder), raster, side_px, kinds, rounds, rio_python, screen)
    screen.result(body)
    if out is not None:
        known = out.read_text(encoding="utf-8") if out.exists() else ""
        write_text(out, with_section(known, title, body))
        screen.step("bench", f"-> {out}")


def _tilers(
    work: Path,
    raster: Path | None,
    side_px: int,
    kinds: tuple[str, ...],
    rounds: int,
    rio_python: str | None,
    screen: Screen,
) -> tuple[str, str]:
    """Title and text of tilers side by side."""
    with needs_extra("prep"):
        from data_prep.bench import FORMATS, compare_tilers, found_peers
        from data_prep.bench_rasters import write_raster
        from data_prep.bench_tables import tiles_markdown
    if not kinds or set(kinds) - set(FORMATS):
        raise ConfigError(f"--formats {','.join(kinds)}: take of {', '.join(FORMATS)}")
    peers = found_peers(rio_python)
    asked = raster or write_raster(work / "ground.tif", side_px)
    tables = {}
    for kind in kinds:
        told = partial(_told, screen, kind)
        tables[kind] = compare_tilers(asked, work, peers, kind, rounds, told)
    flags = f" --raster {raster.name}" if raster else f" --side-px {side_px}"
    flags += f" --formats {','.join(kinds)} --rounds {rounds}"
    flags += " --rio-python PYTHON" if rio_python else ""  # without the machine's paths
    return "Tiles", tiles_markdown(tables, peers, f"zoomloc bench tiles{flags}")


def _sparse_tiles(work: Path) -> tuple[str, str]:
    """Title and text of memory on a sparse raster."""
    with needs_extra("dev"):
        from data_prep.bench_memory import sparse_memory
        from data_prep.bench_tables import sparse_markdown

        memory = sparse_memory(work)
    return "Memory of tiles", sparse_markdown(memory, "zoomloc bench tiles --sparse")


def _told(screen: Screen, kind: str, line: str) -> None:
    screen.step("bench", f"{kind}: {line}")


def with_section(text: str, title: str, body: str) -> str:
    """A document whose section of that title (## ...) is new, at its end where there was none."""
    parts = (text or "# Benchmarks\n").split("\n## ")
    new = f"{title}\n\n{body}"
    at = [i for i, part in enumerate(parts) if i and part.splitlines()[0] == title]
    if at:
        parts[at[0]] = new
    else:
        parts.append(new)
    return "\n\n## ".join(part.strip("\n") for part in parts) + "\n"


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


@app.command("photos")
def bench_photos(
    rows: Annotated[
        int, typer.Option("--rows", min=1, help="Of the table that is read.")
    ] = 1_000_000,
) -> None:
    """Rows a second and peak memory of reading a large photo table."""
    with needs_extra("prep"):
        from data_prep.photo_bench import measure
    Screen().result(measure(rows).line())
