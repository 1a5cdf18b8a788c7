// Sets Glewlwyd up and changes its clients, over its Admin API.
//
// usage: node glewlwyd.mjs ORIGIN FOLDER setup
//        node glewlwyd.mjs ORIGIN FOLDER secret CLIENT FILE    another secret, from a file
//        node glewlwyd.mjs ORIGIN FOLDER subject CLIENT DN     another subject of the certificate
//        node glewlwyd.mjs ORIGIN FOLDER disable CLIENT
// FOLDER holds provider.key and provider.pub, which sign tokens, CLIENT.pub and the clients'
// `client.secret`. NODE_EXTRA_CA_CERTS names the authority.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const [origin, folder, action, client, value] = process.argv.slice(2);
const file = (name) => readFileSync(join(folder, name), 'utf8').trimEnd();
let cookie = '';

async function admin(method, path, body) {
  const answer = await fetch(`${origin}/api${path}`, {
    method,
    headers: { 'content-type': 'application/json', cookie },
    body: body && JSON.stringify(body),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
  cookie = answer.headers.get('set-cookie')?.split(';')[0] ?? cookie;
  return text && JSON.parse(text);
}
const registered = (id, more) =>
  admin('POST', '/client/', {
    client_id: id, name: id, confidential: true, enabled: true, scope: ['read'],
    authorization_type: ['client_credentials'], redirect_uri: [], ...more,
  });
async function changed(more) {
  await admin('PUT', `/client/${client}`, { ...(await admin('GET', `/client/${client}`)), ...more });
}
async function setup() {
  await admin('POST', '/scope/', { name: 'read', display_name: 'read', password_required: false, scheme: {} });
  // As delivered, clients cannot have a subject: the property is unknown to the module.
  const clients = await admin('GET', '/mod/client/database');
  clients.parameters['data-format'].tls_client_auth_subject_dn = { multiple: false, read: true, write: true };
  await admin('PUT', '/mod/client/database', clients);
  await admin('PUT', '/mod/client/database/reset');
  await admin('POST', '/mod/plugin/', {
    module: 'oidc', name: 'oidc', display_name: 'oidc',
    parameters: {
      iss: `${origin}/api/oidc`, 'jwt-type': 'ecdsa', 'jwt-key-size': '256',
      key: file('provider.key'), cert: file('provider.pub'),
      'access-token-duration': 300, 'refresh-token-duration': 300, 'code-duration': 60,
      'refresh-token-rolling': false, 'allow-non-oidc': true, 'auth-type-client-enabled': true,
      'auth-type-code-enabled': false, 'auth-type-token-enabled': false, 'auth-type-none-enabled': false,
      'auth-type-password-enabled': false, 'auth-type-device-enabled': false, 'auth-type-refresh-enabled': false,
      'request-parameter-allow': true, 'request-parameter-ietf-strict': false, 'request-maximum-exp': 3600,
      'client-pubkey-parameter': 'pubkey', 'client-jwks-parameter': 'jwks', 'client-jwks_uri-parameter': 'jwks_uri',
      'client-cert-source': 'TLS', 'client-cert-use-endpoint-aliases': true, 'client-cert-self-signed-allowed': true,
      'jwks-show': true,
    },
  });
  const secret = file('client.secret');
  await registered('basic', { token_endpoint_auth_method: ['client_secret_basic'], password: secret, client_secret: secret });
  await registered('revoked', { token_endpoint_auth_method: ['client_secret_basic'], password: secret });
  await registered('post', { token_endpoint_auth_method: ['client_secret_post'], password: secret, client_secret: secret });
  await registered('hs256', { token_endpoint_auth_method: ['client_secret_jwt'], password: secret, client_secret: secret });
  for (const id of ['rs256', 'es256']) {
    await registered(id, { token_endpoint_auth_method: ['private_key_jwt'], pubkey: file(`${id}.pub`) });
  }
  await registered('dn', { token_endpoint_auth_method: ['tls_client_auth'], tls_client_auth_subject_dn: file('dn.subject') });
  await registered('uri', { token_endpoint_auth_method: ['tls_client_auth'], tls_client_auth_san_uri: 'spiffe://interop/uri' });
}

await admin('POST', '/auth/', { username: 'admin', password: 'password' });
switch (action) {
  case 'setup': await setup(); break;
  case 'secret': await changed({ password: file(value), client_secret: file(value) }); break;
  case 'subject': await changed({ tls_client_auth_subject_dn: value }); break;
  case 'disable': await changed({ enabled: false }); break;
  default: throw new Error(`unknown: ${action}`);
}
