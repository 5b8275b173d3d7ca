#!/usr/bin/env bash
# A CPython without GIL, in the directory that is named. Debian ships none: it is built from its source package, which
# apt-get fetches and verifies into that directory alone, without touching the machine's own lists. Needs no root, but
# a C compiler, make, and the headers of OpenSSL, zlib and libffi. Takes some minutes.
set -euo pipefail

target=$(realpath -m "$1")
keys=/usr/share/keyrings/debian-archive-keyring.gpg
for needed in apt-get gcc make "$keys" /usr/include/openssl/ssl.h /usr/include/zlib.h; do
    command -v "$needed" >/dev/null || [ -e "$needed" ] || {
        echo "no free-threaded Python was found, and none can be built without $needed: make FREE_THREADED=/path/to/python3.13t" >&2
        exit 1
    }
done

work=$target.build
rm -rf "$work"
mkdir -p "$work"/{lists/partial,cache/archives/partial,source}
trap 'rm -rf "$work"' EXIT
echo "deb-src [signed-by=$keys] http://deb.debian.org/debian trixie main" >"$work/sources.list"
cat >"$work/apt.conf" <<CONF
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$work/lists";
Dir::Cache "$work/cache";
APT::Sandbox::User "";
CONF
export APT_CONFIG=$work/apt.conf

cd "$work/source"
apt-get -qq update
apt-get -qq source --download-only python3.13
tar --extract --strip-components=1 --file python3.13_*.orig.tar.xz
echo "building $(sed -n 's/^#define PY_VERSION  *"\(.*\)"$/Python \1/p' Include/patchlevel.h) without GIL"
{
    ./configure --prefix="$target" --disable-gil --disable-test-modules --with-ensurepip=install
    make -j2
    make install
} >"$target.log" 2>&1 || {
    tail -20 "$target.log" >&2
    exit 1
}
