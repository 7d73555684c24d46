"""The most memory that making tiles of a sparse raster holds.

Knows nothing of how tiles are made: a build is a command, watched with all its children.
"""

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.bench import build_command
from data_prep.bench_rasters import write_sparse
from data_prep.tiles import PYRAMID_NAME
from zoomloc.world.pyramid import TilePyramid


@dataclass(frozen=True)
class Memory:
    """What a build on a sparse raster held at most."""

    side_px: int
    parts: int
    tiles: int
    peak_mb: float  # resident, summed over all processes: shared pages count for each
    largest_mb: float  # of one process
    wall_s: float


def sparse_memory(work: Path, side_px: int = 100_000, parts: int = 9) -> Memory:
    """The most memory that a build with two workers holds on a sparse raster."""
    raster, out = write_sparse(work, side_px, parts), work / "out"
    begun = time.perf_counter()
    peak, largest = peak_bytes(build_command(raster, out, "webp", 2))
    wall_s = time.perf_counter() - begun
    with TilePyramid.open(out / PYRAMID_NAME) as pyramid:
        tiles = sum(len(pyramid.cells(level)) for level in pyramid.levels)
    return Memory(side_px, parts, tiles, peak / 1e6, largest / 1e6, wall_s)


def peak_bytes(command: Sequence[str]) -> tuple[int, int]:
    """Resident memory at its highest, looked at every 10 ms: of a tree of processes, of one."""
    import psutil  # type: ignore[import-untyped]

    peak = largest = 0
    with subprocess.Popen(command) as process:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            held = [0]
            try:
                held += [one.memory_info().rss for one in (root, *root.children(recursive=True))]
            except psutil.NoSuchProcess:
                continue  # it ended meanwhile
            peak, largest = max(peak, sum(held)), max(largest, *held)
            time.sleep(0.01)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(command))
    return peak, largest
