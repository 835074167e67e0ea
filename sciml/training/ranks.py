"""The processes that train together, one a device, through lightning-fabric."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar, cast, final

import torch
import torch.distributed
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision, Precision
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from lightning_fabric.strategies.strategy import Strategy
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from ..errors import InputError

_Told = TypeVar("_Told")
_DTYPES = {"bf16": "bf16-mixed", "float16": "16-mixed"}


class _Autocast(MixedPrecision):
    """Inputs stay as they are, for a float16 has no room for physical units; each operation casts what it is given."""

    def convert_input(self, data: Any) -> Any:
        return data


@final
class Ranks:
    """One process of several, or the only one.

    Small numbers about the course of the training are exchanged on the CPU over gloo, apart from the gradients: that
    waits for no GPU, and shows at once when a process is gone.

    Args:
        device: "cpu", "cuda", or one of several, "cuda:1".
        devices: processes of this machine, one a device.
        nodes: machines.
        strategy: "auto" is "ddp" for more than one process; "fsdp" shards weights, gradients and the optimizer's state
            (FSDP2); or a strategy of lightning-fabric.
        precision: as in a Plan.
        timeout: seconds after which a silent rank counts as lost.

    Raises:
        InputError: a device that is not there, or counts that contradict torchrun's.
    """

    def __init__(
        self,
        device: str | torch.device,
        devices: int = 1,
        nodes: int = 1,
        strategy: str | Strategy = "auto",
        precision: str = "float32",
        timeout: float = 600.0,
    ) -> None:
        wanted = _device(device)
        devices, nodes = _counts(devices, nodes)
        several = devices * nodes > 1
        if several and wanted.index is not None:
            raise InputError(
                f"device {wanted} is a single one, and devices = {devices}, nodes = {nodes}: give its kind"
            )
        plugin: Precision = Precision()
        self.scaler: torch.amp.GradScaler | None = None
        if precision in _DTYPES:
            self.scaler = torch.amp.GradScaler(wanted.type) if precision == "float16" else None
            plugin = _Autocast(_DTYPES[precision], wanted.type, self.scaler)  # type: ignore[arg-type]
        if strategy == "fsdp" and devices * nodes == 1:
            strategy = "auto"
        self.sharded = isinstance(strategy, ModelParallelStrategy) or strategy == "fsdp"
        chosen = _strategy(strategy, devices * nodes, timeout)
        try:
            self.fabric = Fabric(
                accelerator=wanted.type,
                devices=devices if wanted.index is None else [wanted.index],
                num_nodes=nodes,
                strategy=chosen,
                plugins=[plugin],
            )
        except (ValueError, RuntimeError) as error:
            raise InputError(f"device {wanted} cannot be used: {error}") from error
        self.fabric.launch()
        self.rank, self.count, self.device = self.fabric.global_rank, self.fabric.world_size, self.fabric.device
        # One process in the network's own dtype needs none of fabric's wrappers, nor their time.
        self._alone = self.count == 1 and precision == "float32" and not isinstance(strategy, Strategy)
        self._control = None
        if self.count > 1:
            self._control = torch.distributed.new_group(
                backend="gloo", timeout=datetime.timedelta(seconds=timeout), use_local_synchronization=False
            )

    def set_up(self, module: nn.Module) -> nn.Module:
        """The module on this rank's device, wrapped where it takes part in something."""
        if self._alone:  # also leaves the loss free to call any method of the network
            return module.to(self.device)
        return cast(nn.Module, self.fabric.setup_module(module))

    def set_up_optimizer(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """The optimizer whose `step` knows of the scaler."""
        return optimizer if self._alone else cast(torch.optim.Optimizer, self.fabric.setup_optimizers(optimizer))

    def backward(self, loss: Tensor) -> None:
        """Gradients of a loss, averaged over the ranks."""
        if self._alone:
            loss.backward()
        else:
            self.fabric.backward(loss)

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and shows progress."""
        return self.rank == 0

    def told(self, value: _Told) -> list[_Told]:
        """The values of all ranks, in their order."""
        if self._control is None:
            return [value]
        values: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(values, value, group=self._control)
        return values

    @contextmanager
    def agreement(self) -> Iterator[None]:
        """A context that all ranks leave together: what one of them refuses in it is refused on all.

        Raises:
            InputError: a rank refused; elsewhere than on that one the message names it.
            OSError: on a rank that could not read or write something.
        """
        refusal: Exception | None = None
        try:
            yield
        except (InputError, OSError) as error:
            refusal = error
        texts = self.told(None if refusal is None else str(refusal))
        if refusal is not None:
            raise refusal
        for rank, text in enumerate(texts):
            if text is not None:
                raise InputError(f"rank {rank}: {text}")

    def largest(self, values: Sequence[float]) -> list[float]:
        """The largest of each value over the ranks."""
        if self._control is None:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX, group=self._control)
        return tensor.tolist()

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor on the CPU over the ranks."""
        if self._control is not None:
            torch.distributed.all_reduce(tensor, group=self._control)
        return tensor

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all ranks, on the CPU and of one shape."""
        if self._control is None:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.count)]
        torch.distributed.all_gather(parts, tensor, group=self._control)
        return parts

    def accumulating(self, module: nn.Module, enabled: bool) -> Any:
        """A context in which gradients stay on this rank."""
        if self.count == 1 or not enabled:
            return nullcontext()
        return self.fabric.no_backward_sync(module, enabled=True)  # type: ignore[arg-type]

    def close(self) -> None:
        if self._control is not None:
            torch.distributed.destroy_process_group(self._control)


def first_process() -> bool:
    """Whether this process is the first of those that were, or will be, launched to train together.

    For what only one of them needs to do before the training, which knows its own ranks (`Training.first`).
    """
    return getattr(rank_zero_only, "rank", 0) == 0  # from the environment variables of all launchers that fabric knows


def is_loss_of_a_rank(error: BaseException) -> bool:
    """Whether an error came from the connection between processes."""
    if isinstance(error, torch.distributed.DistError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in ("gloo", "connection closed", "nccl"))


def _device(device: str | torch.device) -> torch.device:
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device {device!r} is not known to torch: cpu, cuda or cuda:1, for example") from error
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {device}: this machine has {torch.cuda.device_count()} CUDA devices")
    return torch.device("cpu") if wanted.type == "cpu" else wanted


def _counts(devices: int, nodes: int) -> tuple[int, int]:
    """Processes a machine and machines, as given, or as torchrun has started them."""
    for name, value in (("devices", devices), ("nodes", nodes)):
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be a whole number, at least 1, got {value!r}")
    if not torch.distributed.is_torchelastic_launched():
        return devices, nodes
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    started = (local, int(os.environ["WORLD_SIZE"]) // local)
    if (devices, nodes) not in ((1, 1), started):
        raise InputError(
            f"devices = {devices}, nodes = {nodes}, and torchrun has started {started[0]} processes on each of "
            f"{started[1]} machines: leave both out, torchrun's count is taken"
        )
    return started


def _strategy(strategy: str | Strategy, count: int, timeout: float) -> str | Strategy:
    limit = datetime.timedelta(seconds=timeout)
    if strategy in ("auto", "ddp"):
        return DDPStrategy(timeout=limit) if count > 1 else "auto"
    if strategy == "fsdp":
        return ModelParallelStrategy(_shard, data_parallel_size=count, tensor_parallel_size=1, timeout=limit)
    if isinstance(strategy, str):
        raise InputError(f"strategy is 'auto', 'ddp', 'fsdp' or an object of lightning-fabric, got {strategy!r}")
    return strategy


def _shard(network: nn.Module, mesh: Any) -> nn.Module:
    """Shard every child with parameters on its own, so that only one at a time is whole, and then the rest."""
    from torch.distributed.fsdp import fully_shard

    for parameter in network.parameters():  # FSDP takes no other layout, such as channels_last
        parameter.data = parameter.data.contiguous()
    data = mesh["data_parallel"]
    waiting = list(network.children())
    while waiting:
        child = waiting.pop()
        if isinstance(child, nn.ModuleList | nn.ModuleDict):  # has no forward of its own
            waiting.extend(child.children())
        elif any(True for _ in child.parameters()):
            fully_shard(child, mesh=data)
    fully_shard(network, mesh=data)
    return network
