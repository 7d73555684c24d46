"""zoomloc bench answers: what it asks of its places, and the tables that come of it."""

import re

import numpy as np
import pytest

from zoomloc.bench.answer_tables import markdown
from zoomloc.bench.answers import Measured, Told, column
from zoomloc.bench.protocols import ANSWERS, PRESETS


def told(error_m: float, probability: float, group: str = "a/1", **changes) -> Told:
    facts = dict(
        error_m=error_m,
        probability=probability,
        radius50_m=10.0,
        radius90_m=60.0,
        evidence=1.0,
        agreement=0.0,
        searched_share=0.01,
        nll=2.0,
        group=group,
        not_here=False,
        unknown=False,
    )
    return Told(**facts | changes)


def test_the_tables_say_what_was_measured():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.05, 0.95, 600)
    plain = [
        told(10.0 if rng.random() < q else 300.0, float(q), f"t{i % 3}/{i % 12}", evidence=2.0)
        for i, q in enumerate(p)
    ]
    strangers = [told(np.nan, 0.1, "t0/elsewhere", evidence=-1.0, not_here=True)] * 50
    near = [(told(300.0, 0.2), told(10.0, 0.6))] * 20
    wrong = [told(300.0, 0.2, agreement=-3.0, not_here=True)] * 20
    close = [(told(10.0, 0.2), told(300.0, 0.6))] * 20
    found = Measured(
        plain, strangers, {"dark": plain[:50]}, near, wrong, plain[:9], plain[9:18], [], close
    )
    text = markdown(found, True, "zoomloc bench answers")
    beyond = float(re.search(r"ECE beyond it\*\* \| \*\*(-?[\d.]+) points", text)[1])
    assert abs(beyond) < 3  # claims came true as often as they said
    assert re.search(r"AUROC of the evidence\*\*, against 50 .* \| 1.000", text)
    assert "| 0.0%, 100.0% |" in text and "+100.0 (+100.0 – +100.0)" in text
    assert "then a true one of 150 m (n 20) | 100.0% | 0.0% | -100.0" in text
    assert "a wrong prior of 150 m said to contradict it | 100.0%" in text
    right = column(plain, "error_m") <= 50
    assert f"| found within 50 m | {right.mean():.1%} (" in text


def test_calibration_towns_are_no_test_or_training_towns():
    preset = PRESETS["full"]
    train, val, test = preset.towns
    seeds = [plan.seed for plan in ANSWERS["full"].fitted(preset, 101)]
    used = {*range(101, 101 + test), *range(101 + test + val, 101 + test + val + train)}
    assert len(set(seeds)) == 8 and not used & set(seeds)


@pytest.mark.parametrize("words", [("--protocol", "trial"), ("--preset", "huge")])
def test_what_is_unknown_is_refused(zoomloc, words, tmp_path):
    code, _, err = zoomloc("bench", "answers", *words, "--out", tmp_path / "a.md")
    assert code == 2 and "take" in err and len(err.splitlines()) == 1
    assert not (tmp_path / "a.md").exists()


def test_answers_of_smoke_towns(zoomloc, tmp_path):
    out = tmp_path / "answers.md"
    out.write_text("# Answers\n\nkept\n\n## other\n\nkept too\n")
    code, _, err = zoomloc(
        "bench", "answers", "--preset", "smoke", "--out", out, "--work", tmp_path / "work"
    )
    assert code == 0, err
    text = out.read_text()
    assert "\nkept\n" in text and "kept too" in text and "## unseen-town" in text
    found = float(re.search(r"found within 50 m \| ([\d.]+)%", text)[1])
    assert found > 40  # the general model in towns of 200 m; chance is 10 %
    assert "four of one stop (n 4)" in text
