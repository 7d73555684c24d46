"""The bench of tilers: same tiles for all, fair clocks, and a row for a peer that is missing."""

import os
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from data_prep import bench
from data_prep.bench import NOT_INSTALLED, Peers, Row, Run, compare_tilers, found_peers, timed
from data_prep.bench_memory import peak_bytes, sparse_memory
from data_prep.bench_rasters import write_raster
from data_prep.bench_tables import sparse_markdown, tiles_markdown
from data_prep.imagery.rasters import inspected
from data_prep.tile_jobs import averaged
from data_prep.tiles import build_tiles
from zoomloc.cli import main
from zoomloc.cli.bench_verbs import with_section
from zoomloc.errors import ImageryError
from zoomloc.world.cells import Cell, cell_at
from zoomloc.world.pyramid import TilePyramid

NO_PEERS = Peers(None, NOT_INSTALLED, None, NOT_INSTALLED)
MOST_BYTES = 1.5e9

RIO_TILER = '''
"""Stands in for rio-tiler: any tile is a grey picture."""
import pathlib

class Picture:
    def __init__(self, words):
        self.words = words

    def render(self, img_format, **options):
        with open(pathlib.Path(__file__).with_name("told"), "a") as file:
            print(*self.words, img_format, sorted(options.items()), file=file)
        return b"seven b"

class Reader:
    def __init__(self, path):
        assert path.endswith("a.tif")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def tile(self, x, y, level, tilesize, resampling_method, reproject_method):
        assert tilesize == 256 and resampling_method == reproject_method
        return Picture([level, x, y, reproject_method])
'''


@pytest.fixture(scope="module")
def raster(tmp_path_factory):
    return write_raster(tmp_path_factory.mktemp("raster") / "a.tif", 500)


def test_the_made_up_raster_is_the_same_each_time(raster, tmp_path):
    import rasterio

    again = write_raster(tmp_path / "again.tif", 500)
    with rasterio.open(raster) as one, rasterio.open(again) as two:
        assert (one.read() == two.read()).all()
        assert one.crs.to_epsg() == 32632 and one.overviews(1) == [2, 4, 8, 16]
        assert (
            one.compression.name == "deflate"
            and one.block_shapes[0] == (512, 512)
            and one.read().std() > 15
        )


# 1. clocks


def test_processor_time_of_grandchildren_counts():
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    run, _ = timed([[sys.executable, "-c", child]])
    assert 0.5 <= run.cpu_s < 2
    assert run.wall_s > 0.4


def test_commands_are_timed_together_and_the_last_is_heard():
    asleep = [sys.executable, "-c", "import time; time.sleep(0.2); print('first')"]
    echo = [sys.executable, "-c", "import sys; print(sys.stdin.read())"]
    run, said = timed([asleep, echo], given="heard")
    assert said.strip() == "heard"
    assert run.wall_s > 0.2


def test_memory_of_grandchildren_counts():
    full = "import time; held = b'x' * 200_000_000; time.sleep(0.5)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {full!r}])"
    peak, largest = peak_bytes([sys.executable, "-c", child])
    assert 200e6 < largest < peak < 350e6


# 2. the ways


def test_peers_that_are_missing_are_rows_that_say_so(raster, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    peers = found_peers("no-such-python")
    assert peers == NO_PEERS
    rows = compare_tilers(raster, tmp_path, peers, "webp", 1, lambda line: None)
    assert [row.missing for row in rows] == ["", ""] + [NOT_INSTALLED] * 3
    text = tiles_markdown({"webp": rows}, peers, "zoomloc bench tiles")
    assert text.count(NOT_INSTALLED) == 5 and text.count("\n| ") == 1 + len(rows)
    assert str(tmp_path) not in text and sys.executable not in text


def test_every_run_makes_the_same_tiles(raster, tmp_path):
    one, two = compare_tilers(raster, tmp_path, NO_PEERS, "png", 2, lambda line: None)[:2]
    assert len(one.runs) == len(two.runs) == 2
    assert {(run.tiles, run.size) for run in one.runs + two.runs} == {
        (one.runs[0].tiles, one.runs[0].size)
    }
    assert all(run.cpu_s > 0.2 and run.wall_s > 0.2 for run in one.runs + two.runs)


def test_rio_tiler_is_asked_for_the_tiles_that_zoomloc_makes(raster, tmp_path, monkeypatch):
    package = tmp_path / "rio_tiler"
    package.mkdir()
    (package / "__init__.py").write_text("__version__ = '99'")
    (package / "io.py").write_text(RIO_TILER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    peers = found_peers(sys.executable)
    assert peers.rio_version.startswith("99 with GDAL 3.")
    only = Peers(None, NOT_INSTALLED, peers.rio_python, peers.rio_version)
    rows = compare_tilers(raster, tmp_path / "work", only, "webp", 1, lambda line: None)
    ours, whole, deepest = rows[0].runs[0], rows[3].runs[0], rows[4].runs[0]
    assert whole.tiles == ours.tiles > deepest.tiles > 0
    assert whole.size == 7 * whole.tiles
    told = [line.split(" ", 4) for line in (package / "told").read_text().splitlines()]
    assert len(told) == whole.tiles + deepest.tiles
    last = max(int(words[0]) for words in told)
    assert {words[3] for words in told if int(words[0]) == last} == {"cubic"}
    assert {words[3] for words in told if int(words[0]) < last} == {"average"}
    assert {words[4] for words in told} == {"WEBP [('METHOD', 2), ('QUALITY', 90)]"}


def test_a_peer_that_fails_keeps_its_row(raster, tmp_path):
    broken = tmp_path / "gdal2tiles.py"
    broken.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no WEBP here')\n")
    broken.chmod(0o755)
    peers = Peers(str(broken), "3.0", None, NOT_INSTALLED)
    told = []
    rows = compare_tilers(raster, tmp_path, peers, "webp", 2, told.append)
    assert rows[2].missing == "failed: no WEBP here" and not rows[2].runs
    assert sum("no WEBP here" in line for line in told) == 1
    assert "| gdal2tiles, 1 process | failed: no WEBP here |" in tiles_markdown(
        {"webp": rows}, peers, "a command"
    )


@pytest.mark.skipif(not shutil.which("gdal2tiles.py"), reason="gdal2tiles is not installed")
def test_gdal2tiles_makes_the_same_tiles_of_the_same_ground(raster, tmp_path):
    program = shutil.which("gdal2tiles.py")
    summary = build_tiles([raster], tmp_path / "ours", "a", image_format="png", workers=1)
    with TilePyramid.open(summary.imagery) as pyramid:
        tiles = [(c.level, c.x, c.y) for z in pyramid.levels for c in pyramid.cells(z)]
        run = bench._gdal2tiles(program, raster, tmp_path / "theirs", "png", tiles)
        assert run.tiles == len(tiles)
        for level, x, y in tiles:
            theirs = np.asarray(Image.open(tmp_path / "theirs" / f"{level}/{x}/{y}.png"), int)
            ours = pyramid.tile(Cell(level, x, y)).astype(int)
            both = (ours[..., 3] == 255) & (theirs[..., 3] == 255)
            if both.sum() > 5_000:
                assert np.abs(ours - theirs)[both][:, :3].mean() < 8


def test_a_raster_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "a.tif").write_text("none")
    with pytest.raises(ImageryError, match="not a readable raster"):
        compare_tilers(tmp_path / "a.tif", tmp_path, NO_PEERS, "webp", 1, lambda line: None)


# 3. memory


def test_a_sparse_raster_costs_what_it_holds(tmp_path):
    memory = sparse_memory(tmp_path, 100_000, parts=5)
    assert 50 < memory.largest_mb < memory.peak_mb < MOST_BYTES / 1e6
    assert 50 < memory.tiles < 600
    assert "100,000 x 100,000 px" in sparse_markdown(memory, "a command")


# 4. what is told


def test_rates_are_tiles_of_one_core_and_the_median_is_told():
    runs = [Run(9.0, seconds, 100, 800_000) for seconds in (1.0, 2.0, 4.0)]
    slow = [Run(9.0, 2 * run.cpu_s, 100, 900_000) for run in runs]
    rows = [Row("zoomloc", runs), Row("two", runs), Row("peer", slow)]
    text = tiles_markdown({"png": rows}, NO_PEERS, "a command")
    assert "| zoomloc | 100 | 8.0 | 50.0 (25.0 – 100.0) | 1.00 | 2.0 (1.0 – 4.0) " in text
    assert "| peer | 100 | 9.0 | 25.0 (12.5 – 50.0) | 0.50 |" in text
    assert "png, lossless" in text
    assert "1.00 times as fast by the clock" in text


def test_only_its_own_section_of_a_document_is_made_new():
    first = with_section("", "Tiles", "one\n")
    assert first == "# Benchmarks\n\n## Tiles\n\none\n"
    both = with_section(first, "Memory of tiles", "much\n")
    again = with_section(both, "Tiles", "two\n")
    assert again == "# Benchmarks\n\n## Tiles\n\ntwo\n\n## Memory of tiles\n\nmuch\n"


def test_the_command_writes_its_section(tmp_path, monkeypatch, capsys):
    out = tmp_path / "benchmarks.md"
    monkeypatch.setenv("PATH", "")
    asked = ["--side-px", "256", "--rounds", "1", "--rio-python", "none", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["zoomloc", "bench", "tiles", *asked])
    with pytest.raises(SystemExit) as done:
        main()
    assert not done.value.code
    text = out.read_text()
    assert "`zoomloc bench tiles --side-px 256 --formats webp --rounds 1" in text
    assert NOT_INSTALLED in text and str(tmp_path) not in text
    assert "gdal2tiles" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["zoomloc", "bench", "tiles", "--formats", "gif"])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 2 and "take of webp, png" in capsys.readouterr().err


# 5. what is faster shows the same


def test_opaque_imagery_is_warped_without_its_alpha_to_the_same_pixels(raster, monkeypatch):
    from data_prep.imagery import warp

    sheet, asked = inspected(raster), []

    def with_alpha(source, target, src_alpha, **options):
        asked.append((len(source), src_alpha))
        four = np.concatenate([source, np.full_like(source[:1], 255)]) if src_alpha == 0 else source
        plain(four, target, src_alpha=4, **options)

    block = cell_at(sheet.center, 17)
    blocks = [Cell(17, block.x + column, block.y) for column in (-1, 0, 1)]
    drawn = [sheet.draw(one, 1024) for one in blocks]
    plain = warp.reproject
    monkeypatch.setattr(warp, "reproject", with_alpha)
    for ours, one in zip(drawn, blocks, strict=True):
        theirs = sheet.draw(one, 1024)
        assert (ours is None) == (theirs is None)
        assert ours is None or (ours == theirs).all()
    assert set(asked) == {(3, 0)}
    assert sum(one is not None and one[3].any() for one in drawn) >= 1


@pytest.mark.parametrize("alpha", ["opaque", "edges", "random"])
def test_averages_are_those_of_exact_numbers(alpha):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8)
    if alpha == "opaque":
        pixels[..., 3] = 255
    if alpha == "edges":
        pixels[..., 3] = np.where(np.add.outer(np.arange(64), np.arange(64)) < 60, 255, 0)
    parts = pixels.reshape(32, 2, 32, 2, 4).astype(np.float64)
    weights = parts[..., 3:].sum(axis=(1, 3))
    colours = (parts[..., :3] * parts[..., 3:]).sum(axis=(1, 3)) / np.maximum(weights, 1)
    exact = np.concatenate([colours, weights / 4], axis=2)
    assert np.abs(averaged(pixels) - exact).max() <= 0.5
    if alpha == "opaque":
        reduced = np.asarray(Image.fromarray(pixels[..., :3]).reduce(2))
        assert (averaged(pixels)[..., :3] == reduced).all()
