"""Where photos were taken: dots by split on the region's own imagery, or on plain ground.

Knows nothing of HTML, nor of how the ground is drawn.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import ImageColor

from maps.layers import Ground
from maps.photo_charts import COLOURS, split_name
from maps.pictures import Rgb
from maps.plan import FINE, Plan, around
from zoomloc.world.cells import Floats
from zoomloc.world.photos import Photo
from zoomloc.world.pyramid import TilePyramid


def coverage_map(
    photos: Sequence[Photo], ground: Ground | None, pyramid: TilePyramid | None
) -> tuple[Rgb, int]:
    """The map, and how many photos lie outside of it.

    With a region the map is of the whole region, and its imagery is the ground where there is one.
    """
    places = [photo.place for photo in photos]
    plan = Plan(around(places) if ground is None else ground.extent, ground, pyramid)
    points, inside = plan.points(places)
    _draw_dots(plan, photos, points, inside)
    return plan.finished(), int((~inside).sum())


def _draw_dots(
    plan: Plan, photos: Sequence[Photo], points: Floats, inside: npt.NDArray[np.bool_]
) -> None:
    """Train below, then val, then test; no two dots of a split on the same pixel."""
    radius = FINE * (5.0 if len(photos) < 1000 else 3.5 if len(photos) < 20_000 else 2.0)
    names = np.array([split_name(photo) for photo in photos])
    for name in ("left out", "train", "val", "test"):
        chosen = np.unique(np.round(points[inside & (names == name)]), axis=0)
        colour = ImageColor.getrgb(COLOURS[name])
        for x, y in chosen.tolist():
            box = (x - radius, y - radius, x + radius, y + radius)
            plan.pen.ellipse(box, colour, (255, 255, 255))
