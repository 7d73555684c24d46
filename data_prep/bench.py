"""Tilers side by side: zoomloc, gdal2tiles and rio-tiler make the same tiles of the same raster.

Knows nothing of how zoomloc makes tiles: each way is a command, timed with all its children. A
peer that is not installed is a row that says so.
"""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from data_prep.imagery.rasters import inspected
from data_prep.tile_jobs import EFFORT
from data_prep.tiles import PYRAMID_NAME
from zoomloc.world.pyramid import TilePyramid

PIXEL_M = 0.2
CORNER = (400_000.0, 5_540_000.0)  # UTM 32N, 50 N: level 19 has pixels of 0.19 m there
CRS = "EPSG:32632"
PROFILE = {"count": 3, "dtype": "uint8", "photometric": "RGB", "compress": "deflate"}
PROFILE |= {"predictor": 2, "tiled": True, "blockxsize": 512, "blockysize": 512}
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


# 1. the raster


def write_raster(path: Path, side_px: int, seed: int = 0) -> Path:
    """A made-up orthophoto of 0.2 m: texture of all sizes, roofs, noise; with overviews.

    rio-tiler reads overviews for coarse tiles, as it would from a cloud-optimised GeoTIFF.
    """
    import rasterio
    from rasterio.enums import Resampling

    with rasterio.open(path, "w", **_profile(CORNER, side_px)) as raster:
        raster.write(np.moveaxis(_ground(side_px, seed), 2, 0))
    with rasterio.open(path, "r+") as raster:
        raster.build_overviews([2, 4, 8, 16], Resampling.average)
    return path


def _profile(corner: tuple[float, float], side_px: int) -> dict[str, object]:
    from rasterio.transform import from_origin

    placed = {"crs": CRS, "transform": from_origin(*corner, PIXEL_M, PIXEL_M)}
    return {"driver": "GTiff", "height": side_px, "width": side_px, **placed, **PROFILE}


def _ground(side_px: int, seed: int) -> npt.NDArray[np.uint8]:
    """(side_px, side_px, 3) that compresses about as well as aerial photos do."""
    rng = np.random.default_rng(seed)

    def layer(px: int) -> npt.NDArray[np.float32]:
        side = max(2, side_px // px)
        values = Image.fromarray(rng.normal(0, 1, (side, side)).astype(np.float32))
        return np.asarray(values.resize((side_px, side_px), Image.Resampling.BICUBIC))

    grey = np.float32(98) + 16 * layer(512) + 14 * layer(128) + 12 * layer(32) + 10 * layer(8)
    grey += 7 * layer(2)
    tint = layer(256)[..., None] * np.array([14, 4, -12], np.float32)
    colours = np.clip(grey[..., None] + tint + np.array([0, 10, -10], np.float32), 0, 255)
    picture = Image.fromarray(colours.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range((side_px // 64) ** 2 // 2):
        left, top = rng.integers(0, side_px, 2).tolist()
        width, height, tone = rng.integers((20, 20, 90), (90, 90, 200)).tolist()
        draw.rectangle((left, top, left + width, top + height), (tone, tone - 10, tone - 20))
    noise = rng.normal(0, 3, (side_px, side_px, 1)).astype(np.int16)
    return np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)


# 2. the ways


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
    run, _ = timed([_build_command(raster, out, image_format, workers)])
    with TilePyramid.open(out / PYRAMID_NAME) as pyramid:
        sizes = [len(pyramid.encoded(c) or b"") for z in pyramid.levels for c in pyramid.cells(z)]
    return Run(run.wall_s, run.cpu_s, len(sizes), sum(sizes))


def _build_command(raster: Path, out: Path, image_format: str, workers: int) -> list[str]:
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


# 3. memory


@dataclass(frozen=True)
class Memory:
    """What a build on a sparse raster held at most."""

    side_px: int
    parts: int
    tiles: int
    peak_mb: float  # resident, summed over all processes: shared pages count for each
    largest_mb: float  # of one process
    wall_s: float


def write_sparse(folder: Path, side_px: int, parts: int = 9, part_px: int = 1500) -> Path:
    """A VRT of a few small GeoTIFFs, strewn over a square that is empty otherwise."""
    import rasterio

    rng = np.random.default_rng(0)
    ground = np.moveaxis(_ground(part_px, 0), 2, 0)
    bands: list[list[str]] = [[], [], []]
    for part in range(parts):
        name = f"part{part}.tif"
        across, down = rng.integers(0, side_px - part_px, 2).tolist()
        corner = CORNER[0] + across * PIXEL_M, CORNER[1] - down * PIXEL_M
        with rasterio.open(folder / name, "w", **_profile(corner, part_px)) as raster:
            raster.write(ground)
        size = f'xSize="{part_px}" ySize="{part_px}"'
        for band, sources in enumerate(bands, 1):
            sources.append(
                f'<SimpleSource><SourceFilename relativeToVRT="1">{name}</SourceFilename>'
                f'<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" {size}/>'
                f'<DstRect xOff="{across}" yOff="{down}" {size}/></SimpleSource>'
            )
    path = folder / "sparse.vrt"
    path.write_text(_vrt(side_px, bands), encoding="utf-8")
    return path


def _vrt(side_px: int, bands: Sequence[Sequence[str]]) -> str:
    """What is strewn, with black for nodata: what lies between the parts holds nothing."""
    west, north = CORNER
    colours = zip(("Red", "Green", "Blue"), bands, strict=True)
    rows = [
        f'<VRTRasterBand dataType="Byte" band="{band}"><NoDataValue>0</NoDataValue>'
        f"<ColorInterp>{colour}</ColorInterp>{''.join(sources)}</VRTRasterBand>"
        for band, (colour, sources) in enumerate(colours, 1)
    ]
    return (
        f'<VRTDataset rasterXSize="{side_px}" rasterYSize="{side_px}"><SRS>{CRS}</SRS>'
        f"<GeoTransform>{west}, {PIXEL_M}, 0, {north}, 0, {-PIXEL_M}</GeoTransform>"
        f"{''.join(rows)}</VRTDataset>"
    )


def sparse_memory(work: Path, side_px: int = 100_000, parts: int = 9) -> Memory:
    """The most memory that a build with two workers holds on a sparse raster."""
    raster, out = write_sparse(work, side_px, parts), work / "out"
    begun = time.perf_counter()
    peak, largest = peak_bytes(_build_command(raster, out, "webp", 2))
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


# 4. what is told

NOTES = """
Each figure is the median (least – most) of runs in turn, start of the programs included. A core's
seconds are those of all processes of a way: other work on the machine costs them up to a tenth, and
the wall clock far more. zoomloc writes one PMTiles, gdal2tiles a file for each tile,
rio-tiler nothing. The deepest level is cubic, coarser ones are averages: zoomloc and gdal2tiles
make them of the tiles below, rio-tiler of the raster's overviews. gdal2tiles warps by nearest
neighbour before it scales, and its encoders cannot be told to work less: WebP by method 4, PNG at
level 6, where the others take 2 and 4."""


def tiles_markdown(tables: dict[str, list[Row]], peers: Peers, command: str) -> str:
    """What came out, for docs: a table for each image format."""
    lines = [
        f"`{command}`, {_machine()}; gdal2tiles {peers.gdal2tiles_version}; rio-tiler "
        f"{peers.rio_version}. Load of the machine over its last 5 minutes, this bench included: "
        f"{os.getloadavg()[1]:.1f}.",
        NOTES,
    ]
    for image_format, rows in tables.items():
        quality = "lossless" if image_format == "png" else f"quality {QUALITY}"
        lines += ["", f"| {image_format}, {quality} " + HEAD, "|---|---:|---:|---:|---:|---:|---:|"]
        lines += [_line(row, rows[0]) for row in rows]
        one, two = rows[:2]
        if one.runs and two.runs:
            lines += ["", _scaling(one, two)]
    return "\n".join([*lines, ""])


HEAD = "| tiles | kB a tile | tiles / s of one core | against zoomloc | CPU s | wall s |"


def _line(row: Row, used: Row) -> str:
    if row.missing or not row.runs:
        return f"| {row.way} | {row.missing} | | | | | |"
    run = row.runs[0]
    share = statistics.median(row.rates()) / statistics.median(used.rates()) if used.runs else 1.0
    return (
        f"| {row.way} | {run.tiles:,} | {run.size / run.tiles / 1e3:.1f} | {_spread(row.rates())} "
        f"| {share:.2f} | {_spread([r.cpu_s for r in row.runs])} "
        f"| {_spread([r.wall_s for r in row.runs])} |"
    )


def _spread(values: Sequence[float]) -> str:
    """Median, least and most."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} – {max(values):.1f})"


def _scaling(one: Row, two: Row) -> str:
    faster = [a.wall_s / b.wall_s for a, b in zip(one.runs, two.runs, strict=True)]
    dearer = [b.cpu_s / a.cpu_s for a, b in zip(one.runs, two.runs, strict=True)]
    return (
        f"Two processes against one: {statistics.median(faster):.2f} times as fast by the clock "
        f"({min(faster):.2f} – {max(faster):.2f}), {statistics.median(dearer):.2f} times the work."
    )


def sparse_markdown(memory: Memory, command: str) -> str:
    """What came out, for docs."""
    return (
        f"`{command}`, {_machine()}: {memory.parts} small GeoTIFFs strewn over a VRT of "
        f"{memory.side_px:,} x {memory.side_px:,} px became {memory.tiles:,} tiles in "
        f"{memory.wall_s:.0f} s; two workers and their parent held {memory.peak_mb:,.0f} MB at "
        f"most, none of them more than {memory.largest_mb:,.0f} MB (resident, pages that they "
        "share counted for each).\n"
    )


def _machine() -> str:
    import rasterio

    processor = platform.machine()
    known = Path("/proc/cpuinfo")
    if known.exists():
        named = [row for row in known.read_text().splitlines() if row.startswith("model name")]
        processor = named[0].partition(":")[2].strip() if named else processor
    return (
        f"{date.today()}, {processor}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, rasterio {rasterio.__version__} with GDAL "
        f"{rasterio.__gdal_version__}"
    )
