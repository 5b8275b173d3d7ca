"""The public surface, as a file to be reviewed in each change: `python tests/test_public_api.py --write`.

Public is what stands in the `__all__` of a module whose path has no leading underscore.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import enum
import importlib
import importlib.util
import inspect
import re
import sys
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "unexpired"
# niquests takes the place of urllib3: its module is public in an environment of its own, where it is the only one.
NIQUESTS = "unexpired.clients.niquests"
BESIDE_NIQUESTS = importlib.util.find_spec("niquests") is not None
SNAPSHOT = Path(__file__).with_name("public_api_niquests.txt" if BESIDE_NIQUESTS else "public_api.txt")
# Special methods that a user of an object relies on and that the class line does not show.
SPECIAL = {
    "__aenter__",
    "__aexit__",
    "__aiter__",
    "__call__",
    "__enter__",
    "__exit__",
    "__getitem__",
    "__iter__",
}


def module_names() -> list[str]:
    """Every public module, sorted, the root first; found without importing any, so each fails alone."""
    parts = [path.relative_to(PACKAGE.parent).with_suffix("").parts for path in PACKAGE.rglob("*.py")]
    modules = [part[:-1] if part[-1] == "__init__" else part for part in parts]
    names = (".".join(part) for part in modules if not any(name.startswith("_") for name in part))
    return sorted(name for name in names if (name == NIQUESTS) == BESIDE_NIQUESTS)


@cache
def public_names(module: types.ModuleType) -> list[str]:
    """The names in the module's `__all__`, sorted."""
    return sorted(getattr(module, "__all__", ()))


def is_ours(item: object) -> bool:
    """Whether *item* was made in this package."""
    return (getattr(item, "__module__", None) or "").partition(".")[0] == "unexpired"


class Verbatim:
    """A piece of source that a signature shows as it is, without quotes."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def shown_default(value: object) -> object:
    """*value* so that its `repr` is the same in every run."""
    if value is inspect.Parameter.empty:
        return value
    if isinstance(value, set | frozenset):
        return Verbatim(f"{{{', '.join(sorted(map(repr, value)))}}}")
    return Verbatim(re.sub(r"^<(.*?)( at 0x[0-9a-f]+)?>$", r"<\1>", repr(value)))


def shown_signature(item: Any) -> str:
    """The signature of *item* with annotations as they are written, or `(...)` if Python knows none."""
    try:
        signature = inspect.signature(item)
    except (TypeError, ValueError):
        return "(...)"

    def plain(annotation: object) -> object:
        return Verbatim(annotation) if isinstance(annotation, str) else annotation

    parameters = [
        parameter.replace(
            annotation=plain(parameter.annotation),
            default=shown_default(parameter.default),
        )
        for parameter in signature.parameters.values()
    ]
    return str(signature.replace(parameters=parameters, return_annotation=plain(signature.return_annotation)))


def members(cls: type) -> Iterator[tuple[str, object]]:
    """The public attributes of *cls* that this package defines, in it or in a base, sorted."""
    for name in sorted(dir(cls)):
        owner = next((base for base in cls.__mro__ if name in vars(base)), None)
        if owner is not None and is_ours(owner) and (not name.startswith("_") or name in SPECIAL):
            yield name, vars(owner)[name]


def shown_member(name: str, item: Any) -> str:
    """One line for an attribute of a class."""
    if isinstance(item, property):
        return f"property {name}{shown_signature(item.fget).partition(')')[2]}"
    if isinstance(item, classmethod | staticmethod):
        return f"{type(item).__name__} {name}{shown_signature(item.__func__)}"
    if inspect.isfunction(item):
        return f"{'async ' if inspect.iscoroutinefunction(item) else ''}def {name}{shown_signature(item)}"
    return f"{name} = {item.value!r}" if isinstance(item, enum.Enum) else name


def shown_class(name: str, cls: type) -> list[str]:
    """A class with its bases, constructor and members."""
    bases = ", ".join(base.__qualname__ for base in cls.__bases__ if base is not object)
    lines = [f"class {name}({bases})" if bases else f"class {name}"]
    if not issubclass(cls, enum.Enum) and not getattr(cls, "_is_protocol", False):
        lines.append(f"    {shown_signature(cls)}")
    fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    lines += [f"    {shown_member(member, item)}" for member, item in members(cls) if member not in fields]
    return lines


def shown(name: str, item: Any) -> list[str]:
    """What the snapshot says about one public name."""
    if inspect.isclass(item):
        return shown_class(name, item)
    if inspect.isfunction(item):
        return [shown_member(name, item)]
    if inspect.ismodule(item):
        return [f"module {name}"]
    return [f"{name}: {type(item).__name__}"]


def surface() -> str:
    """The whole public surface as text. A name that stands in several modules is spelled out in the first."""
    lines: list[str] = []
    spelled: dict[int, str] = {}
    for module_name in module_names():
        module = importlib.import_module(module_name)
        lines += ["", module_name]
        for name in public_names(module):
            item = getattr(module, name)
            elsewhere = spelled.get(id(item)) if is_ours(item) else None
            text = [f"{name} = {elsewhere}"] if elsewhere else shown(name, item)
            spelled.setdefault(id(item), f"{module_name}.{name}")
            lines += [f"    {line}" for line in text]
    return "\n".join(lines[1:]) + "\n"


def defined_names(source: str) -> set[str]:
    """The names without an underscore that *source* defines at its top level; imports are not its own."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def undocumented(name: str, item: Any) -> Iterator[str]:
    """What of a public name has no docstring of its own or, for a method, of its base's."""
    if inspect.isclass(item):
        own = vars(item).get("__doc__") or ""
        # A dataclass without a docstring is given its own signature as one.
        if not own.strip() or own.startswith(f"{item.__name__}("):
            yield name
        for member, value in members(item):
            described = isinstance(value, property | classmethod | staticmethod | types.FunctionType)
            if described and member not in SPECIAL and not inspect.getdoc(getattr(item, member)):
                yield f"{name}.{member}"
    elif inspect.isfunction(item) and not inspect.getdoc(item):
        yield name


def test_the_public_surface_is_the_reviewed_one() -> None:
    """Public names, signatures and bases change only together with the snapshot, where a reviewer sees it."""
    reviewed = SNAPSHOT.read_text("utf-8") if SNAPSHOT.exists() else ""
    difference = difflib.unified_diff(reviewed.splitlines(), surface().splitlines(), "reviewed", "now", lineterm="")
    changes = "\n".join(difference)
    assert not changes, f"`make api` writes the snapshot again; review it.\n{changes}"


@pytest.mark.parametrize("name", module_names())
def test_all_names_what_a_public_module_gives_out(name: str) -> None:
    """`__all__` names only what exists, nothing twice, and everything public that the module defines."""
    module = importlib.import_module(name)
    assert hasattr(module, "__all__"), "a public module says what is public in it"
    assert len(set(module.__all__)) == len(module.__all__)
    assert [each for each in module.__all__ if not hasattr(module, each)] == []
    assert defined_names(Path(str(module.__file__)).read_text("utf-8")) - set(module.__all__) == set()


@pytest.mark.parametrize("name", module_names())
def test_every_public_name_is_documented(name: str) -> None:
    """Every public module, class, function, method and property has a docstring."""
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip()
    ours = [(each, getattr(module, each)) for each in public_names(module)]
    assert [missing for each, item in ours if is_ours(item) for missing in undocumented(each, item)] == []


def test_a_change_of_the_surface_shows() -> None:
    """A parameter, a base, a member or an enum value that changes gives another text."""

    class Base:
        def method(self, a: int, *, b: str | None = None) -> None: ...

    class Child(Base):
        value = property(lambda self: self)

    Base.__module__ = Child.__module__ = "unexpired.example"
    assert shown("Child", Child) == [
        "class Child(test_a_change_of_the_surface_shows.<locals>.Base)",
        "    ()",
        "    def method(self, a: int, *, b: str | None = None) -> None",
        "    property value",
    ]
    assert list(undocumented("Child", Child)) == ["Child", "Child.method", "Child.value"]


def test_defined_names_sees_every_kind_of_definition() -> None:
    """Classes, functions and assignments count as defined; imports and private names do not."""
    source = "import os\nfrom re import match\nA = B = 1\nC: int = 2\ndef d(): pass\nclass E: pass\n_f = 3\n"
    assert defined_names(source) == {"A", "B", "C", "d", "E"}


if __name__ == "__main__" and "--write" in sys.argv:
    SNAPSHOT.write_text(surface(), "utf-8")
    print(f"{SNAPSHOT}: {len(surface().splitlines())} lines")
