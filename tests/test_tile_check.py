"""Checking a pyramid, its contact sheet, and updating one where imagery changed."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from raster_files import CORNER, ground, write_tif

from data_prep.tile_check import check_pyramid
from data_prep.tiles import PYRAMID_NAME, build_tiles
from maps.report import write_contact_sheet
from zoomloc.cli import main
from zoomloc.world.pmtiles_writer import write_pmtiles
from zoomloc.world.pyramid import TilePyramid


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    folder = tmp_path_factory.mktemp("town")
    raster = write_tif(folder / "a.tif", ground(900, coarse=90))
    build_tiles([raster], folder, "town", workers=1, attribution=["<b>Somebody</b>"])
    return folder


def copied(town, tmp_path, change):
    """The town's folder with its tiles changed: ``change`` gets and returns {cell: bytes}."""
    with TilePyramid.open(town / PYRAMID_NAME) as pyramid:
        tiles = {cell: pyramid.encoded(cell) for z in pyramid.levels for cell in pyramid.cells(z)}
        metadata = dict(pyramid.metadata)
    shutil.copy(town / "region.json", tmp_path)
    write_pmtiles(tmp_path / PYRAMID_NAME, change(tiles).items(), metadata, "webp", 256)
    return tmp_path


def deepest(tiles):
    return sorted(cell for cell in tiles if cell.level == max(c.level for c in tiles))


def test_a_whole_pyramid_is_whole(town):
    report = check_pyramid(town)
    assert report.whole and report.covered > 0.95
    assert sum(level.tiles for level in report.levels) > 20
    assert report.lines()[-1].endswith("whole")


def test_a_missing_tile_is_named(town, tmp_path):
    def change(tiles):
        gone.append(deepest(tiles)[7])
        return {cell: data for cell, data in tiles.items() if cell not in gone}

    gone: list = []
    report = check_pyramid(copied(town, tmp_path, change))
    cell = gone[0]
    assert not report.whole and report.levels[-1].missing == [f"{cell.level}/{cell.x}/{cell.y}"]


def test_a_damaged_tile_is_named(town, tmp_path):
    def change(tiles):
        return tiles | {deepest(tiles)[3]: tiles[deepest(tiles)[3]][:100]}

    report = check_pyramid(copied(town, tmp_path, change))
    assert not report.whole and len(report.levels[-1].damaged) == 1


def test_a_blank_tile_is_named_and_no_fault(town, tmp_path):
    from raster_files import encoded

    def change(tiles):
        return tiles | {deepest(tiles)[3]: encoded(np.full((256, 256, 3), 80, np.uint8), "webp")}

    report = check_pyramid(copied(town, tmp_path, change))
    assert report.whole and len(report.levels[-1].blank) == 1


def test_the_contact_sheet_shows_levels_and_credit_as_text(town, tmp_path):
    report = check_pyramid(town)
    write_contact_sheet(town, report.to_json(), tmp_path / "sheet.html")
    page = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;Somebody&lt;/b&gt;" in page and "<b>Somebody" not in page
    assert len(re.findall("<h2>Level", page)) == len(report.levels)
    assert "default-src 'none'" in page and "http://" not in page and "<script" not in page
    assert page.count("data:image/jpeg;base64,") >= 2 * len(report.levels) - 4


@pytest.mark.parametrize("whole", [True, False])
def test_the_verb_tells_by_its_exit_code(town, tmp_path, monkeypatch, capsys, whole):
    folder = town
    if not whole:
        folder = copied(town, tmp_path, lambda t: {c: d for c, d in t.items() if c != last(t)})
    sheet = tmp_path / "sheet.html"
    words = ["zoomloc", "tiles", "--check", "--out", str(folder), "--sheet", str(sheet)]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == (0 if whole else 1)
    assert ("whole" if whole else "1 missing") in capsys.readouterr().out
    assert sheet.is_file()


def last(tiles):
    return deepest(tiles)[-1]


# 1. updates


def files(path):
    with TilePyramid.open(path) as pyramid:
        return {cell: pyramid.encoded(cell) for z in pyramid.levels for cell in pyramid.cells(z)}


def sheet_at(folder, name, column, seed):
    corner = (CORNER[0] + 700 * column, CORNER[1])
    return write_tif(folder / f"{name}.tif", ground(700, seed), corner=corner)


def test_an_update_makes_what_a_whole_build_makes_and_little_of_it_anew(tmp_path):
    sheets = [sheet_at(tmp_path, name, i, i) for i, name in enumerate("abcd")]
    out = tmp_path / "out"
    build_tiles(sheets, out, "town", workers=1)
    sheets[3] = sheet_at(tmp_path, "d", 3, 9)
    os.utime(sheets[3], ns=(1, 1))
    updated = build_tiles(sheets, out, "town", workers=1, update=True)
    anew = build_tiles(sheets, tmp_path / "anew", "town", workers=1)
    assert files(updated.imagery) == files(anew.imagery)
    assert updated.imagery_hash == anew.imagery_hash
    assert 0 < updated.updated < 0.6 * updated.tile_count
    again = build_tiles(sheets, out, "town", workers=1, update=True)
    assert not again.built and again.updated is None


@pytest.mark.parametrize("change", ["added", "removed", "order", "settings"])
def test_updates_of_other_kinds_end_the_same(tmp_path, change):
    sheets = [sheet_at(tmp_path, name, i * 0.7, i) for i, name in enumerate("abcd")]
    first = sheets[:3] if change == "added" else sheets
    second = {"removed": sheets[1:], "order": sheets[::-1]}.get(change, sheets)
    more = {"quality": 60} if change == "settings" else {}
    build_tiles(first, tmp_path / "out", "town", workers=1)
    updated = build_tiles(second, tmp_path / "out", "town", workers=1, update=True, **more)
    anew = build_tiles(second, tmp_path / "anew", "town", workers=1, **more)
    assert files(updated.imagery) == files(anew.imagery)
    if change in ("order", "settings"):
        assert updated.updated == updated.tile_count
    else:
        assert updated.updated < updated.tile_count


def test_the_metadata_of_sheets_is_plain(tmp_path):
    sheet = sheet_at(tmp_path, "a", 0, 0)
    summary = build_tiles([sheet], tmp_path, "town", workers=1)
    with TilePyramid.open(summary.imagery) as pyramid:
        (entry,) = pyramid.metadata["sheets"]
        assert len(entry) == 5 and json.dumps(entry)
        assert str(tmp_path) not in json.dumps(pyramid.metadata)
