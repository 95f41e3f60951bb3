"""Draws a street: its roads, then what drives, stands and grows there."""

import numpy as np

from ponder3d.data.synthetic import street_fixtures as fixtures
from ponder3d.data.synthetic import street_vehicles as vehicles
from ponder3d.data.synthetic.pieces import Draw
from ponder3d.data.synthetic.street_ground import FLAT, GRASS, WALK, Crossing, Roads
from ponder3d.data.synthetic.street_people import pedestrian
from ponder3d.data.synthetic.street_site import BACKWARD, FORWARD, LEFT, RIGHT, Ego, Site

LAND = {
    "city": (WALK, WALK, WALK, WALK, FLAT, GRASS),
    "suburb": (GRASS, GRASS, GRASS, GRASS, WALK, FLAT),
    "works": (FLAT, FLAT, FLAT, GRASS, WALK),
    "mixed": (FLAT, WALK, WALK, GRASS, GRASS),
}
"""Kinds of towns, and what the plots beside their main road are drawn from."""
REACH = 85.0
"""How far a street goes on before the first and behind the last place of the drive, metres."""


def draw_street(draw: Draw, seconds: float) -> Site:
    """A street with everything in it, for a drive of so many seconds."""
    speed = draw.uniform(2.0, 10.0)
    roads = draw_roads(draw, speed * seconds)
    lane = roads.island / 2 + roads.lane * (draw.integer(0, roads.lanes - 1) + 0.5)
    ego = Ego(lane, speed, draw.uniform(0.0, 0.15), draw.uniform(0.3, 0.9), draw.uniform(0, 6.28))
    site = Site(draw, roads, ego, seconds)
    _lights(site)
    _works(site)
    _traffic(site)
    _cross_traffic(site)
    _parked(site)
    _people(site)
    _sidewalks(site)
    _island(site)
    _plots(site)
    _surroundings(site)
    return site


def draw_roads(draw: Draw, length: float) -> Roads:
    """The roads and the land beside them, for a drive of so many metres."""
    crossings = []
    if draw.chance(0.85):
        y = draw.uniform(-50, length + 60)
        crossings.append(Crossing(y, draw.pick((3.5, 3.5, 6.5))))
        if draw.chance(0.5):
            crossings.append(Crossing(y + draw.pick((-1, 1)) * draw.uniform(65, 90), 3.5))
    lanes = draw.pick((1, 1, 2))
    land = draw.pick(tuple(LAND.values()))
    verge = draw.uniform(0.8, 2.2) if draw.chance(0.45) else 0.0
    ends, kinds = [-REACH - 20.0], []
    while ends[-1] < length + REACH + 20:
        ends.append(ends[-1] + draw.uniform(10, 26))
        kinds.append([draw.pick(land) for _ in range(2)])
    grey, warm = draw.uniform(0.06, 0.15), draw.uniform(0.95, 1.08)
    light = draw.uniform(0.16, 0.32)
    dry = draw.uniform(0.7, 1.5)
    return Roads(
        bend_size=draw.uniform(1.0, 4.5) if draw.chance(0.5) else 0.0,
        bend_rate=draw.uniform(0.015, 0.025),
        bend_phase=draw.uniform(0, 6.28),
        lanes=lanes,
        lane=draw.uniform(3.1, 3.7),
        island=draw.uniform(1.4, 3.2) if draw.chance(0.35) else 0.0,
        parking=2.3 if draw.chance(0.65) else 0.0,
        walk=verge + draw.uniform(2.0, 3.8),
        verge=verge,
        corner=draw.uniform(3.0, 6.0),
        crossings=tuple(crossings),
        plot_ends=np.array(ends[1:]),
        plot_kinds=np.array(kinds).T,
        plot_depth=draw.uniform(16, 24),
        asphalt=(grey * warm, grey, grey / warm),
        paving=(light * warm, light, light / warm * 0.95),
        grass=(0.1 * dry, 0.17, 0.045),
        paint=draw.pick(((0.75, 0.75, 0.75), (0.72, 0.48, 0.06))),
        worn=draw.uniform(0.0, 0.7),
    )


def _lights(site: Site) -> None:
    """Traffic lights at crossings, behind the crossing on the right."""
    draw, roads = site.draw, site.roads
    for crossing in roads.crossings:
        if draw.chance(0.3):
            continue
        away = crossing.half + 1.0
        edge = roads.half + 0.7
        arm = draw.pick((0.0, roads.half * 0.6))
        site.add(fixtures.traffic_light(draw, arm), edge + 0.2, crossing.y + away + 4.0, BACKWARD)
        site.add(fixtures.traffic_light(draw, arm), -edge - 0.2, crossing.y - away - 4.0, FORWARD)
        for x, heading in ((edge + 4.0, LEFT), (-edge - 4.0, RIGHT)):
            site.add(fixtures.traffic_light(draw, 0.0), x, crossing.y + np.sign(x) * away, heading, bends=False)


def _works(site: Site) -> None:
    """Road works on the lane at the far side, or on the parking lane: barriers, cones, a machine, workers."""
    draw, roads = site.draw, site.roads
    if not draw.chance(0.45):
        return
    side = -1 if not roads.parking or draw.chance(0.5) else 1
    width = roads.parking if side > 0 or roads.lanes == 1 else roads.parking + roads.lane
    width = max(width, 2.3)
    length = draw.uniform(12, 24)
    start = draw.uniform(5, max(6.0, site.length + 15))
    outer, inner = roads.half - 0.2, roads.half - width
    y = start
    while y < start + length:
        site.add(fixtures.barrier(draw), side * (inner + 0.1), y, LEFT, margin=0.05)
        y += draw.uniform(2.1, 2.6)
    for y in (start - 4, start - 2.5, start - 1.2, start + length + 1.5, start + length + 3):
        site.add(fixtures.cone(draw), side * draw.uniform(inner, outer), y, RIGHT)
    middle = side * (inner + outer + 0.6) / 2
    if width > 3:
        site.add(vehicles.construction_vehicle(draw), middle, start + length / 2, draw.pick((FORWARD, BACKWARD)))
    for _ in range(draw.integer(1, 4)):
        site.add(
            pedestrian(draw, False, worker=True),
            side * draw.uniform(inner + 0.8, outer),
            start + draw.uniform(0, length),
            draw.uniform(-3, 3),
        )
    for _ in range(draw.integer(2, 6)):
        place = side * draw.uniform(inner + 0.6, outer), start + draw.uniform(0, length)
        site.add(fixtures.cone(draw), *place, RIGHT)


def _traffic(site: Site) -> None:
    """Vehicles that drive, lane by lane; those on the right drive forwards."""
    draw, roads = site.draw, site.roads
    for side in (1, -1):
        for number in range(roads.lanes):
            middle = side * (roads.island / 2 + roads.lane * (number + 0.5))
            speed = draw.uniform(4.0, 12.0)
            y = -REACH + draw.uniform(0, 20)
            while y < site.length + REACH:
                own = speed * draw.uniform(0.9, 1.1) if draw.chance(0.8) else 0.0
                heading = FORWARD if side > 0 else BACKWARD
                x = middle + draw.uniform(-0.2, 0.2)
                site.add_all(_train(draw, x, y, side), heading, (0.0, side * own), margin=0.25)
                y += draw.uniform(14, 38)
        if not roads.parking:
            edge = side * (roads.half - 0.7)
            for _ in range(draw.integer(0, 2)):
                y, speed = draw.uniform(-40, site.length + 50), draw.uniform(3.0, 6.0)
                heading = FORWARD if side > 0 else BACKWARD
                site.add(vehicles.bicycle(draw, ridden=True), edge, y, heading, (0.0, side * speed))


def _train(draw: Draw, x: float, y: float, side: int):
    """A vehicle of traffic along the main road, with what it pulls: pieces and places."""
    kind = draw.rng.random()
    if kind < 0.66:
        return [(vehicles.car(draw), x, y)]
    if kind < 0.77:
        return [(vehicles.truck(draw), x, y)]
    if kind < 0.85:
        return [(vehicles.bus(draw), x, y)]
    if kind < 0.91:
        cab = vehicles.tractor(draw)
        load = _long_trailer(draw)
        # Its front is behind the cab, above the chassis.
        return [(cab, x, y), (load, x, y - side * (load.size[0] / 2 + 2.55 - cab.size[0] / 2))]
    if kind < 0.95:
        return [(vehicles.motorcycle(draw, ridden=True), x, y)]
    return [(vehicles.bicycle(draw, ridden=True), x + side * 0.8, y)]


def _long_trailer(draw: Draw):
    load = vehicles.trailer(draw)
    while load.size[0] < 8:
        load = vehicles.trailer(draw)
    return load


def _cross_traffic(site: Site) -> None:
    """Vehicles that wait at crossings, and some that drive there."""
    draw, roads = site.draw, site.roads
    for crossing in roads.crossings:
        lanes = 1 if crossing.half < 5 else 2
        wide = crossing.half / lanes
        for side in (1, -1):
            # Those on the right of the main road drive to the left, on the crossing's upper half.
            for number in range(lanes):
                y = crossing.y + side * wide * (number + 0.5)
                x = roads.half + 8.2
                while x < 70:
                    if draw.chance(0.6):
                        piece = vehicles.car(draw) if draw.chance(0.8) else vehicles.truck(draw)
                        place = side * (x + piece.size[0] / 2)
                        site.add(piece, place, y, LEFT if side > 0 else RIGHT, bends=False)
                    x += draw.uniform(7, 22)
                x = roads.half + draw.uniform(6, 30)
                while x < 75:
                    # On the other side, away from the crossing.
                    piece = vehicles.car(draw) if draw.chance(0.85) else vehicles.bus(draw)
                    site.add(piece, -side * x, y, LEFT if side > 0 else RIGHT, (-side * draw.uniform(4, 9), 0.0), False)
                    x += draw.uniform(15, 40)


def _parked(site: Site) -> None:
    """Vehicles in the parking lanes."""
    draw, roads = site.draw, site.roads
    if not roads.parking:
        return
    full = draw.uniform(0.2, 0.8)
    for side in (1, -1):
        y = -REACH
        while y < site.length + REACH:
            if draw.chance(full) and float(roads.beside_crossing(np.array([y]))[0]) > 11:
                x = side * (roads.half - roads.parking / 2 + draw.uniform(-0.12, 0.12))
                heading = (FORWARD if side > 0 else BACKWARD) + draw.uniform(-0.03, 0.03)
                kind = draw.rng.random()
                if kind < 0.84:
                    site.add(vehicles.car(draw), x, y, heading, margin=0.05)
                elif kind < 0.9:
                    site.add(vehicles.truck(draw), x, y, heading, margin=0.02)
                elif kind < 0.94:
                    site.add(vehicles.trailer(draw), x, y, heading, margin=0.02)
                elif kind < 0.98:
                    for shift in range(draw.integer(1, 3)):
                        place = y - 1.5 + 1.3 * shift
                        site.add(vehicles.motorcycle(draw), x, place, LEFT if side > 0 else RIGHT)
                else:
                    site.add(vehicles.construction_vehicle(draw), x, y, heading, margin=0.02)
            y += 6.5


def _people(site: Site) -> None:
    """On sidewalks, on zebra crossings, and in small groups."""
    draw, roads = site.draw, site.roads
    for side in (1, -1):
        for _ in range(draw.integer(3, 12)):
            x = side * (roads.half + draw.uniform(roads.verge + 0.7, roads.walk - 0.4))
            y = draw.uniform(-45, site.length + 55)
            for _ in range(draw.pick((1, 1, 1, 2, 3))):
                way = draw.pick((1, -1))
                if draw.chance(0.65):
                    pace = (0.0, way * draw.uniform(0.8, 1.6))
                    site.add(pedestrian(draw, True), x, y, FORWARD if way > 0 else BACKWARD, pace)
                else:
                    site.add(pedestrian(draw, False), x, y, draw.uniform(-3.1, 3.1))
                x, y = x + draw.uniform(-0.3, 0.3), y + draw.uniform(0.8, 1.1)
    for crossing in roads.crossings:
        for _ in range(draw.integer(1, 6)):
            way, far = draw.pick((1, -1)), draw.pick((1, -1))
            y = crossing.y + far * (crossing.half + draw.uniform(1.4, 3.8))
            pace = way * draw.uniform(0.9, 1.6)
            heading = RIGHT if way > 0 else LEFT
            x = draw.uniform(-roads.half, roads.half)
            site.add(pedestrian(draw, True), x, y, heading, (pace, 0.0))


def _sidewalks(site: Site) -> None:
    """Trees, lamps, signs and the rest along the kerbs."""
    draw, roads = site.draw, site.roads
    trees, lamps = draw.chance(0.75), draw.uniform(22, 34)
    for side in (1, -1):
        inward = LEFT if side > 0 else RIGHT
        kerb = side * (roads.half + 0.55)
        y = -REACH
        while y < site.length + REACH:
            site.add(fixtures.street_lamp(draw), kerb, y, inward, footprint=(0.3, 0.3))
            y += lamps
        if trees and roads.walk > 2.4:
            y = -REACH + draw.uniform(0, 8)
            while y < site.length + REACH:
                if float(roads.beside_crossing(np.array([y]))[0]) > 8:
                    site.add(fixtures.tree(draw, small=True), kerb + side * 0.2, y, 0.0, footprint=(0.6, 0.6))
                y += draw.uniform(7, 13)
        for crossing in roads.crossings:
            for y in (crossing.y - crossing.half - 6, crossing.y + crossing.half + 6):
                site.add(fixtures.sign(draw), kerb, y, BACKWARD if side > 0 else FORWARD)
        heading = BACKWARD if side > 0 else FORWARD
        for make, number, where in (
            (fixtures.sign, 5, kerb),
            (fixtures.bin_or_box, 4, kerb + side * 0.1),
            (fixtures.bench, 2, side * (roads.half + roads.walk - 0.45)),
            (fixtures.shelter, 1, side * (roads.half + roads.walk - 1.0)),
        ):
            for _ in range(draw.integer(0, number)):
                turn = heading if make is fixtures.sign else inward
                site.add(make(draw), where, draw.uniform(-60, site.length + 70), turn)
        for _ in range(draw.integer(0, 4)):
            y = draw.uniform(-50, site.length + 60)
            for number in range(draw.integer(1, 4)):
                make = vehicles.bicycle if draw.chance(0.75) else vehicles.motorcycle
                turn = inward + draw.uniform(-0.2, 0.2)
                site.add(make(draw), side * (roads.half + 1.3), y + 0.85 * number, turn, margin=0.02)
        if draw.chance(0.3):
            start = draw.uniform(-20, site.length + 30)
            for number in range(draw.integer(3, 9)):
                site.add(fixtures.cone(draw), side * (roads.half - 0.25), start + 2.2 * number, RIGHT)


def _island(site: Site) -> None:
    """On the traffic island: hedges, barriers, trees or nothing."""
    draw, roads = site.draw, site.roads
    if not roads.island:
        return
    kind = draw.pick(("hedge", "barrier", "tree", "nothing"))
    y = -REACH
    while y < site.length + REACH:
        step = {"hedge": draw.uniform(5, 9), "barrier": 2.1, "tree": draw.uniform(8, 14), "nothing": 30.0}[kind]
        if float(roads.beside_crossing(np.array([y]))[0]) > 12:
            if kind == "hedge":
                site.add(fixtures.hedge(draw, step - 1.0), 0.0, y, RIGHT)
            elif kind == "barrier":
                site.add(fixtures.barrier(draw), 0.0, y, RIGHT, margin=0.02)
            elif kind == "tree":
                site.add(fixtures.tree(draw, small=True), 0.0, y, RIGHT, footprint=(0.5, 0.5))
        y += step
    for crossing in roads.crossings:
        for far in (-1, 1):
            site.add(fixtures.sign(draw), 0.0, crossing.y + far * (crossing.half + 7.0), far * FORWARD)


def _plots(site: Site) -> None:
    """Buildings, gardens, car parks and parks beside the sidewalks."""
    draw, roads = site.draw, site.roads
    starts = [-REACH - 20.0, *roads.plot_ends[:-1]]
    tall = draw.chance(0.5)
    for row, side in enumerate((-1, 1)):
        inward = LEFT if side > 0 else RIGHT
        for start, end, kind in zip(starts, roads.plot_ends, roads.plot_kinds[row], strict=True):
            low, high = _free(roads, start, end)
            if high - low < 5:
                continue
            near = roads.half + roads.walk
            middle, width = (low + high) / 2, high - low
            if kind == WALK:
                depth = min(draw.uniform(9, 16), roads.plot_depth - 0.5)
                house = fixtures.building(draw, width - draw.pick((0.6, 0.6, 2.5)), depth, tall or draw.chance(0.4))
                site.add(house, side * (near + 0.4 + house.size[0] / 2), middle, inward, margin=0.0)
            elif kind == FLAT:
                _forecourt(site, side, near, low, high)
            else:
                _garden(site, side, near, low, high)


def _forecourt(site: Site, side: int, near: float, low: float, high: float) -> None:
    """Paved land: a building set back, or only what is parked."""
    draw, roads = site.draw, site.roads
    inward = LEFT if side > 0 else RIGHT
    room = roads.plot_depth
    if draw.chance(0.7):
        house = fixtures.building(draw, (high - low) * 0.9, draw.uniform(8, 10), draw.chance(0.3))
        if site.add(house, side * (near + room + 2 + house.size[0] / 2), (low + high) / 2, inward):
            room -= 2
    if draw.chance(0.5):
        fence = fixtures.fence(draw, high - low - 5)
        site.add(fence, side * (near + 0.3), (low + high) / 2, inward)
    for x in (near + 4.0, near + 11.0):
        y = low + 1.8
        while y < high - 1.5 and x < near + room - 2:
            if draw.chance(0.55):
                piece = draw.pick((vehicles.car, vehicles.car, vehicles.car, vehicles.truck, vehicles.trailer))(draw)
                if piece.size[0] < 7:
                    site.add(piece, side * x, y, draw.pick((LEFT, RIGHT)) + draw.uniform(-0.04, 0.04), margin=0.1)
            y += 2.7
    if draw.chance(0.3):
        site.add(fixtures.shed(draw), side * (near + room - 3), draw.uniform(low + 3, high - 3), inward)
    if draw.chance(0.25):
        site.add(vehicles.construction_vehicle(draw), side * (near + 13), (low + high) / 2, inward)


def _garden(site: Site, side: int, near: float, low: float, high: float) -> None:
    """Grass: a house with a hedge or fence in front, or a small park."""
    draw, roads = site.draw, site.roads
    inward = LEFT if side > 0 else RIGHT
    middle, width = (low + high) / 2, high - low
    park = draw.chance(0.35)
    if not park:
        depth = draw.uniform(8, 11)
        house = fixtures.building(draw, width * draw.uniform(0.6, 0.85), depth, False)
        site.add(house, side * (near + draw.uniform(3, 7) + house.size[0] / 2), middle, inward)
    border = draw.rng.random()
    if border < 0.25:
        site.add(fixtures.hedge(draw, width - 1), side * (near + 0.6), middle, inward)
    elif border < 0.5:
        site.add(fixtures.fence(draw, width - 1), side * (near + 0.4), middle, inward)
    for _ in range(draw.integer(3, 8) if park else draw.integer(1, 4)):
        x, y = near + draw.uniform(2.0, roads.plot_depth), draw.uniform(low + 1, high - 1)
        site.add(fixtures.tree(draw), side * x, y, draw.uniform(-3, 3), footprint=(1.6, 1.6))
    for _ in range(draw.integer(1, 5)):
        x, y = near + draw.uniform(1.5, 12.0), draw.uniform(low + 1, high - 1)
        site.add(fixtures.bush(draw), side * x, y, draw.uniform(-3, 3))
    if park:
        site.add(fixtures.mound(draw, draw.uniform(6, 12)), side * (near + 9), middle, 0.0)
        for _ in range(draw.integer(0, 2)):
            y = draw.uniform(low + 1, high - 1)
            site.add(pedestrian(draw, draw.chance(0.5)), side * (near + draw.uniform(1, 5)), y, draw.uniform(-3, 3))


def _surroundings(site: Site) -> None:
    """Along crossing roads, behind the plots, and at both ends of the street."""
    draw, roads = site.draw, site.roads
    beyond = roads.half + roads.walk + roads.plot_depth
    for crossing in roads.crossings:
        for side in (1, -1):
            for far, heading in ((1, BACKWARD), (-1, FORWARD)):
                x = roads.half + roads.walk + draw.uniform(1, 6)
                while x < 90:
                    width, depth = draw.uniform(9, 20), draw.uniform(8, 12)
                    off = crossing.half + roads.walk + 0.5
                    if draw.chance(0.75):
                        house = fixtures.building(draw, width, depth, draw.chance(0.5))
                        place = side * (x + width / 2), crossing.y + far * (off + house.size[0] / 2)
                        site.add(house, *place, heading, bends=False)
                    else:
                        place = side * (x + width / 2), crossing.y + far * (off + 3)
                        site.add(fixtures.tree(draw), *place, 0.0, bends=False, footprint=(2.0, 2.0))
                    x += width + draw.uniform(0.5, 5)
                x = beyond
                while x < 60:
                    place = side * x, crossing.y + far * (crossing.half + 0.7)
                    make = draw.pick((fixtures.street_lamp, fixtures.sign))
                    site.add(make(draw), *place, heading, bends=False, footprint=(0.3, 0.3))
                    x += draw.uniform(10, 20)
    for side in (1, -1):
        inward = LEFT if side > 0 else RIGHT
        y = -REACH
        while y < site.length + REACH:
            width = draw.uniform(10, 24)
            low, high = _free(roads, y, y + width)
            if draw.chance(0.6) and high - low > 6:
                house = fixtures.building(draw, high - low - 1, draw.uniform(10, 14), draw.chance(0.5))
                site.add(house, side * (beyond + draw.uniform(14, 22)), (low + high) / 2, inward)
            for _ in range(draw.integer(1, 4)):
                x = beyond + draw.uniform(2, 30)
                site.add(fixtures.tree(draw), side * x, y + draw.uniform(0, width), 0.0, footprint=(2.0, 2.0))
            y += width
        for end in (-REACH - 25, site.length + REACH + 25):
            for _ in range(3):
                width = draw.uniform(10, 30)
                house = fixtures.building(draw, width, 12.0, True)
                place = side * draw.uniform(roads.half + 8, 60), end + draw.uniform(-25, 25)
                site.add(house, *place, inward)


def _free(roads: Roads, low: float, high: float) -> tuple[float, float]:
    """The part of an interval along y that no crossing road or its sidewalk takes; the larger one of two."""
    for crossing in roads.crossings:
        off = crossing.half + roads.walk + 1.5
        start, end = crossing.y - off, crossing.y + off
        if start < high and end > low:
            below, above = (low, min(high, start)), (max(low, end), high)
            low, high = max((below, above), key=lambda part: part[1] - part[0])
    return low, high
