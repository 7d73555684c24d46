"""All sources of a config into one table: what is kept, what is left out and why."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from raster_files import CORNER, UTM, ground, write_tif

from data_prep.photo_bench import measure
from data_prep.photos.sources import read_sources
from data_prep.tiles import build_tiles
from zoomloc.cli import main
from zoomloc.config import load_config, parse_config
from zoomloc.errors import ConfigError, PhotoError
from zoomloc.world.photos import read_photos, read_skipped


def place_of(x: float, y: float) -> tuple[float, float]:
    from pyproj import Transformer

    lng, lat = Transformer.from_crs(UTM, 4326, always_xy=True).transform(x, y)
    return lat, lng


@pytest.fixture(scope="module")
def region(tmp_path_factory):
    """A folder with imagery of 400 m, and a table of photos on it and off it."""
    folder = tmp_path_factory.mktemp("region")
    build_tiles([write_tif(folder / "a.tif", ground(400))], folder, "here", workers=1)
    rng, rows = np.random.default_rng(0), []
    (folder / "pictures").mkdir()
    for i in range(12):
        picture = rng.integers(0, 256, (64, 128, 3), np.uint8)
        Image.fromarray(picture).save(folder / "pictures" / f"{i}.jpg", quality=90)
        x, y = CORNER[0] + 30 * i + 10, CORNER[1] - 200
        lat, lng = place_of(x + (5_000 if i >= 10 else 0), y)
        panorama = "equirectangular" if i == 3 else ""
        rows.append([f"{i}.jpg", lat, lng, 30 * i, f"drive{i // 4}", panorama])
    with (folder / "photos.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "lat", "lng", "heading", "sequence", "projection"])
        writer.writerows(rows)
    return folder


def config(region: Path, **changes):
    source = {
        "kind": "table",
        "path": str(region / "photos.csv"),
        "pictures": str(region / "pictures"),
        "licence": "CC0-1.0",
        "creator": "me",
    }
    return parse_config({"photos": {"sources": [source], **changes}}, "test").photos


def test_photos_off_the_imagery_are_refused_with_the_reason(region):
    summary = read_sources(config(region), region)
    assert summary.photos == 10 and summary.drives == 3 and summary.with_bearing == 10
    skipped = read_skipped(region / "skipped.parquet")
    assert len(skipped) == 2
    assert {one.reason for one in skipped} == {"its position is off the imagery of region 'here'"}
    assert read_sources(config(region, off_imagery="keep"), region).photos == 12


def test_panoramas_become_views_of_one_drive(region):
    read_sources(config(region, views=4), region)
    photos = read_photos(region / "photos.parquet")
    views = [photo for photo in photos if photo.bearing_deg in (90.0, 180.0, 270.0, 0.0)]
    assert len(photos) == 13 and len(views) >= 4
    panorama = [photo for photo in photos if "3" in photo.id and photo.fov_deg == 90.0]
    assert len(panorama) == 4 and len({photo.sequence_id for photo in panorama}) == 1
    assert all(photo.projection == "perspective" and photo.path.is_file() for photo in panorama)


def test_filters_name_their_reason(region):
    with pytest.raises(PhotoError, match="none of 12 photos can be used"):
        read_sources(config(region, filters={"least_px": 500}), region)


def test_a_failed_reading_leaves_the_table_of_before(region):
    read_sources(config(region), region)
    before = (region / "photos.parquet").read_bytes()
    with pytest.raises(PhotoError):
        read_sources(config(region, filters={"dark": 250.0}), region)
    assert (region / "photos.parquet").read_bytes() == before


def test_no_source_is_told(tmp_path):
    with pytest.raises(ConfigError, match="photos: no source; give --folder"):
        read_sources(load_config([]).photos, tmp_path)


def test_photos_of_several_tables_are_told_apart(region):
    """The same picture may be named by two tables; ids and drives have the table's name."""
    other = region / "other.csv"
    other.write_text((region / "photos.csv").read_text())
    once = config(region)
    second = once.sources[0].model_copy(update={"path": other})
    summary = read_sources(once.model_copy(update={"sources": (*once.sources, second)}), region)
    assert summary.photos == 20 and summary.drives == 6
    ids = {photo.id for photo in read_photos(region / "photos.parquet")}
    assert {name.split("/")[0] for name in ids} == {"photos.csv", "other.csv"}


def test_the_verb_reads_the_sources_of_a_config(region, tmp_path, monkeypatch, capsys):
    file = tmp_path / "city.yaml"
    file.write_text(
        f"name: here\ndata: {region}\nphotos:\n  sources:\n    - kind: table\n"
        f"      path: {region}/photos.csv\n      pictures: {region}/pictures\n"
    )
    report = tmp_path / "photos.html"
    monkeypatch.setattr("sys.argv", ["zoomloc", "photos", str(file), "--report", str(report)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    told = capsys.readouterr().out
    assert "10 photos of 3 drives" in told and "2 left out: its position is off the imagery" in told
    assert report.is_file()


def test_a_large_table_is_read_in_little_memory():
    """The peak grows by far less than the rows would take if they were all kept."""
    small, large = measure(2_000), measure(30_000)
    assert large.rows == 30_000 and large.peak_mb - small.peak_mb < 100
