"""Several tasks on one encoder: terms add up, the encoder runs once where it can, weights are listed once."""

from dataclasses import replace

import pytest
import torch

from ponder3d.data.transforms import PointsOnly, RemoveBlocks, TwoViews, apply
from ponder3d.tasks.also import ALSOConfig
from ponder3d.tasks.class_vectors import FixedCodes
from ponder3d.tasks.combined import CombinedConfig, PartConfig
from ponder3d.tasks.masked_occupancy import MaskedOccupancyConfig
from ponder3d.tasks.pairs import PairsConfig
from ponder3d.tasks.pixel_contrast import PixelContrastConfig
from ponder3d.tasks.point_contrast import PointContrastConfig
from ponder3d.tasks.projection_heads import MLPProjection
from ponder3d.tasks.self_distil import SelfDistilConfig
from ponder3d.tasks.semseg import SemSegConfig
from ponder3d.types import Batch


@pytest.fixture
def batch(room) -> Batch:
    steps = (TwoViews((RemoveBlocks(0.3, 0.3),), (PointsOnly(),)),)
    return Batch.of([apply(steps, room(key), key) for key in (1, 2)])


@pytest.fixture
def config(small_encoder, small_ponder) -> CombinedConfig:
    distil = SelfDistilConfig(hide=(0.0, 0.0), prototypes=6, cell=0.4, head=MLPProjection((8,), 4))
    return CombinedConfig(
        small_encoder,
        (
            PartConfig("ponder", small_ponder, 2.0),
            PartConfig("occupancy", MaskedOccupancyConfig(volume_shape=(8, 8, 8))),
            PartConfig("also", ALSOConfig(volume_shape=(8, 8, 8))),
            PartConfig("distil", distil, 0.5),
        ),
    )


def test_terms_are_those_of_the_parts_with_their_weights(config, batch):
    task = config.build(None).eval()
    out = task.losses(batch, 0)
    for part in config.parts:
        alone = task.parts[part.name].losses(batch, 0)
        for name, value in alone.terms.items():
            torch.testing.assert_close(out.terms[f"{part.name}_{name}"], part.weight * value)
        assert {f"{part.name}_{name}" for name in alone.monitors} <= set(out.monitors)
    assert len(out.terms) > len(config.parts)


def test_parts_that_see_the_same_share_a_pass(config, batch):
    task = config.build(None)
    seen: list[object] = []
    task.encoder.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    task.losses(batch, 0)
    assert len(seen) == 1
    hiding = replace(config.parts[3], task=replace(config.parts[3].task, hide=(0.5, 0.5)))
    task = replace(config, parts=(*config.parts[:3], hiding)).build(None)
    task.encoder.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    task.losses(batch, 0)
    task.losses(batch, 1)
    assert len(seen) == 1 + 2 * 2, "the student sees something else, and no pass outlives a step"


def test_what_the_encoder_learns_by_itself_counts_once(config, batch, monkeypatch):
    """Whether parts share a pass or have their own."""
    hiding = replace(config.parts[3], task=replace(config.parts[3].task, hide=(0.5, 0.5)))
    for parts in (config.parts, (*config.parts[:3], hiding)):
        task = replace(config, parts=parts).build(None)
        learnt = iter((2.0, 4.0))
        monkeypatch.setattr(
            task.encoder, "learn", lambda seen, e=task.encoder, n=learnt: (e(seen), {"own": torch.tensor(next(n))})
        )
        terms = task.losses(batch, 0).terms
        assert float(terms["encoder_own"]) == (2.0 if parts is config.parts else 3.0)
        assert [name for name in terms if name.endswith("own")] == ["encoder_own"]
        assert "encoder_own" not in task.eval().losses(batch, 0).terms


def test_a_combination_in_a_combination_trains_the_one_encoder(config, batch):
    nested = replace(config, parts=(config.parts[1], PartConfig("inner", replace(config, parts=config.parts[2:]))))
    task, seen = nested.build(None), []
    task.encoder.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    terms = task.losses(batch, 0).terms
    assert len(seen) == 1 and {"inner_also_occupancy", "inner_distil_distil"} <= set(terms)
    terms["inner_also_occupancy"].backward()
    assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in task.encoder.parameters())


def test_a_part_that_reads_all_levels_has_a_pass_of_its_own(config, room, small_encoder, labels):
    """Its head is as wide as the decoder, and what the others share is as it was."""
    parts = (PartConfig("segment", SemSegConfig(all_levels=True)), PartConfig("last", SemSegConfig()))
    torch.manual_seed(0)
    task = CombinedConfig(small_encoder, parts).build(labels)
    data = Batch.of([room(1)], small_encoder.inputs)
    seen: list[object] = []
    task.encoder.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    task.eval().losses(data, 0).terms["segment_cross_entropy"].backward()
    assert len(seen) == 1, "of the other part"
    width = sum(small_encoder.channels[len(small_encoder.channels) // 2 :])
    assert task.parts["segment"].head.in_features == width > task.parts["last"].head.in_features
    assert all(float(next(stage.parameters()).grad.abs().max()) > 0 for stage in task.encoder.dec)


def test_gradients_of_a_shared_pass_are_the_sum_of_those_of_the_parts(config, batch):
    task = config.build(None).eval()
    parameter = next(task.encoder.parameters())
    sum(task.losses(batch, 0).terms.values()).backward()
    together, parameter.grad = parameter.grad, None
    for part in config.parts:
        (part.weight * sum(task.parts[part.name].losses(batch, 0).terms.values())).backward()
        task.once.forget()
    torch.testing.assert_close(together, parameter.grad, rtol=1e-3, atol=1e-5)


def test_the_encoder_is_listed_once(config):
    task = config.build(None)
    names = list(task.state_dict())
    students = [name for name in names if "teacher" not in name and "stem" in name]
    assert students and all(name.startswith("encoder.") for name in students)
    assert {n for n, _ in task.named_parameters()} == {n for n, _ in task.named_parameters(remove_duplicate=False)}
    teacher = task.parts["distil"].teacher_encoder
    assert all(torch.equal(teacher.state_dict()[name], value) for name, value in task.encoder.state_dict().items())
    assert all(part.encoder.config == task.encoder.config for part in task.parts.values())


def test_it_is_rebuilt_from_what_is_kept(config, labels, batch):
    ponder = replace(config.parts[0].task, semantics=FixedCodes(4))
    config = replace(config, parts=(replace(config.parts[0], task=ponder), config.parts[3]))
    task = config.build(labels)
    facts = task.facts()
    assert facts == {"ponder_class_vectors": task.parts["ponder"].source}
    again = config.rebuild(labels, task.state_dict(), facts)
    again.load_state_dict(task.state_dict())
    assert again.facts() == facts
    one, two = (t.eval().losses(batch, 0).terms for t in (task, again))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_figures_and_pictures_carry_the_names_of_the_parts(config, batch):
    config = replace(config, parts=config.parts[1:])
    task = config.build(None).eval()
    prediction = task.predict(batch)
    metric = task.metric()
    metric.update(prediction, batch)
    figures = metric.compute()
    for name in ("occupancy", "also", "distil"):
        own = task.parts[name].metric()
        own.update(prediction[name], batch)
        assert {f"{name}_{key}": value for key, value in own.compute().items()}.items() <= figures.items()
    assert [picture.name for picture in task.pictures(prediction, batch)] == [
        "occupancy-occupancy",
        "also-occupancy",
        "distil-prototypes",
    ]


def test_what_rays_must_have_follows_from_the_parts(config, small_ponder):
    assert config.feature_width() == 0
    wide, other = (PartConfig(f"p{n}", replace(small_ponder, feature_channels=n)) for n in (5, 7))
    assert replace(config, parts=(*config.parts, wide)).feature_width() == 5
    with pytest.raises(ValueError, match=r"CombinedConfig.parts: their rays have target features of \[5, 7\] channels"):
        replace(config, parts=(wide, other))


def test_parts_divide_the_features_of_a_ray_and_share_a_pass(small_encoder, small_ponder, batch):
    """Each is what it would be with its channels alone."""
    assert batch.targets is not None and batch.rays is not None
    feature = torch.rand(len(batch.rays), 5, generator=torch.Generator().manual_seed(0))
    batch = replace(batch, targets=replace(batch.targets, feature=feature))
    rendered = replace(small_ponder, feature_channels=3)
    pixels = PixelContrastConfig(small_encoder, feature_channels=2, reach=1.0)
    config = CombinedConfig(
        small_encoder, (PartConfig("ponder", rendered, features=(2, 5)), PartConfig("pixel", pixels, features=(0, 2)))
    )
    assert config.feature_width() == 5
    task = config.build(None).eval()
    seen: list[object] = []
    task.encoder.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    out = task.losses(batch, 0)
    assert len(seen) == 1, "what differs are the targets"
    for name, own in (("ponder", feature[:, 2:]), ("pixel", feature[:, :2])):
        alone = task.parts[name].losses(replace(batch, targets=replace(batch.targets, feature=own)), 0)
        for term, value in alone.terms.items():
            torch.testing.assert_close(out.terms[f"{name}_{term}"], value)
    assert out.monitors["pixel_pairs"] > 10
    moved = replace(batch, targets=replace(batch.targets, feature=feature.flip(1)))
    assert task.losses(moved, 0).terms["pixel_contrast"] != out.terms["pixel_contrast"]


def test_wrong_channels(small_encoder, small_ponder, batch):
    wide = replace(small_ponder, feature_channels=3)
    for features in ((0, 2), (3, 3), (-1, 2), (3, 0)):
        with pytest.raises(ValueError, match=r"features of a: .* are not the 3 channels that its task has to"):
            PartConfig("a", wide, features=features)
    parts = (PartConfig("all", wide), PartConfig("some", wide, features=(2, 5)))
    with pytest.raises(ValueError, match=r"target features of \[3, 5\] channels; say with PartConfig.features which"):
        CombinedConfig(small_encoder, parts)
    assert batch.targets is not None and batch.rays is not None
    narrow = replace(batch, targets=replace(batch.targets, feature=torch.zeros(len(batch.rays), 4)))
    task = CombinedConfig(small_encoder, (PartConfig("ponder", wide, features=(2, 5)),)).build(None)
    with pytest.raises(ValueError, match=r"has 4 channels, not the 5 of \{'ponder': \(2, 5\)\}; set these"):
        task.losses(narrow, 0)
    part = PartConfig("ponder", wide, features=(2, 5))
    assert part.select(narrow).targets.feature is None, "no prediction wants a part of them"


def test_a_pass_is_shared_whatever_comes_between(config, batch):
    """Ponder, what reads the pair too, and Ponder again."""
    ponder = config.parts[0]
    pairs = PartConfig("pairs", PointContrastConfig(config.encoder, pairs=PairsConfig(distance=0.2)))
    task = replace(config, parts=(ponder, pairs, replace(ponder, name="again"))).build(None)
    seen: list[object] = []
    task.encoder.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    task.losses(batch, 0)
    assert len(seen) == 2, "the batch and its pair"


def test_wrong_choices(small_ponder):
    with pytest.raises(ValueError, match="each with a name of its own"):
        CombinedConfig(parts=(PartConfig("a", small_ponder), PartConfig("a", small_ponder)))
    with pytest.raises(ValueError, match="at least one part"):
        CombinedConfig(parts=())
    with pytest.raises(ValueError, match="PartConfig.name must be a word"):
        PartConfig("a.b", small_ponder)
    with pytest.raises(ValueError, match="PartConfig.weight of a must be positive"):
        PartConfig("a", small_ponder, 0.0)
