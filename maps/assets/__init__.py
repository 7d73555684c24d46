"""The vendored and own assets of the page, and JSON that may stand inside HTML.

Knows nothing of what the page shows.
"""

import base64
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

_FILES = ("leaflet/leaflet.js", "leaflet/leaflet.css", "page.js", "page.css")
_SOURCE_MAP = "//# sourceMappingURL=leaflet.js.map"  # not vendored; would be asked for


@cache
def assets() -> dict[str, str]:
    """Text of each asset by its name, fit to stand inside <script> or <style>."""
    folder = Path(__file__).parent
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in _FILES}
    return {name: _inlined(text.replace(_SOURCE_MAP, "")) for name, text in texts.items()}


def safe_json(data: Any) -> str:
    """JSON that cannot end the script element it stands in: ASCII, without < > and &.

    Raises ValueError for NaN and infinities.
    """
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _inlined(text: str) -> str:
    """The style sheet with its pictures inside."""

    def data_url(found: re.Match[str]) -> str:
        picture = Path(__file__).parent / "leaflet" / found.group(1)
        return f"url(data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()})"

    return re.sub(r"url\((images/[\w-]+\.png)\)", data_url, text)
