"""See what goes into the layers of a network, without leaving a hook behind."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def tap(
    model: nn.Module, kind: type[nn.Module] | tuple[type[nn.Module], ...]
) -> Iterator[dict[str, Tensor]]:
    """Inside, every forward pass puts the input of each layer of a kind into the mapping.

    Keys are the paths of the layers in `model`, in the order in which they are first run; a new
    pass replaces the tensors, which stay part of the graph. A layer that runs twice in one pass
    keeps its last input.

    Args:
        model: Looked through with all its parts.
        kind: `nn.BatchNorm2d`, `nn.Conv2d`, or several.

    Raises:
        ValueError: If the model has no such layer.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, kind)}
    if not layers:
        wanted = kind if isinstance(kind, tuple) else (kind,)
        raise ValueError(
            f"{type(model).__name__} has no {' or '.join(each.__name__ for each in wanted)}"
        )
    seen: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> None:
        seen[name] = value

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: keep(name, inputs[0]))
        for name, layer in layers.items()
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
