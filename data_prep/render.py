"""Street views of a scene: perspective pictures and equirectangular panoramas.

Knows nothing of towns, drives or picture files; see `march` for the kernels.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.march import Lamp, Optics, march
from data_prep.scene import Scene
from zoomloc.world.cells import LatLng

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]
FAR_M = 320.0


@dataclass(frozen=True)
class Camera:
    """A pose in a scene and the picture it takes.

    x_m east and y_m south of the scene's north-west corner; bearing_deg clockwise from the
    RASTER's north (`camera_at` takes true bearings). Verticals stay upright: pitch (up > 0) and
    roll (clockwise > 0) shift and shear rows, right for the few degrees a carried camera has.
    """

    x_m: float
    y_m: float
    bearing_deg: float
    height_m: float = 1.7  # eye above the bare ground
    fov_deg: float = 80.0  # across the width; 360 for a panorama
    pitch_deg: float = 0.0
    roll_deg: float = 0.0
    width_px: int = 256
    height_px: int = 128


@dataclass(frozen=True)
class Light:
    """Sun and air. Colours are RGB 0-255; azimuth clockwise from the raster's north."""

    sun_azimuth_deg: float = 160.0
    sun_elevation_deg: float = 45.0
    sun: float = 0.75
    ambient: float = 0.55
    zenith: tuple[float, float, float] = (82.0, 130.0, 196.0)
    haze: tuple[float, float, float] = (203.0, 215.0, 226.0)
    visibility_m: float = 900.0
    grain: float = 0.22
    # (rows, columns) 0-1 over elevation and azimuth; one 0 is a clear sky
    clouds: F32 = field(default_factory=lambda: np.zeros((1, 1), np.float32))

    def lamp(self) -> Lamp:
        """The light as the kernels take it."""
        azimuth, elevation = (
            math.radians(self.sun_azimuth_deg),
            math.radians(self.sun_elevation_deg),
        )
        return Lamp(
            sun_x=math.sin(azimuth) * math.cos(elevation),
            sun_y=-math.cos(azimuth) * math.cos(elevation),
            sun_z=math.sin(elevation),
            sun=self.sun,
            ambient=self.ambient,
            visibility_m=self.visibility_m,
            grain=self.grain,
            zenith_red=self.zenith[0],
            zenith_green=self.zenith[1],
            zenith_blue=self.zenith[2],
            haze_red=self.haze[0],
            haze_green=self.haze[1],
            haze_blue=self.haze[2],
        )


def camera_at(scene: Scene, place: LatLng, true_bearing_deg: float, **lens: Any) -> Camera:
    """Camera at a place, looking along a true bearing; `lens` are the other fields of Camera."""
    x_m, y_m = scene.to_xy(place)
    bearing_deg = (true_bearing_deg + scene.north_deg()) % 360.0
    return Camera(x_m=x_m, y_m=y_m, bearing_deg=bearing_deg, **lens)


def render(scene: Scene, camera: Camera, light: Light) -> U8:
    """(h, w, 3) perspective picture; square pixels, fov across the width."""
    optics = perspective_optics(scene, camera)
    return as_picture(render_canvas(scene, optics, camera.height_px, light))


def render_canvas(
    scene: Scene, optics: Optics, height_px: int, light: Light, canvas: F32 | None = None
) -> F32:
    """(w, h, 4) float32: red, green, blue and horizontal distance in metres (1e9 for the sky).

    A `canvas` of that shape is painted over; fresh memory costs a tenth of the time.
    """
    shape = (len(optics.scale), height_px, 4)
    if canvas is None or canvas.shape != shape:
        canvas = np.empty(shape, np.float32)
    march(canvas, scene.pixels, scene.blocks, light.clouds, optics, light.lamp(), scene.highest_m)
    return canvas


def render_panorama(scene: Scene, camera: Camera, light: Light) -> U8:
    """(h, w, 3) equirectangular picture, bearing_deg in its middle, 360 degrees across.

    Rows are elevation at the columns' scale: a height of half the width shows pole to pole, less
    is cut equally above and below. fov, pitch and roll of the camera are not used.
    """
    optics = panorama_optics(scene, camera)
    return as_picture(render_canvas(scene, optics, camera.height_px, light))


def perspective_optics(scene: Scene, camera: Camera) -> Optics:
    """Where the columns of a perspective picture look."""
    across = np.arange(camera.width_px) + 0.5 - camera.width_px / 2
    focal_px = camera.width_px / 2 / math.tan(math.radians(camera.fov_deg) / 2)
    off_axis = np.arctan(across / focal_px)
    horizon = camera.height_px / 2 + focal_px * math.tan(math.radians(camera.pitch_deg))
    return _optics(
        scene,
        camera,
        math.radians(camera.bearing_deg) + off_axis,
        focal_px / np.cos(off_axis),
        horizon - across * math.tan(math.radians(camera.roll_deg)),
        panorama=False,
    )


def panorama_optics(scene: Scene, camera: Camera) -> Optics:
    """Where the columns of an equirectangular picture look."""
    across = (np.arange(camera.width_px) + 0.5) / camera.width_px - 0.5
    rows_per_radian = np.full(camera.width_px, camera.width_px / (2 * math.pi))
    horizon = np.full(camera.width_px, camera.height_px / 2)
    azimuth = math.radians(camera.bearing_deg) + 2 * math.pi * across
    return _optics(scene, camera, azimuth, rows_per_radian, horizon, panorama=True)


def _optics(
    scene: Scene,
    camera: Camera,
    azimuth: Floats,
    scale: Floats,
    horizon: Floats,
    panorama: bool,
) -> Optics:
    return Optics(
        x_m=float(camera.x_m),
        y_m=float(camera.y_m),
        eye_m=scene.ground_m(camera.x_m, camera.y_m) + camera.height_m,
        gsd_m=float(scene.gsd_m),
        far_m=FAR_M,
        towards_x=np.sin(azimuth).astype(np.float32),
        towards_y=(-np.cos(azimuth)).astype(np.float32),
        scale=scale.astype(np.float32),
        horizon=horizon.astype(np.float32),
        panorama=panorama,
    )


def as_picture(canvas: F32) -> U8:
    """(h, w, 3) picture of a canvas (w, h, 4)."""
    return np.ascontiguousarray(np.clip(canvas[:, :, :3], 0, 255).astype(np.uint8).swapaxes(0, 1))
