"""STAC: the cloud-optimized GeoTIFFs of a region found by a search, or in a static collection.

Knows nothing of how a raster is read. Needs the extra ``stac`` (pystac-client).
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from fnmatch import fnmatch
from typing import Any
from urllib.parse import urlsplit

from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from data_prep.imagery.rasters import Raster, Reading, inspected
from data_prep.imagery.web import Manners, Web, filled
from zoomloc.config.imagery import StacSource
from zoomloc.errors import ConfigError, ImageryError

AGAIN = [429, 500, 502, 503, 504]
S3 = ("s3://", "/vsis3/")


def open_stac(source: StacSource, ground: BaseGeometry) -> list[Raster]:
    """Sheets of all items that reach into some ground in degrees, in order.

    Raises ImageryError where a server does not answer, nothing or too much is found, an item has
    no such asset or a raster cannot be read; ConfigError where the extra is missing.
    """
    items = _searched(source, ground)
    newest_last = sorted(items, key=_time_of)
    ordered = newest_last[::-1] if source.newest_on_top else newest_last
    sign = _signature(source)
    asked = Reading(bands=source.bands, stretch=source.stretch)
    return [_sheet(item, source, sign, asked) for item in ordered]


def _sheet(item: dict[str, Any], source: StacSource, sign: str, asked: Reading) -> Raster:
    address = _address(item, source)
    stamp = f"{item['id']} {item['properties'].get('updated', '')}".strip()
    return inspected(f"{address}?{sign}" if sign else address, asked, stamp)


def _address(item: dict[str, Any], source: StacSource) -> str:
    """Where the wanted asset of an item lies: by its name, or by a pattern of name or file."""
    assets = item.get("assets") or {}
    for name, asset in assets.items():
        address = str(asset.get("href", ""))
        file = address.split("?")[0].rsplit("/", 1)[-1]
        if name == source.asset or fnmatch(name, source.asset) or fnmatch(file, source.asset):
            return S3[1] + address.removeprefix(S3[0]) if address.startswith(S3[0]) else address
    raise ImageryError(
        f"{source.url}: item {item.get('id')} has no asset {source.asset!r}; "
        f"it has {', '.join(sorted(assets)[:12]) or 'none'}"
    )


def _searched(source: StacSource, ground: BaseGeometry) -> list[dict[str, Any]]:
    """Items as JSON. Raises ImageryError where none or too many are found."""
    try:
        import pystac_client
        from pystac_client.exceptions import APIError
        from pystac_client.stac_api_io import StacApiIO
        from urllib3.util.retry import Retry
    except ImportError as error:
        raise ConfigError("stac: needs an extra; pip install 'zoomloc[stac]'") from error
    retry = Retry(source.retries, backoff_factor=1, status_forcelist=AGAIN, allowed_methods=None)
    headers = {name: filled(value) for name, value in source.headers.items()}
    reader = StacApiIO(headers=headers, max_retries=retry, timeout=source.timeout_s)
    try:
        root = reader.read_stac_object(filled(source.url))
        if isinstance(root, pystac_client.Client) or _can_search(root.to_dict()):
            client = pystac_client.Client.open(filled(source.url), stac_io=reader)
            found = list(_asked(client, source, ground))
        else:
            found = list(_walked(root, source, ground))
    except (APIError, OSError, ValueError, KeyError, TypeError) as error:
        raise ImageryError(
            f"{source.url}: no usable STAC answer ({type(error).__name__}); check the address, "
            "then run again"
        ) from error
    if not found:
        raise ImageryError(
            f"{source.url}: no item of {source.collection!r} reaches into the region in these "
            "dates with so few clouds; widen them"
        )
    if len(found) > source.most:
        raise ImageryError(
            f"{source.url}: more than {source.most:,} items; take less ground or fewer days, "
            "or raise 'most' of the source"
        )
    return found


def _can_search(root: dict[str, Any]) -> bool:
    return any(link.get("rel") == "search" for link in root.get("links", []))


def _asked(client: Any, source: StacSource, ground: BaseGeometry) -> Iterator[dict[str, Any]]:
    """Items of a search, page after page."""
    clouds = source.cloud_cover
    search = client.search(
        collections=[source.collection],
        intersects=json.loads(json.dumps(mapping(ground))),
        datetime=_dates(source),
        query=None if clouds is None else {"eo:cloud_cover": {"lte": clouds}},
        max_items=source.most + 1,
    )
    yield from search.items_as_dicts()


def _walked(root: Any, source: StacSource, ground: BaseGeometry) -> Iterator[dict[str, Any]]:
    """Items of a static catalog that a search would find."""
    first, last = source.first, source.last
    for item in root.get_items(recursive=True):
        found: dict[str, Any] = item.make_asset_hrefs_absolute().to_dict()
        if source.collection and found.get("collection") not in (None, source.collection):
            continue
        if not shape(found["geometry"]).intersects(ground):
            continue
        day = _time_of(found).date()
        clouds = found["properties"].get("eo:cloud_cover", 0.0)
        late = first is None or day >= first
        early = last is None or day <= last
        if late and early and (source.cloud_cover is None or clouds <= source.cloud_cover):
            yield found


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
    place = urlsplit(filled(source.url))
    address = f"{place.scheme}://{place.netloc}/api/sas/v1/token/{source.collection}"
    with Web(Manners(retries=source.retries, timeout_s=source.timeout_s)) as web:
        body = web.get(address, address)
    try:
        return str(json.loads(body or b"")["token"])
    except (ValueError, KeyError, TypeError) as error:
        raise ImageryError(f"{address}: gives no token; run again later") from error
