"""Tables of photos in four formats, on the way to photos."""

import csv
import json
import math
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from photo_files import exif, ramp, write_photo

from data_prep.photos import tabular
from data_prep.photos.reading import Task
from data_prep.photos.table import read_table_source
from data_prep.photos.values import Unusable, heading, moment, number, text
from zoomloc.config.photos import TablePhotos
from zoomloc.errors import PhotoError
from zoomloc.world.photos import Photo, Skipped, read_photos, write_photos

ROWS = [
    {"file": "a/1.jpg", "lat": 48.1, "lng": -1.7, "heading": 350.0, "seq": "one"},
    {"file": "a/2.jpg", "lat": 48.2, "lng": -1.6, "heading": None, "seq": "one"},
    {"file": "b/1.jpg", "lat": -33.9, "lng": 151.2, "heading": -10.0, "seq": "two"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for row in ROWS:
        write_photo(tmp_path / str(row["file"]), 1.0, 2.0, "2020:01:01 00:00:00", t17=77.0)
    return tmp_path


def read(path: Path, workers: int = 1, **options: object) -> tuple[dict[str, Photo], list[Skipped]]:
    source = TablePhotos(kind="table", path=path, **options)
    ones = list(read_table_source(source, Task(path.parent, None, workers)))
    photos = [one for one in ones if isinstance(one, Photo)]
    assert len({photo.id for photo in photos}) == len(photos)
    return {p.id: p for p in photos}, [one for one in ones if isinstance(one, Skipped)]


def reasons(path: Path, **options: object) -> dict[str, str]:
    return {one.path: one.reason for one in read(path, **options)[1]}


def write_csv(path: Path, rows: list[dict[str, object]], delimiter: str = ",") -> Path:
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        out.writeheader()
        out.writerows(rows)
    return path


def write_geo(path: Path, rows: list[dict[str, object]], crs: int) -> Path:
    """GeoPackage or GeoJSON with points instead of lat and lng."""
    import geopandas

    rest = [{k: v for k, v in row.items() if k not in ("lat", "lng")} for row in rows]
    points = shapely.points([[float(row["lng"]), float(row["lat"])] for row in rows])
    geopandas.GeoDataFrame(rest, geometry=points, crs=4326).to_crs(crs).to_file(path)
    return path


def write_parquet(path: Path, rows: list[dict[str, object]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_geoparquet(path: Path, rows: list[dict[str, object]]) -> Path:
    import geopandas

    rest = [{k: v for k, v in row.items() if k not in ("lat", "lng")} for row in rows]
    points = shapely.points([[float(row["lng"]), float(row["lat"])] for row in rows])
    geopandas.GeoDataFrame(rest, geometry=points, crs=4326).to_crs(3857).to_parquet(path)
    return path


# 1. formats


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "geoparquet", "geojson", "gpkg"])
def test_each_format_says_the_same(folder: Path, kind: str) -> None:
    path = folder / f"photos.{kind}"
    if kind in ("csv", "tsv"):
        write_csv(path, ROWS, "," if kind == "csv" else "\t")
    elif kind == "parquet":
        write_parquet(path, ROWS)
    elif kind == "geoparquet":
        write_geoparquet(path, ROWS)
    else:
        write_geo(path, ROWS, 4326 if kind == "geojson" else 3857)
    photos, skipped = read(path, licence="CC0-1.0", creator="me", default_position_error_m=2.0)
    assert skipped == [] and list(photos) == ["a/1.jpg", "a/2.jpg", "b/1.jpg"]
    for row in ROWS:
        photo = photos[str(row["file"])]
        assert photo.place == pytest.approx((row["lat"], row["lng"]), abs=1e-8)
        assert photo.path == folder / str(row["file"]) and photo.sequence_id == row["seq"]
        assert (photo.licence, photo.creator, photo.source) == ("CC0-1.0", "me", "table")
        assert photo.position_error_m == 2.0 and photo.captured_at == datetime(2020, 1, 1)
    # the table counts, and EXIF only fills: row 2 has no heading of its own
    assert [photo.bearing_deg for photo in photos.values()] == [350.0, 77.0, 350.0]
    write_photos(list(photos.values()), folder / "out.parquet")
    assert read_photos(folder / "out.parquet") == list(photos.values())


def test_another_programs_csv(folder: Path) -> None:
    (folder / "a.csv").write_bytes(
        b"\xef\xbb\xbfFile Name;Longitude;Latitude;Compass_Angle\r\n\r\n"
        b'"a\\1.jpg";-1,7;48,1;12,5\r\n./a/2.jpg;-1.6;48.2;\r\ncaf\xe9.jpg;-1.6;48.2;\r\na/2'
    )
    photos, skipped = read(folder / "a.csv")
    assert photos["a/1.jpg"].place == (48.1, -1.7) and photos["a/1.jpg"].bearing_deg == 12.5
    assert photos["a/2.jpg"].bearing_deg == 77.0
    assert [(one.path[:12], one.reason[:20]) for one in skipped] == [
        ("a.csv, row 3", "its picture does not"),
        ("a.csv, row 4", "no place that can be"),
    ]


def test_columns_and_crs_are_as_configured(folder: Path) -> None:
    rows = [{"bild": "1.jpg", "ost": 500_000.0, "nord": 5_300_000.0, "lat": "x", "kurs": 45,
             "wann": "2021-06-05T10:00:00+02:00", "wer": "A", "winkel": 70.5}]  # fmt: skip
    path = write_csv(folder / "t.csv", rows)
    columns = {"file": "bild", "lat": "nord", "lng": "ost", "bearing_deg": "kurs",
               "captured_at": "wann", "creator": "wer", "fov_deg": "winkel"}  # fmt: skip
    photos, _ = read(path, columns=columns, crs="EPSG:32632", pictures=folder / "a")
    photo = photos["1.jpg"]
    assert photo.lng == pytest.approx(9.0) and photo.lat == pytest.approx(47.8531, abs=1e-3)
    assert photo.captured_at == datetime(2021, 6, 5, 8, tzinfo=UTC)
    assert (photo.bearing_deg, photo.creator, photo.fov_deg) == (45.0, "A", 70.5)


def test_named_columns_count_before_a_geometry(folder: Path) -> None:
    rows = [{**row, "y2": 10.0, "x2": 20.0} for row in ROWS]
    path = write_geo(folder / "p.geojson", rows, 4326)
    photos, _ = read(path, columns={"lat": "y2", "lng": "x2"})
    assert photos["a/1.jpg"].place == (10.0, 20.0)


@pytest.mark.parametrize(
    ("header", "columns", "reason"),
    [
        ("lat,lng,name", {}, "no column for file; it has lat, lng, name; set columns.file"),
        ("file,lat,east", {}, "no column for lng; it has file, lat, east; set columns.lng"),
        ("file,lat,lng", {"lat": "breite"}, r"no column 'breite' \(columns.lat\); it has file"),
        ("file,lat,lng", {"width": "lat"}, "no 'width' in a photo; ours are file, lat"),
        ("", {}, "is empty"),
    ],
)
def test_a_missing_column_is_named(
    tmp_path: Path, header: str, columns: dict[str, str], reason: str
) -> None:
    (tmp_path / "a.csv").write_text(f"{header}\n")
    with pytest.raises(PhotoError, match=reason) as refused:
        read(tmp_path / "a.csv", columns=columns)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.xlsx", b"", "xlsx is not read; give one of .csv"),
        ("absent.csv", None, "no such table"),
        ("a.parquet", b"PAR1 and no more", "cannot be read as a table"),
        ("a.gpkg", b"<OGRVRTDataSource/>", "no GeoPackage, by its first bytes"),
        ("a.gpkg", b"SQLite format 3\0" + b"x" * 500, "cannot be read as a table"),
        ("a.geojson", b'<OGRVRTDataSource><SrcDataSource>/etc/passwd"', "no GeoJSON"),
        ("a.geojson", b'{"type": "FeatureCollection", "features": [', "cannot be read|no points"),
        ("a.geojson", b'{"type": "FeatureCollection", "features": []}', "no points|no column"),
        ("a.csv", b'file,lat,lng\n"' + b"x" * 200_000, "cannot be read as a table"),
    ],
)
def test_a_table_that_is_none_is_refused(
    tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PhotoError, match=reason) as refused:
        read(tmp_path / name)
    assert "\n" not in str(refused.value)


def test_an_unknown_crs_is_refused(folder: Path) -> None:
    with pytest.raises(PhotoError, match="CRS 'EPSG:0' is not known"):
        read(write_csv(folder / "a.csv", ROWS), crs="EPSG:0")


def test_two_layers_are_refused(folder: Path) -> None:
    import geopandas

    frame = geopandas.GeoDataFrame(
        {"file": ["a/1.jpg"]}, geometry=shapely.points([[1, 2]]), crs=4326
    )
    for layer in ("first", "second"):
        frame.to_file(folder / "a.gpkg", layer=layer)
    with pytest.raises(PhotoError, match="2 layers of points: first, second"):
        read(folder / "a.gpkg")


# 2. rows


def test_bad_rows_are_skipped_by_their_number(folder: Path) -> None:
    good = {"file": "a/1.jpg", "lat": "1", "lng": "2", "heading": "", "fov": "", "time": "",
            "projection": "", "id": ""}  # fmt: skip
    (folder / "short.jpg").write_bytes((folder / "a/2.jpg").read_bytes()[:300])
    (folder / "page.jpg").write_text("<html>")
    rows = [good] + [
        {**good, "id": f"{n}", **wrong}
        for n, wrong in enumerate([
            {"lat": "north"}, {"lat": "91"}, {"lng": ""}, {"lat": "0", "lng": "0"},
            {"lat": "89"}, {"lng": "inf"}, {"file": ""}, {"file": "c/1.jpg"}, {"file": "a"},
            {"file": "https://example.org/1.jpg"}, {"heading": "N"}, {"heading": "400"},
            {"fov": "0"}, {"time": "soon"}, {"projection": "cubemap"}, {"id": "a/1.jpg"},
            {"file": "short.jpg"}, {"file": "page.jpg"}, {"file": "a\0.jpg"},
        ], 2)
    ] + [{**good, "id": "last"}]  # fmt: skip
    photos, skipped = read(write_csv(folder / "t.csv", rows))
    assert list(photos) == ["a/1.jpg", "last"]
    told = [one.path.split(": ")[0] for one in skipped]
    assert told == [f"t.csv, row {n}" for n in range(2, 21)]
    why = [one.reason for one in skipped]
    assert all("place" in reason for reason in [*why[:4], why[5]])
    assert "Web Mercator" in why[4] and why[6] == "no picture named"
    assert why[7] == why[8] == why[18] == "its picture does not exist"
    assert "download" in why[9]
    assert why[10] == "bearing_deg is no number"
    assert why[11] == "bearing_deg is no heading in degrees"
    assert why[12].startswith("fov_deg is no angle") and why[13] == "captured_at is no time"
    assert (
        why[14].startswith("projection is none of") and why[15] == "an earlier row has the same id"
    )
    assert "cut short" in why[16] and "no JPEG" in why[17]


def test_geometries_that_are_no_points_are_skipped(folder: Path) -> None:
    features = [
        {"type": "Feature", "properties": {"file": "a/1.jpg", "id": n}, "geometry": geometry}
        for n, geometry in enumerate(
            (
                {"type": "Point", "coordinates": [2.0, 1.0, 99.0]},
                None,
                {"type": "LineString", "coordinates": [[1, 2], [3, 4]]},
                {"type": "MultiPoint", "coordinates": [[2.0, 1.0], [3.0, 4.0]]},
                {"type": "MultiPoint", "coordinates": [[4.0, 3.0]]},
            )
        )
    ]
    path = folder / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    photos, skipped = read(path)
    assert photos["0"].place == (1.0, 2.0) and photos["4"].place == (3.0, 4.0)
    assert [one.path for one in skipped] == [f"a.geojson, row {n}: a/1.jpg" for n in (2, 3, 4)]


def test_fov_and_projection_of_the_picture_fill_only_what_is_left_out(folder: Path) -> None:
    ramp(60, 40).save(folder / "wide.jpg", exif=exif(camera={0xA405: 28}))
    rows = [
        {"id": n, "file": "wide.jpg", "lat": 1, "lng": 2, "fov": fov, "camera_type": kind}
        for n, fov, kind in ((1, "", ""), (2, "50", ""), (3, "", "fisheye"), (4, "", "spherical"))
    ]
    photos, _ = read(write_csv(folder / "a.csv", rows))
    own = math.degrees(2 * math.atan(18 / 28))
    assert photos["1"].fov_deg == pytest.approx(own) and photos["1"].projection == "perspective"
    assert photos["2"].fov_deg == 50.0
    assert photos["3"].fov_deg is None and photos["3"].projection == "fisheye"
    assert photos["4"].projection == "equirectangular"


def test_rows_without_a_drive_are_cut_by_gaps(folder: Path) -> None:
    began = datetime(2021, 6, 5, 10)
    rows = [
        {"id": name, "file": file, "y": 48 + north_m / 111_200, "x": 2.0,
         "timestamp": "" if minutes is None else began + timedelta(minutes=minutes)}
        for name, file, minutes, north_m in (
            ("late", "a/1.jpg", 14.1, 140), ("z", "a/1.jpg", 0, 0), ("far", "a/1.jpg", 15, 245),
            ("next", "a/2.jpg", 4, 50), ("then", "a/1.jpg", 9, 140), ("b", "b/1.jpg", 4, 50),
            ("u1", "a/1.jpg", None, 245), ("u2", "a/1.jpg", None, 300), ("no", "a/1.jpg", 4, 9e9),
        )
    ]  # fmt: skip
    photos, skipped = read(write_csv(folder / "a.csv", rows))
    groups: dict[str, set[str]] = {}
    for photo in photos.values():
        groups.setdefault(photo.sequence_id, set()).add(photo.id)
    assert sorted(map(sorted, groups.values())) == [
        ["b"], ["far"], ["late"], ["next", "then", "z"], ["u1", "u2"],
    ]  # fmt: skip
    assert len(skipped) == 1


def test_several_processes_and_small_batches_say_the_same(folder: Path, monkeypatch) -> None:
    rows = [{"id": n, "file": "a/1.jpg", "lat": 1 + n / 1e4, "lng": 2} for n in range(700)]
    path = write_csv(folder / "a.csv", rows)
    once = read(path)
    assert len(once[0]) == 700
    assert read(path, workers=2) == once
    monkeypatch.setattr(tabular, "BATCH", 64)
    assert read(path) == once


def test_many_rows_take_little_memory(tmp_path: Path) -> None:
    path, count = tmp_path / "a.csv", 100_000
    with path.open("w") as file:
        file.write("file,lat,lng,seq\n")
        file.writelines(f"pictures/{n:07d}.jpg,48.1,-1.7,s\n" for n in range(count))
    told: list[tuple[int, int]] = []
    task = Task(tmp_path, None, 1, lambda *now: told.append(now))
    source = TablePhotos(kind="table", path=path)
    began = time.process_time()
    tracemalloc.start()
    skipped = sum(isinstance(one, Skipped) for one in read_table_source(source, task))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert skipped == count and told[-1][0] == count
    assert peak < 30 << 20  # all rows as photos would be 100 MB
    assert time.process_time() - began < 60


# 3. cells


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2021-06-05T10:00:00Z", datetime(2021, 6, 5, 10, tzinfo=UTC)),
        ("2021-06-05 10:00:00 UTC", datetime(2021, 6, 5, 10, tzinfo=UTC)),
        ("2021:06:05 10:00:00", datetime(2021, 6, 5, 10)),
        ("2021/06/05 10:00:00+02", datetime(2021, 6, 5, 8, tzinfo=UTC)),
        ("2021-06-05", datetime(2021, 6, 5)),
        ("1622887200", datetime(2021, 6, 5, 10, tzinfo=UTC)),
        (1622887200250, datetime(2021, 6, 5, 10, 0, 0, 250_000, UTC)),
        (1622887200_000000, datetime(2021, 6, 5, 10, tzinfo=UTC)),
        (1622887200_000000000, datetime(2021, 6, 5, 10, tzinfo=UTC)),
        (None, None), (" ", None), (float("nan"), None),
    ],
)  # fmt: skip
def test_times_of_many_forms(value: object, expected: datetime | None) -> None:
    assert moment(value) == expected


@given(st.one_of(st.none(), st.text(), st.floats(), st.integers(), st.binary(), st.booleans(),
                 st.dates(), st.datetimes(), st.lists(st.integers()), st.decimals()))  # fmt: skip
def test_whatever_a_cell_holds_it_says_something_or_is_unusable(value: object) -> None:
    for read_cell in (moment, number, heading, text):
        try:
            found = read_cell(value)
        except Unusable:
            continue
        if found is not None and read_cell is heading:
            assert 0 <= found < 360
        if found is not None and read_cell is number:
            assert math.isfinite(found)
