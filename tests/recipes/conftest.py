from dataclasses import replace
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory) -> str:
    """One cache of small rooms for all smoke runs."""
    return str(tmp_path_factory.mktemp("rooms"))


@pytest.fixture(scope="session")
def prepared_scannet(tmp_path_factory) -> Path:
    """The example of ScanNet, prepared."""
    from ponder3d.data.prepared.prepare import Preparation, Preparing  # noqa: PLC0415
    from ponder3d.data.prepared.scene_file import PrepareOptions  # noqa: PLC0415
    from ponder3d.data.raw.scannet import ScanNetConfig  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("scannet")
    (folder / "raw").mkdir()
    ScanNetConfig.write_example(folder / "raw")
    raw = ScanNetConfig(root=str(folder / "raw"), every=1)
    Preparing(Preparation(raw, PrepareOptions(workers=1)), folder / "prepared").run()
    return folder / "prepared"


@pytest.fixture
def on_small_data(request):
    """An experiment with the data of its kind that the tests have."""

    def place(experiment):
        from ponder3d.data.prepared.dataset import PreparedConfig  # noqa: PLC0415

        if isinstance(experiment.data, PreparedConfig):
            data = replace(experiment.data, root=str(request.getfixturevalue("prepared_scannet")))
        else:
            data = replace(experiment.data, cache=request.getfixturevalue("shared_cache"))
        return replace(experiment, data=data)

    return place
