/** A named machine of the test's that the commands reach over a real socket: what they print and exit with. */
import type { FakeProcess } from '../agent/fake-agent.js';
import { ManualClock } from '../base/clock.js';
import { claimName, connect, listenFor, MachineControl } from '../control/index.js';
import { FakeControlled, ownPlace } from '../control/testing.js';
import type { ControlWorld } from './control-world.js';
import { FakeIo, type FakeIoOptions } from './fake-world.js';
import { runMain, type Worlds } from './main-command.js';

export interface ControlledBox {
  readonly machine: FakeControlled;
  readonly control: MachineControl;
  /** Starts a command on streams of the test's. */
  start(argv: readonly string[], options?: FakeIoOptions): { readonly io: FakeIo; readonly status: Promise<number> };
  /** Runs a command with nothing on stdin. */
  main(...argv: string[]): Promise<{ status: number; out: string; err: string }>;
  /** Its process ends. Idempotent. */
  close(): Promise<void>;
}

/** A machine named box; `onProcess` is what its guest does with commands. */
export async function controlledBox(onProcess: (process: FakeProcess) => void): Promise<ControlledBox> {
  const place = ownPlace();
  const claim = await claimName('box', { host: 'native' }, place);
  const machine = new FakeControlled('box', onProcess);
  const control = new MachineControl(machine, { record: claim.record });
  const socket = await listenFor(claim, (stream) => control.accept(stream));
  const none = (): Promise<never> => Promise.reject(new Error('not asked for'));
  const world: ControlWorld = {
    clock: new ManualClock(),
    connect: (name, signal) => connect(name, { place, signal }),
    list: none,
    scrape: none,
    names: () => ['box'],
    listEnded: () => [],
    ended: () => undefined,
    endedOutput: () => new Uint8Array(0),
  };
  const worlds: Worlds = {
    run: none,
    doctor: none,
    snapshots: none,
    dashboard: none,
    control: () => Promise.resolve(world),
  };
  const start: ControlledBox['start'] = (argv, options = {}) => {
    const io = new FakeIo(options);
    return { io, status: runMain(argv, io, worlds) };
  };
  const close = async (): Promise<void> => {
    const closed = socket.close();
    await control.close({ reason: 'killed' });
    await closed;
    claim.release();
    place.done();
  };
  let closing: Promise<void> | undefined;
  return {
    machine,
    control,
    start,
    main: async (...argv) => {
      const { io, status } = start(argv);
      io.stdin.end();
      return { status: await status, out: io.collected.text, err: io.stderr.text };
    },
    close: () => (closing ??= close()),
  };
}
