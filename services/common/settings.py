"""Settings that every service has; each service adds its own in its ``settings.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.common.home import MODEL_REPOSITORY, RELEASES

MEBIBYTE: Final = 1024 * 1024


class CommonSettings(BaseSettings):
    """Settings of any server, from environment variables ``DL4ALL_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="DL4ALL_", extra="ignore", use_attribute_docstrings=True)

    home: Path = Path()
    """Folder that holds ``releases`` and ``model_repository``; by default the working folder."""

    model_repository: Path = Field(default_factory=lambda given: given["home"] / MODEL_REPOSITORY)
    """Folder of models, as Triton reads it; by default ``model_repository`` in DL4ALL_HOME."""

    releases: Path = Field(default_factory=lambda given: given["home"] / RELEASES)
    """Folder of releases; by default ``releases`` in DL4ALL_HOME."""

    host: str = "127.0.0.1"
    """Address to listen on; by default the loopback."""

    reflection: bool = True
    """Whether clients may list the services (gRPC server reflection)."""

    metrics: bool = True
    """Whether Prometheus metrics are served, on a port of their own."""

    tracing: bool = False
    """Whether spans are exported by OpenTelemetry; needs the extra ``tracing``. OpenTelemetry's own variables name the receiver, first of all
    OTEL_EXPORTER_OTLP_ENDPOINT. The callers' trace context is passed on in any case."""

    workers: int = Field(default=2, ge=1, le=256)
    """Threads for images, science and inference; as many as cores is best."""

    max_concurrent_calls: int = Field(default=72, ge=1)
    """Calls accepted at once; more are refused with RESOURCE_EXHAUSTED. One ninth is a reserve for callers below their fair share. An inner
    service needs as many as its gateways have batches under way: gateways x DL4ALL_GATEWAY_IMAGES_IN_FLIGHT x
    DL4ALL_GATEWAY_BATCHES_IN_FLIGHT."""

    max_concurrent_streams: int = Field(default=18, ge=1)
    """Streams accepted at once. A stream that wants a slot waits until one is free, and ends one that is idle where none is."""

    max_message_bytes: int = Field(default=24 * MEBIBYTE, ge=MEBIBYTE)
    """Largest message on the wire."""

    received_bytes: int = Field(default=512 * MEBIBYTE, ge=2 * MEBIBYTE)
    """Bytes that calls of one message may hold at once: the largest message while it is received, then its true size, then that of its answer until
    it was read. Calls that find no room wait a while. A process takes up to three times as much memory for them."""

    message_seconds: float = Field(default=120.0, gt=0.0)
    """Longest time for the one message of a call to arrive."""

    answer_seconds: float = Field(default=120.0, gt=0.0)
    """Longest time for a caller to read an answer that was offered; then its connection is closed."""

    idle_seconds: float = Field(default=120.0, gt=0.0)
    """Longest silence on a stream while its server waits for a message."""

    contended_seconds: float = Field(default=2.0, gt=0.0)
    """Where others wait for room: longest time for a message to arrive, for an answer to be read, and for silence on a stream that owes no answer."""

    longest_call_seconds: float = Field(default=7200.0, gt=0.0)
    """Longest time for a stream, whatever deadline its caller sets. Connections are closed after this time and their largest age."""

    plaintext: bool = False
    """Whether a server may listen beyond this machine without TLS, where a mesh or a closed network protects it."""

    max_connection_age_seconds: float = Field(default=600.0, gt=0.0)
    """Age at which a connection is closed so that callers find new replicas; calls under way are finished."""

    keepalive_seconds: float = Field(default=5.0, gt=0.0)
    """Time without incoming data after which a connection to another part is pinged."""

    keepalive_timeout_seconds: float = Field(default=3.0, gt=0.0)
    """Time for the answer to a ping. Without an answer the connection ends, and its calls end with UNAVAILABLE: this detects a part that hangs."""

    drain_delay_seconds: float = Field(default=1.0, ge=0.0)
    """How long a stopping server still accepts calls while its health says NOT_SERVING, so that balancers turn away first."""

    drain_seconds: float = Field(default=75.0, ge=0.0)
    """How long accepted calls may go on after that; set it longer than the longest deadline of callers."""

    health_interval_seconds: float = Field(default=1.0, gt=0.0)
    """Interval of the readiness probes for metrics and health watchers; a health check probes anew each time."""

    health_timeout_seconds: float = Field(default=1.0, gt=0.0)
    """How long a model or another service may take to answer whether it is ready."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""


class TlsSettings(BaseSettings):
    """TLS between all parts, from environment variables ``DL4ALL_TLS_<NAME>``; off unless a certificate or an authority is named.

    A server presents the certificate. A client checks servers against the authority, and presents the certificate where there is one.
    """

    model_config = SettingsConfigDict(env_prefix="DL4ALL_TLS_", extra="ignore", use_attribute_docstrings=True)

    certificate: Path | None = None
    """PEM file with this part's certificate, followed by intermediate ones."""

    key: Path | None = None
    """PEM file with the key of the certificate."""

    ca: Path | None = None
    """PEM file with the authorities that this part trusts: as a client for servers, as a server for clients (mutual TLS)."""

    mutual: bool = False
    """Whether this part, as a server, refuses clients without a certificate of a trusted authority."""

    server_name: str = ""
    """Name that servers' certificates must carry where it differs from the address that is called."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("DL4ALL_TLS_CERTIFICATE and DL4ALL_TLS_KEY go together")
        if self.mutual and (self.ca is None or self.certificate is None):
            raise ValueError("DL4ALL_TLS_MUTUAL needs DL4ALL_TLS_CA, DL4ALL_TLS_CERTIFICATE and DL4ALL_TLS_KEY")
        if self.certificate is not None and self.ca is None:
            raise ValueError("DL4ALL_TLS_CERTIFICATE needs DL4ALL_TLS_CA: without it this part could not check the servers that it calls")
        return self


class ServiceSettings(BaseSettings):
    """Where one service listens; each service sets its own defaults and prefix ``DL4ALL_<SERVICE>_``."""

    model_config = SettingsConfigDict(extra="ignore", use_attribute_docstrings=True)

    port: int = Field(default=0, ge=0, le=65535)
    """Port to listen on; 0 for any free one."""

    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port of the Prometheus metrics; 0 for any free one."""

    health_port: int | None = Field(default=None, ge=0, le=65535)
    """Port that serves health alone, without TLS, for the probes of Kubernetes, which present no certificate; 0 for any free one. None by default:
    health is on the port of the service in any case."""
