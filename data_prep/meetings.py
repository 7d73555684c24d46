"""Which drives meet, so that a split must keep them together.

Knows nothing of splits or pictures: names, places and times are all it looks at.

Two photos are near by the audit's own limits (nearby.py); groups that have such photos are made
one, and so on from group to group. Photos without a time meet nobody. Photos lie in boxes of space
(metres from the middle of the earth, so that no latitude and no meridian is special) and time, and
only boxes that touch and are not one already are compared: a million photos take seconds.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from data_prep.nearby import NEAR_M, NEAR_S, Indices, seconds_of
from zoomloc.world.cells import Floats, distances_m, geod
from zoomloc.world.nearest import places_of
from zoomloc.world.photos import Photo

SMALL_M = NEAR_M / 1.75  # side of a box that is less than NEAR_M from corner to corner
LARGE_M = NEAR_M * 1.01  # side of a box so large that what is near lies in it or in the next one
AT_ONCE = 1 << 20  # pairs of photos that are measured at once
BITS = 20  # of a box's number in each direction


def united(photos: Sequence[Photo], groups: Sequence[str]) -> list[str]:
    """The group of each photo, where groups that meet are one under one of their names.

    The name is that of the group that began first, of several the smallest: photos that are
    taken later move no group into another, unless they are a bridge between two.
    """
    times = seconds_of(photos)
    names, group_of = _by_beginning(groups, times)
    known = np.flatnonzero(np.isfinite(times))
    parents = _Parents(len(names))
    if len(known):
        lat, lng = places_of(photos)
        meeting = _Meeting(lat[known], lng[known], times[known], group_of[known], parents)
        meeting.unite_within_small_boxes()
        meeting.unite_across_large_boxes()
    return [names[k] for k in parents.roots[group_of].tolist()]


def _by_beginning(groups: Sequence[str], times: Floats) -> tuple[list[str], Indices]:
    """Names of groups by their first time, and the index in them of each photo's group."""
    numbers = {name: k for k, name in enumerate(dict.fromkeys(groups))}
    began = np.full(len(numbers), np.inf)
    np.fmin.at(began, [numbers[name] for name in groups], times)
    first_s = dict(zip(numbers, began.tolist(), strict=True))
    names = sorted(numbers, key=lambda name: (first_s[name], name))
    rank = {name: k for k, name in enumerate(names)}
    return names, np.array([rank[name] for name in groups], np.int64)


class _Parents:
    """Groups made one: ``roots`` is, of each group, the first one of those that it is one with."""

    def __init__(self, count: int) -> None:
        self.roots: Indices = np.arange(count)

    def unite(self, here: Indices, there: Indices) -> None:
        """Make the groups of each pair one."""
        pairs = np.unique(np.stack([self.roots[here], self.roots[there]], axis=1), axis=0)
        roots = self.roots
        for one, two in pairs.tolist():
            while roots[one] != one:
                one = roots[one]
            while roots[two] != two:
                two = roots[two]
            roots[max(one, two)] = min(one, two)
        while (further := roots[roots] != roots).any():
            roots[further] = roots[roots[further]]


class _Boxes:
    """The box of each photo, by the number of its place and of its time."""

    def __init__(self, places_m: Floats, times: Floats, side_m: float) -> None:
        x, y, z = (np.floor(places_m / side_m).astype(np.int64) + (1 << (BITS - 1))).T
        self._places, self.place = np.unique((x << 2 * BITS) + (y << BITS) + z, return_inverse=True)
        slots = np.floor(times / NEAR_S).astype(np.int64)
        self.slot = slots - slots.min() + 1
        self._slots = int(self.slot.max()) + 2
        self.key = self.place * self._slots + self.slot

    def next_to(self, chosen: Indices, step: tuple[int, int, int, int]) -> Indices:
        """Keys of the boxes a step (x, y, z, time) from those of photos; -1 where nothing is."""
        dx, dy, dz, later = step
        wanted = self._places[self.place[chosen]] + (dx << 2 * BITS) + (dy << BITS) + dz
        found = np.minimum(np.searchsorted(self._places, wanted), len(self._places) - 1)
        key = found * self._slots + self.slot[chosen] + later
        return np.where(self._places[found] == wanted, key, -1)


class _Meeting:
    """Photos with a time, whose groups are made one where they meet."""

    def __init__(
        self, lat: Floats, lng: Floats, times: Floats, group_of: Indices, parents: _Parents
    ) -> None:
        self.lat, self.lng, self.times = lat, lng, times
        self.group_of, self.parents = group_of, parents
        self.places_m = _from_the_middle_m(lat, lng)

    def unite_within_small_boxes(self) -> None:
        """All photos of a small box are near each other, however many they are."""
        boxes = _Boxes(self.places_m, self.times, SMALL_M)
        order = np.argsort(boxes.key, kind="stable")
        same = np.flatnonzero(np.diff(boxes.key[order]) == 0)
        groups = self.group_of[order]
        self.parents.unite(groups[same], groups[same + 1])

    def unite_across_large_boxes(self) -> None:
        """Photos of large boxes that touch are measured, unless they are of one group by now."""
        boxes = _Boxes(self.places_m, self.times, LARGE_M)
        groups = self.parents.roots[self.group_of]
        order = np.lexsort((groups, boxes.key))
        key, groups = boxes.key[order], groups[order]
        # photos of one group in one box stand in a row: these are few where photos are many
        begins = np.flatnonzero(np.diff(key, prepend=-1) | np.diff(groups, prepend=-1))
        counts = np.diff(begins, append=len(order))
        key, groups = key[begins], groups[begins]
        for step in _steps():
            beside = boxes.next_to(order[begins], step)
            first = np.searchsorted(key, beside)
            here, there = _runs(first, np.searchsorted(key, beside, "right") - first)
            apart = groups[here] != groups[there]
            self._measure(order, begins, counts, here[apart], there[apart])

    def _measure(
        self, order: Indices, begins: Indices, counts: Indices, here: Indices, there: Indices
    ) -> None:
        """Unite the groups of rows ``here`` and ``there`` that have photos near each other."""
        row, a = _runs(begins[here], counts[here])
        there = there[row]
        size = np.cumsum(counts[there])
        for block in np.split(np.arange(len(a)), np.flatnonzero(np.diff(size // AT_ONCE)) + 1):
            self._measure_block(order, a[block], begins[there[block]], counts[there[block]])

    def _measure_block(self, order: Indices, a: Indices, begins: Indices, counts: Indices) -> None:
        """Compare each photo ``a`` with all of a row, where their groups are two still."""
        roots = self.parents.roots
        two = roots[self.group_of[order[a]]] != roots[self.group_of[order[begins]]]
        which, b = _runs(begins[two], counts[two])
        a, b = order[a[two][which]], order[b]
        soon = np.abs(self.times[a] - self.times[b]) <= NEAR_S
        a, b = a[soon], b[soon]
        near = distances_m(self.lat[a], self.lng[a], self.lat[b], self.lng[b]) <= NEAR_M
        self.parents.unite(self.group_of[a[near]], self.group_of[b[near]])


def _steps() -> Iterator[tuple[int, int, int, int]]:
    """From a box to itself and to those that touch it, of each pair of ways there and back one."""
    way = (-1, 0, 1)
    yield from (step for step in product(way, way, way, way) if step >= (0, 0, 0, 0))


def _runs(first: Indices, count: Indices) -> tuple[Indices, Indices]:
    """The numbers of runs that begin at ``first``, and before them which run each is of."""
    which = np.repeat(np.arange(len(count)), count)
    before = np.cumsum(count) - count
    return which, np.arange(len(which)) - before[which] + first[which]


def _from_the_middle_m(lat: Floats, lng: Floats) -> Floats:
    """(n, 3) metres from the middle of the earth to places on the ellipsoid.

    A straight line between two is no longer than the geodesic.
    """
    phi, lam, flat = np.radians(lat), np.radians(lng), geod().es
    normal = geod().a / np.sqrt(1 - flat * np.sin(phi) ** 2)
    across = normal * np.cos(phi)
    up = normal * (1 - flat) * np.sin(phi)
    return np.stack([across * np.cos(lam), across * np.sin(lam), up], axis=1)
