"""Class names and colours."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LabelSet:
    """The classes of a dataset. It lives beside its dataset and nobody else lists class names."""

    names: tuple[str, ...]
    """Class names; a label is an index into this tuple. A negative label means that there is none."""
    palette: tuple[tuple[int, int, int], ...]
    """One RGB colour in 0..255 per class."""

    def __post_init__(self):
        if len(self.names) != len(self.palette):
            raise ValueError(f"LabelSet: {len(self.names)} names but {len(self.palette)} colours")
        if len(set(self.names)) != len(self.names):
            raise ValueError("LabelSet: a class name occurs twice")

    def __len__(self) -> int:
        return len(self.names)
