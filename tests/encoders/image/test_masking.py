"""Which patches are hidden, and what is put there."""

import pytest
import torch

from ponder3d.encoders.image.masking import ImageMaskingConfig, PatchMask, visible_patches

KEYS = torch.tensor([3, 3, 8])


def test_a_share_of_each_image_as_a_function_of_key_and_view(device):
    visible = visible_patches(KEYS.to(device), 2, (70, 96), 32, 0.3).cpu()
    assert visible.shape == (6, 3, 3)
    assert (~visible).flatten(1).sum(1).tolist() == [3] * 6  # round(0.3 * 9)
    assert torch.equal(visible[:2], visible[2:4]), "scenes of one key"
    assert not torch.equal(visible[0], visible[1]) and not torch.equal(visible[0], visible[4])
    alone = visible_patches(KEYS[2:].to(device), 2, (70, 96), 32, 0.3).cpu()
    assert torch.equal(alone, visible[4:]), "whatever the batch"


def test_every_patch_is_hidden_as_often():
    hidden = ~visible_patches(torch.arange(2000), 1, (64, 64), 16, 0.25)
    share = hidden.float().mean(0)
    assert float((share - 0.25).abs().max()) < 0.05  # five standard deviations


def test_cells_of_patches():
    mask = PatchMask(torch.tensor([[[True, False], [False, True]]]), 64)
    expected = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]], dtype=torch.bool)
    assert torch.equal(mask.cells((3, 4), 32), expected[None, None])  # the map ends within the patches
    assert mask.cells((12, 16), 8).sum() == 64 + 4 * 8


def test_off_in_evaluation_and_without_a_ratio():
    hide = ImageMaskingConfig(0.5).build((4,), (32,))
    assert hide.train().choose(KEYS, 2, (64, 64)) is not None
    assert hide.eval().choose(KEYS, 2, (64, 64)) is None
    assert ImageMaskingConfig(0.0).build((4,), (32,)).train().choose(KEYS, 2, (64, 64)) is None


def test_hidden_cells_get_zeros_or_the_token():
    maps = (torch.ones(1, 2, 4, 4), torch.ones(1, 3, 2, 2))
    mask = PatchMask(torch.tensor([[[False, True], [True, True]]]), 32)
    plain = ImageMaskingConfig().build((2, 3), (16, 32))
    assert plain.fill(maps, mask) == maps and not list(plain.parameters())
    learnt = ImageMaskingConfig(token=True).build((2, 3), (16, 32))
    filled = learnt.fill(maps, mask)
    assert torch.equal(filled[0][0, :, 1, 0], learnt.tokens[0]) and torch.equal(filled[1][0, :, 0, 0], learnt.tokens[1])
    assert bool((filled[0][:, :, 2:] == 1).all()) and bool((filled[1][0, :, 0, 1] == 1).all())
    assert learnt.fill(maps, None) == maps


def test_choices_that_cannot_be():
    with pytest.raises(ValueError, match="ratio must lie"):
        ImageMaskingConfig(ratio=1.0)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        ImageMaskingConfig(patch=0)
    with pytest.raises(ValueError, match="multiple of the coarsest stride, 32, not 48"):
        ImageMaskingConfig(patch=48).build((4,), (32,))
