"""Search: from what a Scorer says of children to one Posterior for each photo.

Knows nothing of how scores are made. One call of the scorer serves all photos of a batch and
one depth; each photo's posterior is what it would be alone. Every node that is not opened keeps
its mass, so that nothing is ever renormalised away (DESIGN 5.5).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, get_args

import numpy as np

from zoomloc.belief.partition import Bools, Layer, Nodes, from_layers, from_leaves, of_shape
from zoomloc.belief.posterior import Posterior
from zoomloc.errors import CheckpointError, ConfigError
from zoomloc.world.cells import Cell, Floats, Ints, LatLng
from zoomloc.world.coverage import Coverage

State = TypeVar("State")
Method = Literal["greedy", "beam", "best-first", "exhaustive"]


class Scorer(Protocol[State]):
    """Anything that says how probable the children of a cell are: a model, an index, an oracle."""

    def start(self, photos: Sequence[Any]) -> State:
        """What is computed once for a batch of B photos."""
        ...

    def roots(self, state: State) -> Floats:
        """(B, R) log-probabilities of the region's roots; not asked where there is one root."""
        ...

    def children(self, state: State, photo_index: Ints, cells: Sequence[Cell]) -> Floats:
        """(n, K) log-probabilities of the children of n cells, in choice order.

        photo_index: (n,) which photo asks. All cells of one call have one depth. What is said of
        children without imagery is ignored.
        """
        ...

    def leaves(self, state: State) -> Floats | None:
        """(B, rows, columns) log-probabilities over the terminal grid, or None if not at once."""
        ...

    def sharpened(
        self, state: State, photo: int, place: LatLng
    ) -> tuple[LatLng, float | None, float | None]:
        """A closer look round an answer: the place, the bearing and its spread in degrees.

        What cannot look closer gives ``place`` back; bearings are None where they are unknown.
        """
        ...


@dataclass(frozen=True)
class SearchPlan:
    """How much of the tree is opened.

    ``beam``: nodes opened at each depth, one of them kept for the greedy path. ``bound`` and
    ``max_expansions`` belong to best-first: stop when the mass of unopened inner nodes is at
    most ``bound``, or when that many nodes of a photo are open. Raises ConfigError.
    """

    method: Method = "beam"
    beam: int = 8
    bound: float = 0.05
    max_expansions: int = 4096

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ConfigError(
                f"search method {self.method!r}: take one of {', '.join(get_args(Method))}"
            )
        if self.beam < 1 or self.max_expansions < 1:
            raise ConfigError(
                f"search beam {self.beam}, max_expansions {self.max_expansions}: at least 1"
            )
        if not 0 <= self.bound < 1:
            raise ConfigError(f"search bound {self.bound}: a share of the mass, 0 up to below 1")


def search(
    scorer: Scorer[State],
    photos: Sequence[Any],
    coverage: Coverage,
    plan: SearchPlan,
    state: State | None = None,
    log_ratio: Floats | None = None,
) -> list[Posterior]:
    """One posterior over the present part of the region for each photo.

    ``state``: what ``scorer.start`` gave for these photos, if it was asked before.
    ``log_ratio``: (B, rows, columns) of the terminal grid, log r / p0 of a prior of each photo, or
    (1, rows, columns) for all. It says which nodes are worth opening; masses stay as they are
    without it, for ``reweigh.under`` to multiply. Raises CheckpointError where the scorer gives no
    probability to any child of a cell.
    """
    if not len(photos):
        return []
    state = scorer.start(photos) if state is None else state
    if plan.method == "exhaustive":
        leaves = scorer.leaves(state)
        if leaves is not None:
            return from_leaves(coverage, np.asarray(leaves, np.float64), len(photos))
    most = None if log_ratio is None else _most_below(coverage, log_ratio, len(photos))
    tree = _Tree(coverage, lambda i, cells: scorer.children(state, i, cells), most)
    roots = tree.roots(len(photos), lambda: scorer.roots(state))
    if plan.method == "best-first":
        layers = _best_first(tree, roots, plan)
    else:
        widths = {"greedy": 1, "beam": plan.beam, "exhaustive": None}
        layers = _beam(tree, roots, widths[plan.method])
    return from_layers(coverage, layers, len(photos))


def greedy_paths(
    scorer: Scorer[State], photos: Sequence[Any], coverage: Coverage
) -> list[tuple[Cell, ...]]:
    """For each photo, root to terminal cell by always taking the most probable child.

    The paper's own rollout, whose answer is the centre of the last cell. Raises CheckpointError
    as ``search`` does.
    """
    if not len(photos):
        return []
    state = scorer.start(photos)
    tree = _Tree(coverage, lambda i, cells: scorer.children(state, i, cells))
    ends = tree.roots(len(photos), lambda: scorer.roots(state))
    ends = ends.where(ends.greedy)
    for depth in range(coverage.region.zooms):
        ends = tree.expand(depth, ends)
        ends = ends.where(ends.greedy)
    cells = tree.cells(coverage.region.zooms, ends)
    return [coverage.region.path_to(cell) for cell in cells]


# 1. the tree, opened layer by layer


class _Tree:
    """Opens nodes: masks what has no imagery and makes each node's children sum to the node."""

    def __init__(
        self,
        coverage: Coverage,
        children: Callable[[Ints, Sequence[Cell]], Floats],
        most: list[Floats] | None = None,
    ) -> None:
        self.region = coverage.region
        self.children = children
        self.most = most  # of a prior, below each node of each depth
        self.present = [coverage.present(depth) for depth in range(self.region.zooms + 1)]

    def roots(self, photos: int, log_prob: Callable[[], Floats]) -> Nodes:
        """The present roots of each photo; the scorer is asked only where there are several."""
        slots = self.region.root_slots()
        present = self.present[0][slots[:, 0], slots[:, 1]]
        scores = np.zeros((photos, len(slots)))
        if len(slots) > 1:
            scores = of_shape("roots", log_prob(), scores.shape)
        none = np.zeros(photos, np.int64)
        even, all_ = np.zeros(photos), np.ones(photos, bool)
        parents = Nodes(np.arange(photos), none, none, even, all_, even)
        row, column = np.broadcast_to(slots.T[:, None], (2, *scores.shape))
        present = np.broadcast_to(present, scores.shape)
        return self._bounded(0, _opened(parents, row, column, scores, present))

    def expand(self, depth: int, nodes: Nodes) -> Nodes:
        """All present children of nodes at a depth."""
        side = 1 << self.region.levels_per_zoom
        shape = (len(nodes.photo), side * side)
        scores = np.zeros(shape)
        if shape[0]:
            answer = self.children(nodes.photo, self.cells(depth, nodes))
            scores = of_shape("children", answer, shape)
        down, right = np.divmod(np.arange(side * side), side)
        row, column = nodes.row[:, None] * side + down, nodes.column[:, None] * side + right
        present = self.present[depth + 1][row, column]
        return self._bounded(depth + 1, _opened(nodes, row, column, scores, present))

    def _bounded(self, depth: int, nodes: Nodes) -> Nodes:
        """Nodes with what a prior may make of them."""
        if self.most is None:
            return nodes
        most = self.most[depth]
        photo = nodes.photo % len(most)  # one for all, or one each
        return nodes._replace(bound=nodes.log_mass + most[photo, nodes.row, nodes.column])

    def cells(self, depth: int, nodes: Nodes) -> list[Cell]:
        """The cells that nodes of a depth stand for."""
        down = depth * self.region.levels_per_zoom
        level = self.region.root_level + down
        left, top = self.region.origin
        x = ((left << down) + nodes.column) % (1 << level)
        y = (top << down) + nodes.row
        return [Cell(level, *xy) for xy in zip(x.tolist(), y.tolist(), strict=True)]


def _opened(parents: Nodes, row: Ints, column: Ints, scores: Floats, present: Bools) -> Nodes:
    """The present children (n, K) of n parents, each parent's mass shared out among them."""
    log_prob = np.where(present, scores, -np.inf)
    peak = log_prob.max(axis=1, keepdims=True, initial=-np.inf)
    bad = ~np.isfinite(peak[:, 0])
    if bad.any():
        i = int(np.argmax(bad))
        raise CheckpointError(
            f"the scorer gives the children of the cell at row {parents.row[i]}, column "
            f"{parents.column[i]} no usable probability (highest: {peak[i, 0]}) for photo "
            f"{parents.photo[i]} of its batch; the weights are damaged or training diverged: "
            "take an earlier checkpoint"
        )
    log_prob = log_prob - (peak + np.log(np.exp(log_prob - peak).sum(axis=1, keepdims=True)))
    greedy = np.zeros(present.shape, bool)
    greedy[np.arange(len(greedy)), log_prob.argmax(axis=1)] = parents.greedy
    photo = np.broadcast_to(parents.photo[:, None], present.shape)
    log_mass = parents.log_mass[:, None] + log_prob
    return Nodes(photo, row, column, log_mass, greedy, log_mass).where(present)


def _most_below(coverage: Coverage, log_ratio: Floats, photos: int) -> list[Floats]:
    """For each depth, roots first, (B or 1, rows, columns): the most of any covered leaf below."""
    if len(log_ratio) not in (1, photos) or log_ratio.shape[1:] != coverage.leaves.shape:
        raise ValueError(
            f"log_ratio has shape {log_ratio.shape}; {(photos, *coverage.leaves.shape)} is needed"
        )
    side, grids = 1 << coverage.region.levels_per_zoom, [log_ratio]
    for depth in range(coverage.region.zooms - 1, -1, -1):
        rows, columns = coverage.region.grid_shape(depth)
        most = np.empty((len(log_ratio), rows, columns))
        for into, below in zip(most, grids[-1], strict=True):  # one by one: leaves are many
            held = np.where(coverage.present(depth + 1), below, -np.inf)
            into[:] = held.reshape(rows, side, columns, side).max(axis=(1, 3))
        grids.append(most)
    return grids[::-1]


# 2. which nodes are opened


def _beam(tree: _Tree, nodes: Nodes, width: int | None) -> list[Layer]:
    """At each depth the ``width`` heaviest nodes of each photo, its greedy one among them."""
    layers = []
    for depth in range(tree.region.zooms):
        keep = nodes.log_mass > -np.inf
        if width is not None:
            rank = _ranks(nodes.photo, np.where(nodes.greedy, np.inf, nodes.bound))
            keep &= rank < width
        layers.append((depth, nodes.where(~keep)))
        nodes = tree.expand(depth, nodes.where(keep))
    return [*layers, (tree.region.zooms, nodes)]


def _best_first(tree: _Tree, roots: Nodes, plan: SearchPlan) -> list[Layer]:
    """The heaviest inner node of each photo first, until what is unopened falls to the bound.

    A node is opened together with others when it is certain to be: as long as it and all that
    is lighter outweigh the bound, best-first cannot stop before it. So a few rounds do. Under a
    prior a node counts with the most that it may come to, and the bound is a share of all.
    """
    zooms = tree.region.zooms
    inner = [roots] + [roots.where(np.zeros(len(roots.photo), bool))] * (zooms - 1)
    leaves: list[Layer] = []
    left = np.full(int(roots.photo.max()) + 1, plan.max_expansions)
    found = np.zeros(len(left))
    while True:
        photo = np.concatenate([nodes.photo for nodes in inner])
        bound = np.concatenate([nodes.bound for nodes in inner])
        chosen = _certain(photo, bound, found, plan.bound, left)
        if not chosen.any():
            return [*enumerate(inner), *leaves]
        left -= np.bincount(photo[chosen], minlength=len(left))
        masks = np.split(chosen, np.cumsum([len(nodes.photo) for nodes in inner])[:-1])
        grown = [tree.expand(d, inner[d].where(masks[d])) for d in range(zooms)]
        inner = [nodes.where(~mask) for nodes, mask in zip(inner, masks, strict=True)]
        inner[1:] = [old.plus(new) for old, new in zip(inner[1:], grown[:-1], strict=True)]
        leaves.append((zooms, grown[-1]))
        found += np.bincount(grown[-1].photo, np.exp(grown[-1].bound), len(found))


def _certain(photo: Ints, bound: Floats, found: Floats, share: float, left: Ints) -> Bools:
    """Which of the unopened nodes best-first must open, within each photo's allowance.

    bound: (n,) the most that nodes may hold; found: (B,) what the leaves found do hold.
    """
    rank = _ranks(photo, bound)
    mass = np.exp(bound)
    last = int(rank.max(initial=0))
    lightest_first = np.zeros((len(left), last + 1))  # a row for each photo: alike in any batch
    lightest_first[photo, last - rank] = mass
    not_heavier = np.cumsum(lightest_first, axis=1)
    enough = share * (not_heavier[:, -1] + found)  # all that may be held falls as nodes are opened
    must = not_heavier[photo, last - rank] > enough[photo]
    return np.asarray(must & (mass > 0) & (rank < left[photo]))


def _ranks(photo: Ints, key: Floats) -> Ints:
    """(n,) place of each node among those of its photo, the greatest key being 0."""
    order = np.lexsort((-key, photo))
    ordered = photo[order]
    ranks = np.empty(len(photo), np.int64)
    ranks[order] = np.arange(len(photo)) - np.searchsorted(ordered, ordered)
    return ranks
