"""Messages of any kind, invented, varied in their values, or damaged in their bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from hierfl.link._wire import link_pb2 as wire

__all__ = ["invented", "is_repeated", "mutated", "varied"]


def varied(message: Any, chance: random.Random) -> Any:
    """Copy a message with one to three of its values changed, wherever in it they are."""
    found = type(message)()
    found.CopyFrom(message)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        _vary(found, chance)
    return found


def _vary(message: Any, chance: random.Random) -> None:
    """Change one value: of a field that is there, or, now and then, of one that is not."""
    there = message.ListFields()
    fields = message.DESCRIPTOR.fields
    field = chance.choice(there)[0] if there and chance.random() < 0.85 else chance.choice(fields)
    many, value = is_repeated(field), getattr(message, field.name)
    if _is_map(field):
        _vary_map(field, value, chance)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        if many and not value:
            value.add()
        inner = chance.choice(value) if many else value
        if chance.random() < 0.05:
            message.ClearField(field.name)
        elif not inner.DESCRIPTOR.fields:
            inner.SetInParent()
        else:
            _vary(inner, chance)
    elif not many:
        setattr(message, field.name, _DRAWS[field.type](chance))
    elif value and chance.random() < 0.5:
        value[chance.randrange(len(value))] = _DRAWS[field.type](chance)
    elif value and chance.random() < 0.5:
        del value[chance.randrange(len(value)) :]
    else:
        value.append(_DRAWS[field.type](chance))


def _vary_map(field: FieldDescriptor, value: Any, chance: random.Random) -> None:
    """Put another value at a key that is there or at a new one, or take a key out."""
    key_of, value_of = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    key = chance.choice([*sorted(value), _DRAWS[key_of.type](chance)])
    if key in value and chance.random() < 0.3:
        del value[key]
    else:
        value[key] = _DRAWS[value_of.type](chance)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def is_repeated(field: FieldDescriptor) -> bool:
    """Say whether a field is a list, in any version of protobuf."""
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == FieldDescriptor.LABEL_REPEATED)


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Damage a message somewhere: flip, drop, double, insert, cut, or put a length that lies."""
    found = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        at = chance.randrange(len(found) + 1)
        match chance.randrange(7):
            case 0 if at < len(found):
                found[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(found):
                found[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del found[at : at + chance.randrange(1, 9)]
            case 3:
                found[at:at] = found[at : at + chance.randrange(1, 40)]
            case 4:
                found[at:at] = chance.randbytes(chance.randrange(1, 9))
            case 5:
                del found[at:]
            case _:
                found[at : at + 1] = b"\xff\xff\xff\xff\x0f"
    return bytes(found)


def invented(kind: Any, chance: random.Random, depth: int = 0) -> Any:
    """Fill a message of a kind with values that its types allow and its meaning may not."""
    message = kind()
    for field in message.DESCRIPTOR.fields:
        if chance.random() < 0.35:
            continue
        many = is_repeated(field)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = (_DRAWS[one.type] for one in field.message_type.fields)
            for _ in range(chance.choice((0, 1, 2, 40))):
                getattr(message, field.name)[chance.choice(("mae", "loss", key(chance)))] = value(chance)
            continue
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            inner = getattr(wire, field.message_type.name)
            for _ in range(chance.randrange(4) if many else 1):
                made = invented(inner, chance, depth + 1)
                (getattr(message, field.name).add() if many else getattr(message, field.name)).CopyFrom(made)
            continue
        draw = _DRAWS[field.type]
        if many:
            getattr(message, field.name).extend(draw(chance) for _ in range(chance.choice((0, 1, 2, 4, 9, 10, 11))))
        else:
            setattr(message, field.name, draw(chance))
    return message


def _whole(bits: int) -> Callable[[random.Random], int]:
    edges = (0, 1, 2, 10, 40, 2 ** (bits - 1) - 1, 2 ** (bits - 1), 2**bits - 1)
    return lambda chance: chance.choice(edges) if chance.random() < 0.7 else chance.randrange(2**bits)


_DRAWS: dict[int, Callable[[random.Random], Any]] = {
    FieldDescriptor.TYPE_UINT64: _whole(64),
    FieldDescriptor.TYPE_FIXED64: _whole(64),
    FieldDescriptor.TYPE_UINT32: _whole(32),
    FieldDescriptor.TYPE_BOOL: lambda chance: chance.random() < 0.5,
    FieldDescriptor.TYPE_DOUBLE: lambda chance: chance.choice(
        (0.0, 0.5, 1.0, -1.0, 1e308, float("inf"), float("-inf"), float("nan"))
    ),
    FieldDescriptor.TYPE_STRING: lambda chance: chance.choice(("", "world", "x" * 3000, "int32", "\x00", "ü" * 9)),
    FieldDescriptor.TYPE_BYTES: lambda chance: chance.randbytes(chance.choice((0, 1, 31, 32, 33, 97, 200))),
}
