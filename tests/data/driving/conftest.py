"""Drives whose points and images are known exactly, and the choices that all drives share."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # for ``analytic_drive``, which must not be imported before the hook


@pytest.fixture(scope="session")
def analytic():
    """``AnalyticDrive``: makes drives down a street; keyword arguments are the fields."""
    import analytic_drive  # noqa: PLC0415  (after jaxtyping's hook)

    return analytic_drive.AnalyticDrive


@pytest.fixture(scope="session")
def street_labels():
    """The classes of its points."""
    import analytic_drive  # noqa: PLC0415

    return analytic_drive.LABELS


@pytest.fixture(scope="session")
def choices():
    """A configuration of the shared fields alone."""
    from ponder3d.data.driving.dataset import DrivingConfig  # noqa: PLC0415

    @dataclass(frozen=True)
    class Choices(DrivingConfig):
        def build(self):
            raise NotImplementedError

        def held_out(self):
            return replace(self)

    return Choices
