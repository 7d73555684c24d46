"""What the map draws, as plain data: outlines, cells, circles and lines in degrees.

Knows nothing of Folium, HTML or pictures. Longitudes run on across the antimeridian (they may
leave ±180), so that what is one piece on the ground is one piece on the map.
"""

import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from zoomloc.belief.priors import CONTRADICTED
from zoomloc.errors import RegionError
from zoomloc.world.answers import Answer
from zoomloc.world.cells import Cell, LatLng, cell_of_quadkey, latlng_of, xy_of
from zoomloc.world.region import Region
from zoomloc.world.wording import called, given, is_guess, metres, others, percent, sure, warnings

Corners = list[list[float]]  # [[south, west], [north, east]], as Leaflet takes them

BELIEF_DECADES = 3  # belief fades out a thousandfold below its peak
_OUTLINE_DETAIL = 1 / 1000  # of a root's side: less is not seen where the whole region is
_DECIMALS = 7  # of a degree: a centimetre
_NUMBERS = (  # of an answer, as they are
    "probability",
    "radius50_m",
    "radius90_m",
    "bearing_deg",
    "bearing_spread_deg",
    "error_m",
)


class Square(NamedTuple):
    """A box on the plane: north-west corner and sides in (fractional) cells of ``level``."""

    level: int
    x: float
    y: float
    width: float
    height: float


class Ground:
    """The plane on which one region is drawn: its longitudes, and the box around its roots."""

    def __init__(self, region: Region) -> None:
        self.region = region

    @cached_property
    def middle_lng(self) -> float:
        """Longitude of the rectangle's middle; all that is drawn lies within 180 of it."""
        columns = self.region.root_shape[1]
        x = np.array([self.region.origin[0] + columns / 2])
        return float(latlng_of(x, np.zeros(1), self.region.root_level)[1][0])

    def lng(self, lng: float) -> float:
        """The longitude, moved by whole turns to within 180 degrees of the middle."""
        return lng + 360.0 * round((self.middle_lng - lng) / 360.0)

    def place(self, place: LatLng) -> list[float]:
        """[lat, lng] to draw at."""
        return [round(place.lat, _DECIMALS), round(self.lng(place.lng), _DECIMALS)]

    def box(self, square: Square) -> Corners:
        """The box of a square."""
        level, x, y, width, height = square
        lat, lng = latlng_of(np.full(2, x + width / 2), np.array([y + height, y]), level)
        middle, half = self.lng(float(lng[0])), width * 180.0 / (1 << level)
        return [
            [round(float(lat[0]), _DECIMALS), round(middle - half, _DECIMALS)],
            [round(float(lat[1]), _DECIMALS), round(middle + half, _DECIMALS)],
        ]

    def cell(self, cell: Cell) -> Corners:
        """The box of a cell of any level."""
        return self.box(Square(*cell, 1, 1))

    @cached_property
    def outline(self) -> list[list[list[float]]]:
        """Rings of the region's polygon; those of its roots where it has none."""
        shape = self.region.shape()
        if shape is not None:
            shape = shape.simplify(360.0 / (1 << self.region.root_level) * _OUTLINE_DETAIL)
        parts = getattr(shape, "geoms", [shape])
        rings = [part.exterior for part in parts if hasattr(part, "exterior")]
        if not rings:
            return [_ring(self.cell(root)) for root in self.region.roots]
        return [[self.place(LatLng(lat, lng)) for lng, lat, *_ in ring.coords] for ring in rings]

    @cached_property
    def extent(self) -> Square:
        """The part of the rectangle around the roots that the outline fills, at root level."""
        (column, row), (rows, columns) = self.region.origin, self.region.root_shape
        points = np.array([point for ring in self.outline for point in ring])
        x, y = xy_of(points[:, 0], points[:, 1], self.region.root_level)
        x = x + (1 << self.region.root_level) * np.round(
            (column + columns / 2 - x) / (1 << self.region.root_level)
        )
        west, east = max(x.min(), column), min(x.max(), column + columns)
        north, south = max(y.min(), row), min(y.max(), row + rows)
        if not (west < east and north < south):  # the polygon lies elsewhere: show all
            return Square(self.region.root_level, column, row, columns, rows)
        return Square(
            self.region.root_level,
            float(west),
            float(north),
            float(east - west),
            float(south - north),
        )


def path_cells(answer: Answer, region: Region) -> list[Cell]:
    """Cells of the answer's zoom path.

    Raises RegionError where it starts at none of the region's roots: made for another region.
    """
    cells = [cell_of_quadkey(quadkey) for quadkey in answer.path]
    if not cells or cells[0] not in region.roots:
        start = answer.path[0] if answer.path else "nothing"
        raise RegionError(
            f"answer of {answer.photo!r}: its path starts at {start}, no root of "
            f"region {region.name!r}; take the region that it was located in"
        )
    return cells


def answer_data(answer: Answer, ground: Ground) -> dict[str, Any]:
    """All that the page says and draws of one answer, as JSON. Raises RegionError."""
    place = LatLng(answer.lat, answer.lng)
    belief = _belief(answer)
    return {
        "photo": answer.photo,
        "place": ground.place(place),
        "text": _text(place),
        "truth": ground.place(answer.truth) if answer.truth else None,
        "truth_text": _text(answer.truth) if answer.truth else None,
        **{name: _finite(getattr(answer, name)) for name in _NUMBERS},
        "unknown": bool(answer.unknown),
        "not_here": bool(answer.not_here),
        "words": _words(answer),
        "path": _path(answer, ground),
        "candidates": _candidates(answer, ground),
        "alternatives": _alternatives(answer, ground),
        "posterior": [
            [*ground.cell(cell), percent(mass), float(f"{mass:.4g}"), float(f"{density:.4g}")]
            for cell, mass, density in belief
        ],
        "hidden_mass": max(0.0, 1.0 - sum(mass for _, mass, _ in belief)),
        "made_by": [[str(key), str(value)] for key, value in answer.made_by.items()],
        "thumbnail": None,
        "finer": [],
    }


def _path(answer: Answer, ground: Ground) -> list[dict[str, Any]]:
    """Cells from the root to the terminal cell."""
    return [
        {
            "quadkey": cell.quadkey,
            "size_m": round(cell.size_m, 2),
            "size": metres(cell.size_m),
            "bounds": ground.cell(cell),
        }
        for cell in path_cells(answer, ground.region)
    ]


def _alternatives(answer: Answer, ground: Ground) -> list[dict[str, Any]]:
    """Other places, the likeliest first."""
    return [
        {
            "number": other.number,
            "place": ground.place(other.place),
            "text": _text(other.place),
            "words": other.words,
        }
        for other in others(answer)
    ]


def _words(answer: Answer) -> dict[str, Any]:
    """What the page says of an answer; it puts nothing about probability into words itself."""
    return {
        "called": called(answer),
        "is_guess": is_guess(answer),
        "warnings": warnings(answer, CONTRADICTED),
        "sure": sure(answer),
        "probability": percent(answer.probability),
        "radius50": metres(answer.radius50_m),
        "radius90": metres(answer.radius90_m),
        "off": metres(answer.error_m),
        "given": given(answer),
    }


def keep_heaviest(data: dict[str, Any], cells: int) -> None:
    """Keep the heaviest posterior cells of an answer's data, and count the rest as not drawn."""
    dropped = data["posterior"][cells:]
    del data["posterior"][cells:]
    data["hidden_mass"] += sum(row[3] for row in dropped)
    data["words"]["hidden"] = percent(data["hidden_mass"])


def _candidates(answer: Answer, ground: Ground) -> list[dict[str, Any]]:
    """Kept hypotheses, likeliest first."""
    placed = [c for c in answer.candidates if math.isfinite(c.lat) and math.isfinite(c.lng)]
    ranked = sorted(placed, key=lambda candidate: -candidate.probability)
    return [
        {
            "quadkey": candidate.quadkey,
            "probability": _finite(candidate.probability),
            "words": percent(candidate.probability),
            "place": ground.place(LatLng(candidate.lat, candidate.lng)),
        }
        for candidate in ranked
    ]


def _belief(answer: Answer) -> list[tuple[Cell, float, float]]:
    """Posterior cells with mass and density, heaviest first, dense enough to be seen.

    The density is the mass by area, as a share of the densest cell's.
    """
    cells = [(cell_of_quadkey(quadkey), mass) for quadkey, mass in answer.posterior if mass > 0]
    densities = [mass * 4.0**cell.level for cell, mass in cells]
    peak = max(densities, default=1.0)
    found = [
        (cell, mass, density / peak)
        for (cell, mass), density in zip(cells, densities, strict=True)
        if density > peak / 10**BELIEF_DECADES
    ]
    return sorted(found, key=lambda item: -item[1])


def _ring(corners: Corners) -> list[list[float]]:
    """The four corners of a box, in order."""
    (south, west), (north, east) = corners
    return [[south, west], [north, west], [north, east], [south, east]]


def _text(place: LatLng) -> str:
    """What a person copies: degrees within ±180, six decimals (11 cm)."""
    return f"{place.lat:.6f}, {(place.lng + 180.0) % 360.0 - 180.0:.6f}"


def _finite(number: float | None) -> float | None:
    """The number, or None where it is none or not finite (JSON knows no NaN)."""
    return float(number) if number is not None and math.isfinite(number) else None
