"""Fans against bins for every heading, and the loss over all places, in few passes over memory.

Knows nothing of networks or maps. Letters: B photos, N slices of the full circle, F slices of a
fan, K numbers of a slice, J places, m places near a photo's truth.
"""

from typing import Any

import torch
from torch import Tensor


class _Correlate(torch.autograd.Function):
    """Fans against bins for every heading, without a copy of the overlapping blocks of bins."""

    @staticmethod
    def forward(ctx: Any, fans: Tensor, bins: Tensor) -> Tensor:
        fan, (slices, inner, places) = fans.shape[1], bins.shape
        circle = opened_circle(bins, fan)
        flat = fans.flatten(1)
        out = flat.new_empty(slices, len(flat), places)
        for n in range(slices):
            torch.mm(flat, circle[n : n + fan].view(fan * inner, places), out=out[n])
        ctx.save_for_backward(flat, circle)
        ctx.fan = fan
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        flat, circle = ctx.saved_tensors
        fan, slices = ctx.fan, len(grad)
        inner, places = circle.shape[1:]
        to_fans = flat.new_zeros(flat.shape, dtype=torch.float32)
        to_circle = torch.zeros_like(circle)
        for n in range(slices):
            to_fans += grad[n] @ circle[n : n + fan].view(fan * inner, places).T
            to_circle[n : n + fan].view(fan * inner, places).addmm_(flat.T, grad[n])
        before, after = fan // 2, (fan - 1) // 2
        to_bins = to_circle[before : before + slices].clone()
        to_bins[slices - before :] += to_circle[:before]
        to_bins[:after] += to_circle[before + slices :]
        return to_fans.to(flat.dtype).view(len(flat), fan, inner), to_bins


def opened_circle(bins: Tensor, fan: int) -> Tensor:
    """Bins (N, K, J) -> (N + F - 1, K, J): those that a fan of heading n meets begin at n."""
    before, after = fan // 2, (fan - 1) // 2
    return torch.cat([bins[len(bins) - before :], bins, bins[:after]])


def correlate(fans: Tensor, bins: Tensor) -> Tensor:
    """Fans (B, F, K) and bins (N, K, J) -> matches (N, B, J), heading n being 360 n / N degrees.

    The match of heading n is the sum over the fan's slices f of fan f times bin n + f - F // 2.
    """
    return _Correlate.apply(fans, bins)


class _RegionLoss(torch.autograd.Function):
    """Softmax over all places and headings in few passes over memory: it is most of a step."""

    @staticmethod
    def forward(
        ctx: Any, match: Tensor, scale: Tensor, added: Tensor, near: Tensor, log_weight: Tensor
    ) -> Tensor:
        logits = torch.addcmul(added[None], match.float(), scale)  # (N, B, J)
        own = logits.gather(2, near.expand(len(match), -1, -1)) + log_weight
        top = own.amax((0, 2), keepdim=True)
        weighed = (own - top).exp_()
        right = weighed.sum((0, 2), keepdim=True)
        peak = logits.amax((0, 2), keepdim=True)
        shares = logits.sub_(peak).exp_()
        total = shares.sum((0, 2), keepdim=True)
        ctx.save_for_backward(match, scale, shares, total, weighed / right, near)
        ctx.alike = len(added) == 1 and match.shape[1] > 1
        return (peak + total.log() - top - right.log()).mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        match, scale, shares, total, right, near = ctx.saved_tensors
        slope = shares / total
        slope.scatter_add_(2, near.expand(len(match), -1, -1), -right)
        slope.mul_(grad / match.shape[1])
        to_added = slope.sum(0)
        if ctx.alike:  # for all photos
            to_added = to_added.sum(0, keepdim=True)
        narrow = slope.to(match.dtype)
        to_scale = (narrow.flatten() @ match.flatten()).float()
        return narrow.mul_(scale.to(narrow.dtype)), to_scale, to_added, None, None


def region_loss(
    match: Tensor, scale: Tensor, added: Tensor, near: Tensor, log_weight: Tensor
) -> Tensor:
    """Mean over photos of -log of the probability that lies near the truth.

    match (N, B, J), scale (), added (B or 1, J): logits are match * scale + added, their softmax
    runs over all places and headings. near (B, m): places near each photo's truth; log_weight
    (N, B, m): how much each of them, with each heading, counts as right. A region instead of a
    point forgives errors of position; a weight that is the same for all headings needs none
    (AutoCompass; methods.md 0.2).
    """
    return _RegionLoss.apply(match, scale, added, near[None], log_weight)
