import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from zoomloc.errors import OutputError, ZoomlocError
from zoomloc.world.answers import Alternative, Answer, Candidate, read_answers, write_answers
from zoomloc.world.cells import LatLng, cell_at

PLACE = LatLng(48.1, -1.7)
LEAF = cell_at(PLACE, 16)


def answer(**changes: Any) -> Answer:
    path = tuple(LEAF.parent(up).quadkey for up in (4, 2, 0))
    plain = Answer(
        photo="Übung/1.jpg",
        lat=PLACE.lat,
        lng=PLACE.lng,
        probability=0.75,
        radius50_m=12.5,
        radius90_m=140.0,
        bearing_deg=33.0,
        bearing_spread_deg=None,
        path=path,
        candidates=(Candidate(path[-1], *PLACE, probability=0.7),),
        posterior=((path[-1], 0.7), (path[1][:-1] + "0", 0.1), (path[1][:-1] + "3", 0.2)),
        evidence=-3.5,
        made_by={"photo": "ab12", "checkpoint": "cd34"},
    )
    return replace(plain, **changes)


def test_written_is_read(tmp_path: Path) -> None:
    answers = [
        answer(),
        answer(photo="2.jpg", truth=LatLng(48.2, -1.7), error_m=11_119.5, unknown=True),
        answer(alternatives=(Alternative(48.11, -1.7, 0.2),), given={"heading": "90° ± 20°"}),
        answer(photo="line\u2028break\n.jpg", evidence=None, bearing_deg=None, not_here=True),
    ]
    path = tmp_path / "answers.jsonl"
    write_answers(answers, path)
    assert read_answers(path) == answers
    lines = path.read_text(encoding="utf-8").split("\n")
    assert len(lines) == 5 and all(json.loads(line) for line in lines[:4])
    write_answers([], path)
    assert read_answers(path) == []


def test_fields_are_those_of_the_format() -> None:
    line = answer(truth=PLACE, error_m=0.0).to_json()
    assert (
        list(line)
        == (
            "schema photo lat lng probability within_m radius50_m radius90_m bearing_deg "
            "bearing_spread_deg path candidates alternatives posterior evidence unknown not_here "
            "truth error_m given agreement made_by"
        ).split()
    )
    assert line["schema"] == "zoomloc/answer/1" and line["truth"] == {"lat": 48.1, "lng": -1.7}
    assert line["candidates"][0] == {
        "quadkey": LEAF.quadkey, "lat": 48.1, "lng": -1.7, "probability": 0.7,
    }  # fmt: skip
    assert line["posterior"][0] == {"quadkey": LEAF.quadkey, "mass": 0.7}


def test_exact_cell() -> None:
    assert answer().exact_cell is None
    assert answer(truth=LEAF.center).exact_cell is True
    assert answer(truth=LatLng(48.2, -1.7)).exact_cell is False


@pytest.mark.parametrize(
    "changes",
    [
        {"lat": 91.0},
        {"lng": float("nan")},
        {"truth": LatLng(0.0, 181.0)},
        {"probability": 1.01},
        {"probability": float("nan")},
        {"path": ()},
    ],
)
def test_impossible_answers_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ZoomlocError, match=r"Übung/1\.jpg"):
        answer(**changes)


def test_a_probability_above_1_by_rounding_is_1() -> None:
    assert answer(probability=1 + 1e-12).to_json()["probability"] == 1.0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"schema": "zoomloc/answer/9"}, "zoomloc/answer/9"),
        ({"lat": "north"}, "wrong kind"),
        ({"path": ["0124"]}, "wrong kind"),
        ({"posterior": [{"quadkey": "0", "mass": 0.5}]}, "sums to 0.5"),
        ({"posterior": []}, "sums to 0"),
        ({"truth": 7}, "wrong kind"),
        ({"made_by": []}, "wrong kind"),
        ({"given": 7}, "wrong kind"),
        ({"alternatives": [{"lat": "x"}]}, "wrong kind"),
        ({"alternatives": [{"lat": 1.0}]}, "missing"),
        ({"probability": 7}, "probability"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    path = tmp_path / "answers.jsonl"
    good = answer().to_json()
    path.write_text(f"{json.dumps(good)}\n\n{json.dumps({**good, **changes})}\n")
    with pytest.raises(ZoomlocError, match=reason) as caught:
        read_answers(path)
    assert "answers.jsonl, line 3" in str(caught.value)


def test_what_is_no_file_of_answers(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with pytest.raises(ZoomlocError, match="no such file"):
        read_answers(path)
    for content in (b"{", b"[]", b"7", b"\xff\xfe", b'{"schema": "zoomloc/answer/1"}'):
        path.write_bytes(content + b"\n")
        with pytest.raises(ZoomlocError, match=r"answers\.jsonl, line"):
            read_answers(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    write_answers([answer()], path)
    with pytest.raises(ZoomlocError, match="Übung"):
        write_answers([answer(), answer(evidence=float("-inf"))], path)
    assert read_answers(path) == [answer()] and list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputError):
        write_answers([answer()], path / "below" / "a.jsonl")


def test_files_of_before_alternatives_are_read(tmp_path: Path) -> None:
    line = answer().to_json()
    del line["alternatives"], line["given"]
    (tmp_path / "old.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    assert read_answers(tmp_path / "old.jsonl") == [answer()]
