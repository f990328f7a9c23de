"""The failover rule: which zones a read asks, in which order, and for how long. No I/O, no clock.

A read of one key and a read of many keys follow the same rule:

1. Zones are asked in the order of the client's view. Zones whose node for the key is silent come last.
2. A node that is down is not asked. That costs the failover budget nothing.
3. The first request of a read to a remote zone takes a token. Further ones take a token that can be spared. A read that was
   refused a token asks no other remote zone.
4. An attempt gets an equal share of the time left. The share of the gutter is reserved if there is one.
5. An item that is older than the version known counts as no answer.
6. A failure leads to the next zone. A miss does so too, unless `fallback_on_miss` is False.
7. A zone that became silent is asked again at the end, because it may resume before the deadline.
8. Standby zones are asked after all others, by the same rules. After a miss, the first request to them takes no token,
   because a refusal would be a miss that hides an acknowledged write. Further requests have a budget of their own,
   because reads of an empty set use up that of the read-write zones.
9. The gutter is asked if every zone failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

from evcache.errors import FailoverDenied, StaleReplica
from evcache.reads.failover.budget import TokenBucket
from evcache.replication.reconcile import Answer, ZoneHit, count_answered, reject_if_older
from evcache.zones.errors import CacheError, NodeSilent, NodeUnavailable
from evcache.zones.nodes.node import Node
from evcache.zones.zone_pool import ZonePool


class Cost(Enum):
    """Price of a request in tokens of the failover budget."""

    FREE = 0
    ONE = 1
    ONE_SPARE = 2
    """A token that can be spared, see `TokenBucket.try_take`."""
    EXEMPT = 3
    """No token, although the zone is remote. It is for the first request to a standby zone after a miss."""


class ReadAttempt:
    """Answers of the zones for one key. It exists only if the first zone did not serve the key."""

    # Defaults of the class: a bulk read makes an attempt for each missing key.
    item: ZoneHit | None = None
    """The item that serves the key. None if no zone had one so far."""
    has_missed = False
    """True if a zone holds nothing."""
    has_stale = False
    """True if a zone holds an older version than the one known."""
    is_denied = False
    """True if the failover budget refused a request of this read."""
    remote_requests = 0
    """Number of requests to remote zones."""
    is_on_standby = False
    """True if the read has come to the standby zones. `is_denied` and `remote_requests` are about those then."""

    def __init__(self, known: int) -> None:
        """Make an attempt without answers. `known` is the latest version that the client knew when the read began."""
        self.known = known
        self.answers: dict[str, Answer] = {}
        """Last answer of each zone, the reason if a zone was not asked."""

    def record(self, zone: str, answer: Answer, *, is_remote: bool = False) -> Answer:
        """Record the answer of a zone in place of an earlier one.

        Args:
            zone: Name of the zone.
            answer: Its answer, or the reason for which it was not asked.
            is_remote: True if a request was sent to a remote zone.

        Returns:
            The answer, or `StaleReplica` in place of an older version.
        """
        if answer is None:
            self.has_missed = True
        elif isinstance(answer, ZoneHit):
            answer = reject_if_older(answer, self.known)
            if isinstance(answer, ZoneHit):
                self.item = answer
            else:
                self.has_stale = True
        elif isinstance(answer, FailoverDenied):
            self.is_denied = True
        elif isinstance(answer, StaleReplica):
            self.has_stale = True
        self.answers[zone] = answer
        if is_remote:
            self.remote_requests += 1
        return answer


def come_to_standby(attempts: Iterable[ReadAttempt], budget: TokenBucket) -> None:
    """Begin the part of reads that asks standby zones. `budget` is that of the standby zones. May be called again."""
    for attempt in attempts:
        if not attempt.is_on_standby:
            attempt.is_on_standby = True
            attempt.is_denied = False
            attempt.remote_requests = 0
            budget.add_reads()


def is_settled(node: Node) -> bool:
    """Return True if reads go to this node without failover: it is up, warm, and not silent."""
    return not (node.is_down or node.is_warming or node.is_silent)


def silent_last(readers: Sequence[ZonePool], position: int) -> Sequence[ZonePool]:
    """Return the zones in their order, with those last whose node for this ring position is silent."""
    silent = [pool for pool in readers if pool.node(position).is_silent]
    return [pool for pool in readers if pool not in silent] + silent if silent else readers


def first_to_end(order: Sequence[ZonePool]) -> Sequence[ZonePool]:
    """Return the zones with the first one at the end."""
    return (*order[1:], order[0])


def reason_not_first(node: Node) -> NodeUnavailable:
    """Return the reason for which a node is not asked first."""
    if node.is_silent:
        return NodeUnavailable("silent: reads wait on it, and no byte arrives", node.label)
    return NodeUnavailable("warming up: it gets a share of the reads", node.label)


def zones_to_ask(order: Sequence[ZonePool], start: int, answers: Mapping[str, Answer]) -> list[ZonePool]:
    """Return the zones that are still to be asked: those from `start` on, then those before it that became silent."""
    zones = list(order[start:])
    for pool in order[:start]:
        if isinstance(answers.get(pool.name), NodeSilent):
            zones.append(pool)  # noqa: PERF401  # a comprehension costs each miss a call
    return zones


def cost_of(node: Node, attempt: ReadAttempt, *, is_remote: bool, is_standby: bool = False) -> Cost | CacheError:
    """Return the price of a request to a node, or the reason not to send it.

    Args:
        node: Node for the key.
        attempt: Answers so far.
        is_remote: True for a node of a remote zone. Standby zones are remote.
        is_standby: True for a node of a standby zone. The read has come to the standby zones (see `come_to_standby`).
    """
    if not node.may_answer:
        return node.unavailable()
    return remote_cost(attempt, is_standby=is_standby) if is_remote else Cost.FREE


def remote_cost(attempt: ReadAttempt, *, is_standby: bool = False) -> Cost | FailoverDenied:
    """Return the price of a request to a remote zone, or the reason not to send it. The arguments are those of `cost_of`."""
    if attempt.is_denied:
        return FailoverDenied()
    if attempt.remote_requests:
        return Cost.ONE_SPARE
    return Cost.EXEMPT if is_standby and attempt.has_missed else Cost.ONE


def end_of_attempt(now: float, deadline: float, later: int, *, has_gutter: bool) -> float:
    """Return the time at which an attempt ends: each attempt has an equal share of the time left.

    Args:
        now: Time on the event loop's clock.
        deadline: End of the call on the same clock.
        later: Number of zones that may be asked after this one. A zone that is known to be down needs no time.
        has_gutter: True if the gutter may be asked at the end.
    """
    return now + (deadline - now) / (1 + later + has_gutter)


def should_ask_next(answer: Answer, *, fallback_on_miss: bool) -> bool:
    """Return True if the read goes on to the next zone after this answer."""
    return isinstance(answer, CacheError) or (answer is None and fallback_on_miss)


def is_unanswered(attempt: ReadAttempt, zones: int) -> bool:
    """Return True if every zone failed, was not asked, or is stale, and at least one of them is not stale.

    If each zone misses or is stale, the version known is gone from all of them: a miss, which is an answer.
    """
    return not attempt.has_missed and len(attempt.answers) == zones and not count_answered(attempt.answers, zones)


def may_ask_gutter(attempt: ReadAttempt, zones: int) -> bool:
    """Return True if the gutter may serve the key: every zone failed, and none of them is stale."""
    return not attempt.has_stale and is_unanswered(attempt, zones)
