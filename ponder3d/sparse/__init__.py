"""Floor 1: sparse convolution in plain PyTorch, on CPU and GPU, trained on both. Imports nothing above ``geometry``."""

from ponder3d.sparse.tensor import SparseTensor as SparseTensor
from ponder3d.sparse.tensor import sparse_tensor as sparse_tensor
