"""Which splits a run evaluates while it trains, and when a collapsed map ends it."""

from experiments.errors import UserError
from experiments.ingredients import evaluation
from experiments.ingredients.data import Split
from experiments.ingredients.evaluation import Collapse, by_part, evaluated_parts, learning_curve, squared_error
from experiments.ingredients.training import Phase
from models.grid import Grid

import pytest
import torch

PARTS = {"validation": "ab", "test": "cde"}
JOINT = Phase("joint", 7, ())


@pytest.fixture
def choose(monkeypatch):
    return lambda **settings: monkeypatch.setattr(evaluation.due, "config", settings)


def one_unit(part: str) -> dict[str, float]:
    return {"used_units": 1}


def test_every_split_has_its_name_in_front():
    assert by_part(PARTS, lambda part: {"purity": len(part)}) == {"validation/purity": 2, "test/purity": 3}


@pytest.mark.parametrize(("test_curve", "names"), [(False, ["validation"]), (True, ["validation", "test"])])
def test_splits_are_due_every_few_epochs_and_after_a_phases_last(choose, test_curve, names):
    choose(every=3, test_curve=test_curve)
    curve = learning_curve(PARTS, lambda part: {"purity": 0.5})
    evaluated = {epoch: [key.split("/")[0] for key in curve(JOINT, epoch)] for epoch in range(1, 8)}
    assert {epoch: found for epoch, found in evaluated.items() if found} == {3: names, 6: names, 7: names}


def test_what_an_evaluation_draws_is_not_missing_from_the_training(choose):
    choose(every=1, test_curve=False)
    curve = learning_curve(PARTS, lambda part: {"drawn": torch.rand(()).item()})
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    assert curve(JOINT, 1) == curve(JOINT, 2)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("only_at_the_end", "last_good"), [(False, 0), (True, 6)])
def test_a_collapsed_map_ends_the_joint_phase(choose, only_at_the_end, last_good):
    choose(every=1, test_curve=False)
    curve = learning_curve(PARTS, one_unit, Collapse(Grid(2, 2, torus=True), "wait", only_at_the_end))
    for epoch in range(1, last_good + 1):
        assert curve(JOINT, epoch) == {"validation/used_units": 1}
    with pytest.raises(UserError, match=rf"^the map collapsed: after joint epoch {last_good + 1} one unit .*; wait$"):
        curve(JOINT, last_good + 1)
    assert curve(Phase("pretrain", 1, ()), 1)


def test_the_phase_whose_map_must_not_collapse_can_have_another_name(choose):
    choose(every=1, test_curve=False)
    curve = learning_curve(PARTS, one_unit, Collapse(Grid(2, 2, torus=True), "wait", True, phase="map"))
    assert curve(JOINT, 7)
    with pytest.raises(UserError, match=r"^the map collapsed: after map epoch 3 one unit"):
        curve(Phase("map", 3, ()), 3)


def test_a_map_of_one_unit_or_under_one_sample_and_no_map_cannot_collapse(choose):
    choose(every=1, test_curve=False)
    one, four = (Collapse(Grid(*size, torus=True), "wait", only_at_the_end=False) for size in ((1, 1), (2, 2)))
    for parts, collapse in ((PARTS, one), (PARTS, None), (PARTS | {"validation": "a"}, four)):
        assert learning_curve(parts, one_unit, collapse)(JOINT, 7)


@pytest.mark.parametrize(("whole_batches", "counts"), [(False, (25, 38)), (True, (20, 30))])
def test_each_split_is_evaluated_as_itself_and_without_the_rest_of_a_batch(monkeypatch, whole_batches, counts):
    monkeypatch.setattr(evaluation.evaluated_parts, "config", {"whole_batches": whole_batches})
    sizes = {"train": 50, "validation": 25, "test": 38}
    splits = {name: Split(torch.full((size,), size), torch.arange(size)) for name, size in sizes.items()}
    found = evaluated_parts(splits, 10)
    assert list(found) == ["validation", "test"]
    for (name, part), count in zip(found.items(), counts, strict=True):
        assert part.inputs.unique().tolist() == [sizes[name]]
        assert part.labels.tolist() == list(range(count))


def test_the_error_of_a_sample_is_the_mean_of_its_squared_differences():
    inputs = torch.tensor([[[1.0, 3.0]], [[2.0, 2.0]]])
    assert squared_error(inputs, torch.ones(2, 1, 2)).tolist() == [2.0, 1.0]
