"""Settings of the arithmetic that are not visible in any result."""

import subprocess
import sys

from experiments.ingredients.compute import prepare
from scripts.scheduling.plan import cores

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

COUNT_FAULTS = """
import ctypes
import resource
from experiments.ingredients.compute import keep_freed_memory
import torch
from threadpoolctl import threadpool_info, threadpool_limits


class OldLibrary:
    library = ctypes.CDLL(None)

    def mallopt(self, parameter, value):
        return 0 if parameter == -3 and value > 2**25 else self.library.mallopt(parameter, value)


torch.set_num_threads(1)
if "{memory}" == "kept by an old library":
    ctypes.CDLL = lambda name: OldLibrary()
if "{memory}" != "given back":
    keep_freed_memory()
gradient = torch.zeros(5150, 2000, dtype=torch.bfloat16)
for _ in range(40):  # glibc before 2.38 needs some rounds until a freed block fits an aligned one of its own size
    gradient.float()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    gradient.float()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="about the C library of Linux")
def test_freed_memory_is_used_again_without_page_faults():
    faults = {}
    for memory in ("kept", "kept by an old library", "given back"):
        program = [sys.executable, "-c", COUNT_FAULTS.format(memory=memory)]
        faults[memory] = int(subprocess.run(program, capture_output=True, check=True).stdout)
    # a buffer of 41 MB has 10,000 pages of 4 kB, or 20 of 2 MB
    assert max(faults["kept"], faults["kept by an old library"]) < 500 < faults["given back"], faults


GRADIENTS = """
from experiments.ingredients.compute import prepare
from models.assignment import neighbourhood_loss
from models.grid import Grid
import torch

prepare(device="cpu", precision="fp32", compile=False, threads=2, deterministic=False)
latents, centroids = torch.randn(300, 100), torch.randn(64, 100, requires_grad=True)
winners, neighbours = torch.cdist(latents, centroids).argmin(dim=1), Grid(8, 8, torus=True).neighbours
found = set()
for _ in range(300):
    (gradient,) = torch.autograd.grad(neighbourhood_loss(latents, centroids, winners, neighbours), centroids)
    found.add(gradient.numpy().tobytes())
print(len(found))
"""


@pytest.mark.skipif(cores() < 2, reason="one core: threads hardly meet")
def test_two_threads_add_up_in_the_same_order_every_time():
    done = subprocess.run([sys.executable, "-c", GRADIENTS], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 1


WAIT = """
import experiments
import resource, time
import numpy, torch

def seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

def waiting(multiply, factor):
    multiply(factor, factor)
    before = seconds()
    time.sleep(0.1)
    return seconds() - before

for multiply, factor in ((numpy.matmul, numpy.ones((600, 600))), (torch.matmul, torch.ones(600, 600))):
    print(min(waiting(multiply, factor) for _ in range(5)))
"""


@pytest.mark.skipif(cores() < 2, reason="one core: no thread waits for another")
def test_threads_that_wait_for_others_sleep():
    done = subprocess.run([sys.executable, "-c", WAIT], capture_output=True, text=True, check=True)
    assert max(map(float, done.stdout.split())) < 0.01


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp32"])
def test_only_tf32_shortens_products_and_convolutions_in_fp32(precision):
    prepare(device="cpu", precision=precision, compile=False, threads=None, deterministic=False)
    shortened = precision == "tf32"
    assert torch.get_float32_matmul_precision() == ("high" if shortened else "highest")
    assert torch.backends.cudnn.allow_tf32 == shortened


def test_threads_are_those_of_every_library():
    before = torch.get_num_threads()
    with threadpool_limits(2):
        prepare(device="cpu", precision="fp32", compile=False, threads=1, deterministic=False)
        threads = {library["num_threads"] for library in threadpool_info()}
        assert threads == {torch.get_num_threads()} == {1}
    torch.set_num_threads(before)
