import pytest
import torch

from ponder3d.data.gradient_features import GradientFeatures, GradientMaps, oriented_gradients
from ponder3d.data.image_features import sample_map
from ponder3d.types import Cameras, Scene, Views


def features(image: torch.Tensor, **choices) -> torch.Tensor:
    with torch.no_grad():
        return GradientFeatures(**choices)(image[None])[0]


def ramp(across: float, down: float, size=(16, 24)) -> torch.Tensor:
    """A grey image that changes evenly in one direction."""
    v, u = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return (0.5 + across * (u - size[1] / 2) + down * (v - size[0] / 2)).expand(3, *size)


@pytest.mark.parametrize(
    ("across", "down", "expected"),
    [
        (0.01, 0.0, [1, 0, 0, 0]),
        (-0.01, 0.0, [1, 0, 0, 0]),  # a line has no front
        (0.0, 0.01, [0, 0, 1, 0]),
        (0.01, 0.01, [0, 1, 0, 0]),
        (0.01, -0.01, [0, 0, 0, 1]),
    ],
)
def test_the_direction_of_a_ramp(across, down, expected):
    found = features(ramp(across, down), cell=4, scales=(1,), bins=4)
    share = found[:4, 1, 2].square()  # inside, where the border has no part
    length = (across**2 + down**2) ** 0.5
    torch.testing.assert_close(share, torch.tensor(expected) * length / (length + 1 / 255), atol=1e-5, rtol=0)


def test_a_direction_between_two_bins_is_shared_by_them():
    """30 degrees with bins at 0, 45, 90 and 135: a third of the way back from 45."""
    found = features(ramp(0.02 * 3**0.5 / 2, 0.01), cell=4, scales=(1,), bins=4)
    share = found[:4, 1, 2].square() * (0.02 + 1 / 255) / 0.02
    torch.testing.assert_close(share, torch.tensor([1 / 3, 2 / 3, 0, 0]), atol=1e-4, rtol=0)


def test_colour_and_contrast_by_hand():
    """Red, with a brighter lower half."""
    image = torch.zeros(3, 8, 8)
    image[0] = 0.3
    image[:, 4:] += 0.3
    found = features(image, cell=8, scales=(1,), bins=4)[4:, 0, 0]
    torch.testing.assert_close(found, torch.tensor([0.25, 0.3, -0.15, 0.15]))


@pytest.mark.parametrize("size", [(64, 96), (61, 95), (7, 5), (1, 1)])
def test_the_map_covers_any_image(size):
    found = features(torch.rand(3, *size))
    assert found.shape == (39, max(1, round(size[0] / 8)), max(1, round(size[1] / 8)))
    assert bool(torch.isfinite(found).all()) and oriented_gradients().out_channels == 39


def test_a_cell_is_where_its_part_of_the_image_is():
    """A mirrored image has a mirrored map, at sizes that cells do not divide."""
    image = torch.rand(3, 61, 95)
    colours = [9, 10, 11, 12]
    torch.testing.assert_close(features(image.flip(2))[colours], features(image)[colours].flip(2), atol=1e-5, rtol=0)


def test_a_plain_image_has_no_direction():
    assert float(features(torch.full((3, 32, 32), 0.5))[:9].abs().max()) == 0


@pytest.mark.parametrize("wrong", [{"cell": 0}, {"scales": ()}, {"scales": (0,)}, {"bins": 1}])
def test_what_cannot_be_described(wrong):
    with pytest.raises(ValueError, match="GradientFeatures: no cell"):
        GradientFeatures(**wrong)


def test_maps_are_made_of_the_images_at_hand():
    images = torch.randint(0, 255, (2, 24, 40, 3), dtype=torch.uint8)
    cameras = Cameras(torch.eye(3).repeat(2, 1, 1), torch.eye(4).repeat(2, 1, 1), (24, 40))
    scene = Scene(
        torch.zeros(1, 3), None, None, "two images", views=Views(cameras, images, None, None, torch.tensor([2]))
    )
    uv = torch.tensor([[3.0, 4.0], [39.0, 23.0], [3.0, 4.0]])
    found = GradientMaps().look_up(scene, uv, torch.tensor([1, 0, 0]))
    for row, view in enumerate((1, 0, 0)):
        whole = features(images[view].permute(2, 0, 1) / 255).permute(1, 2, 0).numpy()
        torch.testing.assert_close(found[row], sample_map(whole, uv[row, None], (24, 40))[0])
    assert found.shape == (3, GradientMaps().num_channels()) and not torch.equal(found[0], found[2])
    with pytest.raises(ValueError, match="GradientMaps.cell must be at least 1"):
        GradientMaps(cell=0)
