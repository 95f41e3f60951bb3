"""Nearest neighbours of points near a room's surfaces and far from them, beside comparing with every point.

    python benchmarks/neighbors.py [--quick] [--save]

Near queries lie on the surfaces; far ones lie a metre or more above the cloud, as a measured surface may from one that
has not been learnt yet (``metrics.surface``). Comparing with all is queries x points distances, of differences as
``torch.cdist`` takes them, in pieces of 4 M pairs. Milliseconds, medians over rounds, one thread.
"""

import torch
from clouds import room
from measure import alternate, machine, milliseconds, parser, ratio, saved, table, timed
from torch import Tensor

from ponder3d.geometry.neighbors import knn

PAIRS = 1 << 22


def compare_all(query: Tensor, points: Tensor, k: int) -> Tensor:
    parts = query.split(max(1, PAIRS // len(points)))
    gaps = (torch.cdist(part, points, compute_mode="donot_use_mm_for_euclid_dist") for part in parts)
    return torch.cat([gap.topk(k, largest=False).values for gap in gaps])


def search(query: Tensor, points: Tensor, k: int) -> Tensor:
    one_scene = torch.zeros(max(len(query), len(points)), dtype=torch.int64)
    return knn(query, one_scene[: len(query)], points, one_scene[: len(points)], k)[1]


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--quick", action="store_true", help="fewer points")
    args = made.parse_args()
    torch.set_num_threads(1)
    cloud = room(0.04 if args.quick else 0.02)
    points = cloud[torch.randperm(len(cloud), generator=torch.Generator().manual_seed(0))]
    asked = points[: 1000 if args.quick else 10_000]
    above = torch.tensor([0.0, 0.0, float(points[:, 2].max() - asked[:, 2].min()) + 1])
    rows = []
    with saved(args.save):
        print(machine(1))
        for k in (1, 8):
            for where, query in (("near", asked), ("far", asked + above)):
                torch.testing.assert_close(search(query, points, k), compare_all(query, points, k), atol=1e-5, rtol=0)
                seconds = alternate(
                    {
                        "knn": timed(lambda query=query, k=k: search(query, points, k)),
                        "all": timed(lambda query=query, k=k: compare_all(query, points, k)),
                    },
                    3,
                )
                times = [f"{milliseconds(seconds[name]):.0f}" for name in ("knn", "all")]
                rows.append((where, k, len(query), len(points), *times, ratio(seconds["all"], seconds["knn"])))
        table(("queries", "k", "number", "points", "knn, ms", "all, ms", "all / knn"), rows)


if __name__ == "__main__":
    main()
