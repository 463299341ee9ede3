"""The norm of the gradient of ZeRO 1 and 2 with one exchange and one look at it by the host.

DeepSpeed 0.19.8 exchanges and checks the norm of each parameter group by itself, and looks at the whole norm
again when it clips each group: twice as many synchronisations as there are groups, and an operation per
weight. Here the groups' norms are exchanged together, and stay on the device. DeepSpeed's ``step`` looks
once whether the result is finite. If it is not, it skips the update on all ranks.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def look_once(zero: Any) -> None:
    """Make DeepSpeed's ZeRO 1 or 2 optimiser ``zero`` compute norm and clipping on the device."""

    def norm(norm_type: float = 2) -> Tensor:
        """Of the gradient over all ranks, fp32; inf or NaN if any of it is."""
        if norm_type != 2:
            raise ValueError(f"the norm of a gradient is the L2 norm, got {norm_type}")
        squares = [_square(zero.averaged_gradients[i]) for i in range(len(zero.bit16_groups))]
        found = [s for s in squares if s is not None]
        # A rank whose shares are all padding has nothing to add.
        total = torch.stack(found).sum() if found else torch.zeros((), dtype=torch.float64)
        total = total.float().to(zero.device)
        dist.all_reduce(total, group=zero.dp_process_group)
        return total.sqrt()

    def clip(gradients: list[Any], total_norm: Tensor) -> None:
        """DeepSpeed's own formula, of a norm that its ``step`` has found to be finite."""
        if zero.clip_grad == 0.0 and zero.loss_scale == 1.0:
            return
        scale: Any = zero.loss_scale
        if zero.clip_grad > 0.0:
            over = (total_norm / zero.loss_scale + 1e-6) / zero.clip_grad
            scale = torch.clamp(over, min=1.0) * zero.loss_scale
        for gradient in gradients:
            for part in gradient if isinstance(gradient, list) else [gradient]:
                part.data.mul_(1.0 / scale)

    zero.scaled_global_norm = norm
    zero.unscale_and_clip_grads = clip


def _square(gradients: list[Tensor]) -> Tensor | None:
    """Square of the norm of a rank's share of a group, fp64; None if all of it is padding."""
    real = [g for g in gradients if not getattr(g, "_zero_padding", False) and g.numel()]
    if not real:
        return None
    norms = torch._foreach_norm(real, 2, dtype=torch.float64)  # pyright: ignore[reportPrivateImportUsage]
    return torch.stack(norms).square().sum()
