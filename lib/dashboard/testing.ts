/**
 * A dashboard to be looked at by tests: on a real port and with real WebSockets, over fake machines that are served under names of the
 * test's own.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request, type IncomingHttpHeaders } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { WebSocket } from 'ws';
import { ManualClock } from '../base/clock.js';
import {
  claimName,
  connect,
  listenFor,
  listMachines,
  MachineControl,
  type ControlSocket,
  type MachineClaim,
} from '../control/index.js';
import { FakeControlled, ownPlace } from '../control/testing.js';
import { snapshots } from '../snapshot/index.js';
import type { PageMessage, ServerMessage } from './page/protocol.js';
import { startDashboard, type Dashboard } from './server.js';
import type { DashboardWorld } from './world.js';

/** A fake machine that others reach by its name. */
export class ServedFake {
  readonly machine: FakeControlled;
  readonly clock: ManualClock;
  readonly #claim: MachineClaim;
  readonly #socket: ControlSocket;
  readonly #control: MachineControl;
  #ending: Promise<void> | undefined;

  private constructor(
    machine: FakeControlled,
    clock: ManualClock,
    claim: MachineClaim,
    parts: [ControlSocket, MachineControl],
  ) {
    this.machine = machine;
    this.clock = clock;
    this.#claim = claim;
    [this.#socket, this.#control] = parts;
  }

  static async serve(name: string, place: ReturnType<typeof ownPlace>): Promise<ServedFake> {
    const claim = await claimName(name, { host: 'native' }, place);
    const machine = new FakeControlled(name);
    const clock = new ManualClock();
    const control = new MachineControl(machine, { record: claim.record, clock });
    const socket = await listenFor(claim, (stream) => control.accept(stream));
    await control.serve();
    return new ServedFake(machine, clock, claim, [socket, control]);
  }

  /** The guest ends, and its process goes. Idempotent. */
  end(): Promise<void> {
    this.#ending ??= (async () => {
      this.machine.end({ reason: 'poweroff' });
      const closed = this.#socket.close();
      const closing = this.#control.close({ reason: 'poweroff', status: 0 });
      // What is under way has a time to go out, by the machine's clock.
      for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
      this.clock.advance(60_000_000_000n);
      await Promise.all([closing, closed]);
      this.#claim.release({ status: 0, reason: 'poweroff' });
    })();
    return this.#ending;
  }
}

/** A page's end of the WebSocket, with all that has come. */
export class TestPage {
  readonly messages: ServerMessage[] = [];
  readonly frames: Buffer[] = [];
  readonly socket: WebSocket;
  readonly closed: Promise<number>;

  constructor(socket: WebSocket) {
    this.socket = socket;
    this.closed = new Promise((resolve) => socket.once('close', resolve));
    socket.on('message', (data, isBinary) => {
      if (isBinary) this.frames.push(data as Buffer);
      else this.messages.push(JSON.parse((data as Buffer).toString()) as ServerMessage);
    });
  }

  send(message: PageMessage): void {
    this.socket.send(JSON.stringify(message));
  }

  /** What a console has shown, its number taken off. */
  get shown(): string {
    return Buffer.concat(this.frames.map((frame) => frame.subarray(4))).toString();
  }

  all<T extends ServerMessage['type']>(type: T): Extract<ServerMessage, { type: T }>[] {
    return this.messages.filter((message): message is Extract<ServerMessage, { type: T }> => message.type === type);
  }
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

export class TestDashboard {
  readonly place = ownPlace();
  readonly clock = new ManualClock();
  readonly folder = mkdtempSync(path.join(tmpdir(), 'vivarium-dashboard-'));
  readonly snapshots = path.join(this.folder, 'snapshots');
  readonly restores: { dir: string; name: string }[] = [];
  onConnect: DashboardWorld['connect'] = (name, signal) => connect(name, { place: this.place, signal });
  onRestore: DashboardWorld['restore'] = () => Promise.resolve();
  /** What the machines' counters are; undefined where nobody can ask. */
  metrics: string | undefined = 'vivarium_viewers 1\n';
  readonly world: DashboardWorld = {
    metrics: () =>
      this.metrics === undefined ? Promise.reject(new Error('no folder')) : Promise.resolve(this.metrics),
    clock: this.clock,
    list: () => listMachines({ place: this.place }),
    connect: (name, signal) => this.onConnect(name, signal),
    store: snapshots,
    restore: (dir, name, options) => {
      this.restores.push({ dir, name });
      return this.onRestore(dir, name, options);
    },
  };
  readonly #machines: ServedFake[] = [];
  readonly #pages: TestPage[] = [];
  dashboard!: Dashboard;

  constructor() {
    mkdirSync(this.snapshots);
    const page = this.#pageFolder();
    mkdirSync(page);
    writeFileSync(path.join(page, 'index.html'), '<!doctype html>page');
    writeFileSync(path.join(page, 'main.js'), '// page');
    writeFileSync(path.join(this.folder, 'secret'), 'secret');
  }

  /** `shelf: false`: without a folder of snapshots. */
  async start({ port, shelf = true }: { readonly port?: number; readonly shelf?: boolean } = {}): Promise<this> {
    this.dashboard = await startDashboard({
      world: this.world,
      port,
      snapshots: shelf ? this.snapshots : undefined,
      pageFolder: this.#pageFolder(),
    });
    return this;
  }

  async serve(name: string): Promise<ServedFake> {
    const served = await ServedFake.serve(name, this.place);
    this.#machines.push(served);
    return served;
  }

  get port(): number {
    return Number(new URL(this.dashboard.url).port);
  }

  get token(): string {
    return new URL(this.dashboard.url).searchParams.get('token') ?? '';
  }

  /** The query that opens it. */
  get pass(): string {
    return `?token=${this.token}`;
  }

  /** The path goes out as it is written. */
  get(at: string, headers: Record<string, string> = {}, method = 'GET'): Promise<HttpAnswer> {
    return new Promise((resolve, reject) => {
      const asked = request(
        { host: '127.0.0.1', port: this.port, path: at, headers, method, agent: false },
        (answer) => {
          let text = '';
          answer.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
          answer.on('end', () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, text }));
        },
      );
      asked.on('error', reject);
      asked.end();
    });
  }

  /** Opens the page's WebSocket. @throws what the server refuses it with */
  async open(headers: Record<string, string> = {}, at = `/socket${this.pass}`): Promise<TestPage> {
    const socket = new WebSocket(`ws://127.0.0.1:${this.port}${at}`, { headers });
    const page = new TestPage(socket);
    await new Promise<void>((resolve, reject) => {
      socket.once('open', resolve);
      socket.once('error', reject);
    });
    this.#pages.push(page);
    return page;
  }

  async done(): Promise<void> {
    for (const { socket } of this.#pages) socket.terminate();
    await this.dashboard?.close();
    for (const served of this.#machines) await served.end();
    this.place.done();
    rmSync(this.folder, { recursive: true, force: true });
  }

  #pageFolder(): string {
    return path.join(this.folder, 'page');
  }
}
