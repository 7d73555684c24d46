"""Other ground than the region's: what a photo's scores are compared with.

How well a photo fits its best place says little by itself: some photos fit everywhere. So it is
laid on places of other ground too, and what counts is how much better it fits here. (In speaker
verification such other models are a background.) Knows nothing of search, answers or fitting.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from zoomloc.errors import CheckpointError
from zoomloc.model.match import STRIDE, Lattice, MatchModel, look_of
from zoomloc.model.precision import home_of, number_format
from zoomloc.world.files import written_whole

Picture = npt.NDArray[np.uint8]
SIDE_PX = 192  # of a picture of other ground
GSD_M = 2.0  # of its pixels
STEP_M = 32.0  # between places that are kept of it
EDGE_M = 56.0  # from its border: what stands around a place has to be in the picture
ACROSS = 6  # pictures beside each other in one file
EMPTY = 1.0  # mean of a square that holds no picture: a neighbour's colours run over in a WebP
NAME = "elsewhere.safetensors"  # beside a checkpoint


@torch.inference_mode()
def encoded(model: MatchModel, pictures: Sequence[Picture]) -> Lattice:
    """What the model sees round places of other ground (SIDE_PX, SIDE_PX, 3) uint8."""
    kind = number_format("auto", home_of(model))
    found = [_places_of(model, picture, kind) for picture in pictures]
    return Lattice(
        torch.cat([one.bins for one in found], 2), torch.cat([one.unary for one in found]), None
    )


def _places_of(model: MatchModel, picture: Picture, kind: torch.dtype) -> Lattice:
    """Places of the inside of one picture, on a grid."""
    side = round(SIDE_PX * GSD_M / model.spec.gsd_m / (2 * STRIDE)) * 2 * STRIDE
    shown = np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))
    pixels = torch.from_numpy(shown.copy()).permute(2, 0, 1).float() / 255.0
    mean, deviation = look_of(pixels)
    seen = model.survey(((pixels - mean) / deviation).to(home_of(model)))
    edge = math.ceil(EDGE_M / model.feature_m)
    step = max(1, round(STEP_M / model.feature_m))
    line = torch.arange(edge, side // STRIDE - edge, step, device=seen.unary.device)
    exact = line.repeat_interleave(len(line)), line.repeat(len(line))
    every = model.lattice(seen, side, kind=kind, exact=exact)
    return Lattice(every.bins[..., -len(exact[0]) :], every.unary[-len(exact[0]) :], None)


# files


def save_elsewhere(path: Path, places: Lattice, checkpoint: str) -> None:
    """Write encoded places, a byte a number; ``checkpoint``: the hash of what encoded them."""
    bins = places.bins.float().cpu()
    unit = float(bins.abs().max()) / 127 or 1.0
    tensors = {
        "bins": (bins / unit).round().to(torch.int8).contiguous(),
        "unit": torch.tensor([unit]),
        "unary": places.unary.float().cpu().contiguous(),
    }
    with written_whole(path) as temporary:
        temporary.write_bytes(save(tensors, {"checkpoint": checkpoint}))


def load_elsewhere(path: Path, model: nn.Module, checkpoint: str) -> Lattice | None:
    """What ``save_elsewhere`` wrote, or None where it is not there or of other weights.

    Raises CheckpointError where it is damaged.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("checkpoint") != checkpoint:
                return None
            # copies: a file that shrinks under its map ends the process
            bins, unit, unary = (file.get_tensor(k).clone() for k in ("bins", "unit", "unary"))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: damaged ({error}); make it again with 'zoomloc calibrate'"
        ) from error
    device = home_of(model)
    kind = number_format("auto", device)
    return Lattice((bins.float() * unit).to(device, kind), unary.to(device), None)


def write_mosaic(path: Path, pictures: Sequence[Picture]) -> None:
    """Pictures of other ground in one WebP, ACROSS in a row."""
    down = math.ceil(len(pictures) / ACROSS)
    sheet = Image.new("RGB", (ACROSS * SIDE_PX, down * SIDE_PX))
    for i, picture in enumerate(pictures):
        sheet.paste(Image.fromarray(picture), (i % ACROSS * SIDE_PX, i // ACROSS * SIDE_PX))
    with written_whole(path) as temporary:
        sheet.save(temporary, "WEBP", quality=80, method=6)


def read_mosaic(path: Path) -> list[Picture]:
    """The pictures of ``write_mosaic``. Raises CheckpointError where it is none."""
    try:
        with Image.open(path) as image:
            sheet = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise CheckpointError(
            f"{path}: no picture of other ground ({error}); give a region's folder, or the "
            "picture that a run was calibrated with"
        ) from error
    rows, columns = (n // SIDE_PX for n in sheet.shape[:2])
    if not rows * columns:
        raise CheckpointError(
            f"{path}: {sheet.shape[1]} x {sheet.shape[0]} px holds no square of {SIDE_PX} px; "
            "give a region's folder instead"
        )
    squares = [
        sheet[r * SIDE_PX : (r + 1) * SIDE_PX, c * SIDE_PX : (c + 1) * SIDE_PX]
        for r in range(rows)
        for c in range(columns)
    ]
    return [square for square in squares if square.mean() > EMPTY]
