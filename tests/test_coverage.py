"""coverage: which cells may be chosen, counted against brute force, and its refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raster_files import noise, pyramid_of
from shapely.geometry import box, mapping

from zoomloc.errors import RegionError
from zoomloc.world.cells import Cell
from zoomloc.world.coverage import Coverage
from zoomloc.world.region import Region

PX = 64
LAST = (1 << 10) - 1
REGIONS = {
    "one root": Region("one", (Cell(10, 531, 362),), 14, 2),
    "K=4": Region("four", (Cell(10, 531, 362),), 13, 1),
    "K=64": Region("sixty-four", (Cell(10, 531, 362),), 13, 3),
    "three of four": Region("three", tuple(Cell(10, *at) for at in [(5, 5), (6, 5), (6, 6)]), 14),
    "antimeridian": Region("fiji", (Cell(10, LAST, 500), Cell(10, 0, 500)), 14),
}


@pytest.fixture(params=REGIONS, ids=str)
def region(request) -> Region:
    return REGIONS[request.param]


def sparse(region: Region, seed: int = 0, share: float = 0.2) -> Coverage:
    """Random leaves below the roots."""
    rng = np.random.default_rng(seed)
    leaves = Coverage.full(region).leaves
    return Coverage(region, leaves & (rng.random(leaves.shape) < share))


def leaf_cells(coverage: Coverage) -> list[Cell]:
    rows, columns = np.nonzero(coverage.leaves)
    region = coverage.region
    return [region.cell(region.zooms, int(r), int(c)) for r, c in zip(rows, columns, strict=True)]


def test_full_covers_the_roots_and_nothing_beside_them(region):
    coverage = Coverage.full(region)
    per_root = 4 ** (region.terminal_level - region.root_level)
    assert coverage.leaves.sum() == len(region.roots) * per_root
    assert {c.parent(c.level - region.root_level) for c in leaf_cells(coverage)} == set(
        region.roots
    )


def test_children_are_those_with_a_leaf_below_in_choice_order(region):
    coverage = sparse(region, share=0.05)
    held = set()
    for leaf in leaf_cells(coverage):
        held |= set(region.path_to(leaf))
    for depth in range(region.zooms):
        for cell in {c for c in held if region.depth(c) == depth}:
            assert coverage.children(cell).shape == (region.branching,)
            assert coverage.children(cell).tolist() == [c in held for c in region.children(cell)]


def test_counts_and_presence_of_all_depths_agree(region):
    coverage = sparse(region)
    for depth in range(region.zooms + 1):
        counts = coverage.leaf_count(depth)
        assert counts.shape == region.grid_shape(depth)
        assert counts.sum() == coverage.leaves.sum()
        assert np.array_equal(coverage.present(depth), counts > 0)
        for row, column in zip(*np.nonzero(counts), strict=True):
            cell = region.cell(depth, int(row), int(column))
            assert coverage.cell_counts([cell])[0] == counts[row, column]


@given(name=st.sampled_from(sorted(REGIONS)), seed=st.integers(0, 10**6), data=st.data())
def test_cells_of_any_level_are_counted(name, seed, data):
    region = REGIONS[name]
    coverage = sparse(region, seed)
    leaves = leaf_cells(coverage)
    level = data.draw(st.integers(0, region.terminal_level))
    near = data.draw(st.sampled_from(region.roots))
    if level <= region.root_level:
        cell = near.parent(region.root_level - level)
    else:
        cell = data.draw(st.sampled_from(near.descendants(level - region.root_level)))
    moved = cell._replace(x=(cell.x + data.draw(st.integers(-2, 2))) % (1 << level))
    for asked in (cell, moved):
        down = region.terminal_level - asked.level
        expected = sum(leaf.parent(down) == asked for leaf in leaves)
        assert coverage.cell_counts([asked]).tolist() == [expected]


def test_no_cells_and_parts_of_leaves_count_nothing(region):
    coverage = Coverage.full(region)
    assert coverage.cell_counts([]).tolist() == []
    part = leaf_cells(coverage)[0].descendants()[0]
    assert coverage.cell_counts([part, Cell(region.terminal_level, 77, 2)]).tolist() == [0, 0]


# from imagery


def test_leaves_are_those_with_imagery_enough(tmp_path):
    region = REGIONS["one root"]
    root = region.roots[0]
    first, second = root.descendants(2)[:2]
    quarter = noise(PX, 0, 4)
    quarter[..., 3] = 0
    quarter[: PX // 2, : PX // 2, 3] = 255  # the north-west quarter of the second tile
    with pyramid_of(tmp_path / "p", [(first, noise(PX, 1)), (second, quarter)]) as pyramid:
        coverage = Coverage.of(region, pyramid)
        expected = np.zeros((16, 16), bool)
        expected[:4, :4] = expected[:2, 4:6] = True
        assert np.array_equal(coverage.leaves, expected)
        assert coverage.children(root).nonzero()[0].tolist() == [0, 1]

        coarse = Region("coarse", (root.parent(),), 11, 2)  # leaves wider than what is covered
        assert Coverage.of(coarse, pyramid, at_least=0.05).leaves.sum() == 1
        with pytest.raises(RegionError, match="no terminal cell has imagery"):
            Coverage.of(coarse, pyramid, at_least=0.5)


def test_share_0_still_asks_for_some_imagery(tmp_path):
    region = REGIONS["one root"]
    with pyramid_of(tmp_path / "p", [(region.roots[0].descendants(2)[3], noise(PX, 1))]) as pyramid:
        assert Coverage.of(region, pyramid, at_least=0.0).leaves.sum() == 16


def test_imagery_beside_the_roots_is_not_covered(tmp_path):
    region = REGIONS["three of four"]
    missing = Cell(10, 5, 6)
    tiles = [(cell, noise(PX, i)) for i, cell in enumerate([*region.roots, missing])]
    with pyramid_of(tmp_path / "p", tiles) as pyramid:
        coverage = Coverage.of(region, pyramid)
        assert np.array_equal(coverage.leaves, Coverage.full(region).leaves)
        assert not coverage.leaves[16:, :16].any()


def test_leaves_with_their_centre_outside_the_polygon_are_left_out(tmp_path):
    root = Cell(10, 531, 362)
    cell = root.descendants(1)[0]
    west, south, east, north = cell.bounds
    region = Region("part", (root,), 14, 2, mapping(box(west, south, east, north)))
    with pyramid_of(tmp_path / "p", [(root, noise(PX, 0))]) as pyramid:
        for coverage in (Coverage.of(region, pyramid), Coverage.full(region)):
            expected = np.zeros((16, 16), bool)
            expected[:8, :8] = True
            assert np.array_equal(coverage.leaves, expected)


@pytest.mark.parametrize("turn", [0, -360])
def test_a_polygon_may_pass_the_antimeridian(tmp_path, turn):
    roots = REGIONS["antimeridian"].roots
    west, south, _, north = roots[0].bounds
    half = roots[0].bounds.east - west
    polygon = box(180 - half / 2 + turn, south, 180 + half / 2 + turn, north)
    region = Region("fiji", roots, 14, 2, mapping(polygon))
    with pyramid_of(tmp_path / "p", [(r, noise(PX, i)) for i, r in enumerate(roots)]) as pyramid:
        coverage = Coverage.of(region, pyramid)
        assert coverage.leaves.any(axis=0).nonzero()[0].tolist() == list(range(8, 24))


def test_a_large_region_is_looked_at_in_strips(tmp_path):
    root = Cell(8, 130, 90)
    region = Region("large", (root,), 19, 1)  # 2048 x 2048 leaves, more than one strip
    tiles = [(cell, noise(PX, i)) for i, cell in enumerate(root.descendants(1)[1:3])]
    with pyramid_of(tmp_path / "p", tiles) as pyramid:
        leaves = Coverage.of(region, pyramid).leaves
        assert leaves[:1024, 1024:].all() and leaves[1024:, :1024].all()
        assert leaves.sum() == 2 * 1024**2


# refusals


def test_a_region_of_another_place_is_refused(tmp_path):
    with pyramid_of(tmp_path / "p", [(Cell(10, 1, 1), noise(PX, 0))]) as pyramid:
        with pytest.raises(RegionError, match="do not belong together, build both with"):
            Coverage.of(REGIONS["one root"], pyramid)


def test_leaves_of_another_region_are_refused():
    with pytest.raises(RegionError, match="does not fit its"):
        Coverage(REGIONS["one root"], np.ones((8, 8), bool))
    with pytest.raises(RegionError, match="no terminal cell"):
        Coverage(REGIONS["one root"], np.zeros((16, 16), bool))
