"""Two WebRTC-like peers that know nothing but a TURN server: with the credentials they are given they
allocate relays, connect over them alone (ICE), and say something to each other.

tests/e2e/ice.rs gives it the server and two credentials as one line of JSON on standard input:

    {"host": H, "port": P, "credentials": [[USERNAME, PASSWORD], [USERNAME, PASSWORD]]}

and reads one line of standard output, either of

    {"relayed": [[ADDRESS, PORT], ...], "pair": "relay relay", "heard": [TEXT, TEXT]}
    {"refused": CODE}
"""

import asyncio
import json
import sys

import aioice
import aioice.ice
import aioice.stun
import aioice.turn

# No addresses of this machine: there is no way for the peers but the relay.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: []


async def allocation(server, username, password):
    """Whether the server gives this credential a relay: none, or the code of its refusal."""
    try:
        transport, _ = await aioice.turn.create_turn_endpoint(
            asyncio.DatagramProtocol,
            server_addr=server,
            username=username,
            password=password,
        )
    except aioice.stun.TransactionFailed as refusal:
        return refusal.response.attributes["ERROR-CODE"][0]
    transport.close()
    return None


def peer(server, username, password, controlling):
    return aioice.Connection(
        ice_controlling=controlling,
        turn_server=server,
        turn_username=username,
        turn_password=password,
        transport_policy=aioice.TransportPolicy.RELAY,
    )


async def introduce(one, other):
    """What signaling does: the candidates and the names of one reach the other."""
    for candidate in one.local_candidates:
        await other.add_remote_candidate(candidate)
    await other.add_remote_candidate(None)
    other.remote_username = one.local_username
    other.remote_password = one.local_password


async def main():
    told = json.loads(sys.stdin.readline())
    server = (told["host"], told["port"])
    for username, password in told["credentials"]:
        refused = await allocation(server, username, password)
        if refused is not None:
            return {"refused": refused}

    first, second = told["credentials"]
    a, b = peer(server, *first, controlling=True), peer(server, *second, controlling=False)
    await asyncio.gather(a.gather_candidates(), b.gather_candidates())
    relayed = [[c.host, c.port] for c in a.local_candidates + b.local_candidates]
    await introduce(a, b)
    await introduce(b, a)
    await asyncio.gather(a.connect(), b.connect())
    await a.send(b"from a")
    await b.send(b"from b")
    heard = [(await b.recv()).decode(), (await a.recv()).decode()]
    pair = a._nominated[1]
    kinds = f"{pair.local_candidate.type} {pair.remote_candidate.type}"
    await asyncio.gather(a.close(), b.close())
    return {"relayed": relayed, "pair": kinds, "heard": heard}


print(json.dumps(asyncio.run(main())), flush=True)
