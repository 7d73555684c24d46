"""Matrix sets of a WMTS (OGC 07-057r7, 6): levels of tiles as grids.

Knows nothing of layers or addresses. Servers differ on corners and on names of a CRS; what can
only be meant in one way is taken so, anything else is refused.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from data_prep.imagery.grids import TileGrid
from zoomloc.errors import ImageryError
from zoomloc.world.cells import EQUATOR_M

PIXEL_M = 0.28e-3  # the standard's pixel, by which a scale denominator becomes metres
DEGREE_M = 111_319.49079327358  # the standard's degree: of the equator of WGS 84
FINEST_M = 1e-3  # no imagery has smaller pixels; a level that says so is a slip or a trap
ABOUT = 0.002  # degrees of the sphere and of the mile are as much shorter than the standard's
ON_GROUND = 0.01  # of a grid's area, at least, lies where its CRS may be used
WEB_MERCATOR = ("3857", "900913", "3785", "102100", "102113")


@dataclass(frozen=True)
class Matrix:
    """One level of a matrix set, and the rectangle of tiles that a layer has of it."""

    name: str
    grid: TileGrid
    limits: tuple[int, int, int, int] | None  # first and last column, first and last row


def text_of(node: Element, name: str) -> str:
    """The text of a child, whatever its namespace; empty where there is none."""
    return (node.findtext(f"{{*}}{name}") or "").strip()


@dataclass(frozen=True)
class _Frame:
    """What the levels of a set share: a CRS."""

    crs: str  # in the order east, north
    degrees: bool
    unit_m: float  # metres, of the standard's degree where in degrees
    north_first: bool  # corners are to be written so
    world: BaseGeometry | None  # where the CRS may be used, east first; None: it does not say

    @classmethod
    def of(cls, crs: CRS) -> "_Frame":
        """Of the CRS as a document means it."""
        axes = crs.axis_info[:2]
        unit_m = DEGREE_M if crs.is_geographic else float(axes[0].unit_conversion_factor)
        # both axes of a polar CRS point north or south
        north_first = [axis.direction.lower() for axis in axes] == ["north", "east"]
        north_first = north_first or axes[0].name.lower().startswith("north")
        return cls(_name_of(crs), crs.is_geographic, unit_m, north_first, _world_of(crs))


def matrices_of(where: str, matrix_set: Element, link: Element) -> Iterator[Matrix]:
    """The levels of a set. Raises ImageryError for what makes no grid."""
    try:
        frame = _Frame.of(_crs_of(text_of(matrix_set, "SupportedCRS")))
        limits = {text_of(each, "TileMatrix"): each for each in link.iter() if "Limits" in each.tag}
        for node in matrix_set.findall("{*}TileMatrix"):
            matrix = text_of(node, "Identifier")
            yield Matrix(matrix, _grid(node, frame), _limits(limits.get(matrix)))
    except (CRSError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise ImageryError(
            f"{where}: matrix set {text_of(matrix_set, 'Identifier')} cannot be used "
            f"({error}); name another 'matrix_set' if there is one"
        ) from error


def _crs_of(name: str) -> CRS:
    """A CRS by the name that documents give it. Raises CRSError."""
    if is_mercator(name):
        return CRS.from_epsg(3857)
    try:
        return CRS.from_user_input(name)
    except CRSError:
        code = _code_of(name)  # urn:ogc:def:crs:EPSG:6.18:3:4326, a slip of the standard's own
        if "EPSG" not in name or not code.isdigit():
            raise
        return CRS.from_epsg(int(code))


def _code_of(crs: str) -> str:
    return re.split("[:/]", crs)[-1]


def _world_of(crs: CRS) -> BaseGeometry | None:
    """Where a CRS may be used, in its own units, east first; None where it does not say."""
    if crs.to_epsg() == 3857:
        return shapely.box(-EQUATOR_M / 2, -EQUATOR_M / 2, EQUATOR_M / 2, EQUATOR_M / 2)
    area = crs.area_of_use
    if crs.is_geographic or area is None:
        return shapely.box(-180, -90, 180, 90) if crs.is_geographic else None
    way = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    sides = way.transform_bounds(*area.bounds)
    return shapely.box(*sides) if all(map(math.isfinite, sides)) else None


def _grid(node: Element, frame: _Frame) -> TileGrid:
    """A level as a grid. Raises ValueError."""
    pixel = float(text_of(node, "ScaleDenominator")) * PIXEL_M / frame.unit_m
    wide, high, columns, rows = (
        int(text_of(node, key))
        for key in ("TileWidth", "TileHeight", "MatrixWidth", "MatrixHeight")
    )
    sound = FINEST_M / frame.unit_m < pixel < math.inf and min(columns, rows) > 0
    if not (sound and 16 <= wide <= 4096 and 16 <= high <= 4096):
        raise ValueError(f"{columns} x {rows} tiles of {wide} x {high} px at {pixel} a pixel")
    if frame.degrees:
        pixel = _as_meant(pixel, wide * columns)
    first, second = (float(v) for v in text_of(node, "TopLeftCorner").split())
    east, north = _corner(first, second, (pixel * wide * columns, pixel * high * rows), frame)
    return TileGrid(frame.crs, east, north, (pixel, pixel), (wide, high), (columns, rows))


def _as_meant(pixel: float, across: int) -> float:
    """The pixel in degrees, of so many across; where they miss the globe by a little, not at all.

    Some servers take a shorter degree than the standard, as NASA's did: 44 km off at 180 degrees.
    """
    whole = 360 / across
    return whole if 1 - ABOUT < pixel / whole < 1 else pixel


def _corner(
    first: float, second: float, reach: tuple[float, float], frame: _Frame
) -> tuple[float, float]:
    """East and north of a corner: in the order of the CRS, unless only the other one can be.

    Many servers, and examples of the standard, write latitude first for CRS84 or east first for
    EPSG:4326. Raises ValueError where neither leads to ground.
    """
    orders = [(first, second), (second, first)]
    if not (math.isfinite(first) and math.isfinite(second)):
        orders = []
    for east, north in reversed(orders) if frame.north_first else orders:
        box, world = shapely.box(east, north - reach[1], east + reach[0], north), frame.world
        if world is None or world.intersection(box).area > ON_GROUND * min(world.area, box.area):
            return east, north
    raise ValueError(f"its tiles lie off the globe, their corner being {first:g} {second:g}")


def _name_of(crs: CRS) -> str:
    """A CRS in the order east, north: as an authority's code where it has one."""
    code = crs.to_epsg()
    if crs.is_geographic and crs.to_string().upper().endswith("CRS84"):
        return "EPSG:4326"
    return f"EPSG:{code}" if code else str(crs.to_wkt())


def _limits(node: Element | None) -> tuple[int, int, int, int] | None:
    if node is None:
        return None
    names = ("MinTileCol", "MaxTileCol", "MinTileRow", "MaxTileRow")
    west, east, north, south = (int(text_of(node, name)) for name in names)
    return west, east, north, south


def is_mercator(crs: str) -> bool:
    """Whether that is a name of Web Mercator."""
    return _code_of(crs) in WEB_MERCATOR
