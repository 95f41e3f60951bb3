"""Two real recordings as one dataset: a batch of both, and a step of pre-training on it."""

from dataclasses import replace

import torch

from ponder3d.data.joint import JointConfig, PartConfig
from ponder3d.data.loader import Collate, KeyedScenes
from ponder3d.data.rgbd_folder import RGBDFolderConfig
from ponder3d.data.transforms import Centre, DropPoints, GridSample, Only, PickRays, Rotate, SphereCrop
from ponder3d.encoders.norms import PromptNormConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.tasks.class_vectors import FixedCodes
from ponder3d.tasks.ponder import PonderConfig
from ponder3d.volume.unet3d import ShallowNet3DConfig

ENCODER = SparseUNetConfig(
    grid_size=0.08, stem_channels=8, channels=(8, 8), blocks=(1, 1), norm=PromptNormConfig(("kitchen", "glasses"))
)
TASK = PonderConfig(
    encoder=ENCODER,
    volume_shape=(32, 32, 16),
    volume_net=ShallowNet3DConfig(channels=8, out_channels=16),
    semantics=FixedCodes(128),
)
STEPS = (
    Centre(),
    DropPoints(0.5),
    Rotate(),
    GridSample().on_grid(0.08),
    Only(("kitchen",), (SphereCrop(share=0.8, max_points=0),)),
    PickRays(views=2, rays_per_view=64),
)


def test_a_step_on_two_real_recordings(real_data):
    """Redkitchen of 7-Scenes has no labels; those of Aria are the classes of both."""
    common = RGBDFolderConfig(max_side=160, hold_out=4)
    kitchen = replace(common, root=str(real_data("7scenes")), every=4, window=8, window_step=8)
    glasses = replace(common, root=str(real_data("aria")), window=0, hold_out=3, up=(0.0, 1.0, 0.0))
    config = JointConfig((PartConfig("kitchen", kitchen, 2.0), PartConfig("glasses", glasses, 1.0)))
    data = config.build()
    assert len(data) > 2 and data.conditions == ("kitchen", "glasses") and not data.skipped
    assert [name for name, _ in data.labels.subsets] == ["glasses"] and "table" in data.labels.names
    scenes = KeyedScenes(data, STEPS, seed=0)
    of = [data[data.drawn(0, place)].condition for place in range(data.draws)]
    assert of.count("kitchen") == 2 * of.count("glasses")
    places = [of.index("kitchen"), of.index("glasses"), of.index("kitchen") + 1, of.index("glasses")]
    batch = Collate(ENCODER.inputs)([scenes[epoch, place] for epoch, place in enumerate(places)])
    assert batch.conditions == ("kitchen", "glasses", "kitchen", "glasses") and len(batch.rays) == 4 * 128
    labelled = batch.targets.label >= 0
    assert not bool(labelled[batch.rays.scene % 2 == 0].any())
    assert float(labelled[batch.rays.scene % 2 == 1].float().mean()) > 0.5
    assert bool((batch.targets.t > 0).all()) and bool((batch.labels[batch.points.scene % 2 == 0] == -1).all())
    task = TASK.build(data.labels)
    losses = task.losses(batch, 0)
    assert {"colour", "depth", "semantic"} <= set(losses.terms)
    sum(losses.terms.values()).backward()
    gradient = task.encoder.stem.norm.weight.grad
    assert bool((gradient != 0).any(1).all()) and bool(torch.isfinite(gradient).all())
    held = config.held_out().build()
    assert [held[i].condition for i in range(2)] == ["kitchen", "glasses"]
