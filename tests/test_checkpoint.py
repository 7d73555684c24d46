"""Checkpoints: what is written reads back, what cannot be used says so in one line."""

import dataclasses
import json

import pytest
import torch

from zoomloc.checkpoint import (
    Explained,
    best_checkpoint,
    build_model,
    load_explained,
    load_model,
    load_tensors,
    save_checkpoint,
    spec_of,
    towers_spec,
    weights_of,
)
from zoomloc.config import load_config
from zoomloc.errors import CheckpointError
from zoomloc.world.cells import Cell
from zoomloc.world.region import Region

CONFIG = load_config(
    [],
    [
        "data=data/somewhere",
        "model.photo_px=[48,24]",
        "model.view_px=32",
        "model.photo_encoder.channels=[8,8,16]",
        "model.view_encoder.channels=[8,8,16]",
        "model.width=32",
        "model.layers=1",
        "model.heads=2",
    ],
)
REGION = Region("r", (Cell(15, 17000, 11000), Cell(15, 17001, 11000)), 19, attribution=("me",))


def explained(**changes) -> Explained:
    about = Explained(
        CONFIG, REGION, 12, 3.5, 768, "abc", "def", {"val": {"n": 3}}, ("me",), "CC0-1.0"
    )
    return dataclasses.replace(about, **changes)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoint-best.safetensors"
    save_checkpoint(path, build_model(CONFIG, REGION).state_dict(), explained())
    return path


def edited(path, **changes) -> None:
    beside = path.with_suffix(".json")
    beside.write_text(json.dumps(json.loads(beside.read_text()) | changes))


def refusal(call, *args) -> str:
    with pytest.raises(CheckpointError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_explains_the_weights_reads_back_the_same(saved):
    assert load_explained(saved) == explained()
    kept = {"photo": {"model": {"hidden_size": 3}, "mean": [0.5]}, "view": {}}
    save_checkpoint(saved, {}, explained(encoders=kept))
    assert load_explained(saved).encoders == kept


def test_json_from_before_pretrained_encoders_is_read(saved):
    beside = saved.with_suffix(".json")
    about = json.loads(beside.read_text())
    del about["encoders"]
    beside.write_text(json.dumps(about))
    assert load_explained(saved).encoders == {}
    assert load_model(saved, load_explained(saved)) is not None


def test_the_model_answers_as_before(saved):
    before, after = build_model(CONFIG, REGION).eval(), load_model(saved, load_explained(saved))
    assert not after.training
    photos = torch.rand(2, 3, 24, 48)
    with torch.no_grad():
        torch.testing.assert_close(after.encode_photos(photos), before.encode_photos(photos))


def test_numbers_of_every_kind_and_shape_read_back(tmp_path):
    tensors = {
        "scalar": torch.tensor(7.0),
        "count": torch.tensor(3),
        "turned": torch.arange(6.0).view(2, 3).T,  # not contiguous
        "half": torch.randn(4).bfloat16(),
    }
    path = tmp_path / "checkpoint-00000001.safetensors"
    save_checkpoint(path, tensors, explained())
    found = load_tensors(path)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert all(found[name].dtype == tensors[name].dtype for name in tensors)


def test_same_seed_same_weights(tmp_path):
    one, two = (build_model(CONFIG, REGION).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = CONFIG.model_copy(update={"train": CONFIG.train.model_copy(update={"seed": 1})})
    three = build_model(other, REGION).state_dict()
    assert any(not torch.equal(one[name], three[name]) for name in one)


def test_every_setting_of_the_model_reaches_the_network():
    spec = spec_of(CONFIG.model, REGION.branching)
    assert spec.branching == 16
    towers = towers_spec(CONFIG.model)
    parts = {"kind", "towers", "match", "residual", "norm"}
    for name in set(type(CONFIG.model).model_fields) - parts:
        wanted = getattr(CONFIG.model, name)
        if name in ("photo_encoder", "view_encoder"):
            for key, value in wanted.model_dump().items():
                assert getattr(getattr(spec, name), key) == value
            assert getattr(spec, name).norm == CONFIG.model.norm
            assert getattr(towers, name) == getattr(spec, name)
        else:
            assert getattr(spec, name) == wanted
            assert getattr(towers, name, wanted) == wanted
    assert towers.depths == CONFIG.model.towers.depths


def test_known_encoders_are_built_from_what_is_known_of_them():
    kept = {"photo": {"model": {"hidden_size": 3}}, "view": {}}
    spec = spec_of(CONFIG.model, REGION.branching, kept)
    assert json.loads(spec.photo_encoder.architecture) == kept["photo"]
    assert spec.view_encoder.architecture == ""
    by_class = CONFIG.model.model_copy(update={"pooling": "class"})
    assert towers_spec(by_class).photo_encoder.class_token
    assert not spec.photo_encoder.class_token


def test_a_shared_encoder_is_written_once_and_read_under_both_names(tmp_path):
    same = CONFIG.model.model_copy(update={"shared_encoder": True})
    config = CONFIG.model_copy(update={"model": same})
    model = build_model(config, REGION)
    with torch.no_grad():
        model.photo_encoder.stages[0].weight += 1.0
    weights = weights_of(model)
    assert not any(name.startswith("view_encoder") for name in weights)
    path = tmp_path / "checkpoint-best.safetensors"
    for tensors in (weights, model.state_dict()):  # the second: as earlier versions wrote
        save_checkpoint(path, tensors, explained(config=config))
        again = load_model(path, load_explained(path))
        assert again.view_encoder is again.photo_encoder
        assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    del weights["photo_encoder.stages.0.weight"]
    save_checkpoint(path, weights, explained(config=config))
    assert "weights of another version" in refusal(load_model, path, explained(config=config))


def test_no_path_of_this_machine_is_written(saved):
    text = saved.with_suffix(".json").read_text()
    assert str(saved.parent) not in text and '"data": "data/somewhere"' in text
    assert str(saved.parent).encode() not in saved.read_bytes()


def test_weights_without_their_json_do_not_count(saved):
    assert best_checkpoint(saved.parent) == saved
    saved.with_suffix(".json").unlink()
    assert "checkpoint-best" in refusal(best_checkpoint, saved.parent)
    assert "no such file" in refusal(load_explained, saved)


def test_a_folder_without_a_checkpoint_and_no_folder_are_told_apart(tmp_path):
    assert "first validation" in refusal(best_checkpoint, tmp_path)
    assert "no such folder" in refusal(best_checkpoint, tmp_path / "nowhere")


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": "zoomloc/checkpoint/0"},
        {"step": "many"},
        {"region": {"name": "r"}},
        {"config": {"model": {"from_the_future": 1}}},
        {"metrics": None},
        {"encoders": ["photo"]},
        {"encoders": {"photo": 3}},
    ],
)
def test_json_of_another_version_is_refused(saved, changes):
    edited(saved, **changes)
    assert "checkpoint-best.json" in refusal(load_explained, saved)


def test_json_that_lacks_a_field_is_refused(saved):
    beside = saved.with_suffix(".json")
    about = json.loads(beside.read_text())
    del about["split_hash"]
    beside.write_text(json.dumps(about))
    assert "another version" in refusal(load_explained, saved)


def test_weights_that_do_not_fit_their_config_are_refused(saved):
    model = CONFIG.model.model_copy(update={"layers": 2})
    other = explained(config=CONFIG.model_copy(update={"model": model}))
    assert "weights of another version" in refusal(load_model, saved, other)


@pytest.mark.parametrize("keep", [0, 7, 500, -3])
def test_cut_weights_are_refused(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    assert "damaged" in refusal(load_tensors, saved)


def test_missing_weights_are_refused(tmp_path):
    assert "no such checkpoint" in refusal(load_tensors, tmp_path / "x.safetensors")
