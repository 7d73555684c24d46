"""The map: what it draws, how large it gets, and that it opens offline without running its data."""

import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shapely.geometry import box, mapping

from maps.assets import assets, safe_json
from maps.layers import Ground, answer_data, keep_heaviest
from maps.viewer import write_map
from zoomloc.errors import ImageryError, OutputError, RegionError, ZoomlocError
from zoomloc.world.answers import Alternative, Answer, Candidate
from zoomloc.world.cells import Cell, LatLng, cell_at, distance_m, moved
from zoomloc.world.pyramid import TilePyramid, write_pmtiles
from zoomloc.world.region import Region

HERE = LatLng(44.0577, -123.0712)
SUVA = LatLng(-16.8, 179.9999)  # beside the antimeridian
HOSTILE = (
    "<script>hit('tag')</script></script><img src=x onerror=hit('img')>\"'`${hit('js')}"
    "{{ 7*7 }}{% for %}\u2028\u2029<!--<svg onload=hit('svg')>javascript:hit('url')"
)


def region_at(place: LatLng, name: str = "Testville", **words: Any) -> Region:
    """Three zooms below the level-15 cells that the ground round a place touches."""
    ground = box(place.lng - 0.004, place.lat - 0.003, place.lng + 0.004, place.lat + 0.003)
    corners = {cell_at(LatLng(lat, lng), 15) for lng, lat in ground.exterior.coords}
    return Region(name, tuple(corners), 21, polygon=dict(mapping(ground)), **words)


def tiles_of(region: Region, deepest: int, seed: int = 3) -> Iterator[tuple[Cell, bytes]]:
    """Noise tiles over all roots, from root level to ``deepest``."""
    rng = np.random.default_rng(seed)
    for root in region.roots:
        for levels in range(deepest - region.root_level + 1):
            for cell in root.descendants(levels):
                coarse = rng.integers(40, 210, (8, 8, 3), np.uint8)
                file = io.BytesIO()
                Image.fromarray(coarse).resize((512, 512)).save(file, "JPEG")
                yield cell, file.getvalue()


def answer_for(region: Region, place: LatLng, photo: str = "a.jpg", **changes: Any) -> Answer:
    """An answer that is 40 m off, with belief in its path's siblings."""
    path = region.path(place)
    posterior = [(cell.quadkey, 0.6 / 4) for cell in path[-1].parent().descendants()]
    rest = [cell for cell in path[-1].parent(2).descendants() if cell != path[-1].parent()]
    posterior += [(cell.quadkey, 0.4 / len(rest)) for cell in rest]
    truth = moved(place, 100.0, 40.0)
    lng = (place.lng + 180) % 360 - 180
    answer = Answer(
        photo=photo,
        lat=place.lat,
        lng=lng,
        probability=0.62,
        radius50_m=18.0,
        radius90_m=75.0,
        bearing_deg=127.0,
        bearing_spread_deg=20.0,
        path=tuple(cell.quadkey for cell in path),
        candidates=(
            Candidate(path[-1].quadkey, place.lat, lng, 0.5),
            Candidate(path[-1].quadkey, *moved(place, 10.0, 60.0), 0.2),
        ),
        posterior=tuple(posterior),
        truth=truth,
        error_m=distance_m(place, truth),
        made_by={"checkpoint": "91bd02"},
    )
    return dataclasses.replace(answer, **changes)


@pytest.fixture(scope="module")
def region() -> Region:
    return region_at(
        HERE, attribution=["Testville survey https://example.org/a?b=1&c"], licence="CC0"
    )


@pytest.fixture(scope="module")
def pyramid(region: Region, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TilePyramid]:
    path = tmp_path_factory.mktemp("pyramid") / "imagery.pmtiles"
    write_pmtiles(path, tiles_of(region, region.root_level + 3), {"name": "t"}, "jpeg", 512)
    with TilePyramid.open(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "a.jpg"
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    Image.fromarray(pixels).resize((1600, 1200)).save(path)
    return path


class Page(HTMLParser):
    """What a browser would load, and the data of the page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.references: list[str] = []
        self.data: dict[str, Any] = {}
        self._in_data = False
        text = path.read_text(encoding="utf-8")
        self.feed(text)
        styles = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
        self.references += [u for s in styles for u in re.findall(r"url\(([^)]*)\)", s)]
        self.references += re.findall(r"@import", text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]
        self._in_data = ("id", "zoomloc-data") in attrs

    def handle_data(self, data: str) -> None:
        if self._in_data:
            self.data = json.loads(data)
            self._in_data = False


# 1. what is drawn


def test_path_is_drawn_root_to_terminal_cell_by_size_and_quadkey(
    region: Region, pyramid: TilePyramid, tmp_path: Path
) -> None:
    answer = answer_for(region, HERE)
    write_map([answer], region, pyramid, tmp_path / "map.html")
    (drawn,) = Page(tmp_path / "map.html").data["answers"]
    assert [cell["quadkey"] for cell in drawn["path"]] == list(answer.path)
    for cell, quadkey in zip(drawn["path"], region.path(HERE), strict=True):
        west, south, east, north = quadkey.bounds
        assert np.allclose(cell["bounds"], [[south, west], [north, east]], atol=1e-6)
        assert cell["size_m"] == pytest.approx(quadkey.size_m, abs=0.01)
    assert drawn["text"] == "44.057700, -123.071200"
    assert drawn["truth"] == pytest.approx(list(answer.truth or ()), abs=1e-6)
    assert sum(mass for *_, mass, _ in drawn["posterior"]) == pytest.approx(1, abs=1e-3)


def test_density_compares_cells_of_several_levels(region: Region) -> None:
    leaf = region.path(HERE)[-1]
    thin = region.path(moved(HERE, 0.0, 200.0))[0]  # the root: its 0.1 lie thinner than 1/1000
    posterior = ((leaf.quadkey, 0.18), (leaf.parent().quadkey, 0.72), (thin.quadkey, 0.1))
    drawn = answer_data(answer_for(region, HERE, posterior=posterior), Ground(region))
    coarse, fine = drawn["posterior"]
    assert coarse[2:] == ["72 %", 0.72, 1.0]
    assert fine[2:] == ["18 %", 0.18, 1.0]  # as dense: the other has four times the area
    assert drawn["hidden_mass"] == pytest.approx(0.1)


def test_dropped_cells_are_owned_up_to(region: Region) -> None:
    drawn = answer_data(answer_for(region, HERE), Ground(region))
    assert len(drawn["posterior"]) == 7 and drawn["hidden_mass"] == pytest.approx(0, abs=1e-9)
    keep_heaviest(drawn, 4)
    assert len(drawn["posterior"]) == 4
    assert drawn["hidden_mass"] == pytest.approx(0.4, abs=1e-3)
    assert drawn["words"]["hidden"] == "40 %"


def test_numbers_that_json_lacks_become_unknown(region: Region) -> None:
    answer = answer_for(region, HERE, radius90_m=float("inf"), error_m=float("nan"))
    drawn = answer_data(answer, Ground(region))
    assert drawn["radius90_m"] is None and drawn["error_m"] is None
    assert drawn["words"]["radius90"] == drawn["words"]["off"] == "unknown"
    safe_json(drawn)


def test_alternatives_have_places_numbers_and_words(region: Region) -> None:
    places = (moved(HERE, 0.0, 240.0), LatLng(float("nan"), 3.0), moved(HERE, 90.0, 1200.0))
    others = tuple(Alternative(*place, 0.2) for place in places)
    first, third = answer_data(answer_for(region, HERE, alternatives=others), Ground(region))[
        "alternatives"
    ]
    assert (first["number"], first["words"]) == (1, "20 %, 240 m away")
    assert first["place"] == pytest.approx(list(places[0]), abs=1e-6)
    assert (third["number"], third["words"]) == (3, "20 %, 1.2 km away")  # 2 is no place
    safe_json([first, third])


def test_what_the_map_warns_of(region: Region) -> None:
    def words(**changes: Any) -> dict[str, Any]:
        drawn = answer_data(answer_for(region, HERE, **changes), Ground(region))
        return dict(drawn["words"])

    plain = words(agreement=-0.5, given={"place": "within 1 km of x"})
    assert plain["warnings"] == [] and plain["called"] == "answer" and not plain["is_guess"]
    assert plain["given"] == "within 1 km of x"
    foreign = words(not_here=True, unknown=True, agreement=-3.0, probability=1.0)
    (told,) = foreign["warnings"]
    assert told.startswith("Probably not from the place that was given, or not from this region")
    assert foreign["is_guess"] and foreign["called"] == "best guess"
    assert foreign["sure"] == "if it is from here, probability over 99.9 % within 50 m"
    assert words(unknown=True)["warnings"] == ["Unknown: the mark is only the best guess."]


def test_across_the_antimeridian_the_map_is_one_piece(tmp_path: Path) -> None:
    region = region_at(SUVA)
    assert {root.x for root in region.roots} >= {0, (1 << region.root_level) - 1}
    east = moved(SUVA, 90.0, 150.0)
    assert east.lng < -179.9
    ground = Ground(region)
    west_side, east_side = ground.place(SUVA), ground.place(east)
    assert 0 < east_side[1] - west_side[1] < 0.01
    (south, west), (north, east_lng) = ground.box(ground.extent)
    assert west < west_side[1] < east_side[1] < east_lng and east_lng - west < 0.02
    for quadkey, place in ((region.path(SUVA)[-1], SUVA), (region.path(east)[-1], east)):
        (low, left), (high, right) = ground.cell(quadkey)
        lat, lng = ground.place(place)
        assert low <= lat <= high and left <= lng <= right
    drawn = answer_data(answer_for(region, east), ground)
    assert drawn["text"].split(", ")[1].startswith("-179.99")


def test_a_polygon_cut_at_the_antimeridian_is_one_outline() -> None:
    cut = {
        "type": "MultiPolygon",
        "coordinates": [
            [[[179.997, -16.8], [180, -16.8], [180, -16.79], [179.997, -16.79]]],
            [[[-180, -16.8], [-179.997, -16.8], [-179.997, -16.79], [-180, -16.79]]],
        ],
    }
    whole = region_at(SUVA)
    region = Region("cut", whole.roots, whole.terminal_level, polygon=cut)
    lngs = [lng for ring in Ground(region).outline for _, lng in ring]
    assert max(lngs) - min(lngs) == pytest.approx(0.006, abs=1e-6)
    (_, west), (_, east) = Ground(region).box(Ground(region).extent)
    assert east - west == pytest.approx(0.006, abs=1e-4)


# 2. the file


def test_nothing_is_loaded_from_elsewhere(
    region: Region, pyramid: TilePyramid, photo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "map.html"
    write_map([answer_for(region, HERE)], region, pyramid, out, {"a.jpg": photo})
    page = Page(out)
    assert [r for r in page.references if not r.startswith(("data:", "#"))] == []
    assert "sourceMappingURL" not in out.read_text()
    assert page.data["answers"][0]["thumbnail"].startswith("data:image/jpeg;base64,")
    assert page.data["attribution"] == list(region.attribution) and page.data["licence"] == "CC0"


def test_equal_answers_make_equal_files(
    region: Region, pyramid: TilePyramid, tmp_path: Path
) -> None:
    for name in ("one.html", "two.html"):
        write_map([answer_for(region, HERE)], region, pyramid, tmp_path / name)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


@pytest.mark.parametrize("max_mb", [0.4, 0.8, 3.0])
def test_the_file_keeps_to_its_budget(
    region: Region, pyramid: TilePyramid, photo: Path, tmp_path: Path, max_mb: float
) -> None:
    rng = np.random.default_rng(1)
    answers = [
        answer_for(region, moved(HERE, rng.uniform(0, 360), rng.uniform(0, 300)), f"{k}.jpg")
        for k in range(30)
    ]
    photos = {answer.photo: photo for answer in answers}
    write_map(answers, region, pyramid, tmp_path / "map.html", photos, max_mb=max_mb)
    assert (tmp_path / "map.html").stat().st_size <= max_mb * 1e6
    page = Page(tmp_path / "map.html")
    assert len(page.data["answers"]) == 30
    assert all(name in page.data["finer"] for a in page.data["answers"] for name in a["finer"])
    if max_mb == 3.0:  # room for everything
        assert all(a["thumbnail"] and a["finer"] for a in page.data["answers"])


def test_a_photo_that_cannot_be_read_does_not_stop_the_map(
    region: Region, pyramid: TilePyramid, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8no picture")
    photos = {"a.jpg": broken, "b.jpg": tmp_path / "missing.jpg"}
    answers = [answer_for(region, HERE, name) for name in photos]
    write_map(answers, region, pyramid, tmp_path / "map.html", photos)
    assert [a["thumbnail"] for a in Page(tmp_path / "map.html").data["answers"]] == [None, None]


def test_vendored_files_are_those_that_third_party_names() -> None:
    root = Path(__file__).parents[1]
    rows = re.findall(
        r"\| `([\w./-]+)` \| `([0-9a-f]{64})` \|", (root / "THIRD_PARTY.md").read_text()
    )
    folder = root / "maps" / "assets" / "leaflet"
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {name for name, _ in rows} == present
    for name, digest in rows:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert "Agafonkin" in assets()["leaflet/leaflet.js"][:400]  # the notice travels with the page


def test_importing_the_viewer_is_cheap() -> None:
    code = "import sys, maps.viewer; print({'folium', 'pandas', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# 3. refusals


def test_refusals_say_what_is_wrong(region: Region, pyramid: TilePyramid, tmp_path: Path) -> None:
    out = tmp_path / "map.html"
    out.write_text("before")
    elsewhere = region_at(LatLng(51.5, 0.001), "Elsewhere")
    with pytest.raises(ZoomlocError, match="no answers"):
        write_map([], region, pyramid, out)
    with pytest.raises(ImageryError, match="holds nothing of region 'Elsewhere'"):
        write_map([answer_for(elsewhere, LatLng(51.5, 0.001))], elsewhere, pyramid, out)
    with pytest.raises(RegionError, match="no root of region 'Testville'"):
        write_map([answer_for(elsewhere, LatLng(51.5, 0.001))], region, pyramid, out)
    with pytest.raises(RegionError, match="only digits"):
        write_map([answer_for(region, HERE, path=("99",))], region, pyramid, out)
    with pytest.raises(ZoomlocError, match=r"does not fit into 0\.1 MB"):
        write_map([answer_for(region, HERE)], region, pyramid, out, max_mb=0.1)
    assert out.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["map.html"]


def test_unwritable_places_are_output_errors(
    region: Region, pyramid: TilePyramid, tmp_path: Path
) -> None:
    answer = answer_for(region, HERE)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a folder"):
        write_map([answer], region, pyramid, tmp_path)
    with pytest.raises(OutputError, match="cannot write"):
        write_map([answer], region, pyramid, tmp_path / "file" / "map.html")
    if os.geteuid() != 0:
        (tmp_path / "shut").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
        with pytest.raises(OutputError, match="cannot write"):
            write_map([answer], region, pyramid, tmp_path / "shut" / "map.html")


# 4. in a browser, with the network off


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


class Seen:
    """A page that was opened offline, and what happened in it."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        context = browser.new_context(viewport={"width": 1280, "height": 800}, **options)
        context.set_offline(True)
        self.requests: list[str] = []
        self.trouble: list[str] = []
        self.page = context.new_page()
        self.page.add_init_script("window.hits = []; window.hit = what => window.hits.push(what);")
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.trouble.append(message.text))
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.trouble.append("dialog"), dialog.dismiss()))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(".zl-outline", state="attached")

    def count(self, selector: str) -> int:
        return int(self.page.locator(selector).count())

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).first.inner_text())

    def box(self, selector: str) -> dict[str, float]:
        return dict(self.page.locator(selector).first.bounding_box())

    def settle(self) -> None:
        """Wait until the map stands still."""
        before = None
        for _ in range(60):
            self.page.wait_for_timeout(150)
            view = self.page.evaluate("[map_zoomloc.getBounds().toBBoxString()]")
            if view == before:
                return
            before = view
        raise AssertionError("the map never stood still")

    def check_quiet(self, path: Path) -> None:
        left = [
            url for url in self.requests if not url.startswith("data:") and url != path.as_uri()
        ]
        assert left == [] and self.trouble == []
        self.page.context.close()


@pytest.mark.browser
def test_one_answer_in_the_browser(
    browser: Any, region: Region, pyramid: TilePyramid, photo: Path, tmp_path: Path
) -> None:
    out, answer = tmp_path / "map.html", answer_for(region, HERE)
    write_map([answer], region, pyramid, out, {"a.jpg": photo})
    seen = Seen(browser, out)
    assert seen.count(".zl-outline") == len(answer.path) == region.zooms + 1
    assert seen.count(".zl-belief") == len(answer.posterior)
    assert seen.count(".zl-candidate") == 2 and seen.count(".zl-radius") == 2
    for marks in (".zl-answer", ".zl-truth", ".zl-error", ".zl-heading", ".leaflet-control-scale"):
        assert seen.count(marks) == 1
    widths = seen.page.evaluate(
        "Array.from(document.querySelectorAll('img')).map(image => image.naturalWidth)"
    )
    assert len(widths) >= 2 and min(widths) > 0  # imagery and the photo were decoded
    assert "CC0" in seen.text(".zl-attribution") and "Testville survey" in seen.text(
        ".zl-attribution"
    )
    assert (
        seen.page.locator(".zl-attribution a").get_attribute("href")
        == "https://example.org/a?b=1&c"
    )
    info = seen.text(".zl-info")
    for words in (
        "a.jpg",
        "44.057700, -123.071200",
        "answer: probability 62 %",
        "within 50 m",
        "75 m",
        "40 m",
        "127° ± 20°",
    ):
        assert words in info
    assert "zoom 0" in info and answer.path[-1] in info
    assert "zoom 0" in seen.text(".zl-label:visible")

    seen.page.locator(".leaflet-control-layers").hover()
    seen.page.get_by_label("zoom path").uncheck()
    assert seen.count(".zl-outline") == 0
    seen.page.get_by_label("zoom path").check()
    assert seen.count(".zl-outline") == len(answer.path)
    seen.check_quiet(out)


@pytest.mark.browser
def test_replay_goes_from_the_root_to_the_place(
    browser: Any, region: Region, pyramid: TilePyramid, tmp_path: Path
) -> None:
    out = tmp_path / "map.html"
    write_map([answer_for(region, HERE)], region, pyramid, out)
    seen = Seen(browser, out, reduced_motion="reduce")  # jumps, as such people wish; and is quicker
    before = seen.page.evaluate("map_zoomloc.getZoom()")
    seen.page.evaluate(
        "window.zooms = []; map_zoomloc.on('moveend', () => zooms.push(map_zoomloc.getZoom()))"
    )
    seen.page.get_by_text("replay zoom").click()
    assert not seen.page.locator(".zl-answer").is_visible()
    seen.page.wait_for_function("!document.querySelector('.zl-replaying')", timeout=15_000)
    seen.settle()
    assert seen.page.locator(".zl-answer").is_visible()
    zooms = seen.page.evaluate("zooms")
    assert max(zooms) > before + 4  # reached the terminal cell
    assert zooms[: region.zooms] == sorted(zooms[: region.zooms])
    assert seen.page.evaluate("map_zoomloc.getBounds().contains(zoomloc.answers[0].place)")
    seen.check_quiet(out)


@pytest.mark.browser
def test_several_answers_in_the_browser(
    browser: Any, region: Region, pyramid: TilePyramid, tmp_path: Path
) -> None:
    far = moved(HERE, 200.0, 250.0)
    answers = [
        answer_for(region, HERE, "day1/a.jpg"),
        answer_for(region, far, "day2/a.jpg", unknown=True, truth=None, error_m=None),
        answer_for(region, HERE, "day2/b.jpg", not_here=True, bearing_deg=None),
    ]
    out = tmp_path / "map.html"
    write_map(answers, region, pyramid, out)
    seen = Seen(browser, out)
    assert seen.count(".zl-list li") == 3 and seen.count(".zl-dot") == 3
    assert "day1/a.jpg" in seen.text(".zl-list")  # file names repeat: their folders tell
    seen.page.locator(".zl-list button").nth(1).click()
    seen.settle()
    assert "Unknown: the mark is only the best guess" in seen.text(".zl-info")
    assert seen.count(".zl-truth") == 0 and seen.count(".zl-error") == 0
    assert seen.page.evaluate("map_zoomloc.getCenter().distanceTo(zoomloc.answers[1].place)") < 80
    seen.page.locator(".zl-list button").nth(2).click()
    assert "Probably not from this region" in seen.text(".zl-info")
    assert "if it is from here, probability 62 %" in seen.text(".zl-info")
    assert "not here" in seen.text(".zl-list li:nth-child(3)")
    assert "%" not in seen.text(".zl-list li:nth-child(3)")  # a figure that holds only if it is
    assert seen.count(".zl-heading") == 0
    seen.check_quiet(out)


@pytest.mark.browser
def test_a_guess_and_other_places_look_so_in_the_browser(
    browser: Any, region: Region, pyramid: TilePyramid, tmp_path: Path
) -> None:
    places = (moved(HERE, 0.0, 240.0), moved(HERE, 90.0, 150.0))
    others = tuple(
        Alternative(*place, mass) for place, mass in zip(places, (0.2, 0.1), strict=True)
    )
    given = {"place": HOSTILE}
    answers = [
        answer_for(region, HERE, alternatives=others),
        answer_for(region, HERE, "b.jpg", not_here=True, agreement=-3.0, given=given),
    ]
    out = tmp_path / "map.html"
    write_map(answers, region, pyramid, out)
    seen = Seen(browser, out)
    assert seen.page.locator(".zl-banner").is_hidden()
    assert seen.page.locator(".zl-other").all_inner_texts() == ["1", "2"]
    seen.page.locator(".zl-other").nth(1).dispatch_event("mouseover")
    assert "alternative 2 · 10 %, 150 m away" in seen.text(".leaflet-tooltip")
    assert "20 %, 240 m away" in seen.text(".zl-info")
    at = seen.page.evaluate("[0, 1].map(k => zoomloc.answers[0].alternatives[k].place)")
    assert np.allclose(at, places, atol=1e-6)
    shining = seen.page.locator(".zl-answer path").first.get_attribute("fill")
    seen.page.locator(".leaflet-control-layers").hover()
    seen.page.get_by_label("alternatives").uncheck()
    assert seen.count(".zl-other") == 0

    seen.page.locator(".zl-list button").nth(1).click()
    banner = seen.page.locator(".zl-banner p").all_inner_texts()
    told = "Probably not from the place that was given, or not from this region"
    assert told in banner[0]
    assert seen.page.locator(".zl-answer path").first.get_attribute("fill") != shining
    seen.page.locator(".zl-answer").dispatch_event("mouseover")
    tooltip = seen.page.locator(".leaflet-tooltip").last.inner_text()
    assert "best guess: if it is from here, probability 62 %" in tooltip
    assert told in tooltip
    assert "<img src=x onerror=hit('img')>" in seen.text(".zl-info table")
    assert seen.page.evaluate("window.hits") == []
    seen.check_quiet(out)


@pytest.mark.browser
def test_no_text_of_the_data_runs(browser: Any, pyramid: TilePyramid, tmp_path: Path) -> None:
    region = region_at(
        HERE,
        HOSTILE + "\ud800",
        attribution=[HOSTILE, "https://e.org/\"onclick='hit(1)'"],
        licence=HOSTILE,
    )
    made_by = {HOSTILE: HOSTILE, "__proto__": "x"}
    candidates = (Candidate(HOSTILE, *HERE, 0.4),)
    answers = [
        answer_for(region, HERE, HOSTILE + str(k), made_by=made_by, candidates=candidates)
        for k in range(2)
    ]
    out = tmp_path / "map.html"
    write_map(answers, region, pyramid, out)
    raw = out.read_text(encoding="utf-8")
    assert "<script>hit" not in raw and "onerror=hit('img')>" not in raw
    seen = Seen(browser, out)
    for place in (".zl-candidate", ".zl-dot", ".zl-outline", ".zl-belief"):
        seen.page.locator(place).first.dispatch_event("mouseover")
    seen.page.locator(".zl-list button").nth(1).click()
    seen.page.locator(".zl-info details").last.click()
    seen.settle()
    assert seen.page.evaluate("window.hits") == []
    assert seen.count("svg[onload], img[onerror], a[onclick], script[src]") == 0
    assert "49" not in seen.page.title() and "{{ 7*7 }}" in seen.page.title()
    for place in (".zl-head h1", ".zl-attribution", ".zl-list", ".zl-info h2", ".zl-info details"):
        assert "<img src=x onerror=hit('img')>" in seen.page.locator(place).last.text_content()
    seen.check_quiet(out)


@pytest.mark.browser
def test_the_antimeridian_in_the_browser(browser: Any, tmp_path: Path) -> None:
    region, out = region_at(SUVA), tmp_path / "map.html"
    path = tmp_path / "imagery.pmtiles"
    write_pmtiles(path, tiles_of(region, region.root_level + 1), {}, "jpeg", 512)
    with TilePyramid.open(path) as pyramid:
        write_map(
            [answer_for(region, SUVA), answer_for(region, moved(SUVA, 90.0, 60.0), "b.jpg")],
            region,
            pyramid,
            out,
        )
    seen = Seen(browser, out)
    imagery = seen.box(".leaflet-imagery-pane img")
    pin = seen.box(".zl-answer")
    assert imagery["width"] < 1280
    assert imagery["x"] < pin["x"] < imagery["x"] + imagery["width"]
    dots = [d.bounding_box() for d in seen.page.locator(".zl-dot").all()]
    assert 5 < dots[1]["x"] - dots[0]["x"] < imagery["width"] / 3  # b lies 60 m east of a
    seen.check_quiet(out)


# 5. real imagery


@pytest.mark.skipif("ZOOMLOC_REAL_DATA" not in os.environ, reason="ZOOMLOC_REAL_DATA is not set")
def test_drone_tiles_of_kampala(tmp_path: Path) -> None:
    folder = Path(os.environ["ZOOMLOC_REAL_DATA"]) / "oam-kampala-tiles"
    if not folder.exists():
        pytest.skip(f"{folder.name} is not there")
    with TilePyramid.open(folder) as pyramid:
        roots = tuple(pyramid.cells(19))
        region = Region("Kampala", roots, 23, attribution=("OpenAerialMap contributors",))
        place = roots[0].descendants(4)[37].center
        write_map([answer_for(region, place)], region, pyramid, tmp_path / "map.html")
    page = Page(tmp_path / "map.html")
    assert len(page.data["outline"]) == 5
    assert len(page.data["answers"][0]["path"]) == 3
