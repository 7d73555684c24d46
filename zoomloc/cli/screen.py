"""What the command line shows: one line a step, progress bars, figures with their intervals.

Knows nothing of what the steps do. Everything for people goes to stderr under ``--json``, so
that stdout stays readable by machines.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table


class Tick(Protocol):
    """Moves a progress bar."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total``, and a few words beside the bar."""
        ...


def _still(done: int, total: int, note: str = "") -> None:
    """No bar to move."""


class Screen:
    """Where a command speaks to its user; ``quiet`` leaves only results and errors."""

    def __init__(self, quiet: bool = False, to_stderr: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(stderr=to_stderr, highlight=False, soft_wrap=True, emoji=False)

    def step(self, name: str, text: str) -> None:
        """One line that says what a step did."""
        if not self.quiet:
            self.console.print(f"[bold cyan]{escape(name):>9}[/]  {escape(text)}")

    def result(self, text: str) -> None:
        """A line that is shown even when quiet."""
        self.console.print(escape(text))

    @contextmanager
    def bar(self, name: str, unit: str = "") -> Iterator[Tick]:
        """A progress bar with count and time left; ``tick(done, total)`` moves it."""
        if self.quiet or not self.console.is_terminal:
            yield _still
            return
        columns = (
            TextColumn(f"[bold cyan]{escape(name):>9}[/] "),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn(escape(unit)),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(name, total=None, note="")

            def tick(done: int, total: int, note: str = "") -> None:
                progress.update(task, completed=done, total=total, note=escape(note))

            yield tick

    def recall_table(self, report: dict[str, Any]) -> None:
        """The figures of a report: value, interval, chance."""
        n, protocol = report["n"], report["protocol"]
        title = f"{n} photos, {protocol['split']}, {protocol['candidates']}, {protocol['search']}"
        papers = protocol.get("distance") == "haversine"  # and with them the paper's thresholds
        if papers:
            title += ", distances as the paper's (haversine)"
        if "reading" in report:
            title += f"\n{report['reading']}"
        table = Table(title=escape(title), title_justify="left", show_edge=False)
        for name, side in (
            ("measure", "left"),
            ("value", "right"),
            ("95 % interval", "right"),
            (protocol["chance"], "right"),
            ("constant answer", "right"),
        ):
            table.add_column(name, justify=side)  # type: ignore[arg-type]
        for key, label in _SHOWN:
            metric = report["metrics"].get(key)
            if metric is not None and (papers or key != "r_at_40m"):
                table.add_row(
                    label,
                    *_shown(metric, key),
                    _share(report["chance"].get(key)),
                    _share(report["chance_constant"].get(key)),
                )
        self.console.print(table)
        if "calibration" in report:
            self.console.print(escape(_trust(report["calibration"])))

    def comparison(self, found: dict[str, Any]) -> None:
        """Runs side by side, then what each other run has more or less than the first."""
        title = f"{found['n']} photos of {found['drives']} drives that all runs answered"
        table = Table(title=title, title_justify="left", show_edge=False)
        for name in ("run", "within 25 m", "within 50 m", "within 100 m", "median error"):
            table.add_column(name, justify="left" if name == "run" else "right")
        for run in found["runs"]:
            protocol = run["protocol"]
            left = f", {run['left_out']} photos left out" if run["left_out"] else ""
            told = f"{run['run']} ({protocol['candidates']}, {protocol['search']}{left})"
            metrics = run["metrics"].items()
            table.add_row(escape(told), *("{} ({})".format(*_shown(m, key)) for key, m in metrics))
        for one in found["differences"]:
            metrics = one["metrics"].items()
            told = f"{one['run']} less {one['to']}"
            table.add_row(escape(told), *(_apart(metric, key) for key, metric in metrics))
        self.console.print(table)


_SHOWN = (
    ("r_at_25m", "R@1 within 25 m"),
    ("r_at_40m", "R@1 within 40 m"),
    ("r_at_50m", "R@1 within 50 m"),
    ("r_at_100m", "R@1 within 100 m"),
    ("top5_r_at_50m", "top 5, 50 m"),
    ("exact_cell", "exact cell"),
    ("median_error_m", "median error"),
    ("median_bearing_off_deg", "median heading"),
)


def _shown(metric: dict[str, Any], key: str) -> tuple[str, str]:
    if key.endswith("_m") and not key.startswith("r_at"):
        return f"{metric['value']:.0f} m", f"{metric['lo']:.0f} – {metric['hi']:.0f} m"
    if key.endswith("_deg"):
        return f"{metric['value']:.0f}°", f"{metric['lo']:.0f} – {metric['hi']:.0f}°"
    return _share(metric["value"]), f"{100 * metric['lo']:.1f} – {100 * metric['hi']:.1f} %"


def _apart(metric: dict[str, Any], key: str) -> str:
    """A difference with its sign and interval: points of per cent, or metres."""
    metres = key == "median_error_m"
    factor, digits, unit = (1, 0, "m") if metres else (100, 1, "points")
    value, low, high = (f"{factor * metric[k]:+.{digits}f}" for k in ("value", "lo", "hi"))
    return f"{value} {unit} ({low} to {high})"


def _trust(found: dict[str, Any]) -> str:
    """Whether probabilities and radii mean what they say, in one line."""
    auroc = found["auroc"]
    apart = "" if auroc is None else f", tells right from wrong with AUROC {auroc['value']:.2f}"
    return (
        f"probability is {100 * found['ece']:.1f} points off ({100 * found['ece_null']:.1f} would "
        f"be noise){apart}; the 90 % radius holds {_share(found['radius90']['covers']['value'])}"
    )


def _share(value: Any) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, float) else ""
