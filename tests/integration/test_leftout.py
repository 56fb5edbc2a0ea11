"""What NeMo-Run imports and does not need for rendering is left out; the rendering is the same, and a mistake would be an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dispatcher.effects.compiler import CompilerProcess
from dispatcher.effects.leftout import LeftOut

PROGRAM = """
import json, sys, tempfile
from pathlib import Path
from dispatcher.effects import nemorun
job, without = json.loads(sys.argv[1]), frozenset(json.loads(sys.argv[2]))
nemorun.import_nemo_run(without)
with tempfile.TemporaryDirectory() as work:
    result = nemorun.compile_slurm(job, Path(work))
Path(sys.argv[3]).write_text(json.dumps({"result": result, "modules": sorted(sys.modules)}))
"""


def job(launcher: str, image: str | None) -> dict[str, object]:
    container = {"container_image": image, "container_mounts": ["/a:/b"], "srun_args": ["--mpi=pmix"]} if image else {"exclusive": True}
    executor = {"account": "ml", "partition": "batch", "nodes": 2, "ntasks_per_node": 1, "gpus_per_node": 8, "time": "00:05:00"}
    return {
        "run_key": "0123456789abcdef",
        "runs_dir": "/jobs/runs",
        "launcher": launcher,
        "script": "train.py",
        "module": "",
        "inline": "",
        "entrypoint": "python",
        "args": ["a=b c", "$(x) 'q'"],
        "torchrun_nproc_per_node": 8 if launcher == "torchrun" else None,
        "setup_lines": [". /x/env"],
        "executor": {**executor, **container},
    }


@pytest.mark.parametrize(("launcher", "image"), [("none", None), ("torchrun", "nvcr.io#nvidia/nemo:25.04")])
def test_rendering_is_the_same_with_and_without(launcher: str, image: str | None, tmp_path: Path) -> None:
    from dispatcher.effects.nemorun import NEVER_USED, NOT_FOR_RENDERING

    told = []
    for without in (NEVER_USED, NOT_FOR_RENDERING):
        out = tmp_path / "out"
        argv = [sys.executable, "-c", PROGRAM, json.dumps(job(launcher, image)), json.dumps(sorted(without)), str(out)]
        subprocess.run(argv, check=True, capture_output=True, cwd=Path(__file__).parents[2])
        told.append(json.loads(out.read_text()))
    assert told[0]["result"] == told[1]["result"]
    assert "torchrun" in told[0]["result"]["script"] or launcher == "none"
    # A name that NeMo-Run no longer imports would leave nothing out.
    assert not NOT_FOR_RENDERING - NEVER_USED - set(told[0]["modules"])
    assert len(told[1]["modules"]) < 0.6 * len(told[0]["modules"])


def test_one_process_renders_several_jobs() -> None:
    compiler = CompilerProcess()
    try:
        scripts = [compiler.compile(job("none", None) | {"run_key": key * 16}).script for key in "ab"]
    finally:
        compiler.close()
    assert ["a" * 16 in scripts[0], "b" * 16 in scripts[1]] == [True, True]


def test_a_job_may_be_sent_ahead_and_another_one_wanted_then() -> None:
    compiler = CompilerProcess()
    try:
        compiler.begin(job("none", None) | {"run_key": "a" * 16})
        assert "b" * 16 in compiler.compile(job("none", None) | {"run_key": "b" * 16}).script
        compiler.begin(job("none", None) | {"run_key": "c" * 16})
        assert "c" * 16 in compiler.compile(job("none", None) | {"run_key": "c" * 16}).script
    finally:
        compiler.close()


ENDED = """
import json, os, sys, time
from pathlib import Path
from dispatcher.effects.compiler import CompilerProcess
compiler = CompilerProcess()
compiler.begin(json.loads(sys.argv[1]))
while not list(Path(os.environ["TMPDIR"]).glob("**/dispatch-compile-*")):
    time.sleep(0.005)
compiler.close()
"""


def test_nothing_is_left_behind_by_one_that_is_ended_while_it_renders(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", ENDED, json.dumps(job("none", None))]
    subprocess.run(argv, check=True, cwd=Path(__file__).parents[2], env={**os.environ, "TMPDIR": str(tmp_path)}, timeout=60)
    assert list(tmp_path.iterdir()) == []


def test_a_stand_in_serves_imports_and_refuses_use() -> None:
    left_out = LeftOut({"nowhere", "json.nothing"})
    left_out.install()
    try:
        import nowhere.below as stand_in  # type: ignore[import-not-found]
        from nowhere import Class, function

        class Mine(Class):  # type: ignore[misc]
            field = stand_in.constant.of.some.kind
            made = Class(1, named=2)

        left_out.seal()
        with pytest.raises(ImportError, match=r"nowhere\.below\.other is needed after all"):
            stand_in.other  # noqa: B018
        with pytest.raises(ImportError, match=r"nowhere\.function is needed after all"):
            function()
        with pytest.raises(ImportError):
            Mine()
        assert left_out.find_spec("json", None) is None
        assert left_out.find_spec("nowhereelse", None) is None
    finally:
        sys.meta_path.remove(left_out)
        for name in [name for name in sys.modules if name.split(".")[0] == "nowhere"]:
            del sys.modules[name]
