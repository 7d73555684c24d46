"""The step behind ``zoomloc evaluate``: a run, a photo table, a report.

Knows nothing of how answers are scored; it proves that test photos were not trained on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoomloc.cli.screen import Screen
from zoomloc.cli.steps import config_of_run, explained_of_run
from zoomloc.errors import ConfigError, PhotoError

if TYPE_CHECKING:
    from zoomloc.locator import Locator

CANDIDATES = ("all-cells", "occupied-cells")
DISTANCES = {"geodesic": "geodesic", "paper": "haversine"}  # flag -> what the protocol says


@dataclass(frozen=True)
class Asked:
    """What is to be scored and how: the flags of ``zoomloc evaluate``. Raises ConfigError.

    ``known``: the region's training photos are evidence as well. ``html``: where a report to look
    at goes, None for none.
    """

    region: Path | None = None
    table: Path | None = None
    imagery: Path | None = None
    split: str = "test"
    known: bool = False
    candidates: str = "all-cells"
    distance: str = "geodesic"
    html: Path | None = None

    def __post_init__(self) -> None:
        known = (("protocol", self.candidates, CANDIDATES), ("distance", self.distance, DISTANCES))
        for flag, value, values in known:
            if value not in values:
                raise ConfigError(f"--{flag} {value!r}: take one of {', '.join(values)}")


def evaluate_split(
    run: Path, screen: Screen, json_path: Path, asked: Asked | None = None
) -> dict[str, Any]:
    """Locate all photos of a split and write report.json and answers.jsonl, a page if asked."""
    from zoomloc.cli.known import with_photos
    from zoomloc.evaluate import evaluate_run
    from zoomloc.locator import Locator
    from zoomloc.world.photos import read_photos

    asked = asked or Asked()
    locator = Locator.load(run, asked.region, asked.imagery)
    folder = asked.region or config_of_run(run).data
    own_table = asked.table is None and asked.region is None
    table = asked.table or folder / "photos.parquet"
    photos = read_photos(table, asked.split)
    made, table_hash = _proven_split(table, run if own_table else None)
    protocol = _protocol(locator, made, asked)
    if asked.known:
        drives = {photo.sequence_id for photo in photos}
        locator, count = with_photos(locator, folder, run, drives)
        protocol["known_photos"] = str(count)
    trained = [p for p in read_photos(table) if p.split == "train"] if own_table else []
    pool = chance_pool(folder, table)
    with screen.bar("evaluate", "photos") as tick:
        report, answers = evaluate_run(
            locator, run, photos, pool, protocol, table_hash, json_path, tick, trained
        )
    screen.step("evaluate", f"{report['n']} photos in {report['seconds']:.0f} s -> {json_path}")
    if asked.html is not None:
        from maps.eval_report import write_eval_report

        write_eval_report(report, answers, photos, locator.region, locator.pyramid, asked.html)
        screen.step("report", f"-> {asked.html}")
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


def _protocol(locator: "Locator", made: str, asked: Asked) -> dict[str, str]:
    """What was asked of a model, as report.json has it; ``made``: how the photos were split."""
    search = locator.search
    return {
        "split": made,
        "candidates": asked.candidates,
        "distance": DISTANCES[asked.distance],
        "region": locator.region.name,
        "photos": asked.split,
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
