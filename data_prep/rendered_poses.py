"""Where somebody with a camera could walk on real ground, and short walks there.

Knows nothing of streets as a map has them, of light or of files. Points are metres east and south
of the scene's north-west corner; bearings are clockwise from the raster's north.
"""

from dataclasses import replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from rasterio.features import sieve

from data_prep.drives import Drive, Locate, ShootingDay, draw_rig, shots_along
from data_prep.scene import BUILDING, Pixels, Scene
from zoomloc.errors import ImageryError

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]

FREE_M, CLEAR_M = 0.3, 3.0  # nothing higher than this, within this distance
EDGE_M = 20.0  # photos keep this far from where the imagery or the surface ends
STEEPEST = 0.15
GREY, GREENEST = 0.2, 4  # paved ground: most saturation, most green over red
DARKEST = 0.72  # and least brightness, as a share of what is usual
SMALLEST_M2 = 150.0  # of a piece of such ground
PAVED_SHARE = 0.7  # of the pixels around a paved one are paved too: no cars, no lone stones
FRAMES, STEP_M, EYE_M = (5, 15), (5.0, 10.0), (1.4, 2.5)
SIGHT_M = 45.0  # how far ahead a walker looks for free ground
TURNS_DEG = np.arange(-30.0, 31.0, 10.0)
HEADINGS_DEG = np.arange(0.0, 360.0, 15.0)
CANDIDATES = 12  # places of which a walk begins at the one farthest from all others


def street_ground(scene: Scene, known: Mask) -> Mask:
    """(H, W) paved, level, dry ground in the open, `EDGE_M` inside of what is known."""
    pixels, gsd_m = scene.pixels, scene.gsd_m
    standing = pixels["height"] - pixels["terrain"] > FREE_M
    standing |= pixels["cover"] >= BUILDING
    paved = _paved(pixels, ~standing)
    near_px = max(1, round(CLEAR_M / gsd_m))
    found = _share(standing, near_px) == 0
    found &= _share(paved, near_px) > PAVED_SHARE
    found &= _share(~known, round(EDGE_M / gsd_m)) == 0
    found &= _slope(pixels["terrain"], near_px, gsd_m) < STEEPEST
    edge_px = round(EDGE_M / gsd_m) + 1
    inside = np.zeros_like(found)
    inside[edge_px:-edge_px, edge_px:-edge_px] = True
    smallest_px = max(1, round(SMALLEST_M2 / gsd_m**2))
    found &= inside
    return np.asarray(found & (sieve(found.astype(np.uint8), smallest_px) > 0))


def _paved(pixels: Pixels, open_ground: Mask) -> Mask:
    """(H, W) grey and as bright as most of what is grey: water and shadows are darker."""
    bands = np.stack([pixels[band] for band in ("red", "green", "blue")]).astype(np.float32)
    brightest, mean = bands.max(0), bands.mean(0)
    grey: Mask = open_ground & (brightest - bands.min(0) < GREY * brightest)
    grey &= bands[1] - bands[0] < GREENEST
    if not grey.any():
        return grey
    grey &= mean > DARKEST * np.median(mean[grey])
    return grey


def _share(mask: Mask, reach_px: int) -> NDArray[np.float32]:
    """(H, W) share of True in the square that reaches so far around each pixel."""
    wide = np.pad(mask, reach_px, mode="edge").astype(np.int32)
    total = np.pad(wide.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    side = 2 * reach_px + 1
    count = (
        total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    )
    return np.asarray(count / side**2, np.float32)


def _slope(terrain: NDArray[np.float32], reach_px: int, gsd_m: float) -> NDArray[np.float32]:
    """(H, W) rise over run of the ground over twice that reach."""
    wide = np.pad(terrain, reach_px, mode="edge")
    middle, run_m = slice(reach_px, -reach_px), 2 * reach_px * gsd_m
    across = wide[middle, 2 * reach_px :] - wide[middle, : -2 * reach_px]
    down = wide[2 * reach_px :, middle] - wide[: -2 * reach_px, middle]
    return np.asarray(np.hypot(across, down) / run_m, np.float32)


def plan_walks(
    rng: Generator,
    ground: Mask,
    gsd_m: float,
    days: list[ShootingDay],
    photos: int,
    locate: Locate,
    north_deg: float,
) -> list[Drive]:
    """Walks of 5 to 15 photos on free ground (H, W), spread out; exactly so many photos in all.

    The last walk may be shorter. Raises ImageryError where the ground allows no walk.
    """
    walker, walks, left = _Walker(rng, ground, gsd_m), list[Drive](), photos
    for _ in range(40 + 8 * photos):
        if left < 1:
            return walks
        path = walker.next_path()
        if len(path) < FRAMES[0]:
            continue
        path = path[:left]
        rig = replace(draw_rig(rng, True), height_m=float(rng.uniform(*EYE_M)))
        index, later = len(walks) % len(days), len(walks) // len(days)
        shots = shots_along(rng, path, rig, days[index], later, locate, north_deg, True)
        name = f"{days[index].date.isoformat()}_w{len(walks):04d}"
        walks.append(Drive(name, len(walks), index, rig, shots))
        left -= len(path)
    raise ImageryError(
        f"only {photos - left} of {photos} photos found a place: there is too little paved, open "
        "ground; give larger rasters or ask for fewer photos"
    )


class _Walker:
    """Finds walks on free ground, each far from the ones before."""

    def __init__(self, rng: Generator, ground: Mask, gsd_m: float) -> None:
        self._rng, self._ground, self._gsd_m = rng, ground, gsd_m
        self._places = np.argwhere(ground)
        self._taken = np.full((1, 2), -1e6)  # where photos were taken

    def next_path(self) -> F64:
        """(N, 3) x, y and direction of 5 to 15 photos; fewer where the ground ends."""
        if not len(self._places):
            return np.zeros((0, 3))
        frames = int(self._rng.integers(FRAMES[0], FRAMES[1] + 1))
        step_m = float(self._rng.uniform(*STEP_M))
        points = [self._start()]
        bearing = self._first_bearing(points[0])
        bearings = []
        for _ in range(frames):
            turns = bearing + TURNS_DEG
            ahead_m = self._sight(points[-1], turns)
            # the first 20 m count most, straight on counts as free as 4 m more
            worth = np.minimum(ahead_m, 20.0) + 0.2 * ahead_m - 0.13 * np.abs(TURNS_DEG)
            best = int(np.argmax(worth))
            bearings.append(float(turns[best]))
            if ahead_m[best] < step_m:
                break
            bearing = turns[best]
            points.append(points[-1] + step_m * _towards(bearing))
        path = np.column_stack([points[: len(bearings)], bearings])
        if len(path) >= FRAMES[0]:
            self._taken = np.concatenate([self._taken, path[:, :2]])
        return path

    def _start(self) -> F64:
        cells = self._places[self._rng.integers(0, len(self._places), CANDIDATES)]
        points = (cells[:, ::-1] + self._rng.random((CANDIDATES, 2))) * self._gsd_m
        apart = np.hypot(*(points[:, None] - self._taken[None]).transpose(2, 0, 1)).min(1)
        return np.asarray(points[int(np.argmax(apart))])

    def _first_bearing(self, point: F64) -> float:
        """Along the street: the farther one can see, the likelier."""
        sight_m = self._sight(point, HEADINGS_DEG) ** 3 + 1e-3
        bearing = self._rng.choice(HEADINGS_DEG, p=sight_m / sight_m.sum())
        return float(bearing + self._rng.uniform(-7.5, 7.5))

    def _sight(self, point: F64, bearings_deg: F64) -> F64:
        """(N,) metres of free ground from a point in each direction, at most SIGHT_M."""
        away_m = np.arange(0.0, SIGHT_M, 0.5 * self._gsd_m)
        points = point + away_m[:, None, None] * _towards(bearings_deg)
        cells = np.floor(points / self._gsd_m).astype(int)
        rows, columns = self._ground.shape
        within = (cells >= 0).all(2) & (cells[..., 0] < columns) & (cells[..., 1] < rows)
        cells = np.where(within[..., None], cells, 0)
        free = within & self._ground[cells[..., 1], cells[..., 0]]
        return np.asarray(np.logical_and.accumulate(free, 0).sum(0) * 0.5 * self._gsd_m)


def _towards(bearing_deg: F64 | float) -> F64:
    """(..., 2) unit vectors east, south."""
    turn = np.radians(bearing_deg)
    return np.stack([np.sin(turn), -np.cos(turn)], -1)
