"""Pixels of a picture file, out of bytes that may be hostile.

Knows nothing of places, cameras or models. A picture is (H, W, 3) uint8, RGB, shown upright.
"""

import contextlib
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from zoomloc.errors import PhotoError

Pixels = npt.NDArray[np.uint8]

MAX_PIXELS = 200_000_000  # the largest sensors in phones; more than that is taken for a bomb
FILL = 127  # grey where there is no picture
ORIENTATION_TAG = 0x0112
HOSTILE = (  # what Pillow has been seen to raise on bytes that are not what they claim
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError,
    RuntimeError, EOFError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WARNINGS_LOCK = threading.Lock()

# 1. whole pictures


def load_rgb(path: Path, max_side_px: int | None = None) -> Pixels:
    """The picture as (H, W, 3), upright by its EXIF orientation; transparency becomes grey.

    With ``max_side_px`` the longer side is at most that (a JPEG is then decoded at a fraction
    of its size). Raises PhotoError for what is missing, damaged, no picture or above MAX_PIXELS.
    """
    if max_side_px is not None and max_side_px < 1:
        raise PhotoError(f"{path}: max_side_px is {max_side_px}; give 1 or more")
    with opened(path) as image:
        turn = _TURNS.get(orientation_in(tags_of(image)))
        size = _size_within(image.size, max_side_px)
        image.draft(None, size)
        picture = _to_rgb(image)
        if picture.size != size:
            picture = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
        if turn is not None:
            picture = picture.transpose(turn)
        return np.array(picture, np.uint8)


def image_size(path: Path) -> tuple[int, int]:
    """(width_px, height_px) of the upright picture; no pixel is decoded. Raises PhotoError."""
    with opened(path) as image:
        return upright_size(image.size, orientation_in(tags_of(image)))


def load_fitted(path: Path, width_px: int, height_px: int) -> Pixels:
    """``load_rgb`` then ``fit_rgb``: (height_px, width_px, 3), padded and never squashed."""
    loaded = load_rgb(path, max_side_px=4 * max(width_px, height_px))  # draft, then one resize
    return fit_rgb(loaded, width_px, height_px)


def resize_rgb(pixels: Pixels, width_px: int, height_px: int) -> Pixels:
    """(H, W, 3) -> (height_px, width_px, 3), anti-aliased; the aspect ratio is the caller's."""
    if pixels.shape[:2] == (height_px, width_px):
        return pixels
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return np.array(picture.resize((width_px, height_px), Image.Resampling.BICUBIC), np.uint8)


def fit_rgb(pixels: Pixels, width_px: int, height_px: int) -> Pixels:
    """(H, W, 3) -> (height_px, width_px, 3) without squashing: grey bars fill what is left."""
    height, width = pixels.shape[:2]
    scale = min(width_px / width, height_px / height)
    inner_width = min(max(round(width * scale), 1), width_px)
    inner_height = min(max(round(height * scale), 1), height_px)
    left, top = (width_px - inner_width) // 2, (height_px - inner_height) // 2
    fitted = np.full((height_px, width_px, 3), FILL, np.uint8)
    inner = resize_rgb(pixels, inner_width, inner_height)
    fitted[top : top + inner_height, left : left + inner_width] = inner
    return fitted


def width_held(fitted: Pixels) -> npt.NDArray[np.float64]:
    """(N, h, w, 3) from ``fit_rgb`` -> (N,) share of the width between the bars at both sides."""
    bars = (fitted == FILL).all(axis=(1, 3))
    left = np.where(bars.all(axis=1), 0, bars.argmin(axis=1))
    return np.asarray(1.0 - 2.0 * left / fitted.shape[2])


# 2. picture files, opened but not decoded


@contextlib.contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """The picture file, identified by its first bytes, its size checked, nothing decoded.

    Whatever its bytes make Pillow raise inside the block becomes a PhotoError.
    """
    if not os.path.exists(path):  # unlike Path.exists, False for a folder that may not be read
        raise PhotoError(f"{path}: no such photo; check the path")
    if not os.path.isfile(path):
        raise PhotoError(f"{path}: is not a file; give the path of a photo")
    try:
        with path.open("rb") as file:
            yield _identified(file, path)
    except HOSTILE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise PhotoError(f"{path}: cannot be read ({error.strerror})") from error
        why = " ".join(str(error).split())[:80] or type(error).__name__
        raise PhotoError(
            f"{path}: damaged or cut short ({why}); copy it again from its source"
        ) from error


def check_whole(image: ImageFile.ImageFile) -> None:
    """Raise (inside ``opened``) where the file ends before its picture does.

    Looks at the last bytes; decodes, at an eighth of the size, only where they leave a doubt.
    """
    if not _ends_as_it_should(image):
        image.draft(None, (max(image.width // 8, 1), max(image.height // 8, 1)))
        _load(image)


def tags_of(image: Image.Image, directory: int | None = None) -> dict[int, Any]:
    """EXIF tags of the main directory or of a sub-directory, as far as they can be read.

    Of a PNG only what stands before its pixels: Pillow would decode them to look behind. Of a
    TIFF no orientation: Pillow gives its size and pixels as they are shown.
    """
    left_out = ORIENTATION_TAG if image.format == "TIFF" else None
    try:
        with _quiet():
            exif = Image.Image.getexif(image)
            source = exif if directory is None else exif.get_ifd(directory)
            found = {tag: _value(source, tag) for tag in source if tag != left_out}
            return {tag: value for tag, value in found.items() if value is not None}
    except HOSTILE:
        return {}


def orientation_in(tags: dict[int, Any]) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or it makes no sense."""
    value = tags.get(ORIENTATION_TAG)
    return value if isinstance(value, int) and value in _TURNS else 1


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(width_px, height_px) of a stored picture as it is shown."""
    return (size[1], size[0]) if orientation >= 5 else size


def _identified(file: IO[bytes], path: Path) -> ImageFile.ImageFile:
    """Open with the plugin that the first bytes ask for.

    ``Image.open`` is passed by: it tries some forty formats, and it judges size by a global
    and a warning, at 89 and 179 megapixels.
    """
    head = file.read(16)
    file.seek(0)
    with _quiet():
        image = _plugin(head, path)(file, str(path))
    if image.width * image.height > MAX_PIXELS:
        raise PhotoError(
            f"{path}: {image.width} x {image.height} px are more than {MAX_PIXELS // 10**6} "
            "megapixels; make it smaller"
        )
    if image.format == "TIFF" and not _covers(image):  # Pillow would leave the rest black
        raise OSError("its strips cover less than the picture")
    return image


def _covers(image: ImageFile.ImageFile) -> bool:
    """Whether the parts that a TIFF holds reach its edges; either side may be the longer one."""
    extents = [part[1] or (0, 0, *image.size) for part in image.tile] or [(0, 0, 0, 0)]
    reached = sorted((max(e[2] for e in extents), max(e[3] for e in extents)))
    return all(r >= s for r, s in zip(reached, sorted(image.size), strict=True))


def _plugin(head: bytes, path: Path) -> type[ImageFile.ImageFile]:
    """The reader for a file that begins with these bytes."""
    if head.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return TiffImagePlugin.TiffImageFile
    if not head:
        raise PhotoError(f"{path}: empty file (0 bytes); copy it again from its source")
    raise PhotoError(f"{path}: no JPEG, PNG, WebP or TIFF picture; convert it to JPEG")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No Pillow warning about odd bytes gets out; one thread at a time, as filters are global."""
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _load(image: Image.Image) -> None:
    """Decode. A TIFF reads its tags only now and may warn; others decode beside each other."""
    with _quiet() if image.format == "TIFF" else contextlib.nullcontext():
        image.load()


def _value(tags: Any, tag: int) -> Any:
    try:
        return tags[tag]
    except HOSTILE:
        return None


def _ends_as_it_should(image: ImageFile.ImageFile) -> bool:
    """Whether the file's last bytes are those that end its format."""
    file = image.fp
    if file is None:
        return False
    here = file.tell()
    size = file.seek(0, 2)
    file.seek(max(size - 32, 0))
    tail = file.read()
    file.seek(8 - 4)
    claimed = int.from_bytes(file.read(4), "little") + 8
    file.seek(here)
    if image.format == "JPEG":
        return b"\xff\xd9" in tail
    if image.format == "WEBP":
        return claimed <= size
    return image.format == "PNG" and b"IEND" in tail


# 3. pixels of any kind to RGB


def _size_within(size: tuple[int, int], max_side_px: int | None) -> tuple[int, int]:
    """The size with its longer side at most ``max_side_px``, aspect ratio kept."""
    scale = 1.0 if max_side_px is None else min(max_side_px / max(size), 1.0)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode of Pillow as RGB; transparent parts over grey, 16 bits scaled down to 8."""
    _load(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_to_rgb(image)
    if image.has_transparency_data:
        over = image.convert("RGBA")
        grey = Image.new("RGBA", over.size, (FILL, FILL, FILL, 255))
        return Image.alpha_composite(grey, over).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _deep_to_rgb(image: Image.Image) -> Image.Image:
    """Greys of 16 or 32 bits: 0..1, 0..255 or 0..65535, told apart by the largest value."""
    values = np.nan_to_num(np.asarray(image, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    top = float(values.max(initial=0.0))
    if image.mode.startswith("I;16") or top > 255:
        values = values * (255 / max(top, 65535.0))
    elif image.mode == "F" and top <= 1:
        values = values * 255
    return Image.fromarray(np.clip(values, 0, 255).round().astype(np.uint8)).convert("RGB")
