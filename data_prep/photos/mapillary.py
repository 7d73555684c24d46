"""Mapillary's API v4: what is asked of it, and what its answers mean.

Knows nothing of rows and files. Written after https://www.mapillary.com/developer/api-documentation;
the token goes into a header of requests to the API alone: never into an address, a message or a
file, nor to the servers that hold the pictures.
"""

import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from data_prep.imagery.web import VARIABLE, Manners, NoAnswer, Web, filled
from data_prep.photos.asked import (
    Box,
    Entry,
    bearing,
    file_name,
    number,
    point,
    read_json,
    words,
)
from data_prep.photos.downloads import Left, is_refused, label_of, picture_fault, read_served
from data_prep.photos.reading import Found, Task
from zoomloc.config.photos import MapillaryPhotos
from zoomloc.errors import ConfigError, PhotoError
from zoomloc.world.cells import LatLng, distance_m
from zoomloc.world.photos import Photo, Skipped

NAME, LICENCE = "mapillary", "CC-BY-SA-4.0"
FIELDS = (
    "id", "sequence", "captured_at", "geometry", "computed_geometry", "compass_angle",
    "computed_compass_angle", "camera_type", "camera_parameters", "is_pano", "width", "height",
    "creator",
)  # fmt: skip
LIMIT = 2000  # photos of one answer
SURE = 500  # fewer are all of them; a server that cuts has been seen to give fewer than its limit
PROJECTIONS = {
    "perspective": "perspective",
    "fisheye": "fisheye",
    "spherical": "equirectangular",
    "equirectangular": "equirectangular",
}
TOKEN_CODES = (102, 190)  # error codes of Graph APIs: the token is wrong or has expired
BUSY_CODES = (4, 17, 32, 341, 613)  # too many requests
PASSING_CODES = (-3, -2, -1, 1, 2)  # unknown or query timeout, though told to be "not transient"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_MS = 7_258_118_400_000  # the year 2200: later times are no times


def read_mapillary(source: MapillaryPhotos, task: Task) -> Found:
    """Photos of the region, by sequence, time and id; what has come before is not asked again.

    Raises PhotoError where no region or token is set, the token is refused, nothing or too much
    is found, or some photos did not come.
    """
    header = {"Authorization": f"OAuth {_token(source)}"}
    common = (source.rate_per_s, source.at_once, source.retries, source.timeout_s)
    with Web(Manners(*common, headers=header)) as graph, Web(Manners(*common)) as pictures:
        yield from read_served(Mapillary(source, graph, pictures), task)


def _token(source: MapillaryPhotos) -> str:
    """The name of the token, as ${NAME}; that its value can be a token is seen to here."""
    if not VARIABLE.fullmatch(source.token):
        raise PhotoError(
            "mapillary: 'token' must name an environment variable, as ${MAPILLARY_TOKEN}; "
            "never write the token itself into a config"
        )
    try:
        value = filled(source.token)
    except ConfigError as error:
        raise PhotoError(
            f"mapillary: {error}; make a free one at mapillary.com/dashboard/developers"
        ) from None
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise PhotoError(
            f"mapillary: what {source.token} holds is no token: there is a space, a line break or "
            "a special character in it"
        )
    return source.token


class Mapillary:
    """The API and the servers that hold its pictures."""

    name, side_deg = NAME, 0.008  # under 0.01 degrees square, whichever way that is read

    def __init__(self, plan: MapillaryPhotos, graph: Web, pictures: Web) -> None:
        self.plan, self.url, self.size = plan, plan.url.rstrip("/"), f"{plan.thumb_px}"
        self._root = filled(self.url)
        self._graph, self._pictures = graph, pictures
        self._thumb = f"thumb_{plan.thumb_px}_url"

    def ask(self, box: Box) -> list[Entry] | None:
        """All photos of a box; None where there may be more."""
        asked = {"fields": ",".join(FIELDS), "bbox": box.text, "limit": str(LIMIT)}
        if self.plan.first is not None:
            asked["start_captured_at"] = f"{self.plan.first}T00:00:00Z"
        if self.plan.last is not None:
            asked["end_captured_at"] = f"{self.plan.last}T23:59:59Z"
        address = f"{self._root}/images?{urlencode(asked, safe=',:')}"
        told = f"{self.url}/images in {box.text}"
        body = self._graph.get(address, told, self._list_fault, self._refusal)
        if body is None:
            raise PhotoError(f"{self.url}/images: is not there; check 'url' of the source")
        entities = read_json(body)["data"]
        if box.is_smallest and len(entities) >= LIMIT:
            raise PhotoError(
                f"{told}: {LIMIT:,} photos or more at one place; ask for fewer days (first, last)"
            )
        if not box.is_smallest and len(entities) > SURE:
            return None
        return [entry_of(entity) for entity in entities]

    def picture(self, entry: Entry) -> bytes:
        """The thumbnail; its address expires, so it is asked for right before, twice if need be."""
        for _ in range(2):
            address = self._address(entry)
            try:
                body = self._pictures.get(address, f"{self.url}/{entry.id}, picture", picture_fault)
            except NoAnswer as error:
                if not is_refused(error):
                    raise
                body = None  # refused, as what has expired is
            if body is not None:
                return body
        raise Left("its picture is no longer served")

    def photo(self, entry: Entry, path: Path) -> Photo | Skipped:
        """What the photo table is told."""
        return photo_of(entry, self.plan, path)

    def _address(self, entry: Entry) -> str:
        """Where the thumbnail is for now."""
        address = f"{self._root}/{entry.id}?fields=id,{self._thumb}"
        told = f"{self.url}/{entry.id}"
        try:
            body = self._graph.get(address, told, self._fault, self._refusal)
        except NoAnswer as error:
            if not is_refused(error):
                raise
            body = None
        if body is None:
            raise Left("the server no longer has it")
        thumb = read_json(body).get(self._thumb)
        if not isinstance(thumb, str) or not thumb.startswith(("https://", "http://")):
            raise Left(f"the server names no picture of it ({self._thumb})")
        return thumb

    def _fault(self, kind: str, body: bytes) -> str | None:
        """What is wrong with an answer that should be a JSON object."""
        found = read_json(body)
        if not isinstance(found, dict):
            return (
                f"answers {kind.split(';')[0][:60] or 'something unnamed'} that is no JSON object"
            )
        if "error" in found:
            return self._refusal(200, body) or "answers an error"
        return None

    def _list_fault(self, kind: str, body: bytes) -> str | None:
        """What is wrong with an answer that should be a list of photos."""
        fault = self._fault(kind, body)
        if fault is not None:
            return fault
        found = read_json(body).get("data")
        try:
            for entity in found if isinstance(found, list) else [None]:
                entry_of(entity)
        except PhotoError as error:
            return f"answers no list of photos ({error})"
        return None

    def _refusal(self, status: int, body: bytes) -> str | None:
        """Why it may help to ask again. Raises PhotoError where the token is refused."""
        found = read_json(body)
        error = found.get("error") if isinstance(found, dict) else None
        error = error if isinstance(error, dict) else {}
        code = error.get("code")
        code = code if isinstance(code, int) else None
        passing = (
            code in BUSY_CODES
            or error.get("is_transient") is True
            or status >= 500
            or (status in (200, 400) and (not error or code in PASSING_CODES))
        )
        if status == 401 or code in TOKEN_CODES or (status == 403 and not passing):
            why = status if code is None else f"error {code}"
            raise PhotoError(
                f"{self.url}: refuses the token ({why}); it is wrong or has expired: set "
                f"{self.plan.token} to a valid one, what came is kept"
            )
        return f"answers {status}" + (f" (error {code})" if code else "") if passing else None


# what an entity says


def entry_of(entity: Any) -> Entry:
    """An image entity as it is kept. Raises PhotoError where it has no usable id."""
    photo_id = file_name(entity.get("id")) if isinstance(entity, dict) else None
    if photo_id is None:
        raise PhotoError("a photo without an id")
    facts = {name: entity[name] for name in FIELDS if entity.get(name) is not None}
    place = point(facts.get("computed_geometry")) or point(facts.get("geometry"))
    return Entry(
        photo_id,
        file_name(facts.get("sequence")) or "",
        _taken_ms(facts),
        None if place is None else place.lat,
        None if place is None else place.lng,
        facts,
    )


def photo_of(entry: Entry, plan: MapillaryPhotos, path: Path) -> Photo | Skipped:
    """The photo that an image entity describes, or why it cannot be used."""
    label, facts = label_of(NAME, entry.id), entry.facts
    projection = _projection(facts)
    why = _why_not(entry, plan, projection)
    if why is not None or projection is None or entry.lat is None or entry.lng is None:
        return Skipped(label, why or "no position")
    computed, compass = facts.get("computed_compass_angle"), facts.get("compass_angle")
    heading = bearing(computed)
    creator = facts.get("creator")
    return Photo(
        id=label,
        path=path,
        lat=entry.lat,
        lng=entry.lng,
        bearing_deg=bearing(compass) if heading is None else heading,
        fov_deg=_fov_deg(facts, projection),
        projection=projection,
        captured_at=None if entry.taken_ms is None else _moment(entry.taken_ms),
        sequence_id=label_of(NAME, entry.sequence),
        source=NAME,
        licence=LICENCE,
        creator=words(creator.get("username")) if isinstance(creator, dict) else "",
        position_error_m=plan.default_position_error_m,
    )


def _why_not(entry: Entry, plan: MapillaryPhotos, projection: str | None) -> str | None:
    """Why a photo is left out, or None."""
    reported, computed = (point(entry.facts.get(f"{w}geometry")) for w in ("", "computed_"))
    if projection is None:
        return f"camera type {words(entry.facts.get('camera_type')) or 'unnamed'} is not known"
    if not entry.sequence:
        return "it belongs to no sequence"
    if entry.taken_ms is None and (plan.first or plan.last):
        return "it has no time, and days are asked for"
    return _why_apart(reported, computed, plan.most_apart_m)


def _why_apart(reported: LatLng | None, computed: LatLng | None, most_m: float) -> str | None:
    if reported is None or computed is None:
        return None
    apart_m = distance_m(reported, computed)
    if apart_m <= most_m:
        return None
    return f"computed position lies {math.ceil(apart_m)} m from the reported one"


def _projection(facts: dict[str, Any]) -> str | None:
    kind = facts.get("camera_type")
    if kind is None:
        return "equirectangular" if facts.get("is_pano") is True else "perspective"
    return PROJECTIONS.get(kind) if isinstance(kind, str) else None


def _fov_deg(facts: dict[str, Any], projection: str) -> float | None:
    """Horizontal; the focal length counts in units of the longer side, as OpenSfM has it."""
    if projection == "equirectangular":
        return 360.0
    numbers = facts.get("camera_parameters")
    focal = number(numbers[0]) if isinstance(numbers, list) and numbers else None
    width, height = number(facts.get("width")), number(facts.get("height"))
    if projection != "perspective" or focal is None or not 0.05 <= focal <= 200:
        return None
    if width is None or height is None or width < 1 or height < 1:
        return None
    return math.degrees(2 * math.atan(width / (2 * focal * max(width, height))))


def _taken_ms(facts: dict[str, Any]) -> int | None:
    value = number(facts.get("captured_at"))
    return int(value) if value is not None and 0 <= value < LAST_MS else None


def _moment(taken_ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=taken_ms)
