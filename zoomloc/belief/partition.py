"""Nodes of a search as posteriors: a partition of the ground with imagery for each photo.

Knows nothing of how nodes were opened or scored. A node whose ground has gaps falls into the
largest squares without one, so that belief lies on ground that exists.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from zoomloc.belief.posterior import Posterior, log_sum, z_order
from zoomloc.errors import CheckpointError
from zoomloc.world.cells import Floats, Ints
from zoomloc.world.coverage import Coverage

Bools = npt.NDArray[np.bool_]


class Nodes(NamedTuple):
    """Nodes of one depth, of all photos: rows and columns in that depth's grid."""

    photo: Ints
    row: Ints
    column: Ints
    log_mass: Floats
    greedy: Bools  # on the path that always takes the most probable child
    bound: Floats  # log_mass, and the most that a prior adds to it in any leaf below

    def where(self, mask: Bools) -> "Nodes":
        """Those of a mask."""
        return Nodes._make(values[mask] for values in self)

    def plus(self, other: "Nodes") -> "Nodes":
        """These, then others of the same depth."""
        return Nodes._make(np.concatenate(pair) for pair in zip(self, other, strict=True))


Layer = tuple[int, Nodes]  # depth, nodes that stay as they are


def of_shape(what: str, scores: Floats, shape: tuple[int, ...]) -> Floats:
    """The scores in float64. Raises ValueError where the scorer broke its contract."""
    scores = np.asarray(scores, np.float64)
    if scores.shape != shape:
        raise ValueError(f"Scorer.{what} gave shape {scores.shape}; {shape} was asked for")
    return scores


class _Squares(NamedTuple):
    """Cells as columns and rows of the terminal grid; a side is ``1 << shift`` of them."""

    column: Ints
    row: Ints
    shift: Ints

    def where(self, index: Ints | Bools) -> "_Squares":
        return _Squares._make(values[index] for values in self)

    def plus(self, *others: "_Squares") -> "_Squares":
        return _Squares._make(np.concatenate(all_) for all_ in zip(self, *others, strict=True))


def from_layers(coverage: Coverage, layers: Sequence[Layer], photos: int) -> list[Posterior]:
    """Each photo's nodes as a partition of the ground with imagery, in Z-order."""
    parts = [_covered(coverage, depth, nodes) for depth, nodes in layers if len(nodes.photo)]
    photo = np.concatenate([part[0] for part in parts])
    log_mass = np.concatenate([part[1] for part in parts])
    squares = parts[0][2].plus(*(part[2] for part in parts[1:]))
    order = np.lexsort((z_order(squares.column, squares.row), photo))
    level, x, y = _level_x_y(coverage, squares.where(order))
    log_mass = log_mass[order]
    edges = np.searchsorted(photo[order], np.arange(photos + 1))
    found = []
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        mine = slice(int(first), int(last))
        masses = log_mass[mine] - log_sum(log_mass[mine])
        found.append(Posterior(coverage.region, level[mine], x[mine], y[mine], masses))
    return found


def from_leaves(coverage: Coverage, leaves: Floats, photos: int) -> list[Posterior]:
    """Posteriors of terminal cells alone, normalised over those with imagery."""
    present = coverage.present(coverage.region.zooms)
    leaves = of_shape("leaves", leaves, (photos, *present.shape))
    row, column = np.nonzero(present)
    order = np.argsort(z_order(column, row))
    row, column = row[order], column[order]
    level, x, y = _level_x_y(coverage, _Squares(column, row, np.zeros_like(row)))
    found = []
    for i, scores in enumerate(leaves):
        log_mass = scores[row, column]
        total = log_sum(log_mass)
        if not np.isfinite(total):
            raise CheckpointError(
                f"the scorer gives the terminal cells no usable probability (sum: {total}) for "
                f"photo {i} of its batch; the weights are damaged or training diverged: take an "
                "earlier checkpoint"
            )
        found.append(Posterior(coverage.region, level, x, y, log_mass - total))
    return found


def _covered(coverage: Coverage, depth: int, nodes: Nodes) -> tuple[Ints, Floats, _Squares]:
    """Photo, log-mass and squares of nodes; those with gaps fall into their covered parts.

    A part is the largest square without a gap; it gets mass by its number of terminal cells.
    """
    shift = (coverage.region.zooms - depth) * coverage.region.levels_per_zoom
    squares = _Squares(nodes.column << shift, nodes.row << shift, np.full_like(nodes.row, shift))
    if shift == 0:
        return nodes.photo, nodes.log_mass, squares
    count = coverage.leaf_count(depth)[nodes.row, nodes.column]
    gaps = count < 1 << 2 * shift
    if not gaps.any():
        return nodes.photo, nodes.log_mass, squares
    start = z_order(squares.column, squares.row)[gaps]
    blocks, code = _whole_squares(coverage.present(coverage.region.zooms), shift)
    first, last = np.searchsorted(code, [start, start + (1 << 2 * shift)])
    parts = last - first
    each = np.arange(parts.sum()) + np.repeat(first - (np.cumsum(parts) - parts), parts)
    per_cell = np.repeat(nodes.log_mass[gaps] - np.log(count[gaps]), parts)
    log_mass = per_cell + 2 * np.log(2) * blocks.shift[each]
    return (
        np.concatenate([nodes.photo[~gaps], np.repeat(nodes.photo[gaps], parts)]),
        np.concatenate([nodes.log_mass[~gaps], log_mass]),
        squares.where(~gaps).plus(blocks.where(each)),
    )


def _whole_squares(leaves: Bools, most: int) -> tuple[_Squares, Ints]:
    """The largest quadtree squares without a gap, at most ``most`` levels up; their Z-order."""
    found = []
    whole = leaves
    for shift in range(most + 1):
        alone = whole
        if shift < most:
            above = whole[::2, ::2] & whole[1::2, ::2] & whole[::2, 1::2] & whole[1::2, 1::2]
            alone, whole = whole & ~above.repeat(2, axis=0).repeat(2, axis=1), above
        row, column = np.nonzero(alone)
        found.append(_Squares(column << shift, row << shift, np.full_like(row, shift)))
    squares = found[0].plus(*found[1:])
    code = z_order(squares.column, squares.row)
    order = np.argsort(code)
    return squares.where(order), code[order]


def _level_x_y(coverage: Coverage, squares: _Squares) -> tuple[Ints, Ints, Ints]:
    """Levels, columns and rows of the quadtree cells that the squares are."""
    region = coverage.region
    down = region.terminal_level - region.root_level
    x = (squares.column + (region.origin[0] << down)) % (1 << region.terminal_level)
    y = squares.row + (region.origin[1] << down)
    return region.terminal_level - squares.shift, x >> squares.shift, y >> squares.shift
