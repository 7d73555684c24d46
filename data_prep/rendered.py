"""Street views rendered from a real orthophoto and surface model, as a folder of photos.

Knows nothing of how ground is told from roofs, where a camera can stand, or who reads the folder.
Not photographs: no lens ever saw them, facades are invented, and they must be called rendered.

    photos/<walk>/<frame>.jpg   with EXIF, as a phone writes it
    truth.csv                   file, lat, lng, bearing_deg (EPSG:4326, true north)
    rendered.json               written last: what was asked, sources, counts
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from data_prep.begun import finish, found_or_begun
from data_prep.drives import Drive, Locate, ShootingDay, plan_days
from data_prep.real_place import RealPlace, check_rasters
from data_prep.rendered_poses import plan_walks, street_ground
from data_prep.scene import Scene
from data_prep.town_photos import Shooting, shoot, truth_of
from zoomloc.errors import ConfigError, OutputError
from zoomloc.world.files import sha256_of, written_whole

F64 = NDArray[np.float64]
Progress = Callable[[str, int, int], None]

GENERATOR = 1  # version: raised when the same seed gives other photos


@dataclass(frozen=True)
class RenderedSummary:
    """What was rendered."""

    out: Path
    seed: int
    photos: int
    walks: int
    ground_m2: float  # where a camera could stand
    seconds: float


def build_rendered(
    ortho: Path,
    surface: Path,
    terrain: Path,
    out: Path,
    photos: int,
    seed: int,
    width_px: int = 128,
    height_px: int = 64,
    workers: int = 1,
    progress: Progress | None = None,
) -> RenderedSummary:
    """Render photos on walks over paved, open ground into `out`, or finish what was begun there.

    `ortho` (RGB), `surface` (highest points) and `terrain` (bare ground) are GeoTIFFs of one place
    in one projected CRS; horizontal units come from the CRS (feet work), heights are metres.
    `progress` gets a stage ("ground" or "photos"), how much is done and how much there is.
    Deterministic: same rasters, seed and sizes, same bytes. A finished folder is left as it is.
    Raises ConfigError for numbers or a folder that cannot be used, ImageryError for rasters that
    are missing, do not lie on each other or have no free ground, OutputError for a full disk.
    """
    _check(photos, width_px, height_px)
    check_rasters(ortho, surface, terrain)
    out, begun, told = Path(out), time.perf_counter(), progress or _silent
    rasters = {"ortho": ortho, "surface": surface, "terrain": terrain}
    asked = {
        "generator": GENERATOR,
        "seed": seed,
        "photos": photos,
        "size_px": [width_px, height_px],
        "sha256": {name: sha256_of(path) for name, path in rasters.items()},
    }
    try:
        found = found_or_begun(out, "rendered", asked)
        if found is not None:
            return RenderedSummary(out, seed, **found)
        place = RealPlace(ortho, surface, terrain, seed)
        built = _build(out, place, photos, (width_px, height_px), workers, told)
        built["seconds"] = time.perf_counter() - begun
        finish(out, "rendered", asked, built)
    except OSError as error:
        raise OutputError(
            f"photos {out} cannot be written: {error}; free some space or choose another --out, "
            "then run again: what is finished stays"
        ) from error
    return RenderedSummary(out, seed, **built)


def _silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def _check(photos: int, width_px: int, height_px: int) -> None:
    if photos < 1:
        raise ConfigError(f"{photos} rendered photos: ask for 1 or more")
    if not (16 <= height_px <= 4096 and 16 <= width_px <= 4096):
        raise ConfigError(
            f"photos of {width_px}x{height_px} px are out of range: choose 16 to 4096 px a side"
        )


def _build(
    out: Path,
    place: RealPlace,
    photos: int,
    size_px: tuple[int, int],
    workers: int,
    progress: Progress,
) -> dict[str, Any]:
    """Counts, as `RenderedSummary` names them. Every part has a random stream of its own."""
    progress("ground", 0, 1)
    scene = place.scene
    ground = street_ground(scene, place.known())
    days, walks = _plan(place.seed, scene, ground, photos)
    with written_whole(out / "truth.csv") as temporary:
        temporary.write_bytes(truth_of(walks))
    progress("ground", 1, 1)
    # a worker reads the rasters itself: they are smaller than a scene
    fresh = (
        place if workers <= 1 else RealPlace(place.ortho, place.surface, place.terrain, place.seed)
    )
    shooting = Shooting(out, place.seed, fresh, tuple(days), size_px, nuisances=True)
    count = shoot(shooting, walks, workers, lambda done, total: progress("photos", done, total))
    ground_m2 = round(float(ground.sum()) * scene.gsd_m**2, 1)
    return {"photos": count, "walks": len(walks), "ground_m2": ground_m2}


def _plan(
    seed: int, scene: Scene, ground: NDArray[np.bool_], photos: int
) -> tuple[list[ShootingDay], list[Drive]]:
    north_deg = scene.north_deg()
    width_m, height_m = scene.size_m
    middle = scene.to_latlng(width_m / 2, height_m / 2)
    days = plan_days(
        np.random.default_rng([seed, 4]), middle.lat, middle.lng, north_deg, nuisances=True
    )
    rng = np.random.default_rng([seed, 5])
    locate = _locator(scene)
    return days, plan_walks(rng, ground, scene.gsd_m, days, photos, locate, north_deg)


def _locator(scene: Scene) -> Locate:
    """Points (N, 2) of a scene to (N, 2) lat, lng; `Scene.to_latlng` for many at once."""
    to_degrees = Transformer.from_crs(scene.crs, 4326, always_xy=True)
    unit = scene.transform.a / scene.gsd_m  # CRS units in a metre

    def locate(points: F64) -> F64:
        east = scene.transform.c + points[:, 0] * unit
        north = scene.transform.f - points[:, 1] * unit
        lng, lat = to_degrees.transform(east, north)
        return np.stack([lat, lng], 1)

    return locate
