import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zoomloc.errors import OutputError, PhotoError
from zoomloc.world.cells import LatLng
from zoomloc.world.photos import (
    Photo,
    Skipped,
    assert_disjoint,
    read_photos,
    read_skipped,
    shared_drives,
    split_hash,
    split_protocol,
    write_photos,
    write_skipped,
)


def photo(folder: Path, name: str = "drive/1.jpg", **changes: Any) -> Photo:
    plain = Photo(
        id=name,
        path=folder / "photos" / name,
        lat=48.1,
        lng=-1.7,
        bearing_deg=33.25,
        fov_deg=None,
        projection="perspective",
        captured_at=datetime(2021, 6, 5, 13, 24, 10, 250_000, timezone(timedelta(hours=-7))),
        sequence_id="drive",
        source="folder",
        licence="CC BY 4.0",
        creator="Zoë Ångström",
        position_error_m=5.0,
    )
    return replace(plain, **changes)


def varied(folder: Path) -> list[Photo]:
    panorama = {"fov_deg": 360.0, "projection": "equirectangular", "bearing_deg": None}
    truth = {"true_lat": -84.9, "true_lng": -179.9, "true_bearing_deg": 0.0}
    far = {"lat": -85.0, "lng": 180.0, "captured_at": datetime(2021, 6, 5)}
    return [
        photo(folder),
        photo(folder, "übung/2.jpg", captured_at=None, split="train", **panorama),
        photo(folder, "3.jpg", split="test", **far, **truth),
    ]


def test_written_is_read(tmp_path: Path) -> None:
    table = tmp_path / "photos.parquet"
    write_photos(varied(tmp_path), table)
    found = read_photos(table)
    assert found == varied(tmp_path)
    assert found[0].captured_at is not None and found[0].captured_at.tzinfo is not None
    assert found[2].captured_at is not None and found[2].captured_at.tzinfo is None
    assert read_photos(table, "test") == found[2:]


def test_place_and_truth(tmp_path: Path) -> None:
    one, _, three = varied(tmp_path)
    assert one.truth == one.place == LatLng(48.1, -1.7)
    assert three.place == LatLng(-85.0, 180.0) and three.truth == LatLng(-84.9, -179.9)


def test_paths_are_relative_and_move_with_the_folder(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    write_photos([photo(tmp_path / "old")], tmp_path / "old" / "photos.parquet")
    stored = pq.read_table(tmp_path / "old" / "photos.parquet")["path"].to_pylist()
    assert stored == ["photos/drive/1.jpg"]
    (tmp_path / "old").rename(tmp_path / "new")
    found = read_photos(tmp_path / "new" / "photos.parquet")
    assert found[0].path == tmp_path / "new" / "photos" / "drive" / "1.jpg"
    assert found[0].path.is_absolute()


def test_paths_outside_the_tables_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    elsewhere = photo(Path("town"))  # a relative path, as a command line gives it
    write_photos([elsewhere], Path("data/x/photos.parquet"))
    assert pq.read_table("data/x/photos.parquet")["path"].to_pylist() == [
        "../../town/photos/drive/1.jpg"
    ]
    assert read_photos(Path("data/x/photos.parquet"))[0].path == tmp_path / elsewhere.path


def test_geopandas_opens_the_table(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    table = tmp_path / "photos.parquet"
    write_photos(varied(tmp_path), table)
    frame = geopandas.read_parquet(table)
    assert frame.crs.to_epsg() == 4326 and list(frame.geometry.y) == [48.1, 48.1, -85.0]
    assert list(frame.geometry.x) == [-1.7, -1.7, 180.0]
    frame[frame["split"] == "test"].to_parquet(tmp_path / "theirs.parquet")
    assert read_photos(tmp_path / "theirs.parquet") == varied(tmp_path)[2:]
    frame.to_parquet(tmp_path / "all.parquet")  # pandas writes NaN where we write null
    assert read_photos(tmp_path / "all.parquet") == varied(tmp_path)
    frame.to_crs(3857).to_parquet(tmp_path / "metres.parquet")
    with pytest.raises(PhotoError, match="EPSG:4326"):
        read_photos(tmp_path / "metres.parquet")


def test_metadata_is_geoparquet_1_1(tmp_path: Path) -> None:
    table = tmp_path / "photos.parquet"
    write_photos(varied(tmp_path), table, "sequence-disjoint")
    file = pq.ParquetFile(table)
    geo = json.loads(file.schema_arrow.metadata[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    assert geo["version"] == "1.1.0" and column["encoding"] == "WKB"
    assert column["geometry_types"] == ["Point"] and column["bbox"] == [-1.7, -85.0, 180.0, 48.1]
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 4326}
    assert file.schema_arrow.field("geometry").type == pa.binary()
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert split_protocol(table) == "sequence-disjoint"
    write_photos(varied(tmp_path), table)
    assert split_protocol(table) is None


def test_true_columns_exist_for_synthetic_photos_only(tmp_path: Path) -> None:
    write_photos([photo(tmp_path)], tmp_path / "real.parquet")
    assert not [n for n in pq.read_schema(tmp_path / "real.parquet").names if n.startswith("true_")]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lat": float("nan")}, "no place"),
        ({"lat": 91.0}, "no place"),
        ({"lng": -180.1}, "no place"),
        ({"position_error_m": 0.0}, "position_error_m"),
        ({"position_error_m": float("inf")}, "position_error_m"),
        ({"projection": "round"}, "projection"),
        ({"split": "dev"}, "split"),
        ({"bearing_deg": 360.0}, "bearing_deg"),
        ({"bearing_deg": float("nan")}, "bearing_deg"),
        ({"fov_deg": 0.0}, "fov_deg"),
        ({"true_lat": 1.0}, "true_lng"),
        ({"true_lat": 1.0, "true_lng": 200.0}, "true_lng"),
        ({"creator": "\udcff"}, "UTF-8"),
    ],
)
def test_impossible_photos_are_not_written(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(PhotoError, match=reason):
        write_photos([photo(tmp_path, **changes)], tmp_path / "photos.parquet")
    assert list(tmp_path.iterdir()) == []


def test_empty_and_repeated(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="no photo in the table"):
        write_photos([], tmp_path / "photos.parquet")
    with pytest.raises(PhotoError, match="twice"):
        write_photos([photo(tmp_path), photo(tmp_path)], tmp_path / "photos.parquet")
    with pytest.raises(PhotoError, match="protocol"):
        write_photos([photo(tmp_path)], tmp_path / "photos.parquet", "leaky")


def test_what_is_no_photo_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="no such photo table"):
        read_photos(tmp_path / "absent.parquet")
    path = tmp_path / "photos.parquet"
    for content in (b"", b"PAR1 no table PAR1", b"x" * 5000):
        path.write_bytes(content)
        with pytest.raises(PhotoError, match="cannot be read as Parquet"):
            read_photos(path)
    write_photos([photo(tmp_path)], path)
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(PhotoError, match="cannot be read as Parquet"):
        read_photos(path)
    path.write_bytes(good)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["bearing_deg", "split"]), path)
    with pytest.raises(PhotoError, match="no column bearing_deg, split"):
        read_photos(path)
    pq.write_table(table.slice(0, 0), path)
    with pytest.raises(PhotoError, match="no photo in the table"):
        read_photos(path)
    about = {**table.schema.metadata, b"zoomloc": b'{"schema": "zoomloc/photos/99"}'}
    pq.write_table(table.replace_schema_metadata(about), path)
    with pytest.raises(PhotoError, match="zoomloc/photos/99"):
        read_photos(path)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("geometry", pa.array([None], pa.binary())),
        ("geometry", pa.array([b"no wkb"])),
        ("path", pa.array([None], pa.string())),
        ("id", pa.array([7])),
        ("captured_at", pa.array(["yesterday"])),
        ("position_error_m", pa.array([None], pa.float64())),
        ("fov_deg", pa.array(["wide"])),
    ],
)
def test_a_row_of_a_wrong_kind_is_refused(tmp_path: Path, column: str, values: pa.Array) -> None:
    path = tmp_path / "photos.parquet"
    write_photos([photo(tmp_path)], path)
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index(column), column, values), path)
    with pytest.raises(PhotoError, match=path.name):
        read_photos(path)


def test_a_split_without_photos_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photos.parquet"
    write_photos(varied(tmp_path), path)
    with pytest.raises(PhotoError, match="no photo is in split 'val'.*test, train"):
        read_photos(path, "val")
    with pytest.raises(PhotoError, match="known are train, val, test"):
        read_photos(path, "dev")


def test_a_failed_write_leaves_the_old_table(tmp_path: Path) -> None:
    path = tmp_path / "photos.parquet"
    write_photos(varied(tmp_path), path)
    with pytest.raises(PhotoError):
        write_photos([photo(tmp_path, lat=91.0)], path)
    assert read_photos(path) == varied(tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        write_photos(varied(tmp_path), tmp_path / "file" / "photos.parquet")


def test_split_hash_depends_on_ids_and_splits_only(tmp_path: Path) -> None:
    photos = varied(tmp_path)
    named = split_hash(photos)
    assert named == split_hash(photos[::-1]) and len(named) == 16
    assert named == split_hash([replace(p, lat=1.0, path=Path("x")) for p in photos])
    assert named != split_hash([replace(photos[0], split="val"), *photos[1:]])
    assert named != split_hash(photos[1:])
    assert split_hash([photo(tmp_path, "a", split="test")]) == "8c1aff3ead796e2f"  # on all machines


def test_shared_drives_are_refused(tmp_path: Path) -> None:
    photos = [
        photo(tmp_path, "1", split="train"),
        photo(tmp_path, "2", split=None),
        photo(tmp_path, "3", split="test", sequence_id="other"),
    ]
    assert_disjoint(photos)
    photos.append(photo(tmp_path, "4", split="train", sequence_id="other"))
    assert shared_drives(photos) == ["other"]
    with pytest.raises(PhotoError, match="1 drives are in more than one split .*'other'"):
        assert_disjoint(photos)


def test_skipped_photos_keep_their_reasons(tmp_path: Path) -> None:
    path = tmp_path / "skipped.parquet"
    skipped = [Skipped("a/1.jpg", "no GPS position"), Skipped("\udcff.jpg", "its name")]
    write_skipped(skipped, path)
    assert read_skipped(path) == [skipped[0], Skipped("\\udcff.jpg", "its name")]
    write_skipped([], path)
    assert read_skipped(path) == []
    with pytest.raises(PhotoError, match="no such"):
        read_skipped(tmp_path / "absent.parquet")


def test_ten_thousand_photos_are_read_fast(tmp_path: Path) -> None:
    lats = 48 + np.random.default_rng(0).random(10_000)
    photos = [
        photo(tmp_path, f"drive/{k}.jpg", lat=float(lat), captured_at=datetime.now(UTC))
        for k, lat in enumerate(lats)
    ]
    write_photos(photos, tmp_path / "photos.parquet")
    began = time.process_time()
    assert len(read_photos(tmp_path / "photos.parquet")) == 10_000
    assert time.process_time() - began < 0.6  # 0.1 s where nothing else runs
