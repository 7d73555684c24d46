"""The command: exit codes, one line for each bad input, nothing lost, what it prints."""

import json
import resource
import shutil
import subprocess
import sys

import pytest
from PIL import Image


@pytest.fixture(scope="module")
def run_folder(painted, tmp_path_factory):
    """A run trained by the command itself."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    sets = [
        "model.photo_px=[48,24]",
        "model.view_px=32",
        "model.width=32",
        "model.layers=2",
        "model.heads=2",
        "model.photo_encoder.channels=[8,8,16]",
        "train.batch=16",
        "model.view_encoder.channels=[8,8,16]",
        "train.steps=20",
        "train.threads=1",
        f"data={painted}",
    ]
    return trained_by_command(folder, ["demo"], sets)


def trained_by_command(folder, configs, sets):
    command = [sys.executable, "-m", "zoomloc", "train", *configs, "--run", str(folder), "--quiet"]
    subprocess.run([*command, *(w for s in sets for w in ("--set", s))], check=True)
    return folder


def refused(result, *says) -> None:
    code, _, err = result
    assert code == 2, err
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("zoomloc: ")
    for part in says:
        assert part in lines[0]


def test_locate_answers_in_text_and_json(zoomloc, run_folder, painted, tmp_path):
    photo = painted / "photos" / "d9" / "000.jpg"
    code, out, _ = zoomloc("locate", photo, "--run", run_folder)
    assert code == 0 and "probability" in out
    code, out, _ = zoomloc("locate", photo, photo.parent, "--run", run_folder, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and len(lines) == 60  # the photo is in the folder, and answered once
    assert lines[0]["schema"] == "zoomloc/answer/1"
    assert sum(mass["mass"] for mass in lines[0]["posterior"]) == pytest.approx(1, abs=1e-6)


def test_locate_draws_a_map(zoomloc, run_folder, painted, tmp_path):
    code, _, err = zoomloc(
        "locate",
        painted / "photos" / "d9" / "000.jpg",
        "--run",
        run_folder,
        "--map",
        tmp_path / "out.html",
    )
    assert code == 0, err
    assert "leaflet" in (tmp_path / "out.html").read_text().lower()


def test_evaluate_then_map(zoomloc, run_folder, painted, tmp_path):
    code, out, err = zoomloc("evaluate", "--run", run_folder, "--json", tmp_path / "r.json")
    assert code == 0, err
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["n"] == 60 and "R@1 within 50 m" in out
    assert report["protocol"]["split"] == "sequence-disjoint"
    code, _, err = zoomloc(
        "map",
        tmp_path / "r.answers.jsonl",
        "--region",
        painted,
        "--out",
        tmp_path / "map.html",
        "--most",
        "3",
    )
    assert code == 0, err


@pytest.mark.parametrize(
    "what", ["region", "run", "photos.parquet", "imagery.pmtiles", "photo", "region.json"]
)
def test_info_explains_our_files(zoomloc, run_folder, painted, what):
    path = {
        "region": painted,
        "run": run_folder,
        "photo": painted / "photos" / "d9" / "000.jpg",
    }.get(what, painted / what)
    code, out, _ = zoomloc("info", path)
    assert code == 0 and len(out) > 30


def test_bad_photos(zoomloc, run_folder, tmp_path):
    refused(zoomloc("locate", tmp_path / "none.jpg", "--run", run_folder), "none.jpg")
    (tmp_path / "text.jpg").write_text("not a picture")
    refused(zoomloc("locate", tmp_path / "text.jpg", "--run", run_folder), "text.jpg")
    Image.new("RGB", (640, 480)).save(tmp_path / "cut.jpg")
    whole = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    refused(zoomloc("locate", tmp_path / "cut.jpg", "--run", run_folder), "cut.jpg")
    (tmp_path / "zero.jpg").touch()
    refused(zoomloc("locate", tmp_path / "zero.jpg", "--run", run_folder), "zero.jpg")
    (tmp_path / "empty").mkdir()
    refused(zoomloc("locate", tmp_path / "empty", "--run", run_folder), "no photo")


def test_bad_runs_and_configs(zoomloc, painted, tmp_path):
    photo = painted / "photos" / "d9" / "000.jpg"
    refused(zoomloc("locate", photo, "--run", tmp_path / "x"), "no such folder")
    refused(zoomloc("train", "demo", "--run", tmp_path / "x", "--set", "train.lrr=1"), "'lr'")
    refused(zoomloc("train", "nowhere", "--run", tmp_path / "x"), "nowhere", "demo")
    refused(
        zoomloc("train", "demo", "--run", tmp_path / "x", "--set", f"data={tmp_path}"),
        "region.json",
    )
    assert not (tmp_path / "x").exists()


def test_bad_folders_towns_and_rasters(zoomloc, tmp_path):
    (tmp_path / "photos").mkdir()
    refused(zoomloc("photos", "--folder", tmp_path / "photos", "--out", tmp_path / "o"), "photos")
    refused(zoomloc("photos", "--folder", tmp_path / "absent", "--out", tmp_path / "o"), "absent")
    refused(zoomloc("town", "--size-m", "0", "--out", tmp_path / "t"), "size")
    refused(zoomloc("tiles", "--out", tmp_path / "o"), "--raster")
    refused(zoomloc("tiles", "--raster", tmp_path / "no.tif", "--out", tmp_path / "o"), "no.tif")
    Image.new("RGB", (64, 64)).save(tmp_path / "plain.tif")
    refused(
        zoomloc("tiles", "--raster", tmp_path / "plain.tif", "--out", tmp_path / "o"), "gdal_edit"
    )
    refused(zoomloc("info", tmp_path / "plain.tif"), "plain.tif")
    assert not (tmp_path / "o").exists() or not any((tmp_path / "o").iterdir())


def test_a_full_disk_loses_nothing(run_folder, painted, tmp_path):
    """Under a limit of file size, as on a full disk: one line, exit 2, the old report whole."""
    shutil.copytree(run_folder, tmp_path / "run")
    report = tmp_path / "run" / "report.json"
    report.write_text("the report before")

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))

    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "from zoomloc.cli import main; main()",
            "evaluate",
            "--run",
            str(tmp_path / "run"),
        ],
        capture_output=True,
        text=True,
        preexec_fn=small_files,
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "disk" in done.stderr
    assert report.read_text() == "the report before"
    assert not list((tmp_path / "run").glob(".*.tmp"))


def test_usage_errors_exit_2_and_start_is_light(zoomloc):
    assert zoomloc("locate")[0] == 2
    assert zoomloc("--version")[1].startswith("zoomloc ")
    heavy = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, zoomloc.cli; print(sorted(m for m in "
            "('torch', 'rasterio', 'folium', 'geopandas', 'pandas', 'numba') if m in sys.modules))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert heavy.stdout.strip() == "[]"


def test_a_picture_bomb_is_refused_without_decoding_it(zoomloc, run_folder, tmp_path):
    Image.new("1", (30_000, 30_000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 1_000_000
    refused(zoomloc("locate", tmp_path / "bomb.png", "--run", run_folder), "bomb.png", "megapixels")


def test_numbers_that_make_no_sense(zoomloc, painted, tmp_path):
    tif = painted / "ortho.tif"
    refused(zoomloc("tiles", "--raster", tif, "--out", tmp_path, "--terminal-cell-m", "0"), "0")
    for override, says in (
        ("model.view_px=60", "view_px"),
        ("model.photo_px=[100,50]", "photo_px"),
        ("model.heads=0", "heads"),
        ("train.lr=.inf", "train.lr"),
    ):
        refused(
            zoomloc(
                "train",
                "demo",
                "--run",
                tmp_path / "x",
                "--set",
                f"data={painted}",
                "--set",
                override,
            ),
            says,
        )


def test_only_the_search_can_be_changed_after_training(zoomloc, run_folder, painted):
    photo = painted / "photos" / "d9" / "000.jpg"
    code, out, _ = zoomloc("locate", photo, "--run", run_folder, "--set", "search.method=greedy")
    assert code == 0 and "probability" in out
    refused(zoomloc("locate", photo, "--run", run_folder, "--set", "train.lr=1"), "search")


def test_a_split_made_again_after_training_is_refused(zoomloc, run_folder, painted, tmp_path):
    """Test photos may then have been trained on; the table itself is not touched by this."""
    shutil.copytree(run_folder, tmp_path / "run")
    about = tmp_path / "run" / "checkpoint-best.json"
    changed = json.loads(about.read_text()) | {"split_hash": "0123456789abcdef"}
    about.write_text(json.dumps(changed))
    refused(zoomloc("evaluate", "--run", tmp_path / "run"), "split again")
    code, _, err = zoomloc(
        "evaluate",
        "--run",
        tmp_path / "run",
        "--photos",
        painted / "photos.parquet",
        "--json",
        tmp_path / "other.json",
    )
    assert code == 0, err


def test_a_full_disk_while_training_is_one_line(painted, tmp_path):
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    sets = [
        "model.photo_px=[48,24]",
        "model.view_px=32",
        "model.width=32",
        "train.steps=2",
        "train.batch=4",
        "train.val_photos=2",
        f"data={painted}",
    ]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "from zoomloc.cli import main; main()",
            "train",
            "--run",
            str(tmp_path / "run"),
            "demo",
            *(w for s in sets for w in ("--set", s)),
        ],
        capture_output=True,
        text=True,
        preexec_fn=small_files,
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "disk" in done.stderr


def test_stopping_says_how_to_go_on(painted, tmp_path):
    # not before training has begun: an import in some library may swallow an interrupt
    program = (
        "import os, signal, threading, time; from zoomloc.cli import main\n"
        "def stop():\n"
        "    while not os.path.exists(begun): time.sleep(0.1)\n"
        "    time.sleep(2); os.kill(os.getpid(), signal.SIGINT)\n"
        f"begun = {str(tmp_path / 'run' / 'config.yaml')!r}\n"
        "threading.Thread(target=stop, daemon=True).start(); main()"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            "train",
            "demo",
            "--run",
            str(tmp_path / "run"),
            "--quiet",
            "--set",
            f"data={painted}",
            "--set",
            "train.max_minutes=5",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 130
    assert "the same command goes on" in done.stderr and "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def match_run(painted, tmp_path_factory):
    """A match trained by the command itself, for a moment."""
    folder = tmp_path_factory.mktemp("cli-match") / "run"
    sets = [
        "model.photo_px=[48,24]",
        "model.photo_encoder.channels=[8,8,16]",
        "model.match.map_channels=[8,8,16]",
        "model.match.width=16",
        "train.batch=8",
        "train.steps=3",
        "train.val_photos=4",
        f"data={painted}",
    ]
    return trained_by_command(folder, ["demo", "models/match"], sets)


def test_an_index_is_made_once_and_then_used(zoomloc, match_run, painted, tmp_path):
    region = tmp_path / "town"
    region.mkdir()
    for name in ("region.json", "imagery.pmtiles"):
        shutil.copyfile(painted / name, region / name)
    photo = painted / "photos" / "d9" / "000.jpg"
    _, plain, _ = zoomloc("locate", photo, "--run", match_run, "--region", region, "--json")
    code, out, err = zoomloc("index", region, "--run", match_run)
    assert code == 0 and "chunks encoded" in out, err
    assert "0 of" in zoomloc("index", region, "--run", match_run)[1]
    code, kept, _ = zoomloc("locate", photo, "--run", match_run, "--region", region, "--json")
    first, second = (json.loads(text) for text in (plain, kept))
    assert code == 0
    assert (first["lat"], first["lng"]) == pytest.approx((second["lat"], second["lng"]), abs=1e-5)
    code, out, _ = zoomloc("info", *region.glob("index-*"))
    assert code == 0 and "index" in out


def test_a_model_passed_on_answers_alike_and_says_what_it_is(zoomloc, match_run, painted, tmp_path):
    out = tmp_path / "given"
    code, said, err = zoomloc("export", "--run", match_run, "--out", out)
    assert code == 0 and "MB" in said, err
    kept = (out / "checkpoint-best.json").read_text() + (out / "MODEL_CARD.md").read_text()
    assert str(painted) not in kept
    assert "3 steps" in kept and "n 4" in kept
    photo = painted / "photos" / "d9" / "000.jpg"
    refused(zoomloc("locate", photo, "--run", out), "--region")
    own, given = (
        json.loads(zoomloc("locate", photo, "--run", r, "--region", painted, "--json")[1])
        for r in (match_run, out)
    )
    for answer in (own, given):
        answer.pop("made_by")
    assert own == given
    (out / "MODEL_CARD.md").write_text("mine")
    assert zoomloc("export", "--run", match_run, "--out", out)[0] == 0
    assert (out / "MODEL_CARD.md").read_text() == "mine"


def test_a_model_passed_on_does_not_name_the_run_that_it_began_with(zoomloc, match_run, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(match_run, run)
    beside = run / "checkpoint-best.json"
    about = json.loads(beside.read_text())
    about["config"]["train"]["start_from"] = "/home/somebody/secret-customer"
    beside.write_text(json.dumps(about))
    assert zoomloc("export", "--run", run, "--out", out)[0] == 0
    assert "secret-customer" not in "".join(p.read_text() for p in out.glob("*.[jm][sd]*"))
    about["config"]["train"]["start_from"] = "general"
    beside.write_text(json.dumps(about))
    assert zoomloc("export", "--run", run, "--out", out)[0] == 0
    assert json.loads((out / beside.name).read_text())["config"]["train"]["start_from"] == "general"


def test_only_a_match_has_an_index(zoomloc, run_folder, painted):
    refused(zoomloc("index", painted, "--run", run_folder), "only a match has an index")
