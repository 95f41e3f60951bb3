"""``constraints.txt`` names one version of every direct dependency, within what pyproject.toml allows."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def requirements(lines: list[str]) -> list[Requirement]:
    return [Requirement(line) for line in lines if not re.match(r"\s*(#|$)", line)]


def version_of(requirement: Requirement) -> str | None:
    """The only version that a requirement takes, if it is so strict."""
    exact = re.fullmatch(r"==([^*]+)", str(requirement.specifier))
    return exact.group(1) if exact else None


def test_one_version_of_every_direct_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = requirements(project["dependencies"] + sum(project["optional-dependencies"].values(), []))
    pins = {r.name: version_of(r) for r in requirements((ROOT / "constraints.txt").read_text().splitlines())}
    for requirement in direct:
        version = version_of(requirement) or pins[requirement.name]
        assert version is not None and version in requirement.specifier, requirement
    assert set(pins) <= {requirement.name for requirement in direct} | {"torchvision"}
