"""elsewhere: other ground is kept and read back, and evidence is a comparison with it."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image
from test_match_scorer import looking, match_config, photos

from zoomloc.belief.priors import Heading
from zoomloc.checkpoint import build_model
from zoomloc.config import GENERAL
from zoomloc.errors import CheckpointError
from zoomloc.locator import Locator, open_views
from zoomloc.model.match import Fans, Lattice, look_of
from zoomloc.scorers import scorer_of, with_elsewhere
from zoomloc.scorers.elsewhere import (
    ACROSS,
    NAME,
    SIDE_PX,
    encoded,
    load_elsewhere,
    read_mosaic,
    save_elsewhere,
    write_mosaic,
)
from zoomloc.scorers.matches import AT_ONCE, FOVS_DEG, Looks

HASH = "0123456789abcdef"


def squares(count, seed=0):
    """Pictures that change slowly, bright up to their borders."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(90, 255, (count, 6, 6, 3)).astype(np.uint8)
    return [np.kron(one, np.ones((32, 32, 1), np.uint8)) for one in coarse]


@pytest.fixture(scope="module")
def scorer(small_config, painted):
    config = match_config(small_config)
    views = open_views(painted, config)
    torch.manual_seed(0)
    found = scorer_of(build_model(config, views.region).eval(), views, config.search)
    return dataclasses.replace(found, refined=1.0)


@pytest.fixture(scope="module")
def bank(scorer):
    return encoded(scorer.model, squares(2))


# pictures


@pytest.mark.parametrize("count", [1, ACROSS - 1, ACROSS, ACROSS + 2])
def test_pictures_come_back_from_a_mosaic_and_no_empty_square_does(tmp_path, count):
    """The colours of a lossy picture run over its border into the empty squares beside it."""
    path, written = tmp_path / "other.webp", squares(count)
    write_mosaic(path, written)
    read = read_mosaic(path)
    assert len(read) == count
    for one, other in zip(read, written, strict=True):
        assert one.shape == (SIDE_PX, SIDE_PX, 3)
        assert abs(one.astype(float) - other).mean() < 6


def test_what_is_no_mosaic_is_refused_in_one_line(tmp_path):
    small = tmp_path / "small.webp"
    Image.new("RGB", (SIDE_PX - 1, 500)).save(small)
    (tmp_path / "text.webp").write_text("no picture")
    for path in (small, tmp_path / "text.webp", tmp_path / "none.webp", tmp_path):
        with pytest.raises(CheckpointError, match="give a region's folder") as refusal:
            read_mosaic(path)
        assert "\n" not in str(refusal.value) and str(path) in str(refusal.value)


# places


def test_places_stand_every_32_m_where_all_their_surroundings_are_shown(scorer, bank):
    """From 56 m to 328 m of 384 m: nine in a row."""
    assert bank.bins.shape[2] == len(bank.unary) == 2 * 9 * 9
    assert bank.bins.shape[:2] == (8, 3 * 4)  # slices, rings x channels
    alone = encoded(scorer.model, squares(2)[1:])
    torch.testing.assert_close(bank.bins[..., 81:], alone.bins)
    torch.testing.assert_close(bank.unary[81:], alone.unary)


@torch.inference_mode()
def test_a_place_is_encoded_as_a_map_is(scorer):
    """By the model's own grid over the same picture, whose scale is the model's."""
    model, (picture,) = scorer.model, squares(1, seed=3)
    assert model.spec.gsd_m == 2.0 and model.feature_m == 4.0
    pixels = torch.from_numpy(picture).permute(2, 0, 1) / 255.0
    mean, deviation = look_of(pixels)
    seen = model.survey((pixels - mean) / deviation)
    grid = model.lattice(seen, 32 // 4, (56 // 4, 56 // 4))
    across = math.isqrt(len(grid.unary))
    inner = (torch.arange(9)[:, None] * across + torch.arange(9)).flatten()
    found = encoded(model, [picture])
    torch.testing.assert_close(found.unary, grid.unary[inner], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.bins.float(), grid.bins[..., inner], atol=0.01, rtol=0.02)


# files


def test_a_byte_a_number_is_at_most_half_a_step_off(scorer, bank, tmp_path):
    path = tmp_path / NAME
    save_elsewhere(path, bank, HASH)
    found = load_elsewhere(path, scorer.model, HASH)
    wanted = bank.bins.float()
    step = wanted.abs().max() / 127
    off = (found.bins.float() - wanted).abs()
    assert (off <= step / 2 + wanted.abs() / 128 + 1e-7).all()  # bf16 where it is fast
    assert off.max() > 0 and torch.equal(found.unary, bank.unary.float())
    assert path.stat().st_size < bank.bins.numel() + 4 * len(bank.unary) + 1000


def test_numbers_that_are_all_zero_stay_so(scorer, tmp_path):
    nothing = Lattice(torch.zeros(8, 12, 3), torch.zeros(3), None)
    save_elsewhere(tmp_path / NAME, nothing, HASH)
    found = load_elsewhere(tmp_path / NAME, scorer.model, HASH)
    assert found.bins.shape == (8, 12, 3) and not found.bins.any()


def test_places_of_other_weights_or_none_count_as_none(scorer, bank, tmp_path):
    made_by = {"checkpoint": HASH}
    assert load_elsewhere(tmp_path / NAME, scorer.model, HASH) is None
    save_elsewhere(tmp_path / NAME, bank, HASH)
    assert load_elsewhere(tmp_path / NAME, scorer.model, HASH[::-1]) is None
    assert with_elsewhere(scorer, tmp_path, {"checkpoint": HASH[::-1]}).elsewhere is None
    assert with_elsewhere(scorer, tmp_path, made_by).elsewhere is not None
    other = object()  # a scorer of another kind
    assert with_elsewhere(other, tmp_path, made_by) is other


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other tensors", "a folder"])
def test_a_damaged_file_is_refused_in_one_line(scorer, bank, tmp_path, damage):
    from safetensors.torch import save

    path = tmp_path / NAME
    save_elsewhere(path, bank, HASH)
    whole = path.read_bytes()
    other = save({"bins": torch.zeros(1)}, {"checkpoint": HASH})
    broken = {"cut": whole[:-9], "empty": b"", "text": b"x" * 99, "other tensors": other}
    if damage == "a folder":
        path.unlink()
        path.mkdir()
        assert load_elsewhere(path, scorer.model, HASH) is None
        return
    path.write_bytes(broken[damage])
    with pytest.raises(CheckpointError, match="zoomloc calibrate") as refusal:
        load_elsewhere(path, scorer.model, HASH)
    assert "\n" not in str(refusal.value) and str(path) in str(refusal.value)


# evidence


def log_mean(values, axis=0):
    return np.logaddexp.reduce(values, axis) - np.log(values.shape[axis])


@torch.inference_mode()
def by_hand(scorer, shown, bank):
    """(B,) from the model's own matches: each heading a kind of photo, all places alike."""
    leaves = scorer.leaves(scorer.start(shown))[:, scorer.views.coverage.leaves]
    found = []
    for photo, here in zip(shown, leaves, strict=True):
        likely = []
        for fov_deg in (photo.fov_deg,) if photo.fov_deg else FOVS_DEG:
            fans = scorer._looks([dataclasses.replace(photo, fov_deg=fov_deg)]).fans[0]
            match, added = scorer.model.compare(fans, bank)
            logits = (match.float() * scorer.model.scale() + added)[:, 0].double().numpy()
            if photo.heading is not None:
                logits = logits + photo.heading.log_share(np.arange(8) * 45.0)[:, None]
            likely.append(log_mean(np.logaddexp.reduce(logits, 0)))  # headings, then places
        found.append(log_mean(here) - log_mean(np.array(likely)))
    return found


@pytest.mark.parametrize("fov_deg", [70.0, None], ids=["a lens", "an unknown lens"])
def test_evidence_is_the_mean_likelihood_here_over_that_elsewhere(scorer, bank, fov_deg):
    shown = looking(photos(3, fov_deg), None, Heading(90.0, 20.0), None)
    compared = dataclasses.replace(scorer, elsewhere=bank)
    found = compared.evidence(compared.start(shown))
    np.testing.assert_allclose(found, by_hand(scorer, shown, bank), atol=0.03)  # bf16
    assert np.ptp(found) > 0.002
    assert scorer.evidence(scorer.start(shown)) is None  # without other ground


def test_each_photo_of_many_has_its_own_evidence(scorer, bank):
    """More photos than are looked at together."""
    compared = dataclasses.replace(scorer, elsewhere=bank)
    shown = photos(AT_ONCE + 3)
    found = compared.evidence(compared.start(shown))
    assert found.shape == (AT_ONCE + 3,)
    for i in (0, AT_ONCE - 1, AT_ONCE, AT_ONCE + 2):
        alone = compared.evidence(compared.start([shown[i]]))
        assert found[i] == pytest.approx(alone[0], abs=0.03)


def seen_from(model, lattice, heading=2, width=16):
    """What ideal photos of places show: the bins themselves, from a heading on."""
    turned = (torch.arange(width) + heading) % model.spec.slices
    bins = lattice.bins[turned].float().unflatten(1, (len(model.spec.rings_m), -1))
    features = torch.nn.functional.normalize(bins.permute(3, 0, 1, 2), dim=-1)  # (J, F, Z, C)
    fans = Fans(features, torch.ones(features.shape[:3]), None)
    return Looks((fans,), torch.arange(len(features)), len(features))


@torch.inference_mode()
def test_photos_of_here_have_more_evidence_than_photos_of_elsewhere(painted):
    """The general model; each photo shows exactly one place, of the region or of its bank."""
    scorer = Locator.load(GENERAL, painted).scorer
    assert scorer.elsewhere is not None  # it comes with other ground, of these very weights
    rows, columns = (torch.arange(1, 9) * (most // 10) for most in scorer.index.unary.shape)
    other = scorer.elsewhere
    chosen = torch.arange(0, len(other.unary), len(other.unary) // 8)
    here, away = (
        seen_from(scorer.model, lattice)
        for lattice in (
            scorer.map_at(rows, columns),
            Lattice(other.bins[..., chosen], other.unary[chosen], None),
        )
    )
    of_here, of_away = (
        scorer._better_here(scorer._matched_cells([looks]), [looks]) for looks in (here, away)
    )
    assert of_here.shape == (8,) and len(of_away) >= 8
    print(of_here, of_away)
    assert np.median(of_here) > of_away.max() and of_here.min() > np.median(of_away)
