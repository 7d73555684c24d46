"""The report on an evaluation: one HTML that opens offline, to see how far off answers are.

Knows nothing of models or of how answers were found. It holds small copies of some photos, each
with its creator and licence, and of the region's imagery.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maps.eval_charts import (
    area_chart,
    error_chart,
    recall_chart,
    reliability_chart,
    risk_chart,
    zoom_chart,
)
from maps.eval_map import CLASSES, class_name, class_of, crop, error_map
from maps.layers import Ground
from maps.markup import STYLE, imagery_credit, keys, photo_credit, table, text, thumb, tiles
from maps.pictures import data_uri
from maps.report import page
from zoomloc.belief.priors import CONTRADICTED
from zoomloc.errors import PhotoError
from zoomloc.world.answers import Answer
from zoomloc.world.cells import Floats
from zoomloc.world.files import write_text
from zoomloc.world.photos import Photo
from zoomloc.world.pyramid import TilePyramid
from zoomloc.world.region import Region
from zoomloc.world.wording import metres, percent, verdict

CASES = 12  # of the best, and of the worst
CASES_A_DRIVE = 2  # at most, where there are drives enough
THUMB_PX = 340
QUALITY = 72

Report = Mapping[str, Any]

_STYLE = """
.banner { background: #a00; color: #fff; font-weight: 600; padding: .6rem .9rem;
  border-radius: 6px }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: .8rem }
.cases > figure { margin: 0; background: #fff; border: 1px solid #ddd; border-radius: 6px;
  padding: .6rem; font-size: .82rem; line-height: 1.4; display: flex; flex-direction: column }
.cases p { margin: .3rem 0 0; overflow-wrap: anywhere } .cases img { border: 0; width: 100% }
.cases .seen > * { height: 160px; object-fit: contain; background: #f0f0f0 }
.cases .gone { color: #a00; padding: .6rem; box-sizing: border-box; overflow: hidden }
.cases .pair { display: grid; grid-template-columns: 1fr 1fr; gap: .4rem; margin-top: .4rem }
.cases .pair figcaption { margin: 0 } .cases .pair figure { margin: 0 }
.kinds td:nth-child(2), .kinds th:nth-child(2) { text-align: left; white-space: normal;
  overflow-wrap: anywhere; min-width: 8rem }
.cases .terms { color: #555; margin-top: auto; padding-top: .3rem }
"""
_MEASURES = (  # name in report.json, what it is called, how it is written
    ("r_at_25m", "within 25 m", "share"),
    ("r_at_40m", "within 40 m", "share"),
    ("r_at_50m", "within 50 m", "share"),
    ("r_at_100m", "within 100 m", "share"),
    ("exact_cell", "exact terminal cell", "share"),
    ("top3_r_at_50m", "answer or two alternatives within 50 m", "share"),
    ("top5_r_at_50m", "answer or four alternatives within 50 m", "share"),
    ("median_error_m", "median error", "metres"),
    ("p75_error_m", "75th percentile of errors", "metres"),
    ("p90_error_m", "90th percentile of errors", "metres"),
    ("mean_error_m", "mean error", "metres"),
    ("truth_nll_nats", "loss at the true terminal cell", "nats"),
    ("bits_gained", "gained over an even belief", "bits"),
    ("median_bearing_off_deg", "median heading error", "degrees"),
    ("median_bearing_off_right_deg", "median heading error of answers within 50 m", "degrees"),
    ("bearing_within_10deg", "heading within 10°", "share"),
    ("bearing_within_20deg", "heading within 20°", "share"),
    ("bearing_within_45deg", "heading within 45°", "share"),
)
_SLICES = {
    "heading": "Heading in the table",
    "field_of_view": "Field of view",
    "camera": "Camera",
    "nearest_training_photo": "Nearest training photo",
}


def write_eval_report(
    report: Report,
    answers: Sequence[Answer],
    photos: Sequence[Photo],
    region: Region,
    pyramid: TilePyramid,
    out: Path,
) -> None:
    """Write one HTML on an evaluation: figures, curves, trust, a map, best and worst, slices.

    ``report``: as report.json holds it; ``answers`` and ``photos``: of each photo, in one order.
    Raises PhotoError where they do not belong together, ImageryError, OutputError.
    """
    if [a.photo for a in answers] != [p.id for p in photos] or not answers:
        raise PhotoError(
            f"{out}: {len(answers)} answers and {len(photos)} photos do not belong together; "
            "run 'zoomloc evaluate' again"
        )
    errors_m = np.array([answer.error_m or 0.0 for answer in answers])
    parts = [
        _protocol(report),
        _summary(report),
        "<h2>How far off</h2>",
        _distances(report, errors_m),
        _measures(report),
        "<h2>Does it mean what it says?</h2>",
        _trust(report["calibration"]),
        "<h2>Where</h2>",
        _map(answers, errors_m, region, pyramid),
        "<h2>By kind of photo</h2>",
        _slices(report),
        *_cases(answers, photos, errors_m, region, pyramid),
        "<footer>This page shows photos and where they were taken: pass it on only as the photos' "
        "and the imagery's own terms allow. Figures are of these photos and this region alone. It "
        "asks no server for anything.</footer>",
    ]
    write_text(out, page(f"Evaluation of {report['run']} in {region.name}", parts, STYLE + _STYLE))


# 1. figures


def _protocol(report: Report) -> str:
    """How it was measured, before any figure; in red what makes figures too good."""
    protocol = report["protocol"]
    facts = [
        f"split {protocol['split']}",
        f"candidates {protocol['candidates']} ({report['cells']:,} terminal cells)",
        f"search {protocol['search']}",
        f"photos {protocol['photos']}",
        f"distances {protocol.get('distance', 'geodesic')}",
    ]
    if "known_photos" in protocol:
        facts.append(f"{protocol['known_photos']} known photos as evidence beside the imagery")
    facts_of = text("; ".join(map(str, facts)))
    parts = [f"<p>Protocol: <b>{facts_of}</b>. {text(_made(report))}</p>"]
    if "reading" in report:
        parts.insert(0, f'<p class="banner">{text(report["reading"])}</p>')
    if protocol["candidates"] != "all-cells":
        parts.append(
            '<p class="bad">Only cells that hold one of these photos could be the answer: this is '
            "easier than finding a photo anywhere, and comparable only with figures made so.</p>"
        )
    return "".join(parts)


def _made(report: Report) -> str:
    """When, and after how much training."""
    when = f"Made {str(report['created']).replace('T', ' ')}"
    training = report.get("training")
    if training is None:
        return f"{when}."
    minutes, steps = training["seconds"] / 60, training["steps"]
    return f"{when}, after {minutes:.1f} minutes and {steps:,} steps of training."


def _summary(report: Report) -> str:
    metrics, trust = report["metrics"], report["calibration"]
    facts = [
        (f"{report['n']:,}", f"photos of {len({name for name, _ in report['drives']}):,} drives"),
        *((_share(metrics[f"r_at_{d}m"]["value"]), f"within {d} m") for d in (25, 50, 100)),
        (metres(metrics["median_error_m"]["value"]), "median error"),
        (_share(trust["radius90"]["covers"]["value"]), "of truths within the 90 % radius"),
        (_share(trust["ece"]), f"calibration error ({_share(trust['ece_null'])} is noise)"),
    ]
    if trust["auroc"] is not None:
        facts.append((f"{trust['auroc']['value']:.2f}", "AUROC of probability"))
    return tiles(facts)


def _distances(report: Report, errors_m: Floats) -> str:
    right_m = report["calibration"]["within_m"]
    charts = (
        (recall_chart(report), "Answers within each distance, with the 95 % interval over drives. "
         f"Dashed: a {report['protocol'].get('chance', 'random place')}; dotted: one constant "
         "answer."),
        (error_chart(errors_m, report["floor_m"], right_m), f"Errors; blue up to {right_m:g} m. A "
         f"terminal cell's middle is up to {report['floor_m']:.0f} m off even where the cell is "
         "right."),
        (area_chart(report), "Photos found when only part of the ground is searched, likeliest "
         "cells first. Dashed: in any order."),
        (zoom_chart(report["zoom_accuracy"]), "Photos whose path of cells still holds the truth "
         "after each zoom."),
    )  # fmt: skip
    return _charts(charts)


def _charts(charts: Sequence[tuple[str, str]]) -> str:
    figures = (
        f"<figure>{chart}<figcaption>{text(words)}</figcaption></figure>" for chart, words in charts
    )
    return f'<div class="two">{"".join(figures)}</div>'


def _measures(report: Report) -> str:
    """All figures with their intervals, chance beside those that have one."""
    rows = []
    for name, told, kind in _MEASURES:
        figure = report["metrics"].get(name)
        if figure is not None:
            chance = [report[by].get(name) for by in ("chance", "chance_constant")]
            shown = ["" if share is None else _share(share) for share in chance]
            rows.append((told, *_interval(figure, kind), f"{figure['n']:,}", *shown))
    by_chance = str(report["protocol"].get("chance", "chance"))
    heads = ("Figure", "value", "95 % interval", "n", by_chance, "constant answer")
    return "<h3>All figures</h3>" + table(heads, rows)


def _trust(trust: Report) -> str:
    charts = (
        (reliability_chart(trust), "Answers in bins of equal mass: what they claim, and how many "
         "are right (bars: two standard errors, as if photos were independent; above them n). On "
         "the dashed line a probability means what it says."),
        (risk_chart(trust), "Answer only where sure: how many of the answers given are wrong. "
         "Dashed: all photos answered."),
    )  # fmt: skip
    rows = [
        ("calibration error (ECE)", _share(trust["ece"]), ""),
        ("ECE if all probabilities were exactly true", _share(trust["ece_null"]), ""),
        ("Brier score", f"{trust['brier']:.3f}", ""),
        ("loss of 'right or wrong'", f"{trust['nll_nats']:.3f} nats", ""),
        ("area under risk against coverage", f"{trust['risk_coverage']['area']:.3f}", ""),
    ]
    if trust["auroc"] is not None:
        found = trust["auroc"]
        interval = f"{found['lo']:.2f} – {found['hi']:.2f}"
        rows.append(("AUROC: right from wrong", f"{found['value']:.2f}", interval))
    for share in (50, 90):
        radius = trust[f"radius{share}"]
        value, interval = _interval(radius["covers"], "share")
        rows.append((f"truths within the {share} % radius", value, interval))
        area = f"{radius['median_area_m2']:,.0f} m²"
        rows.append((f"median {share} % radius", metres(radius["median_m"]), area))
    ratio = trust["radius90_by_p90_error"]["median"]
    rows.append(("90 % radius by 90th percentile of errors, median of bins", f"{ratio:.2f}", ""))
    return _charts(charts) + table(("Trust", "value", "95 % interval, or area"), rows)


def _slices(report: Report) -> str:
    """One table: each class with n, recall and median error."""
    right_m = next((key for row in _rows(report) for key in row if key.startswith("r_at_")), "")
    within = f"within {right_m.removeprefix('r_at_').removesuffix('m')} m"
    heads = ("", "class", "photos", "drives", within, "95 %", "median error", "95 %")
    rows = [
        (
            _SLICES.get(name, name) if k == 0 else "",
            row["class"],
            f"{row['n']:,}",
            f"{row['drives']:,}",
            *_interval(row[right_m], "share"),
            *_interval(row["median_error_m"], "metres"),
        )
        for name, classes in report["slices"].items()
        for k, row in enumerate(classes)
    ]
    return f'<div class="kinds">{table(heads, rows)}</div>'


def _rows(report: Report) -> list[Report]:
    return [row for classes in report["slices"].values() for row in classes]


# 2. places


def _map(answers: Sequence[Answer], errors_m: Floats, region: Region, pyramid: TilePyramid) -> str:
    """A line from each truth to its answer, the key, and whose imagery it is."""
    picture, outside = error_map(answers, errors_m, Ground(region), pyramid)
    counts = np.bincount([class_of(e) for e in errors_m.tolist()], minlength=len(CLASSES))
    key = keys((c[1], f"{class_name(k)}: {counts[k]:,}") for k, c in enumerate(CLASSES))
    beyond = f" {outside:,} photos lie outside of this map." if outside else ""
    words = "Dots: where photos were taken; lines lead to the answers. " + imagery_credit(region)
    return (
        f'<figure><p>{key}</p><img src="{data_uri(picture, 80)}" alt="map of errors">'
        f"<figcaption>{text(words + beyond)}</figcaption></figure>"
    )


def _cases(
    answers: Sequence[Answer],
    photos: Sequence[Photo],
    errors_m: Floats,
    region: Region,
    pyramid: TilePyramid,
) -> list[str]:
    """The best and the worst, each with its photo and the ground at answer and truth."""
    order = np.argsort(errors_m, kind="stable").tolist()
    parts = []
    for title, ranked in (("The best", order), ("The worst", order[::-1])):
        chosen = spread(ranked, [photo.sequence_id for photo in photos])
        cards = (_case(answers[i], photos[i], float(errors_m[i]), pyramid) for i in chosen)
        parts.append(
            f"<h2>{title} {len(chosen)}</h2><p class='note'>By error, at most {CASES_A_DRIVE} of a "
            "drive where that fills the row. Yellow cross: the place named below the picture; "
            f"white: the other one, where it is near. {text(imagery_credit(region))}</p>"
            f'<div class="cases">{"".join(cards)}</div>'
        )
    return parts


def spread(ranked: Sequence[int], drives: Sequence[str]) -> list[int]:
    """The first CASES, at most CASES_A_DRIVE of a drive as far as other drives fill the rest."""
    of_drive: dict[str, int] = {}
    first: list[int] = []
    later: list[int] = []
    for i in ranked:
        of_drive[drives[i]] = of_drive.get(drives[i], 0) + 1
        (first if of_drive[drives[i]] <= CASES_A_DRIVE else later).append(i)
    chosen = set((first + later)[:CASES])
    return [i for i in ranked if i in chosen]


def _case(answer: Answer, photo: Photo, error_m: float, pyramid: TilePyramid) -> str:
    truth, word = answer.truth or answer.place, verdict(answer, CONTRADICTED)
    said = (
        f"probability {percent(answer.probability)}; 90 % radius {metres(answer.radius90_m)}"
        f"{'; ' if word else ''}{word}"
    )
    looks = "".join(
        f'<figure><img src="{data_uri(crop(place, other, pyramid), QUALITY)}" alt="{name}">'
        f"<figcaption>{name}</figcaption></figure>"
        for name, place, other in (("answer", answer.place, truth), ("truth", truth, answer.place))
    )
    return (
        f'<figure><div class="seen">{thumb(photo, THUMB_PX, QUALITY)}</div>'
        f'<div class="pair">{looks}</div><p><b>{metres(error_m)} off</b>; '
        f"{text(said)}</p><p>{text(photo.id)}</p>"
        f'<p class="terms">{text(photo_credit(photo))}</p></figure>'
    )


# 3. words


def _interval(figure: Report, kind: str) -> tuple[str, str]:
    """A figure and its interval as texts."""
    value, low, high = (_written(figure[name], kind) for name in ("value", "lo", "hi"))
    return value, f"{low} – {high}"


def _written(value: float, kind: str) -> str:
    if kind == "share":
        return _share(value)
    if kind == "metres":
        return metres(value)
    return f"{value:.0f}°" if kind == "degrees" else f"{value:.2f} {kind}"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"
