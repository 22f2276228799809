"""Runs the agent in the foreground: wires host, devices, leases and session together."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import random
import shutil
import signal
import socket
import sys
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc

from controlplane import __version__
from controlplane.kit import failpoints
from controlplane.kit.alone import alone
from controlplane.kit.clock import SystemClock
from controlplane.kit.pki import PkiError
from controlplane.kit.sdnotify import notify, watchdog_period_s
from controlplane.model.node import NodeFacts
from nodeagent import host, upkeep
from nodeagent.accounts import Account, only_owner, own_account
from nodeagent.cages import Cages, find_cages
from nodeagent.credential import keep_authority, load, renewed
from nodeagent.devices import Devices, DevicesUnavailable, Shared, choose, open_devices
from nodeagent.folders import Folders
from nodeagent.identity import Identity
from nodeagent.launchers import NodeContext
from nodeagent.leases import Leases
from nodeagent.limits import parse_limits
from nodeagent.looking import Looks
from nodeagent.preflight import Preflight
from nodeagent.progress import report_once
from nodeagent.room import Room
from nodeagent.session import Line, Session
from nodeagent.shipping import ship_once
from nodeagent.spawning import Spawner
from nodeagent.staging import Stage
from nodeagent.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from controlplane.model.node import Device
    from nodeagent.credential import NodeCredential
    from nodeagent.settings import Settings

log = logging.getLogger(__name__)

REFRESH_S = 1.0
"""Every lease is looked at so often, should a nudge be lost."""
SHIP_S = 0.25
"""New output is looked for so often."""
REPORT_S = 0.5
"""Reports of progress are looked at so often."""
DISCOVER_DEADLINE_S = 30.0
ROOM_S = 5.0
"""Whether there is room for leases is looked at so often."""
TIDY_S = 3600.0
"""What may be removed is looked for so often."""
RENEW_LOOK_S = 600.0
"""Whether the certificate is due is looked at so often."""
PLAINTEXT_SERVER = "127.0.0.1:7600"
"""Where an agent with a token calls unless it is told."""
OFFERED_MEMORY = 0.9
"""Part of the host's memory that is offered to jobs unless the settings say."""


_CLOCK = SystemClock()


class AgentError(Exception):
    """The agent cannot start; the text says what to change."""


async def run(settings: Settings) -> None:
    """Serve the node until SIGTERM or SIGINT; workers run on. AgentError when it cannot start."""
    if folder := failpoints.armed():
        log.warning(failpoints.WARNING, folder)
    # Workers start in folders below it, and not from ours.
    settings = replace(settings, state_dir=settings.state_dir.absolute())
    folders = Folders(
        state=settings.state_dir,
        runtime=(settings.runtime_dir or settings.state_dir / "run").absolute(),
        shared=settings.run_as == "owner" and os.geteuid() == 0,
    )
    folders.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with alone(folders.state, "agent"):
        await _run(settings, folders)


async def _run(settings: Settings, folders: Folders) -> None:
    facts_of_host = host.read_host_facts()
    folders.prepare(facts_of_host.boot_id)
    credential, token = None, None
    if settings.token_file is not None:
        token = settings.token_file.read_text().strip()
    else:
        credential = load(settings.state_dir)
    server = settings.server or (credential.server if credential is not None else PLAINTEXT_SERVER)
    own = own_account()
    identity = Identity(settings.state_dir)
    address = settings.address or _address(server)
    devices = Shared(
        open_devices(
            settings.devices,  # type: ignore[arg-type]  # the settings allow these words only
            simulated_count=settings.simulated_count,
            simulated_model=settings.simulated_model,
            simulated_memory_bytes=settings.simulated_memory_mib << 20,
            node_uuid=identity.uuid,
        )
    )
    found = await _discover(devices, settings.offered_devices)
    box: list[NodeFacts] = []
    cages = _cages(settings, identity.uuid, lambda: devices.last)
    facts = _facts(settings, facts_of_host, address, found, cages)
    box.append(facts)
    nudges = _nudges(folders.nudges)
    spawner = Spawner()
    spawner.start()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    line = Line(server, credential, token)
    tasks: list[asyncio.Task[None]] = []
    steps: Steps | None = None
    try:
        session: Session
        room = Room(
            folders=(folders.data, folders.tmp, folders.jobs),
            free_bytes=settings.min_free_mib << 20,
            free_inodes=settings.min_free_inodes,
        )
        stage = Stage(
            base=_context(settings, folders, own, facts_of_host, facts, credential),
            folders=folders,
            room=room,
            log_cap_bytes=settings.log_cap_mib << 20,
            download=lambda sha256: session.download(sha256),
            limits=parse_limits(settings.limits),
            own=own,
            run_as=settings.run_as,  # type: ignore[arg-type]  # the settings allow these words only
            allow_root=settings.allow_root,
            devices=lambda: devices.last,
            cages=cages,
        )
        preflight = Preflight(
            users=devices.users,
            prolog=settings.prolog,
            epilog=settings.epilog,
            deadline_s=settings.prolog_deadline_s,
        )
        looks = Looks()
        leases = Leases(folders, stage, spawner, preflight, looks, lambda: session.changed.set())
        session = Session(
            line=line,
            identity=identity,
            agent_id=str(uuid.uuid4()),
            boot_id=facts_of_host.boot_id,
            facts=lambda: _troubled(box[0], leases.trouble, room.trouble),
            leases=leases,
            clock=SystemClock(),
            deadline_file=folders.deadline,
            digest=hashlib.sha256,
            rng=random.Random(),  # jitter, no secret
        )
        steps = session.steps = Steps(leases, session.serve_step, identity.uuid)
        adopted = leases.adopt()
        await room.look_within(looks)
        if cages is not None:
            cages.clean({str(held.key) for held in leases.held.values()})
        loop.add_reader(nudges, _on_nudges, nudges, leases)
        log.info(
            "agent started",
            extra={"node": identity.uuid, "display_name": facts.display_name, "adopted": adopted},
        )
        notify(f"READY=1\nSTATUS=node {facts.display_name} ({identity.uuid})")
        shipping = asyncio.Event()
        tasks = [
            asyncio.create_task(session.run(stop), name="session"),
            asyncio.create_task(_refresh(leases, stop), name="refresh"),
            asyncio.create_task(_ship(leases, session, identity.uuid, shipping), name="ship"),
            asyncio.create_task(_report(leases, session, identity.uuid), name="report"),
            asyncio.create_task(_rediscover(settings, devices, box, session), name="discover"),
            asyncio.create_task(_watch(room, looks, session), name="watch"),
            asyncio.create_task(_watchdog(), name="watchdog"),
            asyncio.create_task(_tidy(settings, folders, leases), name="tidy"),
        ]
        if credential is not None:
            renewing = _renew(credential, settings.state_dir, line, session, identity.uuid)
            tasks.append(asyncio.create_task(renewing, name="renew"))
        ended = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        for task in done:
            if task is not ended and not stop.is_set():
                await task  # a part died: say why, and have the service manager start us anew
                raise AgentError(f"the part {task.get_name()} ended by itself")
    finally:
        notify("STOPPING=1")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if steps is not None:
            await steps.close()
        loop.remove_reader(nudges)
        nudges.close()
        await line.close()
        spawner.close()
        devices.close()
        if cages is not None:
            cages.close()
    log.info("agent stopped; workers run on")


def _address(server: str) -> str:
    if server.startswith("unix:"):
        return "127.0.0.1"
    name, _, port = server.rpartition(":")
    try:
        return host.address_towards(name.strip("[]"), int(port))
    except (OSError, ValueError) as error:
        raise AgentError(
            f"server: {server!r}: its address cannot be found ({error}); write host:port,"
            " or set `address` to this node's own"
        ) from error


async def _discover(devices: Devices, offered: Sequence[str]) -> tuple[Device, ...]:
    looking = asyncio.to_thread(devices.discover)
    found = await asyncio.wait_for(looking, DISCOVER_DEADLINE_S)
    return choose(found, offered)


def _cages(
    settings: Settings, node_uuid: str, devices: Callable[[], Iterable[Device]]
) -> Cages | None:
    if settings.cages == "off":
        return None
    found = find_cages(node_uuid, settings.lease_pids, devices)
    if isinstance(found, Cages):
        return found
    if settings.cages == "required":
        raise AgentError(f"cages: are required, and {found}")
    log.warning("leases have no control groups of their own: %s", found)
    return None


def _facts(
    settings: Settings,
    facts: host.HostFacts,
    address: str,
    devices: tuple[Device, ...],
    cages: Cages | None,
) -> NodeFacts:
    return NodeFacts(
        display_name=settings.name or facts.hostname,
        address=address,
        kernel=facts.kernel,
        os=facts.os_name,
        agent_version=__version__,
        cpus=settings.cpus or len(facts.cpu_ids),
        memory_bytes=settings.memory_mib << 20 or int(facts.memory_bytes * OFFERED_MEMORY),
        devices=devices,
        port_first=settings.port_first,
        port_last=settings.port_last,
        labels=tuple(sorted(settings.labels.items())),
        cpu_model=facts.cpu_model,
        cages=f"v{cages.version}" if cages is not None else "",
        only_owner=only_owner(settings.run_as),  # type: ignore[arg-type]  # as above
    )


def _troubled(facts: NodeFacts, *troubles: str) -> NodeFacts:
    """The facts with all that keeps leases from the node."""
    return replace(facts, trouble="; ".join(filter(None, troubles)))


def _context(
    settings: Settings,
    folders: Folders,
    own: Account,
    facts: host.HostFacts,
    offered: NodeFacts,
    credential: NodeCredential | None,
) -> NodeContext:
    # Where more cores are offered than there are, several share one.
    cores = {i: facts.cpu_ids[i % len(facts.cpu_ids)] for i in range(offered.cpus)}
    return NodeContext(
        lease_id=0,
        token=0,
        display_name=offered.display_name,
        address=offered.address,
        interface=host.interface_of(offered.address) or "",
        hostname_address=host.hostname_address(),
        cpu_map=cores,
        python=sys.executable,
        mpirun=settings.mpirun or shutil.which("mpirun", path=settings.path) or "",
        uid=own.uid,
        user=own.name,
        home=own.home,
        shell=own.shell,
        path=settings.path,
        job_dir="",
        work_dir="",
        server=credential.people_server if credential is not None else settings.server,
        ca_file=keep_authority(credential, folders.state),
        deadline_file=str(folders.deadline),
        notify_socket=str(folders.nudges),
    )


def _nudges(path: Path) -> socket.socket:
    """The socket by which supervisors say that there is news."""
    path.unlink(missing_ok=True)
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    folder = os.open(path.parent, os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # A socket's path may have 107 bytes; the folder's is as long as the operator likes.
        receiver.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
    return receiver


def _on_nudges(receiver: socket.socket, leases: Leases) -> None:
    news = set()
    with contextlib.suppress(BlockingIOError):
        while True:
            data = receiver.recv(64)
            if data.isdigit():
                news.add(int(data))
    for lease_id in news:
        leases.refresh(lease_id)


async def _refresh(leases: Leases, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await asyncio.sleep(REFRESH_S)
        leases.refresh_all()


async def _ship(leases: Leases, session: Session, node_uuid: str, again: asyncio.Event) -> None:
    while True:
        try:
            more = await ship_once(leases, node_uuid, session.ship, _CLOCK.now_us())
        except grpc.aio.AioRpcError as error:
            log.debug("output waits: %s", error.code().name)
            more = False
        if not more:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(again.wait(), SHIP_S)
            again.clear()


async def _report(leases: Leases, session: Session, node_uuid: str) -> None:
    while True:
        try:
            await report_once(leases, node_uuid, session.ship_progress, _CLOCK)
        except grpc.aio.AioRpcError as error:
            log.debug("progress waits: %s", error.code().name)
        await asyncio.sleep(REPORT_S)


async def _rediscover(
    settings: Settings, devices: Devices, box: list[NodeFacts], session: Session
) -> None:
    while True:
        await asyncio.sleep(settings.discover_period_s)
        try:
            found = await _discover(devices, settings.offered_devices)
        except TimeoutError:
            log.error("the devices' driver does not answer")
            continue
        except DevicesUnavailable as error:
            log.error("%s", error)
            continue
        if found != box[0].devices:
            log.warning("devices have changed", extra={"devices": len(found)})
            box[0] = replace(box[0], devices=found)
            session.changed.set()


async def _watch(room: Room, looks: Looks, session: Session) -> None:
    """Tell the control plane when leases cannot begin here any more, and when they can again."""
    while True:
        await asyncio.sleep(ROOM_S)
        if await room.look_within(looks):
            log.warning("%s", room.trouble or "there is room for leases again")
            session.changed.set()


async def _renew(
    credential: NodeCredential, state_dir: Path, line: Line, session: Session, node_uuid: str
) -> None:
    """Have the certificate renewed in time, and use the new one from then on."""
    clock = SystemClock()
    while True:
        if credential.due(clock.now_us()):
            try:
                fresh = await renewed(credential, line.agents, node_uuid)
                fresh.write(state_dir)
            except grpc.aio.AioRpcError as error:
                log.warning("the certificate could not be renewed: %s", error.details())
            except OSError as error:  # The old one is still due: the next look asks for another.
                log.error("the new certificate cannot be kept: %s", error)
            except PkiError as error:
                log.error("the control plane gave a certificate that is none of ours: %s", error)
            else:
                credential = fresh
                log.info("the certificate was renewed")
                session.changed.set()
                await line.renew(credential)
        await asyncio.sleep(RENEW_LOOK_S)


async def _tidy(settings: Settings, folders: Folders, leases: Leases) -> None:
    """Remove now and then what the settings let go."""
    clock = SystemClock()
    while True:
        now_s = clock.now_us() / 1_000_000
        old = upkeep.stale(folders.blobs, now_s - settings.keep_blobs_days * upkeep.DAY_S, ())
        if settings.keep_job_dirs_days:
            before_s = now_s - settings.keep_job_dirs_days * upkeep.DAY_S
            # One that is being staged has no plan yet, and an empty folder of this minute.
            old += upkeep.stale(folders.jobs, before_s, leases.jobs())
        if old:
            log.info("removing what was not used for long: %s", len(old))
            await asyncio.to_thread(upkeep.remove, old)
        await asyncio.sleep(TIDY_S)


async def _watchdog() -> None:
    period_s = watchdog_period_s() or 3600.0
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(period_s)
