"""Made-up benchmark rows that look like real ones."""

from dataclasses import asdict
from typing import Any

import numpy as np

from zoomloc.belief.metrics import bootstrap_over_groups
from zoomloc.bench.rows import Row, whole_metres

MACHINE = {"system": "Linux", "processor": "x86_64", "threads": 1}


def made(errors_m: Any = (10, 60), groups: Any = None, **changes: Any) -> Row:
    """A row whose photos have these errors, each a drive of its own unless told."""
    errors = np.asarray(errors_m, float)
    groups = list(range(len(errors))) if groups is None else list(groups)
    metrics = {
        f"r_at_{d}m": asdict(bootstrap_over_groups(errors <= d, groups, "mean", seed=0))
        for d in (25, 50, 100)
    }
    median = float(np.median(errors))  # its interval is of no interest here
    metrics["median_error_m"] = {"value": median, "lo": median, "hi": median, "n": len(errors)}
    details = {
        "errors_m": whole_metres(errors),
        "groups": groups,
        "photos_hash": "0123abcd",
    }
    fields: dict[str, Any] = {
        "entrant": "zoomloc",
        "protocol": "same-area",
        "seed": 0,
        "preset": "full",
        "minutes": 10.0,
        "towns": [100],
        "train_seconds": 600.2,
        "params": 1_300_000,
        "n": len(errors),
        "metrics": metrics,
        "commit": "0123abc",
        "config_hash": "0123456789abcdef",
        "details": details | changes.pop("details", {}),
    }
    return Row(**(fields | changes))


SKILL = {
    "zoomloc": 0.72,
    "match": 0.66,
    "retrieval": 0.58,
    "justzoomin": 0.53,
    "justzoomin-centre": 0.52,
    "hierarchical": 0.49,
    "zoomloc-no-match": 0.55,
    "constant": 0.01,
    "random-road": 0.008,
}


def realistic(entrant: str, seed: int, n: int = 400, protocol: str = "same-area") -> Row:
    """A row with everything that a finished one holds; the same photos for all entrants."""
    rng = np.random.default_rng([seed, *entrant.encode()])
    groups = np.sort(np.random.default_rng(seed).integers(0, 16, n))
    skill = SKILL[entrant] + 0.05 * rng.standard_normal() * (entrant not in ("constant",))
    found = rng.random(n) < np.clip(skill + 0.1 * rng.standard_normal(16)[groups], 0, 1)
    errors = np.where(found, rng.gamma(2.0, 7.0, n), 1400 * rng.beta(1.6, 2.6, n))
    exact = bootstrap_over_groups(errors < 9, groups, "mean", seed=0)
    same = made(errors, groups.tolist())
    chance = entrant in ("constant", "random-road")
    fields: dict[str, Any] = {"params": 0, "train_seconds": 0.0} if chance else {}
    extra = {} if chance else _trained(rng, skill, entrant)
    details = same.details | {
        "photos_hash": f"{seed:08x}",
        "created": f"2026-11-2{seed}T10:00:00+00:00",
        "machine": MACHINE,
        "threads": 1,
        "probability": [round(float(p), 2) for p in rng.random(n)],
    }
    fields |= {
        "entrant": entrant,
        "protocol": protocol,
        "seed": seed,
        "towns": [100 + seed],
        "metrics": same.metrics | {"exact_cell": asdict(exact)},
        "details": details | extra,
    }
    return made(errors, groups.tolist(), **fields)


def _trained(rng: np.random.Generator, skill: float, entrant: str) -> dict[str, Any]:
    seconds = np.linspace(30, 600, 20) + rng.uniform(0, 8, 20)
    rise = skill * (1 - np.exp(-seconds / 220)) + 0.012 * rng.standard_normal(20)
    areas = np.geomspace(1 / 4096, 1, 13)
    zooms = [skill**0.25, skill**0.6, skill * 0.95]
    return {
        "lr": 0.0008,
        "sweep": [{"settings": {"train.lr": 0.0008}, "val_r_at_50m": 0.21}],
        "steps": int(4000 + 2000 * rng.random()),
        "photos_seen": 300_000,
        "val_n": 300,
        "curve": [
            {"seconds": float(s), "r_at_50m": float(np.clip(r, 0, 1))}
            for s, r in zip(seconds, rise, strict=True)
        ],
        "zoom_accuracy": [] if entrant in ("retrieval", "match") else zooms,
        "area_recall": [
            {"area": float(a), "recall": float(skill * 0.6 + (1 - skill * 0.6) * a**0.5)}
            for a in areas
        ],
    }


def enough(seeds: int = 3, protocol: str = "same-area") -> list[Row]:
    """Rows of all entrants."""
    return [realistic(e, s, protocol=protocol) for e in SKILL for s in range(seeds)]
