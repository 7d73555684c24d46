"""The zoom transformer: photo and views so far in, the next choice out (DESIGN 5.2).

Follows "Just Zoom In" (arXiv 2603.25686): photo token, then for each zoom a view token and a
choice token, causal; the choice is read off at the view token. Knows nothing of cells, files
or search: it gets arrays, indices and places as numbers between 0 and 1.

Letters: B photos, P tokens of a photo, U distinct views, S steps (root choice, if any, then
the zooms), K children, T tokens of the sequence, D width.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoomloc.errors import ConfigError
from zoomloc.model.encoders import (
    EncoderSpec,
    PhotoTokens,
    ViewTokens,
    build_encoder,
    build_encoders,
    check_children,
    check_pictures,
    photo_features,
    rebuildable,
)
from zoomloc.model.place import PlaceEmbedding

ROOT_SLOTS = 16
MAX_STEPS = 16


@dataclass(frozen=True)
class ZoomSpec:
    """What the network is built from, in plain numbers; defaults live in ``ModelConfig``."""

    branching: int  # K: 4, 16 or 64
    photo_px: tuple[int, int]  # width, height
    view_px: int
    view_margin: float
    photo_encoder: EncoderSpec
    view_encoder: EncoderSpec
    shared_encoder: bool
    photo_crops: int
    photo_tokens: int
    pooling: str  # mean | grid | class
    width: int
    layers: int
    heads: int
    ffn_ratio: float
    dropout: float
    head: str  # linear | pointer | both
    level_embedding: bool
    place: bool
    place_dropout: float


@dataclass(frozen=True)
class Views:
    """Tokens of U distinct views: pooled (U, D), of children (U, K, D) where a head reads them."""

    pooled: Tensor
    children: Tensor | None


@dataclass(frozen=True)
class Steps:
    """What each photo has zoomed through: one row a photo, one column a step.

    view (B, S) index into Views; choice (B, S) chosen child or root slot (the last column is
    never read); place (B, S, 3): x, y of the view's north-west corner and its side, in units
    of the region's rectangle, or None to leave absolute place out. ``root`` says that step 0
    is the root choice; ``before`` zooms came before the first step.
    """

    view: Tensor
    choice: Tensor
    place: Tensor | None
    root: bool
    before: int = 0


@dataclass(frozen=True)
class Past:
    """Keys and values (n, heads, T, D / heads), by block, of the T tokens of n paths so far."""

    kept: tuple[tuple[Tensor, Tensor], ...]

    def rows(self, index: Tensor) -> "Past":
        """Of some of the paths."""
        return Past(tuple((k[index], v[index]) for k, v in self.kept))

    def plus(self, other: "Past") -> "Past":
        """Of more paths of the same length."""
        pairs = zip(self.kept, other.kept, strict=True)
        return Past(tuple((torch.cat([k, a]), torch.cat([v, b])) for (k, v), (a, b) in pairs))

    @property
    def paths(self) -> int:
        """How many they are of."""
        return len(self.kept[0][0])

    def bytes(self) -> int:
        """What they take."""
        return sum(2 * keys.nbytes for keys, _ in self.kept)


class ZoomModel(nn.Module):
    """Encoders, causal transformer and choice head.

    ``spec`` builds the same network again, without the source of pretrained weights;
    ``photo_encoder`` is that of another network that photos go through as well.
    """

    def __init__(self, spec: ZoomSpec, photo_encoder: Any = None) -> None:
        super().__init__()
        _check(spec)
        side = int(spec.branching**0.5)
        # 1. pictures to tokens
        self.photo_encoder, self.view_encoder = (
            build_encoders(spec.photo_encoder, spec.view_encoder, spec.shared_encoder)
            if photo_encoder is None
            else (photo_encoder, build_encoder(spec.view_encoder))
        )
        self.spec = replace(
            spec,
            photo_encoder=rebuildable(spec.photo_encoder, self.photo_encoder),
            view_encoder=rebuildable(spec.view_encoder, self.view_encoder),
        )
        check_pictures(self.photo_encoder, "photo_px", spec.photo_px, spec.photo_crops)
        check_pictures(self.view_encoder, "view_px", (spec.view_px,))
        check_children(self.view_encoder, spec.view_px, side, spec.view_margin)
        stride = self.photo_encoder.stride
        grid = (spec.photo_px[1] // stride, spec.photo_px[0] // stride)
        self.photo_tokens = PhotoTokens(
            self.photo_encoder.channels, grid, spec.photo_tokens, spec.width, spec.pooling
        )
        self.view_tokens = ViewTokens(
            self.view_encoder.channels,
            spec.view_px // self.view_encoder.stride,
            side,
            spec.view_margin,
            spec.width,
            spec.pooling,
            pointed=spec.head != "linear",
        )
        # 2. what is added to them
        self.choices = nn.Embedding(spec.branching, spec.width)
        self.root_choices = nn.Embedding(ROOT_SLOTS, spec.width)
        self.levels = nn.Embedding(MAX_STEPS, spec.width) if spec.level_embedding else None
        self.place = PlaceEmbedding(spec.width) if spec.place else None
        # 3. the trunk
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.layers))
        self.norm = nn.RMSNorm(spec.width)
        # 4. the choice
        self.root_head = nn.Linear(spec.width, ROOT_SLOTS)
        self.head = nn.Linear(spec.width, spec.branching) if spec.head != "pointer" else None
        self.query = nn.Linear(spec.width, spec.width) if spec.head != "linear" else None

    def silence(self) -> None:
        """Make all logits 0 until training changes that."""
        for layer in (self.root_head, self.head, self.query):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def encode_photos(self, photos: Tensor) -> Tensor:
        """(B, 3, h, w) in 0..1 -> (B, P, D)."""
        return self.photo_tokens(photo_features(self.photo_encoder, photos, self.spec.photo_crops))

    def encode_views(self, views: Tensor) -> Views:
        """(U, 3, S, S) in 0..1 -> tokens; each distinct view is encoded once a batch."""
        return Views(*self.view_tokens(self.view_encoder(views)))

    def forward(self, photos: Tensor, views: Views, steps: Steps) -> tuple[Tensor | None, Tensor]:
        """Logits of the root choice (B, 16), or None, and of the zooms (B, S or S-1, K).

        All steps at once, as training wants them; search asks ``next`` for one after another. The
        logits of a step depend on the photo, on views up to that step and on choices before it
        (batch norm in an encoder lets the views of a batch touch each other while training).
        """
        first = photos.shape[1]
        tokens = torch.cat([photos, self._step_tokens(views, steps)], dim=1)  # (B, T, D)
        at_views = self._read(tokens)[0][:, first::2]  # (B, S, D)
        root = self.root_head(at_views[:, 0]) if steps.root else None
        skip = int(steps.root)
        return root, self._choose(at_views[:, skip:], views, steps, skip)

    def next(self, seen: "Tensor | Past", views: Views, steps: Steps) -> tuple[Tensor, Past]:
        """Logits of the last step alone, (B, 16) of a root choice or (B, K), and what was read.

        ``seen``: the photo's tokens (B, P, D); or what was read of each path up to the first of
        two steps, whose view is then not read again. Equal to the last of ``forward``.
        """
        tokens = self._step_tokens(views, steps)
        past = seen if isinstance(seen, Past) else None
        tokens = tokens[:, 1:] if isinstance(seen, Past) else torch.cat([seen, tokens], dim=1)
        hidden, past = self._read(tokens, past)
        past = Past(tuple((k, v.contiguous()) for k, v in past.kept))  # no part of something larger
        last = steps.view.shape[1] - 1
        if steps.root and last == 0:
            return self.root_head(hidden[:, -1]).float(), past
        return self._choose(hidden[:, -1:], views, steps, last)[:, 0], past

    def _read(self, tokens: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        """Tokens (B, T, D), after those of the past, through the trunk; all that was read."""
        sequence = tokens.float()  # the residual stream stays whole under autocast
        kept = []
        for i, block in enumerate(self.blocks):
            sequence, read = block(sequence, past.kept[i] if past is not None else None)
            kept.append(read)
        return self.norm(sequence), Past(tuple(kept))

    def _step_tokens(self, views: Views, steps: Steps) -> Tensor:
        """View and choice tokens in turn, without the last choice: (B, 2S - 1, D)."""
        count = steps.view.shape[1]
        view = views.pooled[steps.view]  # (B, S, D)
        if self.levels is not None:
            # zoom 0 has the same level whether or not a root choice came before it
            order = torch.arange(count, device=view.device) + 1 - int(steps.root) + steps.before
            view = view + self.levels(order)
        if self.place is not None and steps.place is not None:
            x, y, side = steps.place.unbind(-1)
            view = view + self.place(x + side / 2, y + side / 2)
        choice = self.choices(steps.choice[:, int(steps.root) :])
        if steps.root:
            choice = torch.cat([self.root_choices(steps.choice[:, :1]), choice], dim=1)
        both = torch.stack([view, choice.to(view.dtype)], dim=2)  # (B, S, 2, D)
        return both.flatten(1, 2)[:, :-1]

    def _choose(self, hidden: Tensor, views: Views, steps: Steps, skip: int) -> Tensor:
        """(B, L, D) -> (B, L, K): a linear head, a pointer at the children, or their sum."""
        logits = hidden.new_zeros(*hidden.shape[:2], self.spec.branching)
        if self.head is not None:
            logits = logits + self.head(hidden)
        if self.query is not None and views.children is not None:
            keys = views.children[steps.view[:, skip:]]  # (B, L, K, D)
            if self.place is not None and steps.place is not None:
                keys = keys + self.place(*_child_centers(steps.place[:, skip:], keys.shape[2]))
            scores = torch.einsum("bld,blkd->blk", self.query(hidden), keys)
            logits = logits + scores / self.spec.width**0.5
        return logits.float()


class Block(nn.Module):
    """Pre-norm causal self-attention with rotary positions, then a gated SiLU network."""

    def __init__(self, spec: ZoomSpec) -> None:
        super().__init__()
        hidden = max(8, round(spec.width * spec.ffn_ratio / 8) * 8)
        self.heads, self.dropout = spec.heads, spec.dropout
        self.norm_attention = nn.RMSNorm(spec.width)
        self.norm_feed = nn.RMSNorm(spec.width)
        self.qkv = nn.Linear(spec.width, 3 * spec.width, bias=False)
        self.out = nn.Linear(spec.width, spec.width, bias=False)
        self.gate_up = nn.Linear(spec.width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, spec.width, bias=False)

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(B, T, D), after tokens whose keys and values are given -> (B, T, D), those of all."""
        mixed, read = self._attend(self.norm_attention(x), past)
        x = x + F.dropout(mixed, self.dropout, self.training)
        gate, up = self.gate_up(self.norm_feed(x)).chunk(2, dim=-1)
        fed = self.down(F.silu(gate) * up)
        return x + F.dropout(fed, self.dropout, self.training), read

    def _attend(
        self, x: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        before = 0 if past is None else past[0].shape[2]
        cosine, sine = rotary(before, x.shape[1], q.shape[-1], x.device)
        q, k = turn(q, cosine, sine).to(v.dtype), turn(k, cosine, sine).to(v.dtype)
        seen = None
        if past is not None:
            k, v = torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2)
            seen = torch.ones(x.shape[1], k.shape[2], dtype=torch.bool, device=x.device)
            seen = seen.tril(before)  # is_causal would take the first keys for the first queries
        mixed = F.scaled_dot_product_attention(q, k, v, seen, is_causal=seen is None)
        return self.out(mixed.transpose(1, 2).flatten(2)), (k, v)


def rotary(first: int, tokens: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines (T, width / 2) of rotary positions (RoPE, arXiv 2104.09864)."""
    rates = 10_000.0 ** (-torch.arange(0, width, 2, device=device) / width)
    angles = torch.arange(first, first + tokens, device=device)[:, None] * rates
    return angles.cos(), angles.sin()


def turn(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate the pairs (first half, second half) of the last dimension by the token's angle."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], dim=-1)


def _child_centers(place: Tensor, branching: int) -> tuple[Tensor, Tensor]:
    """(B, L, 3) -> x and y (B, L, K) of the children's centres, row-major."""
    side = int(branching**0.5)
    offset = (torch.arange(side, device=place.device) + 0.5) / side
    x = place[..., 0:1, None] + place[..., 2:3, None] * offset[None, :]  # (B, L, 1, side)
    y = place[..., 1:2, None] + place[..., 2:3, None] * offset[:, None]  # (B, L, side, 1)
    x, y = torch.broadcast_tensors(x, y)
    return x.flatten(-2), y.flatten(-2)


def _check(spec: ZoomSpec) -> None:
    """Refuse sizes that do not fit together, naming the setting."""
    side = int(spec.branching**0.5)
    if side * side != spec.branching or side < 2:
        raise ConfigError(f"branching {spec.branching}: must be 4, 16 or 64")
    if spec.width % spec.heads or (spec.width // spec.heads) % 2:
        raise ConfigError(
            f"model.width {spec.width}: must divide by model.heads {spec.heads} into even parts"
        )
    if spec.head not in ("linear", "pointer", "both"):
        raise ConfigError(f"model.head {spec.head!r}: linear, pointer or both")
