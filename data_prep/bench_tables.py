"""What the bench of tilers tells, as Markdown for docs.

Knows nothing of how anything was measured.
"""

import os
import platform
import statistics
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from data_prep.bench import QUALITY, Peers, Row
from data_prep.bench_memory import Memory

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
