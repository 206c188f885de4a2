"""One thread of a process stands still while the others run on, as when a driver or a device hangs.

That takes what debuggers use, ptrace. A thread that has a debugger stays after its death until the debugger has seen that, and its
process with it.
"""

import contextlib
import ctypes
import errno
import os
import pathlib
import signal
import unittest

from cluster import ATOLL, wait_until

PTRACE_CONT, PTRACE_SEIZE, PTRACE_INTERRUPT = 7, 0x4206, 0x4207
WALL = 0x40000000  # For os.waitpid: threads too.


@contextlib.contextmanager
def stopped_thread(pid, name):
    """Stops the thread of this name in the middle of a computation. What the context gives is true once the thread is dead.

    The test is skipped where that is not permitted. A process that is there at the end of the context is killed.
    """
    [task] = [task for task in pathlib.Path(f"/proc/{pid}/task").iterdir() if (task / "comm").read_text().strip() == name]
    thread = Traced(task)
    try:
        thread.ptrace(PTRACE_SEIZE)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOSYS):
            raise unittest.SkipTest(f"threads cannot be stopped here: {error}")
        raise
    try:
        wait_until(thread.is_stopped_in_a_computation, f"a moment in which {name} computes")
        yield thread.is_dead
    finally:
        if not thread.is_dead():
            os.kill(pid, signal.SIGKILL)
            wait_until(thread.is_dead, f"the death of {name}")


class Traced:
    def __init__(self, task):
        self.task = task
        self.number = int(task.name)
        self.has_died = False

    def ptrace(self, request):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        libc.ptrace.restype = ctypes.c_long
        if libc.ptrace(request, self.number, None, None) == -1:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def is_stopped_in_a_computation(self):
        """Not in a system call or a library: there it could hold a lock of the process, and stop everything."""
        self.ptrace(PTRACE_INTERRUPT)
        os.waitpid(self.number, WALL)
        call, *_, counter = (self.task / "syscall").read_text().split()
        for line in (self.task / "maps").read_text().splitlines():
            first, last = (int(address, 16) for address in line.split()[0].split("-"))
            if call == "-1" and line.endswith(os.path.realpath(ATOLL)) and first <= int(counter, 16) < last:
                return True
        self.ptrace(PTRACE_CONT)
        return False

    def is_dead(self):
        if not self.has_died:
            number, status = os.waitpid(self.number, WALL | os.WNOHANG)
            self.has_died = number != 0 and not os.WIFSTOPPED(status)
        return self.has_died
