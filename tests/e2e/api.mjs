// The API of the end-to-end run: the paths of Camunda 8's Orchestration Cluster REST API that the
// workers of examples/ use, with the three ways in which that API is authenticated. Written from
// its documentation; no code of Camunda is in it.
//
// usage: node api.mjs PORT STATE none node api.mjs PORT STATE basic USER PASSWORD_FILE node api.mjs
// PORT STATE oidc ISSUER AUDIENCE STATE keeps processes and jobs over a restart. With `oidc`, a
// signing key that it has seen stays good until it is restarted.

import { timingSafeEqual } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { decodeProtectedHeader, importJWK, jwtVerify } from 'jose';

const [port, file, mode, first, second] = process.argv.slice(2);
const state = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : { next: 2_251_799_813_685_249, processes: [], jobs: {} };
const waiting = new Set(); // activations that wait for a job

// --- Who may ----------------------------------------------------------------------------------------------------------

const keys = {};
async function keyOf(token) {
  const { kid } = decodeProtectedHeader(token);
  if (!keys[kid]) {
    const metadata = await (await fetch(`${first}/.well-known/openid-configuration`)).json();
    for (const key of (await (await fetch(metadata.jwks_uri)).json()).keys) {
      if (key.use !== 'enc') keys[key.kid] = await importJWK(key, key.alg);
    }
  }
  if (!keys[kid]) throw new Error('the issuer has no such key');
  return keys[kid];
}
const same = (a, b) => a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b));
const ways = {
  none: async () => true,
  basic: async (header) => same(header, `Basic ${btoa(`${first}:${readFileSync(second, 'utf8').trim()}`)}`),
  oidc: async (header) => {
    const [, token] = /^Bearer (\S+)$/.exec(header) ?? [];
    if (!token) return false;
    try {
      await jwtVerify(token, await keyOf(token), { issuer: first, audience: second });
      return true;
    } catch {
      return false;
    }
  },
};
if (!ways[mode]) throw new Error(`no such mode: ${mode}`);

// --- What can be asked ------------------------------------------------------------------------------------------------

const key = () => state.next++;
const brokers = [{ nodeId: 0, host: '127.0.0.1', port: 26501, version: '0', partitions: [{ partitionId: 1, role: 'leader', health: 'healthy' }] }];
/** Jobs of a type that nobody works on now; they are the asker's for a while. */
function activate({ type, worker, maxJobsToActivate, timeout }) {
  const found = Object.values(state.jobs).filter((job) => job.type === type && job.deadline <= Date.now()).slice(0, maxJobsToActivate);
  for (const job of found) Object.assign(job, { worker, deadline: Date.now() + timeout });
  return found;
}
/** The jobs there are, or the first that comes within the time that the request allows. */
function activation(wanted) {
  const found = activate(wanted);
  if (found.length || !wanted.requestTimeout) return found;
  return new Promise((done) => {
    const finish = (jobs) => {
      clearTimeout(timer);
      clearInterval(again);
      waiting.delete(look);
      done(jobs);
    };
    const look = () => {
      const jobs = activate(wanted);
      if (jobs.length) finish(jobs);
    };
    const timer = setTimeout(() => finish([]), wanted.requestTimeout);
    const again = setInterval(look, 250); // jobs whose worker let them time out
    waiting.add(look);
  });
}
async function answer(method, path, body) {
  const [, job] = /^\/v2\/jobs\/(\d+)\/completion$/.exec(path) ?? [];
  if (method === 'GET' && path === '/v2/topology') return [200, { brokers, clusterSize: 1, partitionsCount: 1, replicationFactor: 1, gatewayVersion: '0' }];
  if (method !== 'POST') return [404, { status: 404, title: 'NOT_FOUND' }];
  if (path === '/v2/deployments') {
    const [, process] = /<[a-z]*:?process[^>]* id="([^"]+)"/.exec(body) ?? [];
    if (!process) return [400, { status: 400, title: 'INVALID_ARGUMENT', detail: 'no process in it' }];
    if (!state.processes.includes(process)) state.processes.push(process);
    return [200, { deploymentKey: key(), deployments: [{ processDefinition: { processDefinitionId: process } }], tenantId: '<default>' }];
  }
  if (job) {
    const known = state.jobs[job];
    delete state.jobs[job];
    return known ? [204] : [404, { status: 404, title: 'NOT_FOUND' }];
  }
  const wanted = JSON.parse(body);
  if (path === '/v2/jobs/activation') return [200, { jobs: await activation(wanted) }];
  if (path === '/v2/process-instances') {
    const type = wanted.processDefinitionId;
    if (!state.processes.includes(type)) return [404, { status: 404, title: 'NOT_FOUND' }];
    const [instance, made] = [key(), key()];
    state.jobs[made] = { key: made, type, processInstanceKey: instance, deadline: 0 };
    for (const look of [...waiting]) look();
    return [200, { processDefinitionId: type, processInstanceKey: instance, tenantId: '<default>' }];
  }
  return [404, { status: 404, title: 'NOT_FOUND' }];
}

const server = createServer(async (request, response) => {
  let body = '';
  for await (const part of request) body += part;
  const say = (status, said, headers) => response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(said && JSON.stringify(said));
  try {
    if (!await ways[mode](request.headers.authorization ?? '')) {
      say(401, { status: 401, title: 'UNAUTHORIZED' }, { 'www-authenticate': mode === 'basic' ? 'Basic' : 'Bearer' });
      return;
    }
    say(...await answer(request.method, request.url, body));
  } catch (error) {
    say(error instanceof SyntaxError ? 400 : 500, { title: error.name });
  }
});
process.on('SIGTERM', () => {
  writeFileSync(file, JSON.stringify(state));
  process.exit(0);
});
server.listen(Number(port), '127.0.0.1');
