"""Submits a job, follows its output, and exits with its exit code: what `ccctl submit -f` does.

Usage: python examples/client/submit.py job.json   (CCCTL_SERVER and CCCTL_TOKEN_FILE say where)
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from controlplane.client import Client

file = Path(sys.argv[1])
token = Path(os.environ["CCCTL_TOKEN_FILE"]).read_text().strip()
with Client(os.environ.get("CCCTL_SERVER", "127.0.0.1:7600"), token=token) as client:
    job = client.submit(json.loads(file.read_text()), base=file.parent)
    for piece in client.logs(job.name, follow=True):
        sys.stdout.buffer.write(piece.data)
    *_, job = client.watch(job.name)
    print(f"{job.name}: {job.reason}", file=sys.stderr)
sys.exit(job.exit_code)
