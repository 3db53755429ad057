/**
 * The agents that a guest may have: vivarium's own, over the guest channel, and as a fallback QEMU's, over a port of the virtio console
 * where the machine has one. Whoever wants a command run or the clock set asks this one; vivarium's is taken as soon as it has answered.
 */
import type { ChannelHostEnd } from '../chipset/channel-port.js';
import type { Clock } from '../base/clock.js';
import { AgentClient, type AgentProcess, type AgentRunOptions } from './client.js';
import { QemuAgentClient } from './qemu/client.js';
import type { QemuAgentPort } from './qemu/port.js';
import type { RunResult } from './session.js';
import type { WaitOptions } from './waiters.js';

export type AgentKind = 'vivarium' | 'qemu';

/** What an agent has said of itself. */
export interface AgentDescription {
  readonly kind: AgentKind;
  /** As the agent calls itself or its version. */
  readonly version: string;
}

/** The ends of a machine at which agents are found. */
export interface AgentEnds {
  readonly channel: ChannelHostEnd;
  readonly qemuAgentPort?: QemuAgentPort | undefined;
}

export class GuestAgents {
  readonly own: AgentClient;
  readonly qemu: QemuAgentClient | undefined;

  /** Takes the callbacks of both ends. To be made before the guest runs. `onActivity` is told of what comes of vivarium's own. */
  constructor({ channel, qemuAgentPort }: AgentEnds, options: { clock?: Clock; onActivity?: () => void } = {}) {
    const { clock } = options;
    this.own = new AgentClient(channel, options);
    this.qemu = qemuAgentPort && new QemuAgentClient(qemuAgentPort, clock === undefined ? {} : { clock });
  }

  /** Which one commands are given to; undefined before any has answered. */
  get kind(): AgentKind | undefined {
    return this.describe()?.kind;
  }

  /** Of that one. */
  describe(): AgentDescription | undefined {
    if (this.own.guest !== undefined) return { kind: 'vivarium', version: this.own.guest.agent };
    const info = this.qemu?.info;
    return info && { kind: 'qemu', version: info.version };
  }

  /**
   * Waits until one of them has answered.
   *
   * @throws VmmError ERR_TIMEOUT after `timeoutMs`; ERR_AGENT when the guest has gone, or vivarium's own broke its protocol and there is no other;
   *   AbortError
   */
  async ready(options: WaitOptions = {}): Promise<AgentKind> {
    const { kind } = this;
    if (kind !== undefined) {
      // One that has gone since says so.
      await (kind === 'qemu' ? this.qemu!.ready(options) : this.own.ready(options));
    } else {
      const over = new AbortController();
      const signal = options.signal === undefined ? over.signal : AbortSignal.any([options.signal, over.signal]);
      const waiting = { ...options, signal };
      // The other one is not waited for any more.
      await firstOf([this.own.ready(waiting), this.qemu?.ready(waiting)]).finally(() => over.abort());
    }
    return this.kind ?? 'vivarium';
  }

  /** Starts a command. One of them must be ready. @throws as start() of that one: QEMU's has no terminals */
  start(options: AgentRunOptions): AgentProcess {
    return this.kind === 'qemu' ? this.qemu!.start(options) : this.own.start(options);
  }

  /** Starts a command and waits for its end. @throws as start() */
  async run(options: AgentRunOptions): Promise<RunResult> {
    return this.start(options).result;
  }

  /**
   * Waits for an agent of a restored guest and makes that one of its own, as far as the agent can: its random numbers (vivarium's) and, where
   * `wallMs` is given, its clock.
   *
   * @throws as ready()
   */
  async readyAsClone(options: WaitOptions & { wallMs?: () => number } = {}): Promise<void> {
    await firstOf([this.own.readyAsClone(options), this.qemu && tellClone(this.qemu, options)]);
  }

  /** Whatever waits rejects with `reason`. Idempotent. */
  close(reason?: Error): void {
    this.own.close(reason);
    this.qemu?.close(reason);
  }
}

async function tellClone(agent: QemuAgentClient, options: WaitOptions & { wallMs?: () => number }): Promise<void> {
  const { wallMs, ...waiting } = options;
  await agent.ready(waiting);
  if (wallMs) await agent.setClock(wallMs, waiting.signal);
}

/** What comes to something first; where nothing does, what the first of them has to say. */
async function firstOf(all: readonly (Promise<unknown> | undefined)[]): Promise<void> {
  try {
    await Promise.any(all.filter((each) => each !== undefined));
  } catch (error) {
    throw (error as AggregateError).errors[0];
  }
}
