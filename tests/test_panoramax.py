"""Panoramax's STAC API on loopback.

All items and answers are made up after https://docs.panoramax.fr/api (STAC_compatibility), the STAC
API specification, and the answers that the server's own source code (geovisio 2.15) composes.
"""

import io
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from loopback import Answer, serving
from PIL import Image

from data_prep.photos import panoramax
from data_prep.photos.panoramax import (
    FACTS,
    LENS,
    LIMIT,
    _page_fault,
    entry_of,
    photo_of,
    read_panoramax,
)
from data_prep.photos.reading import Task
from zoomloc.config.photos import PanoramaxPhotos
from zoomloc.errors import PhotoError
from zoomloc.world.photos import Photo, Skipped, check_photo

QUICK = {"rate_per_s": 200.0, "retries": 1}
WEST, SOUTH = 2.3405, 48.8505
GROUND = shapely.box(WEST, SOUTH, WEST + 0.002, SOUTH + 0.002)
AGAIN = {"Retry-After": "0"}


def name(number: int) -> str:
    return str(UUID(int=number))


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 32, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def item(number: int, lng: float = WEST + 0.001, lat: float = SOUTH + 0.001, **said) -> dict:
    lens = {"field_of_view": 70.0, "focal_length": 4.5, "sensor_array_dimensions": [4000, 3000]}
    properties = {
        "datetime": f"2022-05-01T10:00:{number % 60:02d}+00:00",
        "datetimetz": f"2022-05-01T12:00:{number % 60:02d}+02:00",
        "license": "etalab-2.0",
        "view:azimuth": 90,
        "pers:interior_orientation": lens,
        "geovisio:producer": "A. Mapper",
        "exif": {"Exif.Image.Make": "x" * 500},
    } | said
    return {
        "type": "Feature",
        "id": name(number),
        "collection": name(900 + number % 2),
        "geometry": {"type": "Point", "coordinates": [lng, lat]},
        "properties": {key: value for key, value in properties.items() if value is not None},
        "providers": [{"name": "Another", "roles": ["producer"]}],
        "links": [{"rel": "next", "href": "of the sequence, not of the answer"}],
        "assets": {key: {"href": f"/{key}/{number}.jpg"} for key in ("hd", "sd", "thumb")},
    }


@dataclass
class MadeUp:
    """A server; ``paged``: answers come in pages of that many, as the meta-catalog may do."""

    items: list[dict]
    paged: int = 0
    faults: dict = field(default_factory=dict)

    def __call__(self, asked) -> Answer:
        parts = urlsplit(asked.path)
        fault = self.faults.get(parts.path)
        answer = fault(asked) if fault else None
        if answer is not None:
            return answer
        if parts.path != "/api/search":
            return Answer(jpeg(int(parts.path.split("/")[-1][:-4])), kind="image/jpeg")
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        found = [i for i in self.items if self._within(i, query)]
        size, start = self.paged or int(query["limit"]), int(query.get("token", 0))
        links = [{"rel": "root", "href": "/api"}]
        if self.paged and start + size < len(found):
            bare = asked.path.split("&token=")[0]
            links.append({"rel": "next", "href": f"{bare}&token={start + size}"})
        shown = {"type": "FeatureCollection", "features": found[start : start + size]}
        return Answer(json.dumps(shown | {"links": links}).encode(), kind="application/geo+json")

    @staticmethod
    def _within(found: dict, query: dict) -> bool:
        west, south, east, north = map(float, query["bbox"].split(","))
        lng, lat = found["geometry"]["coordinates"]
        first, last = query.get("datetime", "../..").split("/")
        when = datetime.fromisoformat(found["properties"]["datetime"])
        since = first == ".." or datetime.fromisoformat(first) <= when
        until = last == ".." or when <= datetime.fromisoformat(last)
        return west <= lng <= east and south <= lat <= north and since and until


def source(url: str, **changes) -> PanoramaxPhotos:
    return PanoramaxPhotos(kind="panoramax", url=url, **QUICK | changes)


def read(server, out: Path, ground=GROUND, **changes) -> list[Photo | Skipped]:
    return list(read_panoramax(source(f"{server.address}/api", **changes), Task(out, ground, 1)))


def asked_for(server, start: str) -> list[str]:
    return [asked.path for asked in server.asked if asked.path.startswith(start)]


# 1. what it says


def test_items_become_rows_with_their_pictures(tmp_path):
    items = [item(2), item(1, license="CC-BY-SA-4.0"), item(3)]
    with serving(MadeUp(items)) as server:
        found = read(server, tmp_path)
        assert len(asked_for(server, "/sd/")) == 3 and not asked_for(server, "/hd/")
    assert [photo.id for photo in found] == [f"panoramax/{name(i)}" for i in (2, 1, 3)]
    one = found[1]
    assert one == Photo(
        id=f"panoramax/{name(1)}",
        path=tmp_path / "photos" / "panoramax" / name(901) / f"{name(1)}.jpg",
        lat=SOUTH + 0.001,
        lng=WEST + 0.001,
        bearing_deg=90.0,
        fov_deg=70.0,
        projection="perspective",
        captured_at=datetime(2022, 5, 1, 12, 0, 1, tzinfo=timezone(timedelta(hours=2))),
        sequence_id=f"panoramax/{name(901)}",
        source="panoramax",
        licence="CC-BY-SA-4.0",
        creator="A. Mapper",
        position_error_m=5.0,
    )
    assert found[0].licence == "etalab-2.0" and one.path.read_bytes() == jpeg(1)


def lens(**said) -> dict:
    return {"pers:interior_orientation": said}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (lens(field_of_view=360), {"projection": "equirectangular", "fov_deg": 360.0}),
        (
            lens(
                field_of_view=360,
                sensor_array_dimensions=[4000, 2000],
                visible_area=[500, 0, 500, 0],
            ),
            {"projection": "equirectangular", "fov_deg": 270.0},
        ),
        (lens(focal_length=4.5), {"projection": "perspective", "fov_deg": None}),
        ({"pers:interior_orientation": None}, {"projection": "perspective", "fov_deg": None}),
        ({"quality:horizontal_accuracy": 2.5}, {"position_error_m": 2.5}),
        ({"quality:horizontal_accuracy": 0}, {"position_error_m": 5.0}),
        ({"view:azimuth": None}, {"bearing_deg": None}),
        ({"geovisio:producer": None}, {"creator": "Another"}),
        ({"license": None}, {"licence": ""}),
        ({"datetimetz": None}, {"captured_at": datetime(2022, 5, 1, 10, 0, 1, tzinfo=UTC)}),
        ({"datetimetz": "soon", "datetime": "0001-01-01"}, {"captured_at": None}),
    ],
)
def test_what_an_item_says(changes, expected):
    photo = photo_of(entry_of(item(1, **changes)), source("http://a"), Path("a.jpg"))
    assert isinstance(photo, Photo)
    assert {key: getattr(photo, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("changed", "plan", "reason"),
    [
        (item(1) | {"geometry": None}, {}, "no position"),
        (item(1) | {"collection": "../.."}, {}, "it belongs to no sequence"),
        (item(1, **lens(field_of_view=220)), {}, "field of view 220 degrees"),
        (item(1, datetime=None, datetimetz=None), {"last": date(2023, 1, 1)}, "it has no time"),
    ],
)
def test_why_an_item_is_left_out(changed, plan, reason):
    left = photo_of(entry_of(changed), source("http://a", **plan), Path("a.jpg"))
    assert isinstance(left, Skipped) and reason in left.reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NUMBERS = st.floats() | st.integers() | st.sampled_from([0, -1, 1e300, "1", None, 360, 180.0])
TIMES = st.datetimes().map(str) | st.sampled_from(["9999-12-31T23:59:59-23:59", "1970-01-01T00Z"])
ITEMS = st.fixed_dictionaries(
    {"id": st.uuids().map(str) | JSON},
    optional={
        "collection": st.uuids().map(str) | JSON,
        "geometry": st.fixed_dictionaries({"coordinates": st.lists(NUMBERS, max_size=3) | JSON}),
        "properties": JSON
        | st.fixed_dictionaries(
            {},
            optional={key: TIMES | NUMBERS | JSON for key in FACTS}
            | {
                "pers:interior_orientation": st.fixed_dictionaries(
                    {}, optional={key: NUMBERS | st.lists(NUMBERS, max_size=4) for key in LENS}
                )
                | JSON
            },
        ),
        "assets": st.dictionaries(
            st.sampled_from(["sd", "hd"]), st.fixed_dictionaries({"href": JSON})
        ),
        "providers": st.lists(st.fixed_dictionaries({"roles": JSON, "name": JSON}), max_size=2),
    },
)


@given(JSON | ITEMS)
def test_whatever_an_item_is_a_photo_or_a_reason_comes_out(anything):
    try:
        entry = entry_of(anything, "http://a/api/search")
    except PhotoError:
        return
    found = photo_of(entry, source("http://a"), Path("a.jpg"))
    if isinstance(found, Photo):
        check_photo(found, Path("a"))
        json.dumps(entry.facts)
        found.id.encode(), found.creator.encode(), found.licence.encode()
    else:
        assert isinstance(found, Skipped) and found.reason
    assert panoramax._picture_address(entry.facts, ("sd", "hd")) != ""


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_a_body_is_it_is_told_what_is_wrong(body):
    assert _page_fault("text/html", body) is None or "answers" in _page_fault("text/html", body)


# 2. which photos


def far(number: int) -> dict:
    """A photo whose picture is not asked for."""
    place = WEST + 0.002 * ((number * 7919) % 1000) / 1000, SOUTH + 0.002 * (number % 31) / 31
    return item(number, *place, **lens(field_of_view=200))


def test_a_full_answer_is_no_whole_one_and_its_box_is_quartered(tmp_path):
    items = [far(i) for i in range(LIMIT + 200)]
    with serving(MadeUp(items)) as server:
        found = read(server, tmp_path)
        assert len(asked_for(server, "/api/search")) > 4
    assert len({skipped.path for skipped in found}) == len(found) == len(items)


def test_pages_are_followed(tmp_path):
    items = [far(i) for i in range(700)]
    with serving(MadeUp(items, paged=100)) as server:
        found = read(server, tmp_path)
        assert len(asked_for(server, "/api/search")) == 7
    assert len({skipped.path for skipped in found}) == len(found) == len(items)


def test_pages_without_end_are_not_followed(tmp_path):
    def turning(asked):
        shown = {"features": [item(1)], "links": [{"rel": "next", "href": asked.path}]}
        return Answer(json.dumps(shown).encode())

    with serving(MadeUp([], faults={"/api/search": turning})) as server:
        assert len(read(server, tmp_path)) == 1
        assert len(server.asked) == 2 + 1


def test_a_server_that_tells_of_more_is_asked_for_less(tmp_path):
    def told(asked):
        west, _, east, _ = map(float, parse_qs(urlsplit(asked.path).query)["bbox"][0].split(","))
        if east - west < 0.03:
            return None
        return Answer(json.dumps({"features": [item(1)], "numberMatched": 9}).encode())

    items = [far(i) for i in range(9)]
    with serving(MadeUp(items, faults={"/api/search": told})) as server:
        assert len(read(server, tmp_path)) == 9


def test_only_photos_in_the_region_and_its_days_are_taken(tmp_path):
    items = [
        item(1),
        item(2, WEST + 0.0021),
        item(3, datetime="2022-05-02T10:00:00Z", datetimetz=None),
        item(4, datetime="2022-04-30T23:59:59Z", datetimetz=None),
    ]
    with serving(MadeUp(items)) as server:
        (photo,) = read(server, tmp_path, first=date(2022, 5, 1), last=date(2022, 5, 1))
        assert photo.id == f"panoramax/{name(1)}"
        assert "datetime=2022-05-01T00:00:00Z/2022-05-01T23:59:59.999Z" in server.asked[0].path
        assert len(read(server, tmp_path / "until", last=date(2022, 5, 1))) == 2
        assert "datetime=../2022-05-01" in server.asked[-3].path
        assert len(read(server, tmp_path)) == 3


@pytest.mark.parametrize(
    ("root", "changes", "ground", "told"),
    [
        ("/api", {}, None, "needs a region"),
        ("/api", {}, shapely.box(1, 1, 1.001, 1.001), "no photo in the region"),
        ("/api", {"most": 2}, GROUND, "more than 2 photos in the region"),
        ("/elsewhere", {}, GROUND, "is not there; check 'url'"),
        ("/refusing", {}, GROUND, "answers 400; check 'url'"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path, root, changes, ground, told):
    faults = {
        "/elsewhere/search": lambda asked: Answer(b"", 404),
        "/refusing/search": lambda asked: Answer(b"", 400),
    }
    with serving(MadeUp([item(i) for i in range(3)], faults=faults)) as server:
        plan = source(server.address + root, **changes)
        with pytest.raises(PhotoError, match=told) as raised:
            list(read_panoramax(plan, Task(tmp_path, ground, 1)))
        assert not asked_for(server, "/sd/")
    assert "\n" not in str(raised.value)


# 3. what goes wrong on networks


def test_faults_that_pass_are_asked_for_again(tmp_path):
    faults = [
        Answer(b"<html>busy</html>", kind="text/html", headers=AGAIN),
        Answer(jpeg(1), kind="image/jpeg", cut=200),
        Answer(jpeg(2)[:-200], kind="image/jpeg"),
        Answer(b"", 429, headers=AGAIN),
        Answer(b"", 503, headers=AGAIN),
    ]

    def once(fault):
        return lambda asked: fault if asked.number == 1 else None

    answers = {f"/sd/{i}.jpg": once(fault) for i, fault in enumerate(faults)}
    answers["/api/search"] = once(faults[0])
    with serving(MadeUp([item(i) for i in range(len(faults))], faults=answers)) as server:
        found = read(server, tmp_path, at_once=8)
        assert len(asked_for(server, "/sd/")) == 2 * len(faults)
    kept = {photo.id: photo.path.read_bytes() for photo in found}
    assert kept == {f"panoramax/{name(i)}": jpeg(i) for i in range(len(faults))}


def test_pictures_that_are_gone_are_left_out(tmp_path):
    bare = item(4) | {"assets": {"sd": {"href": "ftp://a/b.jpg"}}}
    faults = {
        "/sd/1.jpg": lambda asked: Answer(b"", 404),
        "/sd/2.jpg": lambda asked: Answer(b"", 403),
    }
    with serving(MadeUp([item(1), item(2), item(3), bare], faults=faults)) as server:
        found = read(server, tmp_path)
    reasons = {f.path: f.reason for f in found if isinstance(f, Skipped)}
    gone = "its picture is no longer served"
    assert reasons == {
        f"panoramax/{name(1)}": gone,
        f"panoramax/{name(2)}": gone,
        f"panoramax/{name(4)}": "the server names no picture of it",
    }


def test_a_fault_that_stays_is_an_error_and_what_came_is_kept(tmp_path):
    api = MadeUp([item(i) for i in range(4)], faults={"/sd/2.jpg": lambda a: Answer(b"<html>")})
    with serving(api) as server:
        with pytest.raises(PhotoError, match="1 of 4 photos did not come .*run the same command"):
            read(server, tmp_path, retries=0)
        api.faults.clear()
        before = len(server.asked)
        assert len(read(server, tmp_path, retries=0)) == 4
        assert len(server.asked) == before + 1, "only what is missing is asked for"


def test_without_a_network_the_error_comes_at_once(tmp_path):
    """No box is quartered and nothing is waited for where no request got through."""
    with serving(MadeUp([])) as server:
        pass
    begun = time.monotonic()
    with pytest.raises(PhotoError, match="/search in .*: cannot be reached: .*check the address"):
        read(server, tmp_path, retries=5)
    assert time.monotonic() - begun < 5


def test_small_pictures_are_thumbnails(tmp_path):
    with serving(MadeUp([item(1)])) as server:
        read(server, tmp_path, thumb_px=256)
        assert asked_for(server, "/thumb/") and not asked_for(server, "/sd/")


READ = """
import sys
from pathlib import Path
import shapely
from data_prep.photos.panoramax import read_panoramax
from data_prep.photos.reading import Task
from zoomloc.config.photos import PanoramaxPhotos
source = PanoramaxPhotos(kind="panoramax", url=sys.argv[1], rate_per_s=float(sys.argv[3]))
ground = shapely.box(*map(float, sys.argv[4:]))
for found in read_panoramax(source, Task(Path(sys.argv[2]), ground, 1)):
    print(found.id, found.captured_at, found.path.stat().st_size)
"""


def test_a_killed_download_goes_on_where_it_ended(tmp_path):
    with serving(MadeUp([item(i) for i in range(40)])) as server:
        bounds = [str(v) for v in GROUND.bounds]
        begin = [sys.executable, "-c", READ, f"{server.address}/api", str(tmp_path)]
        process = subprocess.Popen([*begin, "20", *bounds])
        while len(asked_for(server, "/sd/")) < 25:
            assert process.poll() is None
        process.kill()
        process.wait()
        ended = subprocess.run([*begin, "200", *bounds], capture_output=True, check=True)
        assert len({*ended.stdout.splitlines()}) == 40
        assert len(asked_for(server, "/sd/")) < 40 + 30
    assert len(list((tmp_path / "photos").rglob("*.*"))) == 40
