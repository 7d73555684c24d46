"""The training loop: AdamW, warm-up and cosine, EMA, real rollouts for validation, resume.

Knows nothing of where photos and imagery came from. A run that is stopped and started again
ends with the same weights as one that was not (on CPU, where ``max_minutes`` is not set):
what is random in a step follows from the seed and the step's number.
"""

import json
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoomloc.checkpoint import Explained, save_checkpoint
from zoomloc.config import Config, TrainConfig
from zoomloc.errors import ConfigError, PhotoError
from zoomloc.evaluate import error_report
from zoomloc.locator import Locator, Query, ZoomScorer, open_views
from zoomloc.model.zoom import Steps, ZoomModel
from zoomloc.training.augment import augment_photos, augment_views
from zoomloc.training.dataset import Batch, ExampleMaker
from zoomloc.training.losses import path_loss
from zoomloc.training.state import TrainState, fresh_state, numbered_checkpoints, resume
from zoomloc.world.cells import Cell
from zoomloc.world.files import write_text
from zoomloc.world.photos import Photo, read_photos, split_hash

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
    photos: int
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
    views = open_views(config.data, config)
    table = read_photos(config.data / "photos.parquet")
    maker = ExampleMaker(_of_split(table, "train"), views, config.train, config.model.photo_px)
    val = _every_few(_of_split(table, "val"), config.train.val_photos)
    state = fresh_state(config, views.region)
    split = split_hash(table)
    resumed = resume(run, config, state, views.pyramid.imagery_hash(), split)
    queries = [Query(p.id, p.path, p.place) for p in val]  # true_ columns are for benchmarks only
    drives = [p.sequence_id for p in val]
    loop = _Loop(config, run, maker, queries, drives, state, split, progress)
    if not state.finished:
        write_text(run / "config.yaml", config.to_yaml())
        loop.run_to_end()
    return TrainSummary(
        run,
        state.step,
        state.seconds,
        len(maker.photos),
        maker.outside,
        sum(p.numel() for p in state.model.parameters()),
        state.best,
        resumed,
        skipped=resumed and loop.steps_done == 0,
    )


@dataclass
class _Loop:
    """One run of the loop over one region."""

    config: Config
    run: Path
    maker: ExampleMaker
    val: list[Query]
    val_drives: list[str]
    state: TrainState
    split: str
    progress: Callable[[Progress], None] | None
    steps_done: int = 0
    _helper: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _next: "Future[Batch]" = field(default_factory=Future)

    def run_to_end(self) -> None:
        """Step until the budget is spent; validate and save on the way."""
        plan = self.config.train
        started, before = time.monotonic(), self.state.seconds
        saved = validated = time.monotonic()
        self._prepare_next()
        while (share := self._share()) < 1:
            loss = self._step(share)
            self.state.step += 1
            self._prepare_next()
            self.steps_done += 1
            now = time.monotonic()
            self.state.seconds = before + now - started
            if self._is_due(now - validated):
                self._validate()
                validated = saved = time.monotonic()
            elif now - saved > SAVE_EVERY_S:
                self._save_last()
                saved = time.monotonic()
            self._tell(loss, (now - started) / self.steps_done, plan)
        self.state.seconds = before + time.monotonic() - started
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
        plan, model = self.config.train, self.state.model
        batch = self._next.result()
        torch.manual_seed(plan.seed * 1_000_003 + self.state.step)
        for group in self.state.optimizer.param_groups:
            group["lr"] = plan.lr * schedule(share, plan)
        model.train()
        loss = forward_loss(model, batch, plan)
        self.state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), plan.clip))
        value = float(loss.detach())
        if not math.isfinite(value + norm):  # before it gets into the weights
            raise ConfigError(
                f"run {self.run}: loss {value}, gradient {norm} at step "
                f"{self.state.step}; lower train.lr ({plan.lr})"
            )
        self.state.optimizer.step()
        self._average(plan.ema)
        return value

    def _prepare_next(self) -> None:
        """Assemble the next batch beside the arithmetic, unless it needs the weights."""
        if self.config.train.rollout_share:
            self._next = Future()
            self._next.set_result(self._batch())
        else:
            self._next = self._helper.submit(self._batch)

    def _batch(self) -> Batch:
        step = self.state.step
        indices = self.maker.indices(step)
        targets = self.maker.targets(indices)
        paths = self.maker.paths(step, targets)
        share = self.config.train.rollout_share
        if share:
            rng = np.random.default_rng([self.config.train.seed, 3, step])
            own = np.flatnonzero(rng.random(len(indices)) < share)
            for i, path in zip(own, self._rollout(indices[own], rng), strict=True):
                paths[i] = path
        return self.maker.batch(indices, targets, paths)

    def _rollout(self, indices: np.ndarray, rng: np.random.Generator) -> list[tuple[Cell, ...]]:
        """Paths drawn from the model itself: cells that it will meet in search."""
        if not len(indices):
            return []
        scorer = ZoomScorer(self.state.model.eval(), self.maker.views, self.config.model.place)
        state = scorer.start(list(self.maker.pixels.get(indices)))
        region = self.maker.views.region
        picks = [_drawn(row, rng) for row in scorer.roots(state)]
        paths = [[region.roots[k]] for k in picks]
        for _ in range(region.zooms):
            tips = [path[-1] for path in paths]
            scores = scorer.children(state, np.arange(len(paths)), tips)
            for path, row in zip(paths, scores, strict=True):
                path.append(region.children(path[-1])[_drawn(row, rng)])
        return [tuple(path) for path in paths]

    def _average(self, decay: float) -> None:
        """Exponential moving average of the weights, quick to start."""
        decay = min(decay, (1 + self.state.step) / (10 + self.state.step))
        current = self.state.model.state_dict()
        floats = [k for k, v in current.items() if v.is_floating_point()]
        torch._foreach_lerp_(
            [self.state.ema[k] for k in floats], [current[k] for k in floats], 1 - decay
        )

    def _validate(self) -> None:
        """Roll out on val with the averaged weights; keep the best, save the state."""
        wait([self._next])  # the pyramid is read by one thread at a time
        explained = self._explained({})
        model = ZoomModel(self.state.model.spec)
        model.load_state_dict(self.state.ema)
        scorer = ZoomScorer(model.eval(), self.maker.views, self.config.model.place)
        locator = Locator(scorer, self.config.model.photo_px, self.config.search, {})
        answers = list(locator.answers(self.val, hash_photos=False))
        metrics = error_report(answers, self.val_drives)
        recall = float(metrics["r_at_50m"]["value"])
        self.state.log.append(
            {"step": self.state.step, "seconds": round(self.state.seconds, 1), "val": metrics}
        )
        if recall >= self.state.best:
            self.state.best = recall
            explained = self._explained({"val": metrics})
            save_checkpoint(self.run / "checkpoint-best.safetensors", self.state.ema, explained)
        self._save_last()

    def _save_last(self) -> None:
        """Save the whole state, keep the newest few, write the log."""
        lines = [json.dumps(row) for row in self.state.log]
        write_text(self.run / "metrics.jsonl", "\n".join(lines) + "\n" if lines else "")
        path = self.run / f"checkpoint-{self.state.step:08d}.safetensors"
        explained = self._explained({"best": self.state.best, "finished": self.state.finished})
        save_checkpoint(path, self.state.tensors(), explained)
        for old in numbered_checkpoints(self.run)[: -self.config.train.keep]:
            old.with_suffix(".json").unlink(missing_ok=True)
            old.unlink(missing_ok=True)

    def _explained(self, metrics: dict[str, Any]) -> Explained:
        views = self.maker.views
        return Explained(
            self.config,
            views.region,
            self.state.step,
            self.state.seconds,
            self.state.step * min(self.config.train.batch, len(self.maker.photos)),
            views.pyramid.imagery_hash(),
            self.split,
            metrics,
            views.region.attribution,
            views.region.licence,
        )

    def _tell(self, loss: float, seconds_a_step: float, plan: TrainConfig) -> None:
        row = {
            "step": self.state.step,
            "seconds": round(self.state.seconds, 1),
            "loss": round(loss, 4),
        }
        if self.state.step % 20 == 0:
            self.state.log.append(row)
        if self.progress is not None:
            size = min(plan.batch, len(self.maker.photos))
            self.progress(
                Progress(
                    self.state.step,
                    min(1.0, self._share()),
                    loss,
                    size / seconds_a_step,
                    self.state.best if self.state.best >= 0 else None,
                )
            )


def forward_loss(model: ZoomModel, batch: Batch, plan: TrainConfig) -> Tensor:
    """Loss of a batch, pictures augmented, absolute place dropped for some photos."""
    photos = augment_photos(batch.photos, plan.augment)
    views = augment_views(batch.views, plan.augment)
    place = batch.place
    if model.spec.place:
        dropped = torch.rand(len(place), 1, 1) < model.spec.place_dropout
        place = place.masked_fill(dropped, torch.nan)
    steps = Steps(batch.view, batch.choice, place, batch.root_target is not None)
    with torch.autocast("cpu", torch.bfloat16, enabled=uses_bf16(plan.precision)):
        root, zooms = model(model.encode_photos(photos), model.encode_views(views), steps)
    return path_loss(
        root, zooms, batch.root_target, batch.root_present, batch.target, batch.present
    )


def uses_bf16(precision: str) -> bool:
    """Whether to compute in bf16: asked for, or ``auto`` on a processor with the instructions."""
    has_it = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return precision == "bf16" or (precision == "auto" and bool(has_it()))


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


def _drawn(log_prob: np.ndarray, rng: np.random.Generator) -> int:
    weight = np.exp(log_prob - log_prob.max())
    return int(rng.choice(len(weight), p=weight / weight.sum()))
