"""Bird's-eye matching: its geometry against places worked out by hand, its gradients against
plain formulas.
"""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from zoomloc.model.correlation import correlate, region_loss
from zoomloc.model.encoders import EncoderSpec
from zoomloc.model.match import Fans, Lattice, MatchModel, MatchSpec
from zoomloc.model.polar import (
    Means,
    bins_at,
    fan_size,
    lattice_m,
    means_of,
    polar_bins,
    slice_weights,
)
from zoomloc.training.matches import Pose, in_picture, on_ground, posed, round_photos

SPEC = MatchSpec(
    photo_px=(48, 24), photo_encoder=EncoderSpec("tiny", (8, 8, 16), "batch"),
    map_channels=(8, 8, 16), gsd_m=2.0, slices=8, rings_m=(8.0, 20.0, 40.0), channels=4, width=16,
    descriptor=0, memory=False, ensemble=True, turn=True, mirror=True,
)  # fmt: skip


def test_columns_stand_where_the_lens_puts_them():
    weights = slice_weights([90.0], columns=64, slices=8, fan=5)[0]  # slices of 45 degrees
    # 90 degrees: the middle slice has 45 of them, its neighbours 22.5 each, which is half
    assert weights.sum(1).tolist() == pytest.approx([0, 1, 1, 1, 0], abs=0.05)
    column = (weights[2] > 0).nonzero().ravel()
    edge = math.tan(math.radians(22.5)) / math.tan(math.radians(45))  # of the half picture
    assert column[0].item() == pytest.approx(32 * (1 - edge), abs=1)
    assert column[-1].item() == pytest.approx(32 * (1 + edge), abs=1)
    assert weights[1].argmax() < weights[3].argmax()  # left of the picture is left of north


def test_a_slice_that_is_only_grazed_weighs_little():
    weights = slice_weights([50.0], columns=48, slices=8, fan=3)[0].sum(1)
    assert weights[1] == pytest.approx(1) and 0 < weights[0] < 0.3


def test_bars_at_the_sides_say_nothing_and_move_no_column():
    """A photo of 90 degrees that fills half of the picture: its columns as if it filled all."""
    whole = slice_weights([90.0], columns=32, slices=8, fan=5)
    inner = slice_weights([90.0], columns=64, slices=8, fan=5, share=[0.5])
    assert not inner[0, :, :16].any() and not inner[0, :, 48:].any()
    torch.testing.assert_close(inner[:, :, 16:48], whole)


def test_the_end_of_a_round_picture_is_its_beginning():
    weights = slice_weights([360.0], columns=64, slices=16, fan=16, round_=True)[0]
    assert weights.sum(1).tolist() == pytest.approx([1.0] * 16)
    assert weights[0, 0] > 0 and weights[0, -1] > 0  # behind the camera


def test_a_round_picture_fills_the_circle_evenly():
    weights = slice_weights([360.0], columns=64, slices=8, fan=8, round_=True)[0]
    assert weights.sum(1).tolist() == pytest.approx([1.0] * 8)
    assert fan_size(360.0, 8) == 8 and fan_size(60.0, 16) == 3 and fan_size(100.0, 16) == 5


def test_bins_are_read_where_they_lie():
    """A single lit feature 20 m north-east of the middle is seen in that bin of that place."""
    features = torch.zeros(4, 41, 41)
    east = north = round(20 / math.sqrt(2) / SPEC.rings.feature_m)
    features[0, 20 - north, 20 + east] = 1.0
    bins = polar_bins(features, SPEC.rings, 1, (0, 0)).unflatten(1, (3, 4))
    here = bins[:, :, 0, 20 * 41 + 20]  # (N, Z) round the middle
    assert here[1, 1] > 0  # slice 1 of 8 looks to 45 degrees, ring 1 is 20 m
    assert here.count_nonzero() == 1


def test_a_lattice_is_every_few_places_of_the_full_one():
    features = torch.randn(4, 20, 24)
    every = polar_bins(features, SPEC.rings, 1, (0, 0)).unflatten(2, (20, 24))
    some = polar_bins(features, SPEC.rings, 3, (1, 2))
    torch.testing.assert_close(some, every[:, :, 1::3, 2::3].flatten(2))


def test_any_places_are_read_as_the_lattice_is():
    features = torch.randn(4, 20, 24)
    every = polar_bins(features, SPEC.rings, 1, (0, 0))
    rows, columns = torch.tensor([0, 19, 7, 7]), torch.tensor([23, 0, 11, 11])
    pad = SPEC.rings.pad
    maps = [F.pad(m, (0, 0, pad, pad, pad, pad)) for m in means_of(features)]
    found = bins_at(Means(tuple(maps), pad), SPEC.rings, rows, columns)
    torch.testing.assert_close(found, every[:, :, rows * 24 + columns])


def naive(fans, bins):
    slices, fan = len(bins), fans.shape[1]
    return torch.stack(
        [
            sum(fans[:, f] @ bins[(n + f - fan // 2) % slices] for f in range(fan))
            for n in range(slices)
        ]
    )


@pytest.mark.parametrize("fan", [1, 3, 5, 8])
def test_correlation_and_its_gradient_are_the_plain_sum(fan):
    torch.manual_seed(0)
    fans, bins = torch.randn(3, fan, 6).requires_grad_(), torch.randn(8, 6, 10).requires_grad_()
    weight = torch.randn(8, 3, 10)
    found, wanted = correlate(fans, bins), naive(fans, bins)
    torch.testing.assert_close(found, wanted)
    got = torch.autograd.grad((found * weight).sum(), (fans, bins))
    expected = torch.autograd.grad((wanted * weight).sum(), (fans, bins))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("rows", [1, 3])
def test_the_region_loss_and_its_gradient_are_the_plain_formula(rows):
    torch.manual_seed(1)
    match = torch.randn(8, 3, 50, requires_grad=True)
    scale = torch.tensor(1.7, requires_grad=True)
    added = torch.randn(rows, 50, requires_grad=True)
    near = torch.tensor([[1, 2, 3], [7, 8, 40], [0, 49, 25]])
    log_weight = torch.randn(8, 3, 3)
    logits = match * scale + added
    log_prob = logits - torch.logsumexp(logits, (0, 2), keepdim=True)
    own = log_prob.gather(2, near.expand(8, -1, -1)) + log_weight
    wanted = -torch.logsumexp(own, (0, 2)).mean()
    found = region_loss(match, scale, added, near, log_weight)
    torch.testing.assert_close(found, wanted)
    inputs = (match, scale, added)
    got, expected = torch.autograd.grad(found, inputs), torch.autograd.grad(wanted, inputs)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turn", [0.0, math.pi / 2, 2.0])
def test_a_place_moves_with_the_map_that_is_turned_under_it(turn, mirrored):
    """A mark at a known place is found where in_picture says, and what lay north of it lies at
    the bearing that it says.
    """  # noqa: D205
    pose = Pose(turn, 1.1, mirrored, (0, 0))
    metres = np.array([[30.0, -16.0], [30.0, -36.0]])  # the second 20 m north of the first
    east, south, bearing = in_picture(metres, np.zeros(2), pose)
    for i, (x, y) in enumerate(metres):
        picture = torch.zeros(3, 129, 129)
        picture[:, round(64 + y), round(64 + x)] = 1.0  # 1 m a pixel
        row, column = divmod(int(posed(picture, pose)[0].argmax()), 129)
        assert (column - 64, row - 64) == pytest.approx((east[i].item(), south[i].item()), abs=1)
    away = math.atan2(east[1] - east[0], south[0] - south[1])
    assert math.cos(away - bearing[0]) == pytest.approx(1, abs=1e-4)


def test_lattice_places_are_the_middles_of_features():
    assert lattice_m(3, 1, 2, 4.0).tolist() == [6.0, 14.0, 22.0]


def test_a_turned_photo_is_the_same_fan_at_the_next_heading():
    """What a photo matches at heading n, one turned by a slice matches at heading n - 1."""
    torch.manual_seed(2)
    bins = torch.randn(8, 12, 30)
    fan = torch.randn(1, 5, 12)
    turned = torch.zeros(1, 5, 12)
    turned[:, :-1] = fan[:, 1:]
    fan[:, 0] = 0
    torch.testing.assert_close(correlate(turned, bins).roll(-1, 0), correlate(fan, bins))


@pytest.mark.parametrize(("descriptor", "memory"), [(0, False), (16, False), (16, True)])
def test_one_batch_is_overfitted(descriptor, memory):
    """Photos of one map, told apart by nothing but where they were taken."""
    torch.manual_seed(3)
    model = MatchModel(dataclasses.replace(SPEC, descriptor=descriptor, memory=memory))
    place = torch.rand(256, 2) if memory else None
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    photos, ground = torch.rand(6, 3, 24, 48), torch.randn(3, 96, 96)
    weights = slice_weights([70.0] * 6, model.column_count, SPEC.slices, 3)
    near = torch.tensor([[3], [40], [77], [120], [200], [255]])
    log_weight = torch.zeros(8, 6, 1)
    for _ in range(120):
        lattice = model.lattice(model.encode_map(ground), 3, (0, 0), place)
        match, added = model.compare(model.encode_photos(photos, weights), lattice)
        loss = region_loss(match, model.scale(), added, near, log_weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    best = (match * model.scale() + added).amax(0).argmax(1)
    assert (best == near[:, 0]).float().mean() == 1.0


def test_fans_of_every_width_score_alike():
    """A place whose bins are just what a photo says scores 1, however wide the photo."""
    model = MatchModel(SPEC).eval()
    weights = slice_weights([40.0, 100.0], model.column_count, SPEC.slices, 5)
    seen = model.encode_photos(torch.rand(2, 3, 24, 48), weights)
    bins = torch.zeros(8, 3, 4, 2)
    for photo in range(2):
        for f in range(5):
            length = seen.confidence[photo].square().sum().sqrt()
            share = (seen.confidence[photo, f] / length)[:, None]
            bins[(f - 2) % 8, :, :, photo] = seen.features[photo, f] * share
    match, _ = model.compare(seen, Lattice(bins.flatten(1, 2), torch.zeros(2), None))
    torch.testing.assert_close(match[0].diagonal(), torch.ones(2))


@pytest.mark.parametrize("turn", [True, False])
@pytest.mark.parametrize("mirror", [True, False])
def test_a_survey_sees_a_turned_or_mirrored_map_alike(turn, mirror):
    """Where training showed maps so; otherwise it sees something else."""
    spec = dataclasses.replace(SPEC, descriptor=8, turn=turn, mirror=mirror)
    model, picture = MatchModel(spec).eval(), torch.randn(3, 32, 48)
    straight = model.survey(picture)
    on_its_side, mirrored = model.survey(picture.rot90(1, (1, 2))), model.survey(picture.flip(-1))
    for name in ("features", "unary", "wide"):
        seen, other = getattr(straight, name), getattr(on_its_side, name)
        assert torch.allclose(seen.rot90(1, (-2, -1)), other, atol=1e-5) == turn
        assert torch.allclose(seen.flip(-1), getattr(mirrored, name), atol=1e-5) == mirror


def test_a_photo_and_its_mirror_image_say_the_same_the_other_way_round():
    spec = dataclasses.replace(SPEC, descriptor=8)
    photos = torch.rand(2, 3, 24, 48)
    for ensemble in (True, False):
        model = MatchModel(dataclasses.replace(spec, ensemble=ensemble)).eval()
        weights = slice_weights([90.0, 60.0], model.column_count, SPEC.slices, 3)
        one = model.encode_photos(photos, weights)
        other = model.encode_photos(photos.flip(-1), weights)
        for name in ("features", "confidence"):
            turned = getattr(other, name).flip(1)
            assert torch.allclose(getattr(one, name), turned, atol=1e-5) == ensemble
        assert torch.allclose(one.whole, other.whole, atol=1e-5) == ensemble


def test_memory_is_of_places_not_of_the_order_they_are_asked_in():
    model = MatchModel(dataclasses.replace(SPEC, descriptor=8, memory=True)).eval()
    seen = model.encode_map(torch.randn(3, 48, 48))
    place = torch.rand(64, 2)
    some = model.lattice(seen, 3, (0, 0), place)
    without = model.lattice(seen, 3, (0, 0), None)
    assert not torch.allclose(some.wide, without.wide)
    torch.testing.assert_close(some.bins, without.bins)


@pytest.mark.parametrize("mirrored", [False, True])
def test_ground_and_picture_are_each_others_inverse(mirrored):
    pose = Pose(1.2, 1.1, mirrored, (0, 0))
    metres = np.array([[30.0, -16.0], [-5.0, 44.0]])
    east, south, _ = in_picture(metres, np.zeros(2), pose)
    back = on_ground(torch.stack([east, south], 1), pose)
    np.testing.assert_allclose(back.numpy(), metres, atol=1e-4)


def test_bins_of_photos_and_bins_of_the_map_are_the_same_places():
    """What round_photos reads for a photo that looks north is what polar_bins has there."""
    torch.manual_seed(4)
    model = MatchModel(dataclasses.replace(SPEC, channels=3))
    picture = torch.rand(3, 61, 61)
    bins = polar_bins(picture, model.spec.rings, 1, (0, 0)).unflatten(1, (3, 3))
    row, column = 30, 24
    east, south = torch.tensor([(column - 30) * 4.0]), torch.tensor([(row - 30) * 4.0])
    shape = Fans(torch.zeros(1, 3, 3, 3), torch.zeros(1, 3, 3), None)
    for heading in (0, 3):
        bearing = torch.tensor([heading * math.pi / 4])
        found = round_photos(picture, model, east, south, bearing, shape)[0]
        for slice_ in range(3):  # left, ahead, right
            wanted = bins[(heading + slice_ - 1) % 8, :, :, row * 61 + column]
            torch.testing.assert_close(found[slice_], wanted, atol=0.45, rtol=0)  # rounded to 4 m
    smooth = torch.linspace(0, 1, 61).expand(3, 61, 61).contiguous()  # grows eastwards
    found = round_photos(smooth, model, east, south, torch.zeros(1), shape)[0]
    assert (found[2] > found[1]).all() and (found[1] > found[0]).all()


def test_single_places_follow_the_lattice_with_their_gradient():
    torch.manual_seed(5)
    features = torch.randn(4, 20, 24, requires_grad=True)
    every = polar_bins(features, SPEC.rings, 1, (0, 0))
    rows, columns = torch.tensor([0, 19, 7, 7]), torch.tensor([23, 0, 11, 11])
    found = polar_bins(features, SPEC.rings, 3, (1, 2), (rows, columns))
    wanted = torch.cat(
        [
            every.unflatten(2, (20, 24))[:, :, 1::3, 2::3].flatten(2),
            every[:, :, rows * 24 + columns],
        ],
        2,
    )
    torch.testing.assert_close(found, wanted)
    weight = torch.randn_like(found)
    got, expected = (torch.autograd.grad((v * weight).sum(), features) for v in (found, wanted))
    torch.testing.assert_close(got, expected)
