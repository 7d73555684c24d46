"""``zoomloc info``: every kind of file in a few lines, and what is none of ours."""

import json

import pytest
from PIL import Image

from zoomloc.checkpoint import Explained, build_model, save_checkpoint
from zoomloc.cli.explain import explain
from zoomloc.errors import ZoomlocError
from zoomloc.world.answers import Answer, write_answers
from zoomloc.world.region import Region


def told(path) -> str:
    lines = explain(path)
    assert lines and all(line and "\n" not in line for line in lines)
    return "\n".join(lines)


@pytest.fixture
def run(small_config, painted, tmp_path):
    region = Region.load(painted / "region.json")
    metrics = {"val": {"r_at_50m": {"value": 0.25, "lo": 0.1, "hi": 0.4, "n": 20}}}
    about = Explained(small_config, region, 1234, 90.0, 78976, "abc", "def", metrics)
    weights = build_model(small_config, region).state_dict()
    save_checkpoint(tmp_path / "run" / "checkpoint-best.safetensors", weights, about)
    return tmp_path / "run"


def test_a_run_and_its_checkpoint_tell_how_far_and_how_well_it_was_trained(run):
    for path in (
        run,
        run / "checkpoint-best.safetensors",
        run / "checkpoint-best.json",
    ):
        text = told(path)
        assert "step 1,234, 1.5 min, 78,976 photos" in text
        assert "region painted" in text
        assert "val R@50m 25.0% (10.0% – 40.0%, n 20)" in text


def test_a_region_folder_tells_of_region_and_pyramid(painted):
    text = told(painted)
    region = Region.load(painted / "region.json")
    assert f"{len(region.roots)} roots of level {region.root_level}" in text
    assert "Painted by a test" in text and "CC0-1.0" in text
    assert "pyramid of 256 px tiles" in text
    assert told(painted / "region.json") in text


def test_a_photo_table_tells_of_drives_splits_and_what_is_known(painted):
    text = told(painted / "photos.parquet")
    assert "600 photos of 10 drives" in text
    assert "sequence-disjoint" in text and "'train': 480" in text
    assert "with heading: 0" in text


def test_a_photo_tells_what_it_knows_of_itself(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8825).update(
        {1: "S", 2: (33.0, 30.0, 0.0), 3: "E", 4: (151.0, 0.0, 0.0), 16: "T", 17: 90.0}
    )
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg", exif=exif)
    text = told(tmp_path / "a.jpg")
    assert "64 x 48 px" in text and "-33.500000, 151.000000" in text and "heading 90" in text
    Image.new("RGB", (30, 20)).save(tmp_path / "b.PNG")
    text = told(tmp_path / "b.PNG")
    assert "30 x 20 px" in text and "no position" in text and "unknown time" in text


def test_answers_tell_how_sure_they_are(tmp_path):
    answers = [
        Answer("a", 45.0, 7.0, p, 1.0, 2.0, None, None, ("0",), (), (("0", 1.0),), unknown=p < 0.1)
        for p in (0.05, 0.55)
    ]
    write_answers(answers, tmp_path / "answers.jsonl")
    text = told(tmp_path / "answers.jsonl")
    assert "2 answers, 1 of them unknown" in text and "0.30" in text


def test_a_report_and_a_config_tell_their_main_figures(tmp_path):
    figure = {"value": 0.4, "lo": 0.3, "hi": 0.5, "n": 600}
    report = {
        "schema": "zoomloc/report/1",
        "run": "demo",
        "n": 600,
        "metrics": {"r_at_50m": figure},
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert "600 photos, R@50m 40.0% (30.0% – 50.0%)" in told(tmp_path / "report.json")
    (tmp_path / "report.json").write_text(json.dumps(report | {"reading": "LEAKY: so it is"}))
    assert told(tmp_path / "report.json").endswith("\n  LEAKY: so it is")
    (tmp_path / "c.yaml").write_text("name: mine\ndata: data/mine\nmodel: {width: 64, heads: 4}\n")
    text = told(tmp_path / "c.yaml")
    assert "config mine" in text and "data/mine" in text and "width 64" in text


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none.jpg", None, "no such file"),
        ("notes.txt", "hello", "not a kind of file"),
        ("a.json", '{"schema": "other/1"}', "other/1"),
        ("b.json", "{", "cannot be read as JSON"),
        ("c.json", "[1]", "another kind"),
        ("d.jpg", "text", "no JPEG"),
        ("e.parquet", "text", "Parquet"),
        ("f.pmtiles", "text", "f.pmtiles"),
        ("g.jsonl", "{}", "line 1"),
        ("h.yaml", "modle: 1", "did you mean 'model'"),
        ("i.safetensors", "text", "i.json"),
    ],
)
def test_what_cannot_be_explained_is_refused_in_one_line(tmp_path, name, content, says):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(ZoomlocError) as refusal:
        explain(path)
    assert says in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_folder_of_other_things_is_refused(tmp_path):
    with pytest.raises(ZoomlocError, match="neither a run"):
        explain(tmp_path)
