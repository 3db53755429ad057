/** Two agents at once: which one is taken, and what becomes of the other. */
import { describe, expect, it } from 'vitest';
import { ManualClock } from '../base/clock.js';
import { FakeAgent, FakeChannel } from './fake-agent.js';
import { GuestAgents } from './guest-agents.js';
import { FrameType } from './protocol.js';
import { FakeQemuGa } from './qemu/fake-qemu-ga.js';

function rig(withQemu = true) {
  const channel = new FakeChannel();
  const clock = new ManualClock({ wallMs: 1_700_000_000_000 });
  const qemuAgentPort = withQemu ? new FakeQemuGa() : undefined;
  const agents = new GuestAgents({ channel, qemuAgentPort }, { clock });
  return { agents, own: new FakeAgent(channel), ga: qemuAgentPort!, clock };
}

describe('the agent of a guest', () => {
  it("is the first that answers, and from then on vivarium's own, where that does", async () => {
    const { agents, own, ga } = rig();
    expect(agents.describe()).toBeUndefined();
    const ready = agents.ready({ timeoutMs: 1000 });
    ga.open();
    await expect(ready).resolves.toBe('qemu');
    expect(agents.describe()).toEqual({ kind: 'qemu', version: '7.2.0' });
    own.boot();
    await expect(agents.ready()).resolves.toBe('vivarium');
    const process = agents.start({ argv: ['true'] });
    own.processes.get(1)?.exit(0);
    await expect(process.result).resolves.toMatchObject({ status: { kind: 'exited', code: 0 } });
    expect(ga.argvs).toEqual([]);
  });

  it("is none of them by the time, with what vivarium's own has to say", async () => {
    const { agents, clock } = rig();
    const late = expect(agents.ready({ timeoutMs: 50 })).rejects.toMatchObject({
      code: 'ERR_TIMEOUT',
      message: 'no agent in the guest after 50 ms',
    });
    clock.advance(50_000_000n);
    await late;
    const aborting = new AbortController();
    const aborted = expect(agents.ready({ signal: aborting.signal })).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    aborting.abort();
    await aborted;
    const gone = expect(agents.ready()).rejects.toThrow('gone');
    agents.close(new Error('gone'));
    await gone;
  });

  it("is QEMU's, when vivarium's own breaks its protocol", async () => {
    const { agents, own, ga } = rig();
    const ready = agents.ready();
    own.boot({ version: 99 });
    ga.open();
    await expect(ready).resolves.toBe('qemu');
  });

  it("is vivarium's alone where the machine has no port for the other", async () => {
    const { agents, own } = rig(false);
    expect(agents.qemu).toBeUndefined();
    const ready = agents.ready();
    own.boot();
    await expect(ready).resolves.toBe('vivarium');
  });
});

describe('a clone', () => {
  it("has its clock set by QEMU's agent, and when vivarium's own comes later, by that too", async () => {
    const { agents, own, ga, clock } = rig();
    const told = agents.readyAsClone({ timeoutMs: 1000, wallMs: () => clock.wallMs() });
    ga.open();
    await told;
    expect(ga.requests.at(-1)).toEqual({ execute: 'guest-set-time', arguments: { time: clock.wallMs() * 1e6 } });
    expect(own.controls).toEqual([]);
    own.boot();
    const types = (): number[] => own.controls.map(({ type }) => type);
    await expect.poll(types).toEqual(expect.arrayContaining([FrameType.RESEED, FrameType.SET_CLOCK]));
  });

  it('that stays in its own time is only asked whether it is there', async () => {
    const { agents, ga } = rig();
    const told = agents.readyAsClone();
    ga.open();
    await told;
    expect(ga.requests.map(({ execute }) => execute)).toEqual(['guest-sync-delimited', 'guest-info']);
  });
});
