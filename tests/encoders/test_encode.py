from dataclasses import replace

import numpy as np
import pytest
import torch

from ponder3d.data.synthetic.rooms import RoomsConfig
from ponder3d.encoders.encode import normals_of_cloud, tiles
from ponder3d.encoders.encoder import Encoder
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.encoders.voxelnet import VoxelNetConfig
from ponder3d.geometry.grid import voxelize
from ponder3d.types import Batch, Scene
from ponder3d.types.scene import INPUT_CHANNELS
from ponder3d.volume.convert import sample_at
from ponder3d.volume.unet3d import NoNet3DConfig

CONFIG = SparseUNetConfig(
    inputs=("rgb", "normal", "one"),
    grid_size=0.1,
    stem_channels=4,
    stem_kernel=3,
    channels=(4, 6, 6, 5),
    blocks=(1,) * 4,
)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    encoder = CONFIG.build()
    encoder.card = {"modality_dropout": ["rgb", "normal"]}
    return encoder


@pytest.fixture
def cloud():
    generator = np.random.default_rng(0)
    xyz = generator.random((3000, 3)) * [6.0, 5.0, 0.3]
    return xyz, generator.random((3000, 3)).astype(np.float32), generator.normal(size=(3000, 3)).astype(np.float32)


def test_one_feature_per_point_in_the_order_of_the_points(encoder, cloud):
    xyz, rgb, normal = cloud
    feats = encoder.encode(xyz, rgb, normal)
    assert feats.shape == (3000, 5) and feats.dtype == torch.float32
    shuffle = np.random.default_rng(1).permutation(3000)
    again = encoder.encode(xyz[shuffle], rgb[shuffle], normal[shuffle])
    # Colours are averaged in another order: equal up to rounding.
    torch.testing.assert_close(again, feats[shuffle], atol=1e-5, rtol=1e-4)


def test_numpy_torch_and_byte_colours_agree(encoder, cloud):
    xyz, rgb, normal = cloud
    as_bytes = np.round(rgb * 255).astype(np.uint8)
    a = encoder.encode(xyz, as_bytes, normal)
    b = encoder.encode(
        torch.from_numpy(xyz), torch.from_numpy(as_bytes.astype(np.float32) / 255), torch.from_numpy(normal)
    )
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_coordinates_alone(encoder, cloud):
    feats = encoder.encode(cloud[0])
    assert feats.shape == (3000, 5)
    assert float(feats.std(0).max()) > 0, "geometry alone must be visible"
    assert not torch.allclose(feats, encoder.encode(*cloud))


def test_map_coordinates_far_from_the_origin(encoder, cloud):
    xyz, rgb, normal = cloud
    near = encoder.encode(xyz - xyz.min(0), rgb, normal)
    far = encoder.encode(xyz - xyz.min(0) + [500_000.0, 5_400_000.0, 120.0], rgb, normal)
    # float64 holds a nanometre there; a point on a voxel's face may fall to either side.
    same = (near - far).abs().amax(1) < 1e-4
    assert float(same.float().mean()) > 0.99


def test_a_cloud_of_two_kilometres(encoder, cloud):
    """Both ends of the range of voxel keys: 131,000 voxels of 10 cm."""
    xyz, rgb, normal = cloud
    two = [np.concatenate([values, values]) for values in (xyz, rgb, normal)]
    two[0][3000:] += [12_000.0, 0, 0]
    feats = encoder.encode(*two)
    # Apart from each other, both are what each of them is alone, up to where the voxels of each level fall.
    assert feats.shape == (6000, 5) and bool(torch.isfinite(feats).all()) and float(feats[3000:].std()) > 0
    two[0][3000:] += [2000.0, 0, 0]
    with pytest.raises(ValueError, match=r"xyz: the cloud is 14006 m long; with voxels of 0.1 m it can be 13094 m"):
        encoder.encode(*two)


def test_arrays_however_they_lie_in_memory(encoder, cloud):
    xyz, rgb, normal = cloud
    expected = encoder.encode(xyz, rgb[:, ::-1].copy(), normal)
    odd = normal.astype(">f4")
    odd.flags.writeable = False
    assert torch.equal(encoder.encode(np.asfortranarray(xyz), rgb[:, ::-1], odd), expected)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A furnished room, and an encoder whose every level counts: at initial statistics deep features are small."""
    torch.manual_seed(0)
    encoder = CONFIG.build()
    for norm in (m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm1d)):
        norm.momentum = 1.0
    cache = str(tmp_path_factory.mktemp("rooms"))
    rooms = RoomsConfig(num_rooms=1, num_views=6, num_fused_views=6, image_size=(60, 80), cache=cache)
    scene = rooms.build()[0]
    encoder.train()(Batch.of([scene], CONFIG.inputs))
    return encoder, scene


def difference(a, b) -> float:
    """The largest difference of two features of a point, relative to the length of a feature."""
    return float((a - b).norm(dim=1).max() / a.norm(dim=1).mean())


def test_tiles_equal_the_whole(trained):
    encoder, scene = trained
    # One room is little more than two reaches long: three of them in a row.
    xyz = torch.cat([scene.xyz + torch.tensor([number * 4.0, 0, 0]) for number in range(3)])
    arrays = xyz, scene.rgb.repeat(3, 1), scene.normal.repeat(3, 1)
    calls = []
    hook = encoder.register_forward_hook(lambda *_: calls.append(1))
    whole = encoder.encode(*arrays)
    assert len(calls) == 1, "the default budget is enough"
    budget = len(voxelize(xyz, torch.zeros(len(xyz), dtype=torch.int64), CONFIG.grid_size).keys) // 2
    tiled = encoder.encode(*arrays, max_voxels=budget)
    assert len(calls) > 3, "several tiles"
    assert difference(whole, tiled) < 1e-5
    assert difference(whole, encoder.encode(*arrays, max_voxels=budget, halo=encoder.reach)) < 1e-5
    rough = difference(whole, encoder.encode(*arrays, max_voxels=budget, halo=0.5))
    rougher = difference(whole, encoder.encode(*arrays, max_voxels=budget, halo=0.1))
    assert 1e-3 < rough < rougher, "the test must be able to see a missing halo"
    hook.remove()


def test_an_encoder_of_unknown_reach_is_not_cut(cloud):
    encoder = CONFIG.build()
    encoder.reach = None
    calls = []
    encoder.register_forward_hook(lambda *_: calls.append(1))
    with pytest.warns(UserWarning, match="more than max_voxels: the encoder does not say how far it sees"):
        encoder.encode(*cloud, max_voxels=10)
    assert len(calls) == 1
    encoder.encode(*cloud, max_voxels=1000, halo=0.2)
    assert len(calls) > 2, "who names a halo has decided"


@pytest.mark.parametrize("arguments", [{"max_voxels": 0}, {"halo": -1.0}, {"halo": float("nan")}])
def test_a_budget_or_halo_that_cannot_be(encoder, cloud, arguments):
    with pytest.raises(ValueError, match="max_voxels must be positive and halo at least 0"):
        encoder.encode(*cloud, **arguments)


def test_dense_and_thin_clouds_alike(encoder):
    corner = torch.tensor([[0.0, 0, 0], [3.0, 3.0, 3.0]])
    dense = torch.cat([corner, torch.rand(20000, 3) * 3])
    feats = encoder.encode(dense)
    assert feats.shape == (20002, 5) and bool(torch.isfinite(feats).all())


@pytest.mark.parametrize("num", [0, 1])
def test_no_point_and_one_point(encoder, num):
    assert encoder.encode(np.zeros((num, 3))).shape == (num, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((4, 2)),), r"xyz: expected shape \[N 3\], found \[4, 2\]"),
        ((np.zeros(3),), "xyz: expected shape"),
        ((np.full((4, 3), np.nan),), "xyz: row 0 is not finite"),
        ((np.zeros((4, 3)), np.zeros((3, 3))), "rgb: 3 rows for 4 points"),
        ((np.zeros((4, 3)), np.full((4, 3), 200.0)), "pass 0..255 colours as uint8"),
        ((np.zeros((4, 3)), None, np.full((4, 3), np.inf)), "normal: row 0 is not finite"),
    ],
)
def test_bad_arrays(encoder, arguments, message):
    with pytest.raises(ValueError, match=message):
        encoder.encode(*arguments)


@pytest.mark.parametrize("grid", [0, 0.25], ids=["anywhere", "on a lattice"])
def test_tiles_cover_every_point_once(grid):
    xyz = torch.rand(5000, 3) * torch.tensor([20.0, 3.0, 1.0])
    if grid:
        xyz = torch.floor(xyz / grid) * grid  # many points at one coordinate
    parts = list(tiles(xyz, 600, 0.5))
    assert len(parts) > 5
    covered = torch.cat([inner for inner, _ in parts])
    assert torch.equal(covered.sort().values, torch.arange(5000))
    for inner, around in parts:
        lo, hi = xyz[inner].amin(0), xyz[inner].amax(0)
        assert torch.equal(around, ((xyz >= lo - 0.5) & (xyz <= hi + 0.5)).all(1).nonzero()[:, 0])
        assert float((hi - lo).max()) <= 0.5 or len(around) <= 600


def test_tiles_are_as_full_as_they_may_be():
    """A line of 1000 points of which 100 fit, 10 of them halo on either side: 90 in the first tile, then 80 each."""
    line = torch.zeros(1000, 3)
    line[:, 0] = torch.arange(1000)
    parts = [(len(inner), len(around)) for inner, around in tiles(line, 100, 10.0)]
    assert parts[0] == (90, 100) and parts[1:11] == [(80, 100)] * 10
    assert len(parts) == 13, "the last 110 do not fit: 80 and 30"


def test_cuts_go_where_few_points_lie_near():
    """Two floors of 20 x 20 m, 15 m apart: between them nothing is near a cut, though another side is longer."""
    floor = torch.nn.functional.pad(torch.cartesian_prod(torch.arange(20), torch.arange(20)).float(), (0, 1))
    parts = list(tiles(torch.cat([floor, floor + torch.tensor([0.0, 0.0, 15.0])]), 500, 2.0))
    assert [(len(inner), len(around)) for inner, around in parts] == [(400, 400)] * 2


@pytest.mark.parametrize("crowd", [0.0, 1.5])
def test_a_crowd_at_one_end_is_cut_off(crowd):
    """A thousand points at the far or at the near end of a line of ten: the median is where they are."""
    xyz = torch.zeros(1010, 3)
    xyz[:10, 0] = torch.linspace(0.1, 1.4, 10)
    xyz[10:, 0] = crowd
    parts = list(tiles(xyz, 500, 1.0))
    assert torch.equal(torch.cat([inner for inner, _ in parts]).sort().values, torch.arange(1010))
    for inner, around in parts:
        assert len(around) <= 500 or float((xyz[inner].amax(0) - xyz[inner].amin(0)).max()) <= 1.0


def test_coincident_points_cannot_be_cut():
    parts = list(tiles(torch.zeros(100, 3), 10, 0.5))
    assert len(parts) == 1 and len(parts[0][0]) == 100


def test_an_encoder_that_would_see_nothing_says_so(cloud):
    xyz, rgb, normal = cloud
    blind = SparseUNetConfig(inputs=("rgb", "normal"), grid_size=0.1, channels=(4, 5), blocks=(1, 1)).build()
    blind.card = {"modality_dropout": ["rgb", "normal"]}
    with pytest.raises(ValueError, match="reads rgb and normal and got neither"):
        blind.encode(xyz)
    assert blind.encode(xyz, rgb).std(0).max() > 0 and blind.encode(xyz, None, normal).std(0).max() > 0


def test_zeros_for_what_is_missing_are_told_of_once(cloud, recwarn):
    xyz, rgb, normal = cloud
    encoder = CONFIG.build()
    with pytest.warns(
        UserWarning, match=r"normal missing, the encoder gets zeros.* pass normal, or have them estimated"
    ):
        without = encoder.encode(xyz, rgb)
    assert torch.equal(encoder.encode(xyz, rgb), without), "no second warning"
    torch.testing.assert_close(without, encoder.encode(xyz, rgb, np.zeros_like(normal)))
    with pytest.warns(UserWarning, match="encode: rgb missing"):
        encoder.encode(xyz)
    for card in ({"modality_dropout": ["rgb"]}, {"modality_dropout": "normal"}):
        encoder = CONFIG.build()
        encoder.card = card
        with pytest.warns(UserWarning, match="normal missing"):
            encoder.encode(xyz, rgb)
    encoder = CONFIG.build()
    encoder.card = {"modality_dropout": ["normal"]}
    encoder.encode(xyz, rgb)
    assert not recwarn.list


def test_what_is_missing_can_be_refused(encoder, cloud):
    xyz, rgb, normal = cloud
    with pytest.raises(
        ValueError, match=r"reads rgb and normal, which the cloud lacks: pass rgb; pass normal, or have"
    ):
        encoder.encode(xyz, missing="error")
    with pytest.raises(ValueError, match="reads normal, which"):
        encoder.encode(xyz, rgb, missing="error")
    assert encoder.encode(xyz, rgb, missing="error", estimate_normals=True).shape == (3000, 5)
    assert encoder.encode(*cloud, missing="error").shape == (3000, 5)


def test_estimated_normals_are_those_of_the_surface(trained):
    """Features from estimated normals are nearer to those from the true ones than features without normals."""
    encoder, scene = trained
    true = encoder.encode(scene.xyz, scene.rgb, scene.normal)
    found = encoder.encode(scene.xyz, scene.rgb, estimate_normals=True)
    with pytest.warns(UserWarning, match="normal missing"):
        none = encoder.encode(scene.xyz, scene.rgb)
    assert float((found - true).norm(dim=1).median()) < 0.5 * float((none - true).norm(dim=1).median())
    same = encoder.encode(scene.xyz, scene.rgb, scene.normal, estimate_normals=True)
    assert torch.equal(same, true), "normals that are given are used"


def test_normals_do_not_depend_on_density():
    """A floor and a wall; ten times the points on one half of the floor."""
    generator = torch.Generator().manual_seed(0)
    floor = torch.rand(4000, 3, generator=generator) * torch.tensor([2.0, 2.0, 0.0])
    more = torch.rand(40000, 3, generator=generator) * torch.tensor([1.0, 2.0, 0.0])
    xyz = torch.cat([floor, more]).double()
    normal = normals_of_cloud(xyz, 0.1, torch.tensor([1.0, 1.0, 1.0]))
    torch.testing.assert_close(normal, torch.tensor([0.0, 0.0, 1.0]).expand(len(xyz), 3))
    each = normals_of_cloud(xyz, 0.1, xyz - torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(each, -normal)
    assert normals_of_cloud(xyz[:0], 0.1).shape == (0, 3)


def test_estimated_normals_far_away_and_of_nothing(encoder, cloud):
    xyz = cloud[0]
    near = encoder.encode(xyz - xyz.min(0), estimate_normals=True)
    far = encoder.encode(xyz - xyz.min(0) + [500_000.0, 5_400_000.0, 120.0], estimate_normals=True)
    assert float(((near - far).abs().amax(1) < 1e-3).float().mean()) > 0.98
    for num in (0, 1, 2):
        assert encoder.encode(xyz[:num], estimate_normals=True).shape == (num, 5)
    with pytest.raises(ValueError, match=r"viewpoint: expected shape \[3\], or .*found \[2\]"):
        encoder.encode(xyz, estimate_normals=True, viewpoint=np.zeros(2))


class Echo(Encoder):
    """Gives back what it was shown."""

    def __init__(self, inputs, box=None):
        super().__init__()
        self.config = replace(CONFIG, inputs=inputs)
        self.out_channels = sum(INPUT_CHANNELS[name] for name in inputs)
        self.box = box
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = None

    def forward(self, batch):
        self.seen = batch.points.xyz
        return batch.points


def test_what_lasers_measure_is_averaged_in_voxels():
    xyz = np.array([[1000.01, 0.02, 0.03], [1000.03, 0.04, 0.05], [1007.0, 0.0, 0.0]])
    echo = Echo(("intensity", "xyz", "time"))
    for strength in ([0.2, 0.6, 1.0], np.array([51, 153, 255], np.uint8), np.array([13107, 39321, 65535], np.uint16)):
        feats = echo.encode(xyz, intensity=np.asarray(strength), time=np.array([0.0, 0.5, 0.25]))
        expected = torch.tensor([[0.4, 1000.02, 0.03, 0.04, 0.25], [1.0, 1007.0, 0.0, 0.0, 0.25]])
        torch.testing.assert_close(feats, expected[[0, 0, 1]], atol=1e-4, rtol=0)
    assert float(echo.seen.abs().max()) < 10, "the place of the cloud is kept from the voxels"
    echo.card = {"modality_dropout": ["intensity"]}
    assert echo.encode(xyz)[:, [0, 4]].tolist() == [[0, 0]] * 3, "time is 0 where nothing else is said"


def test_intensity_that_is_missing_is_told_of():
    xyz = np.eye(3)
    with pytest.warns(UserWarning, match="intensity missing.*: pass intensity"):
        Echo(("xyz", "intensity", "time")).encode(xyz)
    with pytest.raises(ValueError, match="reads intensity, which the cloud lacks: pass intensity"):
        Echo(("xyz", "intensity", "time")).encode(xyz, missing="error")
    with pytest.raises(ValueError, match="reads intensity and got neither"):
        Echo(("intensity",)).encode(xyz)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"intensity": np.zeros((3, 1))}, r"intensity: expected shape \[N\], found \[3, 1\]"),
        ({"intensity": np.zeros(2)}, "intensity: 2 rows for 3 points"),
        ({"intensity": np.array([0.0, 200.0, 0.0])}, "intensity: float values must lie in .* 0..65535 as uint16"),
        ({"intensity": np.array([0.0, np.nan, 0.0])}, "intensity: row 1 is not finite"),
        ({"intensity": np.zeros(3), "time": np.array([0.0, 0.0, np.inf])}, "time: row 2 is not finite"),
    ],
)
def test_bad_measurements(arguments, message):
    with pytest.raises(ValueError, match=message):
        Echo(("xyz", "intensity", "time")).encode(np.eye(3), **arguments)


def test_an_encoder_of_a_box_gets_coordinates_as_they_are():
    box = (-2.0, -2.0, -1.0, 2.0, 2.0, 1.0)
    echo = Echo(("one",), box)
    xyz = torch.tensor([[0.53, 0.51, 0.52], [1.94, -1.96, 0.0], [30.0, 0.0, 0.0]])
    echo.encode(xyz)
    torch.testing.assert_close(echo.seen, (xyz / 0.1).floor() * 0.1 + 0.05)
    with pytest.raises(ValueError, match=r"no point lies in the box .*\(-2.0, -2.0, -1.0\) to \(2.0, 2.0, 1.0\) m"):
        echo.encode(xyz + 100)
    with pytest.raises(ValueError, match="a point is 9999 m from the origin"):
        echo.encode(torch.cat([xyz, torch.tensor([[0.0, -9999, 0]])]))


def test_a_volume_is_read_where_the_points_are():
    """Beyond its box a point gets what the nearest place within has."""
    config = VoxelNetConfig(
        ("one",), 0.1, (-1.2, -1.2, -1.2, 2.4, 2.4, 2.4), (9, 9, 3), (4, 6), (1, 1), 8, NoNet3DConfig()
    )
    encoder = config.build()
    xyz = torch.rand(300, 3) * 3 - 1
    volume = encoder.eval()(Batch.of([Scene(xyz, None, None, "x")], ("one",)))
    inside = encoder.encode(xyz)
    centre = ((xyz / 0.1).floor() + 0.5) * 0.1
    torch.testing.assert_close(
        inside, sample_at(volume, centre, torch.zeros(300, dtype=torch.int64)), atol=1e-5, rtol=1e-4
    )
    outside = torch.tensor([[50.0, 0.55, 0.0], [2.35, 0.55, 0.0]])
    with_outside = encoder.encode(torch.cat([xyz, outside[:1]]))
    nearest = sample_at(volume, outside[1:], torch.zeros(1, dtype=torch.int64))
    torch.testing.assert_close(with_outside[:300], inside)
    torch.testing.assert_close(with_outside[300:], nearest, atol=1e-3, rtol=1e-2)
