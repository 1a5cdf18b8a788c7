# Makes keys and certificates with openssl, in the current folder.
# shellcheck shell=bash

# new_key NAME rsa|ec|ed25519: NAME.key
new_key() {
  case $2 in
    rsa) openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$1.key" ;;
    ec) openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key" ;;
    p384) openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out "$1.key" ;;
    p521) openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out "$1.key" ;;
    ed25519) openssl genpkey -algorithm ED25519 -out "$1.key" ;;
  esac
}
# authority NAME: NAME.pem and NAME.key
authority() {
  new_key "$1" ec
  openssl req -x509 -new -key "$1.key" -out "$1.pem" -days 2 -subj "/O=tokend/CN=$1" -addext keyUsage=critical,keyCertSign
}
# certificate NAME KIND SUBJECT [ALTERNATIVE NAME [AUTHORITY]]: NAME.pem and NAME.key; the authority
# is `ca` by default
certificate() {
  local ca=${5:-ca} extensions="basicConstraints=critical,CA:FALSE"
  [[ ! ${4:-} ]] || extensions+=$'\n'"subjectAltName=$4"
  new_key "$1" "$2"
  openssl req -new -key "$1.key" -subj "$3" |
    openssl x509 -req -CA "$ca.pem" -CAkey "$ca.key" -set_serial "0x$(openssl rand -hex 8)" -days 2 -out "$1.pem" \
      -extfile <(echo "$extensions") 2>/dev/null
}
# self_signed NAME KIND SUBJECT: NAME.pem and NAME.key
self_signed() {
  new_key "$1" "$2"
  openssl req -x509 -new -key "$1.key" -out "$1.pem" -days 2 -subj "$3"
}
# thumbprint FILE: x5t#S256 of the first certificate (RFC 8705, section 3.1)
thumbprint() { openssl x509 -in "$1" -outform DER | openssl dgst -sha256 -binary | openssl base64 -A | tr '+/' '-_' | tr -d =; }
