"""Writes docs/configuration.md from the schema: `python -m hierfl.config.document > docs/configuration.md`."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hierfl import kinds
from hierfl.config.check import DEFAULT_POLICY
from hierfl.config.keys import SECTIONS, HubKeys, SiteKeys, TemplateKeys, TopKeys
from hierfl.config.learning import FineTune, Lora, OperatingPoint, SharedData, Statistics
from hierfl.config.rules import RULES
from hierfl.config.schedule import OPTION_VALUES
from hierfl.config.schema import DeviceGroup, LinkSettings, Training
from hierfl.config.values import keys_of, plain
from hierfl.fault import HUB_STEPS, MEMBER_STEPS, RUN_STEPS, SITE_STEPS, Where
from hierfl.learning.schedules import MANDATORY, OPTIONS

__all__ = ["document", "field_docs"]

_TEXT = Path(__file__).with_name("configuration.txt")
_SEAMS = ("task", "strategy", "topology", "participation", "compression", "privacy", "policy", "attack", "fault")
_BAR = "\\|"


def document() -> str:
    """Write the page: the prose of configuration.txt, each `@name` line replaced by what the schema says."""
    parts = {
        "top": _table(TopKeys),
        "hub": _table(HubKeys),
        "site": _table(SiteKeys),
        "template": _table(TemplateKeys),
        "training": _table(Training),
        "schedules": _schedules(),
        "devices": _table(DeviceGroup),
        "fine_tune": _table(FineTune),
        "operating_point": _table(OperatingPoint),
        "lora": _table(Lora),
        "shared": _table(SharedData),
        "statistics": _table(Statistics),
        "link": _table(LinkSettings),
        "faults": _table(Where),
        "steps": _steps(),
        **{name: _table(cls) for name, cls in SECTIONS.items()},
        **{seam: _kinds(seam) for seam in _SEAMS},
        "default_policy": f"The default is `{DEFAULT_POLICY}`.",
    }
    prose = _TEXT.read_text(encoding="utf-8").splitlines()
    lines = [parts[line[1:]] if line.startswith("@") else line for line in prose]
    return "\n".join(lines) + "\n"


def field_docs(cls: type) -> Mapping[str, str]:
    """Read the string literals under a dataclass' fields, those of its base classes included, each on one line."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base is not object and hasattr(base, "__dataclass_fields__"):
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
            assert isinstance(body, ast.ClassDef)
            found |= dict(_documented(body))
    return found


def _documented(body: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, after in zip(body.body, body.body[1:], strict=False):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            yield field.target.id, " ".join(str(after.value.value).split())  # type: ignore[attr-defined]


def _table(cls: type) -> str:
    """Write one dataclass as a table: key, type, default, what is allowed (where a rule says so), meaning."""
    docs, rules = field_docs(cls), RULES.get(cls, {})
    if not keys_of(cls):
        return "No keys of its own."
    titles = ["key", "type", "default", *(["allowed"] if rules else []), "meaning"]
    rows = [titles, ["---"] * len(titles)]
    for key in keys_of(cls).values():
        default = "**mandatory**" if key.required else f"`{_default(key.default)}`"
        allowed = [rules[key.name].text if key.name in rules else ""] if rules else []
        rows.append([f"`{key.name}`", _type(cls, key.name), default, *allowed, docs.get(key.name, "")])
    return "\n".join(f"| {' | '.join(cell.replace('|', _BAR) for cell in row)} |" for row in rows)


def _steps() -> str:
    """Write the steps at which faults happen."""
    rows = ["| of | step | when |", "| --- | --- | --- |"]
    member = "whose hub has no centre"
    of = {"a hub": HUB_STEPS, "a site": SITE_STEPS, f"a hub or a site {member}": MEMBER_STEPS, "the run": RUN_STEPS}
    for what, steps in of.items():
        rows += [f"| {what} | `{step}` | {when} |" for step, when in steps.items()]
    return "\n".join(rows)


def _schedules() -> str:
    """Write the kinds of schedules with their options, mandatory ones in bold."""
    rows = ["| kind | options |", "| --- | --- |"]
    for kind, options in OPTIONS.items():
        names = (f"**`{name}`**" if (kind, name) in MANDATORY else f"`{name}`" for name in options)
        said = (f"{name}: {OPTION_VALUES[option].text}" for name, option in zip(names, options, strict=True))
        rows.append(f"| `{kind}` | {'; '.join(said)} |")
    return "\n".join(rows)


def _kinds(seam: str) -> str:
    """Write every kind of a seam: its file's first lines, and its keys."""
    sections = []
    for name in kinds.names(seam):
        cls = kinds.load(seam, name)
        module = sys.modules[cls.__module__]
        opening = " ".join((inspect.getdoc(module) or "").split("\n\n")[0].split())
        sections.append(f"### `{name}`\n\n{opening}\n\n{_table(cls)}")
    return "\n\n".join(sections)


def _type(cls: type, name: str) -> str:
    """Write a field's type as it is annotated, in YAML's words."""
    owner = next(base for base in cls.__mro__ if name in inspect.get_annotations(base))
    annotation = str(inspect.get_annotations(owner)[name])
    if annotation.lower() in (*SECTIONS, "training"):
        return "section"
    words = {
        "None": "null",
        "dict[str, Any]": "mapping",
        "Policy | null": "kind",
        "FineTune | null": "mapping",
        "Lora | null": "mapping",
        "OperatingPoint | null": "mapping",
        "SharedData | null": "mapping",
        "Statistics | null": "mapping",
    }
    for word, said in words.items():
        annotation = annotation.replace(word, said)
    return annotation if "[" in annotation else annotation.lower()


def _default(value: Any) -> str:
    written = plain(value)
    if isinstance(written, dict):
        return "{}"
    words = {None: "null", True: "true", False: "false"}
    return words[written] if written is None or isinstance(written, bool) else str(written) or '""'


if __name__ == "__main__":
    sys.stdout.write(document())
