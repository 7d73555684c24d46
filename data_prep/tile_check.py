"""Looking through a finished pyramid: tiles that are missing, damaged or blank, ground uncovered.

Knows nothing of how it was made. A tile is missing where the level above shows imagery in its
quarter and it is not there; blank where all its pixels are alike.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.tiles import PYRAMID_NAME, REGION_NAME
from zoomloc.errors import ImageryError
from zoomloc.world.cells import Cell
from zoomloc.world.coverage import Coverage
from zoomloc.world.pyramid import Picture, TilePyramid
from zoomloc.world.region import Region

NAMED = 5  # tiles of each kind that a line names
SHOWN = 8  # pixels along a quarter's side that must hold imagery before its tile is missed
ALIKE = 2  # values by which pixels of a blank tile may differ

Progress = Callable[[int, int], None]


@dataclass
class LevelReport:
    """What was found on one level."""

    level: int
    tiles: int = 0
    damaged: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    blank: list[str] = field(default_factory=list)

    def line(self) -> str:
        """In words."""
        found = [f"level {self.level}: {self.tiles:,} tiles"]
        for kind in ("damaged", "missing", "blank"):
            names = getattr(self, kind)
            if names:
                more = ", ..." if len(names) > NAMED else ""
                found.append(f"{len(names):,} {kind} ({', '.join(names[:NAMED])}{more})")
        return "; ".join(found)


@dataclass
class PyramidReport:
    """What was found in a region's folder."""

    folder: Path
    levels: list[LevelReport]
    covered: float  # share of the region's terminal cells with imagery

    @property
    def whole(self) -> bool:
        """Nothing missing, nothing damaged."""
        return not any(level.damaged or level.missing for level in self.levels)

    def lines(self) -> list[str]:
        """In words, one line a level."""
        end = "whole" if self.whole else "not whole: build it again with 'zoomloc tiles'"
        return [
            *(level.line() for level in self.levels),
            f"{self.covered:.1%} of the region's terminal cells hold imagery",
            f"{self.folder / PYRAMID_NAME}: {end}",
        ]

    def to_json(self) -> dict[str, Any]:
        """As plain types."""
        return {
            "covered": self.covered,
            "whole": self.whole,
            "levels": [vars(level) for level in self.levels],
        }


def check_pyramid(folder: Path, progress: Progress | None = None) -> PyramidReport:
    """Look at every tile of ``folder/imagery.pmtiles``. Raises ImageryError, RegionError."""
    region = Region.load(folder / REGION_NAME)
    with TilePyramid.open(folder / PYRAMID_NAME) as pyramid:
        cells = {level: pyramid.cells(level) for level in pyramid.levels}
        total, done = sum(map(len, cells.values())), 0
        reports = []
        wanted: set[Cell] = set()
        for level in pyramid.levels:
            report = LevelReport(level, len(cells[level]))
            gone = sorted(wanted - set(cells[level])) if level > pyramid.min_level else []
            report.missing = [_name(cell) for cell in gone]
            wanted = set()
            for cell in cells[level]:
                wanted.update(_looked_at(pyramid, cell, report, level < pyramid.max_level))
                done += 1
                if progress is not None:
                    progress(done, total)
            reports.append(report)
        held = Coverage.of(region, pyramid).leaves
        covered = float(held.sum() / Coverage.full(region).leaves.sum())
    return PyramidReport(folder, reports, covered)


def _looked_at(pyramid: TilePyramid, cell: Cell, report: LevelReport, above: bool) -> list[Cell]:
    """Note what is wrong with a tile; the tiles below that must be there, where there are any."""
    try:
        tile = pyramid.tile(cell)
    except ImageryError:
        tile = None
    if tile is None:
        report.damaged.append(_name(cell))
        return []
    if _is_blank(tile):
        report.blank.append(_name(cell))
    if not above:
        return []
    half = len(tile) // 2
    return [
        child
        for child in cell.descendants(1)
        if _shows(tile[..., 3], *divmod(child.choice(1), 2), half)
    ]


def _shows(alpha: Any, row: int, column: int, half: int) -> bool:
    """Whether a quarter of a tile holds more imagery than its edge may have from a neighbour."""
    part = alpha[row * half : (row + 1) * half, column * half : (column + 1) * half]
    return int((part > 127).sum()) >= SHOWN**2


def _is_blank(tile: Picture) -> bool:
    """Nothing on it, or one colour."""
    if not tile[..., 3].any():
        return True
    colours = tile[..., :3].reshape(-1, 3).astype(np.int16)
    return bool((np.ptp(colours, axis=0) <= ALIKE).all())


def _name(cell: Cell) -> str:
    return f"{cell.level}/{cell.x}/{cell.y}"
