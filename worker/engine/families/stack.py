"""The layers of a packed body: built once and kept, or built for each batch.

A layer is built from its module of transformers, whose weights are mapped. It copies what it needs,
so that the pages of the file are released before the next layer is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from worker.engine.folder.mapped import MappedWeights

L = TypeVar("L")
L_co = TypeVar("L_co", covariant=True)


class Stack(Protocol[L_co]):
    """All layers of a body, in their order."""

    @property
    def body(self) -> Iterable[L_co]:
        """All layers but the last."""
        ...

    @property
    def last(self) -> L_co:
        """The last layer."""
        ...


class MakeStack(Protocol):
    """Makes the layers of a body."""

    def __call__(self, modules: Sequence[Any], build: Callable[[Any], L]) -> Stack[L]:
        """Return the layers that `build` makes of a body's modules."""
        ...


@dataclass(frozen=True)
class Stacks:
    """Makes stacks over weights that may be mapped."""

    mapped: MappedWeights | None

    def kept(self, modules: Sequence[Any], build: Callable[[Any], L]) -> Stack[L]:
        """Build all layers now, one at a time."""
        *body, last = self._built(modules, build)
        return _Kept(body, last)

    def passing(self, modules: Sequence[Any], build: Callable[[Any], L]) -> Stack[L]:
        """Build each layer whenever it is read, so that one or two are in memory."""
        return _Passing(modules, lambda some: self._built(some, build))

    def _built(self, modules: Sequence[Any], build: Callable[[Any], L]) -> Iterator[L]:
        for module in modules:
            yield build(module)
            if self.mapped is not None:
                self.mapped.release()


@dataclass(frozen=True)
class _Kept(Generic[L]):
    body: Sequence[L]
    last: L


@dataclass(frozen=True)
class _Passing(Generic[L]):
    modules: Sequence[Any]
    built: Callable[[Sequence[Any]], Iterator[L]]

    @property
    def body(self) -> Iterator[L]:
        return self.built(self.modules[:-1])

    @property
    def last(self) -> L:
        (layer,) = self.built(self.modules[-1:])
        return layer
