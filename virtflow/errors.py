"""Every error virtflow raises on purpose: what could not be done and why, with the fields kept on the exception.

``exit_code`` is what the command line ends with: 1 internal or the surroundings, 2 usage, 3 not found, 4 failed with
the host as before, 5 failed with something left, 6 wait timed out, 7 target busy, 130 detached.
"""

from __future__ import annotations

from typing import Any


class VirtflowError(Exception):
    """Base of all. A subclass gives ``template``; its fields are the keyword arguments."""

    template = "{reason}"
    exit_code = 1
    retry_elsewhere = True
    """Whether another host might succeed where this failed (the scheduler asks)."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields
        super().__init__(self.template.format(**fields))

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["fields"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.fields))


def _rebuild(cls: type[VirtflowError], fields: dict[str, Any]) -> VirtflowError:
    return cls(**fields)


# -- what the user asked for ------------------------------------------------------------------------------------------


class Refusal(VirtflowError):
    """The request cannot be done as it stands: the caller gets this error itself, not that an operation failed."""

    exit_code = 4
    retry_elsewhere = False


class InvalidRequest(Refusal):
    """A field of a request is wrong; ``field`` names it."""

    template = "{field}: {reason}"
    exit_code = 2


class NotFound(Refusal):
    """``kind`` (image, flavor, network, instance, operation ...) called ``name`` does not exist."""

    template = "{kind} {name!r} not found"
    exit_code = 3


class AlreadyExists(Refusal):
    template = "{kind} {name!r} exists already"
    exit_code = 4


class Conflict(Refusal):
    """The thing is not in a state in which this can be done."""

    template = "cannot {action} {kind} {name!r}: {reason}"
    exit_code = 4


class QuotaExceeded(Refusal):
    """Units: instances and vcpus in pieces, memory in MiB, disk in GiB."""

    template = "quota exceeded for {resource}: {requested} requested, {available} of {limit} left"
    exit_code = 4


class HostFull(Refusal):
    """A claim does not fit. Units as in QuotaExceeded."""

    template = "host {host} has not enough {resource}: {requested} requested, {available} free"
    exit_code = 4
    retry_elsewhere = True


class NoValidHost(Refusal):
    """No host can take the instance. ``reason`` says of each why not; ``refused`` has the same, by host."""

    template = "no host can take {target}: {reason}"
    exit_code = 4


class PolicyViolated(Refusal):
    """The host does not suit the instance's server group."""

    template = "host {host} does not suit server group {group!r} ({policy}): {reason}"
    exit_code = 4
    retry_elsewhere = True


class Busy(Refusal):
    """Another operation holds the target."""

    template = "{target} is busy: operation {operation} ({operation_kind}) is in progress"
    exit_code = 7


# -- what a step ran into ---------------------------------------------------------------------------------------------


class OperationCancelled(VirtflowError):
    template = "cancelled during {step}"
    exit_code = 4
    retry_elsewhere = False


class TaskTimeout(VirtflowError):
    template = "{step} took longer than it may"
    exit_code = 4


class CommandFailed(VirtflowError):
    """An external program failed. ``stderr`` is its last part, control characters removed."""

    template = "{program} failed with exit status {status}: {stderr}"
    exit_code = 4


class VolumeServerFailed(VirtflowError):
    """What serves the volumes of a backend to other hosts refuses to, or does not answer."""

    template = "{server} cannot {action}: {reason}"
    exit_code = 4


class ImageRefused(VirtflowError):
    """The image is hostile, broken, or not what it claims to be."""

    template = "image {image!r} refused: {reason}"
    exit_code = 4
    retry_elsewhere = False


class ImageUnavailable(VirtflowError):
    """The image source cannot deliver the image."""

    template = "cannot fetch image {image!r}: {reason}"
    exit_code = 4


class ImageNotPublished(VirtflowError):
    """The image source does not take the image."""

    template = "cannot publish image {image!r}: {reason}"
    exit_code = 4


class HypervisorError(VirtflowError):
    """libvirt refused; ``code`` is libvirt's VIR_ERR number."""

    template = "cannot {action} domain {domain}: {reason}"
    exit_code = 4


class MigrationFailed(VirtflowError):
    """A live migration came to nothing: the guest runs where it was."""

    template = "domain {domain} was not migrated: {reason}"
    exit_code = 4
    retry_elsewhere = False


class HypervisorUnreachable(VirtflowError):
    template = "cannot reach libvirt at {uri}: {reason}"


class InvalidDomainXml(VirtflowError):
    template = "domain XML does not match libvirt's schema at {element}: {reason}"
    exit_code = 4
    retry_elsewhere = False


class NetworkError(VirtflowError):
    template = "cannot {action} {device}: {reason}"
    exit_code = 4


class NoFreeAddress(VirtflowError):
    template = "network {network!r} has no free address"
    exit_code = 4
    retry_elsewhere = False


class ConfigDriveError(VirtflowError):
    template = "cannot build config drive: {reason}"
    exit_code = 4


class InjectionError(VirtflowError):
    """What must be written into a guest's disk could not be. ``reason`` never quotes content."""

    template = "cannot inject into {disk}: {reason}"
    exit_code = 4


class HostStorageError(VirtflowError):
    """The host's own file system refused."""

    template = "cannot {action} {path}: {reason}"
    exit_code = 4


class VolumeError(VirtflowError):
    """A volume's backend refused."""

    template = "cannot {action} {volume}: {reason}"
    exit_code = 4


class NoValidBackend(Refusal):
    """No backend can take the volume. ``reason`` says of each why not; ``refused`` has the same, by backend."""

    template = "no backend can take {target}: {reason}"
    exit_code = 4


# -- the surroundings -------------------------------------------------------------------------------------------------


class HostLacks(VirtflowError):
    """A program or a file that must be installed on this host is not there; ``remedy`` is what brings it."""

    template = "cannot {action}: {missing} not found; {remedy}"


class ConfigurationError(VirtflowError):
    template = "option [{group}] {option}: {reason}"
    exit_code = 2


class DatabaseError(VirtflowError):
    """The database is missing, locked, or cannot be reached. The URL never carries a password."""

    template = "database {url}: {reason}"


class SchemaMismatch(VirtflowError):
    template = "database {url} is at schema {found}, this virtflow needs {needed}: run `virtflow db upgrade`"


class BoardUnreachable(VirtflowError):
    """The job board does not answer. The URL never carries a password."""

    template = "cannot reach job board {url}: {reason}"


class InvalidJob(VirtflowError):
    """A job on the board is not what virtflow posts; it is not run."""

    template = "job {name!r} refused: {reason}"
    retry_elsewhere = False


class SecretUnreadable(VirtflowError):
    template = "secret {ref} cannot be read: {reason}"


# -- the engine -------------------------------------------------------------------------------------------------------


class StaleEpoch(VirtflowError):
    """Another worker has taken over the operation; this one must not write any more."""

    template = "operation {operation} was taken over (epoch {epoch} is stale)"


class UnknownFlow(VirtflowError):
    template = "no flow {kind!r} version {version} is registered"


class FlowChanged(VirtflowError):
    """The stored operation has tasks that today's flow does not know; it is not run."""

    template = "operation {operation} was made by another version of flow {flow}: {reason}"


class ResultNotPlain(VirtflowError):
    """A task returned something that is not plain JSON data."""

    template = "{step} returned {reason}: results must be plain JSON data"


class BadRecording(VirtflowError):
    """A file is no recording, a damaged one, or one of a newer virtflow; ``source`` is its path."""

    template = "cannot read recording {source}: {reason}"
    exit_code = 2


class SegmentFailed(VirtflowError):
    """What an operation had to do on one host failed there; another host might do better."""

    template = "{segment} failed on host {host}: {cause}"
    exit_code = 4


class SegmentRefused(SegmentFailed):
    """What an operation had to do on one host failed, and would on any."""

    retry_elsewhere = False


class HostGivenUp(SegmentFailed):
    """Nobody answers on a host any more, and what an operation had to do there need not be waited for."""


class HostElsewhere(VirtflowError):
    template = "cannot reach host {host} from {here}: no workers are configured here (option [engine] mode)"


class OperationFailed(VirtflowError):
    """The operation failed and everything it made is gone. ``cause`` is the first error, in one line."""

    template = "{kind} {target} failed: {cause}"
    exit_code = 4


class RevertIncomplete(VirtflowError):
    """The operation failed and ``debts`` things could not be taken back."""

    template = "{kind} {target} failed: {cause}; {debts} thing(s) could not be reverted"
    exit_code = 5


class WaitTimeout(VirtflowError):
    template = "operation {operation} is still {state} after {seconds} s"
    exit_code = 6
