"""Pretrained encoders, on tiny random transformers saved as their makers save real ones."""

import json
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shapely.geometry import box

import zoomloc.model
from zoomloc.checkpoint import load_explained, load_tensors, network
from zoomloc.config import load_config
from zoomloc.errors import ConfigError
from zoomloc.locator import Locator, Query
from zoomloc.model.encoders import (
    EncoderSpec,
    PhotoTokens,
    ViewTokens,
    architecture_of,
    build_encoder,
    build_encoders,
    check_children,
    check_pictures,
    pretrained_layers,
    rebuildable,
)
from zoomloc.training.loop import train
from zoomloc.training.state import changing, fresh_state, numbered_checkpoints, parameter_groups
from zoomloc.world.photos import read_photos
from zoomloc.world.region import Region, cover

transformers = pytest.importorskip("transformers", reason="needs the extra hf: transformers")

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
PATCHES = {"dinov2": 14, "registers": 14, "dinov3": 16, "siglip": 16, "naflex": 16}


def _vision_config(kind):
    if kind == "dinov2":
        return transformers.Dinov2Config(**SMALL, image_size=56, patch_size=14)
    if kind == "registers":
        return transformers.Dinov2WithRegistersConfig(**SMALL, image_size=56, patch_size=14)
    wide = {**SMALL, "intermediate_size": 64, "patch_size": 16}
    if kind == "dinov3":
        return transformers.DINOv3ViTConfig(**wide, image_size=64, num_register_tokens=4)
    if kind == "naflex":
        return transformers.Siglip2VisionConfig(**wide, num_patches=16)
    return transformers.SiglipVisionConfig(**wide, image_size=64)


def _whole_siglip(vision):
    """With its text half, as the hub has it."""
    text = {**SMALL, "intermediate_size": 64, "vocab_size": 50, "max_position_embeddings": 8}
    text |= {"bos_token_id": 1, "eos_token_id": 2, "num_hidden_layers": 1}
    if vision.model_type == "siglip_vision_model":
        config, kind = transformers.SiglipConfig, transformers.SiglipModel
    else:
        config, kind = transformers.Siglip2Config, transformers.Siglip2Model
    return kind(config(text_config=text, vision_config=vision.to_dict()))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder for each kind of model; no test here may reach a network."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    transformers.utils.logging.disable_progress_bar()
    for kind in PATCHES:
        config = _vision_config(kind)
        whole = kind in ("siglip", "naflex")
        model = _whole_siglip(config) if whole else transformers.AutoModel.from_config(config)
        with torch.no_grad():  # biases, class tokens and scales start at 0: make them matter
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
        model.save_pretrained(folder / kind)
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def spec_for(saved, kind="dinov2", **changes):
    return EncoderSpec("hf", (), "", source=str(saved / kind), **changes)


def pictures(height, width, count=2, seed=1):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def trained_names(encoder):
    return {name for name, p in encoder.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("kind", PATCHES)
def test_patch_features_lie_as_the_picture_does(saved, kind):
    side = PATCHES[kind]
    encoder = build_encoder(spec_for(saved, kind)).eval()
    assert (encoder.stride, encoder.channels) == (side, 32)
    wide = pictures(3 * side, 5 * side)
    features = encoder(wide)
    assert features.shape == (2, 32, 3, 5)
    changed = wide.clone()
    changed[:, :, :side, 4 * side :] += 0.5  # the north-east patch
    moved = (encoder(changed) - features).abs().sum(1)
    assert (moved.flatten(1).argmax(1) == 4).all()


@pytest.mark.parametrize("kind", ["dinov2", "dinov3", "siglip", "naflex"])
def test_features_are_those_of_the_model_itself(saved, kind):
    """Against the model called by hand, with the constants its makers normalise by."""
    side = PATCHES[kind]
    picture = pictures(4 * side, 4 * side, count=1)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in NORMALISED[kind.startswith("di")])
    pixels = (picture - mean) / std
    model = transformers.AutoModel.from_pretrained(saved / kind).eval()
    model = getattr(model, "vision_model", model)
    if kind == "naflex":
        from transformers.models.siglip2.image_processing_pil_siglip2 import (
            convert_image_to_patches,
        )

        cut = torch.from_numpy(convert_image_to_patches(pixels[0].numpy(), side))[None]
        found = model(cut, torch.ones(1, 16, dtype=torch.long), torch.tensor([[4, 4]]))
    else:
        found = model(pixel_values=pixels)
    tokens = found.last_hidden_state[0, -16:]
    encoder = build_encoder(spec_for(saved, kind)).eval()
    torch.testing.assert_close(encoder(picture)[0].flatten(1).T, tokens, atol=1e-5, rtol=1e-4)
    pooled = build_encoder(spec_for(saved, kind, class_token=True)).eval()(picture)
    torch.testing.assert_close(pooled, found.pooler_output[:, :, None, None], atol=1e-5, rtol=1e-4)


NORMALISED = {
    True: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    False: ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


@pytest.mark.parametrize("nested", [False, True])
def test_a_model_brings_its_own_normalisation(saved, tmp_path, nested):
    own = tmp_path / "own"
    shutil.copytree(saved / "dinov2", own)
    found = {"image_mean": [0.43, 0.41, 0.3], "image_std": [0.2, 0.15, 0.1]}
    name, data = ("preprocessor_config.json", found)
    if nested:
        name, data = "processor_config.json", {"image_processor": found}
    (own / name).write_text(json.dumps(data))
    encoder = build_encoder(EncoderSpec("hf", (), "", source=str(own)))
    assert encoder.mean.flatten().tolist() == pytest.approx([0.43, 0.41, 0.3])
    assert encoder.std.flatten().tolist() == pytest.approx([0.2, 0.15, 0.1])


@pytest.mark.parametrize("kind", ["registers", "siglip"])
def test_frozen_is_frozen(saved, kind):
    encoder = build_encoder(spec_for(saved, kind)).train()
    assert not trained_names(encoder)
    assert not any(module.training for module in encoder.model.modules())
    assert not encoder(pictures(64, 64) if PATCHES[kind] == 16 else pictures(56, 56)).requires_grad


@pytest.mark.parametrize(
    ("kind", "class_token"),
    [
        ("dinov2", False),
        ("registers", True),
        ("dinov3", False),
        ("siglip", False),
        ("siglip", True),
        ("naflex", True),
    ],
)
def test_the_last_blocks_and_nothing_below_them_learn(saved, kind, class_token):
    spec = spec_for(saved, kind, tune="last", last_blocks=1, class_token=class_token)
    encoder = build_encoder(spec).train()
    modes = {
        name.split(".")[1] for name, m in encoder.named_modules() if m.training and "." in name
    }
    before = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    optimizer = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=1.0)
    seen = encoder(pictures(4 * encoder.stride, 4 * encoder.stride))
    (seen * torch.randn_like(seen)).sum().backward()
    optimizer.step()
    changed = {n for n, p in encoder.named_parameters() if not torch.equal(p, before[n])}
    assert changed == trained_names(encoder)  # none idle: DDP would wait for it
    layers = pretrained_layers(encoder)
    assert [len(layer) > 0 for layer in layers] == [False, False, False, True, True]
    assert sum(len(layer) for layer in layers) == len(changed)
    assert any(".2." in name for name in changed)
    assert not any(".0." in name or ".1." in name or "embed" in name for name in changed)
    assert any("norm" in name for name in changed if ".2." not in name)  # the final norm
    assert "embeddings" not in modes
    if kind.startswith("sig") or kind == "naflex":
        assert any("head" in name for name in changed) == class_token
        assert any("head" in name for name in before) == class_token


def test_frozen_blocks_keep_nothing_for_the_way_back(saved):
    """The memory of a step grows with the trained blocks alone."""

    def kept(**changes):
        encoder = build_encoder(spec_for(saved, **changes)).train()
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.append(t.numel()) or t, lambda t: t
        ):
            encoder(pictures(56, 56))
        return sum(sizes)

    whole = kept(tune="all")
    assert kept(tune="frozen") == 0
    assert kept(tune="last", last_blocks=1) < 0.5 * whole


@pytest.mark.parametrize("kind", ["dinov2", "dinov3", "naflex"])
def test_all_of_it_learns(saved, kind):
    encoder = build_encoder(spec_for(saved, kind, tune="all")).train()
    seen = encoder(pictures(4 * encoder.stride, 4 * encoder.stride))
    (seen * torch.randn_like(seen)).sum().backward()
    learns = {n for n, p in encoder.named_parameters() if p.grad is not None}
    assert learns == trained_names(encoder)  # not the mask token of pretraining
    assert all(len(layer) for layer in pretrained_layers(encoder))


@pytest.mark.parametrize("kind", PATCHES)
def test_lora_adds_two_small_matrices_to_each_attention_projection(saved, kind):
    pytest.importorskip("peft", reason="needs the extra hf: peft")
    spec = spec_for(saved, kind, class_token=True)  # SigLIP's pooling has attention of its own
    plain = build_encoder(spec).eval()
    encoder = build_encoder(replace(spec, tune="lora", lora_rank=3)).train()
    trained = [p for p in encoder.parameters() if p.requires_grad]
    projections = 3 * 4  # blocks x (query, key, value, output)
    assert len(trained) == 2 * projections
    assert sum(p.numel() for p in trained) == projections * 3 * (32 + 32)
    picture = pictures(4 * encoder.stride, 4 * encoder.stride)
    before = encoder(picture)
    torch.testing.assert_close(before, plain(picture))  # it starts as the pretrained model
    frozen = {n: p.clone() for n, p in encoder.named_parameters() if not p.requires_grad}
    (before * torch.randn_like(before)).sum().backward()
    torch.optim.SGD(trained, lr=1.0).step()
    assert not torch.allclose(encoder(picture), before)
    assert all(torch.equal(dict(encoder.named_parameters())[n], p) for n, p in frozen.items())
    assert [len(layer) for layer in pretrained_layers(encoder)] == [0, 8, 8, 8, 0]


@pytest.mark.parametrize(
    ("kind", "tune"),
    [(kind, "last") for kind in PATCHES] + [("registers", "lora"), ("siglip", "lora")],
)
def test_a_stored_architecture_builds_it_again_without_its_source(saved, kind, tune, monkeypatch):
    if tune == "lora":
        pytest.importorskip("peft", reason="needs the extra hf: peft")
    spec = spec_for(saved, kind, tune=tune, last_blocks=2, class_token=kind == "siglip")
    encoder = build_encoder(spec).eval()
    kept = json.loads(json.dumps(architecture_of(encoder)))
    assert str(saved) not in json.dumps(kept)
    known = rebuildable(replace(spec, source="gone/for-good"), encoder)
    assert json.loads(known.architecture) == kept
    again = build_encoder(known).eval()
    again.load_state_dict(encoder.state_dict())
    assert trained_names(again) == trained_names(encoder)
    side = 4 * encoder.stride
    assert torch.equal(again(pictures(side, side)), encoder(pictures(side, side)))
    assert rebuildable(known, again) == known


def test_one_encoder_serves_both_sides_where_it_is_shared(saved):
    spec = spec_for(saved, tune="last", last_blocks=1)
    photo, view = build_encoders(spec, spec, shared=True)
    assert photo is view
    apart = build_encoders(spec, spec, shared=False)
    assert apart[0] is not apart[1]


def test_class_tokens_become_tokens_of_the_decoder(saved):
    encoder = build_encoder(spec_for(saved, class_token=True)).eval()
    features = encoder(pictures(28, 56))
    assert features.shape == (2, 32, 1, 1)
    photo = PhotoTokens(32, (2, 4), 1, 24, "class")
    torch.testing.assert_close(photo(features)[:, 0], photo.project(features[:, :, 0, 0]))
    view = ViewTokens(32, 4, 4, 0.0, 24, "class", pointed=False)
    assert view(encoder(pictures(56, 56)))[0].shape == (2, 24)
    with pytest.raises(ConfigError, match="head: linear"):
        ViewTokens(32, 4, 4, 0.0, 24, "class", pointed=True)
    with pytest.raises(ConfigError, match="no class token"):
        build_encoder(EncoderSpec("tiny", (8, 8, 8), "batch", class_token=True))


def test_training_follows_search_in_the_same_process(saved):
    """What the model keeps from inference mode must not stop the next step; nor must bf16."""
    encoder = build_encoder(spec_for(saved, "dinov3", tune="all"))
    picture = pictures(64, 96)
    with torch.inference_mode():
        whole = encoder.eval()(picture)
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder.eval()(picture)
        assert encoder.train()(picture).float().sum().backward() is None
    assert torch.nn.functional.cosine_similarity(half.float(), whole, dim=1).min() > 0.99


def test_views_must_let_children_begin_where_patches_do(saved):
    fourteen = build_encoder(spec_for(saved))
    sixteen = build_encoder(spec_for(saved, "dinov3"))
    check_children(fourteen, 392, 4)
    check_children(sixteen, 384, 4)
    check_children(sixteen, 256, 8)
    check_children(fourteen, 84, 4, margin=0.25)  # 6 patches: 1 around, 4 in, 1 around
    check_children(build_encoder(EncoderSpec("tiny", (8, 8, 8), "batch")), 40, 4)
    for encoder, view_px, side, margin, says in [
        (fourteen, 378, 4, 0.0, "336 or 392"),
        (fourteen, 384, 4, 0.0, "336 or 392"),
        (sixteen, 400, 4, 0.0, "384 or 448"),
        (fourteen, 28, 4, 0.0, "sizes: 56$"),
        (fourteen, 392, 4, 0.25, "336 or 420"),
        (fourteen, 392, 4, 0.3331, "set view_margin to 0"),
    ]:
        with pytest.raises(ConfigError, match=says):
            check_children(encoder, view_px, side, margin)
    with pytest.raises(ConfigError, match="photo_px.*multiple of 14"):
        check_pictures(fourteen, "photo_px", (768, 384))
    with pytest.raises(ConfigError, match="60 x 56 px.*14 px"):
        fourteen(pictures(56, 60))


def _spoil(folder, **changes):
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_type": "bert"}, "a bert model; known vision transformers are dinov2"),
        ({"model_type": "dinov3_convnext"}, "known vision transformers"),
        ({"model_type": "nobody-knows"}, "cannot be loaded"),
        ({"auto_map": {"AutoConfig": "evil.Config"}, "model_type": "own"}, "custom code"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"hidden_size": 64}, "cannot be loaded"),
        ({"num_hidden_layers": 4}, "no weights for .*layer.3"),
        ({"patch_size": [14, 14]}, "not square"),
    ],
)
def test_models_that_are_none_of_ours_are_refused(tmp_path, saved, changes, says):
    folder = tmp_path / "model"
    shutil.copytree(saved / "dinov2", folder)
    _spoil(folder, **changes)
    with pytest.raises(ConfigError, match=says) as refused:
        build_encoder(EncoderSpec("hf", (), "", source=str(folder)))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "source is empty"),
        ("facebook/dinov2-base", "hf download facebook/dinov2-base"),
        ("/no/such/folder", "give a folder with config.json and model.safetensors$"),
    ],
)
def test_a_model_that_is_not_there_says_how_to_get_it(source, says, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=says) as refused:
        build_encoder(EncoderSpec("hf", (), "", source=source))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [("model.safetensors", b"x" * 64), ("config.json", b"{"), ("model.safetensors", None)],
)
def test_damaged_files_are_refused(tmp_path, saved, name, content):
    folder = tmp_path / "model"
    shutil.copytree(saved / "dinov2", folder)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        build_encoder(EncoderSpec("hf", (), "", source=str(folder)))


def test_settings_that_do_not_fit_are_refused(saved):
    with pytest.raises(ConfigError, match="last_blocks 4: .* 3 blocks"):
        build_encoder(spec_for(saved, tune="last", last_blocks=4))
    with pytest.raises(ConfigError, match="frozen, last, lora or all"):
        build_encoder(spec_for(saved, tune="some"))
    encoder = build_encoder(spec_for(saved))
    odd = {**architecture_of(encoder)["model"], "model_type": "nobody-knows"}
    stored = json.dumps({**architecture_of(encoder), "model": odd})
    with pytest.raises(ConfigError, match="stored architecture"):
        build_encoder(spec_for(saved, architecture=stored))


def test_without_the_extra_the_error_names_it(monkeypatch, saved):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"zoomloc\[hf\]"):
        build_encoder(spec_for(saved, tune="lora"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"zoomloc\[hf\]"):
        build_encoder(spec_for(saved))


def test_small_encoders_never_import_transformers(monkeypatch):
    for package in ("transformers", "peft", "torchvision"):
        monkeypatch.setitem(sys.modules, package, None)  # to import it is an error
    for module in Path(zoomloc.model.__file__).parent.glob("[a-z]*.py"):
        runpy.run_path(str(module))  # as on the first import
    build_encoder(EncoderSpec("tiny", (8, 8, 8), "batch"))


def test_loading_is_quiet(saved, capfd):
    build_encoder(spec_for(saved, "siglip"))
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert transformers.utils.logging.get_verbosity() == transformers.utils.logging.WARNING


RECIPES = ["justzoomin", "retrieval", "hierarchical"]


def small_recipe(saved, name, *more):
    """A packaged recipe with its encoder replaced by the small stand-in."""
    ours = [
        f"model.{side}_encoder.{key}={value}"
        for side in ("photo", "view")
        for key, value in (("source", saved / "dinov2"), ("last_blocks", 1))
    ]
    smaller = ["model.photo_px=[112,56]", "model.view_px=56", "model.width=64"]
    return load_config([f"models/{name}-dinov2-b"], [*ours, *smaller, *more])


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_fit_their_encoder_and_the_quadtree(saved, name):
    config = load_config([f"models/{name}-dinov2-b"])
    assert config.model.photo_encoder.source == "facebook/dinov2-base"
    encoder = build_encoder(spec_for(saved))
    check_pictures(encoder, "photo_px", config.model.photo_px, config.model.photo_crops)
    check_children(encoder, config.model.view_px, 1 << config.tiles.levels_per_zoom)
    square = box(*config.tiles.bounds)  # the paper's 10 km
    region = cover(name, square, config.tiles.terminal_cell_m, config.tiles.levels_per_zoom)
    assert (region.zooms, region.branching, len(region.roots)) == (4, 16, 4)
    assert 29 < region.cell_size_m < 40


def test_the_papers_recipe_is_the_papers():
    """field.md 4.4 to 4.6."""
    config = load_config(["models/justzoomin-dinov2-b"])
    model, train, changes = config.model, config.train, config.train.augment
    assert (model.pooling, model.photo_crops, model.head) == ("class", 2, "linear")
    assert (train.lr, train.backbone_lr, train.layer_decay) == (3e-4, 1.0, 1.0)
    assert (train.betas, train.weight_decay, train.decay_vectors) == ((0.9, 0.999), 0.01, True)
    assert (train.select_by, train.precision, train.batch) == ("r_at_40m", "fp16", 64)
    assert (changes.photo_crop, changes.photo_jpeg, changes.photo_dropout) == (0.7, 0.5, 0.3)
    assert changes.first_view_plain and not (changes.mirror or changes.turn)


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_build_their_network(saved, name):
    model = network(small_recipe(saved, name).model, 16).train()
    assert model.photo_encoder is model.view_encoder
    learns = {n for n, p in model.photo_encoder.named_parameters() if p.requires_grad}
    assert learns
    assert all(".2." in n or "layernorm" in n for n in learns)  # the last of three blocks
    assert model.encode_photos(torch.rand(1, 3, 56, 112)).shape[-1] == 64


def test_the_halves_of_a_photo_are_encoded_apart_and_averaged(saved):
    model = network(small_recipe(saved, "justzoomin").model, 16).eval()
    photo = pictures(56, 112)
    halves = [model.photo_encoder(half)[:, :, 0, 0] for half in photo.split(56, dim=3)]
    expected = model.photo_tokens.project(sum(halves) / 2)
    torch.testing.assert_close(model.encode_photos(photo)[:, 0], expected)
    with pytest.raises(ConfigError, match="in 3 parts: each side"):
        network(small_recipe(saved, "justzoomin", "model.photo_crops=3").model, 16)


def test_views_whose_children_cut_patches_are_refused(saved):
    with pytest.raises(ConfigError, match="view_px 70: .* nearest sizes: 56 or 112"):
        network(small_recipe(saved, "justzoomin", "model.view_px=70").model, 16)


def on_painted(saved, painted, name="justzoomin", *more):
    steps = ["train.batch=4", "train.steps=4", "train.val_every_steps=2", "train.val_photos=4"]
    here = [f"data={painted}", "name=painted", "train.device=cpu", "train.precision=fp32"]
    return small_recipe(saved, name, *here, *steps, "train.threads=1", *more)


class Stopped(Exception):
    pass


def test_a_run_goes_on_and_answers_when_its_source_is_gone(saved, painted, tmp_path):
    shutil.copytree(saved / "dinov2", tmp_path / "source" / "dinov2")
    config = on_painted(tmp_path / "source", painted)
    train(on_painted(saved, painted), tmp_path / "whole")

    def stop(progress):
        if progress.step == 3:
            raise Stopped

    with pytest.raises(Stopped):
        train(config, tmp_path / "run", stop)
    shutil.rmtree(tmp_path / "source")
    assert train(config, tmp_path / "run").resumed
    runs = [numbered_checkpoints(tmp_path / run)[-1] for run in ("whole", "run")]
    whole, parts = map(load_tensors, runs)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)

    photos = read_photos(painted / "photos.parquet", "test")[:2]
    answers = list(Locator.load(tmp_path / "run").answers([Query.of(p) for p in photos]))
    assert len(answers) == 2
    kept = load_explained(tmp_path / "run" / "checkpoint-best.safetensors").encoders
    assert kept["photo"] == kept["view"] and kept["photo"]["model"]["hidden_size"] == 32


def test_frozen_weights_are_neither_averaged_nor_kept_twice(saved, painted):
    region = Region.load(painted / "region.json")
    state = fresh_state(on_painted(saved, painted), region)
    both = zip(state.model.named_parameters(), state.averaged.named_parameters(), strict=True)
    for (name, one), (_, other) in both:
        assert (one is other) == (not one.requires_grad), name
    names = state.tensors().keys()
    frozen = {n for n, p in state.model.named_parameters() if not p.requires_grad}
    assert "photo_encoder.model.embeddings.cls_token" in frozen
    assert not any(f"ema.{name}" in names for name in frozen)
    assert not any("view_encoder" in name for name in names)  # it is the photo encoder
    before = {k: v.clone() for k, v in changing(state.averaged).items()}
    with torch.no_grad():
        for parameter in state.trained:
            parameter += 1.0
    state.step = 1  # decay 2 / 11
    state.average(0.9)
    for name, value in changing(state.averaged).items():
        torch.testing.assert_close(value, before[name] + 9 / 11)


def test_pretrained_layers_learn_at_rates_of_their_own(saved, painted):
    more = ["train.backbone_lr=0.1", "train.layer_decay=0.5", "train.decay_vectors=false"]
    both = [f"model.{side}_encoder.tune=all" for side in ("photo", "view")]
    config = on_painted(saved, painted, "justzoomin", *more, *both)
    model = network(config.model, 16)
    rates = {}
    for group in parameter_groups(model, config.train):
        for parameter in group["params"]:
            assert id(parameter) not in rates
            rates[id(parameter)] = group["rate"]
            assert (group["weight_decay"] > 0) == (parameter.ndim >= 2)
    assert len(rates) == sum(p.requires_grad for p in model.parameters())
    wanted = {
        "model.layernorm.weight": 0.1,
        ".2.": 0.1 * 0.5,
        ".0.": 0.1 * 0.5**3,
        "model.embeddings.cls_token": 0.1 * 0.5**4,
    }
    named = dict(model.photo_encoder.named_parameters())
    for part, rate in wanted.items():
        some = [p for name, p in named.items() if part in name and p.requires_grad]
        assert some and all(rates[id(p)] == pytest.approx(rate) for p in some), part
    assert rates[id(model.head.weight)] == 1.0
    whole = parameter_groups(model, config.train.model_copy(update={"decay_vectors": True}))
    assert all(group["weight_decay"] > 0 for group in whole)
