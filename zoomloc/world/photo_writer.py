"""Writing a photo table row group by row group: a million photos in the memory of a few thousand.

Knows nothing of where photos come from. The file is the one that ``write_photos`` writes.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from zoomloc.errors import PhotoError
from zoomloc.world.files import unwritable, written_whole
from zoomloc.world.photos import (
    Photo,
    Skipped,
    check_photo,
    photo_metadata,
    photo_table,
    write_skipped,
)

SKIPPED_NAME = "skipped.parquet"
ROWS = 20_000  # of a row group, and of what is kept in memory


class PhotoWriter:
    """Takes photos one by one; ``finish`` must be called, else nothing counts as written."""

    def __init__(self, path: Path, temporary: Path) -> None:
        self.count = 0
        self.reasons: Counter[str] = Counter()  # of photos left out
        self._path, self._temporary = path, temporary
        self._folder = os.path.abspath(path.parent)
        self._waiting: list[Photo] = []
        self._skipped: list[Skipped] = []
        self._ids = [np.empty(0, np.uint64)]  # digests: 8 bytes a photo
        self._bounds = [np.inf, np.inf, -np.inf, -np.inf]
        self._writer: Any = None

    def add(self, photo: Photo) -> None:
        """Take a photo. Raises PhotoError for what ``read_photos`` would refuse."""
        check_photo(photo, self._path)
        self._waiting.append(photo)
        if len(self._waiting) >= ROWS:
            self._flush()

    def leave_out(self, skipped: Skipped) -> None:
        """Take note of a photo that was left out."""
        self.reasons[skipped.reason] += 1
        self._skipped.append(skipped)

    def finish(self, protocol: str | None = None) -> None:
        """Write what is left. Raises PhotoError where an id came twice or no photo came."""
        self._flush(last=True)
        if self._writer is None:
            raise PhotoError(f"{self._path}: no photo in the table")
        ids = np.concatenate(self._ids)
        if len(np.unique(ids)) < len(ids):
            raise PhotoError(
                f"{self._path}: {len(ids) - len(np.unique(ids)):,} ids occur twice; ids must be "
                "unique: is a source named twice?"
            )
        for key, value in photo_metadata(self._bounds, protocol).items():
            self._writer.add_key_value_metadata({key: json.dumps(value)})
        self.close()
        write_skipped(self._skipped, self._path.with_name(SKIPPED_NAME))

    def close(self) -> None:
        """Let go of the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _flush(self, last: bool = False) -> None:
        """Write the waiting photos as one row group."""
        if not self._waiting:
            return
        import pyarrow.parquet as pq

        # all row groups have the same columns, so only a table of one may leave some out
        alone = last and self._writer is None
        truth = not alone or any(photo.true_lat is not None for photo in self._waiting)
        table = photo_table(self._waiting, self._folder, truth)
        try:
            if self._writer is None:
                # without Arrow's copy of the schema, which would hide what is added at the end
                options = {"compression": "zstd", "store_schema": False}
                self._writer = pq.ParquetWriter(self._temporary, table.schema, **options)
            self._writer.write_table(table)
        except OSError as error:
            raise unwritable(self._path, error) from error
        digests = [_digest(photo.id) for photo in self._waiting]
        self._ids.append(np.array(digests, np.uint64))
        places = np.array([(p.lng, p.lat) for p in self._waiting])
        low, high = places.min(axis=0), places.max(axis=0)
        west, south, east, north = self._bounds
        self._bounds = [
            min(west, float(low[0])),
            min(south, float(low[1])),
            max(east, float(high[0])),
            max(north, float(high[1])),
        ]
        self.count += len(self._waiting)
        self._waiting.clear()


@contextmanager
def photo_writer(path: Path) -> Iterator[PhotoWriter]:
    """A writer whose file takes its place, whole, when the block ends after ``finish``.

    Raises OutputError where the disk is full; what stood at ``path`` is then still there.
    """
    with written_whole(path) as temporary:
        writer = PhotoWriter(path, temporary)
        try:
            yield writer
        finally:
            writer.close()


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
