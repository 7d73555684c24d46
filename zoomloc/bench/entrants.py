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

ENTRANTS = {
    e.name: e
    for e in (
        Entrant("justzoomin", "models/justzoomin", (_RATES,), centre=True),
        Entrant("retrieval", "models/retrieval", (_RATES, _CONTEXT, _TURNED)),
        Entrant("hierarchical", "models/hierarchical", (_RATES, _CONTEXT, _TURNED)),
        Entrant("match", "models/match", (_RATES,)),
        Entrant("zoomloc", "models/zoomloc", (_RATES,)),
    )
}


def entrants(names: tuple[str, ...]) -> list[Entrant]:
    """The entrants of these names; all where none is given. Raises ConfigError."""
    unknown = [name for name in names if name not in ENTRANTS]
    if unknown:
        raise ConfigError(f"entrant {unknown[0]!r} is unknown; take {', '.join(ENTRANTS)}")
    return [ENTRANTS[name] for name in names or ENTRANTS]
