"""A certificate authority and a certificate for localhost: homeservers speak to each other over TLS only.

usage: python authority.py FOLDER, with a Python that has Synapse, which brings the library along
"""

import datetime
import ipaddress
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

folder = sys.argv[1]
now = datetime.datetime.now(datetime.timezone.utc)


def make(name, issuer, issuer_key, key, extension, critical):
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).add_extension(extension, critical)
    builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=365))
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def named(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def write(name, pem):
    with open(f"{folder}/{name}", "wb") as file:
        file.write(pem)


root, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
name = named("homeservers of one machine")
write("ca.pem", make(name, name, root, root, x509.BasicConstraints(ca=True, path_length=0), True))
names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
write("cert.pem", make(named("localhost"), name, root, leaf, names, False))
plain = serialization.NoEncryption()
write("key.pem", leaf.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
