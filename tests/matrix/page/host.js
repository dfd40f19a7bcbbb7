// A Matrix client with nothing but a room and Element Call as its widget: what Element Web does around a call. It keeps
// the keys of the user's device, so that encrypted events and keys of calls go through it.

import { ClientEvent, MatrixError, MatrixEventEvent, RoomStateEvent, createClient } from 'matrix-js-sdk';
import { ClientWidgetApi, OpenIDRequestState, Widget, WidgetDriver } from 'matrix-widget-api';

const plain = (event) => event.getEffectiveEvent();

class Driver extends WidgetDriver {
  constructor(client, room) {
    super();
    Object.assign(this, { client, room });
  }

  /** What a person grants to the calls of the own room: everything. */
  async validateCapabilities(asked) {
    return asked;
  }

  async sendEvent(type, content, stateKey = null) {
    const { client, room } = this;
    const sent = stateKey === null ? client.sendEvent(room, type, content) : client.sendStateEvent(room, type, content, stateKey);
    return { roomId: room, eventId: (await sent).event_id };
  }

  async sendStickyEvent(stickyMs, type, content) {
    const { event_id: eventId } = await this.client._unstable_sendStickyEvent(this.room, stickyMs, null, type, content);
    return { roomId: this.room, eventId };
  }

  async sendDelayedEvent(delay, type, content, stateKey = null) {
    const { client, room } = this;
    const sent = stateKey === null
      ? client._unstable_sendDelayedEvent(room, { delay }, null, type, content)
      : client._unstable_sendDelayedStateEvent(room, { delay }, type, content, stateKey);
    return { roomId: room, delayId: (await sent).delay_id };
  }

  async sendDelayedStickyEvent(delay, stickyMs, type, content) {
    const sent = await this.client._unstable_sendStickyDelayedEvent(this.room, stickyMs, { delay }, null, type, content);
    return { roomId: this.room, delayId: sent.delay_id };
  }

  async cancelScheduledDelayedEvent(id) {
    await this.client._unstable_cancelScheduledDelayedEvent(id);
  }

  async restartScheduledDelayedEvent(id) {
    await this.client._unstable_restartScheduledDelayedEvent(id);
  }

  async sendScheduledDelayedEvent(id) {
    await this.client._unstable_sendScheduledDelayedEvent(id);
  }

  async sendToDevice(type, encrypted, contents) {
    const messages = Object.entries(contents).flatMap(([userId, devices]) => {
      return Object.entries(devices).map(([deviceId, payload]) => ({ userId, deviceId, payload }));
    });
    if (!encrypted) return this.client.queueToDevice({ eventType: type, batch: messages });
    for (const { payload, ...device } of messages) {
      const batch = await this.client.getCrypto().encryptToDeviceMessages(type, [device], payload);
      await this.client.queueToDevice(batch);
    }
  }

  async readRoomTimeline(room, type, msgtype, stateKey, limit) {
    const events = this.client.getRoom(room).getLiveTimeline().getEvents();
    const fits = (event) => event.getType() === type && (stateKey === undefined || event.getStateKey() === stateKey);
    return events.filter(fits).slice(-(limit || 100)).map(plain);
  }

  async readRoomState(room, type, stateKey) {
    const state = this.client.getRoom(room).getLiveTimeline().getState('f');
    return [state.getStateEvents(type, stateKey) ?? []].flat().map(plain);
  }

  async readStickyEvents(room) {
    return [...this.client.getRoom(room)._unstable_getStickyEvents()].filter((event) => !event.isDecryptionFailure()).map(plain);
  }

  async askOpenID(observer) {
    observer.update({ state: OpenIDRequestState.Allowed, token: await this.client.getOpenIdToken() });
  }

  async getRtcTransports() {
    return { rtc_transports: await this.client._unstable_getRTCTransports() };
  }

  async *getTurnServers() {}

  getKnownRooms() {
    return [this.room];
  }

  processError(error) {
    return error instanceof MatrixError ? { matrix_api_error: error.asWidgetApiErrorData() } : undefined;
  }
}

/** Gives the widget every event of the room that can be read, once; what cannot be read yet follows when it can. */
function feedEvents(client, api, room) {
  const fed = new Set();
  const feed = (event) => {
    const id = event.getId();
    if (event.getRoomId() !== room || event.isDecryptionFailure() || event.getType() === 'm.room.encrypted' || fed.has(id)) return;
    fed.add(id);
    api.feedEvent(plain(event)).catch((error) => console.error('an event was not taken', error));
  };
  client.on(ClientEvent.Event, async (event) => {
    await client.decryptEventIfNeeded(event);
    feed(event);
  });
  client.on(MatrixEventEvent.Decrypted, feed);
  client.on(RoomStateEvent.Events, (event) => event.getRoomId() === room && api.feedStateUpdate(plain(event)));
  client.on(ClientEvent.ReceivedToDeviceMessage, ({ message, encryptionInfo }) => api.feedToDevice(message, encryptionInfo !== null));
}

export async function host({ homeserver, session: { user_id: userId, device_id: deviceId, access_token: accessToken }, room, page }) {
  const client = createClient({ baseUrl: homeserver, userId, deviceId, accessToken });
  await client.initRustCrypto({ useIndexedDB: false });
  const synced = new Promise((resolve) => client.once(ClientEvent.Sync, resolve));
  await client.startClient({ initialSyncLimit: 50 });
  await synced;
  const id = 'call';
  const settings = new URLSearchParams({
    widgetId: id, parentUrl: location.href, roomId: room, userId, deviceId, baseUrl: homeserver, intent: 'join_existing',
    perParticipantE2EE: 'true', lang: 'en', theme: 'dark',
  });
  const widget = new Widget({ id, creatorUserId: userId, type: 'm.call', url: `${page}#?${settings}`, waitForIframeLoad: false });
  const frame = Object.assign(document.createElement('iframe'), { id: 'call', allow: 'camera; microphone; autoplay; display-capture' });
  document.body.append(frame);
  const api = new ClientWidgetApi(widget, frame, new Driver(client, room));
  for (const action of ['io.element.join', 'im.vector.hangup', 'io.element.close', 'io.element.device_mute', 'set_always_on_screen']) {
    api.on(`action:${action}`, (event) => {
      event.preventDefault();
      api.transport.reply(event.detail, action === 'set_always_on_screen' ? { success: true } : {});
    });
  }
  api.setViewedRoomId(room);
  feedEvents(client, api, room);
  frame.src = widget.getCompleteUrl({ widgetRoomId: room, currentUserId: userId });
}
