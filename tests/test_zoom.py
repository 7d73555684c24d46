"""The zoom transformer: shapes, causality, children's tokens, overfitting one batch."""

import dataclasses

import pytest
import torch

from zoomloc.errors import ConfigError
from zoomloc.model.encoders import ENCODERS, EncoderSpec, build_encoder, child_pooling
from zoomloc.model.zoom import Steps, Views, ZoomModel, ZoomSpec

TINY = EncoderSpec("tiny", (8, 8, 16), "batch")
SMALL = ZoomSpec(
    branching=16, photo_px=(48, 24), view_px=32, view_margin=0.0, photo_encoder=TINY,
    view_encoder=TINY, shared_encoder=False, photo_crops=1, photo_tokens=2, pooling="grid",
    width=32, layers=2, heads=2, ffn_ratio=2.0, dropout=0.0, head="linear",
    level_embedding=True, place=True, place_dropout=0.5,
)  # fmt: skip


def spec(**changes) -> ZoomSpec:
    return dataclasses.replace(SMALL, **changes)


def example(model: ZoomModel, root: bool, photos: int = 3, zooms: int = 3):
    """Random photos, views and steps; every step looks at a view of its own."""
    torch.manual_seed(1)
    steps, k = zooms + root, model.spec.branching
    width, height = model.spec.photo_px
    pictures = torch.rand(photos, 3, height, width)
    views = torch.rand(photos * steps, 3, model.spec.view_px, model.spec.view_px)
    choice = torch.randint(0, k, (photos, steps))
    if root:
        choice[:, 0] = torch.randint(0, 16, (photos,))
    view = torch.arange(photos * steps).view(photos, steps)
    return pictures, views, Steps(view, choice, torch.rand(photos, steps, 3), root)


def run(model: ZoomModel, pictures, views, steps):
    with torch.no_grad():
        return model(model.encode_photos(pictures), model.encode_views(views), steps)


@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("k", [4, 16, 64])
@pytest.mark.parametrize("head", ["linear", "pointer", "both"])
def test_shapes(root, k, head):
    model = ZoomModel(spec(branching=k, head=head)).eval()
    roots, zooms = run(model, *example(model, root))
    assert zooms.shape == (3, 3, k)
    assert (roots is not None) == root
    if root:
        assert roots.shape == (3, 16)


@pytest.mark.parametrize("head", ["linear", "both"])
@pytest.mark.parametrize("root", [False, True])
def test_no_logit_depends_on_later_views_or_on_its_own_or_later_choices(head, root):
    model = ZoomModel(spec(head=head)).eval()
    pictures, views, steps = example(model, root)
    before_root, before = run(model, pictures, views, steps)
    for step in range(3 + root):
        choice = steps.choice.clone()
        choice[:, step:] = (choice[:, step:] + 1) % 16
        view = views.clone()
        view[steps.view[:, step + 1 :].flatten()] = 0.5
        changed = dataclasses.replace(steps, choice=choice)
        after_root, after = run(model, pictures, view, changed)
        upto = step + 1 - root  # zooms whose logits must not move
        torch.testing.assert_close(after[:, :upto], before[:, :upto], rtol=0, atol=0)
        if root:
            torch.testing.assert_close(after_root, before_root, rtol=0, atol=0)
        if upto < 3:  # and what comes after them does
            assert not torch.equal(after[:, upto:], before[:, upto:])


def test_the_last_step_alone_gives_the_same_logits_as_all_at_once():
    model = ZoomModel(SMALL).eval()
    pictures, views, steps = example(model, root=True)
    _, whole = run(model, pictures, views, steps)
    part = Steps(steps.view[:, :3], steps.choice[:, :3], steps.place[:, :3], True)
    _, short = run(model, pictures, views, part)
    torch.testing.assert_close(short[:, -1], whole[:, 1])


@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("head", ["linear", "both"])
def test_step_after_step_reads_no_more_than_two_tokens_and_gives_the_logits_of_all_at_once(
    head, root
):
    model = ZoomModel(spec(head=head)).eval()
    pictures, views, steps = example(model, root)
    roots, zooms = run(model, pictures, views, steps)
    expected = [*([roots] if root else []), *zooms.unbind(1)]
    read = []
    model.blocks[0].register_forward_pre_hook(lambda block, given: read.append(given[0]))
    with torch.no_grad():
        shown, seen = model.encode_photos(pictures), model.encode_views(views)
        logits, past = model.next(shown, seen, part_of(steps, 0, 1, root))
        found = [logits]
        for k in range(1, len(expected)):
            logits, past = model.next(past, seen, part_of(steps, k - 1, k + 1, root))
            found.append(logits)
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    assert [x.shape[1] for x in read] == [3, *[2] * (len(expected) - 1)]


def part_of(steps: Steps, first: int, end: int, root: bool) -> Steps:
    """Some columns of steps."""
    cut = (t[:, first:end] for t in (steps.view, steps.choice, steps.place))
    return Steps(*cut, root=root and first == 0, before=max(first - root, 0))


def test_photos_of_a_batch_do_not_influence_each_other():
    model = ZoomModel(SMALL).eval()
    pictures, views, steps = example(model, root=False)
    _, together = run(model, pictures, views, steps)
    alone = Steps(steps.view[1:2], steps.choice[1:2], steps.place[1:2], False)
    _, single = run(model, pictures[1:2], views, alone)
    torch.testing.assert_close(single[0], together[1])


def test_a_dropped_place_is_the_same_as_no_place():
    model = ZoomModel(spec(head="both")).eval()
    pictures, views, steps = example(model, root=False)
    nowhere = dataclasses.replace(steps, place=torch.full_like(steps.place, torch.nan))
    without = dataclasses.replace(steps, place=None)
    torch.testing.assert_close(
        run(model, pictures, views, nowhere)[1], run(model, pictures, views, without)[1]
    )


@pytest.mark.parametrize(("grid", "side", "margin"), [(8, 4, 0.0), (7, 4, 0.0), (12, 2, 0.5)])
def test_child_pooling_averages_each_childs_own_square(grid, side, margin):
    pool = child_pooling(grid, side, margin)
    torch.testing.assert_close(pool.sum(1), torch.ones(side * side))
    columns = torch.arange(grid).float() + 0.5
    x = pool @ columns.repeat(grid)  # mean column of each child
    inner = grid / (1 + 2 * margin)
    centers = (margin * inner) + (torch.arange(side) + 0.5) * inner / side
    near = {"atol": 0.06, "rtol": 0}
    torch.testing.assert_close(x.view(side, side), centers.repeat(side, 1), **near)  # row-major
    y = pool @ columns.repeat_interleave(grid)
    torch.testing.assert_close(y.view(side, side), centers[:, None].repeat(1, side), **near)


@pytest.mark.parametrize("head", ["linear", "pointer"])
def test_one_batch_is_overfitted(head):
    torch.manual_seed(0)
    model = ZoomModel(spec(head=head))
    pictures, views, steps = example(model, root=True, photos=8)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(150):
        root, zooms = model(model.encode_photos(pictures), model.encode_views(views), steps)
        logits = torch.cat([root[:, None], zooms], 1).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, steps.choice.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (logits.argmax(-1) == steps.choice.flatten()).float().mean() == 1.0


def test_views_are_tokens_of_each_view_alone():
    model = ZoomModel(spec(head="both")).eval()
    views = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        all_of_them, one = model.encode_views(views), model.encode_views(views[2:3])
    assert isinstance(one, Views)
    torch.testing.assert_close(all_of_them.pooled[2], one.pooled[0])
    torch.testing.assert_close(all_of_them.children[2], one.children[0])
    assert ZoomModel(spec(head="linear")).encode_views(views).children is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"branching": 8}, "4, 16 or 64"),
        ({"width": 30}, "model.heads"),
        ({"head": "x"}, "model.head"),
        ({"photo_encoder": EncoderSpec("resnet", (), "")}, "tiny"),
        (
            {"shared_encoder": True, "view_encoder": EncoderSpec("tiny", (4, 4, 4), "batch")},
            "shared_encoder",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, says):
    with pytest.raises(ConfigError, match=says):
        ZoomModel(spec(**change))


def test_the_registry_is_the_place_to_swap_encoders(monkeypatch):
    class Plain(torch.nn.Module):
        stride, channels = 8, 3

        def __init__(self, spec):
            super().__init__()

        def forward(self, pictures):
            return torch.nn.functional.avg_pool2d(pictures, 8)

    monkeypatch.setitem(ENCODERS, "plain", Plain)
    plain = EncoderSpec("plain", (), "")
    assert build_encoder(plain).channels == 3
    model = ZoomModel(spec(photo_encoder=plain, view_encoder=plain)).eval()
    assert run(model, *example(model, root=False))[1].shape == (3, 3, 16)
