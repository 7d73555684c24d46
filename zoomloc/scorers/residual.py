"""The match with two towers beside it and a zoom on top, as a Scorer.

Knows nothing of search or of answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from zoomloc.scorers.dense import DenseState
from zoomloc.scorers.matches import MatchScorer, MatchState
from zoomloc.scorers.shown import Shown
from zoomloc.scorers.towers import TowersScorer
from zoomloc.scorers.zooms import ZoomScorer, ZoomState
from zoomloc.world.cells import Cell, Floats, Ints


@dataclass
class ResidualState(MatchState):
    """The match's scores, and what f makes of the photos."""

    zoom: ZoomState = field(default_factory=lambda: ZoomState(torch.empty(0)))


@dataclass
class ResidualScorer(MatchScorer):
    """A match; ``beside``: towers whose scores are added; ``corrections``: f on top, None where it
    is to be silent, as in ground it never saw.
    """  # noqa: D205

    beside: TowersScorer | None = None
    corrections: ZoomScorer | None = None

    @torch.inference_mode()
    def start(self, photos: Sequence[Shown]) -> MatchState:
        """Photos -> the match's scores of all cells, and what f needs."""
        state = super().start(photos)
        if self.corrections is None:
            return state
        zoom = self.corrections.start(photos)
        return ResidualState(state.scores, state.looks, state.better_here, zoom)

    def _leaves(self, photos: Sequence[Shown], matched: Floats) -> Floats:
        if self.beside is None:
            return matched
        return np.asarray(matched + self.beside.start(photos).scores[-1])

    def roots(self, state: DenseState) -> Floats:
        """(B, R) log-scores of the roots that have imagery."""
        found = super().roots(state)
        if self.corrections is None or not isinstance(state, ResidualState):
            return found
        return np.asarray(found + self.corrections.roots(state.zoom))

    def children(self, state: DenseState, photo_index: Ints, cells: Sequence[Cell]) -> Floats:
        """(n, K) log-scores of the children of each cell, -inf without imagery."""
        found = super().children(state, photo_index, cells)
        if self.corrections is None or not isinstance(state, ResidualState):
            return found
        return np.asarray(found + self.corrections.children(state.zoom, photo_index, cells))

    def leaves(self, state: DenseState) -> Floats | None:  # type: ignore[override]
        """All terminal cells at once; None where f hangs on the path to each of them."""
        return super().leaves(state) if self.corrections is None else None
