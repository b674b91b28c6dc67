"""The lines and exit codes that docs/what_can_go_wrong.md promises."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "what_can_go_wrong.md"
# What is another one every time: names, numbers, paths, signals, and reasons.
_VARIES = re.compile(
    r"'[^']*'|\((?:[^()]|\([^()]*\))*\)|(?<=\] )[A-Z][^:]*(?=:)|(?<=; )[A-Z].*"
    r"|SIG\w+|\w+\.jsonl?|[^\s;]+/[^\s;]+|\d+"
)


def entries() -> dict[str, tuple[int, list[str]]]:
    """Heading -> exit code, and the lines below it."""
    found = {}
    for part in PAGE.read_text().split("\n### ")[1:]:
        heading, _, text = part.partition("\n")
        text = text.partition("\n## ")[0]
        code = re.search(r"^Exit code (\d+)", text, re.MULTILINE)
        assert code is not None, heading
        lines = re.findall(r"^    (.*)$", text, re.MULTILINE)
        found[heading] = (int(code[1]), lines)
    return found


def is_documented(line: str, code: int) -> bool:
    """Whether the page has a line of this kind, with this exit code."""
    return any(
        re.fullmatch(_pattern(written), _without_time(line))
        for its_code, lines in entries().values()
        for written in lines
        if code == its_code
    )


def _pattern(line: str) -> str:
    return ".+?".join(map(re.escape, _VARIES.split(_without_time(line))))


def _without_time(line: str) -> str:
    return re.sub(r"^\d\d:\d\d:\d\d ", "", line)
