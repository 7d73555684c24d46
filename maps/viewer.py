"""The map of where photos were taken: one HTML file, made by Folium, that opens offline.

Knows nothing of models or of how an answer was found. All assets are inlined, no text of the data
reaches the page as markup or as a template, and a content security policy forbids every request.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maps.assets import assets, safe_json
from maps.layers import (
    BELIEF_DECADES,
    Ground,
    answer_data,
    keep_heaviest,
    path_cells,
)
from maps.pictures import Budget, add_finer_views, add_thumbnails, base_picture, check_imagery
from zoomloc.errors import OutputError, ZoomlocError
from zoomloc.world.answers import Answer
from zoomloc.world.files import write_text
from zoomloc.world.pyramid import TilePyramid
from zoomloc.world.region import Region

_KEEP_CELLS = (256, 96, 32, 8, 0)  # posterior cells drawn of each answer: the first that fits
_FRAME_BYTES = 30_000  # what Folium writes, the region's outline and attribution
_DATA_SHARE = 0.6  # of the budget, for everything but pictures


def write_map(
    answers: Sequence[Answer],
    region: Region,
    pyramid: TilePyramid,
    out: Path,
    photos: Mapping[str, Path] | None = None,
    max_mb: float = 8,
) -> None:
    """Write one HTML file that shows the answers on the region's own imagery, atomically.

    ``photos``: answer.photo -> picture file, shown as a thumbnail; one that cannot be read is left
    out. ``max_mb`` (10**6 bytes) bounds the file: pictures become fewer and smaller until they fit.
    Raises ZoomlocError where there is nothing to show or no room for it, ImageryError and
    RegionError where answers, region and imagery do not belong together, OutputError where ``out``
    cannot be written.
    """
    if not answers:
        raise ZoomlocError(f"no map written to {out}: there are no answers; locate a photo first")
    check_imagery(region, pyramid)
    if out.is_dir():
        raise OutputError(f"cannot write {out}: it is a folder; name a file in it")
    ground = Ground(region)
    budget = Budget(max_mb * 1e6 - sum(map(len, assets().values())) - _FRAME_BYTES)
    rows = _rows(answers, ground, budget, max_mb)
    square, imagery, pixel = base_picture(ground, pyramid, budget)
    if budget.left < 0:
        raise _too_small(len(answers), max_mb)
    add_thumbnails(rows, photos or {}, budget)
    paths = [path_cells(answer, region) for answer in answers]
    finer = add_finer_views(rows, paths, ground, pyramid, pixel, budget)
    data = {
        "region": region.name,
        "attribution": list(region.attribution),
        "licence": region.licence,
        "belief_decades": BELIEF_DECADES,
        "bounds": ground.box(ground.extent),
        "outline": ground.outline,
        "deepest": max(map(len, paths)),
        "answers": rows,
        "finer": finer,
    }
    from maps.page import html_page  # imports Folium, which takes half a second

    write_text(out, html_page(data, imagery, ground.box(square)))


def _rows(
    answers: Sequence[Answer], ground: Ground, budget: Budget, max_mb: float
) -> list[dict[str, Any]]:
    """What the page knows of each answer, with as many posterior cells as there is room for."""
    rows = [answer_data(answer, ground) for answer in answers]
    for keep in _KEEP_CELLS:
        for row in rows:
            keep_heaviest(row, keep)
        if budget.take(safe_json(rows), _DATA_SHARE):
            return rows
    raise _too_small(len(answers), max_mb)


def _too_small(answers: int, max_mb: float) -> ZoomlocError:
    return ZoomlocError(
        f"a map of {answers} answers does not fit into {max_mb:g} MB; "
        "raise max_mb or show fewer answers"
    )
