#!/bin/bash
# P-256 CA and two leaf certificates with SPIFFE URI SANs.
# certs.sh FOLDER: made once.
set -e; mkdir -p "$1"; cd "$1"; [ ! -e server.crt ] || exit 0
openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out ca.key
openssl req -x509 -new -key ca.key -days 365 -subj /O=cluster.local -addext keyUsage=critical,keyCertSign,cRLSign -addext basicConstraints=critical,CA:TRUE -out ca.crt
for w in client server; do
  openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out $w.key
  openssl req -new -key $w.key -subj /O=cluster.local -out $w.csr
  printf 'subjectAltName=URI:spiffe://cluster.local/ns/default/sa/%s,DNS:%s.mesh\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n' $w $w > $w.ext
  openssl x509 -req -in $w.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile $w.ext -out $w.crt 2>/dev/null
done
chmod 644 *
