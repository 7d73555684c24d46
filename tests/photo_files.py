"""Photo files that tests make, and the real ones where this machine has them."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from data_prep.photos.reading import Progress
from data_prep.photos.sources import PhotosSummary, read_sources
from zoomloc.config import parse_config

GPS, CAMERA = 0x8825, 0x8769


def real_data(*names: str) -> Path:
    """A folder or file of the real data; skips the test where it is absent."""
    root = os.environ.get("ZOOMLOC_REAL_DATA")
    if not root:
        pytest.skip("ZOOMLOC_REAL_DATA is not set: no real data on this machine")
    path = Path(root).joinpath(*names)
    if not path.exists():
        pytest.skip(f"no {'/'.join(names)} in ZOOMLOC_REAL_DATA")
    return path


def ramp(width: int = 64, height: int = 32) -> Image.Image:
    """Red grows to the right, green downwards: one can tell which way is up."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width).astype(np.uint8)[None]
    pixels[..., 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    return Image.fromarray(pixels)


def gps_tags(lat: float, lng: float, **more: Any) -> dict[int, Any]:
    tags: dict[int, Any] = {1: "S" if lat < 0 else "N", 3: "W" if lng < 0 else "E"}
    for tag, value in ((2, abs(lat)), (4, abs(lng))):
        minutes = value % 1 * 60
        tags[tag] = (float(int(value)), float(int(minutes)), round(minutes % 1 * 60, 6))
    tags.update({int(tag[1:]): value for tag, value in more.items()})
    return tags


def exif(
    gps: dict[int, Any] | None = None,
    camera: dict[int, Any] | None = None,
    orientation: int | None = None,
    make: str | None = None,
) -> Image.Exif:
    tags = Image.Exif()
    if orientation is not None:
        tags[0x0112] = orientation
    if make is not None:
        tags[0x010F] = make
    for directory, values in ((GPS, gps), (CAMERA, camera)):
        if values:
            tags.get_ifd(directory).update(values)
    return tags


def write_photo(
    path: Path,
    lat: float | None = None,
    lng: float | None = None,
    when: str | None = None,
    size: tuple[int, int] = (64, 32),
    xmp: bytes | None = None,
    orientation: int | None = None,
    **gps: Any,
) -> Path:
    """A small JPEG; ``when`` as EXIF writes it; ``gps`` tags as t17=33.5."""
    path.parent.mkdir(parents=True, exist_ok=True)
    position = {} if lat is None or lng is None else gps_tags(lat, lng, **gps)
    camera = {} if when is None else {0x9003: when}
    tags = exif(position, camera, orientation)
    more = {} if xmp is None else {"xmp": xmp}
    ramp(*size).save(path, "JPEG", exif=tags, **more)
    return path


def read_folder(
    folder: Path, out: Path, workers: int = 1, progress: Progress | None = None, **said: Any
) -> PhotosSummary:
    """The photo table of a folder, by a config as users write it: errors are those they see."""
    plan = parse_config({"photos": {"folder": folder, **said}}, "test").photos
    return read_sources(plan, out, workers, progress)


ZERO_OVER_ZERO = IFDRational(0, 0)
