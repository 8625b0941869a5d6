"""How type checkers see ``remote``: what a function takes may be given as a reference to it, too.

Nothing here runs: what ``remote`` does is in ``functions``. By position each of the first ten
arguments may be a value or a reference. What follows the tenth, or is given by keyword, is a value,
since Python's types cannot say it otherwise; after ``options`` what is given by keyword is not
checked, and may be a reference as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from zray.runtime.references import ObjectRef

P = ParamSpec("P")
Rest = ParamSpec("Rest")
R = TypeVar("R")
T0 = TypeVar("T0")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
T6 = TypeVar("T6")
T7 = TypeVar("T7")
T8 = TypeVar("T8")
T9 = TypeVar("T9")


class RemoteArguments(Generic[P, R]):
    """Of a function that is made a task."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it here and now."""
        raise NotImplementedError

    @overload
    def remote(self, *args: P.args, **kwargs: P.kwargs) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: Callable[Concatenate[T0, Rest], R],
        a0: T0 | ObjectRef[T0],
        /,
        *args: Rest.args,
        **kwargs: Rest.kwargs,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: Callable[Concatenate[T0, T1, Rest], R],
        a0: T0 | ObjectRef[T0],
        a1: T1 | ObjectRef[T1],
        /,
        *args: Rest.args,
        **kwargs: Rest.kwargs,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: Callable[Concatenate[T0, T1, T2, Rest], R],
        a0: T0 | ObjectRef[T0],
        a1: T1 | ObjectRef[T1],
        a2: T2 | ObjectRef[T2],
        /,
        *args: Rest.args,
        **kwargs: Rest.kwargs,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: Callable[Concatenate[T0, T1, T2, T3, Rest], R],
        a0: T0 | ObjectRef[T0],
        a1: T1 | ObjectRef[T1],
        a2: T2 | ObjectRef[T2],
        a3: T3 | ObjectRef[T3],
        /,
        *args: Rest.args,
        **kwargs: Rest.kwargs,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: Callable[Concatenate[T0, T1, T2, T3, T4, Rest], R],
        a0: T0 | ObjectRef[T0],
        a1: T1 | ObjectRef[T1],
        a2: T2 | ObjectRef[T2],
        a3: T3 | ObjectRef[T3],
        a4: T4 | ObjectRef[T4],
        /,
        *args: Rest.args,
        **kwargs: Rest.kwargs,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: Callable[Concatenate[T0, T1, T2, T3, T4, T5, Rest], R],
        a0: T0 | ObjectRef[T0],
        a1: T1 | ObjectRef[T1],
        a2: T2 | ObjectRef[T2],
        a3: T3 | ObjectRef[T3],
        a4: T4 | ObjectRef[T4],
        a5: T5 | ObjectRef[T5],
        /,
        *args: Rest.args,
        **kwargs: Rest.kwargs,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: Callable[Concatenate[T0, T1, T2, T3, T4, T5, T6, Rest], R],
        a0: T0 | ObjectRef[T0],
        a1: T1 | ObjectRef[T1],
        a2: T2 | ObjectRef[T2],
        a3: T3 | ObjectRef[T3],
        a4: T4 | ObjectRef[T4],
        a5: T5 | ObjectRef[T5],
        a6: T6 | ObjectRef[T6],
        /,
        *args: Rest.args,
        **kwargs: Rest.kwargs,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: Callable[Concatenate[T0, T1, T2, T3, T4, T5, T6, T7, Rest], R],
        a0: T0 | ObjectRef[T0],
        a1: T1 | ObjectRef[T1],
        a2: T2 | ObjectRef[T2],
        a3: T3 | ObjectRef[T3],
        a4: T4 | ObjectRef[T4],
        a5: T5 | ObjectRef[T5],
        a6: T6 | ObjectRef[T6],
        a7: T7 | ObjectRef[T7],
        /,
        *args: Rest.args,
        **kwargs: Rest.kwargs,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: Callable[Concatenate[T0, T1, T2, T3, T4, T5, T6, T7, T8, Rest], R],
        a0: T0 | ObjectRef[T0],
        a1: T1 | ObjectRef[T1],
        a2: T2 | ObjectRef[T2],
        a3: T3 | ObjectRef[T3],
        a4: T4 | ObjectRef[T4],
        a5: T5 | ObjectRef[T5],
        a6: T6 | ObjectRef[T6],
        a7: T7 | ObjectRef[T7],
        a8: T8 | ObjectRef[T8],
        /,
        *args: Rest.args,
        **kwargs: Rest.kwargs,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: Callable[Concatenate[T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, Rest], R],
        a0: T0 | ObjectRef[T0],
        a1: T1 | ObjectRef[T1],
        a2: T2 | ObjectRef[T2],
        a3: T3 | ObjectRef[T3],
        a4: T4 | ObjectRef[T4],
        a5: T5 | ObjectRef[T5],
        a6: T6 | ObjectRef[T6],
        a7: T7 | ObjectRef[T7],
        a8: T8 | ObjectRef[T8],
        a9: T9 | ObjectRef[T9],
        /,
        *args: Rest.args,
        **kwargs: Rest.kwargs,
    ) -> ObjectRef[R]: ...
    def remote(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]
        """As ``RemoteFunction.remote``."""


class BoundArguments(Generic[P, R]):
    """Of one with options of its own. What is given by keyword may be anything here."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """As ``RemoteFunction.__call__``."""
        raise NotImplementedError

    @overload
    def remote(self, **kwargs: Any) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: Callable[Concatenate[T0, Rest], R],
        a0: T0 | ObjectRef[T0],
        /,
        **kwargs: Any,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: Callable[Concatenate[T0, T1, Rest], R],
        a0: T0 | ObjectRef[T0],
        a1: T1 | ObjectRef[T1],
        /,
        **kwargs: Any,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: Callable[Concatenate[T0, T1, T2, Rest], R],
        a0: T0 | ObjectRef[T0],
        a1: T1 | ObjectRef[T1],
        a2: T2 | ObjectRef[T2],
        /,
        **kwargs: Any,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: Callable[Concatenate[T0, T1, T2, T3, Rest], R],
        a0: T0 | ObjectRef[T0],
        a1: T1 | ObjectRef[T1],
        a2: T2 | ObjectRef[T2],
        a3: T3 | ObjectRef[T3],
        /,
        **kwargs: Any,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: Callable[Concatenate[T0, T1, T2, T3, T4, Rest], R],
        a0: T0 | ObjectRef[T0],
        a1: T1 | ObjectRef[T1],
        a2: T2 | ObjectRef[T2],
        a3: T3 | ObjectRef[T3],
        a4: T4 | ObjectRef[T4],
        /,
        **kwargs: Any,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: Callable[Concatenate[T0, T1, T2, T3, T4, T5, Rest], R],
        a0: T0 | ObjectRef[T0],
        a1: T1 | ObjectRef[T1],
        a2: T2 | ObjectRef[T2],
        a3: T3 | ObjectRef[T3],
        a4: T4 | ObjectRef[T4],
        a5: T5 | ObjectRef[T5],
        /,
        **kwargs: Any,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: Callable[Concatenate[T0, T1, T2, T3, T4, T5, T6, Rest], R],
        a0: T0 | ObjectRef[T0],
        a1: T1 | ObjectRef[T1],
        a2: T2 | ObjectRef[T2],
        a3: T3 | ObjectRef[T3],
        a4: T4 | ObjectRef[T4],
        a5: T5 | ObjectRef[T5],
        a6: T6 | ObjectRef[T6],
        /,
        **kwargs: Any,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: Callable[Concatenate[T0, T1, T2, T3, T4, T5, T6, T7, Rest], R],
        a0: T0 | ObjectRef[T0],
        a1: T1 | ObjectRef[T1],
        a2: T2 | ObjectRef[T2],
        a3: T3 | ObjectRef[T3],
        a4: T4 | ObjectRef[T4],
        a5: T5 | ObjectRef[T5],
        a6: T6 | ObjectRef[T6],
        a7: T7 | ObjectRef[T7],
        /,
        **kwargs: Any,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: Callable[Concatenate[T0, T1, T2, T3, T4, T5, T6, T7, T8, Rest], R],
        a0: T0 | ObjectRef[T0],
        a1: T1 | ObjectRef[T1],
        a2: T2 | ObjectRef[T2],
        a3: T3 | ObjectRef[T3],
        a4: T4 | ObjectRef[T4],
        a5: T5 | ObjectRef[T5],
        a6: T6 | ObjectRef[T6],
        a7: T7 | ObjectRef[T7],
        a8: T8 | ObjectRef[T8],
        /,
        **kwargs: Any,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: Callable[Concatenate[T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, Rest], R],
        a0: T0 | ObjectRef[T0],
        a1: T1 | ObjectRef[T1],
        a2: T2 | ObjectRef[T2],
        a3: T3 | ObjectRef[T3],
        a4: T4 | ObjectRef[T4],
        a5: T5 | ObjectRef[T5],
        a6: T6 | ObjectRef[T6],
        a7: T7 | ObjectRef[T7],
        a8: T8 | ObjectRef[T8],
        a9: T9 | ObjectRef[T9],
        /,
        **kwargs: Any,
    ) -> ObjectRef[R]: ...
    def remote(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]
        """As ``RemoteFunction.remote``."""
