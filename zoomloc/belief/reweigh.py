"""Belief reweighed: calibrated, under a prior, or joined with that of other photos.

Knows nothing of how scores are made or what a prior is. Within a cell that was not opened, mass
lies evenly over its terminal cells, here as in ``Posterior``. Every function normalises once.
"""

from dataclasses import replace

import numpy as np

from zoomloc.belief.partition import from_leaves
from zoomloc.belief.posterior import Posterior, log_sum
from zoomloc.errors import RegionError
from zoomloc.world.cells import Floats
from zoomloc.world.coverage import Coverage


def tempered(posterior: Posterior, scale: float) -> Posterior:
    """Belief with the log-likelihoods of its terminal cells multiplied by ``scale``.

    Below 1 it is spread, above 1 it is drawn together. One number for all levels: a temperature
    for each would not sum over children to the parent any more (DESIGN 5.5).
    """
    log_leaves = _log_leaves(posterior)
    return _normalised(posterior, scale * (posterior.log_mass - log_leaves) + log_leaves)


def floored(posterior: Posterior, share: float) -> Posterior:
    """Belief of which ``share`` lies evenly over all ground, whatever the scores say."""
    even = _log_leaves(posterior)
    even = even - log_sum(even)
    with np.errstate(divide="ignore"):
        log_mass = np.logaddexp(
            np.log1p(-share) + posterior.log_mass, np.log(np.float64(share)) + even
        )
    return _normalised(posterior, log_mass)


def under(posterior: Posterior, log_ratio: Floats) -> tuple[Posterior, float]:
    """Belief times a prior: (posterior, log of the mean of r / p0 under the belief before).

    log_ratio: (rows, columns) of the terminal grid, log of r / p0, which averages 1 over the
    ground. The number is how well prior and photo agree: below 0, the photo speaks against it.
    Raises RegionError where the two exclude each other altogether.
    """
    factor = _mean_below(posterior, log_ratio)
    log_mass = posterior.log_mass + factor
    agreement = log_sum(log_mass)
    if not np.isfinite(agreement):
        raise RegionError(
            "the prior leaves no ground of this region that the photo could be from; widen it, "
            "or let it leave something outside"
        )
    return _normalised(posterior, log_mass), agreement


def on_leaves(posterior: Posterior, coverage: Coverage) -> Floats:
    """(rows, columns) log-mass of each terminal cell, -inf without imagery."""
    grid = np.full(coverage.leaves.shape, -np.inf)
    column, row = posterior.corner
    each = posterior.log_mass - _log_leaves(posterior)
    single = posterior.span == 1
    grid[row[single], column[single]] = each[single]
    for i in np.flatnonzero(~single):
        side = int(posterior.span[i])
        grid[row[i] : row[i] + side, column[i] : column[i] + side] = each[i]
    return np.where(coverage.leaves, grid, -np.inf)


def joined(log_masses: Floats, log_p0: Floats, alpha: float, coverage: Coverage) -> Posterior:
    """One belief of n photos of one place: p0 times the product of (p_i / p0) ** alpha.

    log_masses: (n, rows, columns), each photo's own belief; log_p0: (rows, columns) what is known
    of places without any photo, which counts once. alpha: below 1, as photos that look alike
    are not independent evidence.
    """
    with np.errstate(invalid="ignore"):
        log_mass = log_p0 + alpha * (log_masses - log_p0).sum(axis=0)
    log_mass = np.where(coverage.leaves, log_mass, -np.inf)
    (posterior,) = from_leaves(coverage, log_mass[None], 1)
    return posterior


def even_over(coverage: Coverage) -> Floats:
    """(rows, columns) log-mass of each terminal cell where all ground is alike."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(coverage.leaves / coverage.leaves.sum()))


def _log_leaves(posterior: Posterior) -> Floats:
    """(n,) log of how many terminal cells each cell holds."""
    return np.asarray(2 * np.log(posterior.span.astype(np.float64)))


def _mean_below(posterior: Posterior, log_values: Floats) -> Floats:
    """(n,) log of the mean over each cell's terminal cells."""
    column, row = posterior.corner
    found = np.asarray(log_values[row, column], np.float64).copy()
    for i in np.flatnonzero(posterior.span > 1):
        side = int(posterior.span[i])
        part = log_values[row[i] : row[i] + side, column[i] : column[i] + side]
        found[i] = log_sum(part.ravel()) - 2 * np.log(side)
    return found


def _normalised(posterior: Posterior, log_mass: Floats) -> Posterior:
    return replace(posterior, log_mass=log_mass - log_sum(log_mass))
