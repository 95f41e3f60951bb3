import torch

from ponder3d.geometry import keyed


def test_derive_is_splitmix64():
    # First output of SplitMix64 started at 0, from the algorithm's reference values; the key drops the lowest bit.
    assert keyed.derive(0) == 0xE220A8397B1DCDAF >> 1


def test_tensors_and_integers_hash_alike():
    hashed = keyed.hashed(torch.tensor([3, 3]), torch.tensor([5, 6]))
    assert [(int(h) & (2**64 - 1)) >> 1 for h in hashed] == [keyed.derive(3, 5), keyed.derive(3, 6)]


def test_narrow_integers_hash_as_wide_ones():
    wide = torch.arange(5)
    assert torch.equal(keyed.hashed(torch.tensor(7), wide.to(torch.int32)), keyed.hashed(torch.tensor(7), wide))


def test_order_and_number_of_integers_matter():
    keys = {keyed.derive(*numbers) for numbers in [(1, 2), (2, 1), (1,), (1, 2, 0), (-1, 2)]}
    assert len(keys) == 5


def test_generator_repeats():
    a, b = (torch.rand(4, generator=keyed.generator(1, 2, 3)) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, torch.rand(4, generator=keyed.generator(1, 2, 4)))


def test_uniform_does_not_depend_on_what_is_asked_along():
    rows = torch.arange(100)
    together = keyed.uniform_from(keyed.hashed(torch.tensor(7), rows))
    one_by_one = torch.stack([keyed.uniform_from(keyed.hashed(torch.tensor(7), row)) for row in rows])
    assert torch.equal(together, one_by_one)


def test_uniform_is_uniform():
    u = keyed.uniform_from(keyed.hashed(torch.arange(300)[:, None], torch.arange(1000)))
    assert u.dtype == torch.float32
    assert 0 <= float(u.min()) and float(u.max()) < 1
    counts = torch.histc(u.flatten(), 20, 0, 1)
    # 300,000 numbers in 20 bins: 15,000 each with a deviation of 119; six of them is 716.
    assert float((counts - 15000).abs().max()) < 716
    rows = u - u.mean()
    neighbours = (rows[:, 1:] * rows[:, :-1]).mean() / rows.square().mean()
    assert abs(float(neighbours)) < 0.01


def test_normal_numbers():
    pair = torch.stack(keyed.normals_from(keyed.hashed(torch.arange(300_000), 5)))
    torch.testing.assert_close(pair.mean(1), torch.zeros(2), atol=0.01, rtol=0)
    torch.testing.assert_close(pair.cov(), torch.eye(2), atol=0.01, rtol=0)
    assert bool(pair.isfinite().all()) and 4 < float(pair.abs().max()) < 5.8
    torch.testing.assert_close((pair.abs() < 1).float().mean(1), torch.full((2,), 0.6827), atol=0.004, rtol=0)
