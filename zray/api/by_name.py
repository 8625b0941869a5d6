"""Tasks and actors of code that is not here: functions and classes that nodes offer by name.

Owns the caller's side, for programs that do not have the module. Must never import that module.
"""

from __future__ import annotations

from typing import Any

from zray.api.actor_handles import ActorHandle
from zray.api.definitions import checked_name, template_of
from zray.api.environments import environment_of
from zray.api.options import ActorOptions, TaskOptions, checked, returns
from zray.api.session import participant as connected
from zray.protocol import messages as m
from zray.runtime import offers, serialization
from zray.runtime.generators import ObjectRefGenerator
from zray.runtime.references import ObjectRef


class TaskByName:
    """A function that nodes offer under a name. Made by ``task_by_name``."""

    def __init__(self, name: str, options: TaskOptions) -> None:
        self._name = name
        self._options = options
        self._told: Any = None  # the participant that knows the template
        self._template: m.Template | None = None

    def remote(self, *args: Any, **kwargs: Any) -> ObjectRef[Any]:
        """Run the function as a task; returns at once with a reference to its result.

        Arguments and result are portable: None, bool, int of 64 bits, float, str, bytes, and lists
        and dicts (with str keys) of these. An argument may also be a reference, whatever its value.
        With ``num_returns=n`` it returns a list of n references, with 0 None.

        The task goes to a node that offers the name. The reference raises NameNotOfferedError where
        no node has ever offered it.

        Raises:
            SerializationError: an argument is not portable.
        """
        participant = connected()
        template = self._template
        if template is None or self._told is not participant:
            template = self._template = self._introduce(participant)
            self._told = participant  # last: other threads take what they find for known
        arguments = serialization.dumps_portable_arguments(args, kwargs, ObjectRef, self._name)
        refs: Any = participant.submit(template, arguments)
        if template.num_returns != 1:
            refs = [refs or None]
        elif template.yields == m.ITEMS:
            refs = [ObjectRefGenerator(refs[0], participant)]
        result: ObjectRef[Any] = refs[0]
        return result

    def _introduce(self, participant: Any) -> m.Template:
        options = self._options
        num_returns, yields = returns(options.num_returns, generates=False)
        template = template_of(
            *(offers.function_id(self._name), self._name, options.amounts()),
            num_returns=num_returns,
            max_retries=options.max_retries,
            by_name=True,
            yields=yields,
            unread_max=options.unread_max,
            timeout_s=options.timeout_s,
            priority=options.priority,
            labels=options.labels(),
            environment=environment_of(participant, options.runtime_env),
            events=options.events,
        )
        participant.name(template)
        return template

    def options(self, **options: Any) -> TaskByName:
        """The function with other options: num_cpus, num_gpus, memory, resources, num_returns,
        max_retries, timeout, priority. Which errors are retried is said where it is defined.

        Raises:
            ValueError, TypeError: an unknown option or a bad value.
        """
        return TaskByName(self._name, _for_names(checked(self._options, options)))

    def __repr__(self) -> str:
        return f"TaskByName({self._name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return TaskByName, (self._name, self._options)


class ActorClassByName:
    """An actor class that nodes offer under a name. Made by ``actor_class_by_name``."""

    def __init__(self, name: str, options: ActorOptions) -> None:
        self._name = name
        self._options = options
        self._function_id = offers.function_id(name)
        self._told: Any = None  # the participant that knows the template
        self._template: m.Template | None = None

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle[Any]:
        """Make an actor; returns at once with its handle, unless the actor has a name.

        Arguments and results of its constructor and methods are portable, as for
        ``TaskByName.remote``. The handle takes any method's name; one that the class lacks is an
        AttributeError as the call's result.

        Raises:
            SerializationError: an argument is not portable.
            ActorAlreadyExistsError: the actor's name is taken.
            ValueError: ``get_if_exists`` without a name.
        """
        if self._options.get_if_exists and not self._options.name:
            raise ValueError("get_if_exists needs a name: Please supply a non-empty name")
        participant = connected()
        template = self._template
        if template is None or self._told is not participant:
            template = self._template = self._introduce(participant)
            self._told = participant  # last: other threads take what they find for known
        arguments = serialization.dumps_portable_arguments(args, kwargs, ObjectRef, self._name)
        info = self._info(participant.namespace)
        ref, found = participant.create_actor(
            template, info, arguments, self._options.get_if_exists
        )
        return ActorHandle(ref, found)

    def _introduce(self, participant: Any) -> m.Template:
        options = self._options
        template = template_of(
            *(self._function_id, self._name, options.placed()),
            num_returns=1,
            max_retries=0,
            by_name=True,
            labels=options.labels(),
            environment=environment_of(participant, options.runtime_env),
            events=options.events,
        )
        participant.name(template)
        return template

    def options(self, **options: Any) -> ActorClassByName:
        """The class with other options, as ``ActorClass.options``.

        ``max_concurrency`` 1 is "as the class says", which is where it is async or not, too.

        Raises:
            ValueError, TypeError: an unknown option or a bad value.
        """
        return ActorClassByName(self._name, checked(self._options, options))

    def _info(self, default_namespace: str) -> m.ActorInfo:
        options = self._options
        return m.ActorInfo(
            class_name=self._name,
            function_id=self._function_id,
            methods=[],
            name=options.name,
            namespace=options.namespace or default_namespace,
            detached=options.lifetime == "detached",
            max_restarts=options.max_restarts,
            max_task_retries=options.max_task_retries,
            max_pending_calls=options.max_pending_calls,
            max_concurrency=options.max_concurrency or 1,
            held=options.held(),
            by_name=True,
        )

    def __repr__(self) -> str:
        return f"ActorClassByName({self._name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorClassByName, (self._name, self._options)


def task_by_name(name: str) -> TaskByName:
    """The function that nodes offer under ``name``, for programs that do not have its module.

    A module offers it with ``@zray.task(name="census.count")``; nodes are started with
    ``zray-worker --import MODULE``. Then ``zray.task_by_name("census.count").remote("path")``.

    Raises:
        TypeError, ValueError: it cannot be a name.
    """
    return TaskByName(checked_name("name", name), TaskOptions())


def actor_class_by_name(name: str) -> ActorClassByName:
    """The actor class that nodes offer under ``name``, for programs that do not have its module.

    A module offers it with ``@zray.actor(offer="census.Totals")``; nodes are started with
    ``zray-worker --import MODULE``. ``.remote()`` makes an actor. (An actor that has a name and
    lives already is found by ``zray.get_actor``.)

    Raises:
        TypeError, ValueError: it cannot be a name.
    """
    return ActorClassByName(checked_name("name", name), ActorOptions())


def _for_names(options: TaskOptions) -> TaskOptions:
    if options.name or options.retry_exceptions:
        raise ValueError(
            "name and retry_exceptions are said where the function is defined, not where it is "
            "called by name"
        )
    return options
