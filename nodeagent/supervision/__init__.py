"""The parts of a supervisor: what it decides, how it starts processes and ends them, how it writes
down what happened.

Everything here imports the standard library only, because each supervisor is a fork of one small
process. Nothing here
talks to the control plane; the lease's folder is the only thing that a supervisor and an agent
share.
"""

from __future__ import annotations
