"""Scorers: what search asks of each kind of network, with the map's side computed once.

A scorer is a ``belief.search.Scorer`` with ``views``, the region that it searches. Knows
nothing of photos as files, of search or of answers.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from zoomloc.config import SearchConfig
from zoomloc.index import RegionViews
from zoomloc.model.match import MapIndex, MatchModel
from zoomloc.model.residual import ResidualZoom
from zoomloc.model.towers import Towers
from zoomloc.model.zoom import ZoomModel
from zoomloc.scorers.elsewhere import NAME, load_elsewhere
from zoomloc.scorers.mapped import folder_of, open_index
from zoomloc.scorers.matches import MatchScorer
from zoomloc.scorers.residual import ResidualScorer
from zoomloc.scorers.towers import TowersScorer
from zoomloc.scorers.zooms import ZoomScorer


def scorer_of(
    model: nn.Module, views: RegionViews, search: SearchConfig, use_place: bool = True
) -> Any:
    """The scorer for a network over a region; ``use_place``: the region it was trained on."""
    if isinstance(model, Towers):
        return TowersScorer(model, views)
    if isinstance(model, MatchModel):
        return MatchScorer(model, views, search.refined, use_place and model.spec.memory)
    if isinstance(model, ResidualZoom):
        return _residual(model, views, search, use_place)
    assert isinstance(model, ZoomModel)
    return ZoomScorer(model, views, use_place and model.spec.place)


def _residual(
    model: ResidualZoom, views: RegionViews, search: SearchConfig, use_place: bool
) -> ResidualScorer:
    beside, zoom, corrections = None, model.zoom, None
    if model.towers is not None:
        beside = TowersScorer(model.towers, views)
    if zoom is not None and (use_place or not zoom.spec.place):  # else it is of no use here
        corrections = ZoomScorer(zoom, views, zoom.spec.place)
    memory = use_place and model.match.spec.memory
    return ResidualScorer(
        model.match, views, search.refined, memory, beside=beside, corrections=corrections
    )


def with_index(scorer: Any, region: Path, made_by: dict[str, str]) -> Any:
    """The scorer, reading the region's index where there is one of this checkpoint and imagery."""
    if not isinstance(scorer, MatchScorer):
        return scorer
    checkpoint, imagery = made_by["checkpoint"], made_by["imagery"]
    folder = folder_of(region, checkpoint)

    def kept() -> MapIndex | None:
        return open_index(scorer.model, scorer.ground, folder, checkpoint, imagery)

    return replace(scorer, kept=kept)


def with_elsewhere(scorer: Any, run: Path, made_by: dict[str, str]) -> Any:
    """The scorer, with the places of other ground that stand beside its run, if some do."""
    if not isinstance(scorer, MatchScorer):
        return scorer
    path = run / NAME
    return replace(scorer, elsewhere=load_elsewhere(path, scorer.model, made_by["checkpoint"]))


def searching(scorer: Any, search: SearchConfig) -> Any:
    """The scorer with what concerns it of other search settings."""
    if isinstance(scorer, MatchScorer) and scorer.refined != search.refined:
        return replace(scorer, refined=search.refined)
    return scorer
