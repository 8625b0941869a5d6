"""``@zray.actor``: classes whose instances live in processes of their own on the cluster.

Owns the description of actors as their creator sees them, and what is done by name or handle. Must
never decide where an actor lives or when it ends.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, Generic, Literal, NoReturn, ParamSpec, TypeVar, overload

from msgspec import structs

from zray import limits
from zray.api.actor_handles import ActorHandle, Method, Returns, SeveralMethod
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
    ActorOptions,
    MethodOptions,
    check_yields,
    checked,
    is_generator,
    namespace,
    returns,
)
from zray.api.placement import captured, check_fits
from zray.api.session import participant as connected
from zray.errors import ActorNotFoundError
from zray.limits import ASYNC_CONCURRENCY
from zray.nodes.options import checked_text
from zray.protocol import messages as m
from zray.runtime import references, serialization, session, tracing
from zray.runtime.actor_class import OPTIONS_OF_METHOD, groups_of
from zray.runtime.actor_exit import ActorExit
from zray.runtime.offers import Offer
from zray.runtime.references import FunctionName, ObjectRef

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_NOT_CALLED = frozenset(
    {"__class_getitem__", "__del__", "__init__", "__init_subclass__", "__new__"}
)


class ActorClassInheritanceException(TypeError):
    """A class statement has an actor class among its bases."""


class ActorClass(UnderscoreRemote[ActorHandle[T]], Generic[T]):
    """A class whose instances ``remote`` makes on the cluster. Made by the decorators.

    mypy does not look at what decorates a class. Where types matter, call the decorator:
    ``CounterActor = zray.actor(Counter)`` is an ``ActorClass[Counter]`` for every type checker.
    """

    def __init__(self, cls: type[T], options: ActorOptions, *, callable_here: bool) -> None:
        functools.update_wrapper(self, cls, updated=())
        self._class = cls
        self._options = options
        self._callable_here = callable_here
        self._told: Any = None  # the participant that knows the class and these descriptions
        self._described: dict[ActorOptions, tuple[m.Template, m.ActorInfo]] = {}
        self._names: list[FunctionName] = []  # kept for as long as this lives
        self._export: m.Export | None = None
        self._kept: ObjectRef[Any] | None = None  # what the export of a large class refers to

    def __call__(self, *args: Any, **kwargs: Any) -> T:
        if not self._callable_here:
            name = self._class.__name__
            raise TypeError(
                f"Actors cannot be instantiated directly. Instead of '{name}()', use "
                f"'{name}.remote()'."
            )
        return self._class(*args, **kwargs)

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle[T]:
        """Make an actor; returns at once with its handle, unless the actor has a name.

        The arguments are the constructor's, and may be references as those of tasks. What the
        constructor raises is the cause of the ActorDiedError that calls of the actor get.

        Raises:
            TypeError: the arguments do not fit the constructor, or cannot be pickled.
            ActorAlreadyExistsError: the name is taken.
        """
        return self._create(self._options, args, kwargs)

    def options(self, **options: Any) -> BoundActorOptions[T]:
        """The class with other options for the actors made through what is returned.

        Options: num_cpus, num_gpus, memory (bytes), resources: what the actor keeps while it lives,
        by default nothing, and a CPU must be free to start it; label_selector, fallback_strategy,
        runtime_env (env_vars); name, namespace, get_if_exists
        (return the actor of that name instead of raising); lifetime ("detached": it outlives its
        last handle and its creator); max_restarts (-1: always), max_task_retries (of calls that an
        end of the actor cut off, or failed with what their retry_exceptions cover; -1: always);
        max_pending_calls (-1: no limit) of one caller; max_concurrency (calls that run at once: in
        threads, or for a class with ``async def`` methods in its event loop);
        allow_out_of_order_execution (a call that waits for its arguments does not hold up those
        behind it; always where calls run at once); _actor_generator_backpressure_num_objects (items
        that wait to be read, at most, of all its generators that run; -1: no limit).
        As in ``ray.actor.ActorClass.options``.

        Raises:
            ValueError, TypeError: an unknown option or a bad value, or concurrency_groups, which
                only the class itself can have.
        """
        if "concurrency_groups" in options:
            raise ValueError("Setting 'concurrency_groups' is not supported in '.options()'.")
        return BoundActorOptions(self, checked(self._options, options))

    # ---- creation --------------------------------------------------------------------------

    def _create(
        self, options: ActorOptions, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> ActorHandle[T]:
        if options.get_if_exists and not options.name:
            raise ValueError("get_if_exists needs a name: Please supply a non-empty name")
        shape = (len(args), *kwargs)
        if shape not in self._parameters.fitting:
            self._parameters.check(shape, args, kwargs)
        participant = connected()
        options = captured(options, participant)
        template, info = self._describe(participant, options)
        if tracing.hook:
            kwargs = tracing.carried(template.name, kwargs)
        arguments = serialization.dumps_arguments(args, kwargs, ObjectRef, template.name)
        ref, found = participant.create_actor(template, info, arguments, options.get_if_exists)
        same = found.function_id == info.function_id  # else it is an older actor of that name
        return ActorHandle(ref, found, self._methods if same else None)

    def _describe(self, participant: Any, options: ActorOptions) -> tuple[m.Template, m.ActorInfo]:
        """Make sure that the cluster knows class and options."""
        if self._told is not participant:
            self._described.clear()
            self._names.clear()
            if self._kept is not None:  # in a cluster that was left
                self._export = self._kept = None
            self._told = participant  # last: other threads take what they find for known
        nameless = options._replace(name="") if options.name else options
        found = self._described.get(nameless)
        if found is None:
            export = self._export
            if export is None:
                exported = export_of(participant, self._class, False, name_of(self._class))
                export, self._kept = exported
                self._export = export
            where = options.placement
            if where is not None and where.group_id:
                check_fits(where, name_of(self._class), options.plain_amounts())
            template = template_of(
                *(export.function_id, f"{name_of(self._class)}.__init__"[: limits.NAME_MAX]),
                options.placed(),
                num_returns=1,
                max_retries=0,
                labels=options.labels(),
                environment=environment_of(participant, options.runtime_env),
                events=options.events,
                captures=where is not None and bool(where.captures),
            )
            self._names.append(participant.export(export, template))
            found = template, self._info(nameless, export, participant.namespace)
            self._described[nameless] = found
        template, info = found
        return template, structs.replace(info, name=options.name) if options.name else info

    def _info(self, options: ActorOptions, export: m.Export, default_namespace: str) -> m.ActorInfo:
        methods = self._methods.items()
        retries = [(name, one.retries) for name, one in methods if one.retries is not None]
        self._check_groups(options)
        return m.ActorInfo(
            class_name=name_of(self._class),
            function_id=export.function_id,
            methods=[(name, method.returns.number()) for name, method in methods],
            namespace=options.namespace or default_namespace,
            detached=options.lifetime == "detached",
            max_restarts=options.max_restarts,
            max_task_retries=options.max_task_retries,
            max_pending_calls=options.max_pending_calls,
            max_concurrency=self._concurrency(options),
            is_async=self._is_async,
            held=options.held(),
            retries=retries,
            groups=[*options.concurrency_groups],
            out_of_order=self._in_any_order(options),
            unread_max=options.unread_max,
        )

    def _check_groups(self, options: ActorOptions) -> None:
        known = [name for name, _ in options.concurrency_groups]
        for method, group in groups_of(self._class).items():
            if group not in known:
                raise ValueError(
                    f"The method {method} of {self._class.__name__} is to run in the concurrency "
                    f"group {group!r}, which its class does not have; it has: {known}"
                )

    def _in_any_order(self, options: ActorOptions) -> bool:
        at_once = self._is_async or self._concurrency(options) > 1
        if at_once and options.allow_out_of_order_execution is False:
            what = "async" if self._is_async else "multi-threaded"
            raise ValueError(
                f"If you're using {what} actors, actor tasks cannot be executed in order. Set "
                "`allow_out_of_order_execution=True` to allow out-of-order execution."
            )
        return at_once or bool(options.allow_out_of_order_execution)

    def _concurrency(self, options: ActorOptions) -> int:
        return options.max_concurrency or (ASYNC_CONCURRENCY if self._is_async else 1)

    def _offer(self) -> Offer:
        options = self._options
        self._check_groups(options)
        return Offer(
            self._class,
            is_class=True,
            is_async=self._is_async,
            max_concurrency=self._concurrency(options),
            groups=options.concurrency_groups,
            out_of_order=self._in_any_order(options),
        )

    # ---- the class -------------------------------------------------------------------------

    # Cached on first use and not in __init__: a class whose methods refer to their own decorated
    # class is unpickled after the object that it calls.

    @functools.cached_property
    def _parameters(self) -> Parameters:
        return Parameters(self._class, f"{self._class.__name__}.__init__")

    @functools.cached_property
    def _methods(self) -> dict[str, Method]:
        return dict(_methods_of(self._class))

    @functools.cached_property
    def _is_async(self) -> bool:
        members = (getattr(self._class, name) for name in self._methods)
        return any(
            inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)
            for member in members
        )

    def __getattr__(self, name: str) -> Any:
        """What the class itself has: constants, static methods, methods as functions."""
        if name.startswith("__") or "_class" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._class, name)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._class)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> NoReturn:
        raise ActorClassInheritanceException(
            f"Attempted to define a subclass of actor class '{self._class.__name__}'. Inheriting "
            "from actor classes is not currently supported. You can instead inherit from a "
            "non-actor base class and make the derived class an actor class (with @zray.actor)."
        )

    def __repr__(self) -> str:
        return f"ActorClass({self._class.__name__})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._class, self._options, self._callable_here)


class BoundActorOptions(Generic[T]):
    """An actor class with options of its own."""

    def __init__(self, cls: ActorClass[T], options: ActorOptions) -> None:
        self._class = cls
        self._options = options

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle[T]:
        """As ``ActorClass.remote``, with these options."""
        return self._class._create(self._options, args, kwargs)


def _restore(cls: type[T], options: ActorOptions, callable_here: bool) -> ActorClass[T]:
    return ActorClass(cls, options, callable_here=callable_here)


def _methods_of(cls: type) -> Iterator[tuple[str, Method]]:
    for name in dir(cls):
        member = getattr(cls, name, None)
        if name in _NOT_CALLED or not callable(member) or inspect.isclass(member):
            continue
        if name.startswith("__") and not inspect.isfunction(member):
            continue  # what every object has
        static = inspect.getattr_static(cls, name)
        bound = hasattr(static, "__get__") and not isinstance(static, staticmethod | classmethod)
        chosen: MethodOptions = getattr(member, OPTIONS_OF_METHOD, MethodOptions())
        generates = is_generator(member)
        number, yields = returns(chosen.num_returns, generates=generates)
        checked_text(f"the name of a method of {cls.__name__}", name)
        yield (
            name,
            Method(
                Returns(number, yields, chosen.unread_max, not chosen.events),
                chosen.max_task_retries,
                Parameters(member, f"{cls.__name__}.{name}", bound=bound),
                generates,
            ),
        )


# ---- decorators ----------------------------------------------------------------------------


class ActorDecorator:
    """``zray.actor``: the decorator, and what Ray has in its module ``ray.actor``."""

    def __init__(self) -> None:
        self.ActorClass = ActorClass
        self.ActorHandle = ActorHandle
        self.ActorClassInheritanceException = ActorClassInheritanceException

    @overload
    def __call__(self, cls: type[T], /) -> ActorClass[T]: ...
    @overload
    def __call__(self, **options: Any) -> Callable[[type[T]], ActorClass[T]]: ...
    def __call__(self, *args: Any, **options: Any) -> Any:
        """Make a class an actor class: ``C.remote()`` makes an actor, ``C()`` an object here.

        Bare (``@zray.actor``) or with options (``@zray.actor(max_restarts=1)``); see
        ``ActorClass.options`` for them. With ``offer="census.Totals"``, nodes that ``--import`` the
        module also make such actors for programs without the code, in any language: see
        ``zray.actor_class_by_name``. (``name`` is that of an actor, not of the class.)

        Raises:
            ValueError, TypeError: an unknown option or a bad value, or no class.
        """
        offered = take_offer(options)
        chosen = checked(ActorOptions(), options)

        def make(cls: Any) -> ActorClass[Any]:
            if not inspect.isclass(cls):
                raise TypeError(f"@zray.actor takes a class, got {cls!r}; functions are tasks")
            made = ActorClass(cls, chosen, callable_here=True)
            offer(offered, made, cls)
            return made

        if not args:
            return make
        if len(args) != 1 or options or offered:
            raise TypeError(
                "The @zray.actor decorator must be applied either with no arguments and no "
                "parentheses, for example '@zray.actor', or with keyword arguments, for example "
                "'@zray.actor(max_restarts=1)'."
            )
        return make(args[0])

    @staticmethod
    def exit_actor() -> NoReturn:
        """As ``zray.exit_actor``."""
        exit_actor()


actor = ActorDecorator()


@overload
def method(function: F, /) -> F: ...
@overload
def method(*, num_returns: Literal[1], **options: Any) -> Callable[[F], F]: ...
@overload
def method(
    *, num_returns: int, **options: Any
) -> Callable[[Callable[Concatenate[T, P], R]], SeveralMethod[T, P, R]]: ...
@overload
def method(**options: Any) -> Callable[[F], F]: ...
def method(*args: Any, **options: Any) -> Any:
    """Give a method of an actor class options for its calls, such as ``num_returns``.

    The method stays what it is. Options: those of ``ActorMethod.options``, and
    enable_task_events (False: its calls are in no list, summary or timeline).

    Raises:
        ValueError, TypeError: an unknown option or a bad value, or no function.
    """
    chosen = checked(MethodOptions(), options)

    def mark(function: Any) -> Any:
        if not callable(function) and not isinstance(function, staticmethod | classmethod):
            raise TypeError(f"@zray.method takes a method, got {function!r}")
        check_yields(chosen.num_returns, generates=is_generator(function))
        inner = getattr(function, "__func__", function)
        setattr(inner, OPTIONS_OF_METHOD, chosen)
        return function

    if not args:
        return mark
    if len(args) != 1 or options:
        raise TypeError(
            "The @zray.method decorator must be applied using no arguments or keyword arguments, "
            "for example '@zray.method(num_returns=2)'."
        )
    return mark(args[0])


# ---- by name or handle ---------------------------------------------------------------------


def get_actor(name: str, namespace: str | None = None) -> ActorHandle[Any]:
    """A handle of the living actor that was made with this name.

    Args:
        name: as in ``ActorClass.options(name=...)``.
        namespace: None: that of this program.

    Raises:
        ActorNotFoundError: there is none; it is also a ValueError.
        ValueError, TypeError: a bad name or namespace.
    """
    if not name:
        raise ValueError("Please supply a non-empty value to get_actor")
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, got: {type(name)}")
    checked_text("name", name)
    space = _namespace(namespace)
    participant = connected()
    found = participant.find_actor(space or participant.namespace, name)
    if found is None:
        raise ActorNotFoundError(
            f"Failed to look up actor with name '{name}'. This could because 1. You are trying to "
            "look up a named actor you didn't create. 2. The named actor died. 3. You did not use "
            "a namespace matching the namespace of the actor."
        )
    return ActorHandle(*found)


def _namespace(given: str | None) -> str:
    return "" if given is None else namespace("namespace", given)


def kill(actor: ActorHandle[Any], *, no_restart: bool = True) -> None:
    """End an actor's process at once; calls that it has not answered fail.

    To end it after the calls made before: ``handle.__ray_terminate__.remote()``.

    Args:
        actor: its handle.
        no_restart: False: it starts again, if its ``max_restarts`` allow that.

    Raises:
        ValueError: not a handle.
    """
    if not isinstance(actor, ActorHandle):
        raise ValueError(
            "zray.kill() only supported for actors. For tasks, try zray.cancel(). "
            f"Got: {type(actor)}."
        )
    connected().kill_actor(actor._actor_id, no_restart)
    if no_restart:
        references.of_ended(actor._ref)


def exit_actor() -> NoReturn:
    """End the actor that calls this, without a restart; the call that did it fails.

    Calls that run beside it end first; those that have not started fail. Exit handlers run, and
    ``__ray_shutdown__`` of the actor's class. As ``ray.actor.exit_actor``.

    Raises:
        TypeError: not called by a method of an actor.
    """
    worker: Any = session.current()
    if not getattr(worker, "actor_id", b""):
        raise TypeError(
            "exit_actor API is called on a non-actor worker. Call this API inside an actor method "
            "if you'd like to exit the actor gracefully."
        )
    worker.leaves()
    raise ActorExit
