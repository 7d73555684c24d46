"""Pictures to features and tokens; ``ENCODERS`` is the one place to swap encoders.

Knows nothing of cells, photos as files, or what the tokens are used for.

Letters: B photos, U distinct views, K children, P tokens of a photo, C channels, D width,
S side of a view in px, g side of a view's feature grid.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoomloc.errors import ConfigError


@dataclass(frozen=True)
class EncoderSpec:
    """What an encoder is built from; defaults live in ``EncoderConfig``."""

    name: str  # a key of ENCODERS
    channels: tuple[int, ...]  # tiny: width of each stage
    norm: str  # tiny: batch | group
    source: str = ""  # hf: a model's name or a folder
    tune: str = "frozen"  # hf: frozen | last | lora | all
    last_blocks: int = 4
    lora_rank: int = 8
    class_token: bool = False  # hf: the class token alone, as a grid of 1 x 1
    architecture: str = ""  # hf: JSON of a checkpoint; given, it is built empty, without the hub


class TinyEncoder(nn.Module):
    """A small convolutional network from scratch: (N, 3, H, W) in 0..1 -> (N, C, H/8, W/8).

    Three stages halve the picture, further ones keep its size. Each picture is first brought
    to mean 0 and deviation 1 in each channel, so that exposure and white balance, which tell
    cameras and days apart but not places, are gone. No depthwise convolutions: on CPUs they
    are an order of magnitude slower than dense ones.
    """

    stride = 8

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        channels, norm = spec.channels, spec.norm
        if spec.class_token:
            raise ConfigError("tiny encoder: has no class token; set model.pooling to mean or grid")
        if len(channels) < 3 or min(channels) < 1:
            raise ConfigError(
                f"tiny encoder: channels {channels}; give at least 3 stages of 1 or more"
            )
        stages: list[nn.Module] = []
        before = 3
        for stage, width in enumerate(channels):
            step = 2 if stage < 3 else 1
            stages += [nn.Conv2d(before, width, 3, step, 1), _norm(norm, width), nn.ReLU()]
            before = width
        self.stages = nn.Sequential(*stages)
        self.channels = before

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, C, h, w)."""
        deviation, mean = torch.std_mean(pictures, dim=(2, 3), keepdim=True)
        pictures = (pictures - mean) / (deviation + 0.05)
        features: Tensor = self.stages(pictures.contiguous(memory_format=torch.channels_last))
        return features


def _norm(name: str, width: int) -> nn.Module:
    """``batch`` learns fastest; ``group`` keeps every picture by itself, also in training."""
    if name == "batch":
        return nn.BatchNorm2d(width)
    return nn.GroupNorm(max(1, width // 8), width)


def _hugging_face(spec: EncoderSpec) -> Any:
    from zoomloc.model.pretrained import HuggingFaceEncoder

    return HuggingFaceEncoder(spec)


ENCODERS: dict[str, Callable[[EncoderSpec], Any]] = {"tiny": TinyEncoder, "hf": _hugging_face}


def build_encoder(spec: EncoderSpec) -> Any:
    """The encoder of that name: (N, 3, H, W) in 0..1 -> (N, channels, H/stride, W/stride).

    It offers ``.channels`` and ``.stride``. Raises ConfigError where the name is unknown.
    """
    if spec.name not in ENCODERS:
        raise ConfigError(f"encoder {spec.name!r} is unknown; known ones: {', '.join(ENCODERS)}")
    return ENCODERS[spec.name](spec)


def build_encoders(photo: EncoderSpec, view: EncoderSpec, shared: bool) -> tuple[Any, Any]:
    """A photo encoder and a view encoder; one for both where they are shared.

    Raises ConfigError where two different ones are to be shared.
    """
    if shared and photo != view:
        raise ConfigError("model.shared_encoder: photo_encoder and view_encoder must be the same")
    first = build_encoder(photo)
    return first, first if shared else build_encoder(view)


def architecture_of(encoder: Any) -> dict[str, Any]:
    """What a checkpoint must keep to build an encoder without the hub; empty for small ones."""
    return dict(getattr(encoder, "architecture", {}))


def rebuildable(spec: EncoderSpec, encoder: Any) -> EncoderSpec:
    """The spec that builds ``encoder`` again, empty and offline: weights come from elsewhere."""
    kept = architecture_of(encoder)
    return replace(spec, architecture=json.dumps(kept, sort_keys=True)) if kept else spec


def pretrained_layers(encoder: Any) -> list[list[nn.Parameter]]:
    """Trained parameters of a pretrained encoder, layer by layer from the picture up.

    For learning rates by layer; empty where nothing is pretrained.
    """
    return encoder.layers() if hasattr(encoder, "layers") else []


def shrunk(photos: Tensor, size_px: tuple[int, int]) -> Tensor:
    """(B, 3, h, w) as means over squares, where the photos are a whole number of times larger
    than ``size_px`` (width, height); others are left alone.
    """  # noqa: D205
    times = photos.shape[3] // size_px[0]
    if times < 2 or (photos.shape[3], photos.shape[2]) != tuple(times * px for px in size_px):
        return photos
    means = F.avg_pool2d(photos.float(), times)
    return means if photos.is_floating_point() else means.round().to(photos.dtype)


def photo_features(encoder: Any, photos: Tensor, parts: int) -> Tensor:
    """(B, 3, h, w) -> (B, C, ...): ``parts`` of the width encoded apart, then side by side."""
    if parts == 1:
        return encoder(photos)
    cut = photos.unflatten(3, (parts, -1)).movedim(3, 1)  # (B, parts, 3, h, w / parts)
    features: Tensor = encoder(cut.flatten(0, 1)).unflatten(0, (-1, parts))
    return features.movedim(1, 3).flatten(3)


def check_pictures(encoder: Any, name: str, size_px: Sequence[int], parts: int = 1) -> None:
    """Refuse pictures that an encoder cannot cut into whole patches, naming the setting.

    The first side, the width, is encoded in so many ``parts``.
    """
    stride = encoder.stride
    width, *others = size_px
    if width % parts or any(s < 16 or s % stride for s in (width // parts, *others)):
        cut = f" in {parts} parts" if parts > 1 else ""
        raise ConfigError(
            f"model.{name} {tuple(size_px)}{cut}: each side must be a multiple of {stride}, "
            "at least 16"
        )


def check_children(encoder: Any, view_px: int, side: int, margin: float = 0.0) -> None:
    """Refuse views whose side x side children do not begin where a transformer's patches do.

    ``margin`` is the context around the cell, as a share of the cell's side. Encoders without
    patches take any size. Raises ConfigError that names the nearest sizes that fit.
    """
    if not getattr(encoder, "aligned", False):
        return
    patches = view_px // encoder.stride
    if view_px % encoder.stride == 0 and _aligned(patches, side, margin):
        return
    below = next((n for n in range(patches, 0, -1) if _aligned(n, side, margin)), None)
    above = next((n for n in range(patches + 1, 999) if _aligned(n, side, margin)), None)
    sizes = " or ".join(str(n * encoder.stride) for n in (below, above) if n)
    raise ConfigError(
        f"model.view_px {view_px}: {side} x {side} children do not align with patches of "
        f"{encoder.stride} px (view_margin {margin:g}); "
        + (f"nearest sizes: {sizes}" if sizes else "set view_margin to 0")
    )


def _aligned(patches: int, side: int, margin: float) -> bool:
    """Whether a child and the margin are both a whole number of patches."""
    child = patches / (1 + 2 * margin) / side
    around = child * side * margin
    return child > 0.5 and all(abs(n - round(n)) < 1e-6 for n in (child, around))


class PhotoTokens(nn.Module):
    """Features of photos -> P tokens each: their mean, or a projection of the whole grid.

    The mean is what the paper's class token comes to; the grid keeps left and right, near
    and far apart, which a mean throws away (field.md 4.4). With pooling ``class`` the encoder
    gives the class token itself, a grid of 1 x 1, whose mean it is.
    """

    def __init__(
        self, channels: int, grid: tuple[int, int], tokens: int, width: int, pooling: str
    ) -> None:
        super().__init__()
        self.tokens, self.pooling = tokens, pooling
        squeezed = min(32, channels)
        self.squeeze = nn.Conv2d(channels, squeezed, 1) if pooling == "grid" else nn.Identity()
        inputs = squeezed * grid[0] * grid[1] if pooling == "grid" else channels
        self.project = nn.Linear(inputs, tokens * width)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, P, D)."""
        if self.pooling == "grid":
            flat = self.squeeze(features).flatten(1)
        else:
            flat = features.mean(dim=(2, 3))
        return self.project(flat).unflatten(1, (self.tokens, -1))


class ViewTokens(nn.Module):
    """Features of views -> one pooled token each, and one token for each child.

    A view may carry a margin of context; a child's token is the mean of the features over
    the child's own square, weighted by overlap, so the grid need not divide by K.
    """

    pool: Tensor

    def __init__(
        self,
        channels: int,
        grid: int,
        side: int,
        margin: float,
        width: int,
        pooling: str,
        pointed: bool,
    ) -> None:
        super().__init__()
        if pointed and pooling == "class":
            raise ConfigError("model.pooling class: leaves no child tokens; set model.head: linear")
        self.pooling = pooling
        squeezed = min(32, channels)
        self.squeeze = nn.Conv2d(channels, squeezed, 1) if pooling == "grid" else nn.Identity()
        inputs = squeezed * grid * grid if pooling == "grid" else channels
        self.whole = nn.Linear(inputs, width)
        self.child = nn.Linear(channels, width) if pointed else None
        self.register_buffer("pool", child_pooling(grid, side, margin), persistent=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """(U, C, g, g) -> (U, D) and, where a head points at children, (U, K, D)."""
        if self.pooling == "grid":
            flat = self.squeeze(features).flatten(1)
        else:
            flat = features.mean(dim=(2, 3))
        if self.child is None:
            return self.whole(flat), None
        pooled = torch.einsum("kp,ucp->ukc", self.pool.to(features.dtype), features.flatten(2))
        return self.whole(flat), self.child(pooled)


def child_pooling(grid: int, side: int, margin: float) -> Tensor:
    """(K, g*g) weights that average a view's feature grid over each of its side x side children.

    ``margin`` is the context around the cell, as a share of the cell's side.
    """
    edges = (margin + torch.arange(side + 1) / side) / (1 + 2 * margin) * grid  # child borders
    pixels = torch.arange(grid)
    overlap = torch.minimum(edges[1:, None], pixels + 1.0) - torch.maximum(
        edges[:-1, None], pixels.float()
    )
    axis = overlap.clamp(min=0)  # (side, g)
    axis = axis / axis.sum(1, keepdim=True)
    return torch.einsum("ij,kl->ikjl", axis, axis).reshape(side * side, grid * grid)
