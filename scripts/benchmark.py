"""Speed and memory of every training phase, beside the machine's limit measured in the same run.

    python scripts/benchmark.py                                   all models in fp32 and bf16
    python scripts/benchmark.py --configs mnist jpg_native --precisions bf16

Each line runs in a process of its own on random samples (images, stays of 48 hours): the experiment's real phases,
with the refresh of the target distribution, for a few epochs of a part of the data set. samples/s is the median
epoch's. "Of peak" relates the floating point operations of the matrix products and convolutions, counted by PyTorch,
to what a product of two large matrices reaches in the same precision on this machine. "Growth" is the resident
memory gained from the second epoch of the joint phase to the last: it should be about 0. Everything is also written
to results/speed.json, where it takes the place of what the same hardware did with the same configs and precisions.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from experiments import PROJECT, dpsom, somvae, tdpsom, tpae
from experiments.datasets.samples import Samples
from experiments.datasets.stays import Description, Stays
from experiments.errors import UserError, reported
from experiments.ingredients.augmentation import augmentation
from experiments.ingredients.compute import autocast, compute, hardware, prepare, versions
from experiments.ingredients.evaluation import evaluation
from experiments.ingredients.training import Phase, Trainer
from experiments.record import Provenance
from scripts.records import read_json, write_result
from scripts.rendering.measurements import speed_table
from scripts.scheduling.plan import load_experiment, resolve_config

import torch
from sacred import SETTINGS, Experiment
from sacred.utils import recursive_update
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

MEMORY = Path("/proc/self/statm")
RESULT = PROJECT / "results" / "speed.json"
PRECISIONS = ("fp32", "bf16")
EPOCHS = 3
MORE_ON_A_GPU = 10  # times as many samples, or an epoch is over before it can be timed


@dataclass(frozen=True)
class Case:
    """A named config on random images or series; `changes` are to that config."""

    experiment: str
    config: str
    samples: int
    changes: dict[str, Any] = field(default_factory=dict)


CASES = {
    "mnist": Case("dpsom", "mnist", 9_000),
    "mnist_faithful": Case("dpsom", "mnist_faithful", 9_000),
    "mnist_conv": Case("dpsom", "mnist_conv", 900),
    "mnist_conv_faithful": Case("dpsom", "mnist_conv_faithful", 900),
    "somvae_mnist": Case("somvae", "mnist", 160),
    "physionet2012": Case("tdpsom", "physionet2012", 100),
    "jpg_plain_cnn": Case("tpae", "jpg_plain_cnn", 500),
    "jpg_native": Case("tpae", "jpg_native", 500),
    "jpg_downsampled": Case("tpae", "jpg_downsampled", 500),
    "jpg_native_512": Case("tpae", "jpg_native", 512, {"model": {"blocks": 5}, "training": {"batch_size": 512}}),
    "jpg_native_512_recompute": Case(
        "tpae", "jpg_native", 512, {"model": {"blocks": 5, "recompute": True}, "training": {"batch_size": 512}}
    ),
}

bench = Experiment("benchmark", ingredients=[augmentation, compute, evaluation], save_git_info=False)
bench.add_config(case="", model={}, loss={}, training={}, resume=None, data={}, tracking={})


class Silent:
    """A tracker that records nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def scalars(self, values: dict[str, float], step: int) -> None:
        pass


Workload = tuple[nn.Module, torch.Tensor, list[Phase]]
"""A network, its random inputs and the phases of its training."""


def dpsom_workload(config: dict[str, Any], samples: int, device: torch.device) -> Workload:
    inputs = torch.rand(samples, 1, 28, 28, device=device)
    net = dpsom.build(config, Samples((1, 28, 28))).to(device)
    training = {**config["training"], "pretrain_epochs": EPOCHS, "som_epochs": EPOCHS, "joint_epochs": 2 * EPOCHS}
    return net, inputs, dpsom.phases(net, inputs, training)


def somvae_workload(config: dict[str, Any], samples: int, device: torch.device) -> Workload:
    inputs = torch.rand(samples, 1, 28, 28, device=device)
    net = somvae.build(config, Samples((1, 28, 28))).to(device)
    training = {**config["training"], "joint_epochs": 2 * EPOCHS}
    return net, inputs, somvae.phases(net, torch.zeros(samples), None, training)


def tdpsom_workload(config: dict[str, Any], samples: int, device: torch.device) -> Workload:
    hours, channels = 48, 37
    stays = Stays(
        inputs=torch.randn(samples, hours, channels),
        observed=torch.ones(samples, hours, channels, dtype=torch.bool),
        lengths=torch.full((samples,), hours, dtype=torch.int32),
        labels={},
        outcomes={},
        static=torch.zeros(samples, 0),
        split=torch.zeros(samples, dtype=torch.int8),
        description=Description("random", (), (), "", {}),
    ).to(device)
    net = tdpsom.build(config, Samples((hours, channels))).to(device)
    lengths = {f"{name}_epochs": EPOCHS for name in ("pretrain", "som", "prediction")} | {"joint_epochs": 2 * EPOCHS}
    stages = tdpsom.phases(net, stays, {**config["training"], **lengths})
    return net, stays.inputs, stages


def tpae_workload(config: dict[str, Any], samples: int, device: torch.device) -> Workload:
    inputs = torch.rand(samples, 3, 32, 32, device=device)
    labels = torch.randint(0, 10, (samples,), device=device)
    net = tpae.build(config, Samples((3, 32, 32), classes=tuple("0123456789"))).to(device)
    training = {**config["training"], "joint_epochs": 2 * EPOCHS}
    stages = tpae.phases(net, labels, training, steps_per_epoch=samples // training["batch_size"])
    return net, inputs, [stage for stage in stages if stage.epochs]


WORKLOADS = {"dpsom": dpsom_workload, "somvae": somvae_workload, "tdpsom": tdpsom_workload, "tpae": tpae_workload}


@bench.main
def measure(_config: dict[str, Any], case: str, training: dict[str, Any]) -> None:
    """Run the phases of one configuration and print the measurements as JSON."""
    device = prepare()
    torch.manual_seed(0)
    samples = CASES[case].samples * (MORE_ON_A_GPU if device.type == "cuda" else 1)
    net, inputs, stages = WORKLOADS[CASES[case].experiment](_config, samples, device)
    memory: list[float] = []

    def remember_memory(phase: Phase, epoch: int) -> dict[str, float]:
        if phase.name == "joint":
            memory.append(_resident_megabytes())
        return {}

    with tempfile.TemporaryDirectory() as folder:
        progress = Trainer(net, stages, inputs, Silent(Path(folder)), remember_memory, _config, "").run()
    peak_memory = _peak_megabytes(device)
    peak = matrix_product_peak(_config["compute"]["precision"], device)
    lines = []
    for stage in stages:
        seconds = [row["seconds"] for row in progress.history if row["phase"] == stage.name]
        rate = len(inputs) / statistics.median(seconds)
        work = operations_per_sample(stage, inputs, training["batch_size"])
        lines.append({"phase": stage.name, "samples_per_second": rate, "share_of_peak": rate * work / peak})
    result = {
        "phases": lines,
        "peak_gigaflops": peak / 1e9,
        "peak_memory_megabytes": peak_memory,
        "memory_growth_megabytes": memory[-1] - memory[1],
        "hardware": hardware(device),
    }
    print(json.dumps(result))


def operations_per_sample(phase: Phase, inputs: torch.Tensor, batch_size: int) -> float:
    """Floating point operations of matrix products and convolutions for one sample of a phase, refresh included."""
    counter = FlopCounterMode(display=False)
    columns = {}
    with counter:
        if phase.columns:
            columns = phase.columns()
    refresh = counter.get_total_flops() / len(inputs)
    batch = {name: column[:batch_size] for name, column in {"inputs": inputs, **columns}.items()}
    with counter:
        for update in phase.updates:
            scheduled = {name: torch.tensor(values[0]) for name, values in update.schedules.items()}
            with autocast(device_type=inputs.device.type):
                terms = update.loss(**batch, **scheduled)
            terms["loss"].backward()
    return refresh + counter.get_total_flops() / batch_size


def matrix_product_peak(precision: str, device: torch.device, repeats: int = 5) -> float:
    """Operations per second of the fastest of several products of two large square matrices."""
    size = 2048 if device.type == "cpu" else 8192
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        product = left @ right
        product[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _peak_megabytes(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _resident_megabytes() -> float:
    pages = int(MEMORY.read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def run_one(name: str, precision: str) -> None:
    """Measure in this process; called by `main` in a process of its own."""
    SETTINGS.CAPTURE_MODE = "no"
    case = CASES[name]
    config = resolve_config(load_experiment(case.experiment), case.config, 0)
    recursive_update(config, {**case.changes, "case": name})
    config["compute"]["precision"] = precision
    keys = ("case", "model", "loss", "training", "augmentation", "compute", "evaluation")
    chosen = {key: config[key] for key in keys if key in config}
    bench.run(config_updates=chosen, options={"--force": True, "--loglevel": "ERROR"})


@reported
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not MEMORY.exists():
        raise UserError(f"memory is read from {MEMORY}, which this system lacks: measure on Linux")
    if options.one:
        run_one(options.configs[0], options.precisions[0])
        return 0
    code = {"versions": versions()} | asdict(Provenance.now("scripts"))
    former = read_json(RESULT)["results"] if RESULT.exists() else []
    results = []
    for config in tqdm(options.configs, unit="model"):
        for precision in options.precisions:
            command = [sys.executable, __file__, "--one", "--configs", config, "--precisions", precision]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
                raise UserError(f"{config} in {precision} failed: {lines[-1]}")
            line = {"config": config, "precision": precision, **json.loads(done.stdout.splitlines()[-1])}
            results.append(line | code)
            content = {"format": 2, "results": merged(former, results)}
            write_result(RESULT, (json.dumps(content, indent=1) + "\n").encode())
    print(speed_table(results))
    return 0


def merged(former: list[dict], results: list[dict]) -> list[dict]:
    """`results`, and the former ones of other configs, precisions and hardware."""
    found = {
        (result["config"], result["precision"], json.dumps(result["hardware"], sort_keys=True)): result
        for result in [*former, *results]
    }
    places = {config: place for place, config in enumerate(CASES)}
    return sorted(found.values(), key=lambda result: (places.get(result["config"], len(places)), result["precision"]))


if __name__ == "__main__":
    sys.exit(main())
