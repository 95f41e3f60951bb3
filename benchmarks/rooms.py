"""How fast rooms are generated and loaded, and where the time goes.

    python benchmarks/rooms.py [--quick] [--workers 2] [--rooms 24] [--save]

What the default configuration has to do per room, and the floor for numpy on one core (30 GB/s of level-2 cache for
temporaries, 12 bytes per float32 operation):

    tracing   30 x 160 x 120 = 0.58 M rays; the rectangles of 335 solids cover 4.1 of them each: 2.4 M candidates
              15 operations to turn a ray, 25 for the slabs, 4 look-ups:   2.4 M x 0.5 kB = 1.2 GB        40 ms
    shading   0.58 M pixels x (45 look-ups and steps + 3 lights x 45):     0.58 M x 2.2 kB = 1.3 GB       43 ms
    sensor    2.3 M normal and 0.6 M uniform numbers at 6 ns, 20 steps a pixel                            30 ms
    fusion    0.34 M points: 24 smoothing steps on 0.38 M pixels, one sort of 0.30 M 64-bit keys          25 ms
    layout    35 things of 270 solids and 60 placement tests of 32 poses, interpreter-bound               30 ms
                                                                                                   sum   170 ms
    measured  2 cores of an AMD EPYC with nothing else running: 0.37 s a room on one, 4.9 rooms a second on both

    file      rgb 1.73 + depth 1.15 + labels 0.58 + instances 1.15 + 100 k points x 15 bytes 1.5 =       6.1 MB
"""

import dataclasses
import tempfile
import time
from collections import Counter

import torch
from measure import machine, parser, saved

from ponder3d.data.synthetic import filming, rooms
from ponder3d.data.synthetic.rooms import RoomsConfig, generate, room_path

STAGES = {
    "furnished_room": rooms,
    "walk": rooms,
    "trace": filming,
    "shade_view": filming,
    "colour_image": filming,
    "depth_image": filming,
    "fuse": filming,
}


def time_stages(config: RoomsConfig) -> None:
    """Seconds per stage in this process, by wrapping the functions that the generator calls."""
    spent: Counter[str] = Counter()
    originals = {name: getattr(module, name) for name, module in STAGES.items()}

    def timed(name):
        def call(*args, **kwargs):
            start = time.perf_counter()
            try:
                return originals[name](*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - start

        return call

    rooms.make_room(config, config.first)  # the pattern bank is made once per process
    for name, module in STAGES.items():
        setattr(module, name, timed(name))
    wall, cpu = time.perf_counter(), time.process_time()
    for i in range(config.num_rooms):
        rooms.make_room(config, config.first + i)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    for name, module in STAGES.items():
        setattr(module, name, originals[name])
    spent["the rest"] = wall - sum(spent.values())
    print(f"one process, one thread: {wall / config.num_rooms:.3f} s a room ({cpu / config.num_rooms:.3f} s of CPU)")
    for name, seconds in spent.most_common():
        print(f"  {name:15s} {1000 * seconds / config.num_rooms:7.1f} ms  {seconds / wall:5.1%}")


def time_workers(config: RoomsConfig, workers: int) -> None:
    """Rooms per second from the first finished room on (importing torch in the workers is not the generator's)."""
    stamps = []
    generate(config, workers, progress=lambda done, total: stamps.append(time.perf_counter()))
    start = min(workers, config.num_rooms - 1)
    rate = (config.num_rooms - start) / (stamps[-1] - stamps[start])
    print(f"{workers} processes: {rate:.2f} rooms a second, {1 / rate:.3f} s a room, over {config.num_rooms} rooms")


def time_loading(config: RoomsConfig) -> None:
    dataset, seconds = config.build(), []
    for i in [*range(config.num_rooms)] * 3:
        start = time.perf_counter()
        scene = dataset[i]
        seconds.append(time.perf_counter() - start)
        points = len(scene.xyz)
    seconds.sort()
    size = sum(room_path(config, i).stat().st_size for i in range(config.num_rooms)) / config.num_rooms
    print(f"loading: median {1000 * seconds[len(seconds) // 2]:.1f} ms, fastest {1000 * seconds[0]:.1f} ms")
    print(f"file: {size / 1e6:.2f} MB a room; the last one has {points} points")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--quick", action="store_true", help="6 rooms instead of 24")
    options.add_argument("--rooms", type=int, default=0)
    options.add_argument("--workers", type=int, default=2)
    args = options.parse_args()
    torch.set_num_threads(1)
    number = args.rooms or (6 if args.quick else 24)
    with saved(args.save), tempfile.TemporaryDirectory() as folder:
        print(f"{machine(1)}\n{RoomsConfig()}")
        config = RoomsConfig(num_rooms=number, cache=folder)
        time_workers(config, args.workers)
        time_loading(config)
        time_stages(dataclasses.replace(config, num_rooms=max(3, number // 3), cache=""))


if __name__ == "__main__":
    main()
