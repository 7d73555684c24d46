"""Photos of a region decoded once for many trainings: a file of pixels beside the photo table.

Knows nothing of batches. The file names its photos; where it does not hold all that are asked
for, as they are now, it is passed over.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zoomloc.errors import ConfigError
from zoomloc.world.files import read_json, write_json, written_whole
from zoomloc.world.images import load_fitted
from zoomloc.world.photos import Photo, read_photos

Pictures = npt.NDArray[np.uint8]
SCHEMA = "zoomloc/pixels/1"


def store_pixels(folder: Path, size_px: tuple[int, int]) -> Path:
    """Decode all photos of ``folder/photos.parquet`` to one size; done before: nothing to do."""
    photos = read_photos(folder / "photos.parquet")
    path = _path(folder, size_px)
    if stored_pixels(folder, photos, size_px) is None:
        width, height = size_px
        path.with_suffix(".json").unlink(missing_ok=True)  # never new pixels under old names
        with written_whole(path) as temporary, temporary.open("wb") as file:
            pixels = np.empty((len(photos), height, width, 3), np.uint8)
            for into, photo in zip(pixels, photos, strict=True):
                into[:] = load_fitted(photo.path, width, height)
            np.save(file, pixels)
        stamps = {photo.id: _stamp(photo.path) for photo in photos}
        write_json(path.with_suffix(".json"), {"schema": SCHEMA, "photos": stamps})
    return path


def stored_pixels(
    folder: Path, photos: Sequence[Photo], size_px: tuple[int, int]
) -> Pictures | None:
    """(n, h, w, 3) of these photos, or None where they are not stored as they are now."""
    path = _path(folder, size_px)
    if not path.is_file() or not path.with_suffix(".json").is_file():
        return None
    known = read_json(path.with_suffix(".json"), SCHEMA, ConfigError)["photos"]
    row = {name: i for i, name in enumerate(known)}
    if any(known.get(photo.id) != _stamp(photo.path) for photo in photos):
        return None
    pixels = np.load(path, mmap_mode="r")
    rows = [row[photo.id] for photo in photos]
    return np.asarray(pixels[rows]) if len(rows) < len(pixels) else np.asarray(pixels)


def _path(folder: Path, size_px: tuple[int, int]) -> Path:
    return folder / f"pixels-{size_px[0]}x{size_px[1]}.npy"


def _stamp(path: Path) -> list[int]:
    """What changes when a file does."""
    try:
        about = path.stat()
    except OSError:
        return [0, 0]
    return [about.st_size, about.st_mtime_ns]
