from dataclasses import replace

from ponder3d.data.joint import JointConfig, PartConfig
from ponder3d.data.synthetic.rooms import RoomsConfig

ROOMS = RoomsConfig(num_rooms=3, num_test_rooms=2, num_views=2, num_fused_views=1, image_size=(24, 32), max_points=500)


def example() -> JointConfig:
    return JointConfig(
        (PartConfig("all", ROOMS), PartConfig("grouped", replace(ROOMS, seed=1, num_rooms=2, classes="grouped")))
    )
