"""Sacred experiments. Imported before PyTorch everywhere, so that this setting reaches its OpenMP runtime.

Threads that wait for others shall sleep: by default they spin, and as soon as another process wants one of the cores a
training step takes ten to forty times as long. `OMP_WAIT_POLICY=active` brings spinning back.
"""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]  # its folder
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
