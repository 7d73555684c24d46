"""GeoPackage: layers of rows with a geometry each, written whole or not at all.

Knows nothing of what the rows mean. Needs geopandas and pyogrio, which are optional.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shapely.geometry.base import BaseGeometry

from zoomloc.errors import ConfigError, OutputError
from zoomloc.world.files import written_whole

Column = Literal["text", "number", "flag", "count"]
_KINDS = {"text": "object", "number": "float64", "flag": "bool", "count": "int32"}


@dataclass(frozen=True)
class Layer:
    """A table of one geometry type in degrees (lng, lat); None is a missing text or number."""

    name: str
    columns: Mapping[str, Column]
    rows: Sequence[Mapping[str, Any]]
    geometries: Sequence[BaseGeometry]
    geometry_type: str = "Point"


def require_geopandas() -> Any:
    """geopandas with its engine. Raises ConfigError where it is not installed."""
    try:
        import geopandas
        import pyogrio  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"a GeoPackage needs {error.name}, which is not installed; run "
            "pip install 'zoomloc[prep]', or write .geojson"
        ) from error
    return geopandas


def write_geopackage(layers: Sequence[Layer], path: Path) -> None:
    """Write a GeoPackage of these layers in EPSG:4326 (atomic); layers may be empty.

    Raises ConfigError where packages are missing, OutputError where it cannot be written.
    """
    frames = [_frame(layer) for layer in layers]
    # GDAL makes the database and its journal itself: in a folder of its own, then all at once
    with (
        written_whole(path) as temporary,
        tempfile.TemporaryDirectory(
            prefix=f".{path.name}.", suffix=".tmp", dir=path.parent
        ) as folder,
    ):
        made = Path(folder) / "made.gpkg"
        for layer, frame in zip(layers, frames, strict=True):
            _write_layer(layer, frame, made, path)
        os.replace(made, temporary)


def _frame(layer: Layer) -> Any:
    """The layer as a GeoDataFrame whose columns have a type even where no row says one."""
    geopandas = require_geopandas()
    import pandas

    columns = {
        name: pandas.Series([row[name] for row in layer.rows], dtype=_KINDS[kind])
        for name, kind in layer.columns.items()
    }
    return geopandas.GeoDataFrame(columns, geometry=list(layer.geometries), crs="EPSG:4326")


def _write_layer(layer: Layer, frame: Any, made: Path, path: Path) -> None:
    import pyogrio

    try:
        pyogrio.write_dataframe(
            frame, made, layer=layer.name, driver="GPKG", geometry_type=layer.geometry_type
        )
    except (RuntimeError, UnicodeEncodeError) as error:  # pyogrio's errors are RuntimeErrors
        said = " ".join(str(error).split())[:120]
        raise OutputError(
            f"cannot write {path}: layer {layer.name}: {said}; free some space, or write .geojson"
        ) from error
