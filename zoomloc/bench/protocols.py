"""What is trained on and tested on: towns, photos and minutes of each protocol and preset.

Knows nothing of how towns are built nor of what is trained. DESIGN section 8 has the table.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoomloc.errors import ConfigError

FIRST_SEED = 101  # of the towns, unless asked otherwise
PHOTO_PX = (256, 128)  # as rendered; every entrant sees the same files


@dataclass(frozen=True)
class TownPlan:
    """One town with its photos.

    ``role``: ``split`` (train, val and, of another day, test), or all photos of one split.
    """

    seed: int
    size_m: float
    train_photos: int
    test_photos: int
    role: str = "split"
    nuisances: bool = True
    scattered: bool = False
    turns: int = 1  # photos at each stop

    @property
    def name(self) -> str:
        """A folder's name: what is the same town has the same name."""
        kind = "" if self.nuisances else "-plain"
        kind += "-scattered" if self.scattered else ""
        kind += f"-turned-{self.turns}" if self.turns > 1 else ""
        photos = self.train_photos + self.test_photos
        return f"town-{self.seed}-{self.size_m:.0f}m-{photos}-{self.role}{kind}"


@dataclass(frozen=True)
class GroundPlan:
    """A real place whose photos are rendered: only tested on."""

    photos: int
    name: str = "rendered-ground"


Plan = TownPlan | GroundPlan


@dataclass(frozen=True)
class Trial:
    """One protocol with one seed: what is trained on, and what is tested under which name."""

    protocol: str
    seed: int
    minutes: float
    train: tuple[TownPlan, ...]
    val: tuple[TownPlan, ...]
    tests: dict[str, tuple[Plan, ...]]  # protocol -> places
    towns: Any  # as rows name them

    @property
    def places(self) -> tuple[Plan, ...]:
        """All that has to be built."""
        return (*self.train, *self.val, *(p for plans in self.tests.values() for p in plans))


@dataclass(frozen=True)
class Preset:
    """Sizes of a benchmark."""

    name: str
    same_minutes: float
    unseen_minutes: float
    seeds: int
    size_m: float  # of the same-area town
    photos: tuple[int, int]  # train, test
    unseen_size_m: float
    towns: tuple[int, int, int]  # train, val, test
    town_photos: tuple[int, int, int]  # of each such town
    ground_photos: int
    val_photos: int
    looks: int  # validations during a training
    stages: int = 9  # of the sweep, at most
    stage_size: int = 9


PRESETS = {
    p.name: p
    for p in (
        Preset(
            "smoke", 0.06, 0.06, 1, 200, (300, 60), 200, (2, 1, 2), (120, 40, 40), 60, 40, 1, 1, 2
        ),
        Preset(
            "small", 1.5, 2, 1, 1000, (12_000, 1000), 720, (8, 1, 4), (2000, 200, 200), 500, 200, 4
        ),
        Preset(
            "full", 10, 15, 3, 1000, (12_000, 2000), 720, (24, 2, 8), (2500, 200, 250), 1000, 400, 8
        ),
    )
}


@dataclass(frozen=True)
class AnswersPlan:
    """How much is asked in ``zoomloc bench answers``, of towns that the benchmark has too."""

    photos: int  # of each unseen town
    strangers: int  # photos of another town that are asked for in each
    some: int  # photos of each for what is beside the main question
    stops: int  # with four photos each
    larger_m: float  # side of two further towns, for priors
    calibration: tuple[int, int]  # towns, and photos of each

    def test(self, seed: int, size_m: float) -> TownPlan:
        """An unseen town with its photos."""
        return TownPlan(seed, size_m, 0, self.photos, role="test")

    def turned(self, seed: int, size_m: float) -> TownPlan:
        """The same town, four photos at each stop."""
        return TownPlan(seed, size_m, 0, self.stops, role="test", turns=4)

    def fitted(self, preset: Preset, first: int) -> list[TownPlan]:
        """The towns to calibrate on: those of validation, then ones that nothing else uses."""
        train, val, test = preset.towns
        unused = range(first + test + val + train, first + 10_000)
        seeds = [*range(first + test, first + test + val), *unused][: self.calibration[0]]
        count = self.calibration[1]
        return [TownPlan(seed, preset.unseen_size_m, count, 0, role="val") for seed in seeds]


ANSWERS = {
    "smoke": AnswersPlan(16, 8, 4, 2, 300, (1, 24)),
    "small": AnswersPlan(160, 40, 20, 15, 1000, (2, 80)),
    "full": AnswersPlan(640, 160, 80, 60, 1440, (8, 160)),
}
TRIAL_PHOTOS = (20_000, 1000)  # 1 km2, random road points, no nuisances
TRIAL_MINUTES = 7.5
PROTOCOLS = ("same-area", "unseen-town", "rendered-ground", "trial")
TRAINED_AS = {"rendered-ground": "unseen-town"}  # zero-shot: no training of its own


def trials(
    preset: Preset,
    protocols: tuple[str, ...],
    minutes: float | None,
    seeds: int | None,
    town_seeds: tuple[int, int] | None,
) -> list[Trial]:
    """The trainings of a benchmark, and what each is tested on.

    ``town_seeds``: first and last seed of the towns. Raises ConfigError for unknown protocols
    and for too few towns.
    """
    unknown = [p for p in protocols if p not in PROTOCOLS]
    if unknown:
        raise ConfigError(f"protocol {unknown[0]!r} is unknown; take {', '.join(PROTOCOLS)}")
    found = []
    for seed in range(seeds or preset.seeds):
        if "same-area" in protocols:
            found.append(_same_area(preset, seed, minutes, town_seeds))
        if "trial" in protocols:
            found.append(_trial_scale(preset, seed, minutes, town_seeds))
        if {"unseen-town", "rendered-ground"} & set(protocols):
            found.append(_unseen(preset, seed, minutes, town_seeds, protocols))
    return found


def _town_seeds(town_seeds: tuple[int, int] | None) -> range:
    first, last = town_seeds or (FIRST_SEED, FIRST_SEED + 999)
    if not 0 <= first <= last:
        raise ConfigError(f"--town-seeds {first}-{last}: give the first and the last, as 101-134")
    return range(first, last + 1)


def _same_area(
    preset: Preset, seed: int, minutes: float | None, town_seeds: tuple[int, int] | None
) -> Trial:
    seeds = _town_seeds(town_seeds)
    town = TownPlan(seeds[seed % len(seeds)], preset.size_m, *preset.photos)
    budget = minutes or preset.same_minutes
    return Trial("same-area", seed, budget, (town,), (), {"same-area": (town,)}, [town.seed])


def _trial_scale(
    preset: Preset, seed: int, minutes: float | None, town_seeds: tuple[int, int] | None
) -> Trial:
    seeds = _town_seeds(town_seeds)
    photos = preset.photos if preset.name == "smoke" else TRIAL_PHOTOS
    town = TownPlan(
        seeds[seed % len(seeds)], preset.size_m, *photos, nuisances=False, scattered=True
    )
    budget = minutes or (preset.same_minutes if preset.name == "smoke" else TRIAL_MINUTES)
    return Trial("trial", seed, budget, (town,), (), {"trial": (town,)}, [town.seed])


def _unseen(
    preset: Preset,
    seed: int,
    minutes: float | None,
    town_seeds: tuple[int, int] | None,
    protocols: tuple[str, ...],
) -> Trial:
    """The same towns for every seed: what differs is the training."""
    seeds = _town_seeds(town_seeds)
    train, val, test = preset.towns
    train = min(train, len(seeds) - val - test)
    if train < 2:
        raise ConfigError(
            f"--town-seeds {seeds[0]}-{seeds[-1]}: unseen-town needs {val} + {test} towns to "
            f"validate and to test on, and at least 2 to train on; give {val + test + 2} or more"
        )
    plans: list[TownPlan] = []
    for seed_ in seeds[: test + val + train]:
        at = len(plans)
        role = "test" if at < test else "val" if at < test + val else "train"
        count = preset.town_photos[("train", "val", "test").index(role)]
        photos = (0, count) if role == "test" else (count, 0)
        plans.append(TownPlan(seed_, preset.unseen_size_m, *photos, role=role))
    tests: dict[str, tuple[Plan, ...]] = {}
    if "unseen-town" in protocols:
        tests["unseen-town"] = tuple(plans[:test])
    if "rendered-ground" in protocols:
        tests["rendered-ground"] = (GroundPlan(preset.ground_photos),)
    towns = {
        role: f"{chosen[0].seed}-{chosen[-1].seed}"
        for role in ("train", "val", "test")
        if (chosen := [p for p in plans if p.role == role])
    }
    return Trial(
        "unseen-town",
        seed,
        minutes or preset.unseen_minutes,
        tuple(plans[test + val :]),
        tuple(plans[test : test + val]),
        tests,
        towns,
    )


def folder_of(work: Path, plan: Plan) -> Path:
    """Where a place is built."""
    return work / "places" / plan.name
