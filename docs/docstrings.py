"""What docstrings say as plain text, as Markdown: equations, and lines that begin "#".

An extension of griffe for `mkdocs.yml`.
"""

import re

import griffe

# "dp = ...", "F <- ...": lines of their own, which Markdown would join.
EQUATION = re.compile(r"[\w^]+ (=|<-) .*")


class AsMarkdown(griffe.Extension):
    """Rewrites the docstring of every object."""

    def on_instance(self, *, obj: griffe.Object, **kwargs) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """Indents two or more equations in succession; escapes what is no heading."""
    lines = text.split("\n")
    result: list[str] = []
    for index, line in enumerate(lines):
        near = lines[max(index - 1, 0) : index] + lines[index + 1 : index + 2]
        if EQUATION.fullmatch(line) and any(map(EQUATION.fullmatch, near)):
            if result and result[-1] and not result[-1].startswith("    "):
                result.append("")
            result.append("    " + line)
            continue
        if line and result and result[-1].startswith("    ") and line[0] != " ":
            result.append("")
        result.append(re.sub("^#", r"\\#", line))
    return "\n".join(result)
