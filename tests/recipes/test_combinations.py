"""Rendering beside a task of two views: what they share, and that the second finds something to do."""

import torch

from ponder3d.data.loader import Collate, KeyedScenes
from ponder3d.recipes import smoke_rivals


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
