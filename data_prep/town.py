"""A seeded synthetic town on disk: rasters, roads, drives of photos, the truth about them.

Knows nothing of how streets, roofs or pictures come about, nor of what reads the files.

    ortho.tif      uint8 RGB, 0.5 m, UTM: the map, as seen on one clear day
    surface.tif    float32 heights in metres, the same grid (parked cars left out)
    terrain.tif    float32 bare ground, the same grid
    materials.tif  uint8, 9 bands: cover, wall RGB, style, wall direction, RGB without light
    roads.geojson  centre lines, EPSG:4326
    photos/<drive>/<frame>.jpg, truth.csv (file, lat, lng, bearing_deg), town.json (written last)
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from pyproj import Transformer
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.transform import Affine, from_origin

from data_prep.begun import finish, found_or_begun
from data_prep.drives import (
    Drive,
    ShootingDay,
    map_day,
    plan_days,
    plan_drives,
    turned_on_the_spot,
    under_one_light,
)
from data_prep.scattered import plan_scattered
from data_prep.scene import BUILDING, HEDGE, PIXEL, WATER, Scene
from data_prep.town_layout import lay_out
from data_prep.town_light import Day, under_the_sun
from data_prep.town_paint import Model, paint
from data_prep.town_parts import Town
from data_prep.town_photos import Shooting, SyntheticTown, read_model, shoot, truth_of
from zoomloc.errors import ConfigError, OutputError

F64 = NDArray[np.float64]
Progress = Callable[[str, int, int], None]

GENERATOR = 1  # version: raised when the same seed gives another town
GSD_M = 0.5
BORDER_M = 14.0  # photos keep this far from the imagery's edge
SMALLEST_M, LARGEST_M = 100.0, 5000.0
# (south, north, west, east): mid latitudes, mostly land, mostly off the zones' middles
LANDS = (
    (43.5, 51.5, -1.0, 30.0),
    (39.0, 48.5, -104.0, -82.0),
    (45.0, 51.5, 62.0, 88.0),
    (40.0, 50.0, 108.0, 121.0),
    (-46.0, -38.5, -71.0, -66.0),
)


@dataclass(frozen=True)
class PhotoPlan:
    """How many photos, how large, how hard, where.

    Without ``nuisances`` one rig takes them all (84 degrees, level, in the direction of travel),
    under a clear sky, in the same season and at the same hour; no blur, noise, passers-by, errors
    of position or of the compass. The sun still stands where each date puts it; with ``scattered``
    as well it does not move either: training and test days differ in parked cars and clouds alone.
    """

    train_photos: int = 10_000  # on the training days; upper bound unless scattered
    test_photos: int = 1_000  # on another day, of the next year
    width_px: int = 256
    height_px: int = 128
    nuisances: bool = True
    scattered: bool = False  # at independent points of the roads instead of on drives
    turns: int = 1  # photos at each stop of a drive, turned all the way round; counts are of stops


@dataclass(frozen=True)
class TownSummary:
    """What was built."""

    out: Path
    seed: int
    size_m: float
    roads_m: float
    photos: int
    drives: int
    seconds: float


@dataclass(frozen=True)
class _Site:
    """Where on Earth a town lies: a UTM zone and its north-west corner."""

    epsg: int
    east_m: float
    north_m: float
    _to_degrees: Transformer = field(repr=False)

    def locate(self, points: F64) -> F64:
        """(N, 2) lat, lng of points (N, 2) in metres east and south of the corner."""
        lng, lat = self._to_degrees.transform(
            self.east_m + points[:, 0], self.north_m - points[:, 1]
        )
        return np.stack([lat, lng], 1)

    @property
    def transform(self) -> Affine:
        """Pixel -> UTM metres."""
        return from_origin(self.east_m, self.north_m, GSD_M, GSD_M)


def build_town(
    out: Path,
    seed: int,
    size_m: float,
    photos: PhotoPlan,
    workers: int = 1,
    progress: Progress | None = None,
) -> TownSummary:
    """Build a town of size_m x size_m into `out`, or finish one that was begun there.

    A finished town of the same parameters is left as it is. `progress` gets a stage ("town" or
    "photos"), how much is done and how much there is. Raises ConfigError for a size, a photo plan
    or a folder that cannot be used, OutputError where files cannot be written.
    """
    _check(size_m, photos)
    out, begun = Path(out), time.perf_counter()
    asked = _asked(seed, float(size_m), photos)
    try:
        found = found_or_begun(out, "town", asked)
        if found is not None:
            return TownSummary(out, seed, float(size_m), **found)
        built = _build(out, seed, float(size_m), photos, workers, progress or _silent)
        seconds = time.perf_counter() - begun
        numbers = {"roads_m": built[0], "photos": built[1], "drives": built[2], "seconds": seconds}
        finish(out, "town", asked, numbers)
    except (OSError, RasterioError) as error:
        raise OutputError(
            f"town {out} cannot be written: {error}; free some space or choose another --out, then "
            "run again: what is finished stays"
        ) from error
    return TownSummary(out, seed, float(size_m), *built, seconds)


def _asked(seed: int, size_m: float, photos: PhotoPlan) -> dict[str, Any]:
    """What tells a town from another; without the keys that older towns do not have."""
    plan = asdict(photos)
    if not photos.scattered:
        del plan["scattered"]
    if photos.turns == 1:
        del plan["turns"]
    return {"generator": GENERATOR, "seed": seed, "size_m": size_m, "photos": plan}


def _silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def _check(size_m: float, photos: PhotoPlan) -> None:
    if not SMALLEST_M <= size_m <= LARGEST_M:
        raise ConfigError(
            f"town size {size_m:g} m (--size-m) is out of range: "
            f"choose {SMALLEST_M:g} to {LARGEST_M:g} m"
        )
    if min(photos.train_photos, photos.test_photos) < 0:
        raise ConfigError("a town cannot have fewer than 0 photos: set train_photos, test_photos")
    if not 1 <= photos.turns <= 36:
        raise ConfigError(f"{photos.turns} photos at each stop are out of range: choose 1 to 36")
    if not (16 <= photos.height_px <= 4096 and 16 <= photos.width_px <= 4096):
        raise ConfigError(
            f"photos of {photos.width_px}x{photos.height_px} px are out of range: "
            "choose 16 to 4096 px a side"
        )


def _build(
    out: Path, seed: int, size_m: float, photos: PhotoPlan, workers: int, progress: Progress
) -> tuple[float, int, int]:
    """Roads in metres, photos, drives. Every part has a random stream of its own."""
    progress("town", 0, 4)
    site = _site(seed, size_m)
    town = lay_out(np.random.default_rng([seed, 1]), size_m)
    progress("town", 1, 4)
    north_deg = _north_deg(site, size_m)
    if not all((out / name).exists() for name in RASTERS):
        model = paint(np.random.default_rng([seed, 2]), town, GSD_M)
        progress("town", 2, 4)
        middle = site.locate(np.full((1, 2), size_m / 2))[0]
        day = map_day(np.random.default_rng([seed, 3]), float(middle[0]), north_deg)
        _write_rasters(out, site, town, model, day, seed)
    progress("town", 3, 4)
    days, drives = _plan(out, seed, site, town, photos, north_deg)
    _write_roads(out, site, town)
    _write(out / "truth.csv", truth_of(drives))
    progress("town", 4, 4)
    size_px = (photos.width_px, photos.height_px)
    place = SyntheticTown(out, tuple(town.bays))
    shooting = Shooting(out, seed, place, tuple(days), size_px, photos.nuisances)
    count = shoot(shooting, drives, workers, lambda done, total: progress("photos", done, total))
    return sum(street.line.length for street in town.streets), count, len(drives)


def _plan(
    out: Path, seed: int, site: _Site, town: Town, photos: PhotoPlan, north_deg: float
) -> tuple[list[ShootingDay], list[Drive]]:
    """The days of the photos, and the photos of each drive."""
    size_m, plain = town.size_m, not photos.nuisances
    lat, lng = site.locate(np.full((1, 2), size_m / 2))[0].tolist()
    days = plan_days(np.random.default_rng([seed, 4]), lat, lng, north_deg, not plain)
    if photos.scattered and plain:
        days = under_one_light(days)
    drives = (plan_scattered if photos.scattered else plan_drives)(
        np.random.default_rng([seed, 5]),
        town.streets,
        _free_ground(out, size_m),
        days,
        (photos.train_photos, photos.test_photos),
        site.locate,
        north_deg,
        not plain,
    )
    if photos.turns > 1:
        drives = [turned_on_the_spot(drive, photos.turns) for drive in drives]
    return days, drives


def _free_ground(out: Path, size_m: float) -> Callable[[F64], NDArray[np.bool_]]:
    """Says where a camera can stand: on dry ground, clear of buildings, hedges and the border."""
    model, gsd_m = read_model(out)
    cover = model.materials[0]
    barred = (cover == BUILDING) | (cover == HEDGE) | (cover == WATER)
    near = np.asarray(Image.fromarray(barred).convert("L").filter(ImageFilter.MaxFilter(5))) > 0

    def free(points: F64) -> NDArray[np.bool_]:
        inside = ((points > BORDER_M) & (points < size_m - BORDER_M)).all(1)
        cells = np.clip((points / gsd_m).astype(int), 0, len(near) - 1)
        return np.asarray(inside & ~near[cells[:, 1], cells[:, 0]])

    return free


def _site(seed: int, size_m: float) -> _Site:
    """A place of a town's own, aligned to nothing."""
    rng = np.random.default_rng([seed, 6])
    south, north, west, east = LANDS[int(rng.integers(len(LANDS)))]
    lat, lng = rng.uniform(south, north), rng.uniform(west, east)
    epsg = (32600 if lat > 0 else 32700) + int((lng + 180) // 6) + 1
    x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(lng, lat)
    to_degrees = Transformer.from_crs(epsg, 4326, always_xy=True)
    return _Site(epsg, round(x - size_m / 2, 2), round(y + size_m / 2, 2), to_degrees)


def _north_deg(site: _Site, size_m: float) -> float:
    """Bearing of true north on the town's grid."""
    blank = Scene(
        np.zeros((2, 2), PIXEL),
        size_m / 2,
        f"EPSG:{site.epsg}",
        from_origin(site.east_m, site.north_m, size_m / 2, size_m / 2),
    )
    return blank.north_deg()


RASTERS = ("ortho.tif", "surface.tif", "terrain.tif", "materials.tif")


def _write_rasters(out: Path, site: _Site, town: Town, model: Model, day: Day, seed: int) -> None:
    rng = np.random.default_rng([seed, 7])
    seen = under_the_sun(model, town.bays, day, GSD_M, rng)
    ortho = np.stack([seen["red"], seen["green"], seen["blue"]])
    albedo = np.moveaxis(model.albedo, 2, 0)
    layers = (
        ortho,
        model.height[None],
        model.terrain[None],
        np.concatenate([model.materials, albedo]),
    )
    for name, bands in zip(RASTERS, layers, strict=True):
        _write(out / name, _geotiff(site, bands))


def _geotiff(site: _Site, bands: NDArray[Any]) -> bytes:
    """A tiled GeoTIFF of bands (C, H, W); in memory, so that a full disk is an OSError."""
    count, rows, columns = bands.shape
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            height=rows,
            width=columns,
            count=count,
            dtype=bands.dtype.name,
            crs=f"EPSG:{site.epsg}",
            transform=site.transform,
            tiled=True,
            blockxsize=256,
            blockysize=256,
            compress="deflate",
            zlevel=1,
            interleave="band",
            predictor=3 if bands.dtype.kind == "f" else 2,
            photometric="RGB" if count == 3 else "MINISBLACK",
        ) as raster:
            raster.write(bands)
        return bytes(memory.read())


def _write_roads(out: Path, site: _Site, town: Town) -> None:
    features = []
    for street in town.streets:
        places = site.locate(street.points)
        line = [[round(lng, 7), round(lat, 7)] for lat, lng in places.tolist()]
        properties = {
            "name": street.name,
            "class": ("arterial", "street", "lane")[street.rank],
            "width_m": street.width_m,
        }
        geometry = {"type": "LineString", "coordinates": line}
        features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    collection = {"type": "FeatureCollection", "features": features}
    _write(out / "roads.geojson", json.dumps(collection).encode())


def _write(path: Path, data: bytes) -> None:
    """All or nothing: through a temporary name."""
    fresh = path.with_name(path.name + ".tmp")
    fresh.write_bytes(data)
    os.replace(fresh, path)
