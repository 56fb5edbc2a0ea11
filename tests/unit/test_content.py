"""Each ingredient of a run alone makes another key: every field of every model, found by itself, and all that is no field."""

from __future__ import annotations

import types
import typing
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from dispatcher.content import PROFILE_NOT_CONTENT, RECIPE_NOT_CONTENT, content_key
from dispatcher.effects.edition import edition
from dispatcher.gittree import digest_of
from dispatcher.grammar import Run
from dispatcher.pipeline import Place
from dispatcher.plan import plan
from dispatcher.ports import FileEntry, Package
from dispatcher.profile import LocalProfile
from dispatcher.recipe import Recipe
from dispatcher.registry import EXECUTORS
from tests.fakes import FILES, HEAD, OTHER, Fakes, entry, overrides, package
from tests.unit.test_plan import GRANT, SLURM, TRAIN, slurm
from tests.unit.test_reuse import DONE, REUSING, asked, ended

OTHERWISE = "something else"


def packed(*files: FileEntry) -> Package:
    """With the digest that such a package really has."""
    return Package(HEAD, digest_of(files), files)


def told(fakes: Fakes, **given: Any) -> None:
    """From now on the process is told something else."""
    usual: dict[str, Any] = {"environment": {}, "rendering": ""}
    fakes.world = replace(fakes.world, settings=replace(fakes.world.settings, **{**usual, **given}))


def parts(annotation: Any) -> Iterator[tuple[type, type[BaseModel]]]:
    """The models in an annotation, each with the container that it stands in: tuple, dict, or the model itself."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType, typing.Annotated):
        for argument in arguments:
            yield from parts(argument)
    elif origin in (tuple, dict):
        for argument in arguments:
            yield from ((origin, model) for _, model in parts(argument))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, annotation


def whole(model: type[BaseModel]) -> BaseModel:
    """An instance in which each model that may be in it is there, whatever it takes to be valid."""
    given: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        found = next(parts(field.annotation), None)
        if found is not None:
            inner = whole(found[1])
            given[name] = (inner,) if found[0] is tuple else {"a": inner} if found[0] is dict else inner
        elif field.is_required():
            given[name] = "x"
        else:
            given[name] = field.get_default(call_default_factory=True)
    return model.model_construct(**given)


def changes(one: BaseModel, path: str = "") -> Iterator[tuple[str, BaseModel]]:
    """The same with one field changed, for each field, in the models that are in it, too."""
    for name in type(one).model_fields:
        value = getattr(one, name)
        if not isinstance(value, BaseModel):  # of which each field is another one
            yield f"{path}{name}", one.model_copy(update={name: OTHERWISE})
        inner = next(iter(value.values() if isinstance(value, dict) else value), None) if isinstance(value, tuple | dict) else value
        if isinstance(inner, BaseModel):
            for deeper, changed in changes(inner, f"{path}{name}."):
                wrapped = (changed,) if isinstance(value, tuple) else {"a": changed} if isinstance(value, dict) else changed
                yield deeper, one.model_copy(update={name: wrapped})


def key_of(profile: Any, recipe: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the values are of no type that the fields have
        return content_key(package(), profile, recipe, ())


@pytest.mark.parametrize("executor", EXECUTORS)
def test_every_field_of_a_profile_is_in_the_key_or_named_with_a_reason(executor: str) -> None:
    one = whole(EXECUTORS[executor])
    seen = {path: key_of(changed, TRAIN) for path, changed in changes(one)}
    excluded = {path for path in seen if path.partition(".")[0] in PROFILE_NOT_CONTENT}
    assert {path for path, key in seen.items() if key == key_of(one, TRAIN)} == excluded
    counted = [key for path, key in seen.items() if path not in excluded]
    assert len(set(counted)) == len(counted)


def test_every_field_of_a_recipe_is_in_the_key_or_named_with_a_reason() -> None:
    one = whole(Recipe)
    seen = {path: key_of(SLURM, changed) for path, changed in changes(one)}
    excluded = {path for path in seen if path.partition(".")[0] in RECIPE_NOT_CONTENT}
    assert {path for path, key in seen.items() if key == key_of(SLURM, one)} == excluded
    assert {"ft.workload_check_interval", "chain.jobs", "packager.subpath", "config.dir", "args", "launcher"} <= set(seen) - excluded


def test_what_is_excluded_exists_and_says_why() -> None:
    assert {name for name in PROFILE_NOT_CONTENT if all(name not in model.model_fields for model in EXECUTORS.values())} == set()
    assert set(RECIPE_NOT_CONTENT) <= set(Recipe.model_fields)
    assert all([*PROFILE_NOT_CONTENT.values(), *RECIPE_NOT_CONTENT.values()])


OTHERS: Mapping[str, dict[str, Any]] = {
    "another file": {"package": packed(entry("eval.py"), entry("train.py", "2"))},
    "a file more": {"package": packed(*FILES, entry("z.py"))},
    "a file less": {"package": packed(FILES[0])},
    "a file's name": {"package": packed(entry("evaluate.py"), FILES[1])},
    "a file's mode": {"package": packed(FILES[0], replace(FILES[1], mode="100755"))},
    "a link": {"package": packed(FILES[0], replace(FILES[1], mode="120000"))},
    "a value": {"overrides": overrides("a=1", "b=3")},
    "an override more": {"overrides": overrides("a=1", "b=2", "c=3")},
    "an override less": {"overrides": overrides("a=1")},
    "their order": {"overrides": overrides("b=2", "a=1")},
    "one twice": {"overrides": overrides("a=1", "b=2", "b=2")},
    "the partition": {"partition": "interactive"},
    "a configuration": {"config": "a: 1\n"},
    "another configuration": {"config": "a: 2\n"},
    "a mounted repository": {"mounts": ["https://x@1 at /a"]},
    "two of them": {"mounts": ["https://x@1 at /a", "https://x@1 at /b"]},
    "a secret": {"secrets": {"A": True}},
    "another secret": {"secrets": {"B": True}},
    "an empty secret": {"secrets": {"A": False}},
    "two secrets": {"secrets": {"A": True, "B": True}},
    "what renders": {"rendering": "next"},
    "our interpreter": {"interpreter": "/usr/bin/python3"},
    "a stage": {"stage": "full:sft"},
    "an explicit default": {"recipe": Recipe(script="train.py", results="results.json")},
}


def test_everything_else_alone_makes_another_key() -> None:
    usual: dict[str, Any] = {"package": packed(*FILES), "profile": SLURM, "recipe": TRAIN, "overrides": overrides("a=1", "b=2")}

    def key(**given: Any) -> str:
        said = {**usual, **given}
        return content_key(said.pop("package"), said.pop("profile"), said.pop("recipe"), said.pop("overrides"), **said)

    keys = {name: key(**given) for name, given in OTHERS.items()}
    assert len({key(), *keys.values()}) == len(OTHERS) + 1
    assert len(key()) == 64


def test_an_inline_text_that_names_its_program_is_not_one_that_does_not() -> None:
    """The one is run by python, the other by bash."""
    plain, named = Recipe(inline="echo 1"), Recipe(inline="echo 1", entrypoint="python")
    assert (plain.interpreter, named.interpreter) == ("bash", "python")
    assert content_key(package(), SLURM, plain, ()) != content_key(package(), SLURM, named, ())


def test_two_commits_that_pack_the_same_share_their_content() -> None:
    assert content_key(package(sha=HEAD), SLURM, TRAIN, ()) == content_key(package(sha=OTHER), SLURM, TRAIN, ())


def test_a_plan_hands_over_all_of_it() -> None:
    split = slurm(run_partition="fast", batch_partition="slow")

    def key(profile: Any = SLURM, attached: bool = False, python: str = "/py", **more: Any) -> str:
        return plan(GRANT, "p", profile, "r", TRAIN, overrides("a=1"), package(), "/jobs", attached, python, **more).content_key

    assert key(split, attached=True) != key(split, attached=False)
    assert key(SLURM, attached=True) == key(SLURM, attached=False)
    assert key(secrets={"A": "1"}) == key(secrets={"A": "2"}) != key(secrets={"B": "1"})
    assert key(rendering="1") != key(rendering="2")
    staged = [replace(GRANT, stage=Place("full", name, (), "afterok", Run())) for name in ("sft", "eval")]
    keys = {plan(grant, "p", SLURM, "r", TRAIN, (), package(), "/jobs", False, "/py").content_key for grant in (GRANT, *staged)}
    assert len(keys) == 3
    local = LocalProfile()
    assert (key(python="/a") == key(python="/b"), key(local, python="/a") == key(local, python="/b")) == (True, False)
    assert key() == content_key(package(), SLURM, TRAIN, overrides("a=1"), partition="batch")


def test_the_story_runs_again_where_the_order_of_overrides_is_another() -> None:
    fakes = Fakes(REUSING)
    ended(fakes, "/train loss=1 x=2", **DONE)
    assert asked(fakes, "/train x=2 loss=1") is None


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({}, {"environment": {"MY_SECRET": "abcdefgh"}}),
        ({"environment": {"MY_SECRET": "abcdefgh"}}, {}),
        ({"rendering": "1"}, {"rendering": "2"}),
    ],
)
def test_the_story_runs_again_with_other_secrets_or_another_release(first: dict[str, Any], then: dict[str, Any]) -> None:
    fakes = Fakes(REUSING + "secrets: [MY_SECRET]\n")
    told(fakes, **first)
    one = ended(fakes, **DONE)
    told(fakes, **then)
    assert asked(fakes) is None
    fakes.trace.steps.clear()
    told(fakes, **first)
    again = asked(fakes, comment=61)
    assert again is not None
    assert again.same_as == one.run_key


def test_another_release_is_another_word(tmp_path: Path) -> None:
    (tmp_path / "effects").mkdir()
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "effects/ray.sh").write_text("1")
    first = edition(tmp_path)
    assert (len(first), edition(tmp_path)) == (64, first)
    (tmp_path / "effects/ray.sh").write_text("2")
    second = edition(tmp_path)
    (tmp_path / "b.py").write_text("1")
    assert len({first, second, edition(tmp_path), edition()}) == 4
