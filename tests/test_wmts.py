"""WMTS: real documents read as they are meant, made-up servers on loopback become pyramids.

Real documents are those of $ZOOMLOC_REAL_DATA/owslib-wmts (NASA EOSDIS, ERDAS, CARIS). All other
documents here are made up; tiles are cut on the fly from GeoTIFFs that the tests write.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlsplit
from xml.etree import ElementTree

import mercantile
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from loopback import Answer, Asked, Server, serving
from PIL import Image
from pyproj import Transformer
from raster_files import ground, write_tif
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from data_prep.imagery.fetched import CACHE_NAME
from data_prep.imagery.wmts import Layer, chosen, order_wmts
from data_prep.tiles import PYRAMID_NAME
from zoomloc.cli.screen import Screen
from zoomloc.cli.tiling import make_tiles
from zoomloc.config import TilesConfig
from zoomloc.config.imagery import WmtsSource
from zoomloc.errors import ConfigError, ImageryError
from zoomloc.world.cells import LatLng
from zoomloc.world.pyramid import TilePyramid

CREDIT = {"attribution": "Made up by a test", "licence": "CC0-1.0"}
QUICK = {"rate_per_s": 200.0, "retries": 1, **CREDIT}
PIXEL_M, DEGREE_M, HALF_M = 0.28e-3, 111319.49079327358, 20037508.342789244  # of the standard
EOSDIS, ERDAS, SFS = "eosdis-wmts-cap.xml", "erdas-iws13-wmts-cap.xml", "sfs-wmts-cap-world.xml"


def source(capabilities: object, layer: str = "town", **more) -> WmtsSource:
    words = {"kind": "wmts", "capabilities": str(capabilities), "layer": layer, **QUICK, **more}
    return WmtsSource.model_validate(words)


def real(real_data: Path, file: str) -> bytes:
    return (real_data / "owslib-wmts" / file).read_bytes()


def pick(document: bytes | str, layer: str = "town", **more) -> Layer:
    body = document if isinstance(document, bytes) else document.encode()
    return chosen(body, source("doc", layer, **more))


def text(node: ElementTree.Element, name: str) -> str:
    return (node.findtext(f"{{*}}{name}") or "").strip()


# 1. real documents

SETS = {  # one layer of each matrix set of each document, and the CRS that its tiles are in
    (EOSDIS, "AIRS_Dust_Score", "EPSG4326_2km"): "EPSG:4326",
    (EOSDIS, "MODIS_Terra_Sea_Ice", "EPSG4326_1km"): "EPSG:4326",
    (EOSDIS, "MODIS_Aqua_Snow_Cover", "EPSG4326_500m"): "EPSG:4326",
    (EOSDIS, "MODIS_Land_Water_Mask", "EPSG4326_250m"): "EPSG:4326",
    (ERDAS, "images_world_Landsat742.ecw", "ogc:1.0:globalcrs84pixel"): "EPSG:4326",
    (ERDAS, "images_world_Landsat742.ecw", "ogc:1.0:globalcrs84scale"): "EPSG:4326",
    (ERDAS, "images_world_Landsat742.ecw", "ogc:1.0:googlecrs84quad"): "EPSG:4326",
    (ERDAS, "images_world_Landsat742.ecw", "ogc:1.0:googlemapscompatible"): "EPSG:3857",
    (ERDAS, "images_world_Landsat742.ecw", "googlemapscompatibleext2:epsg:3857"): "EPSG:3857",
    (SFS, "World", "GlobalCRS84Scale"): "EPSG:4326",
}
CHARLESTON = "images_CharlestonCoSIDS-mosaic.ecw"


@pytest.mark.parametrize(("where", "crs"), SETS.items(), ids=lambda v: v[2] if len(v) == 3 else "")
def test_each_level_of_a_real_document_covers_the_globe(real_data, where, crs):
    file, layer, matrix_set = where
    document = real(real_data, file)
    nodes = ElementTree.fromstring(document).findall("{*}Contents/{*}TileMatrixSet")
    (node,) = (each for each in nodes if text(each, "Identifier") == matrix_set)
    half_x, half_y, unit_m = (180, 90, DEGREE_M) if crs == "EPSG:4326" else (HALF_M, HALF_M, 1)
    levels = node.findall("{*}TileMatrix")
    for level in levels:
        found = pick(document, layer, matrix_set=matrix_set, matrix=text(level, "Identifier"))
        grid = found.matrix.grid
        assert grid.crs == crs and found.matrix_set == matrix_set
        stated = float(text(level, "ScaleDenominator")) * PIXEL_M / unit_m
        # NASA's degree is shorter than the standard's
        assert grid.pixel == pytest.approx((stated,) * 2, rel=0.002 if file == EOSDIS else 1e-9)
        for name, value in zip(("Width", "Height"), (*grid.tile_px, *grid.size), strict=False):
            assert value == int(text(level, f"Tile{name}"))
        assert grid.size == (int(text(level, "MatrixWidth")), int(text(level, "MatrixHeight")))
        # whatever their order: all of these begin in the north-west, and north is positive
        corner = sorted(float(v) for v in text(level, "TopLeftCorner").split())
        assert (grid.left, grid.top) == tuple(corner)
        if file == SFS:  # its matrices double although its scales do not: some end before 180
            continue
        wide, high = np.multiply(grid.pixel, grid.tile_px) * grid.size
        slack = 0.01 + grid.pixel[0] * 1e-3
        assert grid.left < slack - half_x and grid.left + wide > half_x - slack
        assert grid.top > half_y - slack and grid.top - high < slack - half_y
    finest = pick(document, layer, matrix_set=matrix_set).matrix
    assert finest.name == text(levels[-1], "Identifier"), "the finest where none is named"


def test_nasas_grid_ends_at_180_although_its_degree_is_not_the_standards(real_data):
    """0.5625 / 2**level degrees, as its own documentation of these layers has it."""
    document = real(real_data, EOSDIS)
    for level in range(2, 9):
        grid = pick(document, "MODIS_Land_Water_Mask", matrix=str(level)).matrix.grid
        assert grid.pixel == pytest.approx((0.5625 / 2**level,) * 2, rel=1e-12)


def test_web_mercator_grids_are_those_of_xyz_tiles(real_data):
    document = real(real_data, ERDAS)
    box = shapely.box(-80.02, 32.70, -79.90, 32.81)
    for level in (0, 5, 12, 16):
        for matrix_set in ("ogc:1.0:googlemapscompatible", "googlemapscompatibleext2:epsg:3857"):
            layer = "images_world_Landsat742.ecw"
            found = pick(document, layer, matrix_set=matrix_set, matrix=str(level))
            expected = {(t.x, t.y) for t in mercantile.tiles(*box.bounds, [level])}
            assert set(found.matrix.grid.tiles_under(box)) == expected


@pytest.mark.parametrize("matrix_set", ["ogc:1.0:globalcrs84pixel", "ogc:1.0:googlemapscompatible"])
def test_tiles_under_a_layers_extent_are_those_that_its_server_limits_it_to(real_data, matrix_set):
    """An outside witness of grids: that server worked out the same tiles from the same extent."""
    document = real(real_data, ERDAS)
    for node in ElementTree.fromstring(document).findall("{*}Contents/{*}Layer"):
        corners = (text(node, f"WGS84BoundingBox/{{*}}{v}") for v in ("LowerCorner", "UpperCorner"))
        west, south, east, north = (float(v) for pair in corners for v in pair.split())
        links = [text(each, "TileMatrixSet") for each in node.findall("{*}TileMatrixSetLink")]
        if matrix_set not in links or east - west > 10:
            continue
        for level in range(3, 15):  # finer ones are the same with more tiles
            found = pick(
                document, text(node, "Identifier"), matrix_set=matrix_set, matrix=str(level)
            )
            tiles = np.array(found.matrix.grid.tiles_under(shapely.box(west, south, east, north)))
            (left, top), (right, bottom) = tiles.min(axis=0), tiles.max(axis=0)
            assert found.matrix.limits == (left, right, top, bottom)


def test_a_rest_template_is_filled_whatever_the_case_of_its_names(real_data):
    layer = pick(real(real_data, SFS), "Ocean", matrix_set="GlobalCRS84Scale", matrix="9")
    assert layer.address((530, 70)) == (
        "http://server.caris.com/spatialfusionserver/services/ows/wmts/World/Ocean/default/"
        "GlobalCRS84Scale/9/70/530.png"
    )


@pytest.mark.parametrize(
    ("file", "layer", "server", "expected"),
    [
        (
            EOSDIS,
            "MODIS_Terra_CorrectedReflectance_TrueColor",
            "http://map1b.vis.earthdata.nasa.gov/wmts-geo/wmts.cgi?",
            {"FORMAT": "image/jpeg", "TILEMATRIXSET": "EPSG4326_250m", "TILEMATRIX": "8"},
        ),
        (
            ERDAS,
            CHARLESTON,
            "http://209.156.31.30/erdas-iws/ogc/wmts/?",
            # Web Mercator before degrees, JPEG before PNG, though both come second there
            {
                "FORMAT": "image/jpeg",
                "TILEMATRIXSET": "ogc:1.0:googlemapscompatible",
                "TILEMATRIX": "18",
            },
        ),
    ],
)
def test_keys_and_values_are_all_there(real_data, file, layer, server, expected):
    address = pick(real(real_data, file), layer).address((72_500, 105_400))
    assert address.startswith(server)
    fixed = {"SERVICE": "WMTS", "REQUEST": "GetTile", "VERSION": "1.0.0", "STYLE": "default"}
    place = {"LAYER": layer, "TILECOL": "72500", "TILEROW": "105400"}
    assert dict(parse_qsl(urlsplit(address).query)) == fixed | place | expected


@pytest.mark.parametrize(
    ("file", "layer", "asked", "told"),
    [
        (EOSDIS, "Moon", {}, "has no layer 'Moon'; it has AIRS_CO_Total_Column_Day, .*OMI_SO2_Up"),
        (ERDAS, CHARLESTON, {"matrix_set": "swiss"}, "no matrix_set 'swiss'; .*, ogc:1.0:googlem"),
        (ERDAS, CHARLESTON, {"matrix": "19"}, "has no matrix '19'; it has 0, 1, 10, .*, 9"),
        (
            ERDAS,
            CHARLESTON,
            {"format": "image/tiff"},
            "no format 'image/tiff'; .*image/jpeg, .*png",
        ),
        (ERDAS, CHARLESTON, {"style": "night"}, "has no style 'night'; it has default"),
        (SFS, "World", {"matrix_set": "GlobalCRS84Scale", "dimensions": {"Time": "2020"}}, "Time"),
    ],
)
def test_what_a_real_document_does_not_have_is_refused_with_what_it_has(
    real_data, file, layer, asked, told
):
    with pytest.raises(ConfigError, match=told) as caught:
        pick(real(real_data, file), layer, **asked)
    assert "\n" not in str(caught.value)


def test_a_real_set_whose_corner_is_no_top_left_one_is_refused(real_data):
    """CARIS gives the south-west corner: which row is the first there, nobody can know."""
    with pytest.raises(ImageryError, match="GoogleMapsCompatible cannot be used .*off the globe"):
        pick(real(real_data, SFS), "World")  # the one in Web Mercator, if none is named


# 2. documents that are made up


@dataclass(frozen=True)
class Level:
    """A level as the server of a test has it; corner east first, pixel in units of the CRS."""

    crs: str
    corner: tuple[float, float]
    pixel: float
    tile: tuple[int, int] = (256, 256)
    size: tuple[int, int] = (1 << 17, 1 << 17)
    urn: str = ""
    written: str = ""  # the corner as the document has it; east first, where empty

    def xml(self, name: str) -> str:
        unit_m = DEGREE_M if self.crs == "EPSG:4326" else 1.0
        urn = self.urn or f"urn:ogc:def:crs:EPSG::{self.crs.split(':')[1]}"
        corner = self.written or "{!r} {!r}".format(*self.corner)
        return f"""<TileMatrixSet><ows:Identifier>{name}</ows:Identifier>
        <ows:SupportedCRS>{urn}</ows:SupportedCRS><TileMatrix>
        <ows:Identifier>{name}:1</ows:Identifier>
        <ScaleDenominator>{self.pixel * unit_m / PIXEL_M!r}</ScaleDenominator>
        <TopLeftCorner>{corner}</TopLeftCorner>
        <TileWidth>{self.tile[0]}</TileWidth><TileHeight>{self.tile[1]}</TileHeight>
        <MatrixWidth>{self.size[0]}</MatrixWidth><MatrixHeight>{self.size[1]}</MatrixHeight>
        </TileMatrix></TileMatrixSet>"""

    def bounds(self, column: int, row: int) -> tuple[float, float, float, float]:
        wide, high = (self.pixel * side for side in self.tile)
        west, north = self.corner[0] + column * wide, self.corner[1] - row * high
        return west, north - high, west + wide, north


MERCATOR = Level("EPSG:3857", (-HALF_M, HALF_M), 2 * HALF_M / 256 / 2**17)
DEGREES = Level(
    "EPSG:4326", (-180.0, 90.0), 1e-5, (256, 192), (140_625, 93_750), written="90.0 -180.0"
)
SWISS = Level("EPSG:2056", (2_420_000.0, 1_350_000.0), 1.0, (256, 256), (1875, 1250))
REST = '<ResourceURL format="image/png" resourceType="tile" template="{}"/>'
PATH = "/rest/town/{Style}/{TileMatrixSet}/{TileMatrix}/{TileRow}/{TileCol}.png"
KVP = """<ows:OperationsMetadata><ows:Operation name="GetTile"><ows:DCP><ows:HTTP>
    <ows:Get xlink:href="{}"><ows:Constraint name="GetEncoding"><ows:AllowedValues>
    <ows:Value> KVP </ows:Value></ows:AllowedValues></ows:Constraint></ows:Get>
    </ows:HTTP></ows:DCP></ows:Operation></ows:OperationsMetadata>"""


def capabilities(
    level: Level,
    rest: str = "",
    kvp: str = "",
    limits: str = "",
    inside: str = "",
    formats: tuple[str, ...] = ("image/png",),
    head: str = "",
) -> str:
    """A document of one layer 'town' in the matrix set 'grid', made up."""
    return f"""{head}<Capabilities xmlns="http://www.opengis.net/wmts/1.0" version="1.0.0"
    xmlns:ows="http://www.opengis.net/ows/1.1" xmlns:xlink="http://www.w3.org/1999/xlink">
    {KVP.format(kvp.replace("&", "&amp;")) if kvp else ""}<Contents><Layer>
    <ows:Identifier>town</ows:Identifier>
    <Style><ows:Identifier>night</ows:Identifier></Style>
    <Style isDefault="true"><ows:Identifier>day light</ows:Identifier></Style>
    {"".join(f"<Format>{each}</Format>" for each in formats)}{inside}
    <TileMatrixSetLink><TileMatrixSet>grid</TileMatrixSet>{limits}</TileMatrixSetLink>
    {REST.format(rest.replace("&", "&amp;")) if rest else ""}</Layer>
    {level.xml("grid")}</Contents></Capabilities>"""


@pytest.mark.parametrize(
    ("urn", "written", "crs", "left", "top"),
    [
        ("urn:ogc:def:crs:EPSG::4326", "85 -170", "EPSG:4326", -170, 85),
        ("urn:ogc:def:crs:EPSG::4326", "-170 85", "EPSG:4326", -170, 85),  # by mistake
        ("urn:ogc:def:crs:EPSG::4326", "48 7", "EPSG:4326", 7, 48),  # both orders lead to ground
        ("urn:ogc:def:crs:OGC:1.3:CRS84", "48 7", "EPSG:4326", 48, 7),
        ("urn:ogc:def:crs:EPSG::3035", "6000000 2000000", "EPSG:3035", 2000000, 6000000),
        ("urn:ogc:def:crs:EPSG:6.18:3:4326", "85 -170", "EPSG:4326", -170, 85),
        ("urn:ogc:def:crs:OGC:1.3:CRS84", "-170 85", "EPSG:4326", -170, 85),
        ("urn:ogc:def:crs:OGC:1.3:CRS84", "85 -170", "EPSG:4326", -170, 85),  # by mistake
        ("urn:ogc:def:crs:EPSG::900913", "-20037508 20037508", "EPSG:3857", -20037508, 20037508),
        ("urn:ogc:def:crs:EPSG:6.18:3:3857", "-2e7 2e7", "EPSG:3857", -2e7, 2e7),
        ("http://www.opengis.net/def/crs/EPSG/0/3857", "-2e7 2e7", "EPSG:3857", -2e7, 2e7),
        ("EPSG:102100", "-2e7 2e7", "EPSG:3857", -2e7, 2e7),
        ("urn:ogc:def:crs:EPSG::2056", "2420000 1350000", "EPSG:2056", 2420000, 1350000),
        ("urn:ogc:def:crs:EPSG::2193", "10000000 -1000000", "EPSG:2193", -1000000, 10000000),
        ("urn:ogc:def:crs:EPSG::2193", "-1000000 10000000", "EPSG:2193", -1000000, 10000000),
        ("urn:ogc:def:crs:EPSG::31467", "6200000 3200000", "EPSG:31467", 3200000, 6200000),
        ("urn:ogc:def:crs:EPSG::31467", "3200000 6200000", "EPSG:31467", 3200000, 6200000),
        ("urn:ogc:def:crs:EPSG::3031", "-4194304 4194304", "EPSG:3031", -4194304, 4194304),
    ],
)
def test_corners_and_names_of_a_crs_as_servers_write_them(urn, written, crs, left, top):
    pixel = 0.01 if crs == "EPSG:4326" else 2000.0
    level = Level(crs, (0, 0), pixel, size=(30, 30), urn=urn, written=written)
    grid = pick(capabilities(level, kvp="http://example.org/wmts")).matrix.grid
    assert (grid.crs, grid.left, grid.top) == (crs, left, top)
    assert grid.pixel == pytest.approx((pixel, pixel), rel=1e-9)


def test_what_a_source_asks_for_comes_before_what_is_usual():
    times = (
        "<Dimension><ows:Identifier>Time</ows:Identifier>{}<Value>2019</Value><Value>2021</Value>"
    )
    default = "<Default>2020</Default>"
    for said, asked, expected in [
        (default, {}, "2020"),
        ("", {}, "2021"),
        (default, {"time": "2019"}, "2019"),
    ]:
        document = capabilities(
            MERCATOR,
            rest="https://example.org/{Time}/{Style}/{TileRow}/{TileCol}?f={TileMatrix}",
            inside=times.format(said) + "</Dimension>",
        )
        address = pick(document, dimensions=asked).address((3, 4))
        assert address == f"https://example.org/{expected}/day%20light/4/3?f=grid:1"
    night = pick(document, style="night").address((3, 4))
    assert night == "https://example.org/2020/night/4/3?f=grid:1"


def test_a_format_that_has_an_address_is_taken():
    """JPEG is offered too, but only over keys and values, which this server does not have."""
    document = capabilities(
        MERCATOR, rest="https://example.org" + PATH, formats=("image/jpeg", "image/png")
    )
    assert pick(document).format == "image/png"
    with pytest.raises(ConfigError, match="no format 'image/jpeg'; it has image/png"):
        pick(document, format="image/jpeg")


@pytest.mark.parametrize(
    ("document", "error", "told"),
    [
        (capabilities(MERCATOR), ImageryError, "says no address for tiles of town"),
        (capabilities(MERCATOR, rest="file:///etc/{TileCol}"), ImageryError, "no http.s. address"),
        (capabilities(MERCATOR, kvp="http://[a"), ImageryError, "no http.s. address"),
        (
            capabilities(MERCATOR, rest="http://a.org/{Time}/{TileCol}"),
            ConfigError,
            "layer town needs a value of Time; state it under 'dimensions'",
        ),
        (capabilities(Level("EPSG:3857", (-2e7, 2e7), 0.0)), ImageryError, "cannot be used"),
        (capabilities(Level("EPSG:3857", (-2e7, 2e7), -1.0)), ImageryError, "cannot be used"),
        (capabilities(Level("EPSG:3857", (-2e7, 2e7), 1e-4)), ImageryError, "cannot be used"),
        (capabilities(Level("EPSG:3857", (-2e7, 2e7), float("nan"))), ImageryError, "cannot be u"),
        (capabilities(Level("EPSG:3857", (-2e7, 2e7), float("inf"))), ImageryError, "cannot be u"),
        (
            capabilities(Level("EPSG:3857", (-2e7, 2e7), 1.0, (99_999, 256))),
            ImageryError,
            "99999 x 256 px",
        ),
        (capabilities(Level("EPSG:3857", (0, 0), 1.0, written="1")), ImageryError, "cannot be us"),
        (capabilities(Level("EPSG:3857", (9e9, 9e9), 1.0)), ImageryError, "off the globe"),
        (
            capabilities(Level("EPSG:3857", (0, 0), 1.0, written="nan nan")),
            ImageryError,
            "off the globe",
        ),
        (
            capabilities(Level("EPSG:3857", (0, 0), 1.0, urn="urn:ogc:def:crs:MOON::1")),
            ImageryError,
            "cannot be used",
        ),
        ("<WMS_Capabilities/>", ImageryError, "holds 'WMS_Capabilities', not WMTS capabilities"),
        ("<Capabilities/>", ConfigError, "has no layer 'town'; it has none"),
        ("<Capabilities>", ImageryError, "not a readable capabilities document"),
        ("", ImageryError, "not a readable capabilities document"),
    ],
)
def test_a_document_that_cannot_be_used_is_refused_in_one_line(document, error, told):
    with pytest.raises(error, match=told) as caught:
        pick(document)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("doc: ")


BOMB = "".join(
    f'<!ENTITY {name} "{f"&{before};" * 9}">'
    for before, name in zip("abcdefgh", "bcdefghi", strict=1)
)
HOSTILE = {
    "entities that grow": f'<!DOCTYPE Capabilities [<!ENTITY a "aaaaaaaaa">{BOMB}]>',
    "a file of this machine": '<!DOCTYPE Capabilities [<!ENTITY i SYSTEM "file:///etc/hostname">]>',
    "another server": '<!DOCTYPE Capabilities [<!ENTITY i SYSTEM "{address}/other">]>',
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_xml_is_refused_in_one_line(tmp_path, kind):
    def handler(asked: Asked) -> Answer:
        head = HOSTILE[kind].replace("{address}", server.address)
        document = capabilities(MERCATOR, rest=server.address + PATH, head=head)
        return Answer(document.replace("day light", "&i;").encode(), kind="text/xml")

    with serving(handler) as server:
        with pytest.raises(ImageryError, match="not a readable capabilities doc.*Entit") as caught:
            tiles(source(server.address + "/wmts.xml"), tmp_path)
        assert [asked.path for asked in server.asked] == ["/wmts.xml"]
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_document_without_end_is_refused(tmp_path):
    (tmp_path / "doc.xml").write_bytes(b" " * ((32 << 20) + 1))
    with pytest.raises(ImageryError, match="more than 32 MB"):
        tiles(source(tmp_path / "doc.xml"), tmp_path)
    with pytest.raises(ImageryError, match="none.xml: cannot be read"):
        tiles(source(tmp_path / "none.xml"), tmp_path)


def test_tiles_beyond_a_layers_limits_are_not_asked_for(tmp_path, real_data):
    file = real_data / "owslib-wmts" / ERDAS
    asked = source(file, CHARLESTON, matrix="12")
    first = mercantile.bounds(1132, 1646, 12)  # the limits' north-west tile, in degrees
    step = first.east - first.west
    around = shapely.box(first.west - 3.5 * step, first.south - 0.1, first.east + 0.9 * step, 33.3)
    order = order_wmts(asked, around, tmp_path / "cache")
    columns, rows = zip(*order.tiles, strict=True)
    assert (min(columns), min(rows), max(columns)) == (1132, 1646, 1133)
    shown = order.sheet.footprint.bounds
    assert shown[0] == pytest.approx(first.west) and shown[3] == pytest.approx(first.north)
    with pytest.raises(ImageryError, match="its tiles do not reach the region"):
        order_wmts(asked, shapely.box(8.0, 47.0, 8.1, 47.1), tmp_path / "cache")


# 3. servers become pyramids

UTM = "EPSG:32632"
CORNER = (465_000.0, 5_246_400.0)  # near Zurich
SIDE = 400
TO_DEGREES = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True)


def box_within(margin: float) -> tuple[float, float, float, float]:
    """A box in degrees that lies within the raster by some metres."""
    (west, east), (south, north) = TO_DEGREES.transform(
        [CORNER[0] + margin, CORNER[0] + SIDE - margin],
        [CORNER[1] - SIDE + margin, CORNER[1] - margin],
    )
    return west, south, east, north


BOX = box_within(60)


@pytest.fixture
def raster(tmp_path) -> Path:
    (tmp_path / "server").mkdir()
    return write_tif(tmp_path / "server" / "ortho.tif", ground(SIDE), corner=CORNER)


def cut(raster: Path, level: Level, column: int, row: int, kind: str = "png") -> bytes:
    """A tile as a server would render it, by GDAL alone."""
    west, _, _, north = level.bounds(column, row)
    grid = Affine(level.pixel, 0, west, 0, -level.pixel, north)
    shape = {"width": level.tile[0], "height": level.tile[1], "transform": grid}
    with (
        rasterio.open(raster) as dataset,
        WarpedVRT(
            dataset, crs=level.crs, resampling=Resampling.cubic, add_alpha=True, **shape
        ) as warped,
    ):
        picture = Image.fromarray(np.moveaxis(warped.read(), 0, 2))
    target = io.BytesIO()
    picture.convert("RGBA" if kind == "png" else "RGB").save(target, kind, quality=95)
    return target.getvalue()


def served(raster: Path, level: Level, document: Callable[[str], str]) -> Callable[[Asked], Answer]:
    """Capabilities at /wmts.xml, tiles by REST and by KVP."""

    def handler(asked: Asked) -> Answer:
        url = urlsplit(asked.path)
        if url.path == "/wmts.xml":
            address = f"http://{asked.headers['host']}"
            return Answer(document(address).encode(), kind="application/xml")
        if url.path.startswith("/rest/town/day%20light/grid/grid:1/"):
            row, column = url.path.removesuffix(".png").split("/")[-2:]
        else:
            said = parse_qs(url.query)
            assert said["TILEMATRIX"] == ["grid:1"] and said["STYLE"] == ["day light"], said
            column, row = said["TILECOL"][0], said["TILEROW"][0]
        return Answer(cut(raster, level, int(column), int(row)), kind="image/png")

    return handler


def tiles(asked: WmtsSource, out: Path, screen: Screen | None = None, **more) -> None:
    plan = TilesConfig.model_validate(
        {"sources": [asked], "bounds": BOX, "image_format": "png", **more}
    )
    make_tiles(plan, [], out, "town", 1, screen or Screen(quiet=True))


def assert_colours_lie_right(out: Path, most: int = 6) -> None:
    """At places all over the box the pyramid shows what the raster holds there."""
    bands = ground(SIDE)
    wrong = []
    with TilePyramid.open(out / PYRAMID_NAME) as pyramid:
        for column, row in np.random.default_rng(0).integers(64, SIDE - 64, (40, 2)):
            lng, lat = TO_DEGREES.transform(CORNER[0] + column + 0.5, CORNER[1] - row - 0.5)
            seen = pyramid.square(LatLng(lat, lng), 1.0, 8)[4, 4].astype(int)
            wrong.append(np.abs(seen - bands[:, row, column]).max())
    assert np.median(wrong) <= 2 and max(wrong) <= most


SERVERS = {
    "REST in Web Mercator": (MERCATOR, lambda at: capabilities(MERCATOR, rest=at + PATH)),
    "KVP in degrees, latitude first": (DEGREES, lambda at: capabilities(DEGREES, kvp=at + "/kvp")),
    "KVP in Swiss metres": (SWISS, lambda at: capabilities(SWISS, kvp=at + "/kvp?map=a&")),
}


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_becomes_a_pyramid_whose_colours_lie_right(tmp_path, raster, kind):
    level, document = SERVERS[kind]
    with serving(served(raster, level, document)) as server:
        tiles(source(server.address + "/wmts.xml"), tmp_path / "out")
        first, *rest = (asked.path for asked in server.asked)
    assert first == "/wmts.xml" and 4 <= len(rest) <= 16 and len(set(rest)) == len(rest)
    assert all(path.startswith("/rest/" if "REST" in kind else "/kvp?") for path in rest)
    assert_colours_lie_right(tmp_path / "out")
    with TilePyramid.open(tmp_path / "out" / PYRAMID_NAME) as pyramid:
        assert pyramid.metadata["attribution"] == CREDIT["attribution"]
        assert pyramid.metadata["licence"] == CREDIT["licence"]


def test_a_real_document_of_nasa_replayed(tmp_path, real_data):
    """Its tiles are 0.5625 / 256 degrees a pixel; it takes a Time that it does not announce."""
    level = Level("EPSG:4326", (-180.0, 90.0), 0.5625 / 256, (512, 512), (320, 160))
    bands = ground(500, coarse=30)
    corner = (15.2, -3.1)
    raster = write_tif(tmp_path / "modis.tif", bands, "EPSG:4326", corner, 0.002)
    layer = "MODIS_Terra_CorrectedReflectance_TrueColor"

    def handler(asked: Asked) -> Answer:
        if asked.path == "/doc":
            old = b"http://map1b.vis.earthdata.nasa.gov"
            return Answer(real(real_data, EOSDIS).replace(old, server.address.encode()))
        said = dict(parse_qsl(urlsplit(asked.path).query))
        assert asked.path.startswith("/wmts-geo/wmts.cgi?") and said["TIME"] == "2012-05-14"
        assert said["LAYER"] == layer and said["TILEMATRIX"] == "8"
        at = int(said["TILECOL"]), int(said["TILEROW"])
        return Answer(cut(raster, level, *at, "jpeg"), kind="image/jpeg")

    with serving(handler) as server:
        asked = source(server.address + "/doc", layer, dimensions={"Time": "2012-05-14"})
        bounds = (15.4, -3.9, 16.0, -3.3)
        tiles(asked, tmp_path / "out", bounds=bounds, terminal_cell_m=4000.0)
    with TilePyramid.open(tmp_path / "out" / PYRAMID_NAME) as pyramid:
        wrong = []
        for column, row in np.random.default_rng(0).integers(120, 380, (40, 2)):
            place = LatLng(corner[1] - (row + 0.5) * 0.002, corner[0] + (column + 0.5) * 0.002)
            seen = pyramid.square(place, 222.0, 8)[4, 4].astype(int)
            wrong.append(np.abs(seen - bands[:, row, column]).max())
    assert np.median(wrong) <= 6 and max(wrong) <= 20  # JPEG with halved colour


# 4. what goes wrong


def rest_document(address: str) -> str:
    return capabilities(MERCATOR, rest=address + PATH)


HTML = Answer(b"<html>busy</html>", kind="text/html")
FAULTS = {
    "500": Answer(b"", 500, headers={"Retry-After": "0"}),
    "html": HTML,
    "an exception report": Answer(b"<ows:ExceptionReport/>", kind="text/xml"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("victim", ["document", "tile"])
def test_a_fault_that_passes_is_asked_for_again(tmp_path, raster, victim, fault):
    fine = served(raster, MERCATOR, rest_document)

    def handler(asked: Asked) -> Answer:
        wrong = asked.path.endswith(".xml") == (victim == "document") and not broken
        broken.extend([asked.path] * wrong)
        return FAULTS[fault] if wrong else fine(asked)

    broken: list[str] = []
    with serving(handler) as server:
        tiles(source(server.address + "/wmts.xml"), tmp_path / "out")
        assert [a.path for a in server.asked].count(broken[0]) == 2
    assert_colours_lie_right(tmp_path / "out")


@pytest.mark.parametrize("fault", FAULTS)
def test_tiles_that_do_not_come_are_an_error_and_only_they_are_asked_again(tmp_path, raster, fault):
    fine = served(raster, MERCATOR, rest_document)

    def handler(asked: Asked) -> Answer:
        if asked.path in victims or (asked.path.endswith(".png") and len(victims) < 2 and broken):
            victims.add(asked.path)
            return FAULTS[fault] if broken else fine(asked)
        return fine(asked)

    broken, victims = True, set[str]()
    out = tmp_path / "out"
    with serving(handler) as server:
        asked = source(server.address + "/wmts.xml", retries=0, at_once=1)
        with pytest.raises(ImageryError, match="2 of .* tiles did not come .*run the same") as told:
            tiles(asked, out)
        assert "\n" not in str(told.value)
        assert (out / CACHE_NAME).exists() and not (out / PYRAMID_NAME).exists()
        broken, before = False, len(server.asked)
        tiles(asked, out)
        assert {a.path for a in server.asked[before:]} == {"/wmts.xml", *victims}
    assert_colours_lie_right(out)


@pytest.mark.parametrize("fault", [*FAULTS, "404", "403"])
def test_a_document_that_does_not_come_is_an_error(tmp_path, fault):
    gone = {"404": Answer(b"", 404), "403": Answer(b"", 403)}
    told = {"404": "nothing at this address", "403": "it refuses: check the key", "500": "ers 500"}
    with serving(lambda asked: (FAULTS | gone)[fault]) as server:
        expected = told.get(fault, "that is no capabilities document")
        with pytest.raises(ImageryError, match=expected) as caught:
            tiles(source(server.address + "/wmts.xml", retries=0), tmp_path / "out")
        assert len(server.asked) == 1
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_another_style_is_fetched_anew(tmp_path, raster):
    fine = served(raster, MERCATOR, rest_document)

    def handler(asked: Asked) -> Answer:
        if "/night/" not in asked.path:
            return fine(asked)
        day = Image.open(io.BytesIO(fine(_day(asked)).body))
        target = io.BytesIO()
        Image.eval(day.convert("RGB"), lambda value: value // 4).save(target, "png")
        return Answer(target.getvalue(), kind="image/png")

    with serving(handler) as server:
        where = server.address + "/wmts.xml"
        tiles(source(where), tmp_path / "out")
        assert_colours_lie_right(tmp_path / "out")
        tiles(source(where, style="night"), tmp_path / "out")
    with TilePyramid.open(tmp_path / "out" / PYRAMID_NAME) as pyramid:
        lng, lat = TO_DEGREES.transform(CORNER[0] + SIDE / 2, CORNER[1] - SIDE / 2)
        assert pyramid.square(LatLng(lat, lng), 100.0, 32).max() <= 64


def _day(asked: Asked) -> Asked:
    return Asked(asked.method, asked.path.replace("/night/", "/day%20light/"), asked.headers)


# 5. secrets

SECRET = "s3cr3t/key+0817"
QUOTED = "s3cr3t%2Fkey%2B0817"
KEYED = {  # how a document's addresses repeat the key that it was asked with
    "as it is": lambda at: capabilities(MERCATOR, rest=f"{at}{PATH}?api={QUOTED}"),
    "not at all": lambda at: capabilities(MERCATOR, rest=at + PATH),
    "not at all, by KVP": lambda at: capabilities(MERCATOR, kvp=at + "/kvp"),
    "by the variable's name": lambda at: capabilities(MERCATOR, rest=at + PATH + "?api=${KEY}"),
}


@pytest.mark.parametrize("how", KEYED)
def test_a_key_reaches_its_server_and_nothing_else(tmp_path, raster, monkeypatch, capsys, how):
    monkeypatch.setenv("KEY", QUOTED)
    fine = served(raster, MERCATOR, KEYED[how])

    def handler(asked: Asked) -> Answer:
        if parse_qs(urlsplit(asked.path).query).get("api") != [SECRET]:
            return Answer(b"", 403)
        if asked.headers.get("x-key") != QUOTED:
            return Answer(b"", 401)
        return Answer(b"", 500) if broken and "wmts.xml" not in asked.path else fine(asked)

    broken, out = True, tmp_path / "out"
    with serving(handler) as server:
        asked = source(
            server.address + "/wmts.xml?api=${KEY}", headers={"X-Key": "${KEY}"}, retries=0
        )
        with pytest.raises(ImageryError, match=r"api=\$\{KEY\}.*answers 500") as caught:
            tiles(asked, out, Screen())
        broken = False
        tiles(asked, out, Screen())
    printed = capsys.readouterr()
    told = str(caught.value) + printed.out + printed.err
    written = b"".join(file.read_bytes() for file in out.rglob("*") if file.is_file())
    assert (out / CACHE_NAME).exists() and len(written) > 10_000
    for form in (SECRET, QUOTED):
        assert form not in told and form.encode() not in written
    assert_colours_lie_right(out)


def test_a_key_does_not_go_to_another_server(tmp_path, raster, monkeypatch):
    monkeypatch.setenv("KEY", SECRET)
    fine = served(raster, MERCATOR, lambda _: rest_document(other.address))
    with serving(fine) as other, serving(fine) as server:
        tiles(source(server.address + "/wmts.xml?api=${KEY}"), tmp_path / "out")
        assert len(server.asked) == 1 and len(other.asked) >= 4
        assert all("api" not in asked.path for asked in other.asked)


def test_a_document_cannot_ask_for_other_secrets(tmp_path, raster, monkeypatch):
    """It names a variable of this machine that the source does not name."""
    monkeypatch.setenv("OTHER_KEY", "0ther-s3cr3t")
    fine = served(
        raster, MERCATOR, lambda at: rest_document(at).replace(".png", ".png?${OTHER_KEY}")
    )
    with serving(fine) as server:
        tiles(source(server.address + "/wmts.xml"), tmp_path / "out")
        assert any("OTHER_KEY" in asked.path for asked in server.asked)
        assert not any("0ther-s3cr3t" in asked.path for asked in server.asked)


def test_a_key_that_is_not_set_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("KEY", raising=False)
    with serving(lambda asked: HTML) as server:
        with pytest.raises(ConfigError, match="set the environment variable KEY"):
            tiles(source(server.address + "/wmts.xml?api=${KEY}"), tmp_path / "out")
        assert not server.asked


def test_terms_hold_for_the_server_of_the_tiles_too(tmp_path):
    """A document that lies on this disk may lead to a provider that forbids bulk download."""
    file = tmp_path / "kept.xml"
    file.write_text(capabilities(MERCATOR, rest="https://services.arcgisonline.com" + PATH))
    with pytest.raises(ConfigError, match="terms of Esri's basemaps forbid this"):
        tiles(source(file), tmp_path / "out")
    box = shapely.box(*BOX)
    allowed = source(file, permission="A. Person, letter of 2026-01-01")
    assert order_wmts(allowed, box, tmp_path / "cache").tiles


def test_a_kept_document_serves_as_well_as_an_address(tmp_path, raster):
    with serving(served(raster, MERCATOR, rest_document)) as server:
        assert isinstance(server, Server)
        (tmp_path / "kept.xml").write_text(rest_document(server.address))
        tiles(source(tmp_path / "kept.xml"), tmp_path / "out")
        assert all(asked.path.endswith(".png") for asked in server.asked)
    assert_colours_lie_right(tmp_path / "out")
