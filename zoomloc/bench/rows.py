"""Rows of benchmark.json: one trained entrant on one protocol with one seed.

Reads, writes and merges them, and compares entrants on the same photos. Knows nothing of how
an entrant is trained, nor of tables and plots.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from zoomloc.belief.metrics import Interval, Statistic, bootstrap_over_groups
from zoomloc.errors import ConfigError
from zoomloc.world.cells import Floats
from zoomloc.world.files import write_text

FARTHEST_M = 20_100_000  # no two places are farther apart; stands for "no answer"

_ENTRANTS = (
    "(justzoomin|retrieval|hierarchical|match|zoomloc|(justzoomin|zoomloc)-[a-z0-9-]+"
    "|constant|random-road)"
)
_RATES = r"r_at_[0-9]+m|exact_cell|top[0-9]+_.*|.*accuracy.*"
_ERRORS: dict[str, Statistic] = {
    "median_error_m": "median",
    "p75_error_m": 0.75,
    "p90_error_m": 0.9,
    "mean_error_m": "mean",
}


class Key(NamedTuple):
    """What makes a row the same row: finished rows with this key are not computed again."""

    entrant: str
    protocol: str
    seed: int
    preset: str
    minutes: float
    towns: str  # as JSON


@dataclass(frozen=True)
class Row:
    """One trained entrant on one protocol with one seed.

    The fields are those of benchmark.schema.json, where each is explained; metrics: name to
    {value, lo, hi, n}, rates as fractions. Chance (``constant``, ``random-road``) has params
    and train_seconds 0.
    """

    entrant: str
    protocol: str
    seed: int
    preset: str
    minutes: float
    towns: Any
    train_seconds: float
    params: int
    n: int
    metrics: dict[str, dict[str, Any]]
    commit: str
    config_hash: str
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What makes this row the same row in another file."""
        return key_of(self.entrant, self.protocol, self.seed, self.preset, self.minutes, self.towns)

    def __str__(self) -> str:
        return f"{self.entrant}, {self.protocol}, seed {self.seed}"


def key_of(entrant: str, protocol: str, seed: int, preset: str, minutes: float, towns: Any) -> Key:
    """The key of a row that may not exist yet."""
    return Key(entrant, protocol, seed, preset, float(minutes), towns_json(towns))


def towns_json(towns: Any) -> str:
    """Towns in a form that can be compared."""
    return json.dumps(towns, sort_keys=True)


def find(rows: Iterable[Row], key: Key) -> Row | None:
    """The row with that key, None where there is none."""
    return next((row for row in rows if row.key == key), None)


def merge(rows: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """Both, sorted as they are written; a new row takes the place of one with the same key."""
    return _sorted({row.key: row for row in (*rows, *new)}.values())


def whole_metres(errors_m: npt.ArrayLike) -> list[int]:
    """Errors (n,) as rows hold them: rounded up, so that "within 50 m" stays exactly that.

    An infinite error (no answer) becomes the largest distance on Earth.
    """
    return [int(e) for e in np.ceil(np.minimum(np.asarray(errors_m, np.float64), FARTHEST_M))]


# 1. the file


def read_rows(path: Path) -> list[Row]:
    """The rows of a benchmark.json; none where there is no such file.

    Raises ConfigError for anything that the schema does not allow, and for a key given twice.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}: cannot be read as JSON ({error}); mend or delete it and run the benchmark "
            "again"
        ) from error
    return _checked(path, data)


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write benchmark.json, atomically: sorted, a line for each detail, so that diffs are small.

    Raises ConfigError for a row that could not be read again, OutputError where the place
    cannot be written.
    """
    checked = _checked(path, [asdict(row) for row in rows])
    try:
        texts = [_as_text(row) for row in _sorted(checked)]
    except (TypeError, ValueError) as error:  # among details that the schema leaves open
        raise ConfigError(f"{path}: a row's details are no JSON: {error}") from error
    write_text(path, "[" + ",".join("\n" + text for text in texts) + "\n]\n")


def _sorted(rows: Iterable[Row]) -> list[Row]:
    return sorted(
        rows, key=lambda r: (r.protocol, r.preset, r.minutes, r.entrant, r.seed, r.key.towns)
    )


def _as_text(row: Row) -> str:
    """A row's JSON: its fields on one line, then one line for each detail."""
    data = asdict(row)
    details = data.pop("details")
    lines = [f"\n  {json.dumps(name)}: {_compact(held)}" for name, held in details.items()]
    fields = json.dumps(data, ensure_ascii=False, allow_nan=False)
    return fields[:-1] + ', "details": {' + ",".join(lines) + "}}"


def _compact(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _checked(path: Path, data: Any) -> list[Row]:
    """The rows of what was read or is to be written."""
    try:
        lines = TypeAdapter(list[_Line]).validate_python(data)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first(error, data)}") from error
    rows = [Row(**line.model_dump(exclude_unset=True)) for line in lines]
    seen: set[Key] = set()
    for row in rows:
        if row.key in seen:
            raise ConfigError(f"{path}: {row} is there twice (same budget and towns); delete one")
        seen.add(row.key)
    return rows


def _first(error: ValidationError, data: Any) -> str:
    """The first thing that is wrong: which row, which field, and how to mend it."""
    found = error.errors(include_url=False)[0]
    if not found["loc"]:
        return "not a list of rows; give a benchmark.json of this version"
    row, *inner = found["loc"]
    names = data[row] if isinstance(data[row], dict) else {}
    what = ", ".join(str(names.get(n, f"no {n}")) for n in ("entrant", "protocol"))
    where = f"{'.'.join(map(str, inner))}: " if inner else ""
    problem = found["msg"].removeprefix("Value error, ")
    return (
        f"row {int(row) + 1} ({what}, seed {names.get('seed')}): {where}{problem}; "
        "mend it, or delete the row and run the benchmark again"
    )


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


_Rate = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=0)]
_Seconds = Annotated[float, Field(ge=0)]


class _Figure(_Strict):
    value: float
    lo: float
    hi: float
    n: _Count


class _Sweep(_Strict):
    settings: dict[str, Any]
    val_r_at_50m: _Rate


class _Moment(_Strict):
    seconds: _Seconds
    r_at_50m: _Rate


class _Right(_Strict):
    """How exact the answers within 50 m are."""

    n: _Count
    median_error_m: Annotated[float, Field(ge=0)] | None
    median_bearing_off_deg: Annotated[float, Field(ge=0, le=180)] | None


class _Searched(_Strict):
    area: _Rate
    recall: _Rate


class _Details(BaseModel):
    """What is known of a row beyond its figures; more may stand there."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    lr: Annotated[float, Field(gt=0)] = 1.0
    sweep: list[_Sweep] = []
    steps: _Count = 0
    photos_seen: _Count = 0
    threads: Annotated[int, Field(ge=1)] = 1
    created: str = ""
    machine: dict[str, Any] = {}
    curve: list[_Moment] = []
    val_n: _Count = 0
    zoom_accuracy: list[_Rate] = []
    errors_m: list[_Count] = []
    groups: list[_Count] = []
    grouped_by: str = ""
    probability: list[_Rate] = []
    area_recall: list[_Searched] = []
    right: _Right | None = None
    photos_hash: Annotated[str, Field(pattern="^[0-9a-f]{8,64}$")] = ""
    chance: dict[str, _Rate] = {}


class _Line(_Strict):
    """A row as benchmark.schema.json has it."""

    entrant: Annotated[str, Field(pattern="^[a-z][a-z0-9-]*$")]
    protocol: Literal["same-area", "unseen-town", "rendered-ground", "trial"]
    seed: _Count
    preset: Literal["smoke", "small", "full"]
    minutes: Annotated[float, Field(gt=0)]
    towns: list[Any] | int | str | dict[str, Any]
    train_seconds: _Seconds
    params: _Count
    n: Annotated[int, Field(ge=1)]
    metrics: dict[Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")], _Figure]
    commit: Annotated[str, Field(pattern="^[0-9a-f]{7,40}(-dirty)?$")]
    config_hash: Annotated[str, Field(pattern="^[0-9a-f]{8,64}$")]
    details: _Details = _Details()

    @model_validator(mode="after")
    def _consistent(self) -> "_Line":
        if self.protocol != "trial" and not re.fullmatch(_ENTRANTS, self.entrant):
            raise ValueError(f"{self.entrant} is no entrant of {self.protocol}")
        if "r_at_50m" not in self.metrics:
            raise ValueError("metrics have no r_at_50m")
        for name, figure in self.metrics.items():
            rates = (figure.lo, figure.value, figure.hi)
            if re.fullmatch(_RATES, name) and not all(0 <= rate <= 1 for rate in rates):
                raise ValueError(f"metrics.{name} is no fraction between 0 and 1")
        for name in ("errors_m", "groups", "probability"):
            held = len(getattr(self.details, name))
            if name in self.details.model_fields_set and held not in (0, self.n):
                raise ValueError(f"details.{name} has {held} entries for {self.n} photos")
        return self


# 2. figures over seeds


def pooled(rows: Sequence[Row], metric: str = "r_at_50m") -> Interval:
    """One figure for all seeds of an entrant, and its 95 % interval over whole groups.

    A recall is the mean over seeds; a quantile of errors that of all seeds' photos together.
    Groups (drives, or towns on unseen-town) of seeds on the same ground are the same groups.
    n: different photos. Of one row without single errors the interval that it states.

    Raises ConfigError where there is no row, or no single errors to resample.
    """
    if not rows:
        raise ConfigError(f"no rows to take {metric} from; run the benchmark first")
    if len(rows) == 1 and not rows[0].details.get("errors_m") and metric in rows[0].metrics:
        return Interval(**rows[0].metrics[metric])
    if metric in _ERRORS:
        return _resampled(rows, [_errors_m(row) for row in rows], _ERRORS[metric])
    return _resampled(rows, [_hits(row, metric) for row in rows], "mean")


def paired_difference(a: Sequence[Row], b: Sequence[Row], metric: str = "r_at_50m") -> Interval:
    """Recall of ``a`` less that of ``b`` on the same photos, with its 95 % interval.

    Seeds that both have are compared photo by photo; whole groups are resampled for both at
    once, groups of seeds on the same ground as one. The mean is over seeds.

    Raises ConfigError where no seed is in both, or where a seed's photos differ.
    """
    mine, theirs = _by_seed(a), _by_seed(b)
    seeds = sorted(mine.keys() & theirs.keys())
    if not seeds:
        raise ConfigError("no seed that both entrants have finished; run the missing ones")
    for seed in seeds:
        _same_photos(mine[seed], theirs[seed])
    differences = [_hits(mine[s], metric) - _hits(theirs[s], metric) for s in seeds]
    return _resampled([mine[s] for s in seeds], differences, "mean")


def group_count(rows: Sequence[Row]) -> int:
    """How many different groups (drives, towns) the photos of these rows are from."""
    return len(set(_groups(rows)))


def _resampled(rows: Sequence[Row], values: Sequence[Floats], statistic: Statistic) -> Interval:
    """The statistic over all seeds' values, each seed counting alike in a mean."""
    weights = np.concatenate([np.full(len(v), 1 / len(v)) for v in values])
    interval = bootstrap_over_groups(
        np.concatenate(values),
        _groups(rows),
        statistic,
        seed=0,
        weights=weights if statistic == "mean" else None,
    )
    return replace(interval, n=sum({_photos_hash(row): row.n for row in rows}.values()))


def _groups(rows: Sequence[Row]) -> list[str]:
    """The group of each photo of all rows, named so that another ground's groups are others."""
    return [
        f"{ground}/{group}"
        for row, ground in zip(rows, _grounds(rows), strict=True)
        for group in _detail(row, "groups")
    ]


def _grounds(rows: Sequence[Row]) -> list[int]:
    """For each row the first one with the same photos or towns: their groups are the same.

    A mere number of towns says nothing about which towns they are.
    """
    first: dict[str, int] = {}
    grounds = []
    for i, row in enumerate(rows):
        names = [_photos_hash(row)]
        if not isinstance(row.towns, int):
            names.append(towns_json(row.towns))
        ground = min(first.get(name, i) for name in names)
        first.update((name, ground) for name in names)
        grounds.append(ground)
    return grounds


def _by_seed(rows: Sequence[Row]) -> dict[int, Row]:
    found: dict[int, Row] = {}
    for row in rows:
        if row.seed in found:
            raise ConfigError(f"two rows of {row}; compare one budget and set of towns at a time")
        found[row.seed] = row
    return found


def _same_photos(a: Row, b: Row) -> None:
    """Raises ConfigError where the rows were not scored on the same photos in the same order."""
    if _photos_hash(a) != _photos_hash(b) or _detail(a, "groups") != _detail(b, "groups"):
        raise ConfigError(
            f"{a} and {b} were scored on other photos (photos_hash differs); delete the older "
            "row and run the benchmark again"
        )


def _hits(row: Row, metric: str) -> Floats:
    """(n,) 1 where the answer is at most that far off, else 0."""
    named = re.fullmatch(r"r_at_([0-9]+)m", metric)
    if named is None:
        raise ConfigError(
            f"{metric} cannot be resampled over seeds; use r_at_<metres>m or {', '.join(_ERRORS)}"
        )
    return np.asarray(_errors_m(row) <= float(named[1]), np.float64)


def _errors_m(row: Row) -> Floats:
    return np.asarray(_detail(row, "errors_m"), np.float64)


def _photos_hash(row: Row) -> str:
    return str(_detail(row, "photos_hash"))


def _detail(row: Row, name: str) -> Any:
    """A detail that comparisons need. Raises ConfigError where the row lacks it."""
    held = row.details.get(name)
    if not held:
        raise ConfigError(
            f"{row} has no details.{name}, so it cannot be compared; delete the row and run the "
            "benchmark again"
        )
    return held
