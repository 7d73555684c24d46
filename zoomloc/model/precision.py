"""Where a network computes, and in which number format; knows nothing of what it computes."""

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from zoomloc.errors import ConfigError


def device_of(name: str) -> torch.device:
    """``cpu``, ``cuda``, or with ``auto`` a graphics card where there is one.

    Raises ConfigError where a card is asked for and there is none.
    """
    has_card = torch.cuda.is_available()
    if name == "cuda" and not has_card:
        raise ConfigError("train.device cuda: torch finds no graphics card; set it to auto or cpu")
    return torch.device("cuda" if has_card and name != "cpu" else "cpu")


def home_of(model: nn.Module) -> torch.device:
    """The device that a network's weights lie on."""
    return next(model.parameters()).device


def moved(batch: Any, device: torch.device) -> Any:
    """A dataclass of tensors (and tuples of them) on another device."""
    if device.type == "cpu":
        return batch
    found = {field.name: getattr(batch, field.name) for field in fields(batch)}
    return replace(batch, **{name: _moved(value, device) for name, value in found.items()})


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, tuple):
        return tuple(_moved(one, device) for one in value)
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


def number_format(precision: str, device: torch.device) -> torch.dtype:
    """The format of the products: what is asked for, or with ``auto`` bf16 where it is fast.

    Raises ConfigError for fp16 without a graphics card.
    """
    if precision == "fp16":
        if device.type == "cpu":
            raise ConfigError("train.precision fp16: needs a graphics card; set it to auto")
        return torch.float16
    if precision == "bf16" or (precision == "auto" and _has_bf16(device)):
        return torch.bfloat16
    return torch.float32


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Within it a network computes in ``number_format``."""
    kind = number_format(precision, device)
    return torch.autocast(device.type, kind, enabled=kind != torch.float32)


def _has_bf16(device: torch.device) -> bool:
    """Whether the device has the instructions."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
