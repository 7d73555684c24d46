"""``zoomloc bench accuracy``: entrants side by side on one protocol after the other.

Towns come from a builder that is handed over; each training runs in a process of its own with
one thread and the same process time, after a sweep at a tenth of it. Finished rows stay, so
that a long benchmark resumes anywhere. Knows nothing of how towns are made.
"""

import math
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from zoomloc.bench.entrants import CHANCE, Entrant, Settings
from zoomloc.bench.protocols import Plan, Preset, Trial, folder_of
from zoomloc.bench.rows import Row, find, key_of, merge, read_rows, write_rows
from zoomloc.bench.scoring import chance_errors, groups_of, of_errors, photos_hash, test_photos
from zoomloc.bench.trainings import (
    Trained,
    Training,
    carry_out,
    carry_out_and_score,
    goodness,
)
from zoomloc.config import Config
from zoomloc.errors import ConfigError
from zoomloc.evaluate import machine
from zoomloc.locator import config_hash
from zoomloc.training.pixels import store_pixels
from zoomloc.world.files import read_json, write_json
from zoomloc.world.processes import worker_pool

SWEEP_SHARE = 0.1  # of the budget, for each setting that is tried
GROUPED_BY = {"same-area": "drive", "trial": "drive", "unseen-town": "town"}
Builder = Callable[[Plan, Path], None]
Say = Callable[[str], None]


@dataclass
class Bench:
    """A benchmark under way: where it works, what it has found."""

    preset: Preset
    out: Path  # benchmark.json
    work: Path  # towns and runs
    jobs: int
    say: Say
    rows: list[Row] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def run(self, trials: Sequence[Trial], entrants: Sequence[Entrant], build: Builder) -> None:
        """Build the places, fill in the rows that are missing, write each as it is done."""
        self.rows = read_rows(self.out / "benchmark.json")
        missing = [
            (trial, entrant)
            for trial in trials
            for entrant in entrants
            if any(self._lacks(trial, protocol, entrant.name) for protocol in trial.tests)
        ]
        for place in dict.fromkeys(p for trial in trials for p in trial.places):
            build(place, folder_of(self.work, place))
        self._store_pixels(missing)
        for trial in trials:
            self._chance(trial)
        with (
            worker_pool(self.jobs, interruptible=True) as pool,
            ThreadPoolExecutor(max(1, len(missing))) as threads,
        ):
            sweeps = _Sweeps(self, pool)
            # a thread for each row waits for its sweep, then for its training; work is done by pool
            done = [threads.submit(self._fill, pool, sweeps, *pair) for pair in missing]
            for future in done:
                future.result()

    def _store_pixels(self, missing: Sequence[tuple[Trial, Entrant]]) -> None:
        """Decode training photos once for all: decoding is the same work for every entrant."""
        wanted = {
            (folder_of(self.work, place), entrant.build({}).model.photo_px)
            for trial, entrant in missing
            for place in trial.train
        }
        with worker_pool(self.jobs, interruptible=True) as pool:
            list(pool.map(store_pixels, *zip(*sorted(wanted), strict=True)) if wanted else [])

    def _lacks(self, trial: Trial, protocol: str, entrant: str) -> bool:
        return self._found(trial, protocol, entrant) is None

    def _found(self, trial: Trial, protocol: str, entrant: str) -> Row | None:
        key = key_of(entrant, protocol, trial.seed, self.preset.name, trial.minutes, trial.towns)
        return find(self.rows, key)

    def _fill(self, pool: Executor, sweeps: "_Sweeps", trial: Trial, entrant: Entrant) -> None:
        """Sweep (once for all seeds), train, score, write."""
        settings, tried = sweeps.best(entrant, trial)
        run = self.work / "runs" / _name(trial, entrant, self.preset)
        training = self.training(trial, entrant.build(settings), run, trial.minutes)
        tests = {
            protocol: tuple(folder_of(self.work, place) for place in places)
            for protocol, places in trial.tests.items()
        }
        trained, found = pool.submit(carry_out_and_score, training, tests, entrant.centre).result()
        about = _about(training.config, trained, settings, tried)
        for protocol, got in found.items():
            self._add(trial, protocol, entrant.name, got, about, trained, training.config)
            if "centre" in got:
                name = f"{entrant.name}-centre"
                self._add(trial, protocol, name, got["centre"], about, trained, training.config)

    def training(self, trial: Trial, config: Config, run: Path, minutes: float) -> Training:
        """A training of a trial for so many minutes."""
        return Training(
            config,
            run,
            minutes,
            trial.seed,
            tuple(folder_of(self.work, place) for place in trial.train),
            tuple(folder_of(self.work, place) for place in trial.val),
            self.preset.val_photos,
            self.preset.looks if minutes == trial.minutes else 1,
        )

    def _add(
        self,
        trial: Trial,
        protocol: str,
        entrant: str,
        got: dict[str, Any],
        about: dict[str, Any],
        trained: Trained,
        config: Config,
    ) -> None:
        details = about | got["details"] | {"grouped_by": GROUPED_BY.get(protocol, "drive")}
        self.add_row(
            Row(
                entrant,
                protocol,
                trial.seed,
                self.preset.name,
                trial.minutes,
                trial.towns,
                round(trained.seconds, 1),
                trained.params,
                len(details["errors_m"]),
                got["metrics"],
                commit(),
                config_hash(config),
                details,
            )
        )

    def add_row(self, row: Row) -> None:
        """Take a finished row in and write all of them."""
        with self._lock:
            self.rows = merge(self.rows, [row])
            write_rows(self.out / "benchmark.json", self.rows)
        recall = row.metrics["r_at_50m"]
        self.say(
            f"{row.protocol}, seed {row.seed}: {row.entrant} {recall['value']:.1%} within 50 m "
            f"({recall['lo']:.1%} – {recall['hi']:.1%}, n {row.n})"
        )

    def _chance(self, trial: Trial) -> None:
        """Rows of chance on each protocol of a trial."""
        for protocol, plans in trial.tests.items():
            places = [folder_of(self.work, plan) for plan in plans]
            for name in CHANCE:
                if not self._lacks(trial, protocol, name):
                    continue
                tables = test_photos(places)
                groups = groups_of(tables, by_place=protocol == "unseen-town")
                metrics, details = of_errors(chance_errors(name, places, trial.seed), groups)
                details |= {"photos_hash": photos_hash(tables)}
                none = Trained({}, 0.0, 0, 0, 0, [], 0)
                got = {"metrics": metrics, "details": details}
                self._add(trial, protocol, name, got, _stamp(), none, Config())


class _Sweeps:
    """The settings of each entrant on each protocol, tried once and kept."""

    def __init__(self, bench: Bench, pool: Executor) -> None:
        self.bench, self.pool = bench, pool
        self._locks: dict[tuple[str, str], Lock] = {}
        self._guard = Lock()

    def best(self, entrant: Entrant, trial: Trial) -> tuple[Settings, list[dict[str, Any]]]:
        """Best settings on val, and all that were tried. Seeds share them: the first decides."""
        with self._guard:
            lock = self._locks.setdefault((entrant.name, trial.protocol), Lock())
        with lock:
            known = self._in_rows(entrant, trial)
            if known is not None:
                return known
            file = self.bench.work / "sweeps" / f"{_label(trial, entrant, self.bench.preset)}.json"
            if not file.is_file():
                settings, tried = self._sweep(entrant, trial)
                write_json(file, {"schema": "zoomloc/sweep/1", "best": settings, "tried": tried})
            found = read_json(file, "zoomloc/sweep/1", ConfigError)
            return found["best"], found["tried"]

    def _in_rows(
        self, entrant: Entrant, trial: Trial
    ) -> tuple[Settings, list[dict[str, Any]]] | None:
        """The settings of a finished row of another seed, wherever it was made."""
        for row in self.bench.rows:
            same = (row.entrant, row.preset, row.minutes) == (
                entrant.name,
                self.bench.preset.name,
                trial.minutes,
            )
            if same and row.protocol in trial.tests and row.details.get("settings"):
                return row.details["settings"], row.details["sweep"]
        return None

    def _sweep(self, entrant: Entrant, trial: Trial) -> tuple[Settings, list[dict[str, Any]]]:
        if all(len(stage) == 1 for stage in entrant.stages):  # nothing to choose
            return {key: value for (only,) in entrant.stages for key, value in only.items()}, []
        best: Settings = {}
        best_value = -math.inf
        tried: list[dict[str, Any]] = []
        for stage in entrant.stages[: self.bench.preset.stages]:
            wishes = [best | change for change in stage[: self.bench.preset.stage_size]]
            minutes = trial.minutes * SWEEP_SHARE
            futures = [
                self.pool.submit(
                    carry_out,
                    self.bench.training(
                        trial,
                        entrant.build(wish),
                        self.bench.work
                        / "runs"
                        / f"sweep-{_name(trial, entrant, self.bench.preset)}-{len(tried) + i}",
                        minutes,
                    ),
                )
                for i, wish in enumerate(wishes)
            ]
            for wish, future in zip(wishes, futures, strict=True):
                val = future.result().val
                tried.append(
                    {"settings": wish, "val_r_at_50m": val["r_at_50m"], "decides": goodness(val)}
                )
                if goodness(val) > best_value:
                    best, best_value = wish, goodness(val)
        self.bench.say(
            f"{trial.protocol}: {entrant.name} takes {best} (searches {10**-best_value:.2%} of val)"
        )
        return best, tried


def _about(
    config: Config, trained: Trained, settings: Settings, tried: list[dict[str, Any]]
) -> dict[str, Any]:
    """What a row says of its training."""
    sweep = [{k: t[k] for k in ("settings", "val_r_at_50m")} for t in tried]
    return _stamp() | {
        "lr": settings.get("train.lr", config.train.lr),
        "sweep": sweep,
        "settings": settings,
        "steps": trained.steps,
        "photos_seen": trained.photos_seen,
        "threads": 1,
        "curve": trained.curve,
        "val_n": trained.val_n,
    }


def _stamp() -> dict[str, Any]:
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return {"created": created, "machine": machine() | {"threads": 1}}


def _name(trial: Trial, entrant: Entrant, preset: Preset) -> str:
    """A run's name: another one for every seed and every first town."""
    return f"{_label(trial, entrant, preset)}-town{trial.train[0].seed}-{trial.seed}"


def _label(trial: Trial, entrant: Entrant, preset: Preset) -> str:
    """What shares one sweep: a protocol's seeds, each of which may have a town of its own."""
    towns = f"{trial.train[0].seed}-{trial.train[-1].seed}" if len(trial.train) > 1 else "one"
    return f"{preset.name}-{trial.protocol}-{trial.minutes:g}min-{towns}-{entrant.name}"


def commit() -> str:
    """The commit that the figures were made with, marked where files were changed since."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("-dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "0000000"


def _git(*words: str) -> str:
    folder = Path(__file__).resolve().parent
    done = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.strip()
