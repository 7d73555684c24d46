"""The photos of a place: every drive rendered, developed and written, in processes.

Knows nothing of how the place or its drives came about; `SyntheticTown` reads a town's rasters.
"""

import csv
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import rasterio
from numpy.random import Generator
from numpy.typing import NDArray
from rasterio.transform import Affine

from data_prep.develop import add_passers_by, encode, expose
from data_prep.drives import Drive, ShootingDay, Shot
from data_prep.render import Camera, Light, perspective_optics, render_canvas
from data_prep.scene import Scene
from data_prep.town_light import under_the_sun
from data_prep.town_paint import Model
from data_prep.town_parts import Bay
from zoomloc.world.processes import worker_pool

F32 = NDArray[np.float32]


class Place(Protocol):
    """What is photographed. Sent to every worker before it is first looked at."""

    def dressed(self, day: ShootingDay, rng: Generator) -> Scene:
        """The place as it looks on a day."""


@dataclass
class SyntheticTown:
    """A synthetic town; its rasters are read when they are first needed."""

    out: Path
    bays: tuple[Bay, ...]
    _read: tuple[Model, float] | None = field(default=None, init=False, repr=False)

    def dressed(self, day: ShootingDay, rng: Generator) -> Scene:
        """The town with a day's light, season and parked cars."""
        self._read = self._read or read_model(self.out)
        model, gsd_m = self._read
        pixels = under_the_sun(model, list(self.bays), day.light, gsd_m, rng)
        return Scene(pixels, gsd_m, "", Affine.identity())


@dataclass(frozen=True)
class Shooting:
    """What a worker needs to take the photos of any drive."""

    out: Path
    seed: int
    place: Place
    days: tuple[ShootingDay, ...]
    size_px: tuple[int, int]  # width, height
    nuisances: bool


def shoot(
    shooting: Shooting, drives: list[Drive], workers: int, progress: Callable[[int, int], None]
) -> int:
    """Write all photos that are missing; returns how many there are. Same bytes for any workers."""
    total = sum(len(drive.shots) for drive in drives)
    done = 0
    # day by day, so that each worker dresses the place for a day only once
    for drive_photos in _over_drives(
        shooting, sorted(drives, key=lambda drive: drive.day), workers
    ):
        done += drive_photos
        progress(done, total)
    return total


def _over_drives(shooting: Shooting, drives: list[Drive], workers: int) -> Iterator[int]:
    if workers <= 1:
        yield from map(partial(_shoot_drive, _Studio(shooting)), drives)
        return
    with worker_pool(workers, _open_studio, (shooting,)) as pool:
        yield from pool.map(_shoot_in_worker, drives)


class _Studio:
    """The place of one process, dressed for one day at a time."""

    def __init__(self, shooting: Shooting) -> None:
        self.shooting = shooting
        self.canvas: F32 | None = None  # of the last photo, painted over by the next
        self._dressed: tuple[int, Scene, Light] | None = None

    def on_day(self, number: int) -> tuple[Scene, Light]:
        """The place as it looks on a day, and the day's light."""
        if self._dressed is None or self._dressed[0] != number:
            self._dressed = None  # free the last day's memory first
            self._dressed = (number, *self._dress(number))
        return self._dressed[1:]

    def _dress(self, number: int) -> tuple[Scene, Light]:
        day = self.shooting.days[number]
        rng = np.random.default_rng([self.shooting.seed, 77, number])
        return self.shooting.place.dressed(day, rng), _light_of(day, rng)


_studio: list[_Studio] = []  # of a worker process: filled once by the pool's initializer


def _open_studio(shooting: Shooting) -> None:
    _studio[:] = [_Studio(shooting)]


def _shoot_in_worker(drive: Drive) -> int:
    return _shoot_drive(_studio[0], drive)


def _shoot_drive(studio: _Studio, drive: Drive) -> int:
    shooting = studio.shooting
    folder = shooting.out / "photos" / drive.name
    folder.mkdir(parents=True, exist_ok=True)
    for shot in drive.shots:
        path = folder / photo_name(shot)
        if not path.exists():
            data = take(studio, drive, shot)
            fresh = path.with_suffix(".tmp")
            fresh.write_bytes(data)
            os.replace(fresh, path)
    return len(drive.shots)


def photo_name(shot: Shot) -> str:
    """File name of a photo in its drive's folder."""
    return f"{shot.frame:04d}.jpg"


def truth_of(drives: list[Drive]) -> bytes:
    """`truth.csv`: the true place and bearing of every photo, EPSG:4326."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["file", "lat", "lng", "bearing_deg"])
    for drive in drives:
        for shot in drive.shots:
            name = f"{drive.name}/{photo_name(shot)}"
            place = (f"{shot.place.lat:.8f}", f"{shot.place.lng:.8f}")
            rows.writerow([name, *place, f"{shot.true_bearing_deg:.2f}"])
    return text.getvalue().encode()


def take(studio: _Studio, drive: Drive, shot: Shot) -> bytes:
    """JPEG bytes of one photo; depends on the place, the drive and the frame alone."""
    shooting, rig = studio.shooting, drive.rig
    day = shooting.days[drive.day]
    scene, light = studio.on_day(drive.day)
    rng = np.random.default_rng([shooting.seed, 99, drive.number, shot.frame])
    camera = Camera(
        x_m=shot.x_m,
        y_m=shot.y_m,
        bearing_deg=shot.bearing_deg,
        height_m=rig.height_m,
        fov_deg=rig.fov_deg,
        pitch_deg=shot.pitch_deg,
        roll_deg=shot.roll_deg,
        width_px=shooting.size_px[0],
        height_px=shooting.size_px[1],
    )
    optics = perspective_optics(scene, camera)
    canvas = render_canvas(scene, optics, camera.height_px, light, studio.canvas)
    studio.canvas = canvas
    if shooting.nuisances:
        add_passers_by(rng, canvas, optics, shot.bearing_deg, light.ambient + 0.4 * light.sun)
    picture = expose(rng, canvas, rig.gain, day.cast, rig.blur_px, shooting.nuisances)
    return encode(picture, shot.claim, rig.quality)


def _light_of(day: ShootingDay, rng: Generator) -> Light:
    cloud = day.cloud
    zenith = np.array([78, 126, 196]) * (1 - cloud) + np.array([168, 174, 182]) * cloud
    haze = np.array([200, 213, 226]) * (1 - cloud) + np.array([206, 208, 210]) * cloud
    return Light(
        sun_azimuth_deg=day.light.sun_azimuth_deg,
        sun_elevation_deg=day.light.sun_elevation_deg,
        sun=day.light.sun,
        ambient=day.light.ambient,
        zenith=(float(zenith[0]), float(zenith[1]), float(zenith[2])),
        haze=(float(haze[0]), float(haze[1]), float(haze[2])),
        visibility_m=day.visibility_m,
        clouds=_clouds(rng, cloud),
    )


def _clouds(rng: Generator, share: float) -> F32:
    """(64, 256) cloud cover over elevation and azimuth: smooth noise of several sizes."""
    azimuth = np.linspace(0, 2 * np.pi, 256, endpoint=False)
    height = np.linspace(0, 1, 64)[:, None]
    noise = np.zeros((64, 256))
    for wave in (2, 3, 5, 8, 13, 21):
        for _ in range(2):
            phase, climb = rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 2.5) * wave
            swirl = 0.6 * np.sin(3 * height + phase)
            noise += np.sin(wave * azimuth + climb * height * 2 + phase + swirl) / wave**0.7
    noise = noise / noise.std()
    return np.asarray(np.clip(0.5 * (noise + 3.2 * share - 1.2), 0, 0.92), np.float32)


def read_model(out: Path) -> tuple[Model, float]:
    """A town's rasters and their pixel size in metres, from its files."""
    with (
        rasterio.open(out / "surface.tif") as surface,
        rasterio.open(out / "terrain.tif") as terrain,
        rasterio.open(out / "materials.tif") as materials,
    ):
        layers = materials.read()
        albedo = np.ascontiguousarray(np.moveaxis(layers[6:9], 0, 2))
        model = Model(albedo, surface.read(1), terrain.read(1), np.ascontiguousarray(layers[:6]))
        return model, float(surface.transform.a)
