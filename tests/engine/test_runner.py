"""Who starts the processes of a run."""

import pytest
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

from ponder3d.engine.runner import _environment


@pytest.fixture(autouse=True)
def _outside(monkeypatch):
    for name in ("LOCAL_WORLD_SIZE", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "devices", "expected"),
    [
        ({}, 4, None),
        # torchrun, in an allocation too.
        ({"LOCAL_WORLD_SIZE": "4", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "2"}, 4, None),
        # A batch script, and a shell that srun has started: nobody has started our processes.
        ({"SLURM_NTASKS": "4"}, 2, LightningEnvironment),
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"}, 4, LightningEnvironment),
        # srun has started one for each device.
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS_PER_NODE": "4"}, 4, SLURMEnvironment),
    ],
)
def test_an_allocation_alone_starts_nothing(variables, devices, expected, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = _environment(devices)
    assert found is None if expected is None else type(found) is expected


def test_as_many_processes_as_devices(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(ValueError, match="srun: .*ntasks-per-node=4"):  # Lightning's own hint
        _environment(4)
    with pytest.raises(ValueError, match=r"Experiment\.devices is 1, and srun has started 4 processes"):
        _environment(1)
