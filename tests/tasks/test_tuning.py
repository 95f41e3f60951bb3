"""What each way to use an encoder trains, and what it leaves alone."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from ponder3d.config import from_json, to_json
from ponder3d.encoders.files import load_encoder, save_encoder
from ponder3d.sparse.nn import LowRank, SparseConv, SubmConv3d, merged_state
from ponder3d.tasks.frozen import features_of
from ponder3d.tasks.semseg import SemSegConfig
from ponder3d.tasks.tuning import DecoderOnly, Full, Lora, TuningConfig
from ponder3d.types import Batch

FAMILY = TuningConfig


@pytest.fixture
def data(room, small_encoder):
    return Batch.of([room(1, num=150), room(2, num=150)], small_encoder.inputs)


@pytest.fixture
def build(small_encoder, labels, data):
    """A task whose encoder has the running statistics of the data, as one that was pre-trained has them."""

    def make(tuning, encoder=small_encoder, all_levels=False):
        torch.manual_seed(0)
        stages = 4 if all_levels else 2
        encoder = replace(encoder, norm_momentum=1.0, channels=(8,) * stages, blocks=(1,) * stages)
        task = SemSegConfig(encoder=encoder, tuning=tuning, all_levels=all_levels).build(labels)
        task.encoder.train()
        with torch.no_grad():
            task.encoder(data)
        return task.eval()

    return make


def one_step(task, data, lr=0.1):
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr)
    task.train()
    sum(task.losses(data, 0).terms.values()).backward()
    optimizer.step()
    optimizer.zero_grad()


def changed(before, task):
    after = task.state_dict()
    assert set(before) == set(after)
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_each_is_a_configuration_and_leaves_the_initial_weights(member, build, labels):
    assert from_json(TuningConfig, to_json(member())) == member()
    task, plain = build(member()), build(Full())
    assert all(torch.equal(value, task.state_dict()[name]) for name, value in plain.state_dict().items())


@pytest.mark.parametrize("all_levels", [False, True], ids=["last_level", "all_levels"])
def test_each_trains_what_it_says_and_nothing_else(member, all_levels, build, data):
    """Weights, and running statistics: what is frozen is in evaluation mode although the task is being trained."""
    task = build(member(), all_levels=all_levels)
    before = deepcopy(task.state_dict())
    with torch.no_grad():
        first = task.eval().logits(data)
    for _ in range(2):  # a change of low rank begins to move with its second factor
        one_step(task, data)
    moved = changed(before, task)
    trained = {name for name, p in task.named_parameters() if p.requires_grad}
    statistics = {name for name in moved if name not in dict(task.named_parameters())}
    assert moved - statistics == trained
    places = {name.removeprefix("encoder.").split(".")[0] for name in statistics}
    assert places == {Full: {"stem", "down", "enc", "up", "dec"}, DecoderOnly: {"up", "dec"}}.get(member, set())
    of_encoder = {name.split(".")[1] for name in trained if name.startswith("encoder.")}
    assert of_encoder == places
    assert {"head.weight", "head.bias"} <= trained
    with torch.no_grad():
        assert not torch.equal(task.eval().logits(data), first)
    assert not any(module.training for module in task.modules())


def test_frozen_parts_get_no_gradient(build, data):
    task = build(DecoderOnly()).train()
    assert not task.encoder.stem.training and task.encoder.dec[0].training and task.head.training
    sum(task.losses(data, 0).terms.values()).backward()
    assert all((p.grad is not None) == p.requires_grad for p in task.parameters())
    frozen = [name for name, p in task.named_parameters() if not p.requires_grad]
    assert {name.split(".")[1] for name in frozen} == {"stem", "down", "enc"}


@pytest.mark.parametrize("tuning", [DecoderOnly(), Lora()], ids=["DecoderOnly", "Lora"])
def test_recomputing_blocks_gives_the_same_gradients(tuning, build, data, small_encoder):
    grads = []
    for recompute in (False, True):
        task = build(tuning, replace(small_encoder, recompute=recompute)).train()
        one_step(task, data)
        sum(task.losses(data, 0).terms.values()).backward()
        grads.append({name: p.grad for name, p in task.named_parameters() if p.requires_grad})
    assert all(torch.equal(grads[0][name], grads[1][name]) for name in grads[0])


def test_encoders_that_cannot_be_tuned_so(pass_config, labels):
    for tuning, message in ((DecoderOnly(), "a _Pass has no decoder"), (Lora(), "a _Pass has no sparse convolutions")):
        with pytest.raises(ValueError, match=message):
            SemSegConfig(pass_config(), tuning=tuning).build(labels)
    for wrong in ({"rank": 0}, {"alpha": 0.0}):
        with pytest.raises(ValueError, match="rank and alpha must be positive"):
            Lora(**wrong)


def test_a_change_by_hand():
    """Two taps of one channel to two: the change is scale times the outer product of the factors."""
    conv = SubmConv3d(1, 2, kernel=1)
    change = LowRank(conv.weight, 1, 0.5)
    conv.change(change)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[[1.0, 2.0]]]))
        change.down.copy_(torch.tensor([[4.0]]))
        assert torch.equal(conv.used_weight, conv.weight), "the second factor starts at 0"
        change.up.copy_(torch.tensor([[1.0, -3.0]]))
    assert conv.used_weight.tolist() == [[[1 + 0.5 * 4, 2 - 0.5 * 4 * 3]]]
    assert merged_state(conv)["weight"].tolist() == conv.used_weight.tolist()
    assert set(conv.state_dict()) == {"weight"} and conv.weight.tolist() == [[[1, 2]]]


def test_changes_have_the_rank_and_leave_the_weights(build, data):
    task = build(Lora(rank=2, alpha=6.0))
    before = deepcopy(task.encoder.state_dict())
    for _ in range(3):
        one_step(task, data)
    assert all(torch.equal(value, before[name]) for name, value in task.encoder.state_dict().items())
    convs = [m for m in task.encoder.modules() if isinstance(m, SparseConv)]
    assert len(convs) == len(task.tuning.changes) == 7
    for conv in convs:
        difference = (conv.used_weight - conv.weight).detach().flatten(0, 1).double()
        assert int(torch.linalg.matrix_rank(difference, rtol=1e-4)) == min(2, *difference.shape)


def test_the_file_of_a_changed_encoder_is_an_ordinary_one(build, data, tmp_path, room):
    task = build(Lora())
    for _ in range(3):
        one_step(task, data)
    task.eval()
    save_encoder(task.encoder, tmp_path / "encoder.safetensors")
    loaded = load_encoder(tmp_path)
    assert loaded.config == task.encoder.config
    assert not any(m.changed for m in loaded.modules() if isinstance(m, SparseConv))
    expected = features_of(task.encoder, room(3))
    assert torch.equal(features_of(loaded, room(3)), expected)
    plain = task.encoder.config.build().eval()
    plain.load_state_dict(task.encoder.state_dict())
    assert not torch.allclose(features_of(plain, room(3)), expected, atol=1e-3)


def test_a_copy_of_a_task_has_changes_of_its_own(build, data):
    task = build(Lora())
    twin = deepcopy(task)
    before = deepcopy(task.state_dict())
    for _ in range(2):
        one_step(twin, data)
    assert not changed(before, task)
    assert torch.equal(twin.encoder.stem.conv.used_weight, merged_state(twin.encoder)["stem.conv.weight"])
    assert not torch.equal(twin.encoder.stem.conv.used_weight, twin.encoder.stem.conv.weight)
