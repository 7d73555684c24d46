"""Muon: the steps of weight matrices are made orthogonal; all else takes AdamW's steps.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), scaled to AdamW's
usual step (Liu et al., arXiv 2502.16982, section 2.2), so that one learning rate serves both.
Knows nothing of what the weights are good for.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

LEAST_SIDE = 24  # of a matrix that is worth it
MOMENTUM = 0.95
USUAL_STEP = 0.2  # root mean square of AdamW's steps, as a share of the learning rate
# of the polynomials a x + b x^3 + c x^5 that bring singular values towards 1, one after the
# other: Amsel et al., "The Polar Express" (arXiv 2505.16932)
POLAR_EXPRESS = (
    (8.287212, -23.595887, 17.300387),
    (4.107059, -2.947850, 0.544843),
    (3.948691, -2.908902, 0.551819),
    (3.318420, -2.488488, 0.510049),
)


class Muon(torch.optim.AdamW):
    """AdamW but for groups with ``matrices``: those parameters are stepped as matrices."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of everything that has a gradient; ``closure`` is not supported."""
        assert closure is None
        found_inf = getattr(self, "found_inf", None)  # of a GradScaler, which leaves it to us
        overflow = found_inf is not None and bool(found_inf)
        for group in self.param_groups:
            if not group.get("matrices"):
                continue
            for weight in group["params"]:
                if weight.grad is not None and not overflow:
                    self._step_matrix(weight, weight.grad, group)
                weight.grad = None  # so that AdamW leaves it alone
        return super().step()

    def _step_matrix(self, weight: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
            state["step"] = torch.zeros(())  # AdamW looks for it when a state is taken up
        momentum = state["momentum"].lerp_(grad, 1 - MOMENTUM)
        matrix = torch.lerp(grad, momentum, MOMENTUM).flatten(1)  # Nesterov
        step = orthogonal(matrix).view_as(weight)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(step, alpha=-group["lr"] * USUAL_STEP * math.sqrt(max(matrix.shape)))


def orthogonal(matrix: Tensor) -> Tensor:
    """(m, n) with the same singular vectors and all singular values about 1 (0.4 to 1.6).

    All is worked out on the product of the shorter side with itself: half the work.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    wide = matrix.T if tall else matrix
    wide = wide / (1.01 * wide.norm() + 1e-12)
    square = wide @ wide.T
    turn: Tensor | None = None
    for linear, cubic, fifth in POLAR_EXPRESS:
        factor = cubic * square + fifth * (square @ square)
        factor.diagonal().add_(linear)
        turn = factor if turn is None else factor @ turn
        square = factor @ square @ factor
    assert turn is not None
    wide = turn @ wide
    return wide.T if tall else wide


def is_matrix(module: nn.Module, weight: Tensor) -> bool:
    """Whether a weight maps many features to many: not a head, a table of vectors or a norm."""
    maps = isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) and weight.ndim >= 2
    return maps and min(weight.flatten(1).shape) >= LEAST_SIDE
