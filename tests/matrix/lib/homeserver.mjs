// A real Synapse beside a weir, configured with what `weir registration` prints, and users who speak to it.

import { execFileSync, spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SYNAPSE, WEIR } from '../../clients/lib/paths.mjs';
import { NotYet, until, within } from '../../clients/lib/until.mjs';
import { freeTcpPort } from '../../clients/lib/weir.mjs';

export const SHARED_SECRET = 'for tests';
export const MEMBER = 'org.matrix.msc3401.call.member';
const STICKY_MEMBER = 'org.matrix.msc4143.rtc.member';
const NO_LIMIT = '{per_second: 1000, burst_count: 1000}';

/** Status and JSON of a request; errors of HTTP are answers like others. */
export async function request(method, url, body, token) {
  const headers = { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) };
  const answer = await fetch(url, { method, headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(30_000) });
  const text = await answer.text();
  let json = {};
  try {
    json = JSON.parse(text);
  } catch {
    json = { text };
  }
  return { status: answer.status, json };
}

export class Homeserver {
  /** With an authority (see authority.mjs) it speaks to other homeservers. */
  static async prepare(authority) {
    const server = new Homeserver();
    server.home = mkdtempSync(join(tmpdir(), 'weir-homeserver-'));
    server.port = await freeTcpPort();
    server.federationPort = await freeTcpPort();
    server.name = `localhost:${server.federationPort}`;
    server.base = `http://localhost:${server.port}`;
    server.log = join(server.home, 'synapse.log');
    server.authority = authority;
    return server;
  }

  /**
   * Writes the configuration of Synapse and returns weir's part, both from `weir registration`; without a weir, of a
   * homeserver that has no SFU.
   */
  configure(weir) {
    const [registration, section, settings] = weir ? this.registration(weir) : [null, '', ''];
    this.write(registration, settings);
    return section;
  }

  registration(weir) {
    const printed = execFileSync(WEIR, ['registration', '--server-name', this.name, '--url', weir.base.replace('localhost', '127.0.0.1'),
      '--homeserver-url', `http://127.0.0.1:${this.port}`, '--public-url', weir.base.replace('http', 'ws')], { encoding: 'utf8' });
    return printed.split(/^# \d\. .*$/m).slice(1);
  }

  write(registration, settings) {
    const file = (name) => join(this.home, name);
    if (registration) writeFileSync(file('weir.yaml'), registration);
    const { authority } = this;
    const federation = authority && `
  - {port: ${this.federationPort}, tls: true, type: http, bind_addresses: ['127.0.0.1'], resources: [{names: [client, federation], compress: false}]}
tls_certificate_path: '${authority.certificate}'
tls_private_key_path: '${authority.key}'
federation_custom_ca_list: ['${authority.file}']
ip_range_blacklist: []
rc_federation: {window_size: 1000, sleep_limit: 1000, reject_limit: 5000, concurrent: 20}
federation: {destination_min_retry_interval: 1s, destination_max_retry_interval: 1s}`;
    writeFileSync(file('log.yaml'), `version: 1
formatters: {plain: {format: '%(asctime)s %(levelname)s %(name)s %(message)s'}}
handlers: {out: {class: logging.StreamHandler, formatter: plain}}
root: {level: INFO, handlers: [out]}
disable_existing_loggers: false
`);
    writeFileSync(file('homeserver.yaml'), `server_name: '${this.name}'
public_baseurl: '${this.base}/'
listeners:
  - {port: ${this.port}, tls: false, type: http, bind_addresses: ['127.0.0.1'], resources: [{names: [client, openid], compress: false}]}${federation ?? ''}
database: {name: sqlite3, args: {database: '${file('homeserver.db')}'}}
media_store_path: '${file('media')}'
signing_key_path: '${file('signing.key')}'
log_config: '${file('log.yaml')}'
report_stats: false
# Element Call names its user in the power levels of the rooms it makes, which later versions refuse.
default_room_version: '11'
macaroon_secret_key: '${SHARED_SECRET}'
form_secret: '${SHARED_SECRET}'
registration_shared_secret: '${SHARED_SECRET}'
enable_registration: true
enable_registration_without_verification: true
trusted_key_servers: []
rc_message: ${NO_LIMIT}
rc_registration: ${NO_LIMIT}
rc_login: {address: ${NO_LIMIT}, account: ${NO_LIMIT}}
rc_joins: {local: ${NO_LIMIT}, remote: ${NO_LIMIT}}
rc_invites: {per_room: ${NO_LIMIT}, per_user: ${NO_LIMIT}, per_issuer: ${NO_LIMIT}}
app_service_config_files: [${registration ? `'${file('weir.yaml')}'` : ''}]
${settings}`);
  }

  async start() {
    const log = openSync(this.log, 'a');
    const args = ['-m', 'synapse.app.homeserver', '--config-path', join(this.home, 'homeserver.yaml')];
    if (!existsSync(join(this.home, 'signing.key'))) {
      const generate = spawn(SYNAPSE, [...args, '--generate-keys'], { stdio: ['ignore', log, log], cwd: this.home });
      await within('Synapse makes its keys', 60_000, new Promise((resolve) => generate.once('exit', resolve)));
    }
    this.process = spawn(SYNAPSE, args, { stdio: ['ignore', log, log], cwd: this.home });
    closeSync(log);
    this.exit = new Promise((resolve) => this.process.once('exit', resolve));
    this.process.once('exit', (code, signal) => (this.ended = { code, signal }));
    this.ended = null;
    await until('Synapse answers', 60_000, async () => {
      if (this.ended) throw new Error(`Synapse ended with ${JSON.stringify(this.ended)}:\n${readFileSync(this.log, 'utf8').slice(-2000)}`);
      try {
        return (await fetch(`${this.base}/_matrix/client/versions`)).ok;
      } catch (error) {
        throw new NotYet(String(error.cause ?? error));
      }
    }, 100);
  }

  /** As an operator stops it: its folder stays, and `start` brings it back. */
  async halt() {
    this.process.kill('SIGTERM');
    return within('Synapse ends', 30_000, this.exit);
  }

  async stop() {
    this.process?.kill('SIGKILL');
    await this.exit;
    rmSync(this.home, { recursive: true, force: true });
  }

  async user(name) {
    const { nonce } = (await request('GET', `${this.base}/_synapse/admin/v1/register`)).json;
    const mac = createHmac('sha1', SHARED_SECRET).update([nonce, name, 'password', 'notadmin'].join('\0')).digest('hex');
    const body = { nonce, username: name, password: 'password', admin: false, mac };
    const { status, json } = await request('POST', `${this.base}/_synapse/admin/v1/register`, body);
    if (status !== 200) throw new Error(`${name} could not be registered: ${status} ${JSON.stringify(json)}`);
    return new User(this, { id: json.user_id, device: json.device_id, token: json.access_token });
  }
}

export class User {
  constructor(homeserver, { id, device, token }) {
    Object.assign(this, { homeserver, id, device, token });
  }

  ask(method, path, body) {
    return request(method, `${this.homeserver.base}/_matrix/client/v3${path}`, body, this.token);
  }

  /** As `ask`, where only success makes sense. */
  async must(method, path, body) {
    const { status, json } = await this.ask(method, path, body);
    if (status !== 200) throw new Error(`${method} ${path} of ${this.id}: ${status} ${JSON.stringify(json)}`);
    return json;
  }

  async createRoom({ encrypted = false, invite = [], levels } = {}) {
    const power = { events: { [MEMBER]: 0 }, ...(levels && { users: levels }) };
    const body = { preset: 'private_chat', power_level_content_override: power, invite: invite.map(({ id }) => id) };
    if (encrypted) body.initial_state = [{ type: 'm.room.encryption', state_key: '', content: { algorithm: 'm.megolm.v1.aes-sha2' } }];
    return (await this.must('POST', '/createRoom', body)).room_id;
  }

  /** kick, ban, unban, invite. */
  moderate(what, room, user) {
    return this.must('POST', `/rooms/${encodeURIComponent(room)}/${what}`, { user_id: user.id });
  }

  join(room, via) {
    return this.must('POST', `/join/${encodeURIComponent(room)}${via ? `?via=${encodeURIComponent(via.name)}` : ''}`, {});
  }

  /** The newest event of the room that fits, of the last hundred. */
  async newest(room, fits) {
    const { chunk } = await this.must('GET', `/rooms/${encodeURIComponent(room)}/messages?dir=b&limit=100`);
    return chunk.find(fits);
  }

  /** Has this user left the call of the room, in the words of Matrix 2.0: a sticky event with nothing but its key? */
  async saidGoodBye(room, user) {
    const last = await this.newest(room, ({ type, sender, content }) => {
      return type === STICKY_MEMBER && sender === user.id && Object.keys(content).every((key) => key === 'msc4354_sticky_key');
    });
    return last?.origin_server_ts;
  }

  /** What a client does before a call: an OpenID token, and with it a token of weir. */
  async callToken(weir, room) {
    const openid = await this.must('POST', `/user/${encodeURIComponent(this.id)}/openid/request_token`, {});
    return request('POST', `${weir.base}/sfu/get`, { room, openid_token: openid, device_id: this.device });
  }

  /** State keys of the call members that stand in the room. */
  async standing(room) {
    const state = await this.must('GET', `/rooms/${encodeURIComponent(room)}/state`);
    return state.filter((event) => event.type === MEMBER && Object.keys(event.content).length > 0).map((event) => event.state_key);
  }

  /** Says in the room's state that this user is in its call. */
  async standInCall(weir, room) {
    this.memberKey = `_${this.id}_${this.device}_m.call`;
    await this.must('PUT', `/rooms/${encodeURIComponent(room)}/state/${MEMBER}/${encodeURIComponent(this.memberKey)}`, {
      application: 'm.call', call_id: '', scope: 'm.room', device_id: this.device, expires: 14_400_000,
      focus_active: { type: 'livekit', focus_selection: 'multi_sfu' },
      foci_preferred: [{ type: 'livekit', livekit_service_url: weir.base, livekit_alias: room }],
    });
  }
}

/** What a token says about whom it lets in. */
export const claimsOf = (jwt) => JSON.parse(Buffer.from(jwt.split('.')[1], 'base64url').toString());
