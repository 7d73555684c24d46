"""Providers whose terms forbid taking tiles in bulk or keeping them.

Knows nothing of how servers are asked. Read in their documents on the day given; it is the user
who has to know the terms of a server that is not named here.
"""

from dataclasses import dataclass
from fnmatch import fnmatch
from urllib.parse import urlsplit

from zoomloc.errors import ConfigError

READ = "2026-11-25"


@dataclass(frozen=True)
class Terms:
    """Hosts of a provider, what its terms say in our words, and where."""

    provider: str
    hosts: tuple[str, ...]
    said: str
    url: str


FORBIDDEN = (
    Terms(
        "Google Maps",
        ("tile.googleapis.com", "maps.googleapis.com", "khm*.googleapis.com", "khm*.google.com")
        + ("mt?.google.com", "mts?.google.com"),
        "tiles are for display only: no storing, no analysis, no offline use",
        "https://developers.google.com/maps/documentation/tile/policies",
    ),
    Terms(
        "OpenStreetMap's standard tiles",
        ("tile.openstreetmap.org", "*.tile.openstreetmap.org"),
        "no bulk download, no archives, no offline use",
        "https://operations.osmfoundation.org/policies/tiles/",
    ),
    Terms(
        "Esri's basemaps",
        ("*.arcgisonline.com", "ibasemaps-api.arcgis.com", "basemaps.arcgis.com")
        + ("*.maptiles.arcgis.com", "tiledbasemaps.arcgis.com"),
        "no scraping, downloading or storing outside of Esri's own software",
        "https://developers.arcgis.com/java/license-and-deployment/licensing-considerations/",
    ),
    Terms(
        "Mapbox",
        ("api.mapbox.com", "*.tiles.mapbox.com"),
        "no bulk download, no data taken from satellite tiles",
        "https://www.mapbox.com/legal/tos",
    ),
    Terms(
        "Bing Maps and Azure Maps",
        ("*.virtualearth.net", "*.bing.com", "atlas.microsoft.com", "*.atlas.microsoft.com"),
        "no copies, archives or databases of what it shows",
        "https://www.microsoft.com/en-us/maps/bing-maps/product/terms-january-2020",
    ),
    Terms(
        "MapTiler Cloud",
        ("api.maptiler.com", "*.maptiler.com"),
        "no bulk download, no export, no storing",
        "https://www.maptiler.com/terms/cloud/",
    ),
    Terms(
        "HERE",
        ("*.hereapi.com", "*.api.here.com", "*.ls.hereapi.com"),
        "what it answers may be kept for 30 days at most",
        "https://docs.here.com/here-kb/docs/permanent-geocoding-overview-licensing-and-usage-rules",
    ),
    Terms(
        "Thunderforest",
        ("*.thunderforest.com",),
        "no bulk download without a written permission",
        "https://www.thunderforest.com/terms/",
    ),
)


def check_terms(address: str, permission: str) -> None:
    """Refuse a forbidden host, unless a permission is stated. Raises ConfigError."""
    host = (urlsplit(address).hostname or "").lower()
    for terms in FORBIDDEN:
        if any(fnmatch(host, pattern) for pattern in terms.hosts) and not permission.strip():
            raise ConfigError(
                f"{host}: the terms of {terms.provider} forbid this ({terms.said}; {terms.url}, "
                f"read {READ}); take open imagery ('zoomloc cities' lists some), or if the "
                "provider allowed it, write who did under 'permission' of the source"
            )
