"""The benchmark as it is run: a small one through the command, its protocols, its leak tests."""

import dataclasses
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from zoomloc.belief.scores import bearing_off_deg
from zoomloc.bench.entrants import ABLATIONS, ENTRANTS, entrants
from zoomloc.bench.leaks import compare, disturb, markdown
from zoomloc.bench.protocols import PRESETS, TownPlan, trials
from zoomloc.bench.rows import read_rows
from zoomloc.bench.scoring import Scores, figures
from zoomloc.bench.searching import compare_searches
from zoomloc.bench.searching import markdown as search_table
from zoomloc.config import load_config
from zoomloc.errors import ConfigError, PhotoError
from zoomloc.locator import Locator, Query
from zoomloc.training.loop import train
from zoomloc.world.cells import distances_m
from zoomloc.world.photos import assert_disjoint, read_photos, write_photos
from zoomloc.world.pyramid import TilePyramid

SMOKE = ["bench", "accuracy", "--preset", "smoke", "--protocols", "same-area,unseen-town"]


def zoomloc(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "zoomloc", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=400)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A finished smoke benchmark: (out, work, what it said)."""
    folder = tmp_path_factory.mktemp("bench")
    out, work = folder / "out", folder / "work"
    done = zoomloc(*SMOKE, "--out", str(out), "--work", str(work))
    assert done.returncode == 0, done.stderr
    return out, work, done.stdout


def test_every_entrant_has_its_row_on_every_protocol(smoke):
    rows = read_rows(smoke[0] / "benchmark.json")
    names = {*ENTRANTS, "justzoomin-centre", "constant", "random-road"}
    assert {(r.entrant, r.protocol) for r in rows} == {
        (name, protocol) for name in names for protocol in ("same-area", "unseen-town")
    }
    for protocol, n in (("same-area", 60), ("unseen-town", 80)):
        mine = [r for r in rows if r.protocol == protocol]
        assert {r.n for r in mine} == {n}
        assert len({r.details["photos_hash"] for r in mine}) == 1  # comparable photo by photo
        assert {r.details["grouped_by"] for r in mine} == {
            "town" if protocol == "unseen-town" else "drive"
        }


def test_budgets_are_equal_and_settings_are_recorded(smoke):
    rows = [r for r in read_rows(smoke[0] / "benchmark.json") if r.params]
    for row in rows:
        assert 0.06 * 60 <= row.train_seconds < 0.06 * 60 + 4  # a step and a mining may run over
        assert len(row.details["sweep"]) == 2 and row.details["steps"] > 0
        rates = {s["settings"]["train.lr"] for s in row.details["sweep"]}
        assert rates == {2e-3, 4e-3} and row.details["lr"] in rates
        assert row.details["curve"] and row.details["threads"] == 1


def test_table_and_plots_lie_beside_the_rows(smoke):
    table = (smoke[0] / "table.md").read_text()
    assert all(name in table for name in ("justzoomin", "retrieval", "hierarchical", "constant"))
    assert len(list(smoke[0].glob("*.png"))) == 8


def test_finished_rows_are_not_run_again(smoke):
    out, work, _ = smoke
    before = (out / "benchmark.json").read_bytes()
    runs = {p: p.stat().st_mtime_ns for p in work.rglob("*.safetensors")}
    done = zoomloc(*SMOKE, "--out", str(out), "--work", str(work))
    assert done.returncode == 0
    assert (out / "benchmark.json").read_bytes() == before
    assert runs == {p: p.stat().st_mtime_ns for p in work.rglob("*.safetensors")}


def test_a_lost_row_is_filled_in_from_the_run_that_is_there(smoke, tmp_path):
    out, work, _ = smoke
    rows = json.loads((out / "benchmark.json").read_text())
    kept = [r for r in rows if (r["entrant"], r["protocol"]) != ("retrieval", "same-area")]
    (tmp_path / "benchmark.json").write_text(json.dumps(kept))
    done = zoomloc(*SMOKE, "--out", str(tmp_path), "--work", str(work))
    assert done.returncode == 0
    again = {(r.entrant, r.protocol): r for r in read_rows(tmp_path / "benchmark.json")}
    first = {(r.entrant, r.protocol): r for r in read_rows(out / "benchmark.json")}
    lost = ("retrieval", "same-area")
    assert again[lost].details["errors_m"] == first[lost].details["errors_m"]
    assert again[lost].train_seconds == first[lost].train_seconds


def test_leaks_are_looked_for_by_the_command(smoke):
    out, work, _ = smoke
    done = zoomloc("bench", "leaks", "--preset", "smoke", "--out", str(out), "--work", str(work))
    assert done.returncode == 0, done.stderr
    assert (out / "leaks.md").read_text().count("smoke-same-area") == len(ENTRANTS)


def test_unknown_names_are_refused_with_the_known_ones():
    for flags in (["--protocols", "x"], ["--entrants", "x"], ["--town-seeds", "a-b"]):
        done = zoomloc("bench", "accuracy", "--preset", "smoke", *flags)
        assert done.returncode == 2 and len(done.stderr.strip().split("\n")) == 1
    with pytest.raises(ConfigError, match="retrieval"):
        entrants(("nobody",))


def test_ablations_are_asked_for_by_name_change_one_thing_and_are_not_swept():
    assert {e.name for e in entrants(())} == set(ENTRANTS)
    built = {}
    for name, entrant in ABLATIONS.items():
        assert [e.name for e in entrants((name,))] == [name]
        ((settings,),) = entrant.stages
        built[name] = entrant.build(settings)
    for i, name in enumerate(built):
        assert all(built[name] != built[other] for other in list(built)[:i]), name


# protocols


@pytest.mark.parametrize("preset", ["smoke", "small", "full"])
def test_no_town_is_both_trained_and_tested_on(preset):
    for trial in trials(PRESETS[preset], ("unseen-town",), None, None, None):
        train, val = ({t.seed for t in plans} for plans in (trial.train, trial.val))
        test = {t.seed for t in trial.tests["unseen-town"]}
        assert len(train) == PRESETS[preset].towns[0] and not (train & val | (train | val) & test)


def test_the_full_preset_is_what_the_design_asks_for():
    preset = PRESETS["full"]
    assert (preset.same_minutes, preset.unseen_minutes, preset.seeds) == (10, 15, 3)
    assert preset.photos[0] == 12_000 and preset.size_m == 1000
    assert preset.towns[0] >= 24 and preset.towns[2] >= 8
    assert preset.unseen_size_m**2 >= 0.5e6


def test_seeds_share_the_unseen_towns_and_differ_in_the_same_area():
    found = trials(PRESETS["full"], ("same-area", "unseen-town"), 3.0, None, (500, 540))
    unseen = [t for t in found if t.protocol == "unseen-town"]
    assert len({t.tests["unseen-town"] for t in unseen}) == 1
    same = [t.train[0].seed for t in found if t.protocol == "same-area"]
    assert same == [500, 501, 502] and {t.minutes for t in found} == {3.0}


def test_town_seeds_may_be_few_but_not_too_few():
    preset = PRESETS["full"]
    (trial,) = trials(preset, ("unseen-town",), None, 1, (7, 20))
    assert len(trial.train) == 4 and trial.towns == {
        "train": "17-20",
        "val": "15-16",
        "test": "7-14",
    }
    with pytest.raises(ConfigError, match="12 or more"):
        trials(preset, ("unseen-town",), None, 1, (7, 17))


def test_towns_that_differ_have_folders_that_differ():
    town = TownPlan(1, 700, 10, 5)
    others = [
        dataclasses.replace(town, **change)
        for change in (
            {"seed": 2}, {"size_m": 800}, {"train_photos": 11}, {"role": "test"},
            {"nuisances": False}, {"scattered": True},
        )
    ]  # fmt: skip
    assert len({t.name for t in (town, *others)}) == len(others) + 1


# leak tests


@pytest.fixture(scope="module")
def learnt(painted, small_config, tmp_path_factory):
    """A retrieval run on the painted region, good enough to lose something."""
    return _trained(small_config, painted, tmp_path_factory.mktemp("run") / "true")


def _trained(small_config, data: Path, run: Path) -> Path:
    still = {"photo_shift": 0.0, "photo_scale": 0.0, "photo_erase": 0.0}
    tree = small_config.to_dict()
    tree["data"] = str(data)
    tree["model"] |= {"kind": "towers", "pooling": "mean"}
    tree["search"] |= {"method": "exhaustive"}
    tree["train"] |= {"steps": 250, "val_every_steps": 250, "batch": 32}
    tree["train"]["augment"] |= still
    config = load_config([], []).model_validate(tree)
    train(config, run)
    return run


def _errors(run: Path, data: Path) -> np.ndarray:
    photos = [p for p in read_photos(data / "photos.parquet") if p.split != "train"]
    return np.array([a.error_m for a in Locator.load(run).answers([Query.of(p) for p in photos])])


def test_the_loss_on_a_disturbed_map_is_found(learnt, painted, tmp_path):
    """Here photos are pieces of the map itself, so something may be lost; what an entrant loses
    in a town is measured by ``zoomloc bench leaks`` (docs/bench/leaks.md).
    """  # noqa: D205
    imagery = disturb(painted / "imagery.pmtiles", tmp_path / "disturbed.pmtiles")
    with TilePyramid.open(imagery) as other, TilePyramid.open(painted / "imagery.pmtiles") as own:
        cell = max(own.cells(own.max_level), key=lambda c: own.tile(c)[..., 3].mean())
        away = np.abs(other.view(cell, 256).astype(int) - own.view(cell, 256).astype(int))
        assert away.mean() > 3  # it is another picture
    photos = [p for p in read_photos(painted / "photos.parquet") if p.split != "train"]
    found = compare(learnt, painted, photos, imagery)
    assert found.own - found.disturbed == pytest.approx(found.loss.value) and found.own > 0.5
    assert found.loss.lo <= found.loss.value <= found.loss.hi < 0.2
    assert f"{found.own:.1%}" in markdown([found], len(photos))


def test_shuffled_pairs_score_at_chance(learnt, small_config, painted, tmp_path):
    """A net that is told wrong places must not find right ones: nothing else gives them away."""
    data = tmp_path / "shuffled"
    data.mkdir()
    for name in ("imagery.pmtiles", "region.json"):
        shutil.copyfile(painted / name, data / name)
    photos = read_photos(painted / "photos.parquet")
    order = np.random.default_rng(0).permutation(len(photos))
    moved = [
        dataclasses.replace(p, lat=q.lat, lng=q.lng, true_lat=q.true_lat, true_lng=q.true_lng)
        for p, q in zip(photos, [photos[i] for i in order], strict=True)
    ]
    write_photos(moved, data / "photos.parquet", "sequence-disjoint")
    errors = _errors(_trained(small_config, data, tmp_path / "run"), data)
    lat, lng = np.array([(p.true_lat, p.true_lng) for p in photos]).T
    chance = float((distances_m(lat[:, None], lng[:, None], lat[None], lng[None]) <= 50).mean())
    spread = (chance * (1 - chance) / len(errors)) ** 0.5
    # a constant answer in the middle is what the shuffled net may honestly come to
    middle = distances_m(lat, lng, np.float64(lat.mean()), np.float64(lng.mean()))
    honest = max(chance, float((middle <= 50).mean()))
    assert (errors <= 50).mean() < honest + 3 * spread
    assert (_errors(learnt, painted) <= 50).mean() > honest + 6 * spread


def test_a_split_with_shared_drives_is_refused(painted):
    photos = read_photos(painted / "photos.parquet")
    mixed = [dataclasses.replace(p, split=("train", "test")[i % 2]) for i, p in enumerate(photos)]
    with pytest.raises(PhotoError, match="drive"):
        assert_disjoint(mixed)


def test_figures_hold_one_entry_a_photo(learnt, painted):
    photos = read_photos(painted / "photos.parquet", "test")
    locator = Locator.load(learnt)
    answers = list(locator.answers([Query.of(p) for p in photos]))
    held = [[True, True], [True, False]] * (len(photos) // 2)
    off_deg = [2.0, 6.0, math.nan] * (len(photos) // 3)
    scores = Scores(answers, [], [0.002] * len(photos), held, off_deg)
    metrics, details = figures(scores, [0] * len(photos))
    errors = np.array([a.error_m for a in answers])
    right, known = errors <= 50, np.isfinite(off_deg)
    assert details["right"]["n"] == right.sum() > 0
    assert details["right"]["median_error_m"] == pytest.approx(np.median(errors[right]), abs=0.01)
    assert details["right"]["median_bearing_off_deg"] == np.median(np.array(off_deg)[right & known])
    assert details["zoom_accuracy"] == [1.0, 0.5]
    assert details["area_recall"][0] == {"area": 0.0003, "recall": 0.0}
    assert details["area_recall"][-1] == {"area": 1.0, "recall": 1.0}
    assert len(details["errors_m"]) == len(details["probability"]) == metrics["r_at_50m"]["n"]


def test_bearings_differ_the_short_way_round():
    assert bearing_off_deg(350.0, 10.0) == pytest.approx(20)
    assert bearing_off_deg(180.0, 0.0) == pytest.approx(180)
    assert math.isnan(bearing_off_deg(None, 10.0)) and math.isnan(bearing_off_deg(10.0, None))


def test_coarse_to_fine_is_compared_with_every_place(smoke, tmp_path):
    """On the smoke towns and their match; in so small a town most places are searched anyway."""
    _, work, _ = smoke
    (run,) = (work / "runs").glob("smoke-unseen-town-*-match-*")
    places = sorted((work / "places").glob("town-*-test"))
    every, some = compare_searches(run, places)
    assert (
        every.photos
        == some.photos
        == sum(len(read_photos(p / "photos.parquet", "test")) for p in places)
    )
    assert some.products < 0.2 * every.products
    assert every.less.value == 0 and abs(some.recall + some.less.value - every.recall) < 1e-9
    assert "coarse to fine" in search_table([every, some])
    done = zoomloc("bench", "search", "--run", str(run), "--preset", "smoke", "--work", str(work),
                   "--out", str(tmp_path))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "search.md").read_text() == done.stdout.rstrip("\n") + "\n"


def test_ways_to_search_with_a_zoom_are_compared(smoke):
    _, work, _ = smoke
    (run,) = (work / "runs").glob("smoke-same-area-*-justzoomin-*")
    (place,) = (work / "places").glob("town-*-split")
    greedy, beam, wide, first = compare_searches(run, [place])
    assert greedy.name == "greedy" and greedy.less.value == 0
    assert min(way.seconds for way in (greedy, beam, wide, first)) > 0
    assert {way.photos for way in (greedy, beam, wide, first)} == {60}
    table = search_table([greedy, beam, wide, first])
    assert "multiply-adds a photo |" not in table and table.count("| beam 8 |") == 1
