"""``zoomloc bench``: hands the benchmark its towns and shows what came out.

With ``zoomloc.cli.steps`` the only place that may import data_prep, inside the functions.
"""

import math
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoomloc.cli import steps
from zoomloc.cli.screen import Screen
from zoomloc.cli.tiling import make_tiles
from zoomloc.config import PhotosConfig, TilesConfig, load_config
from zoomloc.errors import ConfigError
from zoomloc.world.files import write_text, written_whole

if TYPE_CHECKING:
    from zoomloc.bench.protocols import GroundPlan, Plan, TownPlan

REAL_PLACE = "autzen-eugene"
TILES = TilesConfig(
    attribution=("Synthetic town by zoomloc",), licence="CC0-1.0", terminal_cell_m=16.0
)
PHOTOS = PhotosConfig(licence="CC0-1.0", creator="zoomloc")


def run_accuracy(
    preset: str,
    protocols: tuple[str, ...],
    entrants: tuple[str, ...],
    minutes: float | None,
    seeds: int | None,
    town_seeds: tuple[int, int] | None,
    out: Path,
    work: Path,
    jobs: int,
    screen: Screen,
) -> None:
    """Fill in benchmark.json, then write table and plots beside it."""
    from zoomloc.bench.accuracy import Bench
    from zoomloc.bench.entrants import entrants as find_entrants
    from zoomloc.bench.protocols import PRESETS, trials

    chosen = find_entrants(entrants)
    wanted = trials(PRESETS[preset], protocols, minutes, seeds, town_seeds)
    bench = Bench(PRESETS[preset], out, work, jobs, lambda text: screen.step("bench", text))
    bench.run(wanted, chosen, lambda plan, folder: build_place(plan, folder, jobs, screen))
    write_readings(out, screen)


def write_readings(out: Path, screen: Screen) -> None:
    """Table and plots of the rows in a folder; plots only where matplotlib is installed."""
    from zoomloc.bench.plots import write_plots
    from zoomloc.bench.rows import read_rows
    from zoomloc.bench.tables import markdown_table

    rows = read_rows(out / "benchmark.json")
    write_text(out / "table.md", markdown_table(rows))
    try:
        plots = write_plots(rows, out)
    except ConfigError as error:  # a benchmark of hours does not fail for want of a picture
        screen.step("plots", str(error))
        plots = []
    screen.step("bench", f"{len(rows)} rows, table and {len(plots)} plots -> {out}")


def run_search(
    run: Path,
    preset: str,
    town_seeds: tuple[int, int] | None,
    out: Path,
    work: Path,
    screen: Screen,
) -> None:
    """Compare ways to search with a trained match in the test towns of unseen-town."""
    from zoomloc.bench.protocols import PRESETS, folder_of, trials
    from zoomloc.bench.searching import compare_searches, markdown

    (trial,) = trials(PRESETS[preset], ("unseen-town",), None, 1, town_seeds)
    plans = trial.tests["unseen-town"]
    for plan in plans:
        build_place(plan, folder_of(work, plan), 2, screen)
    found = compare_searches(run, [folder_of(work, plan) for plan in plans])
    write_text(out / "search.md", markdown(found))
    screen.result(markdown(found))


def build_place(plan: "Plan", folder: Path, workers: int, screen: Screen) -> None:
    """A town or a real place as a region folder; one that is whole is left as it is."""
    from zoomloc.bench.protocols import TownPlan

    if (folder / "built").is_file():
        return
    if isinstance(plan, TownPlan):
        _build_town(plan, folder, workers, screen)
    else:
        _build_ground(plan, folder, workers, screen)
    write_text(folder / "built", "whole\n")


def _build_town(plan: "TownPlan", folder: Path, workers: int, screen: Screen) -> None:
    from data_prep.layers import build_layers
    from data_prep.town import PhotoPlan, build_town
    from zoomloc.bench.protocols import PHOTO_PX

    town = folder / "town"
    photos = PhotoPlan(
        plan.train_photos,
        plan.test_photos,
        *PHOTO_PX,
        nuisances=plan.nuisances,
        scattered=plan.scattered,
        turns=plan.turns,
    )
    build_town(town, plan.seed, plan.size_m, photos, workers)
    quiet = Screen(quiet=True)
    make_tiles(TILES, [town / "ortho.tif"], folder, plan.name, workers, quiet)
    with written_whole(folder / "roads.geojson") as temporary:
        shutil.copyfile(town / "roads.geojson", temporary)
    steps.read_photo_folder(PHOTOS, town / "photos", folder, workers, quiet)
    _split(plan, folder / "photos.parquet")
    if plan.role != "test":
        build_layers(town, folder, workers)
    screen.step("town", f"{plan.name} -> {folder}")


def _split(plan: "TownPlan", table: Path) -> None:
    """Train, val and another day's test; or all photos of one kind."""
    from data_prep.split import split_photos
    from zoomloc.world.photos import read_photos, write_photos

    if plan.role == "split":
        # as published: rows of one split can be compared, though drives that meet may be train and
        # val; the test, of another day, is not touched by that
        split_photos(
            table, by="sequence", val=0.05, test=0.1, seed=0, newest_test=True, unite=False
        )
        return
    photos = [replace(photo, split=plan.role) for photo in read_photos(table)]
    write_photos(photos, table, "unseen-region")


def _build_ground(plan: "GroundPlan", folder: Path, workers: int, screen: Screen) -> None:
    from data_prep.rendered import build_rendered
    from data_prep.split import split_photos

    source = Path(os.environ.get("ZOOMLOC_REAL_DATA", "")) / REAL_PLACE
    if not (source / "ortho.tif").is_file():
        raise ConfigError(
            f"rendered-ground: needs the orthophoto and surface model {REAL_PLACE}; set "
            "ZOOMLOC_REAL_DATA to the folder that holds it, or leave the protocol out"
        )
    ortho, surface = source / "ortho.tif", source / "dsm.tif"
    terrain = source / "dtm_estimated.tif"
    build_rendered(ortho, surface, terrain, folder / "views", plan.photos, seed=1)
    quiet = Screen(quiet=True)
    tiles = TILES.model_copy(
        update={
            "attribution": (
                "Autzen LiDAR: Watershed Sciences, Inc. 2010, via PDAL/data, CC BY 4.0",
            ),
            "licence": "CC-BY-4.0",
        }
    )
    make_tiles(tiles, [ortho], folder, plan.name, workers, quiet)
    photos = PhotosConfig(licence="CC-BY-4.0", creator="rendered by zoomloc")
    steps.read_photo_folder(photos, folder / "views" / "photos", folder, workers, quiet)
    split_photos(
        folder / "photos.parquet", by="block", val=0.2, test=0.8, seed=0, block_m=200, buffer_m=60
    )
    screen.step("ground", f"{plan.name} -> {folder}")


def run_correlate(out: Path, screen: Screen) -> None:
    """Time the ways to compare fans and bins, on one thread."""
    import torch

    from zoomloc.bench.correlations import compare_correlations, markdown

    torch.set_num_threads(1)
    found = compare_correlations(load_config(["models/match"]).model.match)
    write_text(out / "correlate.md", markdown(found))
    for timed in found:
        screen.step("bench", f"{timed.way}, {timed.kind}: {timed.nanoseconds:,.0f} ns")
    screen.step("bench", f"-> {out / 'correlate.md'}")


def run_leaks(preset: str, out: Path, work: Path, most: int, screen: Screen) -> None:
    """Disturb the map of every same-area run of a preset that is found, and compare."""
    from zoomloc.bench.leaks import compare, disturb, markdown
    from zoomloc.checkpoint import best_checkpoint, load_explained
    from zoomloc.world.photos import read_photos

    runs = sorted((work / "runs").glob(f"{preset}-same-area-*"))
    if not runs:
        raise ConfigError(
            f"bench leaks: no same-area run of preset {preset} under {work}; "
            "run 'zoomloc bench accuracy' first"
        )
    found = []
    for run in runs:
        place = load_explained(best_checkpoint(run)).config.data
        imagery = disturb(place / "imagery.pmtiles", place / "other-imagery.pmtiles")
        photos = read_photos(place / "photos.parquet", "test")
        photos = photos[:: math.ceil(len(photos) / most)]  # of all drives
        found.append(compare(run, place, photos, imagery))
        screen.step("leaks", f"{run.name}: {found[-1].own:.1%} -> {found[-1].disturbed:.1%}")
    write_text(out / "leaks.md", markdown(found, len(photos)))
    screen.step("leaks", f"{len(found)} runs -> {out / 'leaks.md'}")
