/**
 * The host end of QEMU's guest agent (qemu-ga), which distributions ship: the fallback where vivarium's own agent is not in the guest. It
 * greets whoever opens the port, knows what that one lets be asked, and runs commands with what the protocol can do. It trusts nothing
 * from the guest.
 */
import { hostClock, type Clock } from '../../base/clock.js';
import { AbortError, VmmError } from '../../base/errors.js';
import { sleep } from '../../base/sleep.js';
import { type AgentProcess, type AgentRunOptions, DEFAULT_GUEST_ENV } from '../client.js';
import { MAX_PAYLOAD_TO_GUEST, startStrings } from '../protocol.js';
import type { RunResult } from '../session.js';
import { type WaitOptions, Waiters } from '../waiters.js';
import { booleanOf, integerOf, memberOf, membersOf, QemuProtocolError, textOf } from './answer.js';
import { OWN_AGENT, QemuCommand } from './command.js';
import { QemuAgentLink } from './link.js';
import type { QemuAgentPort } from './port.js';

/** What QEMU's agent says of itself. */
export interface QemuAgentInfo {
  /** Of QEMU, such as '7.2.22'. */
  readonly version: string;
  /** Names of the commands that it lets be asked. */
  readonly commands: ReadonlySet<string>;
}

/** The first answer is waited for in steps that grow, after each of which the question is asked anew. */
const FIRST_GREETING_MS = 5000;
const LONGEST_GREETING_MS = 60_000;
const MAX_COMMANDS = 1000;
const CLOCK_QUESTIONS = 4;
/** A round trip that is no reason to measure again. */
const SHORT_MS = 20;
const POWER_MODES = { POWEROFF: 'powerdown', REBOOT: 'reboot', HALT: 'halt' } as const;

export class QemuAgentClient {
  readonly #link: QemuAgentLink;
  readonly #clock: Clock;
  readonly #greetings: Waiters<QemuAgentInfo>;
  #info: QemuAgentInfo | undefined;
  #failure: Error | undefined;
  /** How often the port was opened or closed. */
  #openings = 0;

  /** Takes the port's callbacks. To be made before the guest runs. `makeId` is for tests. */
  constructor(port: QemuAgentPort, options: { clock?: Clock; makeId?: () => number } = {}) {
    this.#clock = options.clock ?? hostClock;
    this.#greetings = new Waiters(this.#clock);
    this.#link = new QemuAgentLink(port, options);
    this.#link.onOpen = (isOpen) => this.#opened(isOpen);
    if (port.isOpen) this.#opened(true);
  }

  /** What the agent has said of itself, as long as it has the port open. */
  get info(): QemuAgentInfo | undefined {
    return this.#info;
  }

  /** Waits for an agent's first answer. @throws VmmError ERR_TIMEOUT after `timeoutMs`; ERR_AGENT when the client is closed; AbortError */
  ready(options: WaitOptions = {}): Promise<QemuAgentInfo> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#info !== undefined) return Promise.resolve(this.#info);
    return this.#greetings.wait(options, "no answer of QEMU's agent in the guest");
  }

  /**
   * Starts a command: all of its stdin is read first, its output comes when it has ended, and it has no terminal. The agent must be ready.
   *
   * @throws VmmError ERR_STATE before the agent's answer; ERR_AGENT for a terminal, where it does not let commands be run, and after `close`;
   *   TypeError or RangeError for an argv or env that cannot be passed; AbortError. The result rejects with ERR_AGENT also for more than 8 MiB
   *   of input, more than 16 MiB of output, and a signal that could not be sent.
   */
  start(options: AgentRunOptions): AgentProcess {
    const { argv, env = DEFAULT_GUEST_ENV, cwd = '/', terminal, signal, stdin, stdout, stderr } = options;
    if (this.#failure !== undefined) throw this.#failure;
    if (signal?.aborted) throw new AbortError(signal);
    this.#require('guest-exec');
    this.#require('guest-exec-status');
    if (terminal !== undefined) {
      throw new VmmError('ERR_AGENT', "QEMU's agent gives a command no terminal", {
        cure: `leave -t out; ${OWN_AGENT}`,
      });
    }
    const started = startStrings({ argv, env, cwd });
    const lengthBytes = started.strings.reduce((sum, { length }) => sum + length + 1, 0);
    if (lengthBytes > MAX_PAYLOAD_TO_GUEST) {
      throw new RangeError(`argv and env: ${lengthBytes} bytes, but at most ${MAX_PAYLOAD_TO_GUEST} reach the guest`);
    }
    const streams = { ...(stdin && { stdin }), ...(stdout && { stdout }), ...(stderr && { stderr }) };
    const texts = argv.map(argumentText);
    const command = new QemuCommand(this.#link, this.#clock, {
      argv: texts,
      env: started.env,
      cwd,
      signal,
      ...streams,
    });
    return { result: command.run(), kill: (number) => command.kill(number), resize: () => undefined };
  }

  /** Starts a command and waits for its end. */
  async run(options: AgentRunOptions): Promise<RunResult> {
    return this.start(options).result;
  }

  /**
   * Asks the guest to power off, reboot or halt; resolves when that is sent.
   *
   * @throws VmmError ERR_STATE before the agent's answer; ERR_AGENT; ERR_TIMEOUT
   */
  async requestPower(action: keyof typeof POWER_MODES): Promise<void> {
    this.#require('guest-shutdown');
    await this.#link.request('guest-shutdown', { mode: POWER_MODES[action] }, { hasAnswer: false });
  }

  /** What the guest's wall clock says, in milliseconds since 1970. @throws as requestPower(); AbortError */
  async readClock(signal?: AbortSignal): Promise<number> {
    this.#require('guest-get-time');
    const time = await this.#link.request('guest-get-time', undefined, { signal });
    return integerOf({ time }, 'time', 0, 2 ** 63) / 1e6;
  }

  /**
   * Sets the guest's wall clock to what `wallMs` says (milliseconds since 1970), right to about half of a round trip.
   *
   * @throws as requestPower(); AbortError. ERR_AGENT also when the guest's clock is set and its hardware clock is not.
   */
  async setClock(wallMs: () => number, signal?: AbortSignal): Promise<void> {
    this.#require('guest-set-time');
    let tookMs = Infinity;
    for (let asked = 0; asked < CLOCK_QUESTIONS && tookMs > SHORT_MS; asked++) {
      const askedMs = wallMs();
      await this.#link.request('guest-ping', undefined, { signal });
      tookMs = Math.min(tookMs, wallMs() - askedMs);
    }
    // As a number it is right to a quarter of a microsecond.
    const time = Math.round((wallMs() + tookMs / 2) * 1e6);
    await this.#link.request('guest-set-time', { time }, { signal });
  }

  /** Nothing more is sent or taken: whatever waits rejects with `reason`. Idempotent. */
  close(reason: Error = new VmmError('ERR_AGENT', 'the connection to the guest was closed')): void {
    if (this.#failure !== undefined) return;
    this.#failure = reason;
    this.#link.close(reason);
    this.#greetings.reject(reason);
  }

  #require(command: string): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#info === undefined) throw new VmmError('ERR_STATE', "QEMU's agent in the guest has not answered yet");
    if (this.#info.commands.has(command)) return;
    throw new VmmError('ERR_AGENT', `QEMU's agent in the guest does not allow ${command}`, {
      cure: 'in the guest: take it out of block-rpcs (or BLOCK_RPCS, FILTER_RPC_ARGS) of qemu-ga, and start that again',
    });
  }

  #opened(isOpen: boolean): void {
    this.#info = undefined;
    this.#openings++;
    if (isOpen) void this.#greet(this.#openings);
  }

  /** Until it has answered; who opens the port and is no agent is asked less and less often. */
  async #greet(opening: number): Promise<void> {
    const isOver = (): boolean => this.#failure !== undefined || opening !== this.#openings;
    for (let timeoutMs = FIRST_GREETING_MS; !isOver(); timeoutMs = Math.min(2 * timeoutMs, LONGEST_GREETING_MS)) {
      try {
        const info = infoOf(await this.#link.request('guest-info', undefined, { timeoutMs }));
        if (isOver()) return;
        this.#info = info;
        this.#greetings.resolve(info);
        return;
      } catch (error) {
        const isLate = error instanceof VmmError && error.code === 'ERR_TIMEOUT';
        if (!isLate && !isOver()) await sleep(this.#clock, timeoutMs);
      }
    }
  }
}

/** @throws QemuProtocolError */
function infoOf(answer: unknown): QemuAgentInfo {
  const members = membersOf(answer);
  const list = memberOf(members, 'supported_commands');
  if (!Array.isArray(list) || list.length > MAX_COMMANDS) throw new QemuProtocolError('no list of its commands');
  const commands = (list as unknown[]).map(membersOf).filter((command) => booleanOf(command, 'enabled'));
  return { version: textOf(members, 'version'), commands: new Set(commands.map((command) => textOf(command, 'name'))) };
}

/** Its protocol is JSON. @throws VmmError ERR_AGENT for bytes that are no UTF-8 */
function argumentText(argument: string | Uint8Array): string {
  if (typeof argument === 'string') return argument;
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(argument);
  } catch (cause) {
    throw new VmmError('ERR_AGENT', "QEMU's agent takes no names that are not UTF-8", { cause, cure: OWN_AGENT });
  }
}
