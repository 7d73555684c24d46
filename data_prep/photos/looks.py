"""What a picture looks like, in four numbers, and which photos are left out for it.

Knows nothing of sources, splits or models. Each picture is opened once, and decoded small.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from data_prep.nearby import Indices, pairs_within
from data_prep.photos.reading import Progress
from zoomloc.config.photos import FiltersConfig
from zoomloc.errors import PhotoError
from zoomloc.world.images import opened, orientation_in, tags_of, upright_size
from zoomloc.world.photos import Photo, Skipped
from zoomloc.world.processes import worker_pool

Hashes = npt.NDArray[np.uint64]

LOOK_PX = 256  # width at which blur and darkness are measured, whatever the camera
ALIKE_BITS = 4  # of 64 that may differ in two pictures of the same
ALIKE_M = 25.0  # apart, at most
_BATCH = 1024  # photos that are looked at before the next are asked for
_CHUNK = 16  # pictures that a process gets at once
_FEW = 128  # pictures are looked at before a process has started


@dataclass(frozen=True)
class Look:
    """A picture's shorter side as stored, and what is measured of it ``LOOK_PX`` wide in grey.

    ``sharpness`` is the variance of its Laplacian, ``brightness`` its mean (0..255), ``hash`` its
    difference hash: bit k is set where the right neighbour of cell k of 8 x 8 is brighter.
    """

    short_px: int
    brightness: float
    sharpness: float
    hash: int


def filtered(
    found: Iterable[Photo | Skipped], plan: FiltersConfig, workers: int = 1
) -> Iterator[Photo | Skipped]:
    """The photos that the plan keeps, the others as Skipped with the reason, in their order.

    A plan that leaves nothing out opens no picture. Photos stream through, but with
    ``duplicates`` those that are kept are held back to the end: of photos that are alike
    the first by id stays.
    """
    if not (plan.least_px or plan.blurred or plan.dark or plan.duplicates):
        yield from found
        return
    kept: list[Photo] = []
    hashes: list[int] = []
    for one, look in _looked_at(found, workers):
        if look is None or isinstance(one, Skipped):
            yield one
        elif (reason := _unfit(look, plan)) is not None:
            yield Skipped(one.id, reason)
        elif not plan.duplicates:
            yield one
        else:
            kept.append(one)
            hashes.append(look.hash)
    again = duplicates(kept, np.array(hashes, np.uint64))
    reason = f"the same picture as another at most {ALIKE_M:g} m away"
    for photo, twice in zip(kept, again.tolist(), strict=True):
        yield Skipped(photo.id, reason) if twice else photo


def duplicates(photos: Sequence[Photo], hashes: Hashes) -> npt.NDArray[np.bool_]:
    """(n,) which photos show what one that is kept shows: alike within 4 bits, 25 m apart at most.

    Decided in the order of ids, so that neither order nor number of processes matters.
    """
    order = sorted(range(len(photos)), key=lambda k: photos[k].id)
    ordered, bits = [photos[k] for k in order], hashes[order]

    def alike(a: Indices, b: Indices) -> npt.NDArray[np.bool_]:
        return (b < a) & are_alike(bits[a], bits[b])

    again = np.zeros(len(photos), np.bool_)
    for a, b in pairs_within(ordered, ordered, ALIKE_M, only=alike):
        by_id = np.lexsort((b, a))
        for later, earlier in zip(a[by_id].tolist(), b[by_id].tolist(), strict=True):
            again[later] |= not again[earlier]  # all before it are decided
    found = np.zeros(len(photos), np.bool_)
    found[order] = again
    return found


def are_alike(a: Hashes, b: Hashes) -> npt.NDArray[np.bool_]:
    """Which pairs of hashes are of the same picture."""
    return np.asarray(np.bitwise_count(a ^ b) <= ALIKE_BITS)


def hashes_of(
    paths: Sequence[Path], workers: int = 1, progress: Progress | None = None
) -> list[int | None]:
    """The hash of each picture, None for one that cannot be read."""
    found: list[int | None] = []
    for look in _looks(iter(paths), workers):
        found.append(look.hash if isinstance(look, Look) else None)
        if progress is not None and (len(found) % _CHUNK == 0 or len(found) == len(paths)):
            progress(len(found), len(paths))
    return found


def _unfit(look: Look, plan: FiltersConfig) -> str | None:
    """Why the plan leaves such a picture out, or None."""
    if look.short_px < plan.least_px:
        return f"too small: its shorter side is under {plan.least_px} px"
    if look.brightness < plan.dark:
        return f"too dark: its mean grey value is under {plan.dark:g}"
    if look.sharpness < plan.blurred:
        return f"blurred: the variance of its Laplacian is under {plan.blurred:g}"
    return None


# 1. many pictures


def _looked_at(
    found: Iterable[Photo | Skipped], workers: int
) -> Iterator[tuple[Photo | Skipped, Look | None]]:
    """Each photo with its look; one that cannot be read becomes Skipped."""
    stream = iter(found)
    with _Lookers(workers) as lookers:
        while batch := list(islice(stream, _BATCH)):
            looks = iter(lookers.looks([one.path for one in batch if isinstance(one, Photo)]))
            for one in batch:
                look = next(looks) if isinstance(one, Photo) else None
                if isinstance(look, str):
                    yield Skipped(one.id if isinstance(one, Photo) else one.path, look), None
                else:
                    yield one, look


def _looks(paths: Iterator[Path], workers: int) -> Iterator[Look | str]:
    with _Lookers(workers) as lookers:
        while batch := list(islice(paths, _BATCH)):
            yield from lookers.looks(batch)


class _Lookers:
    """Processes that look at pictures, started where there are enough of them."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool = None if workers < 2 else worker_pool(workers)

    def __enter__(self) -> "_Lookers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def looks(self, paths: Sequence[Path]) -> Iterable[Look | str]:
        """A look at each picture, in order, or the reason why there is none."""
        if self._pool is None or len(paths) < _FEW:
            return map(_look_or_reason, paths)
        return self._pool.map(_look_or_reason, paths, chunksize=_CHUNK)


def _look_or_reason(path: Path) -> Look | str:
    try:
        return look_at(path)
    except PhotoError as error:
        return str(error).removeprefix(f"{path}: ")


# 2. one picture


def look_at(path: Path) -> Look:
    """Measure one picture, shown upright. Raises PhotoError where it cannot be read."""
    with opened(path) as image:
        turn = orientation_in(tags_of(image))
        width, _ = upright_size(image.size, turn)
        short_px = min(image.size)
        share = min(LOOK_PX / width, 1.0)
        size = (max(round(image.width * share), 1), max(round(image.height * share), 1))
        image.draft("L", (2 * size[0], 2 * size[1]))  # the last halving is the filter's
        grey = _grey(image).resize(size, Image.Resampling.BILINEAR)
    pixels = _upright(np.asarray(grey, np.float32), turn)
    return Look(short_px, float(pixels.mean()), _sharpness(pixels), difference_hash(pixels))


def difference_hash(grey: npt.NDArray[np.float32]) -> int:
    """64 bits of a picture (h, w) shrunk to 8 rows of 9: where it grows brighter to the right.

    By more than half a grey value: in a blank sky the noise of JPEG would decide.
    """
    small = Image.fromarray(grey).resize((9, 8), Image.Resampling.BOX)
    brighter = np.diff(np.asarray(small, np.float32), axis=1) > 0.5
    return int.from_bytes(np.packbits(brighter).tobytes(), "big")


def _sharpness(grey: npt.NDArray[np.float32]) -> float:
    """Variance of the Laplacian: four neighbours less four times the pixel."""
    if min(grey.shape) < 3:
        return 0.0
    middle = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float(np.var(around - 4 * middle))


def _grey(image: Image.Image) -> Image.Image:
    """Any mode of Pillow as 8 bits of grey; 16 bits scaled down."""
    image.load()
    if image.mode.startswith("I") or image.mode == "F":
        deep = np.nan_to_num(np.asarray(image, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        if image.mode.startswith("I;16") or float(deep.max(initial=0.0)) > 255:
            deep = deep / np.float32(257)
        return Image.fromarray(np.clip(deep, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
    return image if image.mode == "L" else image.convert("L")


def _upright(grey: npt.NDArray[np.float32], orientation: int) -> npt.NDArray[np.float32]:
    """The picture turned and mirrored as its EXIF orientation (1 to 8) asks."""
    turned = grey.T if orientation >= 5 else grey
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    return np.ascontiguousarray(turned)
