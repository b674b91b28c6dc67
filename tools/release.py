"""`make release`: the files of a version, if everything says that it is one.

Checks that no file differs from the commit, that `tf_dpred.__version__`, the first
heading of CHANGELOG.md ("## 0.2.0 (2026-01-31)", with a date) and CITATION.cff name one
version, and that no tag has it yet. Then builds the wheel and the source archive into
`dist/` and writes beside them `SHA256SUMS` and `NOTES.md`, the version's section of the
changelog. Publishes nothing: the last lines name the commands that do.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import tf_dpred
from tf_dpred.config import refuse
from tf_dpred.system import files, terminal

CHECKOUT = Path(__file__).resolve().parent.parent
HEADING = re.compile(r"^## (?P<version>\S+) \((?P<date>[^)]*)\)$", re.MULTILINE)
DATE = re.compile(r"\d{4}-\d\d-\d\d")


def section(changelog: str) -> tuple[str, str, str]:
    """The first section of a changelog -> version, what is in parentheses, text.

    Raises:
      Refused: there is no such heading.
    """
    headings = list(HEADING.finditer(changelog))
    if not headings:
        refuse("CHANGELOG.md", changelog[:20], "a line '## VERSION (DATE)'")
    first = headings[0]
    end = headings[1].start() if len(headings) > 1 else len(changelog)
    return first["version"], first["date"], changelog[first.end() : end].strip()


def check(version: str, changelog: str, citation: str) -> str:
    """Whether all agree -> the notes of the version.

    Args:
      version: of the package.
      changelog, citation: the texts of the two files.

    Raises:
      Refused: one of them names another version or date, or the changelog none.
    """
    told, date, notes = section(changelog)
    if told != version or not DATE.fullmatch(date):
        refuse("CHANGELOG.md", f"{told} ({date})", f"{version} with its date")
    for field, value in (("version", version), ("date-released", date)):
        found = re.search(rf"^{field}: \"?([^\"\n]*)\"?$", citation, re.MULTILINE)
        if found is None or found[1] != value:
            said = "nothing" if found is None else found[1]
            refuse("CITATION.cff", f"{field}: {said}", f"{field}: {value}")
    return notes


def checksums(paths: list[Path]) -> str:
    """Lines as `sha256sum --check` reads them."""
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return "".join(
        f"{digest}  {path.name}\n" for digest, path in zip(digests, paths, strict=True)
    )


def git(*arguments: str) -> str:
    command = ["git", "-C", str(CHECKOUT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(": ")[2])
    parser.parse_args()
    version = tf_dpred.__version__
    texts = [(CHECKOUT / name).read_text() for name in ("CHANGELOG.md", "CITATION.cff")]
    notes = check(version, *texts)
    if changed := git("status", "--porcelain"):
        refuse("checkout", changed.splitlines()[0].strip(), "no changed file")
    if git("tag", "--list", f"v{version}"):
        refuse("version", version, "one without a tag")
    dist = CHECKOUT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "build", str(CHECKOUT)], check=True)
    made = sorted(dist.iterdir())
    files.write_whole(dist / "SHA256SUMS", checksums(made))
    files.write_whole(dist / "NOTES.md", notes + "\n")
    print(f"\n{version}: {', '.join(path.name for path in sorted(dist.iterdir()))}")
    print(f"git tag -a v{version} -F dist/NOTES.md && git push --tags")
    print(f"python -m twine upload {' '.join(f'dist/{path.name}' for path in made)}")


if __name__ == "__main__":
    sys.exit(terminal.run("release", main))
