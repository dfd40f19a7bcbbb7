"""A participant of the PyPI `livekit` SDK, driven by JSON lines: {"id", "method", "args"} in, {"id", "result"|"error"}
out. It answers to the same methods as window.weirTest of page/app.js, so that a scenario need not know who it drives.
Logs go to standard error."""

import asyncio
import base64
import hashlib
import json
import logging
import os
import re
import sys
import time

import numpy
from livekit import rtc

import picture
import tone

SOURCES = {
    rtc.TrackSource.SOURCE_CAMERA: "camera",
    rtc.TrackSource.SOURCE_MICROPHONE: "microphone",
    rtc.TrackSource.SOURCE_SCREENSHARE: "screen_share",
}
SOURCE_OF = {name: value for value, name in SOURCES.items()}
KEEP = 90
log = logging.getLogger("participant")


def now_ms() -> int:
    return int(time.time() * 1000)


def number_of(identity: str) -> int:
    match = re.search(r"-(\d+)$", identity)
    return int(match.group(1)) if match else 0


def pattern_of(size: int) -> bytes:
    """The same bytes as patternOf() of the page."""
    out = bytearray(size)
    state = 1
    for at in range(size):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        out[at] = state >> 24
    return bytes(out)


class Watched:
    """One subscribed track: reads its pictures or hears its tone until it ends."""

    def __init__(self, track: rtc.RemoteTrack, sender: int):
        self.track = track
        self.report = {"samples": [], "reads": 0, "good": 0}
        video = track.kind == rtc.TrackKind.KIND_VIDEO
        self.task = asyncio.create_task(self.see() if video else self.hear(sender))

    async def see(self) -> None:
        stream = rtc.VideoStream(self.track, format=rtc.VideoBufferType.RGBA, capacity=2)
        async for event in stream:
            frame = event.frame
            image = numpy.frombuffer(frame.data, dtype=numpy.uint8).reshape(frame.height, frame.width, 4)
            self.report.update(width=frame.width, height=frame.height)
            self.report["reads"] += 1
            if found := picture.read(image):
                now = now_ms()
                self.report["good"] += 1
                self.report["picture"] = {**found, "readAt": now}
                age = picture.age_of(found["counter"], now)
                self.report["samples"] = [*self.report["samples"][1 - KEEP :], [now, age]]

    async def hear(self, sender: int) -> None:
        ear = tone.Ear(sender)
        # Large frames: at 10 ms each a busy machine falls behind on the events alone.
        async for event in rtc.AudioStream(self.track, sample_rate=tone.RATE, num_channels=1, frame_size_ms=50):
            for level in ear.hear(numpy.frombuffer(event.frame.data, dtype=numpy.int16)):
                self.report["samples"] = [*self.report["samples"][1 - KEEP :], [now_ms(), round(level)]]

    async def look(self) -> dict:
        report = dict(self.report)
        if "picture" in report:
            report["picture"] = {**report["picture"], "age": picture.age_of(report["picture"]["counter"], now_ms())}
        for line in await self.track.get_stats():
            if line.WhichOneof("stats") == "inbound_rtp":
                inbound = line.inbound_rtp.inbound
                received = line.inbound_rtp.received
                report.update(
                    packets=received.packets_received,
                    lost=received.packets_lost,
                    bytes=inbound.bytes_received,
                    framesReceived=inbound.frames_received,
                    framesDecoded=inbound.frames_decoded,
                )
        return report


class Participant:
    def __init__(self) -> None:
        self.room = rtc.Room()
        self.number = 0
        self.events: list[dict] = []
        self.received: list[dict] = []
        self.watched: dict[str, Watched] = {}
        self.published: dict[str, tuple] = {}
        self.readers: set[asyncio.Task] = set()

    def note(self, name: str, **detail) -> None:
        self.events.append({"t": now_ms(), "name": name, **detail})
        log.info("event %s %s", name, detail)

    def listen(self) -> None:
        room = self.room
        what = lambda pub, who: {"identity": who.identity, "source": SOURCES.get(pub.source)}  # noqa: E731
        room.on("reconnecting", lambda: self.note("reconnecting"))
        room.on("reconnected", lambda: self.note("reconnected"))
        room.on("disconnected", lambda why: self.note("disconnected", reason=rtc.DisconnectReason.Name(why)))
        room.on("participant_connected", lambda who: self.note("participantConnected", identity=who.identity))
        room.on("participant_disconnected", lambda who: self.note("participantDisconnected", identity=who.identity))
        room.on("track_published", lambda pub, who: self.note("trackPublished", **what(pub, who)))
        room.on("track_unpublished", lambda pub, who: self.note("trackUnpublished", **what(pub, who)))
        room.on("track_muted", lambda who, pub: self.note("trackMuted", **what(pub, who)))
        room.on("track_unmuted", lambda who, pub: self.note("trackUnmuted", **what(pub, who)))
        room.on("active_speakers_changed", lambda who: self.note("speakers", speakers=[p.identity for p in who]))
        room.on("participant_metadata_changed", lambda who, *_: self.note("metadata", identity=who.identity, metadata=who.metadata))

        @room.on("track_subscribed")
        def _(track, pub, who) -> None:
            self.note("trackSubscribed", **what(pub, who))
            self.watched[f"{who.identity}/{SOURCES.get(pub.source)}"] = Watched(track, number_of(who.identity))

        @room.on("track_unsubscribed")
        def _(_track, pub, who) -> None:
            self.note("trackUnsubscribed", **what(pub, who))
            if gone := self.watched.pop(f"{who.identity}/{SOURCES.get(pub.source)}", None):
                gone.task.cancel()

        @room.on("data_received")
        def _(packet: rtc.DataPacket) -> None:
            reliable = packet.kind == rtc.DataPacketKind.KIND_RELIABLE
            sender = packet.participant.identity if packet.participant else None
            text = packet.data.decode(errors="replace")
            self.received.append({"t": now_ms(), "from": sender, "text": text, "reliable": reliable, "topic": packet.topic})

        if not hasattr(room, "register_byte_stream_handler"):
            return
        room.register_byte_stream_handler("bytes", lambda reader, who: self.start(self.take_bytes(reader, who)))
        room.register_text_stream_handler("text", lambda reader, who: self.start(self.take_text(reader, who)))

    def start(self, work) -> None:
        task = asyncio.create_task(work)
        self.readers.add(task)
        task.add_done_callback(self.readers.discard)

    async def take_bytes(self, reader, who: str) -> None:
        digest, size = hashlib.sha256(), 0
        async for chunk in reader:
            digest.update(chunk)
            size += len(chunk)
        self.received.append({"t": now_ms(), "from": who, "stream": "bytes", "size": size, "sha256": digest.hexdigest()})

    async def take_text(self, reader, who: str) -> None:
        self.received.append({"t": now_ms(), "from": who, "stream": "text", "text": await reader.read_all()})

    # ---- what a test may ask for -------------------------------------------------------------------------------

    async def do_connect(self, url, token, number, singlePeerConnection=True, e2ee=None, dynacast=False, **_) -> dict:
        self.number = number
        options = rtc.RoomOptions(auto_subscribe=True, dynacast=dynacast)
        # Older packages have no choice of peer connections and know encryption by another name.
        if hasattr(options, "single_peer_connection"):
            options.single_peer_connection = singlePeerConnection
        if e2ee:
            encryption = rtc.E2EEOptions()
            setattr(options, "encryption" if hasattr(options, "encryption") else "e2ee", encryption)
            keys = encryption.key_provider_options
            if "passphrase" in e2ee:
                keys.shared_key = e2ee["passphrase"].encode()
            else:
                keys.key_derivation_function = rtc.KeyDerivationFunction.HKDF
        self.listen()
        try:
            await self.room.connect(url, token, options=options)
        except rtc.ConnectError as error:
            return {"error": {"name": "ConnectError", "message": error.message}}
        if e2ee and "keys" in e2ee:
            await self.do_setKeys(keys=e2ee["keys"])
        own = self.room.local_participant
        own.register_rpc_method("echo", self.echo)
        return {"sid": own.sid, "identity": own.identity, "room": self.room.name}

    async def echo(self, call: rtc.RpcInvocationData) -> str:
        return f"{self.room.local_participant.identity}<{call.caller_identity}:{call.payload}"

    async def do_setKeys(self, keys=None, passphrase=None) -> None:
        provider = self.room.e2ee_manager.key_provider
        if passphrase is not None:
            provider.set_shared_key(passphrase.encode(), 0)
        for identity, key in (keys or {}).items():
            provider.set_key(identity, base64.b64decode(key), 0)

    async def publish(self, name: str, track, maker: asyncio.Task, **options) -> dict:
        options = rtc.TrackPublishOptions(source=SOURCE_OF[name], **options)
        publication = await self.room.local_participant.publish_track(track, options)
        self.published[name] = (publication, track, maker)
        return {"sid": publication.sid}

    async def publish_video(self, name: str, width: int, height: int, fps: float, simulcast: bool) -> dict:
        try:
            source = rtc.VideoSource(width, height, is_screencast=name == "screen_share")
        except TypeError:  # an older package
            source = rtc.VideoSource(width, height)
        track = rtc.LocalVideoTrack.create_video_track(name, source)

        async def paint() -> None:
            column = 0
            while True:
                bits = picture.encode(self.number, picture.SOURCES.index(name), picture.counter_at(now_ms()))
                column = (column + 7) % width
                image = picture.paint(width, height, bits, column)
                source.capture_frame(rtc.VideoFrame(width, height, rtc.VideoBufferType.RGBA, image.tobytes()))
                await asyncio.sleep(1 / fps)

        return await self.publish(name, track, asyncio.create_task(paint()), simulcast=simulcast)

    async def do_publishCamera(self, width=640, height=360, fps=15, simulcast=True, **_) -> dict:
        return await self.publish_video("camera", width, height, fps, simulcast)

    async def do_publishScreen(self, width=800, height=450, fps=5) -> dict:
        return await self.publish_video("screen_share", width, height, fps, False)

    async def do_publishMicrophone(self) -> dict:
        source = rtc.AudioSource(tone.RATE, 1, queue_size_ms=100)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", source)

        async def play() -> None:
            sound, samples = tone.Tone(self.number), tone.RATE // 25
            while True:
                chunk = sound.chunk(samples, now_ms() + source.queued_duration * 1000)
                await source.capture_frame(rtc.AudioFrame(chunk.tobytes(), tone.RATE, 1, samples))

        return await self.publish("microphone", track, asyncio.create_task(play()), dtx=True, red=False)

    async def do_unpublish(self, source: str) -> None:
        publication, _, maker = self.published.pop(source)
        await self.room.local_participant.unpublish_track(publication.sid)
        maker.cancel()

    async def do_mute(self, source: str) -> dict:
        at = now_ms()
        self.published[source][1].mute()
        return {"t": at}

    async def do_unmute(self, source: str) -> dict:
        at = now_ms()
        self.published[source][1].unmute()
        return {"t": at}

    async def do_setSubscribed(self, identity: str, source: str, wanted: bool) -> None:
        for publication in self.room.remote_participants[identity].track_publications.values():
            if SOURCES.get(publication.source) == source:
                publication.set_subscribed(wanted)

    async def do_look(self) -> dict:
        participants = {}
        for who in list(self.room.remote_participants.values()):
            tracks = {}
            for pub in list(who.track_publications.values()):
                source = SOURCES.get(pub.source)
                watched = self.watched.get(f"{who.identity}/{source}")
                tracks[source] = {
                    "sid": pub.sid,
                    "muted": pub.muted,
                    "subscribed": pub.subscribed,
                    "encrypted": pub.encryption_type != 0,
                    **(await watched.look() if watched else {}),
                }
            participants[who.identity] = {
                "sid": who.sid,
                "name": who.name,
                "metadata": who.metadata,
                "attributes": dict(who.attributes),
                "tracks": tracks,
            }
        state = rtc.ConnectionState.Name(self.room.connection_state).removeprefix("CONN_").lower()
        sid = self.room.local_participant.sid if self.room.isconnected() else None
        return {"t": now_ms(), "state": state, "sid": sid, "participants": participants}

    async def do_events(self) -> list:
        return self.events

    async def do_inbox(self) -> list:
        return self.received

    async def do_sendData(self, text: str, reliable=True, to=(), topic="") -> None:
        await self.room.local_participant.publish_data(text, reliable=reliable, destination_identities=list(to), topic=topic)

    async def do_rpc(self, to: str, payload: str, method="echo") -> str:
        own = self.room.local_participant
        return await own.perform_rpc(destination_identity=to, method=method, payload=payload, response_timeout=8)

    async def do_sendBytes(self, size: int, to=()) -> dict:
        data = pattern_of(size)
        own = self.room.local_participant
        writer = await own.stream_bytes("pattern", topic="bytes", total_size=size, destination_identities=list(to))
        await writer.write(data)
        await writer.aclose()
        return {"size": size, "sha256": hashlib.sha256(data).hexdigest()}

    async def do_sendText(self, text: str, to=()) -> None:
        await self.room.local_participant.send_text(text, topic="text", destination_identities=list(to))

    async def do_setMetadata(self, metadata: str) -> None:
        await self.room.local_participant.set_metadata(metadata)

    async def do_disconnect(self) -> None:
        for _, _, maker in self.published.values():
            maker.cancel()
        await self.room.disconnect()

    async def do_selfTest(self) -> dict:
        """Paints, shrinks, spoils and reads pictures; makes and hears a tone. No network."""
        noise = numpy.random.default_rng(1)
        wrong = 0
        for counter in range(256):
            for source in range(len(picture.SOURCES)):
                image = picture.paint(640, 360, picture.encode(self.number or 9, source, counter), counter)
                small = image[::4, ::4].astype(numpy.int16) + noise.integers(-60, 60, (90, 160, 4))
                found = picture.read(numpy.clip(small, 0, 255).astype(numpy.uint8))
                expected = {"number": self.number or 9, "source": picture.SOURCES[source], "counter": counter}
                wrong += found != expected
        garbage = sum(picture.read(noise.integers(0, 255, (90, 160, 4), dtype=numpy.uint8)) is not None for _ in range(500))
        sound = tone.Tone(9)
        on = numpy.concatenate([sound.chunk(960, 0.0) for _ in range(5)])
        levels = {n: tone.Ear(n).hear(on)[0] for n in (8, 9)}
        return {"wrong": wrong, "garbage": garbage, "own": levels[9], "other": levels[8]}


async def main() -> None:
    logging.basicConfig(level=os.environ.get("WEIR_TEST_PYTHON_LOG", "INFO").upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    participant = Participant()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def serve(call: dict) -> None:
        answer = {"id": call["id"]}
        try:
            method, args = getattr(participant, f"do_{call['method']}"), call.get("args")
            answer["result"] = await (method(**args) if isinstance(args, dict) else method(*([args] if args is not None else [])))
        except Exception as error:  # the test decides what an error means
            log.exception("%s failed", call["method"])
            answer["error"] = f"{type(error).__name__}: {error}"
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    tasks = set()
    while line := await reader.readline():
        task = asyncio.create_task(serve(json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


asyncio.run(main())
