"""Images by name → where they lie as squash files, what enroot is asked for, what travels, and what the job starts from."""

from __future__ import annotations

import re

import pytest

from dispatcher.configuration import read_policy
from dispatcher.content import content_key
from dispatcher.errors import ConfigError
from dispatcher.grammar import Malformed, Override
from dispatcher.profile import resolve_profile
from dispatcher.recipe import Recipe
from dispatcher.record import parse_record
from dispatcher.runprofile import apply_overrides
from dispatcher.slurm import State
from dispatcher.squash import Squash, enroot_uri, import_failure, import_files, squash_file, started_from
from dispatcher.watching import watch
from tests.fakes import Fakes, run_record
from tests.unit.test_plan import planned, slurm
from tests.unit.test_profile import BASE

HEX = "0123456789abcdef" * 4
CACHE = "/lustre/images"


@pytest.mark.parametrize(
    ("image", "uri"),
    [
        ("ubuntu", "docker://ubuntu"),
        ("ubuntu:24.04", "docker://ubuntu:24.04"),
        ("nvidia/cuda:12.4", "docker://nvidia/cuda:12.4"),
        ("nvcr.io/nvidia/nemo:25.04", "docker://nvcr.io#nvidia/nemo:25.04"),
        ("nvcr.io#nvidia/nemo:25.04", "docker://nvcr.io#nvidia/nemo:25.04"),
        ("registry.example.com:5000/a/b", "docker://registry.example.com:5000#a/b"),
        ("localhost/a", "docker://localhost#a"),
        ("docker.io/library/ubuntu:24.04", "docker://library/ubuntu:24.04"),
        (f"nvcr.io/nvidia/nemo@sha256:{HEX}", f"docker://nvcr.io#nvidia/nemo:sha256:{HEX}"),
        (f"nvcr.io/nvidia/nemo:25.04@sha256:{HEX}", f"docker://nvcr.io#nvidia/nemo:sha256:{HEX}"),
        (f"registry:5000/nemo:25.04@sha256:{HEX}", f"docker://registry:5000#nemo:sha256:{HEX}"),
        (f"registry:5000/nemo@sha256:{HEX}", f"docker://registry:5000#nemo:sha256:{HEX}"),
        ("docker://me@nvcr.io#nvidia/nemo:25.04", "docker://me@nvcr.io#nvidia/nemo:25.04"),
        ("dockerd://mine:latest", "dockerd://mine:latest"),
    ],
)
def test_what_enroot_is_asked_for(image: str, uri: str) -> None:
    assert enroot_uri(image) == uri


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("nvcr.io/nvidia/nemo:25.04", r"nemo-25\.04-[0-9a-f]{32}"),
        ("nvcr.io#nvidia/nemo:25.04", r"nemo-25\.04-[0-9a-f]{32}"),
        ("nvcr.io#nemo", r"nemo-[0-9a-f]{32}"),
        (f"nvcr.io/nvidia/nemo@sha256:{HEX}", f"nemo-sha256-{HEX}"),
        (f"nvcr.io/nvidia/nemo:25.04@sha256:{HEX}", f"nemo-25.04-sha256-{HEX}"),
        ("a/..", "image-[0-9a-f]{32}"),
        ("a/", "a-[0-9a-f]{32}"),
    ],
)
def test_where_an_image_lies(image: str, name: str) -> None:
    file = squash_file(image, CACHE + "/")
    assert re.fullmatch(rf"{CACHE}/{name}\.sqsh", file)
    assert started_from(image, Squash(cache=CACHE)) == file


def test_names_that_differ_lie_apart() -> None:
    images = ("nvcr.io/nvidia/nemo:25.04", "nvcr.io/nvidia/nemo:25.05", "mine/nemo:25.04", "mine/nemo", "a/b-c", "a-b/c", "a:b-c")
    assert len({squash_file(image, CACHE) for image in images}) == len(images)


@pytest.mark.parametrize("image", ["/lustre/images/nemo.sqsh", "/images/nemo", "images/x.sqsh"])
def test_a_file_is_used_as_it_is(image: str) -> None:
    assert started_from(image, Squash(cache=CACHE)) == image
    assert import_files((image,), Squash(cache=CACHE)) == ()
    job = planned(slurm(container_image=image, squash=CACHE))
    assert job.for_compiler()["executor"]["container_image"] == image  # type: ignore[index]
    assert not [line for line in job.for_compiler()["setup_lines"] if "image.sh" in line]  # type: ignore[attr-defined]


def test_without_a_cache_the_image_is_pyxis_business() -> None:
    image = "nvcr.io/nvidia/nemo:25.04"
    assert planned(slurm(container_image=image)).for_compiler()["executor"]["container_image"] == image  # type: ignore[index]
    assert import_files((image,), None) == ()
    assert import_files((), Squash(cache=CACHE)) == ()


def test_what_travels_and_what_the_script_says() -> None:
    image, other = "nvcr.io/nvidia/nemo:25.04", f"loader@sha256:{HEX}"
    groups = [{}, {"container_image": other}, {"container_image": "/images/x.sqsh"}]
    profile = slurm(container_image=image, squash={"cache": CACHE, "on": "login"}, het_groups=groups, setup_lines=["module load enroot"])
    job = planned(profile, Recipe(script="train.py"))
    program, listed = import_files(profile.images, profile.squash)
    assert (program.path, program.mode, listed.path) == ("image.sh", 0o700, "images")
    assert program.content.startswith(b"# A list of images")
    first, second = squash_file(image, CACHE), squash_file(other, CACHE)
    assert listed.content.decode().splitlines() == [
        "login",
        f"docker://nvcr.io#nvidia/nemo:25.04 {first}",
        f"docker://loader:sha256:{HEX} {second}",
    ]
    described = job.for_compiler()
    lines = described["setup_lines"]
    assert lines[-2:] == ["module load enroot", f"sh {job.run_dir}/image.sh {job.run_dir}/images job || exit"]  # type: ignore[index]
    assert described["executor"]["container_image"] == first  # type: ignore[index]
    assert [group["executor"]["container_image"] for group in described["groups"]] == [first, second, "/images/x.sqsh"]  # type: ignore[attr-defined]
    assert job.container_image == image


def test_where_it_lies_is_not_what_it_computes() -> None:
    recipe = Recipe(script="train.py")
    keys = {
        content_key(planned().package, slurm(container_image="a", squash=squash), recipe, ())
        for squash in (None, CACHE, {"cache": CACHE, "on": "login"})
    }
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("squash: images", "is not an absolute path"),
        ("squash: /a b", "is not an absolute path"),
        ("squash: { on: job }", "`squash.cache` is missing"),
        ("squash: { cache: /a, on: node }", "`squash.on` should be 'job' or 'login'"),
        ("squash: { cache: /a, onn: job }", "did you mean `on`?"),
        ("het_groups: [{}, { container_image: b }]", "needs a `container_image` of the profile"),
    ],
)
def test_what_cannot_be(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        resolve_profile("c", {"profiles/c.yaml": f"{BASE}{text}\n"}, (), {})
    assert words in raised.value.cause


def test_a_table_and_a_path_and_what_a_comment_may_not_say() -> None:
    assert slurm(squash=CACHE).squash == slurm(squash={"cache": CACHE}).squash == Squash(cache=CACHE, on="job")
    answer = apply_overrides(slurm(), [Override("run.squash", "/tmp/x")])
    assert isinstance(answer, Malformed)
    assert answer.reason_code == "not-here"


SAID = "the image docker://nvcr.io#a:1 could not be imported: enroot ended with status 1 on n1; its own words are in the log."


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (f"dispatch: importing docker://nvcr.io#a:1\n[ERROR] 401\ndispatch: {SAID}\n", SAID),
        (f"dispatch: {SAID}", SAID),
        (f"echo dispatch: {SAID}\n", ""),
        ("dispatch: importing docker://nvcr.io#a:1\n", ""),
        ("", ""),
    ],
)
def test_why_an_image_could_not_be_imported(log: str, reason: str) -> None:
    assert import_failure(log) == reason
    fakes = Fakes()
    fakes.cluster.add(run_record(), "running", "FAILED", log=log.encode())
    watch(fakes.world, read_policy(fakes.world))
    record = parse_record(fakes.cluster.runs[run_record().run_key].record)
    assert (record.state, record.reason) == (State.FAILED, reason)
    assert ("Reason: the image docker:" in fakes.forge.bodies[-1]) == bool(reason)
