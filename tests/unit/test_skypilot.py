"""SkyPilot's profiles, the words of its API, and what is read in its logs."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dispatcher.clouds import SkypilotJobsProfile, SkypilotProfile
from dispatcher.cloudstates import observed
from dispatcher.effects.clouds.skypilot_log import exit_code, readable
from dispatcher.effects.clouds.skypilot_server import Tail, certain, is_a, words_of
from dispatcher.errors import ConfigError
from dispatcher.grammar import Malformed, Override
from dispatcher.launch import results_in, without_marks
from dispatcher.limits import asked_for, image_of
from dispatcher.ports import JobView
from dispatcher.profile import resolve_profile
from dispatcher.runprofile import apply_overrides
from dispatcher.slurm import State

H100 = {"gpus": "H100", "gpus_per_node": 8}


def profile(**fields: Any) -> SkypilotProfile:
    return SkypilotProfile.model_validate(fields)


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as raised:
        resolve_profile("c", {"profiles/c.yaml": text}, (), {})
    return raised.value.cause


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"infra": "aws", "cloud": "aws"}, "leave out `cloud`"),
        ({"infra": "aws", "zone": ["a", "b"]}, "leave out `zone`"),
        ({"instance_type": "p5.48xlarge"}, "`gpus_per_node` is missing"),
        ({"gpus_per_node": 8}, "`gpus` is missing"),
        ({"gpus": "H100", "gpus_per_node": 0}, "says that there is none"),
        ({"gpus": "H100:8"}, "how many is `gpus_per_node`"),
        ({"cpus": "many"}, "is not a number such as `8`"),
        ({"file_mounts": {"/data": "/home/runner/.aws"}}, "no folder of the runner is sent"),
        ({"file_mounts": {"/data": "~/.ssh"}}, "no folder of the runner is sent"),
        ({"storage_mounts": {"/data": {"source": "/etc", "store": "s3"}}}, "no folder of the runner is sent"),
        ({"storage_mounts": {"/data": {"name": "b", "source": "s3://b"}}}, "one of them"),
        ({"storage_mounts": {"/nemo_run/code": {"name": "b"}}}, "where the commit lies"),
        ({"file_mounts": {"/nemo_run": "s3://b"}}, "where the commit lies"),
        ({"cluster_name": "dispatch-0123456789abcdef"}, "not one of the dispatcher's own"),
        ({"cluster_name": "a b"}, "a SkyPilot cluster's name"),
        ({"api_server": "https://user:secret@sky.example.com"}, "without user and password"),
        ({"ports": "80; id"}, "a port such as"),
        ({"infra": "k8s/$(id)"}, "an infrastructure such as"),
        ({"idle_minutes_to_autostop": 1}, "greater than or equal to 5"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as raised:
        profile(**fields)
    assert expected in f"{raised.value} {raised.value.errors()[0].get('ctx', {}).get('error')!r} {found_in(raised.value)}"


def found_in(error: ValidationError) -> str:
    causes = [item.get("ctx", {}).get("error") for item in error.errors()]
    return " ".join(words for cause in causes for _, words in getattr(cause, "found", ()))


def test_lists_stay_lists_and_one_is_a_list_of_one() -> None:
    given = profile(cloud=["aws", "gcp"], use_spot=[True, False], cpus=8, memory="32+", disk_size=[100, 200])
    assert (given.cloud, given.use_spot, given.cpus, given.memory) == (("aws", "gcp"), (True, False), ("8",), ("32+",))
    assert given.disk_size == (100, 200)


@pytest.mark.parametrize(
    ("fields", "gpus"),
    [({}, 0), (H100, 8), ({"gpus": "H100"}, 1), ({"instance_type": "p5.48xlarge", "gpus_per_node": 8}, 8)],
)
def test_gpus_are_counted_as_nemo_run_asks_for_them(fields: dict[str, Any], gpus: int) -> None:
    asked = asked_for(profile(nodes=2, time="01:00:00", **fields))
    assert (asked.nodes, asked.gpus_per_node, asked.gpu_hours) == (2, gpus, 2.0 * gpus)


def test_the_policy_sees_the_image_and_not_skypilots_prefix() -> None:
    assert image_of(profile(container_image="docker:nvcr.io/nvidia/nemo:dev")) == "nvcr.io/nvidia/nemo:dev"
    assert image_of(profile()) is None


def test_each_server_and_each_shared_cluster_has_its_own_ledger() -> None:
    places = [{}, {"api_server": "https://sky.example.com"}, {"cluster_name": "team"}, {"cluster_name": "other"}]
    assert len({profile(**place).ledger_name for place in places}) == len(places)
    assert SkypilotJobsProfile().ledger_name.startswith("skypilot-jobs-")


@pytest.mark.parametrize("name", sorted(SkypilotProfile.FIXED))
def test_where_it_runs_and_what_it_reaches_is_no_commenters_choice(name: str) -> None:
    answer = apply_overrides(profile(**H100), [Override(f"run.{name}", "x")])
    assert isinstance(answer, Malformed)
    assert answer.reason_code == "not-here"


def test_how_much_is() -> None:
    changed = apply_overrides(profile(**H100), [Override("run.nodes", "4"), Override("run.gpus", "[H100,A100]")])
    assert isinstance(changed, SkypilotProfile)
    assert (changed.nodes, changed.gpus, changed.gpu_count) == (4, ("H100", "A100"), 32)


@pytest.mark.parametrize("name", sorted(SkypilotJobsProfile.REFUSED))
def test_what_nemo_run_has_and_we_have_not_says_why(name: str) -> None:
    assert f"`{name}` is not read: {SkypilotJobsProfile.REFUSED[name]}" in refused(f"executor: skypilot-jobs\n{name}: x\n")


def test_nemo_runs_name_for_nodes() -> None:
    found = resolve_profile("c", {"profiles/c.yaml": "executor: skypilot\nnum_nodes: 3\ncontainer: a/b:1\n"}, (), {})
    given = found.profile  # type: ignore[union-attr]
    assert isinstance(given, SkypilotProfile)
    assert (given.nodes, given.container_image) == (3, "a/b:1")


@pytest.mark.parametrize(
    ("executor", "word", "code", "state"),
    [
        ("skypilot", "INIT", None, State.PENDING),
        ("skypilot", "SETTING_UP", None, State.RUNNING),
        ("skypilot", "SUCCEEDED", None, State.SUCCEEDED),
        ("skypilot", "SUCCEEDED", 1, State.FAILED),
        ("skypilot", "FAILED", 3, State.FAILED),
        ("skypilot", "FAILED", 124, State.TIMEOUT),
        ("skypilot", "FAILED_DRIVER", None, State.NODE_FAIL),
        ("skypilot", "CANCELLED", None, State.CANCELLED),
        ("skypilot", "launching", None, State.PENDING),
        ("skypilot", "launch-failed", None, State.FAILED),
        ("skypilot", "cluster-init", None, State.UNKNOWN),
        ("skypilot", "SOMETHING_NEW", None, State.UNKNOWN),
        ("skypilot-jobs", "RECOVERING", None, State.PENDING),
        ("skypilot-jobs", "CANCELLING", None, State.RUNNING),
        ("skypilot-jobs", "FAILED_NO_RESOURCE", None, State.FAILED),
        ("skypilot-jobs", "FAILED_CONTROLLER", None, State.NODE_FAIL),
        ("skypilot-jobs", "", None, State.UNKNOWN),
    ],
)
def test_words(executor: str, word: str, code: int | None, state: State) -> None:
    assert observed(executor, JobView("dispatch-0123456789abcdef", word, exit_code=code)).state is state


WORKER = "(worker1, rank=1, pid=12, ip=10.0.0.3)"
MARK = "dispatch-results: e30="


@pytest.mark.parametrize(
    ("log", "shown", "results"),
    [
        (f"(dispatch-0123456789abcdef, pid=12) a\n(dispatch-0123456789abcdef, pid=12) {MARK}\n", "a\n", b"{}"),
        (f"\x1b[36m(head, rank=0, pid=12)\x1b[0m a\n(head, rank=0, pid=12) {MARK}\n", "a\n", b"{}"),
        (f"{WORKER} a\n{WORKER} {MARK}\n", f"{WORKER} a\n", None),
        (f"(somebody, pid=12) {MARK}\n", f"(somebody, pid=12) {MARK}\n", None),
        ("(dispatch-0123456789abcdef, pid=12) \n", "\n", None),
    ],
)  # fmt: skip
def test_a_log_is_what_the_head_node_wrote(log: str, shown: str, results: bytes | None) -> None:
    read = readable(log).encode()
    assert results_in(read) == results
    assert without_marks(read).decode() == shown


@pytest.mark.parametrize(
    ("log", "code"),
    [
        ("ERROR: \x1b[31mJob 1 failed with return code list:\x1b[0m [3] \n", 3),
        ("failed with return code list: [137, 1, 0]\n", 1),
        ("failed with return code list: [137, 137]\n", 137),
        ("failed with return code list: [1]\nfailed with return code list: [2]\n", 2),
        ("failed with return code list: []\n", None),
        ("all is well\n", None),
    ],
)
def test_the_exit_code_stands_in_the_log(log: str, code: int | None) -> None:
    assert exit_code(log) == code


def test_errors_are_told_by_what_they_derive_from() -> None:
    class ResourcesUnavailableError(Exception):
        pass

    class Later(ResourcesUnavailableError):
        pass

    class RequestException(OSError):
        pass

    class Garbled(RequestException, ValueError):
        pass

    assert certain(Later("no"))
    assert certain(ValueError("no"))
    assert not certain(Garbled("what"))
    assert not certain(ConnectionResetError())
    assert is_a(ConnectionResetError(), ("ConnectionError",))
    assert words_of(Later("\x1b[31mno\x1b[0m\n  machine")) == "no machine"
    assert words_of(Later()) == "Later"


def test_a_stream_keeps_the_newest_part() -> None:
    tail = Tail(limit=10)
    for number in range(100):
        tail.write(f"{number} ")
    assert tail.getvalue().endswith("98 99 ")
    assert len(tail.getvalue()) <= 20
