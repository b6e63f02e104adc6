"""An agent on ioap.v1 that shares no code with this project.

It speaks as the reference client does, to the letter where that shows on the wire: the same
WebSocket library, its default offer of compression and its keepalive, Python's spelling of JSON,
the reference's spelling of a DID, a timestamp that gets its `Z` after signing and a payload that
gets its nulls after signing. `--check-recording` proves it against the recorded sessions.

tests/e2e/foreign.rs is at the other end of standard input (commands) and output (events), each
a JSON object on a line:

    {"do": "register"}                                       -> {"event": "sent", ...}
    {"do": "send", "type": T, "to": DID, "payload": {...}}   -> {"event": "sent", ...}
    {"do": "send_text", "text": TEXT}                        -> {"event": "sent", ...}
    {"do": "close"}                                          -> {"event": "closed", ...}

The end of standard input closes the connection; the end of the connection ends the program. Any
other ending is an exit status that is not 0, with the reason on standard error.
"""

import argparse
import asyncio
import base64
import json
import pathlib
import sys
import uuid
from datetime import datetime, timezone

import nacl.exceptions
import nacl.signing
import websockets
from websockets.legacy.client import WebSocketClientProtocol

SUBPROTOCOL = "ioap.v1"
GATEWAY = "did:key:gateway"

# What the reference client does not notice: it reads with `async for`, which ends silently.
SILENT_CLOSES = (1000, 1001)

# Shapes of payloads, as the reference tries them: the first that fits is the one sent, with the
# members that were not given filled in, whatever the message's type. So PING's {} becomes
# {"reason": null}.
SHAPES = (
    (("public_key",), {}),
    ((), {"reason": None}),
    (("sdp",), {}),
    (("candidate",), {"sdp_mid": None, "sdp_mline_index": None}),
    ((), dict.fromkeys(("query", "context", "task", "params", "status", "required_input", "cost"))),
    ((), {"args": {}, "timeout_ms": None, "stream": False}),
    ((), {"sequence": None}),
)


# --- identity ---------------------------------------------------------------------------------

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def base58(data):
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = BASE58[digit] + text
    zeros = len(data) - len(data.lstrip(b"\0"))
    return BASE58[0] * zeros + text


def unbase58(text):
    number = 0
    for character in text:
        number = number * 58 + BASE58.index(character)
    zeros = len(text) - len(text.lstrip(BASE58[0]))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def legacy_did(key):
    """The reference's spelling of an Ed25519 key."""
    return "did:key:z6Mk" + base58(key)


def key_of(did):
    """The key that a DID spells, in W3C's way or the reference's."""
    if not did.startswith("did:key:z"):
        raise ValueError(f"not a did:key: {did}")
    standard = unbase58(did[len("did:key:z") :])
    if len(standard) == 34 and standard.startswith(b"\xed\x01"):
        return standard[2:]
    legacy = unbase58(did[len("did:key:z6Mk") :])
    if did.startswith("did:key:z6Mk") and len(legacy) == 32:
        return legacy
    raise ValueError(f"not an Ed25519 key: {did}")


# --- messages ---------------------------------------------------------------------------------


def new_message(sender, recipient, kind, payload, correlation_id=None):
    """A message as the reference's caller has it: a timestamp without zone, no signature."""
    return {
        "id": str(uuid.uuid4()),
        "correlation_id": correlation_id,
        "timestamp": datetime.now(timezone.utc).replace(tzinfo=None).isoformat(),
        "from": sender,
        "to": recipient,
        "type": kind,
        "payload": payload,
        "version": "1.0",
        "signature": "",
    }


def signed_bytes(message):
    unsigned = {name: value for name, value in message.items() if name != "signature"}
    return json.dumps(unsigned, sort_keys=True, separators=(",", ":")).encode()


def sign(message, key):
    message["signature"] = base64.b64encode(key.sign(signed_bytes(message)).signature).decode()


def verifies(message):
    """Whether the signature is that of `from`; None where there is no signature."""
    if message["signature"] == "":
        return None
    try:
        key = nacl.signing.VerifyKey(key_of(message["from"]))
        key.verify(signed_bytes(message), base64.b64decode(message["signature"], validate=True))
        return True
    except (ValueError, nacl.exceptions.BadSignatureError):
        return False


def as_sent(message):
    """What the reference client makes of a message, signed or not, and puts on the wire."""
    message = {**message, "timestamp": message["timestamp"] + "Z"}
    for required, optional in SHAPES:
        given = message["payload"]
        if all(name in given for name in required) and not given.keys() - {*required, *optional}:
            names = (*required, *optional)
            message["payload"] = {name: given.get(name, optional.get(name)) for name in names}
            break
    return json.dumps(message)


# --- the schema of what a v1 peer may be sent ---------------------------------------------------


def load_vectors(name):
    folder = pathlib.Path(__file__).resolve().parents[2] / "protocol" / "tests" / "vectors"
    return json.loads((folder / name).read_text())


class Schema:
    TYPES = {"string": str, "integer": int, "object": dict, "error code": str}

    def __init__(self):
        tables = load_vectors("message_validation.json")
        self.payloads, self.error_codes = tables["payloads"], tables["error_codes"]

    def check(self, message):
        """Raises ValueError at what the reference client could not take."""
        for name in ("id", "from", "to", "type", "signature", "timestamp"):
            if not isinstance(message.get(name), str):
                raise ValueError(f"{name} is not a string")
        if message.get("version", "1.0") != "1.0":
            raise ValueError("version is not 1.0")
        if not isinstance(message.get("correlation_id"), (str, type(None))):
            raise ValueError("correlation_id is neither a string nor null")
        datetime.fromisoformat(message["timestamp"].replace("Z", "+00:00"))
        members = self.payloads.get(message["type"])
        if members is None:
            raise ValueError(f"type {message['type']} is unknown")
        for name, value in message["payload"].items():
            member = members.get(name)
            if member is None:
                raise ValueError(f"payload.{name} is unknown")
            if value is not None and not isinstance(value, self.TYPES.get(member["type"], object)):
                raise ValueError(f"payload.{name} is not a {member['type']}")
            if member["type"] == "error code" and value not in self.error_codes:
                raise ValueError(f"payload.{name} is not one of the seven error codes")
        for name, member in members.items():
            if member["required"] and message["payload"].get(name) is None:
                raise ValueError(f"payload.{name} is missing")


# --- the agent --------------------------------------------------------------------------------


def tell(event, **details):
    print(json.dumps({"event": event, **details}), flush=True)


class ReportingProtocol(WebSocketClientProtocol):
    """Says when the library's own keepalive went round; changes nothing that it does."""

    async def ping(self, data=None):
        answered = await super().ping(data)
        answered.add_done_callback(lambda done: done.cancelled() or tell("kept_alive"))
        return answered

    async def pong(self, data=b""):
        await super().pong(data)
        tell("answered_ping")


class Agent:
    def __init__(self, socket):
        self.socket = socket
        self.key = nacl.signing.SigningKey.generate()
        self.did = legacy_did(bytes(self.key.verify_key))
        self.schema = Schema()

    async def do_register(self, spoil=False):
        """REGISTER; the reference client always signs it."""
        public_key = base58(bytes(self.key.verify_key))
        message = new_message(self.did, self.did, "REGISTER", {"public_key": public_key})
        sign(message, self.key)
        if spoil:
            message["id"] = str(uuid.uuid4())
        await self.do_send_text(as_sent(message))

    async def do_send(self, type, to=GATEWAY, payload=None, correlation_id=None, signed=False):
        """Any other message; the reference's own programs sign none of them."""
        message = new_message(self.did, to, type, payload or {}, correlation_id)
        if signed:
            sign(message, self.key)
        await self.do_send_text(as_sent(message))

    async def do_send_text(self, text):
        # Told first: what comes of it must not overtake it.
        tell("sent", text=text)
        await self.socket.send(text)

    async def do_close(self):
        await self.socket.close()

    async def receive(self):
        try:
            async for text in self.socket:
                message = json.loads(text)
                self.schema.check(message)
                tell("received", text=text, verified=verifies(message))
        except websockets.ConnectionClosedError:
            pass
        code, reason = self.socket.close_code, self.socket.close_reason
        tell("closed", code=code, reason=reason, noticed=code not in SILENT_CLOSES)

    async def obey(self, commands):
        async for line in commands:
            command = json.loads(line)
            try:
                await getattr(self, "do_" + command.pop("do"))(**command)
            except websockets.ConnectionClosed:
                pass  # `receive` says so
        await self.socket.close()


async def standard_input():
    reader = asyncio.StreamReader(limit=16 * 1024 * 1024)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def run(options):
    arguments = {}
    if options.ping_interval is not None:
        arguments["ping_interval"] = options.ping_interval or None
    if options.report_pings:
        arguments["create_protocol"] = ReportingProtocol
    socket = await websockets.connect(options.url, subprotocols=[SUBPROTOCOL], **arguments)
    agent = Agent(socket)
    tell(
        "connected",
        did=agent.did,
        request=[[name, value] for name, value in socket.request_headers.raw_items()],
        subprotocol=socket.subprotocol,
        extensions=[extension.name for extension in socket.extensions],
    )
    obeying = asyncio.create_task(agent.obey(await standard_input()))
    receiving = asyncio.create_task(agent.receive())
    done, _ = await asyncio.wait((obeying, receiving), return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


# --- the proof that this is how the reference client speaks -----------------------------------


def check_recording():
    """Rebuilds what the recorded reference client sent, and says how many messages it were."""
    rebuilt, verified = 0, 0
    for name, text in recorded_texts():
        recorded = json.loads(text)
        # From what its caller can have given: nulls and `Z` are the client's own.
        given = recorded["payload"].items()
        payload = {name: value for name, value in given if value is not None}
        timestamp = recorded["timestamp"][: -len("Z")]
        message = {**recorded, "timestamp": timestamp, "payload": payload}
        if as_sent(message) != text:
            raise SystemExit(f"{name}: made\n{as_sent(message)}\ninstead of\n{text}")
        rebuilt += 1
        verified += verifies(message) is True
    print(json.dumps({"rebuilt": rebuilt, "verified": verified}))


def recorded_texts():
    for case in load_vectors("wire_transcript.json")["cases"]:
        for event in case["events"]:
            if event["kind"] == "text" and event["dir"] == "client->server":
                if is_the_clients(event["data"]):
                    yield case["id"], event["data"]
    for case in load_vectors("signed_messages.json")["cases"]:
        if case.get("seed_client_quirk", "timestamp_plus_00_00_Z") != "timestamp_plus_00_00_Z":
            yield case["id"], case["message"]


def is_the_clients(text):
    """Whether the recorded client made it, not somebody by hand to try the gateway."""
    try:
        message = json.loads(text)
        spelt = text == json.dumps(message) and message["timestamp"].endswith("Z")
        return spelt and message["type"] != "HELLO"
    except (ValueError, TypeError, KeyError):
        return False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--url")
    parser.add_argument("--ping-interval", type=float, help="seconds; 0 sends no pings")
    parser.add_argument("--report-pings", action="store_true")
    parser.add_argument("--check-recording", action="store_true")
    options = parser.parse_args()
    if websockets.__version__ != "12.0":
        raise SystemExit(f"websockets is {websockets.__version__}, not 12.0: use tests/run")
    if options.check_recording:
        check_recording()
    else:
        asyncio.run(run(options))


if __name__ == "__main__":
    main()
