"""Released checkpoints: what is in them, what it means (against spconv's own layers), and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from released_files import (
    BACKBONE,
    FULL,
    OUTER,
    Net,
    backbone,
    decoupled,
    language,
    point_group,
    rendering,
    saved,
    spconv_net,
    table,
)

import ponder3d
from ponder3d.encoders.encoder import EncoderFileError
from ponder3d.encoders.files import copy_weights
from ponder3d.encoders.norms import PlainNormConfig, PromptNormConfig
from ponder3d.encoders.released import read_released
from ponder3d.encoders.released_file import read_state
from ponder3d.encoders.released_heads import UNION, UNION_ROWS, DecoupledHead, LanguageHead, LinearHead
from ponder3d.encoders.sparse_unet import SparseUNet, SparseUNetConfig
from ponder3d.types import Batch, Points

PLAIN = Net()
PROMPTED = Net(conditions=3)
SMALL = Net(stem=3, channels=(4, 5), blocks=(1, 1), conditions=3)
COUNTERS = "counters of batches"


def under(prefix: str, weights: dict) -> dict:
    return {prefix + name: value for name, value in weights.items()}


def prompted_model(net: Net = PROMPTED) -> dict:
    return {**backbone(net, prefix="backbone."), **table(net)}


KINDS = {
    "bare v1m1": (lambda: backbone(replace(PLAIN, classes=20)), "SpUNet-v1m1", LinearHead, {}),
    "segmentor v1m1": (
        lambda: backbone(replace(PLAIN, classes=20), prefix="backbone."),
        "DefaultSegmentor of SpUNet-v1m1",
        LinearHead,
        {},
    ),
    "pre-training v1m1": (
        lambda: {
            **backbone(PLAIN, prefix="backbone."),
            **language(PLAIN, classes=20),
            **rendering(),
            "embedding_table.weight": torch.zeros(1, 256),
        },
        "PonderIndoor-v2 of SpUNet-v1m1",
        type(None),
        {"renderer": 25, "projection network": 4 * 6 + 3 * 8 + 2, "text head": 4, "prompts": 1},
    ),
    "pre-training": (
        lambda: {**prompted_model(), **language(PROMPTED), **rendering(), "mtoken": torch.zeros(1, 6)},
        "PonderIndoor-v2 of SpUNet-v1m3",
        type(None),
        {"renderer": 25, "projection network": 50, "mask token": 1, "text head": 4, COUNTERS: 3 * 19},
    ),
    "PPT-v1m1": (
        lambda: {**prompted_model(), **language(PROMPTED)},
        "PPT-v1m1 of SpUNet-v1m3",
        LanguageHead,
        {COUNTERS: 57},
    ),
    "PPT-v1m2": (
        lambda: {**prompted_model(), **decoupled(PROMPTED)},
        "PPT-v1m2 of SpUNet-v1m3",
        DecoupledHead,
        {COUNTERS: 57},
    ),
    "segmentor PPT": (
        lambda: under("backbone.", prompted_model(replace(PROMPTED, classes=200))),
        "DefaultSegmentor of PPT of SpUNet-v1m3",
        LinearHead,
        {COUNTERS: 57},
    ),
    "PointGroup PPT": (
        lambda: {**under("backbone.", prompted_model()), **point_group(PROMPTED, 200)},
        "PG-v1m1 of PPT of SpUNet-v1m3",
        LinearHead,
        {"offset head": 9, COUNTERS: 57},
    ),
    "PointGroup v1m1": (
        lambda: {**backbone(PLAIN, prefix="backbone."), **point_group(PLAIN, 20)},
        "PG-v1m1 of SpUNet-v1m1",
        LinearHead,
        {"offset head": 9},
    ),
    "MSC": (
        lambda: {
            **backbone(PLAIN, prefix="backbone."),
            **{f"{name}_head.{part}": torch.zeros(3) for name in ("color", "normal") for part in ("weight", "bias")},
            "mask_token": torch.zeros(1, 6),
        },
        "MSC-v1m1 of SpUNet-v1m1",
        type(None),
        {"mask token": 1, "colour and normal heads": 4},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_is_used_or_left_out_with_a_reason(kind, tmp_path):
    module = "segmentor" in kind  # as a distributed run names its weights
    write, name, head, left_out = KINDS[kind]
    weights = write()
    released = read_released(saved(tmp_path / "model.pth", weights, module))
    assert released.kind == name
    assert isinstance(released.head, head)
    assert {group: number for group, (number, _) in released.left_out.items()} == left_out
    assert len(released.used) + sum(left_out.values()) == len(weights)
    assert set(released.used) <= set(weights)
    assert not released.encoder.training
    config = released.encoder.config
    assert isinstance(config, SparseUNetConfig)
    assert (config.channels, config.blocks) == (PLAIN.channels, PLAIN.blocks)
    assert (config.stem_channels, config.stem_kernel, config.inputs) == (4, 5, ("rgb", "normal"))
    assert (config.grid_size, config.norm_eps, config.norm_momentum) == (0.02, 1e-3, 0.01)
    assert released.encoder.conditions == (() if name.endswith("v1m1") else BACKBONE)


def voxels(seed: int = 0, num: int = 700, size: int = 14) -> torch.Tensor:
    """Different voxels of two scenes in no order, [M 4]."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, size, (num, 4), generator=generator)
    rows[:, 0] %= 2
    rows = torch.unique(rows, dim=0)
    return rows[torch.randperm(len(rows), generator=generator)]


def our_features(encoder: SparseUNet, coords: torch.Tensor, feats: torch.Tensor, condition: str = "") -> torch.Tensor:
    """Features at voxels, in their order."""
    xyz = (coords[:, 1:] + 0.5) * encoder.config.grid_size
    by_scene = torch.argsort(coords[:, 0], stable=True)
    counts = torch.bincount(coords[:, 0], minlength=2)
    batch = Batch(
        Points(xyz[by_scene].float(), feats[by_scene], counts),
        torch.zeros(2, 2, 3),
        torch.zeros(2, dtype=torch.int64),
        ("", ""),
        conditions=(condition,) * 2,
    )
    with torch.no_grad():
        x = encoder(batch)
    rows = {tuple(row): n for n, row in enumerate(x.coords.tolist())}
    assert len(rows) == len(coords)
    return x.feats[[rows[tuple(row)] for row in coords.tolist()]]


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert float(theirs.std()) > 1e-2, "values that say something"
    return float((ours - theirs).norm() / theirs.norm())


@pytest.fixture
def _spconv():
    import warnings  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("spconv.pytorch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with two, its additions race: two forward passes differ by 5 of 40
    yield
    torch.set_num_threads(threads)


def errors_against_spconv(net: Net, path: Path, coords: torch.Tensor) -> list[float]:
    """Relative errors of features and class scores, for each condition."""
    weights = backbone(net, prefix="backbone.")
    prompts = table(net) if net.prompted else {}
    released = read_released(saved(path, {**weights, **prompts}))
    theirs = spconv_net(net)
    theirs.load_state_dict(backbone(net))  # strict: the names and shapes are those of such a network
    feats = torch.rand(len(coords), net.inputs, generator=torch.Generator().manual_seed(1)) * 2 - 1
    errors = []
    for k, name in enumerate(BACKBONE if net.prompted else ("",)):
        # The row of the prompt is that of the outer model's order, the batch norm that of the backbone's.
        given = (k, prompts["embedding_table.weight"][OUTER.index(name)]) if net.prompted else ()
        expected, scores = theirs(coords, feats, *given)
        ours = our_features(released.encoder, coords, feats, name)
        errors.append(apart(ours, expected))
        if net.classes:
            assert isinstance(released.head, LinearHead)
            errors.append(apart(released.head.logits(ours), scores))
    return errors


@pytest.mark.usefixtures("_spconv")
@pytest.mark.parametrize(
    "net",
    [replace(PLAIN, classes=20), replace(PROMPTED, classes=7), replace(PROMPTED, adaptive=False, affine=False)],
    ids=["v1m1", "v1m3", "v1m3 without prompts, scale and shift"],
)
def test_same_features_as_spconv(net, tmp_path):
    errors = errors_against_spconv(net, tmp_path / "model.pth", voxels())
    assert max(errors) < 1e-5, errors


@pytest.mark.slow
@pytest.mark.usefixtures("_spconv")
@pytest.mark.parametrize("net", [replace(FULL, classes=20), replace(FULL, conditions=3)], ids=["v1m1", "v1m3"])
def test_same_features_as_spconv_at_full_size(net, tmp_path, capsys):
    errors = errors_against_spconv(net, tmp_path / "model.pth", voxels(num=8000, size=24))
    with capsys.disabled():
        print(f"\nlargest relative error against spconv, {net.conditions} conditions: {max(errors):.1e}")
    assert max(errors) < 1e-5


@pytest.mark.slow
def test_full_size(tmp_path):
    """The released names and shapes; numbers of parameters as in spec 1.5."""
    for net, parameters in ((FULL, 39_155_904), (replace(FULL, conditions=3), 43_598_272 + 3 * 256)):
        model = (
            {**prompted_model(net), **language(net, width=512)} if net.prompted else backbone(net, prefix="backbone.")
        )
        encoder = read_released(saved(tmp_path / "model.pth", model)).encoder
        assert encoder.config == SparseUNetConfig(norm=PromptNormConfig() if net.prompted else PlainNormConfig())
        assert sum(p.numel() for p in encoder.parameters()) == parameters


def test_prompts_are_put_in_the_order_of_the_batch_norms(tmp_path):
    rows = table(PROMPTED)["embedding_table.weight"]
    path = saved(tmp_path / "model.pth", prompted_model())
    encoder = read_released(path).encoder
    assert encoder.conditions == ("ScanNet", "S3DIS", "Structured3D")
    assert torch.equal(encoder.prompts.weight, rows[[1, 2, 0]])
    renamed = read_released(path, conditions=("a", "b", "c"), table=("c", "a", "b")).encoder
    assert renamed.conditions == ("a", "b", "c") and torch.equal(renamed.prompts.weight, rows[[1, 2, 0]])
    assert torch.equal(
        encoder.stem.norm.running_mean,
        torch.stack([backbone(PROMPTED)[f"conv_input.bn.bns.{k}.running_mean"] for k in range(3)]),
    )


def test_another_layout_of_the_same_weights(tmp_path):
    """spconv before 2.2. The numbers of a kernel with one tap lie the same, whatever their shape says."""
    net = Net(stem=3, channels=(3, 2, 5, 3), blocks=(1, 1, 1, 1), classes=3)  # kernels and channels of one size
    weights = backbone(net)
    expected = read_released(saved(tmp_path / "new.pth", weights))
    for name, order in {"io": (1, 2, 3, 4, 0), "oi": (1, 2, 3, 0, 4)}.items():
        old = {
            key: value
            if value.dim() != 5
            else value.reshape(1, 1, 1, *(value.shape[axis] for axis in order[3:]))
            if value.shape[1] == 1
            else value.permute(order).contiguous()
            for key, value in weights.items()
        }
        found = read_released(saved(tmp_path / f"{name}.pth", old))
        for key, value in expected.encoder.state_dict().items():
            assert torch.equal(found.encoder.state_dict()[key], value), key
        assert torch.equal(found.head.weight, expected.head.weight)


def test_one_tap_is_read_in_the_order_of_memory(tmp_path):
    weights = backbone(replace(PLAIN, classes=20))
    released = read_released(saved(tmp_path / "model.pth", weights))
    flat = weights["final.weight"].flatten()
    assert released.head.weight[3, 1] == flat[1 * 20 + 3], "in x out, as spconv multiplies"
    project = weights["dec.0.block0.proj.0.weight"].flatten()  # 5 + 4 + ... channels to 5
    assert released.encoder.dec[1][0].skip[0].weight[2, 7] == project[7 * 5 + 2]


def test_language_head(tmp_path):
    parts = language(PROMPTED)
    head = read_released(saved(tmp_path / "model.pth", {**prompted_model(), **parts})).head
    assert isinstance(head, LanguageHead) and head.log_scale == pytest.approx(np.log(100), abs=1e-4)
    feats = torch.randn(9, 5)
    projected = feats @ parts["proj_head.weight"].T + parts["proj_head.bias"]
    cosine = projected / projected.norm(dim=1, keepdim=True) @ parts["class_embedding"].T
    torch.testing.assert_close(
        head.logits(feats, "S3DIS"), 100 * cosine[:, list(head.rows_for("S3DIS"))], atol=2e-3, rtol=2e-4
    )
    with pytest.raises(ValueError, match="no classes of 'kitchen' among the shared ones; known are Structured3D"):
        head.rows_for("kitchen")
    few = read_released(saved(tmp_path / "few.pth", {**prompted_model(), **language(PROMPTED, classes=20)})).head
    assert few.rows_for("ScanNet") == tuple(range(20))


def test_the_shared_classes():
    assert len(UNION) == 36 and {name: len(rows) for name, rows in UNION_ROWS.items()} == {
        "Structured3D": 25,
        "ScanNet": 20,
        "S3DIS": 13,
    }
    scannet = "wall floor cabinet bed chair sofa table door window bookshelf picture counter desk curtain refrigerator"
    scannet += " shower_curtain toilet sink bathtub otherfurniture"
    assert [UNION[row].replace(" ", "_") for row in UNION_ROWS["ScanNet"]] == scannet.split()
    # S3DIS as it was trained: sorted, though its classes are ceiling, floor, wall, beam, ... clutter.
    assert [UNION[row] for row in UNION_ROWS["S3DIS"]][:3] == ["wall", "floor", "chair"]
    assert UNION[UNION_ROWS["S3DIS"][-1]] == "clutter"


def test_decoupled_heads_go_by_the_outer_order(tmp_path):
    parts = decoupled(PROMPTED)
    head = read_released(saved(tmp_path / "model.pth", {**prompted_model(), **parts})).head
    assert [(name, len(one.bias)) for name, one in head.heads] == [("ScanNet", 20), ("S3DIS", 13), ("Structured3D", 25)]
    assert torch.equal(dict(head.heads)["ScanNet"].weight, parts["seg_heads.1.weight"])


def test_conditions_that_were_never_trained(tmp_path):
    """Pointcept's model of ScanNet and Structured3D has batch norms for S3DIS that have seen no batch."""
    weights = prompted_model(SMALL)
    assert read_released(saved(tmp_path / "all.pth", weights)).untrained == ()
    zero = {name: torch.tensor(0) for name in weights if name.endswith("bns.1.num_batches_tracked")}
    found = read_released(saved(tmp_path / "two.pth", {**weights, **zero}))
    assert found.untrained == ("S3DIS",) and found.card("two.pth")["untrained"] == ["S3DIS"]


def test_load_reads_them(tmp_path):
    path = saved(tmp_path / "model.pth", prompted_model(SMALL))
    encoder = ponder3d.load(path)
    xyz = torch.rand(60, 3)
    rgb, normal = torch.rand(60, 3), torch.nn.functional.normalize(torch.randn(60, 3), dim=1)
    again = read_released(path).encoder
    assert encoder.card["kind"] == read_released(path).kind and encoder.card["source"] == "model.pth"
    assert torch.equal(
        encoder.encode(xyz, rgb, normal, condition="S3DIS"), again.encode(xyz, rgb, normal, condition="S3DIS")
    )
    ponder3d.save(encoder, tmp_path / "ours.safetensors")
    loaded = ponder3d.load(tmp_path / "ours.safetensors")
    assert torch.equal(
        loaded.encode(xyz, rgb, normal, condition="S3DIS"), again.encode(xyz, rgb, normal, condition="S3DIS")
    )


def test_weights_of_a_gpu_are_read_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    weights = backbone(SMALL)
    path = saved(tmp_path / "model.pth", {**{f"backbone.{name}": v for name, v in weights.items()}, **table(SMALL)})
    assert b"cuda:0" in path.read_bytes()
    encoder = read_released(path).encoder
    assert encoder.stem.norm.running_var.device.type == "cpu"
    assert torch.equal(encoder.stem.norm.running_var[1], weights["conv_input.bn.bns.1.running_var"])


def test_weights_may_lie_by_themselves_or_in_half_precision(tmp_path):
    weights = backbone(replace(SMALL, conditions=0))
    expected = read_released(saved(tmp_path / "a.pth", weights)).encoder.state_dict()
    for name, state in {"bare": weights, "model": {"model": weights, "epoch": 3}}.items():
        torch.save(state, tmp_path / f"{name}.pt")
        found = read_released(tmp_path / f"{name}.pt").encoder.state_dict()
        assert all(torch.equal(value, found[key]) for key, value in expected.items())
    torch.save({name: value.half() if value.dim() else value for name, value in weights.items()}, tmp_path / "half.pt")
    half = read_released(tmp_path / "half.pt").encoder.state_dict()
    assert all(value.dtype == expected[key].dtype for key, value in half.items())
    torch.testing.assert_close(half["stem.conv.weight"], expected["stem.conv.weight"], atol=1e-3, rtol=1e-3)
    old = {name: value for name, value in weights.items() if "num_batches" not in name}
    torch.save(old, tmp_path / "old.pt")
    assert read_released(tmp_path / "old.pt").encoder.stem.norm.norm.num_batches_tracked == 0


def test_only_some_conditions(tmp_path):
    encoder = read_released(saved(tmp_path / "model.pth", prompted_model(SMALL))).encoder
    two = encoder.only(("Structured3D", "ScanNet"))
    assert two.conditions == ("Structured3D", "ScanNet") and not two.training
    coords = voxels(num=100)
    feats = torch.rand(len(coords), 6)
    for name in two.conditions:
        ours = our_features(two, coords, feats, name)
        torch.testing.assert_close(ours, our_features(encoder, coords, feats, name), atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="'kitchen' is unknown"):
        encoder.only(("ScanNet", "kitchen"))
    shared = replace(encoder.config, norm=replace(encoder.config.norm, decouple=False)).build().eval()
    one = shared.only(("S3DIS",))
    ours = our_features(one, coords, feats, "S3DIS")
    torch.testing.assert_close(ours, our_features(shared, coords, feats, "S3DIS"), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"adaptive": False}, {"decouple": False}])
def test_a_condition_is_folded_into_plain_norms(changes, tmp_path):
    encoder = read_released(saved(tmp_path / "model.pth", prompted_model(SMALL))).encoder
    if changes:
        encoder = replace(encoder.config, norm=replace(encoder.config.norm, **changes)).build().train()
        coords = voxels(seed=4, num=100)
        our_features(encoder, coords, torch.rand(len(coords), 6), "S3DIS")  # so that statistics are not 0 and 1
        encoder.eval()
    coords = voxels(num=100)
    feats = torch.rand(len(coords), 6)
    for name in BACKBONE:
        plain = encoder.folded(name)
        assert plain.config == replace(encoder.config, norm=PlainNormConfig())
        ours = our_features(plain, coords, feats)
        torch.testing.assert_close(ours, our_features(encoder, coords, feats, name), atol=1e-6, rtol=1e-5)
    others = [our_features(encoder.folded(name), coords, feats) for name in BACKBONE[:2]]
    assert changes == {"decouple": False} or not torch.allclose(*others)
    with pytest.raises(ValueError, match="'kitchen' is unknown"):
        encoder.folded("kitchen")


def test_weights_start_an_encoder_of_some_conditions_or_of_none(tmp_path):
    source = read_released(saved(tmp_path / "model.pth", prompted_model(SMALL))).encoder
    config = source.config
    target = replace(config, norm=replace(config.norm, names=("S3DIS", "ScanNet"))).build()
    copy_weights(source, target, "released.pth")
    assert torch.equal(target.prompts.weight, source.prompts.weight[[1, 0]])
    plain = replace(config, norm=PlainNormConfig()).build()
    with pytest.raises(EncoderFileError, match="none apart; fold one of them into it: ponder3d convert .* --condition"):
        copy_weights(source, plain, "released.pth")
    copy_weights(source.folded("ScanNet"), plain, "folded")
    with pytest.raises(EncoderFileError, match="folded: trained without conditions, this encoder tells ScanNet, S3DIS"):
        copy_weights(plain, source, "folded")
    other = replace(config, norm=replace(config.norm, names=("ScanNet", "kitchen"))).build()
    with pytest.raises(EncoderFileError, match="for the conditions ScanNet, .*, this encoder has ScanNet, kitchen"):
        copy_weights(source, other, "released.pth")


def refused(path: Path, match: str, **given) -> None:
    with pytest.raises(EncoderFileError, match=match) as caught:
        read_released(path, **given)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("write", [lambda path, x: torch.save(x, path), saved], ids=["bare", "checkpoint"])
def test_a_truncated_file(write, tmp_path):
    path = tmp_path / "model.pth"
    write(path, backbone(Net(stem=2, channels=(2, 2), blocks=(1, 1))))
    data = path.read_bytes()
    for length in (0, 1, 2, 3, 4, 9, 30, 100, *range(200, len(data), len(data) // 12), len(data) - 1):
        path.write_bytes(data[:length])
        refused(path, "no intact file of torch.save|does not begin like a zip file")
        with pytest.raises(EncoderFileError):
            ponder3d.load(path)


@pytest.mark.parametrize("number", [19, pytest.param(397, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_refused_or_changes_a_number(number, tmp_path):
    """In pickle, directory or numbers: one error of ours, or an encoder of the same structure."""
    path = tmp_path / "model.pth"
    net = Net(stem=2, channels=(2, 2), blocks=(1, 1))
    saved(path, backbone(net))
    data = path.read_bytes()
    config = read_released(path).encoder.config
    rejected = 0
    places = range(0, len(data), len(data) // number)
    for n, place in enumerate(places):
        flipped = bytearray(data)
        flipped[place] ^= 1 << n % 8
        path.write_bytes(flipped)
        try:
            found = read_released(path)
        except EncoderFileError as error:
            assert str(path) in str(error)
            rejected += 1
        else:
            assert found.encoder.config == config
    assert number // 10 < rejected < len(places)


class Touch:
    """Pickles to a call that would make a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("place", ["beside", "within", "instead"])
def test_code_in_a_file_is_not_run(place, tmp_path):
    made, path = tmp_path / "made", tmp_path / "model.pth"
    weights = backbone(PLAIN)
    whole = {
        "beside": {"state_dict": weights, "epoch": Touch(made)},
        "within": {"state_dict": {**weights, "x": Touch(made)}},
        "instead": Touch(made),
    }
    torch.save(whole[place], path)
    refused(path, r"it holds code or is damaged \(.*open.*\); code in a file is not run")
    assert not made.exists()
    torch.save(whole[place], path, _use_new_zipfile_serialization=False)
    refused(path, "in the format that PyTorch wrote before 1.6")
    assert not made.exists()


def test_what_stands_for_things_of_a_training_state_calls_nothing(tmp_path):
    """The name of ``getattr`` is let through, for a scheduler's function; it gets no attribute of anything."""
    path = tmp_path / "model.pth"
    torch.save({"a": torch.zeros(3), "f": torch.optim.lr_scheduler.OneCycleLR._annealing_cos}, path)
    with pytest.raises(EncoderFileError, match="f is a _Nothing and no tensor"):
        read_state(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello, world", "it does not begin like a zip file"),
        (b"\x80\x02}q\x00.", "in the format that PyTorch wrote before 1.6"),
        (b"PK\x03\x04 but nothing else", "no intact file of torch.save .*is its download complete"),
    ],
)
def test_no_file_of_torch(content, message, tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    refused(path, message)
    with pytest.raises(EncoderFileError, match=message):
        ponder3d.load(path)


def test_a_zip_bomb(tmp_path):
    import zipfile  # noqa: PLC0415

    path = tmp_path / "model.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model/data.pkl", bytes(10 << 20))
    refused(path, "compressed or overlapping entries")


def test_a_tensor_larger_than_the_file(tmp_path):
    path = tmp_path / "model.pth"
    weights = backbone(PLAIN)
    torch.save({**weights, "conv_input.0.weight": torch.zeros(1).expand(1 << 40)}, path)
    refused(path, "its tensors are larger than the file")


@pytest.mark.parametrize(
    "kind",
    {
        "sparse": torch.Tensor.to_sparse,
        "quantised": lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
        "without numbers": lambda value: value.to("meta"),
    }.items(),
    ids=lambda kind: kind[0],
)
@pytest.mark.filterwarnings("ignore")  # PyTorch's, of what it is about to drop
def test_tensors_of_another_kind(kind, tmp_path):
    path = tmp_path / "model.pth"
    weights = backbone(PLAIN)
    torch.save({**weights, "enc.0.block0.conv1.weight": kind[1](weights["enc.0.block0.conv1.weight"])}, path)
    refused(path, "enc.0.block0.conv1.weight is a sparse, quantised or otherwise special tensor")


def test_a_missing_file(tmp_path):
    for read in (read_released, ponder3d.load):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "absent.pth")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([torch.zeros(3)], "it holds a list, and no weights by name"),
        ({}, "it holds a dict without entries"),
        (torch.zeros(3), "it holds a Tensor, and no weights by name"),
        ({"epoch": 3, "x": torch.zeros(1)}, "epoch is a int and no tensor: this is no state_dict"),
        ({1: torch.zeros(1)}, "no weights by name"),
        (
            {"blocks.0.attn.qkv.weight": torch.zeros(9, 3), "patch_embed.proj.weight": torch.zeros(3, 3, 2, 2)},
            "no model with one SparseUNet .* there is none; the first names are blocks.0.attn.qkv.weight, patch_embed",
        ),
        ({"a.conv_input.0.weight": torch.zeros(1)}, "there is one at a.conv_input.0.weight"),
        (
            {"teacher.conv_input.0.weight": torch.zeros(1), "backbone.conv_input.0.weight": torch.zeros(1)},
            "there is 2 of them",
        ),
        ({"conv_input.0.weight": torch.zeros(1)}, "but no down.0: no SparseUNet of PonderV2"),
    ],
)
def test_another_architecture(state, message, tmp_path):
    torch.save(state, tmp_path / "model.pth")
    refused(tmp_path / "model.pth", message)


def changed(weights: dict, changes: dict) -> dict:
    """With other values; None takes one away."""
    return {name: value for name, value in {**weights, **changes}.items() if value is not None}


Z = torch.zeros


@pytest.mark.parametrize(
    ("net", "changes", "message"),
    [
        (PLAIN, {"enc.1.block0.conv1.weight": None}, "1 missing .first: enc.1.block0.conv1.weight"),
        (PLAIN, {"down.1.1.running_var": None}, "1 missing .first: down.1.1.running_var"),
        (
            PLAIN,
            {"down.1.1.running_mean": None},
            "down.1.1.running_mean is missing: the file is not a whole SparseUNet",
        ),
        (PLAIN, {"down.1.1.running_mean": Z(2, 4)}, r"has shape \[2, 4\], not one number per channel"),
        (
            PLAIN,
            {"enc.0.block7.conv1.weight": Z(6, 3, 3, 3, 6)},
            "missing .first: enc.0.block1.* 1 unknown .first: enc.0.bl",
        ),
        (PLAIN, {"up.0.extra": Z(3)}, "1 unknown .first: up.0.extra"),
        (PLAIN, {"stray.weight": Z(3)}, "1 unknown beside the backbone .first: stray.weight"),
        (PLAIN, {"down.7.0.weight": Z(3)}, "down.2.1.running_mean is missing"),
        (PLAIN, {"enc.0.block0.conv1.weight": Z(6, 3, 3, 3, 5)}, r"\[6, 3, 3, 3, 5\], and not \[6, 3, 3, 3, 6\]"),
        (
            PLAIN,
            {"down.0.0.weight": Z(6, 2, 2, 4)},
            r"down.0.0.weight has shape \[6, 2, 2, 4\], and not \[6, 2, 2, 2, 4\] or",
        ),
        (PLAIN, {"conv_input.0.weight": Z(4, 4, 4, 4, 6)}, "which is no odd kernel to 4 channels in the layout"),
        (PLAIN, {"conv_input.0.weight": Z(4, 5, 5, 5, 5)}, "reads 5 channels; known are 6 .colour and normal., 4"),
        (PLAIN, {"enc.0.block0.bn1.weight": Z(5)}, r"bn1.weight has shape \[5\], and not \[6\]"),
        (PLAIN, {"dec.0.block0.proj.0.weight": Z(5, 1, 1, 1, 8)}, r"and not \[5, 1, 1, 1, 9\]"),
        (PLAIN, {"enc.0.block0.bn1.bias": Z(6) / 0}, "enc.0.block0.bn1.bias holds values that are no finite numbers"),
        (PLAIN, {"enc.0.block0.bn1.bias": Z(6).double() + 1e99}, "enc.0.block0.bn1.bias holds values that are no fin"),
        (PLAIN, {"enc.0.block0.bn1.running_var": Z(6) - 2}, "enc.0.block0.bn1.running_var holds negative variances"),
        (PLAIN, {"final.weight": Z(20, 1, 1, 1, 5)}, "of the head final only the weight is there"),
        (PLAIN, {"final.weight": Z(20, 1, 1, 1, 6), "final.bias": Z(20)}, r"and not \[20, 1, 1, 1, 5\]"),
        (PROMPTED, {"embedding_table.weight": None}, "embedding_table.weight is missing, the prompts"),
        (PROMPTED, {"embedding_table.weight": Z(2, 7)}, r"has shape \[2, 7\], and not \[3, 7\]"),
        (PROMPTED, {"embedding_table.weight": Z(3, 8)}, r"has shape \[3, 8\], and not \[3, 7\]"),
        (PROMPTED, {"enc.1.block1.bn2.bns.1.weight": None}, "1 missing .first: enc.1.block1.bn2.bns.1.weight"),
        (PROMPTED, {"enc.1.block1.bn2.modulation.1.bias": Z(3)}, r"\[3\], and not \[16\]"),
        (PROMPTED, {"seg_heads.0.weight": Z(2, 5), "seg_heads.0.bias": Z(2)}, "seg_heads.1.bias is missing, of a head"),
        (PROMPTED, {"class_embedding": Z(36, 16)}, "proj_head.weight is missing, a part of the head"),
    ],
)
def test_weights_that_do_not_fit(net, changes, message, tmp_path):
    bare = {**backbone(net), **(table(net) if net.prompted else {})}
    own = ("conv_input", "down", "up", "enc", "dec", "final")
    weights = {("backbone." if name.startswith(own) else "") + name: v for name, v in changed(bare, changes).items()}
    refused(saved(tmp_path / "model.pth", weights), message)


@pytest.mark.parametrize(
    ("net", "given", "message"),
    [
        (PROMPTED, {"conditions": ("a", "b")}, "it tells 3 conditions apart, not those named: a, b"),
        (PROMPTED, {"conditions": ("a", "b", "c")}, r"conditions a, b, c: say in which order .* \(--table\)"),
        (
            PROMPTED,
            {"table": ("a", "b", "c")},
            "the table's order .a, b, c. is not one of ScanNet, S3DIS, Structured3D",
        ),
        (replace(PROMPTED, conditions=2), {}, "it tells 2 conditions apart; name them in the order of its batch norms"),
        (PLAIN, {"conditions": ("a",)}, "it tells 0 conditions apart, not those named: a"),
        (PLAIN, {"inputs": ("rgb",)}, "reads 6 channels; rgb are 3"),
        (PLAIN, {"inputs": ("rgbd",)}, "no point input 'rgbd'; known are rgb, normal, one"),
    ],
)
def test_arguments_that_do_not_fit(net, given, message, tmp_path):
    weights = prompted_model(net) if net.prompted else backbone(net)
    refused(saved(tmp_path / "model.pth", weights), message, **given)


def test_what_the_file_does_not_say(tmp_path):
    single = Net(conditions=1)
    path = saved(tmp_path / "model.pth", prompted_model(single))
    assert read_released(path).encoder.conditions == ("released",)
    other = read_released(path, grid_size=0.05, conditions=("kitchens",), eps=1e-5, momentum=0.1).encoder
    assert other.conditions == ("kitchens",)
    assert (other.config.grid_size, other.config.norm_eps, other.config.norm_momentum) == (0.05, 1e-5, 0.1)
    colour = read_released(saved(tmp_path / "colour.pth", backbone(Net(inputs=3)))).encoder
    assert colour.config.inputs == ("rgb",)


def test_coordinates_and_intensity(tmp_path):
    """Pointcept's models for S3DIS from scratch read coordinates and colour, those for nuScenes coordinates and the
    strength of echoes; of six channels shapes do not tell which."""
    path = saved(tmp_path / "model.pth", backbone(replace(PLAIN, classes=13), prefix="backbone."))
    assert read_released(path).encoder.config.inputs == ("xyz", "rgb")
    assert read_released(path, inputs=("rgb", "normal")).encoder.config.inputs == ("rgb", "normal")
    path = saved(tmp_path / "model.pth", backbone(Net(inputs=4, classes=16), prefix="backbone."))
    encoder = read_released(path, grid_size=0.05).encoder
    assert encoder.config.inputs == ("xyz", "intensity")
    xyz = torch.rand(50, 3) * 4
    seen = encoder.encode(xyz, intensity=torch.rand(50))
    assert seen.shape == (50, encoder.out_channels)
    assert not torch.equal(encoder.encode(xyz + torch.tensor([0.0, 0, 8]), intensity=torch.rand(50)), seen)
