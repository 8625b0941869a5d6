"""``@zray.task`` and ``@zray.remote``: functions that run as tasks on the cluster.

What ``@zray.remote`` makes of a class is in ``zray.api.actors``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Protocol, TypeVar, overload

from zray.api.definitions import (
    Parameters,
    UnderscoreRemote,
    export_of,
    name_of,
    offer,
    take_offer,
    template_of,
)
from zray.api.environments import environment_of
from zray.api.options import (
    ITEMS_PER_YIELD,
    ActorOptions,
    TaskOptions,
    check_either,
    check_yields,
    checked,
    is_generator,
    returns,
)
from zray.api.session import participant as connected
from zray.protocol import messages as m
from zray.runtime import serialization, tracing
from zray.runtime.generators import ObjectRefGenerator
from zray.runtime.grouped_items import GroupedItems
from zray.runtime.offers import Offer
from zray.runtime.references import FunctionName, ObjectRef

if TYPE_CHECKING:  # loaded for the first class: many programs have functions only
    from zray.api.actors import ActorClass
    from zray.api.remote_arguments import BoundArguments, RemoteArguments
else:
    BoundArguments = RemoteArguments = Generic

Retry = bool | tuple[type[BaseException], ...]
P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class SeveralReturns(Protocol[P, R_co]):
    """How type checkers see a remote function whose ``num_returns`` is not 1."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def remote(self, *args: Any, **kwargs: Any) -> list[ObjectRef[Any]]:
        """As ``RemoteFunction.remote``."""

    def options(self, **options: Any) -> Any:
        """As ``RemoteFunction.options``."""


class BoundSeveral(Protocol):
    """The same with options of its own."""

    def remote(self, *args: Any, **kwargs: Any) -> list[ObjectRef[Any]]:
        """As ``RemoteFunction.remote``."""


class RemoteFunction(UnderscoreRemote[Any], RemoteArguments[P, R]):
    """A function that ``remote`` runs as a task. Made by the decorators."""

    def __init__(
        self, function: Callable[P, R], options: TaskOptions, *, callable_here: bool
    ) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._name = name_of(function)
        self._options = options
        self._callable_here = callable_here
        self._exports: dict[tuple[Retry, int], m.Export] = {}  # by items in each yield, too
        self._kept: list[ObjectRef[Any]] = []  # what exports of a large function refer to
        self._templates: dict[TaskOptions, m.Template] = {}
        self._names: list[FunctionName] = []  # kept for as long as this lives
        self._told: Any = None  # the participant that knows export and template
        self._default: m.Template | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if not self._callable_here:
            raise TypeError(
                f"Remote functions cannot be called directly. Instead of running '{self._name}()', "
                f"try '{self._name}.remote()'."
            )
        return self._function(*args, **kwargs)

    if not TYPE_CHECKING:

        def remote(self, *args: Any, **kwargs: Any) -> Any:
            """Run the function as a task; returns at once with a reference to its result.

            Arguments may be references: the task starts when their values are there and gets
            those. With ``num_returns=n`` it returns a list of n references, with 0 None; of a
            function that yields, or with "streaming", an ``ObjectRefGenerator``.

            Raises:
                TypeError: the arguments do not fit the function's signature, or cannot be pickled.
            """
            return self._submit(self._options, args, kwargs)

    @overload
    def options(self, *, num_returns: Literal[1], **options: Any) -> BoundOptions[P, R]: ...
    @overload
    def options(self, *, num_returns: int, **options: Any) -> BoundSeveral: ...
    @overload
    def options(self, **options: Any) -> BoundOptions[P, R]: ...
    def options(self, **options: Any) -> Any:
        """The function with other options for the calls made through what is returned.

        Options: num_cpus, num_gpus, memory (bytes), resources, accelerator_type, label_selector,
        fallback_strategy, num_returns, max_retries, retry_exceptions, runtime_env (env_vars), name,
        timeout, priority,
        _generator_backpressure_num_objects (items that wait to be read, at most; -1: no limit); as
        in ``ray.remote_function.RemoteFunction.options``, whose other options are taken where they
        ask for nothing that zray does not do.

        Two options are zray's own. ``timeout`` (seconds): a task that runs longer, from its start
        on a worker, is interrupted by a KeyboardInterrupt, and killed with its worker if it goes on
        for 5 s; it then ends with a TaskTimeoutError, which counts as raised by it, so
        ``retry_exceptions`` may cover it. ``priority`` (a whole number, 0 by default): of a
        program's ready tasks that need the same resources those with more start first. What a
        running task has submitted goes before what its program has. Where a program uses
        priorities, its tasks go by way of the head.

        Raises:
            ValueError, TypeError: an unknown option or a bad value; or ``max_calls`` or another
                ``_num_objects_per_yield``, which are the decorator's.
        """
        if "max_calls" in options:
            raise ValueError("Setting 'max_calls' is not supported in '.options()'.")
        if options.get(ITEMS_PER_YIELD, self._options.items_per_yield) != (
            self._options.items_per_yield
        ):
            raise ValueError(
                f"{ITEMS_PER_YIELD} cannot be overridden per task call. Use "
                f"@ray.remote({ITEMS_PER_YIELD}=...) instead."
            )
        chosen = checked(self._options, options)
        check_yields(chosen.num_returns, generates=self._generates)
        return BoundOptions(self, chosen)

    def _submit(self, options: TaskOptions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        shape = (len(args), *kwargs)
        if shape not in self._parameters.fitting:
            self._parameters.check(shape, args, kwargs)
        participant = connected()
        template = self._default
        if template is None or self._told is not participant or options is not self._options:
            template = self._introduce(participant, options)
        if tracing.hook:
            kwargs = tracing.carried(self._name, kwargs)
        arguments = serialization.dumps_arguments(args, kwargs, ObjectRef, self._name)
        refs = participant.submit(template, arguments)
        if template.num_returns == 1:
            if template.yields == m.ITEMS:
                return ObjectRefGenerator(refs[0], participant)
            return refs[0]
        return refs or None

    @functools.cached_property
    def _generates(self) -> bool:
        return is_generator(self._function)

    @functools.cached_property
    def _parameters(self) -> Parameters:
        # Not in __init__: a recursive function is unpickled after the object that it calls.
        return Parameters(self._function, self._name)

    def _introduce(self, participant: Any, options: TaskOptions) -> m.Template:
        """Make sure that the cluster knows function and options."""
        if self._told is not participant:
            self._templates.clear()
            self._names.clear()
            if self._kept:  # in a cluster that was left
                self._kept.clear()
                self._exports.clear()
            self._default = None
            self._told = participant  # last: other threads take what they find for known
        template = self._templates.get(options)
        if template is None:
            num_returns, yields = returns(options.num_returns, generates=self._generates)
            size = options.items_per_yield if yields == m.ITEMS else 1
            export = self._export(participant, options.retry_exceptions, size)
            template = template_of(
                *(export.function_id, options.name or self._name),
                options.amounts(),
                num_returns=num_returns,
                max_retries=options.max_retries,
                max_calls=options.max_calls,
                labels=options.labels(),
                environment=environment_of(participant, options.runtime_env),
                events=options.events,
                yields=yields,
                unread_max=options.unread_max,
                timeout_s=options.timeout_s,
                priority=options.priority,
            )
            self._names.append(participant.export(export, template))
            self._templates[options] = template
            if options is self._options:
                self._default = template
        return template

    def _export(self, participant: Any, retry: Retry, size: int) -> m.Export:
        export = self._exports.get((retry, size))
        if export is None:
            function = GroupedItems(self._function, size) if size > 1 else self._function
            export, kept = export_of(participant, function, retry, self._name)
            self._exports[retry, size] = export
            if kept is not None:
                self._kept.append(kept)
        return export

    def _offer(self) -> Offer:
        return Offer(self._function, retry=self._options.retry_exceptions)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._function, self._options, self._callable_here)


class BoundOptions(BoundArguments[P, R]):
    """A remote function with options of its own."""

    def __init__(self, function: RemoteFunction[P, R], options: TaskOptions) -> None:
        self._function = function
        self._options = options

    if not TYPE_CHECKING:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self._function(*args, **kwargs)

        def remote(self, *args: Any, **kwargs: Any) -> Any:
            """As ``RemoteFunction.remote``, with these options."""
            return self._function._submit(self._options, args, kwargs)


def _restore(
    function: Callable[P, R], options: TaskOptions, callable_here: bool
) -> RemoteFunction[P, R]:
    return RemoteFunction(function, options, callable_here=callable_here)


class Decorator(Protocol):
    """How type checkers see ``zray.remote(...)``: for functions and for classes."""

    @overload
    def __call__(self, cls: type[T], /) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, function: Callable[P, R], /) -> RemoteFunction[P, R]: ...


@overload
def task(function: Callable[P, R], /) -> RemoteFunction[P, R]: ...
@overload
def task(
    *, num_returns: Literal[1], **options: Any
) -> Callable[[Callable[P, R]], RemoteFunction[P, R]]: ...
@overload
def task(
    *, num_returns: int, **options: Any
) -> Callable[[Callable[P, R]], SeveralReturns[P, R]]: ...
@overload
def task(**options: Any) -> Callable[[Callable[P, R]], RemoteFunction[P, R]]: ...
def task(*args: Any, **options: Any) -> Any:
    """Make a function a task: ``f.remote(x)`` runs it on the cluster, ``f(x)`` here and now.

    Bare (``@zray.task``) or with options (``@zray.task(num_cpus=2)``); see
    ``RemoteFunction.options`` for them. With ``max_calls=n`` a worker process ends after it has run
    the function n times (0: never for that); a function with ``num_gpus`` has 1 by default.

    With ``name="census.count"`` or ``offer="census.count"``, nodes that ``--import`` the module
    also run it for programs without the code, in any language: see ``zray.task_by_name``. ``offer``
    must be the only one of that name.

    Raises:
        ValueError, TypeError: an unknown option or a bad value, or no function.
    """
    return _decorate("task", args, options, callable_here=True)


@overload
def remote(cls: type[T], /) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
@overload
def remote(function: Callable[P, R], /) -> RemoteFunction[P, R]: ...
@overload
def remote(
    *, num_returns: Literal[1], **options: Any
) -> Callable[[Callable[P, R]], RemoteFunction[P, R]]: ...
@overload
def remote(
    *, num_returns: int, **options: Any
) -> Callable[[Callable[P, R]], SeveralReturns[P, R]]: ...
@overload
def remote(**options: Any) -> Decorator: ...
def remote(*args: Any, **options: Any) -> Any:
    """As ``ray.remote``: make a function a task, or a class an actor, not to be called directly.

    Options: those of ``RemoteFunction.options``, or of ``zray.api.actors.ActorClass.options``; and
    ``offer``, as for ``zray.task`` and ``zray.actor``.

    Raises:
        ValueError, TypeError: an unknown option or a bad value, or no function or class.
    """
    return _decorate("remote", args, options, callable_here=False)


def _decorate(
    decorator: str, args: tuple[Any, ...], options: dict[str, Any], *, callable_here: bool
) -> Any:
    offered = take_offer(options)

    def make(function: Any) -> RemoteFunction[Any, Any] | ActorClass[Any]:
        if inspect.isclass(function):
            made = _actor_class(decorator, function, options)
            offer(offered, made, function)
            return made
        if not callable(function):
            raise TypeError(f"@zray.{decorator} takes a function, got {function!r}")
        if inspect.iscoroutinefunction(function):
            raise ValueError(
                "'async def' should not be used for remote tasks. You can wrap the async function "
                "with 'asyncio.run(f())'."
            )
        chosen = checked(TaskOptions(), options)
        if chosen.num_gpus and options.get("max_calls") is None:
            chosen = chosen._replace(max_calls=1)  # as Ray: so the GPU's memory is free again
        check_yields(chosen.num_returns, generates=is_generator(function))
        decorated = RemoteFunction(function, chosen, callable_here=callable_here)
        # Ray's name is for display, so that several may have one; then none is found by it.
        offer(offered or chosen.name, decorated, function, alone=bool(offered))
        return decorated

    if not args:
        if callable_here:
            checked(TaskOptions(), options)
        else:
            check_either(options)
        return make
    if len(args) != 1 or options or offered:
        raise TypeError(
            f"The @zray.{decorator} decorator must be applied either with no arguments and no "
            f"parentheses, for example '@zray.{decorator}', or with keyword arguments, for example "
            f"'@zray.{decorator}(num_returns=2)'."
        )
    return make(args[0])


def _actor_class(decorator: str, cls: type[T], options: dict[str, Any]) -> ActorClass[T]:
    if decorator != "remote":
        raise TypeError(
            f"@zray.{decorator} on the class {cls.__name__}: a task is a function; use @zray.actor"
        )
    from zray.api.actors import ActorClass

    return ActorClass(cls, checked(ActorOptions(), options), callable_here=False)
