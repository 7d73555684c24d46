"""What a config says of imagery: its sources, the region and the tiles made of them.

Knows nothing of rasters, of servers or of how a config is read.
"""

from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from zoomloc.config.base import Section

Span = tuple[float, float]


class Credited(Section):
    """Whose imagery it is; carried into the pyramid and onto every map."""

    attribution: str = ""
    licence: str = ""


class RasterSource(Credited):
    """GeoTIFF, COG, JPEG 2000, VRT, or PNG or JPEG with a world file, in any CRS."""

    kind: Literal["raster"]
    files: tuple[str, ...] = Field(min_length=1)  # paths, patterns such as sheets/*.tif, addresses
    bands: tuple[int, ...] = ()  # red, green, blue (or any three), or one; as tagged where empty
    stretch: Span | None = None  # values that become black and white; percentiles where None
    nodata: float | None = None  # beside what the files say themselves
    crs: str | None = None  # for files that do not say
    folders: tuple[Path, ...] = ()  # where sources of a VRT may lie besides its own folder

    @field_validator("bands")
    @classmethod
    def _one_or_three(cls, bands: tuple[int, ...]) -> tuple[int, ...]:
        if len(bands) not in (0, 1, 3) or min(bands, default=1) < 1:
            raise ValueError("must be one or three numbers from 1 on")
        return bands


class StoredSource(Credited):
    """Tiles on this disk: MBTiles, PMTiles, a z/x/y folder or a tiledwebmaps folder."""

    kind: Literal["tiles"]
    path: Path
    level: int | None = Field(None, ge=-30, le=30)  # the deepest, where None


class NetworkSource(Section):
    """A server, asked politely. ``${NAME}`` in addresses and headers is read from the environment.

    Secrets belong into such variables and nowhere else.
    """

    attribution: str = Field(min_length=1)  # as the provider words it
    licence: str = Field(min_length=1)
    headers: dict[str, str] = {}
    rate_per_s: float = Field(8.0, gt=0, le=200)  # requests a second, at most
    at_once: int = Field(4, ge=1, le=32)  # requests that wait for an answer together
    retries: int = Field(5, ge=0, le=20)  # of 429, 5xx, time-outs and broken answers
    timeout_s: float = Field(60.0, gt=0)  # for one answer, whole
    permission: str = ""  # who allowed bulk download, where the provider's terms forbid it


class XyzSource(NetworkSource):
    """An XYZ template: ``{z} {x} {y}``, ``{-y}`` (TMS), ``{q}`` (quadkey), ``{s}``."""

    kind: Literal["xyz"]
    url: str
    level: int = Field(ge=0, le=24)  # which is taken; coarser ones are averaged from it
    tms: bool = False  # rows count from the south
    subdomains: tuple[str, ...] = ("a", "b", "c")
    tile_px: int = Field(256, ge=64, le=2048)

    @field_validator("url")
    @classmethod
    def _names_a_tile(cls, url: str) -> str:
        whole = "{x}" in url and "{z}" in url and ("{y}" in url or "{-y}" in url)
        if not url.startswith(("https://", "http://")) or not (whole or "{q}" in url):
            raise ValueError("must be an http(s) address with {z}, {x} and {y}, or with {q}")
        return url


class WmtsSource(NetworkSource):
    """A layer of a WMTS by its capabilities document; KVP or REST, as it says."""

    kind: Literal["wmts"]
    capabilities: str  # an address, or a file that was kept
    layer: str
    matrix_set: str = ""  # one in Web Mercator, else the first, where empty
    matrix: str = ""  # the finest, where empty
    style: str = ""
    format: str = ""  # JPEG where offered, else PNG, where empty
    dimensions: dict[str, str] = {}  # such as Time; their defaults where not named


class StacSource(NetworkSource):
    """Cloud-optimized GeoTIFFs found by a STAC search; needs the extra ``stac``."""

    kind: Literal["stac"]
    url: str
    collection: str
    asset: str = "image"
    first: date | None = None
    last: date | None = None
    cloud_cover: float | None = Field(None, ge=0, le=100)  # percent, at most
    newest_on_top: bool = True
    sign: Literal["", "planetary-computer"] = ""
    most: int = Field(1000, ge=1)  # items; more are an error, not a cut
    bands: tuple[int, ...] = ()
    stretch: Span | None = None


Source = Annotated[
    RasterSource | StoredSource | XyzSource | WmtsSource | StacSource, Field(discriminator="kind")
]


class TilesConfig(Section):
    """From imagery to the region's pyramid. The first raster or source lies on top."""

    rasters: tuple[Path, ...] = ()  # the short way to name files
    sources: tuple[Source, ...] = ()
    bounds: tuple[float, float, float, float] | None = None  # west, south, east, north; degrees
    polygon: Path | None = None  # a GeoJSON, GeoPackage or Shapefile
    place: tuple[float, float] | None = None  # lat, lng; with radius_m
    radius_m: float | None = Field(None, gt=0)
    seams: Literal["order", "centre"] = "order"  # which sheet is seen where several lie
    finest_m: float = Field(0.0, ge=0)  # tiles show no more detail than this; 0: all there is
    terminal_cell_m: float = Field(16.0, gt=0)  # about the accuracy of a phone's position
    levels_per_zoom: Literal[1, 2, 3] = 2
    tile_px: Literal[256, 512] = 256
    image_format: Literal["webp", "jpeg", "png"] = "webp"
    quality: int = Field(90, ge=1, le=100)
    attribution: tuple[str, ...] = ()
    licence: str = ""
    capture_date: str | None = None

    @field_validator("bounds")
    @classmethod
    def _is_a_box(cls, bounds: tuple[float, ...] | None) -> tuple[float, ...] | None:
        """West before east (which may pass 180), south before north."""
        if bounds is not None:
            west, south, east, north = bounds
            if not (-180 <= west < east <= west + 360 and -85.06 < south < north < 85.06):
                raise ValueError("must be west, south, east, north in degrees")
        return bounds

    @field_validator("place")
    @classmethod
    def _is_a_place(cls, place: Span | None) -> Span | None:
        if place is not None and not (abs(place[0]) < 85.05 and abs(place[1]) <= 180):
            raise ValueError("must be latitude, longitude in degrees")
        return place

    @model_validator(mode="after")
    def _one_ground(self) -> Self:
        """At most one way to say which ground is meant."""
        named = [k for k in ("bounds", "polygon", "place") if getattr(self, k) is not None]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)} both say which ground is meant; keep one")
        if (self.place is None) != (self.radius_m is None):
            raise ValueError("place and radius_m belong together")
        return self
