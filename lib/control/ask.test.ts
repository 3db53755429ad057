/** Connections that are kept between questions: one that ended meanwhile costs no answer, and no call is made twice that changes something. */
import { Agent, createServer, type RequestListener, type Server } from 'node:http';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { askMachine } from './ask.js';
import { ControlClient } from './client.js';
import { claimName, type MachineClaim } from './machine-folders.js';
import { ownPlace } from './testing.js';

let place: ReturnType<typeof ownPlace>;
let claim: MachineClaim;
let server: Server;
let connections = 0;
const asked: string[] = [];
/** Questions, counted from 0, that are cut without an answer. */
const cut = new Set<number>();

beforeEach(async () => {
  place = ownPlace();
  claim = await claimName('box', { host: 'native' }, place);
  const answer: RequestListener = (request, response) => {
    if (cut.has(asked.push(`${request.method} ${request.url}`) - 1)) return void request.socket.destroy();
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ questions: asked.length }));
  };
  server = createServer(answer).on('connection', () => connections++);
  await new Promise<void>((resolve) => server.listen(claim.socketPath, resolve));
});
afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  claim.release();
  place.done();
  connections = 0;
  asked.length = 0;
  cut.clear();
});

describe('a machine that is asked again and again', () => {
  const ask = () => askMachine(claim.record, '/v1/machine', { place, answerMs: 10_000 });

  it('is asked over one connection', async () => {
    for (let questions = 1; questions <= 3; questions++)
      expect(await ask()).toEqual({ kind: 'answered', answer: { questions } });
    expect(connections).toBe(1);
  });

  it('is asked over a new one when the kept one has ended', async () => {
    cut.add(1);
    expect(await ask()).toEqual({ kind: 'answered', answer: { questions: 1 } });
    expect(await ask()).toEqual({ kind: 'answered', answer: { questions: 3 } });
    expect([connections, asked.length]).toEqual([2, 3]);
  });

  it('that cuts also a new connection does not answer', async () => {
    for (const question of [1, 2]) cut.add(question);
    expect(await ask()).toMatchObject({ kind: 'answered' });
    expect(await ask()).toEqual({ kind: 'unresponsive' });
    expect(asked).toHaveLength(3);
  });

  it('is never told twice to do something', async () => {
    const agent = new Agent({ keepAlive: true });
    const client = new ControlClient(claim.record, place, agent);
    cut.add(1);
    await client.request('GET', '/v1/machine');
    await expect(client.request('POST', '/v1/pause')).rejects.toMatchObject({ code: 'ERR_CONTROL' });
    expect(asked).toEqual(['GET /v1/machine', 'POST /v1/pause']);
    agent.destroy();
  });
});
