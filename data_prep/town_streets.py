"""The street network of a synthetic town: pattern, hierarchy, names.

Knows nothing of blocks, buildings or pictures. Points are metres east and south of the north-west
corner.
"""

import heapq
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.random import Generator
from numpy.typing import NDArray
from shapely.geometry import LineString, MultiLineString, MultiPoint, box
from shapely.ops import linemerge, unary_union, voronoi_diagram

F64 = NDArray[np.float64]
PATTERNS = ("grid", "organic", "radial")
MARGIN_M = 90.0  # lines start outside the town, so that streets leave it

NAME_STEMS = (
    "Alder Ash Baker Birch Bridge Canal Castle Cedar Chapel Cherry Church Clay Copper Dyer Elm "
    "Falcon Fern Foundry Garden Glen Hawthorn Heron Hill Hazel Juniper King Lark Lime Linden Maple "
    "Market Meadow Mill Mint Moss Oak Orchard Park Pear Pine Poplar Quarry Queen Raven River Rowan "
    "Saddler School Smith Spring Station Stone Swan Tanner Thorn Tower Vine Walnut Weaver Willow"
).split()
NAME_ENDS = ("Avenue", "Street", "Lane")  # by rank


@dataclass(frozen=True)
class Street:
    """A stretch between two junctions."""

    points: F64  # (N, 2) metres east, south
    rank: int  # 0 arterial, 1 street, 2 lane
    name: str
    shade: float  # brightness of its asphalt, about 1
    nodes: tuple[int, int]  # junctions at its first and last point

    @property
    def width_m(self) -> float:
        """Carriageway, kerb to kerb."""
        return (12.5, 8.0, 5.5)[self.rank]

    @property
    def walk_m(self) -> float:
        """Width of the pavement on each side."""
        return (3.0, 2.2, 1.6)[self.rank]

    @property
    def line(self) -> LineString:
        """The centre line."""
        return LineString(self.points)


def lay_streets(rng: Generator, size_m: float, pattern: str) -> list[Street]:
    """Streets of a square town: one of PATTERNS, warped, thinned and ranked."""
    lines = {"grid": _grid, "organic": _organic, "radial": _radial}[pattern](rng, size_m)
    bend_m = {"grid": 14.0, "organic": 26.0, "radial": 20.0}[pattern]
    warped = MultiLineString(_warp(rng, size_m, lines, bend_m, turn=pattern != "radial"))
    # on a half-metre grid, or lines that nearly meet leave slivers and the network falls apart
    inside = shapely.unary_union(warped.intersection(box(0, 0, size_m, size_m)), grid_size=0.5)
    pieces = [part for part in shapely.get_parts(linemerge(inside)) if part.length > 1]
    pieces = _thin(rng, pieces, size_m)
    return _rank_and_name(rng, pieces, size_m)


def _grid(rng: Generator, size_m: float) -> list[F64]:
    lines = []
    for axis in (0, 1):
        mean_m = rng.uniform(62, 115)
        at = -MARGIN_M - rng.uniform(0, mean_m)
        while at < size_m + MARGIN_M:
            run = np.arange(-2 * MARGIN_M, size_m + 2 * MARGIN_M, 5.0)
            line = np.stack([np.full_like(run, at), run], 1)
            lines.append(line if axis == 0 else line[:, ::-1])
            at += mean_m * rng.uniform(0.65, 1.45)
    return lines


def _radial(rng: Generator, size_m: float) -> list[F64]:
    centre = size_m * (0.5 + rng.uniform(-0.15, 0.15, 2))
    radii = [rng.uniform(36, 56)]
    ring_m = rng.uniform(56, 84)
    while radii[-1] < size_m * 1.1:
        radii.append(radii[-1] + ring_m * rng.uniform(0.75, 1.3))
    lines = []
    for radius in radii:
        angle = np.linspace(0, 2 * np.pi, max(24, int(2 * np.pi * radius / 5)))
        lines.append(centre + radius * np.stack([np.cos(angle), np.sin(angle)], 1))
    # spokes from ring to ring; where the gaps between them grow wide, their number doubles
    spokes, phase = int(rng.integers(6, 9)), rng.uniform(0, 2 * np.pi)
    for inner, outer in zip(radii, radii[1:], strict=False):
        if 2 * np.pi * inner / spokes > 150:
            spokes, phase = spokes * 2, phase + np.pi / spokes
        run = np.linspace(inner - 0.4, outer + 0.4, max(4, int((outer - inner) / 5)))
        for spoke in range(spokes):
            angle = phase + 2 * np.pi * (spoke + 0.1 * np.sin(3.0 * spoke)) / spokes
            lines.append(centre + run[:, None] * [np.cos(angle), np.sin(angle)])
    return lines


def _organic(rng: Generator, size_m: float) -> list[F64]:
    step_m = rng.uniform(66, 92)
    axis = np.arange(-MARGIN_M, size_m + MARGIN_M + step_m, step_m)
    east, south = np.meshgrid(axis, axis)
    east = east + 0.5 * step_m * (np.arange(len(axis)) % 2)[:, None]
    sites = np.stack([east.ravel(), south.ravel()], 1)
    sites = sites + rng.uniform(-0.36, 0.36, sites.shape) * step_m
    edges = voronoi_diagram(MultiPoint(sites), edges=True)
    parts = shapely.get_parts(shapely.segmentize(linemerge(unary_union(edges)), 5.0))
    near = box(-MARGIN_M, -MARGIN_M, size_m + MARGIN_M, size_m + MARGIN_M)
    return [shapely.get_coordinates(part) for part in parts if part.intersects(near)]


def _warp(rng: Generator, size_m: float, lines: list[F64], bend_m: float, turn: bool) -> list[F64]:
    """Bend all lines alike by a smooth field and turn them about the town's middle."""
    waves = rng.uniform(2 * np.pi / 520, 2 * np.pi / 260, (3, 2)) * rng.choice([-1, 1], (3, 2))
    phases = rng.uniform(0, 2 * np.pi, (3, 2))
    angle = rng.uniform(0, np.pi / 2) if turn else 0.0
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    # a turned square reaches less far: stretch, so that streets still fill the corners
    stretch = 1.0 + 0.42 * abs(np.sin(2 * angle))
    bent = []
    for line in lines:
        shift = sum(np.sin(line @ waves[k][:, None] + phases[k]) for k in range(3))
        moved = line + bend_m / 1.7 * np.asarray(shift)
        bent.append((moved - size_m / 2) @ rotation.T * stretch + size_m / 2)
    return bent


def _ends(piece: LineString) -> tuple[tuple[float, float], tuple[float, float]]:
    first, last = piece.coords[0], piece.coords[-1]
    return (round(first[0], 2), round(first[1], 2)), (round(last[0], 2), round(last[1], 2))


def _thin(rng: Generator, pieces: list[LineString], size_m: float) -> list[LineString]:
    """Drop a few stretches, so that blocks differ in size, and what hangs on nothing."""
    degree: dict[tuple[float, float], int] = {}
    for piece in pieces:
        for end in _ends(piece):
            degree[end] = degree.get(end, 0) + 1
    share, kept = rng.uniform(0.03, 0.10), []
    for piece in pieces:
        first, last = _ends(piece)
        loose = min(degree[first], degree[last]) == 1 and piece.length < 30
        spare = min(degree[first], degree[last]) > 3 or (
            degree[first] > 2 and degree[last] > 2 and piece.length < 140
        )
        if loose or (spare and rng.random() < share):
            degree[first] -= 1
            degree[last] -= 1
        else:
            kept.append(piece)
    merged = shapely.get_parts(linemerge(MultiLineString(kept)))
    return _largest_network([part for part in merged if part.length > 3])


def _largest_network(pieces: list[LineString]) -> list[LineString]:
    """The pieces that hang together with the most others."""
    home: dict[tuple[float, float], tuple[float, float]] = {}

    def find(node: tuple[float, float]) -> tuple[float, float]:
        while home.setdefault(node, node) != node:
            node = home[node]
        return node

    for piece in pieces:
        first, last = _ends(piece)
        home[find(first)] = find(last)
    length: dict[tuple[float, float], float] = {}
    for piece in pieces:
        root = find(_ends(piece)[0])
        length[root] = length.get(root, 0.0) + piece.length
    largest = max(length, key=lambda root: length[root])
    return [piece for piece in pieces if find(_ends(piece)[0]) == largest]


def _rank_and_name(rng: Generator, pieces: list[LineString], size_m: float) -> list[Street]:
    numbers: dict[tuple[float, float], int] = {}
    links = []
    for piece in pieces:
        first, last = (numbers.setdefault(end, len(numbers)) for end in _ends(piece))
        links.append((first, last))
    arterial = _arterials(rng, list(numbers), links, [piece.length for piece in pieces], size_m)
    stems = rng.permutation(NAME_STEMS)
    streets = []
    for index, (piece, link) in enumerate(zip(pieces, links, strict=True)):
        rank = 0 if index in arterial else (1 if rng.random() < 0.72 else 2)
        name = f"{stems[index % len(stems)]} {NAME_ENDS[rank]}"
        points = shapely.get_coordinates(shapely.segmentize(piece.simplify(0.3), 6.0))
        streets.append(Street(points, rank, name, float(rng.uniform(0.78, 1.25)), link))
    return streets


def _arterials(
    rng: Generator,
    nodes: list[tuple[float, float]],
    links: list[tuple[int, int]],
    lengths: list[float],
    size_m: float,
) -> set[int]:
    """Stretches of the shortest ways across the town, west-east and north-south."""
    places = np.array(nodes)
    chosen: set[int] = set()
    for axis in (0, 1):
        side = rng.uniform(0.3, 0.7, 2) * size_m
        start, goal = np.array([0.0, side[0]]), np.array([size_m, side[1]])
        if axis:
            start, goal = start[::-1], goal[::-1]
        ends = [int(np.argmin(((places - point) ** 2).sum(1))) for point in (start, goal)]
        chosen |= set(_shortest(links, lengths, ends[0], ends[1]))
    return chosen


def _shortest(
    links: list[tuple[int, int]], lengths: list[float], start: int, goal: int
) -> list[int]:
    """Stretches of the shortest way (Dijkstra)."""
    beside: dict[int, list[tuple[int, int]]] = {}
    for index, (a, b) in enumerate(links):
        beside.setdefault(a, []).append((b, index))
        beside.setdefault(b, []).append((a, index))
    came: dict[int, tuple[int, int]] = {}
    queue, done = [(0.0, start, -1, -1)], set()
    while queue:
        far, node, before, by = heapq.heappop(queue)
        if node in done:
            continue
        done.add(node)
        came[node] = (before, by)
        for other, index in beside[node]:
            if other not in done:
                heapq.heappush(queue, (far + lengths[index], other, node, index))
    way, node = [], goal
    while node != start and node in came:
        node, by = came[node]
        way.append(by)
    return way
