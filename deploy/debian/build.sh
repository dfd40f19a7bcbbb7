#!/usr/bin/env bash
# Makes a Debian package: deploy/debian/build.sh [BINARY [FOLDER]]
# BINARY is a weir built for the machines it is to run on (target/release/weir if not given); the package is put into
# FOLDER (the current one), made by DEBFULLNAME and DEBEMAIL. WEIR_DEB_VERSION replaces the version, for tests and local builds. Needs dpkg-deb alone.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
binary=${1:-$root/target/release/weir}
folder=${2:-$PWD}
[[ -x $binary ]] || { echo "there is no $binary: run 'cargo build --release' first" >&2; exit 1; }

version=${WEIR_DEB_VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -1)-1}
maintainer="${DEBFULLNAME:-weir} <${DEBEMAIL:-weir@localhost}>"
architecture=$(dpkg --print-architecture)
date=$(date -u -R -d "@${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || date +%s)}")
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 0755 "$tree"

install -D -m 0755 "$binary" "$tree/usr/bin/weir"
if command -v strip >/dev/null; then strip --strip-unneeded "$tree/usr/bin/weir"; fi
install -D -m 0644 "$root/deploy/systemd/weir.service" "$tree/usr/lib/systemd/system/weir.service"
install -d -m 0750 "$tree/etc/weir"
install -m 0640 "$here/weir.yaml" "$tree/etc/weir/weir.yaml"

doc=$tree/usr/share/doc/weir
install -d -m 0755 "$doc"
"$binary" config example >"$doc/weir.yaml.example"
# Laid out as in the sources, so that links from one to the other hold.
install -m 0644 "$root/README.md" "$root/SECURITY.md" "$root/ARCHITECTURE.md" "$doc"
install -d -m 0755 "$doc"/{docs/images,deploy/{proxies,prometheus,grafana}}
install -m 0644 "$root"/docs/*.md "$doc/docs"
install -m 0644 "$root"/docs/images/* "$doc/docs/images"
install -m 0644 "$root"/deploy/proxies/* "$doc/deploy/proxies"
install -m 0644 "$root/deploy/prometheus/weir.rules.yml" "$doc/deploy/prometheus"
install -m 0644 "$root"/deploy/grafana/*.json "$doc/deploy/grafana"
# What the program is made of, where the sources it was built from can be asked.
if command -v cargo >/dev/null && command -v python3 >/dev/null; then
  python3 "$root/deploy/sbom/make.py" >"$doc/weir.cdx.json"
else
  echo "without cargo and python3 the package has no bill of materials (weir.cdx.json)" >&2
fi
printf 'weir (%s) unstable; urgency=medium\n\n  * See the project.\n\n -- %s  %s\n' "$version" "$maintainer" "$date" |
  gzip -9n >"$doc/changelog.Debian.gz"
{
  printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n'
  printf 'Files: *\nCopyright: 2026 the authors of weir\nLicense: Apache-2.0\n On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.\n'
} >"$doc/copyright"
find "$doc" -type f -exec chmod 0644 {} +

# What the binary was linked against; nothing for a static one.
libc=$(grep -aoE 'GLIBC_2\.[0-9]+' "$binary" | sort -uV | tail -1 | cut -d_ -f2 || true)
needs=adduser
[[ -z $libc ]] || needs="libc6 (>= $libc), libgcc-s1, adduser"

install -d -m 0755 "$tree/DEBIAN"
for script in postinst prerm postrm; do install -m 0755 "$here/$script" "$tree/DEBIAN/$script"; done
echo /etc/weir/weir.yaml >"$tree/DEBIAN/conffiles"
cat >"$tree/DEBIAN/control" <<CONTROL
Package: weir
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $(du -sk --exclude=DEBIAN "$tree" | cut -f1)
Depends: $needs
Section: net
Priority: optional
Description: voice and video server (SFU) for Matrix
 weir speaks the LiveKit signalling protocol to unmodified clients, such as
 Element Call. It forwards encrypted media and never holds a key.
CONTROL
(cd "$tree" && find . -type f -not -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum >DEBIAN/md5sums)

mkdir -p "$folder"
dpkg-deb --root-owner-group -Zxz -z"${WEIR_DEB_COMPRESSION:-6}" --build "$tree" "$folder/weir_${version}_$architecture.deb"
