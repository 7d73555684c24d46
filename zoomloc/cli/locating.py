"""The step behind ``zoomloc locate``: photos and what is known of them in, answers out.

Knows nothing of flags, nor of how a photo is located or a file of answers is written.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoomloc.cli import steps
from zoomloc.cli.photos_asked import PhotosAsked
from zoomloc.cli.screen import Screen
from zoomloc.cli.telling import describe
from zoomloc.config import GENERAL, Config, SearchConfig, load_config, parse_config
from zoomloc.errors import ConfigError, PhotoError

if TYPE_CHECKING:
    from zoomloc.belief.priors import Heading, Prior
    from zoomloc.locator import Locator, Query
    from zoomloc.world.answers import Answer
    from zoomloc.world.answers_begun import Begun, Question

AT_ONCE = 16  # photos that share a batch: as many may a kill lose
MOST_DRAWN = 50  # answers on a map
NOTHING_FOUND = 3  # exit code: every answer is unknown or not of this region

Show = Callable[["Answer"], None]


@dataclass(frozen=True)
class Known:
    """What is said of all photos: where, which way, how wide; ``words`` go into the answers."""

    prior: "Prior | None" = None
    heading: "Heading | None" = None
    fov_deg: float | None = None
    words: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """What is to be located, with what, and what is to be made of it."""

    photos: Sequence[Path]
    run: Path = GENERAL
    region: Path | None = None
    overrides: Sequence[str] = ()
    with_photos: bool = False
    known: Known = Known()
    together: bool = False
    out: Path | None = None
    as_json: bool = False
    map_path: Path | None = None
    strip: Path | None = None
    why: Path | None = None


@dataclass
class Tally:
    """What became of the photos: counts, the first answers, what the file is to hold."""

    located: int = 0
    unknown: int = 0
    not_here: int = 0
    taken_up: int = 0
    kept: list["Answer"] = field(default_factory=list)
    questions: list["Question"] = field(default_factory=list)

    def add(self, answer: "Answer") -> None:
        """One more answer."""
        self.located += 1
        self.not_here += answer.not_here
        self.unknown += answer.unknown and not answer.not_here
        if len(self.kept) < MOST_DRAWN:
            self.kept.append(answer)

    @property
    def exit_code(self) -> int:
        """0 where any photo has a place."""
        return 0 if self.located > self.unknown + self.not_here else NOTHING_FOUND

    def told(self) -> str:
        """The counts in words."""
        more = {
            "unknown": self.unknown,
            "not from this region": self.not_here,
            "known from before": self.taken_up,
        }
        parts = [f"{self.located:,} photos", *(f"{n:,} {what}" for what, n in more.items() if n)]
        return ", ".join(parts)


def locate(wanted: Wanted, screen: Screen) -> int:
    """Locate photos, show and write what was asked for; the exit code: 0, or NOTHING_FOUND.

    A photo of a folder that cannot be read is told and left out. Raises PhotoError, once all else
    is written, where one that was named by itself cannot be read, or none can.
    """
    photos = PhotosAsked.found(wanted.photos)
    _check(wanted)
    with ExitStack() as stack:
        draw = stack.enter_context(steps.map_drawer()) if wanted.map_path else None
        locator, known = opened(wanted)
        show = _shower(wanted, screen)
        job = _Job(locator, known, photos, wanted.out, screen, show)
        tally = job.together() if wanted.together else job.one_by_one()
        fatal, left_out = photos.verdict(tally.located > 0)
        for line in left_out:
            Screen(to_stderr=True).result(line)
        if tally.located:
            _draw(wanted, locator, photos, tally, screen, draw)
    if fatal is not None:
        raise PhotoError(fatal)
    return tally.exit_code


# 1. what is asked


def _check(wanted: Wanted) -> None:
    """Refuse before anything is loaded what could not be written after hours."""
    from zoomloc.world.answer_files import check_ending

    if wanted.out is not None:
        check_ending(wanted.out)
    if wanted.together and wanted.why is not None:
        raise ConfigError(
            "--why draws one photo and --together has one answer for several; take one"
        )


def opened(wanted: Wanted) -> tuple["Locator", Known]:
    """The locator that was asked for, and what is known with all that made it."""
    from zoomloc.cli.known import with_photos
    from zoomloc.cli.why import require_match

    locator, words = locator_of_run(wanted.run, wanted.region, wanted.overrides), {}
    if wanted.overrides:
        words["search"] = " ".join(wanted.overrides)
    _check_known(locator, wanted.run, wanted.known)
    if wanted.with_photos:
        folder = region_folder(wanted)
        locator, count = with_photos(locator, folder, wanted.run)
        words["known_photos"] = f"{count} of split {_split_of(folder)}"
    if wanted.why is not None:
        require_match(locator, wanted.run)
    return locator, replace(wanted.known, words={**wanted.known.words, **words})


def _check_known(locator: "Locator", run: Path, known: Known) -> None:
    """Refuse what a model would not listen to: others than a match see pixels alone."""
    from zoomloc.scorers.matches import MatchScorer

    flags = {"--heading": known.heading, "--fov": known.fov_deg}
    for flag, value in flags.items():
        if value is not None and not isinstance(locator.scorer, MatchScorer):
            raise ConfigError(
                f"run {run}: {flag} says something to a match, and this model is none; leave it "
                "out, or name the run of a match"
            )


def _split_of(folder: Path) -> str:
    from zoomloc.world.photos import read_photos, split_hash

    return split_hash(read_photos(folder / "photos.parquet"))


def region_folder(wanted: Wanted) -> Path:
    """The folder of the ground that is searched."""
    return wanted.region or steps.config_of_run(wanted.run).data


def locator_of_run(run: Path, region: Path | None, overrides: Sequence[str]) -> "Locator":
    """A trained run's locator, with its search settings changed where asked for."""
    from zoomloc.locator import Locator

    locator = Locator.load(run, region)
    if overrides:
        locator = locator.with_search(search_with(locator.search, overrides))
    return locator


def search_with(search: SearchConfig, overrides: Sequence[str]) -> SearchConfig:
    """Search settings with ``search.key=value`` changes; a trained run's others are fixed."""
    foreign = [o for o in overrides if not o.startswith("search.")]
    if foreign:
        raise ConfigError(f"--set {foreign[0]}: only search.* can be changed after training")
    tree = Config(search=search).to_dict()
    changed = load_config([], overrides).model_dump(mode="json", exclude_unset=True)
    return parse_config(tree | {"search": tree["search"] | changed["search"]}, "--set").search


def query_of(photo: Path, known: Known = Known()) -> "Query":
    """A photo file as a query, with what its EXIF tells and what else is known.

    A position in its EXIF is only the truth to compare with; the model is not told.
    """
    from zoomloc.locator import Query
    from zoomloc.world.cells import LatLng
    from zoomloc.world.exif import read_exif

    facts = read_exif(photo)
    has_place = facts.lat is not None and facts.lng is not None
    truth = LatLng(facts.lat, facts.lng) if has_place else None  # type: ignore[arg-type]
    fov_deg = facts.fov_deg
    if known.fov_deg is not None and facts.projection == "perspective":
        fov_deg = known.fov_deg  # a panorama knows its own
    return Query(
        _name_of(photo), photo, truth, fov_deg, facts.projection, known.heading, known.prior
    )


def _name_of(photo: Path) -> str:
    """The path as text, also where its bytes are none."""
    return os.fsencode(photo).decode("utf-8", "replace")


# 2. answers


@dataclass(frozen=True)
class _Job:
    """All that it takes to answer; ``show`` gets each answer as soon as it is there."""

    locator: "Locator"
    known: Known
    photos: PhotosAsked
    out: Path | None
    screen: Screen
    show: Show

    def one_by_one(self) -> Tally:
        """An answer for each photo; where a file was asked for, a kill loses none of them."""
        from zoomloc.world.answers_begun import begun

        files, tally = self.photos.files, Tally()
        with ExitStack() as stack:
            store = None if self.out is None else stack.enter_context(begun(self.out))
            tick = stack.enter_context(self.screen.bar("locate", "photos"))
            for start in range(0, len(files), AT_ONCE):
                for answer in self._answered(files[start : start + AT_ONCE], store, tally):
                    self.show(answer)
                    tally.add(answer)
                tick(min(start + AT_ONCE, len(files)), len(files))
            if store is not None and tally.located:
                store.finish(tally.questions)
        if self.out is not None and tally.located:
            self.screen.step("locate", f"{tally.told()} -> {self.out}")
        return tally

    def _answered(
        self, files: Sequence[Path], store: "Begun | None", tally: Tally
    ) -> Iterator["Answer"]:
        """Answers to these photos in their order: those that are there already, and new ones."""
        there: dict[Path, Answer] = {}
        new: list[Query] = []
        for query in self._queries(files):
            answer = None if store is None else store.known(self._question(query))
            if answer is None:
                new.append(query)
            else:
                there[query.path] = answer
        tally.taken_up += len(there)
        for query, answer in self._located(new):
            there[query.path] = answer
            if store is not None:
                store.add(answer)
        answers = [there[file] for file in files if file in there]
        if store is not None:
            tally.questions += [_question_of(answer) for answer in answers]
        yield from answers

    def _queries(self, files: Sequence[Path]) -> Iterator["Query"]:
        """Queries; a photo that cannot be opened is noted."""
        for file in files:
            try:
                yield query_of(file, self.known)
            except PhotoError as error:
                self.photos.fail(file, error)

    def _question(self, query: "Query") -> "Question":
        """What an answer must say of itself to be the answer to this photo, asked in this way."""
        from zoomloc.world.answers_begun import Question
        from zoomloc.world.files import sha256_of

        made_by = {"photo": sha256_of(query.path)[:16], **self.locator.made_by}
        return Question.of(query.name, {**query.given(), **self.known.words}, made_by)

    def _located(self, queries: Sequence["Query"]) -> list[tuple["Query", "Answer"]]:
        """New answers; a photo that cannot be read is noted, and the others are answered."""
        try:
            answers = list(self.locator.answers(queries))
        except PhotoError:
            queries = [query for query in queries if self._is_readable(query)]
            answers = list(self.locator.answers(queries))
        words = self.known.words
        answers = [replace(answer, given={**answer.given, **words}) for answer in answers]
        return list(zip(queries, answers, strict=True))

    def _is_readable(self, query: "Query") -> bool:
        try:
            self.locator.shown(query)
        except PhotoError as error:
            self.photos.fail(query.path, error)
            return False
        return True

    def together(self) -> Tally:
        """One answer for all photos, which show one place. Raises PhotoError for an unreadable."""
        from zoomloc.world.answer_files import write_answers_as

        queries = [query_of(file, self.known) for file in self.photos.files]
        answer: Answer = self.locator.together(queries)
        told = f"{len(queries):,} photos of one place"
        given = {**answer.given, **self.known.words, "together": told}
        name = " + ".join(query.name for query in queries)
        answer = replace(answer, photo=name, given=given)
        self.show(answer)
        tally = Tally()
        tally.add(answer)
        if self.out is not None:
            write_answers_as([answer], self.out)
            self.screen.step("locate", f"{told} -> {self.out}")
        return tally


def _question_of(answer: "Answer") -> "Question":
    from zoomloc.world.answers_begun import Question

    return Question.answered_by(answer)


# 3. what is shown


def _shower(wanted: Wanted, screen: Screen) -> Show:
    """What happens to each answer at once: a JSON line, or lines for people unless a file is."""
    from zoomloc.world.answers import line_of

    stdout = sys.stdout  # a progress bar on stderr would draw what is printed to itself

    def as_json(answer: "Answer") -> None:
        stdout.write(line_of(answer))
        stdout.flush()

    def as_text(answer: "Answer") -> None:
        screen.result("\n".join(describe(answer)))

    if wanted.as_json:
        return as_json
    return as_text if wanted.out is None else lambda answer: None


def _draw(
    wanted: Wanted,
    locator: "Locator",
    photos: PhotosAsked,
    tally: Tally,
    screen: Screen,
    draw: Callable[..., None] | None,
) -> None:
    """The map of the answers, and pictures of the first."""
    answers = tally.kept
    if draw is not None and wanted.map_path is not None:
        draw(answers, region_folder(wanted), wanted.map_path)
        shown = f"{len(answers)} of {tally.located:,}"
        screen.step("map", f"{shown} answers -> {wanted.map_path}")
    if wanted.strip is not None:
        steps.draw_strip(answers[0], region_folder(wanted), wanted.strip)
        screen.step("strip", f"-> {wanted.strip}")
    if wanted.why is not None:
        from zoomloc.cli.why import draw_why

        first = next(f for f in photos.files if f not in photos.failed)
        draw_why(locator, answers[0], query_of(first, wanted.known), wanted.why)
        screen.step("why", f"-> {wanted.why}")
