"""What a child does to itself between fork and exec, so that it cannot outlive its parent."""

import ctypes
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

# linux/prctl.h, linux/sched.h, linux/capability.h
_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CLONE_NEWUSER = 0x10000000
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_OVERRIDE = 1

_GAVE_UP = 126
_libc = ctypes.CDLL(None, use_errno=True)


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilitySets(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


class Identity(Enum):
    """Who a child is; PostgreSQL refuses to be root."""

    OWN = auto()
    #: Root in an unmapped user namespace: files are still root's, the user id reads as nobody.
    UNMAPPED = auto()
    #: The user nobody, who may still reach folders that only root may enter.
    NOBODY = auto()


@dataclass(frozen=True)
class Guard:
    """Make the kernel send `death_signal` to the child when the thread that forked it ends.

    So fork from the main thread only. Elsewhere than on Linux nothing is done.
    """

    death_signal: int
    identity: Identity = Identity.OWN

    def preexec(self) -> Callable[[], None]:
        """Return the function for Popen's preexec_fn; to be made by the parent itself."""
        parent = os.getpid()

        def between_fork_and_exec() -> None:
            if not sys.platform.startswith("linux"):
                return
            try:
                _become(self.identity)
                # After the change of identity, which clears it (prctl(2)).
                _call(_libc.prctl(_PR_SET_PDEATHSIG, self.death_signal, 0, 0, 0))
            except OSError as error:
                os.write(2, f"cannot prepare the process ({self.identity}): {error}\n".encode())
                os._exit(_GAVE_UP)
            if os.getppid() != parent:
                os._exit(_GAVE_UP)

        return between_fork_and_exec


def identity_for_postgres() -> Identity:
    """Return the first identity that works here.

    Docker's default seccomp profile forbids new user namespaces, but not to become nobody.
    """
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        return Identity.OWN
    trial = subprocess.run(
        ["true"],
        preexec_fn=Guard(signal.SIGKILL, Identity.UNMAPPED).preexec(),
        stderr=subprocess.DEVNULL,
    )
    return Identity.UNMAPPED if trial.returncode == 0 else Identity.NOBODY


def owner(identity: Identity) -> int:
    """Return the user id that must own the files of a child."""
    return pwd.getpwnam("nobody").pw_uid if identity is Identity.NOBODY else os.geteuid()


def _become(identity: Identity) -> None:
    if identity is Identity.UNMAPPED:
        _call(_libc.unshare(_CLONE_NEWUSER))
    elif identity is Identity.NOBODY:
        _become_nobody()


def _become_nobody() -> None:
    """Give up all of root but the right to pass through folders that are closed to others.

    An ambient capability survives exec (capabilities(7)); so neither the programs nor the data
    need to be copied to where nobody may read them.
    """
    nobody = pwd.getpwnam("nobody")
    _call(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setresgid(nobody.pw_gid, nobody.pw_gid, nobody.pw_gid)
    os.setresuid(nobody.pw_uid, nobody.pw_uid, nobody.pw_uid)
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    one = 1 << _CAP_DAC_OVERRIDE
    sets = (_CapabilitySets * 2)(_CapabilitySets(one, one, one))
    _call(_libc.capset(ctypes.byref(header), sets))
    _call(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0))


def _call(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
