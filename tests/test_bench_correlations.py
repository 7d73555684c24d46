"""The ways to compare fans with bins that are timed side by side reckon the same."""

import pytest
import torch

from zoomloc.bench.correlations import (
    by_convolution,
    by_fourier,
    compare_correlations,
    markdown,
    on_the_map,
)
from zoomloc.config import MatchConfig
from zoomloc.model.correlation import correlate


@pytest.mark.parametrize("way", [by_convolution, by_fourier])
@pytest.mark.parametrize("fan", [1, 4, 5])
def test_all_ways_along_the_slices_reckon_the_same(way, fan):
    fans, bins = torch.randn(3, fan, 6), torch.randn(8, 6, 11)
    torch.testing.assert_close(way(fans, bins), correlate(fans, bins), atol=1e-5, rtol=1e-4)


def test_templates_on_the_map_are_the_same_sum_without_rings():
    """A template of one bin, 2 rows above its middle, reads the map 2 rows above a place."""
    template, features = torch.zeros(1, 3, 5, 5), torch.randn(3, 9, 9)
    template[0, :, 0, 2] = torch.tensor([1.0, 2.0, 3.0])
    wanted = (features * torch.tensor([1.0, 2.0, 3.0])[:, None, None]).sum(0)
    torch.testing.assert_close(on_the_map(template, features)[0, 2:], wanted[:-2])


def test_the_table_has_a_row_for_each_way_and_number_format():
    plan = MatchConfig(slices=8, fan=3, rings_m=(4.0, 8.0), channels=2)
    found = compare_correlations(plan)
    assert [t.products for t in found[:2]] == [8 * 3 * 4] * 2
    assert len(found) == 7 and all(t.nanoseconds > 0 for t in found)
    assert markdown(found).count("\n| ") == len(found)
