"""STAC: the cloud-optimized GeoTIFFs of a region found by a search, or in a static collection.

Knows nothing of how a raster is read. Needs the extra ``stac`` (pystac-client). What a server says
may be garbled or hostile: items are checked, and may name no file of this machine.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from fnmatch import fnmatch
from itertools import islice
from typing import Any
from urllib.parse import urljoin, urlsplit

import shapely
from shapely.errors import ShapelyError
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from data_prep.imagery.grids import once_round
from data_prep.imagery.rasters import Raster, Reading, inspected
from data_prep.imagery.web import (
    AGAIN,
    LONGEST_WAIT_S,
    USER_AGENT,
    Manners,
    Web,
    filled,
    unreachable,
)
from zoomloc.config.imagery import StacSource
from zoomloc.errors import ConfigError, ImageryError

HTTP = ("http://", "https://")
BUCKETS = {"s3://": "/vsis3/", "gs://": "/vsigs/"}  # as GDAL calls them
GARBLED = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


def open_stac(source: StacSource, ground: BaseGeometry) -> list[Raster]:
    """Sheets of all items that reach into some ground in degrees, in order.

    Raises ImageryError where a server does not answer, nothing or too much is found, an item has
    no such asset or a raster cannot be read; ConfigError where the extra is missing.
    """
    items = _searched(source, ground)
    items.sort(key=lambda item: (_time_of(item), item["id"]), reverse=source.newest_on_top)
    addresses = [_address(item, source) for item in items]
    sign = _signature(source)
    asked = Reading(bands=source.bands, stretch=source.stretch)
    return [
        inspected(_signed(address, sign), asked, _stamp(item))
        for item, address in zip(items, addresses, strict=True)
    ]


def _stamp(item: dict[str, Any]) -> str:
    return f"{item['id']} {item['properties'].get('updated', '')}".strip()


def _signed(address: str, sign: str) -> str:
    if not sign or not address.startswith(HTTP):
        return address
    return f"{address}{'&' if '?' in address else '?'}{sign}"


def _address(item: dict[str, Any], source: StacSource) -> str:
    """Where the wanted asset of an item lies: by its name, or by a pattern of name or file."""
    assets = item["assets"]
    named = [source.asset] if source.asset in assets else []
    alike = [name for name in assets if fnmatch(name, source.asset)]
    files = [name for name in assets if fnmatch(_file_of(assets[name]), source.asset)]
    name = next(iter(named + alike + files), None)
    if name is not None:
        return _readable(item, str(assets[name].get("href", "")), source)
    raise ImageryError(
        f"{source.url}: item {item['id']} has no asset {source.asset!r}; "
        f"it has {', '.join(sorted(assets)[:40]) or 'none'}"
    )


def _file_of(asset: dict[str, Any]) -> str:
    return str(asset.get("href", "")).split("?")[0].rsplit("/", 1)[-1]


def _readable(item: dict[str, Any], address: str, source: StacSource) -> str:
    """An address as GDAL is given it. Raises ImageryError where a server names what is not its."""
    home = next((link["href"] for link in _links(item, "self")), filled(source.url))
    whole = urljoin(home, address)
    for bucket, handler in BUCKETS.items():
        if whole.startswith(bucket):
            return handler + whole.removeprefix(bucket)
    if source.url.startswith(HTTP) and not whole.startswith(HTTP):
        raise ImageryError(
            f"{source.url}: item {item['id']} names {address!r}, which is no address of a server"
        )
    return whole


def _links(document: dict[str, Any], relation: str) -> list[dict[str, Any]]:
    """The links of a document that lead somewhere."""
    links = document.get("links")
    sound = [link for link in links if isinstance(link, dict)] if isinstance(links, list) else []
    led = [link for link in sound if isinstance(link.get("href"), str)]
    return [link for link in led if link.get("rel") == relation]


def _searched(source: StacSource, ground: BaseGeometry) -> list[dict[str, Any]]:
    """Items as JSON. Raises ImageryError where none or too many are found."""
    try:
        from pystac import STACError, STACTypeError
        from pystac_client.exceptions import APIError
    except ImportError as error:
        raise ConfigError("stac: needs an extra; pip install 'zoomloc[stac]'") from error
    once = shapely.union_all(once_round(ground))
    try:
        found = list(islice(_items(source, once), source.most + 1))
        wanted = [item for item in map(_checked, found) if _is_wanted(item, source, once)]
    except (APIError, STACError, STACTypeError, ShapelyError, *GARBLED) as error:
        raise ImageryError(f"{source.url}: {_said(error)}") from error
    if len(found) > source.most:
        raise ImageryError(
            f"{source.url}: more than {source.most:,} items; take less ground or fewer days, "
            "or raise 'most' of the source"
        )
    if not wanted:
        raise ImageryError(
            f"{source.url}: no item of {source.collection!r} reaches into the region in these "
            "dates with so few clouds; widen them"
        )
    return wanted


def _said(error: Exception) -> str:
    """What a failed search comes down to, and what may mend it."""
    unreached = unreachable(error)
    if unreached is not None:
        return f"{unreached}, then run again"
    status = getattr(error, "status_code", None)
    said = f"answers {status}" if status else f"gives no STAC answer ({type(error).__name__})"
    return f"{said}; check the address and the key, if it needs one, then run again"


def _items(source: StacSource, ground: BaseGeometry) -> Iterator[dict[str, Any]]:
    """What a search finds, or what a catalog that cannot search holds of it."""
    url = filled(source.url)
    # what takes no connection at first will take none a minute later
    document = _reader(source, connect=0).read_json(url)
    reader = _reader(source)
    if _links(document, "search"):
        yield from _asked(reader, url, document, source, ground)
    elif _links(document, "items"):
        raise ImageryError(
            f"{source.url}: is one collection of a server that can search; give the server's own "
            "address as 'url' and the collection's name as 'collection'"
        )
    else:
        yield from _walked(reader, document["type"], source, ground)


def _reader(source: StacSource, connect: int | None = None) -> Any:
    """What asks servers, as patiently as the source says; ``connect``: tries to reach them."""
    from pystac_client.stac_api_io import StacApiIO
    from urllib3.response import BaseHTTPResponse
    from urllib3.util.retry import Retry

    class Patience(Retry):
        def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
            asked_s = super().get_retry_after(response)
            return None if asked_s is None else min(asked_s, LONGEST_WAIT_S)

    patience = Patience(
        source.retries,
        connect=connect,
        backoff_factor=1,
        status_forcelist=AGAIN,
        allowed_methods=None,
        raise_on_status=False,
    )
    headers = {"User-Agent": USER_AGENT}
    headers |= {name: filled(value) for name, value in source.headers.items()}
    return StacApiIO(headers=headers, max_retries=patience, timeout=source.timeout_s)


def _asked(
    reader: Any, url: str, landing: dict[str, Any], source: StacSource, ground: BaseGeometry
) -> Iterator[dict[str, Any]]:
    """Items of a search, page after page."""
    from pystac_client import ItemSearch

    links = _links(landing, "search")
    posts = [link for link in links if link.get("method") == "POST"]
    clouds = source.cloud_cover
    sifts = any(str(said).endswith("item-search#query") for said in landing.get("conformsTo", []))
    search = ItemSearch(
        urljoin(url, (posts or links)[0]["href"]),
        method="POST" if posts else "GET",
        stac_io=reader,
        collections=[source.collection],
        intersects=json.loads(json.dumps(mapping(ground))),
        datetime=_dates(source),
        query={"eo:cloud_cover": {"lte": clouds}} if sifts and clouds is not None else None,
        max_items=source.most + 1,
    )
    yield from search.items_as_dicts()


def _walked(
    reader: Any, kind: str, asked: StacSource, ground: BaseGeometry
) -> Iterator[dict[str, Any]]:
    """Items of a static catalog that a search would find."""
    import pystac

    remote = asked.url.startswith(HTTP)

    class Plain(pystac.stac_io.DefaultStacIO):  # a client's own would search, and warn
        def read_text(self, source: Any, *_: Any, **__: Any) -> str:
            where = str(source)
            if remote and not where.startswith(HTTP):
                raise ValueError("a server's catalog names a file of this machine")
            return str(reader.read_text(where))

    opens = pystac.Collection if kind == "Collection" else pystac.Catalog
    first, last, seen = asked.first, asked.last, set[str]()
    for item in opens.from_file(filled(asked.url), stac_io=Plain()).get_items(recursive=True):
        item.make_asset_hrefs_absolute()
        found = _checked(item.to_dict())
        other = asked.collection and found.get("collection") not in (None, asked.collection)
        if other or found["id"] in seen:  # some catalogs lead to an item in several ways
            continue
        seen.add(found["id"])
        day = _time_of(found).date()
        late = first is None or day >= first
        early = last is None or day <= last
        if late and early and _is_wanted(found, asked, ground):
            yield found


def _checked(item: Any) -> dict[str, Any]:
    """An item whose parts are what they should be. Raises TypeError."""
    parts = {"id": str, "properties": dict, "assets": dict}
    sound = isinstance(item, dict) and all(isinstance(item.get(k), v) for k, v in parts.items())
    if not sound or not all(isinstance(asset, dict) for asset in item["assets"].values()):
        raise TypeError("not a STAC item")
    return dict(item)


def _is_wanted(item: dict[str, Any], source: StacSource, ground: BaseGeometry) -> bool:
    """Whether an item reaches into the ground, with few enough clouds where it tells them."""
    clouds = item["properties"].get("eo:cloud_cover")
    if source.cloud_cover is not None and clouds is not None and clouds > source.cloud_cover:
        return False
    outline = item.get("geometry")
    return outline is not None and shapely.make_valid(shape(outline)).intersects(ground)


def _dates(source: StacSource) -> str | None:
    """The interval as STAC writes it."""
    if source.first is None and source.last is None:
        return None
    first = f"{source.first}T00:00:00Z" if source.first else ".."
    return f"{first}/{source.last}T23:59:59Z" if source.last else f"{first}/.."


def _time_of(item: dict[str, Any]) -> datetime:
    """When it was taken; long ago where it does not tell."""
    stated = item["properties"]
    text = stated.get("datetime") or stated.get("start_datetime") or ""
    try:
        found = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return datetime(1, 1, 1, tzinfo=UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _signature(source: StacSource) -> str:
    """What is appended to addresses: the Planetary Computer's token for a collection.

    It is free, holds for about an hour and is only kept in memory
    (https://planetarycomputer.microsoft.com/docs/concepts/sas/).
    """
    if source.sign != "planetary-computer":
        return ""
    place = urlsplit(source.url)
    told = f"{place.scheme}://{place.netloc}/api/sas/v1/token/{source.collection}"
    manners = Manners(retries=source.retries, timeout_s=source.timeout_s, headers=source.headers)
    with Web(manners) as web:
        body = web.get(filled(told), told)
    try:
        return str(json.loads(body or b"")["token"])
    except (ValueError, KeyError, TypeError) as error:
        raise ImageryError(f"{told}: gives no token; run again later") from error
