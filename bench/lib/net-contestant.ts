/**
 * A machine of the net program, inside: started, asked over its guest's console to go through jobs, and its account. What an
 * account counts has gone through its tap.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { NET_ENDS, NET_READY } from './net-request.js';

/** utime and stime of /proc/PID/stat: USER_HZ is 100 on every Linux. */
const US_PER_TICK = 10_000;

/** Out of the guest, and into it. */
export interface Account {
  /** Of the whole process, its threads' and its guest's included. */
  readonly cpuUs: number;
  readonly framesOut: number;
  readonly bytesOut: number;
  readonly framesIn: number;
  readonly bytesIn: number;
}

/** What a job's program said, and what the job took. */
export interface Answer {
  readonly numbers: readonly number[];
  readonly spent: Account;
}

export class NetContestant {
  readonly #child: ChildProcess;
  readonly #tap: string;
  #text = '';
  #line = '';
  #waiting: { resolve: (line: string) => void; reject: (error: Error) => void } | undefined;

  constructor(command: { program: string; args: readonly string[]; env: NodeJS.ProcessEnv }, tap: string) {
    this.#tap = tap;
    this.#child = spawn(command.program, command.args, { stdio: ['pipe', 'pipe', 'pipe'], env: command.env });
    this.#child.stdout!.on('data', (chunk: Buffer) => this.#read(chunk.toString('latin1')));
    this.#child.stderr!.on('data', (chunk: Buffer) => (this.#text += chunk.toString('latin1')));
    this.#child.once('close', () => this.#fail('has ended'));
  }

  /** The guest waits for jobs. @throws Error with the end of its console. */
  async ready(deadlineMs: number): Promise<void> {
    await this.#answer(deadlineMs);
  }

  /** @throws Error with the end of the guest's console. */
  async ask(line: string, deadlineMs: number): Promise<Answer> {
    const before = this.account();
    const answer = this.#answer(deadlineMs);
    this.#child.stdin!.write(`${line}\n`);
    const numbers = NET_ENDS.exec(await answer)!
      .slice(2)
      .map(Number);
    const after = this.account();
    const names = Object.keys(before) as (keyof Account)[];
    const spent = Object.fromEntries(names.map((name) => [name, after[name] - before[name]])) as unknown as Account;
    return { numbers, spent };
  }

  account(): Account {
    const fields = readFileSync(`/proc/${this.#child.pid!}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
    const folder = path.join('/sys/class/net', this.#tap, 'statistics');
    const count = (name: string) => Number(readFileSync(path.join(folder, name), 'utf8'));
    return {
      cpuUs: (Number(fields[11]) + Number(fields[12])) * US_PER_TICK,
      // The tap received what the guest sent.
      framesOut: count('rx_packets'),
      bytesOut: count('rx_bytes'),
      framesIn: count('tx_packets'),
      bytesIn: count('tx_bytes'),
    };
  }

  /** Ends it, at once. */
  end(): void {
    this.#child.kill('SIGKILL');
  }

  async #answer(deadlineMs: number): Promise<string> {
    const timer = setTimeout(() => this.#fail('does not answer'), deadlineMs);
    try {
      return await new Promise<string>((resolve, reject) => (this.#waiting = { resolve, reject }));
    } finally {
      clearTimeout(timer);
    }
  }

  #read(chunk: string): void {
    this.#text = (this.#text + chunk).slice(-10_000);
    const lines = (this.#line + chunk).split('\n');
    this.#line = lines.pop()!;
    for (const line of lines.map((each) => each.trim())) {
      if (line === NET_READY || NET_ENDS.test(line)) this.#waiting?.resolve(line);
    }
  }

  #fail(what: string): void {
    this.#waiting?.reject(new Error(`${this.#tap}: the machine ${what}: ${this.#text.slice(-1500)}`));
  }
}
