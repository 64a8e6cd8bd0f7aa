"""Files from Maven Central, as they lie in Maven's own cache."""

import os
import tempfile
from pathlib import Path

from apk import tools

# Named in full, so that no other version of the plugin is taken on another machine.
BUILD_CLASSPATH = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:build-classpath"


def files(pom: Path, scope: str) -> list[Path]:
    """The files of all dependencies of a pom, downloaded where Maven has not got them yet.

    Args:
        pom: The `pom.xml`.
        scope: `"compile"` (what is compiled against, `provided` ones included), `"runtime"` (what goes into the
            package) or `"test"` (everything).

    Raises:
        BuildError: If Maven is missing or cannot find something.
    """
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder) / "classpath"
        tools.run(
            "mvn", "-q", "-B", "-f", pom, BUILD_CLASSPATH, f"-DincludeScope={scope}", f"-Dmdep.outputFile={listing}"
        )
        return [Path(entry) for entry in listing.read_text().strip().split(os.pathsep)]


def find(paths: list[Path], artifact: str) -> Path:
    """The one file of an artifact, such as `dalvik-dx`, whatever its version."""
    found = [path for path in paths if path.parent.parent.name == artifact]
    if len(found) != 1:
        raise tools.BuildError(f"Expected one file of {artifact}. Received: {found}")
    return found[0]
