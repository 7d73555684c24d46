"""Builds that are killed at any instant, and builds on a cluster: the same tiles in the end."""

import random
import subprocess
import sys
import time

import numpy as np
import pytest
from raster_files import ground, write_tif

from data_prep.tile_scratch import TileScratch
from data_prep.tiles import PYRAMID_NAME, SCRATCH_NAME, build_tiles
from zoomloc.cli.screen import Screen
from zoomloc.cli.tiling import make_tiles
from zoomloc.config import TilesConfig
from zoomloc.errors import ConfigError
from zoomloc.world.pyramid import TilePyramid

BUILD = """
import sys
from pathlib import Path
from data_prep.tiles import build_tiles

if __name__ == "__main__":
    print("begun", flush=True)
    build_tiles([Path(sys.argv[1])], Path(sys.argv[2]), "town", workers=2)
"""


def files(path):
    with TilePyramid.open(path) as pyramid:
        return {cell: pyramid.encoded(cell) for z in pyramid.levels for cell in pyramid.cells(z)}


def killed_and_resumed(raster, folder, kills: int, seed: int) -> int:
    """Build again and again, killed at random instants, until it was killed so often.

    Every build ends in the end, and its tiles are those of an uninterrupted one. How many builds.
    """
    rng, script = random.Random(seed), folder / "build.py"
    script.write_text(BUILD, encoding="utf-8")
    whole = build_tiles([raster], folder / "whole", "town", workers=1)
    expected, killed, builds = files(whole.imagery), 0, 0
    while killed < kills:
        out = folder / f"build{builds}"
        command = [sys.executable, str(script), str(raster), str(out)]
        while not (out / PYRAMID_NAME).exists() or (out / SCRATCH_NAME).exists():
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                assert process.stdout.readline(), "the build has begun, after Python's start"
                time.sleep(rng.uniform(0, 2.5))
                if killed < kills and process.poll() is None:
                    process.kill()
                    killed += 1
                else:
                    process.communicate()
                    assert process.returncode == 0
        assert files(out / PYRAMID_NAME) == expected
        builds += 1
    return builds


def detailed(path, side=2600):
    """A raster that takes a few seconds."""
    return write_tif(path, ground(side, 1, coarse=side // 4), compress="deflate", tiled=True)


@pytest.mark.parametrize("other", [False, True])
def test_the_scratch_of_a_finished_job_is_cleared_and_of_another_kept(tmp_path, other):
    raster = write_tif(tmp_path / "a.tif", ground(300))
    build_tiles([raster], tmp_path, "town", workers=1)
    with TilePyramid.open(tmp_path / PYRAMID_NAME) as pyramid:
        job_hash = pyramid.metadata["job_hash"]
    TileScratch(tmp_path / SCRATCH_NAME, "another" if other else job_hash).close()
    assert not build_tiles([raster], tmp_path, "town", workers=1).built
    assert (tmp_path / SCRATCH_NAME).exists() == other


def test_three_kills_of_a_build(tmp_path):
    killed_and_resumed(detailed(tmp_path / "a.tif"), tmp_path, kills=3, seed=1)


@pytest.mark.soak
def test_fifty_kills_of_builds(tmp_path):
    raster = detailed(tmp_path / "a.tif", 5000)
    builds = killed_and_resumed(raster, tmp_path, kills=50, seed=2)
    sys.stderr.write(f"\n50 kills and as many resumes over {builds} builds: identical tiles\n")


def test_a_dask_cluster_of_two_makes_the_same_tiles(tmp_path):
    from distributed import LocalCluster

    raster = write_tif(tmp_path / "a.tif", ground(3000, coarse=300))
    alone = build_tiles([raster], tmp_path / "alone", "town", workers=1)
    options = {"dashboard_address": None, "memory_limit": 0, "silence_logs": 50}
    with LocalCluster(n_workers=2, threads_per_worker=1, **options) as cluster:
        make_tiles(
            TilesConfig(),
            [raster],
            tmp_path / "cluster",
            "town",
            1,
            Screen(quiet=True),
            scheduler=cluster.scheduler_address,
        )
    assert files(tmp_path / "cluster" / PYRAMID_NAME) == files(alone.imagery)


def test_a_scheduler_that_is_not_there_is_told(tmp_path):
    raster = write_tif(tmp_path / "a.tif", np.zeros((3, 50, 50), np.uint8) + 9)
    with pytest.raises(ConfigError, match="no Dask scheduler answers there"):
        make_tiles(
            TilesConfig(),
            [raster],
            tmp_path,
            "a",
            1,
            Screen(quiet=True),
            scheduler="tcp://127.0.0.1:9",
        )
