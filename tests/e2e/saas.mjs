// A stand-in for the token endpoint of Camunda 8 SaaS and for an API behind it, written from what
// its documentation says: audience, client id and secret in a form or in JSON; one request a second
// for everybody with the same address, whether it succeeds or not.
//
// The preset is for the address of SaaS itself. So the stand-in is also a proxy, on which every
// connection ends at the stand-in, whatever address it is for.
//
// usage: node saas.mjs FOLDER
// FOLDER holds saas.pem, saas.key and the clients' secret; FOLDER/saas.json says where it listens.
// GET /counts tells what it was asked.

import { randomBytes } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createServer as createProxy } from 'node:http';
import { createServer } from 'node:https';
import { connect } from 'node:net';
import { join } from 'node:path';

const folder = process.argv[2];
const file = (name) => readFileSync(join(folder, name), 'utf8');
const secret = file('orders.secret').trim();
const tokens = new Set();
const counts = { asked: 0, granted: 0, limited: 0, refused: 0 };
let last = -Infinity;

/** Status and body of a token request. */
function token(type, body) {
  counts.asked += 1;
  const now = performance.now();
  const early = now - last < 950;
  last = now;
  if (early) {
    counts.limited += 1;
    return [429, { error: 'too_many_requests', error_description: 'Global limit has been reached' }];
  }
  const said = type.startsWith('application/json') ? JSON.parse(body) : Object.fromEntries(new URLSearchParams(body));
  const known = /^CLIENT_ID/.test(said.client_id) && said.client_secret === secret;
  if (said.grant_type !== 'client_credentials' || said.audience !== 'zeebe.camunda.io' || !known) {
    counts.refused += 1;
    return known ? [403, { error: 'access_denied', error_description: 'Service not enabled within domain' }]
      : [401, { error: 'access_denied', error_description: 'Unauthorized' }];
  }
  counts.granted += 1;
  const made = randomBytes(24).toString('base64url');
  tokens.add(made);
  return [200, { access_token: made, scope: 'CLUSTER_ID', expires_in: 86400, token_type: 'Bearer' }];
}

const server = createServer({ cert: file('saas.pem'), key: file('saas.key') }, async (request, answer) => {
  let body = '';
  for await (const part of request) body += part;
  let [status, said] = [404, { error: 'not_found' }];
  if (request.url === '/oauth/token') [status, said] = token(request.headers['content-type'] ?? '', body);
  else if (request.url === '/counts') [status, said] = [200, counts];
  else if (request.url === '/CLUSTER_ID/v2/topology') {
    const good = tokens.has((request.headers.authorization ?? '').replace('Bearer ', ''));
    [status, said] = good ? [200, { brokers: [] }] : [401, { status: 401, title: 'UNAUTHORIZED' }];
  }
  answer.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(said));
});

const proxy = createProxy();
proxy.on('connect', (request, near) => {
  const far = connect(server.address().port, '127.0.0.1', () => {
    near.write('HTTP/1.1 200 OK\r\n\r\n');
    near.pipe(far).pipe(near);
  });
  for (const [one, other] of [[near, far], [far, near]]) one.on('error', () => other.destroy());
});

server.listen(0, '127.0.0.1', () => proxy.listen(0, '127.0.0.1', () => {
  const said = { origin: `https://localhost:${server.address().port}`, proxy: `http://127.0.0.1:${proxy.address().port}` };
  writeFileSync(join(folder, 'saas.new'), JSON.stringify(said));
  renameSync(join(folder, 'saas.new'), join(folder, 'saas.json'));
}));
