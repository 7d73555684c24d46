"""The step behind ``zoomloc evaluate``: a run, a photo table, a report.

Knows nothing of how answers are scored; it proves that test photos were not trained on.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoomloc.cli.screen import Screen
from zoomloc.cli.steps import config_of_run, explained_of_run
from zoomloc.errors import PhotoError

if TYPE_CHECKING:
    from zoomloc.locator import Locator


def evaluate_split(
    run: Path,
    screen: Screen,
    json_path: Path,
    region: Path | None = None,
    table: Path | None = None,
    imagery: Path | None = None,
    split: str = "test",
    known: bool = False,
) -> dict[str, Any]:
    """Locate all photos of a split and write report.json and answers.jsonl.

    ``known``: the region's training photos are evidence as well.
    """
    from zoomloc.cli.known import with_photos
    from zoomloc.evaluate import evaluate_run
    from zoomloc.locator import Locator
    from zoomloc.world.photos import read_photos

    locator = Locator.load(run, region, imagery)
    folder = region or config_of_run(run).data
    own_table = table is None and region is None
    table = table or folder / "photos.parquet"
    photos = read_photos(table, split)
    made, table_hash = _proven_split(table, run if own_table else None)
    protocol = _protocol(locator, made, split)
    if known:
        drives = {photo.sequence_id for photo in photos}
        locator, count = with_photos(locator, folder, run, drives)
        protocol["known_photos"] = str(count)
    with screen.bar("evaluate", "photos") as tick:
        report = evaluate_run(
            locator,
            run,
            photos,
            chance_pool(folder, table),
            protocol,
            table_hash,
            json_path,
            tick,
        )
    screen.step("evaluate", f"{report['n']} photos in {report['seconds']:.0f} s -> {json_path}")
    return report


def _proven_split(table: Path, run: Path | None) -> tuple[str, str]:
    """How the photos of a table were split, and the hash of that.

    ``run``: was trained on this very table. Raises PhotoError where test photos may be training
    photos.
    """
    from zoomloc.world.photos import assert_disjoint, read_photos, split_hash, split_protocol

    photos, made = read_photos(table), split_protocol(table)
    table_hash = split_hash(photos)
    if run is not None and table_hash != explained_of_run(run).split_hash:
        raise PhotoError(
            f"{table}: was split again after {run} was trained, so test photos may be training "
            "photos; train again, or name another table with --photos"
        )
    if made is None:
        assert_disjoint(photos)  # a table of other makers must prove it
    return made or "sequence-disjoint", table_hash


def _protocol(locator: "Locator", made: str, split: str) -> dict[str, str]:
    """What was asked of a model, as report.json has it; ``made``: how the photos were split."""
    search = locator.search
    return {
        "split": made,
        "candidates": "all-cells",
        "region": locator.region.name,
        "photos": split,
        "search": f"{search.method} {search.beam}" if search.method == "beam" else search.method,
    }


def chance_pool(folder: Path, table: Path) -> Any:
    """Road points of the region, or places of its training photos where it has no roads."""
    from zoomloc.evaluate import Pool
    from zoomloc.world.photos import read_photos
    from zoomloc.world.roads import road_points

    roads = folder / "roads.geojson"
    if roads.is_file():
        return Pool("random road point", tuple(road_points(roads)))
    photos = read_photos(table)
    train = [p.place for p in photos if p.split == "train"] or [p.place for p in photos]
    return Pool("random training photo", tuple(train))
