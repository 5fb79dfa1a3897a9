"""Long work as a generator: it yields progress, the caller decides when to log, save or stop.

A snapshot (`State`) is a flat mapping of tensors and numbers, so that it can be written as
safetensors and JSON. `capture` builds one from named parts, `restore` puts it back; a part is a
tensor, a module, an optimizer or a `torch.Generator`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

Scalar = int | float | bool | str | None
State = Mapping[str, Tensor | Scalar]
Part = Tensor | nn.Module | torch.optim.Optimizer | torch.Generator

MARK = "resource"
"""Of a snapshot: the resource whose making it is of; none in a snapshot of a method's own."""


class Progress(NamedTuple):
    """One report of a running method, training or labelling."""

    done: int
    total: int
    """In the work's own steps."""
    metrics: Mapping[str, float]
    snapshot: Callable[[], State] | None
    """Called only when the caller wants to save; None where there is nothing worth saving."""


def own(state: State | None) -> State | None:
    """A snapshot of the method itself; None where it is of a resource that was being made."""
    return None if state is None or MARK in state else state


def marked(report: Progress, name: str) -> Progress:
    """The report, its snapshot marked as one of the making of a resource."""
    snapshot = report.snapshot
    if snapshot is None:
        return report

    def of_resource() -> State:
        content: dict[str, Tensor | Scalar] = {**snapshot(), MARK: name}
        return content

    return report._replace(snapshot=of_resource)


def capture(step: int, **parts: Part) -> dict[str, Tensor | Scalar]:
    """A snapshot of `parts` after `step` finished steps; tensors are copied to the CPU."""
    state: dict[str, Tensor | Scalar] = {"step": step}
    for name, part in parts.items():
        if isinstance(part, Tensor):
            state[name] = part.detach().cpu().clone()
        elif isinstance(part, torch.Generator):
            state[name] = part.get_state()
        elif isinstance(part, nn.Module):
            for key, value in part.state_dict().items():
                state[f"{name}/{key}"] = value.detach().cpu().clone()
        else:
            state.update(_optimizer_state(name, part))
    return state


def restore(state: State | None, **parts: Part) -> int:
    """Put a snapshot back into `parts`, in place, and return the number of finished steps.

    Raises:
        KeyError: If the snapshot lacks one of the parts.
    """
    if state is None:
        return 0
    for name, part in parts.items():
        if isinstance(part, Tensor):
            with torch.no_grad():
                part.copy_(_tensor(state, name))
        elif isinstance(part, torch.Generator):
            part.set_state(_tensor(state, name))
        elif isinstance(part, nn.Module):
            part.load_state_dict({k: _tensor(state, f"{name}/{k}") for k in part.state_dict()})
        else:
            _restore_optimizer(state, name, part)
    step = state["step"]
    if not isinstance(step, int):
        raise TypeError(f"step of the snapshot is {step!r}, an integer is needed")
    return step


def _tensor(state: State, name: str) -> Tensor:
    value = state[name]
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} of the snapshot is {type(value).__name__}, a tensor is needed")
    return value


def _optimizer_state(name: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor | Scalar]:
    """Buffers per parameter, numbers per group: `opt/0/momentum_buffer`, `opt/group0/lr`, ..."""
    content = optimizer.state_dict()
    flat: dict[str, Tensor | Scalar] = {}
    for index, buffers in content["state"].items():
        for key, value in buffers.items():
            flat[f"{name}/{index}/{key}"] = (
                value.detach().cpu().clone() if isinstance(value, Tensor) else value
            )
    for index, group in enumerate(content["param_groups"]):
        for key, value in group.items():
            if isinstance(value, int | float | bool):
                flat[f"{name}/group{index}/{key}"] = value
    return flat


def _restore_optimizer(state: State, name: str, optimizer: torch.optim.Optimizer) -> None:
    content = optimizer.state_dict()
    buffers: dict[int, dict[str, Tensor | Scalar]] = {}
    for path, value in state.items():
        owner, _, rest = path.partition("/")
        if owner != name:
            continue
        index, _, key = rest.partition("/")
        if index.startswith("group"):
            content["param_groups"][int(index.removeprefix("group"))][key] = value
        else:
            buffers.setdefault(int(index), {})[key] = (
                value.clone() if isinstance(value, Tensor) else value
            )
    content["state"] = buffers
    optimizer.load_state_dict(content)
