"""An object store in a folder, ``uploads://``, for processes of the tests.

As in S3 what is put appears as a whole, an upload may be made to replace nothing, nothing can be
renamed or written in part, and no folder needs making.
"""

import os
import uuid
from pathlib import Path

from fsspec import register_implementation
from fsspec.implementations.local import LocalFileSystem


class Uploads(LocalFileSystem):
    """Keys are paths of files."""

    protocol = ("uploads",)

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("uploads://"))

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        """Put an object."""
        file = Path(self._strip_protocol(path))
        file.parent.mkdir(parents=True, exist_ok=True)
        part = Path(os.environ["UPLOADS"], uuid.uuid4().hex)
        part.write_bytes(value)
        if mode == "create":
            os.link(part, file)  # raises where there is one
            part.unlink()
        else:
            os.replace(part, file)

    def _refuse(self, *args, **kwargs):
        raise NotImplementedError

    open = mv = _refuse

    def cat_file(self, path, start=None, end=None, **kwargs):
        """An object."""
        return Path(self._strip_protocol(path)).read_bytes()[start:end]


register_implementation("uploads", Uploads, clobber=True)
