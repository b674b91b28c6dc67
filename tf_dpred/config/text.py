"""Text of others, as messages may show it."""

import unicodedata

# Control characters, surrogates (Python's stand-ins for bytes that are not UTF-8), line
# and paragraph separators.
_ESCAPED = ("Cc", "Cs", "Zl", "Zp")


def printable(path: str) -> str:
    """A path as it can be shown, on one line and in one column of a table.

    A byte that is not UTF-8 becomes \\udcXX, a tab \\t, a line break \\n.
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _ESCAPED
        else character
        for character in path
    )
