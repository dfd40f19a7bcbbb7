// Makes the page's peer connections see only some of the server's addresses, as a network that blocks the others would.

let fits = () => true;
let change = (line) => line;
let server = null;

/**
 * `protocol` (udp or tcp) and `family` (4 or 6) keep only such candidates of the server; `via` sends UDP to a port of
 * `host` instead, where a proxy stands. `turn` leaves only the TURN servers of a scheme and a transport.
 */
export function reachOnly({ protocol, family, via, host } = {}, turn = null) {
  server = turn;
  fits = (line) => {
    const [, , proto, , address] = line.split(' ');
    const is = { protocol: proto.toLowerCase(), family: address.includes(':') ? 6 : 4 };
    if (via && (is.protocol !== 'udp' || is.family !== 4)) return false;
    return (!protocol || protocol === is.protocol) && (!family || family === is.family);
  };
  change = (line) => {
    if (!via) return line;
    const parts = line.split(' ');
    [parts[4], parts[5]] = [host, via];
    return parts.join(' ');
  };
}

function someServers(configuration) {
  if (!server || !configuration?.iceServers) return configuration;
  const fits = (url) => url.startsWith(server.scheme) && url.endsWith(`transport=${server.transport}`);
  const iceServers = configuration.iceServers
    .map((entry) => ({ ...entry, urls: [entry.urls].flat().filter(fits) }))
    .filter(({ urls }) => urls.length);
  return { ...configuration, iceServers };
}

const Original = window.RTCPeerConnection;
window.RTCPeerConnection = class extends Original {
  constructor(configuration, ...more) {
    super(someServers(configuration), ...more);
  }

  setConfiguration(configuration) {
    super.setConfiguration(someServers(configuration));
  }
};

const { addIceCandidate, setRemoteDescription } = Original.prototype;

Original.prototype.addIceCandidate = function add(candidate, ...more) {
  if (candidate?.candidate) {
    if (!fits(candidate.candidate)) return Promise.resolve();
    const { sdpMid, sdpMLineIndex, usernameFragment } = candidate;
    candidate = { candidate: change(candidate.candidate), sdpMid, sdpMLineIndex, usernameFragment };
  }
  return addIceCandidate.call(this, candidate, ...more);
};

Original.prototype.setRemoteDescription = function set(description, ...more) {
  const lines = description.sdp.split('\r\n').flatMap((line) => {
    if (!line.startsWith('a=candidate:')) return [line];
    return fits(line.slice(2)) ? [`a=${change(line.slice(2))}`] : [];
  });
  return setRemoteDescription.call(this, { type: description.type, sdp: lines.join('\r\n') }, ...more);
};

/** The way media of a peer connection takes: both ends of its selected candidate pair. */
export async function pathOf(connection) {
  const stats = await connection.getStats();
  const lines = [...stats.values()];
  const selected = lines.find(({ type }) => type === 'transport')?.selectedCandidatePairId;
  const pair = selected ? stats.get(selected) : lines.find(({ type, nominated, state }) => type === 'candidate-pair' && nominated && state === 'succeeded');
  if (!pair) return null;
  const [near, far] = [stats.get(pair.localCandidateId), stats.get(pair.remoteCandidateId)];
  return {
    type: near?.candidateType,
    relayProtocol: near?.relayProtocol,
    protocol: far?.protocol,
    address: far?.address,
    port: far?.port,
    bytesReceived: pair.bytesReceived,
  };
}
