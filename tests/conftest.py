"""A stricter world than production: shapes are checked (pyproject), warnings are errors, algorithms deterministic."""

import importlib
import inspect
import os
import pkgutil
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, no matrix product on a GPU is deterministic
torch.use_deterministic_algorithms(True)
torch.backends.cudnn.allow_tf32 = False  # a GPU's convolutions are to be as exact as a CPU's
torch.set_num_threads(int(os.environ.get("PONDER3D_TEST_THREADS", "2")))

TESTS = Path(__file__).parent
REAL_DATA = TESTS.parents[1] / "shared" / "data"


def _members(family: type) -> list[type]:
    """Concrete classes of the package below ``family``, found by importing all of it: there is no list to edit."""
    import ponder3d  # noqa: PLC0415  (not before jaxtyping's hook is in place)

    for module in pkgutil.walk_packages(ponder3d.__path__, "ponder3d."):
        if not module.name.rpartition(".")[2].startswith("triton_"):  # Triton need not be installed
            importlib.import_module(module.name)
    found, below = set(), [family]
    while below:
        cls = below.pop()
        below += cls.__subclasses__()
        if cls.__module__.startswith("ponder3d.") and not inspect.isabstract(cls):
            found.add(cls)
    return sorted(found - {family}, key=lambda cls: (cls.__qualname__, cls.__module__))


def pytest_generate_tests(metafunc):
    """A test that takes ``member`` runs with every member of the ``FAMILY`` that its file names, but ``OUTSIDERS``."""
    if "member" in metafunc.fixturenames:
        outsiders = getattr(metafunc.module, "OUTSIDERS", ())
        found = [cls for cls in _members(metafunc.module.FAMILY) if cls not in outsiders]
        metafunc.parametrize("member", found, ids=lambda cls: cls.__name__)


@pytest.fixture(scope="session")
def members() -> Callable[[type], list[type]]:
    """Concrete classes of the package below a class of it."""
    return _members


@pytest.fixture
def no_compiler(monkeypatch) -> Iterator[None]:
    """A machine without a C compiler; compiled libraries are looked for anew, in the test and after it."""
    from ponder3d.geometry import compiled, compiled_grid, compiled_trilinear  # noqa: PLC0415
    from ponder3d.render import compiled_softplus  # noqa: PLC0415
    from ponder3d.sparse import compiled as compiled_conv  # noqa: PLC0415

    libraries = [module.LIBRARY for module in (compiled_conv, compiled_grid, compiled_trilinear, compiled_softplus)]
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    for library in libraries:
        library.forget()
    yield
    monkeypatch.undo()
    for library in libraries:
        library.forget()


@pytest.fixture
def example(member, request):
    """A small configuration of the kind ``member``: its defaults, or what ``example`` returns in the test file of its
    module (``ponder3d/data/scans.py`` has ``tests/data/test_scans.py``). Its arguments are fixtures.
    """
    *folders, name = member.__module__.split(".")[1:]
    path = TESTS.joinpath(*folders, f"test_{name}.py")
    make = runpy.run_path(str(path)).get("example") if path.is_file() else None
    if make is None:
        return member()
    made = make(**{argument: request.getfixturevalue(argument) for argument in inspect.signature(make).parameters})
    assert type(made) is member
    return made


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def real_data():
    """Folder of a real recording, by name; skips where the recordings are absent."""

    def find(name: str) -> Path:
        if not (REAL_DATA / name).exists():
            pytest.skip(f"no real recordings: {name} is not beside the checkout")
        return REAL_DATA / name

    return find


@pytest.fixture(params=["cpu", "cuda"])
def device(request) -> torch.device:
    """Every device of this machine; the GPU's share of a test is skipped where there is none.

    Values are made on the CPU, what is tested gets them on the device, and the expected result is the CPU's.
    """
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return torch.device(request.param)
