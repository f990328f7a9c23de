#!/usr/bin/env bash
# Builds a memcached image out of Debian packages, for machines that reach a package mirror but no image registry.
# Usage: integration/image/build.sh [--force]
set -euo pipefail

IMAGE=evcache-test/memcached:1.6
RECIPE=2   # a label of the image. A higher number replaces images that an earlier release of this script built
SUITE=trixie   # memcached 1.6.38: new enough for a client to choose the CAS value (the E flag, 1.6.27)

say() { printf 'build.sh: %s\n' "$*"; }
die() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }

case "${1:-}" in
    "" | --force) ;;
    *) die "unknown argument $1; usage: $0 [--force]" ;;
esac

command -v docker >/dev/null || die "docker is not installed"
docker info >/dev/null 2>&1 || die "no docker engine answers"
label() { docker image inspect --format '{{index .Config.Labels "evcache.testing.recipe"}}' "$IMAGE" 2>/dev/null; }
if [[ ${1:-} != --force && $(label) == "$RECIPE" ]]; then
    say "$IMAGE exists, nothing to do (--force builds it again)"
    exit 0
fi
command -v debootstrap >/dev/null || die "debootstrap is not installed"
[[ $(id -u) == 0 ]] || die "debootstrap needs root"

work=$(mktemp -d "${TMPDIR:-/tmp}/evcache-image.XXXXXX")
trap 'rm -rf "$work"' EXIT
system=$work/system image=$work/image

# --foreign stops before the packages are configured: only their files are wanted, and this takes a third of the time.
say "downloading Debian $SUITE with memcached"
download() {
    rm -rf "$system"
    debootstrap --foreign --variant=minbase --include=memcached "$SUITE" "$system" "$@" >"$work/log" 2>&1
}
# The mirror that apt uses here is the one known to be reachable; it may lack the suite, so debootstrap's own is next.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' 2>/dev/null | head -n 1 || true)
download ${mirror:+"$mirror"} || download || { tail -n 20 "$work/log" >&2; die "debootstrap failed"; }
# Without its second stage, debootstrap has unpacked the base system alone.
for package in "$system"/var/cache/apt/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar --extract --keep-directory-symlink --directory "$system"
done

say "copying the server, a shell, and the libraries they load"
mkdir -p "$image"/{etc,tmp,usr/bin,usr/lib,usr/lib64}
ln -s usr/bin "$image/bin"
ln -s usr/lib "$image/lib"
ln -s usr/lib64 "$image/lib64"
# The official image has both shells, and health checks run them.
cp "$system"/usr/bin/{memcached,bash,dash} "$image/usr/bin/"
ln -s dash "$image/usr/bin/sh"
libraries=$(chroot "$system" ldd /usr/bin/memcached /usr/bin/bash /usr/bin/dash)
if grep -q 'not found' <<<"$libraries"; then
    die "a program lacks a library: $libraries"
fi
for library in $(grep -o '/[^ ]*\.so[^ ]*' <<<"$libraries" | sort -u); do
    install -D "$system/$library" "$image/$library"
done
printf 'root:x:0:0:root:/:/sbin/nologin\nmemcache:x:11211:11211::/:/sbin/nologin\n' >"$image/etc/passwd"
printf 'root:x:0:\nmemcache:x:11211:\n' >"$image/etc/group"
chmod 1777 "$image/tmp"

# The official image takes server options as its arguments, and so does this one.
say "importing $IMAGE"
tar --create --numeric-owner --owner=0 --group=0 --directory "$image" . |
    docker import \
        --change 'ENTRYPOINT ["/usr/bin/memcached", "-u", "memcache"]' \
        --change 'EXPOSE 11211' \
        --change 'LABEL evcache.testing.built-from=debian-packages' \
        --change "LABEL evcache.testing.recipe=$RECIPE" \
        - "$IMAGE" >/dev/null
say "$IMAGE is $(docker run --rm --network none "$IMAGE" -V), $(docker image inspect --format '{{.Size}}' "$IMAGE") bytes"
