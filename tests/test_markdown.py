"""The Markdown tables of the program and of the tools."""

import pytest

from tf_dpred.system import markdown


def test_table__aligned_columns():
    assert markdown.table(["", "top-1"], [["online", "0.5"], ["a|b", "1"]]) == (
        "|        | top-1 |\n"
        "| ------ | ----- |\n"
        "| online | 0.5   |\n"
        r"| a\|b   | 1     |"
    )


def test_table__not_padded_where_its_lines_would_be_broken():
    def lengths(cell):
        lines = markdown.table(["a", "b"], [[cell, "y"], ["x", "y"]]).splitlines()
        return [len(line) for line in lines]

    assert lengths("x" * 90) == [100, 100, 100, 100]
    assert lengths("x" * 91) == [9, 13, 99, 9]


def test_table__refuses_ragged_rows():
    with pytest.raises(ValueError, match="zip"):
        markdown.table(["a", "b"], [["x"]])
