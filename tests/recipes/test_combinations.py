"""Rendering beside another task: what they share, and that the other finds something to do."""

import torch

from ponder3d.data.loader import Collate, KeyedScenes
from ponder3d.recipes import smoke, smoke_rivals
from ponder3d.types import Batch


def test_rendering_and_point_contrast_share_a_pass_and_find_pairs(on_small_data):
    for recipe in (smoke_rivals.combinations_rooms_ponder_contrast, smoke_rivals.combinations_streets_ponder_contrast):
        experiment = on_small_data(recipe())
        dataset = experiment.data.build()
        scenes = KeyedScenes(dataset, experiment.on_grid(experiment.transforms), 0)
        batch = Collate(experiment.task.encoder.inputs)([scenes[0, 0], scenes[0, 1]])
        torch.manual_seed(0)
        task = experiment.task.build(dataset.labels)
        seen = []
        task.encoder.register_forward_hook(lambda _module, inputs, _output, seen=seen: seen.append(inputs[0]))
        task.train()
        out = task.losses(batch, 0)
        assert [id(one) for one in seen] == [id(batch), id(batch.pair)], "the rendered scene is encoded once"
        assert float(out.monitors["contrast_pairs"]) > 100
        assert {"contrast_contrast", "ponder_depth"} <= set(out.terms)
        # At first a feature says nothing of its place: the loss is that of a guess among all pairs, times the weight.
        guess = 5 * torch.log(out.monitors["contrast_pairs"])
        assert 0.5 < float(out.terms["contrast_contrast"].detach() / guess) < 1.2


def test_rendering_and_pixel_contrast_share_rays_and_a_pass(on_small_data):
    for recipe in (
        smoke_rivals.combinations_streets_ponder_pixel,
        smoke_rivals.combinations_streets_ponder_superpixel,
    ):
        experiment = on_small_data(recipe())
        dataset = experiment.data.build()
        experiment.check_data(dataset)
        scenes = KeyedScenes(dataset, experiment.on_grid(experiment.transforms), 0)
        batch = Collate(experiment.task.encoder.inputs)([scenes[0, 0], scenes[0, 1]])
        assert batch.targets is not None and batch.targets.feature is not None
        torch.manual_seed(0)
        task = experiment.task.build(dataset.labels).train()
        seen = []
        task.encoder.register_forward_hook(lambda _module, inputs, _output, seen=seen: seen.append(inputs[0]))
        out = task.losses(batch, 0)
        assert len(seen) == 1
        assert {"pixel_contrast", "ponder_depth"} <= set(out.terms)
        assert float(out.monitors["pixel_pairs"]) > 10
        # The rays are those of rendering alone, and so are the surroundings of where they end; before these come the
        # features of the image.
        alone = KeyedScenes(dataset, experiment.on_grid(on_small_data(smoke.pretrain_streets_lidar()).transforms), 0)
        rendered = Batch.of([alone[0, 0], alone[0, 1]])
        assert torch.equal(rendered.rays.directions, batch.rays.directions)
        parts = {part.name: part.select(batch) for part in experiment.task.parts}
        torch.testing.assert_close(parts["ponder"].targets.feature, rendered.targets.feature, equal_nan=True)
        pixels = parts["pixel"].targets.feature
        assert pixels.shape[1] == 39 and float(pixels.min()) < 0 <= float(pixels[:, :9].min())


def test_a_scene_is_rendered_and_retrieved_in_validation(on_small_data):
    experiment = on_small_data(smoke_rivals.combinations_streets_ponder_superpixel())
    dataset = experiment.data.build()
    scenes = KeyedScenes(dataset, experiment.on_grid(experiment.validation_transforms), 0)
    batch = Collate(experiment.task.encoder.inputs)([scenes[0, 0]])
    task = experiment.task.build(dataset.labels).eval()
    prediction = task.predict(batch)
    assert prediction["ponder"].rgb.shape == batch.views.rgb.shape
    assert int((prediction["pixel"].scene >= 0).sum()) > 10
    metric = task.metric()
    metric.update(prediction, batch)
    assert {"pixel_within_50cm", "ponder_psnr"} <= set(metric.compute())
