"""Nothing in a step of pre-training makes the host wait for a GPU, but for one size per level of the encoder.

There need not be a GPU: on a CPU the same operations are counted, with the CPU's own short cuts turned off.
"""

import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import ponder3d
from ponder3d.encoders.encoder import EncoderConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.encoders.voxelnet import VoxelNetConfig
from ponder3d.geometry.kernels import kernels
from ponder3d.render.fields import FieldConfig
from ponder3d.render.losses import RenderLossConfig
from ponder3d.render.opacity import NeuS, OpacityConfig, UniSurf, VolSDF
from ponder3d.render.renderer import RenderConfig
from ponder3d.tasks.also import ALSOConfig
from ponder3d.tasks.class_vectors import FixedCodes
from ponder3d.tasks.combined import CombinedConfig, PartConfig
from ponder3d.tasks.masked_occupancy import MaskedOccupancyConfig
from ponder3d.tasks.masked_scene_contrast import MaskedSceneContrastConfig
from ponder3d.tasks.masking import BlockMasking
from ponder3d.tasks.pixel_contrast import PixelContrastConfig
from ponder3d.tasks.point_contrast import PointContrastConfig
from ponder3d.tasks.ponder import Ponder, PonderConfig
from ponder3d.tasks.self_distil import SelfDistilConfig
from ponder3d.tasks.semseg import SemSegConfig
from ponder3d.tasks.task import Task
from ponder3d.types import Batch, LabelSet, Points, Rays, RayTargets
from ponder3d.types.scene import to_device
from ponder3d.volume import convert
from ponder3d.volume.projection import ProjectionConfig
from ponder3d.volume.second3d import Second3DConfig
from ponder3d.volume.unet3d import ShallowNet3DConfig, UNet3DConfig, VolumeNetConfig

WAITS = ("_local_scalar_dense", "nonzero", "_unique", "unique_", "masked_select", "bincount", "equal", "is_nonzero")
COPIES = ("lift_fresh",)  # torch.tensor(...): on a GPU a copy from the host, which waits


class Waits(TorchDispatchMode):
    """The operations for which the host would wait, and the lines that called them."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for arg in args
            if isinstance(arg, list | tuple)
            for index in arg
        )
        if by_mask or name.startswith(WAITS + COPIES) or (name == "repeat_interleave" and not kwargs):
            self.note(name)
        return func(*args, **(kwargs or {}))

    def note(self, name: str) -> None:
        """Add an operation, with the innermost function of the package that is on the stack."""
        frame = sys._getframe(1)
        while not frame.f_globals.get("__name__", "").startswith("ponder3d."):
            assert frame.f_back is not None
            frame = frame.f_back
        self.found.append(f"{name} in {frame.f_code.co_name}")


def a_batch(scenes: int = 2, points: int = 400, rays: int = 24) -> Batch:
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.rand(*shape, generator=generator)

    xyz = random(scenes * points, 3) * 3
    feats = torch.cat([random(scenes * points, 3), torch.ones(scenes * points, 1)], dim=1)
    num = scenes * rays
    directions = torch.nn.functional.normalize(random(num, 3) - 0.5, dim=1)
    scene = torch.arange(scenes).repeat_interleave(rays)
    return Batch(
        points=Points(xyz, feats, torch.full((scenes,), points)),
        bounds=torch.tensor([[[0.0, 0, 0], [3, 3, 3]]] * scenes),
        keys=torch.arange(scenes),
        sources=("a",) * scenes,
        conditions=("a", "b")[:scenes],
        rays=Rays(torch.full((num, 3), 1.5), directions, torch.full((num,), 0.05), torch.full((num,), 9.0), scene),
        targets=RayTargets(random(num, 3), random(num) * 2, torch.arange(num) % 4 - 1, random(num, 5)),
    )


SPARSE_UNET = SparseUNetConfig(("rgb", "one"), 0.2, 4, 3, (4, 8, 8, 4), (1, 1, 1, 1))
# Overlapping kernels, padding that differs between axes, and a volume over a fixed box.
VOXELNET = VoxelNetConfig(
    ("rgb", "one"),
    0.2,
    (0.0, 0.0, 0.0, 3.2, 3.2, 3.2),
    (4, 4, 2),
    (4, 8, 8),
    (1, 1, 1),
    8,
    Second3DConfig((4,), (2,), 1, 8),
)


def a_ponder(
    encoder: EncoderConfig, net: VolumeNetConfig, contrast: Literal["rays", "classes"], opacity: OpacityConfig
) -> Ponder:
    config = PonderConfig(
        encoder=encoder,
        masking=BlockMasking(0.5, 0.5),
        volume_shape=(8, 8, 8),
        volume_net=net,
        field=FieldConfig(hidden=8, geometry_channels=4, use_position=True),
        render=RenderConfig(8, 4, 4, opacity=opacity),
        losses=RenderLossConfig(surface=0.5, contrast=contrast),
        semantics=FixedCodes(4),
        points=1.0,
        feature_channels=5,
        render_every=2,
    )
    task = config.build(LabelSet(("x", "y", "z"), ((0, 0, 0),) * 3, (("a", (0, 1)), ("b", (2, 1)))))
    assert isinstance(task, Ponder)
    return task.train()


@pytest.mark.parametrize(
    ("encoder", "net", "contrast", "opacity"),
    [
        (SPARSE_UNET, UNet3DConfig((4, 8), 8), "classes", NeuS()),
        (SPARSE_UNET, UNet3DConfig((4, 8), 8), "rays", NeuS()),
        (SPARSE_UNET, ShallowNet3DConfig(4, 1, 8, "add"), "classes", NeuS()),
        (SPARSE_UNET, ShallowNet3DConfig(4, 1, 8, "add"), "rays", NeuS()),
        (SPARSE_UNET, ShallowNet3DConfig(4, 1, 8, "add"), "classes", VolSDF()),
        (SPARSE_UNET, ShallowNet3DConfig(4, 1, 8, "add"), "classes", UniSurf()),
        (VOXELNET, ProjectionConfig(8), "classes", NeuS("slope")),
    ],
)
def test_a_step_waits_once_per_level(encoder, net, contrast, opacity, monkeypatch):
    monkeypatch.setattr(convert, "_may_wait_for", lambda x: False)
    task = a_ponder(encoder, net, contrast, opacity)
    batch = a_batch()

    def step() -> None:
        torch.stack(list(task.losses(batch, 0).terms.values())).sum().backward()

    waits, tolist = Waits(), torch.Tensor.tolist
    with kernels("torch"):
        step()  # constants are made in the first
        with monkeypatch.context() as patch, waits:
            # Not an operation of PyTorch's, on a CPU.
            patch.setattr(torch.Tensor, "tolist", lambda self: waits.note("tolist") or tolist(self))
            step()
    # Pairs in blocks are for a CPU alone.
    found = [each for each in waits.found if not each.endswith("_blocked_pairs")]
    # Blocks of the mask, voxels of the input, voxels of each of two coarser levels.
    assert found == ["tolist in unique_keys"] * 4


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # Voxels of the input and of two coarser levels, of each view; voxels of places, and candidates within reach.
        (PointContrastConfig(SPARSE_UNET), 8),
        # Blocks too: those of one view, and those of both.
        (MaskedSceneContrastConfig(SPARSE_UNET), 10),
        # One view only.
        (PixelContrastConfig(SPARSE_UNET, 5, superpixels=True), 5),
    ],
)
def test_a_contrastive_step_waits_for_its_sizes_alone(config, expected, monkeypatch):
    task = config.build(None)
    batch = a_batch()
    batch = replace(batch, place=batch.points.xyz, targets=replace(batch.targets, group=torch.arange(48) // 4))
    batch = replace(batch, pair=batch)

    def step() -> None:
        torch.stack(list(task.losses(batch, 0).terms.values())).sum().backward()

    waits, tolist = Waits(), torch.Tensor.tolist
    with kernels("torch"):
        step()
        with monkeypatch.context() as patch, waits:
            patch.setattr(torch.Tensor, "tolist", lambda self: waits.note("tolist") or tolist(self))
            step()
    found = [each for each in waits.found if not each.endswith("_blocked_pairs")]
    assert set(found) == {"tolist in unique_keys", "_local_scalar_dense in nearest_within"}
    assert len(found) == expected


def waits_of_second_step(task: Task, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Constants are made in the first. Pairs in blocks are for a CPU alone."""
    seen, tolist = Waits(), torch.Tensor.tolist
    with kernels("torch"):
        torch.stack(list(task.losses(batch, 0).terms.values())).sum().backward()
        with monkeypatch.context() as patch, seen:
            # Not an operation of PyTorch's, on a CPU.
            patch.setattr(torch.Tensor, "tolist", lambda self: seen.note("tolist") or tolist(self))
            torch.stack(list(task.losses(batch, 1).terms.values())).sum().backward()
    return [each for each in seen.found if not each.endswith("_blocked_pairs")]


@pytest.mark.parametrize(
    ("parts", "waits"),
    [
        # Voxels of the input, and of each of two coarser levels.
        ((PartConfig("occupancy", MaskedOccupancyConfig(volume_shape=(8, 8, 8), feats=1.0)),), 3),
        ((PartConfig("also", ALSOConfig(volume_shape=(8, 8, 8), colour=1.0)),), 3),
        # Those of student and teacher, the blocks that are hidden, and the cells of both.
        ((PartConfig("distil", SelfDistilConfig()),), 9),
        # One pass for two parts.
        (
            (
                PartConfig("also", ALSOConfig(volume_shape=(8, 8, 8))),
                PartConfig("distil", SelfDistilConfig(hide=(0.0, 0.0))),
            ),
            8,
        ),
    ],
    ids=("masked_occupancy", "also", "self_distil", "combined"),
)
def test_rivals_wait_for_sizes_alone(parts, waits, monkeypatch):
    monkeypatch.setattr(convert, "_may_wait_for", lambda x: False)
    task = CombinedConfig(SPARSE_UNET, parts).build(None).train()
    batch = a_batch()
    batch = replace(batch, place=batch.points.xyz, pair=replace(batch, place=batch.points.xyz + 0.1))
    found = waits_of_second_step(task, batch, monkeypatch)
    assert found == ["tolist in unique_keys"] * waits


def test_a_step_of_segmentation_waits_for_its_levels_alone(monkeypatch):
    task = SemSegConfig(SPARSE_UNET).build(LabelSet(("x", "y", "z"), ((0, 0, 0),) * 3)).train()
    batch = a_batch()
    batch = replace(batch, labels=torch.arange(len(batch.points.xyz)) % 4 - 1)
    found = waits_of_second_step(task, batch, monkeypatch)
    # ``one_hot`` looks at the range of its classes on a CPU alone.
    assert [each for each in found if not each.endswith("in lovasz_softmax")] == ["tolist in unique_keys"] * 3


@pytest.fixture
def _as_in_training():
    """Not all of it is deterministic on a GPU."""
    torch.use_deterministic_algorithms(False)
    yield
    torch.use_deterministic_algorithms(True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.usefixtures("_as_in_training")
@pytest.mark.parametrize(
    ("encoder", "net", "opacity", "others"),
    [
        # PyTorch 2.11 waits once itself, in the backward pass; for what is not known.
        (SPARSE_UNET, UNet3DConfig((4, 8), 8), NeuS(), 1),
        (SPARSE_UNET, ShallowNet3DConfig(4, 1, 8, "add"), VolSDF(), 0),
        (SPARSE_UNET, ShallowNet3DConfig(4, 1, 8, "add"), UniSurf(), 0),
        (VOXELNET, ProjectionConfig(8), NeuS("slope"), 1),
    ],
    ids=("unet", "volsdf", "unisurf", "voxelnet"),
)
def test_a_gpu_counts_no_more(encoder, net, opacity, others):
    """PyTorch's own count of waits on a GPU, Triton kernels included."""
    task = a_ponder(encoder, net, "classes", opacity).cuda()
    batch = to_device(a_batch(), torch.device("cuda"))

    def step() -> None:
        torch.stack(list(task.losses(batch, 0).terms.values())).sum().backward()

    for _ in range(2):
        step()  # kernels are tuned, constants made
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [Path(each.filename) for each in seen if "synchronizing CUDA" in str(each.message)]
    own = [path for path in waits if path.is_relative_to(Path(ponder3d.__file__).parent)]
    assert len(own) == 4, own
    assert len(waits) - len(own) <= others, waits
