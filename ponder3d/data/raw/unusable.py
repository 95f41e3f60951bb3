"""An image that cannot be used, on its way to becoming a ``Problem``."""

from collections.abc import Iterator
from contextlib import contextmanager

from ponder3d.data.dataset import DataError


class Unusable(Exception):
    """A frame of a scene that cannot be used; the message names the file and the field."""

    def __init__(self, kind: str, what: str):
        super().__init__(what)
        self.kind = kind
        """As in ``Problem.kind``."""


@contextmanager
def unusable(kind: str) -> Iterator[None]:
    """A ``DataError`` in this context makes the frame ``Unusable``."""
    try:
        yield
    except DataError as error:
        raise Unusable(kind, str(error)) from error
