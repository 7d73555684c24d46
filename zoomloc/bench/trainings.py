"""One entrant trained and scored in a process of its own, so that its time is its own.

Knows nothing of presets, sweeps or rows; everything that passes in and out is plain data.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoomloc.bench.scoring import figures, groups_of, of_errors, photos_hash, score, test_photos
from zoomloc.checkpoint import best_checkpoint, load_explained
from zoomloc.config import Config
from zoomloc.training.loop import train


@dataclass(frozen=True)
class Training:
    """A run to be trained: its config, where it is kept, where it learns and is validated."""

    config: Config
    run: Path
    minutes: float
    seed: int
    train: tuple[Path, ...]
    val: tuple[Path, ...]
    val_photos: int
    looks: int  # validations on the way

    def whole(self) -> Config:
        """The config with everything that makes the budget fair: clock, threads, minutes."""
        train = self.config.train.model_copy(
            update={
                "seed": self.seed,
                "max_minutes": self.minutes,
                "clock": "process",
                "threads": 1,
                "val_photos": self.val_photos,
                "val_every_minutes": self.minutes / self.looks,
                "keep": 1,
            }
        )
        changes: dict[str, Any] = {"train": train, "data": self.train[0], "name": self.run.name}
        if len(self.train) > 1:  # where an absolute place means nothing
            changes["regions"] = self.train
            changes["model"] = self.config.model.model_copy(update={"place": False})
        return self.config.model_copy(update=changes | {"val_regions": self.val})


@dataclass(frozen=True)
class Trained:
    """What is known of a finished run."""

    val: dict[str, float]
    seconds: float
    steps: int
    photos_seen: int
    params: int
    curve: list[dict[str, float]]
    val_n: int


def carry_out(training: Training) -> Trained:
    """Train (or take up, or find finished) and say how it went."""
    summary = train(training.whole(), training.run)
    explained = load_explained(best_checkpoint(training.run))
    looks = [row for row in _log(training.run) if "val" in row]
    best = explained.metrics["val"]
    return Trained(
        val={name: float(figure["value"]) for name, figure in best.items()},
        seconds=summary.seconds,
        steps=summary.step,
        photos_seen=summary.photos_seen,
        params=summary.parameters,
        curve=[
            {"seconds": row["seconds"], "r_at_50m": row["val"]["r_at_50m"]["value"]}
            for row in looks
        ],
        val_n=int(best["r_at_50m"]["n"]),
    )


def _log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def goodness(val: dict[str, float]) -> float:
    """What a sweep decides by: how little of the ground is searched before the truth is met.

    Minus the mean log10 share on val. After a tenth of a training recall is mostly noise.
    """
    return -val["log10_searched_share"]


def carry_out_and_score(
    training: Training, tests: dict[str, tuple[Path, ...]], centre: bool
) -> tuple[Trained, dict[str, dict[str, Any]]]:
    """A run, then its scores on the places of each protocol: {protocol: {...}}."""
    trained = carry_out(training)
    found: dict[str, dict[str, Any]] = {}
    for protocol, places in tests.items():
        tables = test_photos(places)
        groups = groups_of(tables, by_place=protocol == "unseen-town")
        scores = score(training.run, places, centre)
        metrics, details = figures(scores, groups)
        details["photos_hash"] = photos_hash(tables)
        found[protocol] = {"metrics": metrics, "details": details}
        if centre:
            metrics, details = of_errors(scores.centres_m, groups)
            details["photos_hash"] = photos_hash(tables)
            found[protocol]["centre"] = {"metrics": metrics, "details": details}
    return trained, found
