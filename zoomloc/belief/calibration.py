"""Calibration: a few numbers, fitted on val, that make probabilities mean what they say.

Knows nothing of scorers, photos or files. Terminal cells' log-likelihoods are multiplied by one
scale and a share of the belief is laid evenly over all ground, in case the scores know nothing;
both by the likelihood of the cells at the truth. Evidence becomes the log-odds that a photo is from
the region at all. Cf. temperature scaling (arXiv 1706.04599), but at the leaves, before they are
summed (DESIGN 5.5).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

from zoomloc.belief.posterior import Posterior, log_sum
from zoomloc.belief.reweigh import floored, tempered
from zoomloc.errors import CheckpointError
from zoomloc.world.cells import Floats, Ints, LatLng

SCALES = np.exp(np.linspace(np.log(0.1), np.log(4.0), 75))  # that are tried
FLOORS = np.concatenate([[1e-6], np.logspace(-4, np.log10(0.5), 40)])
ALPHAS = np.linspace(0.1, 1.0, 19)
UNFITTED = 0.5  # alpha where no val photos stand close together
HERE_LOST = 0.05  # of the photos from here that may be called "not here"
RIDGE = 1e-3  # keeps the slope of evidence finite where it tells all photos apart


@dataclass(frozen=True)
class Calibration:
    """What scores are worth, and what that was fitted on.

    scale, floor: of the belief in terminal cells. share50, share90: what a disc round the answer
    has to hold of it to hold the truth as often as that. alpha: what each of several photos of one
    place counts. slope, offset: log-odds of "from here" = slope x evidence + offset; photos below
    ``here_from`` are called "not here".
    """

    scale: float = 1.0
    floor: float = 0.0
    share50: float = 0.5
    share90: float = 0.9
    alpha: float = 1.0
    slope: float | None = None
    offset: float = 0.0
    here_from: float | None = None
    photos: int = 0
    split_hash: str = ""
    regions: tuple[str, ...] = ()
    nll: tuple[float, float] = field(default=(0.0, 0.0))  # nats a photo, before and after

    def believed(self, posterior: Posterior) -> Posterior:
        """The belief that may be trusted."""
        found = posterior if self.scale == 1 else tempered(posterior, self.scale)
        return floored(found, self.floor) if self.floor else found

    def evidence(self, raw: float | None) -> float | None:
        """Log-odds that a photo is from here; None where nothing is known of it."""
        return None if raw is None or self.slope is None else self.slope * raw + self.offset

    def is_elsewhere(self, evidence: float | None) -> bool:
        """Whether a photo is said to be from another place than this region."""
        return evidence is not None and self.here_from is not None and evidence < self.here_from

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint's JSON holds it."""
        return asdict(self) | {"regions": list(self.regions), "nll": list(self.nll)}

    def digest(self) -> str:
        """Short hex digest: answers of other calibrations are other answers."""
        return hashlib.sha256(json.dumps(self.to_json()).encode()).hexdigest()[:16]

    @classmethod
    def from_json(cls, data: Any, where: str = "a checkpoint") -> "Calibration":
        """What ``to_json`` wrote; ``where``: the file, for errors. Raises CheckpointError."""
        known = {f.name for f in fields(cls)}
        try:
            made = cls(**{key: value for key, value in dict(data).items() if key in known})
            before, after = map(float, made.nll)
            made = replace(made, regions=tuple(made.regions), nll=(before, after))
            wrong = made._wrong()
        except (TypeError, ValueError) as error:
            wrong = str(error)
        if wrong:
            raise CheckpointError(
                f"{where}: its calibration cannot be used ({wrong}); take it out of that file and "
                "make it again with 'zoomloc calibrate'"
            )
        return made

    def _wrong(self) -> str:
        """Which numbers cannot be; "" where all can. Raises TypeError for what is no number."""
        shares = self.share50, self.share90
        could_be = {
            "scale": 0 < self.scale < np.inf,
            "floor": 0 <= self.floor < 1,
            "share50, share90": all(0 < share <= 1 for share in shares),
            "alpha": 0 < self.alpha < np.inf,
            "slope, offset": np.isfinite([self.slope or 0.0, self.offset]).all(),
            "here_from": np.isfinite(self.here_from or 0.0),
        }
        return ", ".join(name for name, fine in could_be.items() if not fine)


# 1. scale and floor


def tempered_truths(posterior: Posterior, truth: LatLng) -> Floats:
    """(len(SCALES) + 1,) log-probability of the terminal cells at the truth, for each scale, and
    at the end that of an even belief; -inf for a truth outside.

    Those at the truth are its own cell and the eight round it: a few metres, which may cross a
    border, are no error to an answer that counts as right within 50 m. By the cell alone claims
    come out too low.
    """  # noqa: D205
    side = posterior.span.astype(np.float64)
    each = posterior.log_mass - 2 * np.log(side)
    near = _at_truth(posterior, truth)
    if not len(near):
        return np.full(len(SCALES) + 1, -np.inf)
    scaled = SCALES[:, None] * (each - each.max())
    total = np.log(np.exp(scaled) @ side**2)
    with np.errstate(divide="ignore"):
        held = np.log(np.exp(scaled[:, near]).sum(axis=1))
    return np.append(held - total, np.log(len(near) / (side**2).sum()))


def _at_truth(posterior: Posterior, truth: LatLng) -> Ints:
    """Cells of the partition that hold the truth's terminal cell and those round it, one entry
    for each terminal cell; none for a truth outside.
    """  # noqa: D205
    region = posterior.region
    if posterior.at(truth) is None:
        return np.zeros(0, np.int64)
    x, y = region.leaf_xy(np.array([truth.lat]), np.array([truth.lng]))
    down, right = (v.ravel() for v in np.mgrid[-1:2, -1:2])
    found = posterior.which(
        *region.leaf_places(np.floor(x) + right + 0.5, np.floor(y) + down + 0.5)
    )
    return found[found >= 0]


def fit_scale_and_floor(rows: Floats, groups: Sequence[int]) -> tuple[float, float, float, float]:
    """(scale, floor, NLL before, NLL after) of rows of ``tempered_truths``.

    groups: which region each photo was searched in; all regions count alike. Truths outside
    their region are left out. Raises CheckpointError where no photo is left.
    """
    kept = np.isfinite(rows[:, -1])
    if not kept.any():
        raise CheckpointError("calibration: no val photo lies in its region; check the split")
    rows, group = rows[kept], np.asarray(groups)[kept]
    weight = 1.0 / np.bincount(group)[group]
    weight /= weight.sum()
    log_even = rows[:, -1:, None]
    with np.errstate(divide="ignore"):
        mixed = np.logaddexp(
            np.log1p(-FLOORS) + rows[:, :-1, None], np.log(FLOORS) + log_even
        )  # (n, scales, floors)
    nll = -np.tensordot(weight, mixed, 1)
    best = np.unravel_index(int(nll.argmin()), nll.shape)
    before = nll[int(np.abs(np.log(SCALES)).argmin()), 0]
    return float(SCALES[best[0]]), float(FLOORS[best[1]]), float(before), float(nll[best])


# 2. radii


def fit_share(held: Floats, groups: Sequence[int], wanted: float) -> float:
    """The share of the belief that a disc has to hold so that ``wanted`` of them hold the truth.

    held: (n,) belief in the disc round each answer that just reaches its truth; groups: as in
    ``fit_scale_and_floor``. Split conformal prediction with the belief as its score.
    """
    order = np.argsort(held, kind="stable")
    group = np.asarray(groups)[order]
    weight = 1.0 / np.bincount(group)[group]
    reached = np.cumsum(weight) / weight.sum() * len(held) / (len(held) + 1)
    at = int(np.searchsorted(reached, wanted - 1e-9))  # 18 of 19 do reach 0.9, but for rounding
    return float(np.clip(held[order][min(at, len(held) - 1)], 0.01, 0.999))


# 3. evidence


def fit_evidence(here: Floats, elsewhere: Floats) -> tuple[float, float, float]:
    """(slope, offset, least log-odds to be called from here) by logistic regression.

    here, elsewhere: (n,) and (m,) evidence of photos of both kinds, which count alike.
    """
    x = np.concatenate([here, elsewhere])
    y = np.concatenate([np.ones(len(here)), np.zeros(len(elsewhere))])
    weight = np.concatenate([np.full(len(v), 0.5 / len(v)) for v in (here, elsewhere)])
    middle, spread = float(x.mean()), float(x.std()) + 1e-9
    table = np.stack([(x - middle) / spread, np.ones_like(x)], 1)
    beta = np.zeros(2)
    for _ in range(50):  # Newton; the loss is convex
        p = 1 / (1 + np.exp(-table @ beta))
        gradient = table.T @ (weight * (p - y)) + RIDGE * beta * (1, 0)
        curve = (table * (weight * p * (1 - p))[:, None]).T @ table + RIDGE * np.diag([1, 1e-6])
        beta = beta - np.linalg.solve(curve, gradient)
    if beta[0] < 0:  # it tells nothing, least of all the contrary
        beta = np.zeros(2)
    slope = float(beta[0] / spread)
    offset = float(beta[1] - slope * middle)
    return slope, offset, float(np.quantile(slope * here + offset, HERE_LOST))


# 4. several photos of one place


def fit_alpha(groups: Sequence[tuple[Floats, Floats, int]]) -> float:
    """What each of several photos counts, by the likelihood of the true cell.

    groups: (log-masses (n, cells) of each photo, log p0 (cells,), index of the true cell).
    UNFITTED where there are none: photos of one place may be all but copies.
    """
    if not groups:
        return UNFITTED
    nll = np.zeros(len(ALPHAS))
    for log_masses, log_p0, truth in groups:
        seen = np.isfinite(log_p0)
        told = np.where(seen, log_masses - np.where(seen, log_p0, 0), 0).sum(axis=0)
        for i, alpha in enumerate(ALPHAS):
            joint = log_p0 + alpha * told
            nll[i] += log_sum(joint) - joint[truth]
    return float(ALPHAS[int(nll.argmin())])
