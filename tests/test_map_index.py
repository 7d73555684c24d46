"""The map's index on disk: the same scores, taken up where it stopped, renewed where it must be."""

import json
import shutil

import numpy as np
import pytest
import torch

from tests.test_match_scorer import match_config, photos
from zoomloc.checkpoint import build_model
from zoomloc.errors import OutputError
from zoomloc.locator import open_views
from zoomloc.scorers import mapped, scorer_of
from zoomloc.scorers.mapped import build_index, folder_of, open_index


@pytest.fixture
def scorer(small_config, painted):
    config = match_config(small_config, 8)
    views = open_views(painted, config)
    torch.manual_seed(0)
    return scorer_of(build_model(config, views.region).eval(), views, config.search)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(mapped, "CHUNK_PX", 64)


def build(scorer, folder, imagery="i", progress=None):
    return build_index(scorer.model, scorer.ground, folder, "c", imagery, progress)


def opened(scorer, folder, checkpoint="c", imagery="i"):
    return open_index(scorer.model, scorer.ground, folder, checkpoint, imagery)


def test_scores_are_those_of_a_map_encoded_in_memory(scorer, tmp_path):
    built = build(scorer, tmp_path / "index")
    assert built.encoded == built.chunks > 4
    plain = scorer.leaves(scorer.start(photos()))
    del scorer.index
    scorer.kept = lambda: opened(scorer, tmp_path / "index")
    kept = scorer.leaves(scorer.start(photos()))
    assert isinstance(scorer.index.means.maps[0], torch.Tensor)
    present = scorer.views.coverage.leaves
    np.testing.assert_allclose(kept[:, present], plain[:, present], atol=0.1)


def test_an_index_of_other_weights_or_imagery_is_not_used(scorer, tmp_path):
    folder = tmp_path / "index"
    assert opened(scorer, folder) is None
    build(scorer, folder)
    assert opened(scorer, folder) is not None
    assert opened(scorer, folder, checkpoint="other") is None
    assert opened(scorer, folder, imagery="other") is None


def test_it_goes_on_where_it_was_stopped(scorer, tmp_path):
    class Stopped(Exception):
        pass

    def stop(done, total):
        if done == 3:
            raise Stopped

    folder = tmp_path / "index"
    with pytest.raises(Stopped):
        build(scorer, folder, progress=stop)
    assert opened(scorer, folder) is None  # half an index is none
    built = build(scorer, folder)
    assert built.encoded == built.chunks - 3
    assert build(scorer, folder).encoded == 0
    whole = build(scorer, tmp_path / "whole").folder
    for path in sorted(whole.glob("*.npy")):
        assert np.array_equal(np.load(path), np.load(folder / path.name)), path.name


def test_only_what_changed_is_encoded_again(scorer, tmp_path):
    folder = tmp_path / "index"
    built = build(scorer, folder)
    known = json.loads((folder / "index.json").read_text())
    first = next(iter(known["chunks"]))
    known["chunks"][first] = "0123456789abcdef"  # as if its pixels had been others
    (folder / "index.json").write_text(json.dumps(known))
    again = build(scorer, folder, imagery="newer")
    assert (again.encoded, again.chunks) == (1, built.chunks)
    assert opened(scorer, folder) is None
    assert opened(scorer, folder, imagery="newer") is not None


def test_damaged_arrays_are_made_anew(scorer, tmp_path):
    folder = tmp_path / "index"
    built = build(scorer, folder)
    (folder / "means-0.npy").write_bytes((folder / "means-0.npy").read_bytes()[:500])
    assert opened(scorer, folder) is None
    assert build(scorer, folder).encoded == built.chunks
    assert opened(scorer, folder) is not None


def test_a_place_that_cannot_be_written_is_one_clear_line(scorer, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        build(scorer, tmp_path / "file" / "index")


def test_its_folder_lies_beside_the_region(tmp_path):
    assert folder_of(tmp_path, "abc") == tmp_path / "index-abc"
    shutil.rmtree(tmp_path)
