"""Errors over a region: a line from each truth to its answer, coloured by how long it is.

Knows nothing of HTML or of how answers were found.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from maps.layers import Ground
from maps.pictures import Rgb
from maps.plan import FINE, Plan
from zoomloc.world.answers import Answer
from zoomloc.world.cells import Floats, LatLng, distance_m
from zoomloc.world.pyramid import TilePyramid

# (at most so far off in metres, colour, opacity of its lines): long ones lie below, and faint
CLASSES = (
    (25.0, "#0072B2", 255),
    (50.0, "#56B4E9", 255),
    (100.0, "#E69F00", 200),
    (float("inf"), "#D55E00", 100),
)
CROP_M, CROP_PX = 120.0, 176  # of the looks at single places
MARK = (255, 235, 59)
HERE = (0, 0, 0)


def class_of(error_m: float) -> int:
    """Index in CLASSES of an error."""
    return next(k for k, (most, _, _) in enumerate(CLASSES) if error_m <= most)


def class_name(k: int) -> str:
    """What a class is called in a key."""
    most, before = CLASSES[k][0], CLASSES[k - 1][0] if k else 0.0
    return f"over {before:g} m" if np.isinf(most) else f"within {most:g} m"


def error_map(
    answers: Sequence[Answer], errors_m: Floats, ground: Ground, pyramid: TilePyramid
) -> tuple[Rgb, int]:
    """The map, and how many truths lie outside of it. Each dot is a truth."""
    plan = Plan(ground.extent, ground, pyramid)
    truths, inside = plan.points([answer.truth or answer.place for answer in answers])
    places, _ = plan.points([answer.place for answer in answers])
    radius = FINE * (3.5 if len(answers) < 5_000 else 2.0)
    classes = np.array([class_of(error) for error in errors_m.tolist()])
    for k in reversed(range(len(CLASSES))):
        own = np.flatnonzero(classes == k)
        _draw_lines(plan, truths[own], places[own], k)
    for k in reversed(range(len(CLASSES))):
        for x, y in truths[(classes == k) & inside].tolist():
            box = (x - radius, y - radius, x + radius, y + radius)
            plan.pen.ellipse(box, ImageColor.getrgb(CLASSES[k][1]), (255, 255, 255))
    return plan.finished(), int((~inside).sum())


def _draw_lines(plan: Plan, truths: Floats, places: Floats, k: int) -> None:
    """Lines of one class, laid over the picture once, so that many do not hide the ground."""
    _, colour, opacity = CLASSES[k]
    mask = Image.new("L", plan.picture.size)
    pen = ImageDraw.Draw(mask)
    for here, there in zip(truths.tolist(), places.tolist(), strict=True):
        pen.line([tuple(here), tuple(there)], fill=opacity, width=FINE)
    plan.picture.paste(ImageColor.getrgb(colour), mask=mask)


def crop(place: LatLng, other: LatLng, pyramid: TilePyramid) -> Rgb:
    """The imagery round a place with a cross on it, and on the other place where that is near."""
    picture = Image.fromarray(pyramid.square(place, CROP_M, CROP_PX))
    pen = ImageDraw.Draw(picture)
    middle = CROP_PX / 2
    if distance_m(place, other) < CROP_M / 2:
        east, south = _off_m(place, other)
        scale = CROP_PX / CROP_M
        _cross(pen, middle + east * scale, middle + south * scale, (255, 255, 255))
    _cross(pen, middle, middle, MARK)
    return np.asarray(picture)


def _off_m(place: LatLng, other: LatLng) -> tuple[float, float]:
    """Metres east and south from a place to another nearby."""
    east = distance_m(place, LatLng(place.lat, other.lng))
    south = distance_m(place, LatLng(other.lat, place.lng))
    turned = (other.lng - place.lng + 180) % 360 - 180
    return float(np.copysign(east, turned)), float(np.copysign(south, place.lat - other.lat))


def _cross(pen: ImageDraw.ImageDraw, x: float, y: float, colour: tuple[int, int, int]) -> None:
    """A cross that is seen on any ground."""
    for width, fill in ((5, HERE), (2, colour)):
        pen.line([(x - 7, y), (x + 7, y)], fill=fill, width=width)
        pen.line([(x, y - 7), (x, y + 7)], fill=fill, width=width)
