"""Leak tests: a map that is not pixel for pixel the one trained on must do nearly as well.

Photos and map of a synthetic town come from one model of it; were an entrant to live on pixels
that both share, a map shifted by half a pixel, coded again and in other colours would break it.
Knows nothing of how entrants work.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from zoomloc.belief.metrics import Interval, bootstrap_over_groups
from zoomloc.locator import Locator, Query
from zoomloc.world.cells import Cell
from zoomloc.world.photos import Photo
from zoomloc.world.pmtiles_writer import write_pmtiles
from zoomloc.world.pyramid import TilePyramid

SHIFT_PX = 0.5
QUALITY = 70  # of the disturbed imagery
USUAL_QUALITY = 90  # of the levels above it
GAMMA, GAINS = 1.12, (1.06, 0.97, 0.93)  # another film on another day
WITHIN_M = 50.0


@dataclass(frozen=True)
class Disturbed:
    """Recall on a run's own map and on the disturbed one, and the loss between them."""

    run: str
    own: float
    disturbed: float
    loss: Interval  # own minus disturbed, over whole drives


def disturb(source: Path, out: Path) -> Path:
    """The pyramid ``source`` again, as other imagery of the same ground would give it.

    What is disturbed is the imagery, the finest level; the levels above are made from it as
    ``zoomloc tiles`` makes them. A pyramid that is there is left as it is.
    """
    if out.is_file():
        return out
    finest = out.with_suffix(".finest.pmtiles")
    with TilePyramid.open(source) as pyramid:
        about = dict(pyramid.metadata), "webp", pyramid.tile_px
        write_pmtiles(finest, _finest(pyramid), *about)
        with TilePyramid.open(finest) as disturbed:
            write_pmtiles(out, _whole(pyramid, disturbed), *about)
    finest.unlink()
    return out


def _finest(pyramid: TilePyramid) -> Iterator[tuple[Cell, bytes]]:
    """The finest tiles: shifted on both axes, recoloured, coded with loss."""
    shift = SHIFT_PX / pyramid.tile_px
    for cell, alpha in _tiles(pyramid, pyramid.max_level):
        picture = pyramid.window(cell.level, cell.x + shift, cell.y + shift, 1.0, pyramid.tile_px)
        coloured = 255 * (picture / 255.0) ** GAMMA * np.array(GAINS)
        yield cell, _coded(coloured.clip(0, 255).astype(np.uint8), alpha, QUALITY)


def _whole(pyramid: TilePyramid, disturbed: TilePyramid) -> Iterator[tuple[Cell, bytes]]:
    """All levels of a pyramid, drawn anew from the disturbed finest one."""
    for level in range(pyramid.min_level, pyramid.max_level):
        for cell, alpha in _tiles(pyramid, level):
            picture = disturbed.window(level, cell.x, cell.y, 1.0, pyramid.tile_px)
            yield cell, _coded(picture, alpha, USUAL_QUALITY)
    for cell in disturbed.cells(pyramid.max_level):
        data = disturbed.encoded(cell)
        if data is not None:
            yield cell, data


def _tiles(pyramid: TilePyramid, level: int) -> Iterator[tuple[Cell, np.ndarray]]:
    """The stored tiles of a level, and where they have imagery."""
    for cell in pyramid.cells(level):
        whole = pyramid.tile(cell)
        if whole is not None:
            yield cell, whole[..., 3]


def _coded(picture: np.ndarray, alpha: np.ndarray, quality: int) -> bytes:
    target = io.BytesIO()
    Image.fromarray(np.dstack([picture, alpha])).save(target, "webp", quality=quality)
    return target.getvalue()


def compare(run: Path, place: Path, photos: Sequence[Photo], disturbed: Path) -> Disturbed:
    """The same photos on both maps."""
    hits = [_hits(run, place, photos, imagery) for imagery in (None, disturbed)]
    drives = [photo.sequence_id for photo in photos]
    loss = bootstrap_over_groups(hits[0] - hits[1], drives, "mean", seed=0)
    return Disturbed(run.name, float(hits[0].mean()), float(hits[1].mean()), loss)


def _hits(run: Path, place: Path, photos: Sequence[Photo], imagery: Path | None) -> np.ndarray:
    """(n,) 1 where the answer is within 50 m of the truth."""
    locator = Locator.load(run, place, imagery, anywhere=True)
    answers = locator.answers([Query.of(photo) for photo in photos], hash_photos=False)
    return np.array([float((a.error_m or 0.0) <= WITHIN_M) for a in answers])


def markdown(found: Sequence[Disturbed], photos: int) -> str:
    """What came out, for docs."""
    lines = [
        "| run | own map | disturbed map | loss, points |",
        "|---|---|---|---|",
        *(
            f"| {d.run} | {d.own:.1%} | {d.disturbed:.1%} | "
            f"{100 * d.loss.value:+.1f} [{100 * d.loss.lo:+.1f}, {100 * d.loss.hi:+.1f}] |"
            for d in found
        ),
        "",
        f"R@1 within {WITHIN_M:.0f} m of {photos} test photos; the imagery shifted by {SHIFT_PX} "
        f"px on both axes, gamma {GAMMA}, gains {GAINS}, WebP at quality {QUALITY}, and tiled "
        "anew. Intervals: 95 %, paired, over drives.",
        "",
    ]
    return "\n".join(lines)
