#!/usr/bin/env python3
"""Holds a lock by the coordd daemon of this machine, with nothing but Python's library.

    python3 lock.py http://127.0.0.1:7400 nightly-report

The lock is held for as long as valid() says so. It asks the clock and nobody else: if the daemon, the database or
this process is frozen, it becomes false before anybody else can hold the lock.
"""
import http.client
import json
import sys
import time
import urllib.parse
import uuid


def now():
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # which goes on while the machine sleeps


class Lock:
    def __init__(self, daemon, name, ttl="3s"):
        self.connection = http.client.HTTPConnection(urllib.parse.urlsplit(daemon).netloc)
        self.path = f"/v1/locks/{urllib.parse.quote(name, safe='')}/grants/{uuid.uuid4()}"
        self.ttl, self.token, self.valid_until = ttl, None, 0.0

    def valid(self):
        return now() < self.valid_until

    def ask(self, method, query, timeout, **headers):
        self.connection.timeout = timeout
        if self.connection.sock:
            self.connection.sock.settimeout(timeout)
        self.connection.request(method, self.path + query, headers=headers)
        answer = self.connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else {}

    def put(self, timeout, wait="0s", **headers):
        if self.connection.sock is None:
            self.connection.connect()
        host, port = self.connection.sock.getsockname()[:2]  # by which the daemon knows that nothing relays it
        tie = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        sent = now()  # the answer counts from here
        status, grant = self.ask("PUT", f"?wait={wait}&ttl={self.ttl}&tie={tie}", timeout, **headers)
        self.valid_until = sent + grant["valid_ms"] / 1000 if status == 200 else 0.0
        return status, grant

    def acquire(self):
        """Waits its turn. Tied to the connection, the lock is free as soon as this process ends."""
        while self.token is None:
            status, answer = self.put(30, wait="20s")
            if status == 200:
                self.token = answer["token"]
            elif status != 409:
                raise RuntimeError(answer)
        return self.renew()  # an answer that came after a wait may count no more

    def renew(self):
        """Call it several times in valid_ms. It says false once the lock is lost, for good."""
        left = self.valid_until - now()
        try:
            self.put(left if left > 0 else 1, **{"If-Match": f'"{self.token}"'})
        except (OSError, http.client.HTTPException):
            self.valid_until = 0.0  # the daemon is gone, or has not answered in time
        return self.valid()

    def release(self):
        self.valid_until = 0.0
        self.ask("DELETE", "", 30)


def main(daemon, name):
    lock = Lock(daemon, name)
    held = lock.acquire()
    print("held", lock.token, flush=True)
    while held:
        time.sleep(0.5)  # the work, in steps; before what must not be done by two it asks valid()
        held = lock.renew()
    print("lost", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
