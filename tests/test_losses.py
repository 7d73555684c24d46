"""Losses: soft cross-entropy over the choices that exist, summed over a path."""

import math

import pytest
import torch
import torch.nn.functional as F

from zoomloc.training.losses import choice_loss, path_loss


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def soft(*shape):
    return torch.randn(*shape).softmax(-1)


def everywhere(target):
    return torch.ones_like(target, dtype=torch.bool)


def test_one_hot_targets_are_plain_cross_entropy():
    logits, choice = torch.randn(5, 16), torch.randint(0, 16, (5,))
    target = F.one_hot(choice, 16).float()
    expected = F.cross_entropy(logits, choice, reduction="none")
    torch.testing.assert_close(choice_loss(logits, target, everywhere(target)), expected)


def test_the_least_loss_is_the_targets_entropy():
    target = soft(7, 16)
    entropy = -(target * target.log()).sum(-1)
    torch.testing.assert_close(choice_loss(target.log(), target, everywhere(target)), entropy)
    worse = choice_loss(target.log() + torch.randn(7, 16), target, everywhere(target))
    assert (worse > entropy).all()


def test_absent_choices_take_no_part_and_get_no_gradient():
    present = torch.tensor([True, False, True, True])
    target = torch.tensor([0.2, 0.0, 0.5, 0.3])
    logits = torch.randn(4, requires_grad=True)
    loss = choice_loss(logits, target, present)
    loss.backward()
    assert logits.grad is not None and logits.grad[1] == 0 and logits.grad[0] != 0
    loud = logits.detach().clone()
    loud[1] = 1e4
    torch.testing.assert_close(choice_loss(loud, target, present), loss.detach())
    alone = choice_loss(logits[present], target[present], torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(alone, loss)


def test_a_path_is_the_sum_over_its_zooms_and_the_mean_over_photos():
    zooms, target = torch.randn(3, 4, 16), soft(3, 4, 16)
    each = choice_loss(zooms, target, everywhere(target))
    total = path_loss(None, zooms, None, None, target, everywhere(target))
    torch.testing.assert_close(total, each.sum() / 3)


def test_equal_logits_cost_log_k_for_each_decision():
    target = soft(2, 3, 16)
    zooms, root = torch.zeros(2, 3, 16), torch.zeros(2, 16)
    roots = torch.ones(4, dtype=torch.bool)
    total = path_loss(root, zooms, soft(2, 4), roots, target, everywhere(target))
    assert float(total) == pytest.approx(3 * math.log(16) + math.log(4), rel=1e-5)


def test_only_the_slots_of_the_regions_roots_count_in_the_root_choice():
    target, root_target = soft(2, 3, 4), soft(2, 5)
    zooms, root = torch.randn(2, 3, 4), torch.randn(2, 16)
    all_roots = torch.ones(5, dtype=torch.bool)
    before = path_loss(root, zooms, root_target, all_roots, target, everywhere(target))
    root[:, 5:] += 50
    after = path_loss(root, zooms, root_target, all_roots, target, everywhere(target))
    torch.testing.assert_close(after, before)
    root[:, 0] += 1
    assert path_loss(root, zooms, root_target, all_roots, target, everywhere(target)) != after


def test_half_precision_logits_are_summed_in_full():
    target = soft(64, 3, 16)
    zooms = 20 * torch.randn(64, 3, 16)
    low = path_loss(None, zooms.bfloat16(), None, None, target, everywhere(target))
    full = path_loss(None, zooms.bfloat16().float(), None, None, target, everywhere(target))
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, full)
