"""Answer and its parts: where a photo was taken, how sure that is, and the file of answers.

Knows nothing of how answers are found. One JSON object a line; ``docs/formats.md`` and
``schemas/answer.schema.json`` describe it.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoomloc.errors import RegionError, ZoomlocError
from zoomloc.world.cells import LatLng, cell_of_quadkey
from zoomloc.world.files import written_whole

SCHEMA = "zoomloc/answer/1"
_SUM_TOLERANCE = 1e-3  # files of other programs round


@dataclass(frozen=True)
class Candidate:
    """One kept hypothesis: a terminal cell, a place in it, and its posterior mass."""

    quadkey: str
    lat: float
    lng: float
    probability: float


@dataclass(frozen=True)
class Alternative:
    """Another place, apart from the answer, and the posterior mass of a disc round it."""

    lat: float
    lng: float
    probability: float


@dataclass(frozen=True)
class Answer:
    """Where a photo was taken. Lengths in metres, angles in degrees, masses as fractions 0-1.

    ``path`` holds quadkeys from the root to the terminal cell of (lat, lng); ``posterior`` pairs
    of quadkey (cells of any level) and mass that sum to 1; ``probability`` is the mass within
    ``within_m``; ``given`` what was told beside the photo, in words. Raises ZoomlocError for what
    is no place or no probability.
    """

    photo: str
    lat: float
    lng: float
    probability: float
    radius50_m: float
    radius90_m: float
    bearing_deg: float | None
    bearing_spread_deg: float | None
    path: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    posterior: tuple[tuple[str, float], ...]
    evidence: float | None = None
    unknown: bool = False
    not_here: bool = False
    truth: LatLng | None = None
    error_m: float | None = None
    made_by: dict[str, str] = field(default_factory=dict)
    alternatives: tuple[Alternative, ...] = ()
    given: dict[str, str] = field(default_factory=dict)
    agreement: float | None = None  # log of how well the photo goes with the place given; 0 even
    within_m: float = 50.0

    def __post_init__(self) -> None:
        for place in (LatLng(self.lat, self.lng), self.truth):
            if place is not None and not (abs(place.lat) <= 90 and abs(place.lng) <= 180):
                raise ZoomlocError(f"answer for {self.photo}: {place} is no place in degrees")
        if not 0 <= self.probability <= 1 + 1e-9:
            raise ZoomlocError(f"answer for {self.photo}: probability {self.probability}")
        if not 0 < self.within_m < math.inf:
            raise ZoomlocError(f"answer for {self.photo}: probability within {self.within_m} m")
        if not self.path:
            raise ZoomlocError(f"answer for {self.photo}: no path; it needs a cell at least")

    @property
    def place(self) -> LatLng:
        """The answer as a place."""
        return LatLng(self.lat, self.lng)

    @property
    def exact_cell(self) -> bool | None:
        """Whether the terminal cell of the path holds the truth; None where no truth is known."""
        return None if self.truth is None else cell_of_quadkey(self.path[-1]).contains(self.truth)

    def to_json(self) -> dict[str, Any]:
        """The object of one line of ``answers.jsonl``."""
        return {
            "schema": SCHEMA,
            "photo": self.photo,
            "lat": self.lat,
            "lng": self.lng,
            "probability": min(self.probability, 1.0),
            "within_m": self.within_m,
            "radius50_m": self.radius50_m,
            "radius90_m": self.radius90_m,
            "bearing_deg": self.bearing_deg,
            "bearing_spread_deg": self.bearing_spread_deg,
            "path": list(self.path),
            "candidates": [vars(candidate) for candidate in self.candidates],
            "alternatives": [vars(other) for other in self.alternatives],
            "posterior": [{"quadkey": key, "mass": mass} for key, mass in self.posterior],
            "evidence": self.evidence,
            "unknown": self.unknown,
            "not_here": self.not_here,
            "truth": None if self.truth is None else self.truth._asdict(),
            "error_m": self.error_m,
            "given": self.given,
            "agreement": self.agreement,
            "made_by": self.made_by,
        }

    @classmethod
    def from_json(cls, data: Any) -> "Answer":
        """The answer that ``to_json`` wrote. Raises ZoomlocError where it is none."""
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            found = data.get("schema") if isinstance(data, dict) else None
            raise ZoomlocError(f"schema is {found!r}, this version reads {SCHEMA!r}")
        try:
            answer = _answer(data)
            for quadkey in (*answer.path, *(key for key, _ in answer.posterior)):
                cell_of_quadkey(quadkey)
        except KeyError as error:
            raise ZoomlocError(f"field {error} is missing") from error
        except (TypeError, ValueError, AttributeError, RegionError) as error:
            raise ZoomlocError(f"a field is of a wrong kind ({error})") from error
        total = math.fsum(mass for _, mass in answer.posterior)
        if not abs(total - 1) <= _SUM_TOLERANCE:
            raise ZoomlocError(f"posterior sums to {total:.4f}, not to 1")
        return answer


def _answer(data: dict[str, Any]) -> Answer:
    truth = data["truth"]
    return Answer(
        photo=str(data["photo"]),
        lat=float(data["lat"]),
        lng=float(data["lng"]),
        probability=float(data["probability"]),
        radius50_m=float(data["radius50_m"]),
        radius90_m=float(data["radius90_m"]),
        bearing_deg=_optional(data["bearing_deg"]),
        bearing_spread_deg=_optional(data["bearing_spread_deg"]),
        path=tuple(str(key) for key in data["path"]),
        candidates=tuple(
            Candidate(str(c["quadkey"]), float(c["lat"]), float(c["lng"]), float(c["probability"]))
            for c in data["candidates"]
        ),
        posterior=tuple((str(p["quadkey"]), float(p["mass"])) for p in data["posterior"]),
        evidence=_optional(data["evidence"]),
        unknown=bool(data["unknown"]),
        not_here=bool(data["not_here"]),
        truth=None if truth is None else LatLng(float(truth["lat"]), float(truth["lng"])),
        error_m=_optional(data["error_m"]),
        made_by={str(key): str(value) for key, value in data["made_by"].items()},
        alternatives=tuple(  # files of older versions hold none
            Alternative(float(o["lat"]), float(o["lng"]), float(o["probability"]))
            for o in data.get("alternatives", ())
        ),
        given={str(key): str(value) for key, value in data.get("given", {}).items()},
        agreement=_optional(data.get("agreement")),
        within_m=float(data.get("within_m", 50.0)),
    )


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)


# files


def answers_beside(report: Path) -> Path:
    """Where the answers behind a report lie; any but report.json keeps its answers to itself."""
    own = report.name == "report.json"
    return report.parent / ("answers.jsonl" if own else f"{report.stem}.answers.jsonl")


def write_answers(answers: Iterable[Answer], path: Path) -> None:
    """Write ``answers.jsonl``, one answer a line (atomic).

    Raises ZoomlocError for a value that JSON has no number for, OutputError where it cannot be
    written.
    """
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for answer in answers:
            file.write(line_of(answer))


def line_of(answer: Answer) -> str:
    """The line of ``answers.jsonl``, its end included.

    Raises ZoomlocError for a value that JSON has no number for, or a name that is no text.
    """
    try:
        line = json.dumps(answer.to_json(), ensure_ascii=False, allow_nan=False)
        line.encode()
    except ValueError as error:
        raise ZoomlocError(f"answer for {answer.photo!r}: {error}") from error
    return line + "\n"


def read_answers(path: Path) -> list[Answer]:
    """Answers of ``answers.jsonl``, in its order. Raises ZoomlocError naming file and line."""
    answers = []
    number = 0
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                number += 1
                if line.strip():
                    answers.append(Answer.from_json(json.loads(line)))
    except FileNotFoundError as error:
        raise ZoomlocError(f"{path}: no such file of answers") from error
    except (OSError, ValueError, ZoomlocError) as error:
        raise ZoomlocError(
            f"{path}, line {number}: {error}; write it again with 'zoomloc evaluate'"
        ) from error
    return answers
