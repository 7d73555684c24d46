"""Tile stores on disk and the paper's tiledwebmaps folders, as sheets of a pyramid."""

import json
import sqlite3

import numpy as np
import pytest
import yaml
from PIL import Image
from raster_files import encoded, noise, pyramid_of

from data_prep.imagery.stores import open_stored
from data_prep.imagery.tiledwebmaps import open_tiledwebmaps
from data_prep.tiles import PYRAMID_NAME, build_tiles
from zoomloc.cli.screen import Screen
from zoomloc.cli.tiling import make_tiles
from zoomloc.config import TilesConfig
from zoomloc.errors import ImageryError
from zoomloc.world.cells import Cell, LatLng, cell_at
from zoomloc.world.pyramid import TilePyramid

LEVEL = 17
MIDDLE = cell_at(LatLng(-36.85, 174.76), LEVEL)
CELLS = [Cell(LEVEL, MIDDLE.x + dx, MIDDLE.y + dy) for dy in range(2) for dx in range(3)]
PICTURES = {cell: noise(256, i) for i, cell in enumerate(CELLS)}


def as_folder(path):
    for cell, picture in PICTURES.items():
        file = path / str(cell.level) / str(cell.x) / f"{cell.y}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(picture))
    return path


def as_mbtiles(path):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE metadata (name text, value text)")
        database.execute(
            "CREATE TABLE tiles (zoom_level integer, tile_column integer, tile_row integer,"
            " tile_data blob)"
        )
        rows = [(c.level, c.x, (1 << c.level) - 1 - c.y, encoded(p)) for c, p in PICTURES.items()]
        database.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows)
    database.close()
    return path


def as_pmtiles(path):
    pyramid_of(path, PICTURES.items()).close()
    return path


@pytest.mark.parametrize("write", [as_folder, as_mbtiles, as_pmtiles])
def test_a_store_becomes_a_pyramid_of_the_same_pixels(tmp_path, write):
    store = write(tmp_path / "store")
    source = {"kind": "tiles", "path": str(store), "attribution": "Made up", "licence": "CC0-1.0"}
    plan = TilesConfig(sources=(source,), image_format="png")
    make_tiles(plan, [], tmp_path / "out", "town", 1, Screen(quiet=True))
    with TilePyramid.open(tmp_path / "out" / PYRAMID_NAME) as pyramid:
        assert pyramid.max_level == LEVEL and set(pyramid.cells(LEVEL)) == set(CELLS)
        for cell, picture in PICTURES.items():
            assert (pyramid.tile(cell)[..., :3] == picture).all()
        assert pyramid.metadata["attribution"] == "Made up"
        assert pyramid.min_level < LEVEL


def test_where_the_deepest_level_ends_a_coarser_one_goes_on(tmp_path):
    below = CELLS[0].descendants(1)
    tiles = [*PICTURES.items(), *((cell, noise(256, 50 + i)) for i, cell in enumerate(below))]
    pyramid_of(tmp_path / "a.pmtiles", tiles).close()
    sheets = open_stored(tmp_path / "a.pmtiles")
    assert [round(s.gsd_m / sheets[0].gsd_m) for s in sheets] == [1, 2]
    summary = build_tiles(sheets, tmp_path, "town", image_format="png", workers=1)
    with TilePyramid.open(summary.imagery) as pyramid:
        assert (pyramid.tile(below[2])[..., :3] == tiles[-2][1]).all()
        assert pyramid.tile(CELLS[2].descendants(1)[0])[..., 3].min() == 255
    assert len(open_stored(tmp_path / "a.pmtiles", LEVEL)) == 1
    with pytest.raises(ImageryError, match=f"has no tiles of level 3; it has 17, {LEVEL + 1}"):
        open_stored(tmp_path / "a.pmtiles", 3)


# The package tiledwebmaps, as the paper's imagery is released: origin, sides and CRS as its
# layout.yaml has them (EPSG:26985, Maryland State Plane in metres), with fewer pixels a tile here.

ORIGIN, SIDE_M, PX = (600.0, 200.0), 20.0, 250
FIRST = (20_019, 6_799)  # the tile in the middle of the paper's canvas
WIDE, HIGH = 4, 3


def as_tiledwebmaps(folder, north=True, zoom=0):
    """A picture of 4 x 3 tiles, whose rows count northwards or southwards."""
    whole = noise(PX * max(WIDE, HIGH), 3)[: HIGH * PX, : WIDE * PX]
    for row in range(HIGH):  # from the north
        for column in range(WIDE):
            y = FIRST[1] + (HIGH - 1 - row if north else row)
            file = folder / str(zoom) / str(FIRST[0] + column) / f"{y}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            part = whole[row * PX : (row + 1) * PX, column * PX : (column + 1) * PX]
            file.write_bytes(encoded(part))
    layout = {
        "crs": "epsg:26985",
        "max_zoom": zoom,
        "min_zoom": zoom,
        "origin_crs": list(ORIGIN),
        "path": "{zoom}/{x}/{y}.png",
        "tile_axes": ["east", "north" if north else "south"],
        "tile_shape_crs": [SIDE_M, SIDE_M],
        "tile_shape_px": [PX, PX],
    }
    (folder / "layout.yaml").write_text(yaml.safe_dump(layout), encoding="utf-8")
    return whole


def place_in(east: float, north: float) -> LatLng:
    from pyproj import Transformer

    lng, lat = Transformer.from_crs(26985, 4326, always_xy=True).transform(east, north)
    return LatLng(lat, lng)


@pytest.mark.parametrize("north", [True, False])
def test_a_tiledwebmaps_folder_lies_where_its_layout_says(tmp_path, north):
    """A bright mark at a known place in the projected plane is seen there in the pyramid."""
    folder = tmp_path / "satellite"
    as_tiledwebmaps(folder, north)
    flat = np.full((PX, PX, 3), 60, np.uint8)
    flat[100:105, 200:205] = 250  # rows from the tile's north edge, also where y grows north
    for file in folder.glob("*/*/*.png"):
        file.write_bytes(encoded(np.full((PX, PX, 3), 60, np.uint8)))
    x, y = FIRST[0] + 1, FIRST[1] + 1
    (folder / "0" / str(x) / f"{y}.png").write_bytes(encoded(flat))
    east = ORIGIN[0] + x * SIDE_M + 202.5 * SIDE_M / PX
    top = ORIGIN[1] + (y + 1) * SIDE_M if north else ORIGIN[1] - y * SIDE_M
    place = place_in(east, top - 102.5 * SIDE_M / PX)
    sheet = open_tiledwebmaps(folder)
    assert sheet.gsd_m == pytest.approx(0.08, rel=0.01)
    summary = build_tiles([sheet], tmp_path, "dc", image_format="png", workers=1)
    with TilePyramid.open(summary.imagery) as pyramid:
        seen = pyramid.square(place, 8.0, 101)[..., 0].astype(int)
        mark = np.argwhere(seen > 150)
        assert len(mark), "the mark is on the map"
        off_m = (mark.mean(axis=0) - 50) * 8.0 / 101
        assert np.abs(off_m).max() < 0.06


def test_a_packed_folder_shows_the_same(tmp_path):
    folder, packed = tmp_path / "satellite", tmp_path / "packed"
    as_tiledwebmaps(folder)
    packed.mkdir()
    (packed / "layout.yaml").write_bytes((folder / "layout.yaml").read_bytes())
    files = sorted(folder.glob("*/*/*.png"))
    bodies = [file.read_bytes() for file in files]
    (packed / "images.dat").write_bytes(b"".join(bodies))
    np.savez(
        packed / "images-meta.npz",
        zoom=np.array([int(f.parts[-3]) for f in files]),
        x=np.array([int(f.parts[-2]) for f in files]),
        y=np.array([int(f.stem) for f in files]),
        offset=np.cumsum([0, *map(len, bodies)]),
    )
    block = cell_at(place_in(ORIGIN[0] + 20_021 * SIDE_M, ORIGIN[1] + 6_800.5 * SIDE_M), 21)
    one, other = (open_tiledwebmaps(where).draw(block, 256) for where in (folder, packed))
    assert one is not None and one[3].any() and (one == other).all()


def test_zooms_below_zero_are_coarser(tmp_path):
    as_tiledwebmaps(tmp_path, zoom=-2)
    sheet = open_tiledwebmaps(tmp_path)
    assert sheet.zoom == -2 and sheet.gsd_m == pytest.approx(0.32, rel=0.01)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tile_axes": ["north", "east"]}, "are read"),
        ({"crs": "nonsense"}, "cannot be used"),
        ({"tile_shape_px": "large"}, "tile_shape_px"),
        ({"path": "{zoom}-{x}-{y}.png"}, "no tile lies at"),
    ],
)
def test_a_layout_that_cannot_be_used_is_told(tmp_path, change, told):
    as_tiledwebmaps(tmp_path)
    layout = yaml.safe_load((tmp_path / "layout.yaml").read_text())
    (tmp_path / "layout.yaml").write_text(yaml.safe_dump(layout | change), encoding="utf-8")
    with pytest.raises(ImageryError, match=told):
        open_tiledwebmaps(tmp_path)


def test_a_damaged_tile_is_named(tmp_path):
    as_tiledwebmaps(tmp_path)
    file = next(tmp_path.glob("*/*/*.png"))
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ImageryError, match=f"{file.parent.name}/{file.name} is damaged"):
        build_tiles([open_tiledwebmaps(tmp_path)], tmp_path / "out", "dc", workers=1)


def test_the_real_tiles_of_kampala_are_the_mean_of_their_children(tmp_path, real_data):
    """Three levels of OpenAerialMap tiles of one place, each level made by its provider."""
    source = real_data / "oam-kampala-tiles"
    files = {Cell(*where): file for file in source.rglob("*") if (where := _named(file))}
    levels = sorted({cell.level for cell in files})
    assert len(levels) >= 3
    store = tmp_path / "store"
    for cell, file in files.items():
        if cell.level == levels[-1]:
            target = store / str(cell.level) / str(cell.x) / f"{cell.y}{file.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    summary = build_tiles(open_stored(store), tmp_path, "kampala", image_format="png", workers=1)
    compared = 0
    with TilePyramid.open(summary.imagery) as pyramid:
        for cell, file in files.items():
            inside = all(child in files for child in cell.descendants(1))
            if cell.level == levels[-1] or not inside:
                continue
            ours = pyramid.tile(cell)
            theirs = np.asarray(Image.open(file).convert("RGBA"))
            solid = (ours[..., 3] == 255) & (theirs[..., 3] == 255)
            if solid.mean() < 0.9:
                continue
            here, there = (p[..., 1].astype(float) for p in (ours, theirs))
            # another resampling than ours, so the same picture only to a degree
            assert np.corrcoef(here[solid], there[solid])[0, 1] > 0.9
            off = {
                at: np.abs(np.roll(here, at, (0, 1)) - there)[solid].mean()
                for at in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
            }
            assert min(off, key=off.get) == (0, 0), f"{cell} is shifted"
            compared += 1
    assert compared >= 3


def _named(file):
    names = [*file.parts[-3:-1], file.stem]
    picture = file.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp")
    return tuple(map(int, names)) if picture and all(n.isdigit() for n in names) else None


def test_the_metadata_of_a_store_does_not_reach_the_pyramid_unasked(tmp_path):
    """Credit is what the config says: a store's own metadata may be anything."""
    folder = as_folder(tmp_path / "store")
    (folder / "metadata.json").write_text(json.dumps({"attribution": "<script>"}))
    summary = build_tiles(open_stored(folder), tmp_path, "a", workers=1, attribution=["Right"])
    with TilePyramid.open(summary.imagery) as pyramid:
        assert pyramid.metadata["attribution"] == "Right"
