"""The audit on a small town of the demo's generator: what each way to split its photos leaks."""

from pathlib import Path
from typing import Any

import pytest

from data_prep.photos.sources import read_sources
from data_prep.split import Audit, audit_table, split_photos
from data_prep.town import PhotoPlan, build_town
from zoomloc.config import load_config
from zoomloc.config.photos import PhotosConfig
from zoomloc.world.photos import READINGS

SIZE_M = 400.0
PLAN = PhotoPlan(train_photos=900, test_photos=120, width_px=64, height_px=32)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photo table of a town: drives of five days, and of one day of the next year."""
    folder = tmp_path_factory.mktemp("audited")
    build_town(folder / "town", 1, SIZE_M, PLAN)
    found = read_sources(PhotosConfig(folder=folder / "town" / "photos"), folder)
    assert found.photos > 900 and found.drives > 15
    return folder / "photos.parquet"


def audited(table: Path, **plan: Any) -> Audit:
    """Split, then audit as ``zoomloc split --audit`` does, pictures looked at."""
    split_photos(table, **plan)
    found = audit_table(table, pictures=True)
    assert min(found.photos[split] for split in ("train", "test")) > 20
    return found


def assert_nothing_leaks(found: Audit) -> None:
    """No drive, no near-duplicate and hardly a look is in two splits, whichever two they are."""
    assert found.protocol == "sequence-disjoint" and not found.leaky
    assert found.shared_drives == () and found.left_out == 0
    assert found.near_duplicates == found.near_at_unknown_time == 0
    for across in found.across.values():
        assert across.drives == across.soon == across.undated == 0
        assert across.alike is not None and across.alike <= 1  # a street of another year


def test_the_default_split_leaks_nothing(table: Path) -> None:
    """Cameras that meet on one day stay together; without that they would leak."""
    assert_nothing_leaks(audited(table))
    apart = audited(table, unite=False)
    assert sum(across.soon for across in apart.across.values()) > 20


def test_the_demos_own_split_leaks_nothing(table: Path) -> None:
    """Nor between train and val, which are of the same days."""
    assert_nothing_leaks(audited(table, **load_config(["demo"]).split.model_dump()))


def test_days_of_creators_leak_nothing_anywhere(table: Path) -> None:
    assert_nothing_leaks(audited(table, group="creator-day"))


@pytest.mark.parametrize("buffer_m", [25.0, 50.0])
def test_blocks_keep_their_buffer(table: Path, buffer_m: float) -> None:
    found = audited(table, by="block", test=0.2, block_m=100.0, buffer_m=buffer_m)
    assert found.to_train is not None and found.left_out > 50
    assert buffer_m < found.to_train.quantiles_m["min"] < 2 * buffer_m
    assert found.near_duplicates == 0 and all(one.soon == 0 for one in found.across.values())
    assert found.across["train - test"].drives > 0  # a drive passes through several blocks


def test_single_photos_are_shown_to_leak(table: Path) -> None:
    found = audited(table, by="image")
    across = found.across["train - test"]
    assert found.leaky and READINGS["random-image"] in found.lines()[0]
    assert len(found.shared_drives) > 10 and across.drives > 10
    assert across.soon >= found.near_duplicates > 200
    assert found.to_train is not None and found.to_train.within["10 m"] > 0.95
