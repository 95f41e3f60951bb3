"""Regions of pictures whose edges are known, and their numbers on rays."""

import pytest
import torch

from ponder3d.data.image_features import NoFeatureMaps
from ponder3d.data.superpixels import SuperpixelMaps, superpixels
from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.data.transforms import PickRays, apply
from ponder3d.types import Batch

ALIKE = torch.full((1, 24, 32, 3), 90, dtype=torch.uint8)


def test_regions_of_an_even_image_are_the_blocks_they_start_as():
    label = superpixels(ALIKE, None, 12, 4, 0.2, 1.0)[0]
    blocks = torch.arange(3)[:, None].repeat_interleave(8, 0) * 4 + torch.arange(4).repeat_interleave(8)
    assert torch.equal(label, blocks.expand(24, 32))


def test_no_region_crosses_a_line_between_colours():
    image = ALIKE.clone()
    image[:, :, 13:] = 220
    label = superpixels(image, None, 12, 6, 0.1, 1.0)[0]
    assert not set(label[:, :13].unique().tolist()) & set(label[:, 13:].unique().tolist())


def test_no_region_crosses_a_step_in_depth_and_what_has_none_is_told_by_colour():
    depth = torch.full((1, 24, 32), 2.0)
    depth[:, 10:] = 4.0
    label = superpixels(ALIKE, depth, 12, 6, 0.1, 1.0)[0]
    assert not set(label[:10].unique().tolist()) & set(label[10:].unique().tolist())
    nothing = superpixels(ALIKE, torch.zeros_like(depth), 12, 4, 0.2, 1.0)
    assert torch.equal(nothing, superpixels(ALIKE, None, 12, 4, 0.2, 1.0))


def test_images_do_not_mix():
    images = torch.randint(0, 255, (3, 24, 32, 3), dtype=torch.uint8)
    depth = torch.rand(3, 24, 32)
    together = superpixels(images, depth, 20, 3, 0.2, 1.0)
    for view in range(3):
        alone = superpixels(images[view, None], depth[view, None], 20, 3, 0.2, 1.0)
        assert torch.equal(together[view], alone[0])


@pytest.mark.parametrize("num", [1, 7, 10_000])
def test_any_number_of_regions(num):
    label = superpixels(torch.randint(0, 255, (1, 9, 13, 3), dtype=torch.uint8), None, num, 2, 0.2, 1.0)
    assert label.shape == (1, 9, 13) and 0 <= int(label.min()) <= int(label.max()) < min(2 * num, 9 * 13)


def test_rays_know_the_regions_of_their_pixels():
    data = RoomsConfig(num_rooms=1, num_views=3, num_fused_views=2, image_size=(24, 32), cloud_spacing=0.08).build()
    maps = SuperpixelMaps(num=12)
    room = data[0]
    scenes = [apply((PickRays(2, 40, features=maps),), room, key) for key in range(2)]
    group = scenes[0].targets.group
    assert group.shape == (80,) and scenes[0].targets.feature.shape == (80, 39)
    first, second = (set((each // 12).tolist()) for each in group.split(40))
    assert len(first) == len(second) == 1 and first != second, "each view has 12 numbers of its own"
    # Pixels of a region see about one depth: their spread is smaller than that of the view.
    t = scenes[0].targets.t[:40]
    within = [t[group[:40] == g].std(correction=0) for g in group[:40].unique()]
    assert float(torch.stack(within).mean()) < 0.7 * float(t.std(correction=0))
    batch = Batch.of(scenes)
    assert torch.equal(batch.targets.group, torch.cat([s.targets.group for s in scenes]))
    assert torch.equal(batch.targets.every(4).group, batch.targets.group[::4])
    assert apply((PickRays(2, 4),), room, 0).targets.group is None


def test_features_are_those_of_the_maps():
    assert SuperpixelMaps().num_channels() == 39 and SuperpixelMaps(NoFeatureMaps()).num_channels() == 0


def test_wrong_choices():
    with pytest.raises(ValueError, match="SuperpixelMaps: num and steps must be at least 1"):
        SuperpixelMaps(num=0)
