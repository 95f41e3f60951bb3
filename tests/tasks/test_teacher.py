"""A teacher has the student's weights as buffers, follows it by a share, and keeps its own running statistics."""

import torch
from torch import nn

from ponder3d.tasks.teacher import become, follow, frozen_copy


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.Embedding(2, 3))


def test_a_copy_has_buffers_and_no_parameters():
    student = net()
    teacher = frozen_copy(student)
    assert not list(teacher.parameters())
    assert set(teacher.state_dict()) == set(student.state_dict())
    assert all(torch.equal(teacher.state_dict()[name], value) for name, value in student.state_dict().items())
    x = torch.randn(5, 3)
    assert torch.equal(teacher[:2](x), student[:2](x)) and not teacher[:2](x).requires_grad
    with torch.no_grad():
        student[0].weight.add_(1.0)
    assert not torch.equal(teacher[0].weight, student[0].weight), "memory of its own"


def test_it_follows_by_a_share():
    student = net()
    teacher = frozen_copy(student)
    old = teacher[0].weight.clone()
    with torch.no_grad():
        student[0].weight.add_(1.0)
        student[1].running_mean.add_(7.0)
    follow(teacher, student, 0.25)
    torch.testing.assert_close(teacher[0].weight, old + 0.25)
    assert float(teacher[1].running_mean.abs().max()) == 0
    follow(teacher, student, torch.tensor(0.0))
    torch.testing.assert_close(teacher[0].weight, old + 0.25)
    follow(teacher, student, torch.tensor(1.0))
    torch.testing.assert_close(teacher[0].weight, student[0].weight)
    become(teacher, student)
    assert torch.equal(teacher[1].running_mean, student[1].running_mean)
