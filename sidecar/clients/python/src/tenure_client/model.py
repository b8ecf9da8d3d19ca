"""What the daemon tells: one dataclass each. Members that this library does not know are ignored."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, fields
from typing import Any, Mapping, TypeVar

T = TypeVar("T")


def _value(data: Mapping[str, Any]) -> bytes | None:
    if isinstance(data.get("value_b64"), str):
        return base64.b64decode(data["value_b64"])
    text = data.get("value")
    return text.encode() if isinstance(text, str) else None


def _build(cls: type[T], data: Mapping[str, Any], **nested: Any) -> T:
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    members = {k: v for k, v in data.items() if k in known and k not in nested}
    if "value" in known:
        members["value"] = _value(data) or b""
    return cls(**members, **nested)


@dataclass(frozen=True)
class Owner:
    """Who holds a lock or waits for it."""

    fence: int
    session: str = ""
    host: str = ""
    pid: int = 0
    #: Unix time, for people.
    since_ms: int = 0
    label: str | None = None


@dataclass(frozen=True)
class LockView:
    """A lock as the store shows it; waiters in the order of grants to come, and how many more there are than fit into a line."""

    name: str
    holder: Owner | None = None
    waiters: tuple[Owner, ...] = ()
    more_waiters: int = 0

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> LockView:
        holder = data.get("holder")
        return _build(cls, data, holder=_build(Owner, holder) if holder else None,
                      waiters=tuple(_build(Owner, waiter) for waiter in data.get("waiters", ())))


@dataclass(frozen=True)
class LeaseCheck:
    """Where a lease stands, as the daemon sees it."""

    held: bool
    remaining_ms: int
    fence: int

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> LeaseCheck:
        return _build(cls, data)


@dataclass(frozen=True)
class Leader:
    """Who leads an election; ``fence`` is the term."""

    fence: int
    value: bytes = b""
    revision: int = 0
    session: str = ""
    candidate: str = ""
    host: str = ""
    pid: int = 0
    priority: int = 0
    since_ms: int = 0
    label: str | None = None

    @property
    def text(self) -> str:
        """The value as text."""
        return self.value.decode()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Leader:
        return _build(cls, data)


@dataclass(frozen=True)
class Leadership:
    """The answer to who leads: ``None`` for nobody, and how long ago at most the store said so."""

    leader: Leader | None
    age_ms: int = 0

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Leadership:
        leader = data.get("leader")
        return _build(cls, data, leader=Leader.of(leader) if leader else None)


@dataclass(frozen=True)
class Candidate:
    """One who waits to lead."""

    id: str
    value: bytes = b""
    session: str = ""
    host: str = ""
    pid: int = 0
    priority: int = 0
    since_ms: int = 0
    label: str | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Candidate:
        return _build(cls, data)


@dataclass(frozen=True)
class ElectionView:
    """An election as the store shows it; the leader's value is left out, and ``candidates`` is how many wait."""

    name: str
    leader: Leader | None = None
    candidates: int = 0

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> ElectionView:
        leader = data.get("leader")
        return _build(cls, data, leader=Leader.of(leader) if leader else None)


@dataclass(frozen=True)
class GroupView:
    """A group as the store shows it; ``members`` is how many it has."""

    name: str
    members: int = 0

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> GroupView:
        return _build(cls, data)


@dataclass(frozen=True)
class Member:
    """A member of a group, as others see it."""

    id: str
    revision: int = 0
    value: bytes = b""
    address: str | None = None
    zone: str | None = None
    weight: int = 1
    metadata: Mapping[str, str] = field(default_factory=dict)
    state: str = "passing"
    session: str = ""
    host: str = ""
    pid: int = 0
    label: str | None = None

    @property
    def text(self) -> str:
        """The value as text."""
        return self.value.decode()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Member:
        return _build(cls, data)


@dataclass(frozen=True)
class MemberPage:
    """Members by id; ``next`` where there are more: ask again with ``after`` set to it."""

    members: tuple[Member, ...]
    revision: int = 0
    unreadable: int = 0
    next: str | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> MemberPage:
        return _build(cls, data, members=tuple(Member.of(member) for member in data.get("members", ())))


@dataclass(frozen=True)
class Check:
    """How the daemon finds out whether a member is well: ``tcp:HOST:PORT``, ``http://…`` or ``heartbeat:SECONDS``."""

    check: str
    interval_ms: int | None = None
    timeout_ms: int | None = None
    rise: int | None = None
    fall: int | None = None
    initially: str | None = None


@dataclass(frozen=True)
class Entry:
    """One entry of a bucket."""

    key: str
    value: bytes = b""
    revision: int = 0
    created: str = ""
    operation: str = "put"

    @property
    def text(self) -> str:
        """The value as text."""
        return self.value.decode()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Entry:
        return _build(cls, data)


@dataclass(frozen=True)
class KeyPage:
    """Keys, sorted; ``next`` where there are more: ask again with ``after`` set to it."""

    keys: tuple[str, ...]
    next: str | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> KeyPage:
        return _build(cls, data, keys=tuple(data.get("keys", ())))


@dataclass(frozen=True)
class Event:
    """Something that a subscription tells; ``kind`` says which of the other members there are.

    The last one of every subscription that was not cancelled by its owner is ``end``, with a ``reason``: one that the
    daemon gave, or ``slow_reader`` (too many events waited here), ``disconnected`` or ``closed``. A ``gap`` says that events are missing
    here; nothing is done about it behind the application's back.
    """

    kind: str
    #: Who holds a lock now, who is next, and how many wait: ``waiters`` has not all of them where many do.
    holder: Owner | None = None
    waiters: tuple[Owner, ...] = ()
    waiting: int | None = None
    leader: Leader | None = None
    member: Member | None = None
    id: str | None = None
    key: str | None = None
    value: bytes | None = None
    revision: int | None = None
    resume_revision: int | None = None
    reason: str | None = None
    #: The event as it came, with what later versions may have added.
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Event:
        holder, leader, member = data.get("holder"), data.get("leader"), data.get("member")
        return cls(
            kind=str(data.get("kind")), holder=_build(Owner, holder) if holder else None,
            waiters=tuple(_build(Owner, waiter) for waiter in data.get("waiters", ())), waiting=data.get("waiting"), leader=Leader.of(leader) if leader else None,
            member=Member.of(member) if member else None, id=data.get("id"), key=data.get("key"), value=_value(data),
            revision=data.get("revision"), resume_revision=data.get("resume_revision"), reason=data.get("reason"), raw=data)


@dataclass(frozen=True)
class Limits:
    """What one connection and the daemon allow."""

    line_bytes: int = 2 << 20
    requests: int = 64
    subscriptions: int = 256
    stall_ms: int = 10_000
    leases: int = 1_024
    connections: int = 10_000
    connections_per_uid: int = 10_000
    requests_per_uid: int = 16_384
    leases_per_uid: int = 16_384
    subscriptions_per_uid: int = 4_096
    checks_per_uid: int = 1_024
    min_check_interval_ms: int = 0
    lease_lengths: int = 64
    default_lease_ms: int = 0
    min_lease_ms: int = 0
    max_lease_ms: int = 0


@dataclass(frozen=True)
class Store:
    """Where a daemon keeps everything; ``shared`` where other machines see the same."""

    url: str = ""
    shared: bool = False
    replicas: int = 1


@dataclass(frozen=True)
class SessionStatus:
    """A session of the daemon with its store; ``users`` are the leases and waits that rest on it."""

    id: str
    lease_ms: int = 0
    state: str = ""
    remaining_ms: int = 0
    users: int = 0


@dataclass(frozen=True)
class PolicyStatus:
    """The rules that say who may do what; ``problem`` is why what the file says now is not in force."""

    path: str = ""
    rules: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class ConnectionStatus:
    """What the daemon knows of the connection that asks."""

    session: str = ""
    pid: int | None = None
    uid: int = 0
    leases: int = 0
    subscriptions: int = 0
    requests: int = 0
    heartbeat_ms: int | None = None


@dataclass(frozen=True)
class Status:
    """How the daemon fares: what it has of everything, and of the connection that asks."""

    server: str = ""
    pid: int = 0
    uptime_ms: int = 0
    draining: bool = False
    connections: int = 0
    connections_max: int = 0
    leases: int = 0
    leaderships: int = 0
    members: int = 0
    subscriptions: int = 0
    requests: int = 0
    store: Store = field(default_factory=Store)
    sessions: tuple[SessionStatus, ...] = ()
    policy: PolicyStatus | None = None
    connection: ConnectionStatus = field(default_factory=ConnectionStatus)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Status:
        policy = data.get("policy")
        return _build(cls, data, store=_build(Store, data.get("store") or {}),
                      sessions=tuple(_build(SessionStatus, session) for session in data.get("sessions", ())),
                      policy=_build(PolicyStatus, policy) if policy else None,
                      connection=_build(ConnectionStatus, data.get("connection") or {}))


@dataclass(frozen=True)
class Hello:
    """What the daemon said when the connection began."""

    protocol: int
    server: str = ""
    session: str = ""
    store: Store = field(default_factory=Store)
    #: The methods that this daemon serves.
    capabilities: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Hello:
        return _build(cls, data, store=_build(Store, data.get("store") or {}), capabilities=tuple(data.get("capabilities", ())),
                      limits=_build(Limits, data.get("limits") or {}))
