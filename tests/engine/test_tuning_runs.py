"""Runs that train a part of their encoder: files, evaluations, and what is continued."""

from dataclasses import replace

import pytest
import torch
from segmenting import BoardsConfig, semseg_run
from tiny_runs import differences, final_state

from ponder3d.encoders.files import FILE_NAME, load_encoder
from ponder3d.encoders.sparse_unet import SparseUNetConfig
from ponder3d.engine.evaluate import evaluate, load_task
from ponder3d.engine.loop import train
from ponder3d.engine.optim import OptimConfig
from ponder3d.tasks.frozen import features_of
from ponder3d.tasks.semseg import SemSegConfig
from ponder3d.tasks.tuning import DecoderOnly, Full, HeadOnly, Lora

ENCODER = SparseUNetConfig(
    inputs=("rgb",), grid_size=0.1, stem_channels=4, stem_kernel=3, channels=(4, 4), blocks=(1, 1), norm_momentum=0.5
)


def tuned(tuning, **changes):
    return semseg_run(task=SemSegConfig(encoder=ENCODER, tuning=tuning), optim=OptimConfig(lr=0.05), **changes)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    out = tmp_path_factory.mktemp("pretrained")
    train(tuned(Full(), seed=5), out, quiet=True)
    return out / FILE_NAME


@pytest.mark.parametrize("tuning", [DecoderOnly(), HeadOnly(), Lora(rank=2)], ids=lambda t: type(t).__name__)
def test_a_run_ends_goes_on_and_is_evaluated(tuning, pretrained, tmp_path):
    experiment = tuned(tuning, init=str(pretrained), save_every=2)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    figures = train(experiment, whole, quiet=True).figures

    def stop(step: int, total: int, figures: dict[str, float]) -> None:
        if step == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(replace(experiment, log_every=1), cut, report=stop)
    assert train(replace(experiment, log_every=1), cut, resume=True, quiet=True).figures == figures
    assert not differences(final_state(whole), final_state(cut))
    assert (whole / FILE_NAME).read_bytes() == (cut / FILE_NAME).read_bytes()
    assert evaluate(whole, quiet=True) == figures and (whole / "confusion.png").is_file()
    # What is on disk is an ordinary encoder, with the features that the task has.
    task, _, _ = load_task(whole)
    scene, encoder = BoardsConfig().build()[0], load_encoder(whole)
    assert torch.equal(features_of(encoder, scene), features_of(task.encoder, scene))
    start, end = load_encoder(pretrained).state_dict(), encoder.state_dict()
    same = {name for name in start if torch.equal(start[name], end[name])}
    frozen = {name for name in start if not name.startswith(("up", "dec"))}
    if isinstance(tuning, Lora):
        convs = {name for name in start if name.endswith(("conv.weight", "conv1.weight", "conv2.weight"))}
        assert same == set(start) - convs
    else:
        assert same == (set(start) if isinstance(tuning, HeadOnly) else frozen | (same - frozen)) and frozen <= same
    # And it is one to start from, in any of the ways.
    train(tuned(Full(), init=str(whole / FILE_NAME), steps=1), tmp_path / "next", quiet=True)


@pytest.mark.slow
def test_two_ranks_agree(launch, pretrained, tmp_path):
    experiment = tuned(Lora(), init=str(pretrained))
    one, two = launch(experiment, tmp_path, world=2).wait()
    assert (one["end"], two["end"]) == ("done", "done") and one["figures"] == two["figures"]
    weights = [torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert not differences(*weights), "running statistics too: they are frozen"
    start = load_encoder(pretrained).state_dict()
    assert all(torch.equal(value, weights[0][f"encoder.{name}"]) for name, value in start.items())
    assert float(weights[0]["tuning.changes.stem/conv.up"].abs().max()) > 0
