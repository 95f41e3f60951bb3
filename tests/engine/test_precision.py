"""bf16 mixed precision: the loop runs, learns the same thing roughly, and stores float32."""

from dataclasses import replace

import pytest
import torch
from tiny_runs import differences, final_state, ponder_run

from ponder3d.engine.log import read_table
from ponder3d.engine.loop import train
from ponder3d.recipes import smoke


@pytest.mark.parametrize("recipe", [smoke.pretrain_indoor_rooms_paper, smoke.semseg_rooms])
def test_a_smoke_recipe_trains_in_bf16(tmp_path_factory, tmp_path, recipe):
    experiment = recipe()
    data = replace(experiment.data, num_test_rooms=1, cache=str(tmp_path_factory.getbasetemp() / "bf16-rooms"))
    experiment = replace(experiment, data=data, validate_every=0, steps=3)
    losses = {}
    for precision in ("32-true", "bf16-mixed"):
        result = train(replace(experiment, precision=precision), tmp_path / precision, quiet=True)
        assert result.skipped_steps == 0 and result.figures
        losses[precision] = [float(row["loss"]) for row in read_table(tmp_path / precision / "train.csv")]
    # bf16 has 8 bits, and training follows another path after the first step.
    assert losses["bf16-mixed"][0] == pytest.approx(losses["32-true"][0], rel=0.05)
    assert losses["bf16-mixed"] == pytest.approx(losses["32-true"], rel=0.2)
    assert losses["bf16-mixed"] != losses["32-true"]
    state = final_state(tmp_path / "bf16-mixed")
    assert all(value.dtype == torch.float32 for value in state["model"].values() if value.is_floating_point())


def test_a_run_in_bf16_repeats_to_the_bit(tmp_path):
    experiment = ponder_run(precision="bf16-mixed", steps=6, workers=0)
    for name in ("one", "two"):
        train(experiment, tmp_path / name, quiet=True)
    assert not differences(final_state(tmp_path / "one"), final_state(tmp_path / "two"))
