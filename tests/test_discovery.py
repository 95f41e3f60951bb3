"""A new file with a member of a family is held to its contract, and nothing else has to be edited.

Four careless members are put beside those of the package, and the contracts run as they stand.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent

PLUGIN = """
from pathlib import Path

import ponder3d.data, ponder3d.encoders, ponder3d.volume

for package in (ponder3d.data, ponder3d.encoders, ponder3d.volume):
    package.__path__.append(str(Path(__file__).parent / package.__name__))
"""

ENCODER = """
from dataclasses import dataclass, replace

from torch import nn

from ponder3d.encoders.encoder import Encoder, EncoderConfig
from ponder3d.types.scene import INPUT_CHANNELS


@dataclass(frozen=True)
class CarelessConfig(EncoderConfig):
    inputs: tuple[str, ...] = ("rgb", "normal")
    grid_size: float = 0.1

    def build(self):
        return Careless(self)


class Careless(Encoder):
    def __init__(self, config):
        super().__init__()
        self.config, self.out_channels = config, 4
        self.linear = nn.Linear(sum(INPUT_CHANNELS[name] for name in config.inputs), 4)

    def forward(self, batch):
        feats = self.linear(batch.points.feats)
        return replace(batch.points, feats=feats + feats.sum(0))  # over all scenes of the batch
"""

VOLUME_NET = """
from dataclasses import dataclass, replace

from torch import nn

from ponder3d.volume.unet3d import VolumeNet, VolumeNetConfig


@dataclass(frozen=True)
class CarelessConfig(VolumeNetConfig):
    def build(self, in_channels):
        return Careless(in_channels)


class Careless(VolumeNet):
    def __init__(self, in_channels):
        super().__init__()
        self.out_channels = 3
        self.linear = nn.Linear(in_channels, 3)

    def forward(self, volume):
        return replace(volume, feats=self.linear(volume.feats.flip(1)))
"""

TRANSFORM = """
from dataclasses import dataclass, replace

from ponder3d.data.transforms import Transform


@dataclass(frozen=True)
class Careless(Transform):
    def __call__(self, scene, generator):
        return replace(scene, xyz=scene.xyz + 1)  # cameras stay
"""

DATASET = """
from dataclasses import dataclass

import torch

from ponder3d.data.dataset import DatasetConfig, SceneDataset
from ponder3d.types import Scene


@dataclass(frozen=True)
class CarelessConfig(DatasetConfig):
    def build(self):
        return Careless()

    def held_out(self):
        return self


class Careless(SceneDataset):
    labels = None

    def __len__(self):
        return 2

    def __getitem__(self, index):
        if index >= 2:
            raise IndexError(index)
        return Scene(torch.rand(5, 3), None, None, "careless")
"""

FOUND = {
    "test_scenes_of_a_batch_do_not_mix[CarelessConfig]",
    "test_axes_are_neither_swapped_nor_mirrored_nor_shifted[CarelessConfig]",
    "test_what_moves_the_world_moves_all_of_it[Careless]",
    "test_scenes_are_valid_and_a_function_of_their_index[CarelessConfig]",
}


def test_careless_newcomers_are_found(tmp_path):
    (tmp_path / "newcomers.py").write_text(PLUGIN)
    for name, text in {
        "ponder3d.encoders/careless.py": ENCODER,
        "ponder3d.volume/careless.py": VOLUME_NET,
        "ponder3d.data/careless_move.py": TRANSFORM,
        "ponder3d.data/careless_scans.py": DATASET,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    contracts = ["encoders/test_contract.py", "volume/test_contract.py", "data/test_transform_contract.py"]
    contracts = [str(TESTS / path) for path in (*contracts, "data/test_dataset.py")]
    options = ["-o", "addopts=--import-mode=importlib", "-p", "newcomers", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-k", "Careless", "-rA", "--tb=short", *contracts],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    outcomes = re.findall(r"^(PASSED|FAILED|ERROR) \S+::(test_\S+)", done.stdout, flags=re.MULTILINE)
    assert {name for outcome, name in outcomes if outcome != "PASSED"} == FOUND, done.stdout + done.stderr
    assert len(outcomes) > 30
