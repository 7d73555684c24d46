"""pyramid: written = read, views that straddle tiles, rotation, hostile files."""

import gzip
import io
import os
import pickle
import sqlite3

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pmtiles import tile as oracle
from pmtiles.reader import MemorySource, Reader, all_tiles
from raster_files import encoded, noise, pyramid_of

from zoomloc.errors import ImageryError
from zoomloc.world.cells import Cell, LatLng, cell_at, distance_m, moved, xy_of
from zoomloc.world.pyramid import FILL, TilePyramid, over_fill, write_pmtiles
from zoomloc.world.tile_stores import hilbert_cells, tile_id

PX = 64
HOME = Cell(14, 8500, 5800)


def block(parent: Cell, levels: int, px: int = PX, bands: int = 3) -> list:
    """Noise for all descendants of a cell."""
    below = parent.descendants(levels)
    return [(cell, noise(px, seed, bands)) for seed, cell in enumerate(below)]


def joined(tiles: list) -> np.ndarray:
    """The picture that a full block of tiles makes."""
    side = int(len(tiles) ** 0.5)
    rows = [np.hstack([tiles[r * side + c][1] for c in range(side)]) for r in range(side)]
    return np.vstack(rows)


# 1. written = read


@pytest.mark.parametrize("bands", [3, 4])
def test_png_tiles_are_read_as_written(tmp_path, bands):
    tiles = block(HOME, 2, bands=bands)
    with pyramid_of(tmp_path / "p.pmtiles", tiles) as pyramid:
        assert pyramid.tile_px == PX
        assert (pyramid.min_level, pyramid.max_level) == (16, 16)
        assert set(pyramid.cells(16)) == {cell for cell, _ in tiles}
        for cell, picture in tiles:
            found = pyramid.tile(cell)
            assert np.array_equal(found[..., :bands], picture)
            assert bands == 4 or (found[..., 3] == 255).all()
        assert pyramid.tile(HOME) is None
        assert pyramid.tile(Cell(16, 0, 0)) is None
        assert pyramid.cells(3) == []


@pytest.mark.parametrize("image_format", ["webp", "jpeg"])
def test_lossy_tiles_are_read_nearly_as_written(tmp_path, image_format):
    smooth = np.asarray(Image.fromarray(noise(4, 0)).resize((PX, PX), Image.Resampling.BICUBIC))
    with pyramid_of(tmp_path / "p", [(HOME, smooth)], image_format, quality=90) as pyramid:
        wrong = np.abs(pyramid.tile(HOME)[..., :3].astype(int) - smooth)
        assert 0 < wrong.mean() < 6


def test_another_reader_finds_the_same_tiles_clustered(tmp_path):
    tiles = [*block(HOME, 2), *block(HOME, 1), (HOME, noise(PX, 99))]
    packed = {cell: encoded(picture) for cell, picture in tiles}
    write_pmtiles(tmp_path / "p", packed.items(), {"name": "é"}, "png", PX)
    source = MemorySource((tmp_path / "p").read_bytes())
    header = Reader(source).header()
    assert {Cell(*zxy): data for zxy, data in all_tiles(source)} == packed
    assert header["clustered"] and header["tile_type"] == oracle.TileType.PNG
    assert (header["min_zoom"], header["max_zoom"]) == (14, 16)
    assert header["addressed_tiles_count"] == 21
    west, south, east, north = HOME.bounds
    box = [header[f"{k}_e7"] / 1e7 for k in ("min_lon", "min_lat", "max_lon", "max_lat")]
    assert box == pytest.approx([west, south, east, north], abs=1e-6)
    assert Reader(source).metadata()["name"] == "é"
    numbers = [tile_id(Cell(*zxy)) for zxy, _ in all_tiles(source)]
    assert numbers == sorted(numbers)


def test_order_of_writing_does_not_matter(tmp_path):
    packed = [(cell, encoded(picture)) for cell, picture in block(HOME, 2)]
    write_pmtiles(tmp_path / "a", packed, {}, "png", PX)
    write_pmtiles(tmp_path / "b", packed[::-1], {}, "png", PX)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_equal_tiles_are_stored_once(tmp_path):
    grey, other = encoded(noise(PX, 0)), encoded(noise(PX, 1))
    cells = HOME.descendants(2)
    packed = [(cell, other if i == 5 else grey) for i, cell in enumerate(cells)]
    write_pmtiles(tmp_path / "p", packed, {}, "png", PX)
    source = MemorySource((tmp_path / "p").read_bytes())
    assert Reader(source).header()["tile_contents_count"] == 2
    assert {Cell(*zxy): data for zxy, data in all_tiles(source)} == dict(packed)
    with TilePyramid.open(tmp_path / "p") as pyramid:
        assert np.array_equal(pyramid.tile(cells[5])[..., :3], noise(PX, 1))
        assert np.array_equal(pyramid.tile(cells[6])[..., :3], noise(PX, 0))


def test_so_many_tiles_that_directories_nest(tmp_path):
    base, rng = encoded(np.zeros((PX, PX, 3), np.uint8)), np.random.default_rng(0)
    cells = [c for c in Cell(10, 500, 300).descendants(8) if rng.random() < 0.4]
    packed = [(cell, base + rng.bytes(int(rng.integers(4, 99)))) for cell in cells]
    write_pmtiles(tmp_path / "p", packed, {}, "png", PX)
    reader = Reader(MemorySource((tmp_path / "p").read_bytes()))
    assert reader.header()["leaf_directory_length"] > 0
    assert reader.header()["root_length"] <= 16_384 - 127
    with TilePyramid.open(tmp_path / "p") as pyramid:
        assert len(pyramid.cells(18)) == len(cells)
        for cell, data in packed[::1717]:
            assert reader.get(*cell) == data == pyramid._store.read(cell)


def test_no_tile_is_an_error_and_writes_nothing(tmp_path):
    with pytest.raises(ImageryError, match="no tiles to write"):
        write_pmtiles(tmp_path / "p", [], {}, "png", PX)
    assert os.listdir(tmp_path) == []


@given(st.integers(0, 26), st.data())
def test_tile_numbers_are_those_of_the_format(level, data):
    x, y = (data.draw(st.integers(0, (1 << level) - 1)) for _ in range(2))
    number = oracle.zxy_to_tileid(level, x, y)
    assert tile_id(Cell(level, x, y)) == number
    first = ((1 << 2 * level) - 1) // 3
    columns, rows = hilbert_cells(np.array([number - first]), level)
    assert (columns[0], rows[0]) == (x, y)


# 2. other people's pyramids


def write_mbtiles(path, tiles, **metadata):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE metadata (name text, value text)")
        db.execute("CREATE TABLE tiles (zoom_level, tile_column, tile_row, tile_data)")
        db.executemany("INSERT INTO metadata VALUES (?, ?)", metadata.items())
        flipped = [(c.level, c.x, (1 << c.level) - 1 - c.y, encoded(p)) for c, p in tiles]
        db.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", flipped)
    db.close()


def write_folder(path, tiles, suffix=".png", tms=False):
    for cell, picture in tiles:
        row = (1 << cell.level) - 1 - cell.y if tms else cell.y
        file = path / str(cell.level) / str(cell.x) / f"{row}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(picture))


@pytest.mark.parametrize("kind", ["mbtiles", "folder", "tms folder", "gdal2tiles folder"])
def test_mbtiles_and_folders_are_read_as_they_are(tmp_path, kind):
    tiles = [*block(HOME, 1), (HOME, noise(PX, 50))]
    path = tmp_path / "p"
    if kind == "mbtiles":
        write_mbtiles(path, tiles, name="mine", format="png")
    else:
        write_folder(path, tiles, tms=kind != "folder")
        (path / "leaflet.html").write_text("left by a tool")
        (path / "14" / "notes").mkdir()
        (path / "14" / "notes" / "1.png").touch()
        if kind == "tms folder":
            (path / "metadata.json").write_text('{"scheme": "tms"}')
        if kind == "gdal2tiles folder":
            (path / "tilemapresource.xml").touch()
    with TilePyramid.open(path) as pyramid, pyramid_of(tmp_path / "ours", tiles) as ours:
        assert pyramid.levels == [14, 15]
        assert pyramid.cells(15) == ours.cells(15)
        for cell, picture in tiles:
            assert np.array_equal(pyramid.tile(cell)[..., :3], picture)
        assert np.array_equal(pyramid.view(HOME, 200, 0.1), ours.view(HOME, 200, 0.1))
        assert len(pyramid.imagery_hash()) == 16


def test_gdals_mbtiles_lie_where_gdal_puts_them(tmp_path):
    import rasterio
    from rasterio.transform import from_bounds

    bounds = Cell(16, 34000, 23000).mercator_bounds
    picture = np.moveaxis(noise(256, 1), 2, 0)
    profile = {"driver": "MBTiles", "width": 256, "height": 256, "count": 3, "dtype": "uint8"}
    placed = {"crs": "EPSG:3857", "transform": from_bounds(*bounds, 256, 256)}
    with rasterio.open(tmp_path / "p.mbtiles", "w", **profile, **placed) as raster:
        raster.write(picture)
    with TilePyramid.open(tmp_path / "p.mbtiles") as pyramid:
        found = pyramid.tile(Cell(16, 34000, 23000))
        assert np.array_equal(found[..., :3], np.moveaxis(picture, 0, 2))


def test_a_real_pmtiles_of_512_px_reads_as_its_own_reader_does(real_data):
    path = real_data / "loaders-gl-pmtiles" / "usgs-mt-whitney-8-15-webp-512.pmtiles"
    reader = Reader(MemorySource(path.read_bytes()))
    with TilePyramid.open(path) as pyramid:
        assert (pyramid.min_level, pyramid.max_level, pyramid.tile_px) == (8, 15, 512)
        assert sum(len(pyramid.cells(z)) for z in pyramid.levels) == 50
        for cell in pyramid.cells(14):
            theirs = Image.open(io.BytesIO(reader.get(*cell)))
            assert np.array_equal(pyramid.tile(cell)[..., :3], np.asarray(theirs.convert("RGB")))
        whitney = pyramid.square(LatLng(36.5785, -118.2920), 500, 256)
        assert whitney.std() > 10 and (whitney != FILL).any(axis=2).mean() > 0.99


def test_a_real_folder_shows_the_same_ground_at_each_level(real_data):
    with TilePyramid.open(real_data / "oam-kampala-tiles") as pyramid:
        assert pyramid.levels == [19, 20, 21]
        for cell in pyramid.cells(19)[:2]:
            finest = pyramid.view(cell, 1024)
            parts = [pyramid.tile(c) for c in cell.descendants(2)]
            whole = joined([(None, over_fill(part)) for part in parts])
            assert np.array_equal(finest, whole)
            small = np.asarray(Image.fromarray(finest).reduce(4)).ravel()
            assert np.corrcoef(small, pyramid.view(cell, 256).ravel())[0, 1] > 0.9
        rooted = pyramid.view(pyramid.cells(19)[0].parent(3), 256)
        assert 0.05 < (rooted != FILL).any(axis=2).mean() < 0.09  # 5 of 64 tiles


# 3. views


@pytest.fixture
def noisy(tmp_path):
    tiles = block(HOME, 2)
    with pyramid_of(tmp_path / "noisy", tiles) as pyramid:
        yield pyramid, joined(tiles)


def test_a_view_at_the_stored_size_is_exact(noisy):
    pyramid, whole = noisy
    assert np.array_equal(pyramid.view(HOME, 4 * PX), whole)
    child = HOME.descendants()[3]
    assert np.array_equal(pyramid.view(child, 2 * PX), whole[2 * PX :, 2 * PX :])


def test_a_view_that_straddles_tiles_is_exact(noisy):
    pyramid, whole = noisy
    first = HOME.descendants(2)[0]
    found = pyramid.window(16, first.x + 0.5, first.y + 1.25, 2, 2 * PX)
    assert np.array_equal(found, whole[5 * PX // 4 : 13 * PX // 4, PX // 2 : 5 * PX // 2])


@given(x=st.floats(0, 2.9), y=st.floats(0, 2.9), side=st.floats(0.3, 1.0), px=st.integers(33, 90))
@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_window_shows_what_pillow_cuts_from_the_whole(noisy, x, y, side, px):
    pyramid, whole = noisy
    first = HOME.descendants(2)[0]
    box = (x * PX, y * PX, (x + side) * PX, (y + side) * PX)
    cut = Image.fromarray(whole).resize((px, px), Image.Resampling.BILINEAR, box=box)
    found = pyramid.window(16, first.x + x, first.y + y, side, px)
    inner = slice(2, -2)  # at the picture's own edge the whole has nothing beyond to blend with
    difference = np.abs(found.astype(int) - np.asarray(cut))[inner, inner]
    assert difference.max(initial=0) <= 2


def test_a_margin_shows_the_neighbours(noisy):
    pyramid, whole = noisy
    cell = HOME.descendants(2)[5]
    found = pyramid.view(cell, 2 * PX, margin=0.5)
    assert np.array_equal(found, whole[PX // 2 : 5 * PX // 2, PX // 2 : 5 * PX // 2])
    assert np.array_equal(found[32:96, 32:96], pyramid.view(cell, PX))


@pytest.mark.parametrize("size_px", [40, 3 * PX, 5 * PX])
def test_views_side_by_side_have_no_seam(noisy, size_px):
    pyramid, _ = noisy
    first = HOME.descendants(2)[5]
    whole = pyramid.window(16, first.x, first.y, 2, 2 * size_px).astype(int)
    for column in (0, 1):
        part = pyramid.window(16, first.x + column, first.y, 1, size_px)
        same = whole[:size_px, column * size_px : (column + 1) * size_px]
        assert np.abs(part - same).max() <= 1


def test_half_the_size_is_smoothed_not_picked(noisy):
    pyramid, whole = noisy
    found = pyramid.view(HOME, 2 * PX).astype(float)
    mean = whole.reshape(2 * PX, 2, 2 * PX, 2, 3).mean(axis=(1, 3))
    assert abs(found.mean() - whole.mean()) < 0.5
    assert found.std() < mean.std() + 1 < whole.std() - 20
    assert np.corrcoef(found.ravel(), mean.ravel())[0, 1] > 0.85


def test_ground_without_imagery_is_grey(noisy):
    pyramid, _ = noisy
    assert (pyramid.view(Cell(14, 10, 10), 32) == FILL).all()
    found = pyramid.window(14, HOME.x - 1, HOME.y - 1, 2, 8 * PX)
    assert (found[: 4 * PX] == FILL).all() and (found[:, : 4 * PX] == FILL).all()
    assert (found[4 * PX :, 4 * PX :] != FILL).any(axis=2).mean() > 0.99
    assert (pyramid.window(8, -1.0, -0.2, 0.1, 16) == FILL).all()  # north of the map


def test_half_transparent_pixels_lie_over_the_grey(tmp_path):
    tile = np.full((PX, PX, 4), 255, np.uint8)
    tile[..., 3] = 128
    with pyramid_of(tmp_path / "p", [(HOME, tile)]) as pyramid:
        assert np.abs(pyramid.view(HOME, PX).astype(int) - 191).max() <= 1


def test_views_cross_the_antimeridian(tmp_path):
    last = (1 << 10) - 1
    west, east = noise(PX, 1), noise(PX, 2)
    tiles = [(Cell(10, last, 400), west), (Cell(10, 0, 400), east)]
    with pyramid_of(tmp_path / "p", tiles) as pyramid:
        expected = np.hstack([west[:, PX // 2 :], east[:, : PX // 2]])
        for x in (last + 0.5, -0.5):
            assert np.array_equal(pyramid.window(10, x, 400, 1, PX), expected)
        date_line = LatLng(pyramid.cells(10)[0].center.lat, 180.0)
        shown = pyramid.square(date_line, 1000, PX)
        assert (shown != FILL).any(axis=2).all()
        assert np.array_equal(shown, pyramid.square(LatLng(date_line.lat, -180.0), 1000, PX))


def test_far_views_cross_the_antimeridian(tmp_path):
    last = (1 << 10) - 1
    west = [(cell, np.full((PX, PX, 3), 40, np.uint8)) for cell in Cell(6, 63, 20).descendants(4)]
    east = [(cell, np.full((PX, PX, 3), 80, np.uint8)) for cell in Cell(6, 0, 20).descendants(4)]
    with pyramid_of(tmp_path / "p", west + east) as pyramid:
        assert pyramid.levels == [10] and pyramid.cells(10)[-1].x == last
        for x in (63.5, -0.5):
            found = pyramid.window(6, x, 20, 1, 32)
            assert (found[2:-2, 2:14] == 40).all() and (found[2:-2, 18:-2] == 80).all()


def levelled(tmp_path, levels) -> TilePyramid:
    """A pyramid whose tiles say by their red which level they are."""
    tiles = [
        (cell, np.full((PX, PX, 3), (10 * (level - 13), 0, 0), np.uint8))
        for level in levels
        for cell in HOME.descendants(level - 14)
    ]
    return pyramid_of(tmp_path / "levels", tiles)


@pytest.mark.parametrize(
    ("levels", "size_px", "shown"),
    [
        ((14, 15, 16), PX, 14),
        ((14, 15, 16), PX // 4, 14),
        ((14, 15, 16), PX + 1, 15),
        ((14, 15, 16), 2 * PX, 15),
        ((14, 15, 16), 3 * PX, 16),
        ((14, 15, 16), 9 * PX, 16),  # finer than there is: upsampled
        ((14, 16), 2 * PX, 16),
        ((16,), PX // 4, 16),
    ],
)
def test_a_view_reads_the_coarsest_level_that_is_fine_enough(tmp_path, levels, size_px, shown):
    with levelled(tmp_path, levels) as pyramid:
        picture = pyramid.view(HOME, size_px)
        assert picture.shape == (size_px, size_px, 3)
        inside = picture[size_px // 4 : -size_px // 4, size_px // 4 : -size_px // 4]
        assert (inside[..., 0] == 10 * (shown - 13)).all()


def test_far_views_of_a_fine_pyramid_keep_its_colours(tmp_path):
    with levelled(tmp_path, (16,)) as pyramid:
        found = pyramid.view(HOME.parent(2), PX)
        x, y = (HOME.x % 4) * PX // 4, (HOME.y % 4) * PX // 4
        part = found[y + 1 : y + PX // 4 - 1, x + 1 : x + PX // 4 - 1]
        assert (part[..., 0] == 30).all()
        grey = found.copy()
        grey[max(y - 1, 0) : y + PX // 4 + 1, max(x - 1, 0) : x + PX // 4 + 1] = FILL
        assert (grey == FILL).all()
        with pytest.raises(ImageryError, match="coarsest tiles are level 16, too fine"):
            pyramid.view(Cell(0, 0, 0), PX)


# 4. squares


MARK_PX = 512


def marked(tmp_path, center: LatLng, bearing_deg: float, metres: float) -> TilePyramid:
    """Black ground of about 0.3 m pixels with a soft white dot where one gets by going so far."""
    dot = moved(center, bearing_deg, metres)
    middle = cell_at(center, 18)
    dot = dot._replace(lng=center.lng + (dot.lng - center.lng + 180) % 360 - 180)
    x, y = (float(v[0]) * MARK_PX for v in xy_of(np.array([dot.lat]), np.array([dot.lng]), 18))
    tiles = []
    for column in range(middle.x - 1, middle.x + 2):
        for row in range(middle.y - 1, middle.y + 2):
            across = np.arange(MARK_PX) + 0.5 + column * MARK_PX - x
            down = np.arange(MARK_PX) + 0.5 + row * MARK_PX - y
            grey = 255 * np.exp(-(across[None] ** 2 + down[:, None] ** 2) / (2 * 4**2))
            picture = np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)
            tiles.append((Cell(18, column % (1 << 18), row), picture))
    return pyramid_of(tmp_path / "marked", tiles)


def centroid(picture: np.ndarray) -> tuple[float, float]:
    """Right and down of the middle, in pixels, of what is bright."""
    weight = picture[..., 0].astype(float)
    weight[weight < 20] = 0
    at = np.arange(len(picture)) + 0.5 - len(picture) / 2
    return (weight.sum(0) @ at) / weight.sum(), (weight.sum(1) @ at) / weight.sum()


@pytest.mark.parametrize("place", [(0.0, 32.0), (47.3, 8.5), (-62.0, -58.0), (10.0, 179.9999)])
@pytest.mark.parametrize(("bearing_deg", "rotation_deg"), [(0, 0), (90, 0), (37, 0), (120, 75)])
def test_a_mark_at_a_known_bearing_lands_where_it_should(
    tmp_path, place, bearing_deg, rotation_deg
):
    center, metres, side_m, px = LatLng(*place), 30.0, 100.0, 200
    with marked(tmp_path, center, bearing_deg, metres) as pyramid:
        right, down = centroid(pyramid.square(center, side_m, px, rotation_deg))
        turned = np.radians(bearing_deg - rotation_deg)
        reach = metres / side_m * px
        assert right == pytest.approx(reach * np.sin(turned), abs=0.3)
        assert down == pytest.approx(-reach * np.cos(turned), abs=0.3)


@pytest.mark.parametrize("rotation_deg", [0, 45, 90, 200, 359.5, -30, 720])
def test_what_lies_ahead_is_up(tmp_path, rotation_deg):
    center = LatLng(47.3, 8.5)
    with marked(tmp_path, center, rotation_deg % 360, 35.0) as pyramid:
        right, down = centroid(pyramid.square(center, 100.0, 100, rotation_deg))
        assert (right, down) == (pytest.approx(0, abs=0.3), pytest.approx(-35, abs=0.3))


def test_quarter_turns_are_the_same_pixels(tmp_path):
    tiles = [(c, noise(256, i)) for i, c in enumerate(HOME.descendants(1))]
    with pyramid_of(tmp_path / "p", tiles) as pyramid:
        north = pyramid.square(HOME.center, 200, 64).astype(int)
        east = pyramid.square(HOME.center, 200, 64, 90).astype(int)
        assert np.abs(np.rot90(north) - east).mean() < 12  # the plane's 0.7 % of stretch remains
        assert north.std() > 25


def test_a_square_and_a_window_of_the_same_ground_agree(tmp_path):
    smooth = np.asarray(Image.fromarray(noise(16, 3)).resize((1024, 1024)))
    with pyramid_of(tmp_path / "p", [(HOME, smooth)]) as pyramid:
        center = HOME.center
        west, south, east, north = HOME.bounds
        wide = distance_m(LatLng(center.lat, west), LatLng(center.lat, east))
        found = pyramid.square(center, wide / 4, 128).astype(int)
        window = pyramid.window(14, HOME.x + 0.375, HOME.y + 0.375, 0.25, 128)
        assert np.abs(found - window).mean() < 3


def test_a_square_beyond_the_imagery_is_grey(noisy):
    pyramid, _ = noisy
    assert (pyramid.square(LatLng(0, 0), 100, 32, 10) == FILL).all()


# 5. coverage


def test_coverage_at_all_levels(tmp_path):
    half = noise(PX, 0, 4)
    half[..., 3] = 0
    half[:, PX // 2 :, 3] = 255
    cells = HOME.descendants()
    with pyramid_of(tmp_path / "p", [(cells[0], half), (cells[1], noise(PX, 1))]) as pyramid:
        x, y = cells[0].x, cells[0].y

        def share(level, *at):
            columns, rows = np.array(at).T
            return pyramid.coverage(level, columns, rows).tolist()

        assert share(15, (x, y), (x + 1, y), (x, y + 1)) == [0.5, 1.0, 0.0]
        assert share(14, (HOME.x, HOME.y), (HOME.x + 1, HOME.y)) == [0.375, 0]
        assert share(10, (HOME.x >> 4, HOME.y >> 4)) == [0.375 / 256]
        assert share(16, (2 * x, 2 * y), (2 * x + 1, 2 * y), (2 * x + 2, 2 * y)) == [0, 1, 1]
        deep = 24  # its cells are smaller than a pixel
        assert share(deep, (x << 9, y << 9), ((x << 9) + 257, (y << 9) + 400)) == [0, 1]
        around = 1 << 15
        assert share(15, (x + around, y), (x - around, y)) == [0.5, 0.5]
        assert share(15, (x, -1), (x, around), (x, y + around)) == [0, 0, 0]
        assert pyramid.coverage(15, np.zeros(0, int), np.zeros(0, int)).shape == (0,)


def test_coverage_of_tiles_without_alpha_is_that_they_exist(tmp_path):
    tiles = [(HOME.parent(), noise(PX, 0)), (HOME, noise(PX, 1))]
    tiles += block(HOME, 1)[:3]
    with pyramid_of(tmp_path / "p", tiles, "jpeg") as pyramid:
        columns, rows = np.array([(c.x, c.y) for c in HOME.descendants(2)]).T
        found = pyramid.coverage(16, columns, rows).reshape(4, 4)
        assert (found == np.array([[1, 1, 1, 1]] * 2 + [[1, 1, 0, 0]] * 2)).all()


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=20)
def test_coverage_is_the_mean_of_the_alpha(tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    tile = noise(PX, seed, 4)
    tile[..., 3] = np.where(rng.random((PX, PX)) < rng.random(), 255, 0)
    path = tmp_path_factory.mktemp("alpha") / "p"
    with pyramid_of(path, [(HOME, tile)]) as pyramid:
        columns, rows = np.array([(c.x, c.y) for c in HOME.descendants(3)]).T
        expected = (tile[..., 3] > 0).reshape(8, PX // 8, 8, PX // 8).mean(axis=(1, 3))
        found = pyramid.coverage(17, columns, rows).reshape(8, 8)
        assert found == pytest.approx(expected)


# 6. identity


def test_the_hash_follows_the_content_alone(tmp_path):
    packed = [(cell, encoded(picture)) for cell, picture in block(HOME, 1)]

    def hash_of(name, tiles, metadata):
        write_pmtiles(tmp_path / name, tiles, metadata, "png", PX)
        with TilePyramid.open(tmp_path / name) as pyramid:
            return pyramid.imagery_hash()

    first = hash_of("a", packed, {"name": "a"})
    assert hash_of("b", packed[::-1], {"name": "b", "sources": ["x"]}) == first
    assert hash_of("c", packed[1:], {"name": "a"}) != first
    changed = [(packed[0][0], encoded(noise(PX, 77))), *packed[1:]]
    assert hash_of("d", changed, {"name": "a"}) != first


def test_a_pyramid_is_pickled_by_its_path(noisy):
    pyramid, whole = noisy
    with pickle.loads(pickle.dumps(pyramid)) as copy:
        assert np.array_equal(copy.view(HOME, 4 * PX), whole)


def test_a_caller_cannot_change_what_others_see(noisy):
    pyramid, _ = noisy
    cell = HOME.descendants(2)[0]
    before = pyramid.tile(cell)
    pyramid.tile(cell)[:] = 0
    assert np.array_equal(pyramid.tile(cell), before)
    view, square = pyramid.view(HOME, PX), pyramid.square(HOME.center, 500, PX)
    kept = view.copy()
    view[:], square[:] = 0, 0  # writable, so that torch takes them without a copy
    assert np.array_equal(pyramid.view(HOME, PX), kept)


# 7. what cannot be read


def vector_pmtiles(path):
    write_pmtiles(path, [(HOME, encoded(noise(PX, 0)))], {}, "png", PX)
    data = bytearray(path.read_bytes())
    data[99] = oracle.TileType.MVT.value
    path.write_bytes(data)


def cut_off_pmtiles(path):
    write_pmtiles(path, [(HOME, encoded(noise(PX, 0)))], {}, "png", PX)
    path.write_bytes(path.read_bytes()[:-100])


def bomb_pmtiles(path):
    write_pmtiles(path, [(HOME, encoded(noise(PX, 0)))], {}, "png", PX)
    data = bytearray(path.read_bytes())
    bomb = gzip.compress(b"\0" * (1 << 22))
    data[24:40] = len(data).to_bytes(8, "little") + len(bomb).to_bytes(8, "little")
    path.write_bytes(bytes(data) + bomb)


def cut_off_directory(path):
    write_pmtiles(path, [(HOME, encoded(noise(PX, 0)))], {}, "png", PX)
    data = bytearray(path.read_bytes())
    data[16:24] = (int.from_bytes(data[16:24], "little") - 4).to_bytes(8, "little")
    path.write_bytes(data)


def sqlite_without_tiles(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE other (a)")
    db.close()


def vector_mbtiles(path):
    write_mbtiles(path, block(HOME, 1), format="pbf")


def empty_mbtiles(path):
    write_mbtiles(path, [])


def odd_tiles(path):
    write_folder(path, [(HOME, np.zeros((100, 100, 3), np.uint8))])


def text_tiles(path):
    write_folder(path, [(HOME, noise(PX, 0))])
    (path / "14" / str(HOME.x) / f"{HOME.y}.png").write_text("<html>404</html>")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: None, "no such pyramid; make it with 'zoomloc tiles'"),
        (lambda path: path.touch(), "neither PMTiles, MBTiles nor a z/x/y folder"),
        (lambda path: path.write_bytes(os.urandom(500)), "neither PMTiles"),
        (lambda path: path.write_bytes(b"PMTiles\x03"), "damaged PMTiles file"),
        (lambda path: path.write_bytes(b"PMTiles\x02" + bytes(200)), "version 3"),
        (lambda path: path.write_bytes(b"PMTiles\x03" + bytes(200)), "UNKNOWN tiles"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(200)), "damaged MBTiles"),
        (lambda path: path.mkdir(), "no z/x/y.png, .jpg or .webp tiles"),
        (vector_pmtiles, "holds MVT tiles; PNG, JPEG or WebP"),
        (cut_off_pmtiles, r"cut off at [\d,]+ of [\d,]+ bytes"),
        (bomb_pmtiles, "damaged PMTiles file"),
        (cut_off_directory, "packed section is cut off"),
        (sqlite_without_tiles, "damaged MBTiles file"),
        (vector_mbtiles, "vector tiles"),
        (empty_mbtiles, "no tiles in it"),
        (odd_tiles, "tiles of 100 x 100 px"),
        (text_tiles, r"tile 14/8500/5800 is damaged"),
    ],
)
def test_what_is_no_pyramid_is_refused_in_one_line(tmp_path, make, told):
    path = tmp_path / "p"
    make(path)
    with pytest.raises(ImageryError, match=told) as caught:
        TilePyramid.open(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_damaged_tile_is_named(tmp_path):
    good, bad, small = HOME.descendants()[:3]
    packed = [
        (good, encoded(noise(PX, 0))),
        (bad, encoded(noise(PX, 1))[:400]),
        (small, encoded(noise(PX // 2, 1))),
    ]
    write_pmtiles(tmp_path / "p", packed, {}, "png", PX)
    with TilePyramid.open(tmp_path / "p") as pyramid:
        assert pyramid.tile(good) is not None
        with pytest.raises(ImageryError, match=f"tile 15/{bad.x}/{bad.y} is damaged"):
            pyramid.tile(bad)
        with pytest.raises(ImageryError, match=f"tile 15/{small.x}/{small.y} is .*32, 32"):
            pyramid.tile(small)


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_damaged_bytes_raise_nothing_else(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "p"
    write_pmtiles(path, [(c, encoded(p)) for c, p in block(HOME, 1, px=64)], {}, "png", 64)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, min(len(raw) - 1, 600)))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(len(raw) // 2, len(raw)))])
    try:
        with TilePyramid.open(path) as pyramid:
            pyramid.view(HOME, 64)
            for level in pyramid.levels:
                for cell in pyramid.cells(level)[:4]:
                    pyramid.tile(cell)
            pyramid.coverage(17, np.array([HOME.x << 3]), np.array([HOME.y << 3]))
    except ImageryError as error:
        assert "\n" not in str(error)
