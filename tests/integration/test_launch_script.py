"""The script that an API's job starts, in a real bash: an inline recipe is a file there too, with its arguments, its end, its results."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from dispatcher.effects.clouds.program import launch_script
from dispatcher.launch import results_in

INLINE = """\
printf '%s|' "$0" "$@" '$HOME' `echo "it's"`
echo '{"loss": 1}' >out.json
exit 7
"""


@pytest.mark.parametrize("seconds", [0, 60])
def test_an_inline_recipe_behind_an_api(tmp_path: Path, seconds: int) -> None:
    cloud = {"results": "out.json", "seconds": seconds, "setup_lines": ["export FROM_SETUP=1"]}
    job = {"run_key": "0123456789abcdef", "inline": INLINE, "cloud": cloud}
    script = tmp_path / "launch.sh"
    script.write_text(launch_script(job, ["bash", "/nemo_run/scripts/inline", "'a b'", "'$c'"], str(tmp_path)))
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    assert done.stdout.startswith(f"{tmp_path}/scripts/inline|a b|$c|$HOME|it's|")
    assert json.loads(results_in(done.stdout.encode()) or b"") == {"loss": 1}
    assert (tmp_path / "scripts" / "inline").read_text() == INLINE
    assert [path.name for path in (tmp_path / "scripts").iterdir()] == ["inline"]
