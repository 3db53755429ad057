/** What the tests of the UART share. */
import { ManualClock } from '../base/clock.js';
import { silentLogger } from '../base/logger.js';
import { AddressBus } from '../bus/address-bus.js';
import { FakeVcpu } from '../bus/fake-vcpu.js';
import { Serial16550 } from './serial-16550.js';

const BASE = 0x3f8;

/** A UART, the vCPU that drives it, and the two ends of its stream. */
export class SerialRig {
  readonly clock = new ManualClock();
  readonly cpu = new FakeVcpu();
  readonly output: number[] = [];
  outputPieces = 0;
  line = false;
  edges = 0;
  turn: (() => void)[] = [];
  readonly uart: Serial16550;

  constructor(options: { highWaterBytes?: number } = {}) {
    this.uart = new Serial16550({
      name: 'com1',
      basePort: BASE,
      clock: this.clock,
      fast: this.cpu,
      irq: {
        set: (high) => {
          if (high && !this.line) this.edges++;
          this.line = high;
        },
      },
      output: (bytes) => {
        this.outputPieces++;
        this.output.push(...bytes);
      },
      schedule: (callback) => this.turn.push(callback),
      ...options,
    });
    const bus = new AddressBus({ space: 'port', clock: this.clock, logger: silentLogger });
    bus.add({ first: BASE, length: 8 }, this.uart);
    this.cpu.attach(bus);
  }

  get text(): string {
    return String.fromCharCode(...this.output);
  }

  in(register: number): number {
    return this.cpu.inb(BASE + register);
  }

  out(register: number, value: number): void {
    this.cpu.outb(BASE + register, value);
  }

  /** What JavaScript does when the doorbell rings: the posted ring, then the end of the turn. */
  endTurn(): void {
    this.cpu.drain();
    for (const callback of this.turn.splice(0)) callback();
  }

  /** As Linux leaves an open port: FIFOs on with trigger 8, RDI and RLSI, DTR, RTS and OUT2. */
  open(): this {
    this.out(2, 0x81);
    this.out(4, 0x0b);
    this.out(1, 0x05);
    return this;
  }
}
