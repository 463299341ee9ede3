"""Imports DeepSpeed as the engine does, for processes that compute on the CPU.

The server that forks workers imports this module, see ``scheduling/preloaded.py``. DeepSpeed chooses its
accelerator at its import, so workers with GPUs import it themselves.
"""

from __future__ import annotations

from gmp_atl_dist.device import use_gpus
from gmp_atl_dist.training.deepspeed_start import before_deepspeed, import_muon_uncompiled

use_gpus(0)
before_deepspeed()
import_muon_uncompiled()
