"""Optimisers and the learning rate, against numbers worked out by hand."""

import math

import pytest
import torch
from tiny_runs import ponder_run
from torch import nn

from ponder3d.encoders.norms import PromptNormConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.engine.optim import OptimConfig, gradient_norm, lr_factor, set_lr, step_unless


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        self.head = nn.Linear(3, 1)
        self.sharpness = nn.Parameter(torch.tensor(20.0))
        self.frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)


def groups_by_name(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict]:
    found = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    return {name: found[id(parameter)] for name, parameter in model.named_parameters() if id(parameter) in found}


@pytest.mark.parametrize(
    ("field", "value"),
    [("clip", -1.0), ("lr", -1e-3), ("encoder_lr_scale", -1.0), ("backbone_lr_scale", math.inf)]
    + [("weight_decay", math.nan), ("warmup", 3.0), ("warmup", math.nan), ("final", -0.1)],
)
def test_what_would_turn_steps_round_is_refused(field, value):
    with pytest.raises(ValueError, match=rf"OptimConfig\.{field} (must be at least 0|is a share, in \[0, 1\];)"):
        OptimConfig(**{field: value})


def test_weights_decay_but_biases_norms_and_scalars_do_not():
    groups = groups_by_name(model := Model(), OptimConfig(weight_decay=0.3).build(model))
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        "sharpness": 0.0,
        "encoder.0.weight": 0.3,
        "encoder.0.bias": 0.0,
        "encoder.1.weight": 0.0,
        "encoder.1.bias": 0.0,
        "head.weight": 0.3,
        "head.bias": 0.0,
    }


def test_every_trainable_parameter_of_a_task_is_in_exactly_one_group():
    task = ponder_run().task.build(None)
    members = [p for group in OptimConfig().build(task).param_groups for p in group["params"]]
    assert sorted(map(id, members)) == sorted(id(p) for p in task.parameters() if p.requires_grad)


def test_the_encoder_has_a_rate_of_its_own():
    optimizer = OptimConfig(encoder_lr_scale=0.1).build(model := Model())
    set_lr(optimizer, 0.5)
    rates = {name: group["lr"] for name, group in groups_by_name(model, optimizer).items()}
    assert rates["encoder.0.weight"] == rates["encoder.1.bias"] == pytest.approx(0.05)
    assert rates["head.weight"] == rates["sharpness"] == 0.5


def test_an_image_backbone_has_a_rate_of_its_own():
    model = Model()
    model.encoder = nn.ModuleDict({"backbone": nn.Linear(2, 3), "neck": nn.Linear(3, 3)})
    optimizer = OptimConfig(encoder_lr_scale=0.5, backbone_lr_scale=0.1).build(model)
    set_lr(optimizer, 1.0)
    rates = {name: group["lr"] for name, group in groups_by_name(model, optimizer).items()}
    assert rates["encoder.backbone.weight"] == pytest.approx(0.05)
    assert rates["encoder.neck.bias"] == 0.5 and rates["head.weight"] == 1.0


def test_weight_decay_of_adamw_shrinks_a_weight_without_gradient_by_lr_times_decay():
    optimizer = OptimConfig(weight_decay=0.5).build(model := Model())
    set_lr(optimizer, 0.1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(2.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.head.weight, torch.full((1, 3), 2.0 * (1 - 0.1 * 0.5)))
    torch.testing.assert_close(model.head.bias, torch.full((1,), 2.0))


def test_sgd_has_nesterov_momentum():
    optimizer = OptimConfig(name="sgd", weight_decay=0.0).build(model := nn.Linear(1, 1))
    set_lr(optimizer, 0.1)
    with torch.no_grad():
        model.weight.fill_(1.0)
    # Gradient 1 twice: the first step is lr (1 + 0.9), the second lr (1 + 0.9 * 1.9).
    for expected in (1 - 0.19, 1 - 0.19 - 0.271):
        model.weight.grad = torch.ones(1, 1)
        optimizer.step()
        assert model.weight.item() == pytest.approx(expected)


def test_the_rate_rises_linearly_and_falls_along_half_a_cosine():
    # 2 of 10 steps warm up; the other 8 follow 0.1 + 0.9 * (1 + cos(pi k / 8)) / 2.
    factors = [lr_factor(step, 10, 0.2, 0.1) for step in range(10)]
    assert factors[:2] == [0.5, 1.0]
    assert factors[2] == 1.0
    assert factors[4] == pytest.approx(0.1 + 0.9 * (1 + 2**-0.5) / 2)
    assert factors[6] == pytest.approx(0.55)
    assert factors[9] == pytest.approx(0.1 + 0.9 * (1 - 0.9238795) / 2)


def test_without_warmup_the_first_step_has_the_full_rate():
    assert lr_factor(0, 1000, 0.0, 0.0) == 1.0
    assert lr_factor(0, 1, 0.05, 0.01) == 1.0
    assert lr_factor(999, 1000, 0.0, 0.0) < 1e-5


def test_the_norm_of_the_gradients_is_that_of_all_together():
    a, b, without = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1, 1)), nn.Parameter(torch.zeros(5))
    a.grad, b.grad = torch.tensor([3.0, 4.0]), torch.tensor([[12.0]])
    assert gradient_norm([a, b, without]).item() == 13.0
    assert gradient_norm([without]).item() == 0.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_gradient_makes_the_norm_not_finite(bad):
    a, b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))
    a.grad, b.grad = torch.ones(2), torch.tensor([1.0, bad, 1.0])
    assert not torch.isfinite(gradient_norm([a, b]))


@pytest.mark.parametrize("config", [OptimConfig("adamw"), OptimConfig("sgd", weight_decay=0.1)])
def test_bad_steps_leave_weights_and_state_as_they_were(config):
    """Also a first one, before there is any state."""

    def run(flags: list[bool]) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Linear(50, 50)
        optimizer = config.build(model)
        for number, bad in enumerate(flags):
            generator = torch.Generator().manual_seed(sum(not flag for flag in flags[:number]))
            for p in model.parameters():
                p.grad = torch.full_like(p, math.nan) if bad else torch.randn(p.shape, generator=generator)
            step_unless(torch.tensor(bad), optimizer, optimizer)
        return model, optimizer

    model, optimizer = run([False, False, False])
    disturbed, its_optimizer = run([True, False, True, True, False, False, True])
    for a, b in zip(model.parameters(), disturbed.parameters(), strict=True):
        assert torch.equal(a, b)
        mine, its = optimizer.state[a], its_optimizer.state[b]
        assert mine.keys() == its.keys() and all(torch.equal(mine[k], its[k]) for k in mine)


def test_the_first_step_of_sgd_is_that_of_pytorch():
    ours, theirs = nn.Linear(4, 4), nn.Linear(4, 4)
    theirs.load_state_dict(ours.state_dict())
    config = OptimConfig("sgd", lr=0.1, weight_decay=0.0)
    optimizer = config.build(ours)
    other = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, nesterov=True, fused=True)
    for seed in range(3):
        for model in (ours, theirs):
            torch.manual_seed(seed)
            for p in model.parameters():
                p.grad = torch.randn_like(p)
        step_unless(torch.tensor(False), optimizer, optimizer)
        other.step()
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_one_cycle_is_pytorchs():
    """Rate and momentum, step by step, of SGD with PonderV2's choices: 5 % of the steps up, from 1/10, down to 1e-5."""
    model = nn.Linear(2, 2)
    config = OptimConfig(name="sgd", schedule="one_cycle", lr=0.05, final=1e-5)
    optimizer, theirs = config.build(model), torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        theirs, 0.05, total_steps=200, pct_start=0.05, div_factor=10, final_div_factor=1e4
    )
    for step in range(200):
        config.set(optimizer, step, 200)
        expected = theirs.param_groups[0]
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(expected["lr"], rel=1e-9, abs=1e-15), step
            assert group["momentum"] == pytest.approx(expected["momentum"], rel=1e-9), step
        theirs.step()
        if step < 199:
            cycle.step()


def test_poly():
    config = OptimConfig(schedule="poly", lr=0.1)
    assert [config.factor(step, 4) for step in range(4)] == pytest.approx([1, 0.75**0.9, 0.5**0.9, 0.25**0.9])


def test_rows_of_conditions_do_not_decay():
    """Scale and shift of a norm by condition, and prompts, are vectors; what maps prompts to them is a matrix."""
    norm = PromptNormConfig(("a", "b"), prompt_channels=3)
    encoder = SparseUNetConfig(stem_channels=4, channels=(4, 4), blocks=(1, 1), norm=norm).build()
    groups = groups_by_name(encoder, OptimConfig(weight_decay=0.3).build(encoder))
    decay = {name: group["weight_decay"] for name, group in groups.items()}
    assert decay["prompts.weight"] == decay["stem.norm.weight"] == decay["stem.norm.bias"] == 0
    assert decay["stem.norm.modulation.weight"] == decay["stem.conv.weight"] == 0.3
