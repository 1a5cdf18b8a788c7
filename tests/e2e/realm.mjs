// The realm of the end-to-end run, as `start-dev --import-realm` wants it, on standard output.
//
// usage: node realm.mjs FOLDER
//   FOLDER holds the secrets and the certificates that the clients are registered with.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { bare, realm } from '../interop/keycloak/import.mjs';

const file = (name) => readFileSync(join(process.argv[2], name), 'utf8');

/** What makes a token good for Camunda, or for something else. */
const audience = (name) => ({
  name: `audience-${name}`,
  protocol: 'openid-connect',
  protocolMapper: 'oidc-audience-mapper',
  config: { 'included.custom.audience': name, 'access.token.claim': 'true', 'id.token.claim': 'false' },
});
const secret = (clientId, api = 'zeebe-api') => ({
  clientId, clientAuthenticatorType: 'client-secret', secret: file('orders.secret').trim(), protocolMappers: [audience(api)],
});
const x509 = (clientId) => ({
  clientId,
  clientAuthenticatorType: 'client-x509',
  attributes: {
    'x509.subjectdn': 'CN=orders,O=tokend',
    'x509.allow.regex.pattern.comparison': 'false',
    'tls.client.certificate.bound.access.tokens': 'true',
  },
});
const jwt = (clientId) => ({
  clientId,
  clientAuthenticatorType: 'client-jwt',
  attributes: { 'jwt.credential.certificate': bare(file('assertion.pem')), 'token.endpoint.auth.signing.alg': 'ES256' },
});
const clients = [
  secret('orders'), x509('orders-x509'), jwt('orders-jwt'),
  secret('elsewhere', 'another-api'),
  secret('night-secret'), x509('night-x509'), jwt('night-jwt'),
];

console.log(realm('camunda-platform', 60, clients.map((client) => ({ protocolMappers: [audience('zeebe-api')], ...client }))));
