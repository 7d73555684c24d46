"""From what a config names to the photo table: all sources, one after the other, then the sieve.

Knows nothing of how any source works: each kind has a module beside this one. What is left out
goes to skipped.parquet with its reason.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from data_prep.datasets.justzoomin import read_justzoomin
from data_prep.photos.folder import read_folder_source
from data_prep.photos.looks import filtered
from data_prep.photos.mapillary import read_mapillary
from data_prep.photos.panoramax import read_panoramax
from data_prep.photos.reading import Found, NothingThere, Progress, Task
from data_prep.photos.table import read_table_source
from data_prep.photos.views import views_of
from zoomloc.config.photos import (
    FolderPhotos,
    PaperPhotos,
    PhotosConfig,
    PhotoSource,
    TablePhotos,
)
from zoomloc.errors import ConfigError, PhotoError
from zoomloc.world.coverage import Coverage
from zoomloc.world.photo_writer import PhotoWriter, photo_writer
from zoomloc.world.photos import Photo, Skipped
from zoomloc.world.pyramid import TilePyramid
from zoomloc.world.region import Region

TABLE_NAME, REGION_NAME, IMAGERY_NAME = "photos.parquet", "region.json", "imagery.pmtiles"
VIEWS_FOLDER = "views"
TOGETHER = 4096  # photos whose places are looked up at once


@dataclass(frozen=True)
class PhotosSummary:
    """What became of all sources: counts, the table, and seconds of wall clock."""

    photos: int
    drives: int
    with_bearing: int
    with_truth: int
    skipped: dict[str, int]  # photos for each reason, most first
    empty: tuple[str, ...]  # what is told of servers that have no photo of the region
    table: Path
    seconds: float


READERS: dict[str, Callable[..., Found]] = {
    "folder": read_folder_source,
    "table": read_table_source,
    "mapillary": read_mapillary,
    "panoramax": read_panoramax,
    "justzoomin": read_justzoomin,
}


def read_sources(
    plan: PhotosConfig, out: Path, workers: int = 1, progress: Progress | None = None
) -> PhotosSummary:
    """Write ``out/photos.parquet`` and ``out/skipped.parquet`` of all sources of a config.

    The region, where ``out`` holds one, tells servers where to look, and photos off its imagery
    are left out unless ``off_imagery`` keeps them. Raises ConfigError where no source is named,
    PhotoError where a source cannot be used or no photo is left; no table is written then. A
    server that has no photo of the region is told in the summary.
    """
    began = time.perf_counter()
    sources = sources_of(plan)
    region = Region.load(out / REGION_NAME) if (out / REGION_NAME).is_file() else None
    task = Task(out, None if region is None else region.shape(), workers, progress)
    empty: list[str] = []
    found = _sieved(_all_of(sources, task, empty), plan, region, task)
    table = out / TABLE_NAME
    counts = _Counts()
    with photo_writer(table) as writer:
        for one in found:
            if isinstance(one, Skipped):
                writer.leave_out(one)
            else:
                writer.add(one)
                counts.take(one)
        if not counts.photos:
            raise PhotoError(_why_none(table, writer, empty))
        writer.finish(_published_protocol(sources))
        skipped = dict(writer.reasons.most_common())
    return PhotosSummary(
        counts.photos,
        len(counts.drives),
        counts.with_bearing,
        counts.with_truth,
        skipped,
        tuple(empty),
        table,
        time.perf_counter() - began,
    )


def sources_of(plan: PhotosConfig) -> list[PhotoSource]:
    """The sources of a config, its ``folder`` first. Raises ConfigError where there is none."""
    sources: list[PhotoSource] = list(plan.sources)
    if plan.folder is not None:
        short = FolderPhotos(
            kind="folder",
            path=plan.folder,
            licence=plan.licence,
            creator=plan.creator,
            default_position_error_m=plan.default_position_error_m,
        )
        sources.insert(0, short)
    if not sources:
        raise ConfigError(
            "photos: no source; give --folder DIR, or photos.folder or photos.sources in the config"
        )
    return sources


class _Counts:
    """What is told of the photos that were kept."""

    def __init__(self) -> None:
        self.photos = self.with_bearing = self.with_truth = 0
        self.drives: set[str] = set()

    def take(self, photo: Photo) -> None:
        self.photos += 1
        self.with_bearing += photo.bearing_deg is not None
        self.with_truth += photo.true_lat is not None
        self.drives.add(photo.sequence_id)


def _all_of(
    sources: Sequence[PhotoSource], task: Task, empty: list[str]
) -> Iterator[Photo | Skipped]:
    """Photos of all sources; of several folders or tables each has its name before its ids.

    ``empty`` is told of servers that have none.
    """
    local = [s for s in sources if isinstance(s, (FolderPhotos, TablePhotos))]
    names = [source.path.resolve().name for source in local]
    for source in sources:
        found = READERS[source.kind](source, task)
        if len(local) > 1 and isinstance(source, (FolderPhotos, TablePhotos)):
            at = local.index(source)
            name = names[at] if names.count(names[at]) == 1 else f"{names[at]}-{at + 1}"
            found = (_named(one, name) for one in found)
        try:
            yield from found
        except NothingThere as error:
            empty.append(str(error))


def _sieved(
    found: Iterable[Photo | Skipped], plan: PhotosConfig, region: Region | None, task: Task
) -> Iterable[Photo | Skipped]:
    """What the config keeps of all photos; panoramas as views where it wants them."""
    if region is not None and plan.off_imagery == "refuse":
        found = _on_imagery(found, region, task.out / IMAGERY_NAME)
    found = filtered(found, plan.filters, task.workers)
    return _in_views(found, plan, task.out / VIEWS_FOLDER) if plan.views else found


def _named(one: Photo | Skipped, source: str) -> Photo | Skipped:
    """A photo whose id and drive cannot be those of another source."""
    if isinstance(one, Skipped):
        return replace(one, path=f"{source}/{one.path}")
    return replace(one, id=f"{source}/{one.id}", sequence_id=f"{source}/{one.sequence_id}")


def _published_protocol(sources: Sequence[PhotoSource]) -> str | None:
    """How photos are split already: the paper's data come with a random split of images."""
    published = all(isinstance(source, PaperPhotos) for source in sources)
    return "random-image" if published else None


def _on_imagery(
    found: Iterable[Photo | Skipped], region: Region, imagery: Path
) -> Iterator[Photo | Skipped]:
    """Photos on covered cells of the region; the others with the reason."""
    with TilePyramid.open(imagery) as pyramid:
        coverage = Coverage.of(region, pyramid)
    reason = f"its position is off the imagery of region {region.name!r}"
    stream = iter(found)
    while together := list(islice(stream, TOGETHER)):
        photos = [one for one in together if isinstance(one, Photo)]
        places = np.array([photo.place for photo in photos], np.float64).reshape(-1, 2)
        held = iter(coverage.holds(places[:, 0], places[:, 1]).tolist() if photos else [])
        for one in together:
            keep = isinstance(one, Skipped) or next(held)
            yield one if keep or isinstance(one, Skipped) else Skipped(one.id, reason)


def _in_views(
    found: Iterable[Photo | Skipped], plan: PhotosConfig, folder: Path
) -> Iterator[Photo | Skipped]:
    """Panoramas become perspective views, kept together as one drive."""
    for one in found:
        if isinstance(one, Photo) and one.projection == "equirectangular":
            try:
                yield from views_of(one, plan.views, plan.view_fov_deg, folder)
            except PhotoError as error:
                yield Skipped(one.id, str(error).removeprefix(f"{one.path}: "))
        else:
            yield one


def _why_none(table: Path, writer: PhotoWriter, empty: Sequence[str]) -> str:
    """One line for sources of which no photo can be used."""
    if not writer.reasons:
        return "; ".join(empty) or f"{table}: no photo found in any source"
    reason, count = writer.reasons.most_common(1)[0]
    nothing = (
        f"{table}: none of {sum(writer.reasons.values()):,} photos can be used; "
        f"{count:,} of them: {reason}"
    )
    return "; ".join([nothing, *empty])
