"""What remote functions and actors share: checks and forms of calls, names, templates and offers.

Must never talk to a cluster.
"""

from __future__ import annotations

import hashlib
import inspect
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NoReturn, TypeVar

import msgspec

from zray import limits
from zray.core.environments import name_of as name_of_environment
from zray.nodes.options import checked_text
from zray.protocol import messages as m
from zray.runtime import offers, pickling, serialization
from zray.runtime.large_functions import LargeFunction
from zray.runtime.references import ObjectRef

Selectors = Sequence[Sequence[tuple[str, str]]]

R_co = TypeVar("R_co", covariant=True)


class _EveryShape(set[tuple[Any, ...]]):
    """Any call fits, or it is not known which do."""

    def __contains__(self, shape: object) -> bool:
        return True


class Parameters:
    """Checks calls of a function or class at the caller, before anything is sent.

    Attributes:
        fitting: shapes of calls that are known to fit, so that the check costs next to nothing;
            a shape is the number of positional arguments and the names of the others.
    """

    __slots__ = ("_bound", "_function", "_name", "_signature", "fitting")

    def __init__(self, function: Callable[..., Any], name: str, *, bound: bool = False) -> None:
        """``bound``: the first parameter is ``self``, which the caller does not pass."""
        self.fitting: set[tuple[Any, ...]] = set()
        self._function = function
        self._name = name
        self._bound = bound
        self._signature: inspect.Signature | None = None  # found when the first call comes

    def check(self, shape: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note that calls of this shape fit.

        Raises:
            TypeError: the arguments do not fit.
        """
        if self._signature is None:
            self._signature = self._find()
        if self._signature is None:
            self.fitting = _EveryShape()
            return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._name}(): {error}") from None
        self.fitting.add(shape)

    def _find(self) -> inspect.Signature | None:
        if _makes_as_object_does(self._function):
            return inspect.Signature()  # for which inspect would have to parse a text
        try:
            signature = inspect.signature(self._function)
        except (TypeError, ValueError):
            return None
        parameters = list(signature.parameters.values())
        named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if self._bound and parameters and parameters[0].kind in named:
            signature = signature.replace(parameters=parameters[1:])
        kinds = {parameter.kind for parameter in signature.parameters.values()}
        anything = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
        return signature if kinds != anything else None


def _makes_as_object_does(function: Callable[..., Any]) -> bool:
    """Whether it is a class without a constructor."""
    kind: Any = function
    if type(function) is not type:
        return False
    return kind.__init__ is object.__init__ and kind.__new__ is object.__new__


class UnderscoreRemote(Generic[R_co]):
    """The ``_remote`` of what has ``options`` and ``remote``."""

    __slots__ = ()

    def _remote(
        self: Any,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> R_co:
        """``options(**options).remote(*args, **kwargs)``, as libraries on top of Ray call it."""
        options.pop("max_calls", None)  # the decorator's, which has been heard
        made: R_co = self.options(**options).remote(*(args or ()), **(kwargs or {}))
        return made

    def bind(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Ray's way to build graphs of calls, which zray does not have.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            f"{self!r}.bind() makes graphs of ray.dag, which are not part of zray: call .remote(), "
            "whose references can be arguments of other calls"
        )


def name_of(function: Callable[..., Any]) -> str:
    """The name that people see."""
    name = str(getattr(function, "__name__", type(function).__name__))[: limits.NAME_MAX]
    return name.encode("utf-8", "replace").decode()


def export_of(
    participant: Any, function: Callable[..., Any], retry: Any, name: str
) -> tuple[m.Export, ObjectRef[Any] | None]:
    """A function or class as it is sent, with what is to be kept for as long as that is used.

    One that is too large for messages is an object, of which the function that is sent knows.

    Raises:
        SerializationError, ValueError: as ``serialization.dumps_function``.
        OutOfBandReferenceError: it captures a reference, and the environment forbids that.
    """
    pickling.check_captured(function, name)
    blob = serialization.dumps_function(function, retry)
    kept = None
    if len(blob.blob) > limits.FUNCTION_INLINE_BYTES_MAX:
        kept = participant.put(pickle.PickleBuffer(blob.blob))
        blob = serialization.dumps_function(LargeFunction(kept), False)
    return m.Export(0, blob.function_id, name, blob.blob, blob.contained), kept


def template_of(
    function_id: bytes,
    name: str,
    amounts: list[tuple[str, int]],
    *,
    num_returns: int,
    max_retries: int,
    by_name: bool = False,
    max_calls: int = 0,
    labels: Selectors = (),
    environment: m.Environment | None = None,
    yields: int = m.RETURNS,
    unread_max: int = 0,
    timeout_s: float = 0.0,
    priority: int = 0,
    events: bool = True,
) -> m.Template:
    """A function with options; equal ones have equal ids, whoever makes them.

    ``by_name``: it is not sent, but found on the node under ``name``, as ``function_id`` says.
    ``labels``: selectors of the node, the preferred one first. ``environment``: of its workers.
    """
    if environment is not None:
        amounts = [*amounts, (name_of_environment(environment), 0)]
    fields = (function_id, name, amounts, num_returns, max_retries)
    others: tuple[Any, ...] = (max_calls, labels) if max_calls or labels else ()
    if yields:
        others = (*others, "yields", yields, unread_max)
    if timeout_s or priority:
        others = (*others, "in time", timeout_s, priority)
    if not events:
        others = (*others, "no events")
    selectors = [[*selector] for selector in labels]
    return m.Template(
        *(0, _digest((*fields, *others)), *fields),
        by_name=by_name,
        max_calls=max_calls,
        labels=selectors,
        environment=environment,
        yields=yields,
        unread_max=unread_max,
        timeout_s=timeout_s,
        priority=priority,
        events=events,
    )


def _digest(fields: Sequence[Any]) -> bytes:
    return hashlib.blake2b(msgspec.msgpack.encode(fields), digest_size=16).digest()


# ---- offers --------------------------------------------------------------------------------


def take_offer(options: dict[str, Any]) -> str:
    """Take ``offer`` out of a decorator's options: the name to offer under, or empty.

    Raises:
        TypeError, ValueError: it cannot be a name.
    """
    offer = options.pop("offer", None)
    return checked_name("offer", offer) if offer is not None else ""


def checked_name(option: str, value: Any) -> str:
    """A name that functions and classes can be offered under.

    Raises:
        TypeError, ValueError: it cannot be one.
    """
    if not isinstance(value, str):
        raise TypeError(f"{option} must be a string, got {value!r}")
    if not value:
        raise ValueError(f"{option} must have 1 to {limits.NAME_MAX} characters, got none")
    return checked_text(option, value)


def offer(name: str, thing: offers.Offered, what: Any, *, alone: bool = True) -> None:
    """Let nodes that import the module of ``what`` run it by name; no name: do nothing.

    Raises:
        ValueError: with ``alone``: the name stands for something else already.
    """
    if name:
        qualified = getattr(what, "__qualname__", type(what).__qualname__)
        place = f"{getattr(what, '__module__', '')}.{qualified}"
        offers.add(name, thing, place, alone=alone)
