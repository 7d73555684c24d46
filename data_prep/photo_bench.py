"""How fast a large table becomes photos.parquet, and how much memory that takes.

Knows nothing of accuracy. The table names the same few real pictures again and again, each row
at a place and a time of its own; it is read in a fresh process, whose peak is measured.
"""

import csv
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.photos.sources import read_sources
from zoomloc.config.photos import PhotosConfig, TablePhotos
from zoomloc.world.processes import worker_pool

PICTURES = 16
DRIVE = 200  # photos


@dataclass(frozen=True)
class PhotoSpeed:
    """What one reading took."""

    rows: int
    seconds: float
    peak_mb: float  # of the process, Python and libraries included

    def line(self) -> str:
        """In words."""
        return (
            f"{self.rows:,} rows of a CSV: {self.seconds:.0f} s, "
            f"{self.rows / self.seconds:,.0f} rows a second, at most {self.peak_mb:,.0f} MB"
        )


def measure(rows: int) -> PhotoSpeed:
    """Read a table of so many rows in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_table(folder, rows)
        with worker_pool(1) as pool:
            return pool.submit(_read, folder, rows).result()


def _write_table(folder: Path, rows: int) -> None:
    """``photos.csv`` and the pictures that it names."""
    rng = np.random.default_rng(0)
    for i in range(PICTURES):
        picture = rng.integers(0, 256, (8, 16, 3), np.uint8)
        Image.fromarray(picture).save(folder / f"{i}.jpg")
    with (folder / "photos.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "file", "lat", "lng", "heading", "fov", "sequence", "captured_at"])
        for i in range(rows):
            drive, at = divmod(i, DRIVE)
            lat, lng = 47 + drive % 1000 * 1e-4, 8 + drive // 1000 * 1e-4 + at * 1e-6
            when = f"2024-05-{1 + drive % 28:02d}T12:{at // 60:02d}:{at % 60:02d}Z"
            writer.writerow([i, f"{i % PICTURES}.jpg", lat, lng, i % 360, 70, drive, when])


def _read(folder: Path, rows: int) -> PhotoSpeed:
    source = TablePhotos(kind="table", path=folder / "photos.csv")
    began = time.perf_counter()
    summary = read_sources(PhotosConfig(sources=(source,)), folder / "out")
    seconds = time.perf_counter() - began
    assert summary.photos == rows, summary.skipped
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return PhotoSpeed(rows, seconds, peak_mb)
