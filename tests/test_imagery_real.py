"""Every kind of real imagery at hand becomes a pyramid, and lies where an independent warp puts it.

Shifts are measured by phase correlation (Kuglin & Hines 1975) of pyramid and warp, with the peak's
place refined by a parabola.
"""

import glob

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import from_bounds
from rasterio.vrt import WarpedVRT

from data_prep.imagery.sources import look_up
from data_prep.imagery.stores import open_stored
from data_prep.tiles import build_tiles
from zoomloc.config import TilesConfig
from zoomloc.world.cells import Cell
from zoomloc.world.pyramid import TilePyramid

REAL = {  # pattern, options of the source
    "COG in feet": ("autzen-eugene/ortho.tif", {}),
    "drone in ellipsoidal Mercator": ("deepforest-drone/*.tif", {}),
    "NAIP sheets, 4 bands": ("naip-california-cities/tiles/santa_monica_2020_*.tif", {}),
    "NAIP of another zone": ("naip-california-cities/tiles/chico_2020_*.tif", {}),
    "one NAIP crop": ("stactools-naip/*.tif", {}),
    "degrees, pixels that are not square": ("qgis-swellendam/*.tif", {}),
    "drone with alpha, south of the equator": ("rio-tiler-fixtures/pix4d_alpha_nodata.tif", {}),
    "internal mask": ("rio-tiler-fixtures/cog_rgb_mask.tif", {}),
    "0.15 m": ("rio-tiler-fixtures/201404*.tif", {}),
    "heights as grey, floats": ("linz-dem/*.tif", {}),
}
POINTS, SIDE = 20, 64
MOST_OFF_PX = 0.5
LEAST_CONTRAST = 4.0  # deviation of the grey values of a place that is compared


def shift_px(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Rows and columns by which ``other`` is shifted against ``one``, both (S, S)."""
    window = np.outer(np.hanning(len(one)), np.hanning(len(one)))
    a, b = (np.fft.fft2((p - p.mean()) * window) for p in (one, other))
    cross = b * np.conj(a)
    # only half whitened: what resampling leaves of the highest frequencies is noise
    peak = np.fft.ifft2(cross / np.sqrt(np.abs(cross) + 1e-9)).real
    row, column = np.unravel_index(peak.argmax(), peak.shape)
    found = []
    for at, line in ((row, peak[:, column]), (column, peak[row])):
        left, middle, right = (line[(at + d) % len(line)] for d in (-1, 0, 1))
        part = 0.5 * (left - right) / (left - 2 * middle + right)
        found.append((at + part + len(line) / 2) % len(line) - len(line) / 2)
    return found[0], found[1]


def test_the_measure_of_shifts_is_right():
    rng = np.random.default_rng(0)
    fine = np.cumsum(np.cumsum(rng.normal(size=(300, 300)), 0), 1)
    fine -= np.cumsum(np.cumsum(np.ones((300, 300)), 0), 1) * fine[-1, -1] / 90_000
    rough = rng.normal(size=(300, 300)) * 40
    whole = fine / np.abs(fine).max() * 80 + rough
    for down, right in ((0, 0), (3, -2), (1, 0), (0, -1)):
        one = whole[100:164, 100:164]
        other = whole[100 - down : 164 - down, 100 - right : 164 - right]
        assert shift_px(one, other) == pytest.approx((down, right), abs=0.1)


def warped(file: str, cell: Cell, tile_px: int) -> tuple[np.ndarray, np.ndarray]:
    """(S, S) mean of the colours, and where there are some, by GDAL's warped VRT."""
    grid = from_bounds(*cell.mercator_bounds, tile_px, tile_px)
    placed = {"transform": grid, "width": tile_px, "height": tile_px, "add_alpha": False}
    with (
        rasterio.open(file) as source,
        WarpedVRT(source, crs="EPSG:3857", resampling=Resampling.bilinear, **placed) as vrt,
    ):
        colours = vrt.read(list(range(1, min(3, source.count) + 1))).astype(float)
        held = (vrt.dataset_mask() > 0) & (colours.max(axis=0) > 0)
    return colours.mean(axis=0), held


@pytest.mark.parametrize("name", REAL)
def test_real_imagery_lies_where_an_independent_warp_puts_it(tmp_path, real_data, name):
    pattern, options = REAL[name]
    files = sorted(glob.glob(str(real_data / pattern)))
    source = {"kind": "raster", "files": files, **options}
    found = look_up(TilesConfig(sources=(source,)), [], None, tmp_path)
    summary = build_tiles(found.sheets, tmp_path, "real", image_format="png", workers=1)
    rng, off = np.random.default_rng(0), []
    with TilePyramid.open(summary.imagery) as pyramid:
        cells = pyramid.cells(pyramid.max_level)
        for at in rng.integers(0, len(cells), 20 * POINTS).tolist():
            if len(off) == POINTS:
                break
            tile = pyramid.tile(cells[at])
            row, column = rng.integers(0, pyramid.tile_px - SIDE, 2)
            part = (slice(row, row + SIDE), slice(column, column + SIDE))
            if tile[part][..., 3].min() < 255:
                continue
            ours = tile[part][..., :3].mean(axis=2)
            for file in files:
                colours, held = warped(file, cells[at], pyramid.tile_px)
                if held[part].all() and ours.std() > LEAST_CONTRAST:
                    off.append(shift_px(ours, colours[part]))
                    break
    worst = np.abs(off).max()
    assert len(off) == POINTS
    assert worst <= MOST_OFF_PX, f"{name}: {worst:.2f} px off"


def test_the_scanned_map_of_mount_whitney(tmp_path, real_data):
    """A PMTiles file of others, 512 px tiles: its deepest level is kept pixel by pixel."""
    (file,) = (real_data / "loaders-gl-pmtiles").glob("*.pmtiles")
    sheets = open_stored(file, 15)
    summary = build_tiles(sheets, tmp_path, "map", image_format="png", tile_px=512, workers=1)
    with TilePyramid.open(file) as theirs, TilePyramid.open(summary.imagery) as ours:
        assert ours.max_level == 15 and ours.cells(15) == theirs.cells(15)
        for cell in theirs.cells(15):
            there, here = theirs.tile(cell), ours.tile(cell)
            solid = there[..., 3] > 0
            assert (there[solid] == here[solid]).all()
