"""Real recordings: scenes load, held-out views stay apart, and the cloud agrees with depth that it was not made of."""

import pytest
import torch

from ponder3d.data.rgbd_folder import RGBDFolderConfig
from ponder3d.geometry.cameras import project

RECORDINGS = {
    "7scenes": RGBDFolderConfig(every=2, window=12, window_step=12, hold_out=4, max_side=160),
    "hololens": RGBDFolderConfig(every=2, window=10, window_step=10, hold_out=4, max_side=160),
    "aria": RGBDFolderConfig(window=0, hold_out=3, max_side=160, up=(0.0, 1.0, 0.0)),
}


def agreement(scene) -> float:
    """Of the pixels of the views that see the cloud: the share whose nearest point lies at the pixel's depth.

    A point that is hidden in a view lies behind what the view sees, so only the nearest point of a pixel counts, and
    the coarse cloud leaves gaps through which hidden points show.
    """
    cameras, right, seen = scene.views.cameras, 0, 0
    height, width = cameras.size
    for view in range(len(cameras)):
        uv, z = project(cameras, scene.xyz, torch.full((len(scene.xyz),), view))
        pixel = uv.round().to(torch.int64)
        ahead = (z > 0.1) & (pixel >= 0).all(1) & (pixel[:, 0] < width) & (pixel[:, 1] < height)
        flat = pixel[ahead, 1] * width + pixel[ahead, 0]
        nearest = torch.full((height * width,), torch.inf).scatter_reduce_(0, flat, z[ahead], "amin")
        measured = scene.views.depth[view].flatten()
        both = (measured > 0) & nearest.isfinite()
        seen += int(both.sum())
        right += int(((nearest - measured).abs() < 0.03 * measured)[both].sum())
    assert seen > 1000 * len(cameras)
    return right / seen


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_real_recording(real_data, name):
    config = RECORDINGS[name]
    config = RGBDFolderConfig(**{**vars(config), "root": str(real_data(name))})
    data, held = config.build(), config.held_out().build()
    train, shown = data[0], held[0]
    assert not data.skipped and len(train.xyz) > 5000
    for scene in (train, shown):
        for values in (scene.xyz, scene.rgb, scene.normal, scene.views.depth, scene.views.cameras.world_from_cam):
            assert bool(torch.isfinite(values).all())
    torch.testing.assert_close(train.normal.norm(dim=1), torch.ones(len(train.xyz)), atol=1e-4, rtol=0)
    assert not set(train.views.names) & set(shown.views.names) and len(shown.views.names) >= 2
    assert agreement(train) > 0.85 and agreement(shown) > 0.85


def test_real_labels_and_the_direction_of_up(real_data):
    config = RGBDFolderConfig(**{**vars(RECORDINGS["aria"]), "root": str(real_data("aria"))})
    data = config.build()
    scene = data[0]
    tables, doors = (scene.labels == data.labels.names.index(name) for name in ("table", "door"))
    assert int(tables.sum()) > 500 and int(doors.sum()) > 100 and int(scene.labels.max()) < len(data.labels)
    assert float(scene.normal[tables, 2].median()) > 0.99 and float(scene.normal[doors, 2].abs().median()) < 0.15
    assert 0.5 < float(scene.xyz[tables, 2].median()) < 1.2
    assert bool((scene.views.cameras.world_from_cam[:, 2, 3] > 1).all()), "worn on the head"
