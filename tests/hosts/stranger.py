"""Somebody without any secret, on a host: asks what listens, and prints what that answers."""

from __future__ import annotations

import http.client
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import grpc
import psycopg

SECONDS = 10.0


def by_grpc(place: str, method: str) -> str:
    """Return the status with which a server of gRPC ends a call that is empty."""
    with grpc.insecure_channel(place) as channel:
        try:
            channel.unary_unary(method)(b"", timeout=SECONDS)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


def by_http(place: str, path: str, **headers: str) -> str:
    """Return the status of what a server of HTTP answers, with its type unless that is 401."""
    connection = http.client.HTTPConnection(place, timeout=SECONDS)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()
    content = answer.getheader("Content-Type", "").partition(";")[0]
    return "401" if answer.status == HTTPStatus.UNAUTHORIZED else f"{answer.status} {content}"


def of_a_foreign_host(place: str, path: str) -> str:
    """Return the same for who was led there by a name of their own."""
    return by_http(place, path, Host="elsewhere.example")


def by_postgresql(place: str, user: str) -> str:
    """Return what PostgreSQL says to who does not know the password."""
    host, _, port = place.partition(":")
    address = f"host={host} port={port} user={user} dbname={user} password=guessed"
    try:
        psycopg.connect(address, connect_timeout=int(SECONDS)).close()
    except psycopg.OperationalError as error:
        refused = "password authentication failed" in str(error)
        return "wrong password" if refused else str(error)
    return "OK"


WAYS = {
    "grpc": by_grpc,
    "http": by_http,
    "of a foreign host": of_a_foreign_host,
    "postgresql": by_postgresql,
}


def main() -> None:
    """Ask the questions of the first word: each a way, a place, and what is asked for."""
    questions = json.loads(sys.argv[1])
    with ThreadPoolExecutor(max_workers=8) as threads:
        answers = threads.map(lambda asked: WAYS[asked[0]](*asked[1:]), questions)
        print(json.dumps(list(answers)))


if __name__ == "__main__":
    main()
