"""Where the control plane is spoken to, and by which certificates: people show tokens, agents show
certificates, each at a port of their own, because a server asks either every client for one or
none."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from controlplane.daemon import starting
from controlplane.daemon.pki import PkiFiles, ReloadedCertificate
from controlplane.kit.address import parse_address
from controlplane.model.errors import WrongState
from controlplane.service import server as edge
from controlplane.service.issuing import Issuer

if TYPE_CHECKING:
    from controlplane.daemon.settings import Settings
    from controlplane.kit.clock import Clock

log = logging.getLogger(__name__)


class Doors:
    """Both ports, the authority behind them, and the renewal of the server's own certificate."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """WrongState when there are no certificates, and plaintext was not asked for."""
        self._settings, self._clock = settings, clock
        self._files = PkiFiles(settings.state_dir)
        self.issuer: Issuer | None = None
        """Issues certificates to nodes; None without an authority."""
        local = settings.listen.startswith("unix:")
        if settings.plaintext and not edge.is_local(settings.listen):
            raise WrongState(
                f"plaintext: listen: {settings.listen!r} is reached from other hosts, and tokens"
                " would travel in the clear: listen on 127.0.0.1 or unix:PATH, or unset plaintext"
            )
        certified = self._files.there and not settings.plaintext
        if certified:
            authority = self._files.authority()
            self._files.renew(clock.now_us())
            starting.check_listen("listen_agents", settings.agents)
            port = parse_address(settings.agents, least_port=0).port
            self.issuer = Issuer(
                authority,
                settings.node_certificate_days,
                settings.agents_address or f":{port}",
                clock.now_us,
            )
        self.encrypted = not local and (certified or settings.tls_certificate is not None)
        """Whether people are spoken to by TLS."""
        if not (self.encrypted or local or settings.plaintext):
            raise WrongState(
                f"state_dir: {settings.state_dir} holds no certificates: run `controlplane init`,"
                " or set plaintext to listen without TLS to this host alone"
            )

    def open(self, server: Any) -> None:
        """Have the server listen. WrongState when it cannot."""
        settings, files = self._settings, self._files
        credentials = None
        if self.encrypted:
            certificate, key = settings.tls_certificate, settings.tls_key
            if certificate is None or key is None:
                certificate, key = files.certificate, files.key
            credentials = ReloadedCertificate(certificate, key, None).credentials()
        elif settings.plaintext:
            log.warning("plaintext: tokens travel in the clear, within this host")
        edge.listen(server, "listen", settings.listen, credentials)
        if self.issuer is None:
            if not settings.plaintext:
                log.warning("no host can join: `controlplane init` makes the authority for that")
            return
        clients = self.issuer.certificate
        proofs = ReloadedCertificate(files.certificate, files.key, clients).credentials()
        edge.listen(server, "listen_agents", settings.agents, proofs)

    def renew(self) -> None:
        """Issue the server's own certificate anew when that is due."""
        if self.issuer is not None and self._files.renew(self._clock.now_us()):
            log.info("the server's certificate was renewed")
