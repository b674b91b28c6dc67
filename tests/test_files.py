"""How files are named in messages."""

import pytest

from tf_dpred.system.files import printable


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("a b/c-1.jpg", "a b/c-1.jpg"),
        ("Fotos/\u732b\u3000\xe9.jpg", "Fotos/\u732b\u3000\xe9.jpg"),
        ("back\\slash", "back\\slash"),
        ("\udcfe.jpg", r"\udcfe.jpg"),
        ("a\tb\nc\rd\x1b[1m\x85", r"a\tb\nc\rd\x1b[1m\x85"),
        ("\u2028\u2029", r"\u2028\u2029"),
    ],
)
def test_printable__one_line_of_text(path, shown):
    assert printable(path) == shown
