"""The report on a photo table: whole, offline, escaped, and drawn where it should be."""

import base64
import io
import re
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from maps.layers import Ground
from maps.photo_charts import COLOURS, date_bars, hour_bars, rose
from maps.photo_map import coverage_map
from maps.photo_report import SHEET, sampled, write_photo_report
from zoomloc.errors import PhotoError
from zoomloc.world.cells import LatLng, moved
from zoomloc.world.photos import (
    Photo,
    Skipped,
    read_photos,
    write_photos,
    write_skipped,
)
from zoomloc.world.pyramid import TilePyramid
from zoomloc.world.region import Region

EVIL = "<script>alert(1)</script>&\"'"
PLACE = LatLng(48.1, -1.7)


def photo(k: int, place: LatLng = PLACE, **changes: object) -> Photo:
    known = Photo(
        f"d{k // 10}/{k:04d}.jpg", Path(f"/absent/{k}.jpg"), *place, None, None, "perspective",
        datetime(2024, 5, 1, 12, tzinfo=UTC), f"d{k // 10}", "folder", "CC0-1.0", "Ana", 5.0,
    )  # fmt: skip
    return replace(known, **changes)  # type: ignore[arg-type]


class Seen(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def report(table: Path, region: Path | None = None) -> tuple[str, Seen]:
    out = table.with_name("report.html")
    write_photo_report(table, table.with_name("skipped.parquet"), region, out)
    text = out.read_text(encoding="utf-8")
    return text, Seen(text)


def svg(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(re.sub(r"^.*?(<svg.*</svg>).*$", r"\1", text, flags=re.S))


# 1. the page


def test_a_region_with_photos(painted: Path, tmp_path: Path) -> None:
    write_photos(read_photos(painted / "photos.parquet"), tmp_path / "photos.parquet")
    reasons = ["blurred: too soft"] * 3 + ["no GPS position in its EXIF"]
    write_skipped([Skipped(f"{k}.jpg", r) for k, r in enumerate(reasons)],
                  tmp_path / "skipped.parquet")  # fmt: skip
    text, seen = report(tmp_path / "photos.parquet", painted)
    assert "Photos of painted" in seen.text and "Painted by a test (CC0-1.0)" in seen.text
    assert "train 480" in seen.text and "val 60" in seen.text and "test 60" in seen.text
    assert re.search(r"blurred: too soft\s*3", seen.text)
    assert seen.text.count("Photo: a test, CC0-1.0") == SHEET
    pictures = [about for tag, about in seen.tags if tag == "img"]
    assert len(pictures) == SHEET + 1
    assert all((about["src"] or "").startswith("data:image/jpeg;base64,") for about in pictures)
    assert len(text) < 3_000_000


def test_it_asks_no_server_and_runs_nothing(painted: Path, tmp_path: Path) -> None:
    photos = read_photos(painted / "photos.parquet")
    photos = [
        replace(p, creator=EVIL, licence=EVIL, source=EVIL, id=f"{EVIL}{k}", sequence_id=EVIL)
        for k, p in enumerate(photos[:40])
    ]
    photos[3] = replace(photos[3], path=tmp_path / f"{EVIL.replace('/', '')}.jpg")
    write_photos(photos, tmp_path / "photos.parquet")
    write_skipped([Skipped(EVIL, EVIL)], tmp_path / "skipped.parquet")
    text, seen = report(tmp_path / "photos.parquet", painted)
    names = {tag for tag, _ in seen.tags}
    assert "script" not in names and "iframe" not in names and "link" not in names
    assert EVIL in seen.text and "<script" not in text
    policy = next(a for t, a in seen.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    for _, about in seen.tags:
        assert not any(name.startswith("on") for name in about)
        assert (about.get("src") or "data:").startswith("data:") and "href" not in about


def test_a_split_that_leaks_is_named_so(tmp_path: Path) -> None:
    photos = [photo(k, split=("train", "val", "test")[k % 3]) for k in range(30)]
    for protocol, leaky in (("random-image", True), ("sequence-disjoint", False), (None, False)):
        write_photos(photos, tmp_path / "photos.parquet", protocol)
        _, seen = report(tmp_path / "photos.parquet")
        assert ("LEAKY: neighbours of test photos" in seen.text) == leaky
        assert (protocol or "protocol not stated") in seen.text


def test_little_is_known(tmp_path: Path) -> None:
    """No region, no split, no times, no headings, no pictures, nobody to credit, no skipped."""
    bare = [photo(k, captured_at=None, creator="", licence="") for k in range(3)]
    write_photos(bare, tmp_path / "photos.parquet")
    _, seen = report(tmp_path / "photos.parquet", tmp_path)
    for told in (
        "Not split yet",
        "No photo says when it was taken",
        "no such photo",
        "creator not stated, licence not stated",
        "no skipped.parquet",
        "the ground is left plain",
        "perspective, field of view unknown",
    ):
        assert told in seen.text
    write_skipped([], tmp_path / "skipped.parquet")
    assert "Nothing was left out" in report(tmp_path / "photos.parquet")[1].text


def test_long_lists_are_summed_up(tmp_path: Path) -> None:
    photos = [photo(k, creator=f"creator {k % 40}") for k in range(400)]
    write_photos(photos, tmp_path / "photos.parquet")
    skipped = [Skipped(f"{k}", f"reason {k % 60}") for k in range(600)]
    write_skipped(skipped, tmp_path / "skipped.parquet")
    _, seen = report(tmp_path / "photos.parquet")
    assert re.search(r"28 others\s*280\s*70.0%", seen.text)
    assert re.search(r"35 other reasons\s*350", seen.text)


def test_no_table(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="no such photo table"):
        write_photo_report(tmp_path / "p.parquet", tmp_path / "s.parquet", None, tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_the_sheet_is_the_same_each_time_and_has_some_of_each_split() -> None:
    photos = [photo(k, split="test" if k > 995 else "train") for k in range(1000)]
    photos[5] = replace(photos[5], split="val")
    chosen = sampled(photos, 24)
    assert len(chosen) == 24 and sampled(photos[::-1], 24) == chosen
    assert sum(p.split == "test" for p in chosen) == 4 and photos[5] in chosen
    assert sampled(photos[:3], 24) == photos[:3]


# 2. the map


def near(pixels: np.ndarray, name: str) -> np.ndarray:
    red, green, blue = (int(COLOURS[name][k : k + 2], 16) for k in (1, 3, 5))
    return np.abs(pixels.astype(int) - np.array([red, green, blue])).sum(axis=2) < 40


def test_dots_stand_where_photos_were_taken(painted: Path) -> None:
    """Each quarter of the region has a photo of its own split, in the middle of the quarter."""
    region = Region.load(painted / "region.json")
    ground = Ground(region)
    (south, west), (north, east) = ground.box(ground.extent)
    at = {"train": (0.25, 0.25), "val": (0.75, 0.25), "test": (0.25, 0.75), None: (0.75, 0.75)}
    photos = [
        photo(k, LatLng(north + (south - north) * down, west + (east - west) * right), split=split)
        for k, (split, (right, down)) in enumerate(at.items())
    ]
    with TilePyramid.open(painted / "imagery.pmtiles") as pyramid:
        picture, outside = coverage_map(photos, ground, pyramid)
    assert outside == 0
    height, width = picture.shape[:2]
    for split, (right, down) in at.items():
        rows, columns = np.nonzero(near(picture, split or "left out"))
        column, row = round(right * width), round(down * height)
        close = (np.abs(columns - column) < 8) & (np.abs(rows - row) < 8)
        assert close.sum() > 20
        assert columns[close].mean() == pytest.approx(right * width, abs=1.5)
        assert rows[close].mean() == pytest.approx(down * height, abs=1.5)


def test_photos_off_the_map_are_counted(painted: Path) -> None:
    region = Region.load(painted / "region.json")
    inside = read_photos(painted / "photos.parquet")[0].place
    photos = [photo(0, inside), photo(1, moved(inside, 0, 5000)), photo(2, moved(inside, 90, 9000))]
    assert coverage_map(photos, Ground(region), None)[1] == 2


@pytest.mark.parametrize("lng", [0.0, 179.9999, -179.9999])
def test_without_a_region_all_photos_are_on_the_map(lng: float) -> None:
    photos = [
        photo(k, moved(LatLng(60.0, lng), 45.0 * k, 100 + 150 * k), split="train") for k in range(8)
    ]
    picture, outside = coverage_map(photos, None, None)
    assert outside == 0 and max(picture.shape) < 1200 and min(picture.shape[:2]) > 200
    assert near(picture, "train").sum() > 8 * 40  # the map is not of the whole globe
    one, outside = coverage_map(photos[:1], None, None)
    assert outside == 0 and near(one, "train").sum() > 40


# 3. charts


def test_the_rose_counts_sectors() -> None:
    photos = [photo(k, bearing_deg=b) for k, b in enumerate([359.0, 1.0, 7.0, 90.0, 97.0, 180.0])]
    photos.append(photo(9))
    titles = [node.text for node in svg(rose(photos)).iter() if node.tag == "title"]
    assert titles == [
        "around 0 degrees: 3", "around 90 degrees: 2", "around 180 degrees: 1",
    ]  # fmt: skip
    assert "1 without one" in svg(rose(photos)).attrib["aria-label"]
    assert not list(svg(rose([photo(1)])).iter("path"))


def test_the_roses_area_is_the_number() -> None:
    photos = [photo(k, bearing_deg=0.0 if k < 4 else 90.0) for k in range(5)]
    paths = [node.attrib["d"] for node in svg(rose(photos)).iter("path")]
    radii = [float(re.search(r"A([\d.]+)", path)[1]) for path in paths]  # type: ignore[index]
    assert radii == [100.0, 50.0]


@pytest.mark.parametrize(
    ("step", "unit", "bars"),
    [
        (timedelta(hours=3), "hour", 48),
        (timedelta(days=4), "day", 37),
        (timedelta(days=40), "month", 13),
        (timedelta(days=400), "year", 10),
    ],
)
def test_bars_suit_the_span(step: timedelta, unit: str, bars: int) -> None:
    began = datetime(2015, 1, 10, 3)
    photos = [photo(k, captured_at=began + k * step, split="train") for k in range(10)]
    chart = svg(date_bars([*photos, photo(99, captured_at=None)]))
    assert f"photos by {unit}" in chart.attrib["aria-label"]
    assert "1 without a date" in chart.attrib["aria-label"]
    widths = [float(node.attrib["width"]) for node in chart.iter("rect")]
    assert len(widths) == 10
    assert widths[0] == pytest.approx(594 / bars - min(0.15 * 594 / bars, 4), abs=0.02)


def test_bars_mix_times_with_and_without_zone() -> None:
    naive = datetime(2024, 5, 1, 9)
    photos = [photo(0), photo(1, captured_at=naive), photo(2, captured_at=None)]
    titles = [node.text for node in svg(hour_bars(photos)).iter() if node.tag == "title"]
    assert titles == ["9h: 1 left out", "12h: 1 left out"]
    assert len(list(svg(date_bars(photos)).iter("rect"))) == 2


# 4. the command, and a browser


def test_report_by_the_command(zoomloc, painted: Path, tmp_path: Path) -> None:
    for name in ("region.json", "imagery.pmtiles"):
        (tmp_path / name).write_bytes((painted / name).read_bytes())
    write_photos(read_photos(painted / "photos.parquet"), tmp_path / "photos.parquet")
    code, out, _ = zoomloc("photos", "--out", tmp_path, "--report", tmp_path / "r.html")
    assert code == 0 and "r.html" in out
    assert "Photos of painted" in (tmp_path / "r.html").read_text()
    code, _, err = zoomloc("photos", "--out", tmp_path / "empty", "--report", tmp_path / "e.html")
    assert code == 2 and "no such photo table" in err
    code, _, err = zoomloc("photos", "--out", tmp_path)
    assert code == 2 and "--folder" in err


@pytest.mark.browser
def test_a_browser_shows_it(painted: Path, tmp_path: Path) -> None:
    from shutil import which

    chromium = which("chromium") or which("chromium-browser") or which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium")
    write_photos(read_photos(painted / "photos.parquet"), tmp_path / "photos.parquet")
    write_skipped([], tmp_path / "skipped.parquet")
    text, seen = report(tmp_path / "photos.parquet", painted)
    first = next(about["src"] or "" for tag, about in seen.tags if tag == "img")
    data = base64.b64decode(first.split(",")[1])
    with Image.open(io.BytesIO(data)) as picture:
        assert max(picture.size) > 1000
    shot = tmp_path / "shot.png"
    subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1200,2000", f"--screenshot={shot}",
            (tmp_path / "report.html").as_uri(),
        ],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    with Image.open(shot) as page:
        pixels = np.asarray(page.convert("RGB"))
    assert pixels.shape == (2000, 1200, 3)
    assert near(pixels, "train").sum() > 3000 and near(pixels, "test").sum() > 500
