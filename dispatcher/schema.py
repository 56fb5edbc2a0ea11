"""The models of policy and profile → JSON Schemas, so that editors complete and check the files: `python -m dispatcher.schema`.

A schema knows one file; what only several files together show (a recipe that does not exist, an account that a parent sets) is for the
dispatcher itself to find. https://json-schema.org/draft/2020-12
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dispatcher.counterparts import ALIASES
from dispatcher.policy import Policy
from dispatcher.registry import EXECUTORS
from dispatcher.spelling import PACKAGER_OPTIONS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FOLDER = Path("docs/schema")

_INTERPOLATION = {"type": "string", "pattern": r"^\$\{\s*oc\.env\s*:|[^\\]\$\{\s*oc\.env\s*:"}
_SCALARS = frozenset({"string", "integer", "boolean"})


def policy_schema() -> dict[str, Any]:
    """`.github/dispatch.yml`."""
    return {"$schema": DIALECT, **Policy.model_json_schema(), "title": "nemotron-dispatch policy (.github/dispatch.yml)"}


def profile_schema() -> dict[str, Any]:
    """`profiles/NAME.yaml`. Nothing is required: whatever is missing may come from the profile that is extended."""
    tables = {name: _inheritable(model.model_json_schema(ref_template="#/$defs/{model}")) for name, model in EXECUTORS.items()}
    definitions: dict[str, Any] = {}
    for table in tables.values():
        definitions.update(table.pop("$defs", {}))
    definitions.update(tables)
    return {
        "$schema": DIALECT,
        "title": "nemotron-dispatch profile (profiles/NAME.yaml)",
        "type": "object",
        "properties": {"executor": {"enum": sorted(EXECUTORS), "description": "What runs the job."}},
        **_chosen([name for name in EXECUTORS if name != "slurm"]),
        "$defs": definitions,
    }


def _chosen(names: Sequence[str]) -> dict[str, Any]:
    """The table that `executor` names; without one, which a parent may give, it is read as Slurm's."""
    if not names:
        return {"$ref": "#/$defs/slurm"}
    first, *rest = names
    named = {"properties": {"executor": {"const": first}}, "required": ["executor"]}
    return {"if": named, "then": {"$ref": f"#/$defs/{first}"}, "else": _chosen(rest)}


def _inheritable(table: dict[str, Any]) -> dict[str, Any]:
    """A model's schema → that of one file: other spellings, `extends`, `null` to take an inherited value away, `${oc.env:…}` anywhere."""
    properties = {name: _interpolated(schema) for name, schema in table["properties"].items()}
    named_values = {"type": "object", "required": ["name", "value"], "additionalProperties": False, "properties": {"name": {}, "value": {}}}
    listed = {"type": "array", "items": {"anyOf": [{"type": "string", "pattern": "="}, named_values]}}
    properties["env_vars"] = {"anyOf": [properties["env_vars"], listed], "description": properties["env_vars"].get("description", "")}
    for name in ("setup_lines", "startup_commands"):
        properties[name] = {"anyOf": [properties[name], {"type": "string"}]}
    options = table["$defs"]["Packager"]["properties"]
    properties.update({key: _interpolated(options[name]) for key, name in PACKAGER_OPTIONS.items()})
    for alias, name in ALIASES.items():
        if name in properties:
            properties[alias] = properties[name]
    properties = {name: schema if name == "executor" else {"anyOf": [schema, {"type": "null"}]} for name, schema in properties.items()}
    properties["extends"] = {"type": "string", "description": "One profile whose values hold where this one says nothing."}
    properties["detach"] = {"type": "boolean", "description": "The opposite of `attach`."}
    definitions = {
        name: {**inner, "properties": {key: _interpolated(value) for key, value in inner["properties"].items()}}
        for name, inner in table.get("$defs", {}).items()
    }
    return {"type": "object", "additionalProperties": False, "properties": properties, "$defs": definitions}


def _interpolated(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A value's schema → the same, or a text with `${oc.env:…}` in it, at every place that takes a single value."""
    kinds = schema.get("type", "")
    single = {"enum", "const"} & schema.keys() or isinstance(kinds, list) or kinds in _SCALARS
    if single:
        outside = {key: schema[key] for key in ("description", "default", "title") if key in schema}
        return {"anyOf": [{key: value for key, value in schema.items() if key not in outside}, _INTERPOLATION], **outside}
    changed = dict(schema)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            changed[key] = _interpolated(schema[key])
    if "anyOf" in schema:
        changed["anyOf"] = [_interpolated(option) for option in schema["anyOf"]]
    return changed


def rendered() -> dict[str, str]:
    """File name → text, as it stands in `docs/schema/`."""
    schemas = {"policy.schema.json": policy_schema(), "profile.schema.json": profile_schema()}
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in schemas.items()}


def main(argv: Sequence[str]) -> int:
    """Writes the schemas into a folder (default `docs/schema`)."""
    folder = Path(argv[0]) if argv else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in rendered().items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
