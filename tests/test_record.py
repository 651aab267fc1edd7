"""What a record says of the code behind it."""

import json
import subprocess
from types import SimpleNamespace

from experiments import record
from experiments.record import Provenance, state_of_code

import pytest

IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@example.org")


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository with one commit, taken for the project's."""
    for name in ("models/som.py", "results/runs/0.json", "README.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("committed")
    for command in (["init", "--quiet"], ["add", "."], [*IDENTITY, "commit", "--quiet", "--message=all"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(record, "PROJECT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "dirty"),
    [
        *((name, True) for name in ("models/som.py", "models/new.py", "configs/dpsom/new.yaml", "requirements.txt")),
        ("numpy.py", True),
        *((name, False) for name in ("results/runs/1.json", "README.md", "tests/test_som.py", "package.whl")),
    ],
)
def test_only_what_training_executes_is_code(clone, changed, dirty):
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone, check=True, capture_output=True, text=True)
    assert Provenance.now() == Provenance(commit.stdout.strip(), False)
    (clone / changed).parent.mkdir(parents=True, exist_ok=True)
    (clone / changed).write_text("changed")
    assert Provenance.now().git_dirty is dirty
    for command in (["add", "."], ["commit", "--quiet", "--message=changed"]):
        subprocess.run(["git", *IDENTITY, *command], cwd=clone, check=True)
    after = Provenance.now()
    assert (after.git_commit != commit.stdout.strip(), after.git_dirty) == (dirty, False)


def test_what_a_script_measures_is_also_of_the_scripts_code(clone):
    (clone / "scripts").mkdir()
    (clone / "scripts" / "parity.py").write_text("changed")
    assert (Provenance.now().git_dirty, Provenance.now("scripts").git_dirty) == (False, True)


def test_outside_a_clone_the_code_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "PROJECT", tmp_path)
    assert Provenance.now() == Provenance(None, True)


def test_without_git_the_code_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Provenance.now() == Provenance(None, True)


@pytest.mark.parametrize(
    ("earlier", "dirty"),
    [
        (None, False),
        ({"git_commit": "present", "git_dirty": False}, False),
        ({"git_commit": "older", "git_dirty": False}, True),
        ({"git_commit": "present", "git_dirty": True}, True),
        ({}, False),
    ],
)
def test_what_other_code_began_is_not_credited_to_this(tmp_path, monkeypatch, earlier, dirty):
    monkeypatch.setattr(Provenance, "now", lambda: Provenance("present", False))
    run = SimpleNamespace(info={})
    if earlier is not None:
        (tmp_path / "info.json").write_text(json.dumps(earlier))
        run.info["resumed_from"] = str(tmp_path)
    assert Provenance.of(run) == Provenance("present", dirty)
    assert run.info["git_dirty"] is dirty


def test_the_state_of_the_code_changes_with_every_change_that_is_not_committed(clone):
    commit = Provenance.now().git_commit
    seen = [state_of_code(Provenance.now())]
    assert seen == [commit]
    for name, text in (("models/som.py", "one"), ("models/som.py", "two"), ("models/new.py", "one"), ("numpy.py", "")):
        (clone / name).write_text(text)
        seen.append(state_of_code(Provenance.now()))
    assert len(set(seen)) == 5
    assert all(state.startswith(f"{commit} with changes ") for state in seen[1:])
    (clone / "README.md").write_text("changed")
    assert state_of_code(Provenance.now()) == seen[-1]


def test_outside_a_clone_the_state_of_the_code_is_empty(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "PROJECT", tmp_path)
    assert state_of_code(Provenance.now()) == ""
