"""What answers are worth, as Markdown.

Knows nothing of how anything was measured.
"""

from collections.abc import Sequence
from datetime import date

import numpy as np

from zoomloc.belief.metrics import Interval, bootstrap_over_groups
from zoomloc.belief.priors import CONTRADICTED
from zoomloc.belief.trust import (
    auroc,
    brier,
    ece,
    ece_null,
    event_nll,
    radius_against_errors,
    radius_coverage,
    reliability,
    risk_coverage,
)
from zoomloc.bench.answers import CLOSE_M, PRIOR_M, Measured, Told, column
from zoomloc.evaluate import machine

RIGHT_M = 50.0
KEPT = (1.0, 0.8, 0.6, 0.4, 0.2)
AREAS = (0.001, 0.003, 0.01, 0.03, 0.1)


def markdown(found: Measured, by_town: bool, command: str) -> str:
    """One protocol's section of docs/answers.md; intervals over drives, or over towns."""
    plain = found.plain
    groups = _groups(plain, by_town)
    parts = [
        f"`{command}`, {date.today()}, {', '.join(f'{k} {v}' for k, v in machine().items())}. "
        f"{len(plain):,} photos of {len({g.split('/')[0] for g in _groups(plain, False)})} towns; "
        f"brackets are 95 % intervals over whole {'towns' if by_town else 'drives'}.",
        _main_table(plain, groups, found, by_town),
        "Claimed and true, in ten parts of like probability:",
        _reliability_table(plain),
        "If only the surest are answered, and if the likeliest ground is searched first:",
        _kept_table(plain),
        "Photos unlike those that it was calibrated on:",
        _shift_table(found),
        "What else is known:",
        _known_table(found, by_town),
    ]
    return "\n\n".join(parts) + "\n"


def _groups(told: Sequence[Told], by_town: bool) -> list[str]:
    return [one.group.split("/")[0] if by_town else one.group for one in told]


def _main_table(told: Sequence[Told], groups: Sequence[str], found: Measured, by_town: bool) -> str:
    p, right, error = _claims(told)
    noise = ece_null(p)
    radius = column(told, "radius90_m")
    both = [*told, *found.strangers]
    here = np.arange(len(both)) < len(told)
    evidence = auroc(column(both, "evidence"), here, _groups(both, by_town), 0)
    lines = [
        ("found within 50 m", _percent(bootstrap_over_groups(right, groups, "mean", 0))),
        ("claimed on average", f"{p.mean():.1%}"),
        ("ECE, ten bins of equal mass", f"{100 * ece(p, right):.1f} points"),
        ("of that expected of perfect claims", f"{100 * noise:.1f} points"),
        ("**ECE beyond it**", f"**{100 * (ece(p, right) - noise):.1f} points**"),
        ("NLL of the claim, Brier score", f"{event_nll(p, right):.3f} nats, {brier(p, right):.3f}"),
        ("NLL of the true cell", f"{np.nanmean(column(told, 'nll')):.2f} nats"),
        ("**truth within the 90 % radius**", _percent(radius_coverage(error, radius, groups, 0))),
        (
            "truth within the 50 % radius",
            _percent(radius_coverage(error, column(told, "radius50_m"), groups, 0)),
        ),
        ("median 90 % radius", f"{np.median(radius):.0f} m"),
        (
            "that radius over the 90th percentile of errors of like confidence",
            f"{radius_against_errors(p, radius, error)[1]:.2f} (median of ten)",
        ),
        ("**AUROC of the probability**", _plain(auroc(p, right, groups, 0))),
        (
            f"**AUROC of the evidence**, against {len(found.strangers):,} photos of other towns",
            _plain(evidence),
        ),
        (
            "called not from here: photos from here, of other towns",
            f"{_share(told, 'not_here')}, {_share(found.strangers, 'not_here')}",
        ),
        ("called unknown", _share(told, "unknown")),
    ]
    return _table(("", ""), lines)


def _reliability_table(told: Sequence[Told]) -> str:
    p, right, _ = _claims(told)
    bins = reliability(p, right)
    return _table(
        ("claimed", *(f"{b.probability:.0%}" for b in bins)),
        [("true", *(f"{b.right:.0%}" for b in bins))],
    )


def _kept_table(told: Sequence[Told]) -> str:
    p, right, _ = _claims(told)
    curve = risk_coverage(p, right)
    wrong = [float(np.interp(kept, curve.coverage, curve.risk)) for kept in KEPT]
    areas = column(told, "searched_share")
    met = [float((areas <= area).mean()) for area in AREAS]
    return "\n\n".join(
        (
            _table(
                ("answered", *(f"{kept:.0%}" for kept in KEPT)),
                [("of them wrong", *(f"{w:.1%}" for w in wrong))],
            ),
            _table(
                ("ground searched", *(f"{area:.1%}" for area in AREAS)),
                [("truth met", *(f"{m:.1%}" for m in met))],
            ),
        )
    )


def _shift_table(found: Measured) -> str:
    rows = []
    for name, told in found.shifted.items():
        p, right, error = _claims(told)
        rows.append(
            (
                name,
                f"{len(told):,}",
                f"{right.mean():.1%}",
                f"{p.mean():.1%}",
                f"{100 * (ece(p, right) - ece_null(p)):.1f}",
                f"{(error <= column(told, 'radius90_m')).mean():.1%}",
            )
        )
    head = ("", "n", "found within 50 m", "claimed", "ECE beyond noise, points",
            "truth within the 90 % radius")  # fmt: skip
    return _table(head, rows)


def _known_table(found: Measured, by_town: bool) -> str:
    rows = []
    if found.near:
        without, with_ = zip(*found.near, strict=True)
        rows += _pair(f"no prior, then a true one of {PRIOR_M:g} m", without, with_, by_town)
        if found.near_large:
            before, after = zip(*found.near_large, strict=True)
            rows += _pair("the same in towns of four times the ground", before, after, by_town)
        before, after = zip(*found.close, strict=True)
        rows += _pair(f"no prior, then a true one of {CLOSE_M:g} m", before, after, by_town)
        told = np.mean(column(with_, "agreement") < CONTRADICTED)
        rows.append(("a true prior said to contradict the photo", f"{told:.1%}", "", ""))
    if found.wrong:
        told = np.mean(column(found.wrong, "agreement") < CONTRADICTED)
        claimed = column(found.wrong, "probability").mean()
        rows.append(
            (f"a wrong prior of {CLOSE_M:g} m said to contradict it", f"{told:.1%}", "", "")
        )
        rows.append(("not from here, under a wrong prior", _share(found.wrong, "not_here"), "", ""))
        rows.append(("probability claimed under it", f"{claimed:.1%}", "", ""))
    if found.together:
        rows += _pair("one photo, then four of one stop", found.single, found.together, by_town)
    return _table(("", "R@1 within 25 m", "then", "points more"), rows)


def _pair(
    name: str, before: Sequence[Told], after: Sequence[Told], by_town: bool
) -> list[tuple[str, ...]]:
    a, b = (column(told, "error_m") <= 25 for told in (before, after))
    more = bootstrap_over_groups(b.astype(float) - a, _groups(before, by_town), "mean", 0)
    points = f"{100 * more.value:+.1f} ({100 * more.lo:+.1f} – {100 * more.hi:+.1f})"
    return [(f"{name} (n {len(before):,})", f"{a.mean():.1%}", f"{b.mean():.1%}", points)]


def _claims(told: Sequence[Told]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, which are right, and errors in metres."""
    error = column(told, "error_m")
    return np.minimum(column(told, "probability"), 1.0), error <= RIGHT_M, error


def _share(told: Sequence[Told], name: str) -> str:
    return f"{column(told, name).mean():.1%}" if told else "–"


def _percent(found: Interval) -> str:
    return f"{found.value:.1%} ({found.lo:.1%} – {found.hi:.1%})"


def _plain(found: Interval) -> str:
    return f"{found.value:.3f} ({found.lo:.3f} – {found.hi:.3f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
