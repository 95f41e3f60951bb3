"""Files of weights of networks on images: read without running anything, loaded whole or not at all."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ponder3d.encoders.encoder import EncoderFileError
from ponder3d.encoders.released_file import is_torch_file, read_state


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a state_dict that ``torch.save`` wrote, by name.

    Raises:
        OSError: there is no such file, or it cannot be read.
        EncoderFileError: it is damaged, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of weights")
    if is_torch_file(path):
        return read_state(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise EncoderFileError(f"{path}: no intact safetensors file, and none of torch.save ({error})") from error


def load_into(module: nn.Module, weights: Mapping[str, Tensor], name: str, own: tuple[str, ...] = ()) -> None:
    """Load weights into a module; those whose names begin with ``own`` may be missing and stay as they are.

    A trailing axis of length 1 makes no difference: a linear layer is a 1x1 convolution to some.

    Raises:
        EncoderFileError: weights are missing, unknown, or of another shape; nothing is loaded then.
    """
    state = module.state_dict()
    missing = sorted(key for key in state if key not in weights and not key.startswith(own or "\n"))
    extra = sorted(key for key in weights if key not in state)
    for names, what in ((missing, "missing"), (extra, "not in this network")):
        if names:
            raise EncoderFileError(f"{name}: {len(names)} weights are {what} (first: {names[0]}); is the size right?")
    fitting = {}
    for key, value in weights.items():
        wanted, given = list(state[key].shape), list(value.shape)
        if given + [1] * (len(wanted) - len(given)) != wanted and wanted + [1] * (len(given) - len(wanted)) != given:
            raise EncoderFileError(f"{name}: {key} has shape {given}, this network needs {wanted}; is the size right?")
        fitting[key] = value.reshape(wanted)
    module.load_state_dict({**state, **fitting})
