"""What pictures look like, and which are left out for it."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from data_prep.photos import looks
from data_prep.photos.looks import (
    ALIKE_BITS,
    are_alike,
    difference_hash,
    duplicates,
    filtered,
    hashes_of,
    look_at,
)
from zoomloc.config.photos import FiltersConfig
from zoomloc.errors import PhotoError
from zoomloc.world.cells import LatLng, distance_m, moved
from zoomloc.world.photos import Photo, Skipped

PLACE = LatLng(48.1, -1.7)


def photo(name: str, path: Path, place: LatLng = PLACE) -> Photo:
    return Photo(
        name, path, *place, None, None, "perspective", datetime(2024, 5, 1, tzinfo=UTC), "drive",
        "folder", "", "", 5.0,
    )  # fmt: skip


def scene(seed: int, width: int = 640, height: int = 480) -> Image.Image:
    """A picture with large shapes and fine grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(20, 235, (7, 9, 3)).astype(np.uint8))
    picture = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    grain = rng.normal(0, 12, picture.shape)
    return Image.fromarray((picture + grain).clip(0, 255).astype(np.uint8))


def saved(picture: Image.Image, path: Path, **options: Any) -> Path:
    picture.save(path, **options)
    return path


def bits_apart(a: Path, b: Path) -> int:
    return (look_at(a).hash ^ look_at(b).hash).bit_count()


# 1. one picture


def test_the_hash_is_counted_by_hand() -> None:
    """Brighter to the right in the first row only, then in one cell of the last."""
    grey = np.zeros((8, 9), np.float32)
    grey[0] = 10 * np.arange(9)
    assert difference_hash(grey) == 0xFF << 56
    grey[7, 8] = 3
    assert difference_hash(grey) == (0xFF << 56) | 1
    assert difference_hash(grey[:, ::-1]) == 0  # only darker


def test_noise_in_a_blank_sky_decides_nothing() -> None:
    rng = np.random.default_rng(1)
    blank = (200 + rng.normal(0, 2, (192, 256))).astype(np.float32)
    assert difference_hash(blank) == 0


@pytest.mark.parametrize("size", [(640, 480), (320, 240), (160, 120), (301, 223)])
@pytest.mark.parametrize("quality", [40, 90])
def test_the_same_picture_smaller_and_squeezed_is_alike(
    tmp_path: Path, size: tuple[int, int], quality: int
) -> None:
    for seed in range(5):
        one = saved(scene(seed), tmp_path / "a.png")
        smaller = scene(seed).resize(size, Image.Resampling.LANCZOS)
        assert bits_apart(one, saved(smaller, tmp_path / "b.jpg", quality=quality)) <= ALIKE_BITS
        other = saved(scene(seed + 100), tmp_path / "c.jpg")
        assert bits_apart(one, other) > 3 * ALIKE_BITS


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_file_is_seen_upright(tmp_path: Path, orientation: int) -> None:
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    shown = scene(3)
    stored = shown.transpose(turns[orientation]) if orientation in turns else shown
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = look_at(saved(shown, tmp_path / "a.png"))
    turned = look_at(saved(stored, tmp_path / "b.jpg", exif=exif, quality=95))
    assert (upright.hash ^ turned.hash).bit_count() <= 2
    assert turned.sharpness == pytest.approx(upright.sharpness, rel=0.25)


def test_what_is_measured(tmp_path: Path) -> None:
    sharp = look_at(saved(scene(1), tmp_path / "a.jpg", quality=95))
    soft = scene(1).filter(ImageFilter.GaussianBlur(6))
    blurred = look_at(saved(soft, tmp_path / "b.jpg", quality=95))
    dark = look_at(saved(scene(1).point(lambda v: v // 10), tmp_path / "c.jpg", quality=95))
    assert sharp.short_px == blurred.short_px == 480
    assert blurred.sharpness < sharp.sharpness / 4
    assert dark.brightness == pytest.approx(sharp.brightness / 10, abs=2)


def test_sharpness_does_not_depend_on_the_camera(tmp_path: Path) -> None:
    """The same scene from a camera of four times the pixels."""
    small = scene(2, 512, 384)
    large = small.resize((2048, 1536), Image.Resampling.BICUBIC)
    a = look_at(saved(small, tmp_path / "a.jpg", quality=95))
    b = look_at(saved(large, tmp_path / "b.jpg", quality=95))
    assert (a.short_px, b.short_px) == (384, 1536)
    assert a.sharpness == pytest.approx(b.sharpness, rel=0.3)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "I;16", "CMYK", "LA"])
def test_any_mode_is_measured(tmp_path: Path, mode: str) -> None:
    grey = scene(5).convert("L")
    expected = look_at(saved(grey, tmp_path / "a.png")).brightness
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(grey, np.uint16) * 257)
    else:
        picture = grey.convert("RGB").convert(mode) if mode == "CMYK" else grey.convert(mode)
    suffix = "tif" if mode == "CMYK" else "png"
    found = look_at(saved(picture, tmp_path / f"b.{suffix}"))
    assert found.brightness == pytest.approx(expected, abs=6)


@pytest.mark.parametrize("size", [(1, 1), (2, 500), (9, 8), (4000, 3)])
def test_odd_shapes(tmp_path: Path, size: tuple[int, int]) -> None:
    look = look_at(saved(Image.new("RGB", size, (9, 9, 9)), tmp_path / "a.png"))
    assert look.short_px == min(size) and look.sharpness == 0 and look.hash == 0


# 2. filters


def test_reasons_and_order(tmp_path: Path) -> None:
    files = {
        "good": scene(1),
        "small": scene(2, 320, 200),
        "dark": scene(3).point(lambda v: v // 12),
        "soft": scene(4).filter(ImageFilter.GaussianBlur(9)),
    }
    found: list[Photo | Skipped] = [
        photo(name, saved(picture, tmp_path / f"{name}.jpg")) for name, picture in files.items()
    ]
    (tmp_path / "torn.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:200])
    found.insert(2, Skipped("elsewhere.jpg", "no GPS position in its EXIF"))
    found.append(photo("torn", tmp_path / "torn.jpg"))
    found.append(photo("gone", tmp_path / "gone.jpg"))
    plan = FiltersConfig(least_px=240, dark=25, blurred=20)
    kept = list(filtered(found, plan))
    assert kept[0] == found[0] and kept[2] == found[2]
    told = {one.path: one.reason for one in kept if isinstance(one, Skipped)}
    assert list(told) == ["small", "elsewhere.jpg", "dark", "soft", "torn", "gone"]
    assert told["small"] == "too small: its shorter side is under 240 px"
    assert told["dark"] == "too dark: its mean grey value is under 25"
    assert told["soft"] == "blurred: the variance of its Laplacian is under 20"
    assert "damaged" in told["torn"] and told["gone"] == "no such photo; check the path"
    assert not any(str(tmp_path) in reason for reason in told.values())


def test_no_filter_opens_no_picture(tmp_path: Path) -> None:
    found = [photo("a", tmp_path / "absent.jpg"), Skipped("b", "why")]
    assert list(filtered(found, FiltersConfig())) == found
    kept = list(filtered(found, FiltersConfig(dark=1)))
    assert isinstance(kept[0], Skipped)


def test_photos_stream_through_unless_duplicates_are_looked_for(tmp_path: Path) -> None:
    path = saved(scene(1), tmp_path / "a.jpg")
    asked = 0

    def endless():
        nonlocal asked
        while True:
            asked += 1
            yield photo(f"{asked}", path)

    stream = filtered(endless(), FiltersConfig(least_px=100))
    assert isinstance(next(stream), Photo)
    assert asked <= 1024


def test_each_picture_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real opener, counted."""
    opened: list[Path] = []
    real = looks.opened

    def counted(path: Path) -> Any:
        opened.append(path)
        return real(path)

    monkeypatch.setattr(looks, "opened", counted)
    found = [photo(f"{k}", saved(scene(k), tmp_path / f"{k}.jpg")) for k in range(4)]
    plan = FiltersConfig(least_px=1, dark=1, blurred=1, duplicates=True)
    assert list(filtered(found, plan)) == found
    assert opened == [one.path for one in found]


# 3. duplicates


def twins(tmp_path: Path) -> list[Photo]:
    """b shows what a shows, 20 m away; c too, but 40 m away from a; d is another scene."""
    same = saved(scene(7), tmp_path / "a.jpg")
    again = saved(scene(7).resize((320, 240)), tmp_path / "b.jpg", quality=60)
    other = saved(scene(8), tmp_path / "d.jpg")
    return [
        photo("a", same),
        photo("b", again, moved(PLACE, 90, 20)),
        photo("c", same, moved(PLACE, 90, 40)),
        photo("d", other, moved(PLACE, 90, 5)),
    ]


def test_the_first_by_id_is_kept_in_whatever_order_they_come(tmp_path: Path) -> None:
    """a is kept, so b goes; c is near b only, and b is not kept, so c stays."""
    found = twins(tmp_path)
    for order in permutations(found):
        kept = list(filtered(order, FiltersConfig(duplicates=True)))
        names = [one.id if isinstance(one, Photo) else f"-{one.path}" for one in kept]
        expected = [one.id if one.id != "b" else "-b" for one in order]
        assert names == expected
    (gone,) = [one for one in kept if isinstance(one, Skipped)]
    assert gone.reason == "the same picture as another at most 25 m away"


def test_several_processes_find_the_same(tmp_path: Path) -> None:
    names = [saved(scene(k % 40, 64, 48), tmp_path / f"{k % 40}.png") for k in range(40)]
    rng = np.random.default_rng(0)
    found = [
        photo(f"{k:03d}", names[k % 40], moved(PLACE, float(rng.uniform(0, 360)), k / 4))
        for k in range(200)
    ]
    plan = FiltersConfig(duplicates=True, dark=90)
    alone = list(filtered(found, plan, workers=1))
    assert list(filtered(found, plan, workers=2)) == alone
    assert 30 < sum(isinstance(one, Skipped) for one in alone) < 190
    paths = [one.path for one in found]
    assert hashes_of(paths, workers=2) == hashes_of(paths) == [look_at(p).hash for p in paths]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 0xFFF)),
        min_size=1,
        max_size=25,
    )
)
def test_duplicates_agree_with_all_against_all(rows: list[tuple[int, int, int]]) -> None:
    photos = [
        photo(f"{k * 7 % 26:02d}", Path("x"), moved(moved(PLACE, 0, north), 90, east))
        for k, (north, east, _) in enumerate(rows)
    ]
    bits = np.array([b for _, _, b in rows], np.uint64)
    kept: list[int] = []
    for k in sorted(range(len(rows)), key=lambda k: photos[k].id):
        if not any(
            distance_m(photos[k].place, photos[j].place) <= 25
            and (rows[k][2] ^ rows[j][2]).bit_count() <= ALIKE_BITS
            for j in kept
        ):
            kept.append(k)
    assert np.flatnonzero(~duplicates(photos, bits)).tolist() == sorted(kept)


def test_many_at_one_place_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs come in blocks; what is kept does not depend on where they are cut."""
    rng = np.random.default_rng(3)
    photos = [photo(f"{k:03d}", Path("x"), moved(PLACE, 90, k / 3)) for k in range(300)]
    bits = rng.integers(0, 1 << 7, 300).astype(np.uint64)
    whole = duplicates(photos, bits)
    monkeypatch.setattr("data_prep.nearby.BLOCK", 7)
    assert np.array_equal(duplicates(photos, bits), whole)
    assert 100 < whole.sum() < 300


def test_none_and_one() -> None:
    assert duplicates([], np.empty(0, np.uint64)).tolist() == []
    one = photo("a", Path("x"))
    assert duplicates([one], np.zeros(1, np.uint64)).tolist() == [False]
    assert are_alike(np.array([0b1111], np.uint64), np.zeros(1, np.uint64)).tolist() == [True]
    assert are_alike(np.array([0b11111], np.uint64), np.zeros(1, np.uint64)).tolist() == [False]
    pair = [one, replace(one, id="b")]
    assert duplicates(pair, np.zeros(2, np.uint64)).tolist() == [False, True]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_whatever_bytes_come_in(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jpg"
    for head in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0"):
        path.write_bytes(head + data)
        try:
            look_at(path)
        except PhotoError:
            pass
        (one,) = filtered([photo("a", path)], FiltersConfig(least_px=1))
        assert isinstance(one, Photo | Skipped)
