"""Ways to lay photos on places for every heading, timed side by side with the one that is used.

Knows nothing of networks: sizes are those of the match, numbers are random. Letters: B photos, N
slices of the full circle, F slices of a fan, K numbers of a slice, J places, C channels.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import torch
import torch.nn.functional as F
from torch import Tensor

from zoomloc.config import MatchConfig
from zoomloc.evaluate import machine
from zoomloc.model.correlation import correlate, opened_circle
from zoomloc.model.match import STRIDE

PHOTOS, PLACES = 32, 1024
TEMPLATES, MAP_SIDE = 2, 32  # photos and side of the map where templates are laid on it: it is slow
ROUNDS = 7


@dataclass(frozen=True)
class Timed:
    """One way in one number format: what it takes for one photo at one place, all headings."""

    way: str
    kind: str
    products: float  # multiply-adds
    nanoseconds: float  # the median of ROUNDS


def by_convolution(fans: Tensor, bins: Tensor) -> Tensor:
    """As ``correlate``, with a convolution along the circle of slices."""
    circle = opened_circle(bins, fans.shape[1])
    return F.conv1d(circle.permute(2, 1, 0), fans.transpose(1, 2)).permute(2, 1, 0)


def by_fourier(fans: Tensor, bins: Tensor) -> Tensor:
    """As ``correlate``, with a product for each frequency along the circle of slices."""
    slices, fan = len(bins), fans.shape[1]
    around = fans.new_zeros(slices, len(fans), fans.shape[2])
    around[(torch.arange(fan) - fan // 2) % slices] = fans.transpose(0, 1)
    product = torch.fft.rfft(around, dim=0).conj() @ torch.fft.rfft(bins, dim=0)
    return torch.fft.irfft(product, n=slices, dim=0)


def on_the_map(templates: Tensor, features: Tensor) -> Tensor:
    """Square templates (B * N, C, T, T) laid on all of a map (C, H, W), a convolution."""
    return F.conv2d(features[None], templates, padding="same")[0]


def compare_correlations(plan: MatchConfig) -> list[Timed]:
    """Every way in both number formats, of which Fourier transforms know one."""
    torch.manual_seed(0)
    slices, fan, inner = plan.slices, plan.fan, len(plan.rings_m) * plan.channels
    fans, bins = torch.randn(PHOTOS, fan, inner), torch.randn(slices, inner, PLACES)
    side = 2 * round(max(plan.rings_m) / (plan.gsd_m * STRIDE)) + 1
    templates = torch.randn(TEMPLATES * slices, plan.channels, side, side)
    features = torch.randn(plan.channels, MAP_SIDE, MAP_SIDE)
    direct = slices * fan * inner
    frequencies = 4 * (slices // 2 + 1) * inner  # a complex product is four
    whole = slices * plan.channels * side**2
    ways: list[tuple[str, Callable[[Tensor, Tensor], Tensor], Tensor, Tensor, float]] = [
        ("matrix product for each heading (used)", correlate, fans, bins, direct),
        ("convolution along the slices", by_convolution, fans, bins, direct),
        ("Fourier transform along the slices", by_fourier, fans, bins, frequencies),
        ("templates laid on the map, convolution", on_the_map, templates, features, whole),
    ]
    found = []
    for name, way, photos, places, products in ways:
        pairs = TEMPLATES * MAP_SIDE**2 if way is on_the_map else PHOTOS * PLACES
        for kind in (torch.float32, torch.bfloat16):
            if way is by_fourier and kind == torch.bfloat16:
                continue
            seconds = _median_s(way, photos.to(kind), places.to(kind))
            found.append(
                Timed(name, str(kind).removeprefix("torch."), products, 1e9 * seconds / pairs)
            )
    return found


@torch.inference_mode()
def _median_s(way: Callable[[Tensor, Tensor], Tensor], photos: Tensor, places: Tensor) -> float:
    way(photos, places)  # the first call sets things up
    taken = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        way(photos, places)
        taken.append(time.process_time() - begun)
    return sorted(taken)[ROUNDS // 2]


def markdown(found: list[Timed]) -> str:
    """What came out, for docs."""
    used = min(t.nanoseconds for t in found if t.way == found[0].way)
    lines = [
        "| way | numbers | multiply-adds | ns of one core | against the one used |",
        "|---|---|---:|---:|---:|",
        *(
            f"| {t.way} | {t.kind} | {t.products:,.0f} | {t.nanoseconds:,.0f} "
            f"| {t.nanoseconds / used:.1f} |"
            for t in found
        ),
        "",
        "One photo at one place, all headings, forwards. "
        f"{date.today()}, {', '.join(f'{k} {v}' for k, v in machine().items())}.",
        "",
    ]
    return "\n".join(lines)
