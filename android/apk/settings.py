"""What Gradle and this build must agree on: `android/gradle.properties`."""

from dataclasses import dataclass
from pathlib import Path

from apk.tools import BuildError


@dataclass(frozen=True)
class Settings:
    """The entries of the file.

    Attributes:
        namespace: Package of the app.
        version_code: Number that grows with every release.
        version_name: Version for people.
        min_sdk: API level of the oldest Android that it runs on.
        target_sdk: API level whose behaviour it expects.
        abis: Processor architectures, as Android names them.
    """

    namespace: str
    version_code: int
    version_name: str
    min_sdk: int
    target_sdk: int
    abis: tuple[str, ...]


def read(path: Path) -> Settings:
    """Reads the file.

    Raises:
        BuildError: If an entry is missing or no number where one is expected.
    """
    lines = [line.split("=", 1) for line in path.read_text().splitlines() if "=" in line and not line.startswith("#")]
    entries = {key.strip(): value.strip() for key, value in lines}
    try:
        return Settings(
            namespace=entries["namespace"],
            version_code=int(entries["versionCode"]),
            version_name=entries["versionName"],
            min_sdk=int(entries["minSdk"]),
            target_sdk=int(entries["targetSdk"]),
            abis=tuple(entries["abis"].split(",")),
        )
    except (KeyError, ValueError) as error:
        raise BuildError(f"{path} is incomplete. Expected every entry. Received: {error}") from error
