"""The server API by PyPI livekit-api: one call per line of JSON on stdin, its answer on stdout, in order."""

import asyncio
import json
import re
import sys

from google.protobuf.json_format import MessageToDict, ParseDict
from livekit import api

REQUESTS = {
    "GetParticipant": "RoomParticipantIdentity",
    "RemoveParticipant": "RoomParticipantIdentity",
    "MutePublishedTrack": "MuteRoomTrackRequest",
}


async def call(client: api.LiveKitAPI, method: str, ask: dict) -> dict:
    if method == "verify":
        receiver = api.WebhookReceiver(api.TokenVerifier())
        return {"events": [receiver.receive(one["body"], one["authorization"]).event for one in ask["received"]]}
    request = getattr(api, REQUESTS.get(method, f"{method}Request"))()
    text = ask.pop("text", None)
    ParseDict(ask, request)
    if text is not None:
        request.data = text.encode()
    answer = await getattr(client.room, re.sub(r"(?<!^)(?=[A-Z])", "_", method).lower())(request)
    return MessageToDict(answer) if answer is not None else {}


async def main() -> None:
    async with api.LiveKitAPI() as client:
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                answer = {"result": await call(client, **json.loads(line))}
            except api.TwirpError as error:
                answer = {"error": {"message": error.message, "code": error.code, "status": error.status}}
            except Exception as error:  # the test decides what an error means
                answer = {"error": {"message": f"{type(error).__name__}: {error}"}}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


asyncio.run(main())
