"""Why a device did not take what it was offered: one class a reason; whatever it runs, it goes on running.

`retry` says whether the same sync may work later without anybody's doing (a network came back, a file was uploaded). An
app shows nothing for those and tries again; the others are worth a line in the crash reporter.
"""

import errno
from pathlib import Path

from pocketloop.contracts.errors import DeviceError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NetworkFault(DeviceError):
    """Base of what the way to the repository did, not the repository."""

    retry = True


class Unreachable(NetworkFault):
    """No connection: no network, no such host, refused, or a TLS certificate that is not the host's."""


class TimedOut(NetworkFault):
    """The server did not answer in time, or sends so slowly that it amounts to the same."""


class ConnectionCut(NetworkFault):
    """The connection ended in the middle of a file; what arrived is kept and the next sync goes on from there."""


class ServerFault(NetworkFault):
    """The server answered with an error status."""


class CaptivePortal(NetworkFault):
    """Somebody in between answers with a web page: a network that wants a login."""


class NotPublished(NetworkFault):
    """A file that signed metadata names is not there (404): a cache that lags, or a damaged repository."""


class DeviceBusy(DeviceError):
    """Another process of this device is syncing."""

    retry = True


class LowDisk(DeviceError):
    """Not enough free space, found before a download or while writing."""

    retry = True


class StorageFault(DeviceError):
    """The device's own folder cannot be read or written."""

    retry = False


class Refused(DeviceError):
    """Base of what the device refused although the network worked: damage, a mistake, or an attack."""

    retry = False


class MetadataExpired(Refused):
    """Metadata is past its expiry: updates are held back, nobody renewed it, or this device's clock is ahead."""

    retry = True


class MetadataRolledBack(Refused):
    """Metadata is older than what this device has verified before."""


class MetadataMixed(Refused):
    """A metadata file is not the one that snapshot or timestamp names: damaged, or from another moment."""


class MetadataInvalid(Refused):
    """Metadata cannot be read, or does not have the shape that this protocol asks for."""


class SignatureMissing(Refused):
    """Too few of a role's keys signed its metadata, or the signatures are not theirs."""


class WrongRole(Refused):
    """A role signs a target that belongs to another role: the online key claims an adapter."""


class EndlessData(Refused):
    """More bytes than were signed, or than any metadata file may have."""


class TargetTruncated(Refused):
    """The server's whole answer is shorter than the signed file."""


class TargetTampered(Refused):
    """A file's bytes are not those that were signed."""


class NoChannel(Refused):
    """No channel policy is published for this adapter and base."""

    retry = True


class PolicyInvalid(Refused):
    """The channel policy cannot be read, or belongs to another adapter or base."""


class PolicyRolledBack(Refused):
    """The channel policy's generation is older than one seen before, or the same with other contents."""


class NotApproved(Refused):
    """The policy names a digest that the reviewers' role did not sign for this adapter."""


class Revoked(NotApproved):
    """The policy names a digest whose approval the reviewers took back."""


class FactsInvalid(Refused):
    """The signed facts or the companion cannot be read, or contradict the name that they stand under."""


class WrongBase(Refused):
    """The adapter belongs to another base than this device has."""


class RuntimeTooOld(Refused):
    """The adapter asks for a newer runtime than this app has; an update of the app mends it."""


def storage_fault(error: OSError, path: Path) -> DeviceError:
    """The named error for a failed read or write of the device's own files."""
    if error.errno in _NO_SPACE:
        return LowDisk(f"{path.parent}: no space left while writing; free some space")
    return StorageFault(f"{path}: {error.strerror or error}")
