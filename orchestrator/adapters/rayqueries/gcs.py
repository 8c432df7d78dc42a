"""What the head of a cluster answers before this process joins it: within seconds, in our words.

Ray itself tries for a minute to join a cluster that does not let it in, or of which this machine
is no node, and then says in its own log lines why. So its head is asked first, by its protocol.
"""

from __future__ import annotations

import json
import platform
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from orchestrator.core.errors import ClusterError
from orchestrator.messages import HeadFacts, HeadNode

SECONDS = 5.0
_LISTED = 4  # nodes in a message
ALIVE = 0  # the state of a node, by Ray's protocol
_OTHERS = ("http1", "Failed parsing HTTP/2")  # of a server that speaks another protocol
TOKEN_HINT = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to a copy of the head's token file"  # noqa: S105 - no token


class HeadSilentError(ConnectionError):
    """The head does not answer now. Whether it is gone is judged elsewhere."""


def ask(address: str) -> HeadFacts | None:
    """Return what the head at `address` says; `None` where it is too busy to answer in time.

    Raises:
        ClusterError: It wants another token, or is no head of Ray.
    """
    try:
        return _facts(address)
    except HeadSilentError:
        return None


def _facts(address: str) -> HeadFacts:
    from ray.core.generated import gcs_service_pb2 as asked
    from ray.core.generated import gcs_service_pb2_grpc as stubs

    with connected(address) as channel:
        versions = json.loads(_value(channel, b"cluster", b"CLUSTER_METADATA") or "{}")
        of_nodes = stubs.NodeInfoGcsServiceStub(channel)
        request = asked.GetAllNodeInfoRequest()
        listed = of_nodes.GetAllNodeInfo(request, timeout=SECONDS).node_info_list
        return HeadFacts(
            address=address,
            ray=versions.get("ray_version", ""),
            python=versions.get("python_version", ""),
            dashboard=_value(channel, b"dashboard", b"dashboard"),
            nodes=tuple(
                HeadNode(node.node_name or node.node_manager_hostname, node.node_manager_address)
                for node in listed
                if node.state == ALIVE
            ),
        )


def session(address: str) -> str:
    """Return the name that the head at `address` took when it was first started.

    One that keeps what it knows (`RAY_gcs_storage`) has the same after a restart. Empty where it
    does not say, as it does not at once.

    Raises:
        HeadSilentError: It does not answer in time.
        ClusterError: It wants another token, or is no head of Ray.
    """
    with connected(address) as channel:
        return _value(channel, b"session", b"session_name")


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Yield a channel to the head at `address`.

    Raises:
        HeadSilentError: It does not answer in time.
        ClusterError: It wants another token, or is no head of Ray.
    """
    from ray._private.grpc_utils import init_grpc_channel

    has_token = bool(token())  # the channel shows it, and uses TLS where Ray does
    options = [("grpc.enable_http_proxy", 0)]
    with (
        _translated(address, has_token=has_token),
        closing(init_grpc_channel(address, options)) as channel,
    ):
        yield channel


def _value(channel: Any, space: bytes, key: bytes) -> str:  # noqa: ANN401 - grpc has no types
    """Return a value of the head's own store; empty where there is none."""
    from ray.core.generated import gcs_service_pb2 as asked
    from ray.core.generated import gcs_service_pb2_grpc as stubs

    request = asked.InternalKVGetRequest(key=key, namespace=space)
    values = stubs.InternalKVGcsServiceStub(channel)
    return str(values.InternalKVGet(request, timeout=SECONDS).value.decode())


def admit(address: str) -> None:
    """Check that this process can join the cluster at `address`, as far as its head answers.

    Raises:
        ClusterError: It wants another token or other versions, or this machine is no node of it.
    """
    facts = ask(address)
    if facts is None:  # Ray itself has the patience
        return
    differing = other_versions(facts)
    if differing:
        what = f"the Ray cluster at {address!r} runs {differing}"
        raise ClusterError(f"{what}; install the same here")
    no_node = elsewhere(facts)
    if no_node:
        ways = f"add --detach to hand the run over, or `ray start --address={address}` here"
        raise ClusterError(f"{no_node}; {ways}")


def other_versions(facts: HeadFacts) -> str:
    """Return which versions the cluster has and this process has not; empty where they agree."""
    import ray

    mine = {"Ray": ray.__version__, "Python": platform.python_version()}
    theirs = {"Ray": facts.ray, "Python": facts.python}
    differing = [
        f"{name} {theirs[name]} and this process {name} {mine[name]}"
        for name, parts in (("Ray", 3), ("Python", 2))
        if theirs[name] and _parts(theirs[name], parts) != _parts(mine[name], parts)
    ]
    return ", ".join(differing)


def elsewhere(facts: HeadFacts) -> str:
    """Return that this machine is no node of the cluster; empty where it is one."""
    if any(is_here(node.host) for node in facts.nodes):
        return ""
    names = [f"{node.name} ({node.host})" for node in facts.nodes]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    nodes = f"{', '.join(names[:_LISTED])}{more}" if names else "none"
    return f"this machine is no node of the cluster at {facts.address!r} (its nodes: {nodes})"


def is_here(host: str) -> bool:
    """Return whether `host` is an address, or a name, of this machine."""
    try:
        known = socket.getaddrinfo(host.strip("[]"), 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return any(_can_bind(family, at) for family, _, _, _, at in known)


def token() -> str:
    """Return what this process shows to Ray, `Bearer ...`; empty where it has nothing to show."""
    from ray import _raylet  # its stub lacks it
    from ray.exceptions import AuthenticationError

    loader = _raylet.AuthenticationTokenLoader.instance()  # type: ignore[attr-defined]
    try:
        if loader.has_token():
            return str(loader.get_token_for_http_header().get("authorization", ""))
    except AuthenticationError:  # it is meant to have one
        pass
    return ""


def refusal(address: str, *, has_token: bool) -> str:
    """Return that the cluster at `address` wants a token, or another one."""
    if has_token:
        return f"the Ray cluster at {address!r} refuses the token of this process; {TOKEN_HINT}"
    return f"the Ray cluster at {address!r} wants a token, and this process has none; {TOKEN_HINT}"


def _can_bind(family: int, address: tuple[object, ...]) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


def _parts(version: str, count: int) -> list[str]:
    return version.split(".")[:count]


@contextmanager
def _translated(address: str, *, has_token: bool) -> Iterator[None]:
    import grpc
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:  # a token is meant to be shown, and is nowhere
        raise ClusterError(refusal(address, has_token=False)) from error
    except grpc.RpcError as error:
        details = str(error.details() or "")
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            raise ClusterError(refusal(address, has_token=has_token)) from error
        if error.code() is grpc.StatusCode.UNIMPLEMENTED or any(
            sign in details for sign in _OTHERS
        ):
            hint = "check cluster.address or RAY_ADDRESS: the head's own port is 6379"
            raise ClusterError(f"what listens at {address!r} is no Ray head; {hint}") from error
        what = f"the head of the Ray cluster at {address!r} has not answered"
        raise HeadSilentError(f"{what} ({error.code().name}: {details})") from error
