"""The usual way: how VPN bots commonly give out addresses, written for the benchmark.

Competent and common: one lock around it all, the file as the truth, the first address of the network that no peer has, the new
peer's lines appended and synced. The tool is not called here: that would only make it slower.

    addresses.py WG0.CONF NETWORK COUNT
"""

import base64
import fcntl
import ipaddress
import json
import os
import re
import sys
import time

ALLOWED = re.compile(r"^AllowedIPs\s*=\s*([0-9.]+)/32", re.MULTILINE)


def used_addresses(path):
    with open(path, encoding="ascii") as file:
        return set(ALLOWED.findall(file.read()))


def first_free(network, used):
    hosts = network.hosts()
    next(hosts)  # The server's own.
    for host in hosts:
        if str(host) not in used:
            return str(host)
    raise SystemExit("no address is free")


def add_peer(path, network, number):
    with open(path + ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        address = first_free(network, used_addresses(path))
        key, secret = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))
        lines = [
            "[Peer]",
            f"# customer {number}",
            f"PublicKey = {key}",
            f"PresharedKey = {secret}",
            f"AllowedIPs = {address}/32",
            "",
        ]
        with open(path, "a", encoding="ascii") as file:
            for line in lines:
                file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())


def main():
    path, network, count = sys.argv[1], ipaddress.ip_network(sys.argv[2]), int(sys.argv[3])
    begun = time.monotonic()
    for number in range(count):
        add_peer(path, network, number)
    seconds = time.monotonic() - begun
    with open(path, encoding="ascii") as file:
        addresses = ALLOWED.findall(file.read())
    print(json.dumps({"seconds": seconds, "peers": len(addresses), "doubled": len(addresses) - len(set(addresses))}))


main()
