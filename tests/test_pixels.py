"""Pixels stored once: the same as decoded, and passed over when a photo changes."""

import shutil

import numpy as np
import pytest
from PIL import Image

from zoomloc.locator import open_views
from zoomloc.training.dataset import Ground, PhotoPixels
from zoomloc.training.pixels import store_pixels, stored_pixels
from zoomloc.world.photos import read_photos

SIZE = (48, 24)


@pytest.fixture
def folder(painted, tmp_path):
    return shutil.copytree(painted, tmp_path / "region")


def test_stored_pixels_are_the_decoded_ones_in_the_order_asked_for(folder):
    assert stored_pixels(folder, read_photos(folder / "photos.parquet"), SIZE) is None
    path = store_pixels(folder, SIZE)
    photos = read_photos(folder / "photos.parquet")[::-7]
    decoded = PhotoPixels(photos, SIZE).get(np.arange(len(photos)))
    np.testing.assert_array_equal(stored_pixels(folder, photos, SIZE), decoded)
    before = path.stat().st_mtime_ns
    store_pixels(folder, SIZE)
    assert path.stat().st_mtime_ns == before


def test_a_changed_photo_makes_them_old(folder):
    store_pixels(folder, SIZE)
    photos = read_photos(folder / "photos.parquet")
    Image.new("RGB", (60, 30)).save(photos[5].path)
    assert stored_pixels(folder, photos, SIZE) is None
    assert stored_pixels(folder, photos[6:], SIZE) is not None
    store_pixels(folder, SIZE)
    assert (stored_pixels(folder, photos[5:6], SIZE) == 0).all()


def test_training_reads_them(folder, small_config):
    photos = read_photos(folder / "photos.parquet", "train")
    views = open_views(folder, small_config)
    plain = Ground(photos, views, SIZE)
    assert plain.pixels.stored is None
    store_pixels(folder, SIZE)
    stored = Ground(photos, views, SIZE)
    assert stored.pixels.stored is not None
    some = np.array([3, 1, 100])
    np.testing.assert_array_equal(plain.pixels.get(some), stored.pixels.get(some))
