"""The contract of an encoder."""

import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ponder3d.config import Config
from ponder3d.encoders.encode import as_cloud, encode_cloud, normals_of_cloud
from ponder3d.types import Batch
from ponder3d.types.scene import INPUT_CHANNELS
from ponder3d.volume.convert import Features

Array = np.ndarray | Tensor


class EncoderFileError(ValueError):
    """A file that holds no encoder that can be read; the message says what differs."""


class EncoderConfig(Config, ABC):
    """Choices of an encoder. Every leaf has the two fields below among its own."""

    inputs: tuple[str, ...]
    """Point channels it reads, names from ``types.scene.INPUT_CHANNELS``; none if it reads images alone."""
    grid_size: float
    """Metres; points closer than this share a feature, and input clouds are thinned to one point per such voxel."""

    @abstractmethod
    def build(self) -> "Encoder":
        """A freshly initialised encoder."""

    def with_inputs(self, inputs: tuple[str, ...]) -> "EncoderConfig":
        """With other point channels."""
        return replace(self, inputs=inputs)  # pyright: ignore[reportArgumentType]


def check_inputs(name: str, inputs: tuple[str, ...]) -> None:
    """Refuse point channels that there are not, or none.

    Raises:
        ValueError: naming the configuration ``name``.
    """
    if not inputs or any(each not in INPUT_CHANNELS for each in inputs):
        raise ValueError(f"{name}.inputs: choose from {', '.join(INPUT_CHANNELS)}, not {inputs}")


class Encoder(nn.Module, ABC):
    """Turns a batch of point clouds into features.

    The result is ``Points``, a ``SparseTensor`` or a ``Volume`` with ``out_channels`` channels; read it through
    ``volume.convert.densify`` and ``volume.convert.sample_at``.
    """

    config: EncoderConfig
    out_channels: int
    reads_images: bool = False
    """Whether batches must have ``images``."""
    reads_depth: bool = False
    """Whether it learns from the depth that the images must have in training."""
    conditions: tuple[str, ...] = ()
    """Conditions (``Scene.condition``) that it tells apart: every scene must have one of them. Empty: it tells none."""
    reach: float | None = None
    """Metres along any axis from which on a point cannot change a feature, neither by its values nor by being there, in
    evaluation mode; None if that is unknown or there is no such distance."""
    box: tuple[float, ...] | None = None
    """Lower x, y, z, upper x, y, z of the only place it looks at, in metres in the scenes' frame, if there is one."""
    derived: bool = False
    """Whether it is a way to read another encoder, whose weights it has; there are no files of such."""
    decoder: tuple[str, ...] = ()
    """Names of the submodules that make up its decoder: what turns the features of an encoder proper, coarse as they
    are, into those of points. Empty: it has none that could be told apart."""
    card: dict[str, Any]
    """What its file says about it (``encoders.files``); empty for an encoder that has not been read from one."""

    def __init__(self):
        super().__init__()
        self.card = {}
        self._told: set[str] = set()
        """Inputs whose absence ``encode`` has warned of."""

    @abstractmethod
    def forward(self, batch: Batch) -> Features:
        """Features of a batch whose points carry ``config.inputs``."""

    def start(self) -> tuple[str, ...]:
        """Read the files of weights that the configuration names. Called once in the life of an encoder: when a run
        begins, unless ``Experiment.init`` gives it all of its weights. A run that goes on and an encoder that was read
        from a file have their weights, and need those files no more. By default nothing.

        Returns:
            A line per file for the user: what of it was not used, and why.

        Raises:
            OSError: a file cannot be read.
            EncoderFileError: it is not there, or holds something else.
        """
        return ()

    def parts(self) -> dict[str, "Encoder"]:
        """Encoders of which it consists and which have files of their own, by name; none by default."""
        return {}

    def learn(self, batch: Batch) -> tuple[Features, dict[str, Float[Tensor, ""]]]:
        """Features of a batch in training, and weighted loss terms of the encoder's own, none by default, which tasks
        add to theirs (``Task.learn``)."""
        return self(batch), {}

    def all_levels(self) -> "Encoder":
        """The same encoder with what every level of its decoder knows side by side, coarse features repeated on what
        they cover; it shares the weights. A linear classifier reads more from these than from the last level alone, as
        Sonata's up-cast features show (arXiv 2503.16429).

        Returns:
            An encoder to read features with: it has no file of its own, and shares mode and weights with this one. A
            SparseUNet's takes as much memory for features as there are channels in its decoder; where clouds are cut
            into tiles, give ``encode`` a smaller ``max_voxels``. Encoders of other kinds are their own.
        """
        return self

    @torch.no_grad()
    def encode(
        self,
        xyz: Array,
        rgb: Array | None = None,
        normal: Array | None = None,
        max_voxels: int = 1_500_000,
        halo: float | None = None,
        condition: str = "",
        missing: Literal["zeros", "error"] = "zeros",
        estimate_normals: bool = False,
        viewpoint: Array | None = None,
        intensity: Array | None = None,
        time: Array | None = None,
    ) -> Float[Tensor, "N C"]:
        """One feature row per point, in the order of the points, whatever their density or number.

        Points in one voxel share a feature, made from their mean colour and normal. A cloud with more occupied voxels
        than ``max_voxels`` is cut into tiles; each is encoded together with the points up to ``halo`` metres around it
        and keeps its own. The halo is by default the encoder's ``reach``, and features are then those of the whole
        cloud up to rounding. That costs time where ``reach`` is large: a SparseUNet of the default configuration sees
        7.3 m far, and more voxels may lie around a tile than in it. A smaller halo is faster and needs less memory, and
        features near a cut differ (``benchmarks/encode.py`` says by how much).

        Coordinates alone are enough. What an encoder reads and does not get is zero for it: a middle grey, no direction
        at all. To an encoder that was trained with modality dropout (``data.transforms.DropModality``, as in
        ``recipes.pretrain_indoor`` and ``pretrain_rgbd``) that means "unknown"; its card lists such inputs as
        ``modality_dropout``. Any other, the released weights of PonderV2 among them, has never seen it: ``encode``
        warns of that once.

        An encoder that looks at a fixed box (``box``), or that reads coordinates (``xyz`` among its inputs), knows the
        frame of its training scenes: give it coordinates in that frame, of driving scenes that of the laser, x to the
        right, y ahead, z up. Points outside the box are not seen, and get the feature of the nearest place within.

        Args:
            xyz: [N 3] coordinates in metres, z up; numpy or torch, any real type, any distance from the origin, up to
                130,000 voxels across.
            rgb: [N 3] colours, uint8 in 0..255 or float in 0..1.
            normal: [N 3] unit normals.
            max_voxels: memory budget per tile, halo included; SparseUNet of the default configuration needs 2.8 GB per
                million. No tile is cut further that is smaller than the halo, so a tile exceeds the budget where more
                voxels than that lie within a cube of three halos.
            halo: metres of context around a tile; None for the encoder's ``reach``. If that is None too, the cloud is
                not cut, whatever its size.
            condition: which of ``conditions`` the cloud is like; may be left out where there is at most one.
            missing: ``error`` refuses a cloud that lacks an input which the encoder reads.
            estimate_normals: where the encoder reads normals and there are none, take those of planes through
                neighbours (``geometry.normals``).
            viewpoint: [3] or [N 3], where the points were seen from: estimated normals point there. None: the middle of
                the cloud's box; above it, if the cloud is longer than 50 m.
            intensity: [N] strength of a laser's echo, float in 0..1, uint8 in 0..255 or uint16 in 0..65535.
            time: [N] by how many seconds each point is older than the scene; None: all are of its own instant, 0.

        Returns:
            Features on the CPU, float32. The encoder is left in evaluation mode.

        Raises:
            ValueError: the encoder reads images (``encode_views`` of ``CameraEncoder`` and ``FusionEncoder`` is for
                them); an argument has the wrong shape, or holds values that are not finite; the cloud is too long, or
                no point is in the encoder's box; the budget is not positive, or the halo is negative; the encoder does
                not know the condition; an input is missing, and ``missing`` is ``error``, or there is no other.
        """
        if self.reads_images:
            raise ValueError(
                f"encode: a {type(self).__name__} reads images, and a cloud has none: use encode_views where it has "
                "it, or call it with a Batch that has images"
            )
        if max_voxels < 1 or (halo is not None and not halo >= 0):
            raise ValueError(f"encode: max_voxels must be positive and halo at least 0, not {max_voxels} and {halo}")
        if halo is None:
            halo = math.inf if self.reach is None else self.reach
        condition = self._condition(condition)
        estimates = estimate_normals and normal is None and "normal" in self.config.inputs
        there = {"rgb": rgb is not None, "normal": normal is not None or estimates, "intensity": intensity is not None}
        self._miss(there, missing)
        self.eval()
        device = next(self.parameters()).device
        size, inputs = self.config.grid_size, self.config.inputs
        cloud = as_cloud(xyz, rgb, normal, intensity, time)
        if estimates:
            cloud = replace(cloud, normal=normals_of_cloud(cloud.xyz, size, viewpoint))
        return encode_cloud(self, device, size, inputs, self.out_channels, cloud, max_voxels, halo, condition, self.box)

    def _condition(self, name: str) -> str:
        known = self.conditions
        if not known:
            if name:
                raise ValueError(f"encode: condition {name!r}: this encoder tells no conditions apart; leave it out")
            return ""
        if not name and len(known) == 1:
            return known[0]
        if name not in known:
            what = f"{name!r} is unknown" if name else "is missing"
            raise ValueError(f"encode: condition {what}; this encoder knows {', '.join(known)}")
        return name

    def _miss(self, given: dict[str, bool], missing: str = "zeros", caller: str = "encode") -> None:
        """Deal with inputs that the encoder reads and does not get."""
        if missing not in ("zeros", "error"):
            raise ValueError(f"encode: missing must be zeros or error, not {missing!r}")
        lacking = [name for name in self.config.inputs if not given.get(name, True)]
        if not lacking:
            return
        estimated = {"normal": "pass normal, or have them estimated (estimate_normals)"}
        ways = estimated if caller == "encode" else {}
        cure = "; ".join(ways.get(name, f"pass {name}") for name in lacking)
        if missing == "error":
            raise ValueError(f"encode: this encoder reads {' and '.join(lacking)}, which the cloud lacks: {cure}")
        learnt = self.card.get("modality_dropout")
        new = [n for n in lacking if n not in self._told and not (isinstance(learnt, list) and n in learnt)]
        if new and len(lacking) < len(self.config.inputs):  # else ``encode_cloud`` refuses
            self._told.update(new)
            warnings.warn(
                f"{caller}: {' and '.join(new)} missing, the encoder gets zeros. Its file does not say that it was "
                f"trained for that (card entry modality_dropout), so its features may be worth less: {cure}",
                stacklevel=4,
            )
