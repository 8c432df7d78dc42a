"""What a request may cost, at most."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.spec.stages import LONGEST_ANSWER


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayLimits:
    """Limits of the gateway, the same for all endpoints.

    Attributes:
        connections: Open at once; the next is answered by 503 and closed.
        header_bytes: Of a request's line and headers, together.
        body_bytes: Of a body; images and sounds are in it. `buffered_bytes` guards memory.
        header_seconds: From the first byte, or the connection, to the end of the headers.
        body_seconds: That a body may fall behind `body_rate`, in all.
        body_rate: Bytes a second that a body must come at.
        idle_seconds: Between two requests of a connection.
        depth: Levels of JSON.
        choices: Prompts times `n`.
        max_tokens: That a client may ask for; the model's context is the engine's to check.
        request_seconds: From a checked request to the end of its answer.
        stuck_seconds: That a client may leave its answer unread.
        silent_seconds: That a stream may say nothing, once it has begun.
        heartbeat_seconds: Between two signs of life to a client whose stream has not begun.
        answer_bytes: Of an answer that is no stream.
        buffered_bytes: Of all bodies and whole answers at once; more are answered by 503.
        connect_seconds: To reach a replica.
        absent_seconds: That a request waits for a revision which has no replica at the moment,
            until another that takes traffic helps out.
        gone_seconds: That it waits where none has one: a replica that died is started again.
        queue_seconds: That a request waits for room at one.
        drain_seconds: That answers go on when the gateway is told to end.
        failures: Of a replica in a row, after which it is left alone for a while.
        eject_seconds: For which it is, at most: each failure more doubles the pause.
    """

    connections: int = 4096
    header_bytes: int = 64 * 1024
    body_bytes: int = 64 * 1024 * 1024
    header_seconds: float = 10.0
    body_seconds: float = 10.0
    body_rate: int = 8 * 1024
    idle_seconds: float = 65.0
    depth: int = 64
    choices: int = 128
    max_tokens: int = 1 << 20
    request_seconds: float = LONGEST_ANSWER
    stuck_seconds: float = 30.0
    silent_seconds: float = 300.0
    heartbeat_seconds: float = 15.0
    answer_bytes: int = 64 * 1024 * 1024
    buffered_bytes: int = 1024 * 1024 * 1024
    connect_seconds: float = 2.0
    absent_seconds: float = 5.0
    gone_seconds: float = 20.0
    queue_seconds: float = 60.0
    drain_seconds: float = 30.0
    failures: int = 3
    eject_seconds: float = 5.0
