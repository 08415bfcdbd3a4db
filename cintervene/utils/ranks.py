# SPDX-License-Identifier: Apache-2.0
"""Work that several processes share: the ranks of torch.distributed.

Every rank runs the same program on the same inputs. What takes long is a list of
independent pieces, planned as if there was one rank, and dealt out by their numbers.
Each rank then gets all results, in the order of the pieces, and goes on as one rank
alone would: so results are the same, bit for bit, however many ranks there are.

Ranks meet in `exchange` only, and an error takes part in it as a result does. So none
waits for one that failed: where an error leaves the block of `joined`, that is an
exchange too, which the others find in place of the one that they came to.
"""

from __future__ import annotations

import pickle
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from typing import Any, TypeVar, cast

from cintervene.errors import RankError
from cintervene.utils.validation import check_positive

__all__ = [
    "alone", "apart", "deal", "deal_in_rounds", "exchange", "is_own", "joined",
    "of_one", "patience", "rank", "world",
]  # fmt: skip

# A millisecond, and thirty years.
_SOONEST, _LATEST = 1e-3, 1e9

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True)
class _Sent:
    """What a rank brings to an exchange.

    Attributes
    ----------
    step : tuple of (int, str) or None
        Which exchange it takes this for; None where an error left the block.
    result : bytes
    error : bytes or None
    """

    step: tuple[int, str] | None
    result: bytes
    error: bytes | None


class _Ranks:
    """The processes that share work.

    Attributes
    ----------
    rank, world : int
    """

    def __init__(self, rank: int, world: int, group: Any) -> None:
        self.rank, self.world, self._group = rank, world, group
        self._exchanges = 0
        self._agreed: Exception | None = None

    def exchange(self, what: str, make: Callable[[], T]) -> list[T]:
        """Return what each rank made."""
        error, result = None, b""
        try:
            with alone():
                result = _dumps(make())
        except Exception as caught:
            error = caught
        self._exchanges += 1
        found = self._sent((self._exchanges, what), result, error)
        return [pickle.loads(one.result) for one in found]

    def leave(self, error: Exception) -> None:
        """Tell the others of an error, unless they know it."""
        if error is not self._agreed:
            # Where they cannot be told any more, the error itself says more.
            with suppress(RankError):
                self._sent(None, b"", error)

    def _sent(
        self, step: tuple[int, str] | None, result: bytes, error: Exception | None
    ) -> list[_Sent]:
        """Exchange, and raise the same error on all ranks where one of them failed."""
        stored = None if error is None else _portable(error, self.rank)
        found = self._gathered(_Sent(step, result, stored))
        failed = [at for at, one in enumerate(found) if one.error is not None]
        if failed:
            first = found[failed[0]].error
            assert first is not None
            agreed = _arrived(first)
            if failed[0] == self.rank and type(error) is type(agreed):
                # It knows best where it came from.
                agreed = error
            self._agreed = agreed
            raise agreed
        steps = [one.step for one in found]
        if steps.count(step) < self.world:
            raise self._known(RankError(
                f"ranks: came to different places, {steps}; give all of them the same "
                "model, the same inputs and the same options"
            ))  # fmt: skip
        return found

    def _gathered(self, sent: _Sent) -> list[_Sent]:
        from torch import distributed

        found: list[Any] = [None] * self.world
        try:
            distributed.all_gather_object(found, sent, group=self._group)
        except RuntimeError as error:
            reason = _sentence(error)
            raise self._known(RankError(
                f"ranks: one of {self.world} did not answer rank {self.rank} "
                f"({reason}); see what it said, or give it more time with "
                "rank_timeout="
            )) from error  # fmt: skip
        return found

    def _known(self, error: RankError) -> RankError:
        """Remember an error that all ranks meet by themselves."""
        self._agreed = error
        return error


_joined: ContextVar[_Ranks | None] = ContextVar("joined", default=None)


@contextmanager
def joined(rank_timeout: float | None = None) -> Iterator[None]:
    """Share the work of what is called inside among torch's default process group.

    All its ranks have to enter the block, and to do the same in it, each with a model
    of its own. Without a group, or in one of a single rank, nothing is different.

    Parameters
    ----------
    rank_timeout : float, optional
        Seconds after which a rank that does not answer is given up; default: half an
        hour, as in torch. The longest step that one rank does for all counts.

    Raises
    ------
    ArgumentError
        `rank_timeout` is not positive.
    RankError
        A rank ended, did not answer in time, or came to another place.
    Exception
        Whatever one of the ranks raised, on all of them.

    Examples
    --------
    >>> torch.distributed.init_process_group("gloo")
    >>> with ci.joined():
    ...     intervention = ci.defend(model, tokenizer, forbid=["bomb"])
    """
    from torch import distributed

    if rank_timeout is not None:
        check_positive(rank_timeout=rank_timeout)
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        yield
        return
    wait = None if rank_timeout is None else patience(rank_timeout)
    # Of its own: rows go to the host, and another one's messages must not meet these.
    try:
        group = distributed.new_group(backend="gloo", timeout=wait)
    except RuntimeError as error:
        raise apart(error) from error
    ranks = _Ranks(distributed.get_rank(), distributed.get_world_size(), group)
    token = _joined.set(ranks)
    try:
        yield
        ranks.exchange("the end", lambda: None)
    except Exception as error:
        ranks.leave(error)
        raise
    finally:
        _joined.reset(token)


def apart(error: Exception) -> RankError:
    """What to raise where ranks do not come together, of what torch raised."""
    return RankError(
        f"ranks: do not come together ({_first_line(error)}); see that as many are "
        "started as WORLD_SIZE says and none has ended, that they reach MASTER_ADDR, "
        "and on several machines that GLOO_SOCKET_IFNAME names their network"
    )


def patience(seconds: float) -> timedelta:
    """How long ranks wait for each other, within what torch can count."""
    return timedelta(seconds=min(max(seconds, _SOONEST), _LATEST))


@contextmanager
def alone() -> Iterator[None]:
    """Share nothing inside the block."""
    token = _joined.set(None)
    try:
        yield
    finally:
        _joined.reset(token)


def rank() -> int:
    """Return the number of this process among those that share work; 0 of one."""
    ranks = _joined.get()
    return 0 if ranks is None else ranks.rank


def world() -> int:
    """Return how many processes share work."""
    ranks = _joined.get()
    return 1 if ranks is None else ranks.world


def is_own(number: int) -> bool:
    """Whether a piece of work is this rank's, by its number."""
    return number % world() == rank()


def exchange(what: str, make: Callable[[], T]) -> list[T]:
    """Return what each rank makes, by its rank; nothing is shared inside `make`.

    Parameters
    ----------
    what : str
        Names it in errors; the same on all ranks.
    make : callable
        What it returns is pickled; tensors arrive on the host.
    """
    ranks = _joined.get()
    return [make()] if ranks is None else ranks.exchange(what, make)


def deal(
    what: str,
    items: Sequence[T],
    work: Callable[[T], R],
    done: Callable[[T], object] | None = None,
) -> list[R]:
    """Return the results of all items, each of which is the work of one rank.

    Parameters
    ----------
    what : str
        See `exchange`.
    items : sequence
        The same on all ranks. Item i is the work of rank ``i % world()``.
    work : callable
        Gives the result of an item; nothing is shared inside it.
    done : callable, optional
        Called with each item, of this rank or another, that is done.
    """

    def own() -> list[R]:
        results = []
        for item in items[rank_::world_]:
            results.append(work(item))
            if done is not None:
                done(item)
        return results

    rank_, world_ = rank(), world()
    parts = exchange(what, own)
    if done is not None:
        for at, item in enumerate(items):
            if not is_own(at):
                done(item)
    return [parts[at % world_][at // world_] for at in range(len(items))]


def deal_in_rounds(
    what: str, items: Sequence[T], work: Callable[[T], R]
) -> Iterator[R]:
    """Yield what `deal` returns, for results that are large.

    No more of them are in memory than there are ranks.
    """
    for start in range(0, len(items), world()):
        yield from deal(what, items[start : start + world()], work)


def of_one(what: str, make: Callable[[], T], owner: int = 0) -> T:
    """Return what one rank makes to all of them.

    Parameters
    ----------
    what, make
        See `exchange`.
    owner : int
        Any number: it is taken modulo the number of ranks.
    """
    own = is_own(owner)
    found = exchange(what, lambda: make() if own else None)
    return cast(T, found[owner % world()])


class _Pickler(pickle.Pickler):
    """Takes tensors to the host: the device may be another one where they arrive."""

    def reducer_override(self, value: Any) -> Any:
        from torch import Tensor

        if isinstance(value, Tensor) and value.device.type != "cpu":
            host: Any = value.cpu()
            return host.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        return NotImplemented


def _dumps(value: object) -> bytes:
    stream = BytesIO()
    _Pickler(stream, pickle.HIGHEST_PROTOCOL).dump(value)
    return stream.getvalue()


def _sentence(error: Exception) -> str:
    """What gloo says, without its file and line, the address and its advice."""
    return re.split(r"\. | \[", _first_line(error))[0].lower()


def _first_line(error: Exception) -> str:
    """What torch says first, without names of files and the stack."""
    return re.sub(r"\[[^]]*\.\w+:\d+\]\s*", "", f"{error}\n".splitlines()[0])


def _portable(error: Exception, rank: int) -> bytes:
    """An error as another rank can raise it, with where it came from."""
    copy = _remade(error)
    if copy is None:
        # The nearest kind that can be, for it is caught and ends as its kind does.
        said = f"{type(error).__name__}: {error}"
        kinds = (one for one in type(error).__mro__ if issubclass(one, Exception))
        copy = next(filter(None, (_made(kind, said) for kind in kinds)))
    # Apart, for not every kind takes notes with it.
    note = f"On rank {rank}:\n{''.join(traceback.format_exception(error))}"
    return pickle.dumps((copy, note))


def _arrived(sent: bytes) -> Exception:
    """What `_portable` made, on another rank."""
    error: Exception
    error, note = pickle.loads(sent)
    error.add_note(note)
    return error


def _remade(error: Exception) -> Exception | None:
    """A copy as it would arrive; None where its arguments do not make it anew."""
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:
        return None
    return copy if str(copy) == str(error) else None


def _made(kind: type[Exception], said: str) -> Exception | None:
    """An error of a kind that says so, and arrives as it is, if there is one."""
    try:
        error = kind(said)
    except Exception:
        return None
    return _remade(error) if str(error) == said else None
