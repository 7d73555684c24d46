"""Why a match answers so: its numbers add up, and the picture shows them where they belong."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from test_match_scorer import match_config, photos
from test_strip import (
    AMBER,
    GREEN,
    GROUND,
    HERE,
    RED,
    VOID,
    answer_at,
    middle,
    one_root,
    pixels_of,
    pyramid_of,
    where,
)

from maps.why import write_why
from zoomloc.checkpoint import build_model
from zoomloc.errors import ImageryError, OutputError, PhotoError, ZoomlocError
from zoomloc.locator import open_views
from zoomloc.model.match import STRIDE
from zoomloc.scorers import scorer_of
from zoomloc.scorers.matches import FOVS_DEG
from zoomloc.scorers.shown import Shown
from zoomloc.scorers.why import Why, why
from zoomloc.training.loop import train
from zoomloc.world.answers import Alternative
from zoomloc.world.cells import LatLng, cell_at

YELLOW, BLUE, INK = (253, 224, 71), (70, 150, 255), (240, 246, 252)


def scorer_in(folder, config):
    views = open_views(folder, config)
    torch.manual_seed(0)
    return scorer_of(build_model(config, views.region).eval(), views, config.search)


@pytest.fixture(params=[0, 8], ids=["bins", "bins and vectors"])
def scorer(request, small_config, painted):
    return scorer_in(painted, match_config(small_config, request.param))


def place_of(scorer, row, column):
    """The middle of a feature."""
    return scorer._latlng((column + 0.5) * STRIDE, (row + 0.5) * STRIDE)


def match_of(scorer, shown, row, column):
    """(N, rows) all that bins say of a place."""
    (fans,) = scorer._looks([shown]).fans
    lattice = scorer.model.lattice_at(scorer.index, torch.tensor([row]), torch.tensor([column]))
    with torch.inference_mode():
        return (scorer.model.compare(fans, lattice)[0] * scorer.model.scale())[:, :, 0].numpy()


# 1. numbers


def test_contributions_add_up_to_the_match_of_place_and_heading(scorer):
    (shown,) = photos(1)
    for row, column, heading in ((3, 5, 0), (40, 20, 3), (11, 33, 7)):
        match = match_of(scorer, shown, row, column)[:, 0]
        found = why(scorer, shown, place_of(scorer, row, column), heading * 45 - 20.0)
        assert found.heading_deg == heading * 45 and found.contributions.shape == (3, 3)
        assert found.contributions.sum() == pytest.approx(match[heading], abs=1e-4)
        assert (found.contributions != 0).any()


def test_without_vectors_that_match_and_the_place_itself_are_the_whole_score(small_config, painted):
    scorer = scorer_in(painted, match_config(small_config))
    (shown,), row, column = photos(1), 17, 23
    found = why(scorer, shown, place_of(scorer, row, column), 90.0)
    at = torch.tensor([row]), torch.tensor([column])
    with torch.inference_mode():
        logit = float(scorer._logits(scorer._looks([shown]), *at)[2, 0, 0])
    unary = float(scorer.index.unary[row, column])
    assert found.contributions.sum() + unary == pytest.approx(logit, abs=0.03)  # bf16


def test_without_a_bearing_the_heading_that_fits_best_is_shown(scorer):
    (shown,) = photos(1)
    match = match_of(scorer, shown, 30, 12)[:, 0]
    found = why(scorer, shown, place_of(scorer, 30, 12), None)
    assert found.heading_deg == 45 * match.argmax()
    assert why(scorer, shown, place_of(scorer, 30, 12), 359.0).heading_deg == 0


def test_of_an_unknown_lens_the_likeliest_is_shown(scorer):
    (shown,) = photos(1, None)
    match = match_of(scorer, shown, 30, 12)
    found = why(scorer, shown, place_of(scorer, 30, 12), 180.0)
    assert match.shape[1] == len(FOVS_DEG)
    assert found.fov_deg == FOVS_DEG[match[4].argmax()]
    assert found.contributions.sum() == pytest.approx(match[4].max(), abs=1e-4)


def test_belief_is_that_of_the_cells(scorer):
    """Spread over places: a cell's share is the mean of its places'."""
    (shown,) = photos(1)
    belief = why(scorer, shown, place_of(scorer, 1, 1), 0.0).belief
    assert belief.sum() == pytest.approx(1) and belief.shape == scorer.index.unary.shape
    leaves = scorer.leaves(scorer.start([shown]))[0]
    with np.errstate(divide="ignore"):
        again = scorer._in_cells(torch.from_numpy(np.log(belief))[None])[0]
    present = scorer.views.coverage.leaves
    offset = again[present] - leaves[present]
    np.testing.assert_allclose(offset, offset.mean(), atol=0.1)  # bf16


def test_nothing_is_believed_where_there_is_no_imagery(scorer):
    region, leaves = scorer.views.region, scorer.views.coverage.leaves
    rows, columns = np.nonzero(leaves)
    leaves[rows.min() + 2 : rows.min() + 5, columns.min() + 3 : columns.max()] = False
    belief = why(scorer, photos(1)[0], place_of(scorer, 1, 1), 0.0).belief
    assert belief.sum() == pytest.approx(1)
    for row in range(0, belief.shape[0], 5):
        for column in range(0, belief.shape[1], 5):
            cell = cell_at(place_of(scorer, row, column), region.terminal_level)
            assert (belief[row, column] > 0) == leaves[region.row_column(cell)]


def test_belief_lies_on_the_ground_that_its_corners_name(scorer):
    found = why(scorer, photos(1)[0], place_of(scorer, 1, 1), 0.0)
    corners = found.north_west, found.south_east
    px = scorer.ground.px_of(*(np.array(degrees) for degrees in zip(*corners, strict=True)))
    height, width = found.belief.shape
    np.testing.assert_allclose(px, [[0, 0], [width * STRIDE, height * STRIDE]], atol=1e-6)


def test_a_place_off_the_map_counts_as_the_nearest_on_it(scorer):
    (shown,) = photos(1)
    far = why(scorer, shown, LatLng(89.0, -90.0), 0.0)
    near = why(scorer, shown, place_of(scorer, 0, 0), 0.0)
    np.testing.assert_array_equal(far.contributions, near.contributions)


def test_slices_begin_and_end_where_the_lens_puts_their_azimuths(scorer):
    found = why(scorer, photos(1)[0], place_of(scorer, 9, 9), 0.0)
    assert found.azimuths_deg.tolist() == [-45, 0, 45] and found.slice_deg == 45
    edge = 0.5 - math.tan(math.radians(22.5)) / math.tan(math.radians(35)) / 2
    expected = [[0, edge], [edge, 1 - edge], [1 - edge, 1]]
    np.testing.assert_allclose(found.slices, expected, atol=0.001)
    assert (found.confidence >= 0).all() and (found.confidence <= 1).all()
    assert found.rings_m == (4, 10, 20) and found.borders_m == (1, 7, 15, 25)


def test_a_round_picture_has_slices_all_around(scorer):
    pixels = np.random.default_rng(1).integers(0, 255, (24, 48, 3), np.uint8)
    found = why(scorer, Shown(pixels, 360.0, "equirectangular"), place_of(scorer, 9, 9), 0.0)
    assert found.contributions.shape == (8, 3) and found.photo_px == (48, 24)
    np.testing.assert_allclose(found.slices[1:-1, 1], found.slices[2:, 0], atol=0.001)


# 2. the picture

HIGH, PAD, GAP = 400, 25, 44.5
WIDE = 517.5  # of a photo that is twice as wide as high


@pytest.fixture(scope="module")
def region():
    return one_root(HERE, attribution=("Testville survey",), licence="CC0")


@pytest.fixture(scope="module")
def pyramid(region, tmp_path_factory):
    with pyramid_of(region, tmp_path_factory.mktemp("pyramid")) as opened:
        yield opened


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "p.png"
    Image.new("RGB", (96, 48), (20, 60, 90)).save(path)
    return path


def reasons(region, **changes):
    """A photo looking east, sure of one bin far to the left, that speaks of two bins."""
    root = region.roots[0]
    belief = np.zeros((100, 100))
    belief[25, 75] = 1.0
    confidence, contributions = np.zeros((3, 2)), np.zeros((3, 2))
    confidence[0, 1] = 1.0
    contributions[0, 1], contributions[1, 0] = 2.0, -2.0
    found = Why(
        belief=belief,
        north_west=middle(root, 0, 0),
        south_east=middle(root, 1, 1),
        feature_m=root.size_m / 100,
        photo_px=(96, 48),
        fov_deg=90.0,
        slices=np.array([[0, 0.3], [0.3, 0.7], [0.7, 1]]),
        azimuths_deg=np.array([-45.0, 0, 45]),
        slice_deg=45.0,
        confidence=confidence,
        contributions=contributions,
        heading_deg=90.0,
        rings_m=(10.0, 30.0),
        borders_m=(0.0, 20.0, 40.0),
    )
    return found._replace(**changes)


def draw(tmp_path, region, pyramid, photo, answer=None, out="w.png", **changes):
    answer = answer or answer_at(region, HERE, None, bearing_deg=92.0)
    write_why(answer, region, pyramid, reasons(region, **changes), photo, tmp_path / out)
    return pixels_of(tmp_path / out)


def panel(picture, number):
    """One of the two square pictures of ground."""
    left = round(PAD + WIDE + GAP + number * (HIGH + GAP))
    return picture[PAD : PAD + HIGH, left : left + HIGH]


def seen_at(close, bearing_deg, distance_m):
    """Colour of the close-up in a direction from the answer."""
    per_m, turn = HIGH / (2.2 * 40), math.radians(bearing_deg)
    row = HIGH / 2 - distance_m * per_m * math.cos(turn)
    return close[round(row), round(HIGH / 2 + distance_m * per_m * math.sin(turn))]


def hue(pixel):
    """Which way a colour lies off the bare ground."""
    off = np.asarray(pixel, float) - GROUND
    return off / max(np.linalg.norm(off), 1e-9)


def test_bins_lie_on_the_ground_in_the_heading_and_by_their_sign(region, pyramid, photo, tmp_path):
    close = panel(draw(tmp_path, region, pyramid, photo), 1)
    assert hue(seen_at(close, 45, 30)) @ hue(YELLOW) > 0.98  # left and far: north-east
    assert hue(seen_at(close, 78, 14)) @ hue(BLUE) > 0.98  # ahead and near
    for bearing_deg, distance_m in ((45, 12), (80, 30), (135, 30), (270, 30), (225, 12)):
        assert np.abs(seen_at(close, bearing_deg, distance_m) - GROUND).max() < 4
    head = where(close[:, HIGH // 2 + 150 :], INK, 4)
    assert abs(head[:, 0].mean() - HIGH / 2 - 180 * math.sin(math.radians(2))) < 8


def test_stronger_bins_are_fuller(region, pyramid, photo, tmp_path):
    contributions = np.array([[0, 2.0], [0, 0.5], [0, 0.0]])
    close = panel(draw(tmp_path, region, pyramid, photo, contributions=contributions), 1)
    strong, weak, none = (
        np.linalg.norm(seen_at(close, bearing_deg, 30) - GROUND) for bearing_deg in (45, 80, 135)
    )
    assert strong > 1.5 * weak > 5 * none


def test_belief_is_tinted_where_it_lies_and_by_its_size(region, pyramid, photo, tmp_path):
    belief = np.zeros((100, 100))
    belief[25, 75], belief[75, 75], belief[75, 25] = 0.9891, 0.01, 0.0005
    whole = panel(draw(tmp_path, region, pyramid, photo, belief=belief), 0)

    def brightness(row, column):
        return float(whole[row * 4 + 2, column * 4 + 2].sum())

    bare = brightness(10, 10)
    assert whole[42, 42] == pytest.approx(np.array(GROUND) * 0.55, abs=2)
    assert brightness(25, 75) > brightness(75, 75) + 100 > bare + 100
    assert brightness(75, 25) == bare  # below a thousandth nothing is tinted
    spot = np.argwhere(np.abs(whole - whole[102, 302]).max(axis=2) < 6)
    assert spot.mean(axis=0) == pytest.approx([102, 302], abs=8)


def test_the_photo_is_cut_into_slices_and_its_sureness_drawn_below(
    region, pyramid, photo, tmp_path
):
    picture = draw(tmp_path, region, pyramid, photo)
    left = picture[PAD : PAD + HIGH, PAD : PAD + round(WIDE)]
    lines = where(left[100:101], INK, 60)[:, 1]
    assert {round(x / WIDE, 1) for x in lines.tolist()} == {0.3, 0.7}
    grid = left[-round(0.34 * HIGH) :]
    bright = np.argwhere(grid.min(axis=2) > 225)
    assert bright.min(axis=0) == pytest.approx([0, 0], abs=4)  # far is above, left is left
    assert bright.max(axis=0) == pytest.approx([0.17 * HIGH, 0.3 * WIDE], abs=4)


def test_answer_and_truth_are_marked_and_truth_only_where_known(region, pyramid, photo, tmp_path):
    truth = LatLng(HERE.lat + 0.0002, HERE.lng)  # 22 m to the north
    answer = answer_at(region, HERE, truth, bearing_deg=92.0)
    picture = draw(tmp_path, region, pyramid, photo, answer)
    close = panel(picture, 1)
    assert where(close, RED).mean(axis=0) == pytest.approx([HIGH / 2, HIGH / 2], abs=2)
    green = where(close, GREEN)
    assert green[:, 1].mean() == pytest.approx(HIGH / 2, abs=2)
    assert (HIGH / 2 - green[:, 0].min()) / HIGH * 88 == pytest.approx(22.2, abs=6)
    x, y = HERE.lng - region.roots[0].bounds.west, region.roots[0].bounds.north - HERE.lat
    bounds = region.roots[0].bounds
    at = [y / (bounds.north - bounds.south) * HIGH, x / (bounds.east - bounds.west) * HIGH]
    assert where(panel(picture, 0), RED).mean(axis=0) == pytest.approx(at, abs=3)
    assert not len(where(draw(tmp_path, region, pyramid, photo), GREEN))


def test_ground_of_another_shape_is_shown_whole_and_true_to_scale(region, pyramid, photo, tmp_path):
    south_east = middle(region.roots[0], 1, 0.5)
    belief = np.zeros((50, 100))
    belief[25, 75] = 1.0
    picture = draw(tmp_path, region, pyramid, photo, south_east=south_east, belief=belief)
    whole = panel(picture, 0)
    spot = whole[100 + 102, 302]
    assert spot.sum() > 600 and whole[102, 302].sum() < 300
    dark = where(whole[:95], tuple(round(0.55 * c) for c in VOID), 3)
    assert len(dark) > 30_000  # beyond the root to the north there is no imagery


def test_belief_in_a_wide_region_is_still_seen(region, pyramid, photo, tmp_path):
    belief = np.zeros((4000, 4000))
    belief[1000, 3000] = 1.0
    changes = {"belief": belief, "feature_m": region.roots[0].size_m / 4000}
    whole = panel(draw(tmp_path, region, pyramid, photo, **changes), 0)
    assert whole[100, 300].sum() > 600


def test_a_guess_is_said_to_be_one_and_nothing_runs_out(region, pyramid, photo, tmp_path):
    truth = LatLng(HERE.lat + 3.0, HERE.lng)
    plain = draw(tmp_path, region, pyramid, photo, answer_at(region, HERE, truth))
    foreign = answer_at(region, HERE, truth, not_here=True, probability=1.0)
    picture = draw(tmp_path, region, pyramid, photo, foreign)
    assert len(where(picture[:70], AMBER, 30)) > 100 and not len(where(plain[:70], AMBER, 30))
    assert len(where(plain, RED)) and not len(where(picture, RED))
    assert np.abs(picture[-60:, -PAD // 2 :] - (22, 27, 34)).max() <= 1
    assert len(where(picture[-60:, -10 * PAD :], GREEN)) > 10  # the key ends with the truth


def test_other_places_are_numbered_and_listed(region, pyramid, photo, tmp_path):
    place = middle(region.roots[0], 0.25, 0.75)
    plain = draw(tmp_path, region, pyramid, photo, answer_at(region, HERE, None))
    answer = answer_at(region, HERE, None, alternatives=(Alternative(*place, 0.1),))
    picture = draw(tmp_path, region, pyramid, photo, answer)
    changed = np.argwhere(np.abs(panel(picture, 0) - panel(plain, 0)).max(axis=2) > 30)
    assert changed.mean(axis=0) / HIGH == pytest.approx([0.75, 0.25], abs=0.01)
    assert len(changed) > 200 and len(picture) > len(plain) + 15


# 3. words and files


def test_attribution_is_never_cut(region, pyramid, photo, tmp_path):
    heights = []
    for words in (("Testville",), ("Testville " * 60, "W" * 300)):
        named = dataclasses.replace(region, attribution=words, licence="")
        heights.append(len(draw(tmp_path, named, pyramid, photo)))
    assert heights[0] + 40 < heights[1]


def test_many_rings_and_unseen_slices_are_drawn_too(region, pyramid, photo, tmp_path):
    rings = tuple(float(r) for r in range(1, 41))
    picture = draw(
        tmp_path,
        region,
        pyramid,
        photo,
        slices=np.array([[0, 0], [0, 1], [0, 0]]),
        rings_m=rings,
        borders_m=(0.5, *(r + 0.5 for r in rings)),
        confidence=np.ones((3, 40)),
        contributions=np.zeros((3, 40)),
    )
    assert picture.shape[1] > 1300


def test_equal_numbers_give_equal_files(region, pyramid, photo, tmp_path):
    for name in ("a.png", "b.png"):
        draw(tmp_path, region, pyramid, photo, out=name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_what_cannot_be_drawn_is_refused_and_leaves_the_old_file(region, pyramid, photo, tmp_path):
    out = tmp_path / "w.png"
    out.write_bytes(b"old")
    answer, found = answer_at(region, HERE, None), reasons(region)
    elsewhere = one_root(LatLng(-16.8, 179.9999))
    refused = [
        (PhotoError, (region, pyramid, found, tmp_path / "absent.jpg", out)),
        (OutputError, (region, pyramid, found, photo, tmp_path / "w.gif")),
        (OutputError, (region, pyramid, found, photo, out / "below.png")),
        (ImageryError, (elsewhere, pyramid, found, photo, out)),
        (ZoomlocError, (region, pyramid, found, photo, out, 100)),
        (ZoomlocError, (region, pyramid, found, photo, out, 5000)),
    ]
    for kind, given in refused:
        with pytest.raises(kind) as raised:
            write_why(answer, *given)
        assert "\n" not in str(raised.value)
    assert out.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["w.png"]


def test_drawing_needs_neither_folium_nor_torch():
    code = (
        "import sys, maps.why\n"
        "print(*({'folium', 'torch', 'rasterio', 'geopandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# 4. the command


def test_locate_draws_why_a_match_answers_so(small_config, painted, tmp_path, zoomloc):
    train(match_config(small_config, steps=3), tmp_path / "run")
    photo = painted / "photos" / "d9" / "000.jpg"
    words = ("locate", photo, "--run", tmp_path / "run", "--why")
    code, out, err = zoomloc(*words, tmp_path / "why.png", "--json")
    assert code == 0, err
    assert '"schema"' in out and "why.png" in err
    assert pixels_of(tmp_path / "why.png").shape[1] > 1300
    code, _, err = zoomloc(*words, tmp_path / "why.gif")
    assert code == 2 and ".png" in err


def test_other_models_are_refused_in_one_line(small_config, painted, tmp_path, zoomloc):
    tree = small_config.to_dict()
    tree["train"] |= {"steps": 3}
    train(type(small_config).model_validate(tree), tmp_path / "run")
    photo = painted / "photos" / "d9" / "000.jpg"
    words = ("locate", photo, "--run", tmp_path / "run", "--why", tmp_path / "why.png")
    code, out, err = zoomloc(*words)
    lines = [line for line in err.splitlines() if line.strip()]
    assert code == 2 and out == "" and len(lines) == 1
    assert "no match" in lines[0] and str(tmp_path / "run") in lines[0] and "--strip" in lines[0]
    assert not (tmp_path / "why.png").exists()
