"""An agent on ioap.v1.1 with a WebRTC stack that shares no code with this project: aiortc.

It signs, verifies and signals by its own hand as docs/webrtc.md says, opens the control channel, and
speaks the framing of `conexus.v1` on its channels. Others' OFFERs are answered; a channel that they open
echoes; their EXEC_REQUESTs are answered with their own arguments.

tests/e2e/p2p/foreign.rs is at the other end of standard input (commands) and output (events), each a JSON
object on a line:

    {"do": "connect", "to": DID}                -> {"event": "open", "peer": DID}, as when others connect
    {"do": "open", "label": L}                  -> {"event": "channel", "label": L}, as when others open one
    {"do": "say", "label": L, "text": TEXT}     text, or {"bytes": N}: so many, all of them 7
    {"do": "request", "args": {...}}            -> {"event": "answered", "type": T, "payload": {...}}
    {"do": "close"}                             -> {"event": "closed"}, as when others close

What is heard on a channel that it opened is told: {"event": "heard", "label": L, "text": TEXT}, or "bytes":
how many, with their "sha256". It begins with {"event": "registered", "did": DID}. The end of standard input
ends the program; so does whatever breaks a rule, with the reason on standard error.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import sys
import uuid
from datetime import datetime, timezone

import nacl.signing
import websockets
from aiortc import (
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCSctpTransport,
    RTCSessionDescription,
)
from aiortc.sdp import candidate_from_sdp

from v1_agent import base58, key_of, signed_bytes, standard_input, tell

LAST, TEXT = 1, 2
PIECE = 32_768


# --- messages ---------------------------------------------------------------------------------


def new_did(key):
    return "did:key:z" + base58(b"\xed\x01" + bytes(key.verify_key))


def message(key, kind, to, payload, correlation_id=None, id=None):
    """Signed, as the text that is sent: the canonical form."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    whole = {
        "id": id or str(uuid.uuid4()),
        "timestamp": now,
        "from": new_did(key),
        "to": to,
        "type": kind,
        "payload": payload,
        "version": "1.0",
    }
    if correlation_id is not None:
        whole["correlation_id"] = correlation_id
    whole["signature"] = base64.b64encode(key.sign(signed_bytes(whole)).signature).decode()
    return json.dumps(whole, sort_keys=True, separators=(",", ":"))


def heard(text, sender=None):
    """A message, if its sender has signed it."""
    told = json.loads(text)
    signature = base64.b64decode(told["signature"], validate=True)
    nacl.signing.VerifyKey(key_of(told["from"])).verify(signed_bytes(told), signature)
    if sender is not None and key_of(told["from"]) != key_of(sender):
        raise ValueError(f"a message of {told['from']} instead of {sender}")
    return told


# --- channels ---------------------------------------------------------------------------------


class Framed:
    """Messages on a data channel, each in pieces."""

    def __init__(self, channel, receive):
        self.channel, self.receive, self.pieces = channel, receive, []
        channel.on("message", self.piece)

    def send(self, message):
        data, kind = (message.encode(), TEXT) if isinstance(message, str) else (message, 0)
        room = PIECE - 1
        parts = [data[at : at + room] for at in range(0, len(data), room)] or [b""]
        for at, part in enumerate(parts):
            flags = kind | (LAST if at == len(parts) - 1 else 0)
            self.channel.send(bytes([flags]) + part)

    def piece(self, piece):
        if not isinstance(piece, bytes) or not 1 <= len(piece) <= PIECE or piece[0] & ~(LAST | TEXT):
            raise SystemExit(f"no piece: {piece[:20]!r}")
        self.pieces.append(piece)
        if len({piece[0] & TEXT for piece in self.pieces}) != 1:
            raise SystemExit("the pieces of one message disagree")
        if piece[0] & LAST:
            data = b"".join(piece[1:] for piece in self.pieces)
            self.pieces = []
            self.receive(data.decode() if piece[0] & TEXT else data)


# --- who begins the SCTP association ------------------------------------------------------------


def let_the_dtls_client_begin():
    """aiortc has the controlling side of ICE send INIT, the crate webrtc the client of DTLS, and neither answers the
    other's in its place, as RFC 9260 (5.2) has it. So between the two nobody would begin, or both in vain."""
    start = RTCSctpTransport.start

    async def begin(self, *arguments):
        await start(self, *arguments)
        # RFC 8832, section 6: the client's streams are the even ones.
        if self._data_channel_id in (0, 1):
            self._data_channel_id = 1 if self.is_server else 0

    RTCSctpTransport.is_server = property(lambda self: self.transport._role == "server")
    RTCSctpTransport.start = begin


# --- the agent --------------------------------------------------------------------------------


class Agent:
    def __init__(self, socket, url, trickle):
        self.socket, self.url, self.trickle = socket, url, trickle
        self.key = nacl.signing.SigningKey.generate()
        self.did = new_did(self.key)
        self.ice_servers = []
        self.pc = self.peer = self.control = self.connection = self.offer = None
        self.channels = {}

    async def say(self, kind, to, payload, correlation_id=None, id=None):
        await self.socket.send(message(self.key, kind, to, payload, correlation_id, id))

    async def register(self):
        challenge = heard(await self.socket.recv())
        payload = {
            "public_key": base58(bytes(self.key.verify_key)),
            "nonce": challenge["payload"]["nonce"],
            "audience": self.url,
        }
        await self.say("REGISTER", self.did, payload)
        registered = heard(await self.socket.recv(), challenge["from"])
        if registered["type"] != "REGISTERED":
            raise SystemExit(f"not registered: {registered}")
        self.ice_servers = registered["payload"].get("ice_servers", [])
        tell("registered", did=self.did)

    # Signaling.

    async def receive(self):
        async for text in self.socket:
            told = heard(text)
            take = getattr(self, "take_" + told["type"].lower(), None)
            if take is not None:
                await take(told)

    async def do_connect(self, to):
        self.offer = self.begin(to, str(uuid.uuid4()))
        await self.pc.setLocalDescription(await self.pc.createOffer())
        await self.describe("OFFER", id=self.offer)

    async def take_offer(self, told):
        self.begin(told["from"], told["id"])
        await self.pc.setRemoteDescription(RTCSessionDescription(told["payload"]["sdp"], "offer"))
        await self.pc.setLocalDescription(await self.pc.createAnswer())
        await self.describe("ANSWER", correlation_id=told["id"])

    async def take_answer(self, told):
        if told["correlation_id"] != self.offer or key_of(told["from"]) != key_of(self.peer):
            raise SystemExit(f"an ANSWER to nothing: {told}")
        await self.pc.setRemoteDescription(RTCSessionDescription(told["payload"]["sdp"], "answer"))

    async def take_ice_candidate(self, told):
        if told["correlation_id"] != self.connection:
            return
        payload = told["payload"]
        text = payload["candidate"].removeprefix("candidate:")
        candidate = candidate_from_sdp(text) if text else None
        if candidate is not None:
            candidate.sdpMid = payload.get("sdp_mid")
            candidate.sdpMLineIndex = payload.get("sdp_mline_index")
        await self.pc.addIceCandidate(candidate)

    async def take_error(self, told):
        raise SystemExit(f"refused: {told['payload']}")

    def begin(self, peer, connection):
        servers = [
            RTCIceServer(s["urls"], s.get("username"), s.get("credential")) for s in self.ice_servers
        ]
        # With none given it asks a STUN server on the internet.
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self.peer, self.connection = peer, connection
        channel = self.pc.createDataChannel("conexus", negotiated=True, id=0, protocol="ioap.v1.1")
        self.control = Framed(channel, self.asked)
        channel.on("open", lambda: tell("open", peer=peer))
        channel.on("close", lambda: tell("closed"))
        self.pc.on("datachannel", self.offered)
        return connection

    async def describe(self, kind, **envelope):
        """It has all its candidates by now; whoever trickles sends them by themselves."""
        lines = self.pc.localDescription.sdp.split("\r\n")
        is_candidate = [line.startswith(("a=candidate:", "a=end-of-candidates")) for line in lines]
        if not self.trickle:
            await self.say(kind, self.peer, {"sdp": "\r\n".join(lines)}, **envelope)
            return
        rest = [line for line, is_one in zip(lines, is_candidate) if not is_one]
        await self.say(kind, self.peer, {"sdp": "\r\n".join(rest)}, **envelope)
        candidates = [line.removeprefix("a=") for line in lines if line.startswith("a=candidate:")]
        for candidate in [*candidates, ""]:
            payload = {"candidate": candidate, "sdp_mid": "0", "sdp_mline_index": 0}
            await self.say("ICE_CANDIDATE", self.peer, payload, self.connection)

    # Over the connection.

    def asked(self, text):
        told = heard(text, self.peer)
        if told["type"] == "EXEC_REQUEST":
            payload = {"status": "success", "result": told["payload"]["args"]}
            answer = message(self.key, "EXEC_RESPONSE", self.peer, payload, told["id"])
            self.control.send(answer)
        elif told["type"] in ("EXEC_RESPONSE", "ERROR"):
            tell("answered", type=told["type"], payload=told["payload"], to=told["correlation_id"])

    async def do_request(self, args):
        self.control.send(message(self.key, "EXEC_REQUEST", self.peer, {"args": args}))

    def offered(self, channel):
        if channel.protocol != "conexus.v1":
            raise SystemExit(f"a channel of protocol {channel.protocol!r}")
        echo = Framed(channel, lambda said: echo.send(said))
        self.channels[channel.label] = echo
        tell("channel", label=channel.label)

    async def do_open(self, label):
        channel = self.pc.createDataChannel(label, protocol="conexus.v1")
        channel.on("open", lambda: tell("channel", label=label))

        def receive(said):
            if isinstance(said, str):
                tell("heard", label=label, text=said)
            else:
                digest = hashlib.sha256(said).hexdigest()
                tell("heard", label=label, bytes=len(said), sha256=digest)

        self.channels[label] = Framed(channel, receive)

    async def do_say(self, label, text=None, bytes=0):
        self.channels[label].send(text if text is not None else b"\7" * bytes)

    async def do_close(self):
        self.control.channel.close()

    async def obey(self, commands):
        async for line in commands:
            command = json.loads(line)
            await getattr(self, "do_" + command.pop("do"))(**command)
        if self.pc is not None:
            await self.pc.close()
        await self.socket.close()


async def run(options):
    socket = await websockets.connect(options.url, subprotocols=["ioap.v1.1"])
    agent = Agent(socket, options.url, options.trickle)
    await agent.register()
    obeying = asyncio.create_task(agent.obey(await standard_input()))
    receiving = asyncio.create_task(agent.receive())
    done, _ = await asyncio.wait((obeying, receiving), return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    let_the_dtls_client_begin()
    parser.add_argument("--trickle", action="store_true", help="candidates in messages of their own")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
