import functools
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

DATA = Path(__file__).parents[1] / "data"


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


@pytest.fixture(scope="session")
def recorded(tmp_path_factory):
    """A tiny recording of drives in each layout that is read; by name."""
    from ponder3d.data.driving.folder_writing import write_drive  # noqa: PLC0415
    from ponder3d.data.synthetic.street_sensors import LaserConfig  # noqa: PLC0415
    from ponder3d.data.synthetic.streets import Street, StreetsConfig  # noqa: PLC0415

    @functools.cache
    def make(name: str) -> str:
        folder = tmp_path_factory.mktemp(name)
        if name == "pandaset":
            runpy.run_path(str(DATA / "pandaset_example.py"))["write_example"](folder)
        elif name == "nuscenes":
            runpy.run_path(str(DATA / "nuscenes_files.py"))["write_nuscenes"](folder)
        else:
            town = StreetsConfig(num_towns=1, frames=3, image_size=(16, 24), laser=LaserConfig(azimuths=60))
            write_drive(Street(town, 0), folder)
        return str(folder)

    return make


@pytest.fixture
def on_small_data(request, prepared, recorded):
    """The experiment of a recipe with the data of its kind that the tests have."""

    def place(experiment, name=""):
        from ponder3d.data.driving.folder import DriveFolderConfig  # noqa: PLC0415
        from ponder3d.data.driving.nuscenes import NuScenesConfig  # noqa: PLC0415
        from ponder3d.data.driving.pandaset import PandaSetConfig  # noqa: PLC0415
        from ponder3d.data.joint import JointConfig  # noqa: PLC0415
        from ponder3d.data.prepared.dataset import PreparedConfig  # noqa: PLC0415

        def small(data, name):
            if isinstance(data, JointConfig):
                return replace(data, parts=tuple(replace(p, data=small(p.data, p.name.lower())) for p in data.parts))
            if isinstance(data, PreparedConfig):
                dataset = next((word for word in ("s3dis", "structured3d") if word in name), "scannet")
                return replace(data, root=prepared(dataset))
            if isinstance(data, NuScenesConfig):
                return replace(data, root=recorded("nuscenes"), version="v1.0-mini", image_size=())
            if isinstance(data, PandaSetConfig):
                return replace(data, root=recorded("pandaset"), image_size=())
            if isinstance(data, DriveFolderConfig):
                return replace(data, root=recorded("folder"), image_size=())
            return replace(data, cache=request.getfixturevalue("shared_cache"))

        return replace(experiment, data=small(experiment.data, name))

    return place
