"""Tables as LaTeX."""

import re
import shutil
import subprocess

from experiments import PROJECT
from scripts import tables
from scripts.contents import TABLES
from scripts.rendering import latex
from scripts.rendering.cells import MarkdownTable

import pytest
from test_tables import make_record, write


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("`mnist_conv`", r"\texttt{mnist\_conv}"),
        ("−.0027 [−.0060, +.0005] **equal**", r"$-$.0027 [$-$.0060, +.0005] \textbf{equal}"),
        (".7000 ± .0012, n = 3 †", r".7000 $\pm$ .0012, n = 3 $\dagger$"),
        (".5667<sup>1,2</sup>", r".5667\textsuperscript{1,2}"),
        ("`model.dropout`: 0.4 → **0**<br>`loss.a`: 1 → **2**",
         r"\texttt{model.dropout}: 0.4 $\to$ \textbf{0}; \texttt{loss.a}: 1 $\to$ \textbf{2}"),
        ("[mnist](../runs/dpsom/mnist/)", "mnist"),
        (r"100 % & \ # { } ~ ^ $", r"100 \% \& \textbackslash{} \# \{ \} \textasciitilde{} \textasciicircum{} \$"),
        ("a *same* <b>", r"a \emph{same} \textless{}b\textgreater{}"),
    ],
)  # fmt: skip
def test_markdown_becomes_latex(markdown, expected):
    assert latex.inline(markdown) == expected


def test_every_row_has_as_many_cells_as_its_head():
    text = latex.tabular(MarkdownTable(["a", "b_c"], [["1", ""], ["2 & 3", "4"]]))
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [1, 1, 1]
    assert r"\begin{tabular}{ll}" in text


@pytest.fixture
def folder(tmp_path):
    """Every table with runs in it, as files of LaTeX."""
    shutil.copy(PROJECT / "results" / "references.yaml", tmp_path)
    shutil.copy(PROJECT / "results" / "parity_golden.json", tmp_path)
    for name in ("mnist", "mnist_faithful", "short", "ablation_posterior"):
        write(tmp_path, *(make_record(name, seed, 0.6 + seed / 100) for seed in range(3)))
    folder = tmp_path / "paper" / "tables"
    assert tables.main(["--results", str(tmp_path), "--latex", str(folder)]) == 0
    return folder


def test_there_is_a_file_for_each_table(folder):
    assert {path.stem for path in folder.iterdir()} == set(TABLES)
    parity = (folder / "dpsom_parity.tex").read_text()
    assert r"\caption{DPSOM: parity with TensorFlow and with the Torch port. Against published numbers.}" in parity
    assert r".6100 $\pm$ .0058, n = 3" in parity
    assert r"\textsuperscript{1} one run, taken as a constant; \textsuperscript{2} the source repeats" in parity
    assert "hardware" not in parity
    assert "uncommitted changes" not in parity
    for path in folder.iterdir():
        text = path.read_text()
        assert text.count(r"\begin{table}") == text.count(r"\end{table}") >= 1
        assert len(set(re.findall(r"\\label{(.*)}", text))) == text.count(r"\label{")
        assert not re.search(r"[^\x00-\x7f–’“”]", text), "LaTeX's standard fonts lack this character"


def test_a_dagger_is_explained(folder):
    results = folder.parents[1]
    write(results, make_record(seed=3, git_dirty=True))
    assert tables.main(["--results", str(results), "--latex", str(folder)]) == 0
    assert r"\footnotesize $\dagger$ run with uncommitted changes" in (folder / "dpsom_parity.tex").read_text()


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
def test_latex_accepts_them(folder, tmp_path):
    inputs = "\n".join(rf"\input{{tables/{path.name}}}\clearpage" for path in sorted(folder.iterdir()))
    document = rf"\documentclass{{article}}\usepackage{{booktabs,graphicx}}\begin{{document}}{inputs}\end{{document}}"
    (folder.parent / "paper.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
