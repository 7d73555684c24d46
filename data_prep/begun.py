"""A folder that one command fills: marked when it is begun, left alone when it is finished.

Knows nothing of what is in it. `<name>.begun.json` gives way to `<name>.json`, which is written
last: all that was asked, and under "built" what came of it.
"""

import json
from pathlib import Path
from typing import Any

from zoomloc.errors import ConfigError
from zoomloc.world.files import write_json


def found_or_begun(out: Path, name: str, asked: dict[str, Any]) -> dict[str, Any] | None:
    """What was built in a finished folder; None, and the folder marked, where there is work left.

    Raises ConfigError where the folder holds something else, OSError where it cannot be written.
    """
    done, begun = out / f"{name}.json", out / f"{name}.begun.json"
    for marker in (done, begun):
        if marker.exists() and not _same(marker, asked):
            raise ConfigError(
                f"{out} was made with other parameters ({marker.name}): choose another folder, "
                "or delete that one"
            )
    if done.exists():
        return dict(json.loads(done.read_text())["built"])
    if not begun.exists():
        if (out / "photos").exists():
            raise ConfigError(
                f"{out}/photos exists, but nothing was begun there: choose another folder"
            )
        out.mkdir(parents=True, exist_ok=True)
        write_json(begun, asked)
    return None


def finish(out: Path, name: str, asked: dict[str, Any], built: dict[str, Any]) -> None:
    """Mark a folder as finished. Raises OutputError where that cannot be written."""
    write_json(out / f"{name}.json", {**asked, "built": built})
    (out / f"{name}.begun.json").unlink(missing_ok=True)


def _same(marker: Path, asked: dict[str, Any]) -> bool:
    try:
        stored = json.loads(marker.read_text())
    except ValueError:
        return False
    return isinstance(stored, dict) and all(stored.get(key) == asked[key] for key in asked)
