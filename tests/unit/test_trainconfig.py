"""A commit's configuration files × a choice × overrides → one table, or why there is none; and nothing of the runner's environment."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dispatcher.configlayers import FILES_LIMIT
from dispatcher.errors import ConfigError
from dispatcher.grammar import Override
from dispatcher.recipe import Recipe
from dispatcher.trainconfig import Composed, RecipeConfig, compose
from tests.fakes import overrides
from tests.hostile import FAMILIES

SPEC = RecipeConfig(dir="conf")


def composed(files: Mapping[str, str], *words: str, spec: RecipeConfig = SPEC, root: str = "") -> Composed:
    return compose(spec, root, overrides(*words), files.get, tuple(files))


def tree(files: Mapping[str, str], *words: str) -> Mapping[Any, Any]:
    return composed(files, *words).tree


def refused(files: Mapping[str, str], *words: str, spec: RecipeConfig = SPEC) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        composed(files, *words, spec=spec)
    return caught.value


# --------------------------------------------------------------------------- which file


@pytest.mark.parametrize(
    ("spec", "root", "word", "path"),
    [
        ({"dir": "conf"}, "", None, "conf/default.yaml"),
        ({"dir": "conf"}, "", "tiny", "conf/tiny.yaml"),
        ({"dir": "conf"}, "", "old", "conf/old.yml"),
        ({"dir": "conf"}, "", "tiny.yaml", "conf/tiny.yaml"),
        ({"dir": "conf"}, "", "sdg/default", "conf/sdg/default.yaml"),
        ({"dir": "conf"}, "", "other/x.yaml", "other/x.yaml"),
        ({"dir": "conf", "default": "tiny"}, "", None, "conf/tiny.yaml"),
        ({"dir": "conf"}, "src", None, "src/conf/default.yaml"),
        ({"dir": "conf"}, "src", "other/x.yaml", "src/other/x.yaml"),
        ({}, "", "top", "top.yaml"),
        ({"dir": "conf", "format": "json"}, "", "data", "conf/data.json"),
    ],
)
def test_which_file_is_read(spec: dict[str, str], root: str, word: str | None, path: str) -> None:
    names = ("conf/default.yaml", "conf/tiny.yaml", "conf/old.yml", "conf/sdg/default.yaml", "other/x.yaml", "top.yaml", "conf/data.json")
    files = {name: '{"here": "' + name + '"}' for name in (*names, "src/conf/default.yaml", "src/other/x.yaml")}
    found = composed(files, *([f"config={word}"] if word else []), spec=RecipeConfig.model_validate(spec), root=root)
    assert (found.tree["here"], found.files) == (path, (path,))


@pytest.mark.parametrize(
    ("written", "folder", "default", "form"),
    [
        ("configs/train.yaml", "configs", "train.yaml", "omegaconf"),
        ("train.yaml", "", "train.yaml", "omegaconf"),
        ("a/b/train.json", "a/b", "train.json", "json"),
    ],
)
def test_a_recipe_may_name_just_the_file(written: str, folder: str, default: str, form: str) -> None:
    config = Recipe.model_validate({"script": "train.py", "config": written}).config
    assert config == RecipeConfig(dir=folder, default=default, format=form)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "config",
    [
        "../x.yaml",
        "/etc/passwd",
        "a b.yaml",
        {"dir": "../conf"},
        {"option": "config"},
        {"option": "--config x"},
        {"format": "toml"},
        {"x": 1},
    ],
)
def test_a_recipe_cannot_name_anything_else(config: object) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate({"script": "train.py", "config": config})


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("config=tinny", "Did you mean **`config=tiny`**"),
        ("config=zzz", "There are: `default`, `tiny`"),
        ("config=../secret", "is not a configuration's name"),
        ("config=/etc/passwd", "is not a configuration's name"),
        ("config=a b", "is not a configuration's name"),
    ],
)
def test_one_that_is_not_there(word: str, words: str) -> None:
    assert words in refused({"conf/default.yaml": "", "conf/tiny.yaml": ""}, word).cause


# --------------------------------------------------------------------------- merging

BASE = {"conf/base.yaml": "a: 1\nt:\n  x: 1\n  y: [1, 2]\n"}


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        ("defaults: base\na: 2\n", {"a": 2, "t": {"x": 1, "y": [1, 2]}}),
        ("defaults: [base]\nt: {y: [3]}\n", {"a": 1, "t": {"x": 1, "y": [3]}}),
        ("defaults: [base, more]\n", {"a": 5, "t": {"x": 1, "y": [1, 2]}}),
        ("defaults: [more, base]\n", {"a": 1, "t": {"x": 1, "y": [1, 2]}}),
        # The file itself stands last, or where it says.
        ("defaults: [base]\na: 2\n", {"a": 2, "t": {"x": 1, "y": [1, 2]}}),
        ("defaults: [_self_, base]\na: 2\nb: 3\n", {"a": 1, "b": 3, "t": {"x": 1, "y": [1, 2]}}),
        ("defaults: [base.yaml]\n", {"a": 1, "t": {"x": 1, "y": [1, 2]}}),
        ("defaults: ../shared/far\n", {"a": 9}),
        ("defaults: [{model: big}]\n", {"model": {"layers": 10}}),
        ("defaults: [{model/part: one}]\n", {"model": {"part": {"k": 1}}}),
        ("defaults: [nested]\n", {"a": 1, "n": 1, "t": {"x": 7, "y": [1, 2]}}),
        ("defaults: []\na: 1\n", {"a": 1}),
        ("defaults:\na: 1\n", {"a": 1}),
        ("defaults: [base]\nt: null\n", {"a": 1, "t": None}),
        ("x: 1e-4\ny: on\nz: 2024-01-01\nw: 0x10\n", {"x": 1e-4, "y": True, "z": "2024-01-01", "w": 16}),
        ("common: &c {lr: 1}\nown:\n  <<: *c\n  n: 2\n", {"common": {"lr": 1}, "own": {"lr": 1, "n": 2}}),
        ("", {}),
    ],
)
def test_defaults(top: str, expected: object) -> None:
    files = {
        **BASE,
        "conf/default.yaml": top,
        "conf/more.yaml": "a: 5\n",
        "conf/nested.yaml": "defaults: base\nn: 1\nt: {x: 7}\n",
        "conf/model/big.yaml": "layers: 10\n",
        "conf/model/part/one.yaml": "k: 1\n",
        "shared/far.yaml": "a: 9\n",
    }
    assert tree(files) == expected


@pytest.mark.parametrize(
    ("top", "words"),
    [
        ("defaults: [base, {a: b, c: d}]\n", "none of these"),
        ("defaults: [{override /model: big}]\n", "none of these"),
        ("defaults: [{optional model: big}]\n", "none of these"),
        ("defaults: [{model@x: big}]\n", "none of these"),
        ("defaults: [{model: null}]\n", "none of these"),
        ("defaults: [1]\n", "none of these"),
        ("defaults: ['${x}']\n", "none of these"),
        ("defaults: {a: {b: 1}}\n", "none of these"),
        ("defaults: [../../x]\n", "leads out of the repository"),
        ("defaults: [/etc/passwd]\n", "leads out of the repository"),
        ("defaults: [default]\n", "in a circle: `conf/default.yaml` → `conf/default.yaml`"),
        ("defaults: [loop]\n", "in a circle: `conf/default.yaml` → `conf/loop.yaml` → `conf/default.yaml`"),
        ("defaults: [nowhere]\n", "names `conf/nowhere` under `defaults`, which is not in the commit"),
        ("a: 1\na: 2\n", "duplicate key"),
        ("a: ${\n", "cannot read it"),
        ("run: text\n", "`run` is about the job"),
        ("null: 1\n", "cannot read it"),
        ("a: " + "9" * 5000, "cannot read it"),
        ("a: '" + "${x}" * 1000 + "'", "more than 2,000 characters"),
    ],
)
def test_what_cannot_be_merged(top: str, words: str) -> None:
    found = refused({**BASE, "conf/default.yaml": top, "conf/loop.yaml": "defaults: default\n"})
    assert words in found.cause
    assert "conf/default.yaml" in found.cause


def test_many_files_are_bounded_as_one_is() -> None:
    many = {f"conf/f{n}.yaml": "" for n in range(FILES_LIMIT + 5)}
    assert (
        "more than 20 files are merged"
        in refused({**many, "conf/default.yaml": f"defaults: [{', '.join(f'f{n}' for n in range(25))}]\n"}).cause
    )
    # Few files, each of which names another many times.
    levels = {f"conf/l{n}.yaml": "defaults: [" + ", ".join([f"l{n + 1}"] * 50) + "]\n" for n in range(6)}
    begun = time.monotonic()
    assert "more than 20 files" in refused({**levels, "conf/l6.yaml": "a: 1\n", "conf/default.yaml": "defaults: l0\n"}).cause
    big = f"a: [{', '.join('1' * 2000)}]\n"
    more = {f"conf/b{n}.yaml": big for n in range(8)}
    top = f"defaults: [{', '.join(f'b{n}' for n in range(8))}]\n"
    assert "more than 10,000 values" in refused({**more, "conf/default.yaml": top}).cause
    assert time.monotonic() - begun < 10


# --------------------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a=2", {"a": 2, "t": {"x": 1, "y": [1, 2]}}),
        ("t.x=1e-3", {"a": 1, "t": {"x": 1e-3, "y": [1, 2]}}),
        ("t.y=[3,4]", {"a": 1, "t": {"x": 1, "y": [3, 4]}}),
        ("t.y[1]=7", {"a": 1, "t": {"x": 1, "y": [1, 7]}}),
        ("t={x: 5}", {"a": 1, "t": {"x": 5, "y": [1, 2]}}),
        ("n.k=v", {"a": 1, "t": {"x": 1, "y": [1, 2]}, "n": {"k": "v"}}),
        ("a=null", {"a": None, "t": {"x": 1, "y": [1, 2]}}),
        ("a=a=b", {"a": "a=b", "t": {"x": 1, "y": [1, 2]}}),
        ("a=$(touch pwned)", {"a": "$(touch pwned)", "t": {"x": 1, "y": [1, 2]}}),
        ("a=", {"a": None, "t": {"x": 1, "y": [1, 2]}}),
        # The profile's, and not for the script.
        ("run.nodes=4", {"a": 1, "t": {"x": 1, "y": [1, 2]}}),
    ],
)
def test_overrides_come_last(word: str, expected: object) -> None:
    assert tree({"conf/default.yaml": BASE["conf/base.yaml"]}, word) == expected


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("t.y[9]=1", "out of range"),
        ("a=[1", "flow sequence"),
        ("a=*x", "undefined alias"),
        ("a=!!python/name:os.system", "tags"),
        ("a=&x [*x]", "inside of what it names"),
        ("ref.k=1", "a table cannot be merged"),
        ("ref.k.l=1", "a table cannot be merged"),
    ],
)
def test_what_cannot_be_set(word: str, words: str) -> None:
    found = refused({"conf/default.yaml": BASE["conf/base.yaml"] + "ref: ${t}\n"}, word)
    assert words in found.cause.replace("`", "")
    assert word.partition("=")[0].partition(".")[0] in found.cause


def test_keys_that_no_file_has_are_named() -> None:
    found = composed({"conf/default.yaml": BASE["conf/base.yaml"]}, "t.x=2", "t.itres=3", "t.y[0]=3")
    assert found.added == ("t.itres",)


def test_several_overrides_in_their_order() -> None:
    assert tree({"conf/default.yaml": "a: 1\n"}, "b.c=1", "b.c=2", "b.d=3") == {"a": 1, "b": {"c": 2, "d": 3}}


# --------------------------------------------------------------------------- the runner's environment


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:PATH}",
        "x${oc.env:PATH}y",
        "${oc.create:{k: ${oc.env:PATH}}}",
        "${oc.decode:${oc.env:PATH}}",
        "${art:data,path}",
        "${.b}",
        "\\${x}",
        "${unknown:1}",
    ],
)
def test_no_interpolation_is_evaluated(value: str) -> None:
    files = {"conf/base.yaml": f"a: '{value}'\nb: [1, '{value}']\n", "conf/default.yaml": "defaults: base\nc: 1\n"}
    assert tree(files, "d=1") == {"a": value, "b": [1, value], "c": 1, "d": 1}


@pytest.mark.parametrize("value", ["${oc.create:{k: ${oc.env:PATH}}}", "${t}", "${oc.decode:'{k: 1}'}"])
def test_a_table_over_a_reference_is_refused_because_merging_would_evaluate_it(value: str) -> None:
    files = {"conf/base.yaml": f'a: "{value}"\nt: {{k: 1}}\n', "conf/default.yaml": "defaults: base\na: {l: 2}\n"}
    assert "a table cannot be merged" in refused(files).cause


def test_omegaconf_alone_would_have_evaluated_it() -> None:
    """What the two tests above guard against: should OmegaConf change this, they guard nothing."""
    from omegaconf import OmegaConf

    merged = OmegaConf.merge(OmegaConf.create({"a": "${oc.create:{k: ${oc.env:PATH}}}"}), OmegaConf.create({"a": {"l": 1}}))
    assert OmegaConf.to_container(merged, resolve=False) == {"a": {"k": os.environ["PATH"], "l": 1}}


words = st.text(st.sampled_from("abc:{}[]$&*!?|>%@`\"'#,-. \n\t\\0"), max_size=60)


@settings(max_examples=150, deadline=None)
@given(words, words, words)
def test_any_text_is_a_table_or_the_coded_error(top: str, base: str, value: str) -> None:
    files = {"conf/default.yaml": "defaults: base\n" + top, "conf/base.yaml": base}
    with suppress(ConfigError):
        assert isinstance(composed(files, "a.b=" + value.replace("${", "").replace("\n", "")).tree, dict)


PAYLOADS = [payload for family in FAMILIES.values() for payload in family if len(payload) < 2000]


def test_hostile_text_is_text() -> None:
    """As a value in quotes it stays what it is, as a file of its own it is read or refused with a code."""
    for payload in PAYLOADS:
        if payload.isprintable() and "${" not in payload:
            written = "'" + payload.replace("'", "''") + "'"
            assert tree({"conf/base.yaml": f"a: {written}\n", "conf/default.yaml": "defaults: base\n"}) == {"a": payload}, payload
        for text in (payload, f"a: {payload}", f"{payload}: 1", f"defaults: {payload}", f"defaults:\n- {payload}"):
            try:
                found = composed({"conf/default.yaml": text})
            except ConfigError as error:
                told = (error.code in ("config.syntax", "config.invalid", "config.no-config"), "conf/default.yaml" in error.cause)
                if told != (True, True):
                    raise
            else:
                assert isinstance(found.tree, dict)


def test_a_hostile_choice_names_no_file_elsewhere() -> None:
    read: list[str] = []

    def nothing(path: str) -> str | None:
        read.append(path)
        return None

    for payload in PAYLOADS:
        with pytest.raises(ConfigError):
            compose(SPEC, "", (Override("config", payload),), nothing, ())
    assert read
    assert not [path for path in read if path.startswith(("/", "../")) or "/../" in path or "\0" in path]
