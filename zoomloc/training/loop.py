"""The training loop: Muon or AdamW, warm-up and cosine, EMA, real rollouts for validation, resume.

Knows nothing of where photos and imagery came from. A run that is stopped and started again
ends with the same weights as one that was not (on CPU, where ``max_minutes`` is not set):
what is random in a step follows from the seed and the step's number.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoomloc.belief.metrics import bootstrap_over_groups
from zoomloc.checkpoint import Explained, encoders_of, save_checkpoint, weights_of
from zoomloc.config import Config, TrainConfig
from zoomloc.errors import ConfigError, PhotoError
from zoomloc.evaluate import error_report
from zoomloc.index import RegionViews
from zoomloc.locator import Locator, Query, open_views
from zoomloc.scorers import scorer_of
from zoomloc.training.dataset import Ground
from zoomloc.training.learner import Learner, build_learner
from zoomloc.training.memory import keep_memory
from zoomloc.training.start import begin
from zoomloc.training.state import (
    TrainState,
    fresh_state,
    known_encoders,
    numbered_checkpoints,
    resume,
)
from zoomloc.world.answers import Answer
from zoomloc.world.files import write_text
from zoomloc.world.photos import Photo, read_photos, split_hash
from zoomloc.world.region import Region

SAVE_EVERY_S = 60.0


@dataclass(frozen=True)
class Progress:
    """What the loop tells while it runs."""

    step: int
    share: float  # of the run, 0..1
    loss: float
    photos_per_s: float
    val_r50: float | None


@dataclass(frozen=True)
class TrainSummary:
    """How a run ended."""

    run: Path
    step: int
    seconds: float
    photos: int  # to learn from
    photos_seen: int  # over all steps
    outside: int
    parameters: int
    val_r50: float
    resumed: bool
    skipped: bool


def train(
    config: Config, run: Path, progress: Callable[[Progress], None] | None = None
) -> TrainSummary:
    """Train a run to its end, or take it up where it was left.

    Raises PhotoError without photos of the splits train and val, ConfigError where the run
    was started with another config.
    """
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    keep_memory()
    data = _open(config)
    encoders = known_encoders(run, config, data.imagery, data.split)
    state = fresh_state(config, data.region, encoders)
    learner = build_learner(config, state.model, data.grounds)
    state.memory = learner.memory()
    resumed = resume(run, state)
    if not resumed:
        begin(state, config, data.learned)
    learner.recall(state.memory)
    loop = _Loop(config, run, data, learner, state, progress)
    if not state.finished:
        write_text(run / "config.yaml", config.to_yaml())
        loop.run_to_end()
    return TrainSummary(
        run,
        state.step,
        state.seconds,
        sum(len(g.photos) for g in data.grounds),
        state.photos_seen,
        sum(g.outside for g in data.grounds),
        sum(p.numel() for p in state.model.parameters()),
        state.best_r50,
        resumed,
        skipped=resumed and loop.steps_done == 0,
    )


@dataclass(frozen=True)
class _Val:
    """Photos of one region to validate on."""

    views: RegionViews
    queries: list[Query]
    drives: list[str]


@dataclass(frozen=True)
class _Data:
    """What a run learns from and is validated on."""

    grounds: list[Ground]
    val: list[_Val]
    learned: list[tuple[str, str]]  # hashes of imagery and split of each region

    @property
    def imagery(self) -> str:
        """One hash over all regions trained on."""
        return _joined([imagery for imagery, _ in self.learned])

    @property
    def split(self) -> str:
        """One hash over the photos of all regions."""
        return _joined([split for _, split in self.learned])

    @property
    def region(self) -> Region:
        """The region that stands for all in the checkpoint: the first."""
        return self.grounds[0].views.region


def _open(config: Config) -> _Data:
    """Regions and photos of a config. Raises PhotoError without photos of train or val."""
    folders = config.regions or (config.data,)
    views = [open_views(folder, config) for folder in folders]
    tables = [read_photos(folder / "photos.parquet") for folder in folders]
    grounds = [
        Ground(_of_split(table, "train"), view, config.model.photo_px)
        for table, view in zip(tables, views, strict=True)
    ]
    held = [*zip(tables, views, strict=True)]
    if config.val_regions:
        held = [
            (read_photos(folder / "photos.parquet"), open_views(folder, config))
            for folder in config.val_regions
        ]
    each = math.ceil(config.train.val_photos / len(held))
    return _Data(
        grounds,
        [_val_of(_every_few(_of_split(table, "val"), each), view) for table, view in held],
        [
            (view.pyramid.imagery_hash(), split_hash(table))
            for table, view in zip(tables, views, strict=True)
        ],
    )


def _val_of(photos: list[Photo], views: RegionViews) -> _Val:
    # true_ columns are for benchmarks only
    queries = [Query(p.id, p.path, p.place, p.fov_deg, p.projection) for p in photos]
    drives = [f"{views.region.name}/{p.sequence_id}" for p in photos]
    return _Val(views, queries, drives)


def _joined(hashes: Sequence[str]) -> str:
    """The hash of one, or one hash of several."""
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]


@dataclass
class _Loop:
    """One run of the loop."""

    config: Config
    run: Path
    data: _Data
    learner: Learner
    state: TrainState
    progress: Callable[[Progress], None] | None
    steps_done: int = 0
    _helper: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _next: "Future[Any]" = field(default_factory=Future)

    def run_to_end(self) -> None:
        """Step until the budget is spent; validate and save on the way."""
        plan = self.config.train
        clock = time.process_time if plan.clock == "process" else time.monotonic
        at_start, seen = self.state.seconds, self.state.photos_seen
        saved, validated = time.monotonic(), clock()
        mark = clock()
        self._prepare_next()
        while (share := self._share()) < 1:
            loss = self._step(share)
            self.state.step += 1
            self.steps_done += 1
            self._prepare_next()
            self.state.seconds += clock() - mark
            mark = clock()
            now = time.monotonic()
            if self._is_due(mark - validated):
                self._validate()
                saved = time.monotonic()
                mark = validated = clock()  # to look and to save is not training
            elif now - saved > SAVE_EVERY_S:
                self._save_last()
                saved = time.monotonic()
                mark = clock()
            spent = max(self.state.seconds - at_start, 1e-9)
            self._tell(loss, (self.state.photos_seen - seen) / spent)
        self.state.finished = True
        self._validate()
        self._helper.shutdown()

    def _share(self) -> float:
        """How much of the budget is spent, 0..1."""
        plan = self.config.train
        minutes = plan.max_minutes
        return max(
            self.state.step / plan.steps, self.state.seconds / 60 / minutes if minutes else 0.0
        )

    def _is_due(self, since_s: float) -> bool:
        plan = self.config.train
        if plan.val_every_steps:
            return self.state.step % plan.val_every_steps == 0
        return since_s > plan.val_every_minutes * 60

    def _step(self, share: float) -> float:
        """One update of the weights; its loss."""
        plan, state = self.config.train, self.state
        for group in state.optimizer.param_groups:
            group["lr"] = plan.lr * schedule(share, plan) * group["rate"]
        state.optimizer.zero_grad(set_to_none=True)
        value = self._gradients(plan)
        state.scaler.unscale_(state.optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(state.trained, plan.clip))
        usable = math.isfinite(norm) or state.scaler.is_enabled()  # which skips what overflows
        if not (math.isfinite(value) and usable):
            raise ConfigError(  # before it gets into the weights
                f"run {self.run}: loss {value}, gradient {norm} at step "
                f"{state.step}; lower train.lr ({plan.lr})"
            )
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.average(plan.ema)
        return value

    def _gradients(self, plan: TrainConfig) -> float:
        """Gradients of the batches that one step is made of; their mean loss."""
        total = 0.0
        first = self.state.step * plan.accumulate
        for number in range(first, first + plan.accumulate):
            batch = self._next.result()
            if number + 1 < first + plan.accumulate:
                self._assemble(number + 1)
            torch.manual_seed(plan.seed * 1_000_003 + number)
            self.state.model.train()
            loss = self.learner.loss(batch) / plan.accumulate
            self.state.scaler.scale(loss).backward()
            total += float(loss.detach())
            self.state.photos_seen += len(batch.photos)
        return total

    def _prepare_next(self) -> None:
        """What comes before the next step, and its first batch."""
        self.learner.prepare(self._share())
        self._assemble(self.state.step * self.config.train.accumulate)

    def _assemble(self, number: int) -> None:
        """A batch, beside the arithmetic unless it needs the weights."""
        if self.learner.needs_weights:
            self._next = Future()
            self._next.set_result(self.learner.batch(number))
        else:
            self._next = self._helper.submit(self.learner.batch, number)

    def _validate(self) -> None:
        """Roll out on val with the averaged weights; keep the best, save the state."""
        wait([self._next])  # the pyramid is read by one thread at a time
        metrics = self._rolled_out()
        goodness = float(metrics[self.config.train.select_by]["value"])
        self.state.log.append(
            {"step": self.state.step, "seconds": round(self.state.seconds, 1), "val": metrics}
        )
        if goodness >= self.state.best:
            self.state.best = goodness
            self.state.best_r50 = float(metrics["r_at_50m"]["value"])
            explained = self._explained({"val": metrics})
            weights = weights_of(self.state.averaged)
            save_checkpoint(self.run / "checkpoint-best.safetensors", weights, explained)
        self._save_last()

    def _rolled_out(self) -> dict[str, dict[str, Any]]:
        """Metrics of a search for every val photo, all regions together."""
        answers: list[Answer] = []
        drives: list[str] = []
        shares: list[float] = []
        for val in self.data.val:
            scorer = scorer_of(self.state.averaged, val.views, self.config.search)
            locator = Locator(scorer, self.config.model.photo_px, self.config.search, {})
            for query, found in locator.each(val.queries):
                answers.append(locator.answer(query, found, {}))
                shares.append(found.posterior.searched_share(query.truth or found.place))
            drives += val.drives
        # of two poor models it tells the better one long before any recall does
        searched = bootstrap_over_groups(np.log10(np.maximum(shares, 1e-9)), drives, "mean", seed=0)
        return error_report(answers, drives) | {"log10_searched_share": searched.to_json()}

    def _save_last(self) -> None:
        """Save the whole state, keep the newest few, write the log."""
        self.state.memory = self.learner.memory()
        lines = [json.dumps(row) for row in self.state.log]
        write_text(self.run / "metrics.jsonl", "\n".join(lines) + "\n" if lines else "")
        path = self.run / f"checkpoint-{self.state.step:08d}.safetensors"
        explained = self._explained(
            {
                "best": self.state.best,
                "best_r_at_50m": self.state.best_r50,
                "finished": self.state.finished,
            }
        )
        save_checkpoint(path, self.state.tensors(), explained)
        for old in numbered_checkpoints(self.run)[: -self.config.train.keep]:
            old.with_suffix(".json").unlink(missing_ok=True)
            old.unlink(missing_ok=True)

    def _explained(self, metrics: dict[str, Any]) -> Explained:
        regions = [g.views.region for g in self.data.grounds]
        return Explained(
            self.config,
            self.data.region,
            self.state.step,
            self.state.seconds,
            self.state.photos_seen,
            self.data.imagery,
            self.data.split,
            metrics,
            tuple(dict.fromkeys(a for region in regions for a in region.attribution)),
            "; ".join(dict.fromkeys(r.licence for r in regions if r.licence)),
            encoders_of(self.state.model),
            learned=tuple(dict.fromkeys([*self.state.learned, *self.data.learned])),
        )

    def _tell(self, loss: float, photos_per_s: float) -> None:
        row = {
            "step": self.state.step,
            "seconds": round(self.state.seconds, 1),
            "loss": round(loss, 4),
        }
        if self.state.step % 20 == 0:
            self.state.log.append(row)
        if self.progress is not None:
            self.progress(
                Progress(
                    self.state.step,
                    min(1.0, self._share()),
                    loss,
                    photos_per_s,
                    self.state.best_r50 if self.state.best_r50 >= 0 else None,
                )
            )


def schedule(share: float, plan: TrainConfig) -> float:
    """Learning rate as a share of its peak: linear warm-up, then cosine to the floor."""
    if share < plan.warmup:
        return max(share / plan.warmup, 1e-3)
    along = (share - plan.warmup) / max(1e-9, 1 - plan.warmup)
    return plan.lr_floor + (1 - plan.lr_floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, along)))


def _of_split(table: list[Photo], split: str) -> list[Photo]:
    chosen = [p for p in table if p.split == split]
    if not chosen:
        raise PhotoError(f"no photos of split {split!r} in the photo table; run 'zoomloc split'")
    return chosen


def _every_few(photos: list[Photo], count: int) -> list[Photo]:
    """At most ``count`` of the photos, spread evenly over all drives."""
    return photos[:: max(1, math.ceil(len(photos) / count))]
