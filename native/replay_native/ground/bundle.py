"""Groups of kernel arguments, each declared once: a name, a Numba type and a description for every member.

A declaration is a `NamedTuple` whose members are `Annotated[PythonType, NUMBA_TYPE, "what it is"]`:

    @bundle
    class Feed(NamedTuple):
        \"\"\"The feed of a lane.\"\"\"

        entries: Annotated[Array, entry_type[::1], "due requests; a power of two of them"]

A group is passed in one of two ways:

- A **bundle** is passed by address. A lane has some forty arrays of seven words each. If they were passed by value,
  every call would copy all those words, and LLVM would have to track them through every kernel. A bundle is unpacked
  once, on the stack of the entry that Python calls, and stays there until that entry returns. Kernels can read its
  members, but cannot replace them. A hot loop first reads the members that it needs into local variables. Otherwise
  LLVM would load a member again after every store to an array, because the store might have changed the bundle.
- A **value** is a plain tuple, which kernels can also create. Use it for a few scalars that belong together.
"""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar, get_type_hints

import numpy as np
import numpy.typing as npt
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

Array = npt.NDArray[Any]
"""The Python type of every array member. The Numba type in its annotation gives dtype and layout."""

Int = int | np.signedinteger[Any]
"""The Python type of an integer in a value: Python's own, or NumPy's when a kernel created the value."""

Declared = TypeVar("Declared", bound=type)

_declared: dict[type, Any] = {}
"""The Numba type of each class that was declared with `bundle` or `value`."""


class Bundle(types.Type):  # type: ignore[misc]
    """Numba's type of the address of an unpacked named tuple."""

    def __init__(self, members: types.NamedTuple) -> None:
        self.members = members
        # The symbol of a kernel contains the names of its argument types. The names of all members would take
        # kilobytes.
        digest = hashlib.blake2b(str(members).encode(), digest_size=8).hexdigest()
        super().__init__(name=f"{members.instance_class.__name__}_{digest}")


@register_model(Bundle)
class _BundleModel(models.OpaqueModel):  # type: ignore[misc]
    pass


def descriptions(declared: type) -> dict[str, str]:
    """Return the description of each member of a declared class, by the member's name."""
    return {name: words for name, (_, words) in _members(declared).items()}


def numba_type(declared: type) -> Any:
    """Return the Numba type of a declared class, for use in the signature of a kernel."""
    return _declared[declared]


def bundle(declared: Declared) -> Declared:
    """Declare a group that kernels receive by address. A member may itself be a bundle."""
    members = {name: kind for name, (kind, _) in _members(declared).items()}
    found = Bundle(types.BaseTuple.from_types(list(members.values()), declared))
    _declared[declared] = found

    @typeof_impl.register(declared)
    def typeof_bundle(value: Any, context: Any) -> Bundle:
        for name, kind in members.items():
            _check_member(declared, name, getattr(value, name), kind, context)
        return found

    return declared


def value(declared: Declared) -> Declared:
    """Declare a group that kernels receive by value. Kernels can also create such a group."""
    members = _members(declared)
    _declared[declared] = types.BaseTuple.from_types([kind for kind, _ in members.values()], declared)
    return declared


def _members(declared: type) -> dict[str, tuple[Any, str]]:
    """Return the Numba type and the description of each member, by its name.

    TypeError if a member declares no type or no description.
    """
    found = {}
    for name, hint in get_type_hints(declared, include_extras=True).items():
        try:
            kind, words = hint.__metadata__
        except (AttributeError, ValueError):
            raise TypeError(f"{declared.__name__}.{name}: declare its Numba type and what it is") from None
        if isinstance(kind, str):
            kind = eval(kind, {}, vars(types))
        found[name] = (_declared.get(kind, kind) if isinstance(kind, type) else kind, words)
    return found


def _check_member(declared: type, name: str, given: Any, kind: Any, context: Any) -> None:
    """Raise TypeError if a member's value does not have the declared type.

    A scalar may be any Python or NumPy number.
    """
    if isinstance(kind, types.Number | types.Boolean):
        fits = isinstance(given, int | float | np.number | np.bool_)
    else:
        fits = typeof_impl(given, context) == kind
    if not fits:
        raise TypeError(
            f"{declared.__name__}.{name}: {kind} expected, {type(given).__name__} given: {given!r:.60}"
        )


@infer_getattr
class _BundleAttribute(AttributeTemplate):  # type: ignore[misc]
    key = Bundle

    def generic_resolve(self, bundle: Bundle, name: str) -> Any:
        if name in bundle.members.fields:
            return bundle.members[bundle.members.fields.index(name)]
        return None


def _as_tuple(context: Any, builder: Any, bundle: Bundle, address: Any) -> Any:
    """Return the address as an LLVM pointer to the tuple of the members."""
    return builder.bitcast(address, context.get_value_type(bundle.members).as_pointer())


@lower_getattr_generic(Bundle)
def _get_member(context: Any, builder: Any, bundle: Bundle, address: Any, name: str) -> Any:
    place = [ir.Constant(ir.IntType(32), at) for at in (0, bundle.members.fields.index(name))]
    return builder.load(builder.gep(_as_tuple(context, builder, bundle, address), place, inbounds=True))


@unbox(Bundle)
def _unpack(bundle: Bundle, value: Any, c: Any) -> NativeValue:
    native = c.unbox(bundle.members, value)
    with c.builder.goto_entry_block():
        place = c.builder.alloca(c.context.get_value_type(bundle.members))
    c.builder.store(native.value, place)
    address = c.builder.bitcast(place, c.context.get_value_type(bundle))
    return NativeValue(address, cleanup=native.cleanup, is_error=native.is_error)
