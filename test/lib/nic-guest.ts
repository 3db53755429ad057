/** What tests of machines with test/guests/virtio-net.S share: its options, frames to it and from it, and networks of a test's own. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll } from 'vitest';
import type { Machine } from '../../lib/machine/index.js';
import type { NetSource } from '../../lib/vsp/index.js';
import { FakeNetwork } from '../../lib/vsp/net/testing.js';

export const RX = 0x60000;
export const TX = 0x68000;
export const TAKEN = 0x70000;
/** Of a packet's header in front of the frame. */
export const HEADER = 12;
export const OWN = '02:00:00:00:00:01';
export const FRAME = Uint8Array.from(
  { length: 60 },
  (_, at) => [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5][at] ?? at,
);
/** What the guest makes of it. */
export const BACK = Uint8Array.from([...FRAME.slice(6, 12), ...FRAME.slice(0, 6), ...FRAME.slice(12)]);
export const typeOf = (frame: Uint8Array): number => (frame[12]! << 8) | frame[13]!;

interface GuestKind {
  readonly sends?: boolean;
  readonly resets?: boolean;
  readonly mac?: string;
}

export const nicGuest = (backend: NetSource, { sends = false, resets = false, mac = OWN }: GuestKind = {}) => ({
  mode: 'long64' as const,
  defines: {
    ...{ RX, TX, TAKEN, RX_BYTES: 2048, FRAME_BYTES: FRAME.length },
    ...{ SENDS: Number(sends), RESETS: Number(resets) },
  },
  nics: [{ id: 'net0', backend, mac }],
  ...(resets ? { onReset: 'restart' as const } : {}),
});

/** A network of the test's. */
export class TestNetwork implements NetSource {
  readonly class = 'network' as const;
  readonly opened: FakeNetwork[] = [];
  readonly #mtuBytes: number | undefined;
  constructor(mtuBytes?: number) {
    this.#mtuBytes = mtuBytes;
  }
  readonly describe = () => ({ kind: 'test' });
  readonly open = () => {
    this.opened.push(new FakeNetwork(this.#mtuBytes === undefined ? {} : { mtuBytes: this.#mtuBytes }));
    return Promise.resolve(this.opened.at(-1)!);
  };
  get last(): FakeNetwork {
    return this.opened.at(-1)!;
  }
}

/** What the guest has sent back. */
export const echoesOf = (network: TestNetwork): Uint8Array[] =>
  network.last.sent.map(({ bytes }) => bytes).filter((bytes) => typeOf(bytes) === 0x88b5);

interface Proxy {
  readonly counts: Record<string, number>;
  readonly virtio?: unknown;
}

/** The proxy of the nic, alone on the bus beside the bridge. */
export const nicProxy = (vm: Machine): Proxy =>
  (vm.inspect() as unknown as { pci: { functions: { device: Proxy }[] } }).pci.functions[1]!.device;

export const isDriven = (vm: Machine): boolean => nicProxy(vm).counts['activations']! > 0;

/** Switches and addresses are this file's own: they are a user's, by the runtime folder. */
export function ownRuntimeFolder(): void {
  let runtime: string;
  let before: string | undefined;
  beforeAll(() => {
    before = process.env['XDG_RUNTIME_DIR'];
    runtime = mkdtempSync(path.join(tmpdir(), 'vivarium-nics-'));
    process.env['XDG_RUNTIME_DIR'] = runtime;
  });
  afterAll(() => {
    if (before === undefined) delete process.env['XDG_RUNTIME_DIR'];
    else process.env['XDG_RUNTIME_DIR'] = before;
    rmSync(runtime, { recursive: true });
  });
}
