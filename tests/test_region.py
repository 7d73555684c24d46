"""region: paths, grids across the cuts of the globe, covers with few decisions, refusals."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import LineString, Polygon, box

from zoomloc.errors import RegionError
from zoomloc.world.cells import Cell, LatLng, cell_at, moved, xy_of
from zoomloc.world.region import Region, cover


def square(lat: float, lng: float, side_m: float) -> Polygon:
    """Ground of that side around a place, longitudes unwrapped."""
    center = LatLng(lat, lng)
    north, east = moved(center, 0, side_m / 2).lat, moved(center, 90, side_m / 2).lng
    high, wide = north - lat, (east - lng) % 360
    return box(lng - wide, lat - high, lng + wide, lat + high)


def of_four_roots(lat: float, lng: float, root_level: int = 14, terminal: int = 18) -> Region:
    """The four roots that meet nearest to a place."""
    corner = cell_at(LatLng(lat, lng), root_level)
    side = 1 << root_level
    roots = [
        Cell(root_level, (corner.x + dx) % side, corner.y + dy) for dy in (0, 1) for dx in (0, 1)
    ]
    return Region("four", tuple(roots), terminal, 2)


TOWNS = [
    pytest.param(51.5, 0.0, id="longitude 0"),
    pytest.param(0.0, 32.6, id="latitude 0"),
    pytest.param(0.0, 0.0, id="both"),
    pytest.param(-16.8, 180.0, id="antimeridian"),
    pytest.param(78.2, 15.6, id="high north"),
    pytest.param(-54.8, -68.3, id="south"),
]


# paths


@pytest.mark.parametrize(("lat", "lng"), TOWNS)
def test_a_path_leads_from_a_root_to_the_cell_of_the_place(lat, lng):
    region = cover("town", square(lat, lng, 1000), 16.0)
    for bearing_deg in range(0, 360, 30):
        place = moved(LatLng(lat, lng), bearing_deg, 490)
        path = region.path(place)
        assert path[0] in region.roots and len(path) == region.zooms + 1
        assert path[-1] == cell_at(place, region.terminal_level)
        for cell, child in zip(path, path[1:], strict=False):
            assert region.children(cell)[child.choice(region.levels_per_zoom)] == child
        assert region.path_to(path[-1]) == path
        assert [region.depth(cell) for cell in path] == list(range(region.zooms + 1))


@pytest.mark.parametrize(("lat", "lng"), TOWNS)
def test_a_place_outside_is_refused(lat, lng):
    region = cover("town", square(lat, lng, 1000), 16.0)
    with pytest.raises(RegionError, match=r"outside region 'town' \(its roots: "):
        region.path(moved(LatLng(lat, lng), 0, 100_000))


# rows and columns


@pytest.mark.parametrize(("lat", "lng"), TOWNS)
def test_rows_and_columns_are_a_round_trip(lat, lng):
    region = of_four_roots(lat - 0.01, lng - 0.01)
    for depth in range(region.zooms + 1):
        rows, columns = region.grid_shape(depth)
        for row, column in [(0, 0), (0, columns - 1), (rows - 1, 0), (rows // 2, columns // 3)]:
            assert region.row_column(region.cell(depth, row, column)) == (row, column)
    assert region.root_shape == (2, 2)
    assert region.root_slots().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize(("lat", "lng"), TOWNS)
def test_leaf_places_are_a_round_trip(lat, lng):
    region = of_four_roots(lat - 0.01, lng - 0.01)
    rows, columns = region.grid_shape(region.zooms)
    column, row = np.meshgrid(np.linspace(0.1, columns - 0.1, 7), np.linspace(0.1, rows - 0.1, 7))
    lats, lngs = region.leaf_places(column, row)
    back = region.leaf_xy(lats, lngs)
    assert back[0] == pytest.approx(column, abs=1e-6)
    assert back[1] == pytest.approx(row, abs=1e-6)
    cell = region.cell(region.zooms, int(row[2, 4]), int(column[2, 4]))
    assert cell.contains(LatLng(lats[2, 4], lngs[2, 4]))


def test_a_place_just_west_has_a_column_just_below_0():
    for x in (0, 5000, (1 << 14) - 1):
        region = Region("one", (Cell(14, x, 6000),), 18)
        lat, lng = region.leaf_places(np.array([-0.5, 16.5]), np.array([3.0, 3.0]))
        column, _ = region.leaf_xy(lat, lng)
        assert column == pytest.approx([-0.5, 16.5])


def test_roots_are_sorted_row_major_eastward_across_the_antimeridian():
    last = (1 << 10) - 1
    wanted = (Cell(10, last, 400), Cell(10, 0, 400), Cell(10, last, 401))
    region = Region("fiji", wanted[::-1], 14)
    assert region.roots == wanted
    assert region.origin == (last, 400)
    assert region.root_shape == (2, 2)
    assert region.root_slots().tolist() == [[0, 0], [0, 1], [1, 0]]


# covers


@pytest.mark.parametrize(("lat", "lng"), TOWNS)
@pytest.mark.parametrize("levels_per_zoom", [1, 2, 3])
def test_a_cover_has_few_roots_and_right_cells(lat, lng, levels_per_zoom):
    region = cover("town", square(lat, lng, 1000), 16.0, levels_per_zoom)
    assert 1 <= len(region.roots) <= 16
    assert 11.3 < region.cell_size_m < 22.7
    assert (region.terminal_level - region.root_level) % levels_per_zoom == 0
    assert region.branching == 4**levels_per_zoom


@given(st.floats(-80, 80), st.floats(-180, 180), st.floats(50, 30_000), st.integers(0, 10**6))
def test_no_place_of_the_ground_is_left_out(lat, lng, side_m, seed):
    ground = square(lat, lng, side_m)
    region = cover("any", ground, max(8.0, side_m / 500))
    west, south, east, north = ground.bounds
    share = np.random.default_rng(seed).uniform(0.001, 0.999, 2)
    place = LatLng(south + share[0] * (north - south), west + share[1] * (east - west))
    wrapped = LatLng(place.lat, (place.lng + 180) % 360 - 180)
    assert region.path(place) == region.path(wrapped)
    row, column = region.row_column(region.path(place)[-1])
    rows, columns = region.grid_shape(region.zooms)
    assert 0 <= row < rows and 0 <= column < columns


@pytest.mark.parametrize("side_m", [60, 300, 1000, 4000, 20_000])
def test_a_cover_takes_the_fewest_decisions(side_m):
    ground = square(45, 9, side_m)
    region = cover("town", ground, 16.0)
    west, south, east, north = ground.bounds

    def decisions(root_level: int) -> float:
        """With the roots that a dense grid of places needs; none where they are over 16."""
        lats, lngs = np.meshgrid(np.linspace(south, north, 80), np.linspace(west, east, 80))
        x, y = xy_of(lats[1:-1, 1:-1], lngs[1:-1, 1:-1], root_level)
        roots = set(zip(x.astype(int).flat, y.astype(int).flat, strict=True))
        zooms = (region.terminal_level - root_level) // 2
        return zooms + (len(roots) > 1) if len(roots) <= 16 else float("inf")

    others = [decisions(level) for level in range(region.terminal_level - 2, 5, -2)]
    assert decisions(region.root_level) == min(others)


def test_ground_nearly_round_the_globe_counts_each_root_once():
    region = cover("belt", box(-175, -60, 184, 60), 1_000_000.0, 1)
    assert len(set(region.roots)) == len(region.roots) == 8


def test_ground_beyond_mercator_gets_no_cells_beyond_it():
    region = cover("pole", box(10, 84, 11, 89), 5_000.0)
    assert all(0 <= root.y < 1 << root.level for root in region.roots)


@pytest.mark.parametrize(
    ("ground", "cell_m", "step", "told"),
    [
        (Polygon(), 16, 2, "ground with an area"),
        (LineString([(0, 0), (1, 1)]), 16, 2, "ground with an area"),
        (box(0, 0, 1, 1), 0, 2, r"terminal_cell_m above 0 \(is 0\)"),
        (box(0, 0, 1, 1), float("nan"), 2, "terminal_cell_m"),
        (box(0, 0, 1, 1), 16, 0, "levels_per_zoom of at least 1"),
        (box(0, 0, 60, 60), 16, 2, "more than 67,108,864; take larger cells or less ground"),
        (box(0, 0, 1, 1), 20_000_000, 2, "take larger ground or smaller cells"),
    ],
)
def test_ground_that_cannot_be_covered_is_refused(ground, cell_m, step, told):
    with pytest.raises(RegionError, match=told) as caught:
        cover("odd", ground, cell_m, step)
    assert "\n" not in str(caught.value) and "'odd'" in str(caught.value)


def test_a_crossed_outline_is_mended():
    bow_tie = Polygon([(9, 45), (9.01, 45.01), (9.01, 45), (9, 45.01)])
    assert not bow_tie.is_valid
    region = cover("bow", bow_tie, 16.0)
    assert region.shape().is_valid


# refusals


ROOT = Cell(14, 8500, 5800)


@pytest.mark.parametrize(
    ("roots", "terminal", "step", "told"),
    [
        ((), 18, 2, "0 roots; 1 to 16"),
        (tuple(Cell(14, x, 0) for x in range(17)), 18, 2, "17 roots"),
        ((ROOT, ROOT), 18, 2, "distinct and of one level"),
        ((ROOT, ROOT.parent()), 18, 2, "distinct and of one level"),
        ((ROOT,), 14, 2, "at least 2 below root level 14"),
        ((ROOT,), 12, 2, "at least 2 below"),
        ((ROOT,), 31, 1, "at most 30"),
        ((ROOT,), 18, 0, "must lie at least 0"),
        ((ROOT,), 28, 2, "more than 67,108,864"),
    ],
)
def test_levels_and_roots_that_do_not_fit_are_refused(roots, terminal, step, told):
    with pytest.raises(RegionError, match=told):
        Region("odd", roots, terminal, step)


def test_an_uneven_depth_names_the_two_nearest_sizes():
    with pytest.raises(RegionError) as caught:
        Region("odd", (ROOT,), 19, 2)
    lat = ROOT.center.lat
    sizes = [f"{40_075_016.69 * np.cos(np.radians(lat)) / 2**z:.1f} m" for z in (18, 20)]
    assert all(size in str(caught.value) for size in sizes)


# files


def test_region_json_is_a_round_trip(tmp_path):
    region = cover("town", square(45, 9, 800), 16.0, 2, ["© A", "<b>B</b>"], "CC-BY-4.0")
    region.save(tmp_path / "region.json")
    found = Region.load(tmp_path / "region.json")
    assert found == region
    assert found.shape().equals(region.shape())
    assert found.attribution == ("© A", "<b>B</b>")


@pytest.mark.parametrize(
    "change",
    [
        {"roots": None},
        {"roots": []},
        {"roots": ["9"]},
        {"roots": [7]},
        {"terminal_level": "deep"},
        {"terminal_level": None},
        {"polygon": {"type": "Blob"}},
        {"polygon": {"type": "Polygon", "coordinates": [[0]]}},
        {"polygon": 5},
        {"attribution": 5},
        {"schema": "zoomloc/region/2"},
    ],
)
def test_a_damaged_region_json_is_refused(tmp_path, change):
    path = tmp_path / "region.json"
    cover("town", square(45, 9, 800), 16.0).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RegionError) as caught:
        Region.load(path)
    assert "\n" not in str(caught.value)
