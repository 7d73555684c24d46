"""bench.tables: what a reader finds in the Markdown, in which order, and what counts."""

import re
from dataclasses import replace

import pytest
from bench_rows import SKILL, enough, made, realistic

from zoomloc.bench.pooling import paired_difference, pooled
from zoomloc.bench.rows import Row
from zoomloc.bench.tables import best_baseline, markdown_table, sections


def parsed(text: str) -> dict[str, dict[str, str]]:
    """The first table: entrant -> column -> cell."""
    lines = [line for line in text.split("\n\n")[1].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({len(line) for line in cells}) == 1 and set("".join(cells[1])) == {"-", ":"}
    head = cells[0]
    return {line[0]: dict(zip(head, line, strict=True)) for line in cells[2:]}


def few(errors: list[float], entrant: str, seed: int = 0, **changes: object) -> Row:
    """A row with photos of four drives, two photos each."""
    return made(errors, [0, 0, 1, 1, 2, 2, 3, 3], entrant=entrant, seed=seed, **changes)


NEAR, MID, FAR, LOST = 10.0, 40.0, 80.0, 700.0


def test_a_table_by_hand():
    details = {
        "lr": 0.0016,
        "steps": 4749,
        "photos_seen": 303_936,
        "created": "2026-11-22T08:00:00+00:00",
        "machine": {"system": "Linux", "threads": 1},
        "threads": 1,
    }
    rows = [
        few([NEAR] * 8, "zoomloc", details=details, params=1_234_567),
        few([NEAR, MID] * 2 + [FAR, LOST] * 2, "retrieval"),
        few([LOST] * 6 + [MID] * 2, "justzoomin"),
        few([LOST] * 8, "random-road", params=0),
    ]
    text = markdown_table(rows)
    assert text.startswith("### same-area, 10 minutes of training (full)\n")
    table = parsed(text)
    assert list(table) == ["zoomloc", "retrieval", "justzoomin", "random-road"]
    assert table["zoomloc"] == {
        "entrant": "zoomloc",
        "R@25 m, %": "100.0",
        "R@50 m, %": "100.0",
        "R@100 m, %": "100.0",
        "median error, m": "10",
        "exact cell, %": "–",
        "seeds": "1",
        "n": "8",
        "parameters": "1,234,567",
        "steps": "4,749",
        "photos seen": "303,936",
        "learning rate": "0.0016",
        "difference, points": "+50.0 [+0.0, +100.0]",  # two of four drives: P(neither) = 6 %
    }
    assert table["retrieval"]["R@25 m, %"] == "25.0"
    assert table["retrieval"]["R@100 m, %"] == "75.0"
    assert table["retrieval"]["median error, m"] == "60"
    assert table["retrieval"]["difference, points"] == "best baseline"
    assert table["justzoomin"]["difference, points"].startswith("-25.0 [")
    assert table["random-road"]["difference, points"] == "–"
    assert "whole drives (4 in all)" in text and "to retrieval, the best baseline" in text
    assert text.rstrip().endswith("Run: 2026-11-22; system Linux; 1 thread; commit 0123abc.")


def test_chance_stands_last_and_the_best_first():
    rows = [*enough(seeds=1), few([NEAR] * 8, "constant", seed=5)]
    order = list(parsed(markdown_table(rows)))
    assert set(order[-2:]) == {"constant", "random-road"}
    recalls = [float(parsed(markdown_table(rows))[e]["R@50 m, %"].split()[0]) for e in order[:-2]]
    assert recalls == sorted(recalls, reverse=True) and set(order) == set(SKILL)


def test_figures_are_those_of_rows():
    rows = enough()
    text = markdown_table(rows)
    table = parsed(text)
    (section,) = sections(rows)
    best = best_baseline(section)
    assert best in ("justzoomin", "retrieval", "hierarchical")
    for entrant, some in section.entrants.items():
        figure = pooled(some, "r_at_50m")
        low, high = f"{100 * figure.lo:.1f}", f"{100 * figure.hi:.1f}"
        assert table[entrant]["R@50 m, %"] == f"{100 * figure.value:.1f} [{low}, {high}]"
        if entrant in (best, "constant", "random-road"):
            continue
        difference = paired_difference(some, section.entrants[best])
        cell = table[entrant]["difference, points"]
        assert f"{100 * difference.value:+.1f}" in cell and f"{100 * difference.lo:+.1f}" in cell
        assert ("**" in cell) == (difference.lo > 0 or difference.hi < 0)
    widest = re.search(r"takes up to ([0-9.]+) points", text)
    assert widest is not None and 2 < float(widest[1]) < 12
    assert "nan" not in text and "None" not in text


def test_the_best_baseline_is_no_entrant_of_ours_and_no_second_answer():
    rows = [few([NEAR] * 8, "justzoomin-centre"), few([NEAR] * 8, "match"),
            few([LOST] * 7 + [NEAR], "hierarchical")]  # fmt: skip
    table = parsed(markdown_table(rows))
    assert table["hierarchical"]["difference, points"] == "best baseline"
    assert table["match"]["difference, points"].startswith("**+87.5**")
    alone = parsed(markdown_table(rows[:2]))
    assert {line["difference, points"] for line in alone.values()} == {"–"}


def test_unfinished_seeds_are_told():
    rows = [realistic("zoomloc", s) for s in range(3)] + [realistic("retrieval", 1)]
    table = parsed(markdown_table(rows))
    assert table["zoomloc"]["seeds"] == "3" and table["retrieval"]["seeds"] == "1 of 3"
    cell = table["zoomloc"]["difference, points"]
    only = paired_difference(rows[1:2], rows[3:])
    assert f"{100 * only.value:+.1f}" in cell and cell.endswith("(on 1 of its seeds)")
    apart = parsed(markdown_table([rows[0], rows[3]]))
    assert apart["zoomloc"]["difference, points"] == "–"


def test_one_table_for_each_protocol_preset_and_budget():
    rows = [made(), made(protocol="unseen-town"), made(preset="small"), made(minutes=1)]
    heads = [line for line in markdown_table(rows).splitlines() if line.startswith("#")]
    assert heads == [
        "### same-area, 1 minute of training (full)",
        "### same-area, 10 minutes of training (full)",
        "### same-area, 10 minutes of training (small)",
        "### unseen-town, 10 minutes of training (full)",
    ]
    assert "whole towns (2 in all)" in markdown_table(rows[1:2])
    grouped = made(protocol="rendered-ground", details={"grouped_by": "block"})
    assert "whole blocks (2 in all)" in markdown_table([grouped])


def test_other_towns_with_the_same_seeds_get_a_table_of_their_own():
    rows = [made(towns=[1]), made(towns=[2]), made(entrant="match", towns=[2])]
    found = sections(rows)
    assert [s.towns for s in found] == ["[1]", "[2]"]
    assert [list(s.entrants) for s in found] == [["zoomloc"], ["match", "zoomloc"]]
    assert markdown_table(rows).count("### same-area, 10 minutes of training (full, towns [") == 2


def test_rows_without_details_are_shown_without_intervals():
    rows = [replace(realistic("zoomloc", s), details={}) for s in range(2)]
    text = markdown_table([*rows, realistic("retrieval", 0)])
    line = parsed(text)["zoomloc"]
    mean = 50 * sum(row.metrics["r_at_50m"]["value"] for row in rows)
    assert float(line["R@50 m, %"]) == pytest.approx(mean, abs=0.051)
    assert line["learning rate"] == line["steps"] == line["difference, points"] == "–"


def test_runs_are_named():
    rows = [realistic("zoomloc", 0), replace(realistic("zoomloc", 2), commit="fedcba9-dirty")]
    text = markdown_table(rows)
    assert "Run: 2026-11-20 to 2026-11-22; system Linux, processor x86_64; 1 thread;" in text
    assert "commits 0123abc, fedcba9-dirty." in text


def test_nothing_finished():
    assert markdown_table([]) == "No finished rows.\n"
