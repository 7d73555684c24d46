"""Muon: orthogonal steps for matrices, AdamW's for the rest, the same after a restart."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoomloc.config import load_config
from zoomloc.training.muon import Muon, is_matrix, orthogonal
from zoomloc.training.state import parameter_groups


@pytest.mark.parametrize("shape", [(32, 32), (24, 200), (200, 24)])
def test_singular_values_come_to_about_one_and_vectors_stay(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    matrix = u * (s.clamp(min=0.1 * float(s[0]))) @ v
    found = orthogonal(matrix)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.4 and values.max() < 1.6
    inner = u.T @ found @ v.T  # diagonal where singular vectors are the same
    torch.testing.assert_close(inner, torch.diag(inner.diagonal()), atol=1e-3, rtol=0)
    torch.testing.assert_close(orthogonal(1000 * matrix), found, atol=1e-4, rtol=1e-3)


def test_a_matrix_without_gradient_moves_nowhere() -> None:
    assert torch.equal(orthogonal(torch.zeros(30, 40)), torch.zeros(30, 40))


def _network() -> nn.Module:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 40, 3), nn.Flatten(), nn.Linear(40, 4))
    net.photo_encoder = nn.Identity()
    return net


def _groups(net: nn.Module, *changes: str) -> list[dict[str, Any]]:
    return parameter_groups(net, load_config([], list(changes)).train)


def test_which_weights_are_matrices() -> None:
    net = _network()
    assert [is_matrix(m, m.weight) for m in net if hasattr(m, "weight")] == [True, True, False]
    assert not is_matrix(nn.Embedding(100, 64), torch.zeros(100, 64))
    assert not is_matrix(net[1], net[1].bias)
    chosen = {id(p) for g in _groups(net) if g["matrices"] for p in g["params"]}
    assert chosen == {id(net[0].weight), id(net[1].weight)}
    assert not any(g["matrices"] for g in _groups(net, "train.optimizer=adamw"))


def _gradients(net: nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    net(torch.randn(100, 3, 5, 5)).square().sum().backward()


def test_the_rest_goes_as_adamw_goes() -> None:
    nets = [_network(), _network()]
    ours = Muon(_groups(nets[0]), lr=1e-3, betas=(0.9, 0.98), fused=True)
    theirs = torch.optim.AdamW(_groups(nets[1]), lr=1e-3, betas=(0.9, 0.98), fused=True)
    start = copy.deepcopy(nets[0])
    for net in nets:
        _gradients(net, 2)
    ours.step()
    theirs.step()
    for mine, other, before in zip(*(n.parameters() for n in [*nets, start]), strict=True):
        alike = torch.allclose(mine, other, atol=1e-7)
        assert alike == (mine.ndim < 4)
        assert not torch.equal(mine, before)


def test_a_step_is_as_long_as_adamws_usually_is() -> None:
    net = _network()
    before = net[1].weight.clone()
    optimizer = Muon(_groups(net, "train.weight_decay=0"), lr=1e-2, fused=True)
    net[1].weight.grad = torch.randn(net[1].weight.shape)
    optimizer.step()
    size = (net[1].weight - before).square().mean().sqrt()
    assert 0.1 * 1e-2 < size < 0.3 * 1e-2


def test_momentum_is_part_of_the_state() -> None:
    whole, first = _network(), _network()
    optimizers = [Muon(_groups(net), lr=1e-2, fused=True) for net in (whole, first)]
    for net, optimizer in zip((whole, first), optimizers, strict=True):
        _gradients(net, 4)
        optimizer.step()
        optimizer.zero_grad()
    later = copy.deepcopy(first)
    taken_up = Muon(_groups(later), lr=1e-2, fused=True)
    taken_up.load_state_dict(copy.deepcopy(optimizers[1].state_dict()))
    for net, optimizer in ((whole, optimizers[0]), (later, taken_up)):
        _gradients(net, 5)
        optimizer.step()
    for one, other in zip(whole.parameters(), later.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_step_that_overflows_is_left_out() -> None:
    net = _network()
    scaler = torch.amp.GradScaler("cpu", enabled=True)
    optimizer = Muon(_groups(net), lr=1e-2, fused=True)
    before = copy.deepcopy(net.state_dict())
    _gradients(net, 6)
    weight: Tensor = net[1].weight
    assert weight.grad is not None
    weight.grad[0, 0, 0, 0] = torch.inf
    scaler.scale(torch.zeros(()))  # so that the scaler has begun
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
