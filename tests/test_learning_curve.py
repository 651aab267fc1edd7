"""Which splits a run evaluates while it trains, and when a collapsed map ends it."""

from experiments.errors import UserError
from experiments.ingredients import evaluation
from experiments.ingredients.evaluation import Collapse, by_part, learning_curve
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


def test_a_map_of_one_unit_or_under_one_sample_and_no_map_cannot_collapse(choose):
    choose(every=1, test_curve=False)
    one, four = (Collapse(Grid(*size, torus=True), "wait", only_at_the_end=False) for size in ((1, 1), (2, 2)))
    for parts, collapse in ((PARTS, one), (PARTS, None), (PARTS | {"validation": "a"}, four)):
        assert learning_curve(parts, one_unit, collapse)(JOINT, 7)
