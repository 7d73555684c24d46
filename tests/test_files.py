"""files: written whole or not at all."""

import json
import os
import resource
import stat
import subprocess
import sys

import pytest

from zoomloc.errors import OutputError, RegionError
from zoomloc.world.files import read_json, sha256_of, write_json, write_text, written_whole


def test_an_error_leaves_what_stood_there(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "before")
    with pytest.raises(ValueError, match="no"), written_whole(path) as temporary:
        temporary.write_text("half")
        raise ValueError("no")
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_folders_are_made_and_results_are_readable_by_all(tmp_path):
    path = tmp_path / "new" / "deep" / "a.json"
    write_json(path, {"schema": "x/1", "ä": [1, 2]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"schema": "x/1", "ä": [1, 2]}
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("blocked", ["a/b.txt", "folder"])
def test_a_place_that_cannot_be_written_is_told(tmp_path, blocked):
    (tmp_path / "a").write_text("a file, not a folder")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").touch()
    with pytest.raises(OutputError, match="cannot write .*choose a place") as caught:
        write_text(tmp_path / blocked, "text")
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["a", "folder"]


FULL_DISK = """
import sys
from pathlib import Path
from zoomloc.errors import OutputError
from zoomloc.world.files import write_text
try:
    write_text(Path(sys.argv[1]), "x" * 100_000)
except OutputError as error:
    print(error)
"""


def test_a_full_disk_leaves_what_stood_there(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "before")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert "disk is full; free some space" in done.stdout, done.stderr
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"error_m": float("nan")})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "no such file"),
        (b"", "cannot be read as JSON"),
        (b"{", "cannot be read as JSON"),
        (b"\xff\xfe\x00", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[]", "schema is None"),
        (b'{"schema": "zoomloc/region/0"}', "this version reads 'zoomloc/region/1'"),
    ],
)
def test_json_that_is_not_ours_is_refused_as_the_callers_kind(tmp_path, content, told):
    path = tmp_path / "region.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RegionError, match=told):
        read_json(path, "zoomloc/region/1", RegionError)


def test_sha256_is_the_known_one(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256_of(path).startswith("ba7816bf8f01cfea414140de5dae2223")
