"""The photos that a command was asked about: found in folders, each once; which of them failed.

Knows nothing of what is done with them.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zoomloc.cli.telling import printable
from zoomloc.errors import PhotoError

PICTURES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff"})
UNREAD = frozenset({".heic", ".heif", ".avif", ".dng"})  # of phones: said, so that none is missed
REASONS_TOLD = 10


@dataclass(frozen=True)
class PhotosAsked:
    """Photo files in their order, those that were named by themselves, and why some failed."""

    files: tuple[Path, ...]
    named: frozenset[Path]
    failed: dict[Path, str] = field(default_factory=dict)

    @classmethod
    def found(cls, paths: Sequence[Path]) -> "PhotosAsked":
        """Photos as named and all below folders, each once. Raises PhotoError where none is."""
        files: dict[str, Path] = {}
        failed: dict[Path, str] = {}
        named = [path for path in paths if not os.path.isdir(path)]
        for path in paths:
            for file in (path,) if path in named else _photos_below(path, failed):
                files.setdefault(os.path.abspath(file), file)
        if not files:
            unread = f" ({len(failed)} that are not read: {_first(failed)})" if failed else ""
            kinds = ", ".join(sorted(PICTURES))
            raise PhotoError(f"{', '.join(map(str, paths))}: no photo in there, of {kinds}{unread}")
        return cls(tuple(files.values()), frozenset(named), failed)

    def fail(self, file: Path, error: Exception) -> None:
        """Note why a photo cannot be used."""
        self.failed[file] = str(error)

    def verdict(self, any_left: bool) -> tuple[str | None, list[str]]:
        """The failure that the command ends with, if any, and lines on the others.

        It ends with the first photo that was named by itself, or where none is left with any: a
        photo that someone asks for is missed, one of a folder may be left out.
        """
        fatal = next((f for f in self.failed if f in self.named), None)
        if fatal is None and not any_left:
            fatal = next(iter(self.failed), None)
        others = [printable(why) for file, why in self.failed.items() if file != fatal]
        lines = [f"left out: {why}" for why in others[:REASONS_TOLD]]
        if len(others) > REASONS_TOLD:
            lines.append(f"left out: {len(others) - REASONS_TOLD} more")
        return None if fatal is None else printable(self.failed[fatal]), lines


def _photos_below(folder: Path, failed: dict[Path, str]) -> Iterator[Path]:
    """Pictures below a folder, sorted; hidden files and folders are passed over."""
    for file in sorted(folder.rglob("*")):
        if any(part.startswith(".") for part in file.relative_to(folder).parts):
            continue
        suffix = file.suffix.lower()
        if suffix in UNREAD:
            failed[file] = f"{file}: {suffix} is not read; convert it to JPEG"
        elif suffix in PICTURES and os.path.isfile(file):
            yield file


def _first(failed: dict[Path, str]) -> str:
    return next(iter(failed.values()))
