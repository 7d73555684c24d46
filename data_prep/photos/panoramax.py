"""Panoramax: what is asked of its STAC API, and what its items mean. No key is needed.

Knows nothing of rows and files. Written after https://docs.panoramax.fr/api and the STAC API: each
item is a picture, its collection the sequence; each instance has its own licence.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin

from data_prep.imagery.web import Manners, NoAnswer, Web, filled
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
from zoomloc.config.photos import PanoramaxPhotos
from zoomloc.errors import PhotoError
from zoomloc.world.photos import Photo, Skipped

NAME = "panoramax"
LIMIT = 500  # items of one answer; an item takes some 8 kB
MOST_PAGES = 20  # of a box: then it is quartered
FACTS = (  # of the properties
    "datetime", "datetimetz", "license", "view:azimuth", "geovisio:producer",
    "quality:horizontal_accuracy",
)  # fmt: skip
LENS = ("field_of_view", "sensor_array_dimensions", "visible_area")
SMALL, LARGE = ("thumb", "sd", "hd"), ("sd", "hd", "thumb")  # 500 px, 2048 px, as it was sent
WIDEST_DEG = 175.0  # of a picture that is no panorama
LAST_YEAR = 2200


def read_panoramax(source: PanoramaxPhotos, task: Task) -> Found:
    """Photos of the region, by sequence, time and id; what has come before is not asked again.

    Raises PhotoError where no region is set, nothing or too much is found, or some photos did not
    come.
    """
    manners = Manners(source.rate_per_s, source.at_once, source.retries, source.timeout_s)
    with Web(manners) as web:
        yield from read_served(Panoramax(source, web), task)


class Panoramax:
    """A server or the meta-catalog, and the servers that hold its pictures."""

    name, side_deg = NAME, 0.04

    def __init__(self, plan: PanoramaxPhotos, web: Web) -> None:
        self.plan, self.url, self._web = plan, plan.url.rstrip("/"), web
        self._order = SMALL if plan.thumb_px == 256 else LARGE
        self.size, self._root = self._order[0], filled(self.url)

    def ask(self, box: Box) -> list[Entry] | None:
        """All photos of a box; None where there may be more.

        The meta-catalog may give its answer in pages; an instance gives the nearest to the box's
        middle and does not say that there are more.
        """
        asked = {"bbox": box.text, "limit": str(LIMIT), **self._dates()}
        address: str | None = f"{self._root}/search?{urlencode(asked, safe=',:/')}"
        entries: dict[str, Entry] = {}
        for page in range(MOST_PAGES):
            assert address is not None
            document = self._page(address, f"{self.url}/search in {box.text}")
            found = [entry_of(item, address) for item in document["features"]]
            is_new = any(entry.id not in entries for entry in found)
            entries.update((entry.id, entry) for entry in found)
            address = _next_of(document, address)
            if address is None or not is_new:
                whole = page > 0 or (len(found) < LIMIT and not _matched_more(document))
                if whole:
                    return list(entries.values())
                break
        if box.is_smallest:
            raise PhotoError(
                f"{self.url}/search in {box.text}: {LIMIT:,} photos or more at one place; ask for "
                "fewer days (first, last)"
            )
        return None

    def picture(self, entry: Entry) -> bytes:
        """The picture of the wanted size, or the next one that there is."""
        address = _picture_address(entry.facts, self._order)
        if address is None:
            raise Left("the server names no picture of it")
        try:
            body = self._web.get(address, f"{self.url}, picture {entry.id}", picture_fault)
        except NoAnswer as error:
            if not is_refused(error):
                raise
            body = None
        if body is None:
            raise Left("its picture is no longer served")
        return body

    def photo(self, entry: Entry, path: Path) -> Photo | Skipped:
        """What the photo table is told."""
        return photo_of(entry, self.plan, path)

    def _page(self, address: str, told: str) -> dict[str, Any]:
        try:
            body = self._web.get(address, told, _page_fault)
        except NoAnswer as error:
            if not is_refused(error):
                raise
            raise PhotoError(f"{error}; check 'url' of the source") from None
        if body is None:
            raise PhotoError(f"{self.url}/search: is not there; check 'url' of the source")
        return dict(read_json(body))

    def _dates(self) -> dict[str, str]:
        """An RFC 3339 interval, open where a day is not given."""
        if self.plan.first is None and self.plan.last is None:
            return {}
        first = ".." if self.plan.first is None else f"{self.plan.first}T00:00:00Z"
        last = ".." if self.plan.last is None else f"{self.plan.last}T23:59:59.999Z"
        return {"datetime": f"{first}/{last}"}


def _page_fault(kind: str, body: bytes) -> str | None:
    """What is wrong with an answer that should be a list of items."""
    document = read_json(body)
    items = document.get("features") if isinstance(document, dict) else None
    if not isinstance(items, list):
        return f"answers {kind.split(';')[0][:60] or 'something unnamed'} that is no list of items"
    try:
        for item in items:
            entry_of(item)
    except PhotoError as error:
        return f"answers no list of items ({error})"
    return None


def _next_of(document: dict[str, Any], here: str) -> str | None:
    """The address of the next page, where there is one that can be asked for."""
    links = document.get("links")
    for link in links if isinstance(links, list) else []:
        if not isinstance(link, dict) or link.get("rel") != "next":
            continue
        href = link.get("href")
        if link.get("method", "GET") == "GET" and isinstance(href, str):
            return _joined(here, href)
    return None


def _matched_more(document: dict[str, Any]) -> bool:
    matched = number(document.get("numberMatched"))
    return matched is not None and matched > len(document["features"])


def _joined(here: str, href: Any) -> str | None:
    """A web address as seen from another, or None."""
    if not isinstance(href, str) or not href:
        return None
    try:
        address = urljoin(here, href)
    except ValueError:
        return None
    return address if address.startswith(("https://", "http://")) else None


# what an item says


def entry_of(item: Any, here: str = "") -> Entry:
    """A STAC item as it is kept. Raises PhotoError where it has no usable id."""
    photo_id = file_name(item.get("id")) if isinstance(item, dict) else None
    if photo_id is None:
        raise PhotoError("a photo without an id")
    said = _dict(item.get("properties"))
    facts = {name: said[name] for name in FACTS if said.get(name) is not None}
    lens = _dict(said.get("pers:interior_orientation"))
    facts |= {name: lens[name] for name in LENS if lens.get(name) is not None}
    facts |= {name: item[name] for name in ("id", "collection", "geometry") if name in item}
    facts["producer"] = _producer(item, said)
    facts["pictures"] = _pictures(item, here)
    place, taken = point(facts.get("geometry")), _taken(facts)
    return Entry(
        photo_id,
        file_name(facts.get("collection")) or "",
        None if taken is None else round(taken.timestamp() * 1000),
        None if place is None else place.lat,
        None if place is None else place.lng,
        facts,
    )


def photo_of(entry: Entry, plan: PanoramaxPhotos, path: Path) -> Photo | Skipped:
    """The photo that an item describes, or why it cannot be used."""
    label, facts = label_of(NAME, entry.id), entry.facts
    projection, fov_deg = _lens(facts)
    if entry.lat is None or entry.lng is None:
        return Skipped(label, "no position")
    if not entry.sequence:
        return Skipped(label, "it belongs to no sequence")
    if entry.taken_ms is None and (plan.first or plan.last):
        return Skipped(label, "it has no time, and days are asked for")
    if projection is None:
        return Skipped(label, f"field of view {fov_deg:g} degrees, which is no known projection")
    error_m = number(facts.get("quality:horizontal_accuracy"))
    return Photo(
        id=label,
        path=path,
        lat=entry.lat,
        lng=entry.lng,
        bearing_deg=bearing(facts.get("view:azimuth")),
        fov_deg=fov_deg,
        projection=projection,
        captured_at=_taken(facts),
        sequence_id=label_of(NAME, entry.sequence),
        source=NAME,
        licence=words(facts.get("license")),
        creator=words(facts.get("producer")),
        position_error_m=error_m if error_m and error_m > 0 else plan.default_position_error_m,
    )


def _lens(facts: dict[str, Any]) -> tuple[str | None, float | None]:
    """Projection and horizontal field of view; the projection is None where it is not known."""
    fov = number(facts.get("field_of_view"))
    if fov is None or not 0 < fov <= 360:
        return "perspective", None
    if fov == 360:
        return "equirectangular", 360.0 * _shown(facts)
    return ("perspective" if fov <= WIDEST_DEG else None), fov


def _shown(facts: dict[str, Any]) -> float:
    """The share of a full panorama's width that the picture shows, by what is cut off it."""
    sides, cut = facts.get("sensor_array_dimensions"), facts.get("visible_area")
    if not isinstance(sides, list) or not isinstance(cut, list) or not sides or len(cut) < 3:
        return 1.0
    width, left, right = number(sides[0]), number(cut[0]), number(cut[2])
    if width is None or left is None or right is None or width < 1:
        return 1.0
    share = (width - left - right) / width
    return share if 0 < share <= 1 else 1.0


def _taken(facts: dict[str, Any]) -> datetime | None:
    """When, with the zone where it is told."""
    for name in ("datetimetz", "datetime"):
        try:
            when = datetime.fromisoformat(words(facts.get(name)))
            when = when if when.tzinfo else when.replace(tzinfo=UTC)
            if 1970 < when.year < LAST_YEAR:
                return when
        except (ValueError, OverflowError):
            continue
    return None


def _producer(item: dict[str, Any], said: dict[str, Any]) -> str:
    """Who is to be named: the account, else the first provider that made it."""
    named = words(said.get("geovisio:producer"))
    providers = item.get("providers")
    for provider in providers if isinstance(providers, list) and not named else []:
        roles = provider.get("roles") if isinstance(provider, dict) else None
        if isinstance(roles, list) and "producer" in roles:
            named = named or words(provider.get("name"))
    return named


def _pictures(item: dict[str, Any], here: str) -> dict[str, str]:
    assets = _dict(item.get("assets"))
    found = {name: _joined(here, _dict(assets.get(name)).get("href")) for name in LARGE}
    return {name: address for name, address in found.items() if address is not None}


def _picture_address(facts: dict[str, Any], order: tuple[str, ...]) -> str | None:
    pictures = facts["pictures"]
    return next((pictures[name] for name in order if name in pictures), None)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
