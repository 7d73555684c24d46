"""A panorama as perspective pictures that look around from its place, level with the horizon.

Knows nothing of sources, tables or splits. Azimuths count clockwise from the panorama's middle
column; x grows to the right and y down, and a pixel's centre is at its index.
"""

import hashlib
import math
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from zoomloc.errors import PhotoError
from zoomloc.world.files import written_whole
from zoomloc.world.images import load_rgb
from zoomloc.world.photos import Photo

Pixels = npt.NDArray[np.uint8]
Floats32 = npt.NDArray[np.float32]

WIDTH_PX = 1024  # of a view, at most: no more than the panorama holds
HEIGHT_SHARE = 0.75  # of its width
QUALITY = 90


def views_of(photo: Photo, count: int, fov_deg: float, folder: Path) -> list[Photo]:
    """``count`` views of a panorama, evenly spread from its heading; JPEGs below ``folder``.

    They keep its drive, so that no split parts them, and all else that is known of it; a heading
    that is unknown stays so. Of a panorama that is less than the whole round only views that it
    holds are made. Views that lie there already, newer than the panorama, are left as they are.
    Raises PhotoError for a picture that cannot be read or is no panorama.
    """
    if photo.projection != "equirectangular":
        raise PhotoError(f"{photo.path}: {photo.projection}, not a panorama; views need one")
    whole_deg = photo.fov_deg or 360.0
    azimuths = [360.0 * k / count for k in range(count)]
    held = [a for a in azimuths if abs(_signed(a)) + fov_deg / 2 <= whole_deg / 2 + 1e-9]
    if whole_deg >= 360:
        held = azimuths
    if not held:
        raise PhotoError(f"{photo.path}: {whole_deg:g} degrees hold no view of {fov_deg:g}")
    views = [_view(photo, azimuth, fov_deg, folder) for azimuth in held]
    missing = [k for k, view in enumerate(views) if not _is_made(view.path, photo.path)]
    if missing:
        panorama = load_rgb(photo.path, max_side_px=_useful_px(whole_deg, fov_deg))
        for k in missing:
            _write(perspective(panorama, whole_deg, held[k], fov_deg), views[k].path)
    return views


def perspective(panorama: Pixels, whole_deg: float, azimuth_deg: float, fov_deg: float) -> Pixels:
    """A view (h, w, 3) out of an equirectangular picture ``whole_deg`` wide, horizon at mid height.

    Its middle is as fine as the panorama, but at most ``WIDTH_PX`` wide; bilinear. Rays above or
    below the panorama's rows get its first or last one.
    """
    across = panorama.shape[1]
    native = 2 * across / math.radians(whole_deg) * math.tan(math.radians(fov_deg) / 2)
    width = max(min(round(native), WIDTH_PX), 8)
    yaw, pitch = _rays(width, max(round(width * HEIGHT_SHARE), 6), fov_deg)
    per_deg = across / whole_deg
    x = (yaw + azimuth_deg) * per_deg + (across - 1) / 2
    y = (panorama.shape[0] - 1) / 2 - pitch * per_deg
    return _sampled(panorama, x, y, wraps=whole_deg >= 360)


@lru_cache(maxsize=4)
def _rays(width: int, height: int, fov_deg: float) -> tuple[Floats32, Floats32]:
    """Yaw and pitch in degrees (height, width) of the rays through a view's pixels."""
    focal_px = width / 2 / math.tan(math.radians(fov_deg) / 2)
    right = (np.arange(width) - (width - 1) / 2)[None]
    up = ((height - 1) / 2 - np.arange(height))[:, None]
    yaw = np.degrees(np.arctan2(right, focal_px))
    pitch = np.degrees(np.arctan2(up, np.hypot(right, focal_px)))
    return np.broadcast_to(yaw, pitch.shape).astype(np.float32), pitch.astype(np.float32)


def _sampled(pixels: Pixels, x: Floats32, y: Floats32, wraps: bool) -> Pixels:
    """Pixels at fractional places, bilinear; columns go round where the picture does."""
    height, width = pixels.shape[:2]
    y = np.clip(y, 0, height - 1)
    if not wraps:
        x = np.clip(x, 0, width - 1)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    share_x, share_y = (x - left)[..., None], (y - top)[..., None]
    columns = left % width, (left + 1) % width if wraps else np.minimum(left + 1, width - 1)
    rows = top, np.minimum(top + 1, height - 1)
    above, below = (
        pixels[row, columns[0]] * (1 - share_x) + pixels[row, columns[1]] * share_x for row in rows
    )
    return np.asarray(np.rint(above * (1 - share_y) + below * share_y), np.uint8)


def _view(photo: Photo, azimuth_deg: float, fov_deg: float, folder: Path) -> Photo:
    """What is known of a view; its file is named so that no two views share one."""
    named = f"{azimuth_deg:g}-{fov_deg:g}"
    digest = hashlib.sha256(photo.id.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    stem = re.sub(r"[^A-Za-z0-9]+", "-", photo.id).strip("-")[-60:]
    return replace(
        photo,
        id=f"{photo.id}#{azimuth_deg:g}",
        path=folder / digest[:2] / f"{stem}-{digest}-{named}.jpg",
        bearing_deg=_turned(photo.bearing_deg, azimuth_deg),
        true_bearing_deg=_turned(photo.true_bearing_deg, azimuth_deg),
        fov_deg=fov_deg,
        projection="perspective",
    )


def _turned(bearing_deg: float | None, by_deg: float) -> float | None:
    return None if bearing_deg is None else (bearing_deg + by_deg) % 360.0


def _signed(azimuth_deg: float) -> float:
    """The same direction in [-180, 180)."""
    return (azimuth_deg + 180.0) % 360.0 - 180.0


def _useful_px(whole_deg: float, fov_deg: float) -> int:
    """Width of a panorama whose views are ``WIDTH_PX`` wide: more would be thrown away."""
    half = math.tan(math.radians(fov_deg) / 2)
    return math.ceil(WIDTH_PX * math.radians(whole_deg) / 2 / half)


def _is_made(view: Path, panorama: Path) -> bool:
    try:
        return view.stat().st_mtime_ns >= panorama.stat().st_mtime_ns
    except OSError:
        return False


def _write(pixels: Pixels, path: Path) -> None:
    with written_whole(path) as temporary:
        Image.fromarray(pixels).save(temporary, "JPEG", quality=QUALITY)
