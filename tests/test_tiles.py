"""tiles: rasters become a pyramid in the right place, resumable, and bad ones are refused."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import shapely
from pyproj import Transformer
from raster_files import CORNER, UTM, ground, noise, write_tif
from shapely.geometry import Point

from data_prep import tiles as tiles_module
from data_prep.imagery.rasters import inspected
from data_prep.tile_jobs import averaged
from data_prep.tiles import PYRAMID_NAME, REGION_NAME, SCRATCH_NAME, build_tiles
from zoomloc.cli.screen import Screen
from zoomloc.cli.tiling import make_tiles
from zoomloc.config import TilesConfig
from zoomloc.errors import ImageryError, OutputError, RegionError
from zoomloc.world.cells import Bounds, LatLng, cell_at, geod
from zoomloc.world.coverage import Coverage
from zoomloc.world.pyramid import FILL, TilePyramid
from zoomloc.world.region import Region


def place_of(x: float, y: float, crs: str = UTM) -> LatLng:
    lng, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    return LatLng(lat, lng)


def all_tiles(path: Path) -> dict:
    with TilePyramid.open(path) as pyramid:
        return {c: pyramid._store.read(c) for z in pyramid.levels for c in pyramid.cells(z)}


@pytest.fixture
def built(tmp_path):
    """A pyramid of 400 m in lossless tiles, and its raster."""
    raster = write_tif(tmp_path / "ortho.tif", ground(400))
    summary = build_tiles([raster], tmp_path / "out", "town", image_format="png", workers=1)
    with TilePyramid.open(summary.imagery) as pyramid:
        yield summary, pyramid


# 1. what is built


def test_the_deepest_level_has_the_rasters_pixel(built):
    summary, pyramid = built
    assert 1 / 1.5 < summary.gsd_m / 1.0 < 1.5
    assert pyramid.max_level == summary.max_level == 17
    assert pyramid.min_level == summary.min_level <= summary.region.root_level
    assert pyramid.levels == list(range(pyramid.min_level, pyramid.max_level + 1))
    assert summary.tile_count == sum(len(pyramid.cells(z)) for z in pyramid.levels)


def test_colours_lie_where_the_raster_has_them(built):
    summary, pyramid = built
    bands = ground(400)
    wrong = []
    for column, row in np.random.default_rng(0).integers(10, 390, (40, 2)):
        place = place_of(CORNER[0] + column + 0.5, CORNER[1] - row - 0.5)
        seen = pyramid.square(place, 1.0, 8)[4, 4].astype(int)
        wrong.append(np.abs(seen - bands[:, row, column]).max())
    assert np.median(wrong) <= 2 and max(wrong) <= 6


@pytest.mark.parametrize("rotation_deg", [0, 60, 250])
def test_a_mark_on_the_raster_is_seen_at_its_bearing(tmp_path, rotation_deg):
    bands = np.full((3, 300, 300), 60, np.uint8)
    bands[:, 98:103, 198:203] = 250  # 50 m east and 50 m north of the middle, on the grid
    raster = write_tif(tmp_path / "a.tif", bands)
    summary = build_tiles([raster], tmp_path / "out", "a", image_format="png", workers=1)
    center = place_of(CORNER[0] + 150, CORNER[1] - 150)
    mark = place_of(CORNER[0] + 200.5, CORNER[1] - 100.5)
    bearing_deg, _, metres = geod().inv(center.lng, center.lat, mark.lng, mark.lat)
    with TilePyramid.open(summary.imagery) as pyramid:
        seen = pyramid.square(center, 200, 400, rotation_deg)[..., 0].astype(float)
    weight = np.where(seen > 150, seen - 60, 0)
    at = np.arange(400) + 0.5 - 200
    turned = np.radians(bearing_deg - rotation_deg)
    assert weight.sum(0) @ at / weight.sum() / 2 == pytest.approx(metres * np.sin(turned), abs=0.4)
    assert weight.sum(1) @ at / weight.sum() / 2 == pytest.approx(-metres * np.cos(turned), abs=0.4)


def test_parents_are_the_mean_of_their_children(built):
    _, pyramid = built
    checked = 0
    for level in range(pyramid.min_level, pyramid.max_level):
        for cell in pyramid.cells(level):
            whole = np.zeros((512, 512, 4), np.float64)
            for choice, child in enumerate(cell.descendants()):
                tile = pyramid.tile(child)
                if tile is not None:
                    row, column = divmod(choice, 2)
                    whole[row * 256 :, column * 256 :][:256, :256] = tile
            parts = whole.reshape(256, 2, 256, 2, 4)
            alpha = parts[..., 3:].sum(axis=(1, 3))
            colours = (parts[..., :3] * parts[..., 3:]).sum(axis=(1, 3)) / np.maximum(alpha, 1)
            tile = pyramid.tile(cell).astype(float)
            held = alpha[..., 0] >= 4
            assert np.abs(tile[..., :3] - colours)[held].max() <= 0.51
            assert np.abs(tile[..., 3:] - alpha / 4).max() <= 0.51
            checked += 1
    assert checked >= 5


def test_averaging_weights_colours_by_alpha():
    pixels = np.array([[[200, 0, 0, 255], [0, 0, 0, 0]], [[100, 0, 0, 255], [0, 0, 0, 0]]])
    assert averaged(pixels.astype(np.uint8)).tolist() == [[[150, 0, 0, 128]]]
    opaque = noise(64, 0, 4)
    opaque[..., 3] = 255
    expected = opaque.reshape(32, 2, 32, 2, 4).mean(axis=(1, 3))
    assert np.abs(averaged(opaque) - expected).max() <= 0.5


def test_the_region_is_the_footprint(built):
    summary, pyramid = built
    region = Region.load(summary.region_file)
    assert region == summary.region
    corners = [place_of(CORNER[0] + x, CORNER[1] - y) for x in (0, 400) for y in (0, 400)]
    for place in corners:
        edge = region.shape().boundary.distance(Point(place.lng, place.lat)) * 111_320
        assert edge < 0.01
    area = region.shape().area * 111_320**2 * np.cos(np.radians(45.15))
    assert area == pytest.approx(160_000, rel=0.01)
    coverage = Coverage.of(region, pyramid)
    assert coverage.leaves.sum() * region.cell_size_m**2 == pytest.approx(160_000, rel=0.1)
    center = place_of(CORNER[0] + 200, CORNER[1] - 200)
    row, column = region.row_column(region.path(center)[-1])
    assert coverage.leaves[row, column]


def test_metadata_tells_whose_imagery_it_is(tmp_path):
    raster = write_tif(tmp_path / "ortho.tif", ground(60))
    summary = build_tiles(
        [raster],
        tmp_path / "out",
        "Zürich <b>",
        attribution=["© A & B", "C"],
        licence="CC-BY-4.0",
        capture_date="2024-05-01",
        workers=1,
    )
    with TilePyramid.open(summary.imagery) as pyramid:
        told = pyramid.metadata
        assert told["name"] == "Zürich <b>" and told["attribution"] == "© A & B; C"
        assert told["licence"] == "CC-BY-4.0" and told["capture_date"] == "2024-05-01"
        assert told["sources"] == ["ortho.tif"]
        assert (told["tile_px"], told["format"]) == (256, "webp")
        assert pyramid.imagery_hash() == told["content_hash"] == summary.imagery_hash
    assert Region.load(summary.region_file).attribution == ("© A & B", "C")


@pytest.mark.parametrize(("image_format", "tile_px"), [("webp", 256), ("jpeg", 512), ("png", 1024)])
def test_formats_and_tile_sizes_show_the_same_ground(tmp_path, built, image_format, tile_px):
    _, lossless = built
    summary = build_tiles(
        [tmp_path / "ortho.tif"],
        tmp_path / "other",
        "town",
        image_format=image_format,
        tile_px=tile_px,
        workers=1,
    )
    place = place_of(CORNER[0] + 200, CORNER[1] - 200)
    with TilePyramid.open(summary.imagery) as pyramid:
        assert pyramid.tile_px == tile_px
        difference = lossless.square(place, 300, 200).astype(int) - pyramid.square(place, 300, 200)
        assert np.abs(difference).mean() < 3


def test_progress_counts_up_to_its_total(tmp_path):
    told = []
    raster = write_tif(tmp_path / "a.tif", ground(300))
    build_tiles([raster], tmp_path, "a", workers=1, progress=lambda *at: told.append(at))
    done, totals = zip(*told, strict=True)
    assert done[0] == 0 and done[-1] == totals[-1] > 0
    assert list(done) == sorted(done) and len(set(totals)) == 1


# 2. kinds of rasters


def seen_at_the_middle(tmp_path, bands, **profile) -> np.ndarray:
    """RGBA of the deepest tile pixel in the middle of a raster."""
    raster = write_tif(tmp_path / "kind.tif", bands, **profile)
    out = tmp_path / f"out {len(os.listdir(tmp_path))}"
    summary = build_tiles([raster], out, "kind", image_format="png", workers=1)
    middle = place_of(CORNER[0] + bands.shape[2] / 2, CORNER[1] - bands.shape[1] / 2)
    with TilePyramid.open(summary.imagery) as pyramid:
        deep = cell_at(middle, pyramid.max_level + 8)
        tile = pyramid.tile(deep.parent(8))
        return tile[deep.y % 256, deep.x % 256]


def flat(*values: int, dtype=np.uint8, side: int = 60) -> np.ndarray:
    return np.ones((len(values), side, side), dtype) * np.array(values, dtype)[:, None, None]


def test_one_three_and_four_bands(tmp_path):
    assert seen_at_the_middle(tmp_path, flat(90)).tolist() == [90, 90, 90, 255]
    assert seen_at_the_middle(tmp_path, flat(10, 20, 30)).tolist() == [10, 20, 30, 255]
    five = seen_at_the_middle(tmp_path, flat(1, 2, 3, 4, 5), photometric="RGB", alpha="NO")
    assert five.tolist() == [1, 2, 3, 255]


def test_bands_are_taken_by_their_colours(tmp_path):
    import rasterio
    from rasterio.enums import ColorInterp

    path = write_tif(tmp_path / "bgr.tif", flat(30, 20, 10))
    with rasterio.open(path, "r+") as raster:
        raster.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    assert inspected(path).bands == (3, 2, 1)


def test_a_palette_becomes_its_colours(tmp_path):
    import rasterio

    path = write_tif(tmp_path / "palette.tif", flat(7), photometric="palette")
    with rasterio.open(path, "r+") as raster:
        raster.write_colormap(1, {7: (200, 100, 50, 255)})
    summary = build_tiles([path], tmp_path / "out", "p", image_format="png", workers=1)
    with TilePyramid.open(summary.imagery) as pyramid:
        shown = pyramid.square(place_of(CORNER[0] + 30, CORNER[1] - 30), 20, 16)
        assert (shown == (200, 100, 50)).all()


def half_empty(side: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Colours, and a mask of the western half."""
    mask = np.zeros((side, side), np.uint8)
    mask[:, : side // 2] = 255
    return ground(side), mask


@pytest.mark.parametrize("kind", ["alpha", "nodata", "mask"])
def test_ground_without_pixels_stays_empty(tmp_path, kind):
    import rasterio

    colours, mask = half_empty()
    if kind == "alpha":
        path = write_tif(tmp_path / "a.tif", np.vstack([colours, mask[None]]), alpha="YES")
    elif kind == "nodata":
        path = write_tif(tmp_path / "a.tif", np.where(mask > 0, colours, 0), nodata=0)
    else:
        path = write_tif(tmp_path / "a.tif", colours)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as raster:
            raster.write_mask(mask)
    summary = build_tiles([path], tmp_path / "out", "half", image_format="png", workers=1)
    with TilePyramid.open(summary.imagery) as pyramid:
        west = pyramid.square(place_of(CORNER[0] + 50, CORNER[1] - 100), 80, 64)
        east = pyramid.square(place_of(CORNER[0] + 150, CORNER[1] - 100), 80, 64)
        assert (west != FILL).any(axis=2).mean() > 0.95
        assert (east == FILL).all()
        covered = Coverage.of(summary.region, pyramid).leaves.sum()
        assert covered * summary.region.cell_size_m**2 == pytest.approx(20_000, rel=0.15)
        edge = pyramid.square(place_of(CORNER[0] + 99, CORNER[1] - 100), 2, 16)
        assert edge.min() > 20, "no black bleeds in from nodata"


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deeper_bits_are_stretched(tmp_path, dtype):
    values = (ground(300).astype(np.float32) * 40 + 1000).astype(dtype)
    path = write_tif(tmp_path / "deep.tif", values)
    summary = build_tiles([path], tmp_path / "out", "deep", image_format="png", workers=1)
    low, high = np.percentile(values, (1, 99))
    with TilePyramid.open(summary.imagery) as pyramid:
        for column, row in [(60, 60), (150, 220), (240, 90)]:
            place = place_of(CORNER[0] + column + 0.5, CORNER[1] - row - 0.5)
            seen = pyramid.square(place, 1, 8)[4, 4]
            expected = np.clip((values[:, row, column] - low) / (high - low), 0, 1) * 255
            assert np.abs(seen - expected).max() < 6


def test_nan_is_no_pixel(tmp_path):
    values = ground(200).astype(np.float32)
    values[:, :, 100:] = np.nan
    path = write_tif(tmp_path / "nan.tif", values)
    summary = build_tiles([path], tmp_path / "out", "nan", image_format="png", workers=1)
    with TilePyramid.open(summary.imagery) as pyramid:
        east = pyramid.square(place_of(CORNER[0] + 150, CORNER[1] - 100), 80, 32)
        assert (east == FILL).all()


def test_several_rasters_become_one_ground(tmp_path):
    west = write_tif(tmp_path / "west.tif", flat(200, 0, 0, side=100))
    corner = (CORNER[0] + 80, CORNER[1])
    east = write_tif(tmp_path / "east.tif", flat(0, 200, 0, side=100), corner=corner)
    summary = build_tiles([west, east], tmp_path / "out", "two", image_format="png", workers=1)
    with TilePyramid.open(summary.imagery) as pyramid:
        shown = [
            pyramid.square(place_of(CORNER[0] + x, CORNER[1] - 50), 2, 8)[4, 4].tolist()
            for x in (40, 90, 98, 102, 140)
        ]
    assert shown == [[200, 0, 0]] * 3 + [[0, 200, 0]] * 2  # the first lies on top
    assert summary.region.shape().geom_type == "Polygon"


def test_rasters_that_do_not_touch_are_one_region_with_a_gap(tmp_path):
    paths = [
        write_tif(tmp_path / f"{i}.tif", ground(100, i), corner=(CORNER[0] + 300 * i, CORNER[1]))
        for i in range(2)
    ]
    summary = build_tiles(paths, tmp_path / "out", "gap", workers=1)
    assert summary.region.shape().geom_type == "MultiPolygon"
    with TilePyramid.open(summary.imagery) as pyramid:
        gap = pyramid.square(place_of(CORNER[0] + 200, CORNER[1] - 50), 80, 16)
        assert (gap == FILL).all()
        covered = Coverage.of(summary.region, pyramid).leaves.sum()
        assert covered * summary.region.cell_size_m**2 == pytest.approx(20_000, rel=0.25)


def box_of(west, north, east, south) -> Bounds:
    """A box in degrees from metres right and down of the corner."""
    places = [place_of(CORNER[0] + x, CORNER[1] - y) for x in (west, east) for y in (north, south)]
    lats, lngs = ([getattr(p, name) for p in places] for name in ("lat", "lng"))
    return Bounds(min(lngs), min(lats), max(lngs), max(lats))


def test_bounds_cut_the_region_and_the_tiles_out_of_the_rasters(tmp_path):
    far = (CORNER[0] + 5_000, CORNER[1])
    rasters = [
        write_tif(tmp_path / "a.tif", ground(900)),
        write_tif(tmp_path / "b.tif", ground(100), corner=far),
    ]
    box = box_of(300, 200, 600, 450)
    summary = build_tiles(rasters, tmp_path / "out", "part", workers=1, ground=shapely.box(*box))
    assert summary.region.shape().equals(shapely.box(*box))
    assert summary.region.shape().equals(Region.load(summary.region_file).shape())
    with TilePyramid.open(summary.imagery) as pyramid:
        assert pyramid.metadata["sources"] == ["a.tif"]
        leaves = Coverage.of(summary.region, pyramid).leaves
        share = leaves.sum() * summary.region.cell_size_m**2 / (300 * 250)
        assert share == pytest.approx(1, abs=0.15)
        beyond = pyramid.square(LatLng(place_of(*far).lat - 4e-4, place_of(*far).lng + 4e-4), 9, 8)
        assert (beyond == FILL).all()
    assert not build_tiles(
        rasters, tmp_path / "out", "part", workers=1, ground=shapely.box(*box)
    ).built
    whole = build_tiles(rasters[:1], tmp_path / "all", "part", workers=1)
    assert len(all_tiles(summary.imagery)) < len(all_tiles(whole.imagery))
    assert build_tiles(rasters[:1], tmp_path / "out", "part", workers=1).built  # another job


def test_bounds_of_a_config_reach_the_tiles(tmp_path):
    raster = write_tif(tmp_path / "a.tif", ground(300))
    box = box_of(100, 100, 200, 200)
    make_tiles(TilesConfig(bounds=box), [raster], tmp_path, "part", 1, Screen(quiet=True))
    assert Region.load(tmp_path / REGION_NAME).shape().equals(shapely.box(*box))


def test_bounds_are_met_across_the_antimeridian(tmp_path):
    pixel = 1e-5
    path = write_tif(tmp_path / "a.tif", ground(400), "EPSG:4326", (180 - 200 * pixel, -17), pixel)
    for turn in (0, -360):  # the same box, named on either side
        west, east = 180 - 100 * pixel + turn, 180 + 50 * pixel + turn
        box = Bounds(west, -17 - 300 * pixel, east, -17 - 100 * pixel)
        summary = build_tiles(
            [path], tmp_path / str(turn), "fiji", workers=1, ground=shapely.box(*box)
        )
        with TilePyramid.open(summary.imagery) as pyramid:
            covered = Coverage.of(summary.region, pyramid).leaves.sum()
        ground_m2 = 150 * 200 * (pixel * 111_320) ** 2 * 0.956
        assert covered * summary.region.cell_size_m**2 == pytest.approx(ground_m2, rel=0.2)


def test_bounds_beyond_all_rasters_are_refused(tmp_path):
    raster = write_tif(tmp_path / "a.tif", ground(100))
    with pytest.raises(RegionError, match="no imagery reaches into it; .* the imagery within"):
        build_tiles(
            [raster], tmp_path, "a", workers=1, ground=shapely.box(*box_of(200, 0, 300, 100))
        )
    assert not (tmp_path / PYRAMID_NAME).exists()


def test_a_raster_in_degrees_crosses_the_antimeridian(tmp_path):
    pixel = 1e-5
    path = write_tif(tmp_path / "a.tif", ground(400), "EPSG:4326", (180 - 200 * pixel, -17), pixel)
    summary = build_tiles([path], tmp_path / "out", "fiji", image_format="png", workers=1)
    assert {root.x for root in summary.region.roots} >= {0, (1 << summary.region.root_level) - 1}
    bands = ground(400)
    with TilePyramid.open(summary.imagery) as pyramid:
        for column, row in [(100, 100), (199, 200), (201, 200), (300, 350)]:
            lng = 180 - 200 * pixel + (column + 0.5) * pixel
            place = LatLng(-17 - (row + 0.5) * pixel, (lng + 180) % 360 - 180)
            seen = pyramid.square(place, 1, 8)[4, 4].astype(int)
            assert np.abs(seen - bands[:, row, column]).max() <= 4
        columns = Coverage.of(summary.region, pyramid).leaves.any(axis=0).nonzero()[0]
        assert (np.diff(columns) == 1).all(), "no gap where the globe is cut"


def test_rasters_of_two_utm_zones_meet_at_the_antimeridian(tmp_path):
    """One crosses 180 in zone 60, one lies east of it in zone 1."""
    to_west = Transformer.from_crs("EPSG:4326", "EPSG:32760", always_xy=True)
    to_east = Transformer.from_crs("EPSG:4326", "EPSG:32701", always_xy=True)
    x, y = to_west.transform(180.0, -17.0)
    across = write_tif(tmp_path / "w.tif", flat(200, 0, 0, side=200), "EPSG:32760", (x - 100, y))
    x, y = to_east.transform(-179.9985, -17.0)
    beyond = write_tif(tmp_path / "e.tif", flat(0, 200, 0, side=200), "EPSG:32701", (x, y))
    for order in ([across, beyond], [beyond, across]):
        summary = build_tiles(
            order, tmp_path / order[0].stem, "fiji", image_format="png", workers=1
        )
        west, _, east, _ = summary.region.shape().bounds
        assert east - west < 0.01
        with TilePyramid.open(summary.imagery) as pyramid:
            lngs = (179.9995, -179.9995, -179.9975)
            shown = [pyramid.square(LatLng(-17.0009, lng), 2, 8)[4, 4].tolist() for lng in lngs]
            assert shown == [[200, 0, 0], [200, 0, 0], [0, 200, 0]]
            covered = Coverage.of(summary.region, pyramid).leaves.sum()
            assert covered * summary.region.cell_size_m**2 == pytest.approx(74_000, rel=0.2)


def test_what_lies_under_a_mask_does_not_bleed_into_the_edge(tmp_path):
    _, mask = half_empty()
    bands = np.vstack([flat(200, 150, 100, side=200) * (mask > 0), mask[None]])
    path = write_tif(tmp_path / "a.tif", bands, alpha="YES")
    summary = build_tiles([path], tmp_path / "out", "a", image_format="png", workers=1)
    with TilePyramid.open(summary.imagery) as pyramid:
        for level in pyramid.levels:
            for cell in pyramid.cells(level):
                tile = pyramid.tile(cell).astype(int)
                held = tile[..., 3] > 25
                assert np.abs(tile[held][:, :3] - (200, 150, 100)).max(initial=0) <= 6


# 3. real rasters


REAL = {  # file, ground pixel, share that is not transparent (None: too small to count cells)
    "alpha": ("rio-tiler-fixtures/pix4d_alpha_nodata.tif", 0.353, 0.876),
    "internal mask": ("rio-tiler-fixtures/cog_rgb_mask.tif", 0.15, None),
    "NAIP, 4 bands": ("stactools-naip/m_3211605_ne_11_060_20200415.tif", 0.6, 1.0),
    "degrees": ("qgis-swellendam/3420B_2010_328_RGB_LATLNG.tif", 2.53, 1.0),
    "ellipsoidal Mercator": ("deepforest-drone/5b90f92da0d7280005fab355_4310.tif", 0.097, None),
    "feet": ("autzen-eugene/ortho.tif", 0.305, 1.0),
}
MOST_PX = 900


def middle_of(path: Path, out: Path) -> Path:
    """The raster itself, or where it is large, its middle with all its bands and tags."""
    import rasterio
    from rasterio.windows import Window

    with rasterio.open(path) as source:
        if max(source.shape) <= MOST_PX:
            return path
        width, height = (min(v, MOST_PX) for v in (source.width, source.height))
        window = Window((source.width - width) // 2, (source.height - height) // 2, width, height)
        bands = source.read(window=window)
        placed = {"crs": source.crs, "transform": source.window_transform(window)}
        write_tif(out, bands, **placed)
        with rasterio.open(out, "r+") as target:
            target.colorinterp = source.colorinterp
    return out


@pytest.mark.parametrize("name", REAL)
def test_real_rasters_lie_where_rasterio_says(tmp_path, real_data, name):
    import rasterio
    from rasterio.warp import transform
    from rasterio.windows import Window

    file, gsd_m, held = REAL[name]
    path = middle_of(real_data / file, tmp_path / "middle.tif")
    raster = inspected(path)
    assert raster.gsd_m == pytest.approx(gsd_m, rel=0.04)
    summary = build_tiles([path], tmp_path, name, 20 * gsd_m, workers=1)
    assert 1 / 1.5 < summary.gsd_m / raster.gsd_m < 1.5
    with TilePyramid.open(summary.imagery) as pyramid, rasterio.open(path) as source:
        rows, columns = np.mgrid[1:16, 1:16] / 16
        rows, columns = rows.ravel() * source.height, columns.ravel() * source.width
        lngs, lats = transform(source.crs, "EPSG:4326", *source.xy(rows, columns))
        reach = max(1, round(3 * summary.gsd_m / raster.gsd_m))
        side = 2 * reach + 1
        pairs = []
        for row, column, lat, lng in zip(rows, columns, lats, lngs, strict=True):
            window = Window(int(column) - reach, int(row) - reach, side, side)
            if raster.alpha_band and source.read(raster.alpha_band, window=window).min() < 255:
                continue
            ours = pyramid.square(LatLng(lat, lng), side * raster.gsd_m, 8).mean(axis=(0, 1))
            pairs.append((source.read([1, 2, 3], window=window).mean(axis=(1, 2)), ours))
        theirs, ours = np.array(pairs).transpose(1, 0, 2)
        assert len(pairs) > 150
        assert np.corrcoef(theirs.ravel(), ours.ravel())[0, 1] > 0.97
        assert np.abs(theirs - ours).mean() < 8
        if held:
            area_m2 = source.width * source.height * raster.gsd_m**2 * held
            covered = Coverage.of(summary.region, pyramid).leaves.sum()
            assert covered * summary.region.cell_size_m**2 == pytest.approx(area_m2, rel=0.2)


def test_naips_infrared_is_not_taken_for_an_alpha(real_data):
    assert (
        inspected(real_data / "stactools-naip/m_3211605_ne_11_060_20200415.tif").alpha_band is None
    )
    assert inspected(real_data / "rio-tiler-fixtures/pix4d_alpha_nodata.tif").alpha_band == 4


# 4. resumed, parallel, kept


def test_a_finished_pyramid_is_kept(tmp_path):
    raster = write_tif(tmp_path / "a.tif", ground(200))
    first = build_tiles([raster], tmp_path / "out", "a", workers=1)
    stamp = first.imagery.stat().st_mtime_ns
    first.region_file.unlink()
    second = build_tiles([raster], tmp_path / "out", "a", workers=1)
    assert first.built and not second.built
    assert second.imagery.stat().st_mtime_ns == stamp
    assert second.region == first.region and second.region_file.exists()
    assert second.imagery_hash == first.imagery_hash and second.tile_count == first.tile_count
    assert sorted(os.listdir(tmp_path / "out")) == [PYRAMID_NAME, REGION_NAME]


@pytest.mark.parametrize(
    "change", [{"quality": 50}, {"image_format": "png"}, {"licence": "CC0"}, {"tile_px": 512}]
)
def test_other_settings_are_built_anew(tmp_path, change):
    raster = write_tif(tmp_path / "a.tif", ground(100))
    build_tiles([raster], tmp_path / "out", "a", workers=1)
    assert build_tiles([raster], tmp_path / "out", "a", workers=1, **change).built


def test_another_raster_of_the_same_name_is_built_anew(tmp_path):
    raster = write_tif(tmp_path / "a.tif", ground(100))
    first = build_tiles([raster], tmp_path / "out", "a", workers=1)
    write_tif(raster, ground(100, seed=1))
    os.utime(raster, ns=(1, 1))
    second = build_tiles([raster], tmp_path / "out", "a", workers=1)
    assert second.built and second.imagery_hash != first.imagery_hash


def test_a_damaged_pyramid_is_built_anew(tmp_path):
    raster = write_tif(tmp_path / "a.tif", ground(100))
    first = build_tiles([raster], tmp_path / "out", "a", workers=1)
    whole = first.imagery.read_bytes()
    first.imagery.write_bytes(whole[: len(whole) // 2])
    assert build_tiles([raster], tmp_path / "out", "a", workers=1).built
    assert first.imagery.read_bytes() == whole


def test_one_and_two_workers_make_the_same_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tiles_module, "WORTH_A_POOL", 1)
    raster = write_tif(tmp_path / "a.tif", ground(600, coarse=60), tiled=True)
    one = build_tiles([raster], tmp_path / "one", "a", workers=1)
    two = build_tiles([raster], tmp_path / "two", "a", workers=2)
    assert two.imagery.read_bytes() == one.imagery.read_bytes()
    with ThreadPoolExecutor(1) as executor:  # any executor will do
        lent = build_tiles([raster], tmp_path / "lent", "a", executor=executor)
    assert lent.imagery.read_bytes() == one.imagery.read_bytes()


BUILD = """
import sys, time
from pathlib import Path
from data_prep.tiles import build_tiles

def told(done, total):
    print(done, flush=True)
    time.sleep(0.03)

build_tiles([Path(sys.argv[1])], Path(sys.argv[2]), "a", workers=1, progress=told)
"""


@pytest.mark.parametrize("pieces", [1, 5])
def test_a_killed_build_resumes_to_the_same_tiles(tmp_path, pieces):
    raster = write_tif(tmp_path / "a.tif", ground(1000, coarse=60))
    out = tmp_path / "killed"
    with subprocess.Popen(
        [sys.executable, "-c", BUILD, str(raster), str(out)], stdout=subprocess.PIPE
    ) as process:
        for _ in range(pieces + 1):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert (out / SCRATCH_NAME).exists() and not (out / PYRAMID_NAME).exists()
    (out / f".{PYRAMID_NAME}.left.tmp").touch()  # as a kill while finishing would leave it
    resumed = build_tiles([raster], out, "a", workers=1)
    assert resumed.resumed_pieces >= pieces
    straight = build_tiles([raster], tmp_path / "straight", "a", workers=1)
    assert straight.resumed_pieces == 0
    assert all_tiles(resumed.imagery) == all_tiles(straight.imagery)
    assert resumed.imagery.read_bytes() == straight.imagery.read_bytes()
    assert sorted(os.listdir(out)) == [PYRAMID_NAME, REGION_NAME]


@pytest.mark.parametrize("left", [b"", b"SQLite format 3\0 and no more", b"not a database" * 99])
def test_a_scratch_file_that_is_none_is_begun_anew(tmp_path, left):
    raster = write_tif(tmp_path / "a.tif", ground(100))
    out = tmp_path / "out"
    out.mkdir()
    (out / SCRATCH_NAME).write_bytes(left)
    assert build_tiles([raster], out, "a", workers=1).built
    assert sorted(os.listdir(out)) == [PYRAMID_NAME, REGION_NAME]


def test_two_builds_of_one_pyramid_do_not_mix(tmp_path):
    raster = write_tif(tmp_path / "a.tif", ground(100))
    told = []

    def meanwhile(done, total):
        if not told:
            told.append(True)
            with pytest.raises(OutputError, match="another build is writing it"):
                build_tiles([raster], tmp_path / "out", "a", workers=1)

    assert build_tiles([raster], tmp_path / "out", "a", workers=1, progress=meanwhile).built
    assert told


# 5. refusals


FULL_DISK = """
import resource, sys
from pathlib import Path
from data_prep.tiles import build_tiles
from zoomloc.errors import OutputError
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    build_tiles([Path(sys.argv[1])], Path(sys.argv[2]), "a", workers=1, quality=95)
except OutputError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [2_000, 60_000, 120_000])
def test_a_full_disk_leaves_the_earlier_pyramid(tmp_path, limit):
    raster = write_tif(tmp_path / "a.tif", ground(500, coarse=200))
    out = tmp_path / "out"
    earlier = build_tiles([raster], out, "a", workers=1, quality=20)
    whole, region = earlier.imagery.read_bytes(), earlier.region_file.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(raster), str(out), str(limit)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot write" in done.stdout and "free some space" in done.stdout
    assert done.stdout.count("\n") == 1
    assert earlier.imagery.read_bytes() == whole
    assert earlier.region_file.read_bytes() == region
    assert not list(out.glob("*.tmp")) and not list(out.glob(".*"))
    assert build_tiles([raster], out, "a", workers=1, quality=95).built


def truncated(path: Path) -> Path:
    write_tif(path, ground(200), compress="deflate")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def no_crs(path: Path) -> Path:
    return write_tif(path, ground(50), crs=None)


def no_place(path: Path) -> Path:
    import rasterio

    return write_tif(path, ground(50), transform=rasterio.Affine.identity())


def wrong_crs(path: Path) -> Path:
    return write_tif(path, ground(50), crs="EPSG:4326")  # with coordinates in metres


def polar(path: Path) -> Path:
    return write_tif(path, ground(50), crs="EPSG:4326", corner=(10.0, 89.0), pixel=0.001)


def text(path: Path) -> Path:
    path.write_text("<html>404</html>")
    return path


def no_pixels(path: Path) -> Path:
    return write_tif(path, np.zeros((3, 50, 50), np.uint8), nodata=0)


def all_nan(path: Path) -> Path:
    return write_tif(path, np.full((1, 50, 50), np.nan, np.float32))


def complex_numbers(path: Path) -> Path:
    return write_tif(path, np.zeros((1, 50, 50), np.complex64))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # by the writer
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: path, "no such raster"),
        (lambda path: path.parent, "not a readable raster"),
        (text, "not a readable raster"),
        (truncated, "damaged or cut off|not a readable raster"),
        (no_crs, r"no coordinate reference system.*gdal_edit.py -a_srs EPSG:CODE bad.tif"),
        (no_place, "no geotransform.*gdalwarp"),
        (wrong_crs, "outside its coordinate reference system|outside Web Mercator"),
        (polar, "outside Web Mercator"),
        (no_pixels, "no tile holds a pixel"),
        (all_nan, "no valid pixel"),
        (complex_numbers, "complex numbers"),
    ],
)
def test_a_raster_that_cannot_be_used_is_refused_in_one_line(tmp_path, make, told):
    path = make(tmp_path / "bad.tif")
    with pytest.raises(ImageryError, match=told) as caught:
        build_tiles([path], tmp_path / "out", "bad", workers=1)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert not (tmp_path / "out" / PYRAMID_NAME).exists()
    assert not (tmp_path / "out" / REGION_NAME).exists()


def test_pixels_damaged_inside_are_told_from_a_worker_too(tmp_path, monkeypatch):
    path = write_tif(tmp_path / "a.tif", ground(700, coarse=200), compress="deflate", tiled=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20_000] = np.random.default_rng(0).bytes(20_000)
    path.write_bytes(data)
    monkeypatch.setattr(tiles_module, "WORTH_A_POOL", 1)
    for workers in (1, 2):
        with pytest.raises(ImageryError, match="damaged or cut off.*copy it again"):
            build_tiles([path], tmp_path / "out", "bad", workers=workers)
    assert not (tmp_path / "out" / PYRAMID_NAME).exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tile_px": 300}, "tile_px 300: must be 256, 512 or 1024"),
        ({"image_format": "gif"}, "image_format 'gif'"),
        ({"quality": 0}, "quality 0"),
        ({"imagery": []}, "name at least one GeoTIFF"),
    ],
)
def test_settings_that_no_tile_can_have_are_refused(tmp_path, change, told):
    raster = write_tif(tmp_path / "a.tif", ground(50))
    with pytest.raises(ImageryError, match=told):
        build_tiles(**{"imagery": [raster], "out": tmp_path, "name": "a", **change})


def test_rasters_of_two_continents_are_no_region(tmp_path):
    here = write_tif(tmp_path / "a.tif", ground(50))
    there = write_tif(tmp_path / "b.tif", ground(50), "EPSG:32719")
    with pytest.raises(RegionError, match="take larger cells or less ground"):
        build_tiles([here, there], tmp_path / "out", "far", workers=1)


# 6. speed


def test_a_demo_town_takes_seconds(tmp_path):
    raster = write_tif(tmp_path / "a.tif", ground(1440, coarse=200), pixel=0.5)
    start = time.process_time()
    summary = build_tiles([raster], tmp_path / "out", "a", workers=1)
    assert time.process_time() - start < 6  # 1 s on an idle core
    assert summary.max_level == 18 and summary.tile_count > 80
