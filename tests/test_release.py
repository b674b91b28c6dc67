"""tools/release.py: nothing is built from files that disagree."""

import hashlib
import subprocess

import pytest

import tf_dpred
from tf_dpred.errors import Refused
from tools import release

CHANGELOG = (
    "# Changelog\n\n## 0.2.0 (2026-01-31)\n\n- A.\n\n## 0.1.0 (2025-12-01)\n\n- B.\n"
)
CITATION = 'title: x\nversion: 0.2.0\ndate-released: "2026-01-31"\nlicense: y\n'


def test_check__agreeing_files_give_the_notes_of_the_version():
    assert release.check("0.2.0", CHANGELOG, CITATION) == "- A."


@pytest.mark.parametrize(
    ("version", "changelog", "citation", "message"),
    [
        ("0.3.0", CHANGELOG, CITATION, "received '0.2.0 .*accepted: 0.3.0 with its"),
        ("0.2.0", CHANGELOG.replace("2026-01-31", "unreleased"), CITATION, "its date"),
        ("0.2.0", "# Changelog\n", CITATION, "accepted: a line '## VERSION"),
        ("0.2.0", CHANGELOG, "version: 0.1.0\n", "received 'version: 0.1.0'"),
        ("0.2.0", CHANGELOG, "version: 0.2.0\n", "date-released: nothing"),
    ],
)
def test_check__refuses(version, changelog, citation, message):
    with pytest.raises(Refused, match=message):
        release.check(version, changelog, citation)


def test_checksums__as_sha256sum_reads_them(tmp_path):
    (tmp_path / "a.whl").write_bytes(b"abc")
    text = release.checksums([tmp_path / "a.whl"])
    assert text == f"{hashlib.sha256(b'abc').hexdigest()}  a.whl\n"
    (tmp_path / "SHA256SUMS").write_text(text)
    subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=tmp_path, check=True)


def test_files_of_this_checkout_name_its_version():
    """But for the date, which a version has when it is released."""
    version, _, _ = release.section((release.CHECKOUT / "CHANGELOG.md").read_text())
    citation = (release.CHECKOUT / "CITATION.cff").read_text()
    assert version == tf_dpred.__version__
    assert f"\nversion: {version}\n" in citation
