"""ALSO: places before and behind surfaces, which of them count, and that a wall is learnt."""

from dataclasses import replace

import pytest
import torch

from ponder3d.tasks.also import ALSOConfig
from ponder3d.types import Batch
from ponder3d.volume.unet3d import ShallowNet3DConfig


@pytest.fixture
def config(small_encoder) -> ALSOConfig:
    net = ShallowNet3DConfig(channels=8, depth=1, out_channels=12, bypass="add")
    return ALSOConfig(small_encoder, volume_shape=(10, 10, 10), volume_net=net)


def places_of(task, batch):
    return task._places(batch, task._volume(batch))


def test_places_are_before_and_behind_the_surface(room, config):
    """The walls of the box are at 1 m; rays start within."""
    task, batch = config.build(None), Batch.of([room(1), room(2)])
    places = places_of(task, batch)
    assert len(places.xyz) == 3 * 96 and bool(places.counts.all())
    outside = places.xyz.abs().amax(1) > 1
    assert torch.equal(places.full, outside) and int(places.full.sum()) == 96
    t = batch.targets.t
    gap = (places.xyz.view(3, 96, 3) - batch.rays.origins).norm(dim=2)
    assert bool((gap[0] >= t - 0.2001).all()) and bool((gap[1] <= t + 0.2001).all())
    share = gap[2] / t
    assert float(share.min()) < 0.2 and float(share.max()) > 0.8, "anywhere on the way"
    assert torch.equal(places_of(task, batch).xyz, places.xyz), "the keys decide"
    alone = places_of(task, Batch.of([room(2)]))
    torch.testing.assert_close(alone.xyz.view(3, 48, 3), places.xyz.view(3, 96, 3)[:, 48:])
    two = places_of(replace(config, free=False).build(None), batch)
    assert torch.equal(two.xyz, places.xyz[: 2 * 96])


def test_rays_that_end_nowhere_or_outside_do_not_count(room, config):
    scene = room(1)
    t = scene.targets.t.clone()
    t[:10] = 0
    task = config.build(None)
    batch = Batch.of([replace(scene, targets=replace(scene.targets, t=t))])
    counts = places_of(task, batch).counts.view(3, 48)
    assert not bool(counts[:, :10].any()) and bool(counts[:, 10:].all())
    nothing = replace(batch, targets=replace(batch.targets, t=torch.zeros(48)))
    assert float(task.losses(nothing, 0).terms["occupancy"].detach()) == 0
    boxed = replace(config, volume_box=(-0.5, -0.5, -0.5, 0.5, 0.5, 0.5)).build(None)
    assert not bool((places_of(boxed, batch).counts & places_of(boxed, batch).full).any())


def test_walls_are_learnt(room, config, pass_config):
    task = replace(config, encoder=pass_config(), colour=1.0).build(None)
    batches = [Batch.of([room(key, num=3000, rays=256) for key in (i, i + 1)], ("rgb",)) for i in range(4)]
    optimizer = torch.optim.AdamW(task.parameters(), lr=2e-2)
    colours = []
    for step in range(30):
        optimizer.zero_grad()
        terms = task.losses(batches[step % 3], step).terms
        colours.append(float(terms["colour"].detach()))
        sum(terms.values()).backward()
        optimizer.step()
    metric = task.metric()
    metric.update(task.predict(batches[3]), batches[3])
    assert metric.compute()["accuracy"] > 0.85
    assert colours[-1] < 0.6 * colours[0]


def test_without_rays(room, config):
    task = config.build(None)
    scene = room(1)
    for wrong in (replace(scene, rays=None), replace(scene, targets=replace(scene.targets, t=None))):
        with pytest.raises(ValueError, match="ALSO: no rays with distances for box 1; put PickRays"):
            task.losses(Batch.of([wrong]), 0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"volume_shape": (2, 8, 8)}, "ALSOConfig.volume_shape: at least 3"),
        ({"reach": 0.0}, "ALSOConfig: reach must be positive"),
        ({"hidden": 0}, "hidden at least 1"),
        ({"colour": -1.0}, "colour not negative"),
    ],
)
def test_wrong_choices(wrong, words):
    with pytest.raises(ValueError, match=words):
        ALSOConfig(**wrong)
