// What an operator's programs do: drive rooms with LiveKit's server SDKs, and hear of them by webhooks.

import assert from 'node:assert/strict';
import { hears, hearsNothing } from '../lib/judge.mjs';
import { NodeApi, PythonApi } from '../lib/server-api.mjs';
import { scenario, withWeir } from '../lib/stage.mjs';
import { NotYet, until } from '../lib/until.mjs';
import { WebhookSink } from '../lib/webhooks.mjs';

const sink = await WebhookSink.open();
withWeir({ extra: `room: {auto_create: false}\nwebhook:\n  api_key: testkey\n  urls: ["${sink.url}"]\n` });

const refusedWith = (code, status) => (error) => {
  assert.deepEqual([error.code, error.status], [code, status], error.message);
  return true;
};

async function heard(who, name, fits) {
  return until(`${who.identity} hears ${name}`, 8000, () => who.event(name, fits));
}

for (const Api of [NodeApi, PythonApi]) {
  scenario(`${Api.kind} drives every method, and webhooks tell the story in order`, 150, async (stage) => {
    const { weir, room } = stage;
    const api = stage.keep(new Api(weir));
    const checker = stage.keep(new PythonApi(weir));

    const asked = { name: room, emptyTimeout: 60, departureTimeout: 9, maxParticipants: 5, metadata: 'first' };
    const made = await api.call('CreateRoom', asked);
    assert.deepEqual({ ...made, ...asked }, made, 'as it was asked for');
    assert.equal((await api.call('CreateRoom', { name: room })).sid, made.sid, 'the room that is there');
    assert.deepEqual((await api.call('ListRooms', { names: [room] })).rooms.map(({ sid }) => sid), [made.sid]);
    assert.ok((await api.call('ListRooms', {})).rooms.some(({ name }) => name === room));

    const anna = await stage.join('python', 'anna', { number: 1 });
    const ben = await stage.join('python', 'ben', { number: 2 });
    const { sid: trackSid } = await anna.publishMicrophone();
    for (const who of [anna, ben]) {
      await until(`${who.identity} is active`, 15_000, async () => {
        const { state } = await api.call('GetParticipant', { room, identity: who.identity });
        if (state !== 'ACTIVE') throw new NotYet(`it is ${state}`);
        return true;
      });
    }
    await heard(ben, 'trackSubscribed');
    const { participants } = await api.call('ListParticipants', { room });
    assert.deepEqual(participants.map(({ identity }) => identity).sort(), [anna.identity, ben.identity]);
    assert.deepEqual(participants.find(({ identity }) => identity === anna.identity).tracks.map(({ sid }) => sid), [trackSid]);
    const [listed] = (await api.call('ListRooms', { names: [room] })).rooms;
    assert.deepEqual([listed.numParticipants, listed.numPublishers], [2, 1]);

    const mute = { room, identity: anna.identity, trackSid };
    const { track } = await api.call('MutePublishedTrack', { ...mute, muted: true });
    assert.deepEqual([track.sid, track.muted], [trackSid, true]);
    await heard(ben, 'trackMuted', ({ identity }) => identity === anna.identity);
    await assert.rejects(api.call('MutePublishedTrack', { ...mute, muted: false }), refusedWith('failed_precondition', 412));
    await assert.rejects(api.call('MutePublishedTrack', { ...mute, trackSid: 'TR_none', muted: true }), refusedWith('not_found', 404));

    const changed = await api.call('UpdateParticipant', { room, identity: anna.identity, metadata: 'about anna', attributes: { role: 'host' } });
    assert.deepEqual([changed.metadata, changed.attributes], ['about anna', { role: 'host' }]);
    await heard(ben, 'metadata', ({ metadata }) => metadata === 'about anna');

    await anna.unmute({ source: 'microphone' });
    await hears(ben, anna);
    await api.call('UpdateSubscriptions', { room, identity: ben.identity, trackSids: [trackSid], subscribe: false });
    await hearsNothing(ben, anna);
    await api.call('UpdateSubscriptions', { room, identity: ben.identity, trackSids: [trackSid], subscribe: true });
    await hears(ben, anna);

    await api.call('SendData', { room, text: 'to ben', topic: 'greeting', destinationIdentities: [ben.identity] });
    await api.call('SendData', { room, text: 'to all' });
    for (const [who, texts] of [[anna, ['to all']], [ben, ['to ben', 'to all']]]) {
      await until(`${who.identity} has what was sent`, 8000, async () => {
        const inbox = await who.inbox();
        if (inbox.length < texts.length) throw new NotYet(`its inbox has ${JSON.stringify(inbox)}`);
        assert.deepEqual(inbox.map(({ text }) => text), texts);
        return true;
      });
    }
    assert.equal((await ben.inbox())[0].topic, 'greeting');

    assert.equal((await api.call('UpdateRoomMetadata', { room, metadata: 'second' })).metadata, 'second');

    await api.call('RemoveParticipant', { room, identity: ben.identity });
    await heard(ben, 'disconnected', ({ reason }) => reason === 'PARTICIPANT_REMOVED');
    await assert.rejects(api.call('GetParticipant', { room, identity: ben.identity }), refusedWith('not_found', 404));
    for (const method of ['MoveParticipant', 'ForwardParticipant']) {
      const moved = { room, identity: anna.identity, destinationRoom: 'elsewhere' };
      await assert.rejects(api.call(method, moved), refusedWith('unimplemented', 501));
    }
    const stranger = stage.keep(new Api({ url: weir.url, key: weir.key, secret: 'not the secret'.repeat(4) }));
    await assert.rejects(stranger.call('ListRooms', {}), refusedWith('unauthenticated', 401));

    await anna.disconnect();
    await until('anna has gone', 8000, async () => !(await api.call('ListParticipants', { room })).participants?.length);
    await api.call('DeleteRoom', { room });
    await assert.rejects(api.call('DeleteRoom', { room }), refusedWith('not_found', 404));
    assert.equal((await api.call('ListRooms', { names: [room] })).rooms?.length ?? 0, 0);

    const events = await until('the last webhook is here', 15_000, async () => {
      const events = await sink.of(room, weir);
      if (events.at(-1)?.event !== 'room_finished') throw new NotYet(`there are ${events.map(({ event }) => event)}`);
      return events;
    });
    const told = events.map(({ event, participant, track: about }) => [event, participant?.identity, about?.sid].filter(Boolean).join(' '));
    const expected = [
      'room_started',
      `participant_joined ${anna.identity}`,
      `participant_joined ${ben.identity}`,
      `track_published ${anna.identity} ${trackSid}`,
      `participant_left ${ben.identity}`,
      `track_unpublished ${anna.identity} ${trackSid}`,
      `participant_left ${anna.identity}`,
      'room_finished',
    ];
    // A client may publish before or after its own or another's media is connected.
    const early = (list) => [list[0], ...list.slice(1, 4).sort(), ...list.slice(4)];
    assert.deepEqual(early(told), early(expected));
    const reasons = events.filter(({ event }) => event === 'participant_left').map(({ participant }) => participant.disconnectReason);
    assert.deepEqual(reasons, [4, 1], 'removed, and gone by itself');
    assert.equal(new Set(events.map(({ id }) => id)).size, events.length);
    assert.ok(sink.received.every(({ type }) => type === 'application/webhook+json'));
    assert.equal((await checker.verify(sink.received)).events.length, sink.received.length);
  });
}
