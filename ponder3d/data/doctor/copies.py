"""Images and scenes that are there more than once."""

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np

from ponder3d.data.doctor.findings import Finding
from ponder3d.data.doctor.sketch import Sketch
from ponder3d.data.raw.dataset import Problem

_STILL = 3
"""Frames of a scene with the pose of another that are named one by one; more are a camera that stands still."""
_SHARE = 0.5
"""Scenes that have so many images in common are copies."""


@dataclass(frozen=True)
class Seen:
    """Where an image was seen."""

    scene: str
    frame: str
    pose: bytes
    place: np.ndarray
    """[3] position of the camera."""
    step: float
    """Metres to the nearer of the frames before and after."""


class Copies:
    """Collects images and clouds scene by scene."""

    def __init__(self):
        self._images: dict[tuple[bytes, bytes, str], list[Seen]] = {}
        self._clouds: dict[bytes, list[str]] = {}
        self._frames: dict[str, int] = {}
        self._same_pose: list[tuple[str, str, str]] = []

    def add(self, scene: str, views: Sequence[Sketch], cloud_key: bytes) -> None:
        """Take note of a scene's frames, and of its cloud where the key is not empty."""
        self._frames[scene] = len(views)
        if cloud_key:
            self._clouds.setdefault(cloud_key, []).append(scene)
        poses: dict[bytes, Sketch] = {}
        at = np.array([v.world_from_cam[:3, 3] for v in views]).reshape(-1, 3)
        for i, view in enumerate(views):
            if view.is_blank:  # such images are alike, and are found otherwise
                continue
            step = min((float(np.linalg.norm(at[i] - at[j])) for j in (i - 1, i + 1) if 0 <= j < len(at)), default=0.0)
            seen = Seen(scene, view.name, view.world_from_cam.tobytes(), at[i], step)
            only_here = scene if view.is_painted else ""
            self._images.setdefault((view.image_key, view.depth_key, only_here), []).append(seen)
            other = poses.setdefault(view.world_from_cam.tobytes() + view.full_intrinsics.tobytes(), view)
            if other is not view and _differ(other, view):
                self._same_pose.append((scene, view.name, other.name))

    def findings(self, suspects: Set[tuple[str, str]]) -> list[Finding]:
        """One finding for each frame that repeats another, and for each scene that repeats one before.

        Args:
            suspects: (scene, frame) of frames that do not fit where they are: of two equal images they are the copy.
        """
        found = []
        same_pose: dict[str, list[tuple[str, str]]] = {}
        for scene, frame, other in self._same_pose:
            if not suspects & {(scene, frame), (scene, other)}:
                same_pose.setdefault(scene, []).append((frame, other))
        for scene, pairs in same_pose.items():
            if len(pairs) > _STILL:
                frame, other = pairs[0]
                what = f"{len(pairs)} frames have exactly the pose of another, and another image, such as {frame} that "
                what += f"of {other}: did the camera stand still?"
                found.append(Finding(Problem(scene, "", "duplicate", what), "suspect"))
                continue
            for frame, other in pairs:
                what = f"it has exactly the pose of {other}, and another image"
                found.append(Finding(Problem(scene, frame, "duplicate", what), "suspect"))
        copied = self._copied_scenes()
        for (scene, origin), share in copied.items():
            what = f"{share} also in scene {origin}"
            found.append(Finding(Problem(scene, "", "duplicate", what), "suspect"))
        for group in self._images.values():
            if len(group) < 2:
                continue
            # The original stands in line: the frames before and after it are near.
            fitting = [s for s in group if (s.scene, s.frame) not in suspects]
            origin = min(fitting or group, key=lambda s: s.step)
            for seen in group:
                if seen is origin or (seen.scene, origin.scene) in copied or (origin.scene, seen.scene) in copied:
                    continue
                where = origin.frame if origin.scene == seen.scene else f"{origin.scene}/{origin.frame}"
                apart = float(np.linalg.norm(seen.place - origin.place))
                pose = "the same pose" if seen.pose == origin.pose else f"another pose, {apart:.2g} m away"
                what = f"its images are those of {where}, with {pose}"
                found.append(Finding(Problem(seen.scene, seen.frame, "duplicate", what), "suspect"))
        return found

    def _copied_scenes(self) -> dict[tuple[str, str], str]:
        """Pairs of (copy, original), and what they have in common."""
        copied = {(later, group[0]): "its points are" for group in self._clouds.values() for later in group[1:]}
        common: dict[tuple[str, str], int] = {}
        for group in self._images.values():
            scenes = sorted({seen.scene for seen in group})
            for number, later in enumerate(scenes):
                for first in scenes[:number]:
                    common[later, first] = common.get((later, first), 0) + 1
        for (later, first), num in common.items():
            if num >= max(2, _SHARE * min(self._frames[later], self._frames[first])):
                copied.setdefault((later, first), f"{num} of its {self._frames[later]} images are")
        return copied


def _differ(one: Sketch, two: Sketch) -> bool:
    if one.rgb.shape != two.rgb.shape:
        return True
    return float(np.abs(one.rgb.astype(np.float64) - two.rgb).mean()) > 12
