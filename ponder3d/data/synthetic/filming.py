"""From a furnished room to what a dataset stores: images, the cloud fused from some of them, boxes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int8, Int16, UInt8, UInt16

from ponder3d.data.synthetic.fusion import fuse
from ponder3d.data.synthetic.groups import furnish
from ponder3d.data.synthetic.pieces import Draw, Placed
from ponder3d.data.synthetic.plan import Plan, draw_plan, shell
from ponder3d.data.synthetic.room_classes import ROOMS_LABELS
from ponder3d.data.synthetic.sensor import SensorConfig, colour_image, depth_image
from ponder3d.data.synthetic.shading import Light, Lighting, floor_shade, shade_view, surfaces_of
from ponder3d.data.synthetic.solids import Solid
from ponder3d.data.synthetic.tracing import Hits, Lens, trace


@dataclass(frozen=True)
class PackedRoom:
    """A room in the precision in which it is stored; what is not stored is not returned either."""

    rgb: UInt8[np.ndarray, "V H W 3"]
    depth: UInt16[np.ndarray, "V H W"]
    """Millimetres."""
    labels: Int8[np.ndarray, "V H W"]
    instances: Int16[np.ndarray, "V H W"]
    intrinsics: Float32[np.ndarray, "V 3 3"]
    world_from_cam: Float32[np.ndarray, "V 4 4"]
    xyz: Int16[np.ndarray, "N 3"]
    """Millimetres."""
    point_rgb: UInt8[np.ndarray, "N 3"]
    point_normal: Int8[np.ndarray, "N 3"]
    """Unit vectors times 127."""
    point_labels: Int8[np.ndarray, " N"]
    point_instances: Int16[np.ndarray, " N"]
    boxes: Float32[np.ndarray, "K 7"]
    """Centre, size, yaw."""
    box_labels: Int8[np.ndarray, " K"]


@dataclass(frozen=True)
class Room:
    """A furnished room before it is filmed."""

    plan: Plan
    placed: list[Placed]
    solids: list[Solid]
    labels: Int8[np.ndarray, " S"]
    """Class of each solid."""
    instances: Int16[np.ndarray, " S"]
    """Row of ``placed`` of each solid; -1 for walls, floor and ceiling."""
    lighting: Lighting


def furnished_room(draw: Draw, room_types: tuple[str, ...]) -> Room:
    """A room with everything in it, before it is filmed."""
    kind = draw.pick(room_types)
    plan = draw_plan(draw, kind)
    structure = shell(draw, plan)
    placed = furnish(draw, plan, kind)
    solids, labels, instances = [], [], []
    for name, parts in structure:
        solids += parts
        labels += [ROOMS_LABELS.names.index(name)] * len(parts)
        instances += [-1] * len(parts)
    for row, thing in enumerate(placed):
        parts = thing.solids()
        solids += parts
        labels += [ROOMS_LABELS.names.index(thing.piece.label)] * len(parts)
        instances += [row] * len(parts)
    return Room(
        plan, placed, solids, np.array(labels, np.int8), np.array(instances, np.int16), _light(draw, plan, placed)
    )


def _light(draw: Draw, plan: Plan, placed: list[Placed]) -> Lighting:
    """Ambient light, one light at each hanging or standing lamp, and one at each window by day."""

    def tint(strength: float, warmth: float) -> tuple[float, float, float]:
        return strength * (1 + warmth), strength, strength * (1 - warmth)

    lights = []
    by_day = draw.chance(0.6)
    for thing in placed:
        x, y = thing.x, thing.y
        if thing.piece.label == "lamp" and thing.piece.size[2] > 0.3 and (thing.z > 2 or draw.chance(0.5)):
            z = thing.z + thing.piece.lift - 0.05 if thing.z > 2 else thing.top + 0.05
            lights.append(Light((x, y, z), tint(draw.uniform(0.5, 1.2), draw.uniform(0.0, 0.25))))
        if thing.piece.label == "window" and by_day:
            fx, fy = thing.world(0.3, 0.0)
            facing = (float(fx - x) / 0.3, float(fy - y) / 0.3, 0.0)
            z = thing.z + thing.piece.size[2] / 2
            lights.append(Light((x, y, z), tint(draw.uniform(0.8, 2.0), draw.uniform(-0.15, 0.05)), facing))
    if not lights:
        lights.append(Light((0.0, 0.0, plan.height - 0.3), tint(1.0, 0.1)))
    half_x, half_y = plan.size[0] / 2, plan.size[1] / 2
    standing = [p.corners() for p in placed if p.z == 0 and p.piece.lift < 0.5 and p.piece.label not in ("rug", "door")]
    return Lighting(
        lights=tuple(lights),
        ambient=tint(draw.uniform(0.25, 0.5), draw.uniform(-0.08, 0.08)),
        bounds=((-half_x, -half_y, 0.0), (half_x, half_y, plan.height)),
        floor_shade=floor_shade(standing, (-half_x, -half_y), (half_x, half_y)),
    )


def film(
    room: Room,
    lens: Lens,
    sensor: SensorConfig,
    num_fused: int,
    spacing: float,
    max_points: int,
    look: np.random.Generator,
    noise: np.random.Generator,
) -> PackedRoom:
    """Images of a room, the cloud fused from some of them, and the boxes of what the cloud shows.

    Args:
        room: what is filmed.
        lens: the cameras.
        sensor: their faults.
        num_fused: the cloud comes from the first so many views.
        spacing: the cloud has one point per voxel of this side, in metres.
        max_points: the cloud has at most so many points.
        look: places the patterns on the surfaces.
        noise: source of all noise.
    """
    height, width = lens.size
    rays = lens.rays()
    hits = trace(room.solids, lens, rays)
    rgb, depth, normals = _images(room, lens, rays, hits, sensor, look, noise)
    eyes = lens.world_from_cam[:, :3, 3]
    fused_rays, fused_eyes = rays[:, :num_fused], eyes[:num_fused]
    cloud = fuse(depth[:num_fused].reshape(num_fused, -1), fused_rays, fused_eyes, width, spacing, max_points, noise)
    seen = hits.solid[cloud.view, cloud.pixel]
    order, boxes, box_labels = _boxes(room, room.instances[seen])
    labels = np.where(hits.solid < 0, np.int8(-1), room.labels[hits.solid])
    instances = np.where(hits.solid < 0, np.int16(-1), order[room.instances[hits.solid]])
    shape = (len(eyes), height, width)
    return PackedRoom(
        rgb=rgb.reshape(*shape, 3),
        depth=depth.reshape(shape),
        labels=labels.reshape(shape),
        instances=instances.reshape(shape),
        intrinsics=lens.intrinsics.astype(np.float32),
        world_from_cam=lens.world_from_cam.astype(np.float32),
        xyz=np.rint(cloud.xyz * 1000).astype(np.int16),
        point_rgb=rgb.reshape(len(eyes), -1, 3)[cloud.view, cloud.pixel],
        point_normal=_noisy_normals(normals[:, cloud.view, cloud.pixel], noise),
        point_labels=room.labels[seen],
        point_instances=order[room.instances[seen]],
        boxes=boxes,
        box_labels=box_labels,
    )


def _images(room, lens, rays, hits: Hits, sensor: SensorConfig, look, noise):
    """Colour and depth of every view, and the true normals."""
    surfaces = surfaces_of(room.solids, look)
    num_views, num_pixels = hits.depth.shape
    rgb = np.empty((num_views, *lens.size, 3), np.uint8)
    depth = np.empty((num_views, *lens.size), np.uint16)
    normals = np.empty((3, num_views, num_pixels), np.float32)
    for view in range(num_views):
        ray = rays[:, view]
        nothing = hits.solid[view] < 0
        solid = np.where(nothing, 0, hits.solid[view])
        distance = np.where(nothing, np.float32(0), hits.depth[view])
        eye = lens.world_from_cam[view, :3, 3]
        linear, normals[:, view] = shade_view(surfaces, room.lighting, eye, ray, distance, solid, hits.face[view])
        rgb[view] = colour_image(linear.reshape(3, *lens.size), sensor, noise)
        length = np.sqrt((ray * ray).sum(0))
        facing = (ray * normals[:, view]).sum(0) / length
        depth[view] = depth_image(
            hits.depth[view].reshape(lens.size),
            facing.reshape(lens.size),
            surfaces.dropout[solid].reshape(lens.size),
            sensor,
            noise,
        )
    return rgb, depth, normals


def _noisy_normals(normal, noise):
    """Normals as a scan has them, about 3 degrees off, in 127ths."""
    normal = normal.T + 0.05 * noise.standard_normal(normal.T.shape, dtype=np.float32)
    normal /= np.sqrt((normal * normal).sum(1, keepdims=True))
    return np.rint(normal * 127).astype(np.int8)


def _boxes(room: Room, instances):
    """The new number of every thing, and the boxes of those that the cloud shows; they come first, in the same order.

    The numbers have one more entry, at the end, so that -1 stays -1.
    """
    num_things = len(room.placed)
    shown = np.zeros(num_things, bool)
    shown[instances[instances >= 0]] = True
    order = np.full(num_things + 1, -1, np.int16)
    order[:-1][shown] = np.arange(shown.sum())
    order[:-1][~shown] = np.arange(shown.sum(), num_things)
    rows, labels = [], []
    for thing in (room.placed[i] for i in np.flatnonzero(shown)):
        middle = thing.z + thing.piece.lift + thing.piece.size[2] / 2
        rows.append((thing.x, thing.y, middle, *thing.piece.size, thing.yaw))
        labels.append(ROOMS_LABELS.names.index(thing.piece.label))
    return order, np.array(rows, np.float32).reshape(-1, 7), np.array(labels, np.int8)
