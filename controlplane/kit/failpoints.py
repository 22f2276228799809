"""Steps of a job's life at which a test may have a process die, stop, wait or fail.

A test arms a step by a file of its name in the folder that `CC_FAILPOINTS` names when a process
starts; without that variable `reach` does nothing, and nobody can arm one: neither a request nor a
configuration file. The file says what happens, and at which time the step is reached: `kill`,
`stop@3`, `sleep:250`, `error`. It happens once, to whichever process takes the file first; what is
left of it, `NAME.reached`, holds that process's id.

The standard library only: supervisors use it, too.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Final

VARIABLE: Final = "CC_FAILPOINTS"
REACHED: Final = ".reached"
WARNING: Final = "CC_FAILPOINTS is set: files in %s make this process fail on purpose"

POINTS: Final = {
    "submit.answered": "SubmitJob has the commit, and has not answered",
    "cancel.answered": "CancelJobs has the commit, and has not answered",
    "synchronize.heard": "a node's report has come in, and is not taken in",
    "synchronize.start_answered": "a node's call is about to be answered with a lease to start",
    "synchronize.stop_answered": "a node's call is about to be answered with a lease to end",
    "agent.ordered": "the agent has the order to start a lease, and has done nothing",
    "agent.folder_made": "the agent has made the lease's control folder",
    "agent.prepared": "the agent has made the lease's other folders, and has written no plan",
    "agent.prolog_ran": "the prolog has run, and the plan is not handed over",
    "agent.plan_written": "the agent has written the plan, and has asked for no supervisor",
    "agent.spawned": "the agent has asked for a supervisor",
    "agent.reports_running": "the agent is about to report that the workers run",
    "agent.reports_ended": "the agent is about to report the lease's end",
    "agent.told_ended": "the report of the lease's end was answered",
    "agent.stop_ordered": "the agent has the order to end a lease, and has not passed it on",
    "agent.stop_sent": "the agent has passed the order to end on to the supervisor",
    "agent.forgets": "the agent hears that the control plane needs an ended lease no more",
    "agent.drops": "the agent is about to remove the lease's folders",
    "agent.half_dropped": "the agent has removed the lease's data, and not its control folder",
    "supervisor.holds": "the supervisor has the lease's lock, and has written nothing",
    "supervisor.shown": "the supervisor has written down that it is there",
    "supervisor.worker_started": "a worker runs, and that is not written down",
    "supervisor.workers_started": "all workers run, and that is written down",
    "supervisor.stop_heard": "the supervisor has heard the order to end",
    "supervisor.exit_seen": "a worker has ended, and that is not written down",
    "supervisor.exit_written": "a worker's end is written down",
    "supervisor.ends": "nothing of the lease runs, and that is not written down",
    "supervisor.ended": "the lease's end is written down",
}
"""The steps. Besides these there are two for each kind of event, `KIND.before_commit` and
`KIND.after_commit`, such as `attempt.placed.after_commit`."""

_FOLDER = os.environ.get(VARIABLE)


def armed() -> str | None:
    """The folder in which steps are armed; None where nothing can be."""
    return _FOLDER


def reach(name: str) -> None:
    """Be at a step. OSError where a test wants one there."""
    if _FOLDER is not None:
        _reach(os.path.join(_FOLDER, name))


def _reach(path: str) -> None:
    mine = f"{path}.{os.getpid()}"
    try:
        os.rename(path, mine)  # of several processes, one
    except FileNotFoundError:
        return
    with open(mine) as file:
        action, _, times = file.read().strip().partition("@")
    left = int(times or 1) - 1
    with open(mine, "w") as file:
        file.write(f"{action}@{left}" if left else str(os.getpid()))
    os.rename(mine, path if left else path + REACHED)
    if not left:
        _act(path, action)


def _act(path: str, action: str) -> None:
    word, _, amount = action.partition(":")
    match word:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "sleep":
            time.sleep(int(amount) / 1000)
        case "error":
            raise OSError(f"the failpoint {os.path.basename(path)} was told to fail here")
        case _:
            raise ValueError(f"{path}: {action!r}: must be kill, stop, sleep:MILLISECONDS or error")
