"""Handles of actors and their methods, as programs and running actors hold them.

Owns the caller's side of a call: which methods there are, whether the arguments fit. Must never
decide where an actor lives or whether a call is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import (
    Any,
    Concatenate,
    Generic,
    NamedTuple,
    NoReturn,
    ParamSpec,
    Protocol,
    TypeVar,
    overload,
)

from zray.api.definitions import Parameters, UnderscoreRemote
from zray.api.options import (
    DYNAMIC,
    ITEMS_PER_YIELD,
    STREAMING,
    MethodOptions,
    check_yields,
    checked,
    returns,
)
from zray.api.session import participant as connected
from zray.protocol import messages as m
from zray.runtime import pickling, references, serialization, tracing
from zray.runtime.generators import ObjectRefGenerator
from zray.runtime.references import ObjectRef

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")
T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Returns(NamedTuple):
    """What calls of a method bring. ``yields``, ``unread_max``: as in TEMPLATE. ``quiet``: nobody
    is to be told of them."""

    refs: int = 1
    yields: int = m.RETURNS
    unread_max: int = 0
    quiet: bool = False

    def number(self) -> int:
        """All of it, as ActorInfo.methods has it: below 0 for what yields."""
        if not self.yields:
            return self.refs
        if self.yields == m.REFERENCES:
            return DYNAMIC
        return DYNAMIC - self.unread_max if self.unread_max else STREAMING

    @classmethod
    def of_number(cls, number: int) -> Returns:
        """The same back."""
        count, yields = returns(max(number, DYNAMIC), generates=False)
        if number < DYNAMIC:
            return cls(1, m.ITEMS, DYNAMIC - number)
        return cls(count, yields)

    def changed(self, options: MethodOptions) -> Returns:
        """With these options, of which None are as here."""
        count, yields, unread_max, quiet = self
        if options.num_returns is not None:
            count, yields = returns(options.num_returns, generates=False)
        quiet = quiet or not options.events
        return Returns(count, yields, options.unread_max or unread_max, quiet)


class Method(NamedTuple):
    """What is known of one method of a class. ``retries`` None: as the actor says; ``generates``
    None: that is not known. ``group``, ``retry``: as in CALL."""

    returns: Returns = Returns()
    retries: int | None = None
    parameters: Parameters | None = None
    generates: bool | None = None
    group: str = ""
    retry: bytes = m.RETRY_AS_DECLARED


# What every actor has; its worker runs these without looking at the class.
_OF_ALL = {
    "__ray_ready__": Method(),
    "__ray_call__": Method(),
    "__ray_terminate__": Method(retries=0),  # a second one would end the restarted actor
}


class ActorMethod(UnderscoreRemote[Any], Generic[P, R_co]):
    """One method of one actor; ``remote`` calls it. Keeps the actor alive, as the handle does."""

    __slots__ = (
        *("_generates", "_group", "_info", "_label", "_name", "_parameters", "_ref", "_retries"),
        *("_retry", "_returns"),
    )

    def __init__(self, ref: ObjectRef[Any], info: m.ActorInfo, name: str, method: Method) -> None:
        self._ref = ref
        self._info = info
        self._name = name
        self._returns = method.returns
        self._retries = info.max_task_retries if method.retries is None else method.retries
        self._parameters = method.parameters
        self._generates = method.generates
        self._group = method.group
        self._retry = method.retry
        self._label = f"{info.class_name}.{name}"

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            "Actor methods cannot be called directly. Instead of running "
            f"'object.{self._name}()', try 'object.{self._name}.remote()'."
        )

    def remote(self, /, *args: P.args, **kwargs: P.kwargs) -> ObjectRef[R_co]:
        """Call the method; returns at once with a reference to its result.

        Calls by one process run in the order in which they were made, each at most once unless
        ``max_task_retries`` allows more. Arguments and results are as those of tasks.

        Raises:
            TypeError: the arguments do not fit the method's signature, or cannot be pickled.
            PendingCallsLimitExceededError: as many calls wait as ``max_pending_calls`` allows.
        """
        parameters = self._parameters
        if parameters is not None:
            shape = (len(args), *kwargs)
            if shape not in parameters.fitting:
                parameters.check(shape, args, kwargs)
        dumps = serialization.dumps_arguments
        if self._info.by_name:
            dumps = serialization.dumps_portable_arguments
        elif tracing.hook:
            kwargs = tracing.carried(self._label, kwargs)  # type: ignore[assignment]
        arguments = dumps(args, kwargs, ObjectRef, self._label)
        participant = connected()
        returns = self._returns
        # Argument by argument: Python takes a longer way where they come out of tuples.
        refs: Any = participant.call_actor(
            self._ref,
            self._info,
            self._name,
            returns,
            self._retries,
            arguments,
            self._group,
            self._retry,
        )
        if returns.refs != 1:
            refs = [refs or None]
        elif returns.yields == m.ITEMS:
            refs = [ObjectRefGenerator(refs[0], participant)]
        result: ObjectRef[R_co] = refs[0]
        return result

    def options(self, **options: Any) -> ActorMethod[..., Any]:
        """The method with other options for the calls made through what is returned.

        Options: num_returns (a number, "streaming" or "dynamic"); max_task_retries (0: at most
        once; -1: until it has run), which counts ends of the actor and errors that retry_exceptions
        (True: any; or a list of classes) covers; concurrency_group, one of the actor's;
        _generator_backpressure_num_objects (items that wait to be read, at most; -1: no limit);
        enable_task_events (False: no list, summary or timeline has these calls); name, which is
        accepted as in Ray and changes nothing. As in ``ray.method``.

        Raises:
            ValueError, TypeError: an unknown option or a bad value, or ``_num_objects_per_yield``,
                which is the decorator's.
        """
        if ITEMS_PER_YIELD in options:
            raise ValueError(
                f"{ITEMS_PER_YIELD} cannot be overridden per actor method call. Use "
                f"@ray.method({ITEMS_PER_YIELD}=...) instead."
            )
        base = MethodOptions(max_task_retries=self._retries, concurrency_group=self._group)
        chosen = checked(base, options)
        check_yields(chosen.num_returns, generates=self._generates)
        retry, given = self._retry, chosen.retry_exceptions
        if given is not None:
            what = f"retry_exceptions of {self._label}"
            retry = serialization.dumps(given, what)[0] if given else b""
        method = Method(
            *(self._returns.changed(chosen), chosen.max_task_retries, self._parameters),
            *(self._generates, chosen.concurrency_group, retry),
        )
        return ActorMethod(self._ref, self._info, self._name, method)

    def __repr__(self) -> str:
        return f"ActorMethod({self._label}, {self._ref.id[:16].hex()})"

    def __reduce__(self) -> tuple[Any, ...]:
        pickling.note_handle(self._ref.id)
        method = Method(self._returns, self._retries, None, None, self._group, self._retry)
        return ActorMethod, (self._ref, self._info, self._name, method)


class SeveralMethod(Protocol[T_contra, P, R_co]):
    """How type checkers see a method of a class whose ``num_returns`` is not 1."""

    __zray_method__: MethodOptions

    def __call__(self, this: T_contra, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __get__(self, instance: None, owner: type, /) -> SeveralMethod[T_contra, P, R_co]: ...
    @overload
    def __get__(self, instance: object, owner: type, /) -> Callable[P, R_co]: ...


class SeveralActorMethod(Protocol[P]):
    """How type checkers see the same method of an actor."""

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> list[ObjectRef[Any]]:
        """As ``ActorMethod.remote``."""

    def options(self, **options: Any) -> ActorMethod[..., Any]:
        """As ``ActorMethod.options``."""


class ActorHandle(Generic[T]):
    """An actor, for those who call it: ``handle.method.remote(x)``.

    Can be passed to tasks and actors and returned by them. An actor that is not detached ends when
    the last handle is gone. Equal and hashable by actor. Made by ``ActorClass.remote``,
    ``zray.get_actor`` and by unpickling; never by programs.

    Type checkers know a handle's class, but not its methods' types: ``handle.add.remote(2)`` gives
    an ``ObjectRef[Any]``. ``handle[Counter.add].remote(2)`` is the same call with all types, where
    ``Counter`` is the plain class::

        class Counter:
            def add(self, n: int) -> str: ...

        CounterActor = zray.actor(Counter)
        handle = CounterActor.remote()  # ActorHandle[Counter]
        ref = handle[Counter.add].remote(2)  # ObjectRef[str]; remote("2") is an error
    """

    __iter__: None = None  # __getitem__ alone would make it a sequence

    def __init__(
        self,
        ref: ObjectRef[Any],
        info: m.ActorInfo,
        methods: Mapping[str, Method] | None = None,
    ) -> None:
        """``methods`` are those of the class, if it is here.

        ``ref`` has index 0 of the task that makes the actor, whose id is the actor's.
        """
        references.of_handle(ref)
        self._ref = ref
        self._info = info
        self._actor_id = ref.id[:16]
        self._methods = methods

    def __getattr__(self, name: str) -> ActorMethod[..., Any]:
        if name.startswith("_") and "_info" not in self.__dict__:
            raise AttributeError(name)  # it is just being made
        method = _OF_ALL.get(name)
        if method is None:
            method = self._known().get(name)
        if method is None and self._info.by_name and not name.startswith("_"):
            method = Method()  # only the node knows the class
        if method is None:
            raise AttributeError(
                f"the actor {self._info.class_name} has no method {name!r}; it has: "
                f"{', '.join(self._known()) or 'none'}"
            )
        # The method does not refer to the handle: no cycle may keep a dropped actor alive.
        found: ActorMethod[..., Any] = ActorMethod(self._ref, self._info, name, method)
        self.__dict__[name] = found
        return found

    def _known(self) -> Mapping[str, Method]:
        if self._methods is None:
            retries = dict(self._info.retries)
            self._methods = {
                name: Method(Returns.of_number(number), retries.get(name))
                for name, number in self._info.methods
            }
        return self._methods

    @overload
    def __getitem__(self, method: SeveralMethod[T, P, Any]) -> SeveralActorMethod[P]: ...  # type: ignore[overload-overlap]
    @overload
    def __getitem__(
        self, method: Callable[Concatenate[T, P], Coroutine[Any, Any, R]]
    ) -> ActorMethod[P, R]: ...
    @overload
    def __getitem__(self, method: Callable[Concatenate[T, P], R]) -> ActorMethod[P, R]: ...
    def __getitem__(self, method: Any) -> Any:
        """The method of this actor that a method of its class names, with its types.

        Raises:
            TypeError: not a method of a class.
            AttributeError: the actor has no such method.
        """
        name = getattr(method, "__name__", None)
        if not callable(method) or not isinstance(name, str):
            raise TypeError(
                "handle[...] takes a method of the actor's class, such as handle[Counter.add], "
                f"got {method!r}"
            )
        return getattr(self, name)

    def __dir__(self) -> list[str]:
        return [*self._known(), *_OF_ALL]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ActorHandle):
            return NotImplemented
        return bool(self._actor_id == other._actor_id)

    def __hash__(self) -> int:
        return hash(self._actor_id)

    def __repr__(self) -> str:
        return f"Actor({self._info.class_name}, {self._actor_id.hex()})"

    def _repr_html_(self) -> str:
        from zray.runtime.html_card import card

        info = self._info
        methods = [name for name, _ in info.methods if not name.startswith("_")]
        rows = [("Class", info.class_name), ("Actor", self._actor_id.hex())]
        rows += [("Name", info.name), ("Namespace", info.namespace)] if info.name else []
        rows += [("Lifetime", "detached")] if info.detached else []
        return card("Actor", [*rows, ("Methods", ", ".join(methods) or "none")])

    def __reduce__(self) -> tuple[Any, ...]:
        pickling.note_handle(self._ref.id)
        return ActorHandle, (self._ref, self._info)
