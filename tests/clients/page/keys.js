// Two ways in which real clients hold frame keys: one passphrase for the whole room (stretched with PBKDF2), or one
// random key per participant (expanded with HKDF), which is what Matrix clients do.

import { BaseKeyProvider, ExternalE2EEKeyProvider } from 'livekit-client';

class PerParticipantKeys extends BaseKeyProvider {
  constructor() {
    super({ sharedKey: false, ratchetWindowSize: 0, failureTolerance: -1 });
  }

  async set(identity, key, index = 0) {
    const material = await crypto.subtle.importKey('raw', key, 'HKDF', false, ['deriveBits', 'deriveKey']);
    this.onSetEncryptionKey(material, identity, index);
  }
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/** `e2ee` is {passphrase} or {keys: {identity: base64}}. */
export async function keyProvider(e2ee) {
  if (e2ee.passphrase) {
    const provider = new ExternalE2EEKeyProvider();
    await provider.setKey(e2ee.passphrase);
    return provider;
  }
  const provider = new PerParticipantKeys();
  await setKeys(provider, e2ee);
  return provider;
}

export async function setKeys(provider, e2ee) {
  if (e2ee.passphrase) return provider.setKey(e2ee.passphrase);
  for (const [identity, key] of Object.entries(e2ee.keys)) await provider.set(identity, bytesOf(key));
}
