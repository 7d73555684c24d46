"""RegionViews: pictures of cells, the view of a root choice, places and choices."""

import io

import numpy as np
import pytest
from PIL import Image

from zoomloc import index
from zoomloc.index import RegionViews
from zoomloc.world.cells import Cell
from zoomloc.world.coverage import Coverage
from zoomloc.world.pyramid import FILL, TilePyramid, write_pmtiles
from zoomloc.world.region import Region

LEVEL, ROW = 12, 1500
LAST = (1 << LEVEL) - 1
RED, BLUE, GREY = (200, 0, 0), (0, 0, 200), (FILL, FILL, FILL)


def png(colour) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (256, 256), colour).save(out, "PNG")
    return out.getvalue()


def views_of(folder, roots, colours, view_px=32, margin=0.0) -> RegionViews:
    """A region of plainly coloured roots; those without a colour have no imagery."""
    path = folder / "imagery.pmtiles"
    tiles = [
        (cell, png(colour))
        for root, colour in zip(roots, colours, strict=True)
        if colour
        for levels in (0, 2)
        for cell in root.descendants(levels)
    ]
    write_pmtiles(path, tiles, {"name": "colours"}, "png", 256)
    region, pyramid = Region("colours", tuple(roots), LEVEL + 4), TilePyramid.open(path)
    return RegionViews(region, pyramid, Coverage.of(region, pyramid), view_px, margin)


@pytest.fixture(params=["inland", "antimeridian"])
def pair(request, tmp_path):
    """Two roots side by side, red in the west and blue in the east."""
    west = 2000 if request.param == "inland" else LAST
    roots = (Cell(LEVEL, west, ROW), Cell(LEVEL, (west + 1) % (LAST + 1), ROW))
    return views_of(tmp_path, roots, (RED, BLUE))


def test_one_root_needs_no_root_choice(tmp_path):
    root = Cell(LEVEL, 2000, ROW)
    views = views_of(tmp_path, (root,), (RED,))
    assert not views.has_root_choice
    assert views.choices((root, root.descendants(2)[6])) == (6,)
    assert views.place(root) == (0.0, 0.0, 1.0)


def test_the_view_of_the_root_choice_is_the_square_around_all_roots(pair):
    picture = pair.picture(None)
    assert picture.shape == (32, 32, 3)
    assert tuple(picture[16, 4]) == RED and tuple(picture[16, 27]) == BLUE
    assert tuple(picture[2, 16]) == tuple(picture[29, 16]) == GREY  # two roots fill half of it


def test_places_are_shares_of_that_square(pair):
    west, east = pair.region.roots
    assert pair.place(None) == (0.0, -0.25, 1.0)
    assert pair.place(west) == (0.0, 0.0, 0.5)
    assert pair.place(east) == (0.5, 0.0, 0.5)
    assert pair.place(pair.region.children(east)[6]) == (0.75, 0.125, 0.125)


def test_a_view_shows_its_own_cell(pair):
    west, east = pair.region.roots
    assert (pair.picture(west) == RED).all() and (pair.picture(east) == BLUE).all()


def test_a_margin_shows_the_neighbours(tmp_path):
    roots = (Cell(LEVEL, 2000, ROW), Cell(LEVEL, 2001, ROW))
    picture = views_of(tmp_path, roots, (RED, BLUE), margin=0.5).picture(roots[0])
    assert tuple(picture[16, 16]) == RED
    assert tuple(picture[16, 30]) == BLUE
    assert tuple(picture[16, 1]) == tuple(picture[1, 16]) == GREY


def test_choices_along_a_path_begin_with_the_root_slot(pair):
    east = pair.region.roots[1]
    leaf = east.descendants(4)[-1]
    assert pair.choices(pair.region.path_to(leaf)) == (1, 15, 15)
    assert pair.choices((pair.region.roots[0],)) == (0,)


def test_roots_and_children_without_imagery_are_no_choices(tmp_path):
    roots = tuple(Cell(LEVEL, 2000 + i, ROW) for i in range(3))
    views = views_of(tmp_path, roots, (RED, None, BLUE))
    assert views.child_mask(None).tolist() == [True, False, True]
    assert views.child_mask(roots[0]).all() and not views.child_mask(roots[1]).any()


def test_a_picture_is_made_once_and_made_again_after_it_was_let_go(pair, monkeypatch):
    west, east = pair.region.roots
    first = pair.picture(west)
    monkeypatch.setattr(index, "KEPT_MB", 2.5 * first.nbytes / 1e6)  # room for two
    assert pair.picture(west) is first
    pair.picture(east)
    pair.picture(None)  # the third: the oldest goes
    again = pair.picture(west)
    assert again is not first
    np.testing.assert_array_equal(again, first)
