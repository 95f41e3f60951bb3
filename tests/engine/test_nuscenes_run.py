"""nuScenes from its files to a submission: train on one split, predict another, score the zip file."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from ponder3d.data.driving.nuscenes import NuScenesConfig
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.engine.experiment import Experiment
from ponder3d.engine.loop import train
from ponder3d.engine.predict import predict
from ponder3d.engine.score import score
from ponder3d.tasks.semseg import SemSegConfig

FILES = runpy.run_path(str(Path(__file__).parents[1] / "data" / "nuscenes_files.py"))


@pytest.mark.slow
def test_from_tables_to_a_submission(tmp_path):
    FILES["write_nuscenes"](tmp_path)
    inputs = ("xyz", "intensity", "time")
    encoder = SparseUNetConfig(inputs=inputs, grid_size=0.5, channels=(8,) * 8, blocks=(1,) * 8)
    experiment = Experiment(
        task=SemSegConfig(encoder=encoder),
        data=NuScenesConfig(root=str(tmp_path), version="v1.0-mini", sweeps=3, images=False),
        transforms=(),
        validation_transforms=(),
        steps=2,
        batch_size=2,
        workers=0,
    )
    train(experiment, tmp_path / "run", quiet=True)
    out = tmp_path / "run" / "predictions"
    figures = predict(tmp_path / "run", quiet=True)
    # Eight points of each of up to three revolutions; those of the key frame have labels.
    assert (figures["scenes"], figures["points"]) == (3, 8 * (1 + 3 + 3))
    result = out / "nuscenes" / "lidarseg" / "mini_val" / "lidar-1-4_lidarseg.bin"
    classes = np.frombuffer(result.read_bytes(), np.uint8)
    assert len(classes) == 10 and 1 <= classes.min() <= classes.max() <= 16
    files, sent = score([out]), score([out / "nuscenes.zip"], truth=out)
    assert sent == pytest.approx(files) and sent["points"] == 24
