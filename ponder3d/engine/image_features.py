"""Feature maps of all images of a dataset, from any 2D model: ``ponder3d features``.

The model is a function of the user's own that returns a ``torch.nn.Module``; see ``FeatureOptions``. For timm it is

    import timm

    def resnet():
        return timm.create_model("resnet50", pretrained=True, features_only=True, out_indices=(3,))

with ``--backbone mine:resnet --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225``; and for a transformer's tokens

    class Tokens(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = timm.create_model("vit_small_patch14_dinov2", pretrained=True, img_size=(224, 308))

        def forward(self, images):
            return self.model.forward_features(images)  # [B 1 + 16 * 22 C]

with ``--size 224 308 --grid 16 22``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ponder3d.config import Config
from ponder3d.data.dataset import DataError, DatasetConfig, scene_name
from ponder3d.data.image_features import (
    RECORD,
    MapsRecord,
    all_views,
    map_path,
    map_shape,
    read_map,
    read_record,
    write_map,
    write_record,
)
from ponder3d.encoders.files import weights_digest
from ponder3d.files import sweep
from ponder3d.types import Views

Report = Callable[[int, int], None]
"""Told (images done, images in all)."""


@dataclass(frozen=True)
class FeatureOptions(Config):
    """How images go through a model, and what is kept of what comes out."""

    channels: int = 32
    """Channels of the maps: the first principal components of the model's features, divided by one number so that the
    mean square of all values is 1. 0 keeps the features as they are."""
    size: tuple[int, ...] = ()
    """Height and width that images are brought to for the model, whatever their aspect; empty: as they are."""
    mean: tuple[float, ...] = ()
    """Mean of red, green and blue in [0, 1] that the model wants subtracted; empty: 0."""
    std: tuple[float, ...] = ()
    """What it wants them divided by then; empty: 1."""
    grid: tuple[int, ...] = ()
    """For a model that returns tokens [B n C]: height and width of their grid. Tokens before those of the grid (class,
    registers) are left out."""
    fit_images: int = 64
    """Images, evenly spread over the dataset, that the principal components are fitted to."""
    batch: int = 8
    """Images that go through the model at a time."""

    def __post_init__(self):
        for name, fits, allowed in (
            ("channels", self.channels >= 0, "at least 0"),
            ("size", not self.size or (len(self.size) == 2 and min(self.size) > 0), "height and width"),
            ("mean", len(self.mean) in (0, 3), "three numbers"),
            ("std", len(self.std) in (0, 3) and min(self.std, default=1) > 0, "three positive numbers"),
            ("grid", not self.grid or (len(self.grid) == 2 and min(self.grid) > 0), "height and width"),
            ("fit_images", self.fit_images >= 1, "at least 1"),
            ("batch", self.batch >= 1, "at least 1"),
        ):
            if not fits:
                raise ValueError(f"FeatureOptions.{name} must be {allowed}, it is {getattr(self, name)}")


@dataclass(frozen=True)
class MapsEstimate:
    """What there is to make."""

    images: int
    """Of the dataset."""
    missing: int
    """Without a whole map yet."""
    shape: tuple[int, int, int]
    """Height, width and channels of the first map; others have about as many cells."""
    bytes: int
    """Of the maps that are missing."""


class MakingMaps:
    """Maps of the images of one dataset in one directory. What is there and whole stays, whenever one stops.

    Several datasets may share a directory, if their scenes have different names, which is looked at with the first
    view that has a map; the principal components are those of the first.

    Args:
        data: the images are those that draws of its scenes may show, as it gives them.
        backbone: takes [B 3 h w]; returns maps [B C h w], tokens [B n C], or a list whose last entry is one of these.
        model: its name, for the record.
        out: directory of the maps.
        options: see there.
        device: where the backbone works.

    Raises:
        ValueError: the directory holds maps of another model or of other options, or maps without a record.
        DataError: the data cannot be read, or their images cannot be told apart by name.
    """

    def __init__(
        self,
        data: DatasetConfig,
        backbone: nn.Module,
        model: str,
        out: Path | str,
        options: FeatureOptions | None = None,
        device: torch.device | str = "cpu",
    ):
        self.out, self.options, self.device = Path(out), options or FeatureOptions(), torch.device(device)
        self.dataset = data.all_images().build()
        self.backbone = backbone.to(self.device).eval()
        self.model, self.weights = model, weights_digest(backbone.state_dict())
        self.views = list(all_views(self.dataset))
        self.record = read_record(self.out)
        if self.record is None and next(self.out.glob("*/*.npy"), None) is not None:
            raise ValueError(f"{self.out} holds maps and no {RECORD} that says of what; choose another directory")
        if self.record is not None:
            self._check_same(self.record)

    def _check_same(self, record: MapsRecord) -> None:
        o = self.options
        asked = {"model": self.model, "weights": self.weights, "reduced": o.channels > 0}
        asked |= {name: getattr(o, name) for name in ("size", "mean", "std", "grid")}
        asked |= {"channels": o.channels} if o.channels else {}
        found = asdict(record)
        for name, value in asked.items():
            if found[name] != value:
                was = "others" if name == "weights" else repr(found[name])
                raise ValueError(
                    f"{self.out} holds maps of another kind: {name} is {was} there; choose another directory"
                )

    def estimate(self) -> MapsEstimate:
        """What there is to make; the first image goes through the model.

        Raises:
            ValueError: the model gives something that is no map.
        """
        missing = len(self._missing())
        shape = (0, 0, 0)
        for _, features in self._features([self.views[0]]):
            height, width, channels = features.shape
            shape = (height, width, self.options.channels or channels)
        return MapsEstimate(len(self.views), missing, shape, missing * (2 * shape[0] * shape[1] * shape[2] + 128))

    def run(self, report: Report | None = None) -> int:
        """Make what is missing.

        Args:
            report: told about progress.

        Returns:
            How many maps were made.

        Raises:
            ValueError: the model gives something that is no map, is not finite, or has fewer channels than are asked;
                or the maps that are there are of other images.
            DataError: a scene cannot be read, or a feature does not fit half precision.
            OSError: storage failed.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        record = self.record or self._fitted()
        self.record = record
        self._check_first()
        write_record(self.out, record)
        missing = self._missing()
        for folder in {map_path(self.out, *view).parent for view in missing}:
            sweep(folder)
        done = len(self.views) - len(missing)
        made: set[tuple[str, str]] = set()
        reduction = _Reduction(record)
        for view, features in self._features(missing):
            write_map(map_path(self.out, *view), reduction(features))
            made.add(view)
            if report is not None:
                report(done + len(made), len(self.views))
        unreadable = {(scene_name(recording), name) for recording, name in missing if (recording, name) not in made}
        fresh = {(scene_name(recording), name) for recording, name in made}
        self.record = replace(record, unreadable=tuple(sorted((set(record.unreadable) - fresh) | unreadable)))
        write_record(self.out, self.record)
        return len(made)

    def _check_first(self) -> None:
        """Whether the first map that is there is of this dataset's image, and not of another of that name."""
        there = next((view for view in self.views if self._is_whole(map_path(self.out, *view))), None)
        if there is None or self.record is None:
            return
        for view, features in self._features([there]):
            path = map_path(self.out, *view)
            found, made = torch.tensor(read_map(path)).double(), _Reduction(self.record)(features).cpu().double()
            # Half precision and other hardware change thousandths.
            if found.shape != made.shape or float((found - made).norm()) > 0.1 * float(made.norm()) + 1e-3:
                raise ValueError(
                    f"{path} is of another image than {view[1]} of {view[0]} in this dataset, or of one of another "
                    "size; choose another directory"
                )

    def _missing(self) -> list[tuple[str, str]]:
        return [view for view in self.views if not self._is_whole(map_path(self.out, *view))]

    def _is_whole(self, path: Path) -> bool:
        try:
            return self.record is not None and map_shape(path)[2] == self.record.channels
        except DataError:
            return False

    def _fitted(self) -> MapsRecord:
        """The record of new maps; principal components are fitted to some of the images."""
        o = self.options
        record = MapsRecord(self.model, self.weights, o.channels or 1, o.size, o.mean, o.std, o.grid)
        number = min(o.fit_images, len(self.views)) if o.channels else 1
        chosen = [self.views[(2 * i + 1) * len(self.views) // (2 * number)] for i in range(number)]
        # Each image counts for the same number of places, and never more than are needed for a covariance.
        rows = [_spread(features.flatten(0, 1), 1024).cpu() for _, features in self._features(chosen)]
        if not rows:
            raise DataError(f"{self.views[0][0]}: no image can be decoded to make features of")
        if not o.channels:
            return replace(record, channels=rows[0].shape[1])
        origin, axes = principal_axes(torch.cat(rows), o.channels)
        return replace(
            record,
            reduced=True,
            origin=tuple(origin.tolist()),
            axes=tuple(tuple(row) for row in axes.tolist()),
        )

    def _features(self, wanted: Sequence[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], Float[Tensor, "h w C"]]]:
        """The model's features of some views, scene by scene, each view once; those that cannot be decoded are left
        out."""
        left = set(wanted)
        for index in range(len(self.dataset)):
            recording, names = self.dataset.view_names(index)
            if not any((recording, name) in left for name in names):
                continue
            views = self.dataset[index].views
            if views is None:
                continue
            rows = [row for row, name in enumerate(views.names) if (recording, name) in left]
            for part in (rows[i : i + self.options.batch] for i in range(0, len(rows), self.options.batch)):
                for row, features in zip(part, self._through_model(views, part), strict=True):
                    view = (recording, views.names[row])
                    if not bool(torch.isfinite(features).all()):
                        raise ValueError(f"{self.model}: features of {recording}, {view[1]}, are not finite")
                    left.discard(view)
                    yield view, features
            if not left:
                return

    @torch.no_grad()
    def _through_model(self, views: Views, rows: list[int]) -> Float[Tensor, "B h w C"]:
        o = self.options
        images = _as_input(views.rgb[rows].to(self.device), o)
        out = self.backbone(images)
        if isinstance(out, (list, tuple)) and out:
            out = out[-1]
        if not isinstance(out, Tensor) or out.ndim not in (3, 4) or len(out) != len(rows):
            what = f"shape {list(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
            raise ValueError(
                f"{self.model}: gives {what} for {len(rows)} images; wanted are maps [B C h w] or tokens [B n C]"
            )
        if out.ndim == 4:
            return out.permute(0, 2, 3, 1).float()
        cells = o.grid[0] * o.grid[1] if o.grid else 0
        if not 0 < cells <= out.shape[1]:
            raise ValueError(
                f"{self.model}: gives {out.shape[1]} tokens an image; say with --grid what height and width they have"
            )
        return out[:, out.shape[1] - cells :].unflatten(1, o.grid).float()


class _Reduction:
    """What the record says is done to a model's features."""

    def __init__(self, record: MapsRecord):
        self.origin = torch.tensor(record.origin) if record.reduced else None
        self.axes = torch.tensor(record.axes)

    def __call__(self, features: Float[Tensor, "h w C"]) -> Float[Tensor, "h w K"]:
        if self.origin is None:
            return features
        if features.shape[2] != len(self.origin):
            raise ValueError(f"features: the model gives {features.shape[2]} channels, and gave {len(self.origin)}")
        return (features.cpu() - self.origin) @ self.axes


def principal_axes(
    features: Float[Tensor, "N C"], channels: int
) -> tuple[Float[Tensor, " C"], Float[Tensor, "C {channels}"]]:
    """Mean of features and their principal axes, strongest first, divided by one number: ``(features - mean) @ axes``
    has a mean square of 1. The largest entry of each axis is positive.

    Raises:
        ValueError: fewer channels, or fewer places, than are asked for; or all features are the same.
    """
    if channels > min(features.shape[1], len(features) - 1):
        raise ValueError(
            f"features: {channels} channels are asked for, of features with {features.shape[1]} at {len(features)} "
            "places; choose fewer, or --channels 0 to keep them as they are"
        )
    mean = features.mean(0, dtype=torch.float64)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for part in features.split(4096):  # of 65,536 places with 2,048 channels a copy in double precision is 1 GB
        centred = part.double() - mean
        covariance += centred.T @ centred / len(features)
    values, vectors = torch.linalg.eigh(covariance)
    axes, variance = vectors[:, -channels:].flip(1), values[-channels:].clamp(min=0).mean()
    if not float(variance) > 1e-12 * max(float(mean.square().mean()), 1e-12):
        raise ValueError("features: the model gives the same everywhere; there is nothing to learn from it")
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    return mean.float(), (axes / variance.sqrt()).float()


def _as_input(rgb: UInt8[Tensor, "B H W 3"], options: FeatureOptions) -> Float[Tensor, "B 3 h w"]:
    images = rgb.permute(0, 3, 1, 2).float() / 255
    if options.size:
        images = F.interpolate(images, size=options.size, mode="bilinear", align_corners=False, antialias=True)
    if options.mean:
        images = images - images.new_tensor(options.mean).view(1, 3, 1, 1)
    if options.std:
        images = images / images.new_tensor(options.std).view(1, 3, 1, 1)
    return images


def _spread(rows: Tensor, most: int) -> Tensor:
    """At most so many rows, evenly spread."""
    number = min(most, len(rows))
    return rows[torch.arange(number, device=rows.device) * len(rows) // number]
