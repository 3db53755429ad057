/** The C agent on this Linux, over its stdin and stdout, with a client that speaks to it: commands in a guest without a guest. */
import { execFileSync, spawn, type ChildProcess, type SpawnOptions } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { AgentClient } from '../../lib/agent/client.js';
import { FakeChannel } from '../../lib/agent/fake-agent.js';
import { GuestAgents } from '../../lib/agent/guest-agents.js';

const SOURCES = ['agent.c', 'clock.c'].map((name) => fileURLToPath(new URL(`../../guest/${name}`, import.meta.url)));

export function buildNativeAgent(program: string): void {
  execFileSync('cc', ['-O1', '-Wall', '-Wextra', '-Werror', '-DAGENT_STDIO', '-o', program, ...SOURCES]);
}

export interface NativeAgent {
  readonly agents: GuestAgents;
  readonly client: AgentClient;
  readonly child: ChildProcess;
}

export function startNativeAgent(program: string, options: Pick<SpawnOptions, 'uid' | 'gid'> = {}): NativeAgent {
  const child = spawn(program, { ...options, stdio: ['pipe', 'pipe', 'inherit'] });
  const channel = new FakeChannel();
  const agents = new GuestAgents({ channel });
  channel.onGuestBytes = (bytes) => void child.stdin.write(bytes);
  child.stdin.on('error', () => undefined);
  child.stdout.on('data', (chunk: Buffer) => channel.fromGuest(chunk));
  channel.open();
  return { agents, client: agents.own, child };
}
