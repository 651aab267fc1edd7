"""Sacred experiments. Imported before PyTorch and NumPy everywhere, so that these settings reach their threads.

Threads that wait for others shall sleep: by default they spin, and as soon as another process wants one of the cores a
training step takes ten to forty times as long. `OMP_WAIT_POLICY=active` brings back the spinning of PyTorch's; those of
NumPy's OpenBLAS spin for 2^`OPENBLAS_THREAD_TIMEOUT` turns of the processor's clock.
"""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]  # its folder
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
