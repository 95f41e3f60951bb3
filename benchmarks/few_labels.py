"""A few labelled voxels in a scene, and the rest of it told by a linear classifier on frozen features.

    ponder3d prepare rgbd DIR PREPARED [--up 0 1 0]
    python benchmarks/few_labels.py PREPARED [--encoders indoor-small NAME=FILE,FILE] [--shots 5 20] [--save]

What somebody gets who clicks into a recording of their own. For each scene with labels: of every class with at least
``--least`` voxels so many are labelled, the others are asked for; mIoU in percent over those classes, mean and standard
deviation over ten draws (and over scenes). Of a method that has been pre-trained several times, ``NAME=FILE,FILE,...``,
it is the mean and deviation over its files, of each the mean of the draws. ``--magnify`` is for recordings at another
scale than the encoder's: a shelf of 40 cm, ten times as large, is a room. Beside the encoders some with random weights,
and the coordinates, colours and normals themselves. What is labelled and what is asked for lie in one scene: this says
nothing about other rooms.
"""

import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from measure import machine, parser, saved, table
from torch import Tensor

from ponder3d.data.prepared.dataset import PreparedConfig
from ponder3d.data.transforms import Centre, GridSample, Scale, apply
from ponder3d.encoders.encoder import Encoder
from ponder3d.encoders.files import load_encoder
from ponder3d.geometry import keyed
from ponder3d.tasks.linear_probe import LinearProbeConfig, fit_linear
from ponder3d.types import Scene

DRAWS = 10
GIVEN = ("xyz", "xyz, colour", "xyz, colour, normals")


def features(
    scene: Scene, encoders: Mapping[str, Sequence[Encoder]], givens: Sequence[str]
) -> dict[tuple[str, str, str], list[Tensor]]:
    """By what is given, weights and levels; a tensor for each encoder of a name."""
    made: dict[tuple[str, str, str], list[Tensor]] = {}
    for given in givens:
        rgb = scene.rgb if "colour" in given else None
        normal = scene.normal if "normals" in given else None
        if ("colour" in given and rgb is None) or ("normals" in given and normal is None):
            continue
        seen = [x for x in (scene.xyz, rgb, normal) if x is not None]
        made[given, "none", "input"] = [torch.cat(seen, dim=1)]
        for name, trained in encoders.items():
            for levels in ("last", "all"):
                read = [one if levels == "last" else one.all_levels() for one in trained]
                made[given, name, levels] = [one.encode(scene.xyz, rgb=rgb, normal=normal) for one in read]
    return made


def load(named: Sequence[str]) -> dict[str, list[Encoder]]:
    """The encoders by their names, after as many of the same kind with random weights as the longest list has.

    Raises:
        ValueError: they differ in the size of their voxels, by which labels are counted.
    """
    lists = {text.partition("=")[0]: (text.partition("=")[2] or text).split(",") for text in named}
    trained = {name: [load_encoder(file) for file in files] for name, files in lists.items()}
    first = next(iter(trained.values()))[0].config
    if any(one.config.grid_size != first.grid_size for of in trained.values() for one in of):
        raise ValueError("the encoders must have one grid_size")
    random = []
    for seed in range(max(map(len, trained.values()))):
        torch.manual_seed(seed)
        random.append(first.build())
    return {"random": random, **trained}


def miou(feats: Tensor, truth: Tensor, num_classes: int, shots: int, draw: int) -> float:
    """Of one draw of labelled rows; the others are classified."""
    generator = keyed.generator(draw, shots)
    rows = [(truth == label).nonzero()[:, 0] for label in range(num_classes)]
    train = torch.cat([of[torch.randperm(len(of), generator=generator)[:shots]] for of in rows])
    asked = torch.ones(len(truth), dtype=torch.bool)
    asked[train] = False
    x = (feats - feats[train].mean(0)) / feats[train].std(0).clamp(min=1e-6)
    head = fit_linear(x[train], truth[train], num_classes, LinearProbeConfig(batch_size=256), draw)
    guess, right = head(x[asked]).argmax(1), truth[asked]
    hit = [((guess == k) & (right == k)).sum() / ((guess == k) | (right == k)).sum() for k in range(num_classes)]
    return 100 * float(torch.stack(hit).mean())


def spread(per_file: Sequence[Sequence[float]]) -> str:
    """Mean and deviation over files, or, of one file, over draws."""
    values = [statistics.mean(draws) for draws in per_file] if len(per_file) > 1 else per_file[0]
    return f"{statistics.mean(values):.1f} +- {statistics.stdev(values):.1f}"


def main() -> None:
    made = parser(__doc__)
    made.add_argument("prepared", help="directory that ponder3d prepare wrote")
    made.add_argument(
        "--encoders", nargs="+", default=["indoor-small"], help="that ship, files, or NAME=FILE,FILE,..., by seed"
    )
    made.add_argument("--shots", type=int, nargs="+", default=[5, 20], help="labelled voxels of each class")
    made.add_argument("--given", nargs="+", choices=GIVEN, default=GIVEN, help="what encoders are given")
    made.add_argument("--magnify", type=float, default=1.0, help="factor on coordinates")
    made.add_argument("--least", type=int, default=150, help="voxels of a class that takes part")
    args = made.parse_args()
    dataset = PreparedConfig(root=args.prepared, split="train").build()
    if dataset.labels is None or max(args.shots) >= args.least:
        made.error("the recordings have no labels, or --shots leaves nothing to ask for: it must be below --least")
    encoders = load(args.encoders)
    grid_size = encoders["random"][0].config.grid_size
    # By given, weights and levels, then by shots: draws of all scenes, for each file.
    found: dict[tuple[str, str, str], dict[int, list[list[float]]]] = {}
    warnings.filterwarnings("ignore", message="encode: .* missing")  # random weights have not learnt to do without
    with saved(args.save):
        print(machine(torch.get_num_threads()))
        for number in range(len(dataset)):
            steps = (Centre(), Scale(args.magnify, args.magnify), GridSample(grid_size))
            scene = apply(steps, replace(dataset[number], views=None), 0, number)
            assert scene.labels is not None
            counts = torch.bincount(scene.labels[scene.labels >= 0], minlength=len(dataset.labels))
            classes = (counts >= args.least).nonzero()[:, 0]
            print(scene.source, ", ".join(f"{dataset.labels.names[k]} {counts[k]}" for k in classes.tolist()))
            kept = torch.isin(scene.labels, classes)
            truth = torch.searchsorted(classes, scene.labels[kept])
            for key, per_file in features(scene, encoders, args.given).items():
                for shots in args.shots:
                    scores = found.setdefault(key, {}).setdefault(shots, [[] for _ in per_file])
                    for feats, mine in zip(per_file, scores, strict=True):
                        mine += [miou(feats[kept], truth, len(classes), shots, draw) for draw in range(DRAWS)]
        rows = [(*key, *(spread(of[shots]) for shots in args.shots)) for key, of in found.items()]
        table(("given", "weights", "levels", *(f"{n} a class" for n in args.shots)), rows)


if __name__ == "__main__":
    main()
