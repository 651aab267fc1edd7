"""Tables as LaTeX, for the packages booktabs and graphicx (and UTF-8, which LaTeX reads by default)."""

import re

from scripts.rendering import MarkdownTable

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
    """Every table among the blocks of one of `scripts/tables.py` as a float, its runs aside; `tab:<name>-<number>`."""
    heading, found = "", []
    for block in blocks:
        if block.startswith("## "):
            heading = block.removeprefix("## ")
        elif isinstance(block, MarkdownTable) and heading != "Runs":
            caption = inline(f"{title}. {heading}." if heading else f"{title}.")
            label = f"tab:{name}-{len(found) + 1}"
            found.append(
                f"\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n\\label{{{label}}}\n"
                f"{tabular(block)}\n\\end{{table}}\n"
            )
    return "% Written by scripts/tables.py --latex; needs \\usepackage{booktabs,graphicx}\n\n" + "\n".join(found)
