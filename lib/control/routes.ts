/** What can be asked of a machine over its control socket. Each answer of JSON is one of its schema's. */
import { PassThrough, Readable } from 'node:stream';
import { Type } from '@sinclair/typebox';
import { VmmError } from '../base/errors.js';
import { requireNetwork, requireWritable } from '../base/fence.js';
import { eventStream } from './event-stream.js';
import { readExecRequest, startExec } from './exec.js';
import { GUEST_ROUTES } from './guest-routes.js';
import { readBounded, takeInput, viewStream } from './output-streams.js';
import { route, type Route } from './route.js';
import { saveFor } from './save.js';
import * as schemas from './schemas.js';
import { statsOf } from './stats.js';
import { statsStream } from './stats-stream.js';
import type { ControlTarget, FinalStatus } from './target.js';

const MAX_MEMORY_BYTES = 16 * 1024 * 1024;

export const ROUTES: readonly Route[] = [
  route(
    { method: 'GET', path: '/v1/machine', summary: 'who it is, and its state', answer: schemas.Summary },
    ({ target }) => summaryOf(target),
  ),
  route(
    { method: 'GET', path: '/v1/inspect', summary: 'everything about it, as one tree', answer: schemas.Tree },
    // What the machine says of itself, and what is to be said of its process.
    ({ target: { machine, fence, agents } }) => {
      const agent = agents.describe();
      return { ...(machine.inspect() as object), ...(agent && { agent }), ...(fence && { fence }) };
    },
  ),
  route(
    { method: 'GET', path: '/v1/stats', summary: 'counters; rates are differences of two', answer: schemas.Stats },
    ({ target }) => statsOf(target),
  ),
  route(
    {
      method: 'GET',
      path: '/v1/stats/watch',
      summary: 'the same again and again, a line each; a slow reader gets fewer',
      query: schemas.WatchQuery,
      answer: 'bytes',
    },
    ({ target, query, signal }) => statsStream(target, query, signal),
  ),
  route(
    {
      method: 'GET',
      path: '/v1/events',
      summary: 'what happens to it, a line of JSON each, from its state to its end; a slow reader loses some',
      answer: 'bytes',
    },
    ({ target, signal }) => eventStream(target, signal),
  ),
  route(
    { method: 'GET', path: '/v1/metrics', summary: 'the counters in the text format of Prometheus', answer: 'metrics' },
    async ({ target }) => {
      const { metricsText } = await import('./metrics.js');
      return metricsText([{ record: target.record, stats: statsOf(target) }]);
    },
  ),
  route(
    { method: 'GET', path: '/v1/pit', summary: "the guest's time by the PIT", answer: schemas.Tree },
    ({ target }) => target.machine.pit.status(),
  ),
  route(
    { method: 'POST', path: '/v1/start', summary: 'lets the CPUs run', body: schemas.Nothing, answer: schemas.Summary },
    async ({ target }) => {
      await target.machine.start();
      return summaryOf(target);
    },
  ),
  route(
    {
      method: 'POST',
      path: '/v1/pause',
      summary: 'takes every CPU out of the guest',
      body: schemas.Pause,
      answer: schemas.Summary,
    },
    async ({ target, body: { clock }, signal }) => {
      await target.machine.pause({ ...(clock && { clock }), signal });
      return summaryOf(target);
    },
  ),
  route(
    { method: 'POST', path: '/v1/resume', summary: 'lets it run on', body: schemas.Nothing, answer: schemas.Summary },
    async ({ target }) => {
      await target.machine.resume();
      return summaryOf(target);
    },
  ),
  route(
    {
      method: 'POST',
      path: '/v1/stop',
      summary: "presses the power button, and kills what has not ended by the time's end",
      body: schemas.Stop,
      answer: schemas.End,
    },
    async ({ target, body: { timeoutMs }, signal }) => {
      await stopOrKill(target, timeoutMs, signal);
      return finishedOf(target, signal);
    },
  ),
  route(
    { method: 'POST', path: '/v1/kill', summary: 'ends it at once', body: schemas.Nothing, answer: schemas.End },
    async ({ target, signal }) => {
      await target.machine.kill();
      return finishedOf(target, signal);
    },
  ),
  route(
    {
      method: 'GET',
      path: '/v1/wait',
      summary: 'answers when it has ended, with how',
      query: schemas.WaitQuery,
      answer: schemas.End,
    },
    async ({ target, query: { timeoutMs }, signal }) => {
      if (timeoutMs === undefined) return finishedOf(target, signal);
      const limit = new AbortController();
      const timer = target.clock.setTimer(BigInt(timeoutMs) * 1_000_000n, () => limit.abort());
      try {
        return await finishedOf(target, AbortSignal.any([signal, limit.signal]));
      } catch (error) {
        if (!limit.signal.aborted) throw error;
        throw new VmmError('ERR_TIMEOUT', `${target.record.name} has not ended in ${timeoutMs} ms`);
      } finally {
        timer.cancel();
      }
    },
  ),
  route(
    {
      method: 'GET',
      path: '/v1/logs',
      summary: "what the guest's console or its COMMAND has printed; a slow reader loses the oldest",
      query: schemas.LogsQuery,
      answer: 'bytes',
    },
    ({ target, query: { follow = false, tailBytes = Infinity, tailLines = Infinity } }) =>
      viewStream(target.logs.view({ follow, tailBytes, tailLines })),
  ),
  route(
    {
      method: 'POST',
      path: '/v1/console',
      summary: 'the console both ways: what is sent is typed at it, what it shows comes back, until either end leaves',
      query: schemas.ConsoleQuery,
      body: 'bytes',
      answer: 'bytes',
    },
    ({ target, query: { scrollbackBytes }, stream, signal }) => {
      void takeInput(stream, target.machine.console, signal);
      return viewStream(target.console.view(scrollbackBytes === undefined ? {} : { tailBytes: scrollbackBytes }));
    },
  ),
  route(
    {
      method: 'POST',
      path: '/v1/console/input',
      summary: 'types what is sent at the console; answers when the guest has taken all of it',
      body: 'bytes',
      answer: schemas.Nothing,
    },
    async ({ target, stream, signal }) => {
      await takeInput(stream, target.machine.console, signal);
      return {};
    },
  ),
  route(
    {
      method: 'POST',
      path: '/v1/exec',
      summary: 'a command in the guest: what to run, stdin and signals in, stdout, stderr and its end out',
      body: 'frames',
      answer: 'frames',
    },
    async ({ target, stream, signal }) => {
      const start = await readExecRequest(stream, target.clock);
      const output = new PassThrough();
      const exec = await startExec(start, { agents: target.agents, clock: target.clock, signal }, output);
      void exec.run();
      return output;
    },
  ),
  ...GUEST_ROUTES,
  route(
    {
      method: 'POST',
      path: '/v1/snapshots',
      summary: 'saves the machine into a new folder; it has the state it had afterwards',
      body: schemas.SnapshotRequest,
      answer: schemas.SnapshotDone,
    },
    ({ target, body, signal }) => saveFor(target, body, signal),
  ),
  route(
    {
      method: 'GET',
      path: '/v1/devices/:id',
      summary: 'what a device offers the guest, and who does it',
      params: schemas.DeviceParams,
      answer: schemas.Tree,
    },
    ({ target, params: { id } }) => target.machine.device(id).contract,
  ),
  route(
    {
      method: 'POST',
      path: '/v1/devices/:id/rebind',
      summary: 'gives a device another backend while the guest runs',
      params: schemas.DeviceParams,
      body: schemas.Rebind,
      answer: schemas.Tree,
    },
    async ({ target, params: { id }, body: { backend }, signal }) => {
      if ('path' in backend) requireWritable(backend.path, target.fence);
      else requireNetwork(backend.kind, target.fence);
      const report = await target.machine.device(id).rebind(target.makeBackend(backend, id), { signal });
      target.events.tell({ type: 'rebound', device: id, held: report.held });
      return report;
    },
  ),
  route(
    {
      method: 'GET',
      path: '/v1/memory',
      summary: 'bytes of guest memory at a guest physical address',
      query: Type.Object(
        { gpa: Type.Integer({ minimum: 0 }), lengthBytes: Type.Integer({ minimum: 1, maximum: MAX_MEMORY_BYTES }) },
        { additionalProperties: false },
      ),
      answer: 'bytes',
    },
    ({ target, query: { gpa, lengthBytes } }) =>
      Readable.from([Buffer.from(target.machine.memory.read(gpa, lengthBytes))]),
  ),
  route(
    {
      method: 'PUT',
      path: '/v1/memory',
      summary: 'writes the bytes that are sent into guest memory',
      query: Type.Object({ gpa: Type.Integer({ minimum: 0 }) }, { additionalProperties: false }),
      body: 'bytes',
      readsWhole: true,
      answer: schemas.Nothing,
    },
    async ({ target, query: { gpa }, stream }) => {
      target.machine.memory.write(gpa, await readBounded(stream, MAX_MEMORY_BYTES));
      return {};
    },
  ),
];

function summaryOf({ machine, record, agents, ending }: ControlTarget): schemas.Summary {
  const { name, id, pid, host, since } = record;
  const agentKind = agents.kind;
  const who = { agent: agentKind !== undefined, ...(agentKind && { agentKind }) };
  const summary = { name, id, state: machine.state, pid, host, since, ...who };
  if (machine.state !== 'stopped' && machine.state !== 'failed') return summary;
  return { ...summary, ...(ending.status && { end: endOf(ending.status) }) };
}

async function finishedOf({ ending }: ControlTarget, signal: AbortSignal): Promise<schemas.End> {
  return endOf(await ending.until(signal));
}

function endOf({ reason, code, detail, status, outcome }: FinalStatus): schemas.End {
  return {
    reason,
    ...(code !== undefined && { code }),
    ...(detail !== undefined && { detail }),
    ...(status !== undefined && { status }),
    ...(outcome !== undefined && { outcome }),
  };
}

async function stopOrKill(
  { machine, agents }: ControlTarget,
  timeoutMs: number | undefined,
  signal: AbortSignal,
): Promise<void> {
  // A guest that has QEMU's agent need not listen to its power button. Both may be heard: the second is nothing new then.
  if (agents.kind === 'qemu') void agents.qemu?.requestPower('POWEROFF').catch(() => undefined);
  try {
    await machine.stop({ ...(timeoutMs !== undefined && { timeoutMs }), signal });
  } catch (error) {
    if (!(error instanceof VmmError) || error.code !== 'ERR_TIMEOUT') throw error;
    await machine.kill();
  }
}
