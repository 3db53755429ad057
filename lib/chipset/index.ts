/**
 * The chipset room: the fixed devices of this PC, made and put on the port bus at once. The machine room calls this
 * alone; what the guest does that concerns a machine comes back through the listener, after the serial ports' output.
 */
import { RateLimit, type Logger } from '../base/logger.js';
import * as v from 'valibot';
import type { Clock } from '../base/clock.js';
import { restoreParts, savedParts, stateFormat, type Savable, type SavedPart } from '../base/saved-state.js';
import type { AddressBus, BusDevice, FastRegisters, InterruptLine } from '../bus/index.js';
import type { AcpiContributor } from '../boot/acpi.js';
import type { GuestMemory } from '../memory/guest-memory.js';
import { GuestChannel, GuestChannelValue } from '../abi/guest-channel.js';
import { GPE0_LENGTH_BYTES, Gsi, Port, UART_PORT_COUNT } from '../abi/ports.js';
import { GiB } from '../base/units.js';
import { chipsetAcpi } from './acpi-devices.js';
import { ChannelPort, isChannelOpened } from './channel-port.js';
import { GenerationId, generationIdAcpi } from './generation-id.js';
import { I8042, I8042_COMMAND_OFFSET } from './i8042.js';
import { PmTimer } from './pm-timer.js';
import { GPE0_OFFSET, PM1A_PORT_COUNT, PowerManagement } from './power-management.js';
import { newRtcBattery, RtcCmos, type RtcBattery } from './rtc-cmos.js';
import { Serial16550 } from './serial-16550.js';
import { DebugExit, DelayPort, type PanicKind, Pvpanic, ResetControl } from './small-devices.js';
import { SystemControlB, type TimerChannel2 } from './system-control-b.js';

export { newRtcBattery, type RtcBattery };
export type { ChannelHostEnd } from './channel-port.js';
export type { PanicKind } from './small-devices.js';
export type { TimerChannel2 } from './system-control-b.js';

/** What a guest does that ends or changes its machine. Called in the middle of the guest's access. */
export interface ChipsetListener {
  /** Soft off (S5). */
  onPowerOff(): void;
  /** By the reset register or the keyboard controller. */
  onReset(): void;
  onPanic(kind: PanicKind): void;
  onDebugExit(code: number): void;
  /** From COM1; the array is the callee's to keep. */
  onConsoleOutput(bytes: Uint8Array): void;
}

export interface PcChipsetOptions {
  readonly ports: AddressBus;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly irqLine: (gsi: number) => InterruptLine;
  readonly fast: FastRegisters;
  readonly memory: GuestMemory;
  /** Port 0xf4 ends the machine. */
  readonly debugExit: boolean;
  readonly listener: ChipsetListener;
  /** What outlives this power cycle. */
  readonly battery?: RtcBattery;
  /** Given where the PIT does not answer port 0x61 itself (KVM_PIT_SPEAKER_DUMMY). */
  readonly timer2?: TimerChannel2;
}

const chipsetFormat = stateFormat({
  type: 'pc-chipset',
  version: 1,
  schema: v.strictObject({ devices: savedParts }),
});

export class PcChipset implements Savable {
  readonly com1: Serial16550;
  readonly com2: Serial16550;
  readonly rtc: RtcCmos;
  readonly power: PowerManagement;
  /** The host's end of the guest channel. */
  readonly channel: ChannelPort;
  /** Where there are ACPI tables: begin() with them. */
  readonly generation: GenerationId;
  /** What the devices add to the DSDT. */
  readonly acpi: readonly AcpiContributor[] = [chipsetAcpi, generationIdAcpi];

  readonly #devices: (BusDevice & Savable)[] = [];
  readonly #timer: PmTimer;
  #isClosed = false;

  /** @throws RangeError when the bus has a device at one of the chipset's ports already. */
  constructor(options: PcChipsetOptions) {
    const { ports, clock, logger, fast, listener } = options;
    const add = <T extends BusDevice & Savable>(device: T, first: number, length: number): T => {
      ports.add({ first, length }, device);
      this.#devices.push(device);
      return device;
    };
    const irqLine = (gsi: number): InterruptLine => {
      const line = options.irqLine(gsi);
      return {
        set: (high) => {
          if (!this.#isClosed) line.set(high);
        },
      };
    };
    /** The machine hears of an end after everything that was written before it. */
    const settled =
      <A extends unknown[]>(callback: (...args: A) => void) =>
      (...args: A): void => {
        this.settle();
        callback(...args);
      };
    const onReset = settled(() => listener.onReset());

    const serial = (name: string, basePort: number, gsi: number, output: (bytes: Uint8Array) => void): Serial16550 =>
      add(new Serial16550({ name, basePort, irq: irqLine(gsi), clock, fast, output }), basePort, UART_PORT_COUNT);
    this.com1 = serial('com1', Port.COM1, Gsi.COM1, (bytes) => listener.onConsoleOutput(bytes));
    // COM2 carries only the guest channel's rings; what a guest writes there goes nowhere.
    this.com2 = serial('com2', Port.COM2, Gsi.COM2, () => undefined);

    this.rtc = add(
      new RtcCmos({
        irq: irqLine(Gsi.RTC),
        clock,
        fast,
        memory: memorySizes(options.memory),
        ...(options.battery ? { battery: options.battery } : {}),
      }),
      Port.RTC_INDEX,
      2,
    );

    const i8042 = add(new I8042({ keyboardIrq: irqLine(Gsi.KEYBOARD), onReset }), Port.I8042_DATA, 1);
    ports.add({ first: Port.I8042_COMMAND, length: 1 }, i8042, { firstOffset: I8042_COMMAND_OFFSET });

    const timer = add(new PmTimer(clock), Port.PM_TIMER, 4);
    this.#timer = timer;
    this.power = add(
      new PowerManagement({ sci: irqLine(Gsi.SCI), timer, onPowerOff: settled(() => listener.onPowerOff()) }),
      Port.PM1A_EVENT,
      PM1A_PORT_COUNT,
    );
    ports.add({ first: Port.GPE0, length: GPE0_LENGTH_BYTES }, this.power, { firstOffset: GPE0_OFFSET });
    this.generation = new GenerationId(options.memory, (event) => this.power.raiseGpe(event));
    const reset = new ResetControl(onReset);
    this.#devices.push(reset);
    ports.add({ first: Port.RESET_CONTROL, length: 1 }, reset, { wholeAccessOnly: true });

    add(new Pvpanic(settled((kind) => listener.onPanic(kind))), Port.PVPANIC, 1);
    if (options.debugExit) add(new DebugExit(settled((code) => listener.onDebugExit(code))), Port.DEBUG_EXIT, 1);
    for (const [name, port] of [
      ['post-code', Port.POST_CODE],
      ['delay', Port.DELAY_ALTERNATIVE],
    ] as const) {
      add(new DelayPort(name), port, 1);
      fast.ignore(port, true);
    }
    if (options.timer2) add(new SystemControlB(options.timer2), Port.SYSTEM_CONTROL_B, 1);

    this.channel = add(
      new ChannelPort({
        ring: () => void this.com2.receive(Uint8Array.of(GuestChannelValue.RING_BYTE)),
        logger,
        rateLimit: new RateLimit(clock, { burst: 8, refillNs: 1_000_000_000n }),
        memory: options.memory,
      }),
      Port.GUEST_CHANNEL,
      GuestChannel.PORT_COUNT,
    );
  }

  /** Types at COM1. False asks the caller to stop until `onConsoleDrain`; the bytes were taken still. */
  consoleInput(bytes: Uint8Array): boolean {
    return this.com1.receive(bytes);
  }

  /** Called when console input has drained after a `consoleInput` that answered false. */
  set onConsoleDrain(callback: (() => void) | undefined) {
    this.com1.onDrain = callback;
  }

  /** While true the guest waits with its output on COM1. */
  holdConsole(holding: boolean): void {
    if (holding) this.com1.pauseOutput();
    else this.com1.resumeOutput();
  }

  /** Presses the power button. */
  powerButton(): void {
    this.power.powerButton();
  }

  /** Hands on what devices gathered in this turn. */
  settle(): void {
    this.com1.settle();
    this.com2.settle();
  }

  /** Every device back to its power-on state. */
  reset(): void {
    this.settle();
    for (const device of this.#devices) device.reset();
  }

  /** Every device by its name, what they had gathered handed on before. */
  saveState(): SavedPart {
    this.settle();
    return chipsetFormat.save({
      devices: Object.fromEntries(this.#devices.map((device) => [device.name, device.saveState()])),
    });
  }

  /** Drives the interrupt lines as they were: before the interrupt controllers get their own states, see machine/state. */
  restoreState(part: SavedPart): void {
    const { devices } = chipsetFormat.load(part);
    restoreParts('chipset', Object.fromEntries(this.#devices.map((device) => [device.name, device])), devices);
  }

  /** The guest's clocks (date, PM timer) move on by time in which there was no machine. */
  passTime(ns: bigint): void {
    this.rtc.passTime(ns);
    this.#timer.passTime(ns);
  }

  /** Hands on the last output; interrupt lines are not touched from here on, so that timers may still fire. */
  close(): void {
    this.settle();
    this.#isClosed = true;
  }

  inspect(): unknown {
    return Object.fromEntries(this.#devices.map((device) => [device.name, device.inspect()]));
  }
}

/** Whether the guest of a saved chipset had an agent. @throws VmmError ERR_SNAPSHOT, ERR_SNAPSHOT_VERSION */
export function savedGuestHasAgent(part: SavedPart): boolean {
  const { channel } = chipsetFormat.load(part).devices;
  return channel !== undefined && isChannelOpened(channel);
}

function memorySizes(memory: GuestMemory): { belowFourGiBBytes: number; aboveFourGiBBytes: number } {
  let belowFourGiBBytes = 0;
  let aboveFourGiBBytes = 0;
  for (const { gpa, sizeBytes } of memory.ranges) {
    if (gpa < 4 * GiB) belowFourGiBBytes += sizeBytes;
    else aboveFourGiBBytes += sizeBytes;
  }
  return { belowFourGiBBytes, aboveFourGiBBytes };
}
