"""Groups of kernel arguments, each declared once: a name, a Numba type and a description for every member.

A declaration is a `NamedTuple` whose members are `Annotated[PythonType, NUMBA_TYPE, "what it is"]`:

    @bundle
    class Feed(NamedTuple):
        \"\"\"The feed of a lane.\"\"\"

        entries: Annotated[Array, entry_type[::1], "due requests; a power of two of them"]

There are two ways to pass a group:

- A **bundle** is passed by address. A lane has some forty arrays of seven words each. By value every call would carry
  all those words, and LLVM would have to track them through every kernel. A bundle is unpacked once, on the stack of
  the entry that Python calls, and stays there until that entry returns. Kernels read its members; they cannot replace
  them. Scalars are passed as scalars. A hot loop reads the members that it needs into local names first: LLVM cannot
  know that a store to an array leaves the bundle as it is, and would load the member again after every store.
- A **value** is a plain tuple. Kernels may make one. Use it for a few scalars that belong together.
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
"""Python's type of every array member; the Numba type beside it says the rest."""

Int = int | np.signedinteger[Any]
"""Python's type of an integer in a value: kernels make them with NumPy's integers."""

Declared = TypeVar("Declared", bound=type)

_declared: dict[type, Any] = {}
"""The Numba type of each declared class."""


class Bundle(types.Type):  # type: ignore[misc]
    """Numba's type of the address of an unpacked named tuple."""

    def __init__(self, members: types.NamedTuple) -> None:
        self.members = members
        # The symbol of every kernel holds the names of its argument types. Those of all members are kilobytes long.
        digest = hashlib.blake2b(str(members).encode(), digest_size=8).hexdigest()
        super().__init__(name=f"{members.instance_class.__name__}_{digest}")


@register_model(Bundle)
class _BundleModel(models.OpaqueModel):  # type: ignore[misc]
    pass


def descriptions(declared: type) -> dict[str, str]:
    """The description of each member of a declared class, by name."""
    return {name: words for name, (_, words) in _members(declared).items()}


def numba_type(declared: type) -> Any:
    """The Numba type of a declared class, for the signature of a kernel."""
    return _declared[declared]


def bundle(declared: Declared) -> Declared:
    """Declare a group that kernels pass by address. A member may itself be a bundle."""
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
    """Declare a group that kernels pass by value, and may make themselves."""
    members = _members(declared)
    _declared[declared] = types.BaseTuple.from_types([kind for kind, _ in members.values()], declared)
    return declared


def _members(declared: type) -> dict[str, tuple[Any, str]]:
    """The Numba type and the description of each member. TypeError if one is missing."""
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
    """TypeError where a member is not what was declared. Any Python or NumPy number will do for a scalar."""
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
        place = c.builder.alloca(c.context.get_value_type(bundle.members))
    c.builder.store(native.value, place)
    address = c.builder.bitcast(place, c.context.get_value_type(bundle))
    return NativeValue(address, cleanup=native.cleanup, is_error=native.is_error)
