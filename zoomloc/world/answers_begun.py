"""Answers that come one by one and must outlive a kill: whole lines beside the file to be.

Knows nothing of how answers are found. ``OUT.part`` holds lines of ``answers.jsonl`` whatever the
format of OUT; all that is in it stays until OUT is written whole.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import BinaryIO, NamedTuple

from zoomloc.errors import OutputError, ZoomlocError
from zoomloc.world.answer_files import check_ending, write_answers_as
from zoomloc.world.answers import Answer, line_of
from zoomloc.world.files import unwritable, written_whole

PART = ".part"
_BLOCK = 1 << 16


class Question(NamedTuple):
    """What an answer answers: a photo by name and hash, what was given, what answered."""

    photo: str
    given: frozenset[tuple[str, str]]
    made_by: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, photo: str, given: Mapping[str, str], made_by: Mapping[str, str]) -> "Question":
        """Two are the same where all of this is."""
        return cls(photo, frozenset(given.items()), frozenset(made_by.items()))

    @classmethod
    def answered_by(cls, answer: Answer) -> "Question":
        """The question of an answer."""
        return cls.of(answer.photo, answer.given, answer.made_by)


class Begun:
    """The answers of a file that is not whole yet; made by ``begun``."""

    def __init__(self, out: Path, part: BinaryIO, writer: FileIO) -> None:
        self.out, self._part, self._writer = out, part, writer
        self._at: dict[Question, tuple[BinaryIO, int]] = {}

    def __len__(self) -> int:
        return len(self._at)

    def take_up(self, file: BinaryIO) -> None:
        """Know the answers of a file; lines that are no answers are passed over."""
        at = 0
        for line in file:
            with contextlib.suppress(ValueError, ArithmeticError, RecursionError, ZoomlocError):
                question = Question.answered_by(Answer.from_json(json.loads(line)))
                self._at[question] = file, at
            at += len(line)

    def known(self, question: Question) -> Answer | None:
        """The answer to this very question, if it is there already."""
        return self._read(question) if question in self._at else None

    def add(self, answer: Answer) -> None:
        """Keep an answer, for good. Raises OutputError where it cannot be written."""
        end, left = self._writer.seek(0, os.SEEK_END), line_of(answer).encode()
        try:
            while left:
                left = left[self._writer.write(left) :]
        except OSError as error:
            self._writer.truncate(end)
            raise unwritable(part_of(self.out), error) from error
        self._at[Question.answered_by(answer)] = self._part, end

    def finish(self, questions: Iterable[Question]) -> None:
        """Write the file whole, with the answers to these questions in their order."""
        if self.out.suffix.lower() == ".jsonl":
            with written_whole(self.out) as temporary, temporary.open("wb") as file:
                file.writelines(self._line(question) for question in questions)
        else:
            write_answers_as(map(self._read, questions), self.out)
        part_of(self.out).unlink(missing_ok=True)

    def _read(self, question: Question) -> Answer:
        return Answer.from_json(json.loads(self._line(question)))

    def _line(self, question: Question) -> bytes:
        """The line of an answer, its end included (the last one of a file may lack it)."""
        file, at = self._at[question]
        file.seek(at)
        return file.readline().rstrip(b"\r\n") + b"\n"


@contextlib.contextmanager
def begun(out: Path) -> Iterator[Begun]:
    """The answers of ``out`` as far as they are there, and a place for more.

    Takes up ``out.part`` and, where ``out`` itself is ``.jsonl``, what that holds. Raises
    ConfigError for an ending of no known format, OutputError where it cannot be written or another
    process is writing it.
    """
    ending, path = check_ending(out), part_of(out)
    with contextlib.ExitStack() as stack:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            writer = stack.enter_context(FileIO(path, "a+"))  # unbuffered: a kill loses no line
            _keep_out_others(writer, out)
            stack.callback(_remove_empty, path)
            _cut_to_whole_lines(writer)
            part = stack.enter_context(path.open("rb"))
            made = Begun(out, part, writer)
            if ending == ".jsonl" and out.is_file():
                made.take_up(stack.enter_context(out.open("rb")))
            made.take_up(part)
        except OSError as error:
            raise unwritable(out, error) from error
        yield made


def part_of(out: Path) -> Path:
    """Where answers wait until the file is whole."""
    return out.with_name(out.name + PART)


def _keep_out_others(part: FileIO, out: Path) -> None:
    """Refuse a second process on one file; the lock ends with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # no such locks there: two at once are the user's to avoid
        return
    try:
        fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(
            f"{out}: another zoomloc is writing it; wait for that, or take another name"
        ) from error


def _cut_to_whole_lines(part: FileIO) -> None:
    """Drop a last line that a kill cut off."""
    end = at = part.seek(0, os.SEEK_END)
    while at > 0:
        start = max(0, at - _BLOCK)
        part.seek(start)
        newline = part.read(at - start).rfind(b"\n")
        if newline >= 0:
            at = start + newline + 1
            break
        at = start
    if at < end:
        part.truncate(at)


def _remove_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()
