"""One small world that the golden tests look at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from controlplane.model.spec import canonical, parse_spec
from controlplane.v1 import (
    event_pb2,
    job_pb2,
    lease_pb2,
    node_pb2,
    usage_pb2,
    usage_service_pb2,
)
from tests.cli.fake_server import World, struct

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def ago(**delta: float) -> Timestamp:
    moment = Timestamp()
    moment.FromDatetime(NOW - timedelta(**delta))
    return moment


def lasting(**delta: float) -> Duration:
    length = Duration()
    length.FromTimedelta(timedelta(**delta))
    return length


def device_times(**hours: float) -> list[usage_pb2.DeviceTime]:
    models = {"h100": "NVIDIA H100 80GB HBM3", "a100": "NVIDIA A100-SXM4-80GB"}
    return [
        usage_pb2.DeviceTime(model=models[name], time=lasting(hours=length))
        for name, length in hours.items()
    ]


def job(number: int, state: str, **more: object) -> job_pb2.Job:
    document: dict[str, object] = {
        "name": f"job-{number}",
        "launcher": "horovod",
        "command": ["python", "train.py", "--name", "two words"],
        "workers": 2,
        "resources": {"gpus": 1, "cpus": 0.5, "memory": "8GiB"},
        "labels": {"team": "nlp"},
        "time_limit": "2h",
        "signal": "USR2@10m",
        "requeue_exit_codes": [75, 85],
        "working_dir": {"sha256": "cd" * 32, "size": 20480},
    }
    made = job_pb2.Job(
        name=f"jobs/{number}",
        job_id=number,
        display_name=f"job-{number}",
        spec=struct(canonical(parse_spec(document))),
        spec_sha256="ab" * 32,
        owner="ada",
        state=job_pb2.JobState.Value(f"JOB_STATE_{state}"),
        create_time=ago(hours=3, minutes=number),
        etag=f"{number}.1",
        time_limit=lasting(hours=2),
    )
    made.MergeFrom(job_pb2.Job(**more))  # type: ignore[arg-type]
    return made


def worker(rank: int, **more: object) -> lease_pb2.Worker:
    made = lease_pb2.Worker(
        rank=rank,
        node=f"nodes/u-{rank}",
        node_display_name=f"gpu-{rank}",
        state=lease_pb2.WORKER_STATE_ENDED,
        pid=4000 + rank,
        start_time=ago(minutes=60),
        end_time=ago(minutes=10),
        stdout_bytes=123456,
        stderr_bytes=42,
    )
    made.MergeFrom(lease_pb2.Worker(**more))  # type: ignore[arg-type]
    return made


def failed_job() -> job_pb2.Job:
    cause = job_pb2.Cause(
        kind=job_pb2.CAUSE_KIND_APPLICATION,
        message="rank 1 on gpu-1 was ended by signal 9 (SIGKILL)",
        rank=1,
        node="gpu-1",
        signal=9,
        stderr_tail="Traceback (most recent call last):\n\x1b[31mValueError\x1b[0m: no\n",
    )
    attempt = job_pb2.Attempt(
        name="jobs/2/tasks/0/attempts/1",
        number=1,
        state=job_pb2.ATTEMPT_STATE_FAILED,
        cause=cause,
        leases=[
            lease_pb2.Lease(
                lease_id=7 + rank,
                token=3,
                node=f"nodes/u-{rank}",
                node_display_name=f"gpu-{rank}",
                device_ids=[f"GPU-{rank}"],
                cpu_millicores=500,
                memory_bytes=8 << 30,
                ports=[20000, 20001],
                workers=1,
                added_time=ago(minutes=61),
                removed_time=ago(minutes=10),
                job_dir="/var/lib/nodeagent/jobs/2",
                output_fault="/data/2-1.err: Permission denied" if rank else "",
            )
            for rank in range(2)
        ],
        workers=[
            worker(0, exit_code=0, output_path="/data/2-0.out", error_path="/data/2-0.err"),
            worker(1, signal=9, output_path="/data/2-1.out", error_path="/data/2-1.err"),
        ],
        create_time=ago(minutes=61),
        start_time=ago(minutes=60.5),
        running_time=ago(minutes=60),
        stop_time=ago(minutes=10.1),
        end_time=ago(minutes=10),
        usage=usage_pb2.AttemptUsage(
            device_times=device_times(h100=1.7),
            core_time=lasting(minutes=51),
            memory_gib_time=lasting(minutes=816),
            peak_memory_bytes=3 << 30,
            stdout_bytes=246912,
            stderr_bytes=84,
            waiting_time=lasting(hours=2, minutes=1),
            staging_time=lasting(minutes=0.5),
            starting_time=lasting(minutes=0.5),
            running_time=lasting(minutes=49.9),
            stopping_time=lasting(minutes=0.1),
        ),
        warning_time=ago(minutes=20),
        signals=[
            job_pb2.SentSignal(
                number=3,
                signal="SIGUSR1",
                principal="ada",
                create_time=ago(minutes=40),
                delivered=True,
            ),
            job_pb2.SentSignal(
                number=4,
                signal="SIGHUP",
                ranks=[0, 1],
                principal="bob",
                create_time=ago(minutes=30),
            ),
        ],
    )
    return job(
        2,
        "FAILED",
        reason="rank 1 on gpu-1 was ended by signal 9 (SIGKILL)",
        start_time=ago(minutes=60.5),
        end_time=ago(minutes=10),
        exit_code=137,
        attempts=[attempt],
    )


def node(number: int, state: str, reason: str = "") -> node_pb2.Node:
    return node_pb2.Node(
        name=f"nodes/u-{number}",
        facts=node_pb2.NodeFacts(
            display_name=f"gpu-{number}",
            address=f"10.0.0.{number}",
            kernel="6.1.0",
            os="Debian GNU/Linux 12",
            agent_version="0.1.0",
            cpus=64,
            memory_bytes=512 << 30,
            devices=[
                node_pb2.Device(
                    device_id=f"GPU-{number}",
                    kind=node_pb2.DEVICE_KIND_GPU,
                    model="NVIDIA H100 80GB HBM3",
                    memory_bytes=80 << 30,
                    index=0,
                    pci_bus_id="0000:17:00.0",
                    numa_node=0,
                    nvlinks=18,
                )
            ],
            port_first=20000,
            port_last=20999,
            labels={"rack": "r1"},
            cpu_model="AMD EPYC",
        ),
        state=node_pb2.NodeState.Value(f"NODE_STATE_{state}"),
        reason=reason,
        boot_id="b",
        heartbeat_time=ago(seconds=2),
        create_time=ago(days=9),
        leased_millicores=500,
        leased_memory_bytes=8 << 30,
        leased_device_ids=[f"GPU-{number}"],
        attempts=[f"jobs/{number}/tasks/0/attempts/1"],
        labels={"rack": "r1", "tier": "prod"},
    )


def world() -> World:
    running = job_pb2.Attempt(
        name="jobs/1/tasks/0/attempts/1", number=1, state=job_pb2.ATTEMPT_STATE_RUNNING
    )
    pending = job(3, "PENDING", reason="waits: 2 nodes are needed, and 1 is free")
    return World(
        jobs={
            "jobs/1": [
                job(
                    1,
                    "ACTIVE",
                    reason="runs on 2 nodes",
                    start_time=ago(minutes=5),
                    attempts=[running],
                )
            ],
            "jobs/2": [failed_job()],
            "jobs/3": [pending],
        },
        nodes=[node(0, "READY"), node(1, "DRAINING", "fan is loud")],
        events=[
            event_pb2.Event(
                seq=4,
                time=ago(hours=3),
                kind="job.submitted",
                principal="ada",
                peer="127.0.0.1",
                resource="jobs/2",
                changed=struct({"state": "pending"}),
            ),
            event_pb2.Event(
                seq=5,
                time=ago(minutes=61),
                kind="attempt.placed",
                principal="scheduler",
                resource="jobs/2/tasks/0/attempts/1",
                changed=struct({"nodes": ["gpu-0", "gpu-1"]}),
            ),
            event_pb2.Event(
                seq=6,
                time=ago(minutes=30),
                kind="job.signalled",
                principal="bob",
                peer="127.0.0.1",
                resource="jobs/2",
                changed=struct({"attempt": 1, "ranks": [0, 1], "signal": "SIGHUP"}),
            ),
            event_pb2.Event(
                seq=7,
                time=ago(minutes=20),
                kind="attempt.warned",
                principal="agent",
                resource="jobs/2/tasks/0/attempts/1",
                changed=struct({"node": "gpu-0", "signal": "SIGUSR2"}),
            ),
            event_pb2.Event(
                seq=8,
                time=ago(minutes=60),
                kind="access.denied",
                principal="bob",
                peer="127.0.0.1",
                resource="principals/bob",
                changed=struct(
                    {
                        "rpc": "JobService/GetJob",
                        "role": "user",
                        "object": "jobs/2",
                        "passed_over": 3,
                    }
                ),
            ),
        ],
        usage=[
            usage_service_pb2.UsageRow(
                key="",
                core_time=lasting(seconds=1.5),
                jobs=1,
                attempts=1,
                living_attempts=1,
            ),
            usage_service_pb2.UsageRow(
                key="ada",
                device_times=device_times(a100=20, h100=12.25),
                core_time=lasting(hours=64),
                jobs=3,
                attempts=5,
                living_attempts=1,
                failed_attempts=1,
                peak_memory_bytes=3 << 30,
            ),
            usage_service_pb2.UsageRow(
                key="bob, the \x1b[31mred",
                device_times=device_times(h100=0.001),
                core_time=lasting(hours=1),
                jobs=1,
                attempts=1,
                failed_attempts=1,
                peak_memory_bytes=5,
            ),
            usage_service_pb2.UsageRow(
                device_times=device_times(a100=20, h100=12.251),
                core_time=lasting(hours=65),
                jobs=5,
                attempts=7,
                living_attempts=2,
                failed_attempts=2,
                peak_memory_bytes=3 << 30,
            ),
        ],
        logs={
            (1, 0, 1): b"epoch 1\nepoch 2\n",
            (1, 0, 2): b"warning\n",
            (1, 1, 1): b"\x1b[31mred\x1b[0m\r\n\x00\xff no end",
        },
    )
