"""Worlds that several test files share, each built once a test session."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoomloc.cli import main
from zoomloc.config import Config, load_config
from zoomloc.world.photos import Photo, write_photos


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real imagery and photos; tests that need it skip where it is absent."""
    folder = os.environ.get("ZOOMLOC_REAL_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("ZOOMLOC_REAL_DATA does not name a folder of real data")
    return Path(folder)


def built_once(tmp_path_factory, name: str, build: Callable[[Path], None]) -> Path:
    """A folder that one worker builds and all workers use."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder, done = shared / name, shared / f"{name}.done"
    try:
        folder.mkdir()
    except FileExistsError:
        for _ in range(1200):
            if done.exists():
                return folder
            time.sleep(0.1)
        pytest.fail(f"{name} was not built within two minutes")
    build(folder)
    done.touch()
    return folder


@pytest.fixture(scope="session")
def painted(tmp_path_factory) -> Path:
    """A region of 300 m whose photos show the ground round the place they were taken.

    No town and no camera: the smallest world in which a model can learn where it is.
    Holds imagery.pmtiles, region.json and photos.parquet (train, val and test drives).
    """
    return built_once(tmp_path_factory, "painted", _paint)


SIDE_M = 300
PHOTOS_A_DRIVE = 60
CORNER = (400_000.0, 5_000_000.0)  # UTM 32N, about 45.15 N 7.73 E


def _paint(folder: Path) -> None:
    import rasterio
    from rasterio.transform import from_origin

    from data_prep.tiles import build_tiles

    rng = np.random.default_rng(5)
    coarse = rng.uniform(20, 235, (15, 15, 3)).astype(np.uint8)
    ground = np.asarray(Image.fromarray(coarse).resize((SIDE_M, SIDE_M), Image.Resampling.BICUBIC))
    profile = {
        "driver": "GTiff",
        "width": SIDE_M,
        "height": SIDE_M,
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:32632",
        "transform": from_origin(*CORNER, 1.0, 1.0),
    }
    with rasterio.open(folder / "ortho.tif", "w", **profile) as raster:
        raster.write(np.moveaxis(ground, -1, 0))
    build_tiles(
        [folder / "ortho.tif"],
        folder,
        "painted",
        terminal_cell_m=16.0,
        workers=1,
        attribution=["Painted by a test"],
        licence="CC0-1.0",
    )
    photos = [photo for drive in range(10) for photo in _drive(folder, ground, drive, rng)]
    write_photos(photos, folder / "photos.parquet", "sequence-disjoint")


def _drive(folder: Path, ground: np.ndarray, drive: int, rng: np.random.Generator) -> list[Photo]:
    from pyproj import Transformer

    to_degrees = Transformer.from_crs("EPSG:32632", "EPSG:4326", always_xy=True)
    split = {8: "val", 9: "test"}.get(drive, "train")
    photos = []
    (folder / "photos" / f"d{drive}").mkdir(parents=True)
    for i in range(PHOTOS_A_DRIVE):
        x, y = rng.uniform(25, SIDE_M - 25, 2)
        lng, lat = to_degrees.transform(CORNER[0] + x, CORNER[1] - y)
        around = ground[int(y) - 12 : int(y) + 12, int(x) - 24 : int(x) + 24]
        seen = around + rng.normal(0, 6, around.shape)
        path = folder / "photos" / f"d{drive}" / f"{i:03d}.jpg"
        Image.fromarray(seen.clip(0, 255).astype(np.uint8)).save(path, quality=92)
        photos.append(
            Photo(
                id=f"d{drive}/{i:03d}.jpg",
                path=path,
                lat=lat,
                lng=lng,
                bearing_deg=None,
                fov_deg=None,
                projection="perspective",
                captured_at=datetime(2024, 5, 1 + drive, tzinfo=UTC) + timedelta(seconds=i),
                sequence_id=f"d{drive}",
                source="folder",
                licence="CC0-1.0",
                creator="a test",
                position_error_m=3.0,
                split=split,
                true_lat=lat,
                true_lng=lng,
            )
        )
    return photos


@pytest.fixture(scope="session")
def small_config(painted) -> Config:
    """A model and a schedule small enough for a test."""
    return load_config(
        [],
        [
            f"data={painted}",
            "name=painted",
            "model.photo_px=[48,24]",
            "model.view_px=32",
            "model.photo_encoder.channels=[8,8,16]",
            "model.view_encoder.channels=[8,8,16]",
            "model.width=32",
            "model.layers=2",
            "model.heads=2",
            "model.photo_tokens=2",
            "train.batch=16",
            "train.steps=12",
            "train.val_every_steps=6",
            "train.val_photos=20",
            "train.threads=1",
            "train.lr=0.003",
        ],
    )


@pytest.fixture(scope="session")
def matched(small_config, tmp_path_factory) -> Path:
    """A match trained for a moment on the painted region, not calibrated; only to be copied."""

    def build(folder: Path) -> None:
        from test_match_scorer import match_config

        from zoomloc.training.loop import train

        train(match_config(small_config, steps=12, batch=16), folder)

    return built_once(tmp_path_factory, "matched", build)


@pytest.fixture(scope="session")
def calibrated(matched, tmp_path_factory) -> Path:
    """The same match, calibrated; only to be copied."""

    def build(folder: Path) -> None:
        from zoomloc.cli.calibrating import calibrate_run
        from zoomloc.cli.screen import Screen

        shutil.copytree(matched, folder, dirs_exist_ok=True)
        calibrate_run(folder, Screen(quiet=True))

    return built_once(tmp_path_factory, "calibrated", build)


@pytest.fixture
def zoomloc(monkeypatch, capfd):
    """Run the command in this process: (exit code, stdout, stderr)."""

    def run(*words) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["zoomloc", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return run
