#!/usr/bin/env bash
# Makes a certificate authority, and a certificate for each memcached node that it signs.
# Usage: make-certificates.sh FOLDER NAME...
#
# A NAME is the host name or address by which clients connect to the node. Names may be joined by commas for a node with
# several: cache-0.example,10.0.1.4. The first one is the name of the folder of the node.
#
#   FOLDER/ca.crt           for clients, and for servers that ask clients for a certificate
#   FOLDER/ca.key           keep it apart. Its owner can make certificates that all clients trust
#   FOLDER/NAME/tls.crt     for the node, with FOLDER/NAME/tls.key
#
# A second run keeps the authority, and makes new certificates for the names that it gets.
set -euo pipefail
umask 077

CA_DAYS=3650
NODE_DAYS=365   # renew before: a server reads a new file on `refresh_certs`

die() { printf 'make-certificates.sh: %s\n' "$*" >&2; exit 1; }

(($# >= 2)) || die "usage: $0 FOLDER NAME..."
command -v openssl >/dev/null || die "openssl is not installed"
folder=$1
shift
mkdir -p "$folder"

new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

if [[ ! -e $folder/ca.key ]]; then
    new_key "$folder/ca.key"
    openssl req -x509 -new -key "$folder/ca.key" -sha256 -days "$CA_DAYS" -subj "/CN=evcache memcached CA" \
        -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign" \
        -out "$folder/ca.crt"
fi

# Python compares addresses with IP entries, and names with DNS entries.
alternative_names() {
    local name entries=()
    for name in ${1//,/ }; do
        if [[ $name == *:* || $name =~ ^[0-9.]+$ ]]; then entries+=("IP:$name"); else entries+=("DNS:$name"); fi
    done
    local IFS=,
    printf '%s' "${entries[*]}"
}

for names in "$@"; do
    [[ $names =~ ^[A-Za-z0-9:][A-Za-z0-9.:,_-]*$ ]] || die "invalid name: $names"
    node=$folder/${names%%,*}
    mkdir -p "$node"
    new_key "$node/tls.key"
    openssl req -new -key "$node/tls.key" -subj "/CN=${names%%,*}" -out "$node/request"
    openssl x509 -req -in "$node/request" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -CAcreateserial -sha256 \
        -days "$NODE_DAYS" -out "$node/tls.crt" -extfile <(
            printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n'
            printf 'extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=%s\n' "$(alternative_names "$names")"
        ) 2>/dev/null
    rm "$node/request"
done
chmod 644 "$folder/ca.crt" "$folder"/*/tls.crt
