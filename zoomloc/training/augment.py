"""Random changes to training pictures: other light, another frame, something in the way.

Knows nothing of places: no change here moves what is right of the picture's middle to its
left, so bearings stay true up to the shift. Works on whole batches, on the device that they
are on; what is turned off draws no random numbers. Letters: N pictures, h, w their sides.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from zoomloc.config import AugmentConfig

LUMA = (0.299, 0.587, 0.114)  # grey of red, green and blue (BT.601, as JPEG has it)
JPEG_QUALITY = (90.0, 100.0)
GRID_SHARE = 0.4  # of a grid's period that is black
BOXES, BOX_SIDE = (10, 25), (0.1, 0.2)  # how many; share of the picture's height


def augment_photos(photos: Tensor, plan: AugmentConfig) -> Tensor:
    """(N, 3, h, w) uint8 -> floats in about 0..1 of the same shape."""
    changed = _recoloured(photos, plan.photo_colour, plan.photo_colour_chance)
    changed = _recoded(_greyed(changed, plan.photo_grey), plan.photo_jpeg)
    changed = _reframed(_cropped(changed, plan.photo_crop), plan.photo_shift, plan.photo_scale)
    changed = _erased(_sharpened(changed, plan.photo_blur), plan.photo_erase)
    return _noisy(_perforated(changed, plan.photo_dropout), plan.photo_noise)


def augment_views(views: Tensor, plan: AugmentConfig) -> Tensor:
    """(N, 3, S, S) uint8 -> floats in about 0..1 of the same shape."""
    changed = _recoloured(views, plan.view_colour, plan.view_colour_chance)
    changed = _recoded(_greyed(changed, plan.view_grey), plan.view_jpeg)
    changed = _perforated(_sharpened(changed, plan.view_blur), plan.view_dropout)
    return _noisy(changed, plan.view_noise)


def turned(pictures: Tensor) -> Tensor:
    """Each square picture turned by a multiple of 90 degrees of its own."""
    turns = torch.randint(4, (len(pictures), 1, 1, 1), device=pictures.device)
    for quarter in (1, 2, 3):
        pictures = torch.where(turns == quarter, pictures.rot90(quarter, (2, 3)), pictures)
    return pictures


def _reframed(pictures: Tensor, shift: float, scale: float) -> Tensor:
    """Shift sideways and magnify at random, as another lens or another heading would."""
    if not (shift or scale):
        return pictures
    count, device = len(pictures), pictures.device
    zoom = 1 + scale * (2 * torch.rand(count, device=device) - 1)
    right = 2 * shift * (2 * torch.rand(count, device=device) - 1)
    down = shift * (2 * torch.rand(count, device=device) - 1)
    return _framed(pictures, zoom, right, down)


def _cropped(pictures: Tensor, least: float) -> Tensor:
    """A part of each picture, at least that share of its area, at the picture's own shape."""
    if least >= 1:
        return pictures
    count, device = len(pictures), pictures.device
    side = (least + (1 - least) * torch.rand(count, device=device)).sqrt()
    right, down = (1 - side) * (2 * torch.rand(2, count, device=device) - 1)
    return _framed(pictures, side, right, down)


def _framed(pictures: Tensor, side: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """(N,) each: the frame's side and the way of its middle, in halves of the picture's sides."""
    theta = torch.zeros(len(pictures), 2, 3, device=pictures.device)
    theta[:, 0, 0] = theta[:, 1, 1] = side
    theta[:, 0, 2], theta[:, 1, 2] = right, down
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def _some(pictures: Tensor, chance: float) -> Tensor:
    """(N, 1, 1, 1) True for some of the pictures."""
    return torch.rand(len(pictures), 1, 1, 1, device=pictures.device) < chance


def _recoloured(pictures: Tensor, strength: float, chance: float) -> Tensor:
    """Gamma, contrast, brightness and white balance of uint8 pictures, as floats in 0..1.

    All four depend on a pixel's value alone, so 256 values a channel are worked out and looked
    up: many times faster on a CPU than a power for each pixel.
    """
    count, device = len(pictures), pictures.device
    value = torch.arange(256, device=device) / 255.0
    table = value.expand(count, 3, 256)
    if strength:
        gamma = torch.exp(strength * torch.randn(count, 1, 1, device=device))
        contrast = torch.exp(0.7 * strength * torch.randn(count, 1, 1, device=device))
        light = torch.randn(count, 1, 1, device=device)
        shift = 0.3 * strength * (light + 0.5 * torch.randn(count, 3, 1, device=device))
        changed = (0.45 + (table**gamma - 0.45) * contrast + shift).clamp(0, 1)
        table = (
            changed if chance >= 1 else torch.where(_some(table, chance)[..., 0], changed, table)
        )
    flat = pictures.flatten(2).long()  # (N, 3, pixels)
    return torch.gather(table, 2, flat).view(pictures.shape)


def _greyed(pictures: Tensor, chance: float) -> Tensor:
    """Some pictures without their colours."""
    if not chance:
        return pictures
    grey = torch.einsum("c,nchw->nhw", pictures.new_tensor(LUMA), pictures)[:, None]
    return torch.where(_some(pictures, chance), grey, pictures)


def _recoded(pictures: Tensor, chance: float) -> Tensor:
    """What JPEG of quality 90 to 100 leaves of some pictures (ITU T.81, colours not halved).

    Blocks of 8 x 8 are turned into cosines, which are rounded to multiples of a table.
    """
    if not chance:
        return pictures
    count, _, height, width = pictures.shape
    device = pictures.device
    low, high = JPEG_QUALITY
    quality = low + (high - low) * torch.rand(count, 1, 1, 1, device=device)
    tables = torch.tensor(QUANTA, device=device)[[0, 1, 1]]
    tables = (tables * (2 - quality / 50)).round().clamp(min=1)[:, :, None, :, None, :]
    edge = (0, -width % 8, 0, -height % 8)
    padded = F.pad(pictures * 255 - 128, edge, mode="replicate")
    to_ycc, cosines = _ycc().to(device), _cosines().to(device)
    blocks = torch.einsum("ij,njhw->nihw", to_ycc, padded).unflatten(3, (-1, 8))
    blocks = blocks.unflatten(2, (-1, 8))  # (N, 3, rows, 8, columns, 8)
    coded = torch.einsum("ay,ncrykx,bx->ncrakb", cosines, blocks, cosines)
    kept = (coded / tables).round() * tables
    blocks = torch.einsum("ay,ncrakb,bx->ncrykx", cosines, kept, cosines)
    ycc = blocks.flatten(4).flatten(2, 3)[:, :, :height, :width]
    rgb = torch.einsum("ij,njhw->nihw", to_ycc.inverse(), ycc)
    decoded = ((rgb + 128) / 255).clamp(0, 1)
    return torch.where(_some(pictures, chance), decoded, pictures)


def _ycc() -> Tensor:
    """(3, 3) from red, green, blue to luma and two colour differences."""
    red, green, blue = LUMA
    rows = [
        [red, green, blue],
        [-red / (2 - 2 * blue), -green / (2 - 2 * blue), 0.5],
        [0.5, -green / (2 - 2 * red), -blue / (2 - 2 * red)],
    ]
    return torch.tensor(rows)


def _cosines() -> Tensor:
    """(8, 8) the orthonormal cosine transform: frequency by place."""
    k = torch.arange(8)
    waves = torch.cos(torch.pi * (2 * k + 1) * k[:, None] / 16) / 2
    waves[0] /= 2**0.5
    return waves


def _sharpened(pictures: Tensor, chance: float) -> Tensor:
    """Some pictures between blurred and sharpened as much: away from or towards their mean."""
    if not chance:
        return pictures
    bell = pictures.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    kernel = (bell[:, None] * bell).expand(3, 1, 5, 5)
    padded = F.pad(pictures, (2, 2, 2, 2), mode="reflect")
    blurred = F.conv2d(padded, kernel, groups=3)
    amount = 2 * torch.rand(len(pictures), 1, 1, 1, device=pictures.device) - 1
    changed = torch.lerp(pictures, blurred, amount).clamp(0, 1)
    return torch.where(_some(pictures, chance), changed, pictures)


def _erased(pictures: Tensor, chance: float) -> Tensor:
    """One grey box in some pictures, as a passing car or van."""
    if not chance:
        return pictures
    count, _, height, width = pictures.shape
    device = pictures.device
    middle = torch.rand(count, 2, 1, device=device)
    half = 0.05 + 0.15 * torch.rand(count, 2, 1, device=device)
    half = half * (torch.rand(count, 1, 1, device=device) < chance)
    down, right = torch.arange(height, device=device), torch.arange(width, device=device)
    rows = (down / height - middle[:, 0]).abs() < half[:, 0]  # (N, h)
    columns = (right / width - middle[:, 1]).abs() < half[:, 1]
    box = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(box, torch.rand(count, 1, 1, 1, device=device), pictures)


def _perforated(pictures: Tensor, chance: float) -> Tensor:
    """A black grid or many black boxes over some pictures, as Sample4Geo's augmentation has it."""
    if not chance:
        return pictures
    holes = torch.where(_some(pictures, 0.5), _grid(pictures), _boxes(pictures))
    return pictures.masked_fill(holes & _some(pictures, chance), 0.0)


def _grid(pictures: Tensor) -> Tensor:
    """(N, 1, h, w) True in the squares of a regular grid of any width, up to half the height."""
    count, _, height, width = pictures.shape
    device = pictures.device
    period = 2 + (height / 2 - 2) * torch.rand(count, 1, device=device)  # px
    phase = torch.rand(2, count, 1, device=device)
    rows = (torch.arange(height, device=device) / period + phase[0]) % 1 < GRID_SHARE
    columns = (torch.arange(width, device=device) / period + phase[1]) % 1 < GRID_SHARE
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _boxes(pictures: Tensor) -> Tensor:
    """(N, 1, h, w) True in a number of boxes anywhere."""
    count, _, height, width = pictures.shape
    device = pictures.device
    fewest, most = BOXES
    there = torch.randint(fewest, most + 1, (count, 1), device=device)
    there = torch.arange(most, device=device) < there  # (N, boxes)
    middle = torch.rand(2, count, most, 1, device=device)
    low, high = BOX_SIDE
    half = (low + (high - low) * torch.rand(2, count, most, 1, device=device)) / 2 * height
    rows = (torch.arange(height, device=device) - middle[0] * height).abs() < half[0]
    columns = (torch.arange(width, device=device) - middle[1] * width).abs() < half[1]
    rows = rows & there[..., None]  # (N, boxes, h)
    return (torch.einsum("nbh,nbw->nhw", rows.float(), columns.float()) > 0)[:, None]


def _noisy(pictures: Tensor, strength: float) -> Tensor:
    return pictures + strength * torch.randn_like(pictures) if strength else pictures


# luma and colour tables of ITU T.81, annex K; rows are frequencies downwards
QUANTA = (
    (
        (16, 11, 10, 16, 24, 40, 51, 61),
        (12, 12, 14, 19, 26, 58, 60, 55),
        (14, 13, 16, 24, 40, 57, 69, 56),
        (14, 17, 22, 29, 51, 87, 80, 62),
        (18, 22, 37, 56, 68, 109, 103, 77),
        (24, 35, 55, 64, 81, 104, 113, 92),
        (49, 64, 78, 87, 103, 121, 120, 101),
        (72, 92, 95, 98, 112, 100, 103, 99),
    ),
    (
        (17, 18, 24, 47, 99, 99, 99, 99),
        (18, 21, 26, 66, 99, 99, 99, 99),
        (24, 26, 56, 99, 99, 99, 99, 99),
        (47, 66, 99, 99, 99, 99, 99, 99),
        (99, 99, 99, 99, 99, 99, 99, 99),
        (99, 99, 99, 99, 99, 99, 99, 99),
        (99, 99, 99, 99, 99, 99, 99, 99),
        (99, 99, 99, 99, 99, 99, 99, 99),
    ),
)
