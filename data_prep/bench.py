"""Tilers side by side: zoomloc, gdal2tiles and rio-tiler make the same tiles of the same raster.

Knows nothing of how zoomloc makes tiles, nor of how rows are told: each way is a command, timed
with all its children. A peer that is not installed is a row that says so.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from data_prep.imagery.rasters import inspected
from data_prep.tile_jobs import EFFORT
from data_prep.tiles import PYRAMID_NAME
from zoomloc.world.pyramid import TilePyramid

QUALITY = 90
FORMATS = ("webp", "png")  # that all of them write
NOT_INSTALLED = "not installed"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "GDAL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

Told = Callable[[str], None]
Tile = tuple[int, int, int]  # level, column, row

BUILD = """
import sys
from pathlib import Path
from data_prep.tiles import build_tiles
raster, out, image_format, quality, workers = sys.argv[1:]
build_tiles([Path(raster)], Path(out), "bench", image_format=image_format, quality=int(quality),
            workers=int(workers))
"""

RIO_TILES = """
import json
import sys
from rio_tiler.io import Reader
raster, image_format, options = sys.argv[1:]
tiles = json.load(sys.stdin)
deepest = max(level for level, x, y in tiles)
options, size = json.loads(options), 0
with Reader(raster) as reader:
    for level, x, y in tiles:
        how = "cubic" if level == deepest else "average"
        tile = reader.tile(x, y, level, tilesize=256, resampling_method=how, reproject_method=how)
        size += len(tile.render(img_format=image_format.upper(), **options))
print(len(tiles), size)
"""


@dataclass(frozen=True)
class Run:
    """What commands took, all their children included."""

    wall_s: float
    cpu_s: float
    tiles: int = 0
    size: int = 0  # bytes of all tiles


@dataclass
class Row:
    """One way to make the tiles, and its runs; or why there are none."""

    way: str
    runs: list[Run] = field(default_factory=list)
    missing: str = ""

    def rates(self) -> list[float]:
        """Tiles for each second of one core, of each run."""
        return [run.tiles / run.cpu_s for run in self.runs]


@dataclass(frozen=True)
class Peers:
    """Where the other tilers are; None: not installed."""

    gdal2tiles: str | None
    gdal2tiles_version: str
    rio_python: str | None
    rio_version: str


def found_peers(rio_python: str | None) -> Peers:
    """gdal2tiles on the PATH, and rio-tiler in an interpreter (else in this one)."""
    gdal = shutil.which("gdal2tiles.py") or shutil.which("gdal2tiles")
    said = _said([gdal, "--version"]) if gdal else None
    told = "import rasterio, rio_tiler; print(rio_tiler.__version__, rasterio.__gdal_version__)"
    python = shutil.which(rio_python or sys.executable)
    rio = _said([python, "-c", told]) if python else None
    return Peers(
        gdal if said else None,
        said.split(",")[0].removeprefix("GDAL ") if said else NOT_INSTALLED,
        python if rio else None,
        "{} with GDAL {}".format(*rio.split()) if rio else NOT_INSTALLED,
    )


def _said(command: Sequence[str]) -> str | None:
    """What a command prints; None where it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() or None


# the ways


def compare_tilers(
    raster: Path, work: Path, peers: Peers, image_format: str, rounds: int, told: Told
) -> list[Row]:
    """Every way to make the tiles, the ways in turn ``rounds`` times over. Raises ImageryError."""
    inspected(raster)  # refuses what cannot be used
    first = work / "first"
    _zoomloc(raster, first, image_format, 1)  # not timed: reads the raster into the disk's cache
    with TilePyramid.open(first / PYRAMID_NAME) as pyramid:
        tiles = [(c.level, c.x, c.y) for z in pyramid.levels for c in pyramid.cells(z)]
    deepest = max(level for level, _, _ in tiles)
    below = [tile for tile in tiles if tile[0] == deepest]
    out, gdal, rio = work / "out", peers.gdal2tiles, peers.rio_python
    ways = {
        "zoomloc, 1 process": lambda: _zoomloc(raster, out, image_format, 1),
        "zoomloc, 2 processes": lambda: _zoomloc(raster, out, image_format, 2),
        "gdal2tiles, 1 process": gdal
        and partial(_gdal2tiles, gdal, raster, out, image_format, tiles),
        "rio-tiler, all levels": rio and partial(_rio_tiler, rio, raster, image_format, tiles),
        "rio-tiler, deepest level": rio and partial(_rio_tiler, rio, raster, image_format, below),
    }
    rows = [Row(name, missing="" if way else NOT_INSTALLED) for name, way in ways.items()]
    for turn in range(rounds):
        for row, way in zip(rows, ways.values(), strict=True):
            if way and not row.missing:
                _take(row, way, f"{turn + 1} of {rounds}", told)
            shutil.rmtree(out, ignore_errors=True)
    return rows


def _take(row: Row, way: Callable[[], Run], turn: str, told: Told) -> None:
    """One run of a way; a peer that fails keeps its row, with its own last words."""
    try:
        run = way()
    except subprocess.CalledProcessError as error:
        lines = str(error.stderr or error).strip().splitlines()
        row.missing, row.runs = f"failed: {lines[-1] if lines else error.returncode}", []
        told(f"{row.way}: {row.missing}")
        return
    row.runs.append(run)
    told(f"{row.way}, {turn}: {run.tiles / run.cpu_s:.1f} tiles a second of one core")


def timed(commands: Sequence[Sequence[str]], given: str = "") -> tuple[Run, str]:
    """Run commands one after the other: what they took, and what the last one printed."""
    alone, said = {**os.environ, **ONE_THREAD}, ""
    before, begun = os.times(), time.perf_counter()
    for command in commands:
        said = subprocess.run(
            command, input=given, capture_output=True, text=True, check=True, env=alone
        ).stdout
    wall_s, after = time.perf_counter() - begun, os.times()
    cpu_s = sum(after[i] - before[i] for i in (2, 3))  # of children and theirs, user and system
    return Run(wall_s, cpu_s), said


def _zoomloc(raster: Path, out: Path, image_format: str, workers: int) -> Run:
    run, _ = timed([build_command(raster, out, image_format, workers)])
    with TilePyramid.open(out / PYRAMID_NAME) as pyramid:
        sizes = [len(pyramid.encoded(c) or b"") for z in pyramid.levels for c in pyramid.cells(z)]
    return Run(run.wall_s, run.cpu_s, len(sizes), sum(sizes))


def build_command(raster: Path, out: Path, image_format: str, workers: int) -> list[str]:
    """What makes zoomloc's tiles, in a process of its own."""
    told = [str(raster), str(out), image_format, str(QUALITY), str(workers)]
    return [sys.executable, "-c", BUILD, *told]


def _gdal2tiles(
    program: str, raster: Path, out: Path, image_format: str, tiles: Sequence[Tile]
) -> Run:
    """Two calls, since one knows one resampling: cubic for the deepest level, then average."""
    first, last = min(tiles)[0], max(tiles)[0]
    same = ["-q", "--xyz", "-x", "-w", "none", "--processes=1"]
    same += [f"--tiledriver={image_format.upper()}"]
    same += [f"--webp-quality={QUALITY}"] if image_format == "webp" else []
    command, ends = [program, *same], [str(raster), str(out)]
    run, _ = timed(
        [
            [*command, "-r", "cubic", "-z", f"{last}", *ends],
            [*command, "-r", "average", "-z", f"{first}-{last}", "--resume", *ends],
        ]
    )
    made = [path.stat().st_size for path in out.glob(f"*/*/*.{image_format}")]
    return Run(run.wall_s, run.cpu_s, len(made), sum(made))


def _rio_tiler(python: str, raster: Path, image_format: str, tiles: Sequence[Tile]) -> Run:
    """Each tile read and encoded in memory, encoders told to work as hard as zoomloc's."""
    webp, png = EFFORT["webp"]["method"], EFFORT["png"]["compress_level"]
    options = {
        "webp": {"QUALITY": QUALITY, "METHOD": webp},
        "png": {"ZLEVEL": png},
    }
    command = [python, "-c", RIO_TILES, str(raster), image_format]
    run, said = timed([[*command, json.dumps(options[image_format])]], json.dumps(tiles))
    made, size = (int(word) for word in said.split())
    return Run(run.wall_s, run.cpu_s, made, size)
