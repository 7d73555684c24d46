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
from typing import TYPE_CHECKING, Any

import numpy as np

from zoomloc.errors import PhotoError
from zoomloc.world.files import unwritable, written_whole
from zoomloc.world.photos import (
    Photo,
    Skipped,
    check_photo,
    photo_metadata,
    photo_table,
    skipped_table,
)

if TYPE_CHECKING:
    import pyarrow as pa

SKIPPED_NAME = "skipped.parquet"
ROWS = 20_000  # of a row group, and of what is kept in memory
MOST_REASONS = 1_000  # that are counted apart: some hold a number or a name of their own
OTHERS = f"other reasons ({SKIPPED_NAME} has them)"


class PhotoWriter:
    """Takes photos one by one; ``finish`` must be called, else nothing counts as written."""

    def __init__(self, path: Path, temporary: Path, skipped: Path) -> None:
        self.count = 0
        self.reasons: Counter[str] = Counter()  # of photos left out
        self._path = path
        self._folder = os.path.abspath(path.parent)
        self._waiting: list[Photo] = []
        self._skipped: list[Skipped] = []
        self._ids = [np.empty(0, np.uint64)]  # digests: 8 bytes a photo
        self._bounds = [np.inf, np.inf, -np.inf, -np.inf]
        self._kept = _RowGroups(path, temporary)
        self._left_out = _RowGroups(path.with_name(SKIPPED_NAME), skipped)

    def add(self, photo: Photo) -> None:
        """Take a photo. Raises PhotoError for what ``read_photos`` would refuse."""
        check_photo(photo, self._path)
        self._waiting.append(photo)
        if len(self._waiting) >= ROWS:
            self._flush()

    def leave_out(self, skipped: Skipped) -> None:
        """Take note of a photo that was left out."""
        is_new = skipped.reason not in self.reasons and len(self.reasons) >= MOST_REASONS
        self.reasons[OTHERS if is_new else skipped.reason] += 1
        self._skipped.append(skipped)
        if len(self._skipped) >= ROWS:
            self._flush_skipped()

    def finish(self, protocol: str | None = None) -> None:
        """Write what is left. Raises PhotoError where an id came twice or no photo came."""
        self._flush(last=True)
        if not self._kept.is_begun:
            raise PhotoError(f"{self._path}: no photo in the table")
        ids = np.concatenate(self._ids)
        if len(np.unique(ids)) < len(ids):
            raise PhotoError(
                f"{self._path}: {len(ids) - len(np.unique(ids)):,} ids occur twice; ids must be "
                "unique: is a source named twice?"
            )
        for key, value in photo_metadata(self._bounds, protocol).items():
            self._kept.tell(key, json.dumps(value))
        if self._skipped or not self._left_out.is_begun:
            self._flush_skipped()
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self._kept.close()
        self._left_out.close()

    def _flush_skipped(self) -> None:
        """Write what waits of photos left out as one row group."""
        self._left_out.write(skipped_table(self._skipped))
        self._skipped.clear()

    def _flush(self, last: bool = False) -> None:
        """Write the waiting photos as one row group."""
        if not self._waiting:
            return
        # all row groups have the same columns, so only a table of one may leave some out
        alone = last and not self._kept.is_begun
        truth = not alone or any(photo.true_lat is not None for photo in self._waiting)
        self._kept.write(photo_table(self._waiting, self._folder, truth))
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


class _RowGroups:
    """A Parquet file that grows by one row group after the other."""

    def __init__(self, path: Path, temporary: Path) -> None:
        self._path, self._temporary = path, temporary
        self._writer: Any = None

    @property
    def is_begun(self) -> bool:
        """Whether a row group was written."""
        return self._writer is not None

    def write(self, table: "pa.Table") -> None:
        """Add a row group. Raises OutputError where the disk is full."""
        import pyarrow.parquet as pq

        try:
            if self._writer is None:
                # without Arrow's copy of the schema, which would hide what is told at the end
                options = {"compression": "zstd", "store_schema": False}
                self._writer = pq.ParquetWriter(self._temporary, table.schema, **options)
            self._writer.write_table(table)
        except OSError as error:
            raise unwritable(self._path, error) from error

    def tell(self, key: str, value: str) -> None:
        """Add what the file says of itself."""
        self._writer.add_key_value_metadata({key: value})

    def close(self) -> None:
        """Let go of the file."""
        if self._writer is not None:
            self._writer.close()


@contextmanager
def photo_writer(path: Path) -> Iterator[PhotoWriter]:
    """A writer whose table, with skipped.parquet beside it, is there when the block ends.

    It must end after ``finish``. Raises OutputError where the disk is full; what stood there
    before is then still there.
    """
    beside = path.with_name(SKIPPED_NAME)
    with written_whole(path) as temporary, written_whole(beside) as skipped:
        writer = PhotoWriter(path, temporary, skipped)
        try:
            yield writer
        finally:
            writer.close()


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
