"""The wheel: installed into an empty folder, it runs without the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds the wheel's files and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder


def run(installed: Path, *words: str) -> subprocess.CompletedProcess:
    program = (
        "import sys, zoomloc; assert 'site' in zoomloc.__file__, zoomloc.__file__; "
        "from zoomloc.cli import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=installed,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(installed / "site")},
    )


def test_the_wheel_holds_the_packages_configs_schemas_and_assets(installed):
    for name in (
        "zoomloc/configs/demo.yaml",
        "zoomloc/configs/models/justzoomin.yaml",
        "zoomloc/world/schemas/region.schema.json",
        "data_prep/town.py",
        "maps/assets/leaflet/leaflet.js",
    ):
        assert (installed / "site" / name).is_file(), name
    assert not (installed / "site" / "tests").exists()


def test_the_installed_command_shows_the_demos_help(installed):
    done = run(installed, "demo", "--help")
    assert done.returncode == 0, done.stderr
    assert "synthetic town" in done.stdout


def test_the_installed_command_builds_a_tiny_town_and_its_tiles(installed):
    done = run(
        installed,
        "town",
        "--seed",
        "3",
        "--size-m",
        "150",
        "--train-photos",
        "12",
        "--test-photos",
        "4",
        "--out",
        "town",
        "--workers",
        "1",
    )
    assert done.returncode == 0, done.stderr
    done = run(
        installed, "tiles", "--raster", "town/ortho.tif", "--out", "region", "--workers", "1"
    )
    assert done.returncode == 0, done.stderr
    assert (installed / "region" / "imagery.pmtiles").is_file()
