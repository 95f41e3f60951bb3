import functools
from dataclasses import replace

import pytest


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory) -> str:
    """One cache of small rooms for all smoke runs."""
    return str(tmp_path_factory.mktemp("rooms"))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """The example of a published dataset, prepared; by name."""
    from ponder3d.data.prepared.prepare import Preparation, Preparing  # noqa: PLC0415
    from ponder3d.data.prepared.scene_file import PrepareOptions  # noqa: PLC0415
    from ponder3d.data.raw.s3dis import S3DISConfig  # noqa: PLC0415
    from ponder3d.data.raw.scannet import ScanNetConfig  # noqa: PLC0415
    from ponder3d.data.raw.structured3d import Structured3DConfig  # noqa: PLC0415

    kinds = {
        "scannet": (ScanNetConfig, {"every": 1}),
        "s3dis": (S3DISConfig, {}),
        "structured3d": (Structured3DConfig, {}),
    }

    @functools.cache
    def make(name: str) -> str:
        kind, options = kinds[name]
        folder = tmp_path_factory.mktemp(name)
        (folder / "raw").mkdir()
        kind.write_example(folder / "raw")
        frames = {"frames_root": str(folder / "raw" / "frames")} if name == "s3dis" else {}
        raw = kind(root=str(folder / "raw"), **options, **frames)
        Preparing(Preparation(raw, PrepareOptions(workers=1)), folder / "prepared").run()
        return str(folder / "prepared")

    return make


@pytest.fixture
def on_small_data(request, prepared):
    """The experiment of a recipe with the data of its kind that the tests have."""

    def place(experiment, name=""):
        from ponder3d.data.joint import JointConfig  # noqa: PLC0415
        from ponder3d.data.prepared.dataset import PreparedConfig  # noqa: PLC0415

        def small(data, name):
            if isinstance(data, JointConfig):
                return replace(data, parts=tuple(replace(p, data=small(p.data, p.name.lower())) for p in data.parts))
            if isinstance(data, PreparedConfig):
                dataset = next((word for word in ("s3dis", "structured3d") if word in name), "scannet")
                return replace(data, root=prepared(dataset))
            return replace(data, cache=request.getfixturevalue("shared_cache"))

        return replace(experiment, data=small(experiment.data, name))

    return place
