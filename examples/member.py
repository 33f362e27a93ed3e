#!/usr/bin/env python3
"""A member of a group, with nothing but Python's standard library.

Joins, beats every third of the timeout, goes on at another server when one fails, joins again
when its session has ended, and leaves on Ctrl-C or SIGTERM.

    examples/member.py 127.0.0.1:8640,127.0.0.1:8642 database db1 [SECONDS]
"""

import http.client
import json
import random
import signal
import sys
import threading
import time
from urllib.parse import quote


class Servers:
    """The servers, one of which is asked until it fails."""

    def __init__(self, endpoints, timeout):
        self.endpoints, self.timeout, self.connection = endpoints, timeout, None

    def ask(self, method, path, headers):
        """The answer of the first server that gives one: status, headers, body; or None."""
        for _ in range(len(self.endpoints)):
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPConnection(
                        self.endpoints[0], timeout=self.timeout
                    )
                self.connection.request(method, path, headers=headers)
                answer = self.connection.getresponse()
                body = answer.read()
                if answer.status < 500 and answer.status not in (408, 429):
                    return answer.status, answer.headers, body
            except (OSError, http.client.HTTPException):
                pass
            # Not reached, or cannot promise at present: the next one.
            if self.connection is not None:
                self.connection.close()
            self.connection = None
            self.endpoints.append(self.endpoints.pop(0))
        return None

    def learn(self, body):
        """Adds the servers that a group's document lists."""
        for endpoint in json.loads(body or b"{}").get("endpoints", []):
            if endpoint not in self.endpoints:
                self.endpoints.append(endpoint)


def main():
    endpoints, group, member = sys.argv[1:4]
    timeout = float(sys.argv[4]) if len(sys.argv) > 4 else 10.0
    path = f"/{quote(group, safe='')}/{quote(member, safe='')}"
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())

    servers = Servers(endpoints.split(","), timeout / 6)
    session, before, promised_until = None, None, 0.0
    while not stop.is_set():
        # A promise counts from when the request was sent: the server handled it later.
        # (CLOCK_BOOTTIME goes on while the machine sleeps.)
        sent = time.clock_gettime(time.CLOCK_BOOTTIME)
        if session is None:
            answer = servers.ask("PUT", f"{path}?timeout={timeout}", {})
        else:
            answer = servers.ask("HEAD", path, {"x-session-id": session})
        if answer is None:
            if promised_until and time.clock_gettime(time.CLOCK_BOOTTIME) > promised_until:
                print("lapsed: others may hold this member dead", flush=True)
                promised_until = 0.0
            stop.wait(random.uniform(0.05, 0.1) * timeout)
            continue
        status, headers, body = answer
        if status in (200, 201, 204):
            promised_until = sent + timeout * 0.999
            if session is None:
                servers.learn(body)
                session = headers["x-session-id"]
                print("joined again" if before else "joined", session, flush=True)
            stop.wait(timeout / 3 * random.uniform(0.9, 1))
        elif session is not None and status in (404, 410):
            # The session has ended: the next one has another id, a greater fencing token.
            before, session, promised_until = session, None, 0.0
        else:
            # 409: another has taken the name over. Everything else: asked wrongly.
            sys.exit(f"out: {status} {headers.get('x-problem', '')} {body.decode()}")
    if session is not None:
        servers.ask("DELETE", path, {"x-session-id": session})
        print("left", flush=True)


main()
