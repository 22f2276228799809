"""What can go wrong, as one tree; each docstring is the help that a reader needs.

ControlPlaneError
├── InvalidRequest        a field of a request is wrong            INVALID_ARGUMENT
├── NotFound              no such job, node, blob                  NOT_FOUND
├── RequestIdReused       the same request_id, other content       ALREADY_EXISTS
├── AlreadyExists         the name is taken                        ALREADY_EXISTS
├── NotAllowed            this principal may not do that           PERMISSION_DENIED
├── WrongState            not now                                  FAILED_PRECONDITION
├── TokenOutOfRange       what follows a token is not kept         OUT_OF_RANGE
├── Overloaded            no room: disk, queue, size               RESOURCE_EXHAUSTED
├── QuotaExceeded         an account's quota is used up            RESOURCE_EXHAUSTED
├── StoreUnavailable      the database does not answer             UNAVAILABLE
├── StoreRefused          a bug: the database can't keep it        INTERNAL
├── StaleControlPlane     another control plane took over          ABORTED
└── InvalidTransition     a bug: a move that the tables forbid     INTERNAL
"""

from __future__ import annotations

from dataclasses import dataclass


class ControlPlaneError(Exception):
    """The root of the tree: an error whose text is meant for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldFault:
    """One field that is wrong."""

    field: str
    """Path of the field in the request."""
    description: str
    """What is wrong with its value, and what is allowed."""


class InvalidRequest(ControlPlaneError):
    """Some fields of the request are wrong; each is named with what is allowed there."""

    def __init__(self, *faults: FieldFault) -> None:
        """`faults`: every field that is wrong, at least one."""
        self.faults = faults
        super().__init__("\n".join(f"{f.field}: {f.description}" for f in faults))


class NotFound(ControlPlaneError):
    """There is nothing of that name. List what there is to find the right one."""


class RequestIdReused(ControlPlaneError):
    """This request_id was used before, for another request. Use a new one for each new request."""


class AlreadyExists(ControlPlaneError):
    """Something of that name is there already. Show it, or choose another name."""


class NotAllowed(ControlPlaneError):
    """The caller's role does not allow that."""

    def __init__(self, message: str, resource: str = "") -> None:
        """`resource`: names of what it was asked of, for the event that tells of it."""
        super().__init__(message)
        self.resource = resource


class WrongState(ControlPlaneError):
    """That cannot be done in the present state."""


class TokenOutOfRange(ControlPlaneError):
    """What follows a watch's token is not kept, or not there. List again, and watch from now on."""


class Overloaded(ControlPlaneError):
    """There is no room for it now."""


class QuotaExceeded(ControlPlaneError):
    """A quota of the account that pays, or of the user within it, is used up."""


class StoreUnavailable(ControlPlaneError):
    """The database does not answer. Nothing was changed, or the same request_id finds the answer
    later."""


class StoreRefused(ControlPlaneError):
    """A bug: the database will never take that change, however often it is tried. Nothing was
    changed."""


class StaleControlPlane(ControlPlaneError):
    """Another control plane has taken this one's place; this one must write nothing more."""


class InvalidTransition(ControlPlaneError):
    """A bug: an event reached something in a state where it cannot happen."""

    def __init__(self, name: str, state: str, event: str, story: str) -> None:
        """`story`: what happened to it so far."""
        super().__init__(f"{name}: {event!r} cannot happen in state {state!r}; so far: {story}")
