"""What every worker would have to load, and most never use."""

from __future__ import annotations

import subprocess
import sys


def test_a_worker_loads_nothing_large_before_its_first_task() -> None:
    """Its zygote imports this module; a second of it is a second until the first result."""
    program = (
        "import sys, zray.nodes.worker.worker\n"
        "print(sorted({'asyncio', 'click', 'numpy', 'rich', 'ssl', 'zmq'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done
