"""A request or an answer, and GitHub's own description of its API → what is wrong with it.

Unknown query and body fields count as wrong too: GitHub ignores them silently, so a client that misspells one never learns of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from openapi_schema_validator import OAS30Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

DESCRIPTION = Path(__file__).parent / "data" / "github-openapi.json"
WHEN = "2024-01-02T03:04:05Z"


@dataclass(frozen=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    pattern: re.Pattern[str]
    spec: Any


class Description:
    """GitHub's description, with everything compiled once."""

    def __init__(self, text: str) -> None:
        self.document = json.loads(text.replace('"$ref": "#/', '"$ref": "urn:github#/').replace('"$ref":"#/', '"$ref":"urn:github#/'))
        _mend(self.document)
        # Described as never null, but a pull request outlives the fork that it came from.
        head = self.document["components"]["schemas"]["pull-request"]["properties"]["head"]["properties"]
        head["repo"] = {"oneOf": [head["repo"], {"type": "object", "nullable": True, "enum": [None]}]}
        self._registry: Any = Registry().with_resource("urn:github", Resource(self.document, DRAFT4))
        self._validators: dict[int, tuple[Any, Any]] = {}
        self.operations = sorted(self._read(), key=lambda one: (one.path.count("{"), -len(one.path)))

    def _read(self) -> Iterator[Operation]:
        for path, methods in self.document["paths"].items():
            for method, spec in methods.items():
                many = {
                    one["name"]
                    for one in map(self.resolve, spec.get("parameters", []))
                    if one.get("x-multi-segment") or one["name"] in ("path",)
                }
                parts = re.split(r"\{(\w+)\}", path)
                source = "".join(re.escape(p) if n % 2 == 0 else ("(.*)" if p in many else "([^/]+)") for n, p in enumerate(parts))
                yield Operation(method.upper(), path, re.compile(f"{source}$"), spec)

    def operation(self, method: str, raw_path: str) -> Operation | None:
        """What a method and a still quoted path call; None if GitHub does not describe it."""
        return next((one for one in self.operations if one.method == method and one.pattern.match(raw_path)), None)

    def resolve(self, schema: Any) -> Any:
        """Follows `$ref`."""
        while "$ref" in schema:
            found = self.document
            for part in schema["$ref"].split("#/")[1].split("/"):
                found = found[part]
            schema = found
        return schema

    # ------------------------------------------------------------------- checks

    def check_request(self, operation: Operation, query: dict[str, list[str]], body: Any) -> list[str]:
        """Everything wrong with a request."""
        parameters = [self.resolve(one) for one in operation.spec.get("parameters", [])]
        known = {one["name"]: one["schema"] for one in parameters if one["in"] == "query"}
        wrong = [f"unknown query field {name}" for name in query if name not in known]
        for name in query.keys() & known.keys():
            value: Any = query[name][0]
            if self.resolve(known[name]).get("type") == "integer" and value.isdigit():
                value = int(value)
            wrong += self._against(known[name], value, f"?{name}")
        wrong += [
            f"missing query field {one['name']}"
            for one in parameters
            if one["in"] == "query" and one.get("required") and one["name"] not in query
        ]
        described = self.resolve(operation.spec.get("requestBody", {}))
        if body is not None and not described:
            wrong.append("a body where none belongs")
        elif body is not None:
            wrong += self._against(described["content"]["application/json"]["schema"], body, "body")
        elif described.get("required"):
            wrong.append("no body where one is required")
        return wrong

    def check_answer(self, operation: Operation, status: int, body: Any) -> list[str]:
        """Everything wrong with an answer. Errors that are not described must look like errors."""
        if status >= 400 and isinstance(body, dict):
            body = {name: value for name, value in body.items() if name != "status"}  # in every error, in few descriptions
        described = operation.spec["responses"].get(str(status))
        if described is None and status < 400:
            return [f"status {status} is not described"]
        content = self.resolve(described).get("content", {}) if described else {}
        if "application/json" not in content:
            if status < 400:
                return [] if body is None else ["a body where none belongs"]
            return self._against({"$ref": "urn:github#/components/schemas/basic-error"}, body, "answer")
        return self._against(content["application/json"]["schema"], body, "answer")

    def _against(self, schema: Any, value: Any, where: str) -> list[str]:
        if id(schema) not in self._validators:  # the schema is kept as well, so that no other one gets its id
            self._validators[id(schema)] = schema, OAS30Validator(schema, registry=self._registry)
        validator = self._validators[id(schema)][1]
        wrong = [f"{where}{one.json_path[1:]}: {one.message[-200:]}" for one in validator.iter_errors(value)]
        return wrong + list(self._unknown([schema], value, where))

    def _unknown(self, schemas: list[Any], value: Any, where: str) -> Iterator[str]:
        """Fields that no alternative of the schema names."""
        flat = [one for schema in schemas for one in self._alternatives(schema)]
        if isinstance(value, list):
            items = [one["items"] for one in flat if "items" in one]
            for number, item in enumerate(value if items else []):
                yield from self._unknown(items, item, f"{where}[{number}]")
        elif isinstance(value, dict):
            named = [one for one in flat if one.get("properties")]
            # An alternative that allows more than it names says nothing about the schema that names its own fields.
            own = [one for one in map(self.resolve, schemas) if one.get("properties")] or flat
            if not named or any(one.get("additionalProperties") for one in own):
                return
            for name, inner in value.items():
                inside = [one["properties"][name] for one in named if name in one["properties"]]
                if inside:
                    yield from self._unknown(inside, inner, f"{where}.{name}")
                else:
                    yield f"{where}: unknown field {name}"

    def _alternatives(self, schema: Any) -> Iterator[Any]:
        schema = self.resolve(schema)
        yield schema
        for word in ("allOf", "anyOf", "oneOf"):
            for one in schema.get(word, []):
                yield from self._alternatives(one)

    # ------------------------------------------------------------------- making answers

    def fill(self, name: str, known: dict[str, Any], url: str) -> dict[str, Any]:
        """`known`, completed with a plain value for every field that the named schema requires and that is not known."""
        return self._fill({"$ref": f"urn:github#/components/schemas/{name}"}, known, url)  # type: ignore[no-any-return]

    def _fill(self, schema: Any, known: Any, url: str) -> Any:
        schema = self.resolve(schema)
        properties = {key: one for part in self._alternatives(schema) for key, one in part.get("properties", {}).items()}
        required = [key for part in (schema, *map(self.resolve, schema.get("allOf", []))) for key in part.get("required", [])]
        made = {key: self._example(properties[key], url) for key in required if key not in known}
        return {**made, **known}

    def _example(self, schema: Any, url: str) -> Any:
        schema = self.resolve(schema)
        if schema.get("nullable"):
            return None
        if "enum" in schema:
            return schema["enum"][0]
        for word in ("anyOf", "oneOf"):
            if word in schema and "type" not in schema:
                return self._example(schema[word][0], url)
        kind = schema.get("type", "object")
        if kind == "string":
            return {"uri": url, "date-time": WHEN}.get(schema.get("format", ""), "")
        return {"integer": 0, "number": 0, "boolean": False, "array": []}[kind] if kind != "object" else self._fill(schema, {}, url)


def _mend(schema: Any) -> None:
    """Says what GitHub means: `nullable` beside `enum` or `anyOf` does not admit null by the letter of OpenAPI 3.0, and the
    discriminator of a file's contents names a value, `array`, that no answer can have."""
    if isinstance(schema, dict):
        if "oneOf" in schema:
            schema.pop("discriminator", None)
        if schema.get("nullable") is True:
            if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
                schema["enum"].append(None)
            for word in ("anyOf", "oneOf"):
                if word in schema:
                    schema[word].append({"type": "object", "nullable": True, "enum": [None]})
        for inner in schema.values():
            _mend(inner)
    elif isinstance(schema, list):
        for inner in schema:
            _mend(inner)


@cache
def description() -> Description:
    """The one description, read once per test run."""
    return Description(DESCRIPTION.read_text())
