"""``zoomloc photos`` and ``zoomloc split`` as commands: servers on loopback, configs and flags.

The servers are those of test_mapillary.py and test_panoramax.py; what they say is made up after
the documentation of the real ones.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import test_mapillary as mapillary
import test_panoramax as panoramax
import yaml
from loopback import serving
from PIL import Image
from raster_files import ground, write_tif
from test_split import town

from data_prep.tiles import build_tiles
from zoomloc.world.photos import (
    READINGS,
    Photo,
    read_photos,
    read_skipped,
    split_hash,
    split_protocol,
    write_photos,
)

SECRET = mapillary.TOKEN.rpartition("|")[2]


def command(*words, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    env = {"OMP_NUM_THREADS": "1", "COLUMNS": "200", **env}
    return subprocess.run(
        [sys.executable, "-m", "zoomloc", *map(str, words)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | env,
    )


def city(folder: Path, west: float, south: float, source: dict) -> Path:
    """city.yaml in a folder, with imagery of its region of 0.003 degrees made already."""
    region = folder / "data"
    region.mkdir()
    corner = (west - 0.0005, south + 0.0025)
    raster = write_tif(folder / "a.tif", ground(300), "EPSG:4326", corner, 1e-5)
    build_tiles([raster], region, "here", workers=1)
    source |= {"rate_per_s": 200.0, "retries": 1}
    tree = {"name": "here", "data": "data", "photos": {"sources": [source]}}
    (folder / "city.yaml").write_text(yaml.safe_dump(tree))
    return region


def photos_by_verb(folder: Path, **env: str) -> tuple[list[Photo], str]:
    """The table that the verb made, and what it said."""
    done = command("photos", "city.yaml", "--report", "photos.html", cwd=folder, **env)
    assert done.returncode == 0, done.stderr
    return read_photos(folder / "data/photos.parquet"), done.stdout + done.stderr


def holding(folder: Path, secret: str) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if secret.encode() in path.read_bytes()]


# 1. servers


def test_photos_of_mapillary_by_the_verb(tmp_path):
    api = mapillary.MadeUp([*map(mapillary.entity, range(5))])
    api.entities.append(mapillary.apart(7, mapillary.WEST + 0.001, mapillary.SOUTH + 0.001))
    with mapillary.served(api) as server:
        source = {"kind": "mapillary", "url": server.address, "first": "2020-01-01"}
        region = city(tmp_path, mapillary.WEST, mapillary.SOUTH, source)
        photos, told = photos_by_verb(tmp_path, MAPILLARY_TOKEN=mapillary.TOKEN)
        asked = [a for a in server.asked if not a.path.startswith("/thumb/")]
        assert {a.headers["authorization"] for a in asked} == {f"OAuth {mapillary.TOKEN}"}
        assert not any(SECRET in a.path for a in server.asked)
    photos.sort(key=lambda photo: photo.id)  # the table has them drive by drive
    assert [photo.id for photo in photos] == [f"mapillary/{1000 + i}" for i in range(5)]
    for i, photo in enumerate(photos):
        drive = f"drive{i % 3}"
        assert photo.path == region / "photos/mapillary" / drive / f"{1000 + i}.jpg"
        assert photo.path.read_bytes() == mapillary.jpeg(1000 + i)
        assert photo.sequence_id == f"mapillary/{drive}" and photo.source == "mapillary"
        assert (photo.creator, photo.licence) == ("vorpalblade", "CC-BY-SA-4.0")
        assert photo.bearing_deg == 20.0 and photo.split is None
    (skipped,) = read_skipped(region / "skipped.parquet")
    assert skipped.path == "mapillary/1007" and "from the reported" in skipped.reason
    assert "5 photos of 3 drives" in told and "1 left out" in told
    shown = (tmp_path / "photos.html").read_text()
    assert "vorpalblade" in shown and "CC-BY-SA-4.0" in shown
    assert SECRET not in told and holding(tmp_path, SECRET) == []


def test_a_token_that_mapillary_refuses_is_told_without_telling_it(tmp_path):
    refusing = {"/images": lambda asked: mapillary.error(401, {"code": 190})}
    with mapillary.served(mapillary.MadeUp([], faults=refusing)) as server:
        source = {"kind": "mapillary", "url": server.address}
        city(tmp_path, mapillary.WEST, mapillary.SOUTH, source)
        done = command("photos", "city.yaml", cwd=tmp_path, MAPILLARY_TOKEN=mapillary.TOKEN)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "refuses the token" in done.stderr and "MAPILLARY_TOKEN" in done.stderr
    assert SECRET not in done.stdout + done.stderr and holding(tmp_path, SECRET) == []
    assert not (tmp_path / "data/photos.parquet").exists()


def test_photos_of_panoramax_by_the_verb(tmp_path):
    items = [panoramax.item(i) for i in range(4)]
    items.append(panoramax.item(4, license="CC-BY-SA-4.0", **{"geovisio:producer": "B. Mapper"}))
    items.append(panoramax.item(5, **panoramax.lens(field_of_view=220)))
    with serving(panoramax.MadeUp(items)) as server:
        source = {"kind": "panoramax", "url": f"{server.address}/api"}
        region = city(tmp_path, panoramax.WEST, panoramax.SOUTH, source)
        # a token for another server must not be sent to this one
        photos, told = photos_by_verb(tmp_path, MAPILLARY_TOKEN=mapillary.TOKEN)
        sent = json.dumps([[a.path, a.headers] for a in server.asked])
    by_id = {photo.id: photo for photo in photos}
    assert set(by_id) == {f"panoramax/{panoramax.name(i)}" for i in range(5)}
    for i in range(5):
        photo = by_id[f"panoramax/{panoramax.name(i)}"]
        assert photo.path.is_relative_to(region / "photos/panoramax")
        assert photo.path.read_bytes() == panoramax.jpeg(i)
        assert photo.source == "panoramax" and photo.fov_deg == 70.0
        credit = ("B. Mapper", "CC-BY-SA-4.0") if i == 4 else ("A. Mapper", "etalab-2.0")
        assert (photo.creator, photo.licence) == credit
    (skipped,) = read_skipped(region / "skipped.parquet")
    assert "field of view 220 degrees" in skipped.reason
    shown = (tmp_path / "photos.html").read_text()
    assert all(word in shown for word in ("A. Mapper", "B. Mapper", "etalab-2.0"))
    assert SECRET not in told + sent and holding(tmp_path, SECRET) == []


def test_a_server_without_a_photo_is_told_and_the_others_are_read(tmp_path):
    """Only where no source has any is it an error, which names all of them."""
    with (
        serving(panoramax.MadeUp([panoramax.item(i) for i in range(3)])) as full,
        serving(panoramax.MadeUp([])) as bare,
    ):
        source = {"kind": "panoramax", "url": f"{full.address}/api"}
        city(tmp_path, panoramax.WEST, panoramax.SOUTH, source)
        tree = yaml.safe_load((tmp_path / "city.yaml").read_text())
        other = {**source, "url": f"{bare.address}/api"}
        tree["photos"]["sources"] = [other, source]
        (tmp_path / "city.yaml").write_text(yaml.safe_dump(tree))
        photos, told = photos_by_verb(tmp_path)
        assert len(photos) == 3 and f"{bare.address}/api: no photo in the region" in told
        tree["photos"]["sources"] = [other, {**other, "first": "2020-01-01"}]
        (tmp_path / "city.yaml").write_text(yaml.safe_dump(tree))
        done = command("photos", "city.yaml", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.count(f"{bare.address}/api: no photo in the region") == 2
    assert "from 2020-01-01" in done.stderr
    assert len(read_photos(tmp_path / "data/photos.parquet")) == 3, "the table of before stays"


# 2. splits by config and by flags


@pytest.fixture
def table(tmp_path) -> Path:
    write_photos(town(), tmp_path / "photos.parquet")
    return tmp_path / "photos.parquet"


def config_of(folder: Path, **split) -> Path:
    path = folder / "city.yaml"
    path.write_text(yaml.safe_dump({"data": str(folder), "split": split}))
    return path


BLOCKS = {"by": "block", "val": 0.15, "test": 0.15, "block_m": 100.0, "buffer_m": 60.0}


def test_a_config_says_how_to_split_and_flags_say_otherwise(zoomloc, table, tmp_path):
    blocks = config_of(tmp_path, **BLOCKS)
    code, out, err = zoomloc("split", blocks, "--json")
    found = json.loads(out)
    assert code == 0 and found["protocol"] == "block-disjoint", err
    assert found["left_out"] > 0 and found["to_train"]["quantiles_m"]["min"] > 60
    flags = [
        word for key, value in BLOCKS.items() for word in (f"--{key.replace('_', '-')}", value)
    ]
    zoomloc("split", table, *flags)
    assert split_hash(read_photos(table)) == found["split_hash"], "flags say what the config said"
    zoomloc("split", blocks, "--buffer-m", 0)
    assert all(photo.split for photo in read_photos(table)), "no buffer, none left out"
    zoomloc("split", blocks, "--by", "sequence")
    assert split_protocol(table) == "sequence-disjoint"


def test_groups_of_a_config(zoomloc, table, tmp_path):
    """Four drives a day of one creator: by creator and day they stay together."""
    zoomloc("split", config_of(tmp_path, group="creator-day", val=0.2, test=0.2))
    days = {}
    for photo in read_photos(table):
        days.setdefault(photo.captured_at.date(), set()).add(photo.split)
    assert len(days) == 5 and all(len(splits) == 1 for splits in days.values())
    code, _, err = zoomloc("split", tmp_path / "city.yaml", "--group", "drive", "--seed", 2)
    assert code == 0, err
    drives = {photo.sequence_id: photo.split for photo in read_photos(table)}
    assert any(len({drives[f"{4 * d + k:02d}"] for k in range(4)}) > 1 for d in range(5))


def test_of_several_configs_the_later_one_wins(zoomloc, table, tmp_path):
    """As of a recipe and a city; a table stands alone."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"data": "elsewhere", "split": {"by": "image", "seed": 4}}))
    code, out, err = zoomloc("split", recipe, config_of(tmp_path, by="sequence", test=0.3))
    assert code == 0 and "sequence-disjoint: train" in out, err
    both = table.read_bytes()
    zoomloc("split", table, "--seed", 4, "--test", 0.3)
    assert table.read_bytes() == both
    code, _, err = zoomloc("split", table, recipe)
    assert code == 2 and "stands alone" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--by", "day"), "split.by: input should be 'sequence', 'block', 'image' or 'region'"),
        (("--by", "block", "--block-m", "0"), "split.block_m"),
        (("--by", "block", "--buffer-m", "-1"), "split.buffer_m"),
        (("--by", "block"), "newest_test goes with --by sequence only"),
        (("--val", "0.5", "--test", "0.6"), "split shares"),
    ],
)
def test_flags_that_cannot_be(zoomloc, table, tmp_path, words, says):
    before = table.read_bytes()
    code, _, err = zoomloc("split", config_of(tmp_path, newest_test=True), *words)
    assert code == 2 and says in err and err.count("\n") == 1
    assert table.read_bytes() == before


def test_a_regions_folder_is_split_as_by_default(zoomloc, table, tmp_path):
    (tmp_path / "region.json").touch()  # marks a region's folder; nothing in it is needed here
    code, out, err = zoomloc("split", tmp_path)
    assert code == 0 and "sequence-disjoint: train" in out, err
    folder_split = table.read_bytes()
    zoomloc("split", table)
    assert table.read_bytes() == folder_split
    code, _, err = zoomloc("split", tmp_path / "none.parquet")
    assert code == 2 and "no such photo table" in err


# 3. training on photos that nobody split


def test_training_splits_by_the_config_once_and_never_again(
    zoomloc, painted, small_config, tmp_path
):
    """Photos without a split get the config's; what somebody chose stays as it is."""
    for name in ("region.json", "imagery.pmtiles"):
        (tmp_path / name).symlink_to(painted / name)
    table = tmp_path / "photos.parquet"
    photos = [replace(photo, split=None) for photo in read_photos(painted / "photos.parquet")]
    write_photos(photos, table)
    config = small_config.model_copy(update={"data": tmp_path})
    (tmp_path / "c.yaml").write_text(config.to_yaml())
    words = ("train", tmp_path / "c.yaml", "--set", "train.steps=2")
    seed = ("--set", "split.seed=5", "--set", "split.test=0.3")
    code, out, err = zoomloc(*words, *seed, "--run", tmp_path / "a")
    assert code == 0 and out.index("sequence-disjoint: train") < out.index("trained: 2 steps"), err
    first = table.read_bytes()
    zoomloc("split", tmp_path / "c.yaml", "--seed", 5, "--test", 0.3)
    assert table.read_bytes() == first
    image = ("--set", "split.by=image")
    code, out, err = zoomloc(*words, *image, "--run", tmp_path / "b")
    assert code == 0 and "disjoint" not in out and table.read_bytes() == first, err
    write_photos(photos, table)
    together = ("--set", "split.group=creator-day")
    code, _, err = zoomloc(*words, *image, *together, "--run", tmp_path / "c")
    assert code == 2 and "this is by image: set split.by to sequence, or leave group out" in err
    code, out, err = zoomloc(*words, *image, "--quiet", "--run", tmp_path / "d")
    assert code == 0 and READINGS["random-image"] in out, err
    write_photos(photos[:60], table)
    code, _, err = zoomloc(*words, "--run", tmp_path / "c")
    assert code == 2 and "1 drives, days, blocks or photos are too few" in err
    assert not (tmp_path / "c").exists()


def test_reading_photos_anew_says_that_the_split_is_gone(zoomloc, table, tmp_path):
    """Otherwise training would divide them in its own way, and nobody would know."""
    facts = {"id": "a", "file": "a.jpg", "lat": 45.0, "lng": 7.0}
    Image.new("RGB", (64, 48), "grey").save(tmp_path / "a.jpg")
    (tmp_path / "a.csv").write_text(",".join(facts) + "\n" + ",".join(map(str, facts.values())))
    source = {"kind": "table", "path": str(tmp_path / "a.csv"), "columns": {"file": "file"}}
    config = tmp_path / "city.yaml"
    config.write_text(yaml.safe_dump({"data": str(tmp_path), "photos": {"sources": [source]}}))
    code, out, err = zoomloc("photos", config, "--quiet")
    assert code == 0 and out == "", err  # nothing was divided before
    write_photos(town(), table, "block-disjoint")
    code, out, err = zoomloc("photos", config, "--quiet")
    assert code == 0 and "block-disjoint) is gone" in out and "zoomloc split" in out, err
    table.write_bytes(b"no table")
    assert zoomloc("photos", config, "--quiet")[:2] == (0, "")
