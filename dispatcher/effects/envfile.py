"""Where a person's `env.toml` is, as Nemotron finds it: the file that `NEMOTRON_ENV_FILE` names, else the nearest one above.

https://github.com/NVIDIA-NeMo/Nemotron/blob/main/src/nemo_runspec/env.py
"""

from __future__ import annotations

from pathlib import Path

from dispatcher.errors import ConfigError
from dispatcher.profile import ENV_TOML
from dispatcher.untrusted import code


def find_env_file(start: Path, top: Path, named: str) -> str:
    """The file's path below `top`, the checkout's folder, else from the root; `env.toml` where there is none.

    Looked for from `start` up to the first folder with a `pyproject.toml`, then in `top`.

    Raises:
        ConfigError: `config.invalid` for a named file that is not there, or is no `.toml` file.
    """
    start, top = start.resolve(), top.resolve()
    if named:
        given = Path(named).expanduser()
        found = next((path for path in (start / given, top / given) if path.is_file()), None)
        if found is None or found.suffix != ".toml":
            words = f"`NEMOTRON_ENV_FILE` is {code(named)}, which is no `.toml` file seen from {start} or {top}."
            raise ConfigError("config.invalid", words, "Name the file of profiles by its path, or unset the variable.")
        return _below(found.resolve(), top)
    for folder in (start, *start.parents):
        if not folder.is_relative_to(top):
            break
        if (folder / ENV_TOML).is_file():
            return _below(folder / ENV_TOML, top)
        if (folder / "pyproject.toml").is_file():
            break
    return ENV_TOML


def _below(file: Path, top: Path) -> str:
    return file.relative_to(top).as_posix() if file.is_relative_to(top) else str(file)
