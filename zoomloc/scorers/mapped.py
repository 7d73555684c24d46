"""The map's side of the match for a whole region: encoded chunk by chunk, kept on disk if asked.

Each chunk is encoded with what lies around it, so that chunks do not show. On disk an index is a
folder of memory-mapped arrays beside the region; it is keyed by checkpoint and imagery, goes on
where it was stopped, and after a change of imagery only the chunks that changed are encoded.
Knows nothing of photos or scores.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoomloc.errors import RegionError
from zoomloc.ground import GroundMap, Window
from zoomloc.model.match import STRIDE, MapIndex, MatchModel, look_of
from zoomloc.model.polar import POOLED, Means, means_of
from zoomloc.model.precision import home_of, number_format
from zoomloc.world.files import read_json, unwritable, write_json

SCHEMA = "zoomloc/index/1"
CHUNK_PX = 1024  # of the map encoded at once, and what is seen around it
HALO_PX = 64
Progress = Callable[[int, int], None]  # chunks done, of how many


@dataclass(frozen=True)
class Built:
    """How an index was made."""

    folder: Path
    chunks: int
    encoded: int  # of them anew


def encode_region(model: MatchModel, ground: GroundMap) -> MapIndex:
    """A region's map in memory."""
    kind = number_format("auto", home_of(model))
    arrays = {
        name: torch.zeros(shape, dtype=torch.float32 if name == "unary" else kind)
        for name, shape in _shapes(model, ground).items()
    }
    mean, deviation = _look(ground)
    for left, top in _chunks(ground):
        pixels = ground.picture(_window(ground, left, top))
        _fill(arrays, model, _standard(pixels, mean, deviation), left, top)
    device = home_of(model)
    return _index({name: array.to(device) for name, array in arrays.items()}, model)


def folder_of(region: Path, checkpoint: str) -> Path:
    """Where the index of a region for a checkpoint (its hash) lies."""
    return region / f"index-{checkpoint}"


def build_index(
    model: MatchModel,
    ground: GroundMap,
    folder: Path,
    checkpoint: str,
    imagery: str,
    progress: Progress | None = None,
) -> Built:
    """Make an index, or bring it up to date. Raises OutputError where it cannot be written."""
    shapes = _shapes(model, ground)
    about = {"checkpoint": checkpoint, "shape": [*shapes["unary"]]}
    known = _known(folder, about)
    arrays = _opened(folder, shapes) if known is not None else None
    if known is None or arrays is None:
        arrays = _created(folder, shapes)
        look = dict(zip(("mean", "deviation"), _look(ground), strict=True))
        known = about | {k: v.flatten().tolist() for k, v in look.items()} | {"chunks": {}}
    mean, deviation = (torch.tensor(known[k])[:, None, None] for k in ("mean", "deviation"))
    chunks, encoded = list(_chunks(ground)), 0
    for done, (left, top) in enumerate(chunks):
        pixels = ground.picture(_window(ground, left, top))
        name, digest = f"{left}-{top}", hashlib.sha256(pixels.tobytes()).hexdigest()[:16]
        if known["chunks"].get(name) != digest:
            _written(folder, known | {"chunks": {**known["chunks"], name: ""}}, "")
            tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
            _fill(tensors, model, _standard(pixels, mean, deviation), left, top)
            for array in arrays.values():
                array.flush()
            known["chunks"][name] = digest
            _written(folder, known, "")
            encoded += 1
        if progress is not None:
            progress(done + 1, len(chunks))
    _written(folder, known, imagery)
    return Built(folder, len(chunks), encoded)


def open_index(
    model: MatchModel, ground: GroundMap, folder: Path, checkpoint: str, imagery: str
) -> MapIndex | None:
    """An index that is whole and of this checkpoint and imagery, memory-mapped; or None."""
    shapes = _shapes(model, ground)
    known = _known(folder, {"checkpoint": checkpoint, "shape": [*shapes["unary"]]})
    if known is None or known["imagery"] != imagery:
        return None
    try:
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in shapes}
    except (OSError, ValueError):  # damaged: the map is encoded anew
        return None
    device = home_of(model)
    return _index({n: torch.from_numpy(array).to(device) for n, array in arrays.items()}, model)


def _known(folder: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """What an index says of itself, if it is of the same checkpoint and ground."""
    if not (folder / "index.json").is_file():
        return None
    known = read_json(folder / "index.json", SCHEMA, RegionError)
    return known if all(known.get(key) == value for key, value in about.items()) else None


def _written(folder: Path, known: dict[str, Any], imagery: str) -> None:
    """``imagery``: empty while chunks are missing."""
    write_json(folder / "index.json", {"schema": SCHEMA} | known | {"imagery": imagery})


def _opened(
    folder: Path, shapes: dict[str, tuple[int, ...]]
) -> dict[str, np.memmap[Any, Any]] | None:
    """The arrays of an index, to be written on; None where they are damaged."""
    try:
        for name in shapes:
            np.load(folder / f"{name}.npy", mmap_mode="r")  # to write would lengthen a short file
        return {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in shapes}
    except (OSError, ValueError):
        return None


def _created(folder: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.memmap[Any, Any]]:
    """New arrays of zeros; what there was of an index is thrown away."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.json").unlink(missing_ok=True)
        return {
            name: np.lib.format.open_memmap(
                folder / f"{name}.npy",
                mode="w+",
                dtype=np.float32 if name == "unary" else np.float16,
                shape=shape,
            )
            for name, shape in shapes.items()
        }
    except OSError as error:
        raise unwritable(folder, error) from error


def _shapes(model: MatchModel, ground: GroundMap) -> dict[str, tuple[int, ...]]:
    """The arrays that an index is made of."""
    spec = model.spec
    height, width = (math.ceil(px / STRIDE) for px in ground.shape_px)
    pad = 2 * spec.rings.pad
    shapes: dict[str, tuple[int, ...]] = {
        f"means-{i}": (height + pad, width + pad, spec.channels) for i in range(len(POOLED))
    }
    shapes["unary"] = (height, width)
    if spec.descriptor:
        shapes["wide"] = (math.ceil(height / STRIDE), math.ceil(width / STRIDE), spec.descriptor)
    return shapes


def _index(arrays: dict[str, Tensor], model: MatchModel) -> MapIndex:
    means = Means(tuple(arrays[f"means-{i}"] for i in range(len(POOLED))), model.spec.rings.pad)
    return MapIndex(means, arrays["unary"], arrays.get("wide"))


def _chunks(ground: GroundMap) -> Iterator[tuple[int, int]]:
    """Left and top of each, in pixels."""
    height, width = ground.shape_px
    for top in range(0, height, CHUNK_PX):
        for left in range(0, width, CHUNK_PX):
            yield left, top


def _window(ground: GroundMap, left: int, top: int) -> Window:
    """A chunk and what lies around it; its sides are what the network can halve twice."""
    height, width = ground.shape_px
    grid = 2 * STRIDE
    sides = [
        math.ceil((min(CHUNK_PX, most - at) + 2 * HALO_PX) / grid) * grid
        for most, at in ((width, left), (height, top))
    ]
    return Window(left - HALO_PX, top - HALO_PX, *sides)


@torch.inference_mode()
def _fill(
    arrays: dict[str, Tensor], model: MatchModel, picture: Tensor, left: int, top: int
) -> None:
    """Encode a chunk and write its inside to where it belongs."""
    seen = model.survey(picture.to(home_of(model)))
    edge, (height, width) = HALO_PX // STRIDE, arrays["unary"].shape
    row, column = top // STRIDE, left // STRIDE
    rows, columns = (
        min(CHUNK_PX // STRIDE, most - at) for most, at in ((height, row), (width, column))
    )
    # what is beyond the map counts nothing, here as in training
    down = torch.arange(seen.features.shape[1], device=seen.features.device) + row - edge
    right = torch.arange(seen.features.shape[2], device=seen.features.device) + column - edge
    on_map = ((down >= 0) & (down < height))[:, None] & (right >= 0) & (right < width)
    pad = model.spec.rings.pad
    for i, mean in enumerate(means_of(seen.features * on_map)):
        into = arrays[f"means-{i}"][pad + row :, pad + column :]
        into[:rows, :columns] = mean[edge : edge + rows, edge : edge + columns]
    arrays["unary"][row : row + rows, column : column + columns] = seen.unary[
        edge : edge + rows, edge : edge + columns
    ]
    if seen.wide is not None:
        half = [v // STRIDE for v in (row, column, edge)]
        tall, broad = math.ceil(rows / STRIDE), math.ceil(columns / STRIDE)
        inner = seen.wide[:, half[2] : half[2] + tall, half[2] : half[2] + broad]
        arrays["wide"][half[0] : half[0] + tall, half[1] : half[1] + broad] = inner.permute(1, 2, 0)


def _standard(pixels: np.ndarray, mean: Tensor, deviation: Tensor) -> Tensor:
    """(3, h, w) as training has it."""
    return (torch.from_numpy(pixels).permute(2, 0, 1) / 255.0 - mean) / deviation


def _look(ground: GroundMap) -> tuple[Tensor, Tensor]:
    """Mean and deviation (3, 1, 1) of the region's colours."""
    height, width = ground.shape_px
    side = min(max(height, width), 4 * CHUNK_PX)
    picture = ground.picture(Window(0, 0, min(side, width), min(side, height))) / 255.0
    return look_of(torch.from_numpy(picture).float().permute(2, 0, 1))
