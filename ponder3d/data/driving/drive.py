"""What a recording of a drive has to tell, whatever its layout or whether it is generated.

A ``Drive`` reads; ``dataset.DrivingDataset`` makes scenes of what it reads, the same way for all layouts. Poses map a
sensor to one world frame of the drive, float64, as coordinates of maps are large; scenes are in the frame of the key
frame's laser (x right, y forward, z up).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ponder3d.types import Boxes


@dataclass(frozen=True)
class Sweep:
    """One revolution of the laser, in the laser's own frame at ``seconds`` (the vehicle's motion is taken out)."""

    xyz: Float[Tensor, "N 3"]
    """Metres, x right, y forward, z up."""
    intensity: Float[Tensor, " N"]
    """In [0, 1]."""
    world_from_sensor: Float[Tensor, "4 4"]
    """Float64."""
    seconds: float
    """When it was measured, on the drive's clock."""
    source: str
    """Its file, for messages."""
    labels: Int[Tensor, " N"] | None = None
    """Rows of the dataset's classes, -1 for none; None: not annotated (sweeps between key frames are not)."""


@dataclass(frozen=True)
class Shot:
    """One image."""

    rgb: UInt8[Tensor, "H W 3"]
    intrinsics: Float[Tensor, "3 3"]
    """Pixel centres at integer coordinates."""
    world_from_cam: Float[Tensor, "4 4"]
    """Float64; OpenCV axes, at the instant of the exposure."""
    name: str
    """Unique within the drive, and the same every time (its file's name, say)."""


class Drive(ABC):
    """A recording with key frames ``0 .. len(self) - 1``, in the order of time. Opening it reads no point and no pixel.

    Whatever a file holds, methods raise ``DataError`` that names the file, the field and what to do, and nothing else.
    """

    name: str
    """Unique within its dataset."""
    cameras: tuple[str, ...]
    """Names of its cameras, front first, then clockwise."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of key frames."""

    @abstractmethod
    def seconds(self, frame: int) -> float:
        """When a key frame was, on the drive's clock."""

    @abstractmethod
    def sweep(self, frame: int) -> Sweep:
        """The laser at a key frame."""

    @abstractmethod
    def earlier(self, frame: int, number: int) -> list[Sweep]:
        """Up to ``number`` sweeps before a key frame, the latest first; fewer where the recording has no more."""

    @abstractmethod
    def shots(self, frame: int, cameras: Sequence[str]) -> list[Shot]:
        """The images of a key frame, one of each of these cameras, in this order."""

    def shot_names(self, frame: int, cameras: Sequence[str]) -> tuple[str, ...]:
        """``Shot.name`` of these images, which by default are read for it; layouts know them without."""
        return tuple(shot.name for shot in self.shots(frame, cameras))

    def frame_name(self, frame: int) -> str:
        """What a key frame's scene is called, unique within the dataset."""
        return f"{self.name}-{frame:04d}"

    @abstractmethod
    def boxes(self, frame: int) -> Boxes | None:
        """Annotated boxes of a key frame, in the frame of its laser, with velocities (NaN where unknown); None if the
        recording has none."""
