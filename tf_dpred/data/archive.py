"""The images of a zip archive."""

from __future__ import annotations

import zipfile
from pathlib import Path

from tf_dpred.config import refuse
from tf_dpred.data import zipped
from tf_dpred.data.listing import Names

_LINK, _KIND = 0o120000, 0o170000


class Archive(Names):
    """The images of a zip archive, or of a directory in it.

    Args:
      path: of the archive.
      below: the directory; "" for all.

    Raises:
      Refused: it is none that can be read.
    """

    def __init__(self, path: Path, below: str = ""):
        super().__init__(path / below)
        try:
            opened = zipped.open_archive(str(path))
        except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            accepted = f"a zip archive that can be read ({reason})"
            refuse("data_dir", str(path), accepted)
        prefix = f"{below}/" if below else ""
        known = set()
        for name, info in opened.entries:
            if not name.startswith(prefix):
                continue
            found = name.removeprefix(prefix)
            if reason := self._why_not(found, info):
                self._note(reason, found)
            elif found in known:
                self._note("listed twice", found)
            else:
                known.add(found)
                self.add(found, info.file_size)
        self.finish()

    def _why_not(self, name: str, info: zipfile.ZipInfo) -> str:
        if not self.may_be_image(name):
            return ""  # whatever it is
        if name.startswith("/") or ".." in name.split("/"):
            return "names that lead out of the archive"
        if info.flag_bits & zipped.ENCRYPTED:
            return "encrypted"
        if (info.external_attr >> 16) & _KIND == _LINK:
            return "links"
        if info.compress_type not in zipped.METHODS:
            return "compressed in a way that is not known"
        return ""
