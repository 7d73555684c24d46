"""Photos at independent points of a town's roads, where `drives` has cameras that move.

Knows nothing of pixels or files. Points are metres east and south of the town's north-west corner.
"""

from dataclasses import replace

import numpy as np
import shapely
from numpy.random import Generator
from numpy.typing import NDArray

from data_prep.drives import Drive, Free, Locate, ShootingDay, draw_rig, shots_along
from data_prep.town_streets import Street

F64 = NDArray[np.float64]

GROUP = 100  # photos that share a camera, a day and a folder
ASIDE = 0.25  # farthest from the centre line, as a share of the carriageway's width
TURN_DEG = 10.0  # spread of the viewing direction about the street's
TRIES = 400  # draws before a town is taken for one without streets


def plan_scattered(
    rng: Generator,
    streets: list[Street],
    free: Free,
    days: list[ShootingDay],
    photos: tuple[int, int],
    locate: Locate,
    north_deg: float,
    nuisances: bool,
) -> list[Drive]:
    """Exactly so many (training, test) photos, uniform over the length of the streets.

    They look along the street, either way. The arguments are those of `drives.plan_drives`; a
    Drive is here a group of photos that share no more than a camera and a day.
    """
    groups: list[Drive] = []
    for test, total in ((False, photos[0]), (True, photos[1])):
        poses = _poses(rng, streets, free, total)
        open_days = [index for index, day in enumerate(days) if day.test == test]
        for number, first in enumerate(range(0, len(poses), GROUP)):
            rig = replace(draw_rig(rng, nuisances), mount_deg=0.0)
            index = open_days[number % len(open_days)]
            day, later = days[index], number // len(open_days)
            path = poses[first : first + GROUP]
            shots = shots_along(rng, path, rig, day, later, locate, north_deg, nuisances)
            name = f"{day.date.isoformat()}_d{len(groups):03d}"
            groups.append(Drive(name, len(groups), index, rig, shots))
    return sorted(groups, key=lambda group: group.name)


def _poses(rng: Generator, streets: list[Street], free: Free, count: int) -> F64:
    """(count, 3) x, y and viewing direction; fewer where a town has no free street."""
    found = [np.zeros((0, 3))]
    for _ in range(TRIES):
        missing = count - sum(len(poses) for poses in found)
        if missing <= 0:
            break
        poses = _draw(rng, streets, missing + 64)
        found.append(poses[free(poses[:, :2])][:missing])
    return np.concatenate(found)


def _draw(rng: Generator, streets: list[Street], count: int) -> F64:
    """(count, 3) poses on streets, whether a camera can stand there or not."""
    lines = np.array([street.line for street in streets])
    lengths = shapely.length(lines)
    ends = np.cumsum(lengths)
    at = rng.uniform(0, ends[-1], count)
    chosen = np.searchsorted(ends, at, side="right")
    along = at - np.concatenate([[0], ends])[chosen]
    here, behind, ahead = (
        shapely.get_coordinates(
            shapely.line_interpolate_point(
                lines[chosen], np.clip(along + shift, 0, lengths[chosen])
            )
        )
        for shift in (0.0, -1.0, 1.0)
    )
    travel = (ahead - behind) / (np.hypot(*(ahead - behind).T)[:, None] + 1e-9)
    width_m = np.array([street.width_m for street in streets])[chosen]
    aside_m = rng.uniform(-ASIDE, ASIDE, count) * width_m
    points = here + aside_m[:, None] * np.column_stack([-travel[:, 1], travel[:, 0]])
    bearing = np.degrees(np.arctan2(travel[:, 0], -travel[:, 1]))
    bearing += 180.0 * rng.integers(0, 2, count) + rng.normal(0, TURN_DEG, count)
    return np.column_stack([points, bearing % 360])
