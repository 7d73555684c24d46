"""``zoomloc bench answers``: builds the towns, trains where need be, and writes the tables.

Knows nothing of how answers are measured.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from zoomloc.cli.bench import build_place
from zoomloc.cli.bench_verbs import with_section
from zoomloc.cli.calibrating import calibrate_run
from zoomloc.cli.screen import Screen
from zoomloc.cli.steps import explained_of_run
from zoomloc.errors import ConfigError
from zoomloc.world.files import write_text

if TYPE_CHECKING:
    from zoomloc.bench.answers import Place
    from zoomloc.bench.protocols import Plan, Trial
    from zoomloc.world.photos import Photo

BEGUN = "same-area-from-general"  # same-area, by runs that begin with the general model
PROTOCOLS = ("same-area", BEGUN, "unseen-town")
MOST_FITTED = 1300


def run_answers(
    protocol: str, preset: str, run: Path, out: Path, work: Path, screen: Screen
) -> None:
    """Measure one protocol and make its section of ``out`` new. Raises ConfigError."""
    from zoomloc.bench.answer_tables import markdown
    from zoomloc.bench.answers import measure
    from zoomloc.bench.protocols import ANSWERS

    if protocol not in PROTOCOLS or preset not in ANSWERS:
        raise ConfigError(
            f"--protocol {protocol} --preset {preset}: take {', '.join(PROTOCOLS)}, and "
            f"{', '.join(ANSWERS)}"
        )
    towns = _Towns(preset, work, screen)
    by_town = protocol == "unseen-town"
    places, larger = towns.unseen(run) if by_town else towns.own(protocol)
    found = measure(places, larger, towns.plan.some, lambda line: screen.step("answers", line))
    command = f"zoomloc bench answers --protocol {protocol} --preset {preset}"
    text = markdown(found, by_town, command)
    screen.result(text)
    known = out.read_text(encoding="utf-8") if out.is_file() else "# What answers are worth\n"
    write_text(out, with_section(known, protocol, text))
    screen.step("answers", f"-> {out}")


class _Towns:
    """The towns of a preset, built where they are missing."""

    def __init__(self, preset: str, work: Path, screen: Screen) -> None:
        from zoomloc.bench.protocols import ANSWERS, FIRST_SEED, PRESETS

        self.preset, self.plan = PRESETS[preset], ANSWERS[preset]
        self.first, self.work, self.screen = FIRST_SEED, work, screen

    def unseen(self, run: Path) -> "tuple[list[Place], list[Place]]":
        """The test towns, and two larger ones, for a run that was trained in none of them."""
        from zoomloc.bench.answers import Place, stops_of

        size_m, count = self.preset.unseen_size_m, self.preset.towns[2]
        if explained_of_run(run).calibration is None:
            regions = [self._built(p) for p in self.plan.fitted(self.preset, self.first)]
            calibrate_run(run, self.screen, tuple(regions), most=MOST_FITTED)
        seeds = range(self.first, self.first + count)
        folders = [self._built(self.plan.test(seed, size_m)) for seed in seeds]
        photos = [self._photos(folder) for folder in folders]
        turned = [self._built(self.plan.turned(seed, size_m)) for seed in seeds]
        places = [
            Place(
                run,
                folder,
                photos[i],
                self._some(photos[(i + 1) % count] if count > 1 else ()),
                stops_of(turned[i] / "photos.parquet", "test")[: self.plan.stops],
            )
            for i, folder in enumerate(folders)
        ]
        beyond = self.first + 900  # seeds that nothing else uses
        larger = [
            Place(run, folder, self._photos(folder)[:: max(1, self.plan.photos // 160)], ())
            for seed in (beyond, beyond + 1)
            for folder in [self._built(self.plan.test(seed, self.plan.larger_m))]
        ]
        return places, larger

    def own(self, protocol: str) -> "tuple[list[Place], list[Place]]":
        """Towns that runs are trained in, and photos of the others."""
        from zoomloc.bench.answers import Place
        from zoomloc.bench.protocols import trials

        found = []
        for trial in trials(self.preset, ("same-area",), None, None, None):
            run = self._trained(trial, protocol)
            folder = self._built(trial.train[0])
            other = self.plan.test(self.first + 3 + trial.seed, self.preset.unseen_size_m)
            strangers = self._some(self._photos(self._built(other)))
            found.append(Place(run, folder, self._photos(folder), strangers))
        return found, []

    def _trained(self, trial: "Trial", protocol: str) -> Path:
        """A run of a trial, trained and calibrated unless it is there."""
        from zoomloc.bench.accuracy import Bench
        from zoomloc.bench.entrants import ANSWERING
        from zoomloc.bench.trainings import carry_out
        from zoomloc.cli.calibrating import calibrate_trained

        for place in trial.places:
            self._built(place)
        run = self.work / "runs" / f"answers-{protocol}-{trial.seed}"
        bench = Bench(self.preset, run, self.work, 1, lambda line: None)
        settings = {k: v for (only,) in ANSWERING.stages for k, v in only.items()}
        settings |= {"train.start_from": "general"} if protocol == BEGUN else {}
        carry_out(bench.training(trial, ANSWERING.build(settings), run, trial.minutes))
        calibrate_trained(run, self.screen)
        return run

    def _built(self, plan: "Plan") -> Path:
        from zoomloc.bench.protocols import folder_of

        folder = folder_of(self.work, plan)
        build_place(plan, folder, 2, self.screen)
        return folder

    def _photos(self, folder: Path) -> "tuple[Photo, ...]":
        from zoomloc.world.photos import read_photos

        return tuple(read_photos(folder / "photos.parquet", "test"))

    def _some(self, photos: "tuple[Photo, ...]") -> "tuple[Photo, ...]":
        return photos[:: max(1, len(photos) // self.plan.strangers)]
