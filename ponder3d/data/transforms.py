"""Augmentation T and grid sampling G (eq. 1), corruption, and ray choice: components that turn a Scene into a Scene.

Every transform is a frozen dataclass: its fields are the choices, calling it does the work. All randomness comes from
the generator it is given. Transforms that move points move cameras, depth, rays, normals and boxes along. Numbers in
the docstrings are those of PonderV2. They live in the modules ``transforms_*`` and have their names here.
"""

from ponder3d.data.transforms_base import Transform as Transform
from ponder3d.data.transforms_base import apply as apply
from ponder3d.data.transforms_base import select_points as select_points
from ponder3d.data.transforms_base import select_views as select_views
from ponder3d.data.transforms_base import whole_bounds as whole_bounds
from ponder3d.data.transforms_colour import AutoContrast as AutoContrast
from ponder3d.data.transforms_colour import DropModality as DropModality
from ponder3d.data.transforms_colour import JitterColour as JitterColour
from ponder3d.data.transforms_colour import LimitLabels as LimitLabels
from ponder3d.data.transforms_colour import ShiftColour as ShiftColour
from ponder3d.data.transforms_colour import VaryColour as VaryColour
from ponder3d.data.transforms_conditions import Only as Only
from ponder3d.data.transforms_conditions import SetCondition as SetCondition
from ponder3d.data.transforms_conditions import steps_of as steps_of
from ponder3d.data.transforms_geometry import QUARTER_TURNS as QUARTER_TURNS
from ponder3d.data.transforms_geometry import Centre as Centre
from ponder3d.data.transforms_geometry import Flip as Flip
from ponder3d.data.transforms_geometry import Jitter as Jitter
from ponder3d.data.transforms_geometry import Rotate as Rotate
from ponder3d.data.transforms_geometry import RotateTo as RotateTo
from ponder3d.data.transforms_geometry import Scale as Scale
from ponder3d.data.transforms_geometry import Shift as Shift
from ponder3d.data.transforms_pairs import TwoViews as TwoViews
from ponder3d.data.transforms_sampling import DropPoints as DropPoints
from ponder3d.data.transforms_sampling import GridSample as GridSample
from ponder3d.data.transforms_sampling import PointRange as PointRange
from ponder3d.data.transforms_sampling import RemoveBlocks as RemoveBlocks
from ponder3d.data.transforms_sampling import Shuffle as Shuffle
from ponder3d.data.transforms_sampling import SphereCrop as SphereCrop
from ponder3d.data.transforms_views import KeepViews as KeepViews
from ponder3d.data.transforms_views import PickRays as PickRays
from ponder3d.data.transforms_views import PointsOnly as PointsOnly
from ponder3d.data.transforms_views import SeeImages as SeeImages
