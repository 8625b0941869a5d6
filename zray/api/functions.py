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
    name_of,
    offer,
    take_offer,
    template_of,
)
from zray.api.options import ActorOptions, TaskOptions, check_either, checked
from zray.api.session import participant as connected
from zray.protocol import messages as m
from zray.runtime import serialization
from zray.runtime.offers import Offer
from zray.runtime.references import FunctionName, ObjectRef

if TYPE_CHECKING:  # loaded for the first class: many programs have functions only
    from zray.api.actors import ActorClass

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


class RemoteFunction(Generic[P, R]):
    """A function that ``remote`` runs as a task. Made by the decorators."""

    def __init__(
        self, function: Callable[P, R], options: TaskOptions, *, callable_here: bool
    ) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._name = name_of(function)
        self._options = options
        self._callable_here = callable_here
        self._exports: dict[bool | tuple[type[BaseException], ...], m.Export] = {}
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

    def remote(self, *args: Any, **kwargs: Any) -> ObjectRef[R]:
        """Run the function as a task; returns at once with a reference to its result.

        Arguments may be references: the task starts when their values are there and gets those.
        With ``num_returns=n`` it returns a list of n references, with 0 None.

        Raises:
            TypeError: the arguments do not fit the function's signature, or cannot be pickled.
        """
        result: ObjectRef[R] = self._submit(self._options, args, kwargs)
        return result

    @overload
    def options(self, *, num_returns: Literal[1], **options: Any) -> BoundOptions[P, R]: ...
    @overload
    def options(self, *, num_returns: int, **options: Any) -> BoundSeveral: ...
    @overload
    def options(self, **options: Any) -> BoundOptions[P, R]: ...
    def options(self, **options: Any) -> Any:
        """The function with other options for the calls made through what is returned.

        Options: num_cpus, num_gpus, memory (bytes), resources, num_returns, max_retries,
        retry_exceptions, name; as in ``ray.remote_function.RemoteFunction.options``.

        Raises:
            ValueError, TypeError: an unknown option or a bad value.
        """
        return BoundOptions(self, checked(self._options, options))

    def _submit(self, options: TaskOptions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        shape = (len(args), *kwargs)
        if shape not in self._parameters.fitting:
            self._parameters.check(shape, args, kwargs)
        participant = connected()
        template = self._default
        if template is None or self._told is not participant or options is not self._options:
            template = self._introduce(participant, options)
        arguments = serialization.dumps_arguments(args, kwargs, ObjectRef, self._name)
        refs = participant.submit(template, arguments)
        if template.num_returns == 1:
            return refs[0]
        return refs or None

    @functools.cached_property
    def _parameters(self) -> Parameters:
        # Not in __init__: a recursive function is unpickled after the object that it calls.
        return Parameters(self._function, self._name)

    def _introduce(self, participant: Any, options: TaskOptions) -> m.Template:
        """Make sure that the cluster knows function and options."""
        if self._told is not participant:
            self._templates.clear()
            self._names.clear()
            self._default = None
            self._told = participant  # last: other threads take what they find for known
        template = self._templates.get(options)
        if template is None:
            export = self._export(options.retry_exceptions)
            template = template_of(
                *(export.function_id, options.name or self._name),
                options.amounts(),
                num_returns=options.num_returns,
                max_retries=options.max_retries,
            )
            self._names.append(participant.export(export, template))
            self._templates[options] = template
            if options is self._options:
                self._default = template
        return template

    def _export(self, retry: bool | tuple[type[BaseException], ...]) -> m.Export:
        export = self._exports.get(retry)
        if export is None:
            blob = serialization.dumps_function(self._function, retry)
            export = m.Export(0, blob.function_id, self._name, blob.blob, blob.contained)
            self._exports[retry] = export
        return export

    def _offer(self) -> Offer:
        return Offer(self._function, retry=self._options.retry_exceptions)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._function, self._options, self._callable_here)


class BoundOptions(Generic[P, R]):
    """A remote function with options of its own."""

    def __init__(self, function: RemoteFunction[P, R], options: TaskOptions) -> None:
        self._function = function
        self._options = options

    def remote(self, *args: Any, **kwargs: Any) -> ObjectRef[R]:
        """As ``RemoteFunction.remote``, with these options."""
        result: ObjectRef[R] = self._function._submit(self._options, args, kwargs)
        return result


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
    ``RemoteFunction.options`` for them. With ``name="census.count"`` or ``offer="census.count"``,
    nodes that ``--import`` the module also run it for programs without the code, in any language:
    see ``zray.task_by_name``. ``offer`` must be the only one of that name.

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
