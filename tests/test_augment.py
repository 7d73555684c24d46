"""Augmentation: what may change in a training picture, and what never does."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from zoomloc.config import AugmentConfig
from zoomloc.training import augment
from zoomloc.training.augment import augment_photos, augment_views

OFF = {f"photo_{name}": 0.0 for name in ("colour", "shift", "scale", "erase")}
OFF["view_colour"] = 0.0


def plan(**changes) -> AugmentConfig:
    return AugmentConfig(**(OFF | changes))


def noise(count=6, height=24, width=48):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def ramp(count=32, height=16, width=64):
    """Pictures whose brightness grows by one column at a time."""
    columns = torch.linspace(40, 215, width).to(torch.uint8)
    return columns.expand(count, 3, height, width).contiguous()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("change", [augment_photos, augment_views])
def test_all_off_leaves_every_pixel(change):
    pictures = noise()
    assert torch.equal(change(pictures, plan()), pictures.float() / 255)


@pytest.mark.parametrize("change", [augment_photos, augment_views])
def test_shape_and_range_are_kept_and_the_given_pictures_untouched(change):
    pictures = noise()
    before = pictures.clone()
    changed = change(pictures, AugmentConfig())
    assert changed.shape == pictures.shape and changed.dtype == torch.float32
    assert changed.min() >= 0 and changed.max() <= 1
    assert torch.equal(pictures, before)


def test_pictures_with_channels_last_in_memory_come_out_the_same():
    pictures = noise()
    scattered = pictures.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    torch.manual_seed(5)
    one = augment_photos(pictures, AugmentConfig())
    torch.manual_seed(5)
    torch.testing.assert_close(augment_photos(scattered, AugmentConfig()), one)


def test_colour_keeps_the_order_of_values_and_differs_between_pictures_and_channels():
    values = torch.arange(256, dtype=torch.uint8).expand(8, 3, 1, 256)
    changed = augment_photos(values, plan(photo_colour=0.3))[:, :, 0]
    assert (changed.diff(dim=-1) >= 0).all()  # no value overtakes a brighter one
    middle = changed[:, :, 128]
    assert len(set(middle[:, 0].tolist())) == 8  # each picture its own light
    assert (middle.std(dim=1) > 0).all()  # white balance


def test_a_shift_stays_within_its_share_and_mirrors_nothing():
    pictures = ramp()
    changed = augment_photos(pictures, plan(photo_shift=0.1))
    assert (changed.diff(dim=-1) >= -1e-6).all()  # left stays left
    middle = changed[:, 0, 0, 32] * 255
    step = (215 - 40) / 63
    moved_px = (middle - float(pictures[0, 0, 0, 32])) / step
    assert moved_px.abs().max() <= 0.1 * 64 + 1
    assert moved_px.max() > 2 and moved_px.min() < -2  # both ways


def test_scale_magnifies_round_the_middle():
    changed = augment_photos(ramp(), plan(photo_scale=0.3))
    middle = changed[:, 0, 0, 31:33].mean(1) * 255
    assert (middle - 127.5).abs().max() < 1.5
    spread = changed[:, 0, 0, 48] - changed[:, 0, 0, 16]
    assert spread.max() > 1.15 * spread.min()


def test_an_erased_box_is_one_grey_rectangle_of_bounded_size():
    pictures = torch.zeros(64, 3, 40, 80, dtype=torch.uint8)
    changed = augment_photos(pictures, plan(photo_erase=1.0))
    assert (changed.amax((1, 2, 3)) > 0).float().mean() > 0.9  # in nearly every picture
    for picture in changed:
        assert torch.equal(picture[0], picture[1]) and torch.equal(picture[0], picture[2])
        hit = picture[0] > 0
        rows, columns = hit.any(1), hit.any(0)
        assert torch.equal(hit, rows[:, None] & columns[None, :])
        assert rows.sum() <= 0.4 * 40 + 1 and columns.sum() <= 0.4 * 80 + 1


def test_boxes_come_as_often_as_asked():
    pictures = torch.zeros(2000, 3, 20, 20, dtype=torch.uint8)
    changed = augment_photos(pictures, plan(photo_erase=0.3))
    assert (changed.amax((1, 2, 3)) > 0).float().mean() == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize(
    ("change", "name"), [(augment_photos, "photo_noise"), (augment_views, "view_noise")]
)
def test_noise_has_the_deviation_that_was_asked_for(change, name):
    grey = torch.full((4, 3, 64, 64), 128, dtype=torch.uint8)
    added = change(grey, plan(**{name: 0.05})) - 128 / 255
    assert float(added.mean()) == pytest.approx(0, abs=2e-3)
    assert float(added.std()) == pytest.approx(0.05, rel=0.05)


def test_views_are_neither_moved_nor_covered():
    """A view's pixels are places: only their colour may change."""
    white = torch.zeros(16, 3, 32, 32, dtype=torch.uint8)
    white[:, :, 8:16, 20:28] = 255
    changed = augment_views(white, AugmentConfig(view_noise=0.0))
    inside = changed[:, :, 8:16, 20:28]
    assert (inside == inside[..., :1, :1]).all()
    rest = changed.masked_fill(white == 255, 0).amax((2, 3))
    assert torch.equal(rest, changed[:, :, 0, 0])


def test_the_same_seed_gives_the_same_changes():
    torch.manual_seed(9)
    one = augment_photos(noise(), AugmentConfig())
    torch.manual_seed(9)
    two = augment_photos(noise(), AugmentConfig())
    assert torch.equal(one, two)
    assert not torch.equal(one, augment_photos(noise(), AugmentConfig()))


BOTH = [(augment_photos, "photo"), (augment_views, "view")]


def changed_share(change, pictures, **changes):
    """The share of pictures that come out otherwise."""
    before = change(pictures, plan())
    return ((change(pictures, plan(**changes)) - before).abs().amax((1, 2, 3)) > 1e-6).float()


@pytest.mark.parametrize(("change", "side"), BOTH)
@pytest.mark.parametrize("what", ["colour", "grey", "jpeg", "blur", "dropout"])
def test_changes_come_as_often_as_asked(change, side, what):
    pictures = noise(600, 16, 16)
    asked = {f"{side}_{what}": 0.3}
    if what == "colour":
        asked = {f"{side}_colour": 0.3, f"{side}_colour_chance": 0.3}
    assert float(changed_share(change, pictures, **asked).mean()) == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize(("change", "side"), BOTH)
def test_what_is_off_draws_nothing(change, side):
    """So that a run of today is the run of yesterday."""
    before = torch.random.get_rng_state()
    change(noise(), plan())
    assert torch.equal(torch.random.get_rng_state(), before)
    change(noise(), plan(**{f"{side}_grey": 0.5}))
    assert not torch.equal(torch.random.get_rng_state(), before)


def test_grey_has_three_equal_channels_of_the_same_luma():
    pictures = noise()
    changed = augment_photos(pictures, plan(photo_grey=1.0))
    assert torch.equal(changed[:, 0], changed[:, 1]) and torch.equal(changed[:, 0], changed[:, 2])
    for picture, grey in zip(pictures, changed, strict=True):
        wanted = Image.fromarray(picture.permute(1, 2, 0).numpy()).convert("L")
        assert np.abs(grey[0].numpy() * 255 - np.asarray(wanted)).max() <= 1


@pytest.mark.parametrize("quality", [90, 96, 100])
def test_jpegs_loss_is_that_of_a_real_coder(monkeypatch, quality):
    """Pillow's, whose picture differs from ours less than either does from the original."""
    monkeypatch.setattr(augment, "JPEG_QUALITY", (quality, quality))
    smooth = torch.nn.functional.interpolate(noise(4, 8, 9).float(), (45, 52), mode="bicubic")
    pictures = (smooth + 20 * torch.randn(smooth.shape)).clamp(0, 255).to(torch.uint8)
    ours = augment_photos(pictures, plan(photo_jpeg=1.0)) * 255
    for picture, mine in zip(pictures, ours, strict=True):
        coded = io.BytesIO()
        whole = Image.fromarray(picture.permute(1, 2, 0).numpy())
        whole.save(coded, "JPEG", quality=quality, subsampling=0)
        theirs = torch.from_numpy(np.array(Image.open(coded))).permute(2, 0, 1).float()
        loss = (theirs - picture).square().mean().sqrt()
        assert (mine - theirs).square().mean().sqrt() < 0.5 * loss + 0.6  # it rounds more often
        assert (mine - picture).square().mean().sqrt() == pytest.approx(
            float(loss), rel=0.2, abs=0.4
        )


def test_a_crop_keeps_shape_order_and_at_least_its_share():
    changed = augment_photos(ramp(400), plan(photo_crop=0.5))
    assert changed.shape == (400, 3, 16, 64)
    assert (changed.diff(dim=-1) >= -1e-6).all()
    step = (215 - 40) / 63 / 255
    side = (changed[:, 0, 8, -2] - changed[:, 0, 8, 1]) / step / 61  # of the frame, 0..1
    assert 0.5**0.5 - 0.02 < side.min() < 0.75 and 0.97 < side.max() < 1.01
    first, last = changed[:, 0, 8, 0], changed[:, 0, 8, -1]
    assert first.min() > 39 / 255 and last.max() < 216 / 255  # nothing beyond the picture
    assert first.max() > 60 / 255 and last.min() < 195 / 255  # and not always its middle


@pytest.mark.parametrize(("change", "side"), BOTH)
def test_blur_and_sharpening_keep_the_mean_and_change_the_edges_both_ways(change, side):
    edge = torch.full((200, 3, 16, 32), 64, dtype=torch.uint8)
    edge[..., 16:] = 192
    changed = change(edge, plan(**{f"{side}_blur": 1.0}))
    assert changed.mean((1, 2, 3)).sub(128 / 255).abs().max() < 1e-3
    rise = (changed[:, 0, 8, 16] - changed[:, 0, 8, 15]) * 255
    assert rise.min() < 80 and rise.max() > 170  # 128 before
    flat = changed[..., :12]
    torch.testing.assert_close(flat, torch.full_like(flat, 64 / 255))


@pytest.mark.parametrize(("change", "side"), BOTH)
def test_dropout_blackens_a_part_and_leaves_the_rest(change, side):
    white = torch.full((300, 3, 32, 64), 255, dtype=torch.uint8)
    changed = change(white, plan(**{f"{side}_dropout": 1.0}))
    assert set(changed.unique().tolist()) == {0.0, 1.0}
    assert (changed == changed[:, :1]).all()
    black = (changed[:, 0] == 0).float().mean((1, 2))
    assert 0.03 < black.min() and black.max() < 0.6
    assert len(set(black.tolist())) > 100


def test_crops_move_no_view():
    views = noise(8, 32, 32)
    assert torch.equal(augment_views(views, plan(photo_crop=0.5)), views.float() / 255)
