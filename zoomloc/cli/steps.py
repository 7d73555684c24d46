"""The steps that the verbs and ``zoomloc demo`` share: each reads files, writes files, says so.

With ``zoomloc.cli`` the only place that may import data_prep and maps, and does so inside the
functions, so that the command starts fast and missing extras are named only when needed.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoomloc.cli.screen import Screen
from zoomloc.config import (
    Config,
    PhotosConfig,
    SplitConfig,
    TownConfig,
)
from zoomloc.errors import ConfigError, PhotoError
from zoomloc.world.processes import worker_pool

REASONS_TOLD = 5  # of photos left out, on the screen

if TYPE_CHECKING:
    from zoomloc.checkpoint import Explained
    from zoomloc.world.answers import Answer
    from zoomloc.world.photos import Photo


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a missing optional package into one line that names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("zoomloc", "data_prep", "maps"):
            raise
        raise ConfigError(
            f"this command needs {error.name}, which is not installed; run "
            f"pip install 'zoomloc[{extra}]'"
        ) from error


def make_town(plan: TownConfig, out: Path, workers: int, screen: Screen) -> Path:
    """Build the synthetic town (skipped where it is whole)."""
    with needs_extra("prep"):
        from data_prep.town import PhotoPlan, build_town
    photos = PhotoPlan(plan.train_photos, plan.test_photos, plan.width_px, plan.height_px)
    with screen.bar("town") as tick:
        summary = build_town(
            out,
            plan.seed,
            plan.size_m,
            photos,
            workers,
            lambda stage, done, total: tick(done, total),
        )
    screen.step(
        "town",
        f"{summary.photos:,} photos on {summary.drives} drives along "
        f"{summary.roads_m / 1000:.1f} km of streets of a synthetic town of "
        f"{(plan.size_m / 1000) ** 2:.2f} km² -> {out}",
    )
    return out


def read_photos_of(plan: PhotosConfig, out: Path, workers: int, screen: Screen) -> None:
    """All photos of a config into photos.parquet; what was left out goes to skipped.parquet."""
    with needs_extra("prep"):
        from data_prep.photos.sources import read_sources

    with screen.bar("photos", "photos") as tick:
        summary = read_sources(plan, out, workers, tick)
    skipped = sum(summary.skipped.values())
    left_out = f"; {skipped:,} left out (skipped.parquet says why)" if skipped else ""
    screen.step(
        "photos",
        f"{summary.photos:,} photos of {summary.drives:,} drives, "
        f"{summary.with_bearing / max(1, summary.photos):.0%} with a heading"
        f"{left_out} -> {summary.table}",
    )
    for line in summary.empty:
        screen.step("", line)
    for reason, count in list(summary.skipped.items())[:REASONS_TOLD]:
        screen.step("", f"{count:,} left out: {reason}")


@contextmanager
def telling_a_lost_split(table: Path, screen: Screen) -> Iterator[None]:
    """Round what replaces a photo table: says so where its photos were divided."""
    from zoomloc.world.photos import split_protocol

    before = None
    with suppress(PhotoError):  # damaged: it is written anew
        before = split_protocol(table) if table.is_file() else None
    yield
    if (
        before is not None and split_protocol(table) is None
    ):  # said to the quiet too: test photos may change sides
        screen.result(
            f"the split of the table before ({before}) is gone with it; divide as you did then "
            "with 'zoomloc split', or training divides as the config says"
        )


def read_photo_folder(
    plan: PhotosConfig, folder: Path, out: Path, workers: int, screen: Screen
) -> None:
    """A folder of JPEGs becomes photos.parquet."""
    read_photos_of(plan.model_copy(update={"folder": folder}), out, workers, screen)


def split_table(plan: SplitConfig, table: Path, screen: Screen) -> None:
    """Write train, val and test into the photo table."""
    from data_prep.split import split_photos

    split_photos(table, **plan.model_dump())
    say_split(table, screen)


def split_where_none_is(config: Config, screen: Screen) -> None:
    """Split the tables that a run trains on as the config says, where nobody has split them yet."""
    from zoomloc.world.photos import read_photos, split_protocol

    for folder in config.regions or (config.data,):
        table = folder / "photos.parquet"
        if not table.is_file() or split_protocol(table) is not None:
            continue
        if all(photo.split is None for photo in read_photos(table)):
            split_table(config.split, table, screen)


def say_split(table: Path, screen: Screen) -> None:
    """One line on the splits of a photo table, and one more where they leak."""
    from zoomloc.world.photos import READINGS, read_photos, split_protocol

    photos, protocol = read_photos(table), split_protocol(table)
    parts = []
    for split in ("train", "val", "test"):
        chosen = [p for p in photos if p.split == split]
        drives = len({p.sequence_id for p in chosen})
        parts.append(f"{split} {len(chosen):,} photos of {drives} drives")
    screen.step("split", f"{protocol}: {', '.join(parts)}")
    if protocol in READINGS:  # said to the quiet too: nothing else tells before the evaluation
        screen.result(f"{READINGS[protocol]}; split.by: sequence keeps drives apart")


def train_run(config: Config, run: Path, screen: Screen) -> None:
    """Train a run, or take it up where it was left; photos without a split get one first."""
    split_where_none_is(config, screen)  # before torch is loaded: too few drives are told at once
    from zoomloc.training.loop import Progress, train

    with screen.bar("train", "% of the time") as tick:

        def tell(state: Progress) -> None:
            val = "" if state.val_r50 is None else f", val R@50m {state.val_r50:.1%}"
            note = f"loss {state.loss:.2f}, {state.photos_per_s:.0f} photos/s{val}"
            tick(round(100 * state.share), 100, note)

        summary = train(config, run, tell if screen.console.is_terminal else None)
    outside = f" ({summary.outside:,} off the imagery left out)" if summary.outside else ""
    done = "was finished" if summary.skipped else "resumed" if summary.resumed else "trained"
    screen.step(
        "train",
        f"{done}: {summary.step:,} steps in {summary.seconds / 60:.1f} min, "
        f"{summary.photos:,} photos{outside}, {summary.parameters / 1e6:.1f} M parameters, "
        f"best val R@50m {summary.val_r50:.1%} -> {run}",
    )


def index_region(region: Path, run: Path, screen: Screen) -> None:
    """Make or renew the index of a region for a run. Raises ConfigError for other models."""
    from zoomloc.locator import Locator
    from zoomloc.scorers.mapped import build_index, folder_of
    from zoomloc.scorers.matches import MatchScorer

    locator = Locator.load(run, region)
    scorer, made_by = locator.scorer, locator.made_by
    if not isinstance(scorer, MatchScorer):
        raise ConfigError(
            f"run {run}: only a match has an index; this model encodes what it meets on the way, "
            "so locate can be used at once"
        )
    folder = folder_of(region, made_by["checkpoint"])
    with screen.bar("index", "chunks") as tick:
        built = build_index(
            scorer.model,
            scorer.ground,
            folder,
            made_by["checkpoint"],
            made_by["imagery"],
            tick,
        )
    size_mb = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    screen.step(
        "index", f"{built.encoded} of {built.chunks} chunks encoded, {size_mb:.0f} MB -> {folder}"
    )


@contextmanager
def map_drawer() -> Iterator[Callable[..., None]]:
    """``draw_map`` in a process of its own, which imports Folium while this one imports torch."""
    with worker_pool(1) as pool:
        pool.submit(_import_folium)
        yield lambda *given: pool.submit(draw_map, *given).result()


def _import_folium() -> None:
    with needs_extra("maps"):
        import maps.page  # noqa: F401


def draw_map(answers: Sequence["Answer"], region_folder: Path, out: Path) -> None:
    """One HTML that shows answers on the region's imagery."""
    from zoomloc.world.pyramid import TilePyramid
    from zoomloc.world.region import Region

    region = Region.load(region_folder / "region.json")
    with needs_extra("maps"), TilePyramid.open(region_folder / "imagery.pmtiles") as pyramid:
        from maps.viewer import write_map

        write_map(answers, region, pyramid, out, photo_files(answers, region_folder))


def draw_strip(answer: "Answer", region_folder: Path, out: Path) -> None:
    """One picture: the photo, then what each zoom looked at and chose."""
    with needs_extra("maps"):
        from maps.strip import write_strip
    from zoomloc.world.pyramid import TilePyramid
    from zoomloc.world.region import Region

    region = Region.load(region_folder / "region.json")
    with TilePyramid.open(region_folder / "imagery.pmtiles") as pyramid:
        photo = photo_files([answer], region_folder).get(answer.photo)
        write_strip(answer, region, pyramid, out, photo)


def photo_files(answers: Sequence["Answer"], region_folder: Path) -> dict[str, Path]:
    """Picture files of answers: named by a path, or by an id of the region's photo table."""
    from zoomloc.world.photos import read_photos

    files = {a.photo: Path(a.photo) for a in answers if Path(a.photo).is_file()}
    table = region_folder / "photos.parquet"
    if len(files) < len(answers) and table.is_file():
        wanted = {a.photo for a in answers} - files.keys()
        files |= {p.id: p.path for p in read_photos(table) if p.id in wanted and p.path.is_file()}
    return files


def explained_of_run(run: Path) -> "Explained":
    """What stands beside the weights that a run answers with."""
    from zoomloc.checkpoint import best_checkpoint, load_explained

    return load_explained(best_checkpoint(run))


def config_of_run(run: Path) -> Config:
    """The config that a run was trained with."""
    return explained_of_run(run).config


def most_certain(answers: Sequence["Answer"], photos: Sequence["Photo"]) -> "Photo":
    """The photo whose answer the model itself holds most probable (truth is not looked at)."""
    best = max(answers, key=lambda a: a.probability)
    found = next((photo for photo in photos if photo.id == best.photo), None)
    if found is None:
        raise PhotoError(f"photo {best.photo}: answered, but not in the test split; evaluate again")
    return found


def as_json(thing: Any) -> str:
    """One JSON line."""
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        thing = dataclasses.asdict(thing)
    return json.dumps(thing, ensure_ascii=False, default=str)
