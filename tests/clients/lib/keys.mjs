// Frame keys as the clients derive them, so that a test can look for them where they must not be.

import { hkdfSync, pbkdf2Sync, randomBytes } from 'node:crypto';

const SALT = 'LKFrameEncryptionKey';

export const passphrase = () => ({ passphrase: randomBytes(18).toString('base64') });

/** A random key for each identity, what Matrix clients exchange. */
export function keysFor(identities) {
  return { keys: Object.fromEntries(identities.map((identity) => [identity, randomBytes(16).toString('base64')])) };
}

/** Everything secret about an e2ee setting: material and AES keys, in the forms in which they could lie around. */
export function secretsOf(e2ee) {
  const secrets = {};
  const add = (label, bytes) => {
    secrets[label] = bytes;
    secrets[`${label}, hex`] = Buffer.from(bytes.toString('hex'));
    secrets[`${label}, base64`] = Buffer.from(bytes.toString('base64').replace(/=+$/, ''));
  };
  if (e2ee.passphrase) {
    const material = Buffer.from(e2ee.passphrase);
    add('passphrase', material);
    add('frame key of the passphrase', pbkdf2Sync(material, SALT, 100_000, 16, 'sha256'));
  }
  for (const [identity, key] of Object.entries(e2ee.keys ?? {})) {
    const material = Buffer.from(key, 'base64');
    add(`key of ${identity}`, material);
    add(`frame key of ${identity}`, Buffer.from(hkdfSync('sha256', material, SALT, Buffer.alloc(128), 16)));
  }
  return secrets;
}
