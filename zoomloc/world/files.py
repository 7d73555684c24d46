"""Files written whole or not at all, and JSON read with its schema checked.

Knows nothing of what the files hold.
"""

import contextlib
import errno
import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoomloc.errors import OutputError, ZoomlocError

_READING_THE_MASK = threading.Lock()


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its name when the block ends without error.

    Raises OutputError where the disk is full or the place cannot be written; what stood at
    ``path`` before is then still there, unchanged.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes it private; a result is not
        os.replace(temporary, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> OutputError:
    """The one line for a write that failed."""
    full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
    if full:
        mend = "the disk is full; free some space and run the same command again"
    else:
        mend = f"{error.strerror or error}; choose a place that can be written"
    return OutputError(f"cannot write {path}: {mend}")


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, atomically."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write JSON (no NaN, sorted as given), atomically."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, schema: str, kind: type[ZoomlocError]) -> dict[str, Any]:
    """A JSON object whose ``schema`` is the given one; raises ``kind`` where it is not."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise kind(f"{path}: no such file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise kind(f"{path}: cannot be read as JSON ({error})") from error
    found = data.get("schema") if isinstance(data, dict) else None
    if found != schema:
        raise kind(
            f"{path}: schema is {found!r}, this version reads {schema!r}; "
            "make the file again with this version"
        )
    return dict(data)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    """The process's mask, which can only be read by setting it."""
    with _READING_THE_MASK:  # two threads at once could leave it at 0
        mask = os.umask(0)
        os.umask(mask)
    return mask
