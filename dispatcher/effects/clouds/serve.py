"""JSON lines on standard input → an executor's API → JSON lines on standard output: the program that `cloud_process.py` starts.

The first line has the profile; each further one a verb and its words. Whatever the libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

LOG_LIMIT = 16 << 20

APIS: Mapping[str, str] = {
    "docker": "docker:DockerApi",
    "kubeflow": "kubeflow:KubeflowApi",
    "kuberay": "kuberay:KubeRayApi",
    "skypilot": "skypilot:SkypilotApi",
    "skypilot-jobs": "skypilot_jobs:SkypilotJobsApi",
    "dgxcloud": "dgxcloud:DgxCloudApi",
    "lepton": "lepton:LeptonApi",
}
"""Executor → module in this package and class."""


def answer(api: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """One request's answer."""
    words = {name: value for name, value in request.items() if name != "verb"}
    with tempfile.TemporaryDirectory(prefix="dispatch-work-") as folder:
        work = Path(folder)
        match request["verb"]:
            case "render":
                rendered = api.render(words["job"], work)
                return {"script": rendered.script, "files": dict(rendered.files)}
            case "launch":
                code = Path(words["code"]) if words["code"] else None
                return {"job_id": api.launch(words["job"], code, words["environment"], work)}
            case "find":
                return {"job_id": api.find(words["run_key"])}
            case "look":
                return {"jobs": [asdict(state) for state in api.look(words["job_ids"])]}
            case "log":
                return {"log": api.log(words["job_id"])[-LOG_LIMIT:]}
            case "cancel":
                return {"words": api.cancel(words["job_id"])}
            case "forget":
                api.forget(words["job_id"])
                return {}
            case "probe":
                return {"found": api.probe()}
            case verb:
                raise ValueError(f"there is no verb {verb!r}")


def answered(
    make: Callable[[Mapping[str, Any]], Any], profile: Mapping[str, Any], request: Mapping[str, Any], extra: str
) -> dict[str, Any]:
    """The same, with errors as values. A job brings its own profile: others of the same place share this process."""
    from dispatcher.effects.clouds.api import ApiError, RefusedError

    try:
        return answer(make(request["job"]["cloud"]["profile"] if "job" in request else profile), request)
    except RefusedError as refusal:
        return {"refused": str(refusal)}
    except ApiError as error:
        return {"error": str(error), "code": error.code}
    except ImportError as error:
        return {"error": f"`nemotron-dispatch[{extra}]` is not installed here: {error}", "code": "cloud.extra" if extra else "cloud.failed"}
    except (Exception, SystemExit) as error:  # NeMo-Run and some clients call sys.exit
        return {"error": f"{type(error).__name__}: {error}", "code": "cloud.failed"}


def main(executor: str, extra: str) -> int:
    """Answers until standard input ends."""
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    profile = json.loads(requests.readline())["profile"]
    made: dict[str, Any] = {}

    def make(fields: Mapping[str, Any]) -> Any:
        key = json.dumps(fields, sort_keys=True)
        if key not in made:
            module, name = APIS[executor].split(":")
            made[key] = getattr(import_module(f"dispatcher.effects.clouds.{module}"), name)(fields)
        return made[key]

    for line in requests:
        print(json.dumps(answered(make, profile, json.loads(line), extra)), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    # Isolated (-I), so that nothing of the current folder is ever imported: only our own folder is added.
    sys.path.insert(0, str(Path(__file__).parents[3]))
    raise SystemExit(main(sys.argv[1], sys.argv[2]))
