// A certificate authority of a test, and a certificate for localhost: homeservers speak to each other over TLS only.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SYNAPSE } from '../../clients/lib/paths.mjs';

// Synapse brings the library along.
const PROGRAM = `
import datetime, ipaddress, sys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

folder = sys.argv[1]
now = datetime.datetime.now(datetime.timezone.utc)

def make(name, issuer, issuer_key, key, extension, critical):
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).add_extension(extension, critical)
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=2))
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

def named(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

def write(name, pem):
    with open(f"{folder}/{name}", "wb") as file:
        file.write(pem)

root, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
write("ca.pem", make(named("weir tests"), named("weir tests"), root, root, x509.BasicConstraints(ca=True, path_length=0), True))
names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
write("cert.pem", make(named("localhost"), named("weir tests"), root, leaf, names, False))
plain = serialization.NoEncryption()
write("key.pem", leaf.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
`;

/** Paths of its certificate, and of certificate and key of localhost. */
export function authority() {
  const folder = mkdtempSync(join(tmpdir(), 'weir-authority-'));
  execFileSync(SYNAPSE, ['-c', PROGRAM, folder]);
  const [file, certificate, key] = ['ca.pem', 'cert.pem', 'key.pem'].map((name) => join(folder, name));
  return { file, certificate, key, close: () => rmSync(folder, { recursive: true, force: true }) };
}
