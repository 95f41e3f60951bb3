"""Floor 0: the values that flow through the library. Frozen dataclasses, no algorithms.

Conventions for all of them: metres, radians, z up, right-handed world; OpenCV cameras; scenes of a batch are packed one
after another and told apart by ``counts`` or a ``scene`` index, never padded. See ``docs/conventions.md``.
"""

from ponder3d.types.boxes import Boxes as Boxes
from ponder3d.types.labels import LabelSet as LabelSet
from ponder3d.types.points import Points as Points
from ponder3d.types.rays import Rays as Rays
from ponder3d.types.rays import RayTargets as RayTargets
from ponder3d.types.rays import RenderOutput as RenderOutput
from ponder3d.types.scene import Batch as Batch
from ponder3d.types.scene import Scene as Scene
from ponder3d.types.views import Cameras as Cameras
from ponder3d.types.views import Views as Views
from ponder3d.types.volume import Grid as Grid
from ponder3d.types.volume import Occupied as Occupied
from ponder3d.types.volume import Volume as Volume
