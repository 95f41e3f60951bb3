import pytest
import torch

from ponder3d.render import samplers
from ponder3d.render.weights import alpha_from_sdf, weights_from_alpha


def test_uniform_by_hand():
    near, far = torch.tensor([0.0, 1.0]), torch.tensor([4.0, 2.0])
    assert samplers.uniform(near, far, 2).tolist() == [[1.0, 3.0], [1.25, 1.75]]
    jitter = torch.tensor([[0.0, 0.5], [0.25, 0.0]])
    assert samplers.uniform(near, far, 2, jitter).tolist() == [[0.0, 3.0], [1.125, 1.5]]


def test_stratified_samples_stay_in_their_parts_and_sorted():
    near, far = torch.zeros(100), torch.full((100,), 8.0)
    t = samplers.uniform(near, far, 8, torch.rand(100, 8))
    assert bool((t.floor() == torch.arange(8)).all())


def test_importance_by_hand(device):
    # All mass between 2 and 4: four quantile centres at 1/8, 3/8, 5/8, 7/8 of it.
    t = torch.tensor([[0.0, 2.0, 4.0, 8.0]])
    found = samplers.importance(t.to(device), torch.tensor([[0.0, 1.0, 0.0, 0.0]], device=device), 4)
    torch.testing.assert_close(found.cpu(), torch.tensor([[2.25, 2.75, 3.25, 3.75]]), atol=1e-3, rtol=0)


def test_importance_follows_the_weights():
    t = torch.linspace(0, 10, 11).expand(2000, 11)
    weights = torch.tensor([0.0, 0.1, 0, 0, 0.6, 0, 0.3, 0, 0, 0, 0]).expand(2000, 11)
    found = samplers.importance(t, weights, 20, torch.rand(2000, 20))
    share = torch.histc(found, 10, 0, 10) / found.numel()
    torch.testing.assert_close(share, weights[0, :10], atol=0.01, rtol=0)


def test_importance_without_weights_is_uniform():
    t = torch.linspace(1, 2, 5)[None]
    found = samplers.importance(t, torch.zeros(1, 5), 4)
    torch.testing.assert_close(found, torch.tensor([[1.125, 1.375, 1.625, 1.875]]))


def test_importance_concentrates_on_the_surface_of_the_field():
    """Regression against the released proposal, which read the field at the wrong place (spec 9.1, number 1)."""
    t = samplers.uniform(torch.zeros(1), torch.full((1,), 6.0), 96)
    weights = weights_from_alpha(alpha_from_sdf(2.345 - t, torch.tensor(64.0)))
    found = samplers.importance(t, weights, 36)
    assert float(((found - 2.345).abs() < 0.1).float().mean()) > 0.8
    # A field that is the same everywhere (what the wrong place gives) has no surface: the samples spread out.
    lost = samplers.importance(t, weights_from_alpha(alpha_from_sdf(torch.full_like(t, 0.3), torch.tensor(64.0))), 36)
    assert float(((lost - 2.345).abs() < 0.1).float().mean()) < 0.1


def test_intervals_by_hand():
    t = torch.tensor([[0.5, 1.0, 3.0, 5.0]])
    assert samplers.interval_lengths(t, torch.tensor([6.0])).tolist() == [[0.5, 2.0, 2.0, 1.0]]


@pytest.mark.parametrize("num", [1, 7])
def test_no_rays(num):
    none = torch.zeros(0)
    assert samplers.uniform(none, none, num).shape == (0, num)
    assert samplers.importance(torch.zeros(0, 4), torch.zeros(0, 4), num).shape == (0, num)


def test_first_surface_by_hand():
    t = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0]]).expand(4, 5)
    sdf = torch.tensor(
        [
            [3.0, 1.0, -3.0, 2.0, -1.0],  # enters at 1.25, leaves, enters again
            [-1.0, 1.0, 2.0, 1.0, -1.0],  # starts inside: leaving does not count
            [1.0, 2.0, 3.0, 2.0, 1.0],
            [-2.0, -1.0, -1.0, 0.0, 1.0],
        ]
    )
    found, met = samplers.first_surface(t, sdf, lambda t: 1 / 0, 0)
    assert met.tolist() == [True, True, False, False]
    torch.testing.assert_close(found[:2], torch.tensor([1.25, 3.5]))


def test_first_surface_is_refined():
    def distance(t):
        return 1 - torch.exp(t - 1.3)  # bent, zero at 1.3

    t = torch.tensor([[0.0, 1.0, 2.0]])
    errors = [float((samplers.first_surface(t, distance(t), distance, num)[0] - 1.3).abs()) for num in (0, 1, 2, 8)]
    assert errors[0] > 0.02 and errors[0] > errors[1] > errors[2] and errors[3] < 1e-4
