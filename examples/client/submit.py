"""Submits a job, follows its output, and exits with its exit code: what `ccctl submit -f` does.

Usage: python examples/client/submit.py job.json
CCCTL_SERVER, CCCTL_TOKEN_FILE and CCCTL_CA_FILE say where, and as whom.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from controlplane.client import Client

file = Path(sys.argv[1])
token = Path(os.environ["CCCTL_TOKEN_FILE"]).read_text().strip()
trusted = Path(os.environ["CCCTL_CA_FILE"]) if "CCCTL_CA_FILE" in os.environ else None
server = os.environ.get("CCCTL_SERVER", "127.0.0.1:7600")
with Client(server, token=token, ca_file=trusted) as client:
    job = client.submit(json.loads(file.read_text()), base=file.parent)
    for piece in client.logs(job.name, follow=True):
        sys.stdout.buffer.write(piece.data)
    *_, job = client.watch(job.name)
    print(f"{job.name}: {job.reason}", file=sys.stderr)
sys.exit(job.exit_code)
