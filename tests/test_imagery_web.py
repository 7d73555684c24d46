"""Tiles from a real HTTP server on loopback, with all that goes wrong on networks."""

import os
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
import shapely
from loopback import Answer, Server, serving
from raster_files import encoded, noise

from data_prep.imagery.fetched import CACHE_NAME
from data_prep.imagery.sources import look_up
from data_prep.imagery.terms import FORBIDDEN, check_terms
from data_prep.imagery.web import Manners, NoAnswer, Web
from data_prep.tiles import PYRAMID_NAME
from zoomloc.cli.screen import Screen
from zoomloc.cli.tiling import make_tiles
from zoomloc.config import TilesConfig
from zoomloc.errors import ConfigError, ImageryError, OutputError
from zoomloc.world.cells import Cell, cell_at, cell_of_quadkey
from zoomloc.world.cells import LatLng as Place
from zoomloc.world.pyramid import TilePyramid
from zoomloc.world.region import Region

LEVEL = 17
MIDDLE = cell_at(Place(47.37, 8.54), LEVEL)
CELLS = [Cell(LEVEL, MIDDLE.x + dx, MIDDLE.y + dy) for dy in range(3) for dx in range(4)]
WEST, NORTH = CELLS[0].bounds.west, CELLS[0].bounds.north
EAST, SOUTH = CELLS[-1].bounds.east, CELLS[-1].bounds.south
BOX = (WEST + 1e-6, SOUTH + 1e-6, EAST - 1e-6, NORTH - 1e-6)
PICTURES = {cell: noise(256, i) for i, cell in enumerate(CELLS)}
FILES = {cell: encoded(picture, "png") for cell, picture in PICTURES.items()}
QUICK = {"rate_per_s": 200.0, "retries": 1, "attribution": "Made up", "licence": "CC0-1.0"}


def config(url: str, **changes) -> TilesConfig:
    source = {"kind": "xyz", "url": url, "level": LEVEL, **QUICK, **changes}
    return TilesConfig(sources=(source,), bounds=BOX, image_format="png")


def tiles(plan: TilesConfig, out, **more) -> None:
    make_tiles(plan, [], out, "town", 1, Screen(quiet=True), **more)


def cell_of(path: str) -> Cell:
    z, x, y = path.split("?")[0].strip("/").split(".")[0].split("/")
    return Cell(int(z), int(x), int(y))


def served(asked) -> Answer:
    return Answer(FILES[cell_of(asked.path)], kind="image/png")


def assert_all_there(out) -> None:
    with TilePyramid.open(out / PYRAMID_NAME) as pyramid:
        assert pyramid.max_level == LEVEL and pyramid.cells(LEVEL) == sorted(CELLS, key=row_major)
        for cell, picture in PICTURES.items():
            assert (pyramid.tile(cell)[..., :3] == picture).all()  # PNG on its own grid: no loss


def row_major(cell: Cell) -> tuple[int, int]:
    return cell.y, cell.x


def test_an_xyz_server_becomes_a_pyramid_with_its_credit(tmp_path):
    with serving(served) as server:
        tiles(config(f"{server.address}/{{z}}/{{x}}/{{y}}.png"), tmp_path)
        assert len(server.asked) == len(CELLS)
        assert all("zoomloc" in asked.headers["user-agent"] for asked in server.asked)
    assert_all_there(tmp_path)
    region = Region.load(tmp_path / "region.json")
    assert region.attribution == ("Made up",) and region.licence == "CC0-1.0"
    with TilePyramid.open(tmp_path / PYRAMID_NAME) as pyramid:
        assert pyramid.metadata["attribution"] == "Made up"


@pytest.mark.parametrize(
    ("template", "changes", "cell"),
    [
        ("/{z}/{x}/{-y}.png", {}, lambda z, x, y: Cell(z, x, (1 << z) - 1 - y)),
        ("/{z}/{x}/{y}.png", {"tms": True}, lambda z, x, y: Cell(z, x, (1 << z) - 1 - y)),
        ("/{z}/{y}/{x}.png", {}, lambda z, y, x: Cell(z, x, y)),
    ],
)
def test_rows_from_the_south_and_other_orders(tmp_path, template, changes, cell):
    def handler(asked):
        return Answer(FILES[cell(*cell_of(asked.path))], kind="image/png")

    with serving(handler) as server:
        tiles(config(server.address + template, **changes), tmp_path)
    assert_all_there(tmp_path)


def test_quadkeys_and_subdomains(tmp_path):
    def handler(asked):
        host, key = asked.path.strip("/").split("/")
        seen.add(host)
        return Answer(FILES[cell_of_quadkey(key)], kind="image/png")

    seen: set[str] = set()
    with serving(handler) as server:
        tiles(config(server.address + "/{s}/{q}", subdomains=("one", "two")), tmp_path)
    assert seen == {"one", "two"}
    assert_all_there(tmp_path)


def test_a_key_from_the_environment_reaches_the_server_and_nothing_else(
    tmp_path, monkeypatch, capsys
):
    secret = "s3cr3t-key-0817"
    monkeypatch.setenv("TOWN_KEY", secret)

    def handler(asked):
        right = f"key={secret}" in asked.path and asked.headers.get("x-key") == secret
        wrong = cell_of(asked.path) == CELLS[5] and broken
        return Answer(b"<html>", 500) if wrong or not right else served(asked)

    broken = True
    with serving(handler) as server:
        url = server.address + "/{z}/{x}/{y}.png?key=${TOWN_KEY}"
        plan = config(url, headers={"X-Key": "${TOWN_KEY}"}, retries=0)
        with pytest.raises(NoAnswer) as told:
            tiles(plan, tmp_path)
        assert secret not in str(told.value) and "${TOWN_KEY}" in str(told.value)
        broken = False
        make_tiles(plan, [], tmp_path, "town", 1, Screen())
    printed = capsys.readouterr()
    assert secret not in printed.out + printed.err
    assert_all_there(tmp_path)
    for file in tmp_path.iterdir():
        assert secret.encode() not in file.read_bytes()


def test_a_key_that_is_not_set_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("TOWN_KEY", raising=False)
    with serving(served) as server:
        plan = config(server.address + "/{z}/{x}/{y}.png?key=${TOWN_KEY}")
        with pytest.raises(ConfigError, match="set the environment variable TOWN_KEY"):
            tiles(plan, tmp_path)
        assert not server.asked


# 1. what goes wrong on networks

HTML = Answer(b"<html>busy</html>", kind="text/html")
BAD = {
    "html for an image": HTML,
    "an error as a page": Answer(b"<html>", 500, "text/html"),
    "too many requests": Answer(b"", 429, headers={"Retry-After": "0"}),
    "cut off": Answer(FILES[CELLS[3]], kind="image/png", cut=5_000),
    "half a picture": Answer(FILES[CELLS[3]][:-3_000], kind="image/png"),
    "another size": Answer(encoded(noise(128, 9)), kind="image/png"),
    "slow bytes": Answer(FILES[CELLS[3]], kind="image/png", drip_s=0.2),
    "nothing": Answer(b"", kind="image/png"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_fault_that_passes_is_asked_for_again(tmp_path, fault):
    def handler(asked):
        first = cell_of(asked.path) == CELLS[3] and asked.number == 1
        return BAD[fault] if first else served(asked)

    with serving(handler) as server:
        tiles(config(server.address + "/{z}/{x}/{y}.png", timeout_s=1.0), tmp_path)
        assert len(server.asked) == len(CELLS) + 1
    assert_all_there(tmp_path)


@pytest.mark.parametrize("fault", ["html for an image", "an error as a page", "half a picture"])
def test_a_fault_that_stays_is_an_error_and_what_came_is_kept(tmp_path, fault):
    def handler(asked):
        return BAD[fault] if broken and cell_of(asked.path) == CELLS[3] else served(asked)

    broken = True
    with serving(handler) as server:
        plan = config(server.address + "/{z}/{x}/{y}.png", retries=0)
        with pytest.raises(NoAnswer, match="1 of 12 tiles did not come .*run the same command"):
            tiles(plan, tmp_path)
        assert not (tmp_path / PYRAMID_NAME).exists(), "never done with holes"
        broken, before = False, len(server.asked)
        tiles(plan, tmp_path)
        assert len(server.asked) == before + 1, "only what is missing is asked for"
    assert_all_there(tmp_path)


def test_a_refusal_is_not_asked_again(tmp_path):
    with serving(lambda asked: Answer(b"no", 403)) as server:
        with pytest.raises(NoAnswer, match="answers 403; it refuses: check the key"):
            tiles(config(server.address + "/{z}/{x}/{y}.png", retries=3), tmp_path)
        assert len(server.asked) == len(CELLS)


@pytest.mark.parametrize(
    ("host", "told"),
    [("", "takes no connection; check the address"), ("no-such-host.invalid", "check the network")],
)
def test_a_server_that_was_never_reached_is_not_asked_again(host, told):
    with serving(served) as server:
        address = f"http://{host}" if host else server.address
    begun = time.monotonic()
    with Web(Manners(retries=5)) as web, pytest.raises(NoAnswer, match=told) as caught:
        web.get(address, "tile 1")
    assert caught.value.unreached and str(caught.value).startswith("tile 1: cannot be reached: it")
    assert time.monotonic() - begun < 5


def test_a_server_that_is_gone_in_between_is_asked_again():
    with Web(Manners(retries=2, first_wait_s=0.01)) as web:
        closing = Answer(b"here", headers={"Connection": "close"})
        with serving(lambda asked: closing) as server:
            assert web.get(server.address, "tile 1") == b"here"
        with pytest.raises(NoAnswer, match="no whole answer .*, asked 3 times") as caught:
            web.get(server.address, "tile 2")
    assert not caught.value.unreached


def test_ground_that_a_server_does_not_have_stays_empty(tmp_path):
    def handler(asked):
        gone = cell_of(asked.path) in (CELLS[0], CELLS[7])
        return Answer(b"", 404 if asked.path.endswith("0") else 204) if gone else served(asked)

    with serving(handler) as server:
        tiles(config(server.address + "/{z}/{x}/{y}.png"), tmp_path)
    with TilePyramid.open(tmp_path / PYRAMID_NAME) as pyramid:
        assert set(pyramid.cells(LEVEL)) == set(CELLS) - {CELLS[0], CELLS[7]}


def test_no_imagery_at_all_is_an_error(tmp_path):
    with serving(lambda asked: Answer(b"", 404)) as server:
        with pytest.raises(ImageryError, match="no imagery for any of 12 tiles"):
            tiles(config(server.address + "/{z}/{x}/{y}.png"), tmp_path)
    assert not (tmp_path / PYRAMID_NAME).exists()


def test_a_server_that_is_gone_is_given_up(tmp_path):
    with serving(served) as server:
        address = server.address
    plan = config(address + "/{z}/{x}/{y}.png", retries=0)
    with pytest.raises(NoAnswer, match="12 of 12 tiles did not come"):
        tiles(plan, tmp_path)


def test_retry_after_is_waited_for():
    def handler(asked):
        first = asked.number == 1
        return Answer(b"", 503, headers={"Retry-After": "1"}) if first else Answer(b"here")

    with serving(handler) as server, Web(Manners(retries=1, first_wait_s=30.0)) as web:
        begun = time.monotonic()
        assert web.get(server.address + "/a", "a") == b"here"
        assert 0.9 < time.monotonic() - begun < 10


def test_requests_start_no_faster_than_the_rate():
    times: list[float] = []

    def handler(asked):
        times.append(time.monotonic())
        return Answer(b"x")

    with serving(handler) as server, Web(Manners(rate_per_s=20.0)) as web:
        for i in range(7):
            web.get(f"{server.address}/{i}", "x")
    assert times[-1] - times[0] > 6 / 20 * 0.9


def test_an_answer_without_end_is_given_up():
    def handler(asked):
        return Answer(bytes(65 << 20))

    with serving(handler) as server, Web(Manners()) as web:
        with pytest.raises(NoAnswer, match="more than 64 MB"):
            web.get(server.address + "/a", "a")


# 2. before and after


def test_a_dry_run_says_what_it_takes_and_asks_nothing(tmp_path, capsys):
    with serving(served) as server:
        plan = config(server.address + "/{z}/{x}/{y}.png")
        make_tiles(plan, [], tmp_path / "out", "town", 1, Screen(), dry_run=True)
        assert not server.asked
    told = capsys.readouterr().out
    assert "12 of 12 tiles to fetch" in told and "MB" in told and "at 200 requests a second" in told
    assert f"levels {LEVEL - 4}" in told.replace("levels  ", "levels ") or "levels" in told
    assert not (tmp_path / "out").exists()


def test_a_finished_pyramid_asks_nothing_again(tmp_path):
    with serving(served) as server:
        plan = config(server.address + "/{z}/{x}/{y}.png")
        tiles(plan, tmp_path)
        stamp = (tmp_path / PYRAMID_NAME).stat().st_mtime_ns
        tiles(plan, tmp_path)
        assert len(server.asked) == len(CELLS)
    assert (tmp_path / PYRAMID_NAME).stat().st_mtime_ns == stamp


def test_two_sources_lie_one_on_the_other(tmp_path):
    """The upper server has the western half; the lower one the rest."""

    def handler(asked):
        side, z, x, y = asked.path.strip("/").split(".")[0].split("/")
        cell = Cell(int(z), int(x), int(y))
        if side == "upper":
            return served_of(cell) if cell.x < MIDDLE.x + 2 else Answer(b"", 404)
        return Answer(grey, kind="image/png")

    def served_of(cell):
        return Answer(FILES[cell], kind="image/png")

    grey = encoded(np.full((256, 256, 3), 90, np.uint8))
    with serving(handler) as server:
        both = [
            config(f"{server.address}/{side}/{{z}}/{{x}}/{{y}}.png", attribution=side).sources[0]
            for side in ("upper", "lower")
        ]
        plan = TilesConfig(sources=tuple(both), bounds=BOX, image_format="png")
        tiles(plan, tmp_path)
    with TilePyramid.open(tmp_path / PYRAMID_NAME) as pyramid:
        assert (pyramid.tile(CELLS[0])[..., :3] == PICTURES[CELLS[0]]).all()
        assert (pyramid.tile(CELLS[3])[..., :3] == 90).all()
        assert pyramid.metadata["attribution"] == "upper; lower"


def test_a_server_needs_a_region(tmp_path):
    plan = config("https://tiles.example.org/{z}/{x}/{y}.png").model_copy(update={"bounds": None})
    with pytest.raises(ConfigError, match="say which ground is meant"):
        look_up(plan, [], None, tmp_path)


@pytest.mark.parametrize("terms", FORBIDDEN, ids=lambda terms: terms.provider)
def test_providers_that_forbid_it_are_refused(terms):
    for host in terms.hosts:
        address = f"https://{host.replace('*', 'a').replace('?', '1')}/{{z}}/{{x}}/{{y}}"
        with pytest.raises(ConfigError, match="forbid this"):
            check_terms(address, "")
        check_terms(address, "A. Person of the provider, letter of 2026-01-01")
    check_terms("https://storage.googleapis.com/open-cogs/a.tif", "")
    check_terms("https://tiles.arcgis.com/tiles/open/{z}/{y}/{x}", "")


def test_a_forbidden_provider_is_refused_before_anything_is_asked(tmp_path):
    plan = config("https://tile.openstreetmap.org/{z}/{x}/{y}.png")
    with pytest.raises(ConfigError, match="'zoomloc cities' lists some"):
        tiles(plan, tmp_path)


# 3. killed, and a full disk

FETCHING = """
import sys
from pathlib import Path
from zoomloc.cli.screen import Screen
from zoomloc.cli.tiling import make_tiles
from zoomloc.config import load_config
config = load_config([sys.argv[1]])
make_tiles(config.tiles, [], Path(sys.argv[2]), "town", 1, Screen(quiet=True))
"""


def config_file(path, server: Server, **changes):
    plan = config(server.address + "/{z}/{x}/{y}.png", **changes)
    import yaml

    path.write_text(yaml.safe_dump({"tiles": plan.model_dump(mode="json")}), encoding="utf-8")
    return path


def test_a_killed_fetch_goes_on_where_it_ended(tmp_path):
    with serving(served) as server:
        file = config_file(tmp_path / "town.yaml", server, rate_per_s=4.0)
        command = [sys.executable, "-c", FETCHING, str(file), str(tmp_path / "out")]
        process = subprocess.Popen(command)
        while len(server.asked) < 6:
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
        process.wait()
        quick = config_file(tmp_path / "quick.yaml", server)
        subprocess.run([*command[:3], str(quick), command[4]], check=True)
        # the few that were on their way when it was killed may be asked for twice
        assert len(CELLS) <= len(server.asked) <= len(CELLS) + 8
    assert_all_there(tmp_path / "out")


def test_a_full_disk_is_told_and_leaves_what_came(tmp_path):
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000,) * 2)\n"
    with serving(served) as server:
        file = config_file(tmp_path / "town.yaml", server)
        out = tmp_path / "out"
        code = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + limited + FETCHING
        found = subprocess.run(
            [sys.executable, "-c", code, str(file), str(out)],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert found.returncode and OutputError.__name__ in found.stderr
        assert not (out / PYRAMID_NAME).exists()
        subprocess.run([sys.executable, "-c", FETCHING, str(file), str(out)], check=True)
    assert_all_there(out)
    with sqlite3.connect(out / CACHE_NAME) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_grid_reaches_round_the_globe():
    from data_prep.imagery.grids import mercator_grid

    grid = mercator_grid(3)
    across = grid.tiles_under(shapely.box(179, 10, 181, 20))
    assert across == [(0, 3), (7, 3)]


def test_tiles_on_both_sides_of_the_antimeridian(tmp_path):
    """A region that passes 180: all of it is fetched, and lies in one piece."""
    side = 1 << 16

    def handler(asked):
        z, x, y = asked.path.strip("/").split(".")[0].split("/")
        return Answer(grey[int(x) > side / 2], kind="image/png")

    grey = {left: encoded(np.full((256, 256, 3), 90 + 90 * left, np.uint8)) for left in (0, 1)}
    with serving(handler) as server:
        source = {"kind": "xyz", "url": server.address + "/{z}/{x}/{y}.png", "level": 16, **QUICK}
        plan = TilesConfig(sources=(source,), bounds=(179.99, -17.0, 180.01, -16.99))
        tiles(plan, tmp_path)
    with TilePyramid.open(tmp_path / PYRAMID_NAME) as pyramid:
        for lng, value in ((179.995, 180), (-179.995, 90)):
            seen = pyramid.square(Place(-16.995, lng), 30, 8)
            assert np.abs(seen.astype(int) - value).max() <= 3
    region = Region.load(tmp_path / "region.json").shape()
    assert region.bounds[2] - region.bounds[0] == pytest.approx(0.02)


def test_far_too_many_tiles_are_refused_before_any_is_asked(tmp_path):
    plan = config("http://127.0.0.1:9/{z}/{x}/{y}.png", level=24)
    plan = plan.model_copy(update={"bounds": (8.0, 47.0, 9.0, 48.0)})
    with pytest.raises(ImageryError, match="take a coarser level, or less ground"):
        tiles(plan, tmp_path)
