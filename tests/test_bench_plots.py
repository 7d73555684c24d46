"""bench.plots: what is drawn, checked on the drawn lines; the files open and are the same twice."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from bench_rows import enough, made, realistic
from PIL import Image

from zoomloc.bench.plots import (
    COLOURS,
    KINDS,
    error_distribution,
    recall_over_area,
    recall_over_time,
    write_plots,
    zoom_accuracy,
)
from zoomloc.bench.pooling import pooled
from zoomloc.bench.rows import FARTHEST_M, Row
from zoomloc.bench.tables import Section, sections
from zoomloc.errors import ConfigError

pytest.importorskip("matplotlib", reason="extra plots is not installed")


def only(rows: list[Row]) -> Section:
    (section,) = sections(rows)
    return section


def drawn(figure, label: str):
    """The line of that name."""
    (line,) = [line for line in figure.axes[0].get_lines() if line.get_label() == label]
    return line


def names(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_files_have_their_size_and_are_the_same_twice(tmp_path):
    rows = [realistic(e, s) for e in ("zoomloc", "justzoomin", "constant") for s in range(2)]
    paths = write_plots(rows, tmp_path / "a")
    assert [p.name for p in paths] == [
        f"same-area-full-10min-{kind}.png"
        for kind in ("recall-time", "errors", "zooms", "searched-area")
    ]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted(p.name for p in paths)
    again = write_plots(rows[::-1], tmp_path / "b")
    for path, other in zip(paths, again, strict=True):
        with Image.open(path) as image:
            assert image.size == (900, 550) and not image.text
            assert len(np.unique(np.asarray(image.convert("L")))) > 20
        assert path.read_bytes() == other.read_bytes()


def test_other_rows_give_another_picture(tmp_path):
    rows = [realistic("zoomloc", 0)]
    worse = [replace(rows[0], details=rows[0].details | {"zoom_accuracy": [0.9, 0.5, 0.1]})]
    before = {p.name: p.read_bytes() for p in write_plots(rows, tmp_path)}
    after = {p.name: p.read_bytes() for p in write_plots(worse, tmp_path)}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"same-area-full-10min-zooms.png"}


def test_each_protocol_and_budget_has_its_own(tmp_path):
    rows = [made(), made(protocol="unseen-town"), made(minutes=0.5), made(preset="small")]
    assert [p.name for p in write_plots(rows, tmp_path)] == [
        "same-area-full-0.5min-errors.png",
        "same-area-full-10min-errors.png",
        "same-area-small-10min-errors.png",
        "unseen-town-full-10min-errors.png",
    ]
    towns = [p.name for p in write_plots([made(), made(towns=[3])], tmp_path)]
    assert len(set(towns)) == 2


def test_what_has_no_data_is_left_out(tmp_path):
    bare = [replace(made(), details={})]
    assert write_plots(bare, tmp_path) == [] and list(tmp_path.iterdir()) == []
    assert all(draw(only(bare)) is None for draw in KINDS.values())
    empty = made(details={"curve": [], "zoom_accuracy": [], "area_recall": []})
    assert zoom_accuracy(only([empty])) is None


def test_every_entrant_is_named_in_its_own_colour():
    section = only(enough(seeds=2))
    for draw in KINDS.values():
        figure = draw(section)
        assert figure is not None
        for name in names(figure):
            if name in COLOURS:
                assert drawn(figure, name).get_color() == COLOURS[name]
    assert names(error_distribution(section)) == list(section.entrants)
    assert "retrieval" not in names(zoom_accuracy(section))  # it does not zoom
    assert names(recall_over_area(section))[-1] == "searched at random"
    ours = {name: colour for name, colour in COLOURS.items() if name not in ("random-road",)}
    assert len(set(ours.values())) == len(ours)


def test_titles_and_axes_say_what_is_drawn():
    section = only([realistic("zoomloc", s) for s in range(3)])
    for draw, up, across in (
        (recall_over_time, "recall within 50 m, %", "minutes"),
        (error_distribution, "within that distance, %", "metres"),
        (zoom_accuracy, "%", "zoom"),
        (recall_over_area, "photos found, %", "%"),
    ):
        axes = draw(section).axes[0]
        title = axes.get_title(loc="left")
        assert "same-area, 10 minutes of training (full), 3 seeds" in title
        n = 300 if draw is recall_over_time else 400
        assert f"n = {n} for each seed" in title
        assert up in axes.get_ylabel() and across in axes.get_xlabel()
        assert any(line.get_visible() for line in axes.get_xgridlines())
    alone = error_distribution(only([realistic("zoomloc", 0)])).axes[0].get_title(loc="left")
    assert "1 seed\n" in alone and "(n = 400)" in alone


def test_time_curves_are_means_over_seeds():
    def curve(*points):
        return {"curve": [{"seconds": s, "r_at_50m": r} for s, r in points]}

    rows = [
        made(seed=0, details=curve((60, 0.1), (180, 0.3))),
        made(seed=1, details=curve((60, 0.3), (120, 0.5), (240, 0.7))),
    ]
    figure = recall_over_time(only(rows))
    x, y = drawn(figure, "zoomloc").get_data()
    assert np.allclose(x, [1, 2, 3]) and np.allclose(y, [20, 35, 45])
    thin = [line for line in figure.axes[0].get_lines() if line.get_label() != "zoomloc"]
    assert [len(line.get_xdata()) for line in thin] == [2, 3]


def test_error_curves_pass_through_the_recall():
    rows = [realistic("zoomloc", s) for s in range(2)] + [realistic("constant", 0)]
    figure = error_distribution(only(rows))
    axes = figure.axes[0]
    for entrant, some in (("zoomloc", rows[:2]), ("constant", rows[2:])):
        x, y = drawn(figure, entrant).get_data()
        for distance in (25, 50, 100):
            share = y[np.searchsorted(x, distance, side="right") - 1]
            assert share == pytest.approx(100 * pooled(some, f"r_at_{distance}m").value)
        assert y[-1] == 100
    uprights = {line.get_xdata()[0] for line in axes.get_lines() if len(set(line.get_xdata())) == 1}
    assert uprights == {25, 50, 100}
    assert axes.get_xscale() == "log"
    assert axes.get_xlim() == (1, max(max(r.details["errors_m"]) for r in rows))
    assert drawn(figure, "constant").get_linestyle() == "--"


def test_no_answer_does_not_stretch_the_axis():
    figure = error_distribution(only([made([10, 400, np.inf])]))
    assert figure.axes[0].get_xlim() == (1, 400)
    x, y = drawn(figure, "zoomloc").get_data()
    assert x[-1] == FARTHEST_M and y[-2] == pytest.approx(200 / 3)


def test_zooms_and_area_by_hand():
    details = {
        "zoom_accuracy": [0.9, 0.5],
        "area_recall": [{"area": a, "recall": r} for a, r in ((0, 0), (0.01, 0.4), (1, 1))],
    }
    section = only([made(details=details)])
    x, y = drawn(zoom_accuracy(section), "zoomloc").get_data()
    assert list(x) == [0, 1] and np.allclose(y, [90, 50])
    figure = recall_over_area(section)
    x, y = drawn(figure, "zoomloc").get_data()
    assert np.allclose(x, [1, 100]) and np.allclose(y, [40, 100])
    x, y = drawn(figure, "searched at random").get_data()
    assert np.allclose(x, y) and figure.axes[0].get_xscale() == "log"


def test_nothing_heavy_is_imported_before_something_is_drawn():
    code = (
        "import sys, zoomloc.bench.plots as p; "
        "assert not {'matplotlib', 'torch'} & set(sys.modules), 'imported'; "
        "from pathlib import Path; assert p.write_plots([], Path('nowhere')) == []"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'zoomloc\[plots\]'"):
        write_plots([made()], tmp_path)
    assert list(tmp_path.iterdir()) == []
