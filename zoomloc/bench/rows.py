"""Rows of benchmark.json: one trained entrant on one protocol with one seed.

Reads, writes and merges them. Knows nothing of how an entrant is trained, nor of what several
rows say together.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from zoomloc.errors import ConfigError
from zoomloc.world.files import write_text

FARTHEST_M = 20_100_000  # no two places are farther apart; stands for "no answer"

_ENTRANTS = (
    "(justzoomin|retrieval|hierarchical|match|zoomloc|(justzoomin|zoomloc)-[a-z0-9-]+"
    "|constant|random-road)"
)
_RATES = r"r_at_[0-9]+m|exact_cell|top[0-9]+_.*|.*accuracy.*"


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


# the file


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
