"""README's four commands, as they stand there: from photos and a GeoTIFF to a model and a map.

The photos are rendered from Autzen's orthophoto and surface model and written as phones write
theirs; no real photograph of that place was found. With so little training the answers are poor.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import shapely
from photo_files import real_data
from test_maps import Page

from data_prep.rendered import build_rendered
from zoomloc.checkpoint import best_checkpoint, load_explained
from zoomloc.world.cells import LatLng
from zoomloc.world.exif import read_exif
from zoomloc.world.photos import assert_disjoint, read_photos, split_protocol
from zoomloc.world.region import Region

ROOT = Path(__file__).parent.parent
PHOTOS, SEED, SIZE_PX = 90, 1, (128, 64)
STEPS = 12
ENV = {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def section() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.split(r"^## ", text.split("## Your photo, your city", 1)[1], flags=re.MULTILINE)[0]


def first_commands() -> list[list[str]]:
    """The words of each ``zoomloc`` line of the section's first block."""
    block = section().split("```")[1]
    return [shlex.split(line, comments=True) for line in block.splitlines() if "zoomloc " in line]


def run(words: list[str], cwd: Path) -> str:
    """What a command tells, which must succeed; 3 is an answer that owns to be unsure."""
    assert words[0] == "zoomloc"
    command = [sys.executable, "-m", *words]
    told = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=os.environ | ENV)
    fine = (0, 3) if words[1] == "locate" else (0,)  # after 12 steps it may well be unsure
    assert told.returncode in fine, f"{shlex.join(words)}: {told.stderr}"
    return told.stdout


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory) -> Path:
    """A folder with ortho.tif, my-photos (one sub-folder a drive), photo.jpg of another drive."""
    source = real_data("autzen-eugene")
    rasters = [source / f"{name}.tif" for name in ("ortho", "dsm", "dtm_estimated")]
    folder, rendered = (tmp_path_factory.mktemp(name) for name in ("newcomer", "rendered"))
    assert build_rendered(*rasters, rendered, PHOTOS, SEED, *SIZE_PX).photos == PHOTOS
    shutil.copyfile(source / "ortho.tif", folder / "ortho.tif")
    first, *others = sorted((rendered / "photos").iterdir())
    shutil.copyfile(sorted(first.iterdir())[2], folder / "photo.jpg")
    for drive in others:
        shutil.copytree(drive, folder / "my-photos" / drive.name)
    return folder


def test_the_photos_are_as_phones_write_them(newcomer):
    files = sorted((newcomer / "my-photos").rglob("*.jpg"))
    facts = [read_exif(file) for file in files]
    assert 60 < len(files) < PHOTOS and len({file.parent for file in files}) >= 6
    assert all(f.lat is not None and f.captured_at is not None for f in facts)
    assert all(50 < (f.fov_deg or 0) < 110 for f in facts)
    assert sum(f.bearing_deg is not None for f in facts) > len(files) / 2
    assert not list(newcomer.rglob("truth.csv"))


def test_four_commands_end_with_a_model_and_a_map(newcomer):
    """And what the text below them names: the evaluation, on drives that training did not see."""
    commands = first_commands()
    assert [words[1] for words in commands] == ["tiles", "photos", "train", "locate"]
    budget = commands[2].index("--minutes")
    commands[2][budget:] = ["--set", f"train.steps={STEPS}"]  # an hour, for a test
    tiles, photos, train, locate = (run(words, newcomer) for words in commands)
    assert "imagery.pmtiles" in tiles and "left out" not in photos
    assert train.index("split  sequence-disjoint") < train.index("train  trained")
    about = load_explained(best_checkpoint(newcomer / "runs/my-city"))
    assert about.step == STEPS and about.region.name == "my-city"
    check_map(newcomer, locate)
    for words in re.findall(r"`(zoomloc (?:evaluate|split) [^`]*)`", section()):
        told = run(shlex.split(words), newcomer)
        assert "sequence-disjoint" in told and "LEAKY" not in told
    check_report(newcomer)


def check_map(folder: Path, told: str) -> None:
    """The map shows the one answer that was told, which lies in the region."""
    page = Page(folder / "out.html")
    (answer,) = page.data["answers"]
    assert answer["photo"] == "photo.jpg" and answer["text"] in told
    region = Region.load(folder / "data/my-city/region.json")
    last = region.path(LatLng(*answer["place"]))[-1]
    assert shapely.box(*last.bounds).intersects(region.shape())
    assert last.quadkey == answer["path"][-1]["quadkey"] and 0 < answer["probability"] <= 1
    assert page.data["attribution"] == ["Who made the orthophoto"]
    assert not [link for link in page.references if link.startswith(("http", "//"))]


def check_report(folder: Path) -> None:
    """Whole drives were kept out of training, and all of their photos were scored."""
    table = folder / "data/my-city/photos.parquet"
    photos = read_photos(table)
    assert_disjoint(photos)
    assert split_protocol(table) == "sequence-disjoint"
    assert {photo.split for photo in photos} == {"train", "val", "test"}
    report = json.loads((folder / "runs/my-city/report.json").read_text())
    assert report["n"] == sum(photo.split == "test" for photo in photos)
