"""Mapillary's API on loopback: its recorded photos, its errors, and kills at any instant.

Recorded by JOSM's plugin, see SOURCE.md beside them: image entities and two error answers. Made up
after the documentation (https://www.mapillary.com/developer/api-documentation) and what other
clients met: the box search, the query timeout, expired pictures, and all entities of ``entity``.
"""

import io
import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from loopback import Answer, Server, serving
from PIL import Image

from data_prep.photos.asked import Box, Wanted
from data_prep.photos.downloads import STORE_NAME
from data_prep.photos.mapillary import FIELDS, LIMIT, Mapillary, entry_of, photo_of, read_mapillary
from data_prep.photos.reading import Task
from zoomloc.config.photos import MapillaryPhotos
from zoomloc.errors import OutputError, PhotoError
from zoomloc.world.photos import Photo, Skipped, check_photo

TOKEN = "MLY|4711|s3cr3t-0817"
QUICK = {"rate_per_s": 200.0, "retries": 1}
WEST, SOUTH = 8.5405, 47.3705
GROUND = shapely.box(WEST, SOUTH, WEST + 0.002, SOUTH + 0.002)
AGAIN = {"Retry-After": "0"}
TIMEOUT = {  # as met by AmericanRedCross/street-view-green-view, pull request 18
    "message": "Timeout", "type": "OAuthException", "code": -2, "error_subcode": 3404014,
    "is_transient": False, "error_user_title": "Query Timeout",
}  # fmt: skip


@pytest.fixture(autouse=True)
def token(monkeypatch):
    monkeypatch.setenv("MAPILLARY_TOKEN", TOKEN)


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 32, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def entity(number: int, lng: float = WEST + 0.001, lat: float = SOUTH + 0.001, **changes) -> dict:
    place = {"type": "Point", "coordinates": [lng, lat]}
    return {
        "id": f"{1000 + number}",
        "sequence": f"drive{number % 3}",
        "captured_at": 1_600_000_000_000 + 1000 * number,
        "geometry": place,
        "computed_geometry": place,
        "compass_angle": 10.0,
        "computed_compass_angle": 20.0,
        "camera_type": "perspective",
        "camera_parameters": [0.85, 0.0, 0.0],
        "width": 4000,
        "height": 3000,
        "creator": {"username": "vorpalblade", "id": "104214208486349"},
    } | changes


def apart(number: int, lng: float, lat: float) -> dict:
    """A photo whose picture is not asked for."""
    far = {"type": "Point", "coordinates": [lng + 0.001, lat]}
    return entity(number, lng, lat, geometry=far)


def error(status: int, said: dict | None = None) -> Answer:
    body = json.dumps({"error": said}).encode() if said else b"<html>"
    return Answer(body, status, "application/json" if said else "text/html", headers=AGAIN)


@dataclass
class MadeUp:
    """The API after its documentation; ``faults`` maps a path to what is answered in its place."""

    entities: list[dict]
    pictures: str = ""  # another server's address
    faults: dict = field(default_factory=dict)
    address: str = ""

    def __call__(self, asked) -> Answer:
        parts = urlsplit(asked.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        fault = self.faults.get(parts.path)
        answer = fault(asked) if fault else None
        if answer is not None:
            return answer
        if parts.path.startswith("/thumb/"):
            return Answer(jpeg(int(parts.path.split("/")[-1])), kind="image/jpeg")
        if asked.headers.get("authorization") != f"OAuth {TOKEN}":
            return error(401, {"message": "no token", "code": 190})
        if parts.path == "/images":
            return self._search(query)
        return self._one(parts.path.strip("/"), query["fields"].split(","))

    def _search(self, query: dict) -> Answer:
        west, south, east, north = map(float, query["bbox"].split(","))
        if (east - west) * (north - south) >= 0.01 or int(query["limit"]) > LIMIT:
            return Answer(b'{"error": {"code": 100}}', 400)
        found = [e for e in self.entities if self._within(e, west, south, east, north, query)]
        names = query["fields"].split(",")
        shown = [{n: e[n] for n in names if n in e} for e in found[: int(query["limit"])]]
        return Answer(json.dumps({"data": shown}).encode(), kind="application/json")

    @staticmethod
    def _within(e: dict, west, south, east, north, query: dict) -> bool:
        lng, lat = e["computed_geometry"]["coordinates"]
        when = datetime.fromtimestamp(e["captured_at"] / 1000, UTC)
        first = datetime.fromisoformat(query.get("start_captured_at", "1970-01-01T00:00:00Z"))
        last = datetime.fromisoformat(query.get("end_captured_at", "2100-01-01T00:00:00Z"))
        return west <= lng <= east and south <= lat <= north and first <= when <= last

    def _one(self, photo_id: str, names: list[str]) -> Answer:
        found = next((e for e in self.entities if e["id"] == photo_id), None)
        if found is None:
            return Answer(b'{"error": {"code": 100, "message": "does not exist"}}', 400)
        thumbs = {n: f"{self.pictures or self.address}/thumb/{photo_id}" for n in names}
        shown = found | {n: url for n, url in thumbs.items() if n.startswith("thumb_")}
        body = json.dumps({n: shown[n] for n in names if n in shown})
        return Answer(body.encode(), kind="application/json")


@contextmanager
def served(api: MadeUp) -> Iterator[Server]:
    with serving(api) as server:
        api.address = server.address
        yield server


def source(url: str, **changes) -> MapillaryPhotos:
    return MapillaryPhotos(kind="mapillary", url=url, **QUICK | changes)


def read(server: Server, out: Path, ground=GROUND, **changes) -> list[Photo | Skipped]:
    return list(read_mapillary(source(server.address, **changes), Task(out, ground, 1)))


def box_of(asked) -> tuple[float, ...]:
    return tuple(map(float, parse_qs(urlsplit(asked.path).query)["bbox"][0].split(",")))


def boxes_in(server: Server) -> list[tuple[float, ...]]:
    return [box_of(asked) for asked in server.asked if "/images?" in asked.path]


def paths_in(server: Server, start: str) -> list[str]:
    return [a.path for a in server.asked if a.path.startswith(start)]


# 1. what it says


def test_recorded_photos_become_rows_with_their_pictures(real_data, tmp_path):
    folder = real_data / "josm-mapillary-api" / "graph"
    found = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    recorded = [e for e in found if "computed_geometry" in e]
    assert len(recorded) == 6
    with served(MadeUp(recorded)) as server:
        photos = read(server, tmp_path, shapely.box(-108.572, 39.064, -108.569, 39.071))
    assert [p.captured_at for p in photos] == sorted(p.captured_at for p in photos)
    one = next(p for p in photos if p.id == "mapillary/311799370533334")
    assert (one.lng, one.lat) == (-108.57079091664, 39.065986975316)
    assert one.bearing_deg == pytest.approx(0.77063365)
    width = math.degrees(2 * math.atan(1 / (2 * 0.84445215999653)))
    assert one.fov_deg == pytest.approx(width) == pytest.approx(61.26, abs=0.01)
    assert one.captured_at == datetime(2019, 7, 21, 14, 57, 31, 100_000, UTC)
    assert one.sequence_id == "mapillary/7nfcwfvjdtphz7yj6zat6a"
    assert (one.projection, one.source, one.licence) == ("perspective", "mapillary", "CC-BY-SA-4.0")
    assert one.path == tmp_path / "photos/mapillary/7nfcwfvjdtphz7yj6zat6a/311799370533334.jpg"
    assert one.path.read_bytes() == jpeg(311799370533334)
    assert len({p.id for p in photos}) == len(photos) == 6


@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_the_recorded_answer_to_a_wrong_token_is_told_in_one_line(real_data, tmp_path, status):
    folder = real_data / "josm-mapillary-api" / "graph"
    body = (folder / "internal_server_error.json").read_bytes()  # code 190
    with served(MadeUp([], faults={"/images": lambda asked: Answer(body, status)})) as server:
        with pytest.raises(PhotoError, match=r"refuses the token \(error 190\).*MAPILLARY_TOKEN"):
            read(server, tmp_path)
        assert len(server.asked) == 1, "it is not asked again"


@pytest.mark.parametrize("status", [400, 403, 429])
def test_the_recorded_answer_to_too_many_requests_is_waited_for(real_data, tmp_path, status):
    folder = real_data / "josm-mapillary-api" / "graph"
    body = (folder / "application_request_limit_reached.json").read_bytes()

    def busy(asked):
        return Answer(body, status, headers=AGAIN) if asked.number == 1 else None

    with served(MadeUp([entity(1)], faults={"/images": busy, "/1001": busy})) as server:
        assert len(read(server, tmp_path)) == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"bearing_deg": 20.0, "creator": "vorpalblade", "position_error_m": 5.0}),
        ({"computed_compass_angle": None}, {"bearing_deg": 10.0}),
        ({"computed_compass_angle": 360.0}, {"bearing_deg": 0.0}),
        ({"computed_compass_angle": -5, "compass_angle": "x"}, {"bearing_deg": None}),
        ({"computed_geometry": None}, {"lat": SOUTH + 0.001}),
        ({"camera_type": "spherical"}, {"projection": "equirectangular", "fov_deg": 360.0}),
        ({"camera_type": "equirectangular"}, {"projection": "equirectangular"}),
        ({"camera_type": None, "is_pano": True}, {"projection": "equirectangular"}),
        ({"camera_type": "fisheye"}, {"projection": "fisheye", "fov_deg": None}),
        ({"width": 3000, "height": 4000}, {"fov_deg": math.degrees(2 * math.atan(0.75 / 1.7))}),
        ({"camera_parameters": [0.0]}, {"fov_deg": None}),
        ({"camera_parameters": None}, {"fov_deg": None}),
        ({"creator": None}, {"creator": ""}),
        ({"captured_at": 1e30}, {"captured_at": None}),
    ],
)
def test_what_an_entity_says(changes, expected):
    photo = photo_of(entry_of(entity(1, **changes)), source("http://a"), Path("a.jpg"))
    assert isinstance(photo, Photo)
    assert {name: getattr(photo, name) for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "plan", "reason"),
    [
        ({"geometry": None, "computed_geometry": None}, {}, "no position"),
        ({"sequence": "../../etc"}, {}, "it belongs to no sequence"),
        ({"camera_type": "brown"}, {}, "camera type brown is not known"),
        ({"captured_at": None}, {"first": date(2020, 1, 1)}, "it has no time"),
        (
            {"geometry": {"coordinates": [WEST + 0.001, SOUTH + 0.0011]}},
            {},
            "computed position lies 12 m from the reported one",
        ),
    ],
)
def test_why_an_entity_is_left_out(changes, plan, reason):
    entry = entry_of(entity(1, **changes))
    left = photo_of(entry, source("http://a", **plan), Path("a.jpg"))
    assert isinstance(left, Skipped) and left.path == "mapillary/1001" and reason in left.reason
    lenient = source("http://a", most_apart_m=20.0, **plan)
    assert isinstance(photo_of(entry, lenient, Path("a")), Photo) == ("computed" in reason)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NUMBERS = st.floats() | st.integers() | st.sampled_from([0, -1, 1e300, "1", None, 360, 180.0])
POINTS = st.fixed_dictionaries({"coordinates": st.lists(NUMBERS, max_size=3) | JSON}) | JSON
ENTITIES = st.fixed_dictionaries(
    {"id": st.from_regex(r"\A[0-9]{1,20}\Z") | JSON},
    optional={
        name: POINTS if "geometry" in name
        else st.lists(NUMBERS, max_size=3) | JSON if name == "camera_parameters"
        else st.sampled_from(["perspective", "fisheye", "spherical"]) | JSON
        if name == "camera_type"
        else st.from_regex(r"\A[a-zA-Z0-9_-]{1,22}\Z") | JSON if name == "sequence"
        else NUMBERS | JSON
        for name in FIELDS if name != "id"
    },
)  # fmt: skip


@given(JSON | ENTITIES)
def test_whatever_an_entity_is_a_photo_or_a_reason_comes_out(anything):
    try:
        found = photo_of(entry_of(anything), source("http://a"), Path("a.jpg"))
    except PhotoError:
        return
    if isinstance(found, Photo):
        check_photo(found, Path("a"))
        json.dumps(entry_of(anything).facts)
        found.id.encode(), found.creator.encode(), found.sequence_id.encode()
    else:
        assert isinstance(found, Skipped) and found.reason


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_a_body_is_it_is_told_what_is_wrong(body):
    api = Mapillary(source("http://a"), None, None)
    for check in (api._fault, api._list_fault):
        try:
            assert check("text/html", body) is None or "answers" in check("text/html", body)
        except PhotoError as told:
            assert "token" in str(told)


# 2. which photos


def test_full_boxes_are_quartered_and_each_photo_comes_once(tmp_path):
    rng = random.Random(1)
    many = [
        apart(i, WEST + rng.uniform(0, 0.002), SOUTH + rng.uniform(0, 0.002)) for i in range(1300)
    ]
    inner = Box(0.008, 2, *[int(v / 0.002) for v in (180 + WEST + 0.001, 90 + SOUTH + 0.001)])
    edge = entity(1300, inner.bounds[2], SOUTH + 0.001)  # on the edge of two boxes
    with served(MadeUp([*many, edge])) as server:
        found = read(server, tmp_path, shapely.box(WEST, SOUTH, WEST + 0.01, SOUTH + 0.002))
        boxes = boxes_in(server)
    assert len(found) == 1301 and len({f.id if hasattr(f, "id") else f.path for f in found}) == 1301
    assert sum(isinstance(f, Photo) for f in found) == 1
    assert len(boxes) > 6 and len(set(boxes)) == len(boxes)
    assert all(east - west < 0.01 and north - south < 0.01 for west, south, east, north in boxes)
    assert len({round(east - west, 6) for west, _, east, _ in boxes}) >= 3


def test_boxes_that_time_out_are_asked_again_then_quartered(tmp_path):
    def slow(asked):
        west, _, east, _ = box_of(asked)
        return error(400, TIMEOUT) if east - west > 0.005 else None

    with served(MadeUp([entity(i) for i in range(3)], faults={"/images": slow})) as server:
        assert len(read(server, tmp_path)) == 3
        boxes = boxes_in(server)
    wide = [b for b in boxes if b[2] - b[0] > 0.005]
    assert len(wide) == 2 * len(set(wide)) and len(boxes) > len(wide)


def test_only_photos_in_the_region_and_its_days_are_taken(tmp_path):
    ground = shapely.Polygon([(WEST, SOUTH), (WEST + 0.002, SOUTH), (WEST, SOUTH + 0.002)])
    day_ms = 86_400_000
    noon = 18_628 * day_ms + day_ms // 2  # 2021-01-01
    entities = [
        entity(0, WEST + 0.0005, SOUTH + 0.0005, captured_at=noon),
        entity(1, WEST + 0.0019, SOUTH + 0.0019, captured_at=noon),
        entity(2, WEST + 0.0005, SOUTH + 0.0005, captured_at=noon - day_ms),
        entity(3, WEST + 0.0005, SOUTH + 0.0005, captured_at=noon + day_ms),
    ]
    with served(MadeUp(entities)) as server:
        found = read(server, tmp_path, ground, first=date(2021, 1, 1), last=date(2021, 1, 1))
        assert [photo.id for photo in found] == ["mapillary/1000"]
        assert "start_captured_at=2021-01-01T00:00:00Z" in server.asked[0].path
        assert [p.id for p in read(server, tmp_path, ground)] == [
            "mapillary/1000", "mapillary/1003", "mapillary/1002",
        ]  # fmt: skip


def test_a_region_across_180_degrees(tmp_path):
    entities = [entity(1, 179.9995, 10.0005), entity(2, -179.9995, 10.0005)]
    with served(MadeUp(entities)) as server:
        found = read(server, tmp_path, shapely.box(179.999, 10, 180.001, 10.001))
        assert {photo.lng for photo in found} == {179.9995, -179.9995}
        assert all(-180 <= west < east <= 180 for west, _, east, _ in boxes_in(server))


def test_all_ground_is_in_some_box():
    wanted = Wanted.of(GROUND, source("http://a"))
    boxes = [part for box in wanted.boxes(0.008) for part in box.quarters()]
    assert shapely.union_all([shapely.box(*b.bounds) for b in boxes]).contains(GROUND)


@pytest.mark.parametrize(
    ("changes", "ground", "told"),
    [
        ({}, None, "needs a region"),
        ({}, shapely.box(1, 1, 1.001, 1.001), "no photo in the region"),
        ({"first": date(2100, 1, 1)}, GROUND, "no photo in the region from 2100-01-01"),
        ({"most": 2}, GROUND, "more than 2 photos in the region"),
        ({}, shapely.box(0, 0, 100, 60), "too large"),
        ({}, shapely.Polygon(), "the region is empty"),
        ({"token": TOKEN}, GROUND, "must name an environment variable"),
        ({"token": "${NO_SUCH_TOKEN}"}, GROUND, "set the environment variable NO_SUCH_TOKEN"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path, changes, ground, told):
    with served(MadeUp([entity(i) for i in range(3)])) as server:
        with pytest.raises(PhotoError, match=told) as raised:
            read(server, tmp_path, ground, **changes)
        assert not paths_in(server, "/thumb")
    assert "\n" not in str(raised.value) and TOKEN not in str(raised.value)


# 3. what goes wrong on networks


def test_faults_that_pass_are_asked_for_again(tmp_path):
    html = Answer(b"<html>busy</html>", kind="text/html", headers=AGAIN)
    whole = jpeg(1000)
    faults = [
        html,
        Answer(whole, kind="image/jpeg", cut=200),
        Answer(whole[:-200], kind="image/jpeg"),
        Answer(b"", 429, headers=AGAIN),
        Answer(b"", 503, headers=AGAIN),
        Answer(whole, kind="image/jpeg", drip_s=0.2),
        Answer(b"", kind="image/jpeg"),
    ]

    def once(fault):
        return lambda asked: fault if asked.number == 1 else None

    answers = {f"/thumb/{1000 + i}": once(fault) for i, fault in enumerate(faults)}
    answers |= {"/1000": once(html), "/images": once(html)}
    with served(MadeUp([entity(i) for i in range(len(faults))], faults=answers)) as server:
        found = read(server, tmp_path, timeout_s=1.0, at_once=8)
        assert len(paths_in(server, "/thumb")) == 2 * len(faults)
    assert [photo.path.read_bytes() for photo in sorted(found, key=lambda p: p.id)] == [
        jpeg(1000 + i) for i in range(len(faults))
    ]


def test_pictures_that_are_gone_are_asked_for_anew_then_left_out(tmp_path):
    def expired(asked):
        return Answer(b"URL signature expired", 403) if asked.number == 1 else None

    def gone(asked):
        return Answer(b"", 404)

    unreadable = b"\xff\xd8\xff\xe0\0\0" + b"\xff\xd9"
    faults = {
        "/thumb/1000": expired,
        "/thumb/1001": gone,
        "/1002": gone,
        "/1003": lambda asked: Answer(b'{"error": {"code": 100}}', 400),
        "/1004": lambda asked: Answer(b'{"id": "1004", "thumb_1024_url": "a_filler_url"}'),
        "/thumb/1005": lambda asked: Answer(unreadable, kind="image/jpeg"),
    }
    with served(MadeUp([entity(i) for i in range(6)], faults=faults)) as server:
        found = read(server, tmp_path)
        assert len(paths_in(server, "/1000")) == len(paths_in(server, "/1001")) == 2
        before = len(server.asked)
        assert read(server, tmp_path) == found
        assert len(server.asked) == before, "what is known is not asked for again"
    (photo,) = [f for f in found if isinstance(f, Photo)]
    assert photo.id == "mapillary/1000" and photo.path.read_bytes() == jpeg(1000)
    reasons = {f.path.split("/")[1]: f.reason for f in found if isinstance(f, Skipped)}
    assert reasons["1001"] == "its picture is no longer served"
    assert reasons["1002"] == reasons["1003"] == "the server no longer has it"
    assert "names no picture" in reasons["1004"] and "cannot be read" in reasons["1005"]


@pytest.mark.parametrize("fault", ["html", "500", "520", "cut"])
def test_a_fault_that_stays_is_an_error_and_what_came_is_kept(tmp_path, fault):
    answers = {
        "html": Answer(b"<html>", kind="text/html"),
        "500": Answer(b"", 500),
        "520": Answer(b"", 520),
        "cut": Answer(jpeg(1), kind="image/jpeg", cut=100),
    }
    api = MadeUp([entity(i) for i in range(4)], faults={"/thumb/1002": lambda a: answers[fault]})
    with served(api) as server:
        with pytest.raises(PhotoError, match="1 of 4 photos did not come .*run the same command"):
            read(server, tmp_path, retries=0)
        assert len(list((tmp_path / "photos").rglob("*.*"))) == 3
        api.faults.clear()
        before = len(server.asked)
        assert len(read(server, tmp_path, retries=0)) == 4
        assert len(server.asked) == before + 2, "only what is missing is asked for"


def test_a_token_that_expires_halfway_is_told_and_what_came_is_kept(tmp_path):
    def expires(asked):
        return error(401, {"code": 190}) if broken else None

    broken = True
    entities = [entity(i) for i in range(30)]
    with served(MadeUp(entities, faults={"/1029": expires})) as server:
        with pytest.raises(PhotoError, match="refuses the token"):
            read(server, tmp_path)
        broken, came = False, len(list((tmp_path / "photos").rglob("*.jpg")))
        assert came
        before = len(paths_in(server, "/thumb"))
        assert len(read(server, tmp_path)) == 30
        assert len(paths_in(server, "/thumb")) <= before + 30 - came


def test_a_server_that_is_gone_is_given_up(tmp_path):
    with served(MadeUp([entity(1)])) as server:
        pass
    with pytest.raises(PhotoError, match="cannot be reached: it takes no connection"):
        read(server, tmp_path, retries=0)


def test_a_host_of_pictures_that_is_gone_is_given_up(tmp_path):
    with served(MadeUp([])) as pictures:
        pass
    with served(MadeUp([entity(i) for i in range(60)], pictures=pictures.address)) as server:
        with pytest.raises(PhotoError, match="60 of 60 photos did not come"):
            read(server, tmp_path, retries=0)
        assert len([a for a in server.asked if "thumb_1024" in a.path]) < 40


def test_names_that_would_leave_the_folder_are_no_photos(tmp_path):
    with served(MadeUp([entity(1, id="../../../up")])) as server:
        with pytest.raises(PhotoError, match="no list of photos"):
            read(server, tmp_path, retries=0)
    assert {p.name for p in tmp_path.iterdir()} == {STORE_NAME}


# 4. the token


def test_the_token_reaches_the_api_and_nothing_else(tmp_path, capfd):
    def moved(asked):  # to another server, which must not be told
        return Answer(b"", 302, headers={"Location": f"{pictures.address}/elsewhere"})

    with served(MadeUp([])) as pictures:
        api = MadeUp([entity(i) for i in range(3)], pictures=pictures.address)
        with served(api) as server:
            api.faults = {"/1002": moved}
            with pytest.raises(PhotoError) as told:
                read(server, tmp_path, retries=0)
            api.faults = {}
            assert len(read(server, tmp_path)) == 3
            asked = [*server.asked, *pictures.asked]
            assert all(a.headers["authorization"] == f"OAuth {TOKEN}" for a in server.asked)
            assert all("authorization" not in a.headers for a in pictures.asked)
            assert pictures.asked and not any("MLY" in a.path or "s3cr3t" in a.path for a in asked)
    printed = capfd.readouterr()
    assert "s3cr3t" not in printed.out + printed.err + str(told.value)
    chain, error = [], told.value
    while error is not None:
        chain.append(f"{error!r}")
        error = error.__cause__ or error.__context__
    assert "s3cr3t" not in "".join(chain)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"s3cr3t" not in file.read_bytes()


@pytest.mark.parametrize("value", ["s3cr3t\n", "s3cr3t two", "s3cr3t\u00e9"])
def test_what_can_be_no_token_is_told_without_telling_it(tmp_path, monkeypatch, value):
    monkeypatch.setenv("MAPILLARY_TOKEN", value)
    with served(MadeUp([entity(1)])) as server:
        with pytest.raises(PhotoError, match="is no token") as told:
            read(server, tmp_path)
        assert not server.asked and "s3cr3t" not in str(told.value)


# 5. again, at once, and killed


def test_a_finished_download_asks_nothing_again_and_another_size_does(tmp_path):
    with served(MadeUp([entity(i) for i in range(3)])) as server:
        found = read(server, tmp_path)
        before = len(server.asked)
        assert read(server, tmp_path) == found and len(server.asked) == before
        found[0].path.unlink()
        assert read(server, tmp_path) == found and len(server.asked) == before + 2
        read(server, tmp_path, thumb_px=256)
        assert len(server.asked) == before + 2 + 6
        assert sum("thumb_256_url" in asked.path for asked in server.asked) == 3


def test_two_runs_at_once_are_refused(tmp_path):
    with served(MadeUp([entity(i) for i in range(3)])) as server:
        first = read_mapillary(source(server.address), Task(tmp_path, GROUND, 1))
        next(first)
        with pytest.raises(OutputError, match="another run fetches photos"):
            read(server, tmp_path)
        first.close()
        assert len(read(server, tmp_path)) == 3


def test_progress_is_told(tmp_path):
    told = []
    with served(MadeUp([entity(i) for i in range(5)])) as server:
        task = Task(tmp_path, GROUND, 1, lambda done, total: told.append((done, total)))
        list(read_mapillary(source(server.address), task))
    assert told == [(i, 5) for i in range(1, 6)]


READ = """
import sys
from pathlib import Path
import shapely
from data_prep.photos.mapillary import read_mapillary
from data_prep.photos.reading import Task
from zoomloc.config.photos import MapillaryPhotos
url, out, rate, *bounds = sys.argv[1:]
source = MapillaryPhotos(kind="mapillary", url=url, rate_per_s=float(rate), retries=1)
ground = shapely.box(*map(float, bounds))
for found in read_mapillary(source, Task(Path(out), ground, 1)):
    print(repr(found).replace(out, "OUT"))
"""


def listing(out: Path) -> dict[str, bytes]:
    files = [path for path in (out / "photos").rglob("*") if path.is_file()]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def killed_and_resumed(folder: Path, photos: int, kills: int, seed: int, rate: float) -> int:
    """Read again and again, killed at random instants, until killed so often; how many ends.

    Each end has the rows and files of an uninterrupted run.
    """
    rng = random.Random(seed)
    spread = [(WEST + 0.01 * rng.random(), SOUTH + 0.01 * rng.random()) for _ in range(photos)]
    entities = [entity(i, *place) for i, place in enumerate(spread)]
    bounds = [str(v) for v in (WEST, SOUTH, WEST + 0.01, SOUTH + 0.01)]
    with served(MadeUp(entities)) as server:
        begin = [sys.executable, "-c", READ, server.address]
        whole = subprocess.run([*begin, str(folder / "whole"), "200", *bounds], capture_output=True)
        assert whole.returncode == 0 and whole.stdout.count(b"\n") == photos
        expected, ends, killed = listing(folder / "whole"), 0, 0
        while killed < kills or not ends:
            out, before, mine = folder / f"run{ends}", len(paths_in(server, "/thumb")), 0
            while True:
                asked = len(server.asked)
                pace = str(rate if killed < kills else 200.0)
                command = [*begin, str(out), pace, *bounds]
                with (folder / "told.txt").open("wb") as told:  # a pipe would fill up unread
                    process = subprocess.Popen(command, stdout=told, stderr=subprocess.STDOUT)
                while len(server.asked) == asked and process.poll() is None:
                    time.sleep(0.005)  # until Python has started
                if killed < kills:
                    time.sleep(rng.uniform(0, 0.4 * photos / rate))
                    if process.poll() is None:
                        process.kill()
                        killed, mine = killed + 1, mine + 1
                        process.wait()
                        continue
                assert process.wait() == 0, (folder / "told.txt").read_text()
                break
            assert (folder / "told.txt").read_bytes() == whole.stdout
            assert listing(out) == expected
            again = len(paths_in(server, "/thumb")) - before - photos
            assert again <= mine * (2 * 4 + 1)
            ends += 1
    return ends


def test_three_kills_of_a_download(tmp_path):
    killed_and_resumed(tmp_path, photos=60, kills=3, seed=1, rate=40.0)


@pytest.mark.soak
def test_fifty_kills_of_downloads(tmp_path):
    ends = killed_and_resumed(tmp_path, photos=200, kills=50, seed=2, rate=100.0)
    sys.stderr.write(f"\n50 kills over {ends} downloads: no loss, no duplicate, no half file\n")
