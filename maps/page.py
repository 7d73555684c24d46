"""The page itself: a Folium map with its layers, whose assets and data are all inlined.

Knows nothing of answers or pyramids: it gets JSON, and page.js draws it. Importing this module
imports Folium (half a second); ``maps.viewer`` does so only when it writes.
"""

import base64
import hashlib
import html
import re
from typing import Any, TypeVar

import folium
from branca.element import Element, Figure, MacroElement
from folium.map import CustomPane
from folium.raster_layers import ImageOverlay
from jinja2 import Template

from maps.assets import assets, safe_json
from maps.layers import Corners

_E = TypeVar("_E", bound=Element)

# Nothing is fetched, and no script runs but those whose hashes are named: not even one that got
# past the escaping. (Nothing here calls eval; without it no test tool could look into the page.)
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-eval' {hashes}; base-uri 'none'; form-action 'none'"
)
_POLICY_HERE = "zoomloc-content-security-policy"

# key in page.js -> (name in the layer control, shown at the start); lower layers first
_GROUPS = {
    "imagery": ("imagery", True),
    "finer": ("finer imagery on the path", True),
    "outline": ("region", True),
    "errors": ("errors of all photos", False),
    "others": ("all photos", True),
    "belief": ("belief (posterior)", True),
    "path": ("zoom path", True),
    "candidates": ("candidates", True),
    "alternatives": ("alternatives (other places)", True),
    "answer": ("answer", True),
    "truth": ("truth and error", True),
}
_SEVERAL_ONLY = ("errors", "others")
_PANES = {
    "imagery": 210,
    "finer": 220,
    "outline": 402,
    "belief": 410,
    "path": 420,
    "answer": 430,
    "candidates": 440,
}


class _Raw(Element):
    """Text that reaches the page as it is, and is never read as a template."""

    _template = Template("{{ this.text }}")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class _Script(MacroElement):
    """A statement that runs once all that was added to the map before it exists."""

    _template = Template("{% macro script(this, kwargs) %}{{ this.text }}{% endmacro %}")

    def __init__(self, text: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._name = "Script"
        self.text = text


def html_page(data: dict[str, Any], imagery: str, corners: Corners) -> str:
    """The whole page as HTML; ``imagery`` is the data URI of a picture that fills ``corners``."""
    page = _map()
    figure = page.get_root()
    assert isinstance(figure, Figure)
    _add_assets(figure, f"{data['region']} · zoomloc")
    figure.html.add_child(_Raw('<aside class="zl-panel" id="zoomloc-panel"></aside>'))
    figure.html.add_child(
        _Raw(f'<script type="application/json" id="zoomloc-data">{safe_json(data)}</script>')
    )
    groups = _add_layers(page, imagery, corners, several=len(data["answers"]) > 1)
    keys = ", ".join(f"{key}: {group.get_name()}" for key, group in groups.items())
    page.add_child(
        _Script(
            f"var zoomloc = zoomlocPage({page.get_name()}, {{{keys}}}, "
            'JSON.parse(document.getElementById("zoomloc-data").textContent));'
        )
    )
    return _with_policy(str(figure.render()))


def _map() -> folium.Map:
    """An empty map that links nothing: vendored assets take the place of Folium's."""
    page = folium.Map(
        tiles=None,
        control_scale=True,
        max_zoom=24,
        zoom_snap=0.25,
        zoom_delta=0.5,
        attribution_control=False,
    )
    page.default_js, page.default_css = [], []
    return _named(page, "zoomloc")


def _add_assets(figure: Figure, title: str) -> None:
    """Title, policy, scripts and styles, in this order, into the head."""
    texts = assets()
    figure.title = html.escape(title.encode("utf-8", "replace").decode())  # no lone surrogates
    head = [f'<meta http-equiv="Content-Security-Policy" content="{_POLICY_HERE}">']
    head += [f"<script>{texts[name]}</script>" for name in ("leaflet/leaflet.js", "page.js")]
    head += [f"<style>{texts[name]}</style>" for name in ("leaflet/leaflet.css", "page.css")]
    for part in head:
        figure.header.add_child(_Raw(part))


def _with_policy(text: str) -> str:
    """The page with the hashes of its scripts in its policy (CSP level 2, hash sources)."""
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return text.replace(_POLICY_HERE, _POLICY.format(hashes=hashes), 1)


def _add_layers(
    page: folium.Map, imagery: str, corners: Corners, several: bool
) -> dict[str, folium.FeatureGroup]:
    """Panes, the layers that page.js fills, the imagery and the layer control."""
    for name, z_index in _PANES.items():
        page.add_child(_named(CustomPane(name, z_index=z_index, pointer_events=True), name))
    groups = {}
    for key, (name, show) in _GROUPS.items():
        control = several or key not in _SEVERAL_ONLY
        groups[key] = _named(folium.FeatureGroup(name=name, control=control, show=show), key)
        page.add_child(groups[key])
    overlay = ImageOverlay(imagery, corners, pixelated=False, pane="imagery", alt="")
    groups["imagery"].add_child(_named(overlay, "base"))
    page.add_child(_named(folium.LayerControl(collapsed=True), "layers"))
    return groups


def _named(element: _E, name: str) -> _E:
    """The element with a fixed id in place of Folium's random one: equal answers, equal files."""
    element._id = name
    return element
