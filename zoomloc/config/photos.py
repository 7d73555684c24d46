"""What a config says of photos: where they come from and how they are divided.

Knows nothing of imagery, models or of how a config is read.
"""

from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from zoomloc.config.base import Section


class TownConfig(Section):
    """The synthetic town that `zoomloc town` and `zoomloc demo` build."""

    seed: int = 1
    size_m: float = 720.0
    train_photos: int = Field(10_000, ge=1)
    test_photos: int = Field(1_000, ge=1)
    width_px: int = Field(256, ge=32)
    height_px: int = Field(128, ge=32)
    nuisances: bool = True  # other seasons, blur, passers-by, errors of position
    scattered: bool = False  # photos at random points of the roads instead of on drives


class Credited(Section):
    """Whose photos they are, and how exact a position is that does not say."""

    licence: str = ""
    creator: str = ""
    default_position_error_m: float = Field(5.0, gt=0)


class FolderPhotos(Credited):
    """Pictures with EXIF; each sub-folder is one drive."""

    kind: Literal["folder"]
    path: Path
    tracks: tuple[Path, ...] = ()  # GPX: where the camera was, for pictures that do not tell
    clock_offset_s: float = 0.0  # what to add to the camera's clock to get the track's
    longest_gap_s: float = Field(30.0, gt=0)  # between track points that a photo may lie between


class TablePhotos(Credited):
    """A CSV, Parquet, GeoJSON or GeoPackage that names pictures and their places."""

    kind: Literal["table"]
    path: Path
    pictures: Path | None = None  # what paths in it count from; None: its own folder
    columns: dict[str, str] = {}  # ours -> its own, as lat: latitude
    crs: str = "EPSG:4326"  # of lat and lng columns, as x and y


class ServedPhotos(Section):
    """Photos of a server, asked politely. Nothing is uploaded anywhere."""

    first: date | None = None  # taken on this day or later
    last: date | None = None
    thumb_px: Literal[256, 1024, 2048] = 1024  # width of what is downloaded, about
    most: int = Field(50_000, ge=1)  # photos; more are an error, not a cut
    most_apart_m: float = Field(6.0, gt=0)  # computed against reported position, where both are
    default_position_error_m: float = Field(5.0, gt=0)
    rate_per_s: float = Field(8.0, gt=0, le=200)
    at_once: int = Field(4, ge=1, le=32)
    retries: int = Field(5, ge=0, le=20)
    timeout_s: float = Field(60.0, gt=0)


class MapillaryPhotos(ServedPhotos):
    """Mapillary's API v4; the token is read from the environment variable that is named."""

    kind: Literal["mapillary"]
    url: str = "https://graph.mapillary.com"
    token: str = "${MAPILLARY_TOKEN}"


class PanoramaxPhotos(ServedPhotos):
    """A Panoramax server or the meta-catalog, by its STAC API; no key."""

    kind: Literal["panoramax"]
    url: str = "https://api.panoramax.xyz/api"


class PaperPhotos(Section):
    """The data set of *Just Zoom In* as released: a metadata CSV beside undistorted pictures."""

    kind: Literal["justzoomin"]
    path: Path  # the folder that holds both
    default_position_error_m: float = Field(5.0, gt=0)


PhotoSource = Annotated[
    FolderPhotos | TablePhotos | MapillaryPhotos | PanoramaxPhotos | PaperPhotos,
    Field(discriminator="kind"),
]


class FiltersConfig(Section):
    """Which photos are left out for what they look like. 0 or false: none is."""

    least_px: int = Field(0, ge=0)  # shorter side
    blurred: float = Field(0.0, ge=0)  # variance of the Laplacian of 256 px wide grey, under this
    dark: float = Field(0.0, ge=0, le=255)  # mean grey value, under this
    duplicates: bool = False  # the same picture again nearby (perceptual hash and place)


class PhotosConfig(Section):
    """From folders, tables and servers to the photo table."""

    folder: Path | None = None  # the short way to name one
    sources: tuple[PhotoSource, ...] = ()
    licence: str = ""
    creator: str = ""
    default_position_error_m: float = Field(5.0, gt=0)
    off_imagery: Literal["refuse", "keep"] = "refuse"  # photos where the region has no imagery
    filters: FiltersConfig = FiltersConfig()
    views: int = Field(0, ge=0, le=16)  # perspective pictures made of a panorama; 0: kept whole
    view_fov_deg: float = Field(90.0, gt=10, lt=150)


SplitBy = Literal["sequence", "block", "image", "region"]
SplitGroup = Literal["drive", "creator-day"]


class SplitConfig(Section):
    """How photos are divided into train, val and test; image leaks, the paper's way."""

    by: SplitBy = "sequence"
    group: SplitGroup = "drive"  # what stays together: creator-day, all of one's drives of a day
    val: float = Field(0.1, ge=0, lt=1)
    test: float = Field(0.1, ge=0, lt=1)
    newest_test: bool = False  # the drives of the last day become the test split
    block_m: float = Field(200.0, gt=0)  # side of a block
    buffer_m: float = Field(25.0, ge=0)  # between photos of two splits, by block
    seed: int = 0
