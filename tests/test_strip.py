"""The strip: what its pictures show and where, and that nothing half-written stays behind."""

import dataclasses
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFont

from maps.lettering import font, plain, wrapped
from maps.strip import write_strip
from zoomloc.errors import ImageryError, OutputError, PhotoError, RegionError, ZoomlocError
from zoomloc.world.answers import Alternative, Answer
from zoomloc.world.cells import Cell, LatLng, cell_at, distance_m, latlng_of, moved
from zoomloc.world.pyramid import TilePyramid, write_pmtiles
from zoomloc.world.region import Region

Pixels = npt.NDArray[np.int64]

HERE = LatLng(44.0577, -123.0712)
SUVA = LatLng(-16.8, 179.9999)  # beside the antimeridian
GROUND = (90, 140, 70)
AMBER, GREY = (255, 179, 71), (120, 130, 142)
YELLOW, MAGENTA, RED, GREEN, VOID = (253, 224, 71), (230, 0, 126), (225, 29, 72), (34, 170, 84), (
    52, 59, 68)  # fmt: skip
HIGH, PAD, GAP = 240, 20, 30  # at the default height


def one_root(place: LatLng, **words: Any) -> Region:
    """Two zooms of 16 below the level-15 cell of a place."""
    return Region("one", (cell_at(place, 15),), 19, **words)


def four_roots(place: LatLng) -> Region:
    """The level-15 cells round the corner that is nearest to a place in one of them."""
    home, half = cell_at(place, 15), cell_at(place, 16)
    columns = {home.x, (home.x + 2 * (half.x % 2) - 1) % (1 << 15)}
    rows = {home.y, home.y + 2 * (half.y % 2) - 1}
    return Region("four", tuple(Cell(15, x, y) for x in columns for y in rows), 19)


def pyramid_of(region: Region, folder: Path, absent: tuple[Cell, ...] = ()) -> TilePyramid:
    """One colour everywhere below the roots, but for absent cells of the second level below."""
    file = io.BytesIO()
    Image.new("RGB", (256, 256), GROUND).save(file, "PNG")
    path = folder / f"{region.name}.pmtiles"
    cells = [cell for root in region.roots for cell in root.descendants(2) if cell not in absent]
    write_pmtiles(path, ((cell, file.getvalue()) for cell in cells), {"name": "t"}, "png", 256)
    return TilePyramid.open(path)


def middle(cell: Cell, east: float = 0.5, south: float = 0.5) -> LatLng:
    """The place that lies so far across a cell."""
    lat, lng = latlng_of(np.array([cell.x + east]), np.array([cell.y + south]), cell.level)
    return LatLng(float(lat[0]), float(lng[0]))


def answer_at(region: Region, place: LatLng, truth: LatLng | None, **changes: Any) -> Answer:
    """All belief in the answer's terminal cell."""
    path = region.path(place)
    answer = Answer(
        photo="/home/somebody/a.jpg",
        lat=place.lat,
        lng=place.lng,
        probability=0.9,
        radius50_m=5.0,
        radius90_m=9.0,
        bearing_deg=None,
        bearing_spread_deg=None,
        path=tuple(cell.quadkey for cell in path),
        candidates=(),
        posterior=((path[-1].quadkey, 1.0),),
        truth=truth,
        error_m=None if truth is None else distance_m(place, truth),
    )
    return dataclasses.replace(answer, **changes)


def panel(strip: Pixels, number: int, first: int = PAD) -> Pixels:
    """The pixels of one square picture of a strip."""
    left = first + number * (HIGH + GAP)
    return strip[PAD : PAD + HIGH, left : left + HIGH]


def pixels_of(path: Path) -> Pixels:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(np.int64)


def where(picture: Pixels, colour: tuple[int, int, int], within: int = 12) -> Pixels:
    """(n, 2) rows and columns of the pixels of about this colour."""
    return np.argwhere(np.abs(picture - colour).max(axis=2) <= within)


def centre(picture: Pixels, colour: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    """Row and column of the middle of what has this colour, as shares of the picture."""
    found = where(picture, colour)
    assert len(found), f"nothing of colour {colour}"
    return np.asarray((found.min(axis=0) + found.max(axis=0) + 1) / 2 / HIGH)


@pytest.fixture(scope="module")
def region() -> Region:
    return one_root(HERE, attribution=("Testville survey",), licence="CC0")


@pytest.fixture(scope="module")
def pyramid(region: Region, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TilePyramid]:
    with pyramid_of(region, tmp_path_factory.mktemp("pyramid")) as opened:
        yield opened


# 1. what is shown


def test_each_zoom_outlines_the_child_that_the_next_one_shows(
    region: Region, pyramid: TilePyramid, tmp_path: Path
) -> None:
    answer = answer_at(region, HERE, None)
    write_strip(answer, region, pyramid, tmp_path / "s.png")
    strip = pixels_of(tmp_path / "s.png")
    path = region.path(HERE)
    assert strip.shape[1] == 2 * PAD + 3 * HIGH + 2 * GAP  # two zooms and the close-up
    for zoom, (cell, child) in enumerate(zip(path, path[1:], strict=False)):
        row, column = divmod(child.choice(2), 4)
        frame = centre(panel(strip, zoom)[:, : HIGH * (column + 1) // 4 + 6], YELLOW)
        assert cell == child.parent(2)
        assert frame[0] == pytest.approx((row + 0.5) / 4, abs=0.03)
        assert frame[1] == pytest.approx((column + 0.5) / 4, abs=0.03)


def test_truth_and_answer_lie_where_they_are_on_the_ground(
    region: Region, pyramid: TilePyramid, tmp_path: Path
) -> None:
    root, leaf = region.path(HERE)[0], region.path(HERE)[-1]
    place, truth = middle(leaf, 0.4, 0.5), middle(leaf, 1.3, 1.1)
    write_strip(answer_at(region, place, truth), region, pyramid, tmp_path / "s.png")
    strip = pixels_of(tmp_path / "s.png")
    x, y = (truth.lng - root.bounds.west), (root.bounds.north - truth.lat)
    wide, high = root.bounds.east - root.bounds.west, root.bounds.north - root.bounds.south
    assert centre(panel(strip, 0), GREEN) == pytest.approx([y / high, x / wide], abs=0.01)
    close = panel(strip, 2)
    side = 1.3 + 0.6  # of a terminal cell: as wide as cell and truth, and a margin
    apart = centre(close, GREEN) - centre(close, RED)
    assert apart * side == pytest.approx([0.6, 0.9], abs=0.03)
    assert not len(where(panel(strip, 0), RED, 4))  # the answer is shown where the search ends


def test_without_truth_nothing_speaks_of_it(
    region: Region, pyramid: TilePyramid, tmp_path: Path
) -> None:
    write_strip(answer_at(region, HERE, None), region, pyramid, tmp_path / "s.png")
    strip = pixels_of(tmp_path / "s.png")
    assert not len(where(strip, GREEN))
    assert len(where(panel(strip, 2), RED))


@pytest.mark.parametrize("degrees", [0.005, 120.0])
def test_a_truth_far_off_is_pointed_at(
    region: Region, pyramid: TilePyramid, tmp_path: Path, degrees: float
) -> None:
    answer = answer_at(region, HERE, LatLng(HERE.lat, HERE.lng + degrees))
    write_strip(answer, region, pyramid, tmp_path / "s.png")
    close = panel(pixels_of(tmp_path / "s.png"), 2)
    assert not len(where(close, GREEN))
    line = where(close[:, -8:], (240, 246, 252))  # it leaves the picture eastward
    assert len(line) and abs(line[:, 0].mean() / HIGH - centre(close, RED)[0]) < 0.05


def test_belief_tints_its_cells_alone_and_by_its_share(
    region: Region, pyramid: TilePyramid, tmp_path: Path
) -> None:
    root, other = region.roots[0], region.path(HERE)[1]
    cells = [cell for cell in region.children(root) if cell != other][:2]
    within = cells[1].descendants(2)[3]  # a finer cell counts for the one around it
    posterior = ((cells[0].quadkey, 0.75), (within.quadkey, 0.25))
    answer = answer_at(region, HERE, None, posterior=posterior)
    write_strip(answer, region, pyramid, tmp_path / "s.png")
    view = panel(pixels_of(tmp_path / "s.png"), 0)

    def tint(cell: Cell) -> float:
        row, column = divmod(cell.choice(2), 4)
        pixel = view[row * 60 + 52, column * 60 + 52]
        return float((pixel - GROUND)[0] / (np.array(MAGENTA) - GROUND)[0])

    assert 0.3 < tint(cells[0]) < 0.5
    assert 0.1 < tint(cells[1]) < tint(cells[0]) / 1.5
    untouched = next(c for c in region.children(root) if c not in (*cells, other))
    assert tint(untouched) == pytest.approx(0, abs=0.02)


def test_several_roots_begin_with_the_square_around_them(tmp_path: Path) -> None:
    region = four_roots(HERE)
    assert len(region.roots) == 4
    absent = region.roots[3] if region.path(HERE)[0] != region.roots[3] else region.roots[0]
    with pyramid_of(region, tmp_path, tuple(absent.descendants(2))) as pyramid:
        write_strip(answer_at(region, HERE, HERE), region, pyramid, tmp_path / "s.png")
    strip = pixels_of(tmp_path / "s.png")
    assert strip.shape[1] == 2 * PAD + 4 * HIGH + 3 * GAP
    row, column = region.row_column(absent)
    quarter = panel(strip, 0)[row * 120 :, column * 120 :][:120, :120]
    assert len(where(quarter, VOID, 2)) > 0.75 * quarter.shape[0] * quarter.shape[1]
    row, column = region.row_column(region.path(HERE)[0])
    truth = centre(panel(strip, 0), GREEN) * 2 - [row, column]
    assert ((truth > 0) & (truth < 1)).all()


def test_across_the_antimeridian_it_is_one_picture(tmp_path: Path) -> None:
    region = four_roots(SUVA)
    assert {root.x for root in region.roots} >= {0, (1 << 15) - 1}
    truth = moved(SUVA, 90.0, 60.0)
    assert truth.lng < -179
    with pyramid_of(region, tmp_path) as pyramid:
        write_strip(answer_at(region, SUVA, truth), region, pyramid, tmp_path / "s.png")
    strip = pixels_of(tmp_path / "s.png")
    assert not len(where(panel(strip, 0), VOID, 2))
    close = panel(strip, 3)
    assert centre(close, GREEN)[1] > centre(close, RED)[1]


def test_the_photo_comes_first_and_keeps_its_shape(
    region: Region, pyramid: TilePyramid, tmp_path: Path
) -> None:
    answer = answer_at(region, HERE, None)
    for width, height, shown in (
        (300, 200, (240, 360)),
        (900, 100, (53, 480)),
        (75, 100, (240, 180)),
    ):
        Image.new("RGB", (width, height), (250, 20, 250)).save(tmp_path / "p.png")
        write_strip(answer, region, pyramid, tmp_path / "s.png", tmp_path / "p.png")
        strip = pixels_of(tmp_path / "s.png")
        found = where(strip[:, : PAD + max(shown[1], HIGH)], (250, 20, 250), 2)
        assert tuple(np.ptp(found, axis=0) + 1) == pytest.approx(shown, abs=2)
        first = PAD + max(shown[1], HIGH) + GAP
        assert len(where(panel(strip, 0, first), GROUND, 3)) > 1000
        assert strip.shape[1] == first + 3 * HIGH + 2 * GAP + PAD


def test_a_guess_is_said_to_be_one_and_does_not_shine(
    region: Region, pyramid: TilePyramid, tmp_path: Path
) -> None:
    strips = {}
    for name, changes in (
        ("plain", {}),
        ("unknown", {"unknown": True}),
        ("foreign", {"not_here": True}),
        ("against", {"agreement": -3.0}),
    ):
        answer = answer_at(region, HERE, None, **changes)
        write_strip(answer, region, pyramid, tmp_path / "s.png")
        strips[name] = pixels_of(tmp_path / "s.png")
    warned = {name: len(where(strip[:60], AMBER, 30)) for name, strip in strips.items()}
    assert warned["plain"] == 0 < warned["unknown"] < warned["foreign"]  # more letters
    assert warned["against"] > 0
    for name, strip in strips.items():
        assert bool(len(where(strip, RED))) == (name in ("plain", "against"))
        pictures = strip[60 : PAD + HIGH + len(strip) - len(strips["plain"])]
        assert (len(where(pictures, GREY, 4)) > 50) == (name in ("unknown", "foreign"))
    grown = len(strips["against"]) - len(strips["plain"])
    assert grown > 25  # by the warning alone: all else is as it was
    assert (strips["against"][PAD + grown :] == strips["plain"][PAD:]).all()


def test_other_places_are_marked_where_they_are_and_listed(
    region: Region, pyramid: TilePyramid, tmp_path: Path
) -> None:
    root = region.roots[0]
    near, far = middle(root, 0.25, 0.75), moved(HERE, 90.0, 500_000.0)
    heights = []
    for others in ((), (near,), (near, far, near, far)):
        alternatives = tuple(Alternative(*place, 0.1) for place in others)
        answer = answer_at(region, HERE, None, alternatives=alternatives)
        write_strip(answer, region, pyramid, tmp_path / "s.png")
        strip = pixels_of(tmp_path / "s.png")
        heights.append(len(strip))
        assert np.abs(strip[PAD + HIGH :, -PAD // 2 :] - (22, 27, 34)).max() <= 1  # none runs out
        bright = where(panel(strip, 0), (240, 246, 252), 4)
        assert bool(len(bright)) == bool(others)
        if others:
            assert (bright.min(axis=0) + bright.max(axis=0)) / 2 / HIGH == pytest.approx(
                [0.75, 0.25], abs=0.01
            )
    assert heights[0] + 20 < heights[1] < heights[2]  # a row for every few of them


# 2. words


def test_attribution_is_never_cut(region: Region, pyramid: TilePyramid, tmp_path: Path) -> None:
    answer = answer_at(region, HERE, None)
    heights = []
    for words in ((), ("Testville",), ("Testville " * 30, "W" * 300)):
        named = dataclasses.replace(region, attribution=words, licence="")
        write_strip(answer, named, pyramid, tmp_path / "s.png")
        strip = pixels_of(tmp_path / "s.png")
        heights.append(len(strip))
        below = strip[PAD + HIGH + 72 :]
        assert np.abs(below[:, -PAD // 2 :] - (22, 27, 34)).max() <= 1  # nothing runs out
        assert bool((below[:24, :200] > 90).any()) == bool(words)
    assert heights[0] == heights[1] < heights[2]


def test_wrapped_text_loses_nothing_and_fits() -> None:
    small = font(20)
    text = "Contains data of the survey " + "x" * 90
    lines = wrapped(text, small, 200)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(small.getlength(line) <= 200 for line in lines) and len(lines) > 4


def test_text_is_in_letters_of_the_font() -> None:
    assert plain("© Städte – Łódź\n\x00\u202eß") == "© Stadte - Lodz ss"
    assert plain("国 \ud800x") == "? x"
    missing = bytes(ImageFont.load_default(20).getmask("\uffff"))
    every = plain("".join(chr(code) for code in range(0x3000)))
    drawn = {c: bytes(ImageFont.load_default(20).getmask(c)) for c in set(every) - {" "}}
    assert [c for c, mask in drawn.items() if mask == missing] == []


def test_hostile_words_are_only_words(region: Region, pyramid: TilePyramid, tmp_path: Path) -> None:
    named = dataclasses.replace(region, attribution=("\ud800\u202e<b>\n\r\t\x00", "A\u0301" * 500))
    write_strip(answer_at(region, HERE, HERE), named, pyramid, tmp_path / "s.png")
    assert len(pixels_of(tmp_path / "s.png")) > 350  # some lines more


# 3. the file


@pytest.mark.parametrize(
    ("name", "kind"), [("s.png", "PNG"), ("s.JPG", "JPEG"), ("s.jpeg", "JPEG"), ("s.webp", "WEBP")]
)
def test_the_suffix_names_the_format(
    region: Region, pyramid: TilePyramid, tmp_path: Path, name: str, kind: str
) -> None:
    write_strip(answer_at(region, HERE, HERE), region, pyramid, tmp_path / name, height_px=80)
    with Image.open(tmp_path / name) as picture:
        assert picture.format == kind
        assert "somebody" not in repr(picture.info)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_equal_answers_give_equal_files(
    region: Region, pyramid: TilePyramid, tmp_path: Path
) -> None:
    answer = answer_at(region, HERE, HERE)
    for name in ("a.png", "b.png"):
        write_strip(answer, region, pyramid, tmp_path / name, height_px=100)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_what_cannot_be_drawn_is_refused_and_leaves_the_old_file(
    region: Region, pyramid: TilePyramid, tmp_path: Path
) -> None:
    out = tmp_path / "s.png"
    out.write_bytes(b"old")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    answer = answer_at(region, HERE, None)
    elsewhere = one_root(SUVA)
    refused: list[tuple[type[ZoomlocError], Any]] = [
        (PhotoError, lambda: write_strip(answer, region, pyramid, out, tmp_path / "absent.jpg")),
        (PhotoError, lambda: write_strip(answer, region, pyramid, out, tmp_path / "broken.jpg")),
        (OutputError, lambda: write_strip(answer, region, pyramid, tmp_path / "s.gif")),
        (OutputError, lambda: write_strip(answer, region, pyramid, out / "below.png")),
        (ZoomlocError, lambda: write_strip(answer, region, pyramid, out, height_px=20)),
        (ZoomlocError, lambda: write_strip(answer, region, pyramid, out, height_px=5000)),
        (ImageryError, lambda: write_strip(answer, elsewhere, pyramid, out)),
        (RegionError, lambda: write_strip(
            answer_at(elsewhere, SUVA, None), region, pyramid, out)),
    ]  # fmt: skip
    for kind, call in refused:
        with pytest.raises(kind) as raised:
            call()
        assert "\n" not in str(raised.value)
    assert out.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.jpg", "s.png"]


def test_it_needs_neither_folium_nor_torch() -> None:
    code = (
        "import sys, maps.strip\n"
        "print(*({'folium', 'torch', 'rasterio', 'geopandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
