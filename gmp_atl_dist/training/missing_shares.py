"""Resuming with more ranks than a parameter group has numbers.

ZeRO 1 and 2 divide each group among the ranks. The heads' biases may be six numbers, so that some of many
ranks have only padding of that group. DeepSpeed 0.19.8 does not expect this when it loads a universal
checkpoint: it reads ``steps[0]`` of an empty list (``base_optimizer.py``,
``load_hp_checkpoint_state_from_checkpoint_dir``).
"""

from __future__ import annotations

from typing import Any

import torch


def allow_missing_shares(zero: Any) -> None:
    """Make DeepSpeed's ZeRO 1 or 2 optimiser ``zero`` load groups of which this rank has only padding.

    Such a group is left out of the load. Its state is what an optimiser has before its first update, which
    is what padding has after any number of them: its gradient is 0.
    """
    load = zero.load_hp_checkpoint_state_from_checkpoint_dir

    def load_own_groups(groups_name: str, folder: str) -> None:
        groups = zero.optimizer.param_groups
        parameters = getattr(zero, groups_name)
        own = [
            i
            for i, of_group in enumerate(parameters)
            if any(p._hp_mapping is not None for p in of_group)
        ]
        if len(own) == len(groups):
            load(groups_name, folder)
            return
        # DeepSpeed pairs groups with stored ones by their position, which is another one now. Ours follow
        # from the configuration, so they are kept.
        values = [{k: v for k, v in group.items() if k != "params"} for group in groups]
        zero.optimizer.param_groups = [groups[i] for i in own]
        setattr(zero, groups_name, [parameters[i] for i in own])
        try:
            load(groups_name, folder)
        finally:
            zero.optimizer.param_groups = groups
            setattr(zero, groups_name, parameters)
        for i, (group, before) in enumerate(zip(groups, values, strict=True)):
            group.update(before)
            if i not in own:
                for padding in group["params"]:
                    zero.optimizer.state[padding] = {
                        "step": torch.zeros(()),
                        "exp_avg": torch.zeros_like(padding),
                        "exp_avg_sq": torch.zeros_like(padding),
                    }

    zero.load_hp_checkpoint_state_from_checkpoint_dir = load_own_groups
