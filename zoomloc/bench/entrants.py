"""Who takes part: each entrant is a packaged config and the settings that are swept for it.

Knows nothing of towns or of how a run is carried out. Rows of chance have no config.
"""

from dataclasses import dataclass
from typing import Any

from zoomloc.config import Config, load_config
from zoomloc.errors import ConfigError

GRID_OF_RATES = (2e-3, 4e-3, 8e-3)  # the same for every entrant
CHANCE = ("constant", "random-road")
Settings = dict[str, Any]  # "train.lr": 0.0008


@dataclass(frozen=True)
class Entrant:
    """A name, its config, and stages of settings: the best of a stage is kept for the next."""

    name: str
    config: str
    stages: tuple[tuple[Settings, ...], ...]
    centre: bool = False  # the centre of the last cell is reported beside, the paper's own answer

    def build(self, settings: Settings) -> Config:
        """Its config with these settings."""
        return load_config([self.config], [f"{key}={value}" for key, value in settings.items()])


_RATES: tuple[Settings, ...] = tuple({"train.lr": rate} for rate in GRID_OF_RATES)
_TURNED: tuple[Settings, ...] = ({"train.augment.turn": True, "train.augment.mirror": True},)
_CONTEXT: tuple[Settings, ...] = (
    {"model.towers.context_m": 48.0},
    {"model.towers.context_m": 96.0},
)
_NO_ZOOM: Settings = {
    "model.residual.zoom": False,
    "model.match.straight": 0.0,
    "search.method": "exhaustive",
}
_NO_TOWERS: Settings = {"model.residual.towers_share": 0.0}
_PARTS: tuple[Settings, ...] = (_NO_ZOOM, _NO_TOWERS, _NO_ZOOM | _NO_TOWERS)

ENTRANTS = {
    e.name: e
    for e in (
        Entrant("justzoomin", "models/justzoomin", (_RATES,), centre=True),
        Entrant("retrieval", "models/retrieval", (_RATES, _CONTEXT, _TURNED)),
        Entrant("hierarchical", "models/hierarchical", (_RATES, _CONTEXT, _TURNED)),
        Entrant("match", "models/match", (_RATES,)),
        Entrant("zoomloc", "models/zoomloc", (_RATES, _PARTS)),
    )
}


# what zoomloc's sweep takes in a town of its own; its answers are looked at in ``bench answers``
ANSWERING = Entrant("answers", "models/zoomloc", (({"train.lr": 4e-3} | _PARTS[2],),))

_USUAL_RATE = 8e-3  # what the match's sweep takes; ablations are not swept each
_CHANGES: dict[str, Settings] = {  # what is changed of the match, one thing at a time
    "as-is": {},
    "no-layers": {"model.match.layers": 0.0},
    "no-turn": {"model.match.turn": False},
    "no-mirror": {"model.match.mirror": False},
    "no-ensemble": {"model.match.ensemble": False},
    "no-rescale": {"model.match.rescale": 0.0},
    "no-heading": {"model.match.heading": 0.0},
    "no-colour": {"train.augment.photo_colour": 0.0, "train.augment.view_colour": 0.0},
    "no-erase": {"train.augment.photo_erase": 0.0},
    "no-average": {"train.ema": 0.0},
    "adamw": {"train.optimizer": "adamw", "train.lr": 1.6e-3},
    "no-exact": {"model.match.exact": False},
    "slices-32": {"model.match.slices": 32, "model.match.fan": 9},
    "channels-8": {"model.match.channels": 8},
    "channels-32": {"model.match.channels": 32},
    "vector": {"model.match.descriptor": 64},
    "batch-64": {"train.batch": 64},
    "lattice-16m": {"model.match.lattice": 4},
    "sigma-5": {"train.sigma_m": 5.5},
}
_ZOOM_RATE = 4e-3  # what zoomloc's sweep takes in a town of its own, and the paper's model too
_BESIDE: dict[str, Settings] = {  # what may stand beside the match and on it
    "plus-towers": _NO_ZOOM,
    "plus-zoom": _NO_TOWERS,
    "plus-both": {},
}
_PAPER: dict[str, Settings] = {  # the paper's model, with what autoregressive peers do
    "as-is": {},
    "rollout": {"train.rollout_share": 0.3},  # prefixes of its own, against exposure bias
    "soft": {"train.targets": "soft", "train.label_smoothing": 0.0},  # a path drawn near the truth
    "beam": {"search.method": "beam", "search.beam": 8},
    "pointer": {"model.head": "both"},  # children are also scored by their own tokens
}
ABLATIONS = {
    e.name: e
    for entrant, config, rate, table in (
        ("zoomloc", "models/match", _USUAL_RATE, _CHANGES),
        ("zoomloc", "models/zoomloc", _ZOOM_RATE, _BESIDE),
        ("justzoomin", "models/justzoomin", _ZOOM_RATE, _PAPER),
    )
    for e in (
        Entrant(f"{entrant}-{what}", config, (({"train.lr": rate} | changes,),))
        for what, changes in table.items()
    )
}


def entrants(names: tuple[str, ...]) -> list[Entrant]:
    """The entrants and ablations of these names; all entrants where none is given.

    Raises ConfigError.
    """
    known = ENTRANTS | ABLATIONS
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(f"entrant {unknown[0]!r} is unknown; take {', '.join(known)}")
    return [known[name] for name in names or ENTRANTS]
