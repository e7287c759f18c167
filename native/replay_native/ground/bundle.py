"""Named tuples of arrays that kernels hand on by address: a lane has some forty arrays, seven words each.

By value every call would carry all those words, and LLVM would have to see them through every kernel. A bundle's
arrays are unpacked once, on the stack of the entry that Python calls, and stay there until it returns.
"""

from __future__ import annotations

import hashlib
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import AttributeTemplate
from numba.extending import (
    NativeValue,
    infer_getattr,
    lower_getattr_generic,
    models,
    register_model,
    typeof_impl,
    unbox,
)


class Bundle(types.Type):  # type: ignore[misc]
    """The address of a named tuple's unpacked members, in Numba's types."""

    def __init__(self, members: types.NamedTuple) -> None:
        self.members = members
        # Every kernel's symbol holds its arguments' names: the members' own, with the fields of records, are kilobytes.
        digest = hashlib.blake2b(str(members).encode(), digest_size=8).hexdigest()
        super().__init__(name=f"{members.instance_class.__name__}_{digest}")


@register_model(Bundle)
class _BundleModel(models.OpaqueModel):  # type: ignore[misc]
    pass


def bundle_type(named_tuple: type, members: list[Any]) -> Bundle:
    """The type of a `collections.namedtuple` class, given that of each of its members; they may be bundles too."""

    @typeof_impl.register(named_tuple)
    def typeof_bundle(value: Any, context: Any) -> Bundle:
        return Bundle(types.NamedTuple([typeof_impl(member, context) for member in value], named_tuple))

    return Bundle(types.NamedTuple(members, named_tuple))


@infer_getattr
class _BundleAttribute(AttributeTemplate):  # type: ignore[misc]
    key = Bundle

    def generic_resolve(self, bundle: Bundle, name: str) -> Any:
        if name in bundle.members.fields:
            return bundle.members[bundle.members.fields.index(name)]
        return None


def _as_tuple(context: Any, builder: Any, bundle: Bundle, address: Any) -> Any:
    """The address as a pointer to the tuple of the members."""
    return builder.bitcast(address, context.get_value_type(bundle.members).as_pointer())


@lower_getattr_generic(Bundle)
def _get_member(context: Any, builder: Any, bundle: Bundle, address: Any, name: str) -> Any:
    place = [ir.Constant(ir.IntType(32), at) for at in (0, bundle.members.fields.index(name))]
    return builder.load(builder.gep(_as_tuple(context, builder, bundle, address), place, inbounds=True))


@unbox(Bundle)
def _unpack(bundle: Bundle, value: Any, c: Any) -> NativeValue:
    native = c.unbox(bundle.members, value)
    with c.builder.goto_entry_block():
        room = c.builder.alloca(c.context.get_value_type(bundle.members))
    c.builder.store(native.value, room)
    address = c.builder.bitcast(room, c.context.get_value_type(bundle))
    return NativeValue(address, cleanup=native.cleanup, is_error=native.is_error)
