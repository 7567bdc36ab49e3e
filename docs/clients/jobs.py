#!/usr/bin/env python3
"""Looks after jobs of a group through the coordd daemon of this machine, with nothing but Python's library.

    python3 jobs.py http://127.0.0.1:7400 monitors

A job is this program's from the message that brings it until the one that takes it back, and no longer
than a renewal has said, counted from when the renewal was sent. A renewal that is late, as this program or its
daemon was frozen, ends all jobs; so does the end of the stream.
"""
import http.client
import json
import sys
import threading
import time
import urllib.parse


class Jobs:
    def __init__(self, daemon, group, begin, end):
        self.address = urllib.parse.urlsplit(daemon).netloc
        self.path = "/v1/groups/" + urllib.parse.quote(group, safe="") + "/stream"
        self.begin, self.end = begin, end  # begin(job) and end(key), which returns when the job has ended
        self.lock, self.running, self.valid_until = threading.Lock(), {}, 0.0

    def valid(self):
        """Whether the jobs are this program's at this instant. It asks the clock and nobody else."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) < self.valid_until

    def serve(self):
        """Serves the group until the stream ends; call it again then."""
        stream = http.client.HTTPConnection(self.address, timeout=60)
        over = threading.Event()
        try:
            stream.connect()
            host, port = stream.sock.getsockname()[:2]  # its end frees the jobs at once, if nothing relays it
            tie = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            stream.request("POST", f"{self.path}?ttl=3s&tie={tie}", headers={"Content-Type": "application/json"})
            answer = stream.getresponse()
            if answer.status != 200:
                raise ConnectionError(answer.read().decode())
            name, data = None, None
            for line in answer:
                line = line.decode().rstrip("\n")
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    data = json.loads(line[6:])
                elif line == "" and name == "hello":
                    self.stream, self.member, name = data["stream"], data["member"], None
                    self.renew()
                    threading.Thread(target=self.keep, args=(over,), daemon=True).start()
                elif line == "" and name == "change":
                    self.change(data)
                    name = None
                elif line == "" and name == "problem":
                    raise ConnectionError(data["title"])
        finally:
            over.set()
            self.stop()
            stream.close()

    def change(self, change):
        with self.lock:
            for key in change["released"]:
                if self.running.pop(key, None) is not None:
                    self.end(key)
            for job in change["acquired"]:
                if not self.valid():
                    raise ConnectionError("the jobs were not renewed in time")
                self.running[job["key"]] = job
                self.begin(job | {"slot": change["slot"], "epoch": change["epoch"], "member": self.member})
        self.post("done", {"changes": [change["change"]]})

    def keep(self, over):
        """Renews the stream, and ends all jobs when that has failed for too long."""
        while not over.wait(min(0.5, max(0, self.valid_until - time.clock_gettime(time.CLOCK_BOOTTIME)))):
            if not self.valid():
                self.stop()
                return
            try:
                self.renew()
            except (OSError, http.client.HTTPException):
                pass  # until its time is over

    def renew(self):
        sent = time.clock_gettime(time.CLOCK_BOOTTIME)
        self.valid_until = sent + self.post("renew")["valid_ms"] / 1000

    def post(self, what, body=None):
        left = self.valid_until - time.clock_gettime(time.CLOCK_BOOTTIME)
        connection = http.client.HTTPConnection(self.address, timeout=min(2, max(0.1, left / 2)) if left > 0 else 2)
        try:
            connection.request("POST", f"{self.path}/{self.stream}/{what}", json.dumps(body) if body else None, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status >= 300:
                raise ConnectionError(text.decode())
            return json.loads(text) if text else None
        finally:
            connection.close()

    def stop(self):
        with self.lock:
            self.valid_until = 0.0
            running, self.running = self.running, {}
            for key in running:
                self.end(key)


if __name__ == "__main__":
    jobs = Jobs(sys.argv[1], sys.argv[2],
                begin=lambda job: print("begin", job["key"], job["epoch"], flush=True),
                end=lambda key: print("end", key, flush=True))
    while True:
        try:
            jobs.serve()
        except (OSError, http.client.HTTPException) as why:
            print("not serving:", why, file=sys.stderr, flush=True)
        time.sleep(0.5)
