"""torchvision under a torch that its compiled operators were not built for."""

from __future__ import annotations

from typing import Any

import torch

_libraries: list[torch.library.Library] = []  # declarations end with their library


def declare_missing_operators() -> None:
    """Let `import torchvision` succeed where its compiled operators do not load; call it before.

    A torchvision built for CUDA does not import under a torch for processors, for want of two operators that none of
    our code calls: declared, without a body, they are enough for its Python parts. Does nothing where they exist.
    """
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _libraries.append(library)
