"""Tables as they come – CSV, Parquet, GeoJSON, GeoPackage – in batches of chosen columns.

Knows nothing of photos or of what a column means. No more than a batch is held as Python
objects; rows are counted from 1, the first below a header.
"""

import csv
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from zoomloc.errors import PhotoError
from zoomloc.world.cells import Floats

BATCH = 4096
DELIMITERS = ",;\t|"
TEXT, PARQUET, FEATURES = (".csv", ".tsv", ".txt"), (".parquet", ".geoparquet"), (
    ".geojson", ".json", ".gpkg",
)  # fmt: skip
T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Some rows: the values of each column, and points where the table has a geometry."""

    first_row: int
    columns: dict[str, list[Any]]
    points: Floats | None  # (rows, 2), x and y; NaN where a row has no point


@dataclass(frozen=True)
class Table:
    """A table that is there and has a header; its rows are read when they are asked for."""

    path: Path
    columns: tuple[str, ...]
    geometry: str | None = None  # its column; None: there is none
    crs: Any = None  # of the geometry; None: the file does not say
    layer: str | None = None
    delimiter: str = ","

    def batches(self, wanted: Sequence[str], with_points: bool) -> Iterator[Batch]:
        """The rows, in order. Raises PhotoError where the file ends before its table does."""
        suffix = self.path.suffix.lower()
        reader = _csv if suffix in TEXT else _parquet if suffix in PARQUET else _features
        try:
            yield from reader(self, wanted, with_points)
        except (OSError, csv.Error, pa.ArrowException, shapely.GEOSException) as error:
            raise _unreadable(self.path, error) from error

    def rows(self) -> int:
        """How many rows there are, about: for telling progress."""
        suffix = self.path.suffix.lower()
        if suffix in TEXT:
            with self.path.open("rb") as file:
                return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        if suffix in PARQUET:
            return int(pq.read_metadata(self.path).num_rows)
        import pyogrio

        with _quiet():
            info = pyogrio.read_info(_absolute(self.path), layer=self.layer)
        return max(int(info["features"]), 0)


def open_table(path: Path) -> Table:
    """The table of a file, by its suffix. Raises PhotoError for what cannot be read as one."""
    suffix = path.suffix.lower()
    if suffix not in TEXT + PARQUET + FEATURES:
        known = ", ".join(TEXT + PARQUET + FEATURES)
        raise PhotoError(f"{path}: {suffix or 'no suffix'} is not read; give one of {known}")
    if not path.is_file():
        raise PhotoError(f"{path}: no such table; check the path")
    opening = _open_csv if suffix in TEXT else _open_parquet if suffix in PARQUET else _open_ogr
    try:
        return opening(path)
    except (OSError, csv.Error, pa.ArrowException, shapely.GEOSException) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> PhotoError:
    why = " ".join(str(error).split()).replace(str(path), "the file")[:100]
    return PhotoError(f"{path}: cannot be read as a table ({why})")


# 1. text


def _open_csv(path: Path) -> Table:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        head = file.readline(1 << 16)
    delimiter = max(DELIMITERS, key=head.count)
    columns = [name.strip() for name in next(csv.reader([head], delimiter=delimiter), [])]
    if not any(columns):
        raise PhotoError(f"{path}: is empty; the first line must name the columns")
    return Table(path, tuple(columns), delimiter=delimiter)


def _csv(table: Table, wanted: Sequence[str], with_points: bool) -> Iterator[Batch]:
    """Values as text. Bytes that are no UTF-8 become a sign that no file name has."""
    places = [table.columns.index(name) for name in wanted]
    with table.path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        lines = (line for line in csv.reader(file, delimiter=table.delimiter) if line)
        next(lines, None)
        first = 1
        for rows in _chunks(lines):
            # a short row has None from where it ends
            columns = [[row[k] if k < len(row) else None for row in rows] for k in places]
            yield Batch(first, dict(zip(wanted, columns, strict=True)), None)
            first += len(rows)


def _chunks(items: Iterator[T]) -> Iterator[list[T]]:
    while chunk := list(islice(items, BATCH)):
        yield chunk


# 2. Parquet


def _open_parquet(path: Path) -> Table:
    schema = pq.read_schema(path)
    geometry, crs = _geometry_of(path, schema.metadata or {})
    columns = [name for name in schema.names if name != geometry]
    return Table(path, tuple(columns), geometry if geometry in schema.names else None, crs)


def _geometry_of(path: Path, metadata: dict[bytes, bytes]) -> tuple[str | None, Any]:
    """The primary geometry column of a GeoParquet file and its CRS."""
    try:
        geo = json.loads(metadata.get(b"geo", b"{}"))
        name = geo.get("primary_column")
        column = geo.get("columns", {}).get(name, {})
        encoding, crs = column.get("encoding", "WKB"), column.get("crs", "OGC:CRS84")
    except (ValueError, AttributeError, RecursionError) as error:
        raise PhotoError(f"{path}: its GeoParquet metadata is damaged") from error
    if name is not None and encoding != "WKB":
        raise PhotoError(f"{path}: geometry is encoded as {encoding!r}; write it as WKB")
    return (name if isinstance(name, str) else None), crs


def _parquet(table: Table, wanted: Sequence[str], with_points: bool) -> Iterator[Batch]:
    asked = [*wanted, *([table.geometry] if with_points and table.geometry else [])]
    first = 1
    with pq.ParquetFile(table.path) as file:
        for batch in file.iter_batches(BATCH, columns=list(dict.fromkeys(asked))):
            yield _batch(first, batch, wanted, table.geometry if with_points else None)
            first += batch.num_rows


def _batch(first: int, batch: pa.RecordBatch, wanted: Sequence[str], geometry: str | None) -> Batch:
    columns = {name: _values(batch.column(name)) for name in wanted}
    return Batch(first, columns, None if geometry is None else _points(batch.column(geometry)))


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_timestamp(column.type):  # nanoseconds have no Python type
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    values: list[Any] = column.to_pylist()
    return values


def _points(column: pa.Array) -> Floats:
    """(rows, 2) of WKB points; NaN for what is missing or no point, nor several of one."""
    shapes = shapely.from_wkb(np.array(column.to_pylist(), object), on_invalid="ignore")
    several = shapely.get_type_id(shapes) == shapely.GeometryType.MULTIPOINT
    single = several & (shapely.get_num_geometries(shapes) == 1)
    shapes = np.where(single, shapely.get_geometry(shapes, 0), shapes)
    shapes = np.where(shapely.get_type_id(shapes) == shapely.GeometryType.POINT, shapes, None)
    return np.column_stack([shapely.get_x(shapes), shapely.get_y(shapes)])


# 3. GeoJSON and GeoPackage, by GDAL


def _absolute(path: Path) -> str:
    """A path that GDAL takes for no address or virtual file."""
    return str(path.absolute())


def _open_ogr(path: Path) -> Table:
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError

    _check_kind(path)
    try:
        with _quiet():
            layers = pyogrio.list_layers(_absolute(path))
            points = [str(name) for name, kind in layers if kind and not _is_no_point(str(kind))]
            if len(points) != 1:
                has = f"{len(points)} layers of points: {', '.join(points)}"
                raise PhotoError(
                    f"{path}: has {has if points else 'no points'}; one layer of points, please"
                )
            info = pyogrio.read_info(_absolute(path), layer=points[0])
    except (DataSourceError, DataLayerError, UnicodeError) as error:
        raise _unreadable(path, error) from error
    names = tuple(str(name) for name in info["fields"])
    return Table(path, names, "geometry", info["crs"], points[0])


def _check_kind(path: Path) -> None:
    """Raise where the first bytes are not of the kind that the suffix says: GDAL reads hundreds
    of kinds, some of which name further files to open.
    """  # noqa: D205
    with path.open("rb") as file:
        head = file.read(256).removeprefix(b"\xef\xbb\xbf").lstrip()
    expected = b"SQLite format 3\0" if path.suffix.lower() == ".gpkg" else b"{"
    if not head.startswith(expected):
        kind = "GeoPackage" if path.suffix.lower() == ".gpkg" else "GeoJSON"
        raise PhotoError(f"{path}: no {kind}, by its first bytes")


def _is_no_point(kind: str) -> bool:
    return any(word in kind for word in ("Line", "Polygon", "Collection", "Curve", "Surface"))


def _features(table: Table, wanted: Sequence[str], with_points: bool) -> Iterator[Batch]:
    from pyogrio.errors import DataLayerError, DataSourceError
    from pyogrio.raw import open_arrow

    asked: dict[str, Any] = {
        "layer": table.layer, "columns": list(dict.fromkeys(wanted)), "batch_size": BATCH,
        "use_pyarrow": True, "datetime_as_string": True,
    }  # fmt: skip
    first = 1
    try:
        with ExitStack() as stack:
            with _quiet():
                told, batches = stack.enter_context(open_arrow(_absolute(table.path), **asked))
            geometry = told["geometry_name"] or "wkb_geometry"
            while (batch := _next(batches)) is not None:
                yield _batch(first, batch, wanted, geometry if with_points else None)
                first += batch.num_rows
    except (DataSourceError, DataLayerError, UnicodeError) as error:
        raise _unreadable(table.path, error) from error


def _next(batches: pa.RecordBatchReader) -> pa.RecordBatch | None:
    with _quiet():
        return next(batches, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """None of GDAL's warnings gets out; it raises what matters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
