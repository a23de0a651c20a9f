"""Prints what an image installs besides impala-rl itself; run by the Dockerfiles.

    python requirements.py full EXTRAS     packages to install with their dependencies
    python requirements.py bare EXTRAS     packages to install without

Made from pyproject.toml alone, so that a change of code installs nothing again. EXTRAS are
names with commas between them, as in impala-rl[EXTRAS].
"""

from __future__ import annotations

import sys
import tomllib

NOT_IN_IMAGES = {"matplotlib"}
"""Draws the curves of `impala-eval --plot`, which is done where people look at them."""
BARE = {"minatar"}
"""The games alone are used; MinAtar's window asks for pandas, scipy and seaborn (250 MB)."""


def name_of(requirement: str) -> str:
    """Returns the name of the package a requirement is about, in lower case."""
    for position, character in enumerate(requirement):
        if character not in "-_." and not character.isalnum():
            return requirement[:position].lower()
    return requirement.lower()


def requirements(pyproject: str, kind: str, extras: str) -> list[str]:
    """Returns the lines of a requirements file."""
    with open(pyproject, "rb") as file:
        project = tomllib.load(file)["project"]
    wanted = list(project["dependencies"])
    for extra in filter(None, extras.split(",")):
        wanted += project["optional-dependencies"][extra]
    chosen = [line for line in wanted if name_of(line) not in NOT_IN_IMAGES]
    return [line for line in chosen if (name_of(line) in BARE) == (kind == "bare")]


if __name__ == "__main__":
    print("\n".join(requirements("pyproject.toml", sys.argv[1], sys.argv[2])))
