"""Locks, leader election and membership through the daemon ``tenured``.

:class:`Client` blocks and may be used by any number of threads; :class:`AsyncClient` is for asyncio. A connection is a
session: what is acquired through it is released when it closes or the process dies.
"""

from ._wire import default_socket
from ._held import Lease, Lock, Membership, Office, Subscription
from ._leases import UNSET, AsyncLeadership, AsyncLease, AsyncLock, AsyncMembership, LeaseState, Unset
from ._subscriptions import AsyncSubscription
from .aio import AsyncClient
from .blocking import Client
from .errors import (Cancelled, Conflict, ConnectError, Denied, Invalid, Limit, Lost, NotFound, NotHeld, TenureError, Timeout,
                     Unavailable, UnknownOutcome, Unsupported)
from .model import (Candidate, Check, ConnectionStatus, ElectionView, Entry, Event, GroupView, Hello, KeyPage, Leader, Leadership,
                    LeaseCheck, Limits, LockView, Member, MemberPage, Owner, PolicyStatus, SessionStatus, Status, Store)

__version__ = "0.1.0"
__all__ = [
    "UNSET", "AsyncClient", "AsyncLeadership", "AsyncLease", "AsyncLock", "AsyncMembership", "AsyncSubscription",
    "Cancelled", "Candidate", "Check", "Client", "Conflict", "ConnectError", "ConnectionStatus", "Denied",
    "ElectionView", "Entry", "Event", "GroupView", "Hello", "Invalid", "KeyPage", "Leader", "Leadership", "Lease",
    "LeaseCheck", "LeaseState", "Limit", "Limits", "Lock", "LockView", "Lost", "Member", "MemberPage", "Membership",
    "NotFound", "NotHeld", "Office", "Owner", "PolicyStatus", "SessionStatus", "Status", "Store", "Subscription",
    "TenureError", "Timeout", "Unavailable", "UnknownOutcome", "Unset", "Unsupported", "default_socket",
]
