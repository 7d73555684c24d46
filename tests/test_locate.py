"""zoomloc locate: several photos and folders, what it says, files, kills, photos that fail."""

import csv
import json
import os
import pty
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import geopandas
import numpy as np
import pytest
from PIL import Image
from test_answers import answer

from zoomloc.cli.telling import describe
from zoomloc.config import GENERAL
from zoomloc.locator import Locator, Query
from zoomloc.training.loop import train
from zoomloc.world.answers import Alternative, read_answers
from zoomloc.world.cells import LatLng, distance_m
from zoomloc.world.region import Region
from zoomloc.world.wording import percent

COMMAND = [sys.executable, "-m", "zoomloc", "locate"]


@pytest.fixture(scope="session")
def trusting(tmp_path_factory) -> Path:
    """The general model uncalibrated: it takes painted photos for what they claim to be."""
    run = tmp_path_factory.mktemp("trusting") / "run"
    run.mkdir()
    shutil.copy(GENERAL / "checkpoint-best.safetensors", run)
    told = json.loads((GENERAL / "checkpoint-best.json").read_text())
    del told["calibration"]
    (run / "checkpoint-best.json").write_text(json.dumps(told))
    return run


@pytest.fixture
def zoomloc(zoomloc, trusting):
    """As everywhere, with that model where none is named."""

    def run(*words) -> tuple[int, str, str]:
        named = "--run" in words or words[0] != "locate"
        return zoomloc(*words, *(() if named else ("--run", trusting)))

    return run


@pytest.fixture
def folder(painted, tmp_path) -> Path:
    """Three photos in two folders, and what is no photo."""
    for name, source in (("b/2.jpg", "001"), ("b/c/3.JPG", "002"), ("1.jpeg", "000")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(painted / "photos" / "d9" / f"{source}.jpg", tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    (tmp_path / "photos" / ".thumbnails").mkdir()
    (tmp_path / "photos" / ".thumbnails" / "1.jpg").write_text("passed over")
    (tmp_path / "photos" / "folder.jpg").mkdir()
    return tmp_path / "photos"


def names(answers, folder: Path) -> list[str]:
    return [Path(a["photo"]).relative_to(folder).as_posix() for a in answers]


def lines_of(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def refused(result, *says) -> None:
    code, _, err = result
    lines = [line for line in err.splitlines() if line.strip()]
    assert code == 2 and len(lines) == 1, err
    assert all(part in lines[0] for part in ("zoomloc: ", *says)), err


# 1. what it says


def test_folders_are_searched_in_order_and_each_photo_is_answered_once(zoomloc, painted, folder):
    photo = folder / "b" / "2.jpg"
    code, out, err = zoomloc("locate", photo, folder, "--region", painted, "--json")
    assert code == 0 and err == ""
    assert names(lines_of(out), folder) == ["b/2.jpg", "1.jpeg", "b/c/3.JPG"]


def test_text_is_three_to_five_lines_a_photo(zoomloc, painted, folder):
    code, out, _ = zoomloc("locate", folder, "--region", painted)
    told = [line for line in out.splitlines() if not line.startswith(" ")]
    assert code == 0 and len(told) == 3
    assert 3 * 3 <= len(out.splitlines()) <= 5 * 3
    _, out_json, _ = zoomloc("locate", folder, "--region", painted, "--json")
    first = lines_of(out_json)[0]
    assert f"1.jpeg: {first['lat']:.6f}, {first['lng']:.6f}" in told[0]
    assert f"probability {percent(first['probability'])} within 50 m" in out
    assert "heading " in out and " ± " in out


def test_words_for_every_kind_of_answer():
    plain = answer(
        bearing_deg=92.4, bearing_spread_deg=14.0, alternatives=(Alternative(48.11, -1.71, 0.2),)
    )
    assert describe(plain) == [
        "Übung/1.jpg: 48.100000, -1.700000",
        "    probability 75 % within 50 m; 50 % of the belief within 12 m, 90 % within 140 m",
        "    heading 92° ± 14°",
        "    else 48.110000, -1.710000 (20 %, 1.3 km away)",
    ]
    told = "\n".join(
        describe(answer(unknown=True, radius90_m=2345.0, bearing_deg=None, within_m=25.0))
    )
    assert "Übung/1.jpg: unknown; best guess 48.100000" in told and "heading" not in told
    assert "within 25 m" in told and "90 % within 2.3 km" in told
    told = describe(answer(unknown=True, not_here=True))[0]
    assert "probably not from this region; best guess 48.1" in told and "unknown" not in told
    told = describe(answer(not_here=True, probability=1.0))[1]
    assert "if it is from here, probability over 99.9 % within 50 m" in told
    given = {"place": "within 500 m of 48.2, 16.4", "heading": "90° ± 20°", "search": "x"}
    told = describe(answer(given=given, agreement=-0.2))[-1]
    assert told == "    given: within 500 m of 48.2, 16.4, heading 90° ± 20°"
    assert "speaks against" in describe(answer(given=given, agreement=-3.0))[-1]
    told = describe(answer(truth=LatLng(48.2, -1.7), error_m=11_119.5))[-1]
    assert "11 km from the position in the photo's EXIF, which was not used" in told
    assert describe(answer(photo="a\x1b[2J\n.jpg"))[0].startswith("a\\x1b[2J\\n.jpg: ")


def test_alternatives_are_apart_and_share_no_belief(zoomloc, painted, folder):
    _, out, _ = zoomloc("locate", folder, "--region", painted, "--json")
    answers, found = lines_of(out), 0
    for line in answers:
        places = [LatLng(at["lat"], at["lng"]) for at in (line, *line["alternatives"])]
        found += len(places) - 1
        for i, here in enumerate(places):
            assert all(distance_m(here, there) >= 100 for there in places[i + 1 :])
        masses = [line["probability"], *(at["probability"] for at in line["alternatives"])]
        assert sum(masses) <= 1 + 1e-6
    assert found > 0


def test_each_answer_says_what_made_it(zoomloc, trusting, painted, folder):
    _, out, _ = zoomloc("locate", folder / "1.jpeg", "--region", painted, "--json")
    (line,) = lines_of(out)
    locator = Locator.load(trusting, painted)
    assert line["made_by"] | {"photo": ""} == {"photo": "", **locator.made_by}
    assert len(line["made_by"]["photo"]) == 16 and line["given"] == {}


def test_exit_code_3_where_nothing_has_a_place(zoomloc, painted, folder, tmp_path):
    words = ("locate", folder, "--region", painted, "--set", "search.unknown_below=1")
    code, out, _ = zoomloc(*words)
    assert code == 3 and out.count(": unknown; best guess ") == 3
    code, out, _ = zoomloc(*words, "--out", tmp_path / "a.csv")
    assert code == 3 and "3 photos, 3 unknown -> " in out
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 4
    _, out, _ = zoomloc("locate", folder, "--region", painted, "--json")
    least = sorted(line["probability"] for line in lines_of(out))[1]
    some = ("locate", folder, "--region", painted, "--set", f"search.unknown_below={least}")
    assert zoomloc(*some)[0] == 0  # one photo of three is unknown


def test_json_reaches_a_pipe_while_a_bar_is_on_the_terminal(painted, trusting, folder):
    master, terminal = pty.openpty()
    command = [*COMMAND, str(folder), "--region", str(painted), "--json", "--run", str(trusting)]
    done = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=terminal, env=os.environ | {"TERM": "xterm"}
    )
    out, _ = done.communicate(timeout=120)
    os.close(terminal)
    shown = os.read(master, 1 << 16).decode()
    os.close(master)
    assert done.returncode == 0 and len(lines_of(out.decode())) == 3
    assert "locate" in shown and '"schema"' not in shown


# 2. files


@pytest.mark.parametrize("ending", ["jsonl", "geojson", "gpkg", "csv"])
def test_out_in_every_format(zoomloc, painted, folder, tmp_path, ending):
    out = tmp_path / "below" / f"answers.{ending}"
    code, told, err = zoomloc("locate", folder, "--region", painted, "--out", out)
    assert code == 0, err
    assert f"3 photos -> {out}" in told and "probability" not in told
    assert list(out.parent.iterdir()) == [out]
    expected = ["1.jpeg", "b/2.jpg", "b/c/3.JPG"]
    if ending == "jsonl":
        found = [a.to_json() for a in read_answers(out)]
    elif ending == "csv":
        with out.open(encoding="utf-8", newline="") as file:
            found = list(csv.DictReader(file))
    else:
        frame = geopandas.read_file(out, **({"layer": "answers"} if ending == "gpkg" else {}))
        if ending == "geojson":
            frame = frame[frame.kind == "answer"]
        found = frame.to_dict("records")
        region = Region.load(painted / "region.json")
        assert all(region.path(LatLng(f["geometry"].y, f["geometry"].x)) for f in found)
    assert names(found, folder) == expected


def test_what_cannot_be_written_is_said_before_anything_is_located(zoomloc, painted, folder):
    (folder / "a.csv").mkdir()
    refused(zoomloc("locate", folder, "--run", folder, "--out", folder / "a.xlsx"), "ending")
    for out in ("a.csv", "notes.txt/a.csv"):
        result = zoomloc("locate", folder, "--region", painted, "--out", folder / out)
        refused(result, str(folder / out))


# 3. kills


@pytest.fixture(scope="module")
def many(painted, tmp_path_factory) -> Path:
    """300 photos: some seconds of work."""
    folder = tmp_path_factory.mktemp("many")
    for drive in range(5):
        shutil.copytree(painted / "photos" / f"d{drive}", folder / f"d{drive}")
    return folder


def complete_lines(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def killed_at(command: list[str], part: Path, lines: int, pause_s: float) -> list[bytes]:
    """Run until the part holds so many lines and a moment more, then SIGKILL: what it holds."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(complete_lines(part)) < lines and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(pause_s)
    process.kill()
    process.communicate()
    assert process.returncode == -9, "killed before its end"
    return complete_lines(part)


@pytest.mark.parametrize(
    ("ending", "kills"),
    [("jsonl", 2), ("gpkg", 1), pytest.param("jsonl", 10, marks=pytest.mark.soak)],
)
def test_a_killed_run_goes_on(painted, trusting, many, tmp_path, ending, kills):
    out = tmp_path / f"a.{ending}"
    out.write_text("what was there before")
    part, rng = tmp_path / f"a.{ending}.part", random.Random(kills)
    command = [*COMMAND, str(many), "--region", str(painted), "--out", str(out)]
    command += ["--run", str(trusting)]
    kept: list[bytes] = []
    for _ in range(kills):
        now = killed_at(command, part, len(kept) + 1, rng.uniform(0, 0.3))
        assert now[: len(kept)] == kept and len(now) > len(kept)  # nothing lost, nothing twice
        assert out.read_text() == "what was there before"
        kept = now
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"300 photos, {len(kept)} known from before -> {out}" in done.stdout
    assert sorted(tmp_path.iterdir()) == [out]

    locator, files = Locator.load(trusting, painted), sorted(many.rglob("*.jpg"))
    whole = list(locator.answers([Query(str(file), file) for file in files]))
    if ending == "jsonl":
        assert set(kept) <= set(complete_lines(out))
        found = [(a.photo, a.lat, a.lng, a.probability) for a in read_answers(out)]
    else:
        frame = geopandas.read_file(out, layer="answers")
        found = list(zip(frame.photo, frame.lat, frame.lng, frame.probability, strict=True))
    assert [name for name, *_ in found] == [a.photo for a in whole]
    assert np.array([f[1:3] for f in found]) == pytest.approx(
        np.array([[a.lat, a.lng] for a in whole]), abs=1e-5
    )
    assert [f[3] for f in found] == pytest.approx([a.probability for a in whole], abs=1e-3)


def test_only_what_is_the_same_is_taken_up(zoomloc, painted, folder, tmp_path):
    out = tmp_path / "a.jsonl"
    words = ("locate", folder, "--region", painted, "--out", out)

    def known(*more) -> str:
        code, told, err = zoomloc(*words, *more)
        assert code == 0, err
        return told.partition(", ")[2].partition(" known from before")[0] if "known" in told else ""

    assert known() == "" and known() == "3"
    before = out.read_bytes()
    assert known() == "3" and out.read_bytes() == before
    shutil.copy(painted / "photos" / "d9" / "007.jpg", folder / "1.jpeg")  # another picture
    assert known() == "2" and known() == "3"
    assert known("--set", "search.candidates=2") == ""
    assert known("--set", "search.candidates=2") == "3"
    assert known("--heading", "90±20") == "" and known("--heading", "90±21") == ""
    assert known("--heading", "90±21") == "3"
    shutil.copy(painted / "photos" / "d9" / "008.jpg", folder / "4.jpg")
    assert known("--heading", "90±21") == "3" and len(read_answers(out)) == 4
    (folder / "4.jpg").unlink()
    assert known("--heading", "90±21") == "3" and len(read_answers(out)) == 3


# 4. photos that fail


def spoil(photo: Path) -> None:
    """Cut off, so that its head tells all that it should and only its pixels fail."""
    whole = photo.read_bytes()
    photo.write_bytes(whole[: len(whole) // 2])


def test_a_folder_run_goes_on_past_photos_that_cannot_be_read(zoomloc, painted, folder, tmp_path):
    spoil(folder / "b" / "2.jpg")
    (folder / "0.png").write_text("no picture")
    (folder / "IMG_1.HEIC").write_bytes(b"a phone's")
    code, out, err = zoomloc("locate", folder, "--region", painted, "--json")
    assert code == 0 and names(lines_of(out), folder) == ["1.jpeg", "b/c/3.JPG"]
    told = err.splitlines()
    assert len(told) == 3 and all(line.startswith("left out: ") for line in told)
    for name in ("b/2.jpg", "0.png", "IMG_1.HEIC: .heic is not read; convert it to JPEG"):
        assert name in err
    code, told, err = zoomloc("locate", folder, "--region", painted, "--out", tmp_path / "a.csv")
    assert code == 0 and "2 photos -> " in told and err.count("left out") == 3


def test_a_photo_named_by_itself_must_be_readable_but_costs_no_other(
    zoomloc, painted, folder, tmp_path
):
    spoil(folder / "b" / "2.jpg")
    out = tmp_path / "a.jsonl"
    words = ("locate", folder / "b" / "2.jpg", folder, "--region", painted, "--out", out)
    refused(zoomloc(*words), "2.jpg")
    assert len(read_answers(out)) == 2 and list(tmp_path.glob("a*")) == [out]
    words = ("locate", folder / "1.jpeg", tmp_path / "none.jpg", "--region", painted)
    refused(zoomloc(*words), "no such photo")
    assert "1.jpeg: 4" in zoomloc(*words)[1]


def test_a_folder_of_which_none_can_be_read(zoomloc, painted, folder, tmp_path):
    for photo in (folder / "1.jpeg", folder / "b" / "2.jpg", folder / "b" / "c" / "3.JPG"):
        spoil(photo)
    out = tmp_path / "a.csv"
    code, _, err = zoomloc("locate", folder, "--region", painted, "--out", out)
    assert code == 2 and err.splitlines()[-1].startswith("zoomloc: ") and "1.jpeg" in err
    assert err.count("left out: ") == 2 and list(tmp_path.glob("a.*")) == []
    shutil.rmtree(folder)
    folder.mkdir()
    refused(zoomloc("locate", folder, "--region", painted), "no photo in there")
    (folder / "IMG_1.HEIC").write_bytes(b"a phone's")
    refused(zoomloc("locate", folder, "--region", painted), ".heic is not read")


def test_a_name_that_is_no_text_is_located_all_the_same(zoomloc, painted, folder, tmp_path):
    os.rename(os.fsencode(folder / "1.jpeg"), os.fsencode(folder) + b"/\xff\xfe.jpg")
    code, out, err = zoomloc("locate", folder, "--region", painted, "--json")
    assert code == 0 and "\ufffd\ufffd.jpg" in out, err
    for ending in ("jsonl", "geojson", "gpkg", "csv"):
        out = tmp_path / f"a.{ending}"
        assert zoomloc("locate", folder, "--region", painted, "--out", out)[0] == 0


# 5. what is known besides


def masses(line: dict) -> dict[str, float]:
    return {cell["quadkey"]: cell["mass"] for cell in line["posterior"]}


def with_exif(path: Path, lat: float, focal_mm: int) -> Path:
    """The same pixels, taken somewhere else with another lens if the file is to be believed."""
    exif = Image.Exif()
    gps = {1: "N", 2: (lat, 0.0, 0.0), 3: "E", 4: (7.0, 0.0, 0.0)}
    exif.get_ifd(0x8825).update(gps)
    exif.get_ifd(0x8769).update({0xA405: focal_mm})
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 255, (48, 96, 3), np.uint8)).save(path, exif=exif)
    return path


def test_a_position_in_a_photo_is_never_its_answer(zoomloc, painted, tmp_path):
    photos = [with_exif(tmp_path / f"{lat}.jpg", lat, 26) for lat in (10.0, 45.0)]
    code, out, _ = zoomloc("locate", *photos, "--region", painted, "--json")
    far, near = lines_of(out)
    assert (far["lat"], far["lng"]) == pytest.approx((near["lat"], near["lng"]), abs=1e-9)
    assert masses(far) == pytest.approx(masses(near))
    assert far["truth"] == {"lat": 10.0, "lng": 7.0} and near["truth"]["lat"] == 45.0
    assert far["error_m"] > 3_000_000 > near["error_m"]


def test_fov_of_the_photo_itself_unless_it_is_given(zoomloc, painted, tmp_path):
    wide, narrow = (with_exif(tmp_path / f"{mm}.jpg", 45.0, mm) for mm in (18, 70))

    def posteriors(*more) -> list:
        _, out, _ = zoomloc("locate", wide, narrow, "--region", painted, "--json", *more)
        return [masses(line) for line in lines_of(out)]

    own = posteriors()
    assert own[0] != pytest.approx(own[1])
    given = posteriors("--fov", "90")  # 18 mm of 36 mm film
    assert given[0] == pytest.approx(own[0]) and given[1] == pytest.approx(own[0])


AROUND = {"type": "Polygon", "coordinates": [[[7.728, 45.144], [7.73, 45.144], [7.73, 45.146],
                                              [7.728, 45.146], [7.728, 45.144]]]}  # fmt: skip


def test_flags_reach_the_answer_and_are_told(zoomloc, painted, folder, tmp_path):
    area = tmp_path / "area.geojson"
    area.write_text(json.dumps(AROUND))
    flags = ("--near", "45.1452,7.7285", "--within", "50m", "--area", area)
    flags += ("--heading", "90±20", "--fov", "70")
    photo = folder / "1.jpeg"
    _, out, _ = zoomloc("locate", photo, "--region", painted, "--json")
    _, told, _ = zoomloc("locate", photo, "--region", painted, "--json", *flags)
    (plain,), (given,) = lines_of(out), lines_of(told)
    assert given["posterior"] != plain["posterior"]
    assert set(given["given"]) == {"place", "area", "heading", "fov"}
    assert given["given"]["heading"] == "90° ± 20°" and given["given"]["fov"] == "70° wide"
    assert "within 50 m of 45.14520, 7.72850" in given["given"]["place"]
    assert distance_m(LatLng(given["lat"], given["lng"]), LatLng(45.1452, 7.7285)) < 120
    _, text, _ = zoomloc("locate", photo, "--region", painted, *flags)
    assert "given: within 50 m of 45.14520, 7.72850" in text


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--near", "45.1,7.7"), "--within"),
        (("--near", "north", "--within", "5m"), "--near"),
        (("--near", "45.1,7.7", "--within", "far"), "--within"),
        (("--area", "none.geojson"), "none.geojson"),
        (("--heading", "east"), "--heading"),
        (("--fov", "400"), "--fov"),
        (("--near", "10,10", "--within", "50m"), "region"),
        (("--together", "--why", "why.png"), "--why"),
    ],
)
def test_flags_that_make_no_sense(zoomloc, painted, folder, tmp_path, flags, says):
    out = tmp_path / "a.jsonl"
    refused(zoomloc("locate", folder, "--region", painted, "--out", out, *flags), says)
    assert list(tmp_path.glob("a.*")) == []


def test_what_a_model_would_not_listen_to_is_refused(zoomloc, painted, small_config, tmp_path):
    tree = small_config.to_dict()
    tree["train"] |= {"steps": 2}
    train(type(small_config).model_validate(tree), tmp_path / "run")
    photo = painted / "photos" / "d9" / "000.jpg"
    for flag in (("--heading", "90"), ("--fov", "70")):
        refused(zoomloc("locate", photo, "--run", tmp_path / "run", *flag), flag[0], "match")


def test_together_is_one_answer_for_all(zoomloc, painted, folder, tmp_path):
    words = ("locate", folder, "--region", painted, "--together")
    code, out, err = zoomloc(*words, "--json", "--out", tmp_path / "a.csv")
    (line,) = lines_of(out)
    assert code == 0, err
    files = [folder / name for name in ("1.jpeg", "b/2.jpg", "b/c/3.JPG")]
    assert line["photo"] == " + ".join(map(str, files))
    assert line["given"]["together"] == "3 photos of one place"
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 2
    singles = lines_of(zoomloc("locate", folder, "--region", painted, "--json")[1])
    assert line["made_by"]["photo"] not in [single["made_by"]["photo"] for single in singles]
    spoil(folder / "b" / "2.jpg")
    refused(zoomloc(*words), "2.jpg")
