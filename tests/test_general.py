"""The general model that comes with zoomloc: small, without paths, and at home anywhere."""

import json
import re

from zoomloc.config import GENERAL


def test_it_is_small_and_keeps_no_path_of_the_machine_that_trained_it():
    weights = GENERAL / "checkpoint-best.safetensors"
    assert weights.stat().st_size < 10_000_000
    about = json.loads(weights.with_suffix(".json").read_text())
    assert not re.search(r'"/|\\\\', json.dumps(about))
    assert about["config"]["regions"] == about["config"]["val_regions"] == []


def test_its_card_gives_figures_with_their_interval_and_its_limits():
    card = (GENERAL / "MODEL_CARD.md").read_text()
    assert re.search(r"[\d.]+ % \([\d.]+ – [\d.]+", card) and "synthetic" in card
    for word in ("Data", "Steps", "Figures", "Limits"):
        assert word in card


def test_a_photo_is_located_without_any_training(zoomloc, painted):
    photo = painted / "photos" / "d9" / "000.jpg"
    code, out, err = zoomloc("locate", photo, "--region", painted, "--json")
    answer = json.loads(out)
    assert code == (3 if answer["not_here"] or answer["unknown"] else 0), err
    assert answer["evidence"] is not None
    assert 0 <= answer["probability"] <= 1 and answer["bearing_deg"] is not None


def test_an_evaluation_needs_no_run_either(zoomloc, painted, tmp_path):
    report = tmp_path / "report.json"
    code, _, err = zoomloc("evaluate", "--region", painted, "--json", report, "--quiet")
    assert code == 0, err
    assert json.loads(report.read_text())["n"] > 0
