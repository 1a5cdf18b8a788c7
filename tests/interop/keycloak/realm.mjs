// The realm of the Keycloak tests, as `start-dev --import-realm` wants it, on standard output.
//
// usage: node realm.mjs FOLDER
//   FOLDER holds the secrets and the certificates that the clients are registered with.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { bare, realm } from './import.mjs';

const folder = process.argv[2];
const file = (name) => readFileSync(join(folder, name), 'utf8');
const secret = () => file('client.secret').trim();

const signed = (name, algorithm) => ({
  clientId: name,
  clientAuthenticatorType: 'client-jwt',
  attributes: { 'jwt.credential.certificate': bare(file(`${name}.pem`)), 'token.endpoint.auth.signing.alg': algorithm },
});
const clients = [
  { clientId: 'basic', clientAuthenticatorType: 'client-secret', secret: secret() },
  { clientId: 'post', clientAuthenticatorType: 'client-secret', secret: secret() },
  {
    clientId: 'hs256',
    clientAuthenticatorType: 'client-secret-jwt',
    secret: secret(),
    attributes: { 'token.endpoint.auth.signing.alg': 'HS256' },
  },
  {
    clientId: 'x509',
    clientAuthenticatorType: 'client-x509',
    attributes: {
      'x509.subjectdn': 'CN=x509,OU=interop,O=tokend',
      'x509.allow.regex.pattern.comparison': 'false',
      'tls.client.certificate.bound.access.tokens': 'true',
    },
  },
  signed('rs256', 'RS256'),
  signed('ps256', 'PS256'),
  signed('es256', 'ES256'),
  signed('eddsa', 'EdDSA'),
];

// Renewed much earlier: see tokend.toml.
console.log(realm('tokend', 300, clients));
