"""Makes stdin, stdout and stderr safe to use: closed ones, and encodings without some characters.

Called first in the command's `main`. A small form of impala_common.process.standard_streams, which
neither thin actors nor the conformance kit may import; both have this file. Standard library only.
"""

from __future__ import annotations

import io
import os
import sys


def prepare_standard_streams() -> None:
    """Opens closed streams as /dev/null; characters that cannot be encoded become escapes.

    A closed descriptor 0 to 2 would otherwise be given to the next file or socket, and messages
    would be written into it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(descriptor, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)  # as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
