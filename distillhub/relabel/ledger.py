"""The labels made so far, in the order in which they are made; what a snapshot holds."""

import torch
from torch import Tensor

from distillhub.ops.progress import Scalar, State
from distillhub.records.soft_labels import Codec, CodecError, SoftLabels, codec_error


class Ledger:
    """Encoded labels: view by view, in these sub-image by sub-image, in these image by image.

    So the first K views are complete before view K + 1 begins, whatever number is wanted at last.

    Args:
        images: N.
        sub_images: Per image.
        codec: How a logit is stored.
        top_k: Classes kept.
        state: A snapshot to go on from.
    """

    def __init__(
        self, images: int, sub_images: int, *, codec: Codec, top_k: int, state: State | None
    ) -> None:
        self.images = images
        self.done = 0
        """Labels made."""
        self._sub_images = sub_images
        self._codec: Codec = codec
        self._top_k = top_k
        self._stored: list[SoftLabels] = []
        self._errors: list[Tensor] = []  # [n, 5] each: the fields of CodecError
        if state is not None and _same_layout(state):
            self._restore(state)

    def size(self, views: int) -> int:
        """Labels of the first `views` views of everything."""
        return self.images * self._sub_images * views

    def place(self) -> tuple[int, int, int]:
        """View, sub-image and image row of the label that comes next."""
        entry, row = divmod(self.done, self.images)
        view, sub_image = divmod(entry, self._sub_images)
        return view, sub_image, row

    def add(self, logits: Tensor) -> None:
        """The next labels, [n, num_classes]."""
        rows = logits.unsqueeze(1)
        stored = SoftLabels.encode(rows, codec=self._codec, top_k=self._top_k)
        self._stored.append(stored)
        error = codec_error(rows, stored)
        self._errors.append(torch.cat([part.float() for part in error], dim=1))
        self.done += len(logits)

    def soft(self, views: int) -> SoftLabels:
        """Labels [N, sub-images * views] of the first views, sub-image major."""
        return self._all().reorder(self._index(views))

    def error(self, views: int) -> CodecError:
        """What storing has changed in the first views."""
        found = CodecError(*torch.cat(self._errors)[self._index(views)].unbind(-1))
        return found._replace(agree=found.agree > 0)

    def snapshot(self) -> dict[str, Tensor | Scalar]:
        """Everything made so far."""
        soft = self._all()
        state: dict[str, Tensor | Scalar] = {
            "step": self.done,
            "codec": self._codec,
            "num_classes": soft.num_classes,
            "values": soft.values,
            "errors": torch.cat(self._errors),
        }
        if soft.classes is not None and soft.rest is not None:
            state["classes"] = soft.classes.view(torch.int16)  # read back as uint16
            state["rest"] = soft.rest
        if soft.range is not None:
            state["range"] = soft.range
        return state

    def _restore(self, state: State) -> None:
        if state["codec"] != self._codec:
            raise ValueError(f"the snapshot stores {state['codec']}, wanted is {self._codec}")
        found = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        classes, num_classes, step = found.get("classes"), state["num_classes"], state["step"]
        if not isinstance(num_classes, int) or not isinstance(step, int):
            raise TypeError("step and num_classes of the snapshot are not integers")
        stored = SoftLabels(
            found["values"],
            None if classes is None else classes.view(torch.uint16),
            found.get("range"),
            found.get("rest"),
            num_classes,
        )
        self._stored, self._errors, self.done = [stored], [found["errors"]], step

    def _all(self) -> SoftLabels:
        whole = SoftLabels.concatenate(self._stored)
        self._stored = [whole]
        return whole

    def _index(self, views: int) -> Tensor:
        """Position in the ledger of every label, [N, sub-images * views]."""
        sub_image, view = torch.meshgrid(
            torch.arange(self._sub_images), torch.arange(views), indexing="ij"
        )
        entry = (view * self._sub_images + sub_image).flatten()
        return torch.arange(self.images)[:, None] + entry * self.images


def _same_layout(state: State) -> bool:
    """Whether a snapshot measured what is measured now; labels of an older one are made anew."""
    errors = state["errors"]
    return isinstance(errors, Tensor) and errors.shape[1] == len(CodecError._fields)
