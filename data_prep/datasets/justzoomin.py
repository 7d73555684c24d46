"""The data set of *Just Zoom In* as released, into photos.

Knows nothing of the paper's model or imagery (its tile store is a source of imagery), and
downloads nothing. Written after the dataset card https://huggingface.co/datasets/pcvlab/justzoomin,
README.md, configs/base.py and data/dataset.py of https://github.com/OSUPCVLab/justzoomin
(cef2183), with its archives unpacked:

    metadata/large_area_train_map.csv, large_area_val_map.csv   image_id,latitude,longitude,sequence
    streetview/images/<image_id>_undistorted.jpg

``sequence`` is no drive: it is the zoom path of the photo, four cells of a 4 x 4 grid, from
10 km down to 39 m. Drives, times and headings are not released, so the photos of one cell of
156 m are kept together as if they were a drive. The published split is kept. It is very likely a
random tenth of the images (the authors' earlier script draws one), which leaves neighbours of one
drive on both sides: taken for sequence-disjoint it is refused; split again for figures without
that leak.
"""

import csv
import json
import math
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path

from data_prep.photos.pictures import each_facts, reading_pool
from data_prep.photos.reading import Found, Task
from zoomloc.config.photos import PaperPhotos
from zoomloc.errors import PhotoError
from zoomloc.world.cells import LatLng, distance_m
from zoomloc.world.photos import Photo, Skipped

NAME, LICENCE = "justzoomin", "CC-BY-SA-4.0"
CREATOR = "Mapillary contributors, by Just Zoom In (pcvlab/justzoomin)"
COLUMNS = ("image_id", "latitude", "longitude", "sequence")
METADATA = ("metadata", ".")
PICTURES = ("streetview/images", "images", ".")
SUFFIX = "_undistorted.jpg"
SPLITS = ("train", "val", "test")

# the paper's canvas: configs/base.py
CENTRE = LatLng(38.8936, -77.0116)
EAST_M, NORTH_M, SIDE_M = 2000.0, 0.0, 10_000.0  # of the middle of the canvas, and its side
GRID, STEPS = 4, 4
SPHERE_M = 6_378_137.0  # radius, as the paper's code measures
MOST_APART_M = 60.0  # a photo from the middle of its cell: half a diagonal is 28 m, and slack

BATCH = 1024


def read_justzoomin(source: PaperPhotos, task: Task) -> Found:
    """The photos of the released data set, and the rows that cannot be one.

    Raises PhotoError where metadata or pictures are not where the release puts them. Pictures of
    archives that were not downloaded are skipped.
    """
    tables, pictures = _tables(source.path), _pictures(source.path)
    total, done = sum(_lines(table) for table in tables), 0
    seen: set[int] = set()
    with reading_pool(task.workers, total) as pool:
        for table in tables:
            rows = _rows(table)
            while batch := list(islice(rows, BATCH)):
                yield from _batch(source, table, pictures, batch, seen, pool)
                done += len(batch)
                if task.progress is not None:
                    task.progress(done, max(done, total))


# 1. files


def _tables(folder: Path) -> list[Path]:
    """The metadata files, by name."""
    if not folder.is_dir():
        raise PhotoError(f"{folder}: no such folder; unpack pcvlab/justzoomin there")
    for place in METADATA:
        found = sorted(path for path in (folder / place).glob("*.csv") if path.is_file())
        if found:
            return found
    raise PhotoError(
        f"{folder}: no metadata/large_area_train_map.csv or other CSV; unpack pcvlab/justzoomin "
        "there"
    )


def _pictures(folder: Path) -> Path:
    """The folder of the pictures."""
    for place in PICTURES:
        if next((folder / place).glob(f"*{SUFFIX}"), None) is not None:
            return folder / place
    raise PhotoError(
        f"{folder}: no streetview/images/<image_id>{SUFFIX}; unpack the archives of "
        "pcvlab/justzoomin there"
    )


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b"")) - 1


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows with their number, 1 below the header. Raises PhotoError where a column is missing."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = csv.DictReader(file)
            names = rows.fieldnames or ()
            missing = [name for name in COLUMNS if name not in names]
            if missing:
                raise PhotoError(
                    f"{path}: no column {', '.join(missing)}; it has {', '.join(names) or 'none'}; "
                    "take it away, or use the metadata of pcvlab/justzoomin"
                )
            for number, row in enumerate(rows, 1):
                yield number, {name: row[name] or "" for name in COLUMNS}
    except (OSError, csv.Error) as error:
        raise PhotoError(f"{path}: cannot be read as CSV ({error})") from error


# 2. rows


def _batch(
    source: PaperPhotos,
    table: Path,
    pictures: Path,
    batch: Sequence[tuple[int, dict[str, str]]],
    seen: set[int],
    pool: ProcessPoolExecutor | None,
) -> Found:
    """Photos of some rows of a metadata file; each picture that there is is seen to be whole."""
    split = next((s for s in SPLITS if s in re.split(r"[\W_]+", table.stem)), None)
    made = [_photo(source, pictures, split, row, seen) for _, row in batch]
    facts = iter(each_facts([one.path for one in made if isinstance(one, Photo)], pool))
    for (number, row), one in zip(batch, made, strict=True):
        fault = one if isinstance(one, str) else next(facts)
        if isinstance(one, str) or isinstance(fault, str):
            name = f"{table.name}, row {number}: {row['image_id'][:40]}"
            yield Skipped(name, str(fault))
        else:
            yield one


def _photo(
    source: PaperPhotos, pictures: Path, split: str | None, row: dict[str, str], seen: set[int]
) -> Photo | str:
    """The photo of a row, or why there is none."""
    image_id = row["image_id"].strip()
    if not re.fullmatch(r"[0-9]{1,20}", image_id):
        return "image_id is no number of Mapillary's"
    place, zooms = _place(row), zoom_path(row["sequence"])
    if place is None:
        return "latitude and longitude are no place"
    if zooms is None:
        return f"sequence is no path of {STEPS} cells of {GRID * GRID}"
    if distance_m(place, middle_of(zooms)) > MOST_APART_M:
        return "sequence ends elsewhere than latitude and longitude say"
    if int(image_id) in seen:
        return "an earlier row has the same image_id"
    seen.add(int(image_id))
    path = pictures / f"{image_id}{SUFFIX}"
    if not path.is_file():
        return "its picture is not there; its archive was perhaps not unpacked"
    return Photo(
        id=f"{NAME}/{image_id}",
        path=path,
        lat=place.lat,
        lng=place.lng,
        bearing_deg=None,
        fov_deg=None,
        projection="perspective",
        captured_at=None,
        sequence_id=f"{NAME}/{'-'.join(map(str, zooms[:-1]))}",
        source=NAME,
        licence=LICENCE,
        creator=CREATOR,
        position_error_m=source.default_position_error_m,
        split=split,
    )


def _place(row: dict[str, str]) -> LatLng | None:
    try:
        place = LatLng(float(row["latitude"]), float(row["longitude"]))
    except ValueError:
        return None
    return place if abs(place.lat) <= 90 and abs(place.lng) <= 180 else None


def zoom_path(text: str) -> tuple[int, ...] | None:
    """The cells of a zoom path as published, '[7, 6, 6, 5]', or None."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list) or len(found) != STEPS:
        return None
    good = all(type(cell) is int and 0 <= cell < GRID * GRID for cell in found)
    return tuple(found) if good else None


def middle_of(zooms: Sequence[int]) -> LatLng:
    """The middle of the cell that a zoom path ends in; rows from north to south, then columns."""
    here, side = _moved(CENTRE, EAST_M, NORTH_M), SIDE_M
    for cell in zooms:
        row, column = divmod(cell, GRID)
        small = side / GRID
        here = _moved(here, (column + 0.5) * small - side / 2, side / 2 - (row + 0.5) * small)
        side = small
    return here


def _moved(place: LatLng, east_m: float, north_m: float) -> LatLng:
    """Metres on the paper's sphere: first east, then north."""
    east_deg = math.degrees(east_m / (SPHERE_M * math.cos(math.radians(place.lat))))
    return LatLng(place.lat + math.degrees(north_m / SPHERE_M), place.lng + east_deg)
