import io
import os
import struct
import threading
import time
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from photo_files import exif, ramp, real_data, write_photo
from PIL import Image

from zoomloc.errors import PhotoError
from zoomloc.world.images import (
    FILL,
    MAX_PIXELS,
    check_whole,
    fit_rgb,
    image_size,
    load_rgb,
    opened,
    resize_rgb,
    width_held,
)


def png_claiming(path: Path, width: int, height: int) -> Path:
    """A small valid PNG header of any size, with next to no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_loads_rgb_pixels(tmp_path: Path) -> None:
    ramp().save(tmp_path / "a.png")
    pixels = load_rgb(tmp_path / "a.png")
    assert pixels.dtype == np.uint8 and pixels.flags.writeable
    np.testing.assert_array_equal(pixels, np.asarray(ramp()))


@pytest.mark.parametrize("suffix", ["jpg", "webp", "tif"])
def test_loads_each_format(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    ramp().save(path, quality=95)
    difference = load_rgb(path).astype(int) - np.asarray(ramp())
    assert np.abs(difference).mean() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_shown_upright(tmp_path: Path, orientation: int) -> None:
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that undoes each
    stored = ramp()
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(back[orientation]))
    path = tmp_path / "a.jpg"
    stored.save(path, exif=exif(orientation=orientation), quality=95)
    pixels = load_rgb(path)
    assert pixels.shape == (32, 64, 3) and image_size(path) == (64, 32)
    assert pixels[16, -4, 0] > 200 > 60 > pixels[16, 4, 0]
    assert pixels[-4, 32, 1] > 200 > 60 > pixels[4, 32, 1]


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_impossible_orientation_is_none(tmp_path: Path, value: int) -> None:
    path = tmp_path / "a.jpg"
    ramp().save(path, exif=exif(orientation=value))
    assert image_size(path) == (64, 32)


def test_max_side_keeps_the_aspect_ratio_and_never_enlarges(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    ramp(400, 200).save(path, exif=exif(orientation=6))
    assert load_rgb(path, 100).shape == (100, 50, 3)
    assert load_rgb(path, 1000).shape == (400, 200, 3)
    assert load_rgb(path, 1).shape == (1, 1, 3)
    whole = resize_rgb(load_rgb(path), 50, 100).astype(int)
    assert np.abs(load_rgb(path, 100) - whole).mean() < 3
    with pytest.raises(PhotoError, match="1 or more"):
        load_rgb(path, 0)


def test_draft_saves_time(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    ramp(3000, 2000).save(path)

    def seconds(max_side_px: int | None) -> float:
        began = time.process_time()
        load_rgb(path, max_side_px)
        return time.process_time() - began

    assert min(seconds(250) for _ in range(3)) < 0.6 * min(seconds(None) for _ in range(3))


def test_transparency_lies_on_grey(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    clear.putpixel((0, 0), (255, 0, 0, 255))
    clear.save(tmp_path / "rgba.png")
    pixels = load_rgb(tmp_path / "rgba.png")
    assert pixels[0, 0].tolist() == [255, 0, 0] and pixels[2, 2].tolist() == [FILL] * 3
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(tmp_path / "p.png", transparency=bytes([255, 0]))
    assert load_rgb(tmp_path / "p.png")[0, 0].tolist() == [FILL] * 3
    palette.save(tmp_path / "opaque.png")
    assert load_rgb(tmp_path / "opaque.png")[0, 0].tolist() == [10, 20, 30]


def test_other_modes_become_rgb(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert load_rgb(tmp_path / "deep.png")[..., 1].ravel().tolist() == pytest.approx(
        (deep / 257).ravel().tolist(), abs=1
    )
    real = np.array([[0.0, 0.5, np.nan, 1.0]], np.float32)
    Image.fromarray(real).save(tmp_path / "float.tif")
    assert load_rgb(tmp_path / "float.tif")[0, :, 0].tolist() == [0, 128, 0, 255]
    ramp().convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    assert np.abs(load_rgb(tmp_path / "cmyk.jpg").astype(int) - np.asarray(ramp())).mean() < 6
    ramp().convert("1").save(tmp_path / "bits.png")
    assert set(np.unique(load_rgb(tmp_path / "bits.png"))) == {0, 255}
    ramp().convert("L").save(tmp_path / "grey.jpg")
    assert load_rgb(tmp_path / "grey.jpg", 16).shape == (8, 16, 3)


def test_refusals_say_what_and_where(tmp_path: Path) -> None:
    for name, content, reason in [
        ("empty.jpg", b"", "empty file"),
        ("text.jpg", b"no picture at all, just words", "no JPEG, PNG, WebP or TIFF"),
        ("marker.jpg", b"\xff\xd8\xff\xe0" + bytes(50), "damaged"),
        ("half.png", b"\x89PNG\r\n\x1a\n" + bytes(20), "damaged"),
        ("riff.webp", b"RIFF\x10\0\0\0WEBPVP8 ", "damaged"),
        ("tiff.tif", b"II*\0\xff\xff\xff\xff", "damaged"),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        for read in (load_rgb, image_size):
            with pytest.raises(PhotoError, match=reason) as caught:
                read(path)
            assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(PhotoError, match="no such photo"):
        load_rgb(tmp_path / "absent.jpg")
    with pytest.raises(PhotoError, match="not a file"):
        load_rgb(tmp_path)
    with pytest.raises(PhotoError, match="no such photo"):
        load_rgb(tmp_path / "a\0b.jpg")


def test_pipes_and_broken_links_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for name in ("pipe.jpg", "loop.jpg"):
        with pytest.raises(PhotoError):
            load_rgb(tmp_path / name)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_truncated_picture_is_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (80, 120, 3)).astype(np.uint8)
    memory = io.BytesIO()
    kind = {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())
    Image.fromarray(noise).save(memory, kind)
    path = tmp_path / f"a.{suffix}"
    for share in (0.3, 0.6, 0.97):
        path.write_bytes(memory.getvalue()[: int(len(memory.getvalue()) * share)])
        for read in (load_rgb, whole):
            with pytest.raises(PhotoError, match="damaged or cut short"):
                read(path)
    path.write_bytes(memory.getvalue())
    whole(path)
    path.write_bytes(memory.getvalue() + b"trailing bytes, as phones write them" * 10)
    whole(path)


def whole(path: Path) -> None:
    with opened(path) as image:
        check_whole(image)


@pytest.mark.parametrize("size", [(60_000, 60_000), (20_000, 10_001), (1, 200_000_001)])
def test_a_picture_bomb_is_refused_without_decoding(tmp_path: Path, size: tuple[int, int]) -> None:
    path = png_claiming(tmp_path / "bomb.png", *size)
    tracemalloc.start()
    with pytest.raises(PhotoError, match="megapixels"):
        load_rgb(path)
    with pytest.raises(PhotoError, match="megapixels"):
        image_size(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


def test_the_size_of_a_picture_is_read_without_decoding_it(tmp_path: Path) -> None:
    path = png_claiming(tmp_path / "undecodable.png", 14_000, 14_000)
    began = time.process_time()
    assert image_size(path) == (14_000, 14_000)
    assert time.process_time() - began < 0.1
    with pytest.raises(PhotoError, match="damaged or cut short"):
        load_rgb(path, 64)


def test_large_pictures_below_the_limit_give_no_warning(tmp_path: Path) -> None:
    path = png_claiming(tmp_path / "large.png", 20_000, 9_999)  # Pillow itself stops at 179 MP
    assert 20_000 * 9_999 <= MAX_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert image_size(path) == (20_000, 9_999)


def test_hostile_bytes_raise_nothing_but_photo_error(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.jpg", 48.1, -1.7, "2020:01:01 10:00:00")
    good = (tmp_path / "a.jpg").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        bytes_ = bytearray(good)
        for place in rng.integers(3, len(good), 12):
            bytes_[place] = rng.integers(256)
        (tmp_path / "b.jpg").write_bytes(bytes_)
        try:
            assert load_rgb(tmp_path / "b.jpg", 64).ndim == 3
        except PhotoError:
            refused += 1
    assert 0 < refused < 200


def test_loading_in_threads_leaves_the_warning_filters_alone(tmp_path: Path) -> None:
    path = write_photo(tmp_path / "a.jpg", 48.1, -1.7)
    before = list(warnings.filters)
    threads = [
        threading.Thread(target=lambda: [load_rgb(path) for _ in range(30)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_fit_pads_and_never_squashes() -> None:
    pixels = np.full((20, 40, 3), 200, np.uint8)
    fitted = fit_rgb(pixels, 100, 100)
    assert fitted.shape == (100, 100, 3)
    assert (fitted[25:75] == 200).all() and (fitted[:25] == FILL).all()
    assert (fitted[75:] == FILL).all()
    assert (fit_rgb(pixels, 80, 40) == 200).all()
    tall = fit_rgb(pixels.transpose(1, 0, 2), 50, 20)
    assert (tall[:, 20:30] == 200).all() and (tall[:, :20] == FILL).all()
    assert fit_rgb(np.full((1, 1000, 3), 9, np.uint8), 10, 10).shape == (10, 10, 3)


def test_resize_is_anti_aliased() -> None:
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = resize_rgb(np.repeat(board[..., None], 3, 2), 8, 8)
    assert small.shape == (8, 8, 3) and np.abs(small.astype(int) - 127).max() <= 10


def test_real_photos_load() -> None:
    folder = real_data("exif-samples", "orientation")
    assert image_size(folder / "landscape_6.jpg") == (600, 450)
    assert load_rgb(folder / "portrait_6.jpg").shape == (600, 450, 3)
    one = load_rgb(folder / "landscape_1.jpg", 60).astype(int)
    for name in ("landscape_6.jpg", "landscape_8.jpg"):
        turned = load_rgb(folder / name, 60).astype(int)
        assert turned.shape == one.shape == (45, 60, 3)
        upright, upside_down = np.abs(turned - one).mean(), np.abs(turned[::-1, ::-1] - one).mean()
        assert upright < 0.4 * upside_down, name  # the same scene in another light
    photo = real_data("opensfm-berlin", "images", "01.jpg")
    assert image_size(photo) == (3264, 2448) and load_rgb(photo, 224).shape == (168, 224, 3)


def test_bars_at_the_sides_are_seen():
    tall = fit_rgb(np.full((100, 100, 3), 7, np.uint8), 64, 32)
    wide = fit_rgb(np.full((100, 400, 3), 7, np.uint8), 64, 32)
    nothing = np.full((32, 64, 3), FILL, np.uint8)
    assert width_held(np.stack([tall, wide, nothing])).tolist() == [0.5, 1.0, 1.0]
