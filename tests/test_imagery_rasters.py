"""Rasters as people have them: VRTs and what they may reach, options, addresses, many sheets."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
from loopback import Answer, serving
from PIL import Image
from raster_files import CORNER, UTM, ground, write_tif

from data_prep.imagery.gdal import open_dataset
from data_prep.imagery.rasters import Reading, inspected
from data_prep.imagery.sources import look_up
from data_prep.tile_jobs import Look
from data_prep.tile_plan import blocks_of
from data_prep.tiles import build_tiles, lay_out
from zoomloc.config import TilesConfig
from zoomloc.errors import ImageryError
from zoomloc.world.pyramid import TilePyramid

VRT = """<VRTDataset rasterXSize="{size}" rasterYSize="{size}"><SRS>{crs}</SRS>
<GeoTransform>{x}, {pixel}, 0, {y}, 0, -{pixel}</GeoTransform>
{bands}</VRTDataset>"""
BAND = """<VRTRasterBand dataType="Byte" band="{band}"{more}><NoDataValue>0</NoDataValue>
<ColorInterp>{colour}</ColorInterp>{sources}</VRTRasterBand>"""
SOURCE = """<ComplexSource><SourceFilename relativeToVRT="{relative}">{file}</SourceFilename>
<SourceBand>{band}</SourceBand><SrcRect xOff="0" yOff="0" xSize="{side}" ySize="{side}"/>
<DstRect xOff="{at}" yOff="{at}" xSize="{side}" ySize="{side}"/><NODATA>0</NODATA>
</ComplexSource>"""


def vrt(path: Path, files, size=600, side=100, relative=1, more="", pixel=1) -> Path:
    """A mosaic with one file at each place (pixels from the corner, along the diagonal)."""
    bands = []
    for band, colour in enumerate(("Red", "Green", "Blue"), 1):
        sources = "".join(
            SOURCE.format(relative=relative, file=file, band=band, side=side, at=at)
            for at, file in files
        )
        bands.append(BAND.format(band=band, colour=colour, sources=sources, more=more))
    x, y = CORNER
    text = VRT.format(size=size, crs=UTM, x=x, y=y, pixel=pixel, bands="".join(bands))
    path.write_text(text, encoding="utf-8")
    return path


def test_a_vrt_mosaic_becomes_tiles_where_it_holds_something(tmp_path):
    write_tif(tmp_path / "a.tif", ground(100, 1))
    write_tif(tmp_path / "b.tif", ground(100, 2))
    mosaic = vrt(tmp_path / "m.vrt", [(0, "a.tif"), (500, "b.tif")])
    sheet = inspected(mosaic)
    assert len(sheet.footprint.geoms) == 2
    summary = build_tiles([mosaic], tmp_path / "out", "a", image_format="png", workers=1)
    alone = build_tiles([tmp_path / "a.tif"], tmp_path / "one", "a", image_format="png", workers=1)
    with TilePyramid.open(summary.imagery) as both, TilePyramid.open(alone.imagery) as one:
        for cell in one.cells(one.max_level):
            mine, theirs = both.tile(cell), one.tile(cell)
            solid = (mine[..., 3] == 255) & (theirs[..., 3] == 255)
            if solid.any():
                assert np.abs(mine[solid].astype(int) - theirs[solid]).max() <= 2


def test_a_sparse_vrt_costs_what_it_holds(tmp_path):
    """100,000 px a side with two small files in it: few blocks, not ten thousand."""
    for name in ("a.tif", "b.tif"):
        write_tif(tmp_path / name, ground(100))
    mosaic = vrt(tmp_path / "m.vrt", [(0, "a.tif"), (99_900, "b.tif")], size=100_000, pixel=0.3)
    plan = lay_out([mosaic], "a", 16.0, 2, (), "", Look(256, "webp", 90), None, None)
    assert 2 <= len(blocks_of(plan)) <= 8


OUTSIDE = {
    "a file elsewhere": lambda tmp: vrt(tmp / "in" / "m.vrt", [(0, tmp / "a.tif")], relative=0),
    "a file above": lambda tmp: vrt(tmp / "in" / "m.vrt", [(0, "../a.tif")]),
    "an address": lambda tmp: vrt(tmp / "in" / "m.vrt", [(0, "/vsicurl/http://x/a")], relative=0),
    "another address": lambda tmp: vrt(tmp / "in" / "m.vrt", [(0, "http://x/a.tif")], relative=0),
    "an archive": lambda tmp: vrt(tmp / "in" / "m.vrt", [(0, "/vsizip/a.zip/a.tif")], relative=0),
    "raw bytes": lambda tmp: vrt(
        tmp / "in" / "m.vrt", [(0, "a.tif")], more=' subClass="VRTRawRasterBand"'
    ),
}


@pytest.mark.parametrize("how", OUTSIDE)
def test_a_vrt_may_not_reach_outside_its_folder(tmp_path, how):
    (tmp_path / "in").mkdir()
    write_tif(tmp_path / "a.tif", ground(100))
    write_tif(tmp_path / "in" / "a.tif", ground(100))
    with pytest.raises(ImageryError, match="outside of its own folder|raw bytes"):
        inspected(OUTSIDE[how](tmp_path))


def test_a_link_out_of_the_folder_is_followed_before_it_is_judged(tmp_path):
    (tmp_path / "in").mkdir()
    write_tif(tmp_path / "a.tif", ground(100))
    (tmp_path / "in" / "b.tif").symlink_to(tmp_path / "a.tif")
    with pytest.raises(ImageryError, match="outside of its own folder"):
        inspected(vrt(tmp_path / "in" / "m.vrt", [(0, "b.tif")]))


def test_a_folder_that_is_named_may_be_reached(tmp_path):
    (tmp_path / "in").mkdir()
    write_tif(tmp_path / "a.tif", ground(100))
    mosaic = vrt(tmp_path / "in" / "m.vrt", [(0, "../a.tif")])
    assert inspected(mosaic, Reading(folders=(tmp_path,))).bands == (1, 2, 3)


def test_a_vrt_within_a_vrt_is_judged_too(tmp_path):
    (tmp_path / "in").mkdir()
    write_tif(tmp_path / "a.tif", ground(100))
    vrt(tmp_path / "in" / "inner.vrt", [(0, "../a.tif")])
    with pytest.raises(ImageryError, match="inner.vrt: names .* outside"):
        inspected(vrt(tmp_path / "in" / "m.vrt", [(0, "inner.vrt")]))


def test_a_vrt_with_python_is_refused(tmp_path):
    write_tif(tmp_path / "a.tif", ground(100))
    mark = tmp_path / "ran"
    path = vrt(tmp_path / "m.vrt", [(0, "a.tif")], more=' subClass="VRTDerivedRasterBand"')
    code = (
        "<PixelFunctionType>f</PixelFunctionType>"
        "<PixelFunctionLanguage>Python</PixelFunctionLanguage>"
        f"<PixelFunctionCode><![CDATA[def f(*a, **k): open({str(mark)!r}, 'w')]]>"
        "</PixelFunctionCode></VRTRasterBand>"
    )
    path.write_text(path.read_text().replace("</VRTRasterBand>", code, 1), encoding="utf-8")
    with pytest.raises(ImageryError, match="runs Python code, which is off"):
        inspected(path)
    assert not mark.exists()


def test_a_vrt_that_describes_a_server_asks_nobody(tmp_path):
    with serving(lambda asked: Answer(b"x")) as server:
        (tmp_path / "s.xml").write_text(
            f"<GDAL_WMS><Service name='TMS'><ServerUrl>{server.address}/${{z}}</ServerUrl>"
            "</Service></GDAL_WMS>"
        )
        with pytest.raises(ImageryError, match="describes a server"):
            inspected(vrt(tmp_path / "m.vrt", [(0, "s.xml")]))
        with pytest.raises(ImageryError, match="not a readable raster"):
            inspected(tmp_path / "s.xml")
        assert not server.asked


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE a [<!ENTITY b "c">]><VRTDataset>&b;</VRTDataset>',
        '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><VRTDataset>&b;</VRTDataset>',
        "<VRTDataset><VRTRasterBand>",
    ],
)
def test_hostile_xml_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "m.vrt").write_text(text)
    with pytest.raises(ImageryError, match="not a readable VRT") as told:
        open_dataset(tmp_path / "m.vrt")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("where", ["/vsimem/a.tif", "/vsistdin/", "/vsisubfile/0_9,/etc/passwd"])
def test_other_file_system_handlers_are_refused(where):
    with pytest.raises(ImageryError, match="not allowed"):
        open_dataset(where)


# 1. options of a source


def seen(tmp_path, **changes) -> list[int]:
    """Colours in the middle of what a source becomes."""
    source = {"kind": "raster", "files": [str(tmp_path / "a.tif")], **changes}
    found = look_up(TilesConfig(sources=(source,)), [], None, tmp_path)
    summary = build_tiles(
        found.sheets, tmp_path / "out", "a", image_format="png", workers=1, tile_px=256
    )
    lat, lng = summary.region.shape().centroid.coords[0][::-1]
    with TilePyramid.open(summary.imagery) as pyramid:
        from zoomloc.world.cells import LatLng

        return pyramid.square(LatLng(lat, lng), 9, 8)[4, 4].tolist()


def flat(*values, dtype=np.uint8):
    return np.stack([np.full((60, 60), v, dtype) for v in values])


def test_near_infrared_may_be_shown(tmp_path):
    write_tif(tmp_path / "a.tif", flat(10, 20, 30, 200), photometric="RGB")
    assert seen(tmp_path) == [10, 20, 30]
    assert seen(tmp_path, bands=(4, 1, 2)) == [200, 10, 20]


def test_a_stated_stretch(tmp_path):
    write_tif(tmp_path / "a.tif", flat(0, 1000, 4000, dtype=np.uint16))
    assert seen(tmp_path, stretch=(0, 2000)) == [0, 128, 255]


def test_a_stated_nodata(tmp_path):
    write_tif(tmp_path / "a.tif", flat(50, 60, 70))
    assert seen(tmp_path) == [50, 60, 70]
    with pytest.raises(ImageryError, match="no tile holds a pixel"):
        seen(tmp_path, nodata=60.0)


def test_a_stated_crs(tmp_path):
    write_tif(tmp_path / "a.tif", flat(50, 60, 70), crs=None)
    with pytest.raises(ImageryError, match="state 'crs: EPSG:CODE'"):
        seen(tmp_path)
    assert seen(tmp_path, crs=UTM) == [50, 60, 70]
    with pytest.raises(ImageryError, match="crs 'EPSG:0' is none"):
        seen(tmp_path, crs="EPSG:0")


def test_bands_that_are_not_there(tmp_path):
    write_tif(tmp_path / "a.tif", flat(50, 60, 70))
    with pytest.raises(ImageryError, match="has 3 bands, not 4"):
        seen(tmp_path, bands=(4, 1, 2))


def test_a_picture_with_a_world_file(tmp_path):
    Image.fromarray(np.moveaxis(flat(50, 60, 70), 0, 2)).save(tmp_path / "a.png")
    x, y = CORNER
    (tmp_path / "a.pgw").write_text(f"1.0\n0\n0\n-1.0\n{x + 0.5}\n{y - 0.5}\n")
    changes = {"files": [str(tmp_path / "a.png")], "crs": UTM}
    assert seen(tmp_path, **changes) == [50, 60, 70]


def test_patterns_name_many_files(tmp_path):
    for i in range(3):
        corner = (CORNER[0] + 100 * i, CORNER[1])
        write_tif(tmp_path / f"sheet{i}.tif", ground(100, i), corner=corner)
    source = {"kind": "raster", "files": [str(tmp_path / "sheet*.tif")]}
    found = look_up(TilesConfig(sources=(source,)), [], None, tmp_path)
    assert [Path(sheet.name).name for sheet in found.sheets] == [f"sheet{i}.tif" for i in range(3)]
    with pytest.raises(ImageryError, match="no file matches"):
        source = {"kind": "raster", "files": [str(tmp_path / "map*.tif")]}
        look_up(TilesConfig(sources=(source,)), [], None, tmp_path)


# 2. several sheets


def test_the_nearest_middle_decides_where_sheets_overlap(tmp_path):
    """Two sheets of one colour each, half over each other: the seam runs in the middle."""
    write_tif(tmp_path / "w.tif", flat(200, 0, 0).repeat(4, 1).repeat(4, 2))
    corner = (CORNER[0] + 120, CORNER[1])
    write_tif(tmp_path / "e.tif", flat(0, 0, 200).repeat(4, 1).repeat(4, 2), corner=corner)
    shares = {}
    for seams in ("order", "centre"):
        summary = build_tiles(
            [tmp_path / "w.tif", tmp_path / "e.tif"],
            tmp_path / seams,
            "a",
            image_format="png",
            workers=1,
            seams=seams,
        )
        with TilePyramid.open(summary.imagery) as pyramid:
            tiles = [pyramid.tile(cell) for cell in pyramid.cells(pyramid.max_level)]
        red = sum(int((t[..., 0] > 150).sum()) for t in tiles)
        blue = sum(int((t[..., 2] > 150).sum()) for t in tiles)
        shares[seams] = red / (red + blue)
    assert shares["order"] == pytest.approx(240 / 360, abs=0.01)
    assert shares["centre"] == pytest.approx(180 / 360, abs=0.01)


def test_a_thousand_sheets_cost_no_more_per_block_than_one(tmp_path):
    """Each block gets the sheets under it, whatever their number."""
    one = inspected(write_tif(tmp_path / "a.tif", ground(64)))
    west, south, east, north = one.footprint.bounds
    sheets = [
        one.within(shapely.box(west + dx, south + dy, east + dx, north + dy))
        for dx in np.arange(40) * (east - west)
        for dy in np.arange(25) * (north - south)
    ]
    plan = lay_out(sheets, "a", 16.0, 2, (), "", Look(256, "webp", 90), None, None)
    blocks = blocks_of(plan)
    deepest = max(map(len, blocks.values()))
    around = (1024 / 64 + 2) ** 2
    assert len(plan.sheets) == 1000 and deepest <= around


@pytest.mark.parametrize("kind", ["whole", "overviews"])
def test_finer_pixels_than_wanted_are_averaged(tmp_path, kind):
    """Stripes of one pixel, 16 times finer than the tiles, become their mean and no moire."""
    import rasterio

    bands = np.full((3, 4000, 4000), 60, np.uint8)
    bands[:, :, ::2] = 180
    path = write_tif(tmp_path / "a.tif", bands, pixel=0.05, tiled=True)
    if kind == "overviews":
        with rasterio.open(path, "r+") as raster:
            raster.build_overviews([2, 4, 8], rasterio.enums.Resampling.average)
    summary = build_tiles([path], tmp_path, "a", image_format="png", workers=1, finest_m=0.8)
    assert 0.5 < summary.gsd_m < 1.2
    with TilePyramid.open(summary.imagery) as pyramid:
        tiles = [pyramid.tile(cell) for cell in pyramid.cells(pyramid.max_level)]
    inside = np.concatenate([t[t[..., 3] == 255][:, 0] for t in tiles]).astype(int)
    off = np.abs(inside - 120)
    assert len(inside) > 10_000 and off.max() <= 10 and off.mean() < 0.5  # stripes are cut at edges


# 3. over HTTP


def test_a_cog_is_read_by_ranges(tmp_path):
    path = write_tif(tmp_path / "a.tif", ground(1500), tiled=True, blockxsize=256, blockysize=256)
    body = path.read_bytes()
    here = build_tiles([path], tmp_path / "here", "a", image_format="png", workers=1)
    with serving(lambda asked: Answer(body, kind="image/tiff")) as server:
        address = f"{server.address}/a.tif?signature=s3cret"
        source = {"kind": "raster", "files": [address]}
        x, y = here.region.shape().centroid.coords[0]
        part = TilesConfig(sources=(source,), bounds=(x - 5e-4, y - 5e-4, x + 5e-4, y + 5e-4))
        asked_for = shapely.box(*part.bounds)
        found = look_up(part, [], asked_for, tmp_path)
        assert "s3cret" not in found.sheets[0].name
        there = build_tiles(
            found.sheets, tmp_path / "there", "a", image_format="png", workers=1, ground=asked_for
        )
        read = [a for a in server.asked if "range" in a.headers]
        assert read, "by ranges"
    with TilePyramid.open(here.imagery) as one, TilePyramid.open(there.imagery) as other:
        for cell in other.cells(other.max_level):
            assert (one.tile(cell) == other.tile(cell)).all()
    for file in (tmp_path / "there").iterdir():
        assert b"s3cret" not in file.read_bytes()


@pytest.mark.parametrize("fault", ["500", "html"])
def test_a_raster_that_a_server_does_not_give_is_told(tmp_path, fault):
    def handler(asked):
        if fault == "500":
            return Answer(b"", 500)
        return Answer(b"<html>log in</html>" * 50, kind="text/html")

    with serving(handler) as server:
        code = (
            "import sys\nfrom data_prep.imagery.gdal import OPTIONS\n"
            "OPTIONS['GDAL_HTTP_MAX_RETRY'] = '0'\n"  # each would wait a second, then two, ...
            "from data_prep.imagery.rasters import inspected\n"
            "inspected(sys.argv[1], stamp='x')\n"
        )
        found = subprocess.run(
            [sys.executable, "-c", code, f"{server.address}/a.tif?key=s3cret"],
            capture_output=True,
            text=True,
            env=os.environ | {"CPL_DEBUG": "OFF"},
        )
    last = found.stderr.strip().splitlines()[-1]
    assert "ImageryError" in last and "not a readable raster" in last and "s3cret" not in last
