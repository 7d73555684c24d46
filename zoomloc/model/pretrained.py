"""Pretrained vision transformers, from the Hugging Face hub or a folder, as encoders.

Knows nothing of what the features are used for. transformers and peft (extra ``hf``) are
imported when such an encoder is built, torchvision never: pictures are resized elsewhere and
normalised here.

Letters: N pictures, C channels, T tokens of a picture; h, w its sides in patches.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from zoomloc.errors import ConfigError
from zoomloc.model.encoders import EncoderSpec

KNOWN = (
    "dinov2",
    "dinov2_with_registers",
    "dinov3_vit",
    "siglip_vision_model",  # also what most SigLIP2 checkpoints are
    "siglip2_vision_model",  # SigLIP2 of free aspect ratio (NaFlex)
)
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
HALVES = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}  # SigLIP
AFTER_BLOCKS = ("layernorm", "norm", "post_layernorm", "head")


class HuggingFaceEncoder(nn.Module):
    """A pretrained vision transformer: (N, 3, H, W) in 0..1 -> (N, C, H/patch, W/patch).

    ``spec.tune`` says what is trained of it; the rest takes no gradient and stays in evaluation
    mode. ``spec.class_token`` gives the class token alone, (N, C, 1, 1), as "Just Zoom In" reads
    it; SigLIP, which has none, gives its attention pooling. ``architecture`` is all that is
    needed to build the same network, empty, without the hub (``spec.architecture``).
    """

    aligned = True  # children of a view should begin where patches do
    mean: Tensor
    std: Tensor

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        if spec.architecture:
            self.architecture = json.loads(spec.architecture)
            self.model = _empty(self.architecture["model"])
        else:
            self.model, self.architecture = _pretrained(spec)
        config = self.model.config
        self.class_token, self.kind = spec.class_token, str(config.model_type)
        self.channels, self.stride = int(config.hidden_size), int(config.patch_size)
        for name in ("mean", "std"):
            value = torch.tensor(self.architecture[name]).view(1, 3, 1, 1)
            self.register_buffer(name, value, persistent=False)
        self._trained = _tune(self.model, spec)
        self.train()

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) in 0..1 -> (N, C, h, w), or (N, C, 1, 1) of the class token.

        Raises ConfigError where a side is not a multiple of the patch.
        """
        height, width = pictures.shape[2:]
        if height % self.stride or width % self.stride:
            raise ConfigError(
                f"pictures of {width} x {height} px: each side must be a multiple of the "
                f"encoder's patch, {self.stride} px"
            )
        found = self.model(**self._inputs((pictures - self.mean) / self.std))
        if self.class_token:
            pooled: Tensor = found.pooler_output
            return pooled[:, :, None, None]
        grid = height // self.stride, width // self.stride
        patches: Tensor = found.last_hidden_state[:, -grid[0] * grid[1] :]  # others come first
        return patches.transpose(1, 2).unflatten(2, grid)

    def train(self, mode: bool = True) -> "HuggingFaceEncoder":
        """Training mode for what is trained; the rest stays in evaluation mode."""
        super().train(mode)
        self.model.eval()
        for part in self._trained:
            part.train(mode)
        return self

    def layers(self) -> list[list[nn.Parameter]]:
        """Trained parameters from the picture up: before the blocks, each block, after them."""
        blocks = [list(block.parameters()) for block in _blocks(self.model)]
        last = [p for part in _after_blocks(self.model) for p in part.parameters()]
        above = {id(p) for group in [*blocks, last] for p in group}
        first = [p for p in self.model.parameters() if id(p) not in above]
        return [[p for p in group if p.requires_grad] for group in (first, *blocks, last)]

    def _inputs(self, pictures: Tensor) -> dict[str, Any]:
        """What the model's own ``forward`` wants, its positions fitted to the pictures' size."""
        if self.kind == "siglip_vision_model":
            return {"pixel_values": pictures, "interpolate_pos_encoding": True}
        if self.kind == "siglip2_vision_model":
            return _cut_into_patches(pictures, self.stride)
        return {"pixel_values": pictures}


def _cut_into_patches(pictures: Tensor, side: int) -> dict[str, Tensor]:
    """(N, 3, H, W) -> the flattened patches (N, T, side * side * 3) that NaFlex models read."""
    cut = pictures.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # (N, 3, h, side, w, side)
    count, height, width = len(cut), cut.shape[2], cut.shape[4]
    return {
        "pixel_values": cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2),
        "pixel_attention_mask": cut.new_ones(count, height * width, dtype=torch.long),
        "spatial_shapes": torch.tensor([[height, width]]).expand(count, 2),
    }


def _pretrained(spec: EncoderSpec) -> tuple[Any, dict[str, Any]]:
    """Model with its weights, and its architecture. Raises ConfigError."""
    if not spec.source:
        raise ConfigError(
            "encoder hf: source is empty; give a model's name, as facebook/dinov2-base, or a folder"
        )
    transformers = _transformers()
    with _quiet(transformers):
        try:
            config = transformers.AutoConfig.from_pretrained(spec.source, trust_remote_code=False)
            config = getattr(config, "vision_config", config)
            _check_kind(config, spec.source)
            if config.model_type.startswith("siglip"):
                config.vision_use_head = spec.class_token
            model, report = transformers.AutoModel.from_pretrained(
                spec.source,
                config=config,
                trust_remote_code=False,
                use_safetensors=True,  # no pickles
                dtype=torch.float32,
                output_loading_info=True,
            )
            statistics = _statistics(spec.source, config.model_type)
        except _unreadable() as error:
            raise _not_loaded(spec.source, error) from error
    if report["missing_keys"]:
        some = sorted(report["missing_keys"])[0]
        raise ConfigError(
            f"encoder source {spec.source!r}: has no weights for {some} and "
            f"{len(report['missing_keys']) - 1} more; give a complete model"
        )
    described = json.loads(config.to_json_string(use_diff=False))
    described.pop("_name_or_path", None)  # a folder of whoever trained it
    return model, {"model": described, **statistics}


def _empty(described: dict[str, Any]) -> Any:
    """The network of a described architecture, its weights still to come. Raises ConfigError."""
    transformers = _transformers()
    with _quiet(transformers):
        try:
            settings = {k: v for k, v in described.items() if k != "transformers_version"}
            config = transformers.AutoConfig.for_model(**settings)
            _check_kind(config, "of the checkpoint")
            return transformers.AutoModel.from_config(
                config, trust_remote_code=False, dtype=torch.float32
            )
        except _unreadable() as error:
            raise ConfigError(
                f"encoder hf: its stored architecture cannot be built ({_first_line(error)}); "
                f"use transformers {described.get('transformers_version', 'of that time')}"
            ) from error


def _statistics(source: str, kind: str) -> dict[str, list[float]]:
    """Mean and deviation of the pictures that a model was trained on, from its own files."""
    from transformers.utils import cached_file

    for name in ("preprocessor_config.json", "processor_config.json"):
        path = cached_file(
            source,
            name,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if path is None:
            continue
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        data = data.get("image_processor", data)
        if "image_mean" in data and "image_std" in data:
            found = {key: [float(v) for v in data[f"image_{key}"]] for key in ("mean", "std")}
            if len(found["mean"]) != 3 or len(found["std"]) != 3 or min(found["std"]) <= 0:
                raise ValueError(f"{name}: image_mean and image_std must be 3 numbers each")
            return found
    return HALVES if kind.startswith("siglip") else IMAGENET


def _check_kind(config: Any, source: str) -> None:
    """Refuse what is not one of the vision transformers known here. Raises ConfigError."""
    if config.model_type not in KNOWN:
        raise ConfigError(
            f"encoder source {source!r}: a {config.model_type} model; known vision transformers "
            f"are {', '.join(KNOWN)}"
        )
    if not isinstance(config.patch_size, int) or config.patch_size < 1:
        raise ConfigError(f"encoder source {source!r}: patches of {config.patch_size}, not square")


def _tune(model: Any, spec: EncoderSpec) -> list[nn.Module]:
    """Say which parameters take gradients; the modules that go into training mode."""
    model.requires_grad_(False)
    blocks = _blocks(model)
    trained: list[nn.Module] = []
    if spec.tune == "lora":
        _add_lora(model, blocks, spec.lora_rank)
    elif spec.tune == "last":
        if spec.last_blocks > len(blocks):
            raise ConfigError(
                f"encoder last_blocks {spec.last_blocks}: {spec.source or 'the model'} has "
                f"{len(blocks)} blocks; give at most that, or tune: all"
            )
        trained = [*blocks[len(blocks) - spec.last_blocks :], *_after_blocks(model)]
    elif spec.tune == "all":
        trained = [model]
    elif spec.tune != "frozen":
        raise ConfigError(f"encoder tune {spec.tune!r}: must be frozen, last, lora or all")
    for part in trained:
        part.requires_grad_(True)
    for name, parameter in model.named_parameters():
        if name.endswith("mask_token"):  # of pretraining; nothing passes through it here
            parameter.requires_grad_(False)
    return trained


def _add_lora(model: Any, blocks: nn.ModuleList, rank: int) -> None:
    """Low-rank additions to the attention projections of every block (arXiv 2106.09685)."""
    try:
        import peft
    except ImportError as error:
        raise ConfigError(
            "encoder tune lora: peft is missing; pip install 'zoomloc[hf]'"
        ) from error
    ours = {id(m) for m in blocks.modules()}
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module) in ours and "att" in name
    ]
    plan = peft.LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=names)
    peft.inject_adapter_in_model(plan, model)


def _blocks(model: Any) -> nn.ModuleList:
    """The transformer's blocks, wherever this version of transformers keeps them."""
    count = model.config.num_hidden_layers
    return next(m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count)


def _after_blocks(model: Any) -> list[nn.Module]:
    """The final norm and, where there is one, the pooling that follows it."""
    return [part for name, part in model.named_children() if name in AFTER_BLOCKS]


def _transformers() -> Any:
    """The package, or a ConfigError that names the extra."""
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            "encoder hf: transformers is missing; pip install 'zoomloc[hf]'"
        ) from error
    return transformers


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without its reports and bars of reading; those of downloads stay."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _unreadable() -> tuple[type[Exception], ...]:
    """What transformers raises over files that are missing, damaged or of another kind."""
    from huggingface_hub.errors import StrictDataclassError

    lookups = (KeyError, AttributeError, TypeError, ValueError, ArithmeticError)
    return (OSError, RuntimeError, SafetensorError, StrictDataclassError, *lookups)


def _not_loaded(source: str, error: Exception) -> ConfigError:
    """Why, and what to do: another folder, or a download."""
    is_path = Path(source).exists() or source.startswith((".", "/", "~")) or source.count("/") != 1
    mend = "" if is_path else f", or fetch the model once with 'hf download {source}'"
    return ConfigError(
        f"encoder source {source!r}: cannot be loaded ({_first_line(error)}); give a folder with "
        f"config.json and model.safetensors{mend}"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".:")[:160] if lines else type(error).__name__
