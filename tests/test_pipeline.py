"""The main job through the command, on a small town: from nothing to a located photo."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

SMALL = [
    "town.size_m=240",
    "town.train_photos=240",
    "town.test_photos=60",
    "split.val=0.1",
    "model.photo_px=[48,24]",
    "model.photo_encoder.channels=[8,8,16]",
    "model.match.map_channels=[8,8,16]",
    "model.match.width=16",
    "train.batch=16",
    "train.steps=120",
    "train.max_minutes=1",
    "train.threads=1",
    "train.precision=fp32",
]


def zoomloc(*words, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "zoomloc", *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"}
    )


def demo(cwd: Path) -> subprocess.CompletedProcess:
    return zoomloc("demo", *(w for s in SMALL for w in ("--set", s)), cwd=cwd)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which the small demo has run once, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    done = demo(folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_demo_ends_with_recall_a_located_photo_and_its_map(finished):
    folder, out = finished
    for word in ("town", "tiles", "photos", "split", "train", "R@1 within 50 m", "map.html"):
        assert word in out
    report = json.loads((folder / "runs/demo/report.json").read_text())
    assert report["n"] >= 30
    assert report["protocol"]["split"] == "sequence-disjoint"
    assert 0 <= report["chance"]["r_at_50m"] < 0.5
    metric = report["metrics"]["r_at_50m"]
    assert metric["lo"] <= metric["value"] <= metric["hi"]
    assert (folder / "runs/demo/map.html").stat().st_size > 100_000
    reports = [p for p in folder.rglob("report.json") if "demo" in str(p.relative_to(folder))]
    assert len(reports) == 1


def test_a_second_demo_resumes_instead_of_repeating(finished):
    folder, _ = finished
    kept = [
        "data/demo/town/town.json",
        "data/demo/imagery.pmtiles",
        "data/demo/photos.parquet",
        "runs/demo/checkpoint-best.safetensors",
        "runs/demo/report.json",
    ]
    before = {name: (folder / name).stat().st_mtime_ns for name in kept}
    started = time.monotonic()
    done = demo(folder)
    assert done.returncode == 0, done.stderr
    assert "R@1 within 50 m" in done.stdout
    assert {name: (folder / name).stat().st_mtime_ns for name in kept} == before
    assert time.monotonic() - started < 60


def test_no_drive_is_in_two_splits_and_the_test_day_is_another(finished):
    from zoomloc.world.photos import assert_disjoint, read_photos

    photos = read_photos(finished[0] / "data/demo/photos.parquet")
    assert_disjoint(photos)
    days = {
        split: {p.captured_at.date() for p in photos if p.split == split}
        for split in ("train", "test")
    }
    assert days["train"] and days["test"] and not days["train"] & days["test"]


def test_the_single_verbs_make_the_same_files_as_the_demo(finished):
    folder, _ = finished
    data, out = folder / "data/demo", folder / "verbs"
    town = data / "town"
    steps = [
        (
            "tiles",
            "--raster",
            town / "ortho.tif",
            "--out",
            out,
            "--name",
            "demo",
            "--attribution",
            "Synthetic town by zoomloc",
            "--licence",
            "CC0-1.0",
        ),
        ("photos", "--folder", town / "photos", "--out", out),
        ("split", out / "photos.parquet", "--newest-test"),
    ]
    for step in steps:
        done = zoomloc(*step, cwd=folder)
        assert done.returncode == 0, done.stderr
    assert json.loads((out / "region.json").read_text()) == json.loads(
        (data / "region.json").read_text()
    )
    assert (out / "imagery.pmtiles").read_bytes() == (data / "imagery.pmtiles").read_bytes()


def test_the_report_and_the_answers_keep_to_their_schemas(finished):
    import jsonschema

    schemas = Path(__file__).parent.parent / "zoomloc/world/schemas"
    run = finished[0] / "runs/demo"
    jsonschema.validate(
        json.loads((run / "report.json").read_text()),
        json.loads((schemas / "report.schema.json").read_text()),
    )
    answer = json.loads((schemas / "answer.schema.json").read_text())
    for line in (run / "answers.jsonl").read_text().strip().split("\n"):
        jsonschema.validate(json.loads(line), answer)
