#!/usr/bin/env bash
# Runs the suite on a newer Python than 3.11: on $COMPAT_PYTHON, or the newest python3.12+ on the PATH. Where there is
# none, and we are root on Debian, a Debian release that has one is put into .cache/compat with debootstrap, and the
# suite runs in there (a chroot). What it makes stays for the next run; `make clean` removes it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
release=${COMPAT_RELEASE:-trixie}

python=${COMPAT_PYTHON:-}
for minor in 15 14 13 12; do
    [ -n "$python" ] || python=$(command -v "python3.$minor" || true)
done
if [ -n "$python" ] && "$python" -c 'import venv'; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "Running the suite on Python $version ($python)"
    exec make --no-print-directory test PYTHON="$python" VENV=".cache/venv-$version"
fi

command -v debootstrap >/dev/null || {
    echo "There is no Python newer than 3.11 here. Name one with COMPAT_PYTHON=, or install debootstrap (as root)." >&2
    exit 1
}
root=$PWD/.cache/compat/$release
if [ ! -e "$root/ready" ]; then
    echo "Making a Debian $release in $root: once, some minutes"
    mkdir -p "$root"
    debootstrap --variant=minbase \
        --include=python3,python3-venv,python3-dev,make,git,gcc,ca-certificates,procps "$release" "$root" >"$root.log" 2>&1 ||
        { tail "$root.log" >&2; exit 1; }
    touch "$root/ready"
fi
for file in /etc/pip.conf /etc/resolv.conf; do
    [ ! -e "$file" ] || cp -L "$file" "$root$file"
done
cp -rL /etc/ssl/certs/. "$root/etc/ssl/certs/"

mounted=()
cleanup() {
    for ((i = ${#mounted[@]} - 1; i >= 0; i--)); do umount --lazy "${mounted[i]}" || true; done
}
trap cleanup EXIT
for name in proc sys dev dev/pts dev/shm; do
    mkdir -p "$root/$name"
    mount --bind "/$name" "$root/$name" && mounted+=("$root/$name")
done
rm -rf "$root/engineroom" && mkdir "$root/engineroom"
git ls-files -z | xargs -0 cp --parents -t "$root/engineroom"
chroot "$root" make --no-print-directory -C /engineroom test PYTHON=python3
