"""WMTS: from a capabilities document (OGC 07-057r7) to a grid of tiles and their addresses.

Knows nothing of how servers are asked or of what becomes of tiles. The document may be hostile:
it is read by defusedxml and only for what is needed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlencode
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from pyproj import CRS
from pyproj.exceptions import CRSError
from shapely.geometry.base import BaseGeometry

from data_prep.imagery.fetched import Order, order_of
from data_prep.imagery.grids import Address, TileGrid
from data_prep.imagery.web import Manners, Web, filled
from zoomloc.config.imagery import WmtsSource
from zoomloc.errors import ConfigError, ImageryError

PIXEL_M = 0.28e-3  # the standard's pixel, by which a scale denominator becomes metres
DEGREE_M = 111_319.49079327358  # the standard's degree: of the equator of WGS 84
JPEG_FIRST = ("image/jpeg", "image/jpg", "image/webp", "image/png", "image/png8")
LARGEST = 32 << 20
WEB_MERCATOR = (3857, 900913, 3785)


@dataclass(frozen=True)
class Matrix:
    """One level of a matrix set, and the rectangle of tiles that a layer has of it."""

    name: str
    grid: TileGrid
    limits: tuple[int, int, int, int] | None  # first and last column, first and last row


@dataclass(frozen=True)
class Layer:
    """A layer as it is asked for: everything is chosen."""

    name: str
    style: str
    format: str
    matrix_set: str
    matrix: Matrix
    dimensions: tuple[tuple[str, str], ...]
    rest: str  # a template, or
    kvp: str  # the address that takes keys and values

    def address(self, at: Address, secrets: bool = True) -> str:
        """The address of a tile by column and row."""
        column, row = at
        values = {
            "TileMatrixSet": self.matrix_set,
            "TileMatrix": self.matrix.name,
            "TileRow": str(row),
            "TileCol": str(column),
            "Style": self.style,
            **dict(self.dimensions),
        }
        url = _rest(self.rest, values) if self.rest else self._kvp(values)
        return filled(url) if secrets else url

    def _kvp(self, values: dict[str, str]) -> str:
        asked = {"SERVICE": "WMTS", "REQUEST": "GetTile", "VERSION": "1.0.0", "LAYER": self.name}
        asked |= {key.upper(): value for key, value in values.items()} | {"FORMAT": self.format}
        glue = "" if self.kvp.endswith(("?", "&")) else "&" if "?" in self.kvp else "?"
        return self.kvp + glue + urlencode(asked)


def order_wmts(source: WmtsSource, ground: BaseGeometry, cache: Path) -> Order:
    """The tiles of a source that show some ground in degrees.

    Raises ImageryError for a document that cannot be used, ConfigError for a layer, matrix set or
    format that it does not have (with those that it has).
    """
    document = read_capabilities(source)
    layer = chosen(document, source)
    key = f"wmts {source.capabilities} {layer.name} {layer.matrix_set} {layer.matrix.name}"
    key += "".join(f" {name}={value}" for name, value in layer.dimensions)
    order = order_of(source, key, layer.matrix.grid, ground, cache, layer.address)
    return _limited(order, layer.matrix)


def _limited(order: Order, matrix: Matrix) -> Order:
    """Without tiles that the layer says it does not have."""
    if matrix.limits is None:
        return order
    west, east, north, south = matrix.limits
    tiles = tuple(
        (column, row)
        for column, row in order.tiles
        if west <= column <= east and north <= row <= south
    )
    if not tiles:
        raise ImageryError(f"{order.sheet.name}: its tiles do not reach the region")
    return replace(order, tiles=tiles)


def read_capabilities(source: WmtsSource) -> bytes:
    """The document behind an address or in a file. Raises ImageryError."""
    where = source.capabilities
    if not where.startswith(("http://", "https://")):
        try:
            return Path(where).read_bytes()
        except OSError as error:
            raise ImageryError(f"{where}: cannot be read ({error.strerror})") from error
    manners = Manners(source.rate_per_s, 1, source.retries, source.timeout_s, source.headers)
    with Web(manners) as web:
        found = web.get(filled(where), where, _fault)
    if found is None:
        raise ImageryError(f"{where}: there is nothing at this address")
    return found


def _fault(kind: str, body: bytes) -> str | None:
    if b"Capabilities" in body[:4096] or b"Capabilities" in body:
        return None
    return f"answers {kind or 'something unnamed'} that is no capabilities document"


def chosen(document: bytes, source: WmtsSource) -> Layer:
    """The layer that a source asks for, with defaults where it does not say.

    Raises ImageryError, ConfigError.
    """
    root = _tree(document, source.capabilities)
    layers = {_text(node, "Identifier"): node for node in root.findall("{*}Contents/{*}Layer")}
    node = layers.get(source.layer)
    if node is None:
        raise ConfigError(_no(source, "layer", source.layer, layers))
    links = {_text(link, "TileMatrixSet"): link for link in node.findall("{*}TileMatrixSetLink")}
    sets = {
        _text(each, "Identifier"): each
        for each in root.findall("{*}Contents/{*}TileMatrixSet")
        if _text(each, "Identifier") in links
    }
    name = _pick(source, "matrix_set", source.matrix_set, sets, _first_mercator)
    matrices = {m.name: m for m in _matrices(sets[name], links[name])}
    if not matrices:
        raise ImageryError(f"{source.capabilities}: matrix set {name} has no matrix")
    matrix = _pick(source, "matrix", source.matrix, matrices, _finest)
    formats = {(each.text or "").strip(): each for each in node.findall("{*}Format")}
    styles = {_text(each, "Identifier"): each for each in node.findall("{*}Style")}
    kind = _pick(source, "format", source.format, formats, _smallest)
    layer = Layer(
        name=source.layer,
        style=_pick(source, "style", source.style, styles, _default_style) if styles else "",
        format=kind,
        matrix_set=name,
        matrix=matrices[matrix],
        dimensions=tuple(_dimensions(node, source)),
        rest=_resource(node, kind),
        kvp=_kvp_address(root),
    )
    if not (layer.rest or layer.kvp):
        raise ImageryError(f"{source.capabilities}: says no address for tiles of {source.layer}")
    return layer


# 1. reading the document


def _tree(document: bytes, where: str) -> Element:
    if len(document) > LARGEST:
        raise ImageryError(f"{where}: a document of more than {LARGEST >> 20} MB")
    try:
        root: Element = fromstring(document)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise ImageryError(f"{where}: not a readable capabilities document ({error})") from error
    if not root.tag.endswith("Capabilities"):
        raise ImageryError(f"{where}: holds {root.tag!r}, not WMTS capabilities")
    return root


def _text(node: Element, name: str) -> str:
    return (node.findtext(f"{{*}}{name}") or "").strip()


def _matrices(matrix_set: Element, link: Element) -> Iterator[Matrix]:
    """The levels of a set. Raises ImageryError for what makes no grid."""
    name = _text(matrix_set, "SupportedCRS")
    try:
        crs = CRS.from_user_input(name)
        limits = {_text(each, "TileMatrix"): each for each in link.iter() if "Limits" in each.tag}
        for node in matrix_set.findall("{*}TileMatrix"):
            matrix = _text(node, "Identifier")
            yield Matrix(matrix, _grid(node, crs), _limits(limits.get(matrix)))
    except (CRSError, ValueError, ZeroDivisionError) as error:
        raise ImageryError(
            f"matrix set {_text(matrix_set, 'Identifier')}: cannot be used ({error})"
        ) from error


def _grid(node: Element, crs: CRS) -> TileGrid:
    """A level as a grid, its corner in the order east, north."""
    first, second = (float(v) for v in _text(node, "TopLeftCorner").split())
    unit_m = DEGREE_M if crs.is_geographic else float(crs.axis_info[0].unit_conversion_factor)
    pixel = float(_text(node, "ScaleDenominator")) * PIXEL_M / unit_m
    north_first = crs.axis_info[0].direction.lower() == "north"
    if crs.is_geographic and abs(first) > 90:  # servers that keep east first all the same
        north_first = False
    east, north = (second, first) if north_first else (first, second)
    wide, high, columns, rows = (
        int(_text(node, key)) for key in ("TileWidth", "TileHeight", "MatrixWidth", "MatrixHeight")
    )
    if not (pixel > 0 and 16 <= wide <= 4096 and 16 <= high <= 4096 and min(columns, rows) > 0):
        raise ValueError(f"{columns} x {rows} tiles of {wide} x {high} px at {pixel} a pixel")
    return TileGrid(_name_of(crs), east, north, (pixel, pixel), (wide, high), (columns, rows))


def _name_of(crs: CRS) -> str:
    """A CRS in the order east, north: as an authority's code where it has one."""
    code = crs.to_epsg()
    if code in WEB_MERCATOR:
        return "EPSG:3857"
    if crs.is_geographic and crs.to_string().upper().endswith("CRS84"):
        return "EPSG:4326"
    return f"EPSG:{code}" if code else str(crs.to_wkt())


def _limits(node: Element | None) -> tuple[int, int, int, int] | None:
    if node is None:
        return None
    names = ("MinTileCol", "MaxTileCol", "MinTileRow", "MaxTileRow")
    west, east, north, south = (int(_text(node, name)) for name in names)
    return west, east, north, south


def _dimensions(layer: Element, source: WmtsSource) -> Iterator[tuple[str, str]]:
    """Name and value of each dimension: the one asked for, else the default, else the last."""
    named = {key.lower(): value for key, value in source.dimensions.items()}
    for node in layer.findall("{*}Dimension"):
        name = _text(node, "Identifier")
        values = [(each.text or "").strip() for each in node.findall("{*}Value")]
        default = _text(node, "Default") or (values[-1] if values else "")
        yield name, named.get(name.lower(), default)


def _resource(layer: Element, kind: str) -> str:
    """The template for tiles of that format, if there is one."""
    for node in layer.findall("{*}ResourceURL"):
        if node.get("resourceType") == "tile" and node.get("format") in (None, kind):
            return node.get("template", "")
    return ""


def _kvp_address(root: Element) -> str:
    """Where GetTile takes keys and values, if it does."""
    for operation in root.findall("{*}OperationsMetadata/{*}Operation"):
        if operation.get("name") != "GetTile":
            continue
        for get in operation.findall("{*}DCP/{*}HTTP/{*}Get"):
            encodings = [v.text for v in get.iter() if v.tag.endswith("}Value")]
            address = get.get("{http://www.w3.org/1999/xlink}href", "")
            if address and (not encodings or "KVP" in encodings):
                return address
    return ""


# 2. choosing


def _pick(
    source: WmtsSource,
    what: str,
    asked: str,
    there: dict[str, Element] | dict[str, Matrix],
    usual: Callable[[dict[str, Element] | dict[str, Matrix]], str],
) -> str:
    """What is asked for, or what is usual. Raises ConfigError where there is no such thing."""
    if not there or (asked and asked not in there):
        raise ConfigError(_no(source, what, asked, there))
    return asked or usual(there)


def _no(
    source: WmtsSource, what: str, asked: str, there: dict[str, Element] | dict[str, Matrix]
) -> str:
    known = ", ".join(sorted(there)[:20]) or "none"
    return f"{source.capabilities}: has no {what} {asked!r}; it has {known}"


def _first_mercator(sets: dict[str, Element] | dict[str, Matrix]) -> str:
    for name, node in sets.items():
        if isinstance(node, Element) and _is_mercator(_text(node, "SupportedCRS")):
            return name
    return next(iter(sets))


def _is_mercator(crs: str) -> bool:
    return any(crs.endswith(f":{code}") for code in WEB_MERCATOR)


def _finest(matrices: dict[str, Element] | dict[str, Matrix]) -> str:
    found = [m for m in matrices.values() if isinstance(m, Matrix)]
    return min(found, key=lambda matrix: matrix.grid.pixel[0]).name


def _smallest(formats: dict[str, Element] | dict[str, Matrix]) -> str:
    return next((kind for kind in JPEG_FIRST if kind in formats), next(iter(formats)))


def _default_style(styles: dict[str, Element] | dict[str, Matrix]) -> str:
    for name, node in styles.items():
        if isinstance(node, Element) and node.get("isDefault", "").lower() in ("true", "1"):
            return name
    return next(iter(styles))


def _rest(template: str, values: dict[str, str]) -> str:
    """A template filled, whatever the case of its names."""
    lower = {key.lower(): value for key, value in values.items()}
    parts = template.split("{")
    found = parts[0]
    for part in parts[1:]:
        name, _, rest = part.partition("}")
        kept = f"{{{name}}}" if found.endswith("$") else name  # ${NAME} is a secret's place
        found += lower.get(name.lower(), kept) + rest
    return found
