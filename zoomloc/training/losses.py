"""Cross-entropy of choices against their targets; one term for each decision.

Knows nothing of networks or pictures. Letters: B photos, L zooms, K children, R roots.
"""

from torch import Tensor


def choice_loss(logits: Tensor, target: Tensor, present: Tensor) -> Tensor:
    """Soft cross-entropy (...,) over the choices that exist.

    logits (..., K); target (..., K) sums to 1 and is 0 where ``present`` (..., K) is False.
    """
    masked = logits.float().masked_fill(~present, -1e9)
    return -(target * masked.log_softmax(-1)).sum(-1)


def info_nce(logits: Tensor, target: Tensor) -> Tensor:
    """Symmetric InfoNCE with soft targets: photo to reference, and back.

    logits (B, U) scaled cosines; target (B, U), rows summing to 1. References that stand for
    none of the photos are negatives only.
    """
    forth = -(target * logits.log_softmax(1)).sum(1).mean()
    share = target.sum(0)
    meant = share > 0.1
    back = (target / share.clamp(min=1e-9) * logits.log_softmax(0)).sum(0)
    return (forth - back[meant].mean()) / 2


def path_loss(
    root: Tensor | None,
    zooms: Tensor,
    root_target: Tensor | None,
    root_present: Tensor | None,
    target: Tensor,
    present: Tensor,
) -> Tensor:
    """Mean over photos of the sum over decisions: an unbiased estimate of the leaf's
    cross-entropy when paths are drawn from the target (DESIGN 5.4).

    root (B, 16) with root_target (B, R) and root_present (R,), or all three
    None; zooms and target (B, L, K).
    """
    total = choice_loss(zooms, target, present).sum(1)  # (B,)
    if root is not None and root_target is not None and root_present is not None:
        known = root[:, : root_target.shape[1]]
        total = total + choice_loss(known, root_target, root_present.expand_as(known))
    return total.mean()
