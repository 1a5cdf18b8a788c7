// A stand-in for the Elasticsearch in which Camunda 8.6 keeps its users: one user, `demo`, whose password is `s3cr3t-of-demo`.
//
// usage: node users.mjs PORT

import { createServer } from 'node:http';

// By crypt(3) with "$2b$10$abcdefghijklmnopqrstuu".
const password = '{bcrypt}$2b$10$abcdefghijklmnopqrstuumQUq7sJ4TP5lY/UiJhhWfm5UIjnjIs6';
const found = (hits) => ({
  took: 1,
  timed_out: false,
  _shards: { total: 1, successful: 1, skipped: 0, failed: 0 },
  hits: { total: { value: hits.length, relation: 'eq' }, max_score: 1, hits },
});

createServer(async (request, answer) => {
  let body = '';
  for await (const part of request) body += part;
  answer.setHeader('X-Elastic-Product', 'Elasticsearch');
  answer.setHeader('Content-Type', 'application/vnd.elasticsearch+json;compatible-with=8');
  if (request.method === 'POST' && request.url.startsWith('/users/_search')) {
    const user = { userKey: 1, key: 1, username: 'demo', name: 'Demo', email: 'demo@example', password };
    const hits = body.includes('"demo"') ? [{ _index: 'users', _id: '1', _score: 1, sort: [1], _source: user }] : [];
    answer.end(JSON.stringify(found(hits)));
  } else {
    answer.end(JSON.stringify({ version: { number: '8.15.0' }, tagline: 'You Know, for Search', cluster_name: 'stand-in' }));
  }
}).listen(Number(process.argv[2]), '127.0.0.1');
