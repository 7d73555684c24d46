"""WMTS: from a capabilities document (OGC 07-057r7) to a grid of tiles and their addresses.

Knows nothing of how servers are asked or of what becomes of tiles. The document may be hostile:
it is read by defusedxml and only for what is needed, and gets no secret that its server lacks.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl, quote, quote_plus, urlencode, urlsplit
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from shapely.geometry.base import BaseGeometry

from data_prep.imagery.fetched import Order, order_of
from data_prep.imagery.grids import Address
from data_prep.imagery.matrices import Matrix, is_mercator, matrices_of, text_of
from data_prep.imagery.terms import check_terms
from data_prep.imagery.web import VARIABLE, Manners, Web, filled
from zoomloc.config.imagery import WmtsSource
from zoomloc.errors import ConfigError, ImageryError

JPEG_FIRST = ("image/jpeg", "image/jpg", "image/webp", "image/png", "image/png8")
LARGEST = 32 << 20
MOST_NAMES = 60  # in a message
PLACE = re.compile(r"(?<!\$)\{([^{}]+)\}")  # in a template; ${NAME} is a secret's


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
    keys: "Keys"

    def address(self, at: Address, secrets: bool = True) -> str:
        """The address of a tile by column and row; without ``secrets`` for messages."""
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
        return self.keys.address(url, secrets)

    def _kvp(self, values: dict[str, str]) -> str:
        asked = {"SERVICE": "WMTS", "REQUEST": "GetTile", "VERSION": "1.0.0", "LAYER": self.name}
        asked |= {key.upper(): value for key, value in values.items()} | {"FORMAT": self.format}
        return _with_query(self.kvp, urlencode(asked))


@dataclass(frozen=True)
class Keys:
    """The secrets of a source and the server that may have them."""

    capabilities: str
    names: frozenset[str]  # of variables; those that a document names beside them stay closed

    @classmethod
    def of(cls, source: WmtsSource) -> "Keys":
        """Those that its address and headers name."""
        said = " ".join((source.capabilities, *source.headers.values()))
        return cls(source.capabilities, frozenset(VARIABLE.findall(said)))

    def address(self, url: str, secrets: bool) -> str:
        """An address with its secrets, or as messages may show it.

        Many servers want on each tile the key that the document was asked with, yet do not
        write it into their addresses; many others do write it there.
        """
        there, asked = urlsplit(url), urlsplit(self.capabilities)
        if (there.scheme, there.netloc) == (asked.scheme, asked.netloc):
            known = {name.lower() for name, _ in parse_qsl(there.query, keep_blank_values=True)}
            for part in asked.query.split("&"):
                if VARIABLE.search(part) and part.split("=")[0].lower() not in known:
                    url = _with_query(url, part)
        if secrets:
            return VARIABLE.sub(lambda m: filled(m[0]) if m[1] in self.names else m[0], url)
        for name in sorted(self.names):
            value = os.environ.get(name, "")
            for written in {value, quote(value, safe=""), quote_plus(value)} - {""}:
                url = url.replace(written, f"${{{name}}}")
        return url


def order_wmts(source: WmtsSource, ground: BaseGeometry, cache: Path) -> Order:
    """The tiles of a source that show some ground in degrees.

    Raises ImageryError for a document that cannot be used, ConfigError for a layer, matrix set or
    format that it does not have (with those that it has), and for a host that forbids it.
    """
    document = read_capabilities(source)
    layer = chosen(document, source)
    check_terms(layer.address((0, 0), secrets=False), source.permission)
    key = f"wmts {source.capabilities} {layer.name} {layer.matrix_set} {layer.matrix.name}"
    key += f" {layer.style} {layer.format}"
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
    shown = matrix.grid.ground_of(list(tiles)).intersection(order.sheet.footprint)
    return replace(order, tiles=tiles, sheet=order.sheet.within(shown))


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
    if b"Capabilities" in body:
        return None
    return f"answers {kind or 'something unnamed'} that is no capabilities document"


def chosen(document: bytes, source: WmtsSource) -> Layer:
    """The layer that a source asks for, with defaults where it does not say.

    Raises ImageryError, ConfigError.
    """
    root = _tree(document, source.capabilities)
    layers = {text_of(node, "Identifier"): node for node in root.findall("{*}Contents/{*}Layer")}
    node = layers.get(source.layer)
    if node is None:
        raise ConfigError(_no(source, "layer", source.layer, layers))
    matrix_set, matrix = _level(root, node, source)
    kvp = _kvp_address(root)
    offered = {(each.text or "").strip(): each for each in node.findall("{*}Format")}
    formats = {kind: each for kind, each in offered.items() if kvp or _resource(node, kind)}
    if not formats:
        raise ImageryError(f"{source.capabilities}: says no address for tiles of {source.layer}")
    kind = _pick(source, "format", source.format, formats, _smallest)
    styles = {text_of(each, "Identifier"): each for each in node.findall("{*}Style")}
    asked = styles or source.style
    layer = Layer(
        name=source.layer,
        style=_pick(source, "style", source.style, styles, _default_style) if asked else "",
        format=kind,
        matrix_set=matrix_set,
        matrix=matrix,
        dimensions=tuple(_dimensions(node, source)),
        rest=_resource(node, kind),
        kvp=kvp,
        keys=Keys.of(source),
    )
    _check_address(layer, source)
    return layer


def _level(root: Element, layer: Element, source: WmtsSource) -> tuple[str, Matrix]:
    """A matrix set and one of its levels."""
    links = {
        (each.text or "").strip(): link  # some servers write several sets into one link
        for link in layer.findall("{*}TileMatrixSetLink")
        for each in link.findall("{*}TileMatrixSet")
    }
    sets = {
        text_of(each, "Identifier"): each
        for each in root.findall("{*}Contents/{*}TileMatrixSet")
        if text_of(each, "Identifier") in links
    }
    name = _pick(source, "matrix_set", source.matrix_set, sets, _first_mercator)
    matrices = {m.name: m for m in matrices_of(source.capabilities, sets[name], links[name])}
    return name, matrices[_pick(source, "matrix", source.matrix, matrices, _finest)]


def _check_address(layer: Layer, source: WmtsSource) -> None:
    """Refuse addresses that lead elsewhere than to a server, and such with gaps."""
    try:
        address = urlsplit(layer.address((0, 0), secrets=False))
        host = address.hostname if address.scheme in ("http", "https") else None
    except ValueError:
        host = None
    if not host:
        raise ImageryError(f"{source.capabilities}: its address for tiles is no http(s) address")
    places = {name.lower() for name in PLACE.findall(layer.rest)}
    empty = PLACE.findall(layer.address((0, 0), secrets=False))
    if empty:
        raise ConfigError(
            f"{source.capabilities}: layer {layer.name} needs a value of {', '.join(empty)}; "
            "state it under 'dimensions' of the source"
        )
    known = [name for name, _ in layer.dimensions if name.lower() in places]
    for name in source.dimensions if layer.rest else ():
        if name.lower() not in places:
            raise ConfigError(_no(source, "dimension", name, known))


# 1. reading the document


def _tree(document: bytes, where: str) -> Element:
    if len(document) > LARGEST:
        raise ImageryError(f"{where}: a document of more than {LARGEST >> 20} MB")
    try:
        root: Element = fromstring(document)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise ImageryError(f"{where}: not a readable capabilities document ({error})") from error
    if root.tag.rpartition("}")[2] != "Capabilities":  # those of WMS are called otherwise
        raise ImageryError(f"{where}: holds {root.tag!r}, not WMTS capabilities")
    return root


def _dimensions(layer: Element, source: WmtsSource) -> Iterator[tuple[str, str]]:
    """Name and value of each dimension: the one asked for, else the default, else the last.

    Those that are asked for and not announced as well: servers forget to announce Time.
    """
    named = {key.lower(): value for key, value in source.dimensions.items()}
    announced = set()
    for node in layer.findall("{*}Dimension"):
        name = text_of(node, "Identifier")
        values = [(each.text or "").strip() for each in node.findall("{*}Value")]
        default = text_of(node, "Default") or (values[-1] if values else "")
        announced.add(name.lower())
        yield name, named.get(name.lower(), default)
    yield from ((k, v) for k, v in source.dimensions.items() if k.lower() not in announced)


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
            encodings = [(v.text or "").strip() for v in get.iter() if v.tag.endswith("}Value")]
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


def _no(source: WmtsSource, what: str, asked: str, there: Iterable[str]) -> str:
    names = [" ".join(name.split()) for name in sorted(there)]
    known = ", ".join(names[:MOST_NAMES]) or "none"
    if len(names) > MOST_NAMES:
        known += f" and {len(names) - MOST_NAMES} more"
    return f"{source.capabilities}: has no {what} {asked!r}; it has {known}"


def _first_mercator(sets: dict[str, Element] | dict[str, Matrix]) -> str:
    for name, node in sets.items():
        if isinstance(node, Element) and is_mercator(text_of(node, "SupportedCRS")):
            return name
    return next(iter(sets))


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
    lower = {key.lower(): quote(value, safe="/:,;=@") for key, value in values.items()}
    return PLACE.sub(lambda match: lower.get(match[1].lower(), match[0]), template)


def _with_query(url: str, query: str) -> str:
    glue = "" if url.endswith(("?", "&")) else "&" if "?" in url else "?"
    return url + glue + query
