"""Runs in a guest. `load ROUND`: submits jobs and uploads blobs until the power goes, and says of
each what was acknowledged. `check FILE`: prints what is not as the lines of that file tell."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import sys
import threading
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from controlplane.client import Client
from controlplane.client.errors import ClientError
from controlplane.client.retry import Timing
from controlplane.client.transport import Connection
from controlplane.v1 import blob_service_pb2 as blobs_pb
from controlplane.v1.blob_service_pb2_grpc import BlobServiceStub

SAY = "/dev/ttyS1"
STATE = Path("/var/lib/controlplane")
SUBMITTERS = 4
BLOB_BYTES = 50_000


def connection() -> Connection:
    token = (STATE / "admin.token").read_text().strip()
    authority = STATE / "pki/ca.crt"
    return Connection("127.0.0.1:7600", token=token, ca_file=authority, timing=Timing())


def client() -> Client:
    token = (STATE / "admin.token").read_text().strip()
    return Client(token=token, ca_file=STATE / "pki/ca.crt", timeout_s=60)


def document(request_id: str) -> dict[str, Any]:
    return {"name": request_id, "command": ["echo", request_id], "workers": len(request_id)}


def content(name: str) -> bytes:
    return random.Random(name).randbytes(BLOB_BYTES)


def load(number: int) -> None:
    said = os.open(SAY, os.O_WRONLY | os.O_NOCTTY)

    def say(**told: object) -> None:
        os.write(said, json.dumps(told).encode() + b"\n")

    def submit(who: int) -> None:
        with client() as mine:
            for count in itertools.count():
                request_id = f"round-{number}-{who}-{count}"
                job = mine.submit(document(request_id), request_id=request_id)
                say(request_id=request_id, job=job.name, sha256=job.spec_sha256)

    def upload() -> None:
        mine = connection()
        stub = BlobServiceStub(mine.channel)
        for count in itertools.count():
            name = f"round-{number}-{count}"
            data = content(name)
            sha256 = hashlib.sha256(data).hexdigest()
            part = blobs_pb.UploadBlobRequest(sha256=sha256, data=data)
            stub.UploadBlob(iter([part]), metadata=mine.metadata, timeout=60)
            say(blob=name, sha256=sha256)

    threads = [threading.Thread(target=submit, args=(who,)) for who in range(SUBMITTERS)]
    for thread in (*threads, threading.Thread(target=upload)):
        thread.start()


def check(told: list[dict[str, Any]]) -> list[str]:
    faults = []
    line = connection()
    stub = BlobServiceStub(line.channel)
    with client() as mine:
        for each in told:
            try:
                if "blob" in each:
                    request = blobs_pb.DownloadBlobRequest(sha256=each["sha256"])
                    parts = stub.DownloadBlob(request, metadata=line.metadata, timeout=60)
                    if b"".join(part.data for part in parts) != content(each["blob"]):
                        faults.append(f"{each}: has other bytes")
                    continue
                request_id = each["request_id"]
                again = mine.submit(document(request_id), request_id=request_id)
                kept = mine.get(each["job"])
            except Exception as error:
                words = error.message if isinstance(error, ClientError) else str(error)
                faults.append(f"{each}: {words}")
                continue
            if again.name != each["job"]:
                faults.append(f"{each}: its repeat was answered with {again.name}")
            if kept.display_name != request_id or kept.spec_sha256 != each["sha256"]:
                faults.append(f"{each}: is now {kept.display_name} {kept.spec_sha256}")
            command = MessageToDict(kept.spec)["command"]
            if command != ["echo", request_id]:
                faults.append(f"{each}: runs {command}")
    return faults


if __name__ == "__main__":
    if sys.argv[1] == "load":
        load(int(sys.argv[2]))
    else:
        lines = Path(sys.argv[2]).read_text().splitlines()
        print(json.dumps(check([json.loads(line) for line in lines])))
