"""The ground as one picture: places and pixels agree, and pieces fit together."""

import numpy as np
import pytest

from zoomloc.ground import GroundMap, Window
from zoomloc.locator import open_views
from zoomloc.world.cells import LatLng


@pytest.fixture
def ground(painted, small_config):
    return GroundMap(open_views(painted, small_config), 2.0)


def test_places_and_pixels_agree_with_the_pyramid(ground):
    """Round a place the picture shows what the pyramid shows there, cut by metres."""
    region = ground.views.region
    height, width = ground.shape_px
    for share in (0.4, 0.6):
        column, row = share * width, share * height
        lat, lng = region.leaf_places(*ground.cells_of(np.array([column]), np.array([row]))[::-1])
        back = ground.px_of(lat, lng)[0]
        assert back == pytest.approx((column, row), abs=1e-6)
        left, top = round(column) - 16, round(row) - 16
        lat, lng = region.leaf_places(
            *ground.cells_of(np.array([left + 16.0]), np.array([top + 16.0]))[::-1]
        )
        mine = ground.picture(Window(left, top, 32, 32)).astype(float)
        theirs = ground.views.pyramid.square(LatLng(float(lat[0]), float(lng[0])), 64.0, 32)
        assert np.abs(mine - theirs).mean() < 6


def test_a_window_is_a_piece_of_the_whole(ground):
    whole = ground.picture(ground.whole())
    assert whole.shape[:2] == ground.shape_px
    piece = ground.picture(Window(20, 30, 64, 48))
    assert np.abs(piece.astype(int) - whole[30:78, 20:84]).mean() < 2


def test_beyond_the_imagery_it_is_grey(ground):
    beyond = ground.picture(Window(-400, -400, 16, 16))
    assert np.ptp(beyond) == 0


def test_the_scale_is_metres_on_the_ground(ground):
    """The painted ground is 300 m; the picture has 2 m a pixel."""
    seen = ground.picture(ground.whole()).reshape(-1, 3)
    covered = (seen != 127).any(axis=1).sum()
    assert covered * 4 == pytest.approx(300 * 300, rel=0.12)  # edge cells count as one or none
