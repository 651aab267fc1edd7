"""What `make bench` measures and keeps."""

import json

from experiments.ingredients.training import Phase, Update
from scripts import benchmark
from scripts.benchmark import Case, merged, operations_per_sample, run_one

import pytest
import torch
from torch import nn


@pytest.mark.usefixtures("in_process")
def test_a_case_is_measured_by_phase(monkeypatch, capsys):
    monkeypatch.setitem(benchmark.CASES, "mnist", Case("dpsom", "fast", 200))
    run_one("mnist", "fp32")
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [phase["phase"] for phase in found["phases"]] == ["pretrain", "som", "joint"]
    assert all(phase["samples_per_second"] > 1 and 0 < phase["share_of_peak"] < 1 for phase in found["phases"])
    assert found["peak_memory_megabytes"] > 100


def test_operations_are_those_of_the_matrix_products(monkeypatch):
    """A product of B x 10 by 10 x 20 takes 400 operations a sample, and its gradient for the weights as many."""
    layer, inputs = nn.Linear(10, 20, bias=False), torch.rand(6, 10)

    def loss(inputs, refreshed):
        return {"loss": layer(inputs).sum() + refreshed.sum()}

    with_refresh = Phase("joint", 1, (Update(loss, (0.1,)),), lambda: {"refreshed": layer(inputs).detach()})
    monkeypatch.setattr(benchmark.autocast, "config", {"precision": "fp32"})
    assert operations_per_sample(with_refresh, inputs, 3) == 400 + 800


def test_lines_that_were_not_measured_again_stay():
    here, there = {"cpu": "A CPU", "instructions": "AVX2"}, {"cpu": "A CPU", "instructions": "AVX512"}
    line = {"config": "mnist", "precision": "bf16", "hardware": here, "peak": 1}
    assert merged([], [line]) == [line]
    others = line | {"config": "mnist_faithful"}, line | {"hardware": there}, line | {"config": "gone"}
    again, new = line | {"peak": 2}, line | {"config": "somvae_mnist", "precision": "fp32"}
    assert merged([line, *others], [new, again]) == [again, others[1], others[0], new, others[2]]
