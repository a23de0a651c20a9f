"""Takes out the commands of a role that is not in this image; run by the Dockerfiles.

    python drop_commands.py FOLDER

FOLDER is what `pip install --target` made of a wheel built without some of the packages:
scripts in FOLDER/bin that would import a missing module go, and one line tells which stay.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def main(folder: Path) -> None:
    """Removes the scripts of missing modules; fails if none is left."""
    kept = []
    for script in sorted((folder / "bin").iterdir()):
        found = re.search(r"^from (impala_\w+)", script.read_text(), re.MULTILINE)
        if found is None or (folder / found[1]).is_dir():
            kept.append(script.name)
        else:
            script.unlink()
    if not kept:
        sys.exit(f"no command is left in {folder / 'bin'}")
    print("commands:", *kept)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
