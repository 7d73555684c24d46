"""STAC: recorded answers replayed on loopback, rasters behind them read by ranges.

Recordings are those of $ZOOMLOC_REAL_DATA/stac-api-recordings (Planetary Computer, Earth Search);
their addresses are rewritten to loopback. All other servers and items here are made up, and so are
the GeoTIFFs behind all of them: small and tiled, where the items say that they lie.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import rasterio
import shapely
from loopback import Answer, Asked, serving
from pyproj import Transformer
from raster_files import CORNER, UTM, ground, write_tif

from data_prep.imagery import stac
from data_prep.imagery.stac import open_stac
from data_prep.tiles import PYRAMID_NAME
from zoomloc.cli.screen import Screen
from zoomloc.cli.tiling import make_tiles
from zoomloc.config import TilesConfig
from zoomloc.config.imagery import StacSource
from zoomloc.errors import ConfigError, ImageryError
from zoomloc.world.cells import LatLng
from zoomloc.world.pyramid import TilePyramid

CREDIT = {"attribution": "Made up by a test", "licence": "CC0-1.0"}
SIDE = 300  # pixels and metres of a raster
QUERY = "https://api.stacspec.org/v1.0.0/item-search#query"
SEARCH = "https://api.stacspec.org/v1.0.0/item-search"
TOKEN = "st=2026-01-01T00%3A00%3A00Z&sp=rl&sr=c&sig=s3cr3t%2Ft0ken%3D"


def source(url: str, collection: str = "town", **more) -> StacSource:
    words = {"kind": "stac", "url": url, "collection": collection, "retries": 1, **CREDIT, **more}
    return StacSource.model_validate(words)


def tiles(asked: StacSource, bounds: tuple[float, ...], out: Path, **more) -> None:
    words = {"sources": [asked], "bounds": bounds, "image_format": "png", **more}
    screen = Screen(quiet=True)
    make_tiles(TilesConfig.model_validate(words), [], out, "town", 1, screen)


def geotiff(
    folder: Path, bands: np.ndarray, crs: str = UTM, corner=CORNER, pixel: float = 1.0
) -> bytes:
    """Tiled and compressed, as cloud-optimized ones are."""
    layout = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}
    return write_tif(folder / "made.tif", bands, crs, corner, pixel, **layout).read_bytes()


def box_of(crs: str, west: float, south: float, east: float, north: float) -> tuple[float, ...]:
    """A box in degrees that lies within one of some CRS."""
    to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    lng, lat = to_degrees.transform([west, west, east, east], [south, north, south, north])
    return max(lng[:2]), max(lat[::2]), min(lng[2:]), min(lat[1::2])


def box_within(margin: float) -> tuple[float, ...]:
    x, y = CORNER
    return box_of(UTM, x + margin, y - SIDE + margin, x + SIDE - margin, y - margin)


BOX = box_within(50)
AROUND = shapely.box(*box_within(-20))


def item(name: str, day: str = "2024-05-01", href: str = "", **properties) -> dict[str, Any]:
    """A STAC item over the town whose asset lies at /data/NAME.tif, made up."""
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": name,
        "collection": "town",
        "geometry": shapely.geometry.mapping(AROUND),
        "bbox": list(AROUND.bounds),
        "properties": {"datetime": f"{day}T10:00:00Z", **properties},
        "links": [],
        "assets": {"image": {"href": href or f"{{address}}/data/{name}.tif"}},
    }


def features(items: list[Any], *links: dict[str, Any]) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": items, "links": [*links]}


@dataclass
class Api:
    """A STAC API at /stac, made up: it finds all its items, whatever it is asked."""

    items: list[Any]
    files: dict[str, bytes] = field(default_factory=dict)  # by path
    page: int = 10
    conforms: tuple[str, ...] = (SEARCH, QUERY)
    methods: tuple[str, ...] = ("GET", "POST")

    def __call__(self, asked: Asked) -> Answer:
        address, path = f"http://{asked.headers['host']}", urlsplit(asked.path).path
        if path in self.files:
            return Answer(self.files[path])
        if path == "/stac":
            return answer(self.landing(), address)
        if path == "/stac/search" and asked.method in self.methods:
            return answer(self.found(asked), address)
        return Answer(b"", 404)

    def landing(self) -> dict[str, Any]:
        search = {"rel": "search", "href": "{address}/stac/search"}
        links = [{**search, "method": method} for method in self.methods]
        said = {"type": "Catalog", "stac_version": "1.0.0", "id": "made-up", "description": "-"}
        return {**said, "links": links, "conformsTo": [*self.conforms]}

    def found(self, asked: Asked) -> dict[str, Any]:
        first = json.loads(asked.body).get("token", 0) if asked.body else 0
        after = first + self.page
        search = {"rel": "next", "href": "{address}/stac/search", "method": "POST"}
        more = [{**search, "body": {"token": after}}] if after < len(self.items) else []
        return features(self.items[first:after], *more)


def answer(document: Any, address: str) -> Answer:
    text = json.dumps(document).replace("{address}", address)
    return Answer(text.encode(), kind="application/geo+json")


@pytest.fixture
def raster(tmp_path) -> bytes:
    return geotiff(tmp_path, ground(SIDE))


def flat(folder: Path, value: int) -> bytes:
    return geotiff(folder, np.full((3, SIDE, SIDE), value, np.uint8))


def assert_colours_lie_right(out: Path, bands: np.ndarray, crs: str, corner, most=(2, 6)) -> None:
    """At places all over the box the pyramid shows what the raster holds there."""
    to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    wrong = []
    with TilePyramid.open(out / PYRAMID_NAME) as pyramid:
        for column, row in np.random.default_rng(0).integers(55, SIDE - 55, (40, 2)):
            lng, lat = to_degrees.transform(corner[0] + column + 0.5, corner[1] - row - 0.5)
            seen = pyramid.square(LatLng(lat, lng), 1.0, 8)[4, 4].astype(int)
            wrong.append(np.abs(seen - bands[:, row, column]).max())
    assert np.median(wrong) <= most[0] and max(wrong) <= most[1]


def middle_colour(out: Path) -> int:
    with TilePyramid.open(out / PYRAMID_NAME) as pyramid:
        lng, lat = AROUND.centroid.coords[0]
        return int(pyramid.square(LatLng(lat, lng), 20.0, 8)[..., 0].mean().round())


# 1. recorded answers

PAGES = "TestItemSearch_test_result_paging_max_items"  # 30 NAIP items of the Planetary Computer
ONE = "TestItemSearch_test_ids_results"  # a NAIP item of the Planetary Computer
TWO = "test_multiple_collections"  # a Sentinel-2 and a Landsat item of Earth Search
DEM = "TestCLISearch_test_save_inprocess_"  # Earth Search's landing page
HOSTS = {
    "https://planetarycomputer.microsoft.com": "",
    "https://naipeuwest.blob.core.windows.net": "/blob",
    "https://earth-search.aws.element84.com": "",
    "https://sentinel-cogs.s3.us-west-2.amazonaws.com": "/cogs",
}


class Replay:
    """Recorded answers by request; made up is only what no recording has: landing page, token."""

    def __init__(self, real_data: Path, recording: str, raster: Callable[[dict], bytes]) -> None:
        folder = real_data / "stac-api-recordings" / recording
        self.pages: dict[str, str] = {}
        self.rasters: dict[str, bytes] = {}
        self.signed = True  # whether rasters are given for the token alone
        self.landing = (folder.parent / DEM / "00.json").read_text()
        for index in json.loads((folder / "index.json").read_text()):
            text = (folder / index["file"]).read_text()
            asked = json.loads(index["request_body"])
            self.pages[asked.get("token", asked.get("next", ""))] = text
            for found in json.loads(text)["features"]:
                hrefs = {asset["href"] for asset in found["assets"].values()}
                for href in sorted(h for h in hrefs if h.endswith(".tif")):
                    self.rasters[urlsplit(rewritten(href, "http://here")).path] = raster(found)

    def __call__(self, asked: Asked) -> Answer:
        address, url = f"http://{asked.headers['host']}", urlsplit(asked.path)
        if url.path in ("/api/stac/v1", "/v1"):
            text = rewritten(self.landing, address)
            return Answer(text.replace("/v1/search", url.path + "/search").encode())
        if url.path.endswith("/search"):
            said = json.loads(asked.body)
            text = self.pages.get(said.get("token", said.get("next", "")), '{"features": []}')
            return Answer(rewritten(text, address).encode(), kind="application/geo+json")
        if url.path == "/api/sas/v1/token/naip":
            return Answer(json.dumps({"msft:expiry": "2099", "token": TOKEN}).encode())
        if url.path in self.rasters:
            fine = url.query == TOKEN or not self.signed
            return Answer(self.rasters[url.path]) if fine else Answer(b"", 403)
        return Answer(b"", 404)


def rewritten(text: str, address: str) -> str:
    for host, path in HOSTS.items():
        text = text.replace(host, address + path)
    return text


def searches(server) -> list[dict[str, Any]]:
    return [json.loads(a.body) for a in server.asked if a.path.endswith("/search")]


def thumbnail_of(folder: Path) -> Callable[[dict], bytes]:
    """A raster of 64 pixels across where an item lies."""

    def made(found: dict[str, Any]) -> bytes:
        west, south, east, north = found["properties"]["proj:bbox"]
        pixel = (east - west) / 64
        bands = ground(128)[:, : int((north - south) / pixel), :64]
        crs = f"EPSG:{found['properties']['proj:epsg']}"
        return geotiff(folder, bands, crs, (west, north), pixel)

    return made


PC = {"sign": "planetary-computer"}
MONTANA = shapely.box(-116.2, 45.0, -113.1, 49.2)


def test_all_pages_of_the_planetary_computer_are_followed(tmp_path, real_data):
    replay = Replay(real_data, PAGES, thumbnail_of(tmp_path))
    with serving(replay) as server:
        sheets = open_stac(source(server.address + "/api/stac/v1", "naip", **PC), MONTANA)
        tokens = [said.get("token", "") for said in searches(server)]
    assert tokens[:3] == list(replay.pages) and len(tokens) == 4  # the fourth page is empty
    recorded = [f for text in replay.pages.values() for f in json.loads(text)["features"]]
    assert len({sheet.name for sheet in sheets}) == len(recorded) == 30
    by_file = {urlsplit(sheet.name).path.rsplit("/", 1)[1]: sheet for sheet in sheets}
    for found in recorded:
        file = found["assets"]["image"]["href"].rsplit("/", 1)[1]
        outline = shapely.geometry.shape(found["geometry"])
        shared = by_file[file].footprint.intersection(outline).area
        assert shared > 0.97 * outline.area, "each raster is that of its item"


def test_items_beside_the_region_are_not_opened(tmp_path, real_data):
    with serving(Replay(real_data, PAGES, thumbnail_of(tmp_path))) as server:
        url = server.address + "/api/stac/v1"
        sheets = open_stac(source(url, "naip", **PC), shapely.box(-116.03, 49.01, -116.01, 49.02))
        opened = {urlsplit(a.path).path for a in server.asked if "/blob/" in a.path}
    assert [sheet.name.rsplit("/", 1)[1] for sheet in sheets] == [
        "m_4911664_se_11_060_20231117_20240103.tif"
    ]
    assert len(opened) == 1


def florida(folder: Path, bands: np.ndarray) -> tuple[Callable[[dict], bytes], tuple, tuple]:
    """A raster in the middle of the one item, its corner, and a box within it in degrees."""
    corner, crs = (540_000.0, 2_983_000.0), "EPSG:26917"
    west, south = corner[0] + 50, corner[1] - SIDE + 50
    box = box_of(crs, west, south, west + SIDE - 100, south + SIDE - 100)
    return lambda _: geotiff(folder, bands, crs, corner), corner, box


def test_a_signed_item_becomes_a_pyramid_whose_colours_lie_right(tmp_path, real_data, capsys):
    bands, out = ground(SIDE), tmp_path / "out"
    made, corner, box = florida(tmp_path, bands)
    with serving(Replay(real_data, ONE, made)) as server:
        asked = source(server.address + "/api/stac/v1", "naip", **PC)
        words = {"sources": [asked], "bounds": box, "image_format": "png"}
        make_tiles(TilesConfig.model_validate(words), [], out, "town", 1, Screen())
        blobs = [a for a in server.asked if "/blob/" in a.path]
        assert blobs and all(urlsplit(a.path).query == TOKEN for a in blobs)
        assert all("range" in a.headers for a in blobs if a.method == "GET")
    assert_colours_lie_right(out, bands, "EPSG:26917", corner)
    with TilePyramid.open(out / PYRAMID_NAME) as pyramid:
        assert pyramid.metadata["attribution"] == CREDIT["attribution"]
        assert pyramid.metadata["sources"] == ["m_2608004_nw_17_060_20191215.tif"]
    printed = capsys.readouterr()
    assert_not_told(printed.out + printed.err, out, TOKEN, "s3cr3t")


def assert_not_told(told: str, out: Path, *secrets: str) -> None:
    written = b"".join(file.read_bytes() for file in out.rglob("*") if file.is_file())
    for secret in secrets:
        assert secret not in told and secret.encode() not in written


@pytest.mark.parametrize("fault", ["refused at once", "refused later", "damaged"])
def test_a_token_is_in_no_message_of_a_fault(tmp_path, real_data, fault):
    made, _, box = florida(
        tmp_path, np.random.default_rng(0).integers(0, 255, (3, SIDE, SIDE), np.uint8)
    )
    replay = Replay(real_data, ONE, made)
    fine = dict(replay.rasters)

    def handler(asked: Asked) -> Answer:
        blob = "/blob/" in asked.path
        later = blob and asked.headers.get("range", "").startswith("bytes=") and asked.number > 2
        if blob and (fault == "refused at once" or (fault == "refused later" and later)):
            return Answer(b"<Error>AuthenticationFailed</Error>", 403)
        return replay(asked)

    if fault == "damaged":  # its head is whole, so that only its pixels cannot be read
        replay.rasters = {k: v[:2000] + bytes(len(v) - 2000) for k, v in fine.items()}
    with serving(handler) as server:
        asked = source(server.address + "/api/stac/v1", "naip", **PC)
        with pytest.raises(ImageryError, match="m_2608004_nw_17_060_20191215.*tif: ") as caught:
            tiles(asked, box, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / PYRAMID_NAME).exists()
    assert_not_told(str(caught.value), tmp_path / "out", TOKEN, "s3cr3t")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"msft:expiry": "2099"}', b""])
def test_no_token_is_told(tmp_path, real_data, body):
    replay = Replay(real_data, ONE, florida(tmp_path, ground(SIDE))[0])

    def handler(asked: Asked) -> Answer:
        return Answer(body, 200 if body else 404) if "/sas/" in asked.path else replay(asked)

    with serving(handler) as server:
        asked = source(server.address + "/api/stac/v1", "naip", **PC)
        with pytest.raises(ImageryError, match="/api/sas/v1/token/naip: gives no token; run again"):
            open_stac(asked, shapely.box(-80.62, 26.94, -80.57, 27.0))


COLORADO = shapely.box(-105.11, 40.16, -105.09, 40.18)


def colorado(folder: Path) -> Callable[[dict], bytes]:
    corner = (487_000.0, 4_450_000.0)  # UTM 13N, within both items
    return lambda _: geotiff(folder, ground(64), "EPSG:32613", corner, 100.0)


@pytest.mark.parametrize(
    ("asset", "file"),
    [
        ("visual", "TCI.tif"),
        ("red", "B04.tif"),  # not rededge1, which comes no later
        ("swir2*", "B12.tif"),
        ("B0[23].tif", "B02.tif"),
        ("*/TCI.tif", None),
        ("lwir11", None),
    ],
)
def test_an_asset_is_found_by_name_or_pattern(tmp_path, real_data, asset, file):
    replay = Replay(real_data, TWO, colorado(tmp_path))
    replay.signed = False
    page = json.loads(replay.pages[""])
    page["features"] = [f for f in page["features"] if f["collection"] == "sentinel-2-l2a"]
    replay.pages[""] = json.dumps(page)
    with serving(replay) as server:
        asked = source(server.address + "/v1", "sentinel-2-l2a", asset=asset)
        if file is None:
            told = "item S2A_13TDE_20231008_0_L2A has no asset .*; it has aot, aot-jp2, blue"
            with pytest.raises(ImageryError, match=told) as caught:
                open_stac(asked, COLORADO)
            assert "\n" not in str(caught.value) and asset in str(caught.value)
            return
        (sheet,) = open_stac(asked, COLORADO)
        assert sheet.name.endswith("/S2A_13TDE_20231008_0_L2A/" + file)
        assert searches(server)[0]["collections"] == ["sentinel-2-l2a"]


def test_a_name_comes_before_a_file_of_that_name(raster):
    found = item("a")
    found["assets"] = {"visual": {"href": "{address}/data/image"}, **found["assets"]}
    with serving(Api([found], {"/data/a.tif": raster, "/data/image": raster})) as server:
        (sheet,) = open_stac(source(server.address + "/stac"), AROUND)
        assert sheet.name.endswith("/data/a.tif")
        (sheet,) = open_stac(source(server.address + "/stac", asset="imag[e]"), AROUND)
        assert sheet.name.endswith("/data/a.tif")
        (sheet,) = open_stac(source(server.address + "/stac", asset="vis*"), AROUND)
        assert sheet.name.endswith("/data/image")


def test_assets_in_buckets_are_read_as_gdal_reads_them(tmp_path, real_data, monkeypatch):
    """s3:// of a recorded item, by GDAL's own S3 reader, whose endpoint is loopback."""
    replay = Replay(real_data, TWO, colorado(tmp_path))
    key = "/usgs-landsat/collection02/level-2/standard/oli-tirs/2023/033/032/"
    key += "LC08_L2SP_033032_20231008_20231017_02_T1/LC08_L2SP_033032_20231008_20231017_02_T1_"
    replay.rasters[key + "SR_B4.TIF"] = colorado(tmp_path)({})
    replay.signed = False
    page = json.loads(replay.pages[""])
    page["features"] = [f for f in page["features"] if f["collection"] == "landsat-c2-l2"]
    replay.pages[""] = json.dumps(page)
    with serving(replay) as server:
        settings = {"S3_ENDPOINT": server.address.removeprefix("http://"), "HTTPS": "NO"}
        for name, value in (settings | {"VIRTUAL_HOSTING": "FALSE"}).items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
        (sheet,) = open_stac(source(server.address + "/v1", "landsat-c2-l2", asset="red"), COLORADO)
        assert any(a.path == key + "SR_B4.TIF" for a in server.asked)
    assert sheet.name == f"/vsis3{key}SR_B4.TIF"
    assert sheet.footprint.intersects(COLORADO)


def test_the_newest_of_recorded_items_lies_on_top(tmp_path, real_data):
    """Sentinel-2 of 18:02 over Landsat of 17:37; the region asks both for one file name."""
    replay = Replay(real_data, TWO, colorado(tmp_path))
    replay.signed = False
    text = replay.pages[""].replace("s3://usgs-landsat", "{address}/cogs")
    red = [k for k in replay.rasters if k.endswith("B04.tif")][0]
    landsat = "/cogs/collection02/level-2/standard/oli-tirs/2023/033/032/"
    landsat += "LC08_L2SP_033032_20231008_20231017_02_T1/LC08_L2SP_033032_20231008_20231017_02_T1_"
    replay.rasters[landsat + "SR_B4.TIF"] = replay.rasters[red]
    with serving(replay) as server:
        replay.pages[""] = text.replace("{address}", server.address)
        for newest_on_top in (True, False):
            asked = source(server.address + "/v1", "both", asset="red", newest_on_top=newest_on_top)
            sheets = open_stac(asked, COLORADO)
            first, second = sheets if newest_on_top else sheets[::-1]
            assert "S2A_13TDE_20231008" in first.name and "LC08" in second.name


# 2. searches


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, {}),
        ({"first": "2023-05-01"}, {"datetime": "2023-05-01T00:00:00Z/.."}),
        ({"last": "2023-05-31"}, {"datetime": "../2023-05-31T23:59:59Z"}),
        (
            {"first": "2023-05-01", "last": "2023-05-31", "cloud_cover": 12.5},
            {
                "datetime": "2023-05-01T00:00:00Z/2023-05-31T23:59:59Z",
                "query": {"eo:cloud_cover": {"lte": 12.5}},
            },
        ),
    ],
)
def test_ground_dates_and_clouds_are_sent(raster, asked, expected):
    with serving(Api([item("a")], {"/data/a.tif": raster})) as server:
        open_stac(source(server.address + "/stac", **asked), shapely.box(*BOX))
        (said,) = searches(server)
        assert "zoomloc" in server.asked[0].headers["user-agent"]
    sent = shapely.geometry.shape(said.pop("intersects"))
    assert sent.equals_exact(shapely.box(*BOX), 1e-9) or sent.equals(shapely.box(*BOX))
    assert said == {"collections": ["town"], **expected}


def test_ground_across_180_is_sent_in_two_parts():
    with serving(Api([])) as server:
        with pytest.raises(ImageryError, match="no item of 'town' reaches into the region"):
            open_stac(source(server.address + "/stac"), shapely.box(179.9, -17, 180.2, -16))
        sent = shapely.geometry.shape(searches(server)[0]["intersects"])
    west, _, east, _ = sent.bounds
    assert (west, east) == (-180, 180)
    assert sent.area == pytest.approx(0.3)
    assert sent.contains(shapely.Point(-179.9, -16.5))


def test_a_server_that_can_only_be_asked_by_get(raster):
    with serving(Api([item("a")], {"/data/a.tif": raster}, methods=("GET",))) as server:
        (sheet,) = open_stac(source(server.address + "/stac", first="2024-01-01"), AROUND)
        (asked,) = (a for a in server.asked if "/search" in a.path)
    said = parse_qs(urlsplit(asked.path).query)
    assert asked.method == "GET" and said["datetime"] == ["2024-01-01T00:00:00Z/.."]
    assert shapely.geometry.shape(json.loads(said["intersects"][0])).equals(AROUND)


@pytest.mark.parametrize("conforms", [(SEARCH, QUERY), (SEARCH,), ()])
def test_clouds_are_sifted_whatever_the_server_does(raster, conforms):
    clouds = {"a": 5.0, "b": 80.0, "c": 20.0, "d": None}
    items = [item(name, **{"eo:cloud_cover": share}) for name, share in clouds.items()]
    files = {f"/data/{name}.tif": raster for name in clouds}
    with serving(Api(items, files, conforms=conforms)) as server:
        sheets = open_stac(source(server.address + "/stac", cloud_cover=20.0), AROUND)
        assert ("query" in searches(server)[0]) == (QUERY in conforms)
    assert sorted(sheet.name[-5] for sheet in sheets) == ["a", "c", "d"]


def test_the_newest_lies_on_top(tmp_path):
    days = {"old": ("2019-03-01", 50), "new": ("2024-03-01", 200), "between": ("2021-03-01", 120)}
    items = [item(name, day) for name, (day, _) in days.items()]
    files = {f"/data/{name}.tif": flat(tmp_path, value) for name, (_, value) in days.items()}
    with serving(Api(items, files)) as server:
        url = server.address + "/stac"
        tiles(source(url), BOX, tmp_path / "new")
        tiles(source(url, newest_on_top=False), BOX, tmp_path / "old")
    assert middle_colour(tmp_path / "new") == 200
    assert middle_colour(tmp_path / "old") == 50


def test_an_interval_is_as_new_as_its_beginning_and_no_date_is_oldest(raster):
    items = [item("undated"), item("spans"), item("dated", "2020-06-01"), item("garbled", "soon")]
    items[0]["properties"] = {"datetime": None}
    items[1]["properties"] = {"datetime": None, "start_datetime": "2022-01-01T00:00:00+00:00"}
    files = {f"/data/{each['id']}.tif": raster for each in items}
    with serving(Api(items, files)) as server:
        sheets = open_stac(source(server.address + "/stac"), AROUND)
    names = [Path(sheet.name).stem for sheet in sheets]
    assert names[:2] == ["spans", "dated"] and set(names[2:]) == {"undated", "garbled"}


def test_bands_of_a_real_photo_from_the_air(tmp_path, real_data):
    """Near infrared, red and green of a NAIP crop, moved to the town: what is red are plants."""
    crop = next((real_data / "naip-california-cities" / "tiles").glob("claremont_2020_*.tif"))
    with rasterio.open(crop) as dataset:
        bands = dataset.read()
    files = {"/data/a.tif": geotiff(tmp_path, bands, pixel=0.6)}
    x, y = CORNER
    box = box_of(UTM, x + 10, y - 140, x + 140, y - 10)
    with serving(Api([item("a")], files)) as server:
        tiles(source(server.address + "/stac", bands=(4, 1, 2)), box, tmp_path / "out")
    to_degrees = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True)
    theirs, ours = [], []
    with TilePyramid.open(tmp_path / "out" / PYRAMID_NAME) as pyramid:
        for column, row in np.random.default_rng(0).integers(25, 225, (60, 2)):
            lng, lat = to_degrees.transform(x + column * 0.6, y - row * 0.6)
            ours.append(pyramid.square(LatLng(lat, lng), 6.0, 16).mean(axis=(0, 1)))
            around = bands[[3, 0, 1], row - 5 : row + 5, column - 5 : column + 5]
            theirs.append(around.mean(axis=(1, 2)))
    assert np.corrcoef(np.ravel(theirs), np.ravel(ours))[0, 1] > 0.97
    assert np.abs(np.subtract(theirs, ours)).mean() < 5


def test_relative_addresses_are_those_of_the_item(raster):
    found = item("a", href="../../data/a.tif?v=2")
    found["links"] = [{"rel": "self", "href": "{address}/stac/items/a"}]
    with serving(Api([found], {"/data/a.tif": raster})) as server:
        (sheet,) = open_stac(source(server.address + "/stac"), AROUND)
        assert sheet.name == server.address + "/data/a.tif"
        assert sheet.where.endswith("/data/a.tif?v=2")


def test_a_signature_follows_what_an_address_asks_already(raster):
    def handler(asked: Asked) -> Answer:
        if asked.path.startswith("/api/sas"):
            return Answer(json.dumps({"token": TOKEN}).encode())
        return (
            api(asked) if "?" not in asked.path or asked.path.endswith(known) else Answer(b"", 403)
        )

    known = "/data/a.tif?v=2&" + TOKEN
    api = Api([item("a", href="{address}/data/a.tif?v=2")], {"/data/a.tif": raster})
    with serving(handler) as server:
        (sheet,) = open_stac(source(server.address + "/stac", **PC), AROUND)
    assert sheet.where.endswith(known)


# 3. what is refused, and what goes wrong


def test_nothing_found_is_an_error(tmp_path):
    with serving(Api([])) as server:
        with pytest.raises(ImageryError, match="no item of 'town' reaches .*so few clouds; widen"):
            tiles(source(server.address + "/stac"), BOX, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_more_than_most_is_an_error_and_not_a_cut(raster):
    items = [item(f"i{i}") for i in range(12)]
    files = {f"/data/i{i}.tif": raster for i in range(12)}
    with serving(Api(items, files, page=5)) as server:
        url = server.address + "/stac"
        with pytest.raises(ImageryError, match="more than 11 items; take less ground or fewer"):
            open_stac(source(url, most=11), AROUND)
        assert not any("/data/" in asked.path for asked in server.asked), "nothing was opened"
        assert len(open_stac(source(url, most=12), AROUND)) == 12


def test_an_item_without_the_asset_is_an_error(raster):
    bare = item("bare")
    bare["assets"] = {"thumbnail": {"href": "{address}/a.png"}, "visual": {}}
    with serving(Api([item("a"), bare], {"/data/a.tif": raster})) as server:
        told = "/stac: item bare has no asset 'image'; it has thumbnail, visual"
        with pytest.raises(ImageryError, match=told):
            open_stac(source(server.address + "/stac"), AROUND)
        bare["assets"] = {}
        with pytest.raises(ImageryError, match="item bare has no asset 'image'; it has none"):
            open_stac(source(server.address + "/stac"), AROUND)


@pytest.mark.parametrize(
    "href", ["file:///etc/hostname", "/vsicurl/http://10.0.0.1/a.tif", "ftp://a.org/a.tif"]
)
def test_a_server_names_no_file_of_this_machine(href):
    with serving(Api([item("a", href=href)])) as server:
        with pytest.raises(ImageryError, match="item a names|not a readable raster"):
            open_stac(source(server.address + "/stac"), AROUND)
        own = [a.path for a in server.asked if not a.path.startswith("/stac")]
        # a path is one of that server, as in any link
        assert all(path.startswith("/vsicurl/") for path in own)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("path", ["/stac", "/stac/search"])
def test_a_server_that_is_busy_is_asked_again(raster, path, status):
    api = Api([item("a")], {"/data/a.tif": raster})

    def handler(asked: Asked) -> Answer:
        busy = asked.path == path and asked.number == 1
        return Answer(b"", status, headers={"Retry-After": "0"}) if busy else api(asked)

    with serving(handler) as server:
        assert len(open_stac(source(server.address + "/stac"), AROUND)) == 1
        assert [a.path for a in server.asked].count(path) == 2


def test_no_server_makes_us_wait_for_ever(raster, monkeypatch):
    monkeypatch.setattr(stac, "LONGEST_WAIT_S", 0.1)
    begun = time.monotonic()
    api = Api([item("a")], {"/data/a.tif": raster})

    def handler(asked: Asked) -> Answer:
        return Answer(b"", 429, headers={"Retry-After": "20"}) if asked.number == 1 else api(asked)

    with serving(handler) as server:
        assert len(open_stac(source(server.address + "/stac"), AROUND)) == 1
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(("status", "times"), [(500, 2), (403, 1), (404, 1)])
def test_a_refusal_is_told_and_leaves_nothing(tmp_path, status, times):
    again = {"Retry-After": "0"}
    with serving(lambda asked: Answer(b"<html>" * 99, status, headers=again)) as server:
        told = f"/stac: answers {status}; check the address and the key"
        with pytest.raises(ImageryError, match=told) as caught:
            tiles(source(server.address + "/stac"), BOX, tmp_path / "out")
        assert len(server.asked) == times
    assert "\n" not in str(caught.value) and "html" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_server_that_is_gone_is_told(tmp_path):
    with serving(lambda asked: Answer(b"")) as server:
        address = server.address
    for url in (address, "http://no-such-host.invalid"):
        begun = time.monotonic()
        with pytest.raises(ImageryError, match="/stac: cannot be reached: it") as caught:
            open_stac(source(url + "/stac", retries=5), AROUND)
        assert "\n" not in str(caught.value) and time.monotonic() - begun < 5


LANDINGS = {
    "a page": b"<html>busy</html>",
    "cut off": b'{"type": "Catalog", "id": ',
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "empty": b"{}",
    "of no type": b'{"links": []}',
    "no links": b'{"type": "Catalog"}',
    "links of no kind": b'{"type": "Catalog", "links": [1, "a"]}',
    "a search that leads nowhere": b'{"type": "Catalog", "links": [{"rel": "search"}]}',
    "features": b'{"type": "FeatureCollection", "features": []}',
    "not utf-8": b'{"type": "\xff"}',
    "deep": b"[" * 200_000,
}


@pytest.mark.parametrize("kind", LANDINGS)
def test_a_garbled_landing_page_is_told_in_one_line(kind):
    with serving(lambda asked: Answer(LANDINGS[kind])) as server:
        with pytest.raises(ImageryError, match="/stac: (gives no STAC answer|no item)") as caught:
            open_stac(source(server.address + "/stac", retries=0), AROUND)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def without(key: str) -> dict[str, Any]:
    found = item("a")
    del found[key]
    return found


FOUND = {
    "a page": b"<html>busy</html>",
    "null": None,
    "a list": [],
    "features of no kind": features([1]),
    "no list": {"features": "none"},
    "no id": features([without("id")]),
    "no properties": features([without("properties")]),
    "no assets": features([without("assets")]),
    "assets of no kind": features([{**item("a"), "assets": {"image": "a.tif"}}]),
    "a garbled outline": features([{**item("a"), "geometry": {"type": "Polygon"}}]),
    "an outline of no kind": features([{**item("a"), "geometry": {"type": "Star"}}]),
    "an outline of one point": features(
        [{**item("a"), "geometry": {"type": "Polygon", "coordinates": [[[1, 2]]]}}]
    ),
    "clouds in words": features([item("a", **{"eo:cloud_cover": "many"})]),
    "no outline": features([{**item("a"), "geometry": None}]),
}


@pytest.mark.parametrize("kind", FOUND)
def test_a_garbled_answer_is_told_in_one_line(kind):
    api, body = Api([]), FOUND[kind]

    def handler(asked: Asked) -> Answer:
        if asked.path != "/stac/search":
            return api(asked)
        return Answer(body) if isinstance(body, bytes) else answer(body, server.address)

    with serving(handler) as server:
        with pytest.raises(ImageryError, match="/stac: (gives no STAC answer|no item)") as caught:
            open_stac(source(server.address + "/stac", retries=0, cloud_cover=20), AROUND)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def test_one_collection_of_an_api_is_not_walked():
    links = [{"rel": "items", "href": "{address}/stac/collections/town/items"}]
    said = {"type": "Collection", "id": "town", "stac_version": "1.0.0", "links": links}
    with serving(lambda asked: answer(said, server.address)) as server:
        with pytest.raises(ImageryError, match="a server that can search; give the server's own"):
            open_stac(source(server.address + "/stac/collections/town"), AROUND)
        assert len(server.asked) == 1


def test_a_key_in_a_header_reaches_the_server_and_nothing_else(tmp_path, raster, monkeypatch):
    secret = "s3cr3t-key-0817"
    monkeypatch.setenv("TOWN_KEY", secret)
    api = Api([item("a")], {"/data/a.tif": raster})

    def handler(asked: Asked) -> Answer:
        own = asked.path.startswith("/data/")
        return api(asked) if own or asked.headers.get("x-key") == secret else Answer(b"", 401)

    with serving(handler) as server:
        url = server.address + "/stac"
        tiles(source(url, headers={"X-Key": "${TOWN_KEY}"}), BOX, tmp_path / "out")
        with pytest.raises(ImageryError, match=r"/stac\?k=\$\{TOWN_KEY\}: answers 401") as caught:
            tiles(source(url + "?k=${TOWN_KEY}"), BOX, tmp_path / "out")
    assert_not_told(str(caught.value), tmp_path / "out", secret)
    assert_colours_lie_right(tmp_path / "out", ground(SIDE), UTM, CORNER)
    monkeypatch.delenv("TOWN_KEY")
    with pytest.raises(ConfigError, match="set the environment variable TOWN_KEY"):
        tiles(source(url, headers={"X-Key": "${TOWN_KEY}"}), BOX, tmp_path / "out")


# 4. static catalogs


def static(raster: bytes) -> dict[str, bytes]:
    """A catalog, its collection, and items that a search would or would not find, made up."""
    far = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    items = {
        "good": item("good", "2024-05-01", **{"eo:cloud_cover": 3}),
        "early": item("early", "2019-05-01", **{"eo:cloud_cover": 3}),
        "late": item("late", "2025-05-01", **{"eo:cloud_cover": 3}),
        "cloudy": item("cloudy", "2024-05-01", **{"eo:cloud_cover": 90}),
        "far": {**item("far", "2024-05-01"), "geometry": far, "bbox": [0, 0, 1, 1]},
        "nowhere": {**item("nowhere", "2024-05-01"), "geometry": None},
    }
    for name, found in items.items():
        found["assets"]["image"]["href"] = f"./{name}.tif"
        up = {"rel": "collection", "href": "../collection.json"}
        found["links"] = [up, {"rel": "root", "href": "../../catalog.json"}]
    extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
    said = {"stac_version": "1.0.0", "description": "-"}
    collection = {**said, "type": "Collection", "id": "town", "license": "CC0-1.0"}
    collection |= {"extent": extent, "links": [{"rel": "root", "href": "../catalog.json"}]}
    collection["links"] += [{"rel": "item", "href": f"./{n}/{n}.json"} for n in items]
    catalog = {**said, "type": "Catalog", "id": "made-up"}
    catalog["links"] = [{"rel": "child", "href": "./town/collection.json"}]
    pages = {"/catalog.json": catalog, "/town/collection.json": collection}
    pages |= {f"/town/{name}/{name}.json": found for name, found in items.items()}
    texts = {path: json.dumps(page).encode() for path, page in pages.items()}
    return texts | {f"/town/{name}/{name}.tif": raster for name in items}


def files_served(files: dict[str, bytes]) -> Callable[[Asked], Answer]:
    return lambda asked: Answer(files[asked.path]) if asked.path in files else Answer(b"", 404)


LIKED = {"first": "2020-01-01", "last": "2024-12-31", "cloud_cover": 20}


@pytest.mark.parametrize("path", ["/catalog.json", "/town/collection.json"])
def test_a_static_catalog_is_walked_and_becomes_a_pyramid(tmp_path, raster, path):
    with serving(files_served(static(raster))) as server:
        tiles(source(server.address + path, **LIKED), BOX, tmp_path / "out")
        assert all(a.method in ("GET", "HEAD") for a in server.asked)
        opened = {a.path for a in server.asked if a.path.endswith(".tif")}
    assert opened == {"/town/good/good.tif"}
    assert_colours_lie_right(tmp_path / "out", ground(SIDE), UTM, CORNER)


def test_a_static_catalog_on_this_disk(tmp_path, raster):
    for path, body in static(raster).items():
        file = tmp_path / "catalog" / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
    (sheet,) = open_stac(source(str(tmp_path / "catalog" / "catalog.json"), **LIKED), AROUND)
    assert sheet.name == str(tmp_path / "catalog" / "town" / "good" / "good.tif")
    with pytest.raises(ImageryError, match="none.json: gives no STAC answer .FileNotFoundError"):
        open_stac(source(str(tmp_path / "none.json")), AROUND)


def test_other_collections_of_a_catalog_are_left_out(raster):
    with serving(files_served(static(raster))) as server:
        with pytest.raises(ImageryError, match="no item of 'village' reaches into the region"):
            open_stac(source(server.address + "/catalog.json", "village", **LIKED), AROUND)


def test_a_static_catalog_with_more_than_most(raster):
    with serving(files_served(static(raster))) as server:
        url = server.address + "/catalog.json"
        with pytest.raises(ImageryError, match="more than 3 items"):
            open_stac(source(url, most=3), AROUND)
        assert len(open_stac(source(url, most=4), AROUND)) == 4


@pytest.mark.parametrize("href", ["./catalog.json", "./town/gone.json", "file:///etc/hostname"])
def test_a_catalog_that_leads_nowhere_is_told(raster, href):
    files = static(raster)
    catalog = json.loads(files["/catalog.json"])
    catalog["links"].append({"rel": "child", "href": href})
    files["/catalog.json"] = json.dumps(catalog).encode()
    with serving(files_served(files)) as server:
        with pytest.raises(
            ImageryError, match="/catalog.json: (gives no STAC|answers 404)"
        ) as told:
            open_stac(source(server.address + "/catalog.json", retries=0), AROUND)
        assert len(server.asked) < 50
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("relation", "file"), [("child", "catalog.json"), ("item", "good.json")])
def test_a_servers_catalog_reads_no_file_of_this_machine(tmp_path, raster, relation, file):
    """What it names is there and would do."""
    for path, body in static(raster).items():
        (tmp_path / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path[1:]).write_bytes(body)
    (there,) = tmp_path.rglob(file)
    catalog = {"type": "Catalog", "id": "made-up", "stac_version": "1.0.0", "description": "-"}
    catalog["links"] = [{"rel": relation, "href": str(there)}]
    with serving(lambda asked: answer(catalog, "")) as server:
        with pytest.raises(ImageryError, match="json: gives no STAC answer"):
            open_stac(source(server.address + "/catalog.json"), AROUND)
