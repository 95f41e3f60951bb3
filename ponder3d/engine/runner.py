"""The five things the loop wants from Lightning Fabric: launch, set up, backward, reduce, share.

Everything Lightning-shaped ends here; a class with the same methods on plain torch would do as well.
"""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ponder3d.tasks.task import Task
from ponder3d.types import Batch

T = TypeVar("T")

_TIMEOUT = timedelta(seconds=300)
"""How long a rank waits for the others before it gives up; the default half hour hides a dead one for too long."""


_PATIENCE = timedelta(days=1)
"""How long it waits where the first rank has work that takes what it takes."""


def device_type(accelerator: str) -> str:
    """The kind of device to compute on; see ``Experiment.accelerator``.

    Raises:
        ValueError: CUDA is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if accelerator == "cuda" and not available:
        raise ValueError("Experiment.accelerator: torch finds no CUDA device here; use auto or cpu")
    return "cuda" if available and accelerator != "cpu" else "cpu"


class Runner:
    """One process of a run."""

    def __init__(self, devices: int, precision: str, accelerator: str = "auto"):
        # Imported here: it brings torch._dynamo, two seconds that commands which do not train need not wait for.
        from lightning_fabric import Fabric  # noqa: PLC0415
        from lightning_fabric.strategies.ddp import DDPStrategy  # noqa: PLC0415

        # Under torchrun the environment says how many processes there are; otherwise Fabric starts them.
        devices = int(os.environ.get("LOCAL_WORLD_SIZE", devices))
        nodes = int(os.environ.get("GROUP_WORLD_SIZE", 1))
        strategy = DDPStrategy(timeout=_TIMEOUT) if devices * nodes > 1 else "auto"
        self._patient: Any = None
        self._fabric = Fabric(
            accelerator=device_type(accelerator),
            devices=devices,
            num_nodes=nodes,
            strategy=strategy,
            precision=precision,  # type: ignore[arg-type]
            plugins=_environment(devices),
        )
        self._fabric.launch()

    @property
    def rank(self) -> int:
        """Number of this process among all."""
        return self._fabric.global_rank

    @property
    def world(self) -> int:
        """Number of processes."""
        return self._fabric.world_size

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self._fabric.device

    def setup(self, task: Task, optimizer: torch.optim.Optimizer) -> tuple["TrainStep", torch.optim.Optimizer]:
        """The task, moved to its device and wrapped for this run's ranks and precision, and its optimiser."""
        module, wrapped = self._fabric.setup(_LossModule(task), optimizer)
        return TrainStep(self._fabric, module), wrapped

    def any(self, *flags: bool | Tensor) -> Tensor:
        """For each flag, whether it is set on any rank, on the device; nothing waits for it.

        Every rank gets the same answer, in one reduction.
        """
        # A fill, where a copy of a Python number would make the host wait.
        local = [
            flag.to(torch.float32) if isinstance(flag, Tensor) else torch.full((), float(flag), device=self.device)
            for flag in flags
        ]
        total = torch.stack(local)
        if self.world > 1:
            torch.distributed.all_reduce(total)  # not Fabric's, which has the host wait at a barrier first
        return total > 0

    def reading(self, values: Tensor) -> Callable[[], list[Any]]:
        """Begin to copy a tensor to the host; the function that is returned waits for it and gives its elements."""
        if self.device.type != "cuda":
            return values.tolist
        copied, done = values.to("cpu", non_blocking=True), torch.cuda.Event()
        done.record()

        def wait() -> list[Any]:
            done.synchronize()
            return copied.tolist()

        return wait

    def sum(self, value: Tensor) -> Tensor:
        """Sum of a tensor over the ranks."""
        if self.world == 1:
            return value
        total = self._fabric.all_reduce(value.to(self.device), reduce_op="sum")
        assert isinstance(total, Tensor)
        return total.to(value.device)

    def share_buffers(self, module: nn.Module) -> None:
        """Give every rank the buffers (running statistics) of the first; each has seen other scenes."""
        if self.world > 1:
            buffers = list(module.buffers())
            first = self._fabric.broadcast([buffer.cpu() for buffer in buffers])
            for own, value in zip(buffers, first, strict=True):
                own.copy_(value)

    def gather(self, value: T) -> list[T]:
        """The value of every rank, in their order; anything that can be pickled."""
        values = [value] * self.world
        if self.world > 1:
            torch.distributed.all_gather_object(values, value)
        return values

    def first(self, call: Callable[[], T], other: Exception, patient: bool = False) -> T:
        """What a function gives on the first rank, on every rank. The others wait, and stop with it if it cannot.

        Args:
            call: is called on the first rank; gives something that can be pickled.
            other: raised on the other ranks if ``call`` raises; on the first that is what ``call`` raises.
            patient: the others wait for hours if need be, else for minutes.
        """
        # Made by all ranks at once, before the first is busy.
        if patient and self.world > 1 and self._patient is None:
            self._patient = torch.distributed.new_group(timeout=_PATIENCE, backend="gloo")
        results: list[T] = []
        problem = None
        if self.rank == 0:
            try:
                results.append(call())
            except Exception as error:
                problem = error
        if patient and self.world > 1:
            torch.distributed.barrier(self._patient)
        failed = self.any(problem is not None)
        if problem is not None:
            raise problem
        if bool(failed):
            raise other
        return self.gather(results)[0][0]


def _environment(devices: int) -> Any:
    """Who starts the processes, where Fabric would take it for SLURM as soon as there is an allocation, whoever started
    this one, and then run with one process, or not at all.

    Raises:
        ValueError: srun has started another number of processes than there are devices, or otherwise than Fabric wants.
    """
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment  # noqa: PLC0415
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment  # noqa: PLC0415

    if "LOCAL_WORLD_SIZE" in os.environ or "SLURM_NTASKS" not in os.environ:
        return None
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    if tasks == 1:
        return LightningEnvironment()
    if tasks == devices:
        try:
            return SLURMEnvironment()
        except RuntimeError as error:
            raise ValueError(f"srun: {error}") from error
    raise ValueError(
        f"Experiment.devices is {devices}, and srun has started {tasks} processes: give srun one task, or one for each "
        "device; for several nodes start torchrun on each"
    )


class TrainStep:
    """The loss of a batch and its gradient, on this run's ranks and in its precision."""

    def __init__(self, fabric: Any, module: Any):
        self._fabric, self._module = fabric, module

    def losses(self, batch: Batch, step: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Weighted terms, and monitors."""
        return self._module(_Opaque(batch), step)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of the loss."""
        self._fabric.backward(loss)

    def without_sync(self, really: bool) -> AbstractContextManager[Any]:
        """Within this context gradients stay on their rank, for all but the last accumulation pass."""
        return self._fabric.no_backward_sync(self._module, enabled=really)


class _Opaque:
    """Carries a batch past Fabric, which would otherwise walk into it and round coordinates to the run's precision."""

    def __init__(self, batch: Batch):
        self.batch = batch


class _LossModule(nn.Module):
    """The task's losses as the ``forward`` that data-parallel wrappers hook into."""

    def __init__(self, task: Task):
        super().__init__()
        self.task = task

    def forward(self, carried: _Opaque, step: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        out = self.task.losses(carried.batch, step)
        return out.terms, out.monitors
