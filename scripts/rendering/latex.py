"""Tables as LaTeX, for the packages booktabs and graphicx (and UTF-8, which LaTeX reads by default)."""

import re

from scripts.rendering.cells import DAGGER, MarkdownTable

SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "→": r"$\to$", "σ": r"$\sigma$",
    "†": r"$\dagger$",
}  # fmt: skip
MARKUP = (
    (re.compile(r"`([^`]*)`"), r"\\texttt{\1}"),
    (re.compile(r"\*\*(.+?)\*\*"), r"\\textbf{\1}"),
    (re.compile(r"\*(.+?)\*"), r"\\emph{\1}"),
    (re.compile(r"\[([^]]*)\]\([^)]*\)"), r"\1"),
)
FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"  # shrinks what is wider than the text
HTML = re.compile(r"<sup>(.*?)</sup>|<br>\n?")


def inline(markdown: str) -> str:
    """A cell's or a sentence's Markdown as LaTeX."""
    parts, place = [], 0
    for found in HTML.finditer(markdown):
        parts += [_escape(markdown[place : found.start()])]
        parts += [f"\\textsuperscript{{{_escape(found[1])}}}" if found[1] else "; "]
        place = found.end()
    text = "".join([*parts, _escape(markdown[place:])])
    for pattern, replacement in MARKUP:
        text = pattern.sub(replacement, text)
    return text


def _escape(text: str) -> str:
    return "".join(SPECIAL.get(character, character) for character in text)


def tabular(table: MarkdownTable) -> str:
    """The table alone, no wider than the text."""
    lines = [" & ".join(map(inline, cells)) + r" \\" for cells in (table.head, *table.rows)]
    lines.insert(1, r"\midrule")
    body = "\n".join([r"\toprule", *lines, r"\bottomrule"])
    return f"{FIT}{{%\n\\begin{{tabular}}{{{'l' * len(table.head)}}}\n{body}\n\\end{{tabular}}}}"


def floats(name: str, title: str, blocks: list[str]) -> str:
    """Every table among the blocks of one of `scripts/contents/` as a float with its footnotes; the runs are left out.

    Labels are `tab:<name>-1`, `tab:<name>-2`, ...
    """
    heading, found = "", []
    for block in blocks:
        if block.startswith("## "):
            heading = block.removeprefix("## ")
        elif isinstance(block, MarkdownTable) and heading != "Runs":
            caption = f"{title}. {heading}." if heading else f"{title}."
            found.append([
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{inline(caption)}}}",
                rf"\label{{tab:{name}-{len(found) + 1}}}",
                tabular(block),
                *([note(DAGGER)] if "†" in block else []),
            ])  # fmt: skip
        elif block.startswith("<sup>"):
            found[-1].append(note(block))
    head = "% Written by scripts/tables.py --latex; needs \\usepackage{booktabs,graphicx}"
    return "\n\n".join([head, *("\n".join([*lines, r"\end{table}"]) for lines in found)]) + "\n"


def note(markdown: str) -> str:
    return rf"\par\smallskip\footnotesize {inline(markdown)}"
