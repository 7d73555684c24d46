"""``zoomloc demo``: the whole chain on a synthetic town, by the steps of the single verbs.

Takes no path that a user's own city does not take; a second run resumes instead of repeating.
"""

import shutil
from pathlib import Path

from zoomloc.cli import steps
from zoomloc.cli.calibrating import calibrate_trained
from zoomloc.cli.evaluating import Asked, evaluate_split
from zoomloc.cli.screen import Screen
from zoomloc.cli.telling import describe
from zoomloc.cli.tiling import make_tiles
from zoomloc.config import Config
from zoomloc.errors import ConfigError
from zoomloc.world.files import written_whole
from zoomloc.world.photos import split_protocol


def run_demo(config: Config, run: Path, workers: int, screen: Screen) -> None:
    """Town, tiles, photos, split, train, evaluate, one located photo and its map."""
    if config.town is None:
        raise ConfigError("demo: the config has no 'town'; use the packaged one")
    data, town = config.data, config.data / "town"
    steps.make_town(config.town, town, workers, screen)
    make_tiles(config.tiles, [town / "ortho.tif"], data, config.name, workers, screen)
    with written_whole(data / "roads.geojson") as temporary:
        shutil.copyfile(town / "roads.geojson", temporary)
    table = data / "photos.parquet"
    if _is_newer(table, town / "town.json") and split_protocol(table) is not None:
        steps.say_split(table, screen)
    else:
        steps.read_photo_folder(config.photos, town / "photos", data, workers, screen)
        steps.split_table(config.split, table, screen)
    steps.train_run(config, run, screen)
    calibrate_trained(run, screen)
    _show(config, run, screen)


def _show(config: Config, run: Path, screen: Screen) -> None:
    """Recall on the other day's drives, then one photo on a map."""
    from zoomloc.locator import Locator, Query
    from zoomloc.world.answers import read_answers
    from zoomloc.world.files import read_json
    from zoomloc.world.photos import read_photos

    report_path = run / "report.json"
    if _is_newer(report_path, run / "checkpoint-best.json"):
        report = read_json(report_path, "zoomloc/report/1", ConfigError)
    else:
        report = evaluate_split(run, screen, report_path, Asked(html=run / "report.html"))
    screen.recall_table(report)
    photos = read_photos(config.data / "photos.parquet", "test")
    photo = steps.most_certain(read_answers(run / "answers.jsonl"), photos)
    answers = list(Locator.load(run).answers([Query.of(photo)]))
    out = run / "map.html"
    steps.draw_map(answers, config.data, out)
    for i, line in enumerate(describe(answers[0])):
        screen.step("" if i else "locate", line)
    screen.step("map", f"the answer that the model is surest of -> {out}")


def _is_newer(product: Path, source: Path) -> bool:
    return (
        product.is_file() and source.is_file() and product.stat().st_mtime >= source.stat().st_mtime
    )
