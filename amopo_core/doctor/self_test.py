"""One rank that says that it runs: it adds up a number with all others and leaves what it saw in a file.

Run as: accelerate launch -m amopo_core.doctor.self_test FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from amopo_core.stages.command import die_with_parent


def main() -> None:
    """Meet the other ranks as training does, through accelerate."""
    import torch
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=not torch.cuda.is_available())  # as the trainer does
    rank, ranks = accelerator.process_index, accelerator.num_processes
    total = accelerator.reduce(torch.tensor([rank + 1.0], device=accelerator.device), reduction="sum")
    seen = {"rank": rank, "ranks": ranks, "sum": float(total), "device": str(accelerator.device)}
    Path(sys.argv[1], f"rank-{rank}.json").write_text(json.dumps(seen), encoding="utf-8")
    accelerator.wait_for_everyone()
    accelerator.end_training()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    die_with_parent()
    main()
