"""Tile folders of the package tiledwebmaps, in which the paper's imagery is released.

Knows nothing of other stores. ``layout.yaml`` says where tile (0, 0) lies and how large a tile of
zoom 0 is; the finest level is often zoom 0 and coarser ones -1, -2, ...; with the axes
``[east, north]`` rows count northwards, though each picture is north-up.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pyproj import CRS
from pyproj.exceptions import CRSError

from data_prep.imagery.grids import Address, GridPicture, TileGrid
from data_prep.imagery.sheets import RGBA, Placed
from data_prep.imagery.warp import warped
from zoomloc.errors import ImageryError
from zoomloc.world.cells import EQUATOR_M, Cell, LatLng

LAYOUT_NAME = "layout.yaml"
PACKED, PACKED_INDEX = "images.dat", "images-meta.npz"
HALF_M = EQUATOR_M / 2
XYZ = {
    "crs": "epsg:3857",
    "tile_axes": ["east", "south"],
    "tile_shape_crs": [EQUATOR_M, EQUATOR_M],
    "origin_crs": [-HALF_M, HALF_M],
}


class Layout(BaseModel):
    """What ``layout.yaml`` says; keys that do not matter here are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    crs: str = "epsg:3857"
    tile_axes: tuple[str, str] = ("east", "south")
    tile_shape_px: tuple[int, int] = (256, 256)
    tile_shape_crs: tuple[float, float] = (1.0, 1.0)
    origin_crs: tuple[float, float] = (0.0, 0.0)
    size_crs: tuple[float, float] | None = None
    path: str = Field("{zoom}/{x}/{y}.jpg")

    @property
    def north(self) -> bool:
        """Whether rows count northwards."""
        return self.tile_axes[1] == "north"

    def file(self, zoom: int, x: int, y: int) -> str:
        """Where a tile lies, from the folder on."""
        values = {"{zoom}": zoom, "{z}": zoom, "{x}": x, "{tile_lower_x}": x}
        values |= {"{y}": y, "{tile_lower_y}": y}
        found = self.path
        for key, value in values.items():
            found = found.replace(key, str(value))
        return found


@dataclass(frozen=True)
class TiledFolder(Placed):
    """One zoom of such a folder."""

    path: Path
    layout: Layout
    zoom: int
    corner: Address  # x of the first column, y of the first (northernmost) row
    grid: TileGrid
    stamp: str

    def identity(self) -> list[object]:
        """Layout, zoom and which tiles there are."""
        return [self.layout.model_dump_json(), self.zoom, self.stamp]

    def draw(self, block: Cell, side_px: int) -> RGBA | None:
        """(4, side_px, side_px) of a block, or None where it does not reach."""
        return warped(GridPicture(self.grid, partial(_tile, self)), block, side_px)


def open_tiledwebmaps(folder: Path, zoom: int | None = None) -> TiledFolder:
    """The sheet of a zoom, the finest where None. Raises ImageryError."""
    layout = _read_layout(folder)
    tiles = _tiles_of(folder, layout)
    if not tiles:
        raise ImageryError(f"{folder}: no tile lies at {layout.path} as {LAYOUT_NAME} says")
    zoom = max(tiles) if zoom is None else zoom
    if zoom not in tiles:
        raise ImageryError(
            f"{folder}: has no tiles of zoom {zoom}; it has {', '.join(map(str, sorted(tiles)))}"
        )
    x, y = np.array(sorted(tiles[zoom]), np.int64).T
    first_y = int(y.max() if layout.north else y.min())
    corner = int(x.min()), first_y
    grid = _grid(folder, layout, zoom, corner, (int(np.ptp(x)) + 1, int(np.ptp(y)) + 1))
    down = -1 if layout.north else 1
    held = [(int(a) - corner[0], (int(b) - first_y) * down) for a, b in zip(x, y, strict=True)]
    shown = grid.ground_of(held)
    middle = shown.representative_point()
    center = LatLng(middle.y, middle.x)
    return TiledFolder(
        name=str(folder),
        footprint=shown,
        center=center,
        gsd_m=grid.gsd_m(center),
        path=folder,
        layout=layout,
        zoom=zoom,
        corner=corner,
        grid=grid,
        stamp=_stamp(folder, layout, zoom, sorted(tiles[zoom])),
    )


def _read_layout(folder: Path) -> Layout:
    """The checked layout. Raises ImageryError."""
    path = folder / LAYOUT_NAME
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if tree.pop("preset", "").upper() == "XYZ":
            tree = tree | XYZ
        layout = Layout.model_validate(tree)
        CRS.from_user_input(layout.crs)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ImageryError(f"{path}: {where}: {first['msg'].lower()}") from error
    except (OSError, ValueError, AttributeError, yaml.YAMLError, CRSError) as error:
        raise ImageryError(f"{path}: cannot be used ({str(error).splitlines()[0]})") from error
    if layout.tile_axes not in (("east", "south"), ("east", "north")):
        raise ImageryError(
            f"{path}: tile_axes {list(layout.tile_axes)}; [east, south] and [east, north] are read"
        )
    return layout


def _grid(
    folder: Path, layout: Layout, zoom: int, corner: Address, size: tuple[int, int]
) -> TileGrid:
    """The part of the layout's plane that holds tiles, its rows from the north."""
    crs = CRS.from_user_input(layout.crs)
    side_x, side_y = (side / 2.0**zoom for side in layout.tile_shape_crs)
    east, north = layout.origin_crs
    if crs.axis_info and crs.axis_info[0].direction == "north":
        east, north = north, east  # the origin is in the CRS's own order of axes
    if layout.size_crs is not None and not layout.north:
        north += layout.size_crs[1]
    rows = corner[1] + 1 if layout.north else -corner[1]
    px = layout.tile_shape_px
    return TileGrid(
        crs=crs.to_string(),
        left=east + corner[0] * side_x,
        top=north + rows * side_y,
        pixel=(side_x / px[0], side_y / px[1]),
        tile_px=px,
        size=size,
    )


def _tiles_of(folder: Path, layout: Layout) -> dict[int, set[Address]]:
    """(x, y) of the tiles there are, by zoom."""
    found: dict[int, set[Address]] = {}
    packed = _packed(folder)
    if packed is not None:
        for zoom, x, y in packed:
            found.setdefault(zoom, set()).add((x, y))
        return found
    for zoom, x, y in _named_tiles(folder, layout):
        found.setdefault(zoom, set()).add((x, y))
    return found


def _named_tiles(folder: Path, layout: Layout) -> Iterator[tuple[int, int, int]]:
    """Zoom, x and y of files whose path is the layout's."""
    keys = {"zoom": "zoom", "z": "zoom", "x": "x", "tile_lower_x": "x", "y": "y"}
    keys["tile_lower_y"] = "y"
    parts = re.split(r"\{(\w+)\}", layout.path)
    pattern = "".join(
        re.escape(part) if i % 2 == 0 else f"(?P<{keys.get(part, part)}>-?[0-9]+)"
        for i, part in enumerate(parts)
    )
    shape = re.compile(pattern)
    for file in folder.glob("/".join("*" for _ in layout.path.split("/"))):
        match = shape.fullmatch(file.relative_to(folder).as_posix())
        if match is not None:
            yield int(match["zoom"]), int(match["x"]), int(match["y"])


@lru_cache(maxsize=2)
def _packed(folder: Path) -> dict[tuple[int, int, int], tuple[int, int]] | None:
    """Offset and length in ``images.dat`` by (zoom, x, y), where the folder is packed."""
    index = folder / PACKED_INDEX
    if not (folder / PACKED).is_file():
        return None
    try:
        with np.load(index, allow_pickle=False) as arrays:
            zoom, x, y, at = (arrays[k].astype(np.int64) for k in ("zoom", "x", "y", "offset"))
        keys = zip(zoom.tolist(), x.tolist(), y.tolist(), strict=True)
        spans = zip(at[:-1].tolist(), np.diff(at).tolist(), strict=True)
        return dict(zip(keys, spans, strict=True))
    except (OSError, ValueError, KeyError) as error:
        raise ImageryError(f"{index}: not the index of {PACKED} ({error})") from error


def _stamp(folder: Path, layout: Layout, zoom: int, tiles: list[Address]) -> str:
    """Digest of which tiles there are and how long they are."""
    packed = _packed(folder)
    lengths = [
        (folder / layout.file(zoom, *at)).stat().st_size
        if packed is None
        else packed[(zoom, *at)][1]
        for at in tiles
    ]
    return hashlib.sha256(json.dumps([tiles, lengths]).encode()).hexdigest()[:16]


@lru_cache(maxsize=64)
def _tile(sheet: TiledFolder, at: Address) -> RGBA | None:
    """RGBA (4, h, w) of a tile by column and row of the sheet's grid, or None."""
    down = -1 if sheet.layout.north else 1
    x, y = sheet.corner[0] + at[0], sheet.corner[1] + at[1] * down
    data = _bytes(sheet, x, y)
    if data is None:
        return None
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as picture:
            tile: RGBA = np.asarray(picture.convert("RGBA"))
    except (OSError, SyntaxError, ValueError) as error:
        name = sheet.layout.file(sheet.zoom, x, y)
        raise ImageryError(f"{sheet.path}: tile {name} is damaged ({error})") from error
    return np.moveaxis(tile, 2, 0)


def _bytes(sheet: TiledFolder, x: int, y: int) -> bytes | None:
    packed = _packed(sheet.path)
    if packed is None:
        file = sheet.path / sheet.layout.file(sheet.zoom, x, y)
        return file.read_bytes() if file.is_file() else None
    span = packed.get((sheet.zoom, x, y))
    if span is None:
        return None
    with (sheet.path / PACKED).open("rb") as packed_file:
        packed_file.seek(span[0])
        return packed_file.read(span[1])


def forget_tiled() -> None:
    """Let go of what drawing kept in this process."""
    _tile.cache_clear()
    _packed.cache_clear()
